"""Fused multiply-add of float64 arrays, rounded once to nearest even, without a fused unit.

Boldo & Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57(4), 2008: error-free product
and sums, the small parts added with rounding to odd. Where exponents come near the ends of the range, integers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_SPLIT = 134217729.0  # 2^27 + 1


def fma(a: Floats, b: Floats, c: Floats) -> Floats:
    """``a * b + c`` rounded once; operands of one shape."""
    a, b, c = np.broadcast_arrays(a, b, c)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        high, low = _product(a, b)
        mid, mid_rest = _sum(c, low)
        top, top_rest = _sum(high, mid)
        result = top + _to_odd(mid_rest, top_rest)
        size = np.maximum(np.abs(high), np.abs(c))
        factors = np.maximum(np.abs(a), np.abs(b)) < 2.0**900
        safe = factors & (size < 2.0**900) & (np.abs(high) > 2.0**-900) & (np.abs(result) > 2.0**-900)
    plain = ~safe
    if plain.any():
        result = result.copy()
        result[plain] = [
            fma_exact(x, y, z) for x, y, z in zip(a[plain].tolist(), b[plain].tolist(), c[plain].tolist(), strict=True)
        ]
    return result


def fma_exact(a: float, b: float, c: float) -> float:
    """``a * b + c`` rounded once, on Python integers."""
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        product = (
            math.nan if (a == 0 or b == 0) and (math.isinf(a) or math.isinf(b)) else _sign(a) * _sign(b) * math.inf
        )
        if math.isfinite(a) and math.isfinite(b):
            return c
        if math.isnan(a) or math.isnan(b):
            return math.nan
        return product + c
    (na, da), (nb, db), (nc, dc) = a.as_integer_ratio(), b.as_integer_ratio(), c.as_integer_ratio()
    numerator, denominator = na * nb * dc + nc * da * db, da * db * dc
    if numerator == 0:
        negative = _sign(a) * _sign(b) < 0 and _sign(c) < 0 and c == 0 and (a == 0 or b == 0)
        return -0.0 if negative else 0.0
    try:
        return numerator / denominator  # Python rounds the quotient of integers once, to nearest even
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _sign(x: float) -> float:
    return math.copysign(1.0, x)


def _product(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    high = a * b
    a1 = a * _SPLIT
    a1 = a1 - (a1 - a)
    b1 = b * _SPLIT
    b1 = b1 - (b1 - b)
    a2, b2 = a - a1, b - b1
    return high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2


def _sum(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    total = x + y
    part = total - x
    return total, (x - (total - part)) + (y - part)


def _to_odd(x: Floats, y: Floats) -> Floats:
    """``x + y`` rounded to odd: if inexact, the neighbour with an odd last bit."""
    total, rest = _sum(x, y)
    bits = np.ascontiguousarray(total).view(np.int64)
    away = (rest > 0) == (total > 0)  # the exact sum lies farther from zero than total
    odd = np.where((rest != 0) & (bits & 1 == 0), np.where(away, bits + 1, bits - 1), bits)
    return odd.view(np.float64)
