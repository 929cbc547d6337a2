"""Time of matrix products on a GPU: every legal (tile, split of K) costed in closed form, the fastest kept, array-first.

One CTA: a prologue (first data from DRAM), k-steps at the pace of the slowest of matrix pipe, shared memory, the SM's
path to the L2 and the latency its buffers cover, an epilogue. One grid: rounds of CTAs over the SMs
(`hwsim.timing.gpu_dispatch`), sharing L2 and DRAM bandwidth. One answer: launch, grid, reduction of a split K, at a clock
that power allows. Shapes are arrays [rows]; candidates are a second axis only while choosing.
Source of the structure: CUTLASS's description of its kernels; constants: ``accelerators/constants/gpu.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.schedule.gpu_tiles import Tiles, tiles_for
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_power import Work, gemm_clock

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLITS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32], np.int64)
CHUNK = 256  # rows costed at a time: their candidates stay in a core's cache
LIMITERS = ("tensor", "simt", "shared_memory", "l2_port", "latency", "l2", "dram", "launch")
BITS = {
    "fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "e4m3": 8, "e5m2": 8, "int4": 4, "fp4": 4,
    "e2m1": 4, "nvfp4": 4.5, "mxfp4": 4.25, "int32": 32,
}  # fmt: skip

# Names that stand for a format in a library, and the format they multiply.
FORMS = {"fp8": "e4m3", "fp4": "e2m1", "nvfp4": "e2m1", "mxfp4": "e2m1"}


@dataclass(frozen=True, slots=True)
class GemmKind:
    """What is multiplied: the pipe, its rate in multiply-accumulates per clock of an SM, and bits per element.

    ``a_bits`` and ``b_bits`` are widths in memory; ``compute_bits`` the width in which B is multiplied (weights narrower
    than that are widened by CUDA cores on the way); ``sparse`` says that B (the weights) is 2:4 compressed; ``form`` names
    the number format the products are computed in ("": one of ``compute_bits``).
    """

    pipe: str
    instruction: str
    rate: float
    a_bits: float
    b_bits: float
    c_bits: float
    compute_bits: float
    sparse: bool = False
    form: str = ""


def gemm_kind(
    view: GpuView, activations: str, weights: str = "", output: str = "", sparsity: str = "dense"
) -> GemmKind:
    """Return how ``view`` multiplies activations by weights of the formats named.

    ``output`` defaults to 16 bits (32 for fp32 and tf32). Raises HwsimError for a format or sparsity the GPU lacks.
    """
    weights = weights or activations
    for name in (activations, weights, output or activations):
        if name not in BITS:
            raise HwsimError(f"{view.name}: no product of format '{name[:32]}'{near(name[:32], BITS)}")
    tensor = activations in view.tensor_macs
    rates = view.tensor_macs if tensor else view.simt_macs
    if activations not in rates:
        have = ", ".join(sorted({*view.tensor_macs, *view.simt_macs}))
        raise HwsimError(f"{view.name} multiplies no {activations} (it has {have})")
    if sparsity not in ("dense", "2:4"):
        raise HwsimError(f"sparsity '{sparsity[:32]}' is neither dense nor 2:4")
    sparse = sparsity == "2:4"
    if sparse and not (tensor and view.sparse):
        raise HwsimError(f"{view.name} has no 2:4 sparse {activations} instructions")
    bits = BITS[activations]
    out = BITS[output] if output else (32 if bits >= 32 else 16)
    return GemmKind(
        "tensor" if tensor else "simt",
        view.tensor_kind if tensor else "simt",
        rates[activations],
        bits,
        BITS[weights],
        out,
        max(bits, BITS[weights]),
        sparse,
        FORMS.get(activations, activations),
    )


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a product's operands lie and what its epilogue does, arrays [rows] or numbers that broadcast to them.

    ``a_bytes``: distinct bytes of A over the batch where they are fewer than m x k (a convolution's input; 0: all).
    ``b_bytes`` likewise (one B for the whole batch, grouped query heads). ``found_a``, ``found_b``: shares of them already
    in the L2; ``kept_c``: share of the results that stays there until they are read (-1: not
    known, the model's own guess). ``extra_bytes``: read by layers fused into the epilogue,
    ``extra_found`` of them in the L2. ``lane_cycles``: clocks one SM spends per result on fused arithmetic.
    """

    a_bytes: npt.ArrayLike = 0.0
    b_bytes: npt.ArrayLike = 0.0
    found_a: npt.ArrayLike = 0.0
    found_b: npt.ArrayLike = 0.0
    kept_c: npt.ArrayLike = -1.0
    extra_bytes: npt.ArrayLike = 0.0
    extra_found: npt.ArrayLike = 0.0
    lane_cycles: npt.ArrayLike = 0.0


