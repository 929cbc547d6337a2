"""Data movement: values are copied, padded with the zero point, or interpolated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import Array, round_half_away


def reshape(call: Call) -> Array:
    """RESHAPE: the new shape is an operand, an option, or the file's output shape."""
    x = call.x(0)
    if call.has(1):
        shape = call.constant(1).reshape(-1).tolist()
    else:
        shape = list(call.option("NewShape", ()) or call.out().shape)
    free = [i for i, d in enumerate(shape) if d == -1]
    known = math.prod(d for d in shape if d != -1)
    if len(free) == 1 and known > 0:
        shape[free[0]] = x.size // known
    if any(d < 0 for d in shape) or math.prod(shape) != x.size:
        raise call.fail(f"{x.shape} does not reshape to {tuple(shape)}")
    return x.reshape(call.claim(shape))


def squeeze(call: Call) -> Array:
    """SQUEEZE of the named axes, or of all of extent one."""
    x = call.x(0)
    dims = tuple(call.option("SqueezeDims", ())) or tuple(i for i, d in enumerate(x.shape) if d == 1)
    if any(not -x.ndim <= d < x.ndim or x.shape[d] != 1 for d in dims):
        raise call.fail(f"axes {dims} of shape {x.shape} are not all one")
    call.claim(x.shape)
    return np.squeeze(x, axis=tuple({d % x.ndim for d in dims}))


def expand_dims(call: Call) -> Array:
    """EXPAND_DIMS at an axis."""
    x = call.x(0)
    axis = _scalar(call, 1)
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise call.fail(f"axis {axis} of {x.ndim}")
    call.claim(x.shape)
    return np.expand_dims(x, axis)


def _scalar(call: Call, position: int) -> int:
    found = call.constant(position).reshape(-1)
    if found.size != 1:
        raise call.fail(f"operand {position} must be one number")
    return int(found[0])


def transpose(call: Call) -> Array:
    """TRANSPOSE by a permutation."""
    x = call.x(0)
    order = call.constant(1).reshape(-1).tolist()
    if sorted(order) != list(range(x.ndim)):
        raise call.fail(f"{order} is no permutation of {x.ndim} axes")
    call.claim(x.shape)
    return np.ascontiguousarray(x.transpose(order))


def pad(call: Call) -> Array:
    """PAD and PADV2: with the zero point, 0, or the given value."""
    x, out = call.x(0), call.out()
    amounts = call.constant(1)
    if amounts.shape != (x.ndim, 2) or np.any(amounts < 0) or np.any(amounts > 1 << 30):
        raise call.fail(f"padding of shape {amounts.shape} does not fit input {x.shape}")
    call.claim([int(d + a.sum()) for d, a in zip(x.shape, amounts, strict=True)])
    if call.has(2):
        value = call.x(2)
        if value.size != 1:
            raise call.fail("needs one value to pad with")
        fill: Any = value.reshape(-1)[0]
    else:
        fill = out.zero if out.quantised else 0
    return np.pad(x, amounts.tolist(), constant_values=fill)


def mirror_pad(call: Call) -> Array:
    """MIRROR_PAD, reflecting with or without the edge."""
    x, amounts = call.x(0), call.constant(1)
    symmetric = int(call.option("Mode")) == 1
    limit = np.array(x.shape) - (0 if symmetric else 1)
    if amounts.shape != (x.ndim, 2) or np.any(amounts < 0) or np.any(amounts > limit[:, None]):
        raise call.fail(f"padding {amounts.tolist()} does not fit input {x.shape}")
    call.claim([int(d + a.sum()) for d, a in zip(x.shape, amounts, strict=True)])
    return np.pad(x, amounts.tolist(), mode="symmetric" if symmetric else "reflect")


def concatenation(call: Call) -> Array:
    """CONCATENATION: int8 copies; legacy uint8 rescales inputs of another scale in float32."""
    out, axis = call.out(), int(call.option("Axis"))
    parts = [call.x(i) for i in range(len(call.op.inputs))]
    rank = parts[0].ndim if parts else 0
    if not rank or not -rank <= axis < rank or any(p.ndim != rank or p.dtype != out.dtype for p in parts):
        raise call.fail("its inputs differ in rank or type, or the axis is none of theirs")
    axis %= rank
    if len({p.shape[:axis] + p.shape[axis + 1 :] for p in parts}) > 1 or call.option("FusedActivationFunction"):
        raise call.fail("its inputs differ in shape, or it has a fused activation")
    call.claim([sum(p.shape[axis] for p in parts) if i == axis else d for i, d in enumerate(parts[0].shape)])
    for i, part in enumerate(parts):
        if out.quantised and not call.same_quantisation(call.meta(i), out):
            if out.dtype != np.uint8:
                raise call.fail("integer inputs of another scale than the output's; only uint8 kernels rescale")
            inverse = np.float32(1) / out.scale
            scale = call.meta(i).scale * inverse
            bias = np.float32(-call.meta(i).zero) * scale
            level = round_half_away(part.astype(np.float32) * scale + bias).astype(np.int64) + out.zero
            parts[i] = np.clip(level, 0, 255).astype(np.uint8)
    return np.concatenate(parts, axis=axis)


