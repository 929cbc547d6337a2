"""The obvious twin of the L2 under a GEMM: every CTA asks for its tiles of A and B, k-step by k-step, in grid order.

CTAs go out in raster order, `slots` at a time; those in flight advance together, one k-step each per round (with `skew`,
each by its own lag). The cache holds whole tiles, the least recently used one goes when room is needed. Of several
segments each serves its own SMs and keeps its own copy of what they ask for; a tile's home segment is asked before DRAM.
Results are written to the L2 when a CTA ends and count as DRAM bytes once, when they leave it or the kernel is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hwsim.errors import HwsimError, near

AXES = ("m", "n")


@dataclass(frozen=True)
class Grid:
    """A GEMM C[m, n] = A[m, k] B[k, n] in tiles: sizes in elements, bytes per element of each operand."""

    m: int
    n: int
    k: int
    tile_m: int
    tile_n: int
    tile_k: int
    a: float = 2
    b: float = 2
    c: float = 2

    @property
    def rows(self) -> int:
        return -(-self.m // self.tile_m)

    @property
    def cols(self) -> int:
        return -(-self.n // self.tile_n)

    @property
    def steps(self) -> int:
        return -(-self.k // self.tile_k)


def raster(rows: int, cols: int, along: str = "m", width: int = 1) -> list[tuple[int, int]]:
    """Tiles (row, column) of a grid in the order CTAs are numbered: ``width`` columns at a time, down the rows.

    ``along`` "n": as many rows at a time, across the columns. Raises HwsimError for another axis or no width.
    """
    if along not in AXES or width < 1:
        raise HwsimError(f"raster along '{along[:8]}', width {width}: expected m or n{near(along, AXES)}, at least 1")
    if along == "n":
        return [(i, j) for j, i in raster(cols, rows, "m", width)]
    order = []
    for first in range(0, cols, width):
        for i in range(rows):
            order += [(i, j) for j in range(first, min(cols, first + width))]
    return order


class Cache:
    """Fully associative, least recently used, by tile; sizes in bytes."""

    def __init__(self, capacity: float) -> None:
        self.room = capacity
        self.tiles: OrderedDict[tuple[object, ...], tuple[float, bool]] = OrderedDict()

    def has(self, tile: tuple[object, ...]) -> bool:
        if tile in self.tiles:
            self.tiles.move_to_end(tile)
            return True
        return False

    def put(self, tile: tuple[object, ...], size: float, dirty: bool = False) -> float:
        """Keep a tile; returns the dirty bytes that had to go for it."""
        written = 0.0
        if tile in self.tiles:
            dirty = self.tiles[tile][1] or dirty
            self.room += self.tiles.pop(tile)[0]
        while self.room < size and self.tiles:
            _, (old, was_dirty) = self.tiles.popitem(last=False)
            self.room += old
            written += old * was_dirty
        if self.room >= size:
            self.tiles[tile] = (size, dirty)
            self.room -= size
        else:
            written += size * dirty
        return written

    def dirty_bytes(self) -> float:
        return sum(size for size, dirty in self.tiles.values() if dirty)


@dataclass
class Traffic:
    """Bytes that crossed: to SMs (``l2``), from and to DRAM, between segments; by operand a, b, c."""

    l2: dict[str, float] = field(default_factory=lambda: dict.fromkeys("abc", 0.0))
    dram: dict[str, float] = field(default_factory=lambda: dict.fromkeys("abc", 0.0))
    crossing: dict[str, float] = field(default_factory=lambda: dict.fromkeys("abc", 0.0))

    @property
    def reads(self) -> float:
        """Bytes of A and B from DRAM."""
        return self.dram["a"] + self.dram["b"]


def run_l2(
    grid: Grid,
    order: Sequence[tuple[int, int]],
    slots: int,
    capacity: float,
    segments: int = 1,
    skew: Sequence[int] = (),
) -> Traffic:
    """Feed the cache with the tiles of ``order``; ``skew``: k-steps by which the CTA in each slot lags (0 for all).

    Raises HwsimError without slots or segments.
    """
    if slots < 1 or segments < 1:
        raise HwsimError(f"L2: {slots} slots, {segments} segments, expected at least one of each")
    caches = [Cache(capacity / segments) for _ in range(segments)]
    out = Traffic()
    for operand, tile, size, slot in requests(grid, order, slots, skew):
        here = caches[slot % segments]
        home = caches[hash(tile) % segments]
        if operand == "c":
            out.l2["c"] += size
            out.dram["c"] += home.put((operand, *tile), size, dirty=True)
            continue
        name = (operand, *tile)
        out.l2[operand] += size
        if here.has(name):
            continue
        if home is not here:
            out.crossing[operand] += size
        if home is here or not home.has(name):
            out.dram[operand] += size
            out.dram["c"] += home.put(name, size)
        if home is not here:
            out.dram["c"] += here.put(name, size)
    out.dram["c"] += sum(cache.dirty_bytes() for cache in caches)
    return out


def requests(
    grid: Grid, order: Sequence[tuple[int, int]], slots: int, skew: Sequence[int] = ()
) -> Iterator[tuple[str, tuple[int, int], float, int]]:
    """What the SMs ask for, one after the other: operand, tile, bytes, slot of the CTA."""
    lag = list(skew) or [0]
    for first in range(0, len(order), slots):
        wave = order[first : first + slots]
        for now in range(grid.steps + max(lag)):
            for slot, (i, j) in enumerate(wave):
                step = now - lag[slot % len(lag)]
                if not 0 <= step < grid.steps:
                    continue
                deep = min(grid.tile_k, grid.k - step * grid.tile_k)
                tall = min(grid.tile_m, grid.m - i * grid.tile_m)
                wide = min(grid.tile_n, grid.n - j * grid.tile_n)
                yield "a", (i, step), tall * deep * grid.a, slot
                yield "b", (step, j), deep * wide * grid.b, slot
                if step == grid.steps - 1:
                    yield "c", (i, j), tall * wide * grid.c, slot
