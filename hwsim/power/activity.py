"""What a machine does, counted by action, and what each action costs: joules by component.

joules = sum over actions of count x energy at the reference voltage x (V / reference)^2 + static watts x time

An `Activity` is counts per kernel (or per problem): multiply-accumulates by pipe and format, instructions, lane
operations, bytes read and written by memory, and seconds. A `PowerProfile` is one machine at one power mode. The energy
reading fills both from a schedule and a machine file; anything else may fill an activity by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.power.curve import VoltageCurve
from hwsim.power.span import Span

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of event: its component, its energy at the reference voltage, J, and what scales it.

    ``core`` actions are on the rail whose voltage follows the clock; ``toggles`` says whether the data matters.
    """

    name: str
    component: str
    energy_j: Span
    core: bool = False
    toggles: bool = False


@dataclass(frozen=True, slots=True)
class StaticPart:
    """One part of the power that does not depend on the work: W at the highest clock, and how it follows the clock.

    ``follows`` is ``none``, ``leakage`` (voltage alone) or ``clocking`` (f V^2: clock trees, what switches anyway).
    """

    name: str
    power_w: Span
    follows: str = "none"


@dataclass(frozen=True, eq=False)
class PowerProfile:
    """One machine in one power mode: its actions, static parts, voltage curve, clocks and power limit.

    ``clock_hz`` is the clock it runs at unless a power limit lowers it, not below ``floor_hz``; ``extra_instructions`` those
    beside one that computes or moves. Without a curve nothing
    scales (machines whose clock never changes).
    """

    actions: tuple[Action, ...]
    statics: tuple[StaticPart, ...] = ()
    curve: VoltageCurve | None = None
    clock_hz: float = 0.0
    floor_hz: float = 0.0
    tdp_w: float | None = None
    extra_instructions: float = 0.0
    notes: tuple[str, ...] = ()

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Column of each action."""
        return {action.name: i for i, action in enumerate(self.actions)}

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Names of the components, in the order of the actions, ``static`` last."""
        return (*dict.fromkeys(action.component for action in self.actions), "static")

    @cached_property
    def energy_j(self) -> Floats:
        """Energies at the reference voltage, [action, (value, low, high)]."""
        return np.array([action.energy_j for action in self.actions], dtype=np.float64).reshape(-1, 3)

    @cached_property
    def by_component(self) -> Floats:
        """Energies at the reference voltage, [action, component, (value, low, high)]."""
        out = np.zeros((len(self.actions), len(self.components), 3))
        for i, action in enumerate(self.actions):
            out[i, self.components.index(action.component)] = action.energy_j
        return out

    @cached_property
    def core(self) -> Floats:
        """1 where an action is on the rail that follows the clock, [action]."""
        return np.array([action.core for action in self.actions], dtype=np.float64)

    @cached_property
    def toggles(self) -> Floats:
        """1 where the data matters, [action]."""
        return np.array([action.toggles for action in self.actions], dtype=np.float64)

    def scale(self, clock_hz: Any = None, toggle: float = 1.0) -> Floats:
        """Return what each action costs at a clock over its cost at the reference voltage, [..., action]."""
        data = 1.0 - self.toggles * (1.0 - toggle)
        if self.curve is None:
            return data
        core = np.asarray(self.curve.dynamic(self.clock_hz if clock_hz is None else clock_hz))[..., None]
        out: Floats = data * np.where(self.core > 0, core, 1.0)
        return out

    def static_w(self, clock_hz: Any = None) -> Floats:
        """Return static power at a clock, [..., (value, low, high)], W."""
        clock = np.asarray(self.clock_hz if clock_hz is None else clock_hz, dtype=np.float64)
        out: Floats = np.zeros((*clock.shape, 3))
        for part in self.statics:
            factor: Any = 1.0
            if self.curve is not None and part.follows == "leakage":
                factor = self.curve.leakage(clock)
            elif self.curve is not None and part.follows == "clocking":
                factor = self.curve.clocking(clock)
            out = out + np.asarray(factor, dtype=np.float64)[..., None] * np.array(part.power_w)
        return out