class _Rows(NamedTuple):
    """Shapes and surroundings as arrays of one shape."""

    m: Ints
    n: Ints
    k: Ints
    batch: Ints
    a_bytes: Floats
    b_bytes: Floats
    found_a: Floats
    found_b: Floats
    kept_c: Floats
    extra_bytes: Floats
    extra_found: Floats
    lane_cycles: Floats


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


@dataclass(slots=True)
class _Parts:
    """One evaluation; arrays of the broadcast shape of its arguments."""

    time: Any
    launch: Any
    first: Any
    last: Any
    main: Any
    tail: Any
    reduce: Any
    grid_m: Any
    grid_n: Any
    ctas: Any
    k_steps: Any
    full: Any
    rest: Any
    paces: tuple[Any, ...]
    compute: Any
    memory: Any
    dram: tuple[Any, Any, Any]
    l2: tuple[Any, Any, Any]
    extra: Any


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
    around: Surroundings | None = None,
) -> Gemms:
    """Return the fastest kernel of each product C[m, n] = A[m, k] B[k, n], ``batch`` of them.

    Shapes broadcast to one axis [rows]. ``cache`` "cold" reads operands from DRAM, "warm" finds what fits in the L2;
    ``launch`` is what a kernel start costs: "graph", "stream" or "none" (the kernel alone). ``throttle`` lowers the clock
    where power exceeds the device's limit; ``around`` says what lies in the L2 beyond that and what is fused. Raises
    HwsimError for an unknown option or an empty product.
    """
    if cache not in ("cold", "warm") or launch not in ("graph", "stream", "none"):
        raise HwsimError(f"cache '{cache}' or launch '{launch}' is unknown: cold or warm; graph, stream or none")
    rows = _rows(m, n, k, batch, around or Surroundings())
    if any((x < 1).any() for x in rows[:4]):
        raise HwsimError("a product needs m, n, k and batch of at least 1")
    tiles = tiles_for(view, kind.instruction, round(kind.a_bits), round(kind.compute_bits))
    warm = cache == "warm"
    chosen = [_choose(view, kind, tiles, _part(rows, i), warm, launch) for i in range(0, len(rows.m), CHUNK)]
    tile, split = (np.concatenate([c[i] for c in chosen]) for i in (0, 1))
    return _answer(view, kind, tiles, tile, split, rows, warm, launch, throttle)


def _rows(m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, batch: npt.ArrayLike, around: Surroundings) -> _Rows:
    sizes = [np.atleast_1d(np.asarray(x, np.int64)) for x in (m, n, k, batch)]
    more = [np.atleast_1d(np.asarray(getattr(around, f.name), np.float64)) for f in fields(around)]
    columns: list[Any] = [x.ravel() for x in np.broadcast_arrays(*sizes, *more)]
    return _Rows(*columns)


def _part(rows: _Rows, start: int) -> _Rows:
    """Rows of one chunk, with an axis for candidates."""
    columns: list[Any] = [x[start : start + CHUNK, None] for x in rows]
    return _Rows(*columns)


