"""The USER read buffer, advanced from miss to miss: equals :class:`reference.PrefetchWindow` word for word."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from hwsim.scalesim.folds import Stream
from hwsim.scalesim.operands import HOLE, Words
from hwsim.scalesim.reference import Window
from hwsim.scalesim.result import Span

FIRST_LOOK = 256
LONGEST_LOOK = 1 << 15
CACHE_WORDS = 1 << 23


class MissWindow:
    """Read buffer between demand lines. ``fetch`` is the prefetch order of the operand, HOLE where padded."""

    def __init__(self, sram_words: int, bandwidth: int, fetch: Words, demand: Stream) -> None:
        self.demand = demand
        self.fetched = fetch[fetch != HOLE]
        self.bandwidth = bandwidth
        self.geometry = Window.of(sram_words, bandwidth, len(self.fetched), len(fetch))
        self.start = 0  # first line of the window, counted on and on: line start % lines of the prefetch stream
        self.last = -1
        self.reads = self.geometry.first_rows * bandwidth
        self.fold = 0
        self.index = 0
        self._contents: OrderedDict[int, Words] = OrderedDict()
        self._cached = 0
        lines = np.arange(len(self.fetched)) // self.geometry.line_words
        # held[a]: the only line of address a; if some have several, the last line, counted on and on, that brought it
        self.held = np.full(demand.addresses, -1, dtype=np.int64)
        self.held[self.fetched] = lines
        self.single = int(np.count_nonzero(self.held >= 0)) == len(self.fetched)
        if not self.single:
            self.held[:] = -1
            order = np.argsort(self.fetched, kind="stable")
            self._occurrences = lines[order]
            self._first = np.concatenate(([0], np.cumsum(np.bincount(self.fetched, minlength=demand.addresses))))
            self._entered = 0
            self._enter(self.geometry.active)

    def _enter(self, stop: int) -> None:
        """Bring in the lines up to ``stop`` (exclusive) that the window then shows."""
        geometry = self.geometry
        start = max(self._entered, stop - geometry.active)
        while start < stop:
            turn, line = divmod(start, geometry.lines)
            end = min(geometry.lines, line + stop - start)
            arriving = self.fetched[line * geometry.line_words : end * geometry.line_words]
            lines = np.arange(line * geometry.line_words, line * geometry.line_words + len(arriving))
            self.held[arriving] = lines // geometry.line_words + turn * geometry.lines
            start += end - line
        self._entered = stop

    def _missing(self, words: Words) -> NDArray[np.bool_]:
        """Which of ``words`` are outside the window."""
        if not self.single:
            return self.held[words] < self.start
        ahead = self.held[words] - self.start % self.geometry.lines
        ahead[ahead < 0] += self.geometry.lines
        return ahead >= self.geometry.active

    def _words(self, fold: int) -> Words:
        key = self.demand.key(fold % self.demand.period)
        found = self._contents.get(key)
        if found is None:
            found = self.demand.words(fold % self.demand.period)
            self._contents[key] = found
            self._cached += len(found)
            while self._cached > CACHE_WORDS and len(self._contents) > 1:
                self._cached -= len(self._contents.popitem(last=False)[1])
        else:
            self._contents.move_to_end(key)
        return found

    def next_miss(self) -> int | None:
        """Demand line of the next word outside the window, which becomes the current word; None when all hit."""
        look = FIRST_LOOK
        total = self.demand.period * self.demand.passes
        if self.geometry.step == 0:
            return None
        while self.fold < total:
            words = self._words(self.fold)
            while self.index < len(words):
                missing = self._missing(words[self.index : self.index + look])
                hit = int(missing.argmax())
                if missing[hit]:
                    self.index += hit
                    return self.demand.absolute_line(self.fold, self.index)
                self.index += look
                look = min(2 * look, LONGEST_LOOK)
            self.fold += 1
            self.index = 0
        return None

    def _steps_to(self, address: int) -> int:
        """Window steps until ``address`` is inside."""
        geometry = self.geometry
        if self.single:
            ahead = (int(self.held[address]) - self.start) % geometry.lines
        else:
            lines: Words = self._occurrences[self._first[address] : self._first[address + 1]]
            ahead = int(((lines - self.start) % geometry.lines).min())
        return -(-(ahead - geometry.active + 1) // geometry.step)

    def serve(self, line: int, cycle: int) -> tuple[int, int | None]:
        """Serve the misses of ``line`` from the current word on: (cycles after ``cycle``, next line with a miss)."""
        offset, geometry = 1, self.geometry
        wait = geometry.step_rows + 1
        following: int | None = line
        while following == line:
            steps = self._steps_to(int(self._words(self.fold)[self.index]))
            for _ in range(steps):
                self.last += wait
                late = self.last - (cycle + offset)
                offset += 2 * late if late > 0 else late
            self.reads += steps * geometry.step_rows * self.bandwidth
            self.start += steps * geometry.step
            if not self.single:
                self._enter(self.start + geometry.active)
            following = self.next_miss()
        return offset, following

    def span(self) -> Span:
        """DRAM reads and their cycles."""
        return Span(float(-self.geometry.first_rows), float(self.last), self.reads)
