"""The CALC read buffer: a set of addresses emptied whenever it is full. Its reads and last flush, exactly.

Closed where it can be: fewer distinct words than the capacity (no flush), or every reuse at least a capacity of
accesses away (no hit: among any C insertions one flushes, so nothing survives to its reuse). Otherwise each access
learns the position of its previous use once, and a segment between flushes is a count of the accesses whose previous
use lies before the segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import HwsimError
from hwsim.network.scalesim_topology import TopologyLayer
from hwsim.scalesim.config import Config
from hwsim.scalesim.folds import Folds, Stream
from hwsim.scalesim.operands import HOLE, Words

PIECE_WORDS = 1 << 22  # words sorted at once
SCAN_WORDS = 1 << 14
MAX_STEPS = 1 << 34  # word visits of a pass that is held (0.5 ns each) before a layer is refused
MAX_SORTED = 1 << 31  # and of a longer one, sorted piece by piece (90 ns each)
MAX_ADDRESSES = 1 << 28
MAX_SHIFTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Flushes:
    """Words read from DRAM and where the last flush happened: fold over all passes and word index in it."""

    reads: int
    last: tuple[int, int] | None = None


def _locate(stream: Stream, position: int) -> tuple[int, int]:
    """Fold (over all passes) and index of the ``position``-th word of the stream."""
    ends = np.cumsum(stream.counts())
    turn, rest = divmod(position, int(ends[-1]))
    fold = int(np.searchsorted(ends, rest, side="right"))
    return turn * stream.period + fold, rest - (int(ends[fold - 1]) if fold else 0)


def all_distinct(stream: Stream, distinct: int, capacity: int) -> Flushes:
    """Each pass asks every one of its ``distinct`` words once: they all stay, or none does."""
    if distinct < capacity:
        return Flushes(distinct)
    return never_hit(stream, capacity)


def never_hit(stream: Stream, capacity: int) -> Flushes:
    """Every access is an insertion; every ``capacity``-th flushes."""
    reads = int(stream.counts().sum()) * stream.passes
    flushes = reads // capacity
    return Flushes(reads, _locate(stream, flushes * capacity - 1) if flushes else None)


def repeated_blocks(stream: Stream, repeats: int, capacity: int) -> Flushes:
    """Folds come in runs of ``repeats`` equal folds of distinct words, no word in two runs (filter of os)."""
    reads = held = 0
    last = None
    counts = stream.counts()
    for start in range(0, stream.period, repeats):
        size = int(counts[start])
        if held + size < capacity:
            reads += size
            held += size
        elif size >= capacity:
            reads += size * repeats
            held = (held + size * repeats) % capacity
            position = size * repeats - held - 1
            last = (start + position // size, position % size)
        else:
            # The run fills the set once, after capacity - held words; the words before that are read again.
            cut = capacity - held
            last = (start, cut - 1)
            held = size - cut
            reads += size
            if repeats > 1:
                reads += cut
                held = size
    return Flushes(reads, last)


def reuse_distance(layer: TopologyLayer, folds: Folds, words: int) -> int:
    """A lower bound on the accesses between two uses of an input word; 0 when it cannot be bounded.

    ``words`` are the accesses of one pass, fewer than M·K where windows leave the input.

    Two uses differ by (a, b) output rows and columns and by the matching window shift; their distance is linear in the
    fold and step differences up to the skew (lanes²/2 at either end) and to a last fold with fewer lanes.
    """
    rows = min(layer.ofmap_h - 1, (layer.filter_h - 1) // layer.stride_h)
    columns = min(layer.ofmap_w - 1, (layer.filter_w - 1) // layer.stride_w)
    if rows == 0 and columns == 0:
        return words  # windows do not overlap: no word is used twice in a pass
    if folds.dataflow == "is":
        return 0
    lanes, steps, extent = folds.h, folds.steps, folds.rows
    per_pass = extent * steps
    slack = lanes * (lanes - 1) + per_pass - words
    if extent % lanes:
        slack += 2 * steps * (lanes - extent % lanes)
    nearest = words
    if (2 * rows + 1) * (2 * columns + 1) > MAX_SHIFTS:
        return 0
    shifts = np.arange((2 * rows + 1) * (2 * columns + 1))
    shifts = shifts[shifts != len(shifts) // 2]  # all but (0, 0)
    a, b = shifts // (2 * columns + 1) - rows, shifts % (2 * columns + 1) - columns
    pixels = a * layer.ofmap_w + b
    window = -(a * layer.stride_h * layer.filter_w + b * layer.stride_w) * layer.channels
    along_lanes, along_steps = (pixels, window) if folds.dataflow == "os" else (window, pixels)
    base = along_lanes // lanes
    fold_shift = np.stack([base, base + (along_lanes % lanes != 0)])
    distance = np.abs((steps - 1) * lanes * fold_shift + along_steps * lanes + along_lanes)
    nearest = min(nearest, int(distance.min()) - slack)
    if folds.column_folds > 1:
        nearest = min(nearest, per_pass - int(distance.max()) - slack)
    return max(0, nearest)


def touched_pixels(layer: TopologyLayer) -> int:
    """Distinct input words a dense layer asks for."""

    def covered(size: int, outputs: int, stride: int, window: int) -> int:
        reach = (outputs - 1) * stride
        if stride > window:  # gaps between windows; the last window may start outside
            return (outputs - 1) * window + max(0, min(window, size - reach))
        return min(size, reach + window)

    rows = covered(layer.ifmap_h, layer.ofmap_h, layer.stride_h, layer.filter_h)
    columns = covered(layer.ifmap_w, layer.ofmap_w, layer.stride_w, layer.filter_w)
    return rows * columns * layer.channels


def ifmap_flushes(config: Config, layer: TopologyLayer, folds: Folds, stream: Stream, capacity: int) -> Flushes:
    """The input buffer of a layer in CALC mode."""
    plain = not config.sparsity
    if plain:
        distinct = touched_pixels(layer)
        if distinct < capacity:
            return Flushes(distinct)
        if reuse_distance(layer, folds, int(stream.counts().sum())) >= capacity:
            return never_hit(stream, capacity)
    return stepped(layer, stream, capacity)


def filter_flushes(config: Config, layer: TopologyLayer, folds: Folds, stream: Stream, capacity: int) -> Flushes:
    """The filter buffer of a layer in CALC mode."""
    if not stream.dense:
        return stepped(layer, stream, capacity)
    if folds.dataflow == "os":
        return repeated_blocks(stream, folds.row_folds, capacity)
    return all_distinct(stream, folds.rows * (folds.columns if folds.dataflow == "ws" else folds.steps), capacity)


def previous_uses(words: Words) -> NDArray[np.int32]:
    """Position of each word's previous use in a stream that repeats ``words``; negative when in the pass before."""
    count = len(words)
    bits = max(1, (count - 1).bit_length())
    order = words << bits
    order |= np.arange(count, dtype=np.int64)
    order.sort()
    mask = (1 << bits) - 1
    first = np.flatnonzero((order[1:] ^ order[:-1]) > mask) + 1  # where the address changes
    order &= mask
    position = order.astype(np.int32)
    before = np.empty(count, dtype=np.int32)
    before[1:] = position[:-1]
    before[0] = position[(first[0] if len(first) else count) - 1] - count
    before[first] = position[np.append(first[1:], count) - 1] - count
    previous = np.empty(count, dtype=np.int32)
    previous[position] = before
    return previous


