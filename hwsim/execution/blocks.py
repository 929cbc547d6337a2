"""Operands whose blocks along k have scales of their own: NVFP4 (OCP elements of 4 bits, ue4m3 scales for 16, and one factor for
the tensor) and the MX formats (OCP Microscaling 1.0: ue8m0 scales for 32)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.formats import decode, encode, largest_finite

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Bits of a matrix (m, k), codes of its scales (m, k / block), and the factor the values were divided by."""

    bits: Array
    scales: Array
    factor: float
    k: int  # before it was filled up


WHOLE = 64  # k of the longest instruction with block scales; zeros fill a product up to it, as a library's kernel does


def blocks_of(values: Array, element: str, block: int, scale: str) -> Blocks:
    """Return ``values`` (m, k) rounded to blocks along k; k is filled up with zeros to whole instructions.

    With ue4m3 scales the factor brings the largest value to the largest element times the largest scale, and a block's scale
    is its largest value over the largest element, rounded to nearest even (NVIDIA's recipe for NVFP4). With ue8m0 a
    scale is the power of two that brings a block's largest value to the element's largest exponent (OCP MX 1.0, section
    6.3). Elements saturate.
    """
    m, k = values.shape
    x = np.zeros((m, -(-k // WHOLE) * WHOLE // block, block), np.float32)
    x.reshape(m, -1)[:, :k] = values
    peaks = np.abs(x).max(axis=2, initial=0.0, where=np.isfinite(x))
    top = _largest(element)
    factor = 1.0
    if scale == "ue4m3":
        peak = float(peaks.max(initial=0.0))
        factor = peak / (top * _largest(scale)) if peak > 0 else 1.0
        codes = encode(np.asarray(peaks / (top * factor), np.float32), scale, overflow="saturate")
    else:
        with np.errstate(divide="ignore"):
            power = np.where(peaks > 0, np.floor(np.log2(peaks)) - math.floor(math.log2(top)), -127.0)
        codes = encode(np.asarray(2.0 ** np.clip(power, -127, 127), np.float32), scale)
    by = decode(codes, scale).astype(np.float64)[:, :, None] * factor
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(by > 0, x / by, 0.0)
    bits = encode(np.asarray(scaled, np.float32), element, overflow="saturate")
    return Blocks(bits.reshape(m, -1), np.asarray(codes), factor, k)


def values_of(found: Blocks, element: str, block: int, scale: str) -> Array:
    """Return what the blocks stand for, float64 (m, k)."""
    wide = decode(found.bits, element).astype(np.float64) * found.factor
    wide = wide * np.repeat(decode(found.scales, scale).astype(np.float64), block, axis=1)
    return wide[:, : found.k]


def _largest(fmt: str) -> float:
    return float(decode(np.array([largest_finite(fmt)]), fmt)[0])
