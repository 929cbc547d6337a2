"""Tiles of a result over a few threads: independent outputs, so the number of threads changes no bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hwsim.errors import HwsimError

Range = tuple[int, int]
ENGINES = ("auto", "numba", "numpy")


def over_tiles(work: Callable[[Range, Range], None], shape: Range, width: int, threads: int, height: int = 128) -> None:
    """Call ``work(rows, cols)`` for every tile of ``shape``, on ``threads`` threads."""
    m, n = shape
    rows = [(i, min(i + height, m)) for i in range(0, m, height)]
    cols = [(j, min(j + width, n)) for j in range(0, n, width)]
    tiles = [(r, c) for c in cols for r in rows]
    if threads == 1 or len(tiles) == 1:
        for tile in tiles:
            work(*tile)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *tile) for tile in tiles]:
            done.result()


def thread_count(threads: int | None) -> int:
    """``threads``, or one per available processor."""
    if threads is not None and threads < 1:
        raise HwsimError(f"threads is {threads}, expected at least 1")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads or available


def pick_engine(engine: str, work: int) -> str:
    """ "numba" or "numpy": "auto" compiles only where it pays (``work`` multiply-adds) and numba is there."""
    if engine not in ENGINES:
        raise HwsimError(f"engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if engine != "auto":
        return engine
    from importlib.util import find_spec

    return "numba" if work > 2**18 and find_spec("numba") is not None else "numpy"
