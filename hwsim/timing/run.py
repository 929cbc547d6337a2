"""Reading 1 of a schedule: the pipeline engine over all its kernels, in order, with what each kernel waited for.

Units keep their queues and buffers from kernel to kernel, so a stage that does not wait for the previous kernel (a
weight prefetch) runs ahead of it as far as its buffers allow. Buffers carry over between the stages of the same unit
that are waited for by the same name (the n-th of them in one kernel and the n-th in the next).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.schedule.table import CAUSES as CAUSE_NAMES
from hwsim.schedule.table import UNIT, Schedule
from hwsim.timing.pipeline import (
    BUFFERS,
    CAUSES,
    DEPS,
    MAX_LOOPS,
    MAX_STAGES,
    RING,
    STAGE_STATE,
    UNITS,
    release,
    run_nest,
    state_size,
    work_size,
)

Ints = npt.NDArray[np.int64]
Slots = tuple[int, int, int]
"""Whose buffers: unit, cause, and how many buffered stages of the kernel with that unit and cause came before."""


class Nest(NamedTuple):
    """One kernel of a schedule in the form the engine takes (see `pipeline.run_nest`)."""

    trips: tuple[int, ...]
    bend: tuple[int, int, int]
    stages: int
    unit: tuple[int, ...]
    depth: tuple[int, ...]
    at_end: tuple[int, ...]
    buffers: tuple[int, ...]
    dep: tuple[int, ...]
    lag: tuple[int, ...]
    reach: tuple[int, ...]
    user: tuple[int, ...]
    cause: tuple[int, ...]
    awaits: tuple[int, ...]
    heads: tuple[int, ...]
    mask: tuple[int, ...]
    service: tuple[int, ...]
    spine: int
    queues: tuple[tuple[int, int], ...]  # units in use, and the smallest ``awaits`` of their stages
    queue: tuple[int, ...]  # by stage: which of ``queues``
    slots: tuple[tuple[int, Slots], ...]  # stages with buffers, and whose these are


_READ = (
    "stage", "unit", "depth", "at_end", "first", "trips", "bend", "buffers", "dep", "lag", "cause", "awaits",
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """When everything ran, in cycles: kernel ``k`` owns [begin[k], end[k]) of the timeline (these tile it).

    ``waits[k]`` splits what the kernel's spine (its matrix, else vector, else copy stage) waited for, by cause code;
    ``busy[k]`` is the cycles it was served since begin[k], so busy + waits = end − begin, exactly. ``unit_busy[k]`` is
    the kernel's service per unit code, whenever it took place.
    """

    begin: Ints
    end: Ints
    busy: Ints
    waits: Ints
    unit_busy: Ints

    @property
    def cycles(self) -> int:
        """Cycles from the first issue to the last end."""
        return int(self.end[-1]) if len(self.end) else 0

    def waits_by_name(self, kernel: int) -> dict[str, int]:
        """Nonzero waits of one kernel by cause."""
        return {CAUSE_NAMES[i]: int(v) for i, v in enumerate(self.waits[kernel]) if v}


def nests(schedule: Schedule, service: Sequence[int]) -> list[Nest]:
    """Return the engine's form of every kernel; ``service`` is the cycles one issue of each row takes.

    Raises HwsimError when the rows of a stage do not tile its iteration space, differ elsewhere than in the first and
    last iterations of a loop, or ask for more than the engine has (loops, stages, buffers, lags, affine loops).
    """
    column = {name: schedule.columns[name].tolist() for name in _READ}
    starts = schedule.starts.tolist()
    # A kernel that repeats another's rows has the same service times unless the caller gave it its own.
    found: dict[tuple[int, tuple[int, ...]], Nest] = {}
    out = []
    for k in range(schedule.kernels):
        rows = range(starts[k], starts[k + 1])
        key = (schedule.patterns[k] if schedule.patterns else k, tuple(service[rows.start : rows.stop]))
        if key not in found:
            found[key] = _nest(k, rows, column, service)
        out.append(found[key])
    return out


def _nest(kernel: int, rows: range, column: dict[str, list[Any]], service: Sequence[int]) -> Nest:
    stage, depths = column["stage"], column["depth"]
    stages = max(stage[r] for r in rows) + 1
    loops = max(depths[r] for r in rows)
    if stages > MAX_STAGES or loops > MAX_LOOPS:
        raise HwsimError(
            f"kernel {kernel}: {stages} stages of {loops} loops; the engine takes {MAX_STAGES} of {MAX_LOOPS}"
        )
    head = [-1] * stages
    for r in rows:
        if head[stage[r]] < 0:
            head[stage[r]] = r
    if -1 in head:
        raise HwsimError(f"kernel {kernel}: stage {head.index(-1)} has no rows")
    trips, bend, heads, table = _classes(kernel, rows, loops, stages, column, service)
    dep = [-1] * (stages * DEPS)
    lag = [0] * (stages * DEPS)
    reach = [1] * stages
    user = [0] * (stages * stages)
    for s in range(stages):
        for d in range(DEPS):
            q, back = column["dep"][head[s]][d], column["lag"][head[s]][d]
            if q >= 0:
                if q >= stages or not 0 <= back < RING:
                    raise HwsimError(
                        f"kernel {kernel}, stage {s}: waits for stage {q}, {back} issues back, of {RING - 1}"
                    )
                dep[s * DEPS + d], lag[s * DEPS + d] = q, back
                reach[q] = max(reach[q], back + 1)
                if q < s:
                    user[q * stages + s] = 1
    unit, depth, at_end, buffers, cause, awaits = (
        tuple(column[name][h] for h in head) for name in ("unit", "depth", "at_end", "buffers", "cause", "awaits")
    )
    if max(buffers) > BUFFERS:
        raise HwsimError(f"kernel {kernel}: a stage with {max(buffers)} buffers; the engine takes {BUFFERS}")
    mask = tuple(sum(heads[:d]) | (1 << d) - 1 for d in depth)
    slots: list[tuple[int, Slots]] = []
    for s in range(stages):
        if buffers[s]:
            same = sum(1 for _, other in slots if other[:2] == (unit[s], cause[s]))
            slots.append((s, (unit[s], cause[s], same)))
    used = sorted(set(unit))
    queues = tuple((u, min(a for a, v in zip(awaits, unit, strict=True) if u == v)) for u in used)
    queue = tuple(used.index(u) for u in unit)
    spine = next((s for code in (UNIT["matrix"], UNIT["vector"]) for s in range(stages) if unit[s] == code), stages - 1)
    return Nest(
        trips, bend, stages, unit, depth, at_end, buffers, tuple(dep), tuple(lag), tuple(reach), tuple(user), cause,
        awaits, heads, mask, table, spine, queues, queue, tuple(slots),
    )  # fmt: skip


def _classes(
    kernel: int, rows: range, loops: int, stages: int, column: dict[str, list[Any]], service: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, int, int], tuple[int, ...], tuple[int, ...]]:
    """Trips of the nest's loops, its affine loop, class bits of first iterations, and every stage's service by class.

    A class says which loops are in their first or last iteration. Rows of a stage that begin at different indices of
    the loops inside an issue are parts of one issue: they add up.
    """
    stage, depths, first, trips, bend = (column[name] for name in ("stage", "depth", "first", "trips", "bend"))
    extent = [max(first[r][v] + trips[r][v] for r in rows if depths[r] > v) for v in range(loops)]
    bent = _bend(kernel, rows, extent, column)
    heads = [0] * loops
    classes = 1 << loops
    for level in range(loops):
        # Of two iterations, the first is the one that is not the last.
        many = extent[level] > 2 or level == bent[0]
        if many and any(trips[r][level] == 1 and not first[r][level] and depths[r] > level for r in rows):
            heads[level] = classes
            classes <<= 1
    parts: dict[tuple[int, ...], list[int]] = {}  # by stage and inner indices: service by class, -1 where there is none
    missing = [-1] * stages  # iterations of the stage that no first part has covered yet
    for r in rows:
        s, depth = stage[r], depths[r]
        loop, outer, more, later = bend[r]
        if loop >= depth > outer >= 0:
            raise HwsimError(f"kernel {kernel}, stage {s}: an affine loop makes issues of one row differ")
        inner = first[r][depth:]
        if not any(inner):
            if missing[s] < 0:
                missing[s] = _iterations([0] * depth, extent[:depth], bent)
            missing[s] -= _iterations(first[r][:depth], trips[r][:depth], (loop, outer, more))
        patterns = [0]
        for level in range(depth):
            lo, n = first[r][level], trips[r][level]
            grows, moves = (more, later) if level == loop else (0, 0)
            single = n == 1 and not grows
            ends = lo + n == extent[level] and grows + moves == (bent[2] if level == bent[0] else 0)
            marks = ([] if ends and single else [0]) + ([1 << level] if ends else [])
            if heads[level] and not lo:
                head = heads[level]
                marks = [m | head for m in marks] + ([] if single and not moves else marks)
            patterns = [p | m for p in patterns for m in marks]
        table = parts.setdefault((s, *inner), [-1] * classes)
        for p in patterns:
            if table[p] not in (-1, service[r]):
                raise HwsimError(
                    f"kernel {kernel}, stage {s}: only the first and last iteration of a loop may take their own time"
                )
            table[p] = service[r]
    for s in range(stages):
        if missing[s]:
            raise HwsimError(f"kernel {kernel}, stage {s}: its rows do not tile the kernel's loops")
    total = [0] * (stages * classes)
    for key, table in parts.items():
        for p in range(classes):
            total[key[0] * classes + p] += max(0, table[p])
    return tuple(extent), bent, tuple(heads), tuple(total)


def _bend(kernel: int, rows: range, extent: list[int], column: dict[str, list[Any]]) -> tuple[int, int, int]:
    """The one affine loop outside the issues of a kernel: (loop, outer loop, more trips per index), or (-1, -1, 0)."""
    found = set()
    for r in rows:
        loop, outer, more, later = column["bend"][r]
        if 0 <= loop < column["depth"][r] and column["first"][r][loop] + column["trips"][r][loop] == extent[loop]:
            found.add((loop, outer, more + later))
    if not found:
        return -1, -1, 0
    bent = found.pop()
    if found or not 0 <= bent[1] < bent[0]:
        raise HwsimError(f"kernel {kernel}: the engine takes one affine loop, inside the loop it depends on")
    if min(extent[bent[0]], extent[bent[0]] + bent[2] * (extent[bent[1]] - 1)) < 1:
        raise HwsimError(f"kernel {kernel}: its affine loop has no iteration at one end")
    return bent


def _iterations(first: Sequence[int], trips: Sequence[int], bend: tuple[int, int, int]) -> int:
    """Iterations of a box of loops, one of them affine if it is among them."""
    loop, outer, more = bend
    total = math.prod(trips)
    if 0 <= loop < len(trips) and more:
        low, count = first[outer], trips[outer]
        total = math.prod(n for level, n in enumerate(trips) if level not in (loop, outer))
        total *= count * trips[loop] + more * (count * low + count * (count - 1) // 2)
    return total


def run(schedule: Schedule, service: Sequence[int], engine: Callable[..., int] = run_nest) -> Timing:
    """Return when every kernel of ``schedule`` runs; ``service`` is the cycles one issue of each row takes.

    Kernels with the same nest met in the same relative state are run once (a repeated block of layers costs nothing).
    """
    all_nests = nests(schedule, service)
    count = len(all_nests)
    begin, end = [0] * count, [0] * count
    ran: list[_Ran] = []
    queues = _Queues()
    memo: dict[tuple[int, _Entry], _Ran] = {}  # by which nest it is (equal kernels share one)
    now = 0
    for k, nest in enumerate(all_nests):
        producers = schedule.producers[k] if schedule.producers else ((k - 1,) if k else ())
        ready = max((end[p] for p in producers), default=0)
        origin, entry = queues.entry(nest, ready, now)
        found = memo.get((id(nest), entry))
        if found is None:
            found = memo[id(nest), entry] = _run_one(nest, entry, engine)
        queues.leave(nest, origin, found)
        ran.append(found)
        begin[k], end[k] = now, origin + found.finish
        now = end[k]
    return Timing(
        np.array(begin, np.int64), np.array(end, np.int64), np.array([r.busy for r in ran], np.int64),
        np.array([r.waits for r in ran], np.int64).reshape(count, CAUSES),
        np.array([r.unit_busy for r in ran], np.int64).reshape(count, UNITS),
    )  # fmt: skip


class _Entry(NamedTuple):
    """What a kernel finds, measured from the earliest time that matters to it: equal entries run alike."""

    begin: int
    floor: tuple[int, ...]  # by stage: earliest start, 0 if its unit is free later anyway
    free: tuple[int, ...]  # by unit in use
    released: tuple[tuple[int, ...], ...]  # by stage with buffers


class _Ran(NamedTuple):
    """What a kernel leaves behind, measured like its `_Entry`, and its figures."""

    finish: int
    free: tuple[int, ...]
    released: tuple[tuple[int, ...], ...]
    busy: int
    waits: tuple[int, ...]
    unit_busy: tuple[int, ...]


class _Queues:
    """What outlives a kernel: when each unit is free, and when the results in each kind of buffer are released."""

    def __init__(self) -> None:
        self.free = [0] * UNITS
        self.released: dict[Slots, tuple[int, ...]] = {}

    def entry(self, nest: Nest, ready: int, now: int) -> tuple[int, _Entry]:
        """The state as ``nest`` sees it, and the time it is measured from.

        Times that cannot matter are replaced: a unit free long before all its stages may begin is free just before
        that; a buffer released before the unit that fills it is free was released just then.
        """
        floor = (0, ready, now)  # by ``awaits``, ascending
        free = [max(self.free[u], floor[a] - 1) for u, a in nest.queues]
        origin = min(free)
        released = []
        for s, slots in nest.slots:
            head = free[nest.queue[s]]
            released.append(tuple([max(t, head) - origin for t in self.released.get(slots, ())[: nest.buffers[s]]]))
        floors = [floor[a] - origin if floor[a] > free[q] else 0 for a, q in zip(nest.awaits, nest.queue, strict=True)]
        return origin, _Entry(now - origin, tuple(floors), tuple([f - origin for f in free]), tuple(released))

    def leave(self, nest: Nest, origin: int, ran: _Ran) -> None:
        """Take over what a kernel run from ``origin`` has left."""
        for (u, _), t in zip(nest.queues, ran.free, strict=True):
            self.free[u] = origin + t
        for (_, slots), ring in zip(nest.slots, ran.released, strict=True):
            self.released[slots] = tuple([origin + t for t in ring])


def _run_one(nest: Nest, entry: _Entry, engine: Callable[..., int]) -> _Ran:
    stages = nest.stages
    state = [0] * state_size(stages)
    for (u, _), time in zip(nest.queues, entry.free, strict=True):
        state[u] = time
    rings = [UNITS + s * STAGE_STATE + RING for s, _ in nest.slots]
    for at, ring in zip(rings, entry.released, strict=True):
        state[at : at + len(ring)] = ring
    waits = [0] * CAUSES
    busy = [0] * (stages + 1)
    finish = engine(
        nest.trips, len(nest.trips), nest.bend, stages, nest.unit, nest.depth, nest.at_end, nest.buffers, nest.dep,
        nest.lag, nest.reach, nest.user, nest.cause, entry.floor, nest.heads, nest.mask,
        len(nest.service) // stages, nest.service, nest.spine, entry.begin, state, waits, busy, [0] * work_size(stages),
    )  # fmt: skip
    unit_busy = [0] * UNITS
    for s in range(stages):
        unit_busy[nest.unit[s]] += busy[s]
    # A kernel leaves at most as many buffers in use as it has, its last result among them.
    released = [
        (release(s, stages, nest.user, state), *state[at : at + nest.buffers[s] - 1])
        for (s, _), at in zip(nest.slots, rings, strict=True)
    ]
    free = tuple(state[u] for u, _ in nest.queues)
    return _Ran(finish, free, tuple(released), busy[stages], tuple(waits), tuple(unit_busy))