def _rounds(ctas: Any, sms: int, occupancy: Any) -> tuple[Any, Any, Any]:
    """Return full rounds of CTAs, the CTAs of the last one, and those of its fullest SM (`gpu_dispatch.shared_makespan`)."""
    slots = occupancy * sms
    full = ctas // slots
    rest = ctas - full * slots
    return full, rest, -(-rest // sms)


def _take(tiles: Tiles, tile: Ints) -> dict[str, Any]:
    return {
        f.name: getattr(tiles, f.name)[tile] for f in fields(tiles) if isinstance(getattr(tiles, f.name), np.ndarray)
    }


def _choose(view: GpuView, kind: GemmKind, tiles: Tiles, rows: _Rows, warm: bool, launch: str) -> tuple[Ints, Ints]:
    """Return the index of the fastest tile and its split, [rows]."""
    tile = np.repeat(np.arange(len(tiles)), len(SPLITS))
    split = np.tile(SPLITS, len(tiles))
    parts = _cost(view, kind, _take(tiles, tile), split[None, :], rows, warm, launch, view.clock_hz)
    best = np.argmin(parts.time, axis=1)
    return tile[best], split[best]


def _answer(
    view: GpuView,
    kind: GemmKind,
    tiles: Tiles,
    tile: Ints,
    split: Ints,
    rows: _Rows,
    warm: bool,
    launch: str,
    throttle: bool,
) -> Gemms:
    t = _take(tiles, tile)

    def at(clock: Any) -> _Parts:
        return _cost(view, kind, t, split, rows, warm, launch, clock)

    macs: Floats = np.prod(np.array(rows[:4], np.float64), axis=0)
    full = at(np.full(len(macs), view.clock_hz))
    tiled: Floats = full.grid_m * t["m"] * full.grid_n * t["n"] * np.asarray(rows.k * rows.batch, np.float64)
    work = Work(macs, np.maximum(tiled - macs, 0.0), sum(full.l2), sum(full.dram) + full.extra, t)
    clock, power = gemm_clock(view, kind, work, lambda hz: at(hz).time, throttle=throttle)
    p = at(clock)
    pace = np.argmax(np.stack(np.broadcast_arrays(*p.paces)), axis=0)  # pipe, shared, port, latency, l2
    limiter = np.where(p.memory >= p.compute, LIMITERS.index("dram"), np.array([0, 2, 3, 4, 5])[pace])
    limiter = np.where((limiter == 0) & (kind.pipe == "simt"), LIMITERS.index("simt"), limiter)
    limiter = np.where(p.launch + p.reduce > 0.5 * p.time, LIMITERS.index("launch"), limiter)
    occupancy = t["occupancy"]
    waves = p.full + p.rest / (occupancy * view.sms)
    ints = [np.asarray(x).astype(np.int64) for x in (p.grid_m, p.grid_n, rows.batch, p.ctas, p.k_steps)]
    return Gemms(
        tiles, p.time, p.launch, p.first, p.main, p.tail, p.last, p.reduce, clock, power, tile, split,
        ints[0], ints[1], ints[2], ints[3], ints[4], waves, occupancy, limiter.astype(np.int64), *p.dram, *p.l2, p.extra,
    )  # fmt: skip


def _cost(
    view: GpuView,
    kind: GemmKind,
    t: dict[str, Any],
    split: Any,
    rows: _Rows,
    warm: bool,
    launch: str,
    clock: Any,
) -> _Parts:
    """Cost one candidate (or an axis of them) per row; every term of the model is here. Infinite where it is no candidate."""
    c = view.constants
    m, n, k, batch = rows[:4]
    a, b, out = kind.a_bits / 8, kind.b_bits / 8, kind.c_bits / 8
    tm, tn, tk = t["m"], t["n"], t["k"]
    density = 0.5 if kind.sparse else 1.0
    stored_b = b * density + (0.125 if kind.sparse else 0.0)  # two index bits per kept element of four
    shared_b = kind.compute_bits / 8 * density + (0.125 if kind.sparse else 0.0)

    grid_m, grid_n = -(-m // tm), -(-n // tn)
    steps = -(-k // tk)
    k_steps = -(-steps // split)
    useless = (split > 1) & (-(-steps // k_steps) != split)
    ctas = grid_m * grid_n * batch * split
    full, rest, last = _rounds(ctas, view.sms, t["occupancy"])

    # One k-step of one CTA, in clocks of what it shares with the CTAs beside it on the SM.
    step_bytes = (tm * a + tn * stored_b) * tk
    shared_step = (tm * a + tn * shared_b) * tk
    if kind.instruction in ("wgmma", "tcgen05"):  # operands from shared memory, 64 rows (or columns) at least
        pipe = np.maximum(tm * np.maximum(tn, 64), np.maximum(tm, 64) * tn) * (tk * density / kind.rate)
        read = shared_step
    else:  # each warp reads its rows of A and columns of B
        pipe = tm * tn * (tk * density / kind.rate)
        read = t["warps"] // t["slices"] * (t["warp_m"] * a + t["warp_n"] * shared_b) * tk
    pipe = pipe / c["pipe_efficiency"]
    shared = (read + shared_step) / (view.shared_bytes_per_clk * c["shared_efficiency"])
    port = step_bytes / (view.l2_sm_bytes_per_clk * c["l2_efficiency"])
    per_step = np.maximum(np.maximum(pipe, shared), port)
    latency = view.dram_latency_s * clock * c["loaded_latency"]
    alone = np.maximum(per_step + c["step_cycles"], latency / (t["stages"] - 1))
    first = latency
    width = np.where(split > 1, 4.0, out)
    results = np.where(split > 1, 0.0, tm * tn)  # of a split, the reduction kernel does what is fused
    extra_width = rows.extra_bytes / (m * n * batch)
    ending = c["epilogue_cycles"] + tm * tn * width / view.l2_sm_bytes_per_clk
    ending = ending + results * (rows.lane_cycles + extra_width / view.l2_sm_bytes_per_clk)
    solo = first + k_steps * alone + ending

    l2_rate = view.l2_bytes_per_clk * c["l2_efficiency"]
    l2_step = (tm * a + tn * stored_b / t["pair"]) * tk / l2_rate

    def round_cycles(resident: Any, active: Any) -> Any:
        """Clocks of a round with so many CTAs on the fullest of so many active SMs."""
        edges = np.where(resident < 2, first + ending, 0.0)
        busy = resident * k_steps * per_step + edges
        return np.maximum(np.maximum(solo, busy), resident * active * k_steps * l2_step)

    main = full * round_cycles(t["occupancy"], view.sms)
    tail = np.where(rest > 0, round_cycles(last, np.minimum(view.sms, rest)), 0.0)

    dram, l2 = _traffic(view, kind, t, split, rows, grid_m, grid_n, stored_b, warm)
    active = np.minimum(ctas, view.sms)
    bandwidth = np.minimum(view.dram_bytes_per_s * c["dram_efficiency"], active * c["sm_dram_bytes"] * clock)
    extra = rows.extra_bytes * (1 - rows.extra_found)
    moved = (dram[0] + dram[1] + dram[2] + extra) / bandwidth
    edges = (first + ending) / clock
    compute, memory = (main + tail) / clock, moved + edges
    sharp = c["overlap"]
    body = np.maximum(compute, memory) * (1 + (np.minimum(compute, memory) / np.maximum(compute, memory)) ** sharp) ** (
        1 / sharp
    )
    partial = np.where(split > 1, (split * 4.0 + out) * m * n * batch, 0.0)
    partial = np.where(split > 1, partial + rows.extra_bytes, 0.0)
    reduce = np.where(split > 1, c["reduce_s"] + partial / (l2_rate * clock), 0.0)
    start = {"graph": view.graph_launch_s, "stream": view.stream_launch_s, "none": 0.0}[launch] + c["kernel_s"]
    time = np.where(useless, np.inf, start + body + reduce)
    # Shares of the body, for reports: what the grid would take, scaled to what it does take.
    inner = np.maximum(body - edges, 0.0)
    tail_share = np.where(rest > 0, tail / np.maximum(main + tail, 1.0), 0.0)
    tail_s = np.where(full > 0, inner * tail_share, 0.0)
    shape = np.zeros_like(time)
    return _Parts(
        time, shape + start, shape + first / clock, shape + (body - inner) - first / clock, inner - tail_s, tail_s,
        reduce, grid_m, grid_n, ctas, k_steps, full, rest,
        (pipe, shared, port, latency / (t["stages"] - 1) / np.maximum(1, np.minimum(t["occupancy"], last + full)),
         l2_step * np.minimum(ctas, view.sms)),
        compute, memory, dram, l2, shape + extra,
    )  # fmt: skip


def _traffic(
    view: GpuView,
    kind: GemmKind,
    t: dict[str, Any],
    split: Any,
    rows: _Rows,
    grid_m: Any,
    grid_n: Any,
    stored_b: float,
    warm: bool,
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return bytes of A, B, C that cross (DRAM, L2).

    The CTAs in flight cover a window of gm x gn tiles as square in bytes as the rasterisation makes it; A is read once
    per window column, B once per window row, unless the L2 still holds them.
    """
    c = view.constants
    m, n, k, batch = rows[:4]
    a, out = kind.a_bits / 8, kind.c_bits / 8
    in_flight = np.minimum(grid_m * grid_n, np.maximum(1.0, t["occupancy"] * view.sms / split))
    gm = np.clip(np.sqrt(in_flight * (t["n"] * stored_b) / (t["m"] * a)), 1, grid_m)
    gn = np.clip(in_flight / gm, 1, grid_n)
    gm = np.clip(in_flight / gn, 1, grid_m)
    once_c = m * n * out
    once_a = np.where(rows.a_bytes > 0, rows.a_bytes / batch, m * k * a)
    once_b = np.where(rows.b_bytes > 0, rows.b_bytes / batch, n * k * stored_b)
    room = c["l2_share"] * view.l2_bytes
    kept = np.minimum(1.0, room / (once_a + once_b))
    dram_a = once_a * (1 - rows.found_a + (grid_n / gn - 1) * (1 - kept)) * batch
    dram_b = once_b * (1 - rows.found_b + (grid_m / gm - 1) * (1 - kept)) * batch
    written = np.maximum(c["write_through"], 1 - room / (once_c * batch))
    dram_c = once_c * batch * np.where(rows.kept_c < 0, written, 1 - rows.kept_c)
    if warm:
        found = np.minimum(1.0, view.l2_bytes / ((once_a + once_b + once_c) * batch))
        dram_a, dram_b, dram_c = (x * (1 - found) for x in (dram_a, dram_b, dram_c))
    padded = grid_m * t["m"], grid_n * t["n"]
    l2_a = grid_n * padded[0] * k * a * batch
    l2_b = grid_m * padded[1] * k * stored_b * batch / t["pair"]
    l2_c = once_c * batch + np.where(split > 1, (2 * split) * 4.0 * m * n * batch, 0.0)
    return (dram_a, dram_b, dram_c), (l2_a, l2_b, l2_c)
