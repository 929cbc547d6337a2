"""A figure and the interval of what is published for it."""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """A figure with the interval of what is published for it, in SI base units (J, J/bit, W) or as a ratio."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Span:
        """Return the figure times ``factor`` >= 0."""
        return Span(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, other: Span) -> Span:
        """Return the sum of two figures, their intervals added end by end (as if wrong the same way)."""
        return Span(self.value + other.value, self.low + other.low, self.high + other.high)


NOTHING = Span(0.0, 0.0, 0.0)
