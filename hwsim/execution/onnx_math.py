"""ONNX operators that compute: element-wise, products, normalisation, pooling, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution import cells, functions, resampling
from hwsim.execution.onnx_call import Call, Handler, checked_axis
from hwsim.execution.products import bounded, convolve, product, transposed
from hwsim.network.onnx_file import DTYPES
from hwsim.network.opdefs import ConvGeometry

Array = npt.NDArray[Any]


def _unary(f: Callable[[Array], Any]) -> Handler:
    return lambda c: np.asarray(f(c[0]))


def _binary(f: Callable[[Array, Array], Any]) -> Handler:
    def run(c: Call) -> Array:
        bounded(np.broadcast_shapes(c[0].shape, c[1].shape))
        return np.asarray(f(c[0], c[1]))

    return run


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        if not b.all():
            raise HwsimError("integer division by zero")
        quotient = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))
        return np.asarray(quotient * np.sign(a) * np.sign(b)).astype(a.dtype)
    return np.asarray(a / b)


def _mod(c: Call) -> Array:
    a, b = c[0], c[1]
    if a.dtype.kind in "iu" and not b.all():
        raise HwsimError("remainder by zero")
    return np.asarray(np.fmod(a, b) if c.whole("fmod", 0) else np.mod(a, b))


def _many(f: Callable[[Array, Array], Array]) -> Handler:
    def run(c: Call) -> Array:
        total, *others = c.given()
        for other in others:
            total = f(total, other)
        return np.asarray(total)

    return run


def _cast(c: Call) -> Array:
    x, to = c[0], DTYPES.get(c.whole("to", 0), "")
    if to == "bool":
        return np.asarray(x != 0)
    if to in ("fp32", "fp64"):
        return x.astype(c.arithmetic.dtype)
    if to == "fp16":
        return x.astype(np.float16).astype(c.arithmetic.dtype)
    if to == "bf16":
        from hwsim.execution.products import rounded

        return rounded(x.astype(np.float32), "bf16").astype(c.arithmetic.dtype)
    if not to.startswith(("int", "uint")) or to in ("int4", "uint4", "int2", "uint2"):
        raise HwsimError(f"cast to {to or 'an unknown type'} is not executed")
    return np.asarray((np.trunc(x).astype(np.int64) if x.dtype.kind == "f" else x).astype(to))


def _cast_like(c: Call) -> Array:
    like = c[1].dtype
    return c[0].astype(like) if like.kind != "b" else np.asarray(c[0] != 0)


def _clip(c: Call) -> Array:
    low, high = c.optional(1), c.optional(2)
    x = c[0]
    least = low if low is not None else c.node.attrs.get("min")
    most = high if high is not None else c.node.attrs.get("max")
    if least is not None:
        x = np.maximum(x, np.asarray(least, x.dtype))
    if most is not None:
        x = np.minimum(x, np.asarray(most, x.dtype))
    return x


def _prelu(c: Call) -> Array:
    return np.where(c[0] < 0, c[0] * c[1], c[0])


def _gelu(c: Call) -> Array:
    return np.asarray(functions.UNARY["gelu_tanh" if c.text("approximate", "none") == "tanh" else "gelu"](c[0]))


# -- products -------------------------------------------------------------------------------------------------------


def geometry(
    c: Call, x: Array, kernel: Sequence[int], features: int, channels: int, *, turned: bool = False
) -> ConvGeometry:
    """Windows of Conv, ConvTranspose and the pools from their attributes; ``channels`` per group."""
    rank = len(kernel)
    if x.ndim != rank + 2 or rank > 3:
        raise HwsimError(f"a window of {rank} dimensions on {x.shape}")
    stride, dilation = c.ints("strides", (1,) * rank) or (), c.ints("dilations", (1,) * rank) or ()
    pads, auto = c.ints("pads", (0,) * 2 * rank) or (), c.text("auto_pad", "NOTSET")
    size = x.shape[2:]
    if len(stride) != rank or len(dilation) != rank or len(pads) != 2 * rank or min(*stride, *dilation, *kernel) < 1:
        raise HwsimError("strides, dilations and pads do not fit the kernel")
    if max(*stride, *dilation, *kernel, *map(abs, pads)) > 1 << 20:
        raise HwsimError("strides, dilations or pads are too large")
    span = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if turned:
        extra = c.ints("output_padding", (0,) * rank) or (0,) * rank
        full = [(size[i] - 1) * stride[i] + span[i] + extra[i] for i in range(rank)]
        asked = c.ints("output_shape")
        if asked is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
            out = asked[-rank:] if asked else [size[i] * stride[i] for i in range(rank)]
            total = [full[i] - out[i] for i in range(rank)]
            half = [t // 2 for t in total]
            before = [t - h for t, h in zip(total, half, strict=True)] if auto == "SAME_UPPER" else half
            pads = (*before, *(t - b for t, b in zip(total, before, strict=True)))
        out_size = [full[i] - pads[i] - pads[rank + i] for i in range(rank)]
    else:
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out_size = [-(-size[i] // stride[i]) for i in range(rank)]
            total = [max(0, (out_size[i] - 1) * stride[i] + span[i] - size[i]) for i in range(rank)]
            before = [t // 2 if auto == "SAME_UPPER" else -(-t // 2) for t in total]
            pads = (*before, *(t - b for t, b in zip(total, before, strict=True)))
        elif auto == "VALID":
            pads = (0,) * 2 * rank
        room = [size[i] + pads[i] + pads[rank + i] - span[i] for i in range(rank)]
        if c.whole("ceil_mode", 0):
            out_size = [-(-r // s) + 1 for r, s in zip(room, stride, strict=True)]
            for i in range(rank):  # a window may not start in the padding behind the input
                if (out_size[i] - 1) * stride[i] >= size[i] + pads[i]:
                    out_size[i] -= 1
        else:
            out_size = [r // s + 1 for r, s in zip(room, stride, strict=True)]
    if min(out_size) < 1:
        raise HwsimError(f"kernel {list(kernel)} gives no output on {x.shape}")
    return ConvGeometry(
        tuple(kernel), stride, dilation, pads, tuple(size), tuple(out_size), channels, features, x.shape[0], turned
    )


def conv_windows(c: Call, x: Array, w: Array) -> tuple[ConvGeometry, int]:
    """Geometry and groups of a convolution of ``x`` with filters ``w``."""
    groups = c.whole("group", 1)
    if groups < 1 or w.ndim < 3 or w.shape[0] % groups or x.ndim != w.ndim or x.shape[1] != w.shape[1] * groups:
        raise HwsimError(f"filters {w.shape} in {groups} groups do not fit {x.shape}")
    return geometry(c, x, w.shape[2:], w.shape[0] // groups, w.shape[1]), groups


def _with_bias(c: Call, made: Array) -> Array:
    bias = c.optional(2)
    return made if bias is None else made + bias.astype(made.dtype).reshape(-1, *[1] * (made.ndim - 2))


def _conv(c: Call) -> Array:
    windows, groups = conv_windows(c, c[0], c[1])
    return _with_bias(c, convolve(c[0], c[1], windows, groups, c.arithmetic))


def _conv_transpose(c: Call) -> Array:
    x, w = c[0], c[1]
    groups = c.whole("group", 1)
    if groups < 1 or x.ndim != w.ndim or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise HwsimError(f"filters {w.shape} in {groups} groups do not fit {x.shape}")
    windows = geometry(c, x, w.shape[2:], w.shape[1], w.shape[0] // groups, turned=True)
    return _with_bias(c, transposed(x, w, windows, groups, c.arithmetic))


def matmul(c: Call, a: Array, b: Array) -> Array:
    """numpy's matmul rules for vectors, through the arithmetic."""
    if a.dtype.kind != "f":
        return np.asarray(np.matmul(a, b))
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    made = product(left, right, c.arithmetic)
    if a.ndim == 1:
        made = made[..., 0, :]
    return made[..., 0] if b.ndim == 1 else made


