"""Reading 2 of a schedule: joules per kernel and component, from what its rows do and how long they take.

energy = Σ operations × energy per operation + Σ bytes × energy per byte read and written + static power × time.

Every figure carries the interval of what is published for its action. Components add up to the total to the last digit,
because every entry is a multiple of one power of two, small against the total and large against its last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hwsim.energy.counting import count
from hwsim.energy.levels import DEFAULT_NODE_NM
from hwsim.energy.meter import meter
from hwsim.energy.static import StaticPower, static_power
from hwsim.errors import HwsimError
from hwsim.machine.accelerator import Accelerator
from hwsim.power.activity import Activity, action_joules
from hwsim.schedule.table import LEVEL, Schedule

Floats = npt.NDArray[np.float64]


@runtime_checkable
class TimeLine(Protocol):
    """A timing as this reading sees it: when each kernel's share of the time line begins and ends, in cycles."""

    @property
    def begin(self) -> npt.NDArray[np.int64]:
        """First cycle of each kernel."""

    @property
    def end(self) -> npt.NDArray[np.int64]:
        """Cycle after the last one of each kernel."""


@dataclass(frozen=True)
class Energy:
    """Joules of every kernel by component: ``joules[k, c]`` is component ``components[c]`` of kernel ``k``.

    ``low_j``/``high_j`` are the same at the ends of the published intervals (all actions wrong the same way).
    ``time_s`` is what static power was multiplied by. ``read_bytes``/``written_bytes``[k, m] are the traffic of memory
    ``memories[m]``; ``macs`` and ``issued_macs`` are those of the schedule (passes counted) without and with padding.
    ``notes`` say what was assumed.
    """

    components: tuple[str, ...]
    joules: Floats
    low_j: Floats
    high_j: Floats
    time_s: Floats
    memories: tuple[str, ...]
    read_bytes: Floats
    written_bytes: Floats
    macs: Floats
    issued_macs: Floats
    lane_ops: Floats
    static: StaticPower
    tdp_w: float | None
    notes: tuple[str, ...]

    @property
    def kernel_j(self) -> Floats:
        """Joules of each kernel."""
        out: Floats = self.joules.sum(axis=1)
        return out

    @property
    def total_j(self) -> float:
        """Joules of all kernels."""
        return float(self.joules.sum())

    @property
    def interval_j(self) -> tuple[float, float]:
        """Joules of all kernels with every action at the low and at the high end of its interval."""
        return float(self.low_j.sum()), float(self.high_j.sum())

    @property
    def per_kernel(self) -> dict[str, Floats]:
        """Joules of each component by kernel."""
        return {name: self.joules[:, i] for i, name in enumerate(self.components)}

    @property
    def by_component(self) -> dict[str, float]:
        """Joules of each component over all kernels; they add up to `total_j` exactly."""
        return dict(zip(self.components, self.joules.sum(axis=0).tolist(), strict=True))

    @property
    def power_w(self) -> float:
        """Average power over the time of all kernels; 0 when they take none."""
        return power_w(self.total_j, float(self.time_s.sum()))

    @property
    def static_share(self) -> float:
        """Part of the joules that waiting would have cost as well; 0 for nothing."""
        return self.by_component["static"] / self.total_j if self.total_j > 0 else 0.0

    def power_at_load(self, load: float) -> float:
        """Average power of a machine that runs this for a part ``load`` of the time and waits for the rest, W.

        Linear between waiting and work, which measured machines are not: a TPU v1 at a tenth of its load draws 88 to 94 %
        of its full power where this says 59 to 78 %. Raises HwsimError for a load outside 0 to 1.
        """
        if not 0 <= load <= 1:
            raise HwsimError(f"energy: load {load:g} is no part of the time: 0 to 1 expected")
        return load * self.power_w + (1 - load) * self.static.power_w.value

    @property
    def dynamic_j(self) -> float:
        """Joules that depend on the work, not on the time."""
        return self.total_j - self.by_component["static"]


def power_w(energy_j: float, time_s: float) -> float:
    """Return the average power of ``energy_j`` spent over ``time_s``; 0 when no time passes."""
    return energy_j / time_s if time_s > 0 else 0.0


