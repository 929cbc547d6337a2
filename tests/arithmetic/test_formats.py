"""Formats against ml_dtypes and numpy (all codes of all formats up to 16 bits) and against rational arithmetic."""

from __future__ import annotations

import bisect
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hwsim.arithmetic.formats import ROUNDINGS, bits_dtype, convert, decode, encode, largest_finite
from hwsim.errors import HwsimError
from hwsim.formats import FORMATS

ml_dtypes = pytest.importorskip("ml_dtypes")

ORACLE: dict[str, Any] = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "ue8m0": ml_dtypes.float8_e8m0fnu,
}
SMALL = [n for n in ORACLE if n not in ("fp16", "bf16")]


def all_codes(name: str) -> np.ndarray[Any, Any]:
    return np.arange(1 << FORMATS[name].bits).astype(bits_dtype(name))


def hard_values(name: str) -> np.ndarray[Any, Any]:
    """float32: every finite value, every midpoint between neighbours, both sides of each, and what lies beyond."""
    values = decode(all_codes(name), name)
    finite = np.unique(values[np.isfinite(values)])
    middle = (finite[:-1] + finite[1:]) / 2
    edge = finite[-1] + (finite[-1] - finite[-2]) * np.array([0.25, 0.5, 0.75, 1.0, 2.0])
    with np.errstate(over="ignore"):  # beyond the largest bf16 is beyond float32
        base = np.concatenate([finite, middle, edge, -edge, [0.0, -0.0, np.inf, -np.inf]]).astype(np.float32)
        near = np.concatenate([base, np.nextafter(base, np.float32(np.inf)), np.nextafter(base, np.float32(-np.inf))])
    return near


@pytest.mark.parametrize("name", ORACLE)
def test_every_code_decodes_as_the_oracle_says(name: str) -> None:
    codes = all_codes(name)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        want = codes.view(ORACLE[name]).astype(np.float64)
    got = decode(codes, name)
    assert np.array_equal(got, want, equal_nan=True)
    numbers = ~np.isnan(got)
    assert np.array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])


@pytest.mark.parametrize("name", ORACLE)
def test_every_midpoint_rounds_as_the_oracle_says(name: str) -> None:
    values = hard_values(name)
    if name == "ue8m0":  # zero and negatives are a choice; ours agrees for 2^-127 and up
        values = values[values >= 2.0**-126]
    with np.errstate(over="ignore"):
        want = values.astype(ORACLE[name]).view(bits_dtype(name))
    got = encode(values, name)
    nan = np.isnan(decode(want, name))
    assert np.array_equal(np.isnan(decode(got, name)), nan)
    assert np.array_equal(got[~nan], want[~nan])


@pytest.mark.parametrize("name", [*ORACLE, "ue4m3", "tf32", "fp32", "fp64"])
def test_encode_inverts_decode(name: str) -> None:
    f = FORMATS[name]
    if f.bits <= 16:
        codes = all_codes(name)
    else:
        codes = np.random.default_rng(1).integers(0, 1 << f.bits, 4000, dtype=np.uint64, endpoint=False)
        codes = (codes << np.uint64(f.width - f.bits)).astype(bits_dtype(name))
    if name == "ue4m3":
        codes = codes[:128]
    values = decode(codes, name)
    keep = ~np.isnan(values)
    assert np.array_equal(encode(values[keep], name), codes[keep])


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", [*SMALL, "ue4m3"])
def test_every_rounding_mode_against_rationals(name: str, rounding: str) -> None:
    codes = all_codes(name)
    values = decode(codes, name)
    finite = sorted({Fraction(v) for v in values[np.isfinite(values)]})
    even = {
        Fraction(v): int(c) & 1 == 0 for c, v in zip(codes.tolist(), values.tolist(), strict=True) if np.isfinite(v)
    }
    draws = np.random.default_rng(2).uniform(float(finite[0]), float(finite[-1]), 300).tolist()
    asked = [float(x) for x in [*finite, *((a + b) / 2 for a, b in itertools.pairwise(finite))]] + draws
    asked = [x for x in asked if x >= float(finite[0])]
    got = decode(encode(asked, name, rounding=rounding), name)
    for x, y in zip(asked, got.tolist(), strict=True):
        q = Fraction(x)
        at = bisect.bisect_right(finite, q) - 1
        low, high = finite[at], finite[min(at + 1, len(finite) - 1)]
        if low == q:
            want = low
        elif rounding in ("rd", "ru"):
            want = low if rounding == "rd" else high
        elif rounding == "rtz":
            want = low if q > 0 else high
        elif q - low != high - q:
            want = low if q - low < high - q else high
        elif rounding == "rna":
            want = high if q > 0 else low
        else:
            want = high if name == "ue8m0" or not even[low] else low
        assert Fraction(y) == want, (x, y, float(want))


