"""SOFTMAX of quantised rows: gemmlowp fixed point (reference, TFLM) or a float32 table (optimised)."""

from __future__ import annotations

import math

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import Array, high_mul, quantize_multiplier, round_half_away, rounding_shift, wrap32
from hwsim.arithmetic.tflite_gemmlowp import exp_on_negative, one_over_one_plus

DIFF_BITS, SUM_BITS = 5, 12  # integer bits of the scaled difference and of the sum of exponentials


def softmax(call: Call) -> Array:
    """SOFTMAX over the last axis; the output scale is fixed by the kernels (1/256 or 1/65536)."""
    x, out = call.x(0), call.out()
    if not x.ndim or not x.shape[-1]:
        raise call.fail("needs at least one value a row")
    call.claim(x.shape, 8 * x.size)
    beta = np.float32(call.option("Beta", 1.0))
    rows = x.reshape(-1, x.shape[-1])
    if x.dtype == np.float32:
        shifted = np.exp(((rows - rows.max(axis=1, keepdims=True)) * beta).astype(np.float64)).astype(np.float32)
        return np.asarray((shifted / _running_sum(shifted)).astype(np.float32).reshape(x.shape))
    if x.dtype not in (np.int8, np.uint8) or out.dtype not in (x.dtype, np.int16):
        raise call.refuse_types("int8", "uint8", "int8 to int16", "fp32")
    run = _fixed if call.semantics.softmax == "fixed" else _table
    return run(call, rows, beta).astype(out.dtype).reshape(x.shape)


def _running_sum(values: Array) -> Array:
    """Sums along rows in order, in float32, as a plain loop makes them."""
    return np.cumsum(values, axis=1, dtype=np.float32)[:, -1:]


def _table(call: Call, rows: Array, beta: np.float32) -> Array:
    out = call.out()
    limits = np.iinfo(out.dtype)
    step = np.float32(-call.meta(0).scale * beta)
    table = np.exp((step * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)
    wide = rows.astype(np.int64)
    weight = table[wide.max(axis=1, keepdims=True) - wide]
    inverse = np.float32(1) / (_running_sum(weight) * out.scale)
    level = weight * inverse
    if out.dtype == np.uint8:  # this kernel truncates after adding a half and ignores the zero point
        return np.asarray(np.clip(np.trunc(level + np.float32(0.5)), limits.min, limits.max))
    return np.clip(round_half_away(level).astype(np.float64) + out.zero, limits.min, limits.max)


def _fixed(call: Call, rows: Array, beta: np.float32) -> Array:
    out = call.out()
    limits = np.iinfo(out.dtype)
    real = min(float(beta) * float(call.meta(0).scale) * 2.0 ** (31 - DIFF_BITS), 2.0**31 - 1)
    q, left = quantize_multiplier(real)
    if left < 0:
        raise call.fail("its input scale is too small for the fixed-point kernel")
    lowest = -math.floor(((1 << DIFF_BITS) - 1) * 2.0 ** (31 - DIFF_BITS) / 2.0**left)
    wide = rows.astype(np.int64)
    diff = wide - wide.max(axis=1, keepdims=True)
    counted = diff >= lowest
    scaled = high_mul(wrap32(np.where(counted, diff, 0) << left), q)
    exponential = exp_on_negative(scaled, DIFF_BITS)
    total = np.where(counted, rounding_shift(exponential, SUM_BITS), 0).sum(axis=1, keepdims=True)
    if np.any(total >= 1 << 31):
        raise call.fail("its rows are too long for the fixed-point kernel")
    headroom = 32 - np.frompyfunc(int.bit_length, 1, 1)(total.astype(object)).astype(np.int64)
    over_unit = SUM_BITS - headroom
    reciprocal = one_over_one_plus(wrap32((total << headroom) - (1 << 31)))
    shift = over_unit + 31 - 8 * out.dtype.itemsize
    if np.any((shift < 0) | (shift > 31)):
        raise call.fail("its rows are too long for the fixed-point kernel")
    level = rounding_shift(high_mul(reciprocal, exponential), shift) + limits.min
    return np.where(counted, np.clip(level, limits.min, limits.max), limits.min)
