"""Reading of a GPU's schedule rows as time: every kernel from what its rows say, not from how it was chosen.

Columns are gathered per kernel (see `hwsim.schedule.gpu_lower` for what they hold), then products, attention and kernels
without products are timed together, each by the model that also ranks candidates, with the bytes of the rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.formats import FORMATS
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, Schedule
from hwsim.timing.gpu_attention import BOUNDS as ATTENTION_BOUNDS
from hwsim.timing.gpu_attention import Grid, grid_times
from hwsim.timing.gpu_cost import Parts, Rows, cost
from hwsim.timing.gpu_decode import BOUNDS as DECODE_BOUNDS
from hwsim.timing.gpu_decode import Stream, stream_times
from hwsim.timing.gpu_gemm import LIMITERS, limiters
from hwsim.timing.gpu_kind import BULK
from hwsim.timing.gpu_memory import BOUNDS as VECTOR_BOUNDS
from hwsim.timing.gpu_memory import VectorWork, transform_seconds, vector_times

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DRAM, L2, LOCAL, REGISTER = (LEVEL[name] for name in ("dram", "shared", "local", "register"))
PARTS: tuple[str, ...] = ("launch", "latency", "main", "tail", "reduce")
FORMAT_NAMES = {code: name for name, code in FORMAT.items()}


class Reading(NamedTuple):
    """What one kernel takes: seconds of one step by part, over ``repeat`` steps, and what limits it on which pipe."""

    pipe: str
    limiter: str
    repeat: int
    times: dict[str, float]


def read_rows(schedule: Schedule, view: GpuView, launch_s: float) -> list[Reading | None]:
    """Return the reading of every kernel; None for one that ran elsewhere (a DLA). ``launch_s`` is a start's time."""
    if not schedule.kernels:
        return []
    table = _Table(schedule)
    found: dict[int, Reading] = {}
    distinct = np.array(sorted(set(schedule.patterns)), np.int64)
    product = table.product[distinct] >= 0
    attention = table.attention[distinct] >= 0
    work = table.work[distinct] >= 0
    found |= _products(table, view, distinct[product], launch_s)
    found |= _attentions(table, view, distinct[attention & ~product], launch_s)
    found |= _vectors(table, view, distinct[work & ~attention & ~product], launch_s)
    return [found.get(pattern) for pattern in schedule.patterns]


class _Table:
    """Per-kernel sums and first rows of a schedule, every array [kernel] (of one step of a recurrence)."""

    def __init__(self, schedule: Schedule) -> None:
        s = self.s = schedule
        self.kernels = schedule.kernels
        self.iterations = s.iterations()
        moved = np.take_along_axis(self.iterations, s.refetch, axis=1) * s.bytes
        self.instances = self.iterations[:, -1].astype(np.float64)
        dispatch = s.unit == UNIT["dispatch"]
        self.ctas = self.sum(dispatch, s.ops)
        self.steps = self.sum(dispatch, self.instances)
        copy = s.op == OPERATION["copy"]
        streams = copy & (s.cause == CAUSE["streaming"]) & (s.source[:, 0] == DRAM)
        self.streams = np.flatnonzero(streams)
        self.moved = moved
        self.loads = copy & ~streams & (s.source[:, 0] == DRAM)
        self.saves = copy & (s.target[:, 2] == DRAM)
        self.fetches = copy & (s.source[:, 0] == L2) & ~self.saves
        self.stores = copy & ~streams & (s.target[:, 2] == L2) & (s.source[:, 2] == REGISTER)
        mac = (s.op == OPERATION["mac"]) & (s.unit != UNIT["dla"])
        self.feeds = self.fetches & (s.target[:, 0] == LOCAL)
        self.mac = mac
        self.product_rows = mac & (s.source[:, 0] == LOCAL)
        self.attention_rows = mac & (s.source[:, 0] == REGISTER) & (s.source[:, 1] == LOCAL)
        self.product = self.first(self.product_rows)
        self.attention = self.first(self.attention_rows)
        self.work = self.first((s.unit == UNIT["vector"]) & (s.span[:, 0] > 1))
        self.alu = (s.op == OPERATION["alu"]) & (s.unit == UNIT["vector"])
        self.special = (s.op == OPERATION["special"]) & (s.unit == UNIT["vector"])

    def sum(self, rows: Bools, values: Any) -> Floats:
        """Sum of ``values`` over some rows of each kernel."""
        weights = np.asarray(values, np.float64)[rows]
        out: Floats = np.bincount(self.s.kernel[rows], weights=weights, minlength=self.kernels).astype(np.float64)
        return out

    def each(self, rows: Bools, values: Any) -> Floats:
        """`sum`, of one step."""
        return self.sum(rows, values) / np.maximum(self.steps, 1)

    def first(self, rows: Bools) -> Ints:
        """The first of some rows in each kernel, -1 where it has none."""
        out = np.full(self.kernels, -1, np.int64)
        at = np.flatnonzero(rows)[::-1]
        out[self.s.kernel[at]] = at
        return out

    def last(self, rows: Bools) -> Ints:
        """The last of some rows in each kernel, -1 where it has none."""
        out = np.full(self.kernels, -1, np.int64)
        at = np.flatnonzero(rows)
        out[self.s.kernel[at]] = at
        return out

    def most(self, rows: Bools, values: Any) -> Ints:
        """The largest of ``values`` over some rows of each kernel (0 where it has none)."""
        out = np.zeros(self.kernels, np.int64)
        np.maximum.at(out, self.s.kernel[rows], np.asarray(values)[rows])
        return out

    def reach(self, rows: Bools, axes: tuple[str, ...], extent: int) -> Ints:
        """How far along an axis the tiles of some rows reach: the size of the product there."""
        s = self.s
        walks = np.isin(s.axis, [AXIS[a] for a in axes])
        end = np.where(walks, (s.first + s.trips - 1) * s.stride, 0).sum(axis=1) + s.extent[:, extent]
        return self.most(rows, end)

    def count(self, rows: Bools, axis: str) -> Ints:
        """Iterations of the loops of one axis, over all rows that share it."""
        s = self.s
        ends = np.where(s.axis == AXIS[axis], s.first + s.trips, 1).prod(axis=1)
        return np.maximum(1, self.most(rows, ends))


