"""The slow, obvious twin: every demand line built, every word looked up in its buffer, line by line.

It defines what the fast engine must equal (SCALE-Sim 3.0: ``systolic_compute_*``, ``read_buffer*``, ``write_buffer``,
``double_buffered_scratchpad_mem``; behaviour and constants, MIT) and runs the rare layout option itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import TopologyLayer
from hwsim.scalesim.config import Config
from hwsim.scalesim.layout import LayerLayout, filter_layout_stream, ifmap_layout_stream
from hwsim.scalesim.operands import (
    HOLE,
    Words,
    check_sparsity,
    filter_matrix,
    filter_storage,
    ifmap_matrix,
    kept_window,
    sparsity_of,
)
from hwsim.scalesim.result import LayerReport, Span

MAX_WORDS = 50_000_000  # demand words the twin will hold; more is a request for the fast engine


@dataclass(slots=True)
class Demand:
    """Demand matrices (lines × lanes, HOLE where idle), prefetch streams and the counts made while building them."""

    ifmap: list[Words] = field(default_factory=list)
    filter: list[Words] = field(default_factory=list)
    ofmap: list[Words] = field(default_factory=list)
    ifmap_reads: int | float = 0
    filter_reads: int = 0
    ofmap_writes: int = 0
    mapping: list[float] = field(default_factory=list)
    utilization: list[float] = field(default_factory=list)


def _skew(block: Words, lanes: int) -> Words:
    """Delay lane j by j lines; pad to ``lanes`` lanes."""
    lines, used = block.shape
    out = np.full((lines + lanes - 1, lanes), HOLE, dtype=np.int64)
    for j in range(used):
        out[j : j + lines, j] = block[:, j]
    return out


def _pad(block: Words, before: int = 0, after: int = 0) -> Words:
    return np.pad(block, ((before, after), (0, 0)), constant_values=HOLE)


def _pad_to(block: Words, rows: int, columns: int) -> Words:
    return np.pad(block, ((0, rows - block.shape[0]), (0, columns - block.shape[1])), constant_values=HOLE)


def _group_skew(block: Words, height: int, size: int) -> Words:
    """Row-wise sparsity: PE row j reads the block of ``size`` inputs it belongs to, j lines late."""
    pixels = block.shape[0]
    groups = _pad_to(block, pixels, 2 * height).reshape(pixels, 2 * height // size, size)
    lanes = 2 * height // size * (size // 2)  # height, or fewer when the block size is odd
    out = np.full((pixels + height - 1, lanes, size), HOLE, dtype=np.int64)
    for j in range(lanes):
        out[j : j + pixels, j] = groups[:, j // (size // 2)]
    return out.reshape(len(out), lanes * size)


def build_demand(config: Config, layer: TopologyLayer) -> tuple[Demand, Words, Words]:
    """Demand matrices of a layer and the two prefetch streams (order of fetching, USER mode)."""
    check_sparsity(config, layer)
    h, w = config.array_h, config.array_w
    ifmap = ifmap_matrix(layer, np.arange(layer.m), kept_window(config, layer))
    filt = filter_matrix(config, layer)
    ofmap = np.arange(layer.m * layer.n, dtype=np.int64).reshape(layer.m, layer.n)
    if config.dataflow == "os":
        demand = _os_demand(h, w, ifmap, filt, ofmap)
        fetch = (_diagonal(_folded(ifmap.T, h)), _diagonal(_folded(filt, w)))
    elif config.dataflow == "ws":
        demand = _ws_demand(config, layer, ifmap, filt, ofmap)
        fetch = (_diagonal(_folded(ifmap, h)), _folded(filt, w).ravel())
    else:
        demand = _is_demand(h, w, ifmap, filt, ofmap)
        fetch = (_folded(ifmap.T, w).ravel(), _diagonal(_folded(filt.T, h)))
    return demand, *fetch


def _account(demand: Demand, pes: int, mapped: int, holes: int, steps: int, cycles: int) -> None:
    """Efficiencies of one fold: PEs not idle, and useful steps of ``mapped`` PEs over PE-cycles."""
    demand.mapping.append((pes - holes) / pes)
    demand.utilization.append(mapped * steps / (pes * cycles))


def _os_demand(h: int, w: int, ifmap: Words, filt: Words, ofmap: Words) -> Demand:
    demand, steps = Demand(), ifmap.shape[1]
    for n0 in range(0, ofmap.shape[1], w):
        for m0 in range(0, ofmap.shape[0], h):
            a, b, c = ifmap[m0 : m0 + h].T, filt[:, n0 : n0 + w], ofmap[m0 : m0 + h, n0 : n0 + w]
            demand.ifmap_reads += a.size
            demand.filter_reads += b.size
            demand.ofmap_writes += c.size + h + w
            demand.ifmap.append(_pad(_skew(a, h), after=w - 1))
            demand.filter.append(_pad(_skew(b, w), after=h - 1))
            demand.ofmap.append(_pad(_skew(_pad_to(c, h, w)[::-1], w), before=steps - 1))
            cycles = steps - 1 + h + w - 1
            _account(demand, h * w, c.size, h * w - c.size, steps, cycles)
    return demand


def _ws_demand(config: Config, layer: TopologyLayer, ifmap: Words, filt: Words, ofmap: Words) -> Demand:
    demand, steps, (h, w) = Demand(), ifmap.shape[0], (config.array_h, config.array_w)
    row_wise = config.sparsity and config.optimized_mapping
    n, m = sparsity_of(config, layer)
    for n0 in range(0, filt.shape[1], w):
        for fold, k0 in enumerate(range(0, filt.shape[0], h)):
            b, c = filt[k0 : k0 + h, n0 : n0 + w], ofmap[:, n0 : n0 + w]
            if row_wise:
                a = _group_skew(ifmap[:, fold * 2 * h : (fold + 1) * 2 * h], h, config.block_size)
                demand.ifmap_reads += a.size
                demand.ifmap.append(_pad(a, before=h, after=w - 1))
            else:
                a = ifmap[:, k0 : k0 + h]
                demand.ifmap_reads += a.size * (m / n) if config.sparsity else a.size
                demand.ifmap.append(_pad(_skew(a, h), before=h, after=w - 1))
            demand.filter_reads += b.size
            demand.ofmap_writes += c.size
            loaded = _pad_to(b, h, w)[::-1]
            demand.filter.append(_pad(loaded, after=h + w + steps - 2))
            demand.ofmap.append(_pad(_skew(c, w), before=2 * h - 1))
            holes = int((loaded == HOLE).sum())
            _account(demand, h * w, b.size, holes, steps, 2 * h + w + steps - 2 + w - 1)
    return demand


def _is_demand(h: int, w: int, ifmap: Words, filt: Words, ofmap: Words) -> Demand:
    demand, steps = Demand(), filt.shape[1]
    for m0 in range(0, ifmap.shape[0], w):
        for k0 in range(0, ifmap.shape[1], h):
            a, b, c = ifmap[m0 : m0 + w, k0 : k0 + h].T, filt[k0 : k0 + h].T, ofmap[m0 : m0 + w].T
            demand.ifmap_reads += a.size
            demand.filter_reads += b.size
            demand.ofmap_writes += c.size
            demand.ifmap.append(_pad(_pad_to(a, h, w)[::-1], after=h + w + steps - 2))
            demand.filter.append(_pad(_skew(b, h), before=h, after=w - 1))
            demand.ofmap.append(_pad(_skew(c, w), before=2 * h - 1))
            _account(demand, h * w, a.size, h * w - a.size, steps, 2 * h + w + steps - 2 + w - 1)
    return demand


def _folded(matrix: Words, lanes: int) -> Words:
    """Column blocks of ``lanes`` columns, the last padded, stacked on top of each other."""
    blocks = [matrix[:, i : i + lanes] for i in range(0, matrix.shape[1], lanes)]
    return np.concatenate([_pad_to(block, block.shape[0], lanes) for block in blocks])


def _diagonal(matrix: Words) -> Words:
    """Elements along anti-diagonals, each from bottom left to top right."""
    rows, columns = matrix.shape
    row, column = np.divmod(np.arange(rows * columns), columns)
    return matrix.ravel()[np.lexsort((column, row + column))]


class ReadBuffer(Protocol):
    """A read buffer serves one line of requests and answers the cycles after ``cycle`` at which it is served."""

    reads: int

    def serve(self, words: Sequence[int], cycle: int) -> int: ...

    def span(self) -> Span: ...


class FlushingSet:
    """CALC mode: a set of addresses, emptied completely when it is full; never stalls."""

    def __init__(self, sram_words: int) -> None:
        self.quantum = sram_words // 100
        self.capacity = 50 * self.quantum
        self.held: set[int] = set()
        self.reads = 0
        self.first = 0
        self.seen = False
        self.flushes: list[int] = []

    def serve(self, words: Sequence[int], cycle: int) -> int:
        for word in words:
            if not self.seen:
                self.first, self.seen = cycle, True
            if word not in self.held:
                self.held.add(word)
                self.reads += 1
                if len(self.held) == self.capacity:
                    self.held.clear()
                    if self.flushes and self.flushes[-1] == cycle:
                        raise HwsimError(
                            "a read buffer fills twice in one cycle: SCALE-Sim divides by zero; enlarge it"
                        )
                    self.flushes.append(cycle)
        return 1

    def span(self) -> Span:
        return calc_span(self.quantum, self.reads, self.first, self.flushes[-1] if self.flushes else None)


def calc_span(quantum: int, reads: int, first: int, last_flush: int | None) -> Span:
    """DRAM span of the CALC buffer: the initial fill at ten words a cycle ends at the first request."""
    if last_flush is None:
        sets = math.ceil(reads / quantum)
        return Span(-1.0 * math.ceil(sets * quantum / 10), -1.0, reads)
    return Span(float(first - math.ceil(50 * quantum / 10)), last_flush + 1.0, reads)


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of the USER read buffer over its prefetch stream, in lines of ``line_words`` valid words."""

    line_words: int
    lines: int
    active: int
    step: int
    first_rows: int
    step_rows: int

    @classmethod
    def of(cls, sram_words: int, bandwidth: int, valid: int, stream: int, by_bandwidth: bool = False) -> Window:
        line_words = bandwidth if by_bandwidth else math.ceil(sram_words / 100)
        half = math.ceil(sram_words / 2)
        rest = sram_words - half
        lines = valid // line_words + 1
        active = min(lines, math.ceil(half / line_words))
        step = min(lines - active, math.ceil(rest / line_words))
        rows = math.ceil(stream / bandwidth)
        return cls(line_words, lines, active, step, min(math.ceil(half / bandwidth), rows), math.ceil(rest / bandwidth))


