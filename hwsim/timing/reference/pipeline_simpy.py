"""The obvious twin of the pipeline engine: one SimPy process per unit, one event per issue, nothing skipped.

`program` walks the loop nests in program order and says, for every issue, what must have ended before it starts. Each
unit is a process that takes its own issues from that walk, one after the other: the head of its queue waits for what it
needs and is then served, so a unit shared by several stages serves them in program order over the nest, never in the
order in which they become ready. `docs/schedule.md` states the rules; nothing here is shared with the engine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any, NamedTuple

from hwsim.errors import HwsimError
from hwsim.schedule.table import LOOPS, UNITS, Schedule

Name = tuple[int, int, int]
"""Kernel, stage, and which issue of that stage."""


class Issue(NamedTuple):
    """One piece of work of a unit: it starts when the issues ``after`` have ended and the kernels ``opens`` are over.

    ``rows`` of the table are its parts: more than one where loops inside the issue have partial tiles.
    """

    name: Name
    unit: int
    rows: tuple[int, ...]
    after: frozenset[Name]
    opens: tuple[int, ...]


@dataclass(frozen=True)
class TwinTiming:
    """What ran when, in cycles: kernel k owns [begin[k], end[k]); ``unit_busy[k][u]`` cycles unit u served it.

    ``issues`` are (issue, start, end), in the order in which they ended.
    """

    begin: list[int]
    end: list[int]
    unit_busy: list[list[int]]
    issues: list[tuple[Issue, int, int]]


class _Stage(NamedTuple):
    rows: list[int]
    unit: int
    depth: int
    at_end: bool
    buffers: int
    slots: tuple[int, int, int]  # whose buffers: unit, cause, and how many buffered stages of the kernel came before
    deps: list[tuple[int, int]]
    users: list[int]
    opens: tuple[int, ...]


def program(schedule: Schedule) -> Iterator[Issue]:
    """Yield every issue of the schedule in program order, lazily.

    Raises HwsimError where no row of a stage covers an iteration, or several do.
    """
    released: dict[tuple[int, int, int], list[frozenset[Name]]] = {}
    for kernel in range(schedule.kernels):
        yield from _kernel(schedule, kernel, released)


def _stages(schedule: Schedule, kernel: int) -> list[_Stage]:
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row in range(int(schedule.starts[kernel]), int(schedule.starts[kernel + 1])):
        rows_of[int(schedule.stage[row])].append(row)
    stages: list[_Stage] = []
    for s in range(len(rows_of)):
        head = rows_of[s][0]  # what is not a range or a cost is the same for all rows of a stage
        unit, cause, buffers = (int(schedule.columns[c][head]) for c in ("unit", "cause", "buffers"))
        same = sum(1 for other in stages if other.buffers and other.slots[:2] == (unit, cause))
        deps = [(int(q), int(g)) for q, g in zip(schedule.dep[head], schedule.lag[head], strict=True) if q >= 0]
        previous = (kernel - 1,) if kernel else ()
        producers = schedule.producers[kernel] if schedule.producers else previous
        opens = ((), producers, previous)[int(schedule.awaits[head])]
        depth, at_end = int(schedule.depth[head]), bool(schedule.at_end[head])
        stages.append(_Stage(rows_of[s], unit, depth, at_end, buffers, (unit, cause, same), deps, [], opens))
    for s, stage in enumerate(stages):
        for q, _ in stage.deps:
            if q < s and s not in stages[q].users:
                stages[q].users.append(s)
    return stages


def _kernel(
    schedule: Schedule, kernel: int, released: dict[tuple[int, int, int], list[frozenset[Name]]]
) -> Iterator[Issue]:
    stages = _stages(schedule, kernel)
    loops = max(stage.depth for stage in stages)
    boxes = {r: _Box.of(schedule, r) for stage in stages for r in stage.rows}
    deeper = [[boxes[r] for stage in stages if stage.depth > x for r in stage.rows] for x in range(loops)]
    issued = [0] * len(stages)
    rings = [list(released.get(stage.slots, [])) for stage in stages]

    def release(s: int) -> frozenset[Name]:
        """What frees the result of the latest issue of stage ``s``: its users' latest issues, or its own end."""
        users = stages[s].users or [s]
        return frozenset((kernel, q, issued[q] - 1) for q in users if issued[q])

    for index, last in _points(deeper, (), ()):
        for s, stage in enumerate(stages):
            inner = range(stage.depth, loops)
            if any(index[level] != (last[level] if stage.at_end else 0) for level in inner):
                continue
            after = {(kernel, q, issued[q] - 1 - lag) for q, lag in stage.deps if issued[q] > lag}
            if stage.buffers:
                if issued[s]:
                    rings[s].append(release(s))
                if len(rings[s]) >= stage.buffers:
                    after |= rings[s][-stage.buffers]
            parts = _parts({r: boxes[r] for r in stage.rows}, kernel, stage.depth, index)
            yield Issue((kernel, s, issued[s]), stage.unit, parts, frozenset(after), stage.opens)
            issued[s] += 1
    for s, stage in enumerate(stages):
        if stage.buffers:
            released[stage.slots] = [*rings[s], release(s)][-stage.buffers :]


