"""The array of `systolic_plain`, cycle for cycle, compiled with numba: every element is still stepped every cycle."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from hwsim.timing.reference import systolic_kernels as kernels
from hwsim.timing.reference.systolic_rtl import COUNTERS, ArrayConfig, Job


@functools.cache
def _compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    import numba
    from numba.extending import register_jitable

    for helper in kernels.HELPERS:
        register_jitable(helper)
    compiled: Callable[..., None] = numba.njit(cache=True)(kernel)
    return compiled


def run_stationary(job: Job, array: ArrayConfig, early: int = 0) -> dict[str, int]:
    """As `systolic_plain.run_stationary`."""
    return _run(kernels.stationary_kernel, job, array, early)


def run_output_stationary(job: Job, array: ArrayConfig, early: int = 0) -> dict[str, int]:
    """As `systolic_plain.run_output_stationary`."""
    return _run(kernels.output_stationary_kernel, job, array, early)


def _run(kernel: Callable[..., None], job: Job, array: ArrayConfig, early: int) -> dict[str, int]:
    folds = np.array([astuple(fold) for fold in job.folds], np.int64)
    sizes = np.array(
        [
            array.rows,
            array.cols,
            array.rows_per_clk,
            array.weight_rows_per_clk,
            array.clks_per_weight_row,
            array.rows_per_stage,
            array.overlap,
            array.weight_double_buffer,
            early,
            job.output.dtype == np.float32,  # sums are rounded, so a stage's products must be added without loss
        ],
        np.int64,
    )
    count = np.zeros(len(COUNTERS), np.int64)
    _compiled(kernel)(job.streamed, job.other, job.output, folds, sizes, count)
    return dict(zip(COUNTERS, count.tolist(), strict=True))
