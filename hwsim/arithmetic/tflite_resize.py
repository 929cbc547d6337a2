"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR: three arithmetics of one interpolation."""

from __future__ import annotations

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import Array


def _size(call: Call, x: Array) -> tuple[int, int]:
    size = call.constant(1).reshape(-1)
    if x.ndim != 4 or size.size != 2 or np.any(size < 1) or 0 in x.shape:
        raise call.fail(f"cannot resize {x.shape} to {size.tolist()}")
    height, width = int(size[0]), int(size[1])
    call.claim((x.shape[0], height, width, x.shape[3]), 8 * x.shape[0] * height * width * x.shape[3])
    return height, width


def _float_axis(call: Call, size: int, out: int) -> tuple[Array, Array, Array]:
    """Float32 coordinate fraction and the two neighbours of every output position."""
    scale = np.float32(size) / np.float32(out)
    if call.option("AlignCorners") and out > 1:
        scale = np.float32(size - 1) / np.float32(out - 1)
    position = np.arange(out, dtype=np.float32)
    if call.option("HalfPixelCenters"):
        at = (position + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        at = position * scale
    low = np.maximum(np.floor(at), 0).astype(np.int64)
    high = np.minimum(np.ceil(at).astype(np.int64), size - 1)
    return (at - low.astype(np.float32)).astype(np.float32), low, high


def _integer_axis(call: Call, size: int, out: int) -> tuple[Array, Array, Array]:
    """The same in integers with 10 fraction bits; divisions truncate as in C."""
    scale = ((size << 10) + out // 2) // out
    if call.option("AlignCorners") and out > 1:
        scale = (((size - 1) << 10) + (out - 1) // 2) // (out - 1)
    at = np.arange(out, dtype=np.int64) * scale
    if call.option("HalfPixelCenters"):
        at += scale // 2 - (1 << 9)
    low = np.maximum(np.trunc(at / 1024).astype(np.int64), 0)
    high = np.minimum(np.trunc((at + 1023) / 1024).astype(np.int64), size - 1)
    return at - (low << 10), low, high


def resize_bilinear(call: Call) -> Array:
    """RESIZE_BILINEAR: int8 with 10-bit coordinates, uint8 and floats in float32 coordinates."""
    x = call.x(0)
    height, width = _size(call, x)
    if not call.same_quantisation(call.meta(0), call.out()) or x.dtype.name not in (
        "int8",
        "uint8",
        "int16",
        "float32",
    ):
        raise call.refuse_types("int8, uint8, int16 of one scale in and out", "fp32")
    if call.semantics.resize == "xnnpack" and x.dtype.name in ("int8", "uint8"):
        return _resize_xnnpack(call, x, height, width)
    if x.dtype.name in ("int8", "int16"):
        return _resize_integer(call, x, height, width)
    fy, y0, y1 = _float_axis(call, x.shape[1], height)
    fx, x0, x1 = _float_axis(call, x.shape[2], width)
    fx = fx[:, None]
    out = np.empty((x.shape[0], height, width, x.shape[3]), dtype=x.dtype)
    half = np.float32(0.5 if x.dtype == np.uint8 else 0.0)
    merged = call.semantics.resize != "reference"  # the optimised kernel multiplies the two weights first
    one = np.float32(1)
    for i in range(height):
        top, bottom = x[:, y0[i]].astype(np.float32), x[:, y1[i]].astype(np.float32)
        v = fy[i]
        a, b, c, d = top[:, x0], top[:, x1], bottom[:, x0], bottom[:, x1]
        if merged:
            row = a * ((one - v) * (one - fx)) + b * ((one - v) * fx) + c * (v * (one - fx)) + d * (v * fx) + half
        else:
            row = a * (one - v) * (one - fx) + c * v * (one - fx) + b * (one - v) * fx + d * v * fx + half
        out[:, i] = row.astype(x.dtype)
    return out


def _resize_integer(call: Call, x: Array, height: int, width: int) -> Array:
    fy, y0, y1 = _integer_axis(call, x.shape[1], height)
    fx, x0, x1 = _integer_axis(call, x.shape[2], width)
    fx = fx[:, None]
    out = np.empty((x.shape[0], height, width, x.shape[3]), dtype=x.dtype)
    for i in range(height):
        top, bottom = x[:, y0[i]].astype(np.int64), x[:, y1[i]].astype(np.int64)
        upper = top[:, x0] * (1024 - fx) + top[:, x1] * fx
        lower = bottom[:, x0] * (1024 - fx) + bottom[:, x1] * fx
        acc = upper * (1024 - fy[i]) + lower * fy[i]
        magnitude = (np.abs(acc) + (1 << 19)) >> 20
        out[:, i] = np.where(acc > 0, magnitude, -magnitude)
    return out


def _xnnpack_axis(call: Call, size: int, out: int) -> tuple[Array, Array, Array]:
    """XNNPACK's coordinates: float32, clamped to the image, the fraction rounded to 11 bits."""
    align = bool(call.option("AlignCorners")) and out != 1
    scale = np.float32(size - align) / np.float32(out - align)
    at = np.arange(out, dtype=np.float32) * scale
    if call.option("HalfPixelCenters"):
        at = np.maximum(at + (np.float32(0.5) * scale - np.float32(0.5)), np.float32(0))
    at = np.minimum(at, np.float32(size - 1))
    low = at.astype(np.int64)
    fraction = np.rint((at - low.astype(np.float32)) * np.float32(2048)).astype(np.int64)
    return fraction, low, np.minimum(low + 1, size - 1)


def _resize_xnnpack(call: Call, x: Array, height: int, width: int) -> Array:
    fy, y0, y1 = _xnnpack_axis(call, x.shape[1], height)
    fx, x0, x1 = _xnnpack_axis(call, x.shape[2], width)
    fx = fx[:, None]
    out = np.empty((x.shape[0], height, width, x.shape[3]), dtype=x.dtype)
    for i in range(height):
        top, bottom = x[:, y0[i]].astype(np.int64), x[:, y1[i]].astype(np.int64)
        upper = (top[:, x0] << 11) + (top[:, x1] - top[:, x0]) * fx
        lower = (bottom[:, x0] << 11) + (bottom[:, x1] - bottom[:, x0]) * fx
        out[:, i] = ((upper << 11) + (lower - upper) * fy[i] + (1 << 21)) >> 22
    return out


def resize_nearest(call: Call) -> Array:
    """RESIZE_NEAREST_NEIGHBOR in float32 coordinates."""
    x = call.x(0)
    height, width = _size(call, x)
    rows, columns = _nearest(call, x.shape[1], height), _nearest(call, x.shape[2], width)
    return np.ascontiguousarray(x[:, rows][:, :, columns])


def _nearest(call: Call, size: int, out: int) -> Array:
    align = bool(call.option("AlignCorners"))
    scale = np.float32(size - 1) / np.float32(out - 1) if align and out > 1 else np.float32(size) / np.float32(out)
    offset = np.float32(0.5) if call.option("HalfPixelCenters") else np.float32(0)
    at = (np.arange(out, dtype=np.float32) + offset) * scale
    nearest = np.floor(at + np.float32(0.5)) if align else np.floor(at)
    found = np.minimum(nearest.astype(np.int64), size - 1)
    return np.asarray(np.maximum(found, 0) if call.option("HalfPixelCenters") else found)
