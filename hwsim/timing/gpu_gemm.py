"""Time of matrix products on a GPU: every legal (tile, split of K) costed in closed form, the fastest kept, array-first.

`hwsim.timing.gpu_cost` costs one candidate; here the candidates of many products are compared, and the winner is costed
again at the clock that power allows. Shapes are arrays [rows]; candidates are a second axis only while choosing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.schedule.gpu_tiles import Tiles
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_cost import PACES, Parts, Rows, Surroundings, cost, found_share
from hwsim.timing.gpu_kind import BITS, FORMS, GemmKind, gemm_kind
from hwsim.timing.gpu_loop import l2_share, taken, tile_loop
from hwsim.timing.gpu_power import Work, gemm_clock
from hwsim.timing.gpu_sm import LoopTerms

__all__ = ["BITS", "FORMS", "LIMITERS", "GemmKind", "Gemms", "Surroundings", "best_gemm", "found_share", "gemm_kind"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLITS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32], np.int64)
CANDIDATES = 1 << 14  # costed at a time: their arrays stay in a core's cache, and below malloc's mmap threshold
CACHES = ("cold", "chained", "warm")
LIMITERS = (*PACES, "launch")


@dataclass(frozen=True, slots=True)
class Gemms:
    """Answers for arrays of products, every field [rows]; seconds, bytes, Hz, W.

    ``time_s`` = ``launch_s`` + ``prologue_s`` + ``main_s`` + ``tail_s`` + ``epilogue_s`` + ``reduce_s``. ``tile`` indexes
    ``tiles``; ``grid_m``, ``grid_n``, ``split`` make the grid (times ``batch``); ``k_steps`` are those of one CTA;
    ``waves`` counts rounds with the last one as a fraction. Bytes by level and operand are whole-product totals;
    ``dram_x`` are those of layers fused into the epilogue.
    """

    tiles: Tiles
    time_s: Floats
    launch_s: Floats
    prologue_s: Floats
    main_s: Floats
    tail_s: Floats
    epilogue_s: Floats
    reduce_s: Floats
    clock_hz: Floats
    power_w: Floats
    tile: Ints
    split: Ints
    grid_m: Ints
    grid_n: Ints
    batch: Ints
    ctas: Ints
    k_steps: Ints
    waves: Floats
    occupancy: Ints
    limiter: Ints
    dram_a: Floats
    dram_b: Floats
    dram_c: Floats
    l2_a: Floats
    l2_b: Floats
    l2_c: Floats
    dram_x: Floats

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def cycles(self) -> Ints:
        """Whole SM clocks of each answer at its own clock."""
        return np.ceil(self.time_s * self.clock_hz).astype(np.int64)

    @property
    def dram_bytes(self) -> Floats:
        """DRAM bytes of all operands."""
        return self.dram_a + self.dram_b + self.dram_c + self.dram_x

    def limiter_names(self) -> list[str]:
        """What limits each answer, as text."""
        return [LIMITERS[i] for i in self.limiter]


def best_gemm(
    view: GpuView,
    kind: GemmKind,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    batch: npt.ArrayLike = 1,
    *,
    cache: str = "cold",
    launch: str = "graph",
    throttle: bool = True,
    toggle: float = 1.0,
    around: Surroundings | None = None,
    given: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
) -> Gemms:
    """Return the fastest kernel of each product C[m, n] = A[m, k] B[k, n], ``batch`` of them.

    Shapes broadcast to one axis [rows]. ``cache`` says what the L2 holds of A and B at the start: "cold" nothing, "chained"
    A (the kernel before left it) but not the weights B, "warm" what fits when the product is all that runs;
    ``launch`` is what a kernel start costs: "graph", "stream" or "none" (the kernel alone). ``throttle`` lowers the clock
    where power exceeds the device's limit; ``around`` says what lies in the L2 beyond that and what is fused;
    ``given`` = (indices of tiles, splits) costs those instead of choosing. Raises HwsimError for an unknown option or an
    empty product.
    """
    if cache not in CACHES or launch not in ("graph", "stream", "none"):
        raise HwsimError(f"cache '{cache}' or launch '{launch}' is unknown: {', '.join(CACHES)}; graph, stream or none")
    rows = _rows(m, n, k, batch, around or Surroundings())
    if cache != "cold":
        own = (rows.m * rows.k * kind.a_bits + rows.n * rows.k * kind.b_bits + rows.m * rows.n * kind.c_bits) / 8
        share = found_share(view, own * rows.batch)
        rows = rows._replace(found_a=np.maximum(rows.found_a, share))
        if cache == "warm":
            rows = rows._replace(found_b=np.maximum(rows.found_b, share))
    if any((x < 1).any() for x in rows[:4]):
        raise HwsimError("a product needs m, n, k and batch of at least 1")
    tiles = kind.tiles(view)
    loop = tile_loop(view, kind, _take(tiles, np.arange(len(tiles))), l2_share(view, kind))
    if given is not None:
        tile, split = (np.broadcast_to(np.asarray(x, np.int64), rows.m.shape) for x in given)
        return _answer(view, kind, tiles, loop, tile, split, rows, launch, throttle, toggle)
    step = max(1, CANDIDATES // (len(tiles) * len(SPLITS)))
    chosen = [_choose(view, kind, tiles, loop, _part(rows, i, step), launch) for i in range(0, len(rows.m), step)]
    tile, split = (np.concatenate([c[i] for c in chosen]) for i in (0, 1))
    return _answer(view, kind, tiles, loop, tile, split, rows, launch, throttle, toggle)


def _rows(m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, batch: npt.ArrayLike, around: Surroundings) -> Rows:
    sizes = [np.atleast_1d(np.asarray(x, np.int64)) for x in (m, n, k, batch)]
    more = [np.atleast_1d(np.asarray(getattr(around, f.name), np.float64)) for f in fields(around)]
    columns: list[Any] = [x.ravel() for x in np.broadcast_arrays(*sizes, *more)]
    return Rows(*columns)


def _part(rows: Rows, start: int, step: int) -> Rows:
    """Rows of one chunk, with an axis for candidates."""
    columns: list[Any] = [x[start : start + step, None] for x in rows]
    return Rows(*columns)


def _take(tiles: Tiles, tile: Ints, loop: LoopTerms | None = None) -> dict[str, Any]:
    """Parameters of some tiles by name, with their main loops where these are known."""
    t: dict[str, Any] = {
        f.name: getattr(tiles, f.name)[tile] for f in fields(tiles) if isinstance(getattr(tiles, f.name), np.ndarray)
    }
    return t if loop is None else t | {"loop": taken(loop, tile)}


def _choose(view: GpuView, kind: GemmKind, tiles: Tiles, loop: LoopTerms, rows: Rows, launch: str) -> tuple[Ints, Ints]:
    """Return the index of the fastest tile and its split, [rows]."""
    tile = np.repeat(np.arange(len(tiles)), len(SPLITS))
    split = np.tile(SPLITS, len(tiles))
    parts = cost(view, kind, _take(tiles, tile, loop), split[None, :], rows, launch, view.clock_hz)
    best = np.argmin(parts.time, axis=1)
    return tile[best], split[best]


def _answer(
    view: GpuView,
    kind: GemmKind,
    tiles: Tiles,
    loop: LoopTerms,
    tile: Ints,
    split: Ints,
    rows: Rows,
    launch: str,
    throttle: bool,
    toggle: float,
) -> Gemms:
    t = _take(tiles, tile, loop)

    def at(clock: Any) -> Parts:
        return cost(view, kind, t, split, rows, launch, clock)

    macs: Floats = np.prod(np.array(rows[:4], np.float64), axis=0)
    full = at(np.full(len(macs), view.clock_hz))
    tiled: Floats = full.grid_m * t["m"] * full.grid_n * t["n"] * np.asarray(rows.k * rows.batch, np.float64)
    work = Work(macs, np.maximum(tiled - macs, 0.0), sum(full.l2), sum(full.dram) + full.extra, t)
    clock, power = gemm_clock(view, kind, work, lambda hz: at(hz).time, throttle=throttle, toggle=toggle)
    p = at(clock)
    limiter = limiters(kind, p)
    occupancy = t["occupancy"]
    waves = p.full + p.rest / (occupancy * view.sms)
    ints = [np.asarray(x).astype(np.int64) for x in (p.grid_m, p.grid_n, rows.batch, p.ctas, p.k_steps)]
    return Gemms(
        tiles, p.time, p.launch, p.first, p.main, p.tail, p.last, p.reduce, clock, power, tile, split,
        ints[0], ints[1], ints[2], ints[3], ints[4], waves, occupancy, limiter, *p.dram, *p.l2, p.extra,
    )  # fmt: skip


def limiters(kind: GemmKind, p: Parts) -> Ints:
    """Return what limits each evaluation, as indices of `LIMITERS`."""
    pace = np.argmax(np.stack(np.broadcast_arrays(*p.paces)), axis=0)
    order = np.array([LIMITERS.index(name) for name in (kind.pipe, "shared_memory", "l2_port", "latency", "l2")])
    limiter = np.where(p.memory >= p.compute, LIMITERS.index("dram"), order[pace])
    limiter = np.where(p.launch + p.reduce > 0.5 * p.time, LIMITERS.index("launch"), limiter)
    out: Ints = limiter.astype(np.int64)
    return out
