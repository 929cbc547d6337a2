"""SCALE-Sim layout files: how operands are spread over SRAM lines and banks (the optional layout evaluation)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.errors import HwsimError
from hwsim.files import read_regular
from hwsim.network.scalesim_topology import MAX_FILE_BYTES, TopologyLayer
from hwsim.scalesim.config import Config
from hwsim.scalesim.operands import HOLE, Words

_FACTORS = ("ifmap height", "ifmap width", "filter height", "filter width", "channel", "num filter")
_INTEGER = re.compile(r"\d{1,9}")


@dataclass(frozen=True, slots=True)
class LayerLayout:
    """One line of a layout file: six tile sizes within an SRAM line, then the loop orders inside and between lines.

    Orders are permutations, given as in the file: 0-based inside a line, 3-based (ifmap) or 4-based (filter) between.
    """

    name: str
    factors: tuple[int, int, int, int, int, int]
    ifmap_inside: tuple[int, ...]
    ifmap_between: tuple[int, ...]
    filter_inside: tuple[int, ...]
    filter_between: tuple[int, ...]


def parse_layout(text: str, *, source: str = "layout") -> tuple[LayerLayout, ...]:
    """Parse a layout file. Raises HwsimError naming file, line and field."""
    if len(text) > MAX_FILE_BYTES:
        raise HwsimError(f"{source}: {len(text)} characters; a layout file may have {MAX_FILE_BYTES}")
    layouts = []
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines()[1:], start=2):
        cells = [c.strip() for c in raw.split(",")]
        while cells and cells[-1] == "":
            cells.pop()
        if not cells:
            continue
        layouts.append(_layer(source, number, cells))
    if not layouts:
        raise HwsimError(f"{source}: no layers; a layout line is a name, six factors and fourteen loop orders")
    return tuple(layouts)


def _layer(source: str, number: int, cells: list[str]) -> LayerLayout:
    where = f"{source}, line {number}"
    if len(cells) != 21:
        raise HwsimError(f"{where}: expected a name and 20 numbers, found {len(cells)} fields")
    for position, cell in enumerate(cells[1:], start=2):
        if not _INTEGER.fullmatch(cell):
            raise HwsimError(f"{where}, column {position}: expected a whole number, found {cell[:40]!r}")
    values = [int(cell) for cell in cells[1:]]
    for title, factor in zip(_FACTORS, values[:6], strict=True):
        if not 1 <= factor <= 1 << 24:
            raise HwsimError(f"{where}, {title} intraline factor: {factor} is outside 1 … {1 << 24}")
    orders = (values[6:9], values[9:12], values[12:16], values[16:20])
    for title, order, base in zip(("ifmap", "ifmap", "filter", "filter"), orders, (0, 3, 0, 4), strict=True):
        if sorted(order) != [base + i for i in range(len(order))]:
            raise HwsimError(
                f"{where}, {title} order: {order} is not a permutation of {base} … {base + len(order) - 1}"
            )
    a, b, c, d, e, f = values[:6]
    return LayerLayout(cells[0], (a, b, c, d, e, f), *(tuple(order) for order in orders))


def read_layout(path: str | Path) -> tuple[LayerLayout, ...]:
    """Read a layout CSV; see :func:`parse_layout`. Raises HwsimError."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise HwsimError(f"{path}: larger than the {MAX_FILE_BYTES >> 20} MiB a layout file may have")
        raw = read_regular(path)
    except (OSError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HwsimError(f"cannot read layout {str(path)[:80]!r}: {reason}") from None
    return parse_layout(raw.decode("utf-8", errors="replace"), source=str(path))


def _tiled(shape: tuple[int, ...], tiles: tuple[int, ...], order: tuple[int, ...]) -> Words:
    """Addresses of a row-major array, cut into tiles (padded with HOLE) and walked in ``order``."""
    padding = [(0, -size % tile) for size, tile in zip(shape, tiles, strict=True)]
    data = np.pad(np.arange(np.prod(shape), dtype=np.int64).reshape(shape), padding, constant_values=HOLE)
    split = data.reshape([n for size, tile in zip(data.shape, tiles, strict=True) for n in (size // tile, tile)])
    rank = len(shape)
    split = split.transpose(*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
    return split.transpose(order).ravel()


def _check_banks(config: Config, layer: TopologyLayer, bandwidth: int, banks: int, tile: int, exact: bool) -> None:
    where = f"layer {layer.name!r}"
    if bandwidth % banks:
        raise HwsimError(f"{where}: SRAM bandwidth {bandwidth} is not a multiple of its {banks} banks")
    if tile > bandwidth or (exact and tile != bandwidth):
        need = "must equal" if exact else "must fit in"
        raise HwsimError(
            f"{where}: the intraline factors make lines of {tile} words, which {need} the bandwidth {bandwidth}"
        )


def ifmap_layout_stream(config: Config, layer: TopologyLayer, layout: LayerLayout) -> Words:
    """Order in which a custom layout stores the input, addresses without offset."""
    height, width, _, _, channel, _ = layout.factors
    _check_banks(
        config, layer, config.ifmap_bank_bandwidth, config.ifmap_bank_num, height * width * channel, exact=False
    )
    shape = (layer.ifmap_h, layer.ifmap_w, layer.channels)
    return _tiled(shape, (height, width, channel), layout.ifmap_between + layout.ifmap_inside)


def filter_layout_stream(config: Config, layer: TopologyLayer, layout: LayerLayout) -> Words:
    """Order in which a custom layout stores the filter, addresses without offset."""
    _, _, height, width, channel, filters = layout.factors
    tile = height * width * channel * filters
    _check_banks(config, layer, config.filter_bank_bandwidth, config.filter_bank_num, tile, exact=True)
    shape = (layer.n, layer.channels, layer.filter_h, layer.filter_w)
    return _tiled(shape, (filters, channel, height, width), layout.filter_between + layout.filter_inside)
