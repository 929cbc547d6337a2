"""Lowering for the Edge TPU: an operator's rows, its feature map cut over the tiles, its channels over the cells.

An operator is five stages at most: ``link`` brings code and streamed parameters, ``dma`` carries weights from where they
lie in the wide memory to all tiles, ``dispatch`` starts the tiles, ``matrix`` (or ``vector``) is the work. Every tile
computes its share of rows and columns, 64 output channels at a time; the tiles at the edge of a map that does not divide
are rows of their own, and all wait for the largest. What surrounds a program on the chip is kernels too: ``to_chip``
(the host's call, code, inputs), ``from_chip`` (results, and the host putting them in order) and ``on_host``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.machine.edge_tpu import Tensor
from hwsim.plan.edge_tpu_graph import Op
from hwsim.plan.edge_tpu_memory import up, weight_rows
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

_AXES = {"y": AXIS["m"], "x": AXIS["m"], "n": AXIS["n"], "step": AXIS["step"]}
_SOFTMAX_PASSES = 6  # over its values: largest, exponentials, their sum, quotients
_BUFFERS = 2  # sets of parameters on their way: of the operator that runs and of the next
TAPS = {"RESIZE_BILINEAR": 4, "ADD": 2, "SUB": 2, "MUL": 2, "MAXIMUM": 2, "MINIMUM": 2, "SQUARED_DIFFERENCE": 2}


@dataclass(frozen=True, slots=True)
class Work:
    """What one operator computes: ``y`` x ``x`` places of ``z`` channels, ``depth`` products each, ``repeat`` times over.

    ``place_clks`` are the clocks of one place, all its channels (of one row of cells where work is ``split`` over the
    tiles by channels, each seeing every input); ``macs`` the products useful for one output value (0: vector work).
    """

    y: int
    x: int
    z: int
    place_clks: int
    macs: int
    depth: int
    split: bool = False
    repeat: int = 1


def work_of(op: Op, tensor: Tensor, narrow_bytes: float) -> Work:
    """Return the work of a mapped operator; a tile's narrow memory moves ``narrow_bytes`` a clock.

    A convolution broadcasts a few input channels to all cells, so that only its results load the memory; where every cell
    has an input of its own (depthwise and vector work) every operand does.
    """
    out, taps = op.out, _taps(op)
    z_in = op.inputs[0].z if op.inputs else out.z
    macs = tensor.cell_macs
    rows, _ = weight_rows(op, macs)
    lines = -(-out.z // tensor.cells)

    def moved(times: int) -> int:
        return math.ceil(times * up(out.z, macs) / narrow_bytes)

    if op.code == "DEPTHWISE_CONV_2D":
        # A cell uses one of its multipliers, and needs a clock for each channel of a group.
        return Work(out.y, out.x, out.z, max(lines * taps * macs, moved(taps + 1)), taps, taps * macs * macs)
    if op.code == "TRANSPOSE_CONV":
        place = op.inputs[0]
        return Work(place.y, place.x, out.z, max(lines * rows // macs, moved(taps)), taps * z_in, rows)
    if op.code == "CONV_2D" and out.y * out.x > 1:
        return Work(out.y, out.x, out.z, max(lines * rows // macs, moved(1)), taps * z_in, rows)
    if op.code == "CONV_2D":
        return Work(1, 1, out.z, rows // macs, taps * z_in, rows, True)
    if op.code == "FULLY_CONNECTED":
        inside = op.layer.attrs.get("k") if op.layer is not None else None
        return Work(1, 1, out.z, rows // macs, inside if isinstance(inside, int) else z_in, rows, True)
    if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        steps, state = max(op.inputs[0].x, op.inputs[0].y), out.z
        return Work(1, 1, 4 * state, rows // macs, z_in + state, rows, True, steps)
    if op.code in ("SOFTMAX", "L2_NORMALIZATION"):
        return Work(out.y, out.x, out.z, moved(_SOFTMAX_PASSES), 0, _SOFTMAX_PASSES)
    if op.code in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        source = op.inputs[0]
        return Work(source.y, source.x, source.z, max(lines * macs, moved(1)), 0, 1)
    return Work(out.y, out.x, out.z, moved(taps + 1), 0, taps)


def _taps(op: Op) -> int:
    """Input places one output place is made of."""
    kernel = op.layer.attrs.get("k") if op.layer is not None and not op.part else None
    if isinstance(kernel, tuple):
        taps = 1
        for k in kernel:
            taps *= k
        return taps * (kernel[0] if len(kernel) == 1 else 1)
    if op.code in ("AVERAGE_POOL_2D", "MAX_POOL_2D") and isinstance(kernel, int):
        return kernel * kernel
    return TAPS.get(op.code, 1) if len(op.inputs) > 1 or op.code == "RESIZE_BILINEAR" else 1


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bytes an operator waits for: code and parameters over the link, weights from tile to tile, words left where they are."""

    code: int = 0
    streamed: int = 0
    shared: int = 0