def _gemm(c: Call) -> Array:
    a, b = (c[i].T if c.whole(key, 0) else c[i] for i, key in ((0, "transA"), (1, "transB")))
    made = product(a, b, c.arithmetic)
    alpha, beta, other = c.real("alpha", 1.0), c.real("beta", 1.0), c.optional(2)
    if alpha != 1.0:
        made = made * made.dtype.type(alpha)
    if other is None:
        return made
    return np.asarray(made + (other if beta == 1.0 else other * made.dtype.type(beta)))


def _einsum(c: Call) -> Array:
    if c.arithmetic.profile:
        raise HwsimError("Einsum runs in exact and fp32 arithmetic only")
    return np.asarray(np.einsum(c.text("equation", ""), *c.given(), optimize=True))


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "sigmoid": functions.UNARY["sigmoid"], "tanh": functions.UNARY["tanh"], "relu": functions.UNARY["relu"],
    "softsign": functions.UNARY["softsign"], "softplus": functions.UNARY["softplus"],
}  # fmt: skip


def _recurrent(c: Call) -> list[Array | None]:
    op, layout = c.node.op, c.whole("layout", 0)
    x = np.swapaxes(c[0], 0, 1) if layout else c[0]
    w, r = c[1], c[2]
    if c.optional(4) is not None and not bool(np.all(c[4] == len(x))):
        raise HwsimError("sequences of different lengths are not executed")
    if "clip" in c.node.attrs or c.whole("input_forget", 0):
        raise HwsimError("clipped or coupled gates are not executed")
    sides, n, h = len(w), x.shape[1], r.shape[-1]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    named = c.node.attrs.get("activations") or ()
    found = [ACTIVATIONS.get(str(a).lower()) for a in (named if isinstance(named, tuple) else ())]
    if None in found or c.node.attrs.get("activation_alpha"):
        raise HwsimError(f"activations {named!r} are not executed")
    per = len(found) // sides if found else 0
    bias = c.optional(3)
    outs, hs, cs = [], [], []
    for side in range(sides):
        mirrored = side == 1 or c.text("direction", "forward") == "reverse"
        fed = x[::-1] if mirrored else x
        both = bias[side] if bias is not None else np.zeros(2 * gates * h, x.dtype)
        bw, br = both[: gates * h], both[gates * h :]
        start = _start(c, 5, side, n, h, x.dtype, layout)
        f: Any = tuple(found[side * per : (side + 1) * per])
        if op == "LSTM":
            p = c.optional(7)
            steps, last, cell = cells.lstm(fed, w[side], r[side], bw + br, start, _start(c, 6, side, n, h, x.dtype, layout),
                                           c.arithmetic, None if p is None else p[side], None, f)  # fmt: skip
            cs.append(cell)
        elif op == "GRU":
            after = bool(c.whole("linear_before_reset", 0))
            steps, last = cells.gru(fed, w[side], r[side], bw, br, start, c.arithmetic, after, f)
        else:
            steps, last = cells.rnn(fed, w[side], r[side], bw + br, start, c.arithmetic, f)
        outs.append(steps[::-1] if mirrored else steps)
        hs.append(last)
    y, yh = np.stack(outs, axis=1), np.stack(hs)
    if layout:
        y, yh = y.transpose(2, 0, 1, 3), np.swapaxes(yh, 0, 1)
    made: list[Array | None] = [y, yh]
    return [*made, np.swapaxes(np.stack(cs), 0, 1) if layout else np.stack(cs)] if cs else made


