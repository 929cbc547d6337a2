"""Element by element: sums and products of two scales, conversions between scales, tabulated activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import (
    BLOCK,
    Array,
    Requantize,
    high_mul,
    multiply_d,
    multiply_u,
    quantize_multiplier,
    round_half_away,
)
from hwsim.arithmetic.tflite_model import Tensor

EIGHT = (np.dtype(np.int8), np.dtype(np.uint8))


def _blocks(function: Callable[..., Array], out: Array, *inputs: Array) -> Array:
    """Apply ``function`` to flat blocks of the inputs, so that its temporaries stay in cache."""
    flat, parts = out.reshape(-1), [x.reshape(-1) for x in inputs]
    for start in range(0, flat.size, BLOCK):
        flat[start : start + BLOCK] = function(*(p[start : start + BLOCK] for p in parts))
    return out


def _pair(call: Call) -> tuple[Array, Array]:
    a, b = call.x(0), call.x(1)
    try:
        call.claim(np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise call.fail(f"shapes {a.shape} and {b.shape} do not broadcast") from None
    left, right = np.broadcast_arrays(a, b)
    return left, right


def add(call: Call) -> Array:
    """ADD of two scales."""
    return _sum(call, 1)


def sub(call: Call) -> Array:
    """SUB of two scales."""
    return _sum(call, -1)


def _sum(call: Call, sign: int) -> Array:
    a, b = _pair(call)
    out = call.out()
    if a.dtype == b.dtype == out.dtype and a.dtype in (np.float32, np.int32, np.int64):
        with np.errstate(over="ignore"):
            y = a + b if sign > 0 else a - b
        return call.float_clamp(y) if a.dtype == np.float32 else y
    if a.dtype not in EIGHT or b.dtype != a.dtype or out.dtype != a.dtype:
        raise call.refuse_types("int8", "uint8", "fp32", "int32", "int64")
    ma, mb = call.meta(0), call.meta(1)
    low, high = call.clamp(out)
    y = np.empty(a.shape, dtype=out.dtype)
    row, scalar = _row(call.x(0).shape, call.x(1).shape)
    lanes = 16 if a.dtype == np.int8 and not scalar else 8
    if call.semantics.addition == "xnnpack":
        return _sum_xnnpack(call, sign, y, a, b, ma, mb, low, high)
    twice = 2.0 * max(float(ma.scale), float(mb.scale))
    qa, qb = quantize_multiplier(float(ma.scale) / twice), quantize_multiplier(float(mb.scale) / twice)
    qo = quantize_multiplier(twice / ((1 << 20) * float(out.scale)))

    def exact(x: Array, zero: int, pair: tuple[int, int]) -> Array:
        return multiply_d((x.astype(np.int64) - zero) << 20, *pair)

    def vector(x: Array, zero: int, pair: tuple[int, int]) -> Array:
        """The optimised ADD drops bits after the product; rows of int8 shift once before it instead."""
        value = x.astype(np.int64) - zero
        if lanes == 16 and 20 + pair[1] >= 0:
            return high_mul(value << (20 + pair[1]), pair[0] + np.zeros((), dtype=np.int64))
        return high_mul(value << 20, pair[0] + np.zeros((), dtype=np.int64)) >> -pair[1]

    def block(u: Array, v: Array, scale: Callable[..., Array] = exact) -> Array:
        left, right = scale(u, ma.zero, qa), scale(v, mb.zero, qb)
        return np.asarray(np.clip(multiply_d(left + sign * right, *qo) + out.zero, low, high))

    if call.semantics.addition != "U" or sign < 0:
        return _blocks(block, y, a, b)
    body = row - row % lanes
    rows_y, rows_a, rows_b = (m.reshape(-1, row) for m in (y, a, b))
    if body:
        made = np.empty((len(rows_y), body), dtype=y.dtype)
        flat = [np.ascontiguousarray(m[:, :body]) for m in (rows_a, rows_b)]
        rows_y[:, :body] = _blocks(lambda u, v: block(u, v, vector), made, *flat)
    if body < row:
        rows_y[:, body:] = block(rows_a[:, body:], rows_b[:, body:])
    return y


def _row(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, bool]:
    """Elements the optimised ADD takes in one pass, and whether one operand is a single value there.

    A pass is everything, or the innermost axes both share, or those along which one operand is repeated.
    """
    rank = max(len(a), len(b))
    one, two = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if one == two:
        return max(1, math.prod(one)), False
    row, scalar = 1, min(one[-1], two[-1]) == 1 != max(one[-1], two[-1])
    for left, right in zip(reversed(one), reversed(two), strict=True):
        if (min(left, right) != 1) if scalar else (left != right):
            break
        row *= max(left, right)
    return max(1, row), scalar


def _sum_xnnpack(
    call: Call, sign: int, y: Array, a: Array, b: Array, ma: Tensor, mb: Tensor, low: int, high: int
) -> Array:
    """XNNPACK's addition: both ratios to the output scale in one fixed-point format, one shift."""
    out = call.out()
    ra, rb = np.float32(ma.scale / out.scale), np.float32(mb.scale / out.scale)
    if not 2.0**-10 <= max(ra, rb) < 2.0**8:
        raise call.fail("XNNPACK refuses this ratio of scales; choose another semantics")
    shift = 20 - (math.frexp(float(max(ra, rb)))[1] - 1)
    qa, qb = int(np.rint(float(ra) * 2.0**shift)), sign * int(np.rint(float(rb) * 2.0**shift))
    bias = (1 << (shift - 1)) - ma.zero * qa - mb.zero * qb

    def block(u: Array, v: Array) -> Array:
        acc = u.astype(np.int64) * qa + v.astype(np.int64) * qb + bias
        return np.asarray(np.clip((acc >> shift) + out.zero, low, high))

    return _blocks(block, y, a, b)


