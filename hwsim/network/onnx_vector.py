"""ONNX nodes without matrix products: element-wise, normalisation, softmax, pooling, reductions."""

from __future__ import annotations

import math
from typing import Any

from hwsim.network.importing import Value
from hwsim.network.onnx_contract import per_axis, tidy_pads, unless, window_pads
from hwsim.network.onnx_graph import Handler, OnnxGraph, dtype_of, elementwise, scalar


def unary(op: str, **attrs: Any) -> Handler:
    """An operator of one activation."""

    def handler(g: OnnxGraph) -> None:
        g.layer(op, g.x(0), **attrs)

    return handler


def alpha(op: str, default: float) -> Handler:
    """An activation with one parameter."""

    def handler(g: OnnxGraph) -> None:
        g.layer(op, g.x(0), alpha=g.attr_float("alpha", default))

    return handler


def binary(op: str, *, commutes: bool = True, dtype: str | None = None) -> Handler:
    """A two-operand element-wise operator."""

    def handler(g: OnnxGraph) -> None:
        g.store(0, elementwise(g, op, g.x(0), g.x(1), commutes=commutes, dtype=dtype))

    return handler


def variadic(op: str) -> Handler:
    """Sum, Max, Min of any number of operands."""

    def handler(g: OnnxGraph) -> None:
        values = g.given()
        if not values:
            raise g.fail("no operands")
        if len(values) > 64:
            raise g.fail(f"{len(values)} operands; at most 64 are read")
        made = values[0] if len(values) > 1 else g.part("identity", values[0])
        for value in values[1:]:
            made = elementwise(g, op, made, value)
        g.store(0, made)

    return handler


def mean(g: OnnxGraph) -> None:
    """Mean of any number of operands."""
    variadic("add")(g)
    if len(g.given()) > 1:
        g.layer("mul", g.values[g.node.outputs[0]], value=1.0 / len(g.given()))


def power(g: OnnxGraph) -> None:
    """Pow; a constant exponent of 2 or 1/2 is cheaper than a power."""
    exponent = scalar(g.x(1)) if g.x(1).is_const else None
    if exponent in (2.0, 0.5) and not g.x(0).is_const:
        g.layer("square" if exponent == 2.0 else "sqrt", g.x(0))
    else:
        g.store(0, elementwise(g, "pow", g.x(0), g.x(1), commutes=False))


def clip(g: OnnxGraph) -> None:
    """Clip: relu and relu6 when its bounds say so."""
    bounds: list[float | None] = []
    for position, key in ((1, "min"), (2, "max")):
        data = g.numbers(position)
        value = float(data.reshape(-1)[0]) if data is not None and data.size == 1 else None
        if not g.has(position) and key in g.node.attrs:
            raw = g.node.attrs[key]
            value = float(raw) if isinstance(raw, int | float) else None
        bounds.append(value if value is not None and math.isfinite(value) else None)
    low, high = bounds
    unbounded = high is None or high > 1e30
    if low == 0 and high == 6:
        g.layer("relu6", g.x(0))
    elif low == 0 and unbounded and not g.has(2):
        g.layer("relu", g.x(0))
    elif (low, high) == (-1, 1):
        g.layer("relu_n1_to_1", g.x(0))
    else:
        g.layer("clip", g.x(0), low=low, high=high)


def gelu(g: OnnxGraph) -> None:
    """Gelu, exact or by tanh."""
    g.layer("gelu_tanh" if g.attr_str("approximate", "none") == "tanh" else "gelu", g.x(0))


def prelu(g: OnnxGraph) -> None:
    """PRelu: learned slopes."""
    slope = g.x(1)
    g.layer("prelu", g.x(0), weight=slope if slope.is_const else None, width=slope.elements)


def where(g: OnnxGraph) -> None:
    """Where: constant operands are left out, their shape kept when it matters."""
    values = [g.x(0), g.x(1), g.x(2)]
    active = [v for v in values if not v.is_const or not v.fixed]
    stored = [v for v in values if v.is_const and v.fixed and v.elements > 1]
    dtype = values[1].arithmetic_dtype
    if not any(not v.is_const for v in values):
        g.layer("where", *values, dtype=dtype)
    elif len(stored) == 1:
        g.layer("where", *active, weight=stored[0], const=stored[0].shape, learned=stored[0].learned, dtype=dtype)
    elif stored:
        g.layer("where", *values, dtype=dtype)
    else:
        g.layer("where", *active, dtype=dtype)