def _start(c: Call, index: int, side: int, n: int, h: int, dtype: npt.DTypeLike, layout: int) -> Array:
    given = c.optional(index)
    if given is None:
        return np.zeros((n, h), dtype)
    return given[:, side] if layout else given[side]


# -- normalisation, reductions, pools ---------------------------------------------------------------------------------


def _softmax(c: Call) -> Array:
    x = c[0]
    f = functions.log_softmax if c.node.op == "LogSoftmax" else functions.softmax
    if c.opset >= 13:
        return f(x, c.axis(-1, x.ndim))
    axis = c.axis(1, x.ndim)
    return f(x.reshape(math.prod(x.shape[:axis]), -1), 1).reshape(x.shape)


def _batch_norm(c: Call) -> Array:
    x = c[0]
    if c.whole("training_mode", 0):
        raise HwsimError("training mode is not executed")
    shape = (-1, *[1] * (x.ndim - 2))
    scale, shift, mean, variance = (c[i].reshape(shape) for i in range(1, 5))
    factor = scale / np.sqrt(variance + x.dtype.type(c.real("epsilon", 1e-5)))
    return np.asarray(x * factor + (shift - mean * factor))


def _instance_norm(c: Call) -> Array:
    x, shape = c[0], (-1, *[1] * (c[0].ndim - 2))
    made = functions.normalise(x, tuple(range(2, x.ndim)), c.real("epsilon", 1e-5))
    return np.asarray(made * c[1].reshape(shape) + c[2].reshape(shape))


