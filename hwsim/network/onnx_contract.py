"""ONNX nodes with matrix products: convolutions, Gemm, MatMul, Einsum, recurrent cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwsim.network.builder import same_padding
from hwsim.network.dims import IntShape
from hwsim.network.importing import Value
from hwsim.network.onnx_graph import Handler, OnnxGraph, as_stored, elementwise
from hwsim.network.ops_contract import window_out


def per_axis(g: OnnxGraph, key: str, rank: int, default: int) -> tuple[int, ...]:
    """Attribute ``key`` as one integer a spatial axis."""
    found = g.attr_ints(key)
    if found is None or not found:
        return (default,) * rank
    if len(found) != rank:
        raise g.fail(f"attribute {key} has {len(found)} values for {rank} spatial dimensions")
    if any(not 0 <= v <= 2**31 for v in found):
        raise g.fail(f"attribute {key} has a value out of range")
    return tuple(found)


def window_pads(g: OnnxGraph, x: Value, k: Sequence[int], s: Sequence[int], d: Sequence[int]) -> tuple[int, ...]:
    """Padding of a sliding window: begin of every axis, then end, from ``auto_pad`` or ``pads``."""
    rank = len(k)
    auto = g.attr_str("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        if min(s) < 1 or min(d) < 1:
            raise g.fail("strides and dilations must be at least 1")
        found = same_padding(x.shape[2:], k, s, d)
        begin, end = found[:rank], found[rank:] or found
        return (*end, *begin) if auto == "SAME_LOWER" else (*begin, *end)
    if auto == "VALID":
        return (0,) * (2 * rank)
    if auto not in ("NOTSET", ""):
        raise g.fail(f"unknown auto_pad {auto[:40]!r}")
    return per_axis(g, "pads", 2 * rank, 0)


def tidy_pads(pads: Sequence[int]) -> tuple[int, ...] | None:
    """Padding as the trace writes it: nothing when zero, one side when symmetric."""
    half = len(pads) // 2
    if not any(pads):
        return None
    return tuple(pads[:half]) if tuple(pads[:half]) == tuple(pads[half:]) else tuple(pads)


def unless(values: Sequence[int], common: int) -> tuple[int, ...] | None:
    """None when every value is the common one."""
    return None if all(v == common for v in values) else tuple(values)


def conv_layer(
    g: OnnxGraph, x: Value, w: Value, bias: Value | None, *, dtype: str | None = None, qparams: str = ""
) -> Value:
    """A convolution of ``x`` with stored weights (features, channels / groups, *kernel)."""
    rank = len(x.shape) - 2
    if rank < 1 or len(w.shape) != rank + 2:
        raise g.fail(f"input of rank {len(x.shape)} and weights of rank {len(w.shape)} do not fit")
    if not w.is_const:
        raise g.fail("its weights are computed, not stored; hwsim reads stored weights only")
    k = w.shape[2:]
    stated = g.attr_ints("kernel_shape")
    if stated and tuple(stated) != k:
        raise g.fail(f"kernel_shape {stated} differs from the weights' {list(k)}")
    s, d = per_axis(g, "strides", rank, 1), per_axis(g, "dilations", rank, 1)
    pads, groups = window_pads(g, x, k, s, d), g.attr_int("group", 1)
    if groups < 1 or w.shape[1] * groups != x.shape[1]:
        raise g.fail(f"weights take {w.shape[1]} channels in {groups} groups, the input has {x.shape[1]}")
    size = [window_out(x.shape[2 + i], k[i], s[i], pads[i], pads[rank + i], d[i]) for i in range(rank)]
    return g.part(
        "conv", x, weight=w, added=bias, out=(x.shape[0], w.shape[0], *size), dtype=dtype, qparams=qparams, k=k,
        s=unless(s, 1), p=tidy_pads(pads), d=unless(d, 1), g=groups if groups > 1 else None,
        bias=bias is not None,
    )  # fmt: skip


def conv(g: OnnxGraph) -> None:
    """Conv."""
    g.store(0, conv_layer(g, g.x(0), g.x(1), g.opt(2)))


def conv_transpose(g: OnnxGraph) -> None:
    """ConvTranspose: weights (channels, features / groups, *kernel)."""
    x, w, bias = g.x(0), g.x(1), g.opt(2)
    rank = len(x.shape) - 2
    if rank < 1 or len(w.shape) != rank + 2 or w.shape[0] != x.shape[1] or not w.is_const:
        raise g.fail(f"stored weights {list(w.shape)} do not fit input {list(x.shape)}")
    k = w.shape[2:]
    s, d = per_axis(g, "strides", rank, 1), per_axis(g, "dilations", rank, 1)
    extra, groups = per_axis(g, "output_padding", rank, 0), g.attr_int("group", 1)
    want, auto = g.attr_ints("output_shape"), g.attr_str("auto_pad", "NOTSET")
    full = [s[i] * (x.shape[2 + i] - 1) + d[i] * (k[i] - 1) + 1 + extra[i] for i in range(rank)]
    pads: Sequence[int]
    if want or auto.startswith("SAME"):
        out = list(want or [])[-rank:] or [x.shape[2 + i] * s[i] for i in range(rank)]
        spare = [f - o for f, o in zip(full, out, strict=True)]
        extra = tuple(e + max(0, -t) for e, t in zip(extra, spare, strict=True))
        small = [max(0, t) // 2 for t in spare]
        large = [max(0, t) - b for t, b in zip(spare, small, strict=True)]
        pads = [*large, *small] if auto == "SAME_LOWER" else [*small, *large]
    else:
        pads = (0,) * (2 * rank) if auto == "VALID" else per_axis(g, "pads", 2 * rank, 0)
        out = [full[i] - pads[i] - pads[rank + i] for i in range(rank)]
    g.layer(
        "conv_transpose", x, weight=w, added=bias, out=(x.shape[0], w.shape[1] * groups, *out), k=k, s=unless(s, 1),
        p=tidy_pads(pads), d=unless(d, 1), g=groups if groups > 1 else None, op=unless(extra, 0),
        bias=bias is not None,
    )  # fmt: skip


def conv_integer(g: OnnxGraph) -> None:
    """ConvInteger: int8 operands, int32 sums."""
    g.store(0, conv_layer(g, g.x(0), g.x(1), None, dtype="int32"))


def transposed(g: OnnxGraph, value: Value, perm: Sequence[int]) -> Value:
    """``value`` with permuted dimensions; a stored tensor stays one."""
    if list(perm) == list(range(len(value.shape))):
        return value
    made = g.part("transpose", value, out=tuple(value.shape[i] for i in perm), perm=tuple(perm))
    return as_stored(made, value)


def swapped(g: OnnxGraph, value: Value) -> Value:
    """``value`` with its last two dimensions exchanged."""
    rank = len(value.shape)
    if rank < 2:
        raise g.fail(f"cannot transpose a tensor of rank {rank}")
    return transposed(g, value, (*range(rank - 2), rank - 1, rank - 2))


def product(
    g: OnnxGraph, a: Value, b: Value, *, bias: Value | None = None, dtype: str | None = None, qparams: str = ""
) -> Value:
    """``a @ b`` by numpy's rules; a stored matrix on the right makes a linear layer."""
    if not a.shape or not b.shape:
        raise g.fail("a product needs operands of rank 1 or more")
    if b.is_const and len([d for d in b.shape[:-2] if d != 1]) == 0 and len(b.shape) >= 2 and not a.is_const:
        depth, features = b.shape[-2:]
        if a.shape[-1] != depth:
            raise g.fail(f"reduction lengths differ: {a.shape[-1]} and {depth}")
        made = g.part(
            "linear", a, weight=b, added=bias, out=(*a.shape[:-1], features), dtype=dtype, qparams=qparams, k=depth,
            bias=bias is not None,
        )  # fmt: skip
        rank = max(len(a.shape), len(b.shape))
        return g.reshaped(made, (*(1,) * (rank - len(a.shape)), *made.shape))
    left = g.reshaped(a, (1, *a.shape)) if len(a.shape) == 1 else a
    right = g.reshaped(b, (*b.shape, 1)) if len(b.shape) == 1 else b
    made = g.part("matmul", left, right, dtype=dtype, qparams=qparams)
    shape = list(made.shape)
    if len(a.shape) == 1:
        del shape[-2]
    if len(b.shape) == 1:
        del shape[-1]
    made = g.reshaped(made, shape)
    return made if bias is None else elementwise(g, "add", made, bias)


