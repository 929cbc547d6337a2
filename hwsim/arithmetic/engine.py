"""The Tensor Core step on whole arrays: one block of products and a running sum, aligned, truncated, added, rounded.

Float64 serves as an exact integer unit: a product of two operands has at most 22 significand bits, an aligned term is an
integer below 2^(F + 2), a block's sum stays below 2^53, and scaling by a power of two is exact, so no operation here
rounds except where a rounding is written. `hwsim.arithmetic.reference` does the same on Python integers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.formats import FINITE, INFINITE, NOT_A_NUMBER, split
from hwsim.arithmetic.profiles import Rule
from hwsim.formats import get_format

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NAN_BITS = {"fp32": 0x7FFFFFFF, "fp16": 0x7FFF}
"""The one NaN a Tensor Core writes; fp64 NaN payloads are not known to be canonical."""


class Operand(NamedTuple):
    """Values and their unnormalised exponents: a subnormal keeps the smallest normal exponent."""

    value: Floats
    exponent: Ints

    def times(self, other: Operand) -> Operand:
        """Element-wise product, exponents added, not renormalised."""
        with np.errstate(invalid="ignore"):
            return Operand(self.value * other.value, self.exponent + other.exponent)


def operand(bits: npt.NDArray[Any], fmt: str) -> Operand:
    """Decode bit patterns for `add_block`; formats of up to 16 bits through a table."""
    if get_format(fmt).width <= 16:
        table = _table(get_format(fmt).name)
        return Operand(table.value[bits], table.exponent[bits])
    return _decoded(bits, fmt)


def _decoded(bits: npt.NDArray[Any], fmt: str) -> Operand:
    parts = split(bits, fmt)
    value = np.ldexp(np.where(parts.special == FINITE, parts.significand, 0).astype(np.float64), parts.exponent)
    value = np.where(parts.special == INFINITE, np.inf, value)
    value = np.where(parts.sign == 1, -value, value)
    value = np.where(parts.special == NOT_A_NUMBER, np.nan, value)
    return Operand(value, parts.exponent + (get_format(fmt).precision - 1))


@cache
def _table(fmt: str) -> Operand:
    width = max(get_format(fmt).width, 8)
    found = _decoded(np.arange(1 << width).astype(f"u{width // 8}"), fmt)
    for part in found:
        part.setflags(write=False)
    return found


def power_of_two(exponent: Ints) -> Floats:
    """2.0 ** exponent, exactly; exponents of normal float64 numbers only (all that alignment needs are)."""
    return ((exponent.astype(np.int64) + 1023) << 52).view(np.float64)


def running_exponent(c: Floats, fmt: str, e_zero: int) -> Ints:
    """Exponent that a running sum held in ``fmt`` enters the alignment with."""
    least = 1 - get_format(fmt).bias
    exponent = np.maximum(np.frexp(c)[1].astype(np.int64) - 1, least)
    return np.where(c == 0, e_zero, exponent)


def add_block(a: Operand, b: Operand, c: Floats, c_format: str, rule: Rule) -> Floats:
    """One step: products along the last axis and ``c``, truncated to a common grid, added, rounded to the output.

    ``a`` and ``b`` broadcast to (..., products), ``c`` is (...) and holds values of ``c_format``.
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = a.value * b.value
        exponent = np.where(product == 0, rule.e_zero, a.exponent + b.exponent)
        plain = product.sum(axis=-1) + c  # exact nowhere, right for infinities and NaNs
        special = ~(np.isfinite(product).all(axis=-1) & np.isfinite(c))
        return np.where(special, plain, add_terms(product, exponent, c, c_format, rule))


def add_terms(term: Floats, exponent: Ints, c: Floats, c_format: str, rule: Rule) -> Floats:
    """The alignment, sum and rounding of `add_block`, given finite terms and the exponents they align with."""
    c_exponent = running_exponent(c, c_format, rule.e_zero)
    largest = np.maximum(exponent.max(axis=-1), c_exponent)
    shift = rule.fraction_bits - largest
    scale = power_of_two(shift)
    total = np.trunc(term * scale[..., None]).sum(axis=-1) + np.trunc(c * scale)
    return round_sum(total * power_of_two(-shift), rule)


def round_sum(value: Floats, rule: Rule) -> Floats:
    """Round a block's sum to the rule's output; overflow is infinite even toward zero, and no zero is negative."""
    out = get_format(rule.output)
    precision = 14 if rule.rounding == "rz13" else out.precision
    least = 1 - out.bias
    quantum = np.maximum(np.frexp(value)[1] - 1, least) - (precision - 1)
    units = value * power_of_two(-quantum)
    rounded = (np.rint(units) if rule.rounding == "rne" else np.trunc(units)) * power_of_two(quantum)
    beyond = np.abs(rounded) >= 2.0 ** (out.bias + 1)
    return np.asarray(np.where(beyond, np.copysign(np.inf, rounded), rounded + 0.0))


def add_to_nearest(x: Floats, y: Floats, fmt: str) -> Floats:
    """IEEE addition of two values of fp32 or fp16, to nearest even (float64 holds the sum of two such well enough)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = x + y
        return total.astype(np.float16 if fmt == "fp16" else np.float32).astype(np.float64)


def pack(value: Floats, fmt: str) -> npt.NDArray[Any]:
    """Bit patterns of values that ``fmt`` holds exactly, NaNs canonical."""
    with np.errstate(invalid="ignore", over="ignore"):
        if fmt == "fp64":
            return np.ascontiguousarray(value).view(np.uint64)
        narrow = np.ascontiguousarray(value.astype(np.float16 if fmt == "fp16" else np.float32))
    bits = narrow.view(np.uint16 if fmt == "fp16" else np.uint32)
    return np.where(np.isnan(value), bits.dtype.type(NAN_BITS[fmt]), bits)