def cast(g: OnnxGraph) -> None:
    """Cast; free between formats that are equal here."""
    to = dtype_of(g.attr_int("to", 0), g)
    x = g.x(0)
    if x.is_const:
        g.store(
            0, Value(x.shape, to if not x.float_dtype else x.dtype, None, None, x.learned, x.fixed, x.origin, x.quant)
        )
    elif x.dtype == to:
        g.store(0, x)
    else:
        g.layer("cast", x, to=to, dtype=to)


def cast_like(g: OnnxGraph) -> None:
    """CastLike."""
    to = g.x(1).arithmetic_dtype
    g.layer("cast", g.x(0), to=to, dtype=to)


# -- normalisation --------------------------------------------------------------------------------------------------


def batch_norm(g: OnnxGraph) -> None:
    """BatchNormalization (inference): learned scale and shift; running statistics are no parameters."""
    x, scale = g.x(0), g.x(1)
    if len(x.shape) < 2 or scale.shape != (x.shape[1],):
        raise g.fail(f"scale of shape {list(scale.shape)} does not fit input {list(x.shape)}")
    g.layer("batch_norm", x, weights_of=f"{scale.origin} bn" if scale.origin else "", width=x.shape[1])


def instance_norm(g: OnnxGraph) -> None:
    """InstanceNormalization."""
    scale = g.x(1)  # ones when an exporter builds another norm out of this one: no parameters
    width = scale.elements if scale.learned or not scale.is_const else None
    g.layer("instance_norm", g.x(0), weights_of=_own(scale) if width else "", width=width)


def layer_norm(g: OnnxGraph) -> None:
    """LayerNormalization over the dimensions from ``axis`` on."""
    x, scale = g.x(0), g.x(1)
    axis = g.axis(g.attr_int("axis", -1), len(x.shape))
    made = g.layer("layer_norm", x, weights_of=_own(scale), width=scale.elements, vectors=2 if g.has(2) else 1)
    for i in (1, 2):
        if g.wants(i):  # mean and inverse deviation
            g.store(i, g.emit.select(made, i, (*x.shape[:axis], *(1,) * (len(x.shape) - axis)), "fp32"))


def rms_norm(g: OnnxGraph) -> None:
    """RMSNormalization and SimplifiedLayerNormalization."""
    g.layer("rms_norm", g.x(0), weights_of=_own(g.x(1)), width=g.x(1).elements)


def group_norm(g: OnnxGraph) -> None:
    """GroupNormalization (before version 21 one scale a group)."""
    g.layer("group_norm", g.x(0), weights_of=_own(g.x(1)), width=g.x(1).elements, groups=g.attr_int("num_groups", 1))


def _own(scale: Value) -> str:
    return scale.origin if scale.is_const else ""


def softmax(op: str) -> Handler:
    """Softmax over one axis (before version 13: over all axes from it on)."""

    def handler(g: OnnxGraph) -> None:
        x = g.x(0)
        axis = g.attr_int("axis", -1 if g.file.opset >= 13 else 1)
        axis = g.axis(axis, len(x.shape)) if x.shape else 0
        g.layer(op, x, axis=axis if axis != len(x.shape) - 1 else None)

    return handler


# -- pooling and reductions -----------------------------------------------------------------------------------------


def pool(kind: str) -> Handler:
    """MaxPool, AveragePool, LpPool; the stride defaults to 1."""

    def handler(g: OnnxGraph) -> None:
        x = g.x(0)
        rank = len(x.shape) - 2
        if rank < 1 or g.attr_ints("kernel_shape") is None:
            raise g.fail("needs a kernel_shape and an input with spatial dimensions")
        k, s = per_axis(g, "kernel_shape", rank, 1), per_axis(g, "strides", rank, 1)
        d = per_axis(g, "dilations", rank, 1)
        pads = window_pads(g, x, k, s, d)
        attrs: dict[str, Any] = {"k": k, "s": s, "p": tidy_pads(pads), "d": unless(d, 1)}
        attrs["ceil"] = bool(g.attr_int("ceil_mode", 0))
        if kind == "avg_pool":
            attrs["count_pad"] = bool(g.attr_int("count_include_pad", 0)) and any(pads)
        made = g.layer(kind, x, **attrs)
        if g.wants(1):
            g.store(1, g.emit.select(made, 1, made.shape, "int64"))

    return handler


def global_pool(kind: str) -> Handler:
    """GlobalAveragePool and GlobalMaxPool."""

    def handler(g: OnnxGraph) -> None:
        x = g.x(0)
        if len(x.shape) < 3:
            raise g.fail(f"needs spatial dimensions, the input has rank {len(x.shape)}")
        g.layer(f"adaptive_{kind}_pool", x, size=(1,) * (len(x.shape) - 2))

    return handler


