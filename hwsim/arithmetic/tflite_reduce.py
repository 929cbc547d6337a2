"""Pooling and reductions: integer sums with the division each kernel uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_contract import Axis, windows
from hwsim.arithmetic.tflite_fixed import (
    Array,
    Requantize,
    multiply_d,
    multiply_u,
    quantize_multiplier,
    round_half_away,
)

EIGHT = ("int8", "uint8")


def _pool_axes(call: Call, x: Array) -> tuple[Axis, Axis]:
    if x.ndim != 4:
        raise call.fail(f"needs an image, not shape {x.shape}")
    h, v = windows(call, x.shape, call.option("FilterHeight"), call.option("FilterWidth"), dilated=False)
    call.claim((x.shape[0], h.out, v.out, x.shape[3]), x.shape[0] * h.out * v.out * x.shape[3] * h.kernel * v.kernel)
    return h, v


def _taps(x: Array, h: Axis, v: Axis, fill: Any) -> Any:
    """The strided views of a padded image under each window position."""
    padded = np.pad(x, ((0, 0), (h.before, h.after), (v.before, v.after), (0, 0)), constant_values=fill)
    for ky in range(h.kernel):
        for kx in range(v.kernel):
            yield padded[
                :, ky : ky + (h.out - 1) * h.stride + 1 : h.stride, kx : kx + (v.out - 1) * v.stride + 1 : v.stride
            ]


def _valid(a: Axis, size: int) -> Array:
    """Cells of the window inside the image, by output position."""
    start = np.arange(a.out) * a.stride - a.before
    return np.minimum(start + a.kernel, size) - np.maximum(start, 0)


def average_pool(call: Call) -> Array:
    """AVERAGE_POOL_2D: sum of the cells inside the image, divided by their count, half away from zero."""
    x, out = call.x(0), call.out()
    h, v = _pool_axes(call, x)
    count = (_valid(h, x.shape[1])[:, None] * _valid(v, x.shape[2])[None, :])[None, :, :, None]
    if np.any(count <= 0):
        raise call.fail("a window lies outside the image")
    if x.dtype == np.float32:
        total = np.zeros((x.shape[0], h.out, v.out, x.shape[3]), dtype=np.float32)
        for tap in _taps(x, h, v, np.float32(0)):
            total += tap
        return call.float_clamp(total / count.astype(np.float32))
    if x.dtype.name not in (*EIGHT, "int16") or not call.same_quantisation(call.meta(0), out):
        raise call.refuse_types("int8, uint8, int16 of one scale in and out", "fp32")
    acc = np.zeros((x.shape[0], h.out, v.out, x.shape[3]), dtype=np.int64)
    for tap in _taps(x, h, v, 0):
        acc += tap
    low, high = call.clamp(out)
    magnitude = (np.abs(acc) + count // 2) // count
    return np.asarray(np.clip(np.where(acc > 0, magnitude, -magnitude), low, high).astype(x.dtype))


def max_pool(call: Call) -> Array:
    """MAX_POOL_2D over the cells inside the image."""
    x, out = call.x(0), call.out()
    h, v = _pool_axes(call, x)
    if x.dtype == np.float32:
        fill: Any = np.float32(-np.inf)
    elif x.dtype.name in (*EIGHT, "int16") and call.same_quantisation(call.meta(0), out):
        fill = np.iinfo(x.dtype).min
    else:
        raise call.refuse_types("int8, uint8, int16 of one scale in and out", "fp32")
    best = None
    for tap in _taps(x, h, v, fill):
        best = tap.copy() if best is None else np.maximum(best, tap, out=best)
    assert best is not None
    if x.dtype == np.float32:
        return call.float_clamp(best)
    low, high = call.clamp(out)
    return np.asarray(np.clip(best, low, high).astype(x.dtype))


def axes_of(call: Call, x: Array) -> tuple[int, ...]:
    """The reduced axes, resolved and without repeats."""
    found = []
    for a in call.constant(1).reshape(-1).tolist():
        if not -x.ndim <= a < x.ndim:
            raise call.fail(f"axis {a} of {x.ndim}")
        found.append(a % x.ndim)
    return tuple(sorted(set(found)))


def mean(call: Call) -> Array:
    """MEAN: the reference rule, or the kernel's own for means over height and width."""
    return _mean_or_sum(call, average=True)


def total(call: Call) -> Array:
    """SUM, requantised by the reference rule."""
    return _mean_or_sum(call, average=False)


