"""Numbers inside the register-transfer models: bf16 bit patterns, and exact sums rounded once to fp32."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

FP32_QUIET_NAN = np.uint32(0x7FC00000)


def bf16_to_float64(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float64]:
    """Values of bf16 bit patterns: the upper half of an fp32 word."""
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def canonical_nan(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same values with every NaN replaced by the positive quiet NaN without payload."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(np.isnan(values), FP32_QUIET_NAN, bits).view(np.float32)


def round_to_fp32(exact: Fraction) -> float:
    """The fp32 value nearest to a non-zero rational, ties to even, subnormals kept, overflow to infinity."""
    sign = -1.0 if exact < 0 else 1.0
    magnitude = abs(exact)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    quantum = Fraction(2) ** max(exponent - 23, -149)
    rounded = round(magnitude / quantum) * quantum
    return sign * (math.inf if rounded >= 2**128 else float(rounded))


def add_products(partial_sum: Any, products: npt.NDArray[Any]) -> Any:
    """``partial_sum`` plus all ``products`` as one adder forms it: exactly, then rounded once.

    int32 wraps modulo 2^32. fp32 rounds to nearest even; an exact zero is -0 only where every operand is -0.
    """
    if isinstance(partial_sum, np.int32):
        return np.int64(partial_sum + products.sum(dtype=np.int64)).astype(np.int32)
    operands = [float(partial_sum), *(float(product) for product in products)]
    if not all(math.isfinite(operand) for operand in operands):
        return np.float32(sum(operands[1:], operands[0]))
    exact = sum((Fraction(operand) for operand in operands), Fraction(0))
    if exact:
        return np.float32(round_to_fp32(exact))
    return np.float32(-0.0 if all(math.copysign(1.0, operand) < 0 for operand in operands) else 0.0)