def reduction(op: str) -> Handler:
    """Reduce*: axes as an attribute or, in newer versions, as an operand."""

    def handler(g: OnnxGraph) -> None:
        x = g.x(0)
        axes = g.ints(1, "axes")
        if not axes:
            if g.attr_int("noop_with_empty_axes", 0):
                g.layer("identity", x)
                return
            if g.has(1) and g.x(1).data is None and g.x(1).elements:
                raise g.fail("its axes must be stored integers")
            axes = list(range(len(x.shape)))
        found = tuple(sorted({g.axis(a, len(x.shape)) for a in axes}))
        if not found:
            g.layer("identity", x)
            return
        g.layer(op, x, axes=found, keep=bool(g.attr_int("keepdims", 1)))

    return handler


def arg(op: str) -> Handler:
    """ArgMax and ArgMin."""

    def handler(g: OnnxGraph) -> None:
        x = g.x(0)
        axis = g.axis(g.attr_int("axis", 0), len(x.shape))
        g.layer(op, x, axes=(axis,), keep=bool(g.attr_int("keepdims", 1)), dtype="int64")

    return handler


def cumsum(g: OnnxGraph) -> None:
    """CumSum."""
    axes = g.ints(1)
    g.layer("cumsum", g.x(0), axis=axes[0] if axes else None)


VECTOR: dict[str, Handler] = {
    **{name: unary(op) for name, op in {
        "Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "HardSwish": "hswish", "Softplus": "softplus",
        "Softsign": "softsign", "Mish": "mish", "Selu": "selu", "Erf": "erf", "Exp": "exp", "Log": "log",
        "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Sin": "sin", "Cos": "cos", "Neg": "neg", "Abs": "abs",
        "Sign": "sign",
        "Floor": "floor", "Ceil": "ceil", "Round": "round", "Not": "not", "BitwiseNot": "not", "LRN": "lrn",
        "LpNormalization": "l2_norm", "MeanVarianceNormalization": "layer_norm", "Swish": "silu",
        "ThresholdedRelu": "relu",
    }.items()},
    **{name: unary(op, dtype="bool") for name, op in {"IsNaN": "is_nan", "IsInf": "is_nan"}.items()},
    "HardSigmoid": unary("hsigmoid"), "LeakyRelu": alpha("leaky_relu", 0.01), "Elu": alpha("elu", 1.0),
    "Celu": alpha("elu", 1.0), "Gelu": gelu, "Clip": clip, "PRelu": prelu, "Cast": cast, "CastLike": cast_like,
    "Where": where, "Pow": power, "Sum": variadic("add"), "Max": variadic("maximum"), "Min": variadic("minimum"),
    "Mean": mean,
    **{name: binary(op) for name, op in {"Add": "add", "Mul": "mul"}.items()},
    **{name: binary(op, commutes=False) for name, op in {
        "Sub": "sub", "Div": "div", "Mod": "mod", "BitShift": "bit_shift",
    }.items()},
    **{name: binary(op, dtype="bool", commutes=commutes) for name, op, commutes in (
        ("Equal", "equal", True), ("Less", "less", False), ("LessOrEqual", "less_equal", False),
        ("Greater", "greater", False), ("GreaterOrEqual", "greater_equal", False), ("And", "and", True),
        ("Or", "or", True), ("Xor", "xor", True),
    )},
    **{name: binary(op) for name, op in {"BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor"}.items()},
    "BatchNormalization": batch_norm, "InstanceNormalization": instance_norm, "LayerNormalization": layer_norm,
    "SimplifiedLayerNormalization": rms_norm, "RMSNormalization": rms_norm, "GroupNormalization": group_norm,
    "Softmax": softmax("softmax"), "LogSoftmax": softmax("log_softmax"), "Hardmax": softmax("softmax"),
    "MaxPool": pool("max_pool"), "AveragePool": pool("avg_pool"), "LpPool": pool("avg_pool"),
    "GlobalAveragePool": global_pool("avg"), "GlobalMaxPool": global_pool("max"), "GlobalLpPool": global_pool("avg"),
    **{f"Reduce{name}": reduction(op) for name, op in {
        "Mean": "reduce_mean", "Sum": "reduce_sum", "Max": "reduce_max", "Min": "reduce_min", "Prod": "reduce_prod",
        "L1": "reduce_l2", "L2": "reduce_l2", "SumSquare": "reduce_l2", "LogSum": "reduce_logsumexp",
        "LogSumExp": "reduce_logsumexp",
    }.items()},
    "ArgMax": arg("arg_max"), "ArgMin": arg("arg_min"), "CumSum": cumsum,
}  # fmt: skip