def stepped(layer: TopologyLayer, stream: Stream, capacity: int) -> Flushes:
    """The general case: visit every access, vectorised between flushes. Raises HwsimError when that is too many."""
    per_pass = int(stream.counts().sum())
    limit = MAX_STEPS if per_pass <= PIECE_WORDS else MAX_SORTED
    if per_pass * stream.passes > limit or stream.addresses > MAX_ADDRESSES:
        raise HwsimError(
            f"layer {layer.name!r}: {per_pass * stream.passes} accesses to {stream.addresses} addresses would be "
            "stepped through; use a larger SRAM or a smaller layer"
        )
    if per_pass <= PIECE_WORDS:
        return _stepped_in_memory(stream, capacity, per_pass)
    return _stepped_in_pieces(stream, capacity)


class _Segment:
    """Words in the set since the last flush."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.start = 0  # absolute position from which words are held
        self.held = 0
        self.reads = 0
        self.last: int | None = None

    def scan(self, previous: NDArray[np.int32] | Words, base: int) -> None:
        """Visit ``previous`` (absolute positions of previous uses minus ``base``), the words from ``base`` on."""
        i, count = 0, len(previous)
        while i < count:
            missing = previous[i : i + SCAN_WORDS] < self.start - base
            new = int(np.count_nonzero(missing))
            need = self.capacity - self.held
            if new < need:
                self.held += new
                self.reads += new
                i += SCAN_WORDS
                continue
            i += int(np.flatnonzero(missing)[need - 1]) + 1
            self.reads += need
            self.held = 0
            self.start = base + i
            self.last = base + i - 1


def _stepped_in_memory(stream: Stream, capacity: int, per_pass: int) -> Flushes:
    words = np.concatenate([stream.words(i) for i in range(stream.period)])
    previous = previous_uses(words)
    segment = _Segment(capacity)
    seen: dict[tuple[int, int], tuple[int, int]] = {}
    turn = 0
    while turn < stream.passes:
        base = turn * per_pass
        state = (segment.start - base, segment.held)
        if turn and state in seen:
            # From here on the flushes repeat themselves: jump over the whole repetitions.
            then, reads = seen[state]
            jumps = (stream.passes - turn) // (turn - then)
            if jumps:
                shift = jumps * (turn - then)
                segment.reads += jumps * (segment.reads - reads)
                segment.start += shift * per_pass
                segment.last = None if segment.last is None else segment.last + shift * per_pass
                turn += shift
                seen.clear()
                continue
        seen[state] = (turn, segment.reads)
        segment.scan(previous, base)
        turn += 1
    return Flushes(segment.reads, None if segment.last is None else _locate(stream, segment.last))


def _stepped_in_pieces(stream: Stream, capacity: int) -> Flushes:
    last_use = np.full(stream.addresses, HOLE, dtype=np.int64)
    segment = _Segment(capacity)
    base = 0
    for fold in range(stream.period * stream.passes):
        words = stream.words(fold % stream.period)
        for start in range(0, len(words), PIECE_WORDS):
            piece = words[start : start + PIECE_WORDS]
            previous = previous_uses(piece).astype(np.int64)
            earlier = previous < 0
            previous[earlier] = last_use[piece[earlier]] - base
            last_use[piece] = np.arange(base, base + len(piece))  # repeated addresses: the last position stays
            segment.scan(previous, base)
            base += len(piece)
    return Flushes(segment.reads, None if segment.last is None else _locate(stream, segment.last))
