"""Time of an Edge TPU's rows in closed form, in clocks of its tiles.

A tile works through its places one after the other, a row of cells' channels at a time: ``places x lines x clocks`` of the
largest tile (`tile_clks`; `hwsim.timing.reference.edge_tpu_tiles` steps every tile instead). Weights reach the tiles over a
ring of so many bytes a clock, starting an operator on all tiles takes a fixed time, and the link is `hwsim.link`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hwsim.link import Link, transfer_s
from hwsim.machine.edge_tpu import Tensor
from hwsim.schedule.table import CAUSE, CAUSES, UNIT, Ints, Schedule
from hwsim.timing.run import Timing, run


def tile_clks(y: int, x: int, lines: int, place_clks: int, tiles_y: int, tiles_x: int) -> int:
    """Return the clocks until the last tile has computed its share of ``y`` x ``x`` places, ``lines`` rows of cells each."""
    return -(-y // tiles_y) * -(-x // tiles_x) * lines * place_clks


def service_clks(
    schedule: Schedule, tensor: Tensor, link: Link, chunk_start_s: float, constants: Mapping[str, float]
) -> Ints:
    """Return the clocks one issue of each row takes; ``chunk_start_s`` is what the host spends to start a chunk."""
    column = schedule.columns
    unit, span, moved = column["unit"], column["span"], column["bytes"]
    out = np.zeros(len(unit), np.int64)
    # Several rows are one issue: its time is charged to the largest tile, the one at the beginning of all loops.
    head = column["first"].sum(axis=1) == 0
    rows = ((unit == UNIT["matrix"]) | (unit == UNIT["vector"])) & head
    out[rows] = span[rows].prod(axis=1)
    rows = unit == UNIT["dispatch"]
    out[rows] = round(constants["operator_clks"]) * column["ops"][rows]
    rows = unit == UNIT["dma"]
    out[rows] = np.ceil(moved[rows, 1] / constants["ring_bytes"])
    rows = unit == UNIT["cpu"]
    out[rows] = span[rows, 0]
    for row in np.flatnonzero(unit == UNIT["link"]):
        inputs, streamed, outputs, code = (int(v) for v in moved[row])
        seconds = sum(transfer_s(link, n, start_s=chunk_start_s) for n in (inputs, code) if n)
        # Streamed parameters lie side by side in the host's memory: one long message, started while another is sent.
        seconds += streamed / link.to_chip_bytes_per_s
        if outputs:
            seconds += transfer_s(link, outputs, to_host=True, start_s=chunk_start_s)
        out[row] = math.ceil(seconds * tensor.clock_hz)
    return out


def edge_tpu_timing(schedule: Schedule, service: Ints) -> Timing:
    """Return when every kernel runs, by the pipeline engine, with host work and streaming told apart in its waits."""
    timing = run(schedule, service.tolist())
    waits = np.zeros((schedule.kernels, len(CAUSES)), np.int64)
    waits[:, : timing.waits.shape[1]] = timing.waits
    busy = timing.busy.copy()
    unit = schedule.unit
    for k in range(schedule.kernels):
        rows = slice(int(schedule.starts[k]), int(schedule.starts[k + 1]))
        units = set(unit[rows].tolist())
        if UNIT["cpu"] in units:  # not on the chip: what is not the link's is the host's
            total = int(timing.end[k] - timing.begin[k])
            wire = min(total, int(service[rows][unit[rows] == UNIT["link"]].sum()))
            waits[k], busy[k] = 0, 0
            waits[k, CAUSE["link"]], waits[k, CAUSE["host"]] = wire, total - wire
        elif schedule.bytes[rows, 1][unit[rows] == UNIT["link"]].any():
            waits[k, CAUSE["streaming"]] += waits[k, CAUSE["link"]]
            waits[k, CAUSE["link"]] = 0
    return replace(timing, busy=busy, waits=waits)
