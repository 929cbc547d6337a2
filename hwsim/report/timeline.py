"""Who ran when: the slices of every unit that the HTML timeline and the Perfetto trace draw.

A schedule of few issues is run event by event by the SimPy twin, whose starts and ends are exact. One of many issues is
not: what is known of it then is when each kernel ran and for how long each unit served it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.result import LIMITERS
from hwsim.schedule.table import CAUSES, UNITS

if TYPE_CHECKING:
    from hwsim.result import Result

MAX_ISSUES = 20_000
"""Issues beyond which the twin is not run (this many take it about a second)."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive issues of one unit for one kernel, in cycles: ``busy`` of [start, end) served, ``moved`` bytes."""

    unit: str
    kernel: int
    what: str
    start: int
    end: int
    busy: int
    issues: int
    moved: float


def issue_count(result: Result) -> int:
    """Return how many issues the schedule of a result has."""
    return int(result.schedule.issues().sum())


def unit_slices(result: Result, max_issues: int = MAX_ISSUES) -> list[Slice] | None:
    """Return one slice per issue, by unit and then time; None where there are more than ``max_issues``.

    None also where the twin does not end every kernel when the result does, so a trace never contradicts its result.
    """
    schedule = result.schedule
    if result.accelerator.family != "systolic" or issue_count(result) > max_issues:
        return None
    from hwsim.schedule.systolic_view import systolic_view
    from hwsim.timing.reference.pipeline_simpy import simulate
    from hwsim.timing.systolic_service import service_cycles

    service = service_cycles(schedule, systolic_view(result.accelerator), result.constants)
    twin = simulate(schedule, service.tolist())
    if twin.end != result.timing.end.tolist():
        return None
    per_issue = (schedule.moved_bytes().sum(axis=1) / schedule.issues().clip(min=1)).tolist()
    names = [LIMITERS[CAUSES[c]] if c else UNITS[u] for c, u in zip(schedule.cause, schedule.unit, strict=True)]
    out = [
        Slice(
            UNITS[issue.unit], issue.name[0], names[issue.rows[0]], start, end, end - start, 1,
            sum(per_issue[row] for row in issue.rows),
        )
        for issue, start, end in twin.issues
    ]  # fmt: skip
    return sorted(out, key=lambda s: (UNITS.index(s.unit), s.start, s.end, s.kernel))


def merged(slices: list[Slice], cap: int) -> list[Slice]:
    """Return the slices with at most ``cap`` for each kernel on each unit: neighbours in time become one."""
    groups: dict[tuple[str, int], list[Slice]] = {}
    for s in slices:
        groups.setdefault((s.unit, s.kernel), []).append(s)
    out: list[Slice] = []
    for group in groups.values():
        step = -(-len(group) // cap)
        out += [_one(group[i : i + step]) for i in range(0, len(group), step)]
    return out


def _one(parts: list[Slice]) -> Slice:
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return Slice(
        first.unit, first.kernel, " + ".join(dict.fromkeys(p.what for p in parts)), first.start,
        max(p.end for p in parts), sum(p.busy for p in parts), sum(p.issues for p in parts),
        sum(p.moved for p in parts),
    )  # fmt: skip


def kernel_slices(result: Result) -> list[Slice]:
    """Return one slice per kernel and unit it used, as long as the kernel: all that is known without the twin.

    ``busy`` may exceed the length, because a unit may have worked ahead while the kernel before it ran.
    """
    timing = result.timing
    return [
        Slice(unit, k, unit, int(timing.begin[k]), int(timing.end[k]), int(timing.unit_busy[k][u]), 0, 0.0)
        for u, unit in enumerate(UNITS)
        for k in range(len(result.plan.kernels))
        if timing.unit_busy[k][u]
    ]
