"""Exact integer products through floating-point BLAS.

A product of integers in floats is exact in any order of summation as long as every partial sum stays within the
significand: ``max|x| * sum_k |w_k|`` at most 2**24 (float32) or 2**53 (float64). The bound is taken from the actual
weights, so that most layers of 8-bit networks run as one single-precision GEMM.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hwsim.arithmetic.tflite_fixed import Array

EXACT32, EXACT64 = 1 << 24, 1 << 53
MAX_BLOCKS = 6  # more single-precision blocks than this cost more than one product in double precision


@dataclass(frozen=True, slots=True)
class ExactWeights:
    """Weights (k, n) ready for exact products with inputs up to ``bound``: (start, stop, matrix) along k."""

    blocks: tuple[tuple[int, int, Array], ...]
    columns: int

    @classmethod
    def of(cls, weights: Array, bound: int) -> ExactWeights:
        """Choose precision and blocks for integer ``weights`` (k, n) and inputs of magnitude at most ``bound``."""
        k, n = weights.shape
        magnitude = np.abs(weights.astype(np.int64))
        if int(magnitude.sum(axis=0).max(initial=0)) * bound > EXACT64:
            raise OverflowError("the accumulator would pass 2**53")
        cuts, limit = [0], EXACT32 // max(bound, 1)
        running = np.cumsum(magnitude, axis=0)
        base = np.zeros(n, dtype=np.int64)
        while cuts[-1] < k and len(cuts) <= MAX_BLOCKS + 1:
            fits = np.all(running[cuts[-1] :] - base <= limit, axis=1)
            stop = cuts[-1] + (int(np.argmin(fits)) if not fits.all() else len(fits))
            if stop == cuts[-1]:
                break
            cuts.append(stop)
            base = running[stop - 1]
        if cuts[-1] < k or len(cuts) - 1 > MAX_BLOCKS:
            return cls(((0, k, np.ascontiguousarray(weights, dtype=np.float64)),), n)
        pairs = pairwise(cuts)
        return cls(tuple((a, b, np.ascontiguousarray(weights[a:b], dtype=np.float32)) for a, b in pairs), n)

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.float64]:
        """The float type inputs are best given in."""
        return self.blocks[0][2].dtype if self.blocks else np.dtype(np.float32)

    def product(self, x: Array) -> Array:
        """Return ``x (m, k) @ weights (k, n)`` as exact integers in float32 or float64."""
        if not self.blocks:
            return np.zeros((x.shape[0], self.columns), dtype=np.float32)
        x = x.astype(self.dtype, copy=False)
        if len(self.blocks) == 1:
            return np.asarray(x @ self.blocks[0][2])
        total = np.zeros((x.shape[0], self.columns), dtype=np.float64)
        for start, stop, matrix in self.blocks:
            total += x[:, start:stop] @ matrix
        return total


def exact_matmul(x: Array, weights: Array) -> Array:
    """Return the int64 product of integer matrices (m, k) and (k, n); raises OverflowError beyond 2**53."""
    bound = max(int(np.max(x, initial=0)), -int(np.min(x, initial=0)))
    return ExactWeights.of(weights, bound).product(x).astype(np.int64)
