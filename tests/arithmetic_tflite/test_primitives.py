"""Fixed-point primitives against slow, obvious twins in Python integers and fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.arithmetic.tflite_fixed import (
    Requantize,
    high_mul,
    multiply_d,
    multiply_int64,
    multiply_u,
    quantize_multiplier,
    round_half_away,
    rounding_shift,
    wrap32,
)
from hwsim.arithmetic.tflite_gemm import ExactWeights, exact_matmul
from hwsim.arithmetic.tflite_gemmlowp import (
    exp_on_negative,
    logistic_table,
    one_over_one_plus,
    sigmoid_int16,
    sigmoid_steps,
    tanh_int16,
    tanh_table,
)

int32 = st.integers(-(2**31), 2**31 - 1)
factor = st.integers(2**30, 2**31 - 1)
shift = st.integers(-31, 8)


def half_away(x: Fraction) -> int:
    floor = math.floor(abs(x) + Fraction(1, 2))
    return floor if x >= 0 else -floor


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def wrapped(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def nudged_high_mul(a: int, b: int, bits: int = 32) -> int:
    """The kernels' own description: add a nudge by sign, divide truncating towards zero, saturate."""
    if a == b == -(2 ** (bits - 1)):
        return 2 ** (bits - 1) - 1
    p = a * b
    p += 2 ** (bits - 2) if p >= 0 else 1 - 2 ** (bits - 2)
    return p // 2 ** (bits - 1) if p >= 0 else -(-p // 2 ** (bits - 1))


@given(int32, int32)
def test_high_mul(a: int, b: int) -> None:
    assert int(high_mul(np.int64(a)[()], np.int64(b)[()])) == nudged_high_mul(a, b)


@given(st.integers(-(2**15), 2**15 - 1), st.integers(-(2**15), 2**15 - 1))
def test_high_mul_16(a: int, b: int) -> None:
    assert int(high_mul(np.int64(a)[()], np.int64(b)[()], 16)) == nudged_high_mul(a, b, 16)


def test_high_mul_corners() -> None:
    low = -(2**31)
    for a, b in ((low, low), (low, 2**31 - 1), (-1, 2**30), (1, 2**30), (-3, 2**30), (0, low)):
        assert int(high_mul(np.int64(a)[()], np.int64(b)[()])) == nudged_high_mul(a, b)


@given(int32, st.integers(0, 31))
def test_rounding_shift(x: int, n: int) -> None:
    assert int(rounding_shift(np.array(x), n)) == half_away(Fraction(x, 2**n))


@given(int32, factor, shift)
def test_rule_d(x: int, q: int, s: int) -> None:
    expected = half_away(Fraction(nudged_high_mul(wrapped(x << max(s, 0)), q), 2 ** max(-s, 0)))
    assert int(multiply_d(np.array(x), q, s)) == expected


@given(int32, factor, shift)
def test_rule_u(x: int, q: int, s: int) -> None:
    expected = half_up(Fraction(half_up(Fraction(wrapped(x << max(s, 0)) * q, 2**31)), 2 ** max(-s, 0)))
    assert int(multiply_u(np.array(x), q, s)) == expected


@given(st.integers(-(2**47), 2**47 - 1), factor, st.integers(-31, 7))
def test_rule_for_wide_accumulators(x: int, q: int, s: int) -> None:
    reduced = (q + 2**15) >> 16 if q < 0x7FFF0000 else 0x7FFF
    assert int(multiply_int64(np.array(x), q, s)) == wrapped(half_up(Fraction(x * reduced, 2 ** (15 - s))))


@given(st.floats(2.0**-40, 2.0**20))
def test_quantize_multiplier(real: float) -> None:
    q, s = quantize_multiplier(real)
    if real < 2.0**-32:
        assert (q, s) == (0, 0)
    elif q:
        assert 2**30 <= q < 2**31
        assert abs(Fraction(q) * Fraction(2) ** (s - 31) / Fraction(real) - 1) <= Fraction(1, 2**31)


def test_quantize_multiplier_carries() -> None:
    assert quantize_multiplier(0.0) == (0, 0)
    assert quantize_multiplier(1.0) == (2**30, 1)
    assert quantize_multiplier(1.0 - 2.0**-40) == (2**30, 1)


@given(st.floats(-(2.0**40), 2.0**40))
def test_round_half_away(x: float) -> None:
    assert float(round_half_away(np.array(x))) == half_away(Fraction(x))


