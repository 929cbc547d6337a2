"""Time of fused attention on a GPU: tiles of queries walk the keys, scores never leave the SM (FlashAttention class).

A CTA holds a tile of queries and walks blocks of keys and values: two matrix products and the softmax of the block between
them. Matrix and CUDA cores overlap only in part (Dao, *FlashAttention-2*, 2023, reaches 60 to 70 % of A100's peak). Causal
attention walks the blocks up to the diagonal. Kernels for short sequences, and the first FlashAttention, give a CTA a whole
head: with few heads most SMs idle. Few queries (decoding) split the keys over CTAs and add the parts in a second
kernel (flash-decoding). Arrays [rows] of candidates by (rows, tiles).
"""

from __future__ import annotations

from dataclasses import dataclass

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
    dram_bytes: Floats
    l2_bytes: Floats


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
        p["dram"], p["l2"],
    )  # fmt: skip


def _cost(
    view: GpuView, s: AttentionShape, tile: Ints, split: Ints, launch_s: float, clock: float
) -> dict[str, Floats]:
    c = view.constants
    tq, tk, warps = TILES[tile, 0], TILES[tile, 1], TILES[tile, 2]
    # Query heads that share keys are rows of one tile where there are few queries.
    packed = (s.queries * s.sharing <= tq) & (s.sharing > 1)
    rows = np.where(packed, s.queries * s.sharing, s.queries)
    heads = np.where(packed, s.batch // s.sharing, s.batch)
    tiles_q, blocks_k = -(-rows // tq), -(-s.keys // tk)
    blocks_q = np.where(s.one_cta, 1, tiles_q)  # CTAs of a head, each with so many tiles of queries:
    tiles = tiles_q / blocks_q
    share = -(-blocks_k // split)
    useless = s.one_cta & (split > 1) | (split > 1) & (
        (-(-blocks_k // np.maximum(share, 1)) != split) | s.causal & (s.queries > 1)
    )
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
    # One block of keys against one tile of queries, in clocks of an SM.
    matrix = tq * tk * (depth + s.width) / (s.rate * c["pipe_efficiency"])
    lanes = view.simt_macs["fp32"]
    scores = s.batch * s.queries * s.keys
    alu = c["attention_alu"] + INTEGER_ALU * s.integer + s.extra_alu / np.maximum(scores, 1)
    special = 1 + INTEGER_SPECIAL * s.integer
    vector = tq * tk * (alu / (lanes * c["issue_efficiency"]) + special / view.special_per_clk)
    both = np.maximum(matrix, vector) + (1 - c["attention_overlap"]) * np.minimum(matrix, vector)
    ctas = heads * blocks_q * split
    slots = occupancy * view.sms
    full = np.floor(ctas / slots)
    rest = ctas - full * slots
    deep = np.ceil(rest / view.sms)
    # Causal: a tile of queries sees the blocks up to its diagonal; tiles are dealt longest first, so waves even out.
    diagonal = s.causal & (s.queries > 1) & (s.keys >= s.queries)
    past = np.maximum(0, s.keys - s.queries)
    walked = np.where(diagonal, (past + (tiles_q + 1) / 2 * tq) / tk, share)
    walked = np.minimum(np.maximum(walked, 1), share) * tiles
    longest = np.where(s.one_cta, walked, share)
    dram_latency = view.dram_latency_s * clock * c["loaded_latency"]
    step_latency = dram_latency / 2  # two blocks of keys are on their way
    edges = c["attention_edge"] + 2 * dram_latency
    per_block = np.maximum(both, step_latency / occupancy)
    main = full * occupancy * walked * per_block
    alone = longest * np.maximum(both, step_latency) + edges
    tail = np.where(rest > 0, np.maximum(alone, deep * walked * both), 0.0)
    tail = np.where(full > 0, np.maximum(deep * walked * both, 0) + np.where(rest > 0, 0, 0), tail)
    grid = np.maximum(main + tail + np.where(full > 0, edges, 0), alone)
    # Bytes: queries once, keys and values once per tile of queries (from the L2 after the first), result once.
    q = s.batch * s.queries * s.depth * s.element_bytes
    kv = s.batch / s.sharing * s.keys * (s.depth + s.width) * s.element_bytes
    out = s.batch * s.queries * s.width * s.element_bytes
    dram = (q + kv) * (1 - s.found) + out * (1 - s.kept) + s.extra_bytes
    read_l2 = q + kv * np.where(packed, 1, s.sharing) * blocks_q * walked / np.maximum(share * tiles, 1)
    partial = np.where(split > 1, 2 * 4.0 * s.batch * s.queries * (s.width + 2) * split, 0.0)
    l2 = read_l2 + out + partial + s.extra_bytes
    active = np.minimum(ctas, view.sms)
    rate = np.minimum(view.dram_bytes_per_s * c["dram_efficiency"], active * c["sm_dram_bytes"] * clock)
    l2_rate = np.minimum(view.l2_bytes_per_clk * c["l2_efficiency"], active * view.l2_sm_bytes_per_clk) * clock
    t_dram = dram / rate + edges / clock
    t_l2 = l2 / l2_rate + edges / clock
    t_grid = grid / clock
    body = np.maximum(np.maximum(t_grid, t_dram), t_l2)
    reduce = np.where(split > 1, launch_s + c["reduce_s"] + partial / l2_rate, 0.0)
    start = launch_s + c["kernel_s"] + 0 * body
    time = np.where(useless | illegal, np.inf, start + body + reduce)
    tail_s = np.where(full > 0, tail / clock, 0.0)
    tail_s = np.minimum(tail_s, np.maximum(0, body - edges / clock))
    latency = np.minimum(body, edges / clock + 0 * body)
    bound = np.where(vector > matrix, 1, 0)
    bound = np.where(t_l2 >= np.maximum(t_grid, t_dram), 2, bound)
    bound = np.where(t_dram >= np.maximum(t_grid, t_l2), 3, bound)
    bound = np.where(start + reduce > 0.5 * time, 4, bound)
    return {
        "time": time, "launch": start, "latency": latency, "main": body - latency - tail_s, "tail": tail_s,
        "reduce": reduce, "ctas": ctas, "waves": ctas / slots, "occupancy": occupancy, "bound": bound, "dram": dram,
        "l2": l2,
    }  # fmt: skip
