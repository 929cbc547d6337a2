"""Cycle counts of a systolic array in closed form: folds, weight shift, skew, fill and drain.

The machine these formulas describe is the one `hwsim.timing.reference.systolic_rtl` steps register by register; the
tests hold the two equal, cycle for cycle and access for access. `docs/systolic_array.md` explains it with pictures.

A matmul C[m, n] = A[m, k] B[k, n] is cut into *folds*, each as large as the array of `rows` x `cols` elements:

============ =========== ============ ========== ============================ =======================
dataflow     array rows  array cols   streamed   stays in the array           fold loop, outer → inner
============ =========== ============ ========== ============================ =======================
``ws``       k           n            m          a tile of B                  m chunk, n, k
``is``       k           m            n          a tile of A (transposed)     n chunk, m, k
``os``       m           n            k          a tile of C                  n, m
============ =========== ============ ========== ============================ =======================

Everything is integer arithmetic without branches on the data, so each argument may be a Python int or an int64 array
(they broadcast), and the core functions compile with numba as they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from hwsim.errors import HwsimError, near

Ints: TypeAlias = Any
"""A Python int or a numpy int64 array; flags may likewise be a bool or an array of bools."""

DATAFLOWS = ("ws", "os", "is")


class ArrayCycles(NamedTuple):
    """Cycles of one array, every cycle in exactly one class: ``total`` is the sum of the other six.

    ``stream``: the bottom-left element receives operands. ``fill``: operands have entered but have not reached that
    element (`rows_per_stage` rows a cycle). ``drain``: it is done, the columns to its right are not. ``first_shift``:
    nothing can stream until the first weight tile is in. ``weight_shift``: later folds waiting for their weights.
    ``output_stall``: folds (os) waiting until the column output bus has carried the previous fold's results away.
    """

    total: Ints
    stream: Ints
    fill: Ints
    drain: Ints
    first_shift: Ints
    weight_shift: Ints
    output_stall: Ints


class ArrayActivity(NamedTuple):
    """What one array does during a matmul, in operations, cycles and operand words (padding is never read or written).

    ``macs``: useful multiply-accumulates. ``weight_shift_cycles``: cycles the weight port is in use, hidden or not.
    ``a_reads``, ``b_reads``: words read from the memories that feed the array. ``psum_writes``, ``psum_reads``:
    accumulator words written, and read back to be added to. ``output_writes``: finished words leaving the array or its
    accumulators.
    """

    macs: Ints
    weight_shift_cycles: Ints
    a_reads: Ints
    b_reads: Ints
    psum_writes: Ints
    psum_reads: Ints
    output_writes: Ints


class FoldCount(NamedTuple):
    """Folds of a matmul: ``row_folds`` x ``col_folds`` of them for each of ``chunks`` pieces of the streamed axis."""

    row_folds: Ints
    col_folds: Ints
    chunks: Ints

    @property
    def total(self) -> Ints:
        """Number of folds."""
        return self.row_folds * self.col_folds * self.chunks


def weight_shift_cycles(rows: Ints, weight_rows_per_clk: Ints = 1, clks_per_weight_row: Ints = 1) -> Ints:
    """Cycles to move one tile of weights into the array: always the whole tile, padding included.

    ``weight_rows_per_clk`` rows enter together every ``clks_per_weight_row`` cycles (one of the two is usually 1: a
    wide port, or a narrow one that needs several cycles for a row).
    """
    return -(-rows // weight_rows_per_clk) * clks_per_weight_row


def stationary_cycles(
    steps: Ints,
    folds: Ints,
    rows: Ints,
    cols: Ints,
    overlap: Ints = True,
    weight_double_buffer: Ints = True,
    rows_per_clk: Ints = 1,
    weight_rows_per_clk: Ints = 1,
    clks_per_weight_row: Ints = 1,
    rows_per_stage: Ints = 1,
    chunk_rows: Ints = 0,
) -> ArrayCycles:
    """Cycles of ``folds`` weight tiles one after the other in one array, each streaming ``steps`` rows (ws and is).

    With ``chunk_rows`` > 0 the accumulators hold that many rows: ``steps`` is cut into chunks and every tile is
    shifted in again for each, so there are ``folds`` x ⌈steps / chunk_rows⌉ folds. A fold occupies the array's edge
    for ⌈steps / rows_per_clk⌉ beats; without ``overlap`` also until its last result has left. Its successor starts
    then, or, if later, when its own weights are in: shifted meanwhile (``weight_double_buffer``, beginning with the
    fold's first beat) or afterwards. Without overlap and double buffering a fold takes t + 2·rows + cols − 2 cycles
    (Samajdar et al., ISPASS 2020).
    """
    shift = -(-rows // weight_rows_per_clk) * clks_per_weight_row
    fill = -(-rows // rows_per_stage) - 1
    drain = cols - 1
    chunk = chunk_rows + (chunk_rows == 0) * steps
    full_chunks = steps // chunk
    rest = steps - full_chunks * chunk
    has_rest = 1 * (rest > 0)
    beats = -(-chunk // rows_per_clk)
    rest_beats = -(-rest // rows_per_clk)
    serial = 1 - overlap
    # Cycles of the shift that a fold cannot hide for its successor; max(0, x) is written x * (x > 0) to serve arrays
    # too.
    late = shift - beats - serial * (fill + drain)
    rest_late = shift - rest_beats - serial * (fill + drain)
    gap = shift + weight_double_buffer * (late * (late > 0) - shift)
    rest_gap = shift + weight_double_buffer * (rest_late * (rest_late > 0) - shift)
    runs = overlap + serial * folds * (full_chunks + has_rest)
    stream = folds * (full_chunks * beats + has_rest * rest_beats)
    exposed = folds * (full_chunks * gap + has_rest * rest_gap) - (gap + has_rest * (rest_gap - gap))
    total = shift + exposed + stream + runs * (fill + drain)
    return ArrayCycles(total, stream, runs * fill, runs * drain, shift + 0 * total, exposed, 0 * total)


def output_stationary_cycles(
    steps: Ints,
    folds: Ints,
    rows: Ints,
    cols: Ints,
    overlap: Ints = True,
    rows_per_clk: Ints = 1,
    rows_per_stage: Ints = 1,
) -> ArrayCycles:
    """Cycles of ``folds`` output tiles one after the other in one array, each accumulating ``steps`` products (os).

    Every column has one output bus which carries one stage's finished results a cycle, so with ``overlap`` two folds
    start at least ⌈rows / rows_per_stage⌉ cycles apart. Without overlap a fold takes t + rows + cols − 2 cycles
    (Samajdar et al., ISPASS 2020).
    """
    fill = -(-rows // rows_per_stage) - 1
    drain = cols - 1
    beats = -(-steps // rows_per_clk)
    late = fill + 1 - beats
    stall = (folds - 1) * overlap * late * (late > 0)
    runs = overlap + (1 - overlap) * folds
    stream = folds * beats
    total = stream + stall + runs * (fill + drain)
    return ArrayCycles(total, stream, runs * fill, runs * drain, 0 * total, 0 * total, stall + 0 * total)


def fold_axes(dataflow: str, m: Ints, n: Ints, k: Ints) -> tuple[Ints, Ints, Ints]:
    """The extents laid along the array's rows, along its columns, and streamed through it.

    Raises HwsimError for an unknown dataflow.
    """
    if dataflow == "ws":
        return k, n, m
    if dataflow == "is":
        return k, m, n
    if dataflow == "os":
        return m, n, k
    raise HwsimError(f"dataflow {dataflow!r}: expected one of {', '.join(DATAFLOWS)}{near(dataflow, DATAFLOWS)}")


def fold_count(
    dataflow: str, m: Ints, n: Ints, k: Ints, rows: Ints, cols: Ints, *, accumulator_rows: Ints = 0
) -> FoldCount:
    """Number of folds of an (m, n, k) matmul on a rows x cols array.

    ``accumulator_rows`` bounds the streamed rows in flight in ws and is (0: unbounded; os has no such memory). Raises
    HwsimError for an unknown dataflow or a size below 1.
    """
    _require_at_least(1, m=m, n=n, k=k, rows=rows, cols=cols)
    _require_at_least(0, accumulator_rows=accumulator_rows)
    along_rows, along_cols, steps = fold_axes(dataflow, m, n, k)
    chunk = accumulator_rows + (accumulator_rows == 0) * steps
    chunks = 1 if dataflow == "os" else -(-steps // chunk)
    return FoldCount(-(-along_rows // rows), -(-along_cols // cols), chunks)


def array_cycles(
    dataflow: str,
    m: Ints,
    n: Ints,
    k: Ints,
    rows: Ints,
    cols: Ints,
    *,
    overlap: Ints = True,
    weight_double_buffer: Ints = True,
    rows_per_clk: Ints = 1,
    weight_rows_per_clk: Ints = 1,
    clks_per_weight_row: Ints = 1,
    rows_per_stage: Ints = 1,
    accumulator_rows: Ints = 0,
) -> ArrayCycles:
    """Cycles of C[m, n] = A[m, k] B[k, n] on one rows x cols array, operands always ready at its edge.

    ``rows_per_clk``: steps of the streamed axis that enter together each cycle. ``rows_per_stage``: array rows whose
    products one adder takes together, hence rows that share a cycle of skew. ``accumulator_rows``: rows (is: columns)
    of C the accumulators hold, 0 for unbounded; a longer stream is cut. The weight options and the accumulators do not
    exist in os. Raises HwsimError for an unknown dataflow or a size below 1.
    """
    _require_at_least(
        1,
        rows_per_clk=rows_per_clk,
        weight_rows_per_clk=weight_rows_per_clk,
        clks_per_weight_row=clks_per_weight_row,
        rows_per_stage=rows_per_stage,
    )
    count = fold_count(dataflow, m, n, k, rows, cols, accumulator_rows=accumulator_rows)
    folds = count.row_folds * count.col_folds
    steps = fold_axes(dataflow, m, n, k)[2]
    if dataflow == "os":
        return output_stationary_cycles(steps, folds, rows, cols, overlap, rows_per_clk, rows_per_stage)
    return stationary_cycles(
        steps,
        folds,
        rows,
        cols,
        overlap,
        weight_double_buffer,
        rows_per_clk,
        weight_rows_per_clk,
        clks_per_weight_row,
        rows_per_stage,
        accumulator_rows,
    )


def array_activity(
    dataflow: str,
    m: Ints,
    n: Ints,
    k: Ints,
    rows: Ints,
    cols: Ints,
    *,
    weight_rows_per_clk: Ints = 1,
    clks_per_weight_row: Ints = 1,
    accumulator_rows: Ints = 0,
) -> ArrayActivity:
    """Operations and operand accesses of the matmul whose cycles `array_cycles` counts.

    Its other options change none of them. Raises HwsimError for an unknown dataflow or a size below 1.
    """
    _require_at_least(1, weight_rows_per_clk=weight_rows_per_clk, clks_per_weight_row=clks_per_weight_row)
    row_folds, col_folds, chunks = count = fold_count(dataflow, m, n, k, rows, cols, accumulator_rows=accumulator_rows)
    outputs = m * n
    if dataflow == "os":
        none = 0 * outputs * row_folds
        return ArrayActivity(outputs * k, none, m * k * col_folds, k * n * row_folds, none, none, outputs)
    shift = count.total * weight_shift_cycles(rows, weight_rows_per_clk, clks_per_weight_row)
    a_times, b_times = (col_folds, chunks) if dataflow == "ws" else (chunks, col_folds)
    return ArrayActivity(
        outputs * k, shift, m * k * a_times, k * n * b_times, outputs * row_folds, outputs * (row_folds - 1), outputs
    )


@dataclass(frozen=True)
class AccumulationOrder:
    """Order in which every output element of a matmul adds its k products (the same for all elements).

    A chain starts from +0 and takes its groups in order, ``psum = round(psum + exact sum of the group's products)``;
    the first chain's psum is written to the accumulator, each further one is added to it with one rounding.
    """

    k: int
    chain: int
    group: int
    k_folds: tuple[int, ...]

    def chains(self) -> Iterator[tuple[int, int]]:
        """Half-open k ranges of the chains, in the order in which they reach the accumulator."""
        for fold in self.k_folds:
            yield fold * self.chain, min(self.k, (fold + 1) * self.chain)

    def groups(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Half-open k ranges, within the chain [start, stop), of products that are added with one rounding.

        The chain of a partial fold is as long as any other: its empty ranges are padding, which adds +0 (and so turns
        a partial sum of -0 into +0).
        """
        for first in range(start, start + self.chain, self.group):
            yield min(stop, first), min(stop, first + self.group)


def accumulation_order(
    dataflow: str,
    k: int,
    rows: int,
    *,
    rows_per_stage: int = 1,
    rows_per_clk: int = 1,
    k_folds: Sequence[int] | None = None,
) -> AccumulationOrder:
    """Order of accumulation over ``k`` of an array with ``rows`` rows.

    ``k_folds`` is the order of the k folds where it is not ascending. ws and is: one chain per k fold, down the
    column, grouped by stage (``rows_per_stage`` = 4 is the four-product adder of TPU v4i and later, Jouppi et al. ISCA
    2021; the rest of the model is declared, not documented by the vendor). os: one chain, grouped by what enters in
    one cycle. Raises HwsimError when ``k_folds`` is not a permutation of the folds.
    """
    _require_at_least(1, k=k, rows=rows, rows_per_stage=rows_per_stage, rows_per_clk=rows_per_clk)
    fold_axes(dataflow, 1, 1, 1)
    chain, group = (k, rows_per_clk) if dataflow == "os" else (rows, rows_per_stage)
    folds = tuple(range(-(-k // chain)))
    order = folds if k_folds is None else tuple(k_folds)
    if sorted(order) != list(folds):
        raise HwsimError(f"k_folds {list(order)}: expected an ordering of the {len(folds)} folds 0 … {len(folds) - 1}")
    return AccumulationOrder(k, chain, group, order)


def _require_at_least(minimum: int, **sizes: Ints) -> None:
    for name, size in sizes.items():
        smallest = size.min(initial=minimum) if hasattr(size, "min") else size
        if smallest < minimum:
            raise HwsimError(f"systolic array: {name} is {smallest}, expected at least {minimum}")