def slice_(call: Call) -> Array:
    """SLICE by begin and size (-1: to the end)."""
    x, begin, size = call.x(0), call.constant(1).reshape(-1).tolist(), call.constant(2).reshape(-1).tolist()
    if len(begin) != x.ndim or len(size) != x.ndim:
        raise call.fail(f"begin {begin} and size {size} do not fit input {x.shape}")
    stop = [d if s == -1 else b + s for b, s, d in zip(begin, size, x.shape, strict=True)]
    if any(not 0 <= b <= e <= d for b, e, d in zip(begin, stop, x.shape, strict=True)):
        raise call.fail(f"begin {begin} and size {size} reach outside {x.shape}")
    call.claim(x.shape)
    return np.ascontiguousarray(x[tuple(slice(b, e) for b, e in zip(begin, stop, strict=True))])


def strided_slice(call: Call) -> Array:
    """STRIDED_SLICE with begin, end, shrink, new-axis and ellipsis masks."""
    x = call.x(0)
    begin, end, step = (call.constant(i).reshape(-1).tolist() for i in (1, 2, 3))
    if not len(begin) == len(end) == len(step) <= 16 or 0 in step:
        raise call.fail("begin, end and stride differ in length, or a stride is zero")
    index: list[Any] = []
    for i, (b, e, s) in enumerate(zip(begin, end, step, strict=True)):
        bit = 1 << i
        if call.option("EllipsisMask") & bit:
            index.append(Ellipsis)
        elif call.option("NewAxisMask") & bit:
            index.append(None)
        elif call.option("ShrinkAxisMask") & bit:
            index.append(b)
        else:
            first = None if call.option("BeginMask") & bit else b
            last = None if call.option("EndMask") & bit else e
            index.append(slice(first, last, s))
    call.claim(x.shape)
    try:
        return np.ascontiguousarray(x[tuple(index)])
    except IndexError:
        raise call.fail(f"slices {begin}:{end}:{step} do not fit input {x.shape}") from None


def split(call: Call) -> list[Array]:
    """SPLIT into equal parts; operand 0 is the axis."""
    axis, x, parts = _scalar(call, 0), call.x(1), len(call.op.outputs)
    if not -x.ndim <= axis < x.ndim or not parts or x.shape[axis] % parts:
        raise call.fail(f"shape {x.shape} does not split into {parts} along {axis}")
    call.claim(x.shape)
    return [np.ascontiguousarray(p) for p in np.split(x, parts, axis=axis)]


def split_v(call: Call) -> list[Array]:
    """SPLIT_V into parts of given extents (one may be -1)."""
    x, sizes, axis = call.x(0), call.constant(1).reshape(-1).tolist(), _scalar(call, 2)
    if not -x.ndim <= axis < x.ndim or len(sizes) != len(call.op.outputs):
        raise call.fail(f"sizes {sizes} along {axis} do not fit {x.shape}")
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
    if any(s < 0 for s in sizes) or sum(sizes) != x.shape[axis]:
        raise call.fail(f"sizes {sizes} along {axis} do not fit {x.shape}")
    call.claim(x.shape)
    return [np.ascontiguousarray(p) for p in np.split(x, np.cumsum(sizes)[:-1].tolist(), axis=axis)]


def pack(call: Call) -> Array:
    """PACK: stack tensors of one shape along a new axis."""
    parts = [call.x(i) for i in range(len(call.op.inputs))]
    axis = int(call.option("Axis"))
    if not parts or len({(p.shape, p.dtype) for p in parts}) > 1 or not -parts[0].ndim - 1 <= axis <= parts[0].ndim:
        raise call.fail("its inputs differ in shape or type, or the axis is none of theirs")
    call.claim((len(parts), *parts[0].shape))
    return np.stack(parts, axis=axis)


def unpack(call: Call) -> list[Array]:
    """UNPACK: the slices along an axis."""
    x, axis = call.x(0), int(call.option("Axis"))
    if not -x.ndim <= axis < x.ndim or x.shape[axis] != len(call.op.outputs):
        raise call.fail(f"shape {x.shape} does not unpack along {axis}")
    call.claim(x.shape)
    return [np.ascontiguousarray(np.take(x, i, axis=axis)) for i in range(x.shape[axis])]


def gather(call: Call) -> Array:
    """GATHER along an axis, without batch dimensions."""
    x, index, axis = call.x(0), call.x(1), int(call.option("Axis"))
    if call.option("BatchDims") or not -x.ndim <= axis < x.ndim or index.dtype.kind != "i":
        raise call.fail(f"axis {axis} of shape {x.shape}, or batch dimensions, which are not supported")
    if index.size and (index.min() < 0 or index.max() >= x.shape[axis]):
        raise call.fail(f"an index lies outside 0 .. {x.shape[axis] - 1}")
    axis %= x.ndim
    call.claim((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
    return np.take(x, index, axis=axis)


def depth_to_space(call: Call) -> Array:
    """DEPTH_TO_SPACE with the operator's block."""
    x, b = call.x(0), int(call.option("BlockSize"))
    if x.ndim != 4 or not 0 < b < 1 << 12 or x.shape[3] % (b * b):
        raise call.fail(f"block {b} does not fit {x.shape}")
    n, h, w, c = x.shape
    call.claim(x.shape)
    y = x.reshape(n, h, w, b, b, c // (b * b)).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h * b, w * b, c // (b * b))


def space_to_depth(call: Call) -> Array:
    """SPACE_TO_DEPTH with the operator's block."""
    x, b = call.x(0), int(call.option("BlockSize"))
    if x.ndim != 4 or not 0 < b < 1 << 12 or x.shape[1] % b or x.shape[2] % b:
        raise call.fail(f"block {b} does not fit {x.shape}")
    n, h, w, c = x.shape
    call.claim(x.shape)
    y = x.reshape(n, h // b, b, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h // b, w // b, b * b * c)
