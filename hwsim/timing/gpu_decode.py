"""Time of attention over a key/value cache with few queries (decoding) on a GPU: flash-decoding.

The rows of all query heads that share keys make one tile; a CTA walks a part of the keys of one such group, block by block,
two blocks on their way; parts are added by a second kernel. The work is a stream of keys and values at the rate of the DRAM
or of the SMs that are busy, or the chain of one CTA's blocks, and beside it what a kernel does once: lengths and block
table, queries, the last normalisation (`decode_edge`). Arrays [rows] of candidates (splits).
Source of the structure: flash-decoding (Dao et al. 2023) as in FlashAttention 2 and 3, and TensorRT-LLM's multi-block mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPLITS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], np.int64)
BLOCK = 64  # keys of a block
ROWS = 64  # queries of all heads that share keys; more are attention with tiles of queries
STAGES = 2
SCORE_ALU = 8.0  # lane operations of a score: scale, maximum, exponent, sum, rescaling
BOUNDS = ("latency", "issue", "l2", "dram")


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """Attention over a cache, arrays [rows]: ``groups`` (requests x key/value heads) of ``rows`` queries each.

    ``keys`` of ``depth`` and values of ``width`` elements of ``kv_bytes`` each; queries and results have ``act_bytes``.
    ``rate``: multiply-accumulates per clock of one SM. ``found``: share of the cache in the L2; ``kept``: of the result.
    """

    groups: Ints
    rows: Ints
    keys: Ints
    depth: Ints
    width: Ints
    kv_bytes: Floats
    act_bytes: Floats
    rate: Floats
    found: Floats
    kept: Floats
    extra_bytes: Floats


@dataclass(frozen=True, slots=True)
class DecodeTimes:
    """Answers [rows], seconds and bytes; ``time_s`` = launch + latency + main + tail + reduce."""

    time_s: Floats
    launch_s: Floats
    latency_s: Floats
    main_s: Floats
    reduce_s: Floats
    split: Ints
    ctas: Ints
    waves: Floats
    bound: Ints
    dram: tuple[Floats, Floats, Floats]  # bytes of the cache, the result, and what is read beside them
    l2_bytes: Floats
    alu: Floats  # lane operations of a block of keys
    special: Floats


class Stream(NamedTuple):
    """What the CTAs of a decoding kernel do, whoever says so (a candidate, or rows of a schedule): arrays or numbers.

    ``matrix`` clocks of the pipe at its peak, ``alu`` and ``special`` lane operations of one block of keys; a CTA walks
    ``share`` of them. Bytes are of the whole kernel; ``partial`` those of parts of results, written and read.
    """

    matrix: Any
    alu: Any
    special: Any
    ctas: Any
    share: Any
    split: Any
    dram: Any
    l2: Any
    partial: Any


def decode_times(view: GpuView, s: DecodeShape, launch_s: float, clock_hz: float | None = None) -> DecodeTimes:
    """Return the fastest split of the keys for each row; ``launch_s`` is what a kernel's start takes."""
    clock = clock_hz or view.clock_hz
    columns = DecodeShape(*(getattr(s, name)[:, None] for name in DecodeShape.__slots__))
    costs = _cost(view, columns, SPLITS[None, :], launch_s, clock)
    best = np.argmin(costs["time"], axis=1)
    p = _cost(view, s, SPLITS[best], launch_s, clock)
    return DecodeTimes(
        p["time"], p["launch"], p["latency"], p["main"], p["reduce"], SPLITS[best], p["ctas"].astype(np.int64),
        p["waves"], p["bound"].astype(np.int64), p["dram"], p["l2"], p["alu"], p["special"],
    )  # fmt: skip


