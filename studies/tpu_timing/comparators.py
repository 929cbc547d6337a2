"""What the model is compared with on the TPU v4 matrix products: fits and bounds that know nothing of a schedule."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from retime import Floats


def _up(x: Floats, unit: int) -> Floats:
    return np.ceil(x / unit) * unit


def linear(mnk: Floats, measured: Floats, fit: npt.NDArray[np.bool_]) -> Floats:
    """Eight constants, linear: 1, padded MACs, MK, KN, MN, M, N, K; least absolute relative error on the rows ``fit``."""
    m, n, k = mnk.T
    macs = _up(m, 8) * _up(n, 128) * _up(k, 128)
    terms = np.stack([np.ones_like(m), macs / 1e8, m * k / 1e6, k * n / 1e6, m * n / 1e6, m / 1e3, n / 1e3, k / 1e3], 1)
    weight = 1 / measured
    for _ in range(100):  # iteratively reweighted least squares
        found = np.linalg.lstsq((terms * weight[:, None])[fit], (measured * weight)[fit], rcond=None)[0]
        error = np.abs(terms @ found / measured - 1)
        weight = 1 / measured / np.sqrt(np.maximum(error, 2e-3))
    return np.asarray(terms @ found, float)


def roofline(mnk: Floats, macs_per_s: float, bytes_per_s: float) -> Floats:
    """The slower of peak arithmetic and peak bandwidth, two bytes a value, us."""
    m, n, k = mnk.T
    return np.asarray(np.maximum(m * n * k / macs_per_s, 2 * (m * k + k * n + m * n) / bytes_per_s) * 1e6, float)


def scalesim_tpu(mnk: Floats) -> Floats:
    """The published SCALE-Sim TPU model (arXiv:2603.22535): cycles of one 128 x 128 array, then a line per size class, us."""
    m, n, k = mnk.T

    def cycles(rows: Floats, cols: Floats) -> Floats:
        return np.asarray((3 * 128 + rows - 2) * np.ceil(cols / 128) * np.ceil(k / 128), float)

    best = np.minimum(cycles(m, n), cycles(n, m))
    largest = mnk.max(axis=1)
    lines = (2.762e-3 * best + 0.0599, 3.6e-4 * best + 0.780, 2.0227e-4 * best + 29.72)
    return np.where(largest < 128, lines[0], np.where(largest < 1024, lines[1], lines[2]))