def _group_norm(c: Call) -> Array:
    x, groups = c[0], c.whole("num_groups", 1)
    if groups < 1 or x.shape[1] % groups:
        raise HwsimError(f"{groups} groups do not divide {x.shape[1]} channels")
    made = functions.normalise(x.reshape(x.shape[0], groups, -1), (2,), c.real("epsilon", 1e-5))
    scale, shift = c[1], c[2]
    if scale.size == groups != x.shape[1]:  # opset 18: per group
        scale, shift = np.repeat(scale, x.shape[1] // groups), np.repeat(shift, x.shape[1] // groups)
    shape = (-1, *[1] * (x.ndim - 2))
    return np.asarray(made.reshape(x.shape) * scale.reshape(shape) + shift.reshape(shape))


def _layer_norm(c: Call) -> Array:
    x = c[0]
    axes = tuple(range(c.axis(-1, x.ndim), x.ndim))
    eps = c.real("epsilon", 1e-5)
    made = functions.normalise(x, axes, eps) if c.node.op == "LayerNormalization" else functions.rms(x, axes, eps)
    made = made * c[1]
    shift = c.optional(2)
    return made if shift is None else np.asarray(made + shift)


def _lrn(c: Call) -> Array:
    return functions.lrn(c[0], c.whole("size", 1), c.real("alpha", 1e-4), c.real("beta", 0.75), c.real("bias", 1.0))


def _lp_norm(c: Call) -> Array:
    x, axis = c[0], c.axis(-1, c[0].ndim)
    total = (
        np.sum(np.abs(x), axis, keepdims=True) if c.whole("p", 2) == 1 else np.sqrt(np.sum(x * x, axis, keepdims=True))
    )
    return np.asarray(np.where(total == 0, 0, x / np.where(total == 0, 1, total)), x.dtype)


REDUCE: Mapping[str, Callable[..., Any]] = {
    "ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": lambda x, axis, keepdims: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
}  # fmt: skip


def _reduce(c: Call) -> Array:
    x, axes = c[0], c.axes(1)
    if not axes:
        if c.whole("noop_with_empty_axes", 0):
            return x
        axes = tuple(range(x.ndim))
    axes = tuple(checked_axis(a, x.ndim) for a in axes)
    return np.asarray(REDUCE[c.node.op](x, axis=axes, keepdims=bool(c.whole("keepdims", 1)))).astype(x.dtype)


def _arg(c: Call) -> Array:
    x, axis = c[0], c.axis(0, c[0].ndim)
    f = np.argmax if c.node.op == "ArgMax" else np.argmin
    if c.whole("select_last_index", 0):
        found = x.shape[axis] - 1 - f(np.flip(x, axis), axis=axis)
    else:
        found = f(x, axis=axis)
    return np.expand_dims(found, axis) if c.whole("keepdims", 1) else np.asarray(found)


def _cumsum(c: Call) -> Array:
    x, axis = c[0], checked_axis(int(c[1].reshape(-1)[0]), c[0].ndim)
    y = np.flip(x, axis) if c.whole("reverse", 0) else x
    made = np.cumsum(y, axis=axis, dtype=x.dtype)
    if c.whole("exclusive", 0):
        made = made - y
    return np.flip(made, axis) if c.whole("reverse", 0) else made


def _pool(c: Call) -> Array:
    x = c[0]
    windows = geometry(c, x, c.ints("kernel_shape", ()) or (), x.shape[1], x.shape[1])
    if c.node.op == "MaxPool":
        if len(c.node.outputs) > 1 and c.node.outputs[1]:
            raise HwsimError("indices of the maxima are not given")
        return resampling.max_pool(x, windows)
    return resampling.avg_pool(x, windows, bool(c.whole("count_include_pad", 0)))


def _global_pool(c: Call) -> Array:
    f = np.max if c.node.op == "GlobalMaxPool" else np.mean
    return np.asarray(f(c[0], axis=tuple(range(2, c[0].ndim)), keepdims=True)).astype(c[0].dtype)


_U = functions.UNARY
_ONE: dict[str, Callable[[Array], Any]] = {
    "Abs": np.abs, "Neg": np.negative, "Sign": np.sign, "Ceil": np.ceil, "Floor": np.floor, "Round": np.rint,
    "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Erf": functions.erf, "Sin": np.sin, "Cos": np.cos, "Tan": np.tan,
    "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Sinh": np.sinh, "Cosh": np.cosh,
    "Reciprocal": lambda x: 1 / x, "Sigmoid": _U["sigmoid"], "Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0),
    "HardSwish": _U["hswish"], "Softplus": _U["softplus"], "Softsign": _U["softsign"], "Mish": _U["mish"],
    "Not": np.logical_not, "IsNaN": np.isnan, "IsInf": np.isinf, "Identity": lambda x: x, "Dropout": lambda x: x,
    "FastGelu": _U["gelu_tanh"], "QuickGelu": _U["quick_gelu"],
}  # fmt: skip
_TWO: dict[str, Callable[[Array, Array], Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": lambda a, b: np.power(a, b).astype(a.dtype),
    "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater,
    "Less": np.less, "GreaterOrEqual": np.greater_equal, "LessOrEqual": np.less_equal,
}  # fmt: skip
MATH: dict[str, Handler] = {
    **{name: _unary(f) for name, f in _ONE.items()},
    **{name: _binary(f) for name, f in _TWO.items()},
    "Max": _many(np.maximum), "Min": _many(np.minimum), "Sum": _many(np.add), "Mod": _mod, "Cast": _cast, "CastLike": _cast_like,
    "Mean": lambda c: np.asarray(sum(c.given()[1:], c[0]) / c[0].dtype.type(len(c.given()))), "Clip": _clip, "PRelu": _prelu,
    "Where": lambda c: np.where(c[0], c[1], c[2]), "LeakyRelu": lambda c: functions.leaky_relu(c[0], c.real("alpha", 0.01)),
    "Elu": lambda c: functions.elu(c[0], c.real("alpha", 1.0)), "Gelu": _gelu,
    "Selu": lambda c: functions.selu(c[0], c.real("alpha", 1.6732632), c.real("gamma", 1.050701)),
    "HardSigmoid": lambda c: functions.hsigmoid(c[0], c.real("alpha", 0.2), c.real("beta", 0.5)),
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MatMul": lambda c: matmul(c, c[0], c[1]), "Gemm": _gemm,
    "Einsum": _einsum, "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent, "Softmax": _softmax, "LogSoftmax": _softmax,
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm, "RMSNormalization": _layer_norm, "SimplifiedLayerNormalization": _layer_norm,
    "LRN": _lrn, "LpNormalization": _lp_norm, **dict.fromkeys(REDUCE, _reduce), "ArgMax": _arg, "ArgMin": _arg,
    "CumSum": _cumsum, "MaxPool": _pool, "AveragePool": _pool, "GlobalAveragePool": _global_pool, "GlobalMaxPool": _global_pool,
}  # fmt: skip
ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Relu", "Clip", "BatchNormalization", "Sigmoid", "Tanh", "LeakyRelu", "PRelu", "HardSwish",
     "HardSigmoid", "Gelu", "Elu", "Selu", "Identity", "Dropout"}
)  # fmt: skip
"""Nodes that run in the epilogue of the product before them."""
CONTRACT = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
