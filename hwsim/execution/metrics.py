"""How far values are apart: ulps, signal-to-noise ratio, agreement of the largest output."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.formats import get_format

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class ErrorStatistics:
    """Error of ``values`` values against exact ones: in units in the last place of ``fmt``, in decibels, and of the argmax.

    ``top1`` is the share of rows (last axis) whose largest element is the exact one's, None where rows hold one element.
    Values that are not finite where the exact ones are count in ``not_finite`` and nowhere else.
    """

    values: int
    fmt: str
    max_ulp: float
    mean_ulp: float
    snr_db: float
    top1: float | None
    not_finite: int


def ulp(exact: Array, fmt: str) -> Array:
    """Distance between neighbours of ``fmt`` at the magnitude of ``exact`` (float64)."""
    f = get_format(fmt)
    magnitude = np.abs(exact.astype(np.float64))
    _, exponent = np.frexp(magnitude)
    lowest = 1 - f.bias if f.exponent_bits else 0
    power = np.where(magnitude > 0, np.maximum(exponent - 1, lowest), lowest)
    return np.asarray(np.ldexp(1.0, power - (f.precision - 1)))


def statistics(value: Array, exact: Array, fmt: str) -> ErrorStatistics:
    """Compare ``value`` with ``exact`` (same shape)."""
    v, e = value.astype(np.float64).reshape(-1), exact.astype(np.float64).reshape(-1)
    good = np.isfinite(v) & np.isfinite(e)
    bad = int(np.count_nonzero(np.isfinite(e) & ~np.isfinite(v)))
    error = np.abs(v[good] - e[good])
    steps = error / ulp(e[good], fmt)
    signal, noise = float(np.sum(np.square(e[good]))), float(np.sum(np.square(error)))
    snr = math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)
    top1: float | None = None
    if value.ndim and value.shape[-1] > 1 and value.size:
        top1 = float(np.mean(np.argmax(value, axis=-1) == np.argmax(exact, axis=-1)))
    most, mean = (float(steps.max()), float(steps.mean())) if steps.size else (0.0, 0.0)
    return ErrorStatistics(v.size, fmt, most, mean, snr, top1, bad)


def ulps_apart(a: Array, b: Array) -> npt.NDArray[np.int64]:
    """How many fp32 numbers lie between ``a`` and ``b``; integers are simply subtracted."""
    if a.dtype.kind != "f":
        return np.abs(a.astype(np.int64) - b.astype(np.int64))
    x, y = (np.ascontiguousarray(v, np.float32).view(np.int32).astype(np.int64) for v in (a, b))
    x, y = (np.where(v < 0, -(v & 0x7FFFFFFF), v) for v in (x, y))
    return np.asarray(np.abs(x - y), np.int64)


def differing(a: Array, b: Array) -> Array:
    """Where bits differ; every NaN equals every other."""
    if a.dtype.kind != "f":
        return np.asarray(a != b)
    x, y = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    return np.asarray((x.view(np.uint32) != y.view(np.uint32)) & ~(np.isnan(x) & np.isnan(y)))