def mul(call: Call) -> Array:
    """MUL of two scales."""
    a, b = _pair(call)
    out = call.out()
    if a.dtype == b.dtype == out.dtype and a.dtype in (np.float32, np.int32, np.int64):
        with np.errstate(over="ignore"):
            y = a * b
        return call.float_clamp(y) if a.dtype == np.float32 else y
    if a.dtype not in EIGHT or b.dtype != a.dtype or out.dtype != a.dtype:
        raise call.refuse_types("int8", "uint8", "fp32", "int32", "int64")
    ma, mb = call.meta(0), call.meta(1)
    low, high = call.clamp(out)
    wide = np.array([float(ma.scale) * float(mb.scale) / float(out.scale)])
    fp32 = np.array([np.float32(ma.scale * mb.scale) / out.scale], dtype=np.float32)
    requantise = Requantize(call.semantics.product, wide, out.zero, low, high, out.dtype, fp32)
    y = np.empty(a.shape, dtype=out.dtype)
    return _blocks(
        lambda u, v: requantise(((u.astype(np.int32) - ma.zero) * (v.astype(np.int32) - mb.zero))[:, None])[:, 0],
        y,
        a,
        b,
    )


def quantize(call: Call) -> Array:
    """QUANTIZE: from float, or from one integer scale to another."""
    x, out = call.x(0), call.out()
    if out.dtype.kind not in "iu" or not out.quantised or out.scales.size != 1:
        raise call.refuse_types("fp32 and integers to per-tensor integers")
    limits = np.iinfo(out.dtype)
    if x.dtype == np.float32:
        return _from_float(call, x, int(limits.min), int(limits.max))
    if x.dtype.name not in ("int8", "uint8", "int16", "int32"):
        raise call.refuse_types("fp32", "int8", "uint8", "int16", "int32")
    source = call.meta(0)
    y = np.empty(call.claim(x.shape), dtype=out.dtype)
    if call.semantics.rescale == "xnnpack" and x.dtype == out.dtype and x.dtype in EIGHT:
        m = int(np.rint(256 * (source.scale / out.scale)))
        return _blocks(
            lambda u: np.clip((((u.astype(np.int64) - source.zero) * m + 128) >> 8) + out.zero, limits.min, limits.max),
            y,
            x,
        )
    pair = quantize_multiplier(float(source.scale) / float(out.scale))
    # Outside XNNPACK's own conversions the optimised kernels take over, in vectors of 16 with a scalar rest.
    vectors = call.semantics.rescale != "D" and x.dtype in EIGHT and out.dtype in EIGHT

    def rescaled(multiply: Callable[..., Array]) -> Callable[[Array], Array]:
        return lambda u: np.clip(multiply(u.astype(np.int64) - source.zero, *pair) + out.zero, limits.min, limits.max)

    body = x.size - x.size % 16 if vectors else 0
    flat, made = x.reshape(-1), y.reshape(-1)
    _blocks(rescaled(multiply_u), made[:body], flat[:body])
    _blocks(rescaled(multiply_d), made[body:], flat[body:])
    return y


