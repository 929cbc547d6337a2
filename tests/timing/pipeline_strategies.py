"""Random schedules for the pipeline engine and its twin, drawn by hypothesis or by a seeded generator."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from hwsim.schedule.table import CAUSE, UNIT, Schedule, ScheduleBuilder

Pick = Callable[[int, int], int]
"""An integer of the closed range."""

POOL = [UNIT[name] for name in ("dma", "matrix", "vector", "store", "shift")]
CALLED = [CAUSE[name] for name in ("weight_fetch", "activation_fetch", "vector_unit", "store", "matrix")]


def random_schedule(
    pick: Pick, *, trips: int = 6, loops: int = 3, stages: int = 6, kernels: int = 4, issues: int = 400
) -> tuple[Schedule, list[int]]:
    """Return a legal schedule and the service of its rows; sizes are upper bounds, ``issues`` that of iterations."""
    kinds = [_kernel(pick, trips, loops, stages, issues) for _ in range(pick(1, 2))]
    table = ScheduleBuilder()
    service: list[int] = []
    for k in range(pick(1, kernels)):
        for row, cycles in kinds[pick(0, len(kinds) - 1)]:
            table.row(**row)
            service.append(cycles)
        table.end_kernel(f"k{k}", [p for p in range(k) if pick(0, 1)])
    return table.build(), service


Row = tuple[dict[str, Any], int]


def _kernel(pick: Pick, max_trips: int, max_loops: int, max_stages: int, issues: int) -> list[Row]:
    loops = pick(0, max_loops)
    trips: list[int] = []
    for _ in range(loops):
        trips.append(pick(1, max(1, min(max_trips, issues))))
        issues //= trips[-1]
    bend = (-1, -1, 0)
    if loops > 1 and pick(0, 2) == 0:
        loop = pick(1, loops - 1)
        bend = (loop, pick(0, loop - 1), pick(1, 2))
    stages = pick(1, max_stages)
    units = POOL[: pick(1, len(POOL))]
    rows: list[Row] = []
    longest = pick(1, 12)
    for s in range(stages):
        depth = pick(0, loops)
        deps, lags = [], []
        for _ in range(pick(0, 3)):
            deps.append(pick(0, stages - 1))
            lags.append(pick(0, 3) if pick(0, 1) else 0)
        shared: dict[str, Any] = {
            "stage": s, "unit": units[pick(0, len(units) - 1)], "depth": depth, "at_end": pick(0, 1),
            "buffers": pick(0, 4), "dep": deps, "lag": lags, "cause": CALLED[pick(0, len(CALLED) - 1)],
            "awaits": pick(0, 2),
        }  # fmt: skip
        segments = []
        for level, n in enumerate(trips[:depth]):
            step = bend[2] if level == bend[0] else 0
            cuts = [0, n]
            if (n > 1 or step) and pick(0, 1):
                cuts.insert(1, n - 1)
            if n > 2 and not pick(0, 2):
                cuts = sorted({*cuts, 1})
            pieces = list(itertools.pairwise(cuts))
            end = len(pieces) - 1
            moving = end if end and pieces[end] == (n - 1, n) else end + 1  # the last iteration is a row of its own
            segments.append([(*p, step * (i == moving - 1), step * (i == moving)) for i, p in enumerate(pieces)])
        parts = [(0, 3), (3, 4)] if depth < 4 and not pick(0, 3) else [(0, 1)]
        for box in itertools.product(*segments):
            cycles = pick(0, longest)
            bends = [(*bend[:2], *piece[2:]) for piece in box if any(piece[2:])]
            for part in parts:  # of one issue, along a loop inside it
                first, count = zip(*((lo, hi - lo) for lo, hi, *_ in (*box, part)), strict=True)
                row = {**shared, "first": first, "trips": count, "bend": bends[0] if bends else (-1,)}
                rows.append((row, cycles + part[0]))
    return rows


def seeded(seed: int) -> Pick:
    """Draws from a seeded generator, for long hunts."""
    return random.Random(seed).randint


@st.composite
def schedules(draw: Any, **sizes: int) -> tuple[Schedule, list[int]]:
    """Schedules and services drawn by hypothesis."""
    return random_schedule(lambda lo, hi: draw(st.integers(lo, hi)), **sizes)
