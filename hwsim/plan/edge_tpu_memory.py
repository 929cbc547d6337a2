"""Parameters of the Edge TPU: how many bytes an operator stores, and which operators stay in the wide memory.

The packing was read off compiled files (sizes of parameter streams in google-coral/test_data and LibrEdgeTPU, exact for
plain convolutional networks) and off compiler logs; `docs/edge_tpu.md` has the evidence:

* input channels come in fours, output channels in sixteens below 64 and in sixty-fours above (four or fewer: one four);
* a depthwise filter has four bytes a tap, of which one is used; beside its weights an output has 4 bytes (a bias) in
  uint8 files, 8 in int8 files and 12 where weights are scaled per channel;
* in the wide memory every operator's outputs take whole rows of 64 cells;
* an operator whose result is one column of channels is split over the tiles by channels: its rows are taken in all tiles.

Caching is first fit in execution order, the declared rule of this model: the compiler's own is not public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.edge_tpu import Tensor
from hwsim.plan.edge_tpu_graph import Op

_LINE = 64  # bytes an operator's parameters are rounded up to
_GROUP = 16  # output channels of a stored block below a full row of cells


def up(value: int, to: int) -> int:
    """Return ``value`` rounded up to a multiple of ``to``."""
    return -(-value // to) * to


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of one operator, bytes.

    ``stream`` cross the link, ``cached`` is what the log counts when they stay, ``tile`` what they take of every tile's
    wide memory then; ``split`` says that each tile has its own (one column of channels) instead of all tiles sharing.
    ``file`` are weights and 32-bit biases as the TFLite file has them.
    """

    stream: int
    cached: int
    tile: int
    split: bool
    file: int = 0


