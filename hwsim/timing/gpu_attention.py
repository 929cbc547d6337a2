"""Time of fused attention on a GPU: tiles of queries walk the keys, scores never leave the SM (FlashAttention class).

A CTA holds a tile of queries and walks blocks of keys and values: two matrix products and the softmax of the block between
them. Matrix and CUDA cores overlap only in part (Dao, *FlashAttention-2*, 2023, reaches 60 to 70 % of A100's peak). Causal
attention walks the blocks up to the diagonal. Kernels for short sequences, and the first FlashAttention, give a CTA a whole
head: with few heads most SMs idle. Few queries (decoding) split the keys over CTAs and add the parts in a second
kernel (flash-decoding). Arrays [rows] of candidates by (rows, tiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Queries and keys of a tile, and warps: what library kernels use.
TILES = np.array(
    [(128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4), (32, 64, 2), (16, 64, 1), (16, 128, 4)], np.int64
)
KEY_SPLITS = np.array([1, 2, 4, 8, 16, 32], np.int64)
# Integer scores are converted, scaled and packed again: two more lane operations and two conversions a score, which run at
# the rate of special functions (CUDA programming guide, throughput of native arithmetic instructions).
INTEGER_ALU, INTEGER_SPECIAL = 2.0, 2.0
BOUNDS = ("tensor", "issue", "l2", "dram", "launch", "latency")


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Attention of ``batch`` heads (all images): arrays [rows].

    ``queries`` x ``keys`` scores a head, ``depth`` of queries and keys, ``width`` of values; ``sharing`` query heads read
    the same keys; ``lane_alu`` and ``lane_special`` are further operations per score (a bias) or per query (rotation).
    """

    batch: Ints
    queries: Ints
    keys: Ints
    depth: Ints
    width: Ints
    sharing: Ints
    causal: npt.NDArray[np.bool_]
    element_bytes: Floats
    rate: Floats  # multiply-accumulates per clock of one SM
    found: Floats  # share of the inputs in the L2
    kept: Floats  # share of the result that stays there
    extra_bytes: Floats  # masks and what else is read once per score tile
    extra_alu: Floats  # lane operations of fused layers in all
    integer: npt.NDArray[np.bool_]  # products of integers, so that scores and weights are converted
    one_cta: npt.NDArray[np.bool_]  # a CTA does all queries of a head, one tile after the other


@dataclass(frozen=True, slots=True)
class AttentionTimes:
    """Answers [rows], seconds; ``tile`` indexes `TILES`, ``split`` is over keys."""

    time_s: Floats
    launch_s: Floats
    latency_s: Floats
    main_s: Floats
    tail_s: Floats
    reduce_s: Floats
    tile: Ints
    split: Ints
    ctas: Ints
    waves: Floats
    occupancy: Ints
    bound: Ints
    dram: tuple[Floats, Floats, Floats]  # bytes of the inputs, the result, and what is read beside them
    l2_bytes: Floats
    alu: Floats  # lane operations of a block of keys
    special: Floats


class Grid(NamedTuple):
    """What the CTAs of an attention kernel do, whoever says so (a candidate, or rows of a schedule): arrays or numbers.

    ``matrix`` clocks of the pipe at its peak, ``alu`` and ``special`` lane operations of one block of keys against one
    tile of queries; a CTA walks ``walked`` of them on average and ``longest`` at most. Bytes are of the whole kernel;
    ``partial`` those of parts of results, written and read.
    """

    matrix: Any
    alu: Any
    special: Any
    ctas: Any
    walked: Any
    longest: Any
    occupancy: Any
    split: Any
    dram: Any
    l2: Any
    partial: Any


def attention_times(view: GpuView, s: AttentionShape, launch_s: float, clock_hz: float | None = None) -> AttentionTimes:
    """Return the fastest tile and split of the keys for each row."""
    clock = clock_hz or view.clock_hz
    tile = np.repeat(np.arange(len(TILES)), len(KEY_SPLITS))
    split = np.tile(KEY_SPLITS, len(TILES))
    columns = AttentionShape(*(getattr(s, f)[:, None] for f in AttentionShape.__slots__))
    costs = _cost(view, columns, tile[None, :], split[None, :], launch_s, clock)
    best = np.argmin(costs["time"], axis=1)
    return _answer(view, s, tile[best], split[best], launch_s, clock)


