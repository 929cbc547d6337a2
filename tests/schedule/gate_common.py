"""What the prototype lowerings share: cutting an axis into tiles and a nest into classes of iterations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """An axis of ``total`` elements in tiles of ``step``."""

    total: int
    step: int

    @property
    def count(self) -> int:
        return -(-self.total // self.step)

    def pieces(self, *, edge: bool = True) -> list[tuple[int, int, int]]:
        """(first, trips, extent) of the full tiles and of a last one that is not full."""
        rest = self.total % self.step
        full = [(0, self.total // self.step, self.step)] if self.total >= self.step else []
        if not rest:
            return full
        return [*full, (self.count - 1, 1, rest)] if edge else [(0, self.count, self.step)]


Piece = tuple[int, int, int]


def classes(*loops: list[Piece]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """(first, trips, extents) of every combination of the loops' pieces."""
    for box in itertools.product(*loops):
        first, trips, extent = zip(*box, strict=True) if box else ((), (), ())
        yield tuple(first), tuple(trips), tuple(extent)
