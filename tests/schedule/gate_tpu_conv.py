"""Prototype: a convolution on a weight-stationary array as implicit matmul, tap row by tap row.

m walks output pixels in chunks of whole output rows, n output channels, k the elements of the kernel window in the
order (kernel row, kernel column, channel): a kernel row's columns and channels lie side by side in memory, so the two k
loops are the kernel row and a cut of what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate_common import Cut, classes

from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

ELEMENT = 2  # bf16
WORD = 4  # fp32 accumulators


@dataclass(frozen=True)
class Conv:
    """One image, square, zero padding the same on all sides."""

    size: int
    c: int
    n: int
    window: int
    stride: int
    pad: int

    @property
    def out(self) -> int:
        return (self.size + 2 * self.pad - self.window) // self.stride + 1

    @property
    def m(self) -> int:
        return self.out**2

    @property
    def k(self) -> int:
        return self.window**2 * self.c


def input_rows(conv: Conv, first: int, last: int) -> int:
    """Input rows that output rows ``first`` … ``last`` read, without padding."""
    low = max(0, first * conv.stride - conv.pad)
    high = min(conv.size, last * conv.stride - conv.pad + conv.window)
    return high - low


def lower(conv: Conv, rows: int, cols: int, chunk_rows: int) -> Schedule:
    """The schedule of ``conv`` on a rows x cols array, ``chunk_rows`` output rows at a time."""
    tall, wide, deep = Cut(conv.out, chunk_rows), Cut(conv.n, cols), Cut(conv.window * conv.c, rows)
    m_pieces = [(first, trips, extent * conv.out) for first, trips, extent in tall.pieces()]
    taps = [(0, conv.window, 1)]
    axis = (AXIS["n"], AXIS["m"], AXIS["k"], AXIS["k"])
    stride = (cols, chunk_rows * conv.out, conv.window * conv.c, rows)
    table = ScheduleBuilder()
    nest = {"axis": axis, "stride": stride, "format": FORMAT["bf16"]}
    table.row(**nest, stage=0, unit=UNIT["dispatch"], buffers=0, cause=CAUSE["dispatch"], awaits=2)
    # The first and the last chunk read less of the image: there is padding beside them.
    last = tall.count - 1
    spans = {(0, 1), (1, last - 1), (last, 1)} if last else {(0, 1)}
    for first, trips in sorted(span for span in spans if span[1] > 0):
        low = first * chunk_rows
        high = min(conv.out, low + chunk_rows) - 1
        table.row(
            **nest, stage=1, unit=UNIT["dma"], depth=2, first=(0, first), trips=(wide.count, trips), awaits=1,
            op=OPERATION["copy"], bytes=(input_rows(conv, low, high) * conv.size * conv.c * ELEMENT,), refetch=(2,),
            source=LEVEL["dram"], target=LEVEL["shared"], buffers=2, dep=(0,), cause=CAUSE["activation_fetch"],
        )  # fmt: skip
    weights = {"op": OPERATION["copy"], "refetch": (0, 4), "buffers": 2, "trips": 1}
    for first, trips, (n, _, _, k) in classes(wide.pieces(), [(0, tall.count, 0)], taps, deep.pieces()):
        table.row(
            **{**nest, **weights, "first": first, "trips": trips}, stage=2, unit=UNIT["dma"], depth=4,
            bytes=(0, n * k * ELEMENT), source=LEVEL["dram"], target=LEVEL["fifo"], cause=CAUSE["weight_fetch"],
        )  # fmt: skip
    table.row(
        **{**nest, **weights, "trips": (wide.count, tall.count, conv.window, deep.count)}, stage=3, unit=UNIT["shift"],
        depth=4, bytes=(0, rows * cols * ELEMENT), source=LEVEL["fifo"], target=LEVEL["array"], dep=(2,),
        cause=CAUSE["weight_shift"],
    )  # fmt: skip
    for first, trips, (n, m, _, k) in classes(wide.pieces(), m_pieces, taps, deep.pieces()):
        table.row(
            **nest, stage=4, unit=UNIT["matrix"], depth=4, first=first, trips=trips, extent=(m, n, k),
            padded=(m, cols, rows), op=OPERATION["mac"], ops=m * n * k, issued=m * cols * rows,
            bytes=(m * k * ELEMENT, 0, m * n * WORD), refetch=4, source=(LEVEL["shared"], 0, LEVEL["array"]),
            target=(LEVEL["array"], 0, LEVEL["accumulator"]), buffers=0, dep=(1, 3, 5), lag=(0, 0, 1),
            cause=CAUSE["matrix"], reduce=(1, rows, FORMAT["fp32"]),
        )  # fmt: skip
    for stage, unit, source, target in ((5, "vector", "accumulator", "shared"), (6, "store", "shared", "dram")):
        for first, trips, (n, m) in classes(wide.pieces(), m_pieces):
            table.row(
                **nest, stage=stage, unit=UNIT[unit], depth=2, at_end=1, first=first, trips=trips, extent=(m, n, 1),
                padded=(m, cols, 1), op=OPERATION["alu" if unit == "vector" else "copy"], ops=m * n, issued=m * cols,
                bytes=(0, 0, m * n * ELEMENT), refetch=(0, 0, 2), source=LEVEL[source], target=LEVEL[target],
                buffers=2, dep=(stage - 1,), cause=CAUSE["vector_unit" if unit == "vector" else "store"],
            )  # fmt: skip
    table.end_kernel("conv")
    return table.build()
