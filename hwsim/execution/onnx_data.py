"""ONNX operators that move data or make shapes; every result bounded in size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution import resampling
from hwsim.execution.onnx_call import Call, Handler, checked_axis
from hwsim.execution.products import bounded

Array = npt.NDArray[Any]


def _list(x: Array) -> list[int]:
    return [int(v) for v in x.reshape(-1)]


def _constant(c: Call) -> Array:
    stored = c.stored("value")
    if stored is not None and stored.data is not None:
        return stored.data
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, kind in kinds.items():
        if name in c.node.attrs:
            return np.asarray(c.node.attrs[name], kind)
    raise HwsimError("its value cannot be executed")


def _constant_of_shape(c: Call) -> Array:
    shape = tuple(_list(c[0]))
    if any(d < 0 for d in shape):
        raise HwsimError(f"impossible shape {list(shape)}")
    bounded(shape)
    stored = c.stored("value")
    fill = stored.data.reshape(-1)[0] if stored is not None and stored.data is not None else np.float32(0)
    return np.full(shape, fill)


def _range(c: Call) -> Array:
    start, limit, delta = (x.reshape(-1)[0] for x in (c[0], c[1], c[2]))
    if delta == 0:
        raise HwsimError("steps of 0")
    count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    bounded((count,))
    return np.asarray(start + np.arange(count, dtype=c[0].dtype) * delta).astype(c[0].dtype)


def _shape(c: Call) -> Array:
    shape = np.array(c[0].shape, np.int64)
    end = c.node.attrs.get("end")
    return shape[c.whole("start", 0) : end if isinstance(end, int) else None]


def _reshape(c: Call) -> Array:
    x = c[0]
    asked = _list(c[1]) if c.optional(1) is not None else list(c.ints("shape") or ())
    if not c.whole("allowzero", 0):
        asked = [x.shape[i] if d == 0 and i < x.ndim else d for i, d in enumerate(asked)]
    return x.reshape(asked)


def _flatten(c: Call) -> Array:
    x, axis = c[0], c.whole("axis", 1)
    axis = axis + c[0].ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(c: Call) -> Array:
    axes = c.axes(1)
    return np.squeeze(c[0], None if axes is None else tuple(axes))


def _unsqueeze(c: Call) -> Array:
    return np.expand_dims(c[0], tuple(c.axes(1) or ()))


def _transpose(c: Call) -> Array:
    return np.transpose(c[0], c.ints("perm"))


def _concat(c: Call) -> Array:
    parts = c.given()
    axis = c.axis(1, parts[0].ndim)
    bounded((sum(p.size for p in parts),))
    return np.concatenate(parts, axis=axis)


def _split(c: Call) -> Sequence[Array]:
    x = c[0]
    axis = c.axis(0, x.ndim)
    sizes = _list(c[1]) if c.optional(1) is not None else list(c.ints("split") or ())
    if not sizes:
        parts = c.whole("num_outputs", len(c.node.outputs))
        if not 1 <= parts <= 1 << 16:
            raise HwsimError(f"{parts} parts")
        step = -(-x.shape[axis] // parts)
        sizes = [max(0, min(step, x.shape[axis] - i * step)) for i in range(parts)]
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise HwsimError(f"parts {sizes} do not add up to {x.shape[axis]}")
    return np.split(x, np.cumsum(sizes)[:-1].tolist(), axis=axis)


def _slice(c: Call) -> Array:
    x = c[0]
    if c.optional(1) is not None:
        starts, ends = _list(c[1]), _list(c[2])
        third, fourth = c.optional(3), c.optional(4)
        axes = _list(third) if third is not None else list(range(len(starts)))
        steps = _list(fourth) if fourth is not None else [1] * len(starts)
    else:
        starts, ends = list(c.ints("starts") or ()), list(c.ints("ends") or ())
        axes = list(c.ints("axes") or range(len(starts)))
        steps = [1] * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = checked_axis(axis, x.ndim)
        size = x.shape[at]
        if step == 0:
            raise HwsimError("steps of 0")
        if step < 0 and end < -size:
            index[at] = slice(start, None, step)
        else:
            index[at] = slice(start, end, step)
    return x[tuple(index)]


def _indices(x: Array, size: int) -> Array:
    if x.size and not (-size <= int(x.min()) and int(x.max()) < size):
        raise HwsimError(f"an index is outside {size} elements")
    return np.where(x < 0, x + size, x)


def _gather(c: Call) -> Array:
    x, axis = c[0], c.axis(0, c[0].ndim)
    bounded((*x.shape[:axis], *c[1].shape, *x.shape[axis + 1 :]))
    return np.take(x, _indices(c[1], x.shape[axis]), axis=axis)


def _gather_elements(c: Call) -> Array:
    axis = c.axis(0, c[0].ndim)
    return np.take_along_axis(c[0], _indices(c[1], c[0].shape[axis]), axis=axis)


def _gather_nd(c: Call) -> Array:
    x, at, batch = c[0], c[1], c.whole("batch_dims", 0)
    depth = at.shape[-1]
    lead = np.indices(at.shape[:-1])[:batch]
    where = tuple(_indices(at[..., i], x.shape[batch + i]) for i in range(depth))
    return np.asarray(x[(*lead, *where)])


def _scatter_nd(c: Call) -> Array:
    out, at = c[0].copy(), c[1]
    where = tuple(_indices(at[..., i], out.shape[i]) for i in range(at.shape[-1]))
    how = c.text("reduction", "none")
    if how == "add":
        np.add.at(out, where, c[2])
    elif how == "none":
        out[where] = c[2]
    else:
        raise HwsimError(f"reduction {how[:20]!r} is not executed")
    return out


def _scatter_elements(c: Call) -> Array:
    out, axis = c[0].copy(), c.axis(0, c[0].ndim)
    if c.text("reduction", "none") != "none":
        raise HwsimError("scattering with a reduction is not executed")
    np.put_along_axis(out, _indices(c[1], out.shape[axis]), c[2], axis=axis)
    return out


def _expand(c: Call) -> Array:
    shape = np.broadcast_shapes(c[0].shape, tuple(_list(c[1])))
    bounded(shape)
    return np.broadcast_to(c[0], shape)


def _tile(c: Call) -> Array:
    times = _list(c[1])
    if min(times, default=0) < 0:
        raise HwsimError("negative repeats")
    bounded(tuple(a * b for a, b in zip(c[0].shape, times, strict=True)))
    return np.tile(c[0], times)


def _pad(c: Call) -> Array:
    x = c[0]
    amounts = _list(c[1]) if c.optional(1) is not None else list(c.ints("pads") or ())
    third, axes = c.optional(2), c.optional(3)
    fill = third.reshape(-1)[0] if third is not None and third.size else x.dtype.type(c.real("value", 0.0))
    where = [checked_axis(a, x.ndim) for a in _list(axes)] if axes is not None else list(range(x.ndim))
    both = [(0, 0)] * x.ndim
    for i, axis in enumerate(where):
        both[axis] = (amounts[i], amounts[len(where) + i])
    bounded(tuple(s + max(0, b) + max(0, a) for s, (b, a) in zip(x.shape, both, strict=True)))
    mode = c.text("mode", "constant")
    crop = tuple(slice(max(0, -b), s - max(0, -a)) for s, (b, a) in zip(x.shape, both, strict=True))
    grow = [(max(0, b), max(0, a)) for b, a in both]
    if mode == "constant":
        return np.pad(x[crop], grow, constant_values=fill)
    if mode == "reflect":
        return np.pad(x[crop], grow, mode="reflect")
    if mode == "edge":
        return np.pad(x[crop], grow, mode="edge")
    if mode == "wrap":
        return np.pad(x[crop], grow, mode="wrap")
    raise HwsimError(f"padding mode {mode[:20]!r} is not executed")


def _resize(c: Call) -> Array:
    x = c[0]
    old = c.node.op == "Upsample" or c.opset < 11
    scales = c.optional(1 if old else 2)
    sizes = None if old else c.optional(3)
    mode = c.text("mode", "nearest")
    axes = c.ints("axes") or tuple(range(x.ndim))
    transform = c.text("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if transform == "tf_crop_and_resize" or c.whole("antialias", 0) or c.whole("exclude_outside", 0):
        raise HwsimError("crop, antialias and exclude_outside are not executed")
    policy = c.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        raise HwsimError(f"aspect ratio policy {policy[:20]!r} is not executed")
    if sizes is not None and sizes.size:
        targets = _list(sizes)
        factors: list[float | None] = [None] * len(targets)
    elif scales is not None and scales.size:
        factors = [float(v) for v in scales.reshape(-1)]
        targets = [math.floor(x.shape[a] * f) for a, f in zip(axes, factors, strict=True) if f is not None]
    else:
        raise HwsimError("neither sizes nor scales are given")
    whole = x.dtype if x.dtype.kind in "iu" and mode != "nearest" else None
    if whole is not None:
        x = x.astype(np.float32)
    nearest = "floor" if old else c.text("nearest_mode", "round_prefer_floor")
    for axis, out, factor in zip(axes, targets, factors, strict=True):
        at = checked_axis(axis, x.ndim)
        if out < 1:
            raise HwsimError(f"size {out}")
        bounded((*x.shape[:at], out, *x.shape[at + 1 :]))
        if out != x.shape[at] or (factor is not None and factor != 1.0):
            where = resampling.coordinates(x.shape[at], out, transform, factor)
            x = resampling.resize_axis(x, at, where, mode, c.real("cubic_coeff_a", -0.75), nearest)
    if whole is not None:  # ONNX Runtime converts the interpolated value as C does
        x = np.clip(np.trunc(x), np.iinfo(whole).min, np.iinfo(whole).max).astype(whole)
    return x


def _top_k(c: Call) -> Sequence[Array]:
    x, axis = c[0], c.axis(-1, c[0].ndim)
    k = int(c[1].reshape(-1)[0]) if c.optional(1) is not None else c.whole("k", 1)
    if not 0 <= k <= x.shape[axis]:
        raise HwsimError(f"k is {k} of {x.shape[axis]}")
    order = np.argsort(-x if c.whole("largest", 1) else x, axis=axis, kind="stable")
    picked = np.take(order, range(k), axis=axis)
    return np.take_along_axis(x, picked, axis=axis), picked


def _one_hot(c: Call) -> Array:
    depth = int(c[1].reshape(-1)[0])
    bounded((*c[0].shape, max(0, depth)))
    axis = c.whole("axis", -1)
    axis = axis if axis >= 0 else axis + c[0].ndim + 1
    index = np.where(c[0] < 0, c[0] + depth, c[0])
    places = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(c[0].ndim + 1)])
    return np.asarray(np.where(np.expand_dims(index, axis) == places, c[2][1], c[2][0]))


def _trilu(c: Call) -> Array:
    k = int(c[1].reshape(-1)[0]) if c.optional(1) is not None else 0
    return np.asarray(np.triu(c[0], k) if c.whole("upper", 1) else np.tril(c[0], k))


def _blocks(c: Call) -> Array:
    x, block = c[0], c.whole("blocksize", 1)
    if x.ndim != 4 or block < 1:
        raise HwsimError("needs rank 4 and a block of at least 1")
    if c.node.op == "DepthToSpace":
        return resampling.depth_to_space(x, block, crd=c.text("mode", "DCR") == "CRD")
    return resampling.space_to_depth(x, block)


DATA: dict[str, Handler] = {
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "Range": _range, "Shape": _shape,
    "Size": lambda c: np.asarray(c[0].size, np.int64), "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Concat": _concat, "Split": _split, "Slice": _slice, "Gather": _gather,
    "GatherElements": _gather_elements, "GatherND": _gather_nd, "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements, "Expand": _expand, "Tile": _tile, "Pad": _pad, "Resize": _resize, "Upsample": _resize,
    "TopK": _top_k, "OneHot": _one_hot, "Trilu": _trilu, "DepthToSpace": _blocks, "SpaceToDepth": _blocks,
    "NonZero": lambda c: np.array(np.nonzero(c[0]), np.int64),
}  # fmt: skip