def _products(table: _Table, view: GpuView, kernels: Ints, launch_s: float) -> dict[int, Reading]:
    if not len(kernels):
        return {}
    s, at = table.s, table.product[kernels]
    feed = table.first(table.feeds)[kernels]
    m, n = (table.reach(table.product_rows, (axis,), i)[kernels] for i, axis in enumerate(("m", "n")))
    k = table.reach(table.product_rows, ("k", "split"), 2)[kernels]
    batch, split = (table.count(table.product_rows, axis)[kernels] for axis in ("batch", "split"))
    tm, tn, tk = s.padded[at].T.astype(np.float64)
    parts = s.span[feed]
    t: dict[str, Any] = {"m": s.padded[at, 0], "n": s.padded[at, 1], "k": s.padded[at, 2], "stages": s.buffers[at]}
    t |= dict(zip(("unit_m", "unit_n", "warps", "slices"), s.span[at].T, strict=True))
    t |= dict(zip(("split_a", "split_b", "share_a", "share_b"), parts.T, strict=True))
    t["occupancy"] = s.piped[at]
    sparse = s.bytes[at, 3] > 0
    density = np.where(sparse, 0.5, 1.0)
    a_bits = 8 * s.bytes[at, 0] * parts[:, 0] / (tm * tk)
    width = 8 * s.bytes[at, 1] * parts[:, 1] / (tn * tk) / density  # of B as multiplied
    area = s.extent[feed, 1] * s.extent[feed, 2]
    b_bits = 8 * s.bytes[feed, 1] * parts[:, 1] * parts[:, 3] / area / density
    results = m * n * batch
    # Of a split, the sum's store is the last of the kernel's stores.
    summed = s.bytes[table.last(table.stores)[kernels], 2]
    c_bits = 8 * np.where(split > 1, summed, table.each(table.stores, table.moved[:, 2])[kernels]) / results
    load = table.first(table.loads)[kernels]
    crossing = s.bytes[load].astype(np.float64)
    dram_c = table.each(table.saves, table.moved[:, 2])[kernels]
    fused = table.fetches & (s.target[:, 0] == REGISTER)
    extra = s.bytes[table.first(fused)[kernels], 2].astype(np.float64)
    lanes = view.simt_macs["fp32"] * view.constants["issue_efficiency"]
    epilogue = s.at_end == 1
    sums = np.where(split > 1, results * split, 0)
    alu = table.each(table.alu & epilogue, table.instances * s.ops)[kernels] - sums
    special = table.each(table.special & epilogue, table.instances * s.ops)[kernels]
    cycles = (alu / lanes + special / view.special_per_clk) / results
    zero = np.zeros(len(kernels))
    rows = Rows(m, n, k, batch, zero, zero, zero, zero, zero, extra, 1 - crossing[:, 2] / np.maximum(extra, 1), cycles)
    rate = 64 * tm * tn * tk / s.beat[at]
    tensor = s.unit[at] == UNIT["matrix"]
    widens = width > b_bits * 1.01
    own = np.array([FORMATS[FORMAT_NAMES[int(code)]].width for code in s.format[at]])
    scaled = tensor & (a_bits > own * 1.02) & (own <= 8) & ~widens  # an element brings its part of a block's scale
    found: dict[int, Reading] = {}
    streams = _streams(table, view)
    flags = np.stack([tensor, sparse, widens, scaled], axis=1)
    for group in {tuple(map(bool, row)) for row in flags.tolist()}:
        mine = np.flatnonzero((flags == group).all(axis=1))
        kind: Any = _Kind(
            "tensor" if group[0] else "simt", view.tensor_kind if group[0] else "simt", rate[mine], a_bits[mine],
            b_bits[mine], c_bits[mine], width[mine], group[1], widened=group[2], scaled=group[3],
        )  # fmt: skip
        columns: list[Any] = [x[mine] for x in rows]
        part = Rows(*columns)
        moved = crossing[mine, 0], crossing[mine, 1], dram_c[mine]
        tile = {name: v[mine] for name, v in t.items()}
        p = cost(view, kind, tile, split[mine], part, "none", np.full(len(mine), view.clock_hz), moved)
        found |= _product_readings(table, kernels[mine], kind, p, launch_s, streams)
    return found


