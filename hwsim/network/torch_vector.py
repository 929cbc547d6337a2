"""PyTorch operators without matrix products: element-wise, normalisation, pooling, reductions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.network import torch_ops as table
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue
from hwsim.network.torch_graph import Ref, TorchNode
from hwsim.network.torch_values import Const, Handler, Value, broadcast_cores, per_axis, refs, short, trim
from hwsim.network.torch_views import View

if TYPE_CHECKING:
    from hwsim.network.torch_convert import Converter


def unary(at: Converter, target: str, node: TorchNode) -> Value:
    op = table.UNARY[target]
    attrs: dict[str, AttrValue | None] = {}
    if op == "clip":
        attrs = _bounds(node, at)
    return at.pointwise(at.view(node.args[0], node), op, attrs)


def hardtanh(at: Converter, target: str, node: TorchNode) -> Value:
    low, high = float(at.arg(node, 1, "min_val", -1.0)), float(at.arg(node, 2, "max_val", 1.0))
    view = at.view(node.args[0], node)
    name = {(0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1"}.get((low, high))
    return at.pointwise(view, name) if name else at.pointwise(view, "clip", {"low": low, "high": high})


def gelu(at: Converter, target: str, node: TorchNode) -> Value:
    kind = at.arg(node, 1, "approximate", "none")
    return at.pointwise(at.view(node.args[0], node), "gelu_tanh" if kind == "tanh" else "gelu")


def prelu(at: Converter, target: str, node: TorchNode) -> Value:
    slope = at.const(node.args[1], node)
    return at.pointwise(at.view(node.args[0], node), "prelu", {"width": math.prod(slope.shape) if slope else 1})


def binary(at: Converter, target: str, node: TorchNode) -> Value:
    return combine(at, table.BINARY[target], node, node.args[0], node.args[1])


def combine(at: Converter, op: str, node: TorchNode, a: Any, b: Any) -> Value:
    """An element-wise operator on two values, either of which may be a number or a constant."""
    left, right = at.value(a), at.value(b)
    if isinstance(left, View) and isinstance(right, View):
        return combine_views(at, op, node, left, right)
    view = left if isinstance(left, View) else right
    other, raw = (right, b) if view is left else (left, a)
    if not isinstance(view, View):
        raise HwsimError(f"{node.where}: needs a tensor operand")
    if not isinstance(other, Const):
        if raw == {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(op, "") and (view is left or op in ("add", "mul")):
            return view
        if op == "pow" and view is left:
            name = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(raw)
            if name:
                return at.pointwise(view, name)
        number = float(raw) if isinstance(raw, int | float) else None
        return at.pointwise(view, op, {"value": number})
    if math.prod(other.core) == 1 and not other.learned:
        grown = _grown(at, view, node)
        return at.pointwise(grown, op)
    if other.learned and (other.param is None or math.prod(other.core) != at.param_size.get(other.param)):
        return combine_views(at, op, node, view, at.force(other))
    learned = other.param is not None and other.param not in at.used
    if len(view.shape) < len(node.out.shape) or view.shape != node.out.shape:
        made = at.row(op, [at.make(view)], node.out.shape, const=other.core, learned=learned)
    else:
        core = trim(other.core)
        inside = None if len(core) > len(view.shape) else view.constant_in_base(core)
        if inside is None:
            view = at.solid(view)
            inside = core
        made = view.on(at.row(op, [view.base], view.base_shape, const=inside, learned=learned).base)
    if learned and other.param is not None:
        at.used[other.param] = made.base
    return made


def _grown(at: Converter, view: View, node: TorchNode) -> View:
    return view if view.shape == node.out.shape else at.expand(view, node.out.shape)


def combine_views(at: Converter, op: str, node: TorchNode, left: View, right: View) -> View:
    same = left.base_shape == right.base_shape and not left.sliced and not right.sliced
    if same and left.dims == right.dims and left.atoms == right.atoms and left.base_dims == right.base_dims:
        return left.on(at.row(op, [left.base, right.base], left.base_shape).base)
    return at.row(op, [at.make(left), at.make(right)], node.out.shape)


def rsub(at: Converter, target: str, node: TorchNode) -> Value:
    return combine(at, "sub", node, node.args[1], node.args[0])


def addcmul(at: Converter, target: str, node: TorchNode) -> Value:
    product = at.row("mul", [at.make(at.view(a, node)) for a in node.args[1:3]], node.out.shape)
    return combine_views(at, "add", node, at.view(node.args[0], node), product)


def where(at: Converter, target: str, node: TorchNode) -> Value:
    """Select by a mask; what the mask is made of is folded away."""
    views = [v for v in (at.value(a) for a in refs(node)) if isinstance(v, View) and at.is_float(v)]
    made = at.row("where", [at.make(v) for v in views], broadcast_cores([v.shape for v in views], node.out.shape))
    return at.expand(made, node.out.shape)


def batch_norm(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    weight = at.const(at.arg(node, 1, "weight"), node)
    width = view.shape[1]
    solid = at.solid(view)
    tied = at.tie(weight) if weight else None
    made = at.row("batch_norm", [solid.base], solid.shape, width=width, vectors=None if weight else 0, tied=tied)
    if weight:
        at.claim(weight, made)
    return (made, None, None) if len(node.outs) > 1 else made


def layer_norm(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    shape = [int(v) for v in at.arg(node, 1, "normalized_shape")]
    weight, bias = at.value(at.arg(node, 2, "weight")), at.value(at.arg(node, 3, "bias"))
    op = "rms_norm" if node.target.endswith("rms_norm") else "layer_norm"
    full = 1 if op == "rms_norm" else 2
    vectors = (1 if weight else 0) + (1 if bias and op == "layer_norm" else 0)
    width = math.prod(shape)

    def emit(base: str, extent: IntShape) -> View:
        some = None if vectors == full else vectors
        return at.row(op, [base], extent, width=width, vectors=some, tied=at.tie(weight))

    if len(shape) == 1:
        made = at.by_rows(view, emit)
    else:
        made = emit(at.make(view), view.shape)
    at.claim(weight, made)
    return (made, None, None) if len(node.outs) > 1 else made


def group_norm(at: Converter, target: str, node: TorchNode) -> Value:
    solid = at.solid(at.view(node.args[0], node))
    native = node.target.startswith("native")
    groups = int(at.arg(node, 6 if native else 1, "group" if native else "num_groups"))
    weight = at.value(at.arg(node, 1 if native else 2, "weight"))
    made = at.row(
        "group_norm", [solid.base], solid.shape, width=solid.shape[1], groups=groups,
        vectors=None if weight else 0, tied=at.tie(weight),
    )  # fmt: skip
    at.claim(weight, made)
    return (made, None, None) if native else made


def instance_norm(at: Converter, target: str, node: TorchNode) -> Value:
    solid = at.solid(at.view(node.args[0], node))
    weight = at.value(at.arg(node, 1, "weight"))
    return at.row("instance_norm", [solid.base], solid.shape, width=solid.shape[1], vectors=None if weight else 0)


def softmax(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    axis = int(at.arg(node, 1, "dim")) % len(view.shape)
    op = table.SOFTMAX[target]
    if axis == len(view.shape) - 1:
        return at.by_rows(view, lambda base, shape: at.row(op, [base], shape, axis=len(shape) - 1))
    return at.row(op, [at.make(view)], view.shape, axis=axis)


def pool(at: Converter, target: str, node: TorchNode) -> Value:
    solid = at.solid(at.view(node.args[0], node))
    rank = int(target[target.index("pool") + 4])
    kernel = per_axis(at.arg(node, 1, "kernel_size"), rank)
    stride = per_axis(at.arg(node, 2, "stride") or kernel, rank)
    padding = per_axis(at.arg(node, 3, "padding", 0), rank)
    largest = target.startswith("max")
    dilation = per_axis(at.arg(node, 4, "dilation", 1), rank) if largest else (1,) * rank
    ceil = bool(at.arg(node, 5, "ceil_mode", False) if largest else at.arg(node, 4, "ceil_mode", False))
    counted = False if largest else bool(at.arg(node, 5, "count_include_pad", True)) and any(padding)
    made = at.row(
        table.POOL[target], [solid.base], node.out.shape, k=kernel, s=short(stride) if stride != kernel else None,
        p=short(padding) if any(padding) else None, d=short(dilation) if any(v != 1 for v in dilation) else None,
        ceil=ceil, count_pad=counted,
    )  # fmt: skip
    return (made, None) if len(node.outs) > 1 else made


def adaptive(at: Converter, target: str, node: TorchNode) -> Value:
    solid = at.solid(at.view(node.args[0], node))
    if solid.shape == node.out.shape:
        return (solid, None) if len(node.outs) > 1 else solid
    rank = int(target[target.index("pool") + 4])
    made = at.row(table.ADAPTIVE[target], [solid.base], node.out.shape, size=node.out.shape[-rank:])
    return (made, None) if len(node.outs) > 1 else made


def reduction(at: Converter, target: str, node: TorchNode) -> Value:
    view = at.view(node.args[0], node)
    rank = len(view.shape)
    place = 2 if target in ("linalg_vector_norm", "norm") else 1
    if target in ("max", "min") and isinstance(at.arg(node, 1, "other"), Ref):
        return combine(at, "maximum" if target == "max" else "minimum", node, node.args[0], node.args[1])
    dims = at.arg(node, place, "dim")
    axes = (
        range(rank)
        if dims is None or dims == []
        else [int(d) % rank for d in (dims if isinstance(dims, list) else [dims])]
    )
    kept = {i: d for i, d in enumerate(view.shape) if i not in axes}
    keep = len(node.out.shape) == rank and rank > 0 and len(kept) < rank
    made = at.row(table.REDUCE[target], [at.make(view)], node.out.shape, axes=tuple(sorted(axes)), keep=keep)
    return (made, None) if len(node.outs) > 1 else made


def _bounds(node: TorchNode, at: Converter) -> dict[str, AttrValue | None]:
    if node.target.startswith("clamp_max"):
        low, high = None, at.arg(node, 1, "max")
    else:
        low, high = at.arg(node, 1, "min"), at.arg(node, 2, "max")
    return {
        "low": float(low) if isinstance(low, int | float) else None,
        "high": float(high) if isinstance(high, int | float) else None,
    }


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(table.UNARY, unary), **dict.fromkeys(table.BINARY, binary),
    **dict.fromkeys(table.REDUCE, reduction), **dict.fromkeys(table.SOFTMAX, softmax),
    **dict.fromkeys(table.POOL, pool), **dict.fromkeys(table.ADAPTIVE, adaptive),
    **dict.fromkeys(table.LAYER_NORM, layer_norm), **dict.fromkeys(table.BATCH_NORM, batch_norm),
    "rsub": rsub, "hardtanh": hardtanh, "gelu": gelu, "prelu": prelu, "addcmul": addcmul, "where": where,
    "masked_fill": where, "group_norm": group_norm, "native_group_norm": group_norm, "instance_norm": instance_norm,
}  # fmt: skip
