"""A whole run on the Edge TPU the slow way: tiles and cells stepped, links played chunk by chunk, kernels as SimPy processes.

It takes operators and steps as the plan has them, and of the schedule only which row waits for which; nothing here is shared
with `hwsim.schedule.edge_tpu` or `hwsim.timing.edge_tpu`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.link import Link, Message
from hwsim.machine.edge_tpu import Tensor
from hwsim.schedule.table import UNIT, Schedule
from hwsim.timing.reference.edge_tpu_tiles import step_channels, step_tiles
from hwsim.timing.reference.link_simpy import play
from hwsim.timing.reference.pipeline_simpy import TwinTiming, simulate

Step = Any  # hwsim.plan.edge_tpu_plan.Step, and below .edge_tpu_graph.Op: the plan's rooms lie above this one
Op = Any


def run_slowly(
    operators: Sequence[Op], steps: Sequence[Step], schedule: Schedule, tensor: Tensor, link: Link, start_s: float,
    constants: Mapping[str, float],
) -> TwinTiming:  # fmt: skip
    """Return when each kernel runs."""
    service = [0] * schedule.rows
    for k, step in enumerate(steps):
        seen: set[int] = set()
        for row in range(int(schedule.starts[k]), int(schedule.starts[k + 1])):
            unit = int(schedule.unit[row])
            if unit in seen and unit in (UNIT["matrix"], UNIT["vector"]):
                continue  # the tiles run together: the stepping below has all of them
            seen.add(unit)
            if unit == UNIT["link"]:
                service[row] = _link(step, tensor, link, start_s)
            elif unit == UNIT["dma"]:
                service[row] = math.ceil(step.shared / constants["ring_bytes"])
            elif unit == UNIT["dispatch"]:
                service[row] = _repeats(operators[step.operator]) * round(constants["operator_clks"])
            elif unit == UNIT["cpu"]:
                service[row] = math.ceil(step.host_s * tensor.clock_hz)
            else:
                service[row] = operator_clks(operators[step.operator], tensor, constants["narrow_bytes"])
    return simulate(schedule, service)


def _link(step: Step, tensor: Tensor, link: Link, start_s: float) -> int:
    """Clocks of what a step sends: each message alone, streamed parameters in one piece."""
    seconds: float = 0.0
    for nbytes in (step.inputs, step.code):
        if nbytes:
            seconds += play(link, [Message(nbytes, 0.0, start_s)])[0][1]
    seconds += step.streamed / link.to_chip_bytes_per_s
    if step.outputs:
        seconds += play(link, [Message(step.outputs, 0.0, start_s, True)])[0][1]
    clocks: int = math.ceil(seconds * tensor.clock_hz)
    return clocks


def _repeats(op: Op) -> int:
    return int(max(op.inputs[0].x, op.inputs[0].y)) if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM" else 1


def operator_clks(op: Op, tensor: Tensor, narrow_bytes: float) -> int:
    """Clocks until the last tile is done with one operator."""
    macs, out = tensor.cell_macs, op.out
    deep = 4 * math.ceil(op.inputs[0].z / 4)
    kernel = op.layer.attrs.get("k") if op.layer is not None and not op.part else None
    taps = math.prod(kernel) * (kernel[0] if len(kernel) == 1 else 1) if isinstance(kernel, tuple) else 1
    split = op.code == "FULLY_CONNECTED" or (op.code == "CONV_2D" and out.y * out.x == 1)
    if split or op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        inputs = taps * deep
        outs = out.z
        if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            inputs, outs = deep + 4 * math.ceil(out.z / 4), 4 * out.z
        elif op.code == "FULLY_CONNECTED":
            inputs = 4 * math.ceil((kernel if isinstance(kernel, int) else op.inputs[0].elements) / 4)
        done = step_channels(outs, inputs, tiles=tensor.tiles, cells=tensor.cells, cell_macs=macs)
        return int(done.clks * _repeats(op))
    grid = {"tiles_y": tensor.tiles_y, "tiles_x": tensor.tiles_x, "cells": tensor.cells, "cell_macs": macs}
    if op.code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        depthwise = op.code == "DEPTHWISE_CONV_2D"
        whole = step_tiles(out.y, out.x, out.z, taps, op.inputs[0].z, depthwise=depthwise, **grid)
        places = math.ceil(out.y / tensor.tiles_y) * math.ceil(out.x / tensor.tiles_x)
        # Results leave, and of a depthwise convolution every operand comes, through the narrow memory of the tile.
        moved = 0
        for _ in range(0, out.z, macs):
            moved += macs * (taps + 1 if depthwise else 1)
        return int(max(whole.clks, places * math.ceil(moved / narrow_bytes)))
    return _vector_clks(op, tensor, narrow_bytes)


def _vector_clks(op: Op, tensor: Tensor, narrow_bytes: float) -> int:
    """Every operand and every result of a place goes through the narrow memory, channels in fours."""
    place = op.inputs[0] if op.code == "MEAN" else op.out
    kernel = op.layer.attrs.get("k") if op.layer is not None and not op.part else None
    if op.code == "SOFTMAX":
        passes = 6
    elif op.code == "MEAN":
        passes = 1
    elif op.code in ("ADD", "MUL", "SUB"):
        passes = (2 if len(op.inputs) > 1 else 1) + 1
    elif op.code == "AVERAGE_POOL_2D":
        assert isinstance(kernel, tuple)
        passes = math.prod(kernel) + 1
    else:
        passes = 2
    moved = cells = 0
    for first in range(0, place.z, tensor.cell_macs):
        moved += passes * tensor.cell_macs
        cells += tensor.cell_macs if first % tensor.cells == 0 else 0
    clks = math.ceil(moved / narrow_bytes)
    if op.code == "MEAN":
        clks = max(clks, cells)
    rows, cols = math.ceil(place.y / tensor.tiles_y), math.ceil(place.x / tensor.tiles_x)
    worst = 0
    for row in range(tensor.tiles_y):
        for col in range(tensor.tiles_x):
            tall = min(place.y, (row + 1) * rows) - row * rows
            wide = min(place.x, (col + 1) * cols) - col * cols
            worst = max(worst, max(0, tall) * max(0, wide) * clks)
    return worst
