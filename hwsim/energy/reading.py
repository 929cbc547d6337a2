"""Reading 2 of a schedule: joules per kernel and component, from what its rows do and how long they take.

energy = Σ operations × energy per operation + Σ bytes × energy per byte read and written + static power × time.

Every figure carries the interval of what is published for its action. Components add up to the total to the last digit,
because every entry is a multiple of one power of two, small against the total and large against its last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hwsim.energy.cells import ADDERS, adder_of, cell_format, float_lanes, hop_bits, multiplier_j, native_formats
from hwsim.energy.levels import DEFAULT_NODE_NM, Store, level_map, link_kind, matrix_unit, memory_store
from hwsim.energy.static import StaticPower, static_power
from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator
from hwsim.power.actions import load_actions
from hwsim.power.span import NOTHING, Span
from hwsim.schedule.table import AXIS, LEVEL, LEVELS, LOOPS, OPERANDS, OPERATION, UNIT, Schedule

Floats = npt.NDArray[np.float64]

_FORMATS = tuple(FORMATS)
_LANE_BITS = 32


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
    def dynamic_j(self) -> float:
        """Joules that depend on the work, not on the time."""
        return self.total_j - self.by_component["static"]


def power_w(energy_j: float, time_s: float) -> float:
    """Return the average power of ``energy_j`` spent over ``time_s``; 0 when no time passes."""
    return energy_j / time_s if time_s > 0 else 0.0


def exceeds(power: float, tdp_w: float | None) -> bool:
    """Return whether an average power is above the design power, so that the sustained clock would be lower."""
    return tdp_w is not None and power > tdp_w


@dataclass(frozen=True, eq=False)
class _Profile:
    """Everything of a machine the reading multiplies by, as arrays whose last axis is value, low, high."""

    components: tuple[str, ...]
    stores: tuple[Store, ...]
    store_of: npt.NDArray[np.int64]  # [level, operand] to store
    read_j: Floats  # [store, component, 3], J per byte
    write_j: Floats
    multiply_j: Floats  # [format, 3]
    add_j: Floats  # [adder, 3]
    group_adder: Floats  # [3], factor
    default_adder: npt.NDArray[np.int64]  # format to adder
    hop_bits: Floats  # format to bits handed on per multiply-accumulate
    hop_j: Floats
    padding: Floats
    alu_j: Floats
    lane_register_j: Floats
    ops_ratio: Floats  # [operation], lane operations at least
    interconnect_j: Floats  # J per byte
    notes: tuple[tuple[str, str], ...]  # (component, what is assumed of it)


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
) -> Energy:
    """Return the energy of every kernel of ``schedule`` on ``acc``.

    ``cycles`` are those of each kernel's share of the time line (they add up to the run), at ``clock_hz``, or a timing
    that has their begin and end. The schedule is one program's, on ``cores`` of a chip (default: all that share a
    program), which pays for as large a part of the chip's static power; ``chips`` such programs run side by side.
    ``dynamic_scale`` and ``static_scale`` multiply the energy of the work and the static power (a mode's voltage and
    clock). Raises HwsimError when the cycles are not one non-negative number per kernel.
    """
    line = cycles.end - cycles.begin if isinstance(cycles, TimeLine) else cycles
    spent = np.asarray(line, dtype=np.float64)
    if spent.shape != (schedule.kernels,) or not np.all(spent >= 0) or not clock_hz > 0:
        raise HwsimError(f"energy: expected the cycles of {schedule.kernels} kernels at a clock above 0 Hz")
    time_s = spent / clock_hz
    local = bool((schedule.source == LEVEL["local"]).any() or (schedule.target == LEVEL["local"]).any())
    profile = _profile(acc, local)
    static = static_power(acc, cores)
    names = profile.components
    activity = _Activity(schedule)
    read, written = activity.traffic(profile)
    joules = np.einsum("ks,scx->kcx", read, profile.read_j) + np.einsum("ks,scx->kcx", written, profile.write_j)
    at = {name: i for i, name in enumerate(names)}
    useful, issued, hops = activity.macs(profile)
    joules[:, at["matrix"]] += useful[0]
    joules[:, at["padding"]] += (issued[0] - useful[0]) * profile.padding
    joules[:, at["array"]] += hops[:, None] * profile.hop_j
    lane_ops = activity.lane_ops(profile)
    joules[:, at["vector"]] += lane_ops[:, None] * profile.alu_j
    joules[:, at["registers"]] += lane_ops[:, None] * profile.lane_register_j
    joules[:, at["interconnect"]] += activity.interconnect_bytes()[:, None] * profile.interconnect_j
    joules *= dynamic_scale * chips
    joules[:, at["static"]] += time_s[:, None] * np.array(static.power_w) * static_scale * chips
    joules = _quantised(joules)
    notes = [static.note] if static.note else []
    if acc.power.node_nm is None:
        notes.append(f"process node of {acc.id} is unknown: energy per action as at {DEFAULT_NODE_NM:g} nm")
    notes += [note for component, note in profile.notes if joules[:, at[component], 0].any()]
    memories = tuple(store.memory for store in profile.stores if store.memory)
    columns = [i for i, store in enumerate(profile.stores) if store.memory]
    result = Energy(
        names, joules[:, :, 0], joules[:, :, 1], joules[:, :, 2], time_s, memories,
        read[:, columns] * chips, written[:, columns] * chips, useful[1] * chips, issued[1] * chips, lane_ops * chips,
        static, acc.power.tdp_w, tuple(notes),
    )  # fmt: skip
    return _with_power_note(result, chips * static.share)


def _with_power_note(result: Energy, chips: float) -> Energy:
    if result.tdp_w is None or not exceeds(result.power_w, result.tdp_w * chips):
        return result
    note = (
        f"average power {result.power_w:.3g} W exceeds the design power of {result.tdp_w * chips:.3g} W: "
        "the sustained clock would be lower (not modelled)"
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


class _Activity:
    """What the rows of a schedule do, summed per kernel."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._kernels = schedule.kernels
        self._iterations = schedule.iterations()
        self._transfers = np.take_along_axis(self._iterations, schedule.refetch, axis=1)
        self._moved = (self._transfers * schedule.bytes).astype(np.float64)
        self._instances = self._iterations[:, LOOPS].astype(np.float64)

    def traffic(self, profile: _Profile) -> tuple[Floats, Floats]:
        """Bytes read from and written to each store, [kernel, store]."""
        schedule = self._schedule
        stores = len(profile.stores)
        operand = np.arange(len(OPERANDS))[None, :]
        kernel = schedule.kernel[:, None] * stores
        read = self._sum(kernel + profile.store_of[schedule.source, operand], self._moved, stores)
        write_at = kernel + profile.store_of[schedule.target, operand]
        written = self._sum(write_at, self._moved, stores)
        # Partial sums that are added to are read first: all but those that start an accumulation.
        c = OPERANDS.index("c")
        adds = (schedule.op == OPERATION["mac"]) & (schedule.target[:, c] == LEVEL["accumulator"])
        again = np.where(adds, self._moved[:, c] - self._starts() * schedule.bytes[:, c], 0.0)
        read += self._sum(write_at[:, c], again, stores)
        return read, written

    def _starts(self) -> Floats:
        """Transfers of C that begin an accumulation: those with every k loop around them at index 0."""
        schedule = self._schedule
        depth = schedule.refetch[:, OPERANDS.index("c")]
        outside = np.arange(LOOPS)[None, :] < depth[:, None]
        k_loop = schedule.axis == AXIS["k"]
        per_loop = np.where(k_loop, schedule.first == 0, schedule.trips)
        starts = np.where(outside, per_loop, 1).prod(axis=1)
        for row in np.flatnonzero(schedule.bend[:, 0] >= 0):
            loop, outer, step, first_step = (int(v) for v in schedule.bend[row])
            if loop >= depth[row]:
                continue
            first = int(schedule.first[row, outer])
            at = np.arange(first, first + int(schedule.trips[row, outer]))
            trips = schedule.trips[row, loop] + step * at
            if k_loop[row, loop]:
                trips = (trips > 0) & (schedule.first[row, loop] + first_step * at == 0)
            if k_loop[row, outer]:
                trips = trips * (at == 0)
            others = [v for v in range(depth[row]) if v not in (loop, outer)]
            starts[row] = trips.sum() * per_loop[row, others].prod()
        out: Floats = np.where(schedule.first_of_k == 1, starts, 0).astype(np.float64)
        return out

    def macs(self, profile: _Profile) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats], Floats]:
        """(Joules [kernel, 3], operations [kernel]) useful and issued, and bits handed on inside the array [kernel]."""
        schedule = self._schedule
        rows = np.flatnonzero(schedule.op == OPERATION["mac"])
        kernel, form = schedule.kernel[rows], schedule.format[rows]
        adder = profile.default_adder[form]
        named = schedule.reduce[rows, 2]
        adder = np.where(named > 0, _ADDER_OF_FORMAT[named], adder)
        saving = np.where((schedule.reduce[rows, 0] >= 4)[:, None], profile.group_adder, 1.0)
        each = profile.multiply_j[form] + profile.add_j[adder] * saving
        out = []
        spent = np.maximum(schedule.ops[rows], schedule.issued[rows])
        for operations in (schedule.ops[rows], spent):
            times = self._instances[rows] * operations
            joules = np.stack([self._sum(kernel, times * each[:, i]) for i in range(3)], axis=1)
            out.append((joules, self._sum(kernel, times)))
        hops = self._sum(kernel, self._instances[rows] * spent * profile.hop_bits[form])
        return out[0], out[1], hops

    def lane_ops(self, profile: _Profile) -> Floats:
        """Operations of single lanes, [kernel]: as issued, and at least what the useful operations need."""
        schedule = self._schedule
        least = schedule.ops * profile.ops_ratio[schedule.op]
        lane = np.isin(schedule.op, [OPERATION[name] for name in ("alu", "special", "convert")])
        return self._sum(schedule.kernel, np.where(lane, self._instances * np.maximum(schedule.issued, least), 0.0))

    def interconnect_bytes(self) -> Floats:
        """Bytes that cross links between chips, [kernel]: what link rows move other than from or to the host."""
        schedule = self._schedule
        host = (schedule.source == LEVEL["host"]) | (schedule.target == LEVEL["host"])
        crossing = (schedule.unit == UNIT["link"])[:, None] & ~host
        return self._sum(schedule.kernel, np.where(crossing, self._moved, 0.0).sum(axis=1))

    def _sum(self, at: npt.NDArray[np.int64], values: Floats, width: int = 1) -> Floats:
        flat = np.bincount(at.ravel(), weights=values.ravel(), minlength=self._kernels * width).astype(np.float64)
        return flat.reshape(self._kernels, width) if width > 1 else flat


