"""Time of one candidate kernel of a matrix product on a GPU, in closed form; arrays broadcast: rows x candidates.

One CTA: first data from DRAM, k-steps at the pace of the slowest of matrix pipe, shared memory, the SM's path to the L2 and
the latency its buffers cover, an epilogue. One grid: rounds of CTAs over the SMs (`hwsim.timing.gpu_dispatch`), sharing L2
and DRAM bandwidth. Results leave when a round's k-steps are over: measured times of products with small K are those of
the arithmetic *plus* those of the stores, on every generation. Constants: ``accelerators/constants/gpu.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_kind import GemmKind
from hwsim.timing.gpu_loop import l2_share, tile_loop
from hwsim.timing.gpu_sm import LoopTerms

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PACES = ("tensor", "simt", "shared_memory", "l2_port", "latency", "l2", "dram")
SCALES = 16  # bytes of scales of a row and k-step of NVFP4 products, which `scale_cycles` was measured on
PARTIAL_BYTES = 4  # partial sums of a split K are fp32
SCATTER = 2  # they are stored as they lie in registers, eight bytes a thread: half of what a sector could take


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a product's operands lie and what its epilogue does, arrays [rows] or numbers that broadcast to them.

    ``a_bytes``: distinct bytes of A over the batch where they are fewer than m x k (a convolution's input; 0: all).
    ``b_bytes`` likewise (one B for the whole batch, grouped query heads). ``found_a``, ``found_b``: shares of them already
    in the L2; ``kept_c``: share of the results that stays there until they are read (-1: not known, the model's own
    guess). ``extra_bytes``: read by layers fused into the epilogue,
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


def found_share(view: GpuView, touched_bytes: npt.ArrayLike) -> Floats:
    """Return the share of an operand still in the L2 when ``touched_bytes`` were touched since (itself included).

    All of it while everything fits, nothing a little beyond that (the L2 replaces nearly the least recently used line);
    data that all SMs read is kept once in every segment of the cache.
    """
    capacity, edge = view.l2_bytes / view.l2_segments, view.constants["l2_edge"]
    return np.clip((1 + edge - np.asarray(touched_bytes, np.float64) / capacity) / edge, 0.0, 1.0)


class Rows(NamedTuple):
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


@dataclass(slots=True)
class Parts:
    """One evaluation: seconds of the parts of a kernel, its grid, and bytes; arrays of the broadcast shape.

    ``compute`` and ``memory`` are what the k-steps and the loads from DRAM would take alone; ``paces`` the clocks per
    k-step of pipe, shared memory, the SM's path to the L2, latency, and L2.
    """

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


def rounds(ctas: Any, sms: int, occupancy: Any) -> tuple[Any, Any, Any]:
    """Return full rounds of CTAs, the CTAs of the last one, and those of its fullest SM (`gpu_dispatch.shared_makespan`)."""
    slots = occupancy * sms
    full = ctas // slots
    rest = ctas - full * slots
    return full, rest, -(-rest // sms)


def cost(
    view: GpuView,
    kind: GemmKind,
    t: dict[str, Any],
    split: Any,
    rows: Rows,
    launch: str,
    clock: Any,
    dram: tuple[Any, Any, Any] | None = None,
) -> Parts:
    """Return the cost of one candidate (or an axis of them) per row; infinite time where it is no candidate.

    ``t`` are tile parameters by name (`hwsim.schedule.gpu_tiles.Tiles`), ``split`` the parts of K, ``launch`` "graph",
    "stream" or "none", ``clock`` in Hz. ``dram``: bytes of A, B and C that cross to DRAM where a schedule states them.
    """
    c = view.constants
    style = "bulk" if kind.bulk else "threads"
    m, n, k, batch = rows[:4]
    b, out = kind.b_bits / 8, kind.c_bits / 8
    tm, tn, tk = t["m"], t["n"], t["k"]
    density = 0.5 if kind.sparse else 1.0
    index = 0.125 if kind.sparse else 0.0  # two index bits per kept element of four
    stored_b = b * density + index

    grid_m, grid_n = -(-m // tm), -(-n // tn)
    steps = -(-k // tk)
    k_steps = -(-steps // split)
    useless = (split > 1) & ((-(-steps // k_steps) != split) | (split > kind.parts))
    ctas = grid_m * grid_n * batch * split
    full, rest, last = rounds(ctas, view.sms, t["occupancy"])

    # One k-step of one CTA: the circuits of the SM's closed form (`gpu_sm`), a share of each unit being lost.
    share = l2_share(view, kind)
    l2_rate = view.l2_bytes_per_clk * share
    loop: LoopTerms = t["loop"] if "loop" in t else tile_loop(view, kind, t, share)
    pipe = _pipe_cycles(view, kind, t, loop)
    shared = loop.shared / c["shared_" + style]
    latency = view.dram_latency_s * clock * c["latency_" + style]
    first = latency
    alone = np.maximum(np.maximum(np.maximum(loop.warp, loop.fragments), loop.chain), loop.latency(latency))
    if kind.widens:  # every warp widens its columns of B before it can multiply them
        widened = tn * (tm // t["unit_m"]) * tk * c["widen_instructions"] / view.simt_macs["fp32"]
        alone = alone + widened
        pipe = pipe + widened if kind.pipe == "simt" else np.maximum(pipe, widened)  # on lanes that multiply, too

    def round_cycles(resident: Any, active: Any) -> Any:
        """Clocks of the k-steps of a round with so many CTAs on the fullest of so many active SMs."""
        uneven = loop.uneven(resident)
        link = resident * np.maximum(loop.bytes * active / l2_rate, loop.arrival)
        busy = np.maximum(np.maximum(uneven * pipe, uneven * loop.issue), np.maximum(resident * shared, link))
        return k_steps * np.maximum(alone, busy)

    main = full * round_cycles(t["occupancy"], view.sms)
    tail = np.where(rest > 0, round_cycles(last, np.minimum(view.sms, rest)), 0.0)

    crossing, l2 = _traffic(view, kind, t, split, rows, grid_m, grid_n, stored_b)
    dram = crossing if dram is None else dram
    # Loads run beside the k-steps.
    compute, memory = (main + tail) / clock, (dram[0] + dram[1]) / (view.dram_bytes_per_s * c["loads_" + style])
    sharp, larger = c["overlap_" + style], np.maximum(compute, memory)
    body = larger * (1 + (np.minimum(compute, memory) / larger) ** sharp) ** (1 / sharp)
    # Results leave after them; so do the partial sums of a split, to the L2 as far as they fit.
    whole = split == 1  # of a split, the reduction does what is fused
    extra = rows.extra_bytes * (1 - rows.extra_found)
    results = m * n * batch
    partial = np.where(whole, 0.0, split * PARTIAL_BYTES * results)
    spilled = partial * (1 - found_share(view, partial / view.l2_segments))  # every sum has one home
    rate_in, rate_out = (view.dram_bytes_per_s * c[x] for x in ("loads_" + style, "product_stores"))
    to_dram = np.where(whole, dram[2] + extra, SCATTER * spilled) / rate_out
    to_l2 = np.where(whole, results * out + rows.extra_bytes, SCATTER * partial)
    port_rate = np.minimum(l2_rate, np.minimum(ctas, view.sms) * view.l2_sm_bytes_per_clk * share)
    stores = np.maximum(to_dram, to_l2 / (port_rate * clock))
    fused = np.where(whole, rows.lane_cycles * results, 0.0) / (np.minimum(ctas, view.sms) * clock)
    ending = c["epilogue_" + style]
    again = np.maximum(full + (rest > 0) - 1, 0) * c["round_" + style]
    edges = (first + ending) / clock * (1 + again)
    body = body + np.maximum(stores, fused) + edges
    # The reduction of a split reads all partial sums and writes the results.
    summed = (partial + rows.extra_bytes) / (l2_rate * clock)
    summed = np.maximum(summed, (dram[2] + extra) / rate_out + spilled / rate_in)
    reduce = np.where(whole, 0.0, view.graph_launch_s + c["split_" + style] + summed)  # a dependent kernel
    start = {"graph": view.graph_launch_s, "stream": view.stream_launch_s, "none": 0.0}[launch] + c["product_kernel"]
    time = np.where(useless, np.inf, start + body + reduce)
    # Shares of the body, for reports.
    inner = np.maximum(body - (first + ending) / clock, 0.0)
    tail_share = np.where(rest > 0, tail / np.maximum(main + tail, 1.0), 0.0)
    tail_s = np.where(full > 0, inner * tail_share, 0.0)
    shape = np.zeros_like(time)
    together = np.minimum(t["occupancy"], np.maximum(last, np.where(full > 0, t["occupancy"], 0)))
    uneven = loop.uneven(together)
    circuits = (
        uneven * np.maximum(pipe, loop.issue), together * shared, together * loop.arrival,
        alone, together * loop.bytes * np.minimum(ctas, view.sms) / l2_rate,
    )  # fmt: skip
    return Parts(
        time, shape + start, shape + first / clock, shape + (body - inner) - first / clock, inner - tail_s, tail_s,
        reduce, grid_m, grid_n, ctas, k_steps, full, rest, circuits, compute, memory, dram, l2, shape + extra,
    )  # fmt: skip


def _pipe_cycles(view: GpuView, kind: GemmKind, t: dict[str, Any], loop: LoopTerms) -> Any:
    """Clocks the SM's pipe takes for one k-step of a CTA, were its warps even over the sub-cores."""
    c = view.constants
    if kind.pipe == "simt":
        return loop.tensor / c["pipe_simt"]
    pipe = loop.tensor / (c["pipe_bulk" if kind.bulk else "pipe_threads"] * (c["sparse_rate"] if kind.sparse else 1.0))
    if kind.scaled and kind.instruction == "tcgen05":
        # Block scales are copied to the tensor memory before a k-step can start; measured with a byte for 16 elements of 4 bits.
        scales = (kind.a_bits % 1) * t["k"] / 8
        pipe = np.maximum(pipe, c["scale_cycles"] * scales / SCALES)
    return pipe


