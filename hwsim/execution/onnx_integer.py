"""Quantised ONNX operators as ONNX Runtime's CPU provider computes them, and QDQ patterns rewritten to them.

Sums are exact int32; requantisation is rint(float32(acc) · (s_x · s_w / s_y)) + z_y, the factor in fp32 from left to right,
ties to even, then clamped (facts and counts: docs/execution.md). A QDQ pattern becomes the integer operator that ONNX Runtime
selects (for int8 activations with its option ``session.qdqisint8allowed``; without it x86 runs those in fp32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.integer import integer_product
from hwsim.errors import HwsimError
from hwsim.execution import functions, resampling
from hwsim.execution.onnx_call import Call, Handler, checked_axis
from hwsim.execution.onnx_math import conv_windows, geometry
from hwsim.execution.products import bounded, unfold
from hwsim.network.onnx_file import Node, OnnxFile

Array = npt.NDArray[Any]
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int4", "uint4")


def single(x: Array | None) -> np.float32:
    """A per-tensor scale."""
    if x is None or x.size != 1:
        raise HwsimError("needs one scale for the whole tensor")
    return np.float32(x.reshape(-1)[0])


def zero(x: Array | None) -> int:
    """A per-tensor zero point, 0 when left out."""
    if x is None:
        return 0
    if x.size != 1 or x.dtype.kind not in "iu":
        raise HwsimError("needs one integer zero point for the whole tensor")
    return int(x.reshape(-1)[0])


def _kind(zero_point: Array | None) -> np.dtype[Any]:
    kind = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    if kind.kind not in "iu":
        raise HwsimError(f"quantises to {kind}, which is not executed")
    return kind


def quantised(x: Array, scale: Array | np.float32, zero_point: Array | int, kind: np.dtype[Any]) -> Array:
    """rint(x / scale) + zero point, clamped to ``kind``; x in fp32."""
    info = np.iinfo(kind)
    steps = np.rint(x.astype(np.float32) / scale).astype(np.float64) + zero_point
    return np.asarray(np.clip(np.where(np.isnan(steps), 0, steps), info.min, info.max)).astype(kind)


def requantised(acc: Array, factor: Array | np.float32, zero_point: int, kind: np.dtype[Any]) -> Array:
    """int32 sums to ``kind``: rint(float32(acc) · factor) + zero point, clamped."""
    info = np.iinfo(kind)
    scaled = np.rint(_wrapped(acc).astype(np.float32) * factor).astype(np.float64) + zero_point
    return np.asarray(np.clip(scaled, info.min, info.max)).astype(kind)


def _wrapped(acc: Array) -> Array:
    return acc.astype(np.int64).astype(np.int32)


def _along(x: Array | None, axis: int, rank: int, block: int, shape: tuple[int, ...]) -> Any:
    """Scale or zero point broadcast along its axis, or in blocks of an axis."""
    if x is None or x.size == 1:
        return 0 if x is None else x.reshape(-1)[0]
    if x.ndim == 1 and not block:
        return x.reshape([-1 if i == checked_axis(axis, rank) else 1 for i in range(rank)])
    if block:
        at = checked_axis(axis, rank)
        return np.take(np.repeat(x, block, axis=at), range(shape[at]), axis=at)
    raise HwsimError("scales do not fit the tensor")


def _quantize(c: Call) -> Array:
    x, zero_point = c[0], c.optional(2)
    axis, block = c.whole("axis", 1), c.whole("block_size", 0)
    scale = _along(c[1], axis, x.ndim, block, x.shape)
    offset = _along(zero_point, axis, x.ndim, block, x.shape)
    return quantised(x, np.asarray(scale, np.float32), np.asarray(offset, np.float64), _kind(zero_point))


def _dequantize(c: Call) -> Array:
    x, zero_point = c[0], c.optional(2)
    axis, block = c.whole("axis", 1), c.whole("block_size", 0)
    if x.dtype.kind not in "iu":
        raise HwsimError(f"dequantises {x.dtype}, which is not executed")
    offset = _along(zero_point, axis, x.ndim, block, x.shape)
    scale = np.asarray(_along(c[1], axis, x.ndim, block, x.shape), np.float32)
    return np.asarray((x.astype(np.int64) - np.asarray(offset, np.int64)).astype(np.float32) * scale)


def _dynamic_quantize(c: Call) -> Sequence[Array]:
    x = c[0].astype(np.float32)
    low, high = np.minimum(x.min(initial=0), np.float32(0)), np.maximum(x.max(initial=0), np.float32(0))
    scale = np.float32((high - low) / np.float32(255)) if high != low else np.float32(1)
    zero_point = np.uint8(np.clip(np.rint(np.float32(0) - low / scale), 0, 255))
    return quantised(x, scale, int(zero_point), np.dtype(np.uint8)), np.asarray(scale), np.asarray(zero_point)


# -- products -------------------------------------------------------------------------------------------------------


def _convolution_sums(c: Call, x: Array, z_x: int, w: Array, z_w: Array) -> Array:
    """Σ (x − z_x)(w − z_w) as (n, features, spatial...) int64."""
    windows, groups = conv_windows(c, x, w)
    n, features, pixels = x.shape[0], w.shape[0], int(np.prod(windows.out_spatial))
    bounded((n, features, pixels))
    centred = x.astype(np.int32) - z_x  # outside the input the zero point, that is 0
    filters = w.astype(np.int32) - z_w.reshape(-1, *[1] * (w.ndim - 1))
    per, deep = features // groups, w.shape[1]
    flat = np.moveaxis(filters, 1, -1).reshape(groups, per, -1)
    out = np.empty((n, pixels, groups, per), np.int64)
    for image in range(n):
        rows = unfold(centred[image : image + 1], windows)[0].reshape(pixels, -1, groups, deep)
        if deep == 1 and per == 1:
            out[image, :, :, 0] = np.einsum("ptg,gt->pg", rows[..., 0].astype(np.int64), flat[:, 0].astype(np.int64))
            continue
        for g in range(groups):
            left = np.ascontiguousarray(rows[:, :, g]).reshape(pixels, -1)
            out[image, :, g] = integer_product(left, np.ascontiguousarray(flat[g].T))
    return np.moveaxis(out.reshape(n, pixels, features), 1, 2).reshape(n, features, *windows.out_spatial)


def _qlinear_conv(c: Call) -> Array:
    x, w = c[0], c[3]
    z_w = c[5] if c.optional(5) is not None else np.zeros(1, w.dtype)
    acc = _convolution_sums(c, x, zero(c.optional(2)), w, z_w.astype(np.int32).reshape(-1))
    shape = (1, -1, *[1] * (x.ndim - 2))
    bias = c.optional(8)
    if bias is not None:
        acc = acc + bias.astype(np.int64).reshape(shape)
    factor = single(c[1]) * c[4].astype(np.float32).reshape(-1) / single(c[6])
    return requantised(acc, factor.reshape(shape), zero(c.optional(7)), _kind(c.optional(7)))


def _conv_integer(c: Call) -> Array:
    z_w = c.optional(3)
    offset = np.zeros(1, np.int32) if z_w is None else z_w.astype(np.int32).reshape(-1)
    return _wrapped(_convolution_sums(c, c[0], zero(c.optional(2)), c[1], offset))


def _matrix_sums(a: Array, z_a: Array | None, b: Array, z_b: Array | None) -> Array:
    x = a.astype(np.int64) - _rows(z_a)
    y = b.astype(np.int64) - (0 if z_b is None else z_b.astype(np.int64))
    if x.ndim == 2 and y.ndim == 2:
        return np.asarray(integer_product(x, y))
    if x.ndim < 2 or y.ndim < 2:
        return np.asarray(np.matmul(x, y))
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    bounded((*batch, x.shape[-2], y.shape[-1]))
    left = np.broadcast_to(x, (*batch, *x.shape[-2:])).reshape(-1, *x.shape[-2:])
    right = np.broadcast_to(y, (*batch, *y.shape[-2:])).reshape(-1, *y.shape[-2:])
    made = np.stack([integer_product(p, q) for p, q in zip(left, right, strict=True)])
    return made.reshape(*batch, x.shape[-2], y.shape[-1])


def _rows(z: Array | None) -> Any:
    if z is None or z.size == 1:
        return 0 if z is None else int(z.reshape(-1)[0])
    return z.astype(np.int64)[..., None] if z.ndim == 1 else z.astype(np.int64)


def _qlinear_matmul(c: Call) -> Array:
    acc = _matrix_sums(c[0], c.optional(2), c[3], c.optional(5))
    factor = single(c[1]) * c[4].astype(np.float32).reshape(-1) / single(c[6])
    return requantised(acc, factor if factor.size > 1 else factor[0], zero(c.optional(7)), _kind(c.optional(7)))


def _matmul_integer(c: Call) -> Array:
    return _wrapped(_matrix_sums(c[0], c.optional(2), c[1], c.optional(3)))


def _matmul_to_float(c: Call) -> Array:
    """MatMulIntegerToFloat of com.microsoft: a, b, scales, zero points, bias."""
    acc = _wrapped(_matrix_sums(c[0], c.optional(4), c[1], c.optional(5)))
    made = acc.astype(np.float32) * (single(c[2]) * c[3].astype(np.float32).reshape(-1))
    bias = c.optional(6)
    return made if bias is None else np.asarray(made + bias.astype(np.float32))


def _qgemm(c: Call) -> Array:
    """QGemm of com.microsoft: a, s_a, z_a, b, s_b, z_b, c, s_y, z_y; without s_y the result is float."""
    a = c[0].T if c.whole("transA", 0) else c[0]
    b = c[3].T if c.whole("transB", 0) else c[3]
    acc = _matrix_sums(a, c.optional(2), b, c.optional(5))
    bias = c.optional(6)
    if bias is not None:
        acc = acc + bias.astype(np.int64)
    factor = np.float32(c.real("alpha", 1.0)) * single(c[1]) * c[4].astype(np.float32).reshape(-1)
    if c.optional(7) is None:
        return np.asarray(_wrapped(acc).astype(np.float32) * factor)
    return requantised(acc, factor / single(c[7]), zero(c.optional(8)), _kind(c.optional(8)))


# -- element-wise, pools, concatenation ---------------------------------------------------------------------------------


def _qlinear_add(c: Call) -> Array:
    """MLAS with AVX2: fma(a, r_a, fma(b, r_b, z − fma(r_a, z_a, r_b z_b))) in fp32, r = s / s_y."""
    a, b, z = c[0].astype(np.float64), c[3].astype(np.float64), zero(c.optional(7))
    ratio_a, ratio_b = single(c[1]) / single(c[6]), single(c[4]) / single(c[6])
    offset = float(ratio_a) * zero(c.optional(2)) + float(ratio_b * np.float32(zero(c.optional(5))))
    fixed = np.float32(z) - np.float32(offset)
    inner = (b * float(ratio_b) + float(fixed)).astype(np.float32)
    total = (a * float(ratio_a) + inner.astype(np.float64)).astype(np.float32)
    return _clamped(np.rint(total), _kind(c.optional(7)))


def _qlinear_mul(c: Call) -> Array:
    a = c[0].astype(np.int64) - zero(c.optional(2))
    b = c[3].astype(np.int64) - zero(c.optional(5))
    factor = single(c[1]) * single(c[4]) / single(c[6])
    return requantised(a * b, factor, zero(c.optional(7)), _kind(c.optional(7)))


def _clamped(x: Array, kind: np.dtype[Any]) -> Array:
    info = np.iinfo(kind)
    return np.asarray(np.clip(x, info.min, info.max)).astype(kind)


def _table(c: Call, f: Any) -> Array:
    """A function of one operand through a table of all its codes (x, s_x, z_x, s_y, z_y)."""
    x = c[0]
    codes = np.arange(256).astype(np.uint8).view(x.dtype)
    values = f((codes.astype(np.int32) - zero(c.optional(2))).astype(np.float32) * single(c[1]))
    made = quantised(np.asarray(values, np.float32), single(c[3]), zero(c.optional(4)), _kind(c.optional(4)))
    return made[x.view(np.uint8)]


def _qlinear_average(c: Call) -> Array:
    x = (c[0].astype(np.int32) - zero(c.optional(2))).astype(np.float32) * single(c[1])
    windows = geometry(c, x, c.ints("kernel_shape", ()) or (), x.shape[1], x.shape[1])
    made = resampling.avg_pool(x, windows, bool(c.whole("count_include_pad", 0)))
    return quantised(made, single(c[3]), zero(c.optional(4)), _kind(c.optional(4)))


def _qlinear_global_average(c: Call) -> Array:
    if c.whole("channels_last", 0):
        raise HwsimError("channels last is not executed")
    x, axes = c[0].astype(np.int64) - zero(c.optional(2)), tuple(range(2, c[0].ndim))
    count = int(np.prod(c[0].shape[2:]))
    factor = np.float32(single(c[1]) / (single(c[3]) * np.float32(count)))
    return requantised(x.sum(axis=axes, keepdims=True), factor, zero(c.optional(4)), _kind(c.optional(4)))


def _qlinear_concat(c: Call) -> Array:
    scale, kind, offset = single(c[0]), _kind(c.optional(1)), zero(c.optional(1))
    parts = []
    for i in range(2, len(c.xs), 3):
        same = single(c[i + 1]) == scale and zero(c.optional(i + 2)) == offset and c[i].dtype == kind
        real = (c[i].astype(np.int32) - zero(c.optional(i + 2))).astype(np.float32) * single(c[i + 1])
        parts.append(c[i] if same else quantised(real, scale, offset, kind))
    return np.concatenate(parts, axis=c.axis(1, parts[0].ndim))


INTEGER: dict[str, Handler] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "DynamicQuantizeLinear": _dynamic_quantize,
    "QLinearConv": _qlinear_conv, "ConvInteger": _conv_integer, "QLinearMatMul": _qlinear_matmul,
    "MatMulInteger": _matmul_integer, "MatMulIntegerToFloat": _matmul_to_float, "QGemm": _qgemm, "QLinearAdd": _qlinear_add,
    "QLinearMul": _qlinear_mul, "QLinearSigmoid": lambda c: _table(c, functions.UNARY["sigmoid"]),
    "QLinearLeakyRelu": lambda c: _table(c, lambda x: functions.leaky_relu(x, c.real("alpha", 0.01))),
    "QLinearAveragePool": _qlinear_average, "QLinearGlobalAveragePool": _qlinear_global_average, "QLinearConcat": _qlinear_concat,
}  # fmt: skip

# -- QDQ patterns ---------------------------------------------------------------------------------------------------

_ONE = {"Sigmoid": "QLinearSigmoid", "LeakyRelu": "QLinearLeakyRelu", "AveragePool": "QLinearAveragePool",
        "GlobalAveragePool": "QLinearGlobalAveragePool"}  # fmt: skip
_TWO = {"Add": "QLinearAdd", "Mul": "QLinearMul", "MatMul": "QLinearMatMul"}


def fuse(graph: OnnxFile, stored: Mapping[str, Array]) -> OnnxFile:
    """The graph with DequantizeLinear → operator → QuantizeLinear replaced by the integer operator, dead nodes dropped."""
    if not any(n.op == "DequantizeLinear" for n in graph.nodes):
        return graph
    maker = {name: node for node in graph.nodes for name in node.outputs}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in set(node.inputs):
            readers.setdefault(name, []).append(node)
    replaced: dict[int, Node] = {}
    for node in graph.nodes:
        only = readers.get(node.outputs[0], []) if node.outputs else []
        after = only[0] if len(only) == 1 and node.outputs[0] not in graph.outputs else None
        ends = after is not None and after.op == "QuantizeLinear" and after.inputs[0] == node.outputs[0]
        if ends and after is not None and _plain(after, stored):
            made = _integer_form(node, maker, stored, _params(after))
            if made is not None:
                replaced[after.index] = replace(made, index=after.index, outputs=after.outputs)
        elif not ends and node.op in ("MatMul", "Gemm"):
            made = _integer_form(node, maker, stored, None)
            if made is not None:
                replaced[node.index] = replace(made, index=node.index, outputs=node.outputs)
    nodes = [replaced.get(node.index, node) for node in graph.nodes]
    needed, kept = set(graph.outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return replace(graph, nodes=tuple(reversed(kept)))


def _params(q: Node) -> tuple[str, str]:
    return q.inputs[1], q.inputs[2] if len(q.inputs) > 2 else ""


def _plain(q: Node, stored: Mapping[str, Array]) -> bool:
    """A quantisation to 8 bits with one stored scale."""
    scale, zero_point = _params(q)
    kind = stored[zero_point].dtype if zero_point in stored else np.dtype(np.uint8)
    return scale in stored and stored[scale].size == 1 and kind.itemsize == 1 and "block_size" not in q.attrs


def _dequantised(
    name: str, maker: Mapping[str, Node], stored: Mapping[str, Array], axis: int | None = None
) -> tuple[str, str, str] | None:
    """(integers, scale, zero point) when ``name`` is dequantised, per tensor or along ``axis``."""
    node = maker.get(name)
    if node is None or node.op != "DequantizeLinear" or "block_size" in node.attrs:
        return None
    scale, zero_point = _params(node)
    if scale not in stored or (zero_point and zero_point not in stored):
        return None
    if stored[scale].size != 1:
        given = node.attrs.get("axis", 1)
        rank = stored[node.inputs[0]].ndim if node.inputs[0] in stored else 0
        if axis is None or not isinstance(given, int) or not rank or given % rank != axis % rank:
            return None
    return node.inputs[0], scale, zero_point


def _integer_form(
    node: Node, maker: Mapping[str, Node], stored: Mapping[str, Array], after: tuple[str, str] | None
) -> Node | None:
    op, ins = node.op, node.inputs

    def new(name: str, *inputs: str) -> Node:
        return Node(node.index, node.name, name, "com.microsoft", tuple(inputs), (), node.attrs)

    found = [_dequantised(i, maker, stored) for i in ins]
    if op == "Conv" and after is not None and len(ins) >= 2:
        x, w = found[0], _dequantised(ins[1], maker, stored, 0)
        bias = _dequantised(ins[2], maker, stored, 0) if len(ins) > 2 and ins[2] else ("", "", "")
        if x and w and bias and _eight(stored, w) and _is_int32(stored, bias[0]):
            return new("QLinearConv", *x, *w, *after, bias[0])
    if op == "MatMul" and len(ins) == 2:
        x, w = found[0], _dequantised(ins[1], maker, stored, -1)
        if x and w and (ins[1] not in stored):
            return (
                new("QLinearMatMul", *x, *w, *after)
                if after
                else new("MatMulIntegerToFloat", x[0], w[0], x[1], w[1], x[2], w[2])
            )
    if op == "Gemm" and len(ins) >= 2 and node.attrs.get("beta", 1.0) == 1.0:
        wide = 0 if node.attrs.get("transB", 0) else 1
        x, w = found[0], _dequantised(ins[1], maker, stored, wide)
        bias = _dequantised(ins[2], maker, stored, 0) if len(ins) > 2 and ins[2] else ("", "", "")
        if x and w and bias and _eight(stored, w) and _is_int32(stored, bias[0]):
            return new("QGemm", *x, *w, bias[0], *(after or ("", "")))
    if after is None:
        return None
    if op in ("Add", "Mul") and len(ins) == 2 and found[0] and found[1]:
        return new(_TWO[op], *found[0], *found[1], *after)
    if op in _ONE and found[0]:
        return new(_ONE[op], *found[0], *after)
    if op == "Concat" and all(found):
        return new("QLinearConcat", *after, *(name for part in found if part for name in part))
    return None


def _eight(stored: Mapping[str, Array], triple: tuple[str, str, str]) -> bool:
    return triple[0] not in stored or stored[triple[0]].dtype.itemsize == 1


def _is_int32(stored: Mapping[str, Array], name: str) -> bool:
    return not name or (name in stored and stored[name].dtype == np.int32)
