"""One layer through the array and its three buffers: closed forms where they exist, events where they do not."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import TopologyLayer
from hwsim.scalesim.config import Config
from hwsim.scalesim.draining import EventDrain, OutputWords
from hwsim.scalesim.flushing import Flushes, filter_flushes, ifmap_flushes
from hwsim.scalesim.folds import Folds, Stream, filter_stream, folds_of, ifmap_stream
from hwsim.scalesim.layout import LayerLayout
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
from hwsim.scalesim.reference import calc_span, simulate_slowly
from hwsim.scalesim.result import LayerReport, Span
from hwsim.scalesim.window import MissWindow

MAX_WORDS = 1 << 48
MAX_PREFETCH = 1 << 25


class Stalls:
    """Stall cycles by demand line, and how late each operand was served in the lines where it was."""

    def __init__(self) -> None:
        self.total = 0
        self._lines: list[int] = []
        self._before: list[int] = [0]  # stalls before lines up to and including _lines[i], then after the last
        self.waits: dict[tuple[int, int], int] = {}

    def add(self, line: int, waits: tuple[int, int, int]) -> None:
        """``waits``: cycles after issue at which ifmap, filter (1 when they hit) and ofmap (0) are served."""
        for operand, (wait, usual) in enumerate(zip(waits, (1, 1, 0), strict=True)):
            if wait != usual:
                self.waits[operand, line] = wait
        stall = max(waits[0] - 1, waits[1] - 1, waits[2])
        if stall:
            self.total += stall
            self._lines.append(line)
            self._before.append(self.total)

    def before(self, line: int) -> int:
        return self._before[bisect_left(self._lines, line)]

    def served(self, operand: int, line: int) -> int:
        """Cycle at which a line's request of an operand is served."""
        return line + self.before(line) + self.waits.get((operand, line), 0 if operand == 2 else 1)