class _Kind(NamedTuple):
    """`GemmKind` with its numbers as arrays."""

    pipe: str
    instruction: str
    rate: Any
    a_bits: Any
    b_bits: Any
    c_bits: Any
    compute_bits: Any
    sparse: bool
    widened: bool
    scaled: bool = False
    parts: int = 1 << 30  # a schedule is as it is

    @property
    def bulk(self) -> bool:
        return self.instruction in BULK

    @property
    def widens(self) -> bool:
        return self.widened


def _streams(table: _Table, view: GpuView) -> dict[int, tuple[int, float]]:
    """Kernels with transforms around their product: how many, and their seconds."""
    out: dict[int, tuple[int, float]] = {}
    for row in table.streams:
        kernel = int(table.s.kernel[row])
        count, seconds = out.get(kernel, (0, 0.0))
        dram, read, written = table.s.bytes[row, :3]
        access = table.s.span[row, 2] / 1000
        out[kernel] = count + 1, seconds + float(transform_seconds(view, dram, read, written, access))
    return out


def _product_readings(
    table: _Table, kernels: Ints, kind: Any, p: Parts, launch_s: float, streams: dict[int, tuple[int, float]]
) -> dict[int, Reading]:
    out = {}
    limit = limiters(kind, p)
    for i, kernel in enumerate(kernels.tolist()):
        times = {
            "launch": p.launch[i] + launch_s, "latency": p.first[i], "main": p.main[i], "tail": p.tail[i],
            "epilogue": p.last[i], "reduce": p.reduce[i],
        }  # fmt: skip
        times = {name: float(v) for name, v in times.items()}
        count, seconds = streams.get(kernel, (0, 0.0))
        times["launch"] += count * launch_s
        times["epilogue"] += seconds
        limiter = bounded(LIMITERS[limit[i]], times)
        out[kernel] = Reading(kind.pipe, limiter, int(table.steps[kernel]), times)
    return out


def bounded(limiter: str, times: dict[str, float]) -> str:
    """What limits a product: ``launch`` where starting it, and summing its parts, takes more than the rest."""
    return "launch" if 2 * (times["launch"] + times["reduce"]) > sum(times.values()) else limiter