@dataclass(frozen=True, eq=False)
class Activity:
    """Counts of actions per kernel, and the seconds each kernel takes: ``counts[kernel, action]``, ``time_s[kernel]``.

    Columns are those of ``names``. Raises HwsimError when shapes do not fit or a number is negative.
    """

    names: tuple[str, ...]
    counts: Floats
    time_s: Floats

    def __post_init__(self) -> None:
        if self.counts.shape != (len(self.time_s), len(self.names)):
            raise HwsimError(f"activity: {self.counts.shape} counts for {len(self.time_s)} x {len(self.names)} actions")
        if not (np.all(self.counts >= 0) and np.all(self.time_s >= 0)):
            raise HwsimError("activity: counts and seconds cannot be negative")

    @classmethod
    def of(cls, counts: Mapping[str, Any], time_s: Any) -> Activity:
        """Return the activity of named counts (numbers, or arrays of one value per kernel) over ``time_s`` seconds."""
        times = np.atleast_1d(np.asarray(time_s, dtype=np.float64))
        columns = [np.broadcast_to(np.asarray(n, dtype=np.float64), times.shape) for n in counts.values()]
        table = np.stack(columns, axis=1) if columns else np.zeros((len(times), 0))
        return cls(tuple(counts), table, times)

    def on(self, profile: PowerProfile) -> Floats:
        """Return the counts in the columns of ``profile``; raises HwsimError for an action it does not have."""
        if self.names == tuple(profile.index):
            return self.counts
        out = np.zeros((len(self.time_s), len(profile.actions)))
        for i, name in enumerate(self.names):
            at = profile.index.get(name)
            if at is None:
                raise HwsimError(f"no action '{name}' on this machine{near(name, profile.index)}")
            out[:, at] += self.counts[:, i]
        return out


@dataclass(frozen=True, eq=False)
class Joules:
    """Energy of every kernel by component: ``energy_j[kernel, component, (value, low, high)]`` over ``time_s``."""

    components: tuple[str, ...]
    energy_j: Floats
    time_s: Floats

    @property
    def total_j(self) -> Span:
        """Joules of all kernels."""
        value, low, high = (float(v) for v in self.energy_j.sum(axis=(0, 1)))
        return Span(value, low, high)

    @property
    def power_w(self) -> Span:
        """Average power over all kernels, W; zero when no time passes."""
        seconds = float(self.time_s.sum())
        return self.total_j.scaled(1 / seconds) if seconds > 0 else Span(0.0, 0.0, 0.0)

    @property
    def by_component(self) -> dict[str, float]:
        """Joules of each component over all kernels."""
        return dict(zip(self.components, self.energy_j[:, :, 0].sum(axis=0).tolist(), strict=True))


def joules(activity: Activity, profile: PowerProfile, *, clock_hz: Any = None, toggle: float = 1.0) -> Joules:
    """Return what an activity costs on a machine, by kernel and component, with the interval of published figures.

    ``clock_hz`` (a number, or one per kernel) replaces the profile's; ``toggle`` is the switching of the data over that
    of random values. Raises HwsimError for an action the machine does not have.
    """
    out = action_joules(activity, profile, clock_hz=clock_hz, toggle=toggle)
    static = np.broadcast_to(profile.static_w(clock_hz), (len(activity.time_s), 3))
    out[:, -1] += activity.time_s[:, None] * static
    return Joules(profile.components, out, activity.time_s)


def action_joules(activity: Activity, profile: PowerProfile, *, clock_hz: Any = None, toggle: float = 1.0) -> Floats:
    """Return the joules of the actions alone, [kernel, component, (value, low, high)]; arguments as of `joules`."""
    counts = activity.on(profile)
    scale = np.broadcast_to(profile.scale(clock_hz, toggle), counts.shape)
    out: Floats = np.einsum("ka,acx->kcx", counts * scale, profile.by_component)
    return out