def simulate_layer(config: Config, layer: TopologyLayer, layout: LayerLayout | None = None) -> LayerReport:
    """Cost one layer exactly as SCALE-Sim 3.0 does; cycles, words, words per cycle.

    Raises HwsimError for layers SCALE-Sim itself cannot run or that are too large.
    """
    if config.mode == "USER" and (config.ifmap_custom_layout or config.filter_custom_layout):
        return simulate_slowly(config, layer, layout)
    if (
        max(layer.m * layer.k, layer.k * layer.n, layer.m * layer.n, layer.ifmap_h * layer.ifmap_w * layer.k)
        > MAX_WORDS
    ):
        raise HwsimError(f"layer {layer.name!r}: an operand of more than 2^48 words")
    check_sparsity(config, layer)
    kept, filter_rows = _compressed(config, layer)
    folds = folds_of(config, layer, kept, filter_rows)
    demand_lines = folds.count * folds.lines
    if demand_lines < 2:
        raise HwsimError(f"layer {layer.name!r}: SCALE-Sim counts 0 cycles for it and divides by them")
    ifmap, filt = ifmap_stream(config, layer, folds), filter_stream(config, layer, folds)
    outputs = OutputWords(folds)
    sizes = (1024 * config.ifmap_sram_kb, 1024 * config.filter_sram_kb)
    stalls = Stalls()
    if config.mode == "USER":
        drain = EventDrain(1024 * config.ofmap_sram_kb, config.bandwidths[0], outputs)
        fetches = _prefetch_order(config, layer)
        windows = (
            MissWindow(sizes[0], config.ifmap_bank_bandwidth, fetches[0], ifmap),
            MissWindow(sizes[1], config.filter_bank_bandwidth, fetches[1], filt),
        )
        _run_events(stalls, drain, windows)
        dram = [window.span() for window in windows]
    else:
        drain = EventDrain(1024 * config.ofmap_sram_kb, config.array_w, outputs)
        _run_events(stalls, drain, ())
        capacity = [50 * (size // 100) for size in sizes]
        if max(ifmap.lanes_asked(), filt.lanes_asked()) > min(capacity):
            return simulate_slowly(config, layer)  # one line may fill a buffer twice, which stops SCALE-Sim
        flushed = (
            (ifmap, ifmap_flushes(config, layer, folds, ifmap, capacity[0])),
            (filt, filter_flushes(config, layer, folds, filt, capacity[1])),
        )
        dram = [
            _calc_dram(stream, flushes, size, stalls) for (stream, flushes), size in zip(flushed, sizes, strict=True)
        ]

    spans = []
    last_line = demand_lines - 1
    total = stalls.served(2, last_line)
    for operand, (first, last) in enumerate(
        (
            ifmap.first_and_last_line(),
            filt.first_and_last_line(),
            (outputs.line_of(0), outputs.line_of(outputs.total - 1)),
        )
    ):
        spans.append((float(stalls.served(operand, first)), float(stalls.served(operand, last))))
    reads = _sram_accesses(config, layer, folds)
    mapping, utilization = _efficiencies(config, layer, folds)
    return LayerReport(
        name=layer.name,
        macs=layer.macs,
        pes=folds.h * folds.w,
        demand_lines=demand_lines,
        total_cycles=total,
        stall_cycles=stalls.total,
        mapping_efficiency=mapping,
        compute_utilization=utilization,
        sram_ifmap=Span(*spans[0], reads[0]),
        sram_filter=Span(*spans[1], reads[1]),
        sram_ofmap=Span(*spans[2], reads[2]),
        dram_ifmap=dram[0],
        dram_filter=dram[1],
        dram_ofmap=drain.finish(total),
        storage=filter_storage(config, layer, filter_rows) if config.sparsity else None,
    )


def _compressed(config: Config, layer: TopologyLayer) -> tuple[int, int]:
    """Inputs per window and filter rows after compression."""
    if not config.sparsity:
        return layer.k, layer.k
    if config.optimized_mapping:
        return layer.k, config.block_size * math.ceil(layer.k / (2 * config.block_size))
    n, m = sparsity_of(config, layer)
    kept = layer.k // m * n + min(layer.k % m, n)
    return kept, kept


def _run_events(stalls: Stalls, drain: EventDrain, windows: tuple[MissWindow, ...]) -> None:
    """Visit, in order, the demand lines in which a read misses or the write buffer drains or blocks."""
    misses = [window.next_miss() for window in windows]
    write = drain.next_event(stalls.total)
    while True:
        pending = [line for line in (*misses, write) if line is not None]
        if not pending:
            return
        line = min(pending)
        cycle = line + stalls.total
        waits = [1, 1, 0]
        for operand, window in enumerate(windows):
            if misses[operand] == line:
                waits[operand], misses[operand] = window.serve(line, cycle)
        wrote = write == line
        if wrote:
            waits[2] = drain.serve(line, cycle)
        before = stalls.total
        stalls.add(line, (waits[0], waits[1], waits[2]))
        if wrote and not windows:
            drain.skip(line, stalls.total)
        if not wrote and stalls.total != before:
            drain.advance(line)  # words up to here left before this stall
        if wrote or stalls.total != before:
            write = drain.next_event(stalls.total)


def _calc_dram(stream: Stream, flushes: Flushes, sram_words: int, stalls: Stalls) -> Span:
    first = stream.first_and_last_line()[0]
    last = None
    if flushes.last is not None:
        line = stream.absolute_line(*flushes.last)
        last = line + stalls.before(line)
    return calc_span(sram_words // 100, flushes.reads, first + stalls.before(first), last)


def _prefetch_order(config: Config, layer: TopologyLayer) -> tuple[Words, Words]:
    """Order in which USER mode fetches input and filter."""
    if layer.k * max(layer.m, layer.n) > MAX_PREFETCH:
        raise HwsimError(f"layer {layer.name!r}: USER mode holds operands of up to 2^25 words, these are larger")
    ifmap = ifmap_matrix(layer, np.arange(layer.m, dtype=np.int64), kept_window(config, layer))
    filt = filter_matrix(config, layer)
    h, w = config.array_h, config.array_w
    if config.dataflow == "os":
        return _diagonals(_folded(ifmap.T, h)), _diagonals(_folded(filt, w))
    if config.dataflow == "ws":
        return _diagonals(_folded(ifmap, h)), _folded(filt, w).ravel()
    return _folded(ifmap.T, w).ravel(), _diagonals(_folded(filt.T, h))


def _folded(matrix: Words, lanes: int) -> Words:
    """Column blocks of ``lanes`` columns stacked on top of each other, the last one padded."""
    rows, columns = matrix.shape
    blocks = -(-columns // lanes)
    padded = np.full((rows, blocks * lanes), HOLE, dtype=np.int64)
    padded[:, :columns] = matrix
    return padded.reshape(rows, blocks, lanes).transpose(1, 0, 2).reshape(blocks * rows, lanes)


def _diagonals(matrix: Words) -> Words:
    """Elements along anti-diagonals, each from bottom left to top right: the skewed order with its padding kept."""
    rows, lanes = matrix.shape
    out = np.full((rows + lanes - 1) * lanes, HOLE - 1, dtype=np.int64)
    size = out.itemsize
    np.lib.stride_tricks.as_strided(out, matrix.shape, (lanes * size, (lanes + 1) * size))[...] = matrix
    ordered: Words = out[out != HOLE - 1]
    return ordered


def _sram_accesses(config: Config, layer: TopologyLayer, folds: Folds) -> tuple[int | float, int, int]:
    """SRAM words asked for: ifmap, filter, ofmap (with what SCALE-Sim adds to each)."""
    rows, columns, steps = folds.rows, folds.columns, folds.steps
    r, c = folds.row_folds, folds.column_folds
    if folds.dataflow == "os":
        return rows * steps * c, columns * steps * r, rows * columns + r * c * (folds.h + folds.w)
    if folds.dataflow == "is":
        return rows * columns, rows * steps * c, columns * steps * r
    ifmap: int | float = rows * steps * c
    if config.sparsity and config.optimized_mapping:
        block = config.block_size
        ifmap = r * c * (steps + folds.h - 1) * (2 * folds.h // block * (block // 2)) * block
    elif config.sparsity:
        n, m = sparsity_of(config, layer)
        per_fold = np.tile(folds.heights() * steps * (m / n), c)
        ifmap = float(np.cumsum(per_fold)[-1])
    return ifmap, rows * columns, columns * steps * r


def _efficiencies(config: Config, layer: TopologyLayer, folds: Folds) -> tuple[float, float]:
    """Mean mapping efficiency and compute utilisation over folds, summed one by one (the rounding is part of it)."""
    pes = folds.h * folds.w
    used = np.outer(folds.widths(), folds.heights()).ravel()
    cycles = folds.lines + (0 if folds.dataflow == "os" else folds.w - 1)
    mapped = used
    if folds.dataflow == "ws" and config.sparsity and config.optimized_mapping:
        asked = filter_matrix(config, layer) != HOLE
        by_row = np.add.reduceat(asked, np.arange(0, folds.rows, folds.h), axis=0, dtype=np.int64)
        mapped = np.add.reduceat(by_row, np.arange(0, folds.columns, folds.w), axis=1).T.ravel()
    mapping = np.cumsum(mapped / pes)[-1] / folds.count
    utilization = np.cumsum(used * folds.steps / (pes * cycles))[-1] / folds.count
    return float(mapping), float(utilization)