def _answer(view: GpuView, s: AttentionShape, tile: Ints, split: Ints, launch_s: float, clock: float) -> AttentionTimes:
    p = _cost(view, s, tile, split, launch_s, clock)
    return AttentionTimes(
        p["time"], p["launch"], p["latency"], p["main"], p["tail"], p["reduce"], tile, split,
        p["ctas"].astype(np.int64), p["waves"], p["occupancy"].astype(np.int64), p["bound"].astype(np.int64),
        p["dram"], p["l2"], p["alu"], p["special"],
    )  # fmt: skip


def _cost(view: GpuView, s: AttentionShape, tile: Ints, split: Ints, launch_s: float, clock: float) -> dict[str, Any]:
    c = view.constants
    tq, tk, warps = TILES[tile, 0], TILES[tile, 1], TILES[tile, 2]
    # Query heads that share keys are rows of one tile where there are few queries.
    packed = (s.queries * s.sharing <= tq) & (s.sharing > 1)
    rows = np.where(packed, s.queries * s.sharing, s.queries)
    heads = np.where(packed, s.batch // s.sharing, s.batch)
    tiles, blocks = -(-rows // tq), -(-s.keys // tk)
    blocks_q = np.where(s.one_cta, 1, tiles)  # CTAs of a head
    share = -(-blocks // split)
    diagonal = s.causal & (s.queries > 1) & (s.keys >= s.queries)
    useless = (split > 1) & ((-(-blocks // np.maximum(share, 1)) != split) | s.one_cta | s.causal & (s.queries > 1))
    depth = -(-s.depth // 16) * 16
    shared = (tq * s.depth + 2 * tk * (s.depth + s.width)) * s.element_bytes + view.shared_reserved
    registers = warps * 32 * np.minimum(255, (tq * (s.width + tk)) / (warps * 32) + 48)
    occupancy = np.minimum.reduce(
        [view.shared_bytes // np.maximum(shared, 1), view.registers // registers, view.max_threads / (warps * 32) + 0 * shared,
         np.full(np.shape(shared), float(view.max_ctas))]
    )  # fmt: skip
    occupancy = np.floor(occupancy)
    illegal = (occupancy < 1) | (shared > view.max_shared_per_cta)
    occupancy = np.maximum(occupancy, 1)
    scores = s.batch * s.queries * s.keys
    alu = c["attention_alu"] + INTEGER_ALU * s.integer + s.extra_alu / np.maximum(scores, 1)
    special = 1 + INTEGER_SPECIAL * s.integer
    # A head's blocks, over all its tiles of queries, and keys they read.
    walked_keys, in_head = _walked(rows, tiles, s.keys, tq, tk, np.maximum(0, s.keys - s.queries), diagonal)
    ctas = heads * blocks_q * split
    walked = in_head / (blocks_q * split)
    kv_row = (s.depth + s.width) * s.element_bytes
    # Bytes: queries once, keys and values once per CTA of queries (from the L2 after the first), result once.
    q = s.batch * s.queries * s.depth * s.element_bytes
    out = s.batch * s.queries * s.width * s.element_bytes
    read = heads * kv_row * np.where(s.one_cta, s.keys, walked_keys)
    dram = (q + s.batch / s.sharing * s.keys * kv_row) * (1 - s.found), out * (1 - s.kept), s.extra_bytes + 0 * walked
    partial = np.where(split > 1, 2 * 4.0 * s.batch * s.queries * (s.width + 2) * split, 0.0)
    grid = Grid(
        tq * tk * (depth + s.width) / s.rate, tq * tk * alu, tq * tk * special + 0 * alu, ctas, walked,
        np.where(s.one_cta, walked, share), occupancy, split, sum(dram), q * split + read + out + partial + s.extra_bytes,
        partial,
    )  # fmt: skip
    found = grid_times(view, grid, launch_s, clock)
    shape = 0 * found["time"]
    found["time"] = np.where(useless | illegal, np.inf, found["time"])
    return found | {
        "ctas": ctas + shape, "occupancy": occupancy + shape, "dram": tuple(x + shape for x in dram),
        "l2": grid.l2 + shape, "alu": grid.alu + shape, "special": grid.special + shape,
    }  # fmt: skip


def _walked(rows: Any, tiles: Any, keys: Any, tq: Any, tk: Any, past: Any, diagonal: Any) -> tuple[Any, Any]:
    """Return keys read and blocks walked by all tiles of queries of a head.

    Tile i of causal attention walks ceil((past + (i + 1) tq) / tk) blocks, the last one no more than there are.
    """
    blocks = -(-keys // tk)
    step = np.maximum(1, tq // tk)
    within = np.maximum(1, tk // tq)  # tiles that walk as far, where a block is the longer
    base = -(-(past + tq) // tk)
    longer = tiles * base + step * (tiles * (tiles - 1) // 2)
    start = -(-past // tq)

    def summed(n: Any) -> Any:
        """Sum of ceil(y / within) for y = 1 … n."""
        whole, rest = n // within, n % within
        return within * (whole * (whole + 1) // 2) + rest * (whole + 1)

    causal = np.where(within > 1, summed(start + tiles) - summed(start), longer)
    last = -(-(past + tiles * tq) // tk)
    causal = causal - np.maximum(0, last - blocks)
    # Tiles that walk to the end of the keys find the last block partly empty.
    reach = np.minimum(tiles, np.maximum(0, tiles - np.maximum(0, ((blocks - 1) * tk - past) // tq)))
    partial = blocks * tk - keys
    causal_keys = causal * tk - reach * partial
    every = tiles * blocks
    return np.where(diagonal, causal_keys, tiles * keys), np.where(diagonal, causal, every)


def grid_times(view: GpuView, g: Grid, launch_s: float, clock: float) -> dict[str, Any]:
    """Return the seconds of an attention kernel by part, its waves, and what bounds it (index of `BOUNDS`)."""
    c = view.constants
    matrix = g.matrix / c["pipe_efficiency"]
    vector = g.alu / (view.simt_macs["fp32"] * c["issue_efficiency"]) + g.special / view.special_per_clk
    both = np.maximum(matrix, vector) + (1 - c["attention_overlap"]) * np.minimum(matrix, vector)
    slots = g.occupancy * view.sms
    full = np.floor(g.ctas / slots)
    rest = g.ctas - full * slots
    deep = np.ceil(rest / view.sms)
    dram_latency = view.dram_latency_s * clock * c["loaded_latency"]
    step_latency = dram_latency / 2  # two blocks of keys are on their way
    edges = c["attention_edge"] + 2 * dram_latency
    main = full * g.occupancy * g.walked * np.maximum(both, step_latency / g.occupancy)
    alone = g.longest * np.maximum(both, step_latency) + edges
    last = deep * g.walked * both  # waves of causal attention even out: tiles are dealt longest first
    tail = np.where(full > 0, last, np.where(rest > 0, np.maximum(alone, last), 0.0))
    grid = np.maximum(main + tail + np.where(full > 0, edges, 0), alone)
    active = np.minimum(g.ctas, view.sms)
    rate = np.minimum(view.dram_bytes_per_s * c["dram_efficiency"], active * c["sm_dram_bytes"] * clock)
    l2_rate = np.minimum(view.l2_bytes_per_clk * c["l2_efficiency"], active * view.l2_sm_bytes_per_clk) * clock
    t_dram, t_l2, t_grid = g.dram / rate + edges / clock, g.l2 / l2_rate + edges / clock, grid / clock
    body = np.maximum(np.maximum(t_grid, t_dram), t_l2)
    reduce = np.where(g.split > 1, launch_s + c["reduce_s"] + g.partial / l2_rate, 0.0)
    shape = 0 * body
    start = launch_s + c["kernel_s"] + shape
    time = start + body + reduce
    tail_s = np.minimum(np.where(full > 0, tail / clock, 0.0), np.maximum(0, body - edges / clock))
    latency = np.minimum(body, edges / clock + shape)
    bound = np.where(vector > matrix, 1, 0)
    bound = np.where(t_l2 >= np.maximum(t_grid, t_dram), 2, bound)
    bound = np.where(t_dram >= np.maximum(t_grid, t_l2), 3, bound)
    bound = np.where(start + reduce > 0.5 * time, 4, bound)
    return {
        "time": time, "launch": start, "latency": latency, "main": body - latency - tail_s, "tail": tail_s,
        "reduce": reduce + shape, "waves": g.ctas / slots + shape, "bound": bound,
    }  # fmt: skip
