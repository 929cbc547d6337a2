"""Fixed-point primitives of TensorFlow Lite's integer kernels: multipliers and the named requantisation rules.

Rules, for an accumulator ``acc`` and a real multiplier ``M = q * 2**(shift - 31)``:

==== ======================= ==========================================================================================
D    double rounding         high half of ``2 * acc * q``, then a shift whose ties go away from zero (reference kernels)
U    double, half up         the same, but ties of the shift go towards plus infinity (optimised kernels on x86)
R64  float64                 ``round_half_away(acc * M)`` (LiteRT's reference fully connected)
F    float32                 ``rint(float32(acc) * float32(M))``, ties to even (XNNPACK, fbgemm, QNNPACK, ONNX Runtime)
==== ======================= ==========================================================================================

Source: Jacob et al. 2018, section 2.2, and LiteRT ``kernels/internal/common.cc`` at f674577 (behaviour restated).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
BLOCK = 1 << 16  # elements requantised at a time: temporaries of 8 bytes stay in the second-level cache


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Return (q, shift) with ``real ~ q * 2**(shift - 31)``, 2**30 <= q < 2**31; (0, 0) for 0 and below 2**-32."""
    if real == 0.0:
        return 0, 0
    fraction, shift = math.frexp(real)
    q = math.floor(fraction * 2**31 + 0.5) if fraction >= 0 else -math.floor(-fraction * 2**31 + 0.5)
    if q == 2**31:
        q, shift = q // 2, shift + 1
    return (0, 0) if shift < -31 else (q, shift)


def round_half_away(x: Array) -> Array:
    """Round floats to integers (still floats), ties away from zero, as C's ``round`` does; keeps the float type."""
    whole = np.trunc(x)
    return np.asarray(whole + np.where(np.abs(x - whole) >= 0.5, np.copysign(1, x), 0).astype(x.dtype))


def wrap32(x: Array) -> Array:
    """Return int64 values wrapped to the range of int32, as two's complement hardware does."""
    return np.asarray(((x + 2**31) & (2**32 - 1)) - 2**31)


def high_mul(a: Array, b: Array | int, bits: int = 32) -> Array:
    """High half of ``2 * a * b``, rounded half towards plus infinity, saturated for the one product that overflows.

    This equals the kernels' "add a nudge by sign, divide truncating": for p < 0 both give
    ``floor((p + 2**(bits - 2)) / 2**(bits - 1))``. ``a`` and ``b`` hold ``bits``-bit signed values in int64.
    """
    p = (np.asarray(a, dtype=np.int64) * b + (1 << (bits - 2))) >> (bits - 1)
    return np.asarray(np.minimum(p, (1 << (bits - 1)) - 1))  # only (-2**(bits-1))**2 reaches beyond


def rounding_shift(x: Array, n: Array | int) -> Array:
    """Divide int64 values by ``2**n`` (n >= 0), ties away from zero."""
    n = np.asarray(n, dtype=np.int64)
    half = np.where(n > 0, np.int64(1) << np.maximum(n - 1, 0), 0)
    return np.asarray((x + half + np.where(n > 0, x >> 63, 0)) >> n)


def multiply_d(acc: Array, q: Array | int, shift: Array | int) -> Array:
    """Rule D: scale int32 accumulators (held in int64) by ``q * 2**(shift - 31)`` with two roundings."""
    shift = np.asarray(shift, dtype=np.int64)
    left = np.maximum(shift, 0)
    acc = np.asarray(acc, dtype=np.int64)
    shifted = wrap32(acc << left) if np.any(left) else acc
    return rounding_shift(high_mul(shifted, np.asarray(q, dtype=np.int64)), np.maximum(-shift, 0))


def multiply_u(acc: Array, q: Array | int, shift: Array | int) -> Array:
    """Rule U: as rule D, but the ties of the final shift go towards plus infinity."""
    shift = np.asarray(shift, dtype=np.int64)
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    acc = np.asarray(acc, dtype=np.int64)
    shifted = wrap32(acc << left) if np.any(left) else acc
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return np.asarray((high_mul(shifted, np.asarray(q, dtype=np.int64)) + half) >> right)


def multiply_int64(acc: Array, q: Array | int, shift: Array | int) -> Array:
    """Scale 48-bit accumulators (int16 activations): the multiplier cut to 16 bits, one rounding, result wrapped."""
    q = np.asarray(q, dtype=np.int64)
    reduced = np.where(q < 0x7FFF0000, (q + (1 << 15)) >> 16, 0x7FFF)
    total = 15 - np.asarray(shift, dtype=np.int64)
    return wrap32((np.asarray(acc, dtype=np.int64) * reduced + (np.int64(1) << (total - 1))) >> total)


@dataclass(frozen=True, slots=True)
class Requantize:
    """Turns accumulators into ``dtype`` values: rule, real multipliers (float64, per channel or one), zero, clamp.

    ``scale`` is the float32 multiplier of rule F, whose order of operations differs from kernel to kernel.
    """

    rule: str
    multiplier: Array
    zero: int
    low: int
    high: int
    dtype: np.dtype[Any]
    scale: Array | None = None

    def __call__(self, acc: Array) -> Array:
        """Map accumulators (..., channels), any numeric type holding exact integers, to the output type."""
        channels = acc.shape[-1] if acc.ndim else 1
        flat = acc.reshape(-1, channels)
        out = np.empty(flat.shape, dtype=self.dtype)
        step = max(1, BLOCK // max(channels, 1))
        apply = self._prepare()
        for start in range(0, flat.shape[0], step):
            out[start : start + step] = apply(flat[start : start + step])
        return out.reshape(acc.shape)

    def _prepare(self) -> Any:
        if self.rule == "F":
            scale = np.asarray(self.multiplier if self.scale is None else self.scale, dtype=np.float32)
            low, high = np.float32(self.low - self.zero), np.float32(self.high - self.zero)

            def fp32(acc: Array) -> Array:
                value = acc.astype(np.float32) * scale
                np.clip(value, low, high, out=value)
                return np.asarray(np.rint(value, out=value) + np.float32(self.zero))

            return fp32
        if self.rule == "R64":

            def fp64(acc: Array) -> Array:
                value = round_half_away(acc.astype(np.float64) * self.multiplier)
                return np.asarray(np.clip(value + self.zero, self.low, self.high))

            return fp64
        pairs = [quantize_multiplier(float(m)) for m in np.ravel(self.multiplier)]
        q = np.array([p[0] for p in pairs], dtype=np.int64)
        shift = np.array([p[1] for p in pairs], dtype=np.int64)
        if self.rule == "I64":
            return lambda acc: np.clip(multiply_int64(acc, q, shift) + self.zero, self.low, self.high)
        right = np.maximum(-shift, 0)
        half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
        if np.any(shift > 0) or self.rule not in ("D", "U"):
            slow = multiply_d if self.rule == "D" else multiply_u
            return lambda acc: np.clip(slow(acc, q, shift) + self.zero, self.low, self.high)
        # The final shift of rule D takes one off negative values; channels that do not shift keep theirs.
        ties = np.where(right > 0, -1, 0) if self.rule == "D" else None

        def fixed(acc: Array) -> Array:
            value = acc.astype(np.int64)
            value *= q
            value += 1 << 30
            value >>= 31
            if ties is not None:
                sign = value >> 63
                sign &= ties
                value += sign
            value += half
            value >>= right
            value += self.zero
            return np.clip(value, self.low, self.high, out=value)

        return fixed