def lower_op(builder: ScheduleBuilder, op: Op, work: Work, fetch: Fetch, tensor: Tensor) -> None:
    """Append the rows of one operator on the chip."""
    number = FORMAT[op.out.dtype if op.out.dtype in FORMAT else "int8"]
    stage = 0
    feeds: list[int] = []
    if fetch.code or fetch.streamed:
        builder.row(
            stage=stage, unit=UNIT["link"], cause=CAUSE["link"], buffers=_BUFFERS, op=OPERATION["copy"], format=number,
            bytes=(0, fetch.streamed, 0, fetch.code), source=LEVEL["host"],
            target=(LEVEL["none"], LEVEL["shared"], LEVEL["none"], LEVEL["none"]),
        )  # fmt: skip
        feeds = [stage]
        stage += 1
    if fetch.shared:
        builder.row(
            stage=stage, unit=UNIT["dma"], cause=CAUSE["weight_fetch"], buffers=_BUFFERS, op=OPERATION["copy"],
            format=number, bytes=(0, fetch.shared), source=(0, LEVEL["shared"]), target=(0, LEVEL["none"]),
            dep=tuple(feeds),
        )  # fmt: skip
        feeds = [stage]
        stage += 1
    builder.row(
        stage=stage, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2, buffers=0, format=number, ops=work.repeat
    )
    _work_rows(builder, work, tensor, stage + 1, (stage, *feeds), number)


def _work_rows(
    builder: ScheduleBuilder, work: Work, tensor: Tensor, stage: int, dep: tuple[int, ...], number: int
) -> None:
    cells, tiles = tensor.cells, tensor.tiles
    lines = Loop.over("n", work.z, cells)
    if work.split:
        loops, largest = [lines], 1
        issues = -(-lines.count // tiles)
    else:
        y, x = (
            Loop.over("y", work.y, -(-work.y // tensor.tiles_y)),
            Loop.over("x", work.x, -(-work.x // tensor.tiles_x)),
        )
        loops, largest = [y, x, lines], y.full * x.full
        issues = 1
    if work.repeat > 1:
        loops = [Loop("step", work.repeat), *loops]
    axes = tuple(_AXES[loop.axis] for loop in loops)
    matrix = work.macs > 0
    for first, trips, extent in split_classes(loops):
        places = extent.get("y", 1) * extent.get("x", 1)
        wide = extent["n"]
        useful = places * wide * (work.macs or work.depth)
        # Cells, tiles and channels without work wait for the largest tile.
        share = 1 if work.split else lines.count
        spent = -(-largest * work.place_clks * cells * (tensor.cell_macs if matrix else 1) // share)
        reads = places * work.depth if matrix else places * wide * work.depth
        builder.row(
            stage=stage, unit=UNIT["matrix" if matrix else "vector"], lanes=tiles, axis=axes, first=first, trips=trips,
            op=OPERATION["mac" if matrix else "alu"], format=number, extent=(places, wide, max(1, work.macs)),
            padded=(largest, up(wide, cells), max(1, work.depth)), ops=useful, issued=spent,
            span=(largest, issues, work.place_clks, work.repeat),
            bytes=(reads, wide * work.depth if matrix else 0, places * wide), refetch=(len(loops),) * 3,
            source=(LEVEL["shared"], LEVEL["shared"] if matrix else LEVEL["none"], LEVEL["none"]),
            target=(LEVEL["none"], LEVEL["none"], LEVEL["shared"]), buffers=0, dep=dep,
            cause=CAUSE["matrix" if matrix else "vector_unit"], awaits=2,
        )  # fmt: skip


def to_chip(builder: ScheduleBuilder, host_clks: int, code: int, inputs: int) -> None:
    """Append the rows that start a program: the host's call and its copies, then code and inputs over the link."""
    _host(builder, 0, host_clks, ())
    builder.row(
        stage=1, unit=UNIT["link"], cause=CAUSE["link"], buffers=0, op=OPERATION["copy"], bytes=(inputs, 0, 0, code),
        source=LEVEL["host"], target=(LEVEL["shared"], 0, 0, 0), dep=(0,), awaits=2,
    )  # fmt: skip


def from_chip(builder: ScheduleBuilder, outputs: int, host_clks: int) -> None:
    """Append the rows that end a program: results over the link, then the host's work on them."""
    builder.row(
        stage=0, unit=UNIT["link"], cause=CAUSE["link"], buffers=0, op=OPERATION["copy"], bytes=(0, 0, outputs),
        source=(0, 0, LEVEL["shared"]), target=(0, 0, LEVEL["host"]), awaits=2,
    )  # fmt: skip
    _host(builder, 1, host_clks, (0,))


def on_host(builder: ScheduleBuilder, host_clks: int) -> None:
    """Append the row of an operator that runs on the host."""
    _host(builder, 0, host_clks, ())


def _host(builder: ScheduleBuilder, stage: int, clks: int, dep: tuple[int, ...]) -> None:
    builder.row(
        stage=stage,
        unit=UNIT["cpu"],
        cause=CAUSE["dispatch"],
        buffers=0,
        awaits=2,
        dep=dep,
        span=(max(0, clks), 0, 0, 0),
    )