def _traffic(
    view: GpuView, kind: GemmKind, t: dict[str, Any], split: Any, rows: Rows, grid_m: Any, grid_n: Any, stored_b: float
) -> tuple[tuple[Any, Any, Any], tuple[Any, Any, Any]]:
    """Return bytes of A, B, C that cross (DRAM, L2).

    The CTAs in flight cover a window of gm x gn tiles as square in bytes as the rasterisation makes it; A is read once
    per window column, B once per window row, unless the L2 still holds them.
    """
    m, n, k, batch = rows[:4]
    a, out = kind.a_bits / 8, kind.c_bits / 8
    in_flight = np.minimum(grid_m * grid_n, np.maximum(1.0, t["occupancy"] * view.sms / split))
    gm = np.clip(np.sqrt(in_flight * (t["n"] * stored_b) / (t["m"] * a)), 1, grid_m)
    gn = np.clip(in_flight / gm, 1, grid_n)
    gm = np.clip(in_flight / gn, 1, grid_m)
    once_c = m * n * out
    once_a = np.where(rows.a_bytes > 0, rows.a_bytes / batch, m * k * a)
    once_b = np.where(rows.b_bytes > 0, rows.b_bytes / batch, n * k * stored_b)
    # Data that all SMs read is kept once in every segment.
    room = view.constants["product_l2"] * view.l2_bytes / view.l2_segments
    kept = np.minimum(1.0, room / (once_a + once_b))
    # Windows follow each other along one side: the operand they share stays if a whole window's operands and results fit.
    panel_a, panel_b = once_a * gm / grid_m, once_b * gn / grid_n
    fits = panel_a + panel_b + once_c * (gm / grid_m) * (gn / grid_n) <= room
    again_a, again_b = once_a * (grid_n / gn - 1) * (1 - kept), once_b * (grid_m / gm - 1) * (1 - kept)
    along_a = again_a > again_b
    again_a, again_b = np.where(fits & along_a, 0.0, again_a), np.where(fits & ~along_a, 0.0, again_b)
    dram_a = (once_a * (1 - rows.found_a) + again_a) * batch
    dram_b = (once_b * (1 - rows.found_b) + again_b) * batch
    # An L2 of one segment keeps results until they are overwritten; between segments they are written through.
    guess = found_share(view, (once_a + once_b + once_c) * batch) if view.l2_segments == 1 else 0.0
    dram_c = once_c * batch * (1 - np.where(rows.kept_c < 0, guess, rows.kept_c))
    # Rows beyond an edge are zeros that no memory is read for.
    l2_a = grid_n * m * k * a * batch / (t["split_a"] * t["share_a"])
    l2_b = grid_m * n * k * stored_b * batch / (t["split_b"] * t["share_b"])
    l2_c = once_c * batch + np.where(split > 1, (2 * split) * float(PARTIAL_BYTES) * m * n * batch, 0.0)
    return (dram_a, dram_b, dram_c), (l2_a, l2_b, l2_c)
