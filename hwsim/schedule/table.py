"""The schedule: a bounded loop nest per kernel, as a table read by timing, energy and arithmetic.

A *row* is one class of work of one *stage* of a kernel on one unit. Its loops walk named axes; the first ``depth`` of
them are issued one after the other (the unit gets a piece of work per iteration), the others run inside one issue.
Partial tiles are rows of their own: the rows of one stage tile its iteration space without overlap, so that a kernel
has a few dozen rows however large the layer is. `expand` enumerates the instances one by one for the slow twins.

Columns (one value per row unless a second axis is given)
    kernel, stage     which kernel, and which stage of it (stages are in program order, first to last)
    unit, lanes       unit code (`UNITS`), and how many copies of it share one issue
    depth, at_end     loops outside an issue; whether a stage shallower than the nest issues at the end of the inner
                      loops (a store) rather than at their beginning (a load)
    axis[L]           axis code of each loop (`AXES`); unused loops are axis NONE with one trip
    first[L], trips[L]  index range [first, first + trips) of each loop this row covers
    stride[L]         elements of its axis that one index of each loop stands for, so that a tile begins at the sum of
                      index x stride over the loops of an axis (a split walks k)
    bend[4]           (loop, outer loop, trips step, first step): per index of ``outer loop``, ``loop`` has so many
                      more trips and begins so much later (causal attention, growing caches); loop -1 for none
    extent[3], padded[3]  useful and padded m, n, k of one instance
    op, format        operation code (`OPERATIONS`) and number format code of the work
    span[4]           streamed m, n, k and taps of one whole issue (matrix rows: what its folds cover)
    beat              clocks one streamed row occupies the unit, in 64ths (64 is one clock; narrow formats take less)
    piped             1 where the compiler keeps several windows of a kernel in flight over all its cores
    ops, issued       useful operations per instance, and operations the unit spends on it (padding, passes)
    bytes[4]          bytes per transfer of operands A, B, C and metadata
    refetch[4]        loops outside which the operand is moved once: depth d means one transfer per iteration of the
                      first d loops (0: once per kernel)
    source[4], target[4]  memory level codes an operand comes from and goes to
    buffers           issues of this stage whose result may be waiting or in use at once
    dep[4], lag[4]    stages this one waits for (-1 none), and how many issues back
    cause             what a wait for this stage is called (`CAUSES`)
    awaits            0: nothing outside the kernel; 1: the kernels that produce its input; 2: the kernel before it
    first_of_k        1: instances with every k loop at its first index start an accumulation, and read no partial sum
                      (each index of a split has its own accumulation); 0: they too add to what is there
    reduce[3]         how a product's k elements are summed: those added with one rounding (instruction K, adder
                      stage), those chained before the chain is added to the accumulator (0: it runs on from instance
                      to instance), and the accumulator's number format code
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.formats import FORMATS

LOOPS = 8
AXES = ("none", "batch", "m", "n", "k", "split", "head", "step")
UNITS = ("dispatch", "dma", "matrix", "vector", "store", "link", "cpu", "dla", "shift", "convert")
OPERATIONS = ("none", "mac", "alu", "special", "convert", "copy")
OPERANDS = ("a", "b", "c", "meta")
LEVELS = ("none", "dram", "shared", "local", "fifo", "accumulator", "register", "host", "array")
ENGINE_CAUSES = (
    "none", "dispatch", "weight_fetch", "weight_shift", "activation_fetch", "accumulator", "vector_unit", "store",
    "matrix", "conversion", "link",
)  # fmt: skip
# The pipeline engine knows the first ones; families timed in closed form name their own waits too.
CAUSES = (
    *ENGINE_CAUSES, "launch", "tail", "dram", "l2", "shared_memory", "latency", "epilogue", "issue", "cache", "interpreter",
    "host", "streaming", "communication", "flash",
)  # fmt: skip

AXIS = {name: code for code, name in enumerate(AXES)}
UNIT = {name: code for code, name in enumerate(UNITS)}
OPERATION = {name: code for code, name in enumerate(OPERATIONS)}
LEVEL = {name: code for code, name in enumerate(LEVELS)}
FORMAT = {name: code for code, name in enumerate(FORMATS)}
CAUSE = {name: code for code, name in enumerate(CAUSES)}

Ints = npt.NDArray[np.int64]

_COLUMNS: dict[str, tuple[int, int | tuple[int, ...]]] = {  # name: (width, value of an unset row)
    "kernel": (1, 0), "stage": (1, 0), "unit": (1, 0), "lanes": (1, 1), "depth": (1, 0), "at_end": (1, 0),
    "axis": (LOOPS, 0), "first": (LOOPS, 0), "trips": (LOOPS, 1), "stride": (LOOPS, 0),
    "bend": (4, (-1, -1, 0, 0)),
    "extent": (3, 1), "padded": (3, 1), "span": (4, 1), "beat": (1, 64),
    "piped": (1, 0), "op": (1, 0), "format": (1, 0), "ops": (1, 0), "issued": (1, 0),
    "bytes": (4, 0), "refetch": (4, 0), "source": (4, 0), "target": (4, 0),
    "buffers": (1, 2), "dep": (4, -1), "lag": (4, 0), "cause": (1, 0), "awaits": (1, 0), "first_of_k": (1, 1),
    "reduce": (3, (1, 0, 0)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of work: its kernel, stage, row of the table, and loop indices (outermost first)."""

    kernel: int
    stage: int
    row: int
    index: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """The table: columns by name, ``starts[k] : starts[k + 1]`` the rows of kernel ``k``, and who feeds whom.

    ``patterns[k]`` is the first kernel with the rows of kernel ``k``, ``producers[k]`` those whose results it reads.
    """

    columns: Mapping[str, Ints]
    starts: Ints
    producers: tuple[tuple[int, ...], ...] = field(default=())
    names: tuple[str, ...] = field(default=())
    patterns: tuple[int, ...] = field(default=())

    def __getattr__(self, name: str) -> Ints:
        # Only columns: an object being unpickled has none yet, and must not look for them here.
        columns = self.__dict__.get("columns", {})
        if name not in columns:
            raise AttributeError(name)
        return columns[name]  # type: ignore[no-any-return]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    @property
    def kernels(self) -> int:
        """Number of kernels."""
        return len(self.starts) - 1

    def iterations(self) -> Ints:
        """Iterations of each row's first d loops, d = 0 … LOOPS (rows x LOOPS + 1); an affine loop is summed."""
        trips, bend = self.columns["trips"], self.columns["bend"]
        out = np.concatenate([np.ones((len(trips), 1), np.int64), np.cumprod(trips, axis=1)], axis=1)
        for row in np.flatnonzero(bend[:, 0] >= 0):
            loop, outer, step = (int(v) for v in bend[row, :3])
            first = int(self.columns["first"][row, outer])
            indices = np.arange(first, first + int(trips[row, outer]))
            both = int((trips[row, loop] + step * indices).sum())
            for depth in range(loop + 1, LOOPS + 1):
                others = [int(trips[row, level]) for level in range(depth) if level not in (loop, outer)]
                out[row, depth] = both * math.prod(others)
        return out

    def instances(self) -> Ints:
        """Instances of each row."""
        out: Ints = self.iterations()[:, LOOPS]
        return out

    def transfers(self) -> Ints:
        """Transfers of each row's operands A, B, C, metadata: iterations of the loops outside which each is moved."""
        return np.take_along_axis(self.iterations(), self.columns["refetch"], axis=1)

    def moved_bytes(self) -> Ints:
        """Bytes each row moves per operand over the whole kernel."""
        out: Ints = self.transfers() * self.columns["bytes"]
        return out

    def issues(self) -> Ints:
        """Issues of each row: iterations of the loops outside an issue."""
        return np.take_along_axis(self.iterations(), self.columns["depth"][:, None], axis=1)[:, 0]

    def inner(self) -> Ints:
        """Instances inside one issue of each row (the most there are where an affine loop makes them differ)."""
        depth, bend = self.columns["depth"], self.columns["bend"]
        trips = self.columns["trips"].copy()
        outside = np.arange(LOOPS)[None, :] < depth[:, None]
        for row in np.flatnonzero(bend[:, 0] >= 0):
            loop, outer, step = (int(v) for v in bend[row, :3])
            count, first = int(trips[row, outer]), int(self.columns["first"][row, outer])
            if depth[row] <= outer:  # the whole triangle is in one issue
                both = int((trips[row, loop] + step * np.arange(first, first + count)).sum())
                trips[row, outer], trips[row, loop] = 1, both
            else:
                trips[row, loop] += max(step * first, step * (first + count - 1))
        out: Ints = np.where(outside, 1, trips).prod(axis=1)
        return out

    def origin(self, instance: Instance) -> dict[str, int]:
        """First element of an instance's tile along every axis its row walks; a split counts as k."""
        out: dict[str, int] = {}
        row = instance.row
        for axis, stride, index in zip(
            self.columns["axis"][row], self.columns["stride"][row], instance.index, strict=True
        ):
            name = "k" if AXES[axis] == "split" else AXES[axis]
            out[name] = out.get(name, 0) + int(stride) * index
        out.pop("none", None)
        return out

    def expand(self, kernel: int) -> Iterator[Instance]:
        """Yield every instance of ``kernel``, stage by stage, each in loop order: slow, for twins and timelines."""
        lo, hi = int(self.starts[kernel]), int(self.starts[kernel + 1])
        stages = self.columns["stage"][lo:hi]
        for stage in dict.fromkeys(int(s) for s in stages):
            rows = [self._instances_of(kernel, stage, lo + int(i)) for i in np.flatnonzero(stages == stage)]
            yield from heapq.merge(*rows, key=lambda i: i.index)

    def _instances_of(self, kernel: int, stage: int, row: int) -> Iterator[Instance]:
        first, trips, bend = ([int(v) for v in self.columns[name][row]] for name in ("first", "trips", "bend"))
        for index in _walk(first, trips, bend, ()):
            yield Instance(kernel, stage, row, index)


