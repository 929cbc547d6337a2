"""Reading 1 of a schedule: the pipeline engine over all its kernels, in order, with what each kernel waited for.

Units keep their queues and buffers from kernel to kernel, so a stage that does not wait for the previous kernel (a
weight prefetch) runs ahead of it as far as its buffers allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.schedule.table import CAUSES as CAUSE_NAMES
from hwsim.schedule.table import LOOPS, UNIT, Schedule
from hwsim.timing import pipeline
from hwsim.timing.pipeline import BUFFERS, CAUSES, DEPS, MAX_LOOPS, MAX_STAGES, RING, STAGE_STATE, UNITS, run_nest

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Nest:
    """One kernel of a schedule in the form the engine takes (see `pipeline.run_nest`)."""

    trips: list[int]
    stages: int
    unit: list[int]
    depth: list[int]
    at_end: list[int]
    buffers: list[int]
    dep: list[int]
    lag: list[int]
    reach: list[int]
    user: list[int]
    cause: list[int]
    awaits: list[int]
    service: list[int]
    spine: int


@dataclass(frozen=True)
class Timing:
    """When everything ran, in cycles: kernel ``k`` owns [begin[k], end[k]) of the timeline (these tile it).

    ``waits[k]`` splits what the kernel's spine (its matrix, else vector, else copy stage) waited for, by cause code;
    ``busy[k]`` is the cycles it was served, so busy + waits = end − begin, exactly. ``unit_busy[k]`` is the service per
    unit code.
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

    Raises HwsimError when the rows of a stage do not tile its iteration space.
    """
    column = {
        name: schedule.columns[name].tolist()
        for name in ("stage", "unit", "depth", "at_end", "first", "trips", "buffers", "dep", "lag", "cause", "awaits")
    }
    starts = schedule.starts.tolist()
    return [_nest(k, range(starts[k], starts[k + 1]), column, service) for k in range(schedule.kernels)]


def _nest(kernel: int, rows: range, column: dict[str, list], service: Sequence[int]) -> Nest:  # type: ignore[type-arg]
    stage, depths, first, trips = column["stage"], column["depth"], column["first"], column["trips"]
    stages = max(stage[r] for r in rows) + 1
    loops = max(depths[r] for r in rows)
    if stages > MAX_STAGES or loops > MAX_LOOPS:
        raise HwsimError(
            f"kernel {kernel}: {stages} stages of {loops} loops; the engine takes {MAX_STAGES} of {MAX_LOOPS}"
        )
    extent = [max(first[r][level] + trips[r][level] for r in rows) for level in range(loops)]
    classes = 1 << loops
    table = [-1] * (stages * classes)
    head = [-1] * stages
    for r in rows:
        s = stage[r]
        if head[s] < 0:
            head[s] = r
        patterns = [0]
        for level in range(depths[r]):
            lo, hi = first[r][level], first[r][level] + trips[r][level]
            bit = 1 << level
            if hi == extent[level]:
                if lo < extent[level] - 1:
                    patterns = [q for p in patterns for q in (p, p | bit)]
                else:
                    patterns = [p | bit for p in patterns]
            elif lo or hi != extent[level] - 1:
                raise HwsimError(
                    f"kernel {kernel}, stage {s}: rows do not split loop {level} into full and last iterations"
                )
        # Rows that differ only in loops inside an issue are parts of the same issue: their service adds up.
        part = any(first[r][level] for level in range(depths[r], LOOPS))
        for p in patterns:
            at = s * classes + p
            if (table[at] >= 0) != part:
                raise HwsimError(f"kernel {kernel}, stage {s}: rows overlap or leave a gap")
            table[at] = service[r] + (table[at] if part else 0)
    dep = [-1] * (stages * DEPS)
    lag = [0] * (stages * DEPS)
    reach = [1] * stages
    user = [0] * (stages * stages)
    for s in range(stages):
        if head[s] < 0:
            raise HwsimError(f"kernel {kernel}: stage {s} has no rows")
        for d in range(DEPS):
            q = column["dep"][head[s]][d]
            if q >= 0:
                dep[s * DEPS + d], lag[s * DEPS + d] = q, column["lag"][head[s]][d]
                reach[q] = max(reach[q], lag[s * DEPS + d] + 1)
                if q < s:
                    user[q * stages + s] = 1
    unit = [column["unit"][h] for h in head]
    spine = next((s for code in (UNIT["matrix"], UNIT["vector"]) for s in range(stages) if unit[s] == code), stages - 1)
    return Nest(
        extent, stages, unit, [depths[h] for h in head], [column["at_end"][h] for h in head],
        [column["buffers"][h] for h in head], dep, lag, reach, user, [column["cause"][h] for h in head],
        [column["awaits"][h] for h in head], [max(0, c) for c in table], spine,
    )  # fmt: skip


def run(schedule: Schedule, service: Sequence[int], engine: Callable[..., int] = run_nest) -> Timing:
    """Return when every kernel of ``schedule`` runs; ``service`` is the cycles one issue of each row takes.

    Kernels with the same nest met in the same relative state are run once (a repeated block of layers costs nothing).
    """
    all_nests = nests(schedule, service)
    count = len(all_nests)
    begin, end = [0] * count, [0] * count
    busy: list[int] = []
    waits: list[list[int]] = []
    unit_busy: list[list[int]] = []
    queues = _Queues()
    memo: dict[tuple[object, ...], tuple[object, ...]] = {}
    now = 0
    for k, nest in enumerate(all_nests):
        producers = schedule.producers[k] if schedule.producers else ((k - 1,) if k else ())
        ready = max((end[p] for p in producers), default=0)
        key = _key(nest, ready - now, queues.relative(now))
        hit = memo.get(key)
        if hit is None:
            hit = memo[key] = _run_one(nest, queues, ready, now, engine)
        else:
            queues = _Queues.restore(hit[3], now)  # type: ignore[arg-type]
        begin[k], end[k] = now, now + hit[0]  # type: ignore[operator]
        now = end[k]
        spine_busy, unit_cycles = hit[1]  # type: ignore[misc]
        busy.append(spine_busy)
        unit_busy.append(unit_cycles)
        waits.append(hit[2])  # type: ignore[arg-type]
    return Timing(
        np.array(begin, np.int64), np.array(end, np.int64), np.array(busy, np.int64),
        np.array(waits, np.int64).reshape(count, CAUSES), np.array(unit_busy, np.int64).reshape(count, UNITS),
    )  # fmt: skip


def _key(nest: Nest, ready: int, relative: tuple[object, ...]) -> tuple[object, ...]:
    return (
        tuple(nest.trips), tuple(nest.unit), tuple(nest.depth), tuple(nest.at_end), tuple(nest.buffers), tuple(nest.dep),
        tuple(nest.lag), tuple(nest.cause), tuple(nest.awaits), tuple(nest.service), ready, relative,
    )  # fmt: skip


class _Queues:
    """What outlives a kernel: when each unit is free, and when the buffers of each kind of stage are released."""

    def __init__(self) -> None:
        self.free = [0] * UNITS
        self.released: dict[int, list[int]] = {}

    def relative(self, now: int) -> tuple[object, ...]:
        """The same, measured from ``now`` (times long past are all alike)."""
        return (
            tuple(max(t - now, -1) for t in self.free),
            tuple((c, tuple(max(t - now, -1) for t in ring)) for c, ring in sorted(self.released.items())),
        )

    @staticmethod
    def restore(relative: tuple[object, ...], now: int) -> _Queues:
        """The inverse of `relative`."""
        out = _Queues()
        free, rings = relative
        out.free = [t + now for t in free]  # type: ignore[attr-defined]
        out.released = {c: [t + now for t in ring] for c, ring in rings}  # type: ignore[attr-defined]
        return out


def _run_one(nest: Nest, queues: _Queues, ready: int, now: int, engine: Callable[..., int]) -> tuple[object, ...]:
    stages, loops = nest.stages, len(nest.trips)
    size = pipeline.state_size(stages)
    state = [0] * size
    state[:UNITS] = queues.free
    for s in range(stages):
        ring = queues.released.get(nest.cause[s])
        if ring is not None and nest.buffers[s]:
            at = UNITS + s * STAGE_STATE + RING
            state[at : at + BUFFERS] = ring
    floor = [0 if a == 0 else ready if a == 1 else now for a in nest.awaits]
    waits = [0] * CAUSES
    busy = [0] * stages
    work = [0] * (3 * MAX_LOOPS * (size + CAUSES + stages))
    finish = engine(
        nest.trips, loops, stages, nest.unit, nest.depth, nest.at_end, nest.buffers, nest.dep, nest.lag, nest.reach,
        nest.user, nest.cause, floor, nest.service, nest.spine, now, state, waits, busy, work,
    )  # fmt: skip
    queues.free = list(state[:UNITS])
    for s in range(stages):
        if nest.buffers[s]:
            at = UNITS + s * STAGE_STATE
            users = [UNITS + q * STAGE_STATE for q in range(stages) if nest.user[s * stages + q]]
            last = max((state[u] for u in users), default=state[at])
            queues.released[nest.cause[s]] = [last, *state[at + RING : at + RING + BUFFERS - 1]]
    unit_cycles = [0] * UNITS
    for s in range(stages):
        unit_cycles[nest.unit[s]] += busy[s]
    return finish - now, (busy[nest.spine], unit_cycles), waits, queues.relative(finish)
