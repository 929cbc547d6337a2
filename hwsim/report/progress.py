"""A progress bar for what takes over a second: on terminals only, one line, gone when the work is done."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

_PATIENCE_S = 1.0  # a shorter piece of work shows nothing
_EVERY_S = 0.1


class Progress:
    """Show how far a piece of work is, on a terminal, from its second second on.

    Use as ``with Progress("serving", total=1000) as bar: bar.at(done)``. Pipes and files get nothing, nor does a
    terminal that says it is dumb; there is no colour, so NO_COLOR has nothing to switch off; the line fits the width.
    """

    def __init__(self, what: str, total: float = 0.0, stream: TextIO | None = None) -> None:
        self.what, self.total, self.done = what, total, 0.0
        self.stream = sys.stderr if stream is None else stream
        self._begin = time.monotonic()  # of the work, or of its last new start
        self._next = self._begin + _PATIENCE_S
        self._shown = 0
        self._on = _is_terminal(self.stream)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._write("\r" + " " * self._shown + "\r")
            self._shown = 0

    def at(self, done: float, what: str | None = None) -> None:
        """Say how much is done, of the total (or as a count, without one), and what is being done.

        Less than before is a new start: the time left is told of this round alone.
        """
        if done < self.done:
            self._begin = time.monotonic()
        self.done = done
        self.what = self.what if what is None else what
        if self._on and time.monotonic() >= self._next:
            self._draw()

    def step(self, what: str | None = None) -> None:
        """One more is done."""
        self.at(self.done + 1, what)

    def _draw(self) -> None:
        now = time.monotonic()
        self._next = now + _EVERY_S
        text = self.line(now - self._begin, shutil.get_terminal_size((80, 24)).columns)
        self._write("\r" + text.ljust(self._shown))
        self._shown = len(text)

    def line(self, elapsed_s: float, columns: int) -> str:
        """Return the line for a terminal of ``columns``: a name, a bar, a share, the time left; the least said last."""
        room = max(1, columns - 1)
        if self.total <= 0:
            return f"{self.what} {self.done:.0f}, {_clock(elapsed_s)}"[:room]
        share = min(1.0, self.done / self.total)
        left = f" {_clock(elapsed_s * (1 - share) / share)} left" if share > 0 else ""
        tail = f" {100 * share:3.0f} %"
        width = min(40, room - len(self.what) - len(tail) - len(left) - 3)
        if width < 5:
            return self.what[: room - len(tail)] + tail if len(tail) < room else tail.strip()[:room]
        filled = int(share * width)
        return f"{self.what} [{'#' * filled}{'-' * (width - filled)}]{tail}{left}"

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # a terminal that went away ends the bar, not the work
            self._on = False


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM", "") != "dumb"
    except (OSError, ValueError):
        return False


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02d}"
    )
