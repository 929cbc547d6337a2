"""Reading 1 of a GPU's schedule: kernels one after the other on a stream or in a graph, with what each waited for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import CAUSE, CAUSES, UNIT, UNITS, Schedule
from hwsim.timing.gpu_rows import read_rows
from hwsim.timing.run import Timing

_PARTS = {
    "launch": "launch", "latency": "latency", "tail": "tail", "epilogue": "epilogue", "reduce": "epilogue",
    "handover": "dispatch",
}  # fmt: skip
_UNITS = {"tensor": "matrix", "dla": "dla", "link": "link"}
_LIMITS = {
    "shared_memory": "shared_memory",
    "l2": "l2",
    "l2_port": "l2",
    "dram": "dram",
    "latency": "latency",
    "issue": "issue",
    "communication": "communication",
}


def run_gpu(
    schedule: Schedule,
    view: GpuView,
    launch_s: float,
    host_s: float = 0.0,
    elsewhere: Mapping[int, GpuChoice] | None = None,
) -> Timing:
    """Return when every kernel runs, in SM clocks of ``view``.

    ``launch_s`` passes from one kernel's start to the next's where both do nothing, ``host_s`` is what the host takes to
    start one (0: a graph). ``elsewhere``: kernels that run beside the GPU, with times of their own.
    """
    clock_hz = view.clock_hz
    read = read_rows(schedule, view, launch_s)
    count = len(read)
    begin, end = np.zeros(count, np.int64), np.zeros(count, np.int64)
    busy = np.zeros(count, np.int64)
    waits = np.zeros((count, len(CAUSES)), np.int64)
    unit_busy = np.zeros((count, len(UNITS)), np.int64)
    now = 0
    issued = 0.0
    for i in range(count):
        reading = (elsewhere or {}).get(i) or read[i]
        assert reading is not None
        begin[i] = now
        cycles = 0
        if host_s:
            issued += host_s * clock_hz
            late = max(0, math.ceil(issued) - now)
            waits[i, CAUSE["host"]] = late
            cycles += late
        parts: dict[str, int] = {}
        for name, seconds in reading.times.items():
            parts[name] = math.ceil(seconds * reading.repeat * clock_hz - 1e-6)
        for name, value in parts.items():
            cycles += value
            if name == "main":
                cause = _LIMITS.get(reading.limiter)
                if cause is None:
                    busy[i] += value
                else:
                    waits[i, CAUSE[cause]] += value
            else:
                waits[i, CAUSE[_PARTS[name]]] += value
        unit_busy[i, UNIT[_UNITS.get(reading.pipe, "vector")]] = parts.get("main", 0)
        unit_busy[i, UNIT["dispatch"]] = parts.get("launch", 0)
        now += cycles
        end[i] = now
    return Timing(begin, end, busy, waits, unit_busy)
