"""Tiles stepped clock by clock: which places each computes, on which cells, until the last one is done.

The obvious twin of the closed form: it walks the feature map itself and never reads a schedule.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stepped:
    """Clocks until the last tile is done, and of every tile (row by row) the clocks it worked and the values it made."""

    clks: int
    busy: list[int]
    made: list[int]
    macs: list[int]


def step_tiles(
    y: int, x: int, z: int, taps: int, channels: int, *, tiles_y: int, tiles_x: int, cells: int, cell_macs: int,
    depthwise: bool = False,
) -> Stepped:  # fmt: skip
    """Step a convolution (``taps`` x ``channels`` products for each of ``z`` results at ``y`` x ``x`` places) to its end.

    Each tile owns a block of rows and columns. A clock gives every cell of its tile ``cell_macs`` products of one output
    channel; a depthwise cell uses one of them, and needs a clock for each of the four input channels of its group.
    """
    tall, wide = -(-y // tiles_y), -(-x // tiles_x)
    busy, made, macs = [], [], []
    for row in range(tiles_y):
        for col in range(tiles_x):
            clks = values = products = 0
            for place_y in range(row * tall, min(y, (row + 1) * tall)):
                for place_x in range(col * wide, min(x, (col + 1) * wide)):
                    assert place_y < y and place_x < x
                    first = 0
                    while first < z:
                        working = min(cells, z - first)
                        for _ in range(taps):
                            if depthwise:
                                for _ in range(cell_macs):
                                    clks += 1
                                products += working
                                continue
                            channel = 0
                            while channel < channels:
                                clks += 1
                                products += working * min(cell_macs, channels - channel)
                                channel += cell_macs
                        values += working
                        first += cells
            busy.append(clks)
            made.append(values)
            macs.append(products)
    return Stepped(max(busy), busy, made, macs)


def step_channels(z: int, channels: int, *, tiles: int, cells: int, cell_macs: int) -> Stepped:
    """Step a product of one column (fully connected): output channels are dealt to the tiles, a row of cells each."""
    busy, made, macs = [0] * tiles, [0] * tiles, [0] * tiles
    first = tile = 0
    while first < z:
        working = min(cells, z - first)
        channel = 0
        while channel < channels:
            busy[tile] += 1
            macs[tile] += working * min(cell_macs, channels - channel)
            channel += cell_macs
        made[tile] += working
        first += cells
        tile = (tile + 1) % tiles
    return Stepped(max(busy), busy, made, macs)
