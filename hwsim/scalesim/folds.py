"""Folds of a layer on the array, and the order in which each operand's words are asked for or produced.

Notation of the SCALE-Sim papers: an h × w array takes S_r × S_c folds of T steps; folds run columns outermost and never
overlap. ``os``: S_r, S_c, T = M, N, K; ``ws``: K, N, M; ``is``: K, M, N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import TopologyLayer
from hwsim.scalesim.config import Config, Dataflow
from hwsim.scalesim.operands import HOLE, Words, filter_matrix, ifmap_matrix, kept_window, overhangs

MAX_FOLDS = 20_000_000
CACHE_WORDS = 1 << 22  # request slots a stream keeps
MAX_EXTENT = 1 << 25  # words along one operand that may be held at once


def skew_words_before(line: int, lines: int, lanes: int) -> int:
    """Words of a skewed ``lines`` × ``lanes`` block (lane j is j lines late) asked for before ``line``."""
    total = lines * lanes
    if line <= 0:
        return 0
    if line >= lines + lanes - 1:
        return total
    short = min(lines, lanes)
    if line <= short:
        return line * (line + 1) // 2
    rest = lines + lanes - 1 - line
    if rest < short:
        return total - rest * (rest + 1) // 2
    return short * (short + 1) // 2 + (line - short) * short


def skew_line(word: int, lines: int, lanes: int) -> int:
    """Line of the ``word``-th word (from 0) of a skewed block: the inverse of :func:`skew_words_before`."""
    short = min(lines, lanes)
    head = short * (short + 1) // 2
    if word < head:
        return (math.isqrt(8 * word + 1) - 1) // 2
    left = lines * lanes - 1 - word
    if left < head:
        return lines + lanes - 2 - (math.isqrt(8 * left + 1) - 1) // 2
    return short + (word - head) // short


@dataclass(frozen=True, slots=True)
class Folds:
    """Fold counts and lengths: ``rows`` × ``columns`` is S_r × S_c, ``steps`` T, ``lines`` demand lines per fold."""

    h: int
    w: int
    dataflow: Dataflow
    rows: int
    columns: int
    steps: int

    @property
    def row_folds(self) -> int:
        return -(-self.rows // self.h)

    @property
    def column_folds(self) -> int:
        return -(-self.columns // self.w)

    @property
    def count(self) -> int:
        return self.row_folds * self.column_folds

    @property
    def lines(self) -> int:
        """Demand lines per fold: T + h + w - 2, and h more to load a stationary operand."""
        return self.steps + self.h + self.w - 2 + (0 if self.dataflow == "os" else self.h)

    def heights(self) -> Words:
        """Rows used by each row fold."""
        return np.minimum(self.h, self.rows - self.h * np.arange(self.row_folds, dtype=np.int64))

    def widths(self) -> Words:
        """Columns used by each column fold."""
        return np.minimum(self.w, self.columns - self.w * np.arange(self.column_folds, dtype=np.int64))

    def height(self, row_fold: int) -> int:
        return min(self.h, self.rows - row_fold * self.h)

    def width(self, column_fold: int) -> int:
        return min(self.w, self.columns - column_fold * self.w)


def folds_of(config: Config, layer: TopologyLayer, kept: int, filter_rows: int) -> Folds:
    """Folds of a layer with ``kept`` inputs per window and ``filter_rows`` once compressed. Raises HwsimError."""
    shape = {"os": (layer.m, layer.n, kept), "ws": (filter_rows, layer.n, layer.m), "is": (kept, layer.m, layer.n)}
    folds = Folds(config.array_h, config.array_w, config.dataflow, *shape[config.dataflow])
    if folds.count > MAX_FOLDS:
        raise HwsimError(f"layer {layer.name!r}: {folds.count} folds; at most {MAX_FOLDS} are costed")
    return folds


@dataclass(slots=True)
class Stream:
    """The requests of one operand: ``period`` folds with their words in order, the whole repeated ``passes`` times.

    ``shape(i)`` gives fold i's (lines, lanes, lines before the first); ``block(i)`` its words as a (lines, lanes, words
    per lane) array in demand order, HOLE where nothing is asked, before lane j is delayed by j lines if ``skewed``.
    ``dense`` says there are no holes, so that positions have closed forms. ``key(i)`` names folds with equal words.
    """

    period: int
    passes: int
    fold_lines: int
    dense: bool
    skewed: bool
    shape: Callable[[int], tuple[int, int, int]]
    block: Callable[[int], Words]
    key: Callable[[int], int]
    addresses: int
    sizes: Callable[[], Words] | None = None
    opens: bool = True  # the first slot of the first fold is a request (an input window starts inside)
    group: int = 1  # words per lane and line
    _slots: dict[int, Words] = field(default_factory=dict)
    _slot_words: int = 0
    _counts: Words | None = None
    _lines: dict[int, Words] = field(default_factory=dict)
    _ends: tuple[int, int] | None = None

    def counts(self) -> Words:
        """Words of each fold of one pass."""
        if self._counts is None:
            self._counts = self.sizes() if self.sizes else np.array([self.size(i) for i in range(self.period)])
        return self._counts

    def lanes_asked(self) -> int:
        """Most words one demand line can ask for."""
        return self.shape(0)[1] * self.group

    def size(self, fold: int) -> int:
        """Words of one fold of a pass."""
        if self.dense:
            lines, lanes, _ = self.shape(fold)
            return lines * lanes
        if self.sizes or self._counts is not None:
            return int(self.counts()[fold])
        return int(np.count_nonzero(self.block(fold) != HOLE))

    def laid_out(self, fold: int) -> Words:
        """All request slots of a fold by line and lane, HOLE where idle, flattened."""
        key = self.key(fold)
        if key in self._slots:
            return self._slots[key]
        block = self.block(fold)
        lines, lanes, group = block.shape
        if self.skewed:
            slots = np.full((lines + lanes - 1) * lanes * group, HOLE, dtype=np.int64)
            size = slots.itemsize
            as_strided(slots, block.shape, (lanes * group * size, (lanes + 1) * group * size, size))[...] = block
        else:
            slots = block.reshape(-1)
        if self._slot_words + len(slots) <= CACHE_WORDS:
            self._slot_words += len(slots)
            self._slots[key] = slots
        return slots

    def words(self, fold: int) -> Words:
        """A fold's requested addresses in order."""
        slots = self.laid_out(fold)
        return slots if self.dense and not self.skewed else slots[slots != HOLE]

    def line_of(self, fold: int, index: int) -> int:
        """Line within fold ``fold`` (of a pass) of its ``index``-th word."""
        lines, lanes, before = self.shape(fold)
        if self.dense:
            return before + (skew_line(index, lines, lanes) if self.skewed else index // lanes)
        key = self.key(fold)
        if key not in self._lines:
            slots = self.laid_out(fold)
            used = lines + lanes - 1 if self.skewed else lines
            self._lines = {key: np.flatnonzero(slots != HOLE) // (len(slots) // used)}
        return before + int(self._lines[key][index])

    def absolute_line(self, fold: int, index: int) -> int:
        """Demand line of a word, ``fold`` counted over all passes."""
        return fold * self.fold_lines + self.line_of(fold % self.period, index)

    def first_and_last_line(self) -> tuple[int, int]:
        """Demand lines of the first and the last word of the whole stream."""
        if self._ends is not None:
            return self._ends
        first, last = 0, self.period - 1
        while not self.opens and self.size(first) == 0:
            first += 1
        while (size := self.size(last)) == 0:
            last -= 1
        start = self.shape(0)[2] if self.opens else self.absolute_line(first, 0)
        stop = (self.passes - 1) * self.period + last
        self._ends = start, self.absolute_line(stop, size - 1)
        return self._ends


def _check_size(layer: TopologyLayer) -> None:
    if max(layer.m, layer.k) > MAX_EXTENT:
        raise HwsimError(f"layer {layer.name!r}: {layer.m} x {layer.k} inputs are more than this model steps through")


def _inside(outputs: int, stride: int, window: int, size: int) -> NDArray[np.bool_]:
    """Which (output, window element) pairs along one axis lie inside the input."""
    return np.arange(outputs)[:, None] * stride + np.arange(window)[None, :] < size


def ifmap_stream(config: Config, layer: TopologyLayer, folds: Folds) -> Stream:
    """Input requests: streamed and skewed in os and ws, loaded bottom row first in is."""
    h, w, size = folds.h, folds.w, layer.ifmap_h * layer.ifmap_w * layer.channels
    dense = not overhangs(layer)

    def pixels(start: int, stop: int) -> Words:
        _check_size(layer)
        return np.arange(start, min(stop, layer.m), dtype=np.int64)

    def window(start: int, stop: int) -> Words:
        _check_size(layer)
        return kept_window(config, layer)[start:stop]

    def valid(pixel_axis: bool) -> Words:
        """Requests per output pixel or per window element that lie inside the input."""
        _check_size(layer)
        rows = _inside(layer.ofmap_h, layer.stride_h, layer.filter_h, layer.ifmap_h)
        columns = _inside(layer.ofmap_w, layer.stride_w, layer.filter_w, layer.ifmap_w)
        axis = 1 if pixel_axis else 0
        grid = np.outer(rows.sum(axis), columns.sum(axis)).ravel()
        return grid * layer.channels if pixel_axis else np.repeat(grid, layer.channels)[kept_window(config, layer)]

    def sizes() -> Words:
        if dense:
            return folds.heights() * folds.steps
        per_lane = valid(pixel_axis=folds.dataflow == "os")
        return np.add.reduceat(per_lane, np.arange(0, folds.rows, h))

    streamed = partial(
        Stream,
        period=folds.row_folds,
        passes=folds.column_folds,
        fold_lines=folds.lines,
        skewed=True,
        key=lambda i: i,
        addresses=size,
    )
    if folds.dataflow == "os":
        return streamed(
            dense=dense,
            shape=lambda i: (folds.steps, folds.height(i), 0),
            block=lambda i: ifmap_matrix(layer, pixels(i * h, (i + 1) * h), window(0, layer.k)).T[:, :, None],
            sizes=None if config.sparsity and not dense else sizes,
        )
    if folds.dataflow == "ws" and config.sparsity and config.optimized_mapping:
        group = config.block_size

        def groups(i: int) -> Words:
            block = ifmap_matrix(layer, pixels(0, layer.m), window(2 * h * i, 2 * h * (i + 1)))
            block = np.pad(block, ((0, 0), (0, 2 * h - block.shape[1])), constant_values=HOLE)
            return np.repeat(block.reshape(layer.m, -1, group), group // 2, axis=1)

        return streamed(
            dense=False, shape=lambda i: (folds.steps, 2 * h // group * (group // 2), h), block=groups, group=group
        )
    if folds.dataflow == "ws":
        return streamed(
            dense=dense,
            shape=lambda i: (folds.steps, folds.height(i), h),
            block=lambda i: ifmap_matrix(layer, pixels(0, layer.m), window(i * h, (i + 1) * h))[:, :, None],
            sizes=sizes,
        )

    def loaded(column: int, row: int) -> Words:
        block = ifmap_matrix(layer, pixels(column * w, (column + 1) * w), window(row * h, (row + 1) * h))
        return block.T[::-1, :, None]

    return _stationary(folds, loaded, dense, size)


def _stationary(
    folds: Folds, loaded: Callable[[int, int], Words], dense: bool, addresses: int, opens: bool = True
) -> Stream:
    """An operand loaded once per fold, bottom row first; ``loaded(column fold, row fold)`` are its words."""

    def shape(i: int) -> tuple[int, int, int]:
        column, row = divmod(i, folds.row_folds)
        height = folds.height(row)
        return height, folds.width(column), folds.h - height

    return Stream(
        period=folds.count,
        passes=1,
        fold_lines=folds.lines,
        dense=dense,
        skewed=False,
        shape=shape,
        block=lambda i: loaded(*divmod(i, folds.row_folds)),
        key=lambda i: i,
        addresses=addresses,
        sizes=(lambda: np.outer(folds.widths(), folds.heights()).ravel()) if dense else None,
        opens=opens,
    )


def filter_stream(config: Config, layer: TopologyLayer, folds: Folds) -> Stream:
    """Filter requests: streamed and skewed in os and is, loaded bottom row first in ws."""
    h, w, size = folds.h, folds.w, layer.k * layer.n
    dense = not (config.sparsity and config.optimized_mapping)
    cache: list[Words] = []

    def matrix() -> Words:
        if not cache:
            if size > MAX_EXTENT:
                raise HwsimError(f"layer {layer.name!r}: {size} filter words are more than this model steps through")
            cache.append(filter_matrix(config, layer))
        return cache[0]

    if folds.dataflow == "os":
        return Stream(
            period=folds.count,
            passes=1,
            fold_lines=folds.lines,
            dense=dense,
            skewed=True,
            shape=lambda i: (folds.steps, folds.width(i // folds.row_folds), 0),
            block=lambda i: matrix()[:, i // folds.row_folds * w : (i // folds.row_folds + 1) * w, None],
            key=lambda i: i // folds.row_folds,
            addresses=size,
            sizes=(lambda: np.repeat(folds.widths() * folds.steps, folds.row_folds)) if dense else None,
            opens=dense,
        )
    if folds.dataflow == "is":
        return Stream(
            period=folds.row_folds,
            passes=folds.column_folds,
            fold_lines=folds.lines,
            dense=dense,
            skewed=True,
            shape=lambda i: (folds.steps, folds.height(i), h),
            block=lambda i: matrix()[i * h : (i + 1) * h].T[:, :, None],
            key=lambda i: i,
            addresses=size,
            sizes=(lambda: folds.heights() * folds.steps) if dense else None,
            opens=dense,
        )

    def loaded(column: int, row: int) -> Words:
        return matrix()[row * h : (row + 1) * h, column * w : (column + 1) * w][::-1, :, None]

    return _stationary(folds, loaded, dense, size, opens=dense)