def test_round_half_away_traps() -> None:
    x = np.array([0.49999999999999994, -0.49999999999999994, 0.5, -0.5, 2.5, -2.5, 2.0**53 - 1])
    assert round_half_away(x).tolist() == [0, 0, 1, -1, 3, -3, 2.0**53 - 1]


@given(st.integers(-(2**40), 2**40))
def test_wrap32(x: int) -> None:
    assert int(wrap32(np.array(x))) == wrapped(x)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["D", "U", "R64", "F"]), st.integers(1, 7))
def test_requantize(seed: int, rule: str, channels: int) -> None:
    rng = np.random.default_rng(seed)
    acc = rng.integers(-(2**20), 2**20, (3, channels))
    real = 2.0 ** rng.uniform(-16, 2, channels)
    zero = int(rng.integers(-128, 128))
    got = Requantize(rule, real, zero, -100, 90, np.dtype(np.int8))(acc.astype(np.float64))
    for (i, c), x in np.ndenumerate(acc):
        q, s = quantize_multiplier(real[c])
        if rule == "D":
            level = half_away(Fraction(nudged_high_mul(wrapped(int(x) << max(s, 0)), q), 2 ** max(-s, 0)))
        elif rule == "U":
            level = half_up(Fraction(half_up(Fraction(wrapped(int(x) << max(s, 0)) * q, 2**31)), 2 ** max(-s, 0)))
        elif rule == "R64":
            level = half_away(Fraction(float(x) * real[c]))
        else:
            level = round(Fraction(float(np.float32(x) * np.float32(real[c]))))
        assert got[i, c] == min(max(level + zero, -100), 90)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([1, 127, 30_000, 2**22]))
def test_exact_product(seed: int, depth: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-128, 128, (3, depth)), rng.integers(-size, size + 1, (depth, 4))
    expected = [[sum(int(a) * int(b) for a, b in zip(row, column, strict=True)) for column in w.T] for row in x]
    assert exact_matmul(x, w).tolist() == expected


def test_exact_product_splits_deep_layers() -> None:
    w = np.full((4608, 2), 127)
    split = ExactWeights.of(w, 128)
    assert len(split.blocks) == 5 and split.dtype == np.float32
    x = np.full((1, 4608), -128.0)
    assert split.product(x)[0, 0] == -128 * 127 * 4608
    assert ExactWeights.of(np.full((60_000, 1), 127), 128).dtype == np.float64


def test_exact_product_refuses_inexact() -> None:
    with pytest.raises(OverflowError):
        ExactWeights.of(np.full((2, 1), 2**40), 2**13)


# The fixed-point functions approximate; their exact bits are what models and TFLM confirm (test_goldens).


def test_exponential_is_close() -> None:
    a = -np.arange(0, 2**31 - 1, 1 << 18)
    exact = np.exp(a / 2.0**26) * 2.0**31
    remainder = 2.0**31 * (1 / 8) ** 5 / math.factorial(5)  # of the Taylor polynomial of degree 4, |x| <= 1/8
    assert np.abs(exp_on_negative(a, 5) - exact).max() < remainder + 8  # and a few roundings


def test_reciprocal_is_close() -> None:
    a = np.arange(0, 2**31 - 1, 1 << 18)
    exact = 2.0**31 / (1 + a / 2.0**31)
    assert np.abs(one_over_one_plus(a) - exact).max() < 2.0**5


@pytest.mark.parametrize(("table", "integer_bits", "function"), [
    (logistic_table(), 3, lambda x: 1 / (1 + np.exp(-x))),
    *((tanh_table(m), m, np.tanh) for m in range(7)),
])  # fmt: skip
def test_activation_tables_are_close(table: np.ndarray, integer_bits: int, function: object) -> None:
    x = np.arange(-(2**15), 2**15) / 2.0 ** (15 - integer_bits)
    assert np.abs(table - function(x) * 2**15).max() < 24  # type: ignore[operator]


def test_interpolated_activations_are_close() -> None:
    x = np.arange(-(2**15), 2**15)
    assert np.abs(sigmoid_int16(x) - 2**15 / (1 + np.exp(-x / 4096))).max() < 2
    assert np.abs(tanh_int16(x) - 2**15 * np.tanh(x / 4096)).max() < 4


def test_sigmoid_steps_equal_the_published_table() -> None:
    """Spot values of the kernels' table (tflite-micro 90b983c, kernels/internal/common.h)."""
    steps = sigmoid_steps()
    assert steps[:5].tolist() == [32768, 33451, 34133, 34813, 35493]
    assert steps[[28, 29, 65, 250, 255]].tolist() == [49975, 50464, 61441, 65534, 65535]