class PrefetchWindow:
    """USER mode: a window over the prefetch stream that advances on a miss, waiting for its fetch (twice, as found)."""

    def __init__(
        self, sram_words: int, bandwidth: int, stream: Words, layout: tuple[int, int] | None = None, base: int = 0
    ) -> None:
        self.base = base  # added to every address: it decides the iteration order below
        valid = stream[stream != HOLE] + base
        self.layout = layout
        self.bandwidth = bandwidth
        self.geometry = Window.of(sram_words, bandwidth, len(valid), len(stream), by_bandwidth=layout is not None)
        size = self.geometry.line_words
        # Python sets: with a layout, a word's column is its place in the iteration order of its line's set.
        self.lines = [set(valid[i * size : (i + 1) * size].tolist()) for i in range(self.geometry.lines)]
        self.start = 0
        self.last = -1
        self.reads = self.geometry.first_rows * bandwidth

    def _find(self, word: int) -> int | None:
        for i in range(self.geometry.active):
            line = (self.start + i) % self.geometry.lines
            if word in self.lines[line]:
                return line
        return None

    def serve(self, words: Sequence[int], cycle: int) -> int:
        offset = 1
        banks: dict[int, set[int]] = {}
        for relative in words:
            word = relative + self.base
            steps = 0
            while (line := self._find(word)) is None:
                if steps > self.geometry.lines or self.geometry.step == 0:
                    raise HwsimError(f"address {word} is in no prefetch line: SCALE-Sim would not end")
                steps += 1
                self.start = (self.start + self.geometry.step) % self.geometry.lines
                self.last += self.geometry.step_rows + 1
                self.reads += self.geometry.step_rows * self.bandwidth
                wait = self.last - (cycle + offset)
                if self.layout is None:
                    offset += wait
                if wait > 0:
                    offset += wait
            if self.layout:
                column = list(self.lines[line]).index(word)
                banks.setdefault(column // (self.bandwidth // self.layout[0]), set()).add(line)
        if self.layout:
            busiest = max((len(lines) for lines in banks.values()), default=0)
            offset += math.ceil(busiest / self.layout[1]) - 1
        return offset

    def span(self) -> Span:
        return Span(float(-self.geometry.first_rows), float(self.last), self.reads)


class DrainingBuffer:
    """Write buffer of both modes: rows of ``bandwidth`` words, half of it drained at a time, one row per cycle."""

    def __init__(self, sram_words: int, bandwidth: int) -> None:
        self.half = math.ceil(sram_words / 2)
        self.bandwidth = bandwidth
        self.batch = math.ceil((sram_words - self.half) / bandwidth)
        self.free = sram_words
        self.fill = 0  # words in the open row
        self.rows: list[int] = []  # pad words of each queued row
        self.drain_end = 0
        self.first: int | None = None
        self.words = 0

    def serve(self, count: int, cycle: int) -> int:
        offset = 0
        for _ in range(count):
            self.free -= 1
            self.fill += 1
            if self.fill == self.bandwidth:
                self.rows.append(0)
                self.fill = 0
            if cycle + offset < self.drain_end:
                if self.free <= 0:
                    offset = self.drain_end - cycle
            elif self.free < self.half:
                self._close()
                self._drain(cycle + offset)
        return offset

    def _close(self) -> None:
        if self.fill:
            self.rows.append(self.bandwidth - self.fill)
            self.fill = 0

    def _drain(self, cycle: int) -> None:
        drained, self.rows = self.rows[: self.batch], self.rows[self.batch :]
        moved = len(drained) * self.bandwidth - drained[-1]
        self.words += moved
        self.free += moved
        self.drain_end = cycle + len(drained) - 1
        self.last = max(self.drain_end, getattr(self, "last", self.drain_end))
        if self.first is None:
            self.first = cycle

    def finish(self, cycle: int) -> Span:
        self._close()
        while self.rows:
            self._drain(cycle)
            cycle = self.drain_end + 1
        assert self.first is not None
        return Span(float(self.first), float(self.last), self.words)


def simulate_slowly(config: Config, layer: TopologyLayer, layout: LayerLayout | None = None) -> LayerReport:
    """Cost one layer word by word; equals SCALE-Sim 3.0 field for field.

    Raises HwsimError for what SCALE-Sim itself cannot run, and for layers too large to hold line by line.
    """
    if 4 * layer.macs // min(config.array_h, config.array_w) > MAX_WORDS:
        raise HwsimError(f"layer {layer.name!r}: too large to step word by word ({layer.macs} multiply-accumulates)")
    demand, ifmap_stream, filter_stream = build_demand(config, layer)
    lines = [np.concatenate(blocks) for blocks in (demand.ifmap, demand.filter, demand.ofmap)]
    buffers: list[ReadBuffer]
    sizes = (1024 * config.ifmap_sram_kb, 1024 * config.filter_sram_kb)
    if config.mode == "CALC":
        buffers = [FlushingSet(size) for size in sizes]
        writer = DrainingBuffer(1024 * config.ofmap_sram_kb, config.array_w)
    else:
        ifmap_layout = filter_layout = None
        if config.ifmap_custom_layout and layout:
            ifmap_stream = ifmap_layout_stream(config, layer, layout)
            ifmap_layout = (config.ifmap_bank_num, config.ifmap_bank_port)
        if config.filter_custom_layout and layout:
            filter_stream = filter_layout_stream(config, layer, layout)
            filter_layout = (config.filter_bank_num, config.filter_bank_port)
        buffers = [
            PrefetchWindow(sizes[0], config.ifmap_bank_bandwidth, ifmap_stream, ifmap_layout, config.ifmap_offset),
            PrefetchWindow(sizes[1], config.filter_bank_bandwidth, filter_stream, filter_layout, config.filter_offset),
        ]
        writer = DrainingBuffer(1024 * config.ofmap_sram_kb, config.bandwidths[0])

    stalls = 0
    served: list[list[tuple[int, bool]]] = [[], [], []]
    for i, (a, b, c) in enumerate(zip(*lines, strict=True)):
        cycle = i + stalls
        requests = [line[line != HOLE].tolist() for line in (a, b, c)]
        waits = [buffer.serve(words, cycle) for buffer, words in zip(buffers, requests, strict=False)]
        waits.append(writer.serve(len(requests[2]), cycle))
        for operand in range(3):
            served[operand].append((cycle + waits[operand], bool(requests[operand])))
        stalls += max(waits[0] - 1, waits[1] - 1, waits[2])

    spans = [_active(line_cycles) for line_cycles in served]
    total = served[2][-1][0]
    if total == 0:
        raise HwsimError(f"layer {layer.name!r}: SCALE-Sim counts 0 cycles for it and divides by them")
    return LayerReport(
        name=layer.name,
        macs=layer.macs,
        pes=config.array_h * config.array_w,
        demand_lines=len(lines[0]),
        total_cycles=total,
        stall_cycles=stalls,
        mapping_efficiency=_mean(demand.mapping),
        compute_utilization=_mean(demand.utilization),
        sram_ifmap=Span(*spans[0], demand.ifmap_reads),
        sram_filter=Span(*spans[1], demand.filter_reads),
        sram_ofmap=Span(*spans[2], demand.ofmap_writes),
        dram_ifmap=buffers[0].span(),
        dram_filter=buffers[1].span(),
        dram_ofmap=writer.finish(total),
        storage=filter_storage(config, layer, len(filter_matrix(config, layer))) if config.sparsity else None,
    )


def _mean(values: list[float]) -> float:
    """Mean by a running sum, as Python before 3.12 sums floats; the rounding is part of the reports."""
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def _active(line_cycles: list[tuple[int, bool]]) -> tuple[float, float]:
    asked = [float(cycle) for cycle, any_request in line_cycles if any_request]
    return asked[0], asked[-1]