def matmul(g: OnnxGraph) -> None:
    """MatMul."""
    g.store(0, product(g, g.x(0), g.x(1)))


def matmul_integer(g: OnnxGraph) -> None:
    """MatMulInteger: int8 operands, int32 sums."""
    g.store(0, product(g, g.x(0), g.x(1), dtype="int32"))


def gemm(g: OnnxGraph) -> None:
    """Gemm: rank-2 product with optional transpositions and a third operand added."""
    a, b, c = g.x(0), g.x(1), g.opt(2)
    if len(a.shape) == 2 and g.attr_int("transA", 0):
        a = swapped(g, a)
    if len(b.shape) == 2 and g.attr_int("transB", 0):
        b = swapped(g, b)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise g.fail(f"needs matrices, not ranks {len(a.shape)} and {len(b.shape)}")
    is_bias = c is not None and c.is_const and c.elements == b.shape[1]
    if b.is_const and not a.is_const and (is_bias or c is None):
        g.store(0, product(g, a, b, bias=c))
        return
    made = product(g, a, b)
    g.store(0, made if c is None else elementwise(g, "add", made, c))


def einsum(g: OnnxGraph) -> None:
    """Einsum of two operands that is a batched matrix product up to transposition."""
    text = g.attr_str("equation", "").replace(" ", "")
    left, _, result = text.partition("->")
    terms = left.split(",")
    unclear = f"equation {text[:60]!r} is not a batched matrix product"
    if len(terms) != 2 or len(g.given()) != 2 or "." in text or "->" not in text:
        raise g.fail(unclear)
    x, y = g.x(0), g.x(1)
    p, q = terms
    if len(p) != len(x.shape) or len(q) != len(y.shape) or any(len(set(t)) != len(t) for t in (p, q, result)):
        raise g.fail(f"equation {text[:60]!r} does not fit operands of rank {len(x.shape)} and {len(y.shape)}")
    size = dict(zip(p + q, (*x.shape, *y.shape), strict=True))
    batch = [c for c in p if c in q and c in result]
    inner = [c for c in p if c in q and c not in result]
    rows = [c for c in p if c not in q]
    columns = [c for c in q if c not in p]
    if not inner or set(result) != {*batch, *rows, *columns}:
        raise g.fail(unclear)

    def extent(letters: Sequence[str]) -> int:
        return math.prod(size[c] for c in letters)

    lead = tuple(size[c] for c in batch)
    a = transposed(g, x, [p.index(c) for c in (*batch, *rows, *inner)])
    b = transposed(g, y, [q.index(c) for c in (*batch, *inner, *columns)])
    a = g.reshaped(a, (*lead, extent(rows), extent(inner)))
    b = g.reshaped(b, (*lead, extent(inner), extent(columns)))
    made = g.reshaped(product(g, a, b), (*lead, *(size[c] for c in (*rows, *columns))))
    now = [*batch, *rows, *columns]
    g.store(0, transposed(g, made, [now.index(c) for c in result]))


