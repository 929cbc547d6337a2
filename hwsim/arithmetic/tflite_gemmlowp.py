"""Fixed-point exp, tanh and logistic as the integer kernels compute them: Q-format polynomials and Newton division.

Values are int64 arrays holding ``bits``-bit raw numbers; ``integer_bits`` m means the format Qm.(bits - 1 - m). Source:
gemmlowp ``fixedpoint/fixedpoint.h`` (constants and order of operations), restated; the interpolated 16-bit functions
follow LiteRT ``reference/integer_ops/logistic.h`` and ``tanh.h``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hwsim.arithmetic.tflite_fixed import Array, high_mul, rounding_shift, wrap32

# exp(-2**e) in Q0.31 for e = -2 .. 4.
EXP_STEPS = ((-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242))
EXP_EIGHTH, THIRD = 1895147668, 715827883  # exp(-1/8) and 1/3, Q0.31
NEWTON_START, NEWTON_SLOPE = 1515870810, -1010580540  # 48/17 and -32/17, Q2.29


def _wrap(x: Array, bits: int) -> Array:
    return wrap32(x) if bits == 32 else np.asarray(((x + 2**15) & 0xFFFF) - 2**15)


def _constant(raw32: int, bits: int) -> int:
    return raw32 if bits == 32 else (raw32 + (1 << 15) - (raw32 < 0)) >> 16  # ties away from zero


def _rescale(x: Array, exponent: int, bits: int) -> Array:
    """Multiply by ``2**exponent``: rounding down the scale, saturating up it."""
    if exponent <= 0:
        return rounding_shift(x, -exponent)
    limit = (1 << (bits - 1 - exponent)) - 1
    top = 1 << (bits - 1)
    return np.where(x > limit, top - 1, np.where(x < -limit, -top, x << exponent))


def _exp_quarter(a: Array, bits: int) -> Array:
    """exp(a) for a in [-1/4, 0), Q0: the Taylor polynomial around -1/8."""
    term, third = _constant(EXP_EIGHTH, bits), _constant(THIRD, bits)
    x = _wrap(a + (1 << (bits - 1 - 3)), bits)
    x2 = high_mul(x, x, bits)
    x3, x4 = high_mul(x2, x, bits), high_mul(x2, x2, bits)
    tail = high_mul(_wrap(rounding_shift(x4, 2) + x3, bits), third, bits) + x2
    total = term + high_mul(_wrap(x + rounding_shift(_wrap(tail, bits), 1), bits), term, bits)
    return np.clip(total, -(2**15), 2**15 - 1) if bits == 16 else _wrap(total, bits)


def exp_on_negative(a: Array, integer_bits: int, bits: int = 32) -> Array:
    """exp(a) in Q0 for raw a <= 0 in Qm."""
    fraction = bits - 1 - integer_bits
    a = np.asarray(a, dtype=np.int64)
    quarter = 1 << (fraction - 2)
    low = (a & (quarter - 1)) - quarter
    result = _exp_quarter(_rescale(low, integer_bits, bits), bits)
    remainder = _wrap(low - a, bits)
    for exponent, constant in EXP_STEPS:
        if integer_bits > exponent:
            bit = (remainder >> (fraction + exponent)) & 1
            result = np.where(bit != 0, high_mul(result, _constant(constant, bits), bits), result)
    if integer_bits > 5:
        result = np.where(a < -(1 << (bits + 4 - integer_bits)), 0, result)
    return np.where(a == 0, (1 << (bits - 1)) - 1, result)


def _newton(a: Array, bits: int) -> Array:
    """2 / (1 + a) in Q2 for a in (0, 1), Q0."""
    one0, one2 = (1 << (bits - 1)) - 1, 1 << (bits - 3)
    half_denominator = (a + one0 + 1) >> 1
    x = _wrap(_constant(NEWTON_START, bits) + high_mul(half_denominator, _constant(NEWTON_SLOPE, bits), bits), bits)
    for _ in range(3):
        error = _wrap(one2 - high_mul(half_denominator, x, bits), bits)
        x = _wrap(x + _rescale(high_mul(x, error, bits), 2, bits), bits)
    return x


def one_over_one_plus(a: Array, bits: int = 32) -> Array:
    """1 / (1 + a) in Q0 for raw a in (0, 1), Q0."""
    return _rescale(_newton(a, bits), 1, bits)


@lru_cache(maxsize=16)
def logistic_table() -> Array:
    """1 / (1 + exp(-x)) as Q0.15 for every int16 x in Q3.12, indexed by ``x + 32768``."""
    x = np.arange(-(2**15), 2**15, dtype=np.int64)
    positive = one_over_one_plus(exp_on_negative(-np.abs(x), 3, 16), 16)
    table = np.where(x > 0, positive, (2**15 - 1) - positive)
    table[x == 0] = 1 << 14
    return table.astype(np.int16)


@lru_cache(maxsize=16)
def tanh_table(integer_bits: int) -> Array:
    """tanh(x) as Q0.15 for every int16 x in Qm, m = 0 .. 6, indexed by ``x + 32768``."""
    x = np.arange(-(2**15), 2**15, dtype=np.int64)
    decay = exp_on_negative(-np.abs(x), integer_bits + 1, 16)
    positive = _rescale(_wrap(_newton(decay, 16) - (1 << 13), 16), 2, 16)
    return np.where(x == 0, 0, np.where(x < 0, -positive, positive)).astype(np.int16)


@lru_cache(maxsize=1)
def sigmoid_steps() -> Array:
    """sigmoid(i / 24) in 0.16 format for i = 0 .. 255, raised by half the largest error of the chord between steps.

    The lift ``-h**2 / 16 * sigmoid''`` centres the error of the interpolation; this closed form reproduces every entry
    of the kernels' table (the last one is its saturation value).
    """
    step = 1 / 24
    value = 1 / (1 + np.exp(-np.arange(256) * step))
    curvature = value * (1 - value) * (1 - 2 * value)
    steps = np.floor(65536 * (value - step * step / 16 * curvature) + 0.5).astype(np.int64)
    steps[255] = 65535
    return np.asarray(steps)


def _scaled(x: Array, multiplier: int, shift: int) -> tuple[Array, Array]:
    """The input in units of 1/12288 (a multiplier of 0 means Q3.12 shifted by ``shift``), and its magnitude."""
    if multiplier == 0:
        multiplier, shift = 3 << shift, 0
    scaled = (np.asarray(x, dtype=np.int64) * multiplier + ((1 << shift) >> 1)) >> shift
    return scaled, np.abs(scaled)


def sigmoid_int16(x: Array, multiplier: int = 0, shift: int = 0) -> Array:
    """1 / (1 + exp(-x)) as Q0.15 by interpolation between 256 steps, as 16-bit LOGISTIC and TFLM's LSTM compute it."""
    scaled, size = _scaled(x, multiplier, shift)
    steps = sigmoid_steps()
    index = np.minimum(size >> 9, 254)
    line = (steps[index] << 9) + (size & 0x1FF) * (steps[index + 1] - steps[index])
    result = np.where(size >> 9 >= 255, 0x7FFF << 10, line)
    return np.asarray(np.where(scaled >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1) >> 10)


def tanh_int16(x: Array, multiplier: int = 0, shift: int = 0) -> Array:
    """tanh(x) as Q0.15 from the same steps: ``2 * sigmoid(2 * x) - 1``."""
    scaled, size = _scaled(x, multiplier, shift)
    steps = sigmoid_steps()
    index = np.minimum(size >> 8, 254)
    line = (steps[index] << 8) + (size & 0xFF) * (steps[index + 1] - steps[index])
    result = np.where(size >> 8 >= 255, 0xFFFF << 8, line)
    half, nudge = 1 << 23, 1 << 7
    return np.asarray(np.where(scaled >= 0, result - half + nudge, half - result + nudge - 1) >> 8)