_ADDER_OF_FORMAT = np.array([ADDERS.index(adder_of(name)) for name in _FORMATS])


@lru_cache(maxsize=64)
def _profile(acc: Accelerator, local_used: bool) -> _Profile:
    actions = load_actions()
    node = acc.power.node_nm or DEFAULT_NODE_NM
    levels = level_map(acc, local_used=local_used)
    # Every memory of the machine has its column, used or not, so that all results on it have the same columns.
    stores = list(dict.fromkeys([*_memory_stores(acc, levels), *levels.values()]))
    memories = [store.memory for store in stores if store.memory]
    parts = ("matrix", "padding", "array", "vector", "registers", *memories, "link", "interconnect", "static")
    components = tuple(dict.fromkeys(parts))  # a memory may be called registers
    store_of = np.array([[stores.index(levels[level, operand]) for operand in OPERANDS] for level in LEVELS])
    native = native_formats(acc)
    # Code 0 (fp64) of a row says nothing unless the machine has fp64: its first format then.
    unset = native[0] if native and "fp64" not in native else _FORMATS[0]
    named = (unset, *_FORMATS[1:])
    cells = [cell_format(name, native) for name in named]
    hop = actions.at("hop", "", node) if matrix_unit(acc) is not None else NOTHING
    registers = levels["register", "a"]
    per_op = registers.read_j.scaled(2).plus(registers.write_j).scaled(_LANE_BITS / 8)
    alu = actions.at("alu", "fp32" if float_lanes(acc) else "int32", node)
    ratio = {name: actions.at("ratio", name, node) for name in ("group_adder", "padding", "special")}
    return _Profile(
        components=components,
        stores=tuple(stores),
        store_of=store_of,
        read_j=np.stack([_in_component(store.component, store.read_j, components) for store in stores]),
        write_j=np.stack([_in_component(store.component, store.write_j, components) for store in stores]),
        multiply_j=np.array([multiplier_j(name, node) for name in cells]),
        add_j=np.array([actions.at("add", name, node) for name in ADDERS]),
        group_adder=np.array(ratio["group_adder"]),
        default_adder=np.array([ADDERS.index(adder_of(name)) for name in named]),
        hop_bits=np.array([hop_bits(acc, name) for name in cells], dtype=np.float64),
        hop_j=np.array(hop),
        padding=np.array(ratio["padding"]),
        alu_j=np.array(alu),
        lane_register_j=np.array(per_op),
        ops_ratio=np.array([ratio["special"].value if name == "special" else 1.0 for name in OPERATION]),
        interconnect_j=np.array(actions.at("link", "ici", node).scaled(8)),
        notes=_notes(acc),
    )


def _in_component(component: str, span: Span, components: tuple[str, ...]) -> Floats:
    out = np.zeros((len(components), 3))
    if component:
        out[components.index(component)] = span
    return out


def _memory_stores(acc: Accelerator, levels: Mapping[tuple[str, str], Store]) -> list[Store]:
    node = acc.power.node_nm or DEFAULT_NODE_NM
    found = {store.memory: store for store in levels.values() if store.memory}
    return [found.get(level.name) or memory_store(acc, level, node) for level in acc.memory.values()]


def _notes(acc: Accelerator) -> tuple[tuple[str, str], ...]:
    """What is assumed of a machine's memories and links, each with the component it matters to."""
    actions = load_actions()
    used = [(level.name, "dram", level.kind) for level in acc.memory.values() if level.is_dram]
    used += [("link", "link", link_kind(acc.host.link)), ("interconnect", "link", "ici")]
    return tuple(
        (component, f"energy of {key} per bit is {record.source}")
        for component, action, key in used
        for record in actions.records(action, key)
        if record.kind == "assumed"
    )