def recurrent(op: str, gates: int) -> Handler:
    """LSTM, GRU, RNN: input (time, batch, features); output (time, directions, batch, hidden)."""

    def handler(g: OnnxGraph) -> None:
        x, w, r = g.x(0), g.x(1), g.x(2)
        if len(x.shape) != 3 or len(w.shape) != 3 or len(r.shape) != 3 or not (w.is_const and r.is_const):
            raise g.fail("needs a rank-3 input and stored rank-3 weights")
        sides, hidden = w.shape[0], r.shape[2]
        if sides not in (1, 2) or w.shape != (sides, gates * hidden, x.shape[2]) or r.shape[1] != gates * hidden:
            raise g.fail(f"weights {list(w.shape)} and {list(r.shape)} do not fit input {list(x.shape)}")
        batch_first = bool(g.attr_int("layout", 0))
        states = [v for v in (g.opt(5), g.opt(6) if op == "lstm" else None) if v is not None and not v.is_const]
        made = g.part(
            op, x, *states, weight=w, out=(*x.shape[:2], hidden * sides), h=hidden, bi=sides == 2, bias=g.has(3),
            bias2=g.has(3), peephole=op == "lstm" and g.has(7), seq_first=not batch_first,
        )  # fmt: skip
        first, second = x.shape[:2]
        if g.wants(0):
            if batch_first or sides == 1:
                shape: IntShape = (first, second, sides, hidden) if batch_first else (first, 1, second, hidden)
                g.store(0, g.reshaped(made, shape))
            else:
                split = g.reshaped(made, (first, second, sides, hidden))
                g.store(0, transposed(g, split, (0, 2, 1, 3)))
        batch = first if batch_first else second
        state = (batch, sides, hidden) if batch_first else (sides, batch, hidden)
        for i in (1, 2):
            if g.wants(i):
                g.store(i, g.emit.select(made, i, state))

    return handler


CONTRACT: dict[str, Handler] = {
    "Conv": conv, "ConvTranspose": conv_transpose, "ConvInteger": conv_integer, "MatMul": matmul,
    "MatMulInteger": matmul_integer, "Gemm": gemm, "Einsum": einsum, "LSTM": recurrent("lstm", 4),
    "GRU": recurrent("gru", 3), "RNN": recurrent("rnn", 1),
}  # fmt: skip
