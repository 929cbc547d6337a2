"""Exact integer products through floating-point BLAS, wrapped or clamped to int32 as the hardware does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.fused import to_int32

Ints = npt.NDArray[Any]
_LEAST_CHUNK = 64


def integer_product(a: Ints, b: Ints) -> npt.NDArray[np.int64]:
    """Exact ``a @ b`` (m, k) · (k, n) of small integers, as int64.

    float32 BLAS is exact while every partial sum, in whatever order, stays within 2^24; k is cut to keep it so.
    Where that leaves pieces too short, float64 with its 2^53.
    """
    most = _magnitude(a) * _magnitude(b)
    chunk = 2**24 // max(1, most)
    kind: type[np.floating[Any]] = np.float32
    if chunk < min(_LEAST_CHUNK, a.shape[1]):
        kind, chunk = np.float64, 2**53 // max(1, most)
    if chunk < 1:
        return np.asarray(a.astype(np.int64) @ b.astype(np.int64))
    x, y = a.astype(kind), b.astype(kind)
    total = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for k in range(0, a.shape[1], chunk):
        total += (x[:, k : k + chunk] @ y[k : k + chunk]).astype(np.int32 if kind is np.float32 else np.int64)
    return total


def integer_gemm(a: Ints, b: Ints, c: npt.NDArray[np.int64], saturate: bool, depth: int) -> npt.NDArray[np.uint32]:
    """int32 bits of ``a @ b + c``; with ``saturate`` each instruction of K = ``depth`` clamps its running sum."""
    if saturate:
        reach = _magnitude(a) * _magnitude(b) * a.shape[1] + (int(np.abs(c).max()) if c.size else 0)
        if reach >= 2**31:
            for k in range(0, a.shape[1], depth):
                c = np.clip(c + integer_product(a[:, k : k + depth], b[k : k + depth]), -(2**31), 2**31 - 1)
            return to_int32(c, True)
    return to_int32(integer_product(a, b) + c, saturate)


def binary_gemm(a: Ints, b: Ints, c: npt.NDArray[np.int64], operation: str) -> npt.NDArray[np.uint32]:
    """int32 bits of population counts: a (m, k / 8), b (k / 8, n) packed along k."""
    x, y = np.unpackbits(a, axis=1).astype(np.int8), np.unpackbits(b, axis=0).astype(np.int8)
    both = integer_product(x, y)
    if operation == "xor":
        both = x.sum(axis=1, dtype=np.int64)[:, None] + y.sum(axis=0, dtype=np.int64) - 2 * both
    return to_int32(both + c, False)


def _magnitude(x: Ints) -> int:
    return int(max(abs(int(x.min())), abs(int(x.max())))) if x.size else 0
