"""Convolutions and fully connected layers: exact integer accumulators, requantised by the named rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import INT32_MAX, Array, Requantize, wrap32
from hwsim.arithmetic.tflite_gemm import EXACT32, ExactWeights
from hwsim.arithmetic.tflite_model import Tensor
from hwsim.network.tflite_file import TfOp

IM2COL_ELEMENTS = 1 << 22  # window elements unfolded at a time
MAX_CELLS = 1 << 17  # of one window; each is a pass over the output
SAME, VALID = 0, 1
INTEGERS = ("int8", "uint8", "int16")


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a window: output extent, stride, dilation, kernel, zeros before and after."""

    out: int
    stride: int
    dilation: int
    kernel: int
    before: int
    after: int


def axis(call: Call, size: int, kernel: int, stride: int, dilation: int = 1) -> Axis:
    """Extent and padding along one axis, by the file's padding rule."""
    span = (kernel - 1) * dilation + 1
    if stride < 1 or dilation < 1 or kernel < 1 or span > 1 << 24:
        raise call.fail(f"stride {stride}, dilation {dilation}, kernel {kernel} is no window")
    if call.option("Padding") == SAME:
        out = -(-size // stride)
        total = max((out - 1) * stride + span - size, 0)
        return Axis(out, stride, dilation, kernel, total // 2, total - total // 2)
    out = -(-(size - span + 1) // stride)
    if out < 1:
        raise call.fail(f"a window of {span} does not fit into {size}")
    return Axis(out, stride, dilation, kernel, 0, 0)


def windows(call: Call, shape: tuple[int, ...], kh: int, kw: int, dilated: bool = True) -> tuple[Axis, Axis]:
    """Both axes of a 2-D window over an NHWC shape, with the operator's strides and dilations.

    Refuses windows whose padded image or number of cells would cost more than any real layer.
    """
    n, h, w, c = shape
    dh = call.option("DilationHFactor", 1) if dilated else 1
    dw = call.option("DilationWFactor", 1) if dilated else 1
    rows = axis(call, h, kh, call.option("StrideH", 1), dh)
    columns = axis(call, w, kw, call.option("StrideW", 1), dw)
    if kh * kw > MAX_CELLS:
        raise call.fail(f"a window of {kh} x {kw} cells is too large (limit {MAX_CELLS})")
    call.claim((n, h + rows.before + rows.after, w + columns.before + columns.after, c))
    return rows, columns


def weight_scales(call: Call, weight: Tensor, channels: int, along: int) -> Array:
    """The scales (float32) of ``channels`` output channels, one or all; checks the quantisation array."""
    scales = weight.scales
    if scales.size == 1 or (scales.size == channels and weight.axis == along and not np.any(weight.zeros)):
        found = scales
    else:
        raise call.fail(
            f"{weight.where} has {scales.size} scales along axis {weight.axis}; "
            f"it needs one, or {channels} along axis {along} with zero points 0"
        )
    if not np.all(found > 0):
        raise call.fail(f"{weight.where} has a scale that is not positive")
    return found


def requantiser(call: Call, rule: str, weight: Tensor, scales: Array, dense: bool = False) -> Requantize:
    """Requantisation of a product of input and weight to the output, with the order of operations of each rule."""
    x, out = call.meta(0), call.out()
    low, high = call.clamp(out)
    # The product of scales is rounded to float32 first by XNNPACK, by every legacy uint8 kernel and by per-tensor
    # fully connected layers outside LiteRT's reference kernels.
    single = (x.dtype == np.uint8 and rule in ("D", "U")) or (dense and scales.size == 1 and rule in ("D", "U", "I64"))
    product = np.float32(x.scale) * scales.astype(np.float32)
    wide = product.astype(np.float64) if single else np.float64(x.scale) * scales.astype(np.float64)
    multiplier = wide / np.float64(out.scale)
    if not np.all(np.isfinite(multiplier)) or np.any(multiplier > 2.0**30):
        raise call.fail("the ratio of its scales is not a multiplier kernels can use")
    fp32 = (product / np.float32(out.scale)).astype(np.float32)
    return Requantize(rule, multiplier, out.zero, low, high, out.dtype, fp32)


def centred(x: Array, zero: int) -> tuple[int, int]:
    """(offset, bound): what to take from the stored values so that they are small, and their magnitude then."""
    return (128, 128) if x.dtype == np.uint8 else (0, 128 if x.dtype == np.int8 else 1 << 15)


def bias_of(call: Call, position: int, channels: int) -> Array:
    """The bias as int64, zeros if there is none."""
    if not call.has(position):
        return np.zeros(channels, dtype=np.int64)
    bias = call.x(position)
    if call.x(0).dtype == np.int16 and bias.dtype != np.int64:
        raise call.fail("16-bit activations with a 32-bit bias accumulate in other kernels, which are not modelled")
    if bias.dtype.kind != "i" or bias.size != channels:
        raise call.fail(f"a bias of {bias.size} values of {bias.dtype} for {channels} channels")
    return bias.reshape(-1).astype(np.int64)


def finish(call: Call, acc: Array, bias: Array, requantise: Requantize, wide: bool) -> Array:
    """Add the bias and requantise; 8-bit kernels accumulate modulo 2**32."""
    if not wide and acc.size:
        reach = int(max(abs(float(acc.max())), abs(float(acc.min()))) + np.abs(bias).max(initial=0))
        if reach > INT32_MAX:
            return requantise(wrap32(acc.astype(np.int64) + bias))
        if acc.dtype == np.float32 and reach < EXACT32:  # the sum is still exact in the product's own type
            return requantise(acc + bias.astype(np.float32))
    return requantise(acc.astype(np.int64 if wide else np.float64) + bias)


def _integer(call: Call, channels: int, along: int, rule: str) -> tuple[Tensor, Array, Array]:
    """Checks shared by the quantised kernels: weight record, scales, effective rule's weights as int64."""
    x, weight, out = call.meta(0), call.meta(1), call.out()
    if x.dtype.name not in INTEGERS or out.dtype != x.dtype or weight.dtype not in (np.int8, np.uint8):
        raise call.refuse_types("int8", "uint8", "int16 with int8 weights", "fp32")
    scales = weight_scales(call, weight, channels, along)
    values = call.x(1).astype(np.int64)
    return weight, scales, values - weight.zero if scales.size == 1 else values


def conv_2d(call: Call) -> Array:
    """CONV_2D: input NHWC, filter OHWI (grouped when the filter has fewer input channels), bias."""
    x, w = call.x(0), call.x(1)
    if x.ndim != 4 or w.ndim != 4 or not w.shape[3] or x.shape[3] % w.shape[3]:
        raise call.fail(f"filter {w.shape} does not fit input {x.shape}")
    groups, channels = x.shape[3] // w.shape[3], w.shape[0]
    if not groups or channels % groups:
        raise call.fail(f"{channels} output channels do not divide into {groups} groups")
    h, v = windows(call, x.shape, w.shape[1], w.shape[2])
    work = x.shape[0] * h.out * v.out * int(np.prod(w.shape))
    shape = call.claim((x.shape[0], h.out, v.out, channels), work)
    if x.dtype == np.float32:
        if w.dtype != np.float32:
            raise call.refuse_types("int8", "uint8", "int16 with int8 weights", "fp32")
        kernel = w.astype(np.float32).reshape(channels, -1)
        y = _unfold(x, h, v, 0.0, groups, [m.T for m in np.split(kernel, groups)], np.dtype(np.float32))
        bias = call.x(2) if call.has(2) else np.float32(0)
        return call.float_clamp((y.reshape(shape) + bias).astype(np.float32))
    wide = x.dtype == np.int16
    rule = "I64" if wide else call.semantics.convolution
    weight, scales, values = _integer(call, channels, 0, rule)
    offset, bound = centred(x, call.meta(0).zero)
    zero = call.meta(0).zero - offset
    key = ("conv", weight.index, bound)
    if key not in call.cache:
        matrices = [ExactWeights.of(m.T, bound) for m in np.split(values.reshape(channels, -1), groups)]
        call.cache[key] = matrices, zero * values.reshape(channels, -1).sum(axis=1)
    matrices, correction = call.cache[key]
    acc = _unfold(x, h, v, zero, groups, matrices, matrices[0].dtype, offset)
    bias = bias_of(call, 2, channels) - correction
    return finish(call, acc, bias, requantiser(call, rule, weight, scales), wide).reshape(shape)


def _unfold(
    x: Array, h: Axis, v: Axis, fill: float, groups: int, matrices: list[Any], dtype: np.dtype[Any], offset: int = 0
) -> Array:
    """Products of all windows with the groups' matrices, (pixels, channels)."""
    c = x.shape[3]
    x = x.astype(dtype)
    if offset:
        x -= offset
    if h.kernel == v.kernel == 1 and h.stride == v.stride == 1 and groups == 1:
        flat = x.reshape(-1, c)
        return np.asarray(matrices[0].product(flat) if isinstance(matrices[0], ExactWeights) else flat @ matrices[0])
    x = np.pad(x, ((0, 0), (h.before, h.after), (v.before, v.after), (0, 0)), constant_values=fill)
    taps, each = h.kernel * v.kernel, c // groups
    rows = max(1, IM2COL_ELEMENTS // max(1, taps * c * v.out))
    parts = []
    for image in x:
        for start in range(0, h.out, rows):
            stop = min(start + rows, h.out)
            patch = np.empty((stop - start, v.out, taps, c), dtype=x.dtype)
            for tap in range(taps):
                dy, dx = tap // v.kernel * h.dilation, tap % v.kernel * v.dilation
                top = start * h.stride + dy
                patch[:, :, tap] = image[
                    top : top + (stop - start - 1) * h.stride + 1 : h.stride,
                    dx : dx + (v.out - 1) * v.stride + 1 : v.stride,
                ]
            piece = []
            for g, matrix in enumerate(matrices):
                columns = patch[..., g * each : (g + 1) * each].reshape(-1, taps * each)
                piece.append(matrix.product(columns) if isinstance(matrix, ExactWeights) else columns @ matrix)
            parts.append(piece[0] if groups == 1 else np.concatenate(piece, axis=1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=0)


def depthwise_conv_2d(call: Call) -> Array:
    """DEPTHWISE_CONV_2D: input NHWC, filter 1HWC with C a multiple of the input's channels, bias."""
    x, w = call.x(0), call.x(1)
    if x.ndim != 4 or w.ndim != 4 or w.shape[0] != 1 or not x.shape[3] or w.shape[3] % x.shape[3]:
        raise call.fail(f"filter {w.shape} does not fit input {x.shape}")
    channels = w.shape[3]
    h, v = windows(call, x.shape, w.shape[1], w.shape[2])
    work = x.shape[0] * h.out * v.out * int(np.prod(w.shape))
    shape = call.claim((x.shape[0], h.out, v.out, channels), work)
    multiplier = channels // x.shape[3]
    if x.dtype == np.float32:
        if w.dtype != np.float32:
            raise call.refuse_types("int8", "uint8", "int16 with int8 weights", "fp32")
        y = _depthwise(x, w[0].astype(np.float32), h, v, 0.0, multiplier, np.dtype(np.float32), 0)
        bias = call.x(2) if call.has(2) else np.float32(0)
        return call.float_clamp((y + bias).astype(np.float32)).reshape(shape)
    wide = x.dtype == np.int16
    rule = "I64" if wide else call.semantics.convolution
    if rule == "U" and x.dtype == np.uint8:
        rule = "D"  # the legacy kernel's vectors round ties away from zero too
    weight, scales, values = _integer(call, channels, 3, rule)
    offset, bound = centred(x, call.meta(0).zero)
    zero = call.meta(0).zero - offset
    taps = values[0]
    reach = int(np.abs(taps).sum(axis=(0, 1)).max(initial=0)) * bound
    dtype = np.dtype(np.float32 if reach <= EXACT32 else np.float64)
    acc = _depthwise(x, taps, h, v, zero, multiplier, dtype, offset)
    bias = bias_of(call, 2, channels) - zero * taps.sum(axis=(0, 1))
    made = finish(call, acc, bias, requantiser(call, rule, weight, scales), wide).reshape(shape)
    rest = channels % 8
    if rule == "U" and rest:  # vectors of 8 channels; the rest runs in scalar code, by rule D
        tail = requantiser(call, "D", weight, scales)
        every = finish(call, acc, bias, tail, wide).reshape(shape)
        made[..., channels - rest :] = every[..., channels - rest :]
    return made


def _depthwise(
    x: Array, taps: Array, h: Axis, v: Axis, fill: float, multiplier: int, dtype: np.dtype[Any], offset: int
) -> Array:
    """Sums of taps, one multiply-add pass per tap over blocks of rows that stay in cache."""
    x = x.astype(dtype)
    if offset:
        x -= offset
    x = np.pad(x, ((0, 0), (h.before, h.after), (v.before, v.after), (0, 0)), constant_values=fill)
    if multiplier > 1:
        x = np.repeat(x, multiplier, axis=3)
    channels = x.shape[3]
    weights = taps.astype(dtype)
    out = np.zeros((x.shape[0], h.out, v.out, channels), dtype=dtype)
    rows = max(1, (1 << 15) // max(1, v.out * channels))
    for image, y in zip(x, out, strict=True):
        for start in range(0, h.out, rows):
            stop = min(start + rows, h.out)
            acc = y[start:stop]
            for ky in range(h.kernel):
                top = start * h.stride + ky * h.dilation
                band = image[top : top + (stop - start - 1) * h.stride + 1 : h.stride]
                for kx in range(v.kernel):
                    left = kx * v.dilation
                    acc += band[:, left : left + (v.out - 1) * v.stride + 1 : v.stride] * weights[ky, kx]
    return out


def fully_connected(call: Call) -> Array:
    """FULLY_CONNECTED: input flattened to rows of the filter's second extent, filter (out, in), bias."""
    x, w = call.x(0), call.x(1)
    if w.ndim != 2 or not w.shape[1] or x.size % w.shape[1] or call.option("WeightsFormat"):
        raise call.fail(f"filter {w.shape} does not fit input {x.shape}")
    units, depth = w.shape
    rows = x.size // depth
    keep = call.option("KeepNumDims") and x.ndim > 1 and x.shape[-1] == depth
    shape = call.claim((*x.shape[:-1], units) if keep else (rows, units), rows * units * depth)
    if x.dtype == np.float32:
        if w.dtype != np.float32:
            raise call.refuse_types("int8", "uint8", "int16 with int8 weights", "fp32")
        bias = call.x(2) if call.has(2) else np.float32(0)
        return call.float_clamp((x.reshape(rows, depth) @ w.T + bias).astype(np.float32)).reshape(shape)
    wide = x.dtype == np.int16
    rule = call.semantics.dense
    if wide:  # LiteRT's kernels for 16-bit activations all requantise in float64; TFLM's in integers
        rule = "I64" if call.semantics.name == "tflm" else "R64"
    weight, scales, values = _integer(call, units, 0, rule)
    offset, bound = centred(x, call.meta(0).zero)
    zero = call.meta(0).zero - offset
    key = ("dense", weight.index, bound)
    if key not in call.cache:
        call.cache[key] = ExactWeights.of(values.T, bound), zero * values.sum(axis=1)
    matrix, correction = call.cache[key]
    inputs = x.reshape(rows, depth).astype(matrix.dtype)
    if offset:
        inputs -= offset
    bias = bias_of(call, 2, units) - correction
    return finish(call, matrix.product(inputs), bias, requantiser(call, rule, weight, scales, True), wide).reshape(
        shape
    )


def transpose_conv(call: Call) -> Array:
    """TRANSPOSE_CONV: output shape, filter OHWI, input NHWC, bias; windows are scattered, then requantised once."""
    size, w, x = call.constant(0).reshape(-1), call.x(1), call.x(2)
    if x.ndim != 4 or w.ndim != 4 or size.size != 4 or x.shape[3] != w.shape[3]:
        raise call.fail(f"filter {w.shape} does not fit input {x.shape}")
    shape = call.claim(size.tolist(), x.shape[0] * x.shape[1] * x.shape[2] * int(np.prod(w.shape)))
    if (x.dtype != np.int8 and x.dtype != np.uint8) or w.dtype != x.dtype or shape[3] != w.shape[0]:
        raise call.refuse_types("int8", "uint8")
    h, v = windows(call, shape, w.shape[1], w.shape[2], dilated=False)
    if (h.out, v.out) != x.shape[1:3] or shape[0] != x.shape[0]:
        raise call.fail(f"output {shape} does not fit input {x.shape}")
    weight, channels, per_channel = call.meta(1), w.shape[0], x.dtype == np.int8
    scales = weight_scales(call, weight, channels, 0)
    values = w.astype(np.int64) - (weight.zero if scales.size == 1 else 0)
    data = x.astype(np.float64) - call.meta(2).zero
    acc = np.zeros(
        (shape[0], shape[1] + h.before + h.after + h.kernel, shape[2] + v.before + v.after + v.kernel, channels)
    )
    for ky in range(h.kernel):
        for kx in range(v.kernel):
            part = data @ values[:, ky, kx].T.astype(np.float64)
            acc[:, ky : ky + h.out * h.stride : h.stride, kx : kx + v.out * v.stride : v.stride] += part
    acc = acc[:, h.before : h.before + shape[1], v.before : v.before + shape[2]]
    bias = bias_of(call, 3, channels)
    scaled = Call(call.model, _front(call), call.semantics, call.values, call.state, call.budget)
    made = finish(call, acc, bias, requantiser(scaled, call.semantics.convolution, weight, scales), False)
    if call.semantics.convolution == "U":  # vectors of 8 channels (int8) or 16 values (uint8); the rest by rule D
        tail = finish(call, acc, bias, requantiser(scaled, "D", weight, scales), False)
        flat, rest = (channels, channels % 8) if per_channel else (made.size // len(made), made[0].size % 16)
        made.reshape(-1, flat)[:, flat - rest :] = tail.reshape(-1, flat)[:, flat - rest :]
    return made


def _front(call: Call) -> TfOp:
    """The operator with its data operand first, as `requantiser` expects."""
    return replace(call.op, inputs=(call.op.inputs[2], *call.op.inputs[1:2]))