def _cost(view: GpuView, s: DecodeShape, split: Ints, launch_s: float, clock: float) -> dict[str, Any]:
    c = view.constants
    blocks = -(-s.keys // BLOCK)
    share = -(-blocks // split)
    useless = (split > 1) & (-(-blocks // share) != split)
    padded = -(-s.rows // 16) * 16
    depth = -(-s.depth // 16) * 16
    # Bytes: the cache once, queries and results once, parts of results through the L2.
    kv = s.groups * s.keys * (s.depth + s.width) * s.kv_bytes
    q = s.groups * s.rows * s.depth * s.act_bytes
    out = s.groups * s.rows * s.width * s.act_bytes
    dram = kv * (1 - s.found), out * (1 - s.kept), s.extra_bytes + 0 * kv
    partial = np.where(split > 1, 2 * 4.0 * s.groups * s.rows * (s.width + 2) * split, 0.0)
    narrow = np.where(s.kv_bytes < s.act_bytes, c["widen_instructions"] * BLOCK * (s.depth + s.width), 0.0)
    stream = Stream(
        padded * BLOCK * (depth + s.width) / s.rate, SCORE_ALU * s.rows * BLOCK + narrow, 1.0 * s.rows * BLOCK,
        s.groups * split, share, split, sum(dram), kv + q * split + out + partial + s.extra_bytes, partial,
    )  # fmt: skip
    found = stream_times(view, stream, launch_s, clock)
    shape = 0 * found["time"]
    found["time"] = np.where(useless, np.inf, found["time"])
    return found | {
        "ctas": stream.ctas + shape, "dram": tuple(x + shape for x in dram), "l2": stream.l2 + shape,
        "alu": stream.alu + shape, "special": stream.special + shape,
    }  # fmt: skip


def stream_times(view: GpuView, s: Stream, launch_s: float, clock: float) -> dict[str, Any]:
    """Return the seconds of a decoding kernel by part, its waves, and what bounds it (index of `BOUNDS`)."""
    c = view.constants
    # One block, in clocks of an SM: two products, the softmax between, and widening keys and values.
    matrix = s.matrix / c["pipe_efficiency"]
    vector = s.alu / (view.simt_macs["fp32"] * c["issue_efficiency"]) + s.special / view.special_per_clk
    both = matrix + vector  # one tile of queries: nothing else is there to overlap with
    latency = view.dram_latency_s * clock * c["loaded_latency"]
    # An SM has one CTA at a time: its registers and shared memory are full of keys and partial sums.
    full = np.floor(s.ctas / view.sms)
    rest = s.ctas - full * view.sms
    alone = c["decode_edge"] + s.share * np.maximum(both, latency / STAGES)
    walk = np.ceil(s.ctas / view.sms) * alone / clock
    peak = view.stream_bytes_per_s
    each = c["sm_dram_bytes"] * clock
    # A last round of few CTAs streams at the rate of the SMs it has.
    per_cta = s.dram / s.ctas
    stream = full * view.sms * per_cta / np.minimum(peak, view.sms * each)
    stream = stream + rest * per_cta / np.minimum(peak, np.maximum(rest, 1) * each)
    l2_rate = np.minimum(
        view.l2_bytes_per_clk * c["l2_efficiency"], np.minimum(s.ctas, view.sms) * view.l2_sm_bytes_per_clk
    )
    l2_rate = l2_rate * clock
    through = s.l2 / l2_rate
    flow = np.maximum(stream, through)
    sharp = c["overlap"]
    larger = np.maximum(walk, flow)
    body = larger * (1 + (np.minimum(walk, flow) / larger) ** sharp) ** (1 / sharp) - c["decode_edge"] / clock
    edge = (c["decode_edge"] + latency) / clock
    shape = 0 * body
    start = launch_s + c["kernel_s"] + shape
    reduce = np.where(s.split > 1, launch_s + c["reduce_s"] + s.partial / l2_rate, 0.0) + shape
    time = start + edge + body + reduce
    bound = np.where(both > latency / STAGES, 1, 0)
    bound = np.where(through >= np.maximum(walk, stream), 2, bound)
    bound = np.where(stream >= np.maximum(walk, through), 3, bound)
    return {
        "time": time, "launch": start, "latency": shape + edge, "main": body, "reduce": reduce,
        "waves": s.ctas / view.sms + shape, "bound": bound + shape,
    }  # fmt: skip