def exceeds(power: float, tdp_w: float | None) -> bool:
    """Return whether an average power is above the design power, so that the sustained clock would be lower."""
    return tdp_w is not None and power > tdp_w


def read_energy(
    schedule: Schedule,
    cycles: npt.ArrayLike | TimeLine,
    acc: Accelerator,
    *,
    clock_hz: float,
    cores: int | None = None,
    chips: int = 1,
    dynamic_scale: float = 1.0,
    static_scale: float = 1.0,
    core_clock_hz: npt.ArrayLike | None = None,
    toggle: float = 1.0,
) -> Energy:
    """Return the energy of every kernel of ``schedule`` on ``acc``.

    ``cycles`` are those of each kernel's share of the time line (they add up to the run), at ``clock_hz``, or a timing
    that has their begin and end. The schedule is one program's, on ``cores`` of a chip (default: all that share a
    program), which pays for as large a part of the chip's static power; ``chips`` such programs run side by side.
    ``dynamic_scale`` and ``static_scale`` multiply the energy of the work and the static power. ``core_clock_hz`` (one
    number, or one per kernel) is the clock whose voltage the work is done at, where it is not the machine's; ``toggle``
    is the switching of the data over that of random numbers. Raises HwsimError when the cycles are not one non-negative
    number per kernel.
    """
    line = cycles.end - cycles.begin if isinstance(cycles, TimeLine) else cycles
    spent = np.asarray(line, dtype=np.float64)
    if spent.shape != (schedule.kernels,) or not np.all(spent >= 0) or not clock_hz > 0:
        raise HwsimError(f"energy: expected the cycles of {schedule.kernels} kernels at a clock above 0 Hz")
    time_s = spent / clock_hz
    local = bool((schedule.source == LEVEL["local"]).any() or (schedule.target == LEVEL["local"]).any())
    found = meter(acc, local)
    counted = count(schedule, found)
    profile = found.profile
    static = static_power(acc, cores)
    if profile.statics:  # the profile knows how static power follows the clock
        watts = np.broadcast_to(profile.static_w(core_clock_hz), (schedule.kernels, 3))
    else:
        watts = np.broadcast_to(np.array(static.power_w), (schedule.kernels, 3))
    activity = Activity(tuple(profile.index), counted.counts, time_s)
    joules = action_joules(activity, profile, clock_hz=core_clock_hz, toggle=toggle) * (dynamic_scale * chips)
    joules[:, -1] += time_s[:, None] * watts * static_scale * chips
    joules = _quantised(joules)
    names = profile.components
    at = {name: i for i, name in enumerate(names)}
    notes = [static.note] if static.note else []
    if acc.power.node_nm is None:
        notes.append(f"process node of {acc.id} is unknown: energy per action as at {DEFAULT_NODE_NM:g} nm")
    notes += [note for component, note in found.notes if joules[:, at[component], 0].any()]
    result = Energy(
        names, joules[:, :, 0], joules[:, :, 1], joules[:, :, 2], time_s, found.memories,
        counted.counts[:, found.memory_read] * chips, counted.counts[:, found.memory_write] * chips,
        counted.macs * chips, counted.issued_macs * chips, counted.lane_ops * chips, static, acc.power.tdp_w,
        tuple(notes),
    )  # fmt: skip
    return _with_power_note(result, chips * static.share)


def _with_power_note(result: Energy, chips: float) -> Energy:
    # A sustained clock is found to within a hundredth of the limit.
    if result.tdp_w is None or not exceeds(result.power_w, result.tdp_w * chips * 1.01):
        return result
    note = (
        f"average power {result.power_w:.3g} W exceeds the design power of {result.tdp_w * chips:.3g} W: "
        "the sustained clock would be lower"
    )
    return replace(result, notes=(*result.notes, note))


def _quantised(values: Floats) -> Floats:
    """``values`` [..., 3] >= 0 rounded to a power of two so small and so large that any sum of them is exact."""
    total = float(values.sum(axis=(0, 1)).max(initial=0.0))
    if not 0 < total < math.inf:
        return values
    quantum = 2.0 ** (math.frexp(total)[1] - 50)
    out: Floats = np.rint(values / quantum) * quantum
    return out
