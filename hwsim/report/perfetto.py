"""The timeline as Chrome's trace event JSON, which ui.perfetto.dev and chrome://tracing open.

One process stands for the machine, one thread for the kernels and one for each unit. Format: "Trace Event Format"
(Google, 2016), complete events ``X`` with ``ts`` and ``dur`` in microseconds, here in whole nanoseconds, so that
neighbours never overlap by rounding.
"""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import hwsim
from hwsim.report.table import plain
from hwsim.report.timeline import MAX_ISSUES, Slice, issue_count, kernel_slices, merged, unit_slices
from hwsim.schedule.table import UNITS

if TYPE_CHECKING:
    from hwsim.result import Result

MAX_SLICES = 256
"""Slices of one kernel on one unit; neighbouring issues beyond that are drawn as one, which says how many it holds."""

Event = dict[str, Any]
_PROCESS = 1
_KERNELS = 1


def trace(result: Result, max_issues: int = MAX_ISSUES, max_slices: int = MAX_SLICES) -> dict[str, Any]:
    """Return the trace as plain data.

    Units are drawn issue by issue where the schedule has at most ``max_issues``, else one slice per kernel; no more
    than ``max_slices`` for a kernel on a unit.
    """
    exact = unit_slices(result, max_issues)
    slices = kernel_slices(result) if exact is None else merged(exact, max_slices)
    clock = _Clock(result)
    used = [unit for unit in UNITS if any(s.unit == unit for s in slices)]
    thread = {unit: _KERNELS + 1 + i for i, unit in enumerate(used)}
    events = [*_names(result, thread), *_overhead(result), *_kernels(result, clock)]
    events += [_unit_event(result, s, thread[s.unit], clock, exact is not None) for s in slices]
    return {"displayTimeUnit": "ns", "otherData": _about(result, exact is not None), "traceEvents": events}


def perfetto_json(result: Result, max_issues: int = MAX_ISSUES) -> str:
    """Return the trace as JSON text, one event a line."""
    data = trace(result, max_issues)
    events = ",\n".join(json.dumps(event, allow_nan=False) for event in data.pop("traceEvents"))
    head = json.dumps(data, allow_nan=False)
    return f'{head[:-1]}, "traceEvents": [\n{events}\n]}}\n'


def packed(text: str) -> bytes:
    """Return text gzipped, without a time stamp: equal traces give equal files."""
    return gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)


class _Clock:
    """Cycles of a result to whole nanoseconds of the trace; kernels begin after the overhead of a run."""

    def __init__(self, result: Result) -> None:
        self._ns = 1e9 / result.totals.clock_hz
        self._start = result.totals.overhead_s * 1e9

    def span(self, start: int, end: int) -> dict[str, float]:
        first, last = (round(self._start + cycle * self._ns) for cycle in (start, end))
        return {"ts": first / 1000, "dur": (last - first) / 1000}

    def us(self, cycles: int) -> float:
        return round(cycles * self._ns / 1000, 6)


def _about(result: Result, exact: bool) -> dict[str, Any]:
    programs = result.totals.used
    return {
        "hwsim": hwsim.__version__,
        "network": plain(result.network.name),
        "target": result.accelerator.target,
        "batch": result.options.batch,
        "programs": f"1 of {programs} that run alike" if programs > 1 else "1",
        "clock_hz": result.totals.clock_hz,
        "latency_us": result.latency_s * 1e6,
        "issues": issue_count(result),
        "units": "every issue, from the event simulation" if exact else "per kernel: too many issues to draw each",
        "plan": result.plan.digest,
        "machine": result.accelerator.digest,
    }


def _names(result: Result, thread: dict[str, int]) -> list[Event]:
    process = plain(f"{result.accelerator.name} ({result.accelerator.target})")
    out = [_meta("process_name", 0, name=process)]
    for name, tid in {"kernels": _KERNELS, **thread}.items():
        out += [_meta("thread_name", tid, name=name), _meta("thread_sort_index", tid, sort_index=tid)]
    return out


def _meta(kind: str, tid: int, **args: Any) -> Event:
    return {"name": kind, "ph": "M", "pid": _PROCESS, "tid": tid, "args": args}


def _overhead(result: Result) -> list[Event]:
    duration = round(result.totals.overhead_s * 1e9) / 1000
    if not duration:
        return []
    args = {"cause": "dispatch", "note": "start of a run and the meeting of programs at its end, drawn together here"}
    return [_event("run overhead", "kernel", _KERNELS, {"ts": 0.0, "dur": duration}, args)]


def _event(name: str, category: str, tid: int, span: dict[str, float], args: dict[str, Any]) -> Event:
    return {"name": name, "cat": category, "ph": "X", "pid": _PROCESS, "tid": tid, **span, "args": args}


def _kernels(result: Result, clock: _Clock) -> list[Event]:
    out = []
    for row, begin, end in zip(result.kernels, result.timing.begin, result.timing.end, strict=True):
        parts = {key[5:-2]: row[key] for key in row if key.startswith("time_") and row[key]}
        args = {
            "kernel": row["kernel"],
            "op": row["op"],
            "layers": plain(row["layers"]),
            "cause": row["limiter"],
            "cycles": row["cycles"],
            "bound_us": row["bound_s"] * 1e6,
            "sol_pct": row["sol_pct"],
            "dram_read_bytes": row["dram_read_bytes"],
            "dram_write_bytes": row["dram_write_bytes"],
            "energy_uj": row["energy_j"] * 1e6,
            "time_us": {name: seconds * 1e6 for name, seconds in parts.items()},
        }
        out.append(_event(plain(row["name"]), "kernel", _KERNELS, clock.span(int(begin), int(end)), args))
    return out


def _unit_event(result: Result, s: Slice, tid: int, clock: _Clock, exact: bool) -> Event:
    kernel = plain(result.plan.kernels[s.kernel].name)
    args: dict[str, Any] = {"kernel": s.kernel, "kernel_name": kernel, "busy_us": clock.us(s.busy)}
    if not exact:
        args["aggregated"] = "length of the kernel; busy_us is the service of this unit, whenever it took place"
        return _event(kernel, "unit", tid, clock.span(s.start, s.end), args)
    args |= {"cause": s.what, "cycles": s.end - s.start, "bytes": round(s.moved)}
    if s.issues > 1:
        args["aggregated"] = f"{s.issues} issues"
    return _event(s.what, "unit", tid, clock.span(s.start, s.end), args)