def test_one_rounding_where_two_are_wrong() -> None:
    trap = 1 + 2.0**-8 + 2.0**-40
    assert decode(encode(trap, "bf16"), "bf16") == 1.0078125
    assert np.float64(np.float32(trap).astype(ml_dtypes.bfloat16)) == 1.0  # by way of float32
    tie = 1 + 2.0**-11 + 2.0**-30  # fp16 by way of fp32 loses the last bit, hence the side of the tie
    assert decode(encode(tie, "fp16"), "fp16") == 1 + 2.0**-10
    assert decode(convert(convert(encode(tie, "fp64"), "fp64", "fp32"), "fp32", "fp16"), "fp16") == 1.0
    whole = (1 << 53) + (1 << 29) + 1  # an int64 that float64 cannot hold
    assert decode(encode(whole, "fp32"), "fp32") == 2.0**53 + 2.0**30
    assert decode(encode(np.int64(-(2**63)), "fp32"), "fp32") == -(2.0**63)


def test_random_float64_to_fp32_and_fp16_as_numpy_rounds() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 2**64, 20000, dtype=np.uint64).view(np.float64)
    x = np.concatenate([x, rng.normal(size=20000), rng.normal(size=20000) * 2.0 ** rng.integers(-150, 120, 20000)])
    x = x[~np.isnan(x)]
    with np.errstate(over="ignore"):
        assert np.array_equal(encode(x, "fp32"), x.astype(np.float32).view(np.uint32))
        assert np.array_equal(encode(x, "fp16"), x.astype(np.float16).view(np.uint16))


def test_saturation_policies() -> None:
    high = [1e30, -1e30, np.inf, -np.inf]
    assert decode(encode(high, "e4m3", overflow="saturate"), "e4m3").tolist() == [448, -448, 448, -448]
    assert np.isnan(decode(encode(high, "e4m3"), "e4m3")).all()
    assert decode(encode(high, "e5m2"), "e5m2").tolist() == [np.inf, -np.inf, np.inf, -np.inf]
    assert decode(encode(high, "e5m2", rounding="rtz"), "e5m2").tolist() == [57344, -57344, np.inf, -np.inf]
    assert decode(encode(high, "fp16", rounding="ru"), "fp16").tolist() == [np.inf, -65504, np.inf, -np.inf]
    assert decode(encode(high, "e2m1"), "e2m1").tolist() == [6, -6, 6, -6]
    assert encode([np.nan], "e2m1").tolist() == [largest_finite("e2m1")]
    assert np.isnan(decode(encode([-1.0], "ue4m3"), "ue4m3")).all()


@pytest.mark.parametrize("name", ["int8", "int4", "int2", "int1", "uint8", "uint4", "uint2", "uint1", "int16", "int32"])
def test_integers(name: str) -> None:
    f = FORMATS[name]
    low, high = (-(1 << (f.bits - 1)), (1 << (f.bits - 1)) - 1) if f.kind == "int" else (0, (1 << f.bits) - 1)
    asked = np.array([low - 1, low, -1, 0, 1, high, high + 1, 10**12])
    got = decode(encode(asked, name), name)
    assert got.tolist() == np.clip(asked, low, high).tolist()
    wrapped = decode(encode(asked, name, overflow="wrap"), name)
    assert (((wrapped - asked) % (1 << f.bits)) == 0).all() and (wrapped >= low).all() and (wrapped <= high).all()
    assert decode(encode([0.5, 1.5, np.nan, np.inf], "int8"), "int8").tolist() == [0, 2, 0, 127]


def test_bad_names_are_explained() -> None:
    with pytest.raises(HwsimError, match="rne"):
        encode(1.0, "fp16", rounding="nearest")
    with pytest.raises(HwsimError, match="ieee or saturate"):
        encode(1.0, "fp16", overflow="wrap")
    with pytest.raises(HwsimError, match="e4m3"):
        encode(1.0, "e4m4")