def _mean_or_sum(call: Call, average: bool) -> Array:
    x, out, meta = call.x(0), call.out(), call.meta(0)
    axes, keep = axes_of(call, x), bool(call.option("KeepDims"))
    call.claim(x.shape)
    if x.dtype == np.float32:
        acc = x.sum(axis=axes, keepdims=keep, dtype=np.float64)
        count = int(np.prod([x.shape[a] for a in axes]))
        return np.asarray((acc / count if average else acc).astype(np.float32))
    if x.dtype.name not in (*EIGHT, "int16") or out.dtype != x.dtype:
        raise call.refuse_types("int8", "uint8", "int16", "fp32")
    if not average and call.semantics.name == "tflite-reference" and x.dtype != np.uint8:
        # LiteRT 2.3.0 reads these bytes as unsigned; that is a defect of the kernel, not a rule to reproduce.
        raise call.fail("the reference SUM kernel reads signed values as unsigned; choose another semantics")
    limits = np.iinfo(x.dtype)
    count = int(np.prod([x.shape[a] for a in axes]))
    if not count:
        raise call.fail("a mean over nothing")
    acc = np.asarray(x.sum(axis=axes, keepdims=keep, dtype=np.int64))
    spatial = x.ndim == 4 and axes == (1, 2)
    rule = call.semantics.mean if average else "D"
    if rule == "F" and average and x.dtype != np.int16:
        # The order of these two divisions is XNNPACK's: scale ratio first, then the count.
        scale = np.float32(np.float32(meta.scale / out.scale) / np.float32(count))
        requantise = Requantize("F", np.array([float(scale)]), out.zero, int(limits.min), int(limits.max), x.dtype)
        return requantise(acc - count * meta.zero)
    if rule == "U" and spatial and keep and x.dtype != np.int16:
        offset = np.float32(np.float32(meta.zero) * meta.scale) / out.scale
        bias = out.zero - int(offset + np.float32(0.5 if offset > 0 else -0.5))
        real = float(meta.scale / (np.float32(count) * out.scale))
        pair, channels = quantize_multiplier(real), acc.shape[-1]
        body = channels - channels % 16 if x.dtype == np.int8 else channels  # the rest runs in scalar code
        scaled = multiply_u(acc, *pair)
        scaled[..., body:] = multiply_d(acc[..., body:], *pair)
        return np.asarray(np.clip(scaled + bias, limits.min, limits.max).astype(x.dtype))
    if not average and call.semantics.name in ("tflite-optimized", "xnnpack"):
        ratio = np.float32(meta.scale / out.scale)
        offset = np.float32(np.float32(-meta.zero) * ratio) * np.float32(count)
        level = round_half_away(acc.astype(np.float32) * ratio + offset).astype(np.int64) + out.zero
        return np.asarray(np.clip(level, limits.min, limits.max).astype(x.dtype))
    q, shift = quantize_multiplier(float(meta.scale) / float(out.scale))
    if average:
        k = min(count.bit_length() - 1, 32, 31 + shift)
        q, shift = (q << k) // count, shift - k
    scaled = multiply_d(acc - count * meta.zero, q, shift) + out.zero
    return np.asarray(np.clip(scaled, limits.min, limits.max).astype(x.dtype))


def extreme(function: Any) -> Callable[[Call], Array]:
    """REDUCE_MAX and REDUCE_MIN of values of one scale."""

    def run(call: Call) -> Array:
        x = call.x(0)
        axes = axes_of(call, x)
        call.claim(x.shape)
        if not call.same_quantisation(call.meta(0), call.out()) or not x.size:
            raise call.fail("needs values, and one scale in and out")
        return np.asarray(function(x, axis=axes, keepdims=bool(call.option("KeepDims"))))

    return run


def arg(function: Any) -> Callable[[Call], Array]:
    """ARG_MAX and ARG_MIN: the first extreme along an axis, as int32 or int64."""

    def run(call: Call) -> Array:
        x, out = call.x(0), call.out()
        axis = int(call.constant(1).reshape(-1)[0]) if call.constant(1).size == 1 else x.ndim
        if not -x.ndim <= axis < x.ndim or out.dtype not in (np.int32, np.int64) or not x.size:
            raise call.fail(f"axis {axis} of shape {x.shape}")
        call.claim(x.shape)
        return np.asarray(function(x, axis=axis)).astype(out.dtype)

    return run