class _Box(NamedTuple):
    """The iterations a row covers."""

    first: list[int]
    trips: list[int]
    bend: list[int]

    @staticmethod
    def of(schedule: Schedule, row: int) -> _Box:
        return _Box(schedule.first[row].tolist(), schedule.trips[row].tolist(), schedule.bend[row].tolist())

    def indices(self, level: int, index: tuple[int, ...]) -> range:
        """Indices of loop ``level``, given those of the loops outside it."""
        loop, outer, more, later = self.bend
        at = index[outer] if level == loop else 0
        first = self.first[level] + later * at
        return range(first, first + self.trips[level] + more * at)


def _points(
    deeper: list[list[_Box]], index: tuple[int, ...], last: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every iteration of the nest, the last loop fastest, and the last index of each loop there."""
    level = len(index)
    if level == len(deeper):
        yield index, last
        return
    stop = max(box.indices(level, index).stop for box in deeper[level])
    for i in range(stop):
        yield from _points(deeper, (*index, i), (*last, stop - 1))


def _parts(boxes: dict[int, _Box], kernel: int, depth: int, index: tuple[int, ...]) -> tuple[int, ...]:
    """The rows of the stage that cover this iteration of the loops outside an issue: at least one, none twice."""
    found = [row for row, box in boxes.items() if all(index[x] in box.indices(x, index) for x in range(depth))]
    for a, b in combinations(found, 2):
        if all(_meet(boxes[a], boxes[b], level) for level in range(depth, LOOPS)):
            raise HwsimError(f"kernel {kernel}: rows {a} and {b} both cover iteration {index}")
    if not found:
        raise HwsimError(f"kernel {kernel}: no row of a stage covers iteration {index}")
    return tuple(found)


def _meet(a: _Box, b: _Box, level: int) -> bool:
    return a.first[level] < b.first[level] + b.trips[level] and b.first[level] < a.first[level] + a.trips[level]


def simulate(schedule: Schedule, service: Sequence[int]) -> TwinTiming:
    """Run the schedule event by event; ``service`` is the cycles one issue of each row takes.

    Raises HwsimError as `program` does.
    """
    import simpy

    env: Any = simpy.Environment()
    done: Any = defaultdict(env.event)  # by issue name
    over: Any = defaultdict(env.event)  # by kernel
    begin, end = [0] * schedule.kernels, [0] * schedule.kernels
    busy = [[0] * len(UNITS) for _ in range(schedule.kernels)]
    log: list[tuple[Issue, int, int]] = []

    def serve(unit: int) -> Iterator[Any]:
        """A unit: its issues in program order, each waiting for what it needs at the head of the queue."""
        for issue in program(schedule):
            if issue.unit != unit:
                continue
            for name in issue.after:
                yield done[name]
            for kernel in issue.opens:
                yield over[kernel]
            start = env.now
            yield env.timeout(sum(int(service[row]) for row in issue.rows))
            busy[issue.name[0]][unit] += env.now - start
            log.append((issue, start, env.now))
            done[issue.name].succeed()

    def close() -> Iterator[Any]:
        """A kernel is over when all its issues have ended and the kernel before it is over."""
        for kernel, issues in groupby(program(schedule), key=lambda issue: issue.name[0]):
            begin[kernel] = env.now
            for issue in issues:
                yield done[issue.name]
            end[kernel] = env.now
            over[kernel].succeed()

    for unit in sorted({int(u) for u in schedule.unit}):
        env.process(serve(unit))
    env.process(close())
    env.run()
    return TwinTiming(begin, end, busy, log)
