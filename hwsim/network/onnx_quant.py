"""Quantised ONNX nodes: quantise, dequantise, and the fused QLinear operators with their scales."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hwsim.network.importing import Value, join_quant, quant_text
from hwsim.network.onnx_contract import conv_layer, product, swapped
from hwsim.network.onnx_graph import Handler, OnnxGraph, dtype_of


def quant_of(g: OnnxGraph, scale: int, zero: int, axis: int = 0, prefix: str = "") -> str:
    """Short form of the scale and zero point at these operand positions; "" when computed at run time."""
    s = g.opt(scale)
    if s is None or not s.is_const:
        return ""
    zeros = g.numbers(zero)
    if s.elements == 1:
        if s.data is None or not math.isfinite(float(s.data.reshape(-1)[0])):
            return ""
        return quant_text(
            [float(s.data.reshape(-1)[0])], [] if zeros is None else [int(zeros.reshape(-1)[0])], 0, prefix
        )
    moved = zeros is not None and bool(np.asarray(zeros).any())
    return quant_text([1.0] * min(s.elements, 2**20), [1] if moved else [], axis, prefix)


def target(g: OnnxGraph, zero: int, default: str = "uint8") -> str:
    """The integer format: that of the zero point."""
    if g.has(zero):
        return g.x(zero).dtype
    number = g.attr_int("output_dtype", 0)
    return dtype_of(number, g) if number else default


def quantize(g: OnnxGraph) -> None:
    """QuantizeLinear."""
    x, dtype = g.x(0), target(g, 2)
    axis = g.attr_int("axis", 1)
    if x.is_const:
        text = quant_of(g, 1, 2, axis, "w")
        g.store(0, Value(x.shape, dtype, None, None, x.learned, x.fixed, x.origin, text))
        return
    g.layer("quantize", x, dtype=dtype, qparams=quant_of(g, 1, 2, axis))


def dequantize(g: OnnxGraph) -> None:
    """DequantizeLinear; of a stored tensor it is that tensor, kept in its integer format."""
    x, real = g.x(0), g.x(1).arithmetic_dtype
    axis = g.attr_int("axis", 1)
    if not x.is_const:
        g.layer("dequantize", x, dtype=real, qparams=quant_of(g, 1, 2, axis, "x"))
        return
    made = replace(x, data=_real(g), quant=quant_of(g, 1, 2, axis, "w"), float_dtype=real)
    made.learned = x.elements > 1
    g.store(0, made)


def _real(g: OnnxGraph) -> np.ndarray | None:
    """A dequantised scalar, for operators whose constant matters."""
    x, scale = g.numbers(0), g.numbers(1)
    if x is None or scale is None or x.size != 1 or scale.size != 1:
        return None
    zero = g.numbers(2)
    shift = 0.0 if zero is None else float(zero.reshape(-1)[0])
    return np.asarray((float(x.reshape(-1)[0]) - shift) * float(scale.reshape(-1)[0])).reshape(x.shape)


def dynamic_quantize(g: OnnxGraph) -> None:
    """DynamicQuantizeLinear: integers, then scale and zero point."""
    made = g.layer("quantize", g.x(0), dtype="uint8")
    for i, dtype in ((1, "fp32"), (2, "uint8")):
        if g.wants(i):
            g.store(i, g.emit.select(made, i, (), dtype))


def _weights(g: OnnxGraph, w: int, scale: int, zero: int, axis: int) -> Value:
    found = g.x(w)
    return replace(found, quant=quant_of(g, scale, zero, axis, "w"), learned=True) if found.is_const else found


def _read(g: OnnxGraph, x: Value, scale: int, zero: int) -> str:
    """Quantisation of an operand when it is a network input, which has no layer to carry it."""
    return quant_of(g, scale, zero, 0, "x") if isinstance(x.source, str) else ""


def qlinear_conv(g: OnnxGraph) -> None:
    """QLinearConv: x, its scale and zero, w, its scale and zero, output scale and zero, bias."""
    x, w = g.x(0), _weights(g, 3, 4, 5, 0)
    text = join_quant(quant_of(g, 6, 7), _read(g, x, 1, 2))
    g.store(0, conv_layer(g, x, w, g.opt(8), dtype=target(g, 7), qparams=text))


def qlinear_matmul(g: OnnxGraph) -> None:
    """QLinearMatMul: a, scale, zero, b, scale, zero, output scale, zero."""
    a, b = g.x(0), _weights(g, 3, 4, 5, -1)
    text = join_quant(quant_of(g, 6, 7), _read(g, a, 1, 2))
    g.store(0, product(g, a, b, dtype=target(g, 7), qparams=text))


def qgemm(g: OnnxGraph) -> None:
    """QGemm: a, scale, zero, b, scale, zero, c, output scale, zero."""
    a, b = g.x(0), _weights(g, 3, 4, 5, -1)
    a = swapped(g, a) if g.attr_int("transA", 0) else a
    b = swapped(g, b) if g.attr_int("transB", 0) else b
    dtype = target(g, 8) if g.has(7) else "fp32"
    g.store(0, product(g, a, b, bias=g.opt(6), dtype=dtype, qparams=quant_of(g, 7, 8)))


def to_float(g: OnnxGraph) -> None:
    """MatMulIntegerToFloat (a, b, scales, zeros, bias) and DynamicQuantizeMatMul (a, b, scale, zero, bias)."""
    dynamic = g.node.op == "DynamicQuantizeMatMul"
    a, b = g.x(0), g.x(1)
    bias = g.opt(4 if dynamic else 6)
    if dynamic and not a.is_const:
        a = g.part("quantize", a, dtype="uint8")
    fits = bias is not None and bias.is_const and bias.elements == b.shape[-1]
    g.store(0, product(g, a, b, bias=bias if fits else None, dtype="fp32"))


def qlinear(op: str, y_scale: int, **attrs: bool) -> Handler:
    """A QLinear operator of one activation: x, scale, zero, output scale, zero."""

    def handler(g: OnnxGraph) -> None:
        dtype = target(g, y_scale + 1, g.x(0).dtype)
        g.layer(op, g.x(0), dtype=dtype, qparams=join_quant(quant_of(g, y_scale, y_scale + 1), _read(g, g.x(0), 1, 2)))

    return handler


def qlinear_binary(op: str) -> Handler:
    """QLinearAdd, QLinearMul: a, scale, zero, b, scale, zero, output scale, zero."""

    def handler(g: OnnxGraph) -> None:
        a, b, text = g.x(0), _weights(g, 3, 4, 5, 0), quant_of(g, 6, 7)
        if b.is_const and not a.is_const:
            scalar = b.elements == 1
            const = None if scalar else b.shape
            g.layer(op, a, weight=b, const=const, learned=not scalar, dtype=target(g, 7), qparams=text)
        else:
            g.layer(op, a, b, dtype=target(g, 7), qparams=text)

    return handler


def qlinear_pool(g: OnnxGraph) -> None:
    """QLinearAveragePool and QLinearGlobalAveragePool."""
    from hwsim.network.onnx_vector import global_pool, pool

    (global_pool("avg") if "Global" in g.node.op else pool("avg_pool"))(g)
    made = g.values[g.node.outputs[0]]
    if not isinstance(made.source, str) and made.source is not None:
        made.source.qparams = quant_of(g, 3, 4)


def qlinear_concat(g: OnnxGraph) -> None:
    """QLinearConcat: output scale, zero, then (operand, scale, zero) repeated."""
    values = [g.x(i) for i in range(2, len(g.node.inputs), 3)]
    if not values:
        raise g.fail("no operands")
    axis = g.axis(g.attr_int("axis", 1), len(values[0].shape))
    g.layer("concat", *values, axis=axis, dtype=target(g, 1), qparams=quant_of(g, 0, 1))


QUANT: dict[str, Handler] = {
    "QuantizeLinear": quantize, "DequantizeLinear": dequantize, "DynamicQuantizeLinear": dynamic_quantize,
    "QLinearConv": qlinear_conv, "QLinearMatMul": qlinear_matmul, "QGemm": qgemm, "MatMulIntegerToFloat": to_float,
    "DynamicQuantizeMatMul": to_float, "QLinearSigmoid": qlinear("sigmoid", 3),
    "QLinearLeakyRelu": qlinear("leaky_relu", 3), "QLinearSoftmax": qlinear("softmax", 3),
    "QLinearAdd": qlinear_binary("add"), "QLinearMul": qlinear_binary("mul"), "QLinearConcat": qlinear_concat,
    "QLinearAveragePool": qlinear_pool, "QLinearGlobalAveragePool": qlinear_pool,
}  # fmt: skip