def _from_float(call: Call, x: Array, low: int, high: int) -> Array:
    out = call.out()
    call.claim(x.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        if call.semantics.quantise == "away":
            level = round_half_away(x / out.scale)
        else:
            level = np.rint(x * (np.float32(1) / out.scale))
    level = np.nan_to_num(level.astype(np.float64), nan=0.0, posinf=2.0**31 - 1, neginf=-(2.0**31))
    return np.asarray(np.clip(level + out.zero, low, high).astype(out.dtype))


def dequantize(call: Call) -> Array:
    """DEQUANTIZE: ``float32(scale * (q - zero))``, per tensor or per channel; float16 widened."""
    x, meta = call.x(0), call.meta(0)
    call.claim(x.shape)
    if x.dtype == np.float16:
        return x.astype(np.float32)
    if x.dtype.kind not in "iu" or call.out().dtype != np.float32:
        raise call.refuse_types("int8", "uint8", "int16", "int32", "fp16")
    if meta.scales.size > 1:
        shape = [1] * x.ndim
        if not 0 <= meta.axis < x.ndim or x.shape[meta.axis] != meta.scales.size:
            raise call.fail(f"{meta.where} has {meta.scales.size} scales for shape {x.shape}")
        shape[meta.axis] = -1
        zeros = meta.zeros if meta.zeros.size == meta.scales.size else np.zeros(meta.scales.size, dtype=np.int64)
        return np.asarray(
            ((x - zeros.reshape(shape)).astype(np.float32) * meta.scales.reshape(shape)).astype(np.float32)
        )
    made = (x.astype(np.int64) - meta.zero).astype(np.float32) * meta.scale
    if call.semantics.name == "tflite-optimized" and x.dtype.name in ("int8", "uint8", "int16"):
        # Vectors of 8 multiply first and subtract the scaled zero point, with one more rounding.
        body = x.size - x.size % 8
        offset = np.float32(-meta.zero * float(meta.scale))
        made.reshape(-1)[:body] = x.reshape(-1)[:body].astype(np.float32) * meta.scale + offset
    return np.asarray(made)


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation of one value: its exact function; 8-bit kernels tabulate it over the 256 inputs."""

    function: Callable[[Array], Array]

    def __call__(self, call: Call) -> Array:
        x, out = call.x(0), call.out()
        call.claim(x.shape)
        if x.dtype == np.float32:
            return self.function(x.astype(np.float64)).astype(np.float32)
        if x.dtype not in EIGHT or out.dtype != x.dtype:
            raise call.refuse_types("int8", "uint8", "fp32")
        return lookup(call, x, self.function)


def lookup(call: Call, x: Array, function: Callable[[Array], Array]) -> Array:
    """Tabulate ``function`` in float32 over every input value, then look up."""
    meta, out = call.meta(0), call.out()
    limits = np.iinfo(x.dtype)
    levels = np.arange(int(limits.min), int(limits.max) + 1)
    real = (levels - meta.zero).astype(np.float32) * meta.scale
    exact = function(real.astype(np.float64)).astype(np.float32)
    table = round_half_away(exact * (np.float32(1) / out.scale)) + np.float32(out.zero)
    codes = np.clip(table, limits.min, limits.max).astype(x.dtype)
    return codes[x.astype(np.int64) - int(limits.min)]


def _sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) with the intermediate results rounded to float32, as the kernels compute it."""
    with np.errstate(over="ignore"):
        decay = np.exp(-x).astype(np.float32)
        return np.asarray(np.float32(1) / (np.float32(1) + decay))


logistic = Activation(_sigmoid)
tanh = Activation(np.tanh)


def relu(low: float, high: float) -> Callable[[Call], Array]:
    """RELU, RELU6, RELU_N1_TO_1 as operators of their own: rescale, then clamp."""

    def run(call: Call) -> Array:
        x, out = call.x(0), call.out()
        call.claim(x.shape)
        if x.dtype == np.float32:
            return np.clip(x, np.float32(low), np.float32(high))
        if x.dtype.name not in ("int8", "uint8", "int16") or out.dtype != x.dtype:
            raise call.refuse_types("int8", "uint8", "int16", "fp32")
        meta, limits = call.meta(0), np.iinfo(out.dtype)

        def level(value: float) -> int:
            return out.zero + int(round_half_away(np.asarray(np.float32(value) / out.scale)))

        if (
            call.semantics.name == "tflm" and high == 6.0
        ):  # TFLM's RELU6 clamps in the input's scale and rescales nothing
            six = meta.zero + int(round_half_away(np.asarray(np.float32(6) / meta.scale)))
            return np.clip(x, meta.zero, min(int(limits.max), six)).astype(out.dtype)
        bottom = max(int(limits.min), level(low))
        top = int(limits.max) if math.isinf(high) else min(int(limits.max), level(high))
        pair = quantize_multiplier(float(np.float32(meta.scale / out.scale)))
        y = np.empty(x.shape, dtype=out.dtype)
        return _blocks(
            lambda u: np.clip(multiply_d(u.astype(np.int64) - meta.zero, *pair) + out.zero, bottom, top), y, x
        )

    return run


def leaky_relu(call: Call) -> Array:
    """LEAKY_RELU: two multipliers, one for each sign."""
    x, out, meta = call.x(0), call.out(), call.meta(0)
    call.claim(x.shape)
    alpha = np.float32(call.option("Alpha", 0.0))
    if x.dtype == np.float32:
        return np.where(x > 0, x, x * alpha).astype(np.float32)
    if x.dtype not in EIGHT or out.dtype != x.dtype:
        raise call.refuse_types("int8", "uint8", "fp32")
    if call.semantics.addition == "xnnpack":
        return _leaky_xnnpack(call, x, alpha)
    slope = quantize_multiplier(float(np.float32(np.float32(meta.scale * alpha) / out.scale)))
    same = quantize_multiplier(float(np.float32(meta.scale / out.scale)))
    limits = np.iinfo(out.dtype)

    def block(u: Array) -> Array:
        value = u.astype(np.int64) - meta.zero
        scaled = np.where(value >= 0, multiply_d(value, *same), multiply_d(value, *slope))
        return np.asarray(np.clip(scaled + out.zero, limits.min, limits.max))

    return _blocks(block, np.empty(x.shape, dtype=out.dtype), x)


def _leaky_xnnpack(call: Call, x: Array, alpha: np.float32) -> Array:
    """XNNPACK's LEAKY_RELU: multipliers with 8 fraction bits."""
    out, meta, limits = call.out(), call.meta(0), np.iinfo(x.dtype)
    ratio = np.float32(meta.scale / out.scale)
    up, down = int(np.rint(np.float32(256) * ratio)), int(np.rint(np.float32(256) * np.float32(ratio * alpha)))

    def block(u: Array) -> Array:
        value = u.astype(np.int64) - meta.zero
        scaled = (value * np.where(value >= 0, up, down) + 128) >> 8
        return np.asarray(np.clip(scaled + out.zero, limits.min, limits.max))

    return _blocks(block, np.empty(x.shape, dtype=x.dtype), x)


def extremum(function: Any) -> Callable[[Call], Array]:
    """MAXIMUM and MINIMUM of two tensors of one scale."""

    def run(call: Call) -> Array:
        a, b = _pair(call)
        if a.dtype != b.dtype or not call.same_quantisation(call.meta(0), call.meta(1)):
            raise call.fail("needs operands of one type and scale")
        return np.asarray(function(a, b))

    return run
