"""The matrix unit of a TPU against the register-transfer array, stepped cycle by cycle, and against rationals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hwsim.arithmetic import decode, encode, gemm
from hwsim.arithmetic.gemm_kernels import sum_to_odd
from hwsim.errors import HwsimError
from hwsim.timing.reference.systolic_numbers import round_to_fp32
from hwsim.timing.reference.systolic_rtl import ArrayConfig, run_array

Array = np.ndarray[Any, Any]


def draw(rng: np.random.Generator, shape: tuple[int, ...], how: str) -> Array:
    if how == "any":
        return rng.integers(0, 2**16, shape).astype(np.uint16)
    spread = {"near": 3, "wide": 60, "tiny": 8}[how]
    centre = -66 if how == "tiny" else 0
    values = rng.normal(size=shape) * 2.0 ** (centre + rng.integers(-spread, spread + 1, shape))
    return encode(np.where(rng.random(shape) < 0.1, 0.0, values), "bf16")


@pytest.mark.parametrize("profile", ["tpu-v3", "tpu-v4"])
@pytest.mark.parametrize("how", ["near", "wide", "tiny", "any"])
def test_bf16_equals_the_register_transfer_array(profile: str, how: str) -> None:
    rng = np.random.default_rng(11)
    a, b = draw(rng, (6, 43), how), draw(rng, (43, 5), how)
    array = ArrayConfig(rows=16, cols=4, rows_per_stage=4 if profile == "tpu-v4" else 1)
    want = run_array(a, b, "ws", array).output.view(np.uint32)
    for engine in ("numpy", "numba"):
        got = gemm(a, b, profile=profile, input="bf16", tile_k=16, engine=engine)
        assert np.array_equal(got, want), engine


def test_a_sum_that_underflows_below_zero_has_the_array_s_sign() -> None:
    a, b = encode([[-(2.0**-80)]], "bf16"), encode([[2.0**-80]], "bf16")
    for k in (1, 4, 12, 13, 16):
        x, y = np.zeros((1, k), np.uint16), np.zeros((k, 1), np.uint16)
        x[0, -1], y[-1, 0] = a[0, 0], b[0, 0]
        for profile, group in (("tpu-v3", 1), ("tpu-v4", 4)):
            want = run_array(x, y, "ws", ArrayConfig(rows=16, cols=4, rows_per_stage=group)).output.view(np.uint32)
            for engine in ("numpy", "numba"):
                got = gemm(x, y, profile=profile, input="bf16", tile_k=16, engine=engine)
                assert np.array_equal(got, want), (k, profile, engine)


def test_int8_equals_the_register_transfer_array() -> None:
    rng = np.random.default_rng(12)
    a, b = rng.integers(-128, 128, (6, 37)).astype(np.int8), rng.integers(-128, 128, (37, 5)).astype(np.int8)
    want = run_array(a, b, "ws", ArrayConfig(rows=16, cols=4)).output
    assert np.array_equal(gemm(a, b, profile="tpu-v1", input="int8"), want)


def test_rows_beyond_one_tile_change_the_bits() -> None:
    rng = np.random.default_rng(13)
    a, b = draw(rng, (40, 300), "near"), draw(rng, (300, 40), "near")
    one = gemm(a, b, profile="tpu-v3", input="bf16")
    assert not np.array_equal(one, gemm(a, b, profile="tpu-v3", input="bf16", tile_k=512))
    assert not np.array_equal(one, gemm(a, b, profile="tpu-v4", input="bf16"))
    assert np.array_equal(one, gemm(a, b, profile="tpu-v3-core", input="bf16", threads=3, engine="numba"))


def test_passes_approach_fp32() -> None:
    rng = np.random.default_rng(14)
    x, y = rng.normal(size=(32, 64)).astype(np.float32), rng.normal(size=(64, 32)).astype(np.float32)
    exact = x.astype(np.float64) @ y
    errors = [
        np.abs(decode(gemm(x, y, profile="tpu-v4", input="fp32", passes=p), "fp32") - exact).max() for p in (1, 3, 6)
    ]
    assert errors[0] > 50 * errors[1] > 50 * errors[2]
    assert errors[2] < 1e-5
    with pytest.raises(HwsimError, match="1, 3 or 6"):
        gemm(x, y, profile="tpu-v4", input="fp32", passes=2)


def test_fp8_operands_are_their_bf16_values() -> None:
    rng = np.random.default_rng(16)
    a, b = encode(rng.normal(size=(4, 30)), "e4m3"), encode(rng.normal(size=(30, 4)), "e5m2")
    wide = encode(decode(a, "e4m3"), "bf16"), encode(decode(b, "e5m2"), "bf16")
    got = gemm(a, b, profile="tpu-v7", input=("e4m3", "e5m2"))
    assert np.array_equal(got, gemm(*wide, profile="tpu-v7", input="bf16"))
    with pytest.raises(HwsimError, match="not e4m3"):
        gemm(a, a.T, profile="tpu-v3", input="e4m3")


def test_flush_to_zero() -> None:
    a, b = encode([[2.0**-100]], "bf16"), encode([[2.0**-30]], "bf16")
    for profile in ("tpu-v3", "tpu-v4"):
        for engine in ("numpy", "numba"):
            how: dict[str, Any] = {"profile": profile, "input": "bf16", "engine": engine}
            assert decode(gemm(a, b, **how), "fp32") == 2.0**-130
            assert gemm(a, b, flush=True, **how) == 0
            small = encode([[2.0**-130]], "bf16")
            assert gemm(small, encode([[1.0]], "bf16"), flush=True, **how) == 0


def test_sum_to_odd_leaves_one_rounding() -> None:
    rng = np.random.default_rng(15)
    scratch = np.zeros(8)
    for _ in range(3000):
        terms = rng.integers(-(2**15), 2**15, 5) * 2.0 ** rng.integers(-70, 10, 5)
        if rng.random() < 0.5:  # close to half an ulp of the largest
            terms[0] = float(np.float32(terms[1])) * 2.0**20
            terms[2] = np.spacing(np.float32(terms[0])) / 2 * rng.choice([1, -1])
        exact = sum(map(Fraction, terms.tolist()), Fraction(0))
        got = np.float32(sum_to_odd(terms, scratch))
        assert got == (np.float32(round_to_fp32(exact)) if exact else 0)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"profile": "tpu-v9", "input": "bf16"}, "tpu-v"),
        ({"profile": "tpu-v3", "input": "fp16"}, "bf16"),
        ({"profile": "tpu-v3", "input": "bf16", "sparsity": "2:4"}, "Tensor Cores"),
        ({"profile": "tpu-v3", "input": "bf16", "tile_k": 0}, "tile_k"),
        ({"profile": "a100", "input": "fp16", "passes": 3}, "TPU"),
    ],
)
def test_refusals(how: dict[str, Any], says: str) -> None:
    with pytest.raises(HwsimError, match=says):
        gemm(np.zeros((2, 4), np.uint16), np.zeros((4, 2), np.uint16), **how)
