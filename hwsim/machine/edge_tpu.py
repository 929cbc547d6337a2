"""Family "edge-tpu": Google's Edge TPU, tiles of dot-product cells that a host feeds over USB or PCIe.

A tile is a row of cells; each cell multiplies a few input channels by its own output channel every clock. Activations lie
in every tile's narrow memory, parameters in the wide memory that all tiles share; there is no off-chip memory, so what
does not fit is streamed from the host in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.machine.keys import Family, Section, key
from hwsim.machine.sections import COMMON


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """The tiles of one chip and the cells of a tile."""

    tiles_y: int = key("rows of tiles, over which the height of a feature map is cut", "count", low=1, high=256)
    tiles_x: int = key("columns of tiles, over which the width of a feature map is cut", "count", low=1, high=256)
    cells: int = key("cells of a tile, one output channel each", "count", low=1, high=4096)
    cell_macs: int = key("input channels a cell multiplies per clock", "count", low=1, high=256)
    clock_hz: float = key("clock of the tiles", "frequency", toml="clock", low=1e6, high=1e10)
    bus_clock_hz: float = key(
        "clock of the bus to the host interface", "frequency", toml="bus_clock", low=1e6, high=1e10
    )
    rates: Mapping[str, float] = key(
        "rate of each number format multiplied, relative to one multiply-accumulate per clock", "ratio",
        kind="rates", low=0.001, high=64,
    )  # fmt: skip

    @property
    def tiles(self) -> int:
        """Tiles of one chip."""
        return self.tiles_y * self.tiles_x

    @property
    def macs_per_clk(self) -> int:
        """Multiply-accumulates of one chip in one clock."""
        return self.tiles * self.cells * self.cell_macs


def _throughput(built: Mapping[str, Any]) -> tuple[float, Mapping[str, float]]:
    tensor: Tensor = built["tensor"]
    return tensor.macs_per_clk * tensor.clock_hz, tensor.rates


def _check(built: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, holds in (("narrow", "activations"), ("wide", "weights")):
        level = built["memory"].get(name)
        if level is None:
            yield "memory", f"needs a level [memory.{name}]"
        elif holds not in level.holds:
            yield f"memory.{name}.holds", f"must hold {holds}"
        elif level.is_dram:
            yield f"memory.{name}.kind", "must be on the chip"
    if built["chip"].cores != 1:
        yield "chip.cores", "a chip runs one program: its tiles are in [tensor]"


EDGE_TPU = Family(
    "edge-tpu",
    "Edge TPUs: tiles of dot-product cells fed by a host over USB or PCIe",
    (COMMON[0], Section("tensor", Tensor, "the tiles of one chip", required=True), *COMMON[1:]),
    throughput=_throughput,
    check=_check,
)
