"""Register-transfer twin of the systolic array: run a matmul, get the values, the cycles and the activity of every
unit.

The machine, its registers and its control are spelt out in `systolic_plain` (one numpy plane per register, for small
arrays) and repeated in `systolic_fast` for speed (numba). Nothing here reads the closed forms or the lowering: tiles
are enumerated from the matrices, and every number returned is a count of something that happened.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.timing.reference.systolic_numbers import bf16_to_float64, canonical_nan

COUNTERS = (
    "total",
    "stream",
    "fill",
    "drain",
    "first_shift",
    "weight_shift",
    "output_stall",
    "macs",
    "weight_shift_cycles",
    "streamed_reads",
    "other_reads",
    "psum_writes",
    "psum_reads",
    "output_writes",
)
"""What the steppers count; "other" is the stationary operand, in os the one that enters from the top."""


@dataclass(frozen=True)
class ArrayConfig:
    """One array: its size and the options whose meaning `hwsim.timing.systolic.array_cycles` states."""

    rows: int
    cols: int
    overlap: bool = True
    weight_double_buffer: bool = True
    rows_per_clk: int = 1
    weight_rows_per_clk: int = 1
    clks_per_weight_row: int = 1
    rows_per_stage: int = 1
    accumulator_rows: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            size, least = getattr(self, field.name), int(field.name != "accumulator_rows")
            if field.type == "int" and size < least:
                raise HwsimError(f"systolic array: {field.name} is {size}, expected at least {least}")

    @property
    def stages(self) -> int:
        """Rows of pipeline registers: `rows_per_stage` array rows share one."""
        return len(range(0, self.rows, self.rows_per_stage))


@dataclass(frozen=True)
class Fold:
    """One tile: half-open ranges of the streamed axis and of the axes along the array's rows and columns."""

    step0: int
    step1: int
    row0: int
    row1: int
    col0: int
    col1: int
    first: bool
    last: bool


@dataclass(frozen=True)
class Job:
    """Operands as the array sees them, and its folds.

    ws, is: ``streamed`` (steps, k) meets ``other`` (k, columns). os: ``streamed`` (rows, k) and ``other`` (k,
    columns). Either int32 values with int32 sums or float64 values (exact bf16) with fp32 sums; ``output`` is filled
    by the stepper.
    """

    streamed: npt.NDArray[Any]
    other: npt.NDArray[Any]
    output: npt.NDArray[Any]
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class ArrayRun:
    """Result of a run: ``output`` (m, n) in int32 or fp32 (NaNs canonical), and the counters of DESIGN's per-unit
    activity."""

    output: npt.NDArray[Any]
    total: int
    stream: int
    fill: int
    drain: int
    first_shift: int
    weight_shift: int
    output_stall: int
    macs: int
    weight_shift_cycles: int
    a_reads: int
    b_reads: int
    psum_writes: int
    psum_reads: int
    output_writes: int


def run_array(
    a: npt.NDArray[Any],
    b: npt.NDArray[Any],
    dataflow: str,
    array: ArrayConfig,
    *,
    compiled: bool = False,
    early: int = 0,
) -> ArrayRun:
    """Step an array through ``a`` (m, k) times ``b`` (k, n), both int8, or both uint16 holding bf16 bit patterns.

    ``compiled`` uses numba. ``early`` > 0 is a defect for tests of the control: folds start while that many weight
    rows are still missing (in an array with double-buffered weights), in os that many cycles before the output bus is
    free. Raises HwsimError for operands or a dataflow that the array cannot take.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise HwsimError(f"systolic array: cannot multiply shapes {a.shape} and {b.shape}")
    if a.dtype != b.dtype or a.dtype not in (np.int8, np.uint16):
        raise HwsimError(f"systolic array: operands {a.dtype} and {b.dtype}, expected both int8 or both uint16 (bf16)")
    if dataflow not in ("ws", "os", "is"):
        raise HwsimError(f"dataflow {dataflow!r}: expected ws, os or is{near(dataflow, ('ws', 'os', 'is'))}")
    integers = a.dtype == np.int8
    wide_a, wide_b = (a.astype(np.int32), b.astype(np.int32)) if integers else (bf16_to_float64(a), bf16_to_float64(b))
    if dataflow == "is":  # the same machine on the transposed product
        wide_a, wide_b = wide_b.T, wide_a.T
    output: npt.NDArray[Any] = np.zeros((wide_a.shape[0], wide_b.shape[1]), np.int32 if integers else np.float32)
    tiles = output_folds(wide_a, wide_b, array) if dataflow == "os" else weight_folds(wide_a, wide_b, array)
    job = Job(np.ascontiguousarray(wide_a), np.ascontiguousarray(wide_b), output, tuple(tiles))
    if compiled:
        from hwsim.timing.reference import systolic_fast as stepper
    else:
        from hwsim.timing.reference import systolic_plain as stepper  # type: ignore[no-redef]
    run = stepper.run_output_stationary if dataflow == "os" else stepper.run_stationary
    counts = run(job, array, early)
    streamed_reads, other_reads = counts.pop("streamed_reads"), counts.pop("other_reads")
    if dataflow == "is":
        output, streamed_reads, other_reads = output.T, other_reads, streamed_reads
    return ArrayRun(
        output=output if integers else canonical_nan(output), a_reads=streamed_reads, b_reads=other_reads, **counts
    )


def weight_folds(streamed: npt.NDArray[Any], other: npt.NDArray[Any], array: ArrayConfig) -> list[Fold]:
    """Folds of ws and is: for each accumulator-full of streamed rows, for each column tile, all of k."""
    steps, depth, width = streamed.shape[0], other.shape[0], other.shape[1]
    folds = []
    for step0 in range(0, steps, array.accumulator_rows or steps):
        step1 = min(steps, step0 + (array.accumulator_rows or steps))
        for col0 in range(0, width, array.cols):
            col1 = min(width, col0 + array.cols)
            for row0 in range(0, depth, array.rows):
                row1 = min(depth, row0 + array.rows)
                folds.append(Fold(step0, step1, row0, row1, col0, col1, row0 == 0, row1 == depth))
    return folds


def output_folds(streamed: npt.NDArray[Any], other: npt.NDArray[Any], array: ArrayConfig) -> list[Fold]:
    """Folds of os: each tile of the output once, with the whole of k streamed."""
    height, depth, width = streamed.shape[0], other.shape[0], other.shape[1]
    folds = []
    for col0 in range(0, width, array.cols):
        for row0 in range(0, height, array.rows):
            row1, col1 = min(height, row0 + array.rows), min(width, col0 + array.cols)
            folds.append(Fold(0, depth, row0, row1, col0, col1, True, True))
    return folds