def parameters(op: Op, acc: Accelerator, constants: Mapping[str, float]) -> Parameters:
    """Return what ``op`` stores on ``acc``."""
    tensor = acc.section("tensor", Tensor)
    macs, cells, tiles = tensor.cell_macs, tensor.cells, tensor.tiles
    rows, outs = weight_rows(op, macs)
    if not rows:
        table = _table_bytes(op, constants)
        return Parameters(table, table, -(-table // tiles), False)
    side = _side_bytes(op)
    file = (weight_rows(op, 1)[0] + 4) * outs
    stream = up((rows + side) * channels(outs, macs, cells), _LINE)
    wide = macs if outs <= macs else up(outs, cells)
    cached = up((rows + side) * wide, _LINE)
    split = op.out.y * op.out.x == 1
    if op.code == "DEPTHWISE_CONV_2D":
        split = False
        stream = up((rows + side) * outs, _LINE)
    if split:
        passes = -(-outs // (cells * tiles))
        return Parameters(stream, cached, passes * (rows + side) * min(wide, cells), True, file)
    return Parameters(stream, cached, -(-cached // tiles), False, file)


def _side_bytes(op: Op) -> int:
    """Bytes an output has beside its weights."""
    if op.out.dtype == "uint8" or op.layer is None:
        return 4
    per_channel = "ws=per-channel" in op.layer.qparams or (not op.layer.qparams and op.code != "FULLY_CONNECTED")
    return 12 if per_channel else 8


def channels(outs: int, macs: int, cells: int) -> int:
    """Return the output channels an operator's stored parameters have."""
    if outs >= cells:
        return up(outs, cells)
    return macs if outs <= macs else up(outs, _GROUP)


def weight_rows(op: Op, macs: int) -> tuple[int, int]:
    """Return the stored bytes of one output channel's weights, and the output channels; (0, 0) without weights."""
    layer = op.layer
    if layer is None or op.part:
        return 0, 0
    taps = 1
    kernel = layer.attrs.get("k")
    if isinstance(kernel, tuple):
        for k in kernel:
            taps *= k
        if len(kernel) == 1:
            taps *= kernel[0]
    z = op.inputs[0].z if op.inputs else 0
    if op.code == "DEPTHWISE_CONV_2D":
        return taps * macs, op.out.z
    if op.code in ("CONV_2D", "TRANSPOSE_CONV"):
        groups = layer.attrs.get("g", 1)
        return taps * up(z // (groups if isinstance(groups, int) else 1), macs), op.out.z
    if op.code == "FULLY_CONNECTED":
        return up(kernel if isinstance(kernel, int) else op.inputs[0].elements, macs), op.out.z
    if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        hidden = layer.attrs.get("h", op.out.z)
        state = hidden if isinstance(hidden, int) else op.out.z
        return up(z, macs) + up(state, macs), 4 * state
    if op.code == "PRELU" or (op.code in ("ADD", "MUL", "SUB") and len(op.inputs) == 1 and "const" in layer.attrs):
        return 1, op.out.z
    return 0, 0


def _table_bytes(op: Op, constants: Mapping[str, float]) -> int:
    """Tables of an operator that looks its function up."""
    if op.code == "SOFTMAX":
        return up(round(constants["softmax_table"] + constants["softmax_class"] * op.out.z), _LINE)
    return 0


@dataclass(frozen=True)
class Cache:
    """What stays in the wide memory and what is streamed, bytes by operator, and what is left of every tile.

    ``kept`` counts as the log does; an operator that stays in part is in both.
    """

    kept: Mapping[int, int]
    streams: Mapping[int, int]
    free_tile: int

    @property
    def used(self) -> int:
        """On-chip memory used for caching."""
        return sum(self.kept.values())

    @property
    def streamed(self) -> int:
        """Parameters that cross the link in every run."""
        return sum(self.streams.values())


def staging_bytes(ops: Sequence[Op], acc: Accelerator, constants: Mapping[str, float]) -> int:
    """Return the wide memory of a tile that is kept free for weights on their way; none without convolutions.

    The most of what logs were seen to leave out: a floor; two blocks of filters of a row of cells where a tile has many
    places to use them at; a share of the largest operator that is split over the tiles.
    """
    tensor = acc.section("tensor", Tensor)
    macs = tensor.cell_macs
    most = split = 0.0
    for op in ops:
        if op.code not in ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED") or not op.inputs:
            continue
        if op.out.y * op.out.x == 1:
            own = min(parameters(op, acc, constants).tile, acc.memory["wide"].capacity_bytes // tensor.tiles)
            split = max(split, constants["staged_split"] * own)
            continue
        most = max(most, constants["staging"] / tensor.tiles)
        places = -(-op.out.y // tensor.tiles_y) * -(-op.out.x // tensor.tiles_x)
        if places > constants["staged_places"]:
            deep = up(op.inputs[0].z, macs)
            taps = max(1, weight_rows(op, macs)[0] // deep)
            most = max(most, 2 * taps * min(deep, constants["staged_channels"]) * tensor.cells)
    return round(max(most, split)) if most else 0


def fill(each: Sequence[Parameters | None], tile_bytes: int, tiles: int, used_tile: int = 0) -> Cache:
    """Return which operators' parameters stay, first fit in order, in ``tile_bytes`` of every tile.

    Parameters that all tiles share are cut as finely as wanted, so the last that does not fit stays in part; those each
    tile has of its own stay whole or not at all. ``used_tile`` bytes are another model's.
    """
    free = max(0, tile_bytes - used_tile)
    kept: dict[int, int] = {}
    streams: dict[int, int] = {}
    for i, p in enumerate(each):
        if p is None or not p.stream:
            continue
        if p.tile <= free:
            kept[i] = p.cached
            free -= p.tile
        elif p.split or not free:
            streams[i] = p.stream
        else:
            part = free * tiles / p.cached
            kept[i] = round(p.cached * part)
            streams[i] = up(round(p.stream * (1 - part)), _LINE)
            free = 0
    return Cache(kept, streams, free)
