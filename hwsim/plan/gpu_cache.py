"""Attention with a key/value cache on a GPU: a kernel that appends the new keys and values, and attention over the cache.

Serving libraries rotate queries and keys and write keys and values to the cache, in its own format, in one small kernel
(reshape-and-cache of vLLM, the query/key/value preprocessing of TensorRT-LLM); attention then reads the cache alone.
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.formats import storage_bytes
from hwsim.network.graph import Layer, Network
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.operands import elements_of
from hwsim.plan.precision import Precision


def appended(net: Network, layer: Layer, kernel: Kernel, precision: Precision, index: int) -> list[Kernel]:
    """Return attention ``kernel`` of ``layer`` as two: the append (number ``index``) and the attention itself.

    The appended rows have role ``keep``: they stay in memory whoever reads them. Layers fused into the attention before
    it (rotations) are the append's.
    """
    before = [la for la in kernel.layers if la != layer.id]
    work = [net.vector_work[la] for la in before]
    keys, values = (elements_of(net, name) for name in layer.src[1:3])
    queries = elements_of(net, layer.src[0])
    act, fmt = precision.activations, precision.cache
    q = Operand(f"{layer.id}.q", queries, storage_bytes(queries, act), act)
    rows = Operand(f"{layer.id}.kv", keys + values, storage_bytes(keys + values, fmt), fmt, role="keep")
    aside = tuple(o for o in kernel.inputs if o.role in ("cache", "mask"))
    read = tuple(replace(o, role="x") for o in kernel.inputs if o not in aside)
    narrowed = 3 * (keys + values) if fmt != act else 0
    append = Kernel(
        name=f"{layer.name or layer.op} append", op="append", kind="vector", layers=tuple(before) or kernel.layers,
        inputs=read, outputs=(q, rows), alu=sum(w.alu for w in work) + narrowed,
        special=sum(w.special for w in work), rows=kernel.rows, producers=kernel.producers,
    )  # fmt: skip
    own = net.vector_work[layer.id]
    attention = replace(
        kernel, name=layer.name or layer.op, layers=(layer.id,), alu=own.alu, special=own.special,
        inputs=(replace(q, role="a"), *aside, replace(rows, role="cache")), producers=(index,),
    )  # fmt: skip
    return [append, attention]
