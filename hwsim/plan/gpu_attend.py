"""Choice of decoding attention on a GPU: attention over a key/value cache costed as flash-decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwsim.formats import FORMATS
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice, Walk
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_decode import BLOCK, BOUNDS, ROWS, DecodeShape, decode_times


def heads_together(kernel: Kernel) -> int:
    """Return how many query heads of an attention kernel read the same keys."""
    qk = kernel.products[0]
    return max(1, qk.batch * (qk.span or qk.n) * qk.k // max(1, qk.b_elements))


def decodes(kernel: Kernel) -> bool:
    """Return whether a kernel is attention of few queries over a cache."""
    cached = any(o.role == "cache" for o in kernel.inputs)
    return kernel.kind == "attention" and cached and kernel.products[0].m * heads_together(kernel) <= ROWS


def decode_choices(kernels: Sequence[Kernel], view: GpuView, launch_s: float) -> list[GpuChoice]:
    """Return the choice of every decoding kernel; ``launch_s`` is what starting one takes."""
    if not kernels:
        return []
    rows = [_row(kernel, view) for kernel in kernels]
    table = np.array(rows, np.float64)
    columns: list[Any] = [table[:, i].astype(np.int64) for i in range(5)]
    columns += [table[:, i] for i in range(5, 11)]
    got = decode_times(view, DecodeShape(*columns), launch_s)
    out = []
    for i, kernel in enumerate(kernels):
        assert kernel.multiply is not None
        qk, pv = kernel.products
        times = {
            "launch": got.launch_s[i], "latency": got.latency_s[i], "main": got.main_s[i], "reduce": got.reduce_s[i],
        }  # fmt: skip
        fmt, blocks, split = kernel.multiply.format, -(-qk.n // BLOCK), int(got.split[i])
        groups, queries, *_, kv, act, rate = rows[i][:8]
        walk = Walk(int(groups), int(queries), qk.n, qk.k, pv.n, -1, False, float(got.alu[i]), float(got.special[i]),
                    act, kv, rows[i][10], streams=True)  # fmt: skip
        out.append(
            GpuChoice(
                "attention", "tensor" if fmt in view.tensor_macs else "simt", fmt, qk.m, qk.n, qk.k, qk.batch,
                (-(-int(queries) // 16) * 16, BLOCK, qk.k), 2, (16, BLOCK, 4, split), (1, blocks), split,
                int(got.ctas[i]), -(-blocks // split), float(got.waves[i]), 1, BOUNDS[got.bound[i]], kernel.repeat,
                {k: float(v) for k, v in times.items()},
                {name: float(v[i]) for name, v in zip(("a", "c", "x"), got.dram, strict=True)},
                {"a": float(got.l2_bytes[i])}, rate=rate, walk=walk,
            )
        )  # fmt: skip
    return out


def _row(kernel: Kernel, view: GpuView) -> tuple[float, ...]:
    assert kernel.multiply is not None
    qk, pv = kernel.products
    fmt = kernel.multiply.format
    together = heads_together(kernel)
    cache = [o for o in kernel.inputs if o.role == "cache"]
    held = sum(o.bytes for o in cache)
    found = sum(o.bytes * o.cached for o in cache) / max(1, held)
    out = sum(o.bytes for o in kernel.outputs)
    kept = sum(o.bytes * o.cached for o in kernel.outputs) / max(1, out)
    extra = sum(o.bytes for o in kernel.inputs if o.role in ("mask", "x"))
    act = next((o.format for o in kernel.inputs if o.role == "a"), kernel.inputs[0].format)
    rate = view.tensor_macs.get(fmt, 0.0) or view.simt_macs.get(fmt, 1.0)
    return (
        qk.batch // together, qk.m * together, qk.n, qk.k, pv.n, FORMATS[cache[0].format].width / 8,
        FORMATS[act].width / 8, rate, found, kept, extra,
    )  # fmt: skip
