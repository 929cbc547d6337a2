"""PyTorch operators with matrix products: convolution, linear, products, attention, recurrence; look-ups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.network import torch_ops as table
from hwsim.network.dims import IntShape
from hwsim.network.torch_graph import Ref, TorchNode
from hwsim.network.torch_values import Const, Handler, Value, per_axis, short, trim
from hwsim.network.torch_vector import combine
from hwsim.network.torch_views import View, plan

if TYPE_CHECKING:
    from hwsim.network.torch_convert import Converter


def conv(at: Converter, target: str, node: TorchNode) -> Value:
    x = at.solid(at.view(node.args[0], node))
    weight = at.const(node.args[1], node)
    assert weight is not None
    rank = len(weight.shape) - 2
    bias = at.const(at.arg(node, 2, "bias"), node)
    general = target in ("convolution", "_convolution")
    transposed = target.startswith("conv_transpose") or (general and bool(at.arg(node, 6, "transposed")))
    stride = per_axis(at.arg(node, 3, "stride", 1), rank)
    padding = at.arg(node, 4, "padding", 0)
    output_padding = (0,) * rank
    if target.startswith("conv_transpose"):
        output_padding = per_axis(at.arg(node, 5, "output_padding", 0), rank)
        groups, dilation = int(at.arg(node, 6, "groups", 1)), per_axis(at.arg(node, 7, "dilation", 1), rank)
    elif general:
        dilation, groups = per_axis(at.arg(node, 5, "dilation", 1), rank), int(at.arg(node, 8, "groups", 1))
        output_padding = per_axis(at.arg(node, 7, "output_padding", 0), rank)
    else:
        dilation, groups = per_axis(at.arg(node, 5, "dilation", 1), rank), int(at.arg(node, 6, "groups", 1))
    kernel = weight.shape[2:]
    if padding == "same":
        spread = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        begin, end = tuple(s // 2 for s in spread), tuple(s - s // 2 for s in spread)
        pads = begin if begin == end else (*begin, *end)
    else:
        pads = (0,) * rank if padding == "valid" else per_axis(padding, rank)
    out = node.out.shape
    if len(out) == rank + 1:  # without a batch dimension
        x, out = at.solid(x.insert(0)), (1, *out)
    made = at.row(
        "conv_transpose" if transposed else "conv", [x.base], out, k=kernel,
        s=short(stride) if any(v != 1 for v in stride) else None, p=short(pads) if any(pads) else None,
        d=short(dilation) if any(v != 1 for v in dilation) else None, g=groups if groups != 1 else None,
        op=short(output_padding) if any(output_padding) else None, bias=bias is not None, tied=at.tie(weight),
    )  # fmt: skip
    at.claim(weight, made)
    return made if len(out) == len(node.out.shape) else made.drop(0)


def matrix(at: Converter, view: View, weight: Const, bias: Const | None, width: int) -> View:
    """Rows of an activation times a constant matrix of ``width`` columns."""
    tied = at.tie(weight)
    separate = tied is not None and bias is not None and bias.param not in at.used

    def emit(base: str, shape: IntShape) -> View:
        return at.row(
            "linear", [base], (*shape[:-1], width), k=shape[-1], bias=bias is not None and not separate, tied=tied
        )

    made = at.by_rows(view, emit)
    at.claim(weight, made)
    if bias is not None:
        at.claim(bias, made)
    if separate:
        made = made.on(at.row("add", [made.base], made.base_shape, const=(width,), learned=True).base)
    return made


def linear(at: Converter, target: str, node: TorchNode) -> Value:
    weight = at.const(node.args[1], node)
    assert weight is not None
    bias = at.const(at.arg(node, 2, "bias"), node)
    return matrix(at, at.view(node.args[0], node), weight, bias, weight.shape[0])


def addmm(at: Converter, target: str, node: TorchNode) -> Value:
    weight = at.value(node.args[2])
    bias = at.value(node.args[0])
    if isinstance(weight, Const) and isinstance(bias, Const):
        return matrix(at, at.view(node.args[1], node), weight, bias, weight.shape[-1])
    product = _multiply(at, node, node.args[1], node.args[2], node.out.shape)
    return combine_view(at, node, "add", product, node.args[0])


def combine_view(at: Converter, node: TorchNode, op: str, view: View, other: Any) -> Value:
    """Like `combine`, with the first operand already a view."""
    at.env["%tmp"] = view
    return combine(at, op, node, Ref("%tmp"), other)


def matmul(at: Converter, target: str, node: TorchNode) -> Value:
    return _multiply(at, node, node.args[0], node.args[1], node.out.shape)


def baddbmm(at: Converter, target: str, node: TorchNode) -> Value:
    product = _multiply(at, node, node.args[1], node.args[2], node.out.shape)
    if at.arg(node, 3, "beta", 1) == 0:
        return product
    return combine_view(at, node, "add", product, node.args[0])


def _multiply(at: Converter, node: TorchNode, a: Any, b: Any, out: IntShape) -> View:
    left, right = at.value(a), at.value(b)
    if isinstance(right, Const) and len(trim(right.shape)) <= 2 and isinstance(left, View) and len(right.shape) >= 2:
        return matrix(at, left, right, None, right.shape[-1])
    x, y = at.view(a, node), at.view(b, node)
    if len(x.shape) < 2 or len(y.shape) < 2:
        raise HwsimError(f"{node.where}: a product with a vector is not supported")
    swap = [*range(len(y.shape) - 2), len(y.shape) - 1, len(y.shape) - 2]
    other = y.permute(swap)
    flipped = _cost(other) < _cost(y) or (_cost(other) == _cost(y) and y.dims[-1] > y.dims[-2])
    return at.row("matmul", [at.make(x), at.make(other if flipped else y)], out, bt=flipped)


def attention(at: Converter, target: str, node: TorchNode) -> Value:
    q, k, v = (at.view(a, node) for a in node.args[:3])
    mask = at.value(at.arg(node, 3, "attn_mask"))
    causal = bool(at.arg(node, 5, "is_causal", False))
    sources = [at.make(t) for t in (q, k, v)]
    if isinstance(mask, Const) and not mask.learned:
        causal = causal or mask.causal
    elif isinstance(mask, Const):
        sources.append(at.make(at.force(mask)))
    elif isinstance(mask, View):
        sources.append(at.make(mask))
    shape = (*q.shape[:-1], v.shape[-1])
    if len(q.shape) == 2:
        raise HwsimError(f"{node.where}: attention without heads or batch is not supported")
    scale = at.arg(node, 6, "scale")
    usual = scale is None or math.isclose(float(scale), q.shape[-1] ** -0.5, rel_tol=1e-6)
    return at.row("attention", sources, shape, causal=causal, scale=None if usual else float(scale))


def recurrent(at: Converter, target: str, node: TorchNode) -> Value:
    x = at.view(node.args[0], node)
    weights, has_bias, layers = node.args[2], bool(node.args[3]), int(node.args[4])
    both, batch_first = bool(node.args[7]), bool(node.args[8])
    per = (4 if has_bias else 2) * (2 if both else 1)
    first = at.const(weights[0], node)
    assert first is not None
    hidden = first.shape[0] // {"lstm": 4, "gru": 3}.get(target, 1)
    if len(weights) != per * layers:
        raise HwsimError(f"{node.where}: projected recurrent cells are not supported")
    for _ in range(layers):
        width = hidden * (2 if both else 1)
        x = at.row(
            target if target in ("lstm", "gru") else "rnn", [at.make(x)], (*x.shape[:2], width), h=hidden,
            bi=both, bias=has_bias, bias2=has_bias, seq_first=not batch_first,
        )  # fmt: skip
    state = None if len(node.outs) < 2 or node.outs[1] is None else node.outs[1]
    last: Value = Const(state.shape, state.shape, state.dtype) if state else None
    return (x, *([last] * (len(node.outs) - 1)))


def embedding(at: Converter, target: str, node: TorchNode) -> Value:
    weight = at.const(node.args[0], node)
    assert weight is not None
    ids = at.value(node.args[1])
    if isinstance(ids, View):
        index = ids
    else:
        assert isinstance(ids, Const)
        index = at.stored(ids.core, "int64")
    rows, width = weight.shape
    shape = (*index.shape, width)
    if not index.sliced and index.dims != index.base_dims:
        made = at.row(
            "embedding", [index.base], (*index.base_shape, width), rows=rows, width=width, tied=at.tie(weight)
        )
        at.claim(weight, made)
        again = made.reshape(shape) if index.shape != index.base_shape else None
        if again is not None and sorted(index.dims) == list(index.dims):
            return again
    made = at.row("embedding", [at.make(index)], shape, rows=rows, width=width, tied=at.tie(weight))
    at.claim(weight, made)
    return made if shape == node.out.shape else at.expand(made, node.out.shape)


def _cost(view: View) -> int:
    return sum({"transpose": 100, "split": 1, "reshape": 1}[s.op] for s in plan(view))


def einsum(at: Converter, target: str, node: TorchNode) -> Value:
    """Two-operand contraction as one batched product: batch, row, column and reduced letters."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    left, _, out = equation.partition("->")
    names = left.split(",")
    if len(names) != 2 or "." in equation or not out or any(len(set(n)) != len(n) for n in names):
        raise HwsimError(f"{node.where}: einsum {equation!r} is not a product of two tensors")
    a, b = names
    x, y = at.view(operands[0], node), at.view(operands[1], node)
    size = dict(zip(a, x.shape, strict=True)) | dict(zip(b, y.shape, strict=True))
    batch = [c for c in out if c in a and c in b]
    rows = [c for c in out if c in a and c not in b]
    cols = [c for c in out if c in b and c not in a]
    inner = [c for c in a if c in b and c not in out]
    if set(a) != {*batch, *rows, *inner} or set(b) != {*batch, *cols, *inner}:
        raise HwsimError(f"{node.where}: einsum {equation!r} is not a product of two tensors")

    def arrange(view: View, have: str, groups: list[list[str]]) -> str:
        moved = view.permute([have.index(c) for g in groups for c in g])
        shape = tuple(math.prod(size[c] for c in g) for g in groups)
        shaped = moved.reshape(shape) or at.solid(moved).reshape(shape)
        assert shaped is not None
        return at.make(shaped)

    m, n, count = (math.prod(size[c] for c in g) for g in (rows, cols, batch))
    first = arrange(x, a, [batch, rows, inner])
    second = arrange(y, b, [batch, cols, inner])
    made = at.row("matmul", [first, second], (count, m, n), bt=True)
    opened = made.reshape(tuple(size[c] for c in (*batch, *rows, *cols)))
    assert opened is not None
    order = [*batch, *rows, *cols]
    return opened.permute([order.index(c) for c in out])


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(table.CONV, conv), **dict.fromkeys(table.RECURRENT, recurrent),
    **dict.fromkeys(("mm", "bmm", "matmul"), matmul), "linear": linear, "addmm": addmm, "baddbmm": baddbmm,
    "scaled_dot_product_attention": attention, "embedding": embedding, "einsum": einsum,
}  # fmt: skip
