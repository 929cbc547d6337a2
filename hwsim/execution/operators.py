"""The operator table with values: one function for every operator of `hwsim.network.ops` whose meaning a trace states.

What a trace leaves out (indices of a gather, scales of a quantisation, selected outputs) is refused, naming the layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution import functions, resampling
from hwsim.execution import operators_contract as contract
from hwsim.execution.operators_contract import Handler, Step, as_stated, channels_first
from hwsim.network.ops_contract import ints, pads, window_out

Array = npt.NDArray[Any]


# -- element-wise ---------------------------------------------------------------------------------------------------


def activation(name: str, x: Array, weights: Mapping[str, Array], channel_axis: int) -> Array:
    """A fused activation; ``bn`` and ``prelu`` read their vectors from ``weights``."""
    if name == "bn":
        shape = [1] * x.ndim
        shape[channel_axis] = -1
        scale, shift = (weights[n].astype(x.dtype).reshape(shape) for n in ("bn_scale", "bn_shift"))
        return np.asarray(x * scale + shift)
    if name == "leaky_relu":
        return functions.leaky_relu(x)
    found = functions.UNARY.get(name)
    if found is None:
        raise HwsimError(f"a trace does not state the numbers of a fused {name}")
    return np.asarray(found(x))


def _unary(s: Step) -> Array:
    op, x = s.layer.op, s.x
    if op == "leaky_relu":
        return functions.leaky_relu(x, s.real("alpha", 0.01))
    if op == "elu":
        return functions.elu(x, s.real("alpha", 1.0))
    if op == "prelu":
        slope = s.weight("slope")
        axis = 1 if x.ndim > 1 and x.shape[1] == slope.size else x.ndim - 1
        return np.where(x < 0, x * slope.reshape([-1 if i == axis else 1 for i in range(x.ndim)]), x)
    if op == "clip":
        if "low" not in s.layer.attrs and "high" not in s.layer.attrs:
            raise HwsimError("the trace does not state the bounds (low=, high=)")
        return np.clip(x, s.real("low", -np.inf), s.real("high", np.inf)).astype(x.dtype)
    if op == "cast":
        return _cast(x, str(s.layer.attrs.get("to", s.layer.dtype)), s)
    return np.asarray(functions.UNARY[op](x))


def _cast(x: Array, to: str, s: Step) -> Array:
    from hwsim.formats import get_format

    fmt = get_format(to)
    if to == "bool":
        return np.asarray(x != 0)
    if fmt.kind in ("int", "uint"):
        with np.errstate(invalid="ignore"):
            return np.trunc(x).astype(np.int64) if x.dtype.kind == "f" else x.astype(np.int64)
    return x.astype(s.arithmetic.dtype)


def _binary(s: Step) -> Array:
    f = functions.BINARY[s.layer.op]
    if len(s.xs) == 2:
        return np.asarray(f(s.xs[0], s.xs[1]))
    if "value" in s.layer.attrs:
        other: Array = np.asarray(s.real("value", 0.0)).astype(s.x.dtype)
    elif "const" in s.weights:
        other = s.weight("const")
        if other.dtype.kind != s.x.dtype.kind and s.x.dtype.kind == "f":
            other = other.astype(s.x.dtype)
    else:
        raise HwsimError("the trace does not state the constant operand (value= or const=)")
    return np.asarray(f(other, s.x) if s.flag("reverse") else f(s.x, other))


def _where(s: Step) -> Array:
    if len(s.xs) != 3:
        raise HwsimError("the trace does not say which operand is the constant one")
    return np.where(s.xs[0] != 0, s.xs[1], s.xs[2])


def _add_n(s: Step) -> Array:
    total = s.x
    for other in s.xs[1:]:
        total = total + other
    return total


# -- reductions and normalisation -------------------------------------------------------------------------------------


def _axes(s: Step) -> tuple[int, ...]:
    value = s.layer.attrs.get("axes")
    if value is None:
        return tuple(range(s.x.ndim))
    axes = value if isinstance(value, tuple) else (int(value),)
    return tuple(sorted({a % s.x.ndim for a in axes}))


def _logsumexp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = np.max(x, axis=axis, keepdims=True)
    total = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return np.asarray(total if keepdims else np.squeeze(total, axis))


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_mean": np.mean, "reduce_sum": np.sum, "reduce_max": np.max, "reduce_min": np.min, "reduce_prod": np.prod,
    "reduce_l2": lambda x, axis, keepdims: np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims)),
    "reduce_any": np.any, "reduce_all": np.all, "reduce_var": np.var, "reduce_logsumexp": _logsumexp,
}  # fmt: skip


def _reduce(s: Step) -> Array:
    axes, keep = _axes(s), s.flag("keep")
    if s.layer.op in ("arg_max", "arg_min"):
        if len(axes) != 1:
            raise HwsimError("needs one axis")
        pick = np.argmax if s.layer.op == "arg_max" else np.argmin
        return np.asarray(pick(s.x, axis=axes[0], keepdims=keep))
    return np.asarray(REDUCTIONS[s.layer.op](s.x, axis=axes, keepdims=keep)).astype(
        bool if s.layer.op in ("reduce_any", "reduce_all") else s.x.dtype
    )


def _norm(s: Step) -> Array:
    op, x = s.layer.op, s.x
    axis = s.integer("axis", -1)
    eps = s.real("eps", 1e-5)
    if op in ("softmax", "log_softmax"):
        return functions.softmax(x, axis) if op == "softmax" else functions.log_softmax(x, axis)
    if op == "cumsum":
        return np.cumsum(x, axis=s.integer("axis", x.ndim - 1), dtype=x.dtype)
    if op == "rope":
        return rope(s)
    if op == "l2_norm":
        return np.asarray(x / np.sqrt(np.sum(np.square(x), axis=axis, keepdims=True) + x.dtype.type(1e-12)))
    if op == "lrn":
        return as_stated(s, functions.lrn(channels_first(s, x), s.integer("size", 5)))
    scale, shift = s.weights.get("scale"), s.weights.get("shift")
    if op in ("layer_norm", "rms_norm"):
        width = s.integer("width", x.shape[-1])
        axes = _trailing(x.shape, width)
        made = functions.normalise(x, axes, eps) if op == "layer_norm" else functions.rms(x, axes, eps)
        tail = x.shape[axes[0] :]
        return _affine(made, scale, shift, tail)
    y = channels_first(s, x)
    ones = (-1, *[1] * (y.ndim - 2))
    if op == "batch_norm":
        return as_stated(s, _affine(y, scale, shift, ones))
    groups = s.integer("groups", 1) if op == "group_norm" else y.shape[1]
    if y.shape[1] % groups:
        raise HwsimError(f"{groups} groups do not divide {y.shape[1]} channels")
    grouped = y.reshape(y.shape[0], groups, -1)
    made = functions.normalise(grouped, (2,), eps).reshape(y.shape)
    return as_stated(s, _affine(made, scale, shift, ones))


def _trailing(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    """The last axes whose extents multiply to ``width``."""
    total = 1
    for i in range(len(shape) - 1, -1, -1):
        total *= shape[i]
        if total == width:
            return tuple(range(i, len(shape)))
    return (len(shape) - 1,)


def _affine(x: Array, scale: Array | None, shift: Array | None, shape: tuple[int, ...]) -> Array:
    if scale is not None:
        x = x * scale.astype(x.dtype).reshape(shape)
    return x + shift.astype(x.dtype).reshape(shape) if shift is not None else x


def rope(s: Step) -> Array:
    """Rotary embedding (Su 2021): pairs (i, i + d/2) of the last axis turned by position · 10000^(-2i/d), positions on
    the axis before. Further operands (tables of the model) are not read: a trace does not say what they hold."""
    x = s.x
    half = x.shape[-1] // 2
    if x.ndim < 2 or x.shape[-1] % 2:
        raise HwsimError("rotary embedding needs an even last dimension")
    frequency = 10000.0 ** (-np.arange(half) * 2 / x.shape[-1])
    angle = np.arange(x.shape[-2])[:, None] * frequency
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


# -- pooling --------------------------------------------------------------------------------------------------------


def _pool(s: Step) -> Array:
    x, attrs = channels_first(s, s.x), s.layer.attrs
    rank = x.ndim - 2
    k = ints(attrs, "k", rank, 1)
    stride = ints(attrs, "s", rank, 1) if "s" in attrs else k
    d, p, ceil = ints(attrs, "d", rank, 1), pads(attrs, rank), s.flag("ceil")
    out = [window_out(x.shape[2 + i], k[i], stride[i], p[i], p[rank + i], d[i], ceil=ceil) for i in range(rank)]
    windows = resampling.geometry(x, k, stride, p, d, out)
    if s.layer.op == "max_pool":
        return as_stated(s, resampling.max_pool(x, windows))
    return as_stated(s, resampling.avg_pool(x, windows, s.flag("count_pad")))


def _adaptive(s: Step) -> Array:
    x = channels_first(s, s.x)
    size = ints(s.layer.attrs, "size", x.ndim - 2, 1)
    return as_stated(s, resampling.adaptive(x, size, np.mean if s.layer.op == "adaptive_avg_pool" else np.max))


# -- movement -------------------------------------------------------------------------------------------------------


def _concat(s: Step) -> Array:
    axis = s.integer("axis", 1) % s.x.ndim
    parts = list(s.xs)
    if s.integer("constant", 0):
        constant = s.weight("constant")
        parts.insert(0, np.broadcast_to(constant, (*s.shape[:1], *constant.shape[1:])) if axis else constant)
    return np.concatenate(parts, axis=axis)


def _slice(s: Step) -> Array:
    shape = s.x.shape
    if "axis" in s.layer.attrs:
        axis = s.integer("axis", 0) % s.x.ndim
    else:
        differing = [i for i in range(min(len(shape), len(s.shape))) if shape[i] != s.shape[i]]
        if len(s.shape) != len(shape) or len(differing) > 1:
            raise HwsimError("the trace does not state which part is taken (axis=, start=)")
        if not differing:
            return s.x
        raise HwsimError("the trace does not state where the part begins (axis=, start=)")
    start, step = s.integer("start", 0), s.integer("step", 1)
    wanted = s.shape[axis] if len(s.shape) == len(shape) else 1
    index = start + step * np.arange(wanted)
    index = np.where(index < 0, index + shape[axis], index)
    if wanted and not (int(index.min()) >= 0 and int(index.max()) < shape[axis]):
        raise HwsimError(f"takes elements {start} … beyond the {shape[axis]} of axis {axis}")
    return np.take(s.x, index, axis=axis).reshape(s.shape)


def _gather(s: Step) -> Array:
    if len(s.xs) != 2:
        raise HwsimError("the trace does not state the indices")
    axis = s.integer("axis", 0) % s.x.ndim
    index = s.xs[1]
    if index.dtype.kind not in "iu":
        raise HwsimError(f"indices must be integers, not {index.dtype}")
    size = s.x.shape[axis]
    if index.size and not (-size <= int(index.min()) and int(index.max()) < size):
        raise HwsimError(f"an index is outside the {size} elements of axis {axis}")
    return np.take(s.x, index, axis=axis).reshape(s.shape)


def _transpose(s: Step) -> Array:
    perm = s.layer.attrs.get("perm")
    if not isinstance(perm, tuple):
        raise HwsimError("the trace does not state the permutation (perm=)")
    return np.transpose(s.x, perm)


def _pad(s: Step) -> Array:
    value, rank = s.layer.attrs.get("p"), s.x.ndim
    if not isinstance(value, tuple):
        raise HwsimError("the trace does not state the amounts (p=)")
    amounts = list(zip(value[:rank], value[rank:], strict=True))
    if any(v < 0 for v in value):
        crop = tuple(slice(max(0, -b), s.x.shape[i] - max(0, -a)) for i, (b, a) in enumerate(amounts))
        return np.pad(s.x[crop], [(max(0, b), max(0, a)) for b, a in amounts])
    mode = str(s.layer.attrs.get("mode", "constant"))
    known: dict[str, Any] = {mode: mode for mode in ("constant", "reflect", "symmetric", "edge", "wrap")}
    known |= {"replicate": "edge", "circular": "wrap"}
    if mode not in known:
        raise HwsimError(f"padding mode {mode[:40]!r} is not known")
    padded: Array = np.pad(s.x, amounts, mode=known[mode])
    return padded


def _resize(s: Step) -> Array:
    x = channels_first(s, s.x)
    if x.ndim < 3 or len(s.shape) != x.ndim:
        raise HwsimError("needs (batch, channels, spatial...)")
    out = s.shape[1:-1] if s.flag("nhwc") else s.shape[2:]
    mode = str(s.layer.attrs.get("mode", "bilinear"))
    return as_stated(s, resampling.resize(x, out, mode, "asymmetric" if mode == "nearest" else "half_pixel"))


def _tile(s: Step) -> Array:
    if len(s.shape) != s.x.ndim or any(o % i for o, i in zip(s.shape, s.x.shape, strict=True)):
        raise HwsimError("the result is no whole number of copies")
    return np.tile(s.x, [o // i for o, i in zip(s.shape, s.x.shape, strict=True)])


def _roll(s: Step) -> Array:
    axes, shift = s.layer.attrs.get("axes"), s.layer.attrs.get("shift")
    if not isinstance(axes, tuple) or not isinstance(shift, tuple):
        raise HwsimError("the trace does not state the shift (axes=, shift=)")
    return np.roll(s.x, shift, axes)


def _flip(s: Step) -> Array:
    return np.flip(s.x, _axes(s))


def _depth(s: Step) -> Array:
    if s.x.ndim != 4 or "block" not in s.layer.attrs:
        raise HwsimError("needs a rank-4 tensor and block=")
    x, block = channels_first(s, s.x), s.integer("block", 1)
    made = (resampling.depth_to_space if s.layer.op == "depth_to_space" else resampling.space_to_depth)(x, block)
    return as_stated(s, made)


def _constant(s: Step) -> Array:
    return s.weight("constant")


OPERATORS: dict[str, Handler] = {
    "conv": contract.conv, "conv_transpose": contract.conv, "linear": contract.linear, "matmul": contract.matmul,
    "expert_linear": contract.expert_linear, "attention": contract.attention, "embedding": contract.embedding,
    **dict.fromkeys(("lstm", "gru", "rnn"), contract.recurrent),
    **dict.fromkeys((u for u in functions.UNARY if u not in ("swish", "tanh_half")), _unary),
    **dict.fromkeys(("leaky_relu", "prelu", "clip", "cast"), _unary),
    **dict.fromkeys(functions.BINARY, _binary), "where": _where, "add_n": _add_n,
    **dict.fromkeys((*REDUCTIONS, "arg_max", "arg_min"), _reduce),
    **dict.fromkeys(("softmax", "log_softmax", "layer_norm", "rms_norm", "group_norm", "instance_norm"), _norm),
    **dict.fromkeys(("batch_norm", "l2_norm", "lrn", "cumsum", "rope"), _norm),
    "max_pool": _pool, "avg_pool": _pool, "adaptive_avg_pool": _adaptive, "adaptive_max_pool": _adaptive,
    "concat": _concat, "slice": _slice, "split": _slice, "gather": _gather, "transpose": _transpose, "pad": _pad,
    "resize": _resize, "expand": lambda s: np.broadcast_to(s.x, s.shape), "tile": _tile, "roll": _roll, "flip": _flip,
    "depth_to_space": _depth, "space_to_depth": _depth, "constant": _constant, "copy": lambda s: s.x,
    "reshape": lambda s: s.x.reshape(s.shape), "identity": lambda s: s.x,
}  # fmt: skip