def _walk(
    first: Sequence[int], trips: Sequence[int], bend: Sequence[int], index: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    level = len(index)
    if level == LOOPS:
        yield index
        return
    loop, outer, step, first_step = bend
    bent = index[outer] if level == loop else 0
    begin = first[level] + first_step * bent
    for i in range(begin, begin + trips[level] + step * bent):
        yield from _walk(first, trips, bend, (*index, i))


class ScheduleBuilder:
    """Collects rows and makes the table; every value not given has the column's default.

    A kernel equal to an earlier one is added by `repeat`, which costs nothing: only distinct rows are stored.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._order: list[int] = []
        self._starts = [0]
        self._patterns: list[int] = []
        self._pattern = -1
        self._producers: list[tuple[int, ...]] = []
        self._names: list[str] = []

    def row(self, **values: Any) -> None:
        """Add a row to the current kernel; wide columns take a sequence (shorter ones are padded with the default)."""
        if not values.keys() <= _COLUMNS.keys():
            raise ValueError(f"unknown schedule columns {sorted(values.keys() - _COLUMNS.keys())}")
        self._order.append(len(self._rows))
        self._rows.append(values)
        self._pattern = -1

    def repeat(self, kernel: int) -> None:
        """Add the rows of an earlier ``kernel`` to the current one."""
        empty = len(self._order) == self._starts[-1]
        self._order += self._order[self._starts[kernel] : self._starts[kernel + 1]]
        self._pattern = self._patterns[kernel] if empty else -1

    def end_kernel(self, name: str = "", producers: Sequence[int] = ()) -> int:
        """Close the current kernel, which reads the results of ``producers``; return its number."""
        number = len(self._names)
        self._patterns.append(number if self._pattern < 0 else self._pattern)
        self._pattern = -1
        self._producers.append(tuple(producers))
        self._starts.append(len(self._order))
        self._names.append(name)
        return number

    def build(self) -> Schedule:
        """Return the table."""
        columns: dict[str, Ints] = {}
        order = np.array(self._order, dtype=np.int64)
        starts = np.array(self._starts, dtype=np.int64)
        given: dict[str, tuple[list[int], list[Any]]] = {name: ([], []) for name in _COLUMNS}
        for number, row in enumerate(self._rows):
            for name, value in row.items():
                at, values = given[name]
                at.append(number)
                values.append(value)
        for name, (width, default) in _COLUMNS.items():
            at, values = given[name]
            if width == 1:
                column = np.full(len(self._rows), default, dtype=np.int64)
                column[at] = values
                columns[name] = column[order]
                continue
            filling = default if isinstance(default, tuple) else (default,) * width
            flat: list[int] = []
            for value in values:
                if isinstance(value, tuple | list):
                    flat += value
                    flat += filling[len(value) :]
                else:
                    flat += (value,) * width
            if len(flat) != width * len(values):
                raise ValueError(f"schedule column {name} takes at most {width} values per row")
            wide = np.tile(np.array(filling, dtype=np.int64), (len(self._rows), 1))
            wide[at] = np.array(flat, dtype=np.int64).reshape(-1, width)
            columns[name] = wide[order]
        columns["kernel"] = np.repeat(np.arange(len(self._names), dtype=np.int64), np.diff(starts))
        return Schedule(columns, starts, tuple(self._producers), tuple(self._names), tuple(self._patterns))
