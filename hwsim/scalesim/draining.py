"""The write buffer, advanced from event to event: equals :class:`reference.DrainingBuffer` word for word."""

from __future__ import annotations

import math
from collections import deque

from hwsim.scalesim.folds import Folds, skew_line, skew_words_before
from hwsim.scalesim.result import Span

MAX_STATES = 1 << 14  # buffer states remembered in the search for a repetition


class OutputWords:
    """Closed forms of the output demand: which line word i leaves in, and how many words leave before a line."""

    def __init__(self, folds: Folds) -> None:
        self.folds = folds
        self.os = folds.dataflow == "os"
        self.rows = folds.rows if self.os else folds.row_folds * folds.steps  # output lines per column of folds
        self.total = self.rows * folds.columns
        self.stride = folds.h if self.os else folds.steps
        self.column_words = self.rows * folds.w

    def _block(self, row: int) -> tuple[int, int]:
        """Lines of a fold's output block and demand lines before it."""
        folds = self.folds
        if not self.os:
            return folds.steps, 2 * folds.h - 1
        height = folds.height(row)
        return height, folds.steps - 1 + folds.h - height

    def line_of(self, word: int) -> int:
        folds = self.folds
        column, rest = divmod(word, self.column_words)
        width = folds.width(column)
        row = rest // (self.stride * width)
        lines, before = self._block(row)
        fold = column * folds.row_folds + row
        return fold * folds.lines + before + skew_line(rest - row * self.stride * width, lines, width)

    def before(self, line: int) -> int:
        folds = self.folds
        fold, line = divmod(line, folds.lines)
        if fold >= folds.count:
            return self.total
        column, row = divmod(fold, folds.row_folds)
        width = folds.width(column)
        lines, before = self._block(row)
        inside = skew_words_before(line - before, lines, width)
        return column * self.column_words + row * self.stride * width + inside

    def steady(self, line: int) -> int:
        """Lines after ``line`` that bring one word per lane like ``line`` itself; 0 while the skew fills or empties."""
        fold, line = divmod(line, self.folds.lines)
        column, row = divmod(fold, self.folds.row_folds)
        lines, before = self._block(row)
        line -= before
        return lines - 1 - line if self.folds.width(column) - 1 <= line < lines else 0

    def alike(self, fold: int) -> int:
        """Folds after ``fold`` that bring their words on the same lines as it does."""
        folds = self.folds
        if self.os:
            return 0
        whole = folds.columns // folds.w * folds.row_folds
        return (whole if fold < whole else folds.count) - 1 - fold


class EventDrain:
    """Write buffer state between demand lines; only lines with a drain or a stall are stepped through."""

    def __init__(self, sram_words: int, bandwidth: int, words: OutputWords) -> None:
        self.words = words
        self.half = math.ceil(sram_words / 2)
        self.bandwidth = bandwidth
        self.batch = math.ceil((sram_words - self.half) / bandwidth)
        self.free = sram_words
        self.fill = 0
        self.head = self.tail = 0  # queued rows are numbered head … tail - 1
        self.pads: deque[tuple[int, int]] = deque()
        self.next = 0  # next word to arrive
        self.drain_end = 0
        self.first = -1
        self.last = 0
        self.moved = 0
        self._fold = -1
        self._in_fold: dict[tuple[object, ...], tuple[int, int, int]] = {}
        self._at_fold: dict[tuple[object, ...], tuple[int, int, int]] = {}

    def next_event(self, shift: int) -> int | None:
        """Next demand line with a drain or a stall if line i is issued at cycle i + ``shift``, or None."""
        drain = self.next + max(0, self.free - self.half)
        if drain >= self.words.total:
            return None
        line = self.words.line_of(drain)
        if line + shift >= self.drain_end:
            return line
        idle = max(drain, self.words.before(self.drain_end - shift))
        stall = self.next + max(0, self.free - 1)
        event = min(idle, stall)
        return self.words.line_of(event) if event < self.words.total else None

    def _store(self, count: int) -> None:
        self.next += count
        self.free -= count
        rows, self.fill = divmod(self.fill + count, self.bandwidth)
        self.tail += rows

    def _close(self) -> None:
        if self.fill:
            self.pads.append((self.tail, self.bandwidth - self.fill))
            self.tail += 1
            self.fill = 0

    def _drain(self, cycle: int) -> None:
        rows = min(self.batch, self.tail - self.head)
        self.head += rows
        pad = 0
        while self.pads and self.pads[0][0] < self.head:
            row, missing = self.pads.popleft()
            pad = missing if row == self.head - 1 else 0
        moved = rows * self.bandwidth - pad
        self.moved += moved
        self.free += moved
        self.drain_end = cycle + rows - 1
        self.last = max(self.last, self.drain_end) if self.first >= 0 else self.drain_end
        if self.first < 0:
            self.first = cycle

    def advance(self, line: int) -> None:
        """Take the words up to and including ``line``, none of which is an event."""
        self._store(self.words.before(line + 1) - self.next)

    def serve(self, line: int, cycle: int) -> int:
        """Take the words up to and including ``line``, the only one with events, and return how late it ends."""
        self._store(self.words.before(line) - self.next)
        left = self.words.before(line + 1) - self.next
        offset = 0
        while left:
            busy = cycle + offset < self.drain_end
            count = max(1, self.free if busy else self.free - self.half + 1)
            if count > left:
                self._store(left)
                break
            self._store(count)
            left -= count
            if busy:
                offset = self.drain_end - cycle
            else:
                self._close()
                self._drain(cycle + offset)
        return offset

    def skip(self, line: int, shift: int) -> None:
        """Jump over whole repetitions after ``line`` was served: of lines within a fold, then of whole folds.

        What follows depends only on the state below and on the lines to come; where both repeat, so does the traffic.
        """
        fold, inside = divmod(line, self.words.folds.lines)
        pads = tuple((row - self.head, missing) for row, missing in self.pads)
        state = (self.free, self.fill, self.tail - self.head, pads, self.drain_end - line, shift)
        if fold != self._fold:
            self._fold = fold
            self._in_fold.clear()
            if len(self._at_fold) < MAX_STATES:
                alike = self.words.alike(fold)
                found = self._at_fold.setdefault((inside, fold + alike, *state), (fold, self.next, self.moved))
                period = fold - found[0]
                if period and self._repeat(found, alike // period, period * self.words.folds.lines):
                    self._at_fold.clear()
                    return
        left = self.words.steady(line)
        if left and len(self._in_fold) < MAX_STATES:
            found = self._in_fold.setdefault(state, (line, self.next, self.moved))
            period = line - found[0]
            if period:
                self._repeat(found, left // period, period)

    def _repeat(self, since: tuple[int, int, int], times: int, lines: int) -> bool:
        """Let what happened ``since`` (…, words, moved), over ``lines`` lines, happen ``times`` more."""
        self.next += times * (self.next - since[1])
        self.moved += times * (self.moved - since[2])
        self.drain_end += times * lines
        self.last = max(self.last, self.drain_end)
        return times > 0

    def finish(self, cycle: int) -> Span:
        """Drain what is left from ``cycle`` on; the DRAM span of the layer's outputs."""
        self._store(self.words.total - self.next)
        self._close()
        while self.tail > self.head:
            self._drain(cycle)
            cycle = self.drain_end + 1
        return Span(float(self.first), float(self.last), self.moved)