def _attentions(table: _Table, view: GpuView, kernels: Ints, launch_s: float) -> dict[int, Reading]:
    if not len(kernels):
        return {}
    s = table.s
    at = table.attention[kernels]
    # Scores and weighted values have rows of the same classes, in stages of their own.
    stage = np.full(table.kernels, -1, np.int64)
    stage[kernels] = s.stage[at]
    scores = table.attention_rows & (s.stage == stage[s.kernel])
    values = table.attention_rows & ~scores
    beat = (s.beat[at] + s.beat[table.first(values)[kernels]]) / 64
    softmax = (
        table.first(table.alu & (s.cause == CAUSE["issue"])),
        table.first(table.special & (s.cause == CAUSE["issue"])),
    )
    alu, special = (s.ops[rows[kernels]].astype(np.float64) for rows in softmax)
    ctas = table.ctas[kernels]
    walked = table.each(scores, table.instances)[kernels] / ctas
    split = s.span[at, 3].astype(np.float64)
    dram = (
        table.each(table.loads, table.moved.sum(axis=1))[kernels] + table.each(table.saves, table.moved[:, 2])[kernels]
    )
    crossing = table.each(table.fetches | table.stores, table.moved.sum(axis=1))[kernels]
    sums = table.fetches & (s.target[:, 2] == REGISTER) & (s.bytes[:, 2] > 0)
    partial = 2 * table.each(sums, table.moved[:, 2])[kernels]
    longest = _longest(table, scores)[kernels]
    heads = table.count(scores, "batch")[kernels]
    whole = (table.count(scores, "m")[kernels] > 1) & (ctas <= heads * split)
    longest = np.where(whole, walked, longest)
    stream = table.first(table.feeds & (s.cause == CAUSE["streaming"]))[kernels] >= 0
    times: dict[int, Reading] = {}
    pipe = np.where(s.unit[at] == UNIT["matrix"], 1, 0)

    def put(mine: Ints, found: dict[str, Any], bounds: tuple[str, ...]) -> None:
        for j, i in enumerate(mine.tolist()):
            parts: dict[str, float] = {name: float(found[name][j]) for name in PARTS if name in found}
            kernel = int(kernels[i])
            name = "tensor" if pipe[i] else "simt"
            times[kernel] = Reading(name, bounds[int(found["bound"][j])], int(table.steps[kernel]), parts)

    mine = np.flatnonzero(~stream)
    if len(mine):
        grid = Grid(beat, alu, special, ctas, walked, longest, s.piped[at], split, dram, crossing, partial)
        put(mine, grid_times(view, Grid(*(x[mine] for x in grid)), launch_s, view.clock_hz), ATTENTION_BOUNDS)
    mine = np.flatnonzero(stream)
    if len(mine):
        flow = Stream(beat, alu, special, ctas, longest, split, dram, crossing, partial)
        put(mine, stream_times(view, Stream(*(x[mine] for x in flow)), launch_s, view.clock_hz), DECODE_BOUNDS)
    return times


def _longest(table: _Table, rows: Bools) -> Ints:
    """Blocks of keys the CTA that walks farthest walks: the innermost loop over them."""
    s = table.s
    inner = np.where(s.axis == AXIS["n"], np.arange(s.axis.shape[1]), -1).max(axis=1)
    line = np.arange(len(inner))
    end = s.first[line, inner] + s.trips[line, inner]
    outer = s.bend[:, 1]
    last = np.where(s.bend[:, 0] >= 0, s.first[line, outer] + s.trips[line, outer] - 1, 0)
    return table.most(rows, end + s.bend[:, 2] * last)


def _vectors(table: _Table, view: GpuView, kernels: Ints, launch_s: float) -> dict[int, Reading]:
    if not len(kernels):
        return {}
    s, at = table.s, table.work[kernels]
    everything = table.moved.sum(axis=1)
    crossing = table.each(table.fetches | table.stores, everything)[kernels]
    macs = table.each(table.mac, table.instances * s.ops)[kernels]
    named = [FORMAT_NAMES[int(code)] for code in s.format[at]]
    full = view.simt_macs["fp32"]
    rate = np.array([view.simt_macs.get(name, full) / full for name in named])
    alu = table.each(table.alu, table.instances * s.ops)[kernels] + macs / rate * view.constants["direct_instructions"]
    special = table.each(table.special, table.instances * s.ops)[kernels]
    work = VectorWork(
        table.each(table.loads, everything)[kernels], table.each(table.saves, everything)[kernels], crossing,
        table.ctas[kernels] * s.span[at, 0], alu, special, crossing / s.span[at, 3], s.span[at, 1].astype(np.float64),
        s.span[at, 2] / 1000, s.span[at, 3],
    )  # fmt: skip
    got = vector_times(view, work, launch_s)
    out = {}
    for i, kernel in enumerate(kernels.tolist()):
        parts = {"launch": float(got.launch_s[i]), "latency": float(got.latency_s[i]), "main": float(got.body_s[i])}
        out[kernel] = Reading("simt", VECTOR_BOUNDS[got.bound[i]], int(table.steps[kernel]), parts)
    return out
