"""Service times of a systolic machine: array clocks one issue of each row of a schedule takes on its unit.

Matrix rows run their folds as `hwsim.timing.systolic` counts them (equal to the register-transfer twin), dealt over the
arrays; where formats are converted in the inner loop the array issues at a fitted fraction of its rate. Transfers take
bytes over sustained bandwidth, vector work lane operations over lanes. The constants and their bounds are in
``accelerators/constants/systolic.toml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.formats import FORMATS
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.table import LEVEL, UNIT, Ints, Schedule
from hwsim.timing.systolic import fold_axes, output_stationary_cycles, stationary_cycles

# Formats a vector unit with fp32 and integer lanes must decode in software (a bf16 or integer widens with one shift).
SOFTWARE_FORMATS = frozenset({"fp16", "e4m3", "e5m2", "e3m2", "e2m3", "e2m1"})
_SOFTWARE = np.array([name in SOFTWARE_FORMATS for name in FORMATS])


def service_cycles(schedule: Schedule, view: SystolicView, constants: Mapping[str, float]) -> Ints:
    """Return the array clocks one issue of each row takes; shape [rows], int64, at least 0."""
    column = schedule.columns
    unit = column["unit"]
    out = np.zeros(len(unit), np.int64)
    moved = column["bytes"].sum(axis=1)
    efficiency = constants["memory_efficiency"]

    rows = unit == UNIT["dma"]
    out[rows] = np.ceil(moved[rows] / (view.dram_read * efficiency))
    rows = unit == UNIT["store"]
    # A store row also fetches what only the fused layers read (a residual).
    fetched = (column["bytes"] * (column["source"] == LEVEL["dram"])).sum(axis=1)
    stored = moved - fetched
    out[rows] = np.ceil((fetched[rows] / view.dram_read + stored[rows] / view.dram_write) / efficiency)
    _share_memory(schedule, view, efficiency, out)
    rows = unit == UNIT["shift"]
    out[rows] = -(-view.rows // view.weight_rows_per_clk) * view.clks_per_weight_row
    rows = (unit == UNIT["vector"]) | (unit == UNIT["convert"])
    out[rows] = np.ceil(column["issued"][rows] / (view.lane_ops * column["lanes"][rows]))
    rows = unit == UNIT["dispatch"]
    overhead = constants["kernel_overhead"] + view.kernel_s
    # A memory's stated latency is paid once a kernel, before its first byte; later transfers are in flight.
    fixed = overhead * view.clock_hz + constants["layer_sync"] + view.instruction_cycles + view.dram_latency
    out[rows] = round(fixed)
    # Element-wise kernels on several cores take a while until all of them run.
    out[rows & (column["lanes"] > 1)] += round(constants["megacore_start"] * view.clock_hz)
    rows = unit == UNIT["link"]
    out[rows] = np.ceil(moved[rows] / view.host_bytes)
    _matrix(schedule, view, constants, out)
    return out


def _share_memory(schedule: Schedule, view: SystolicView, efficiency: float, out: Ints) -> None:
    """Let loads and stores of one kernel that run side by side share the memory's bandwidth.

    Loads and stores are queues of their own, but their bytes use one memory. Whichever has more issues is slowed down
    by the bytes of the other that overlap it (all stores but the last, or all loads but the first), so that a kernel
    never takes less than its bytes over the bandwidth.
    """
    if not view.dram_shared:
        return
    column = schedule.columns
    kernel, unit = column["kernel"], column["unit"]
    count = schedule.kernels
    issues = schedule.issues().astype(float)
    moved = issues * column["bytes"].sum(axis=1)
    loads, stores = unit == UNIT["dma"], unit == UNIT["store"]

    def total(rows: Any, values: Any) -> Any:
        return np.bincount(kernel[rows], weights=values[rows], minlength=count)

    load_issues, store_issues = total(loads, issues), total(stores, issues)

    def least(rows: Any) -> Any:
        found = np.full(count, np.inf)
        np.minimum.at(found, kernel[rows], column["bytes"].sum(axis=1)[rows].astype(float))
        return np.where(np.isfinite(found), found, 0.0)

    both = (load_issues > 0) & (store_issues > 0)
    slow_loads = both & (load_issues >= store_issues)
    beside = np.where(
        slow_loads,
        total(stores, moved) - least(stores),
        total(loads, moved) - least(loads),
    )
    extra = beside / np.maximum(1, np.where(slow_loads, load_issues, store_issues)) / (view.dram_read * efficiency)
    slowed = np.where(slow_loads[kernel], loads, stores & both[kernel])
    out[slowed] += np.ceil(extra[kernel[slowed]]).astype(np.int64)


def _matrix(schedule: Schedule, view: SystolicView, constants: Mapping[str, float], out: Ints) -> None:
    column = schedule.columns
    rows = np.flatnonzero(column["unit"] == UNIT["matrix"])
    if not len(rows):
        return
    # One issue may be several rows (partial folds): its cycles are charged to the one at the beginning of its inner loops.
    inside = np.arange(column["first"].shape[1])[None, :] >= column["depth"][rows, None]
    rows = rows[(column["first"][rows] * inside).sum(axis=1) == 0]
    span, lanes = column["span"][rows], column["lanes"][rows]
    m, n, k, taps = span.T
    beat = column["beat"][rows] / 64.0
    if view.fifo_tiles:
        # The weights are a stage of their own; streaming is all that is left, and folds follow each other without gap.
        out[rows] = np.ceil(np.ceil(m / view.rows_per_clk) * beat)
        return
    if view.dataflow != "ws" or not view.overlap:
        along_rows, along_cols, steps = fold_axes(view.dataflow, m, n, k)
        folds = taps * -(-along_rows // view.rows) * -(-along_cols // view.cols)
        folds = -(-folds // lanes)
        if view.dataflow == "os":
            cycles = output_stationary_cycles(steps, folds, view.rows, view.cols, view.overlap, view.rows_per_clk)
        else:
            cycles = stationary_cycles(
                steps, folds, view.rows, view.cols, view.overlap, view.double_buffer, view.rows_per_clk,
                view.weight_rows_per_clk, view.clks_per_weight_row, chunk_rows=view.accumulator_rows,
            )  # fmt: skip
        out[rows] = cycles.total + folds * (np.ceil(steps * beat).astype(np.int64) - steps)
        return
    # Several arrays share the column tiles of a window; when there are fewer tiles than arrays, some of the empty slots
    # are filled by cutting m instead, the others idle.
    converting, piped = _SOFTWARE[column["format"][rows]], column["piped"][rows] == 1
    tiles = -(-n // view.cols) / view.arrays
    tiles += constants["idle_arrays"] * np.maximum(0.0, 1.0 - tiles)
    k_folds = taps * -(-k // view.rows)
    steps = -(-m // 8) * 8  # registers hold eight rows
    beats = np.ceil(np.ceil(steps / view.rows_per_clk) * beat)
    shift = -(-view.rows // view.weight_rows_per_clk) * view.clks_per_weight_row
    per_fold = np.maximum(beats, shift) if view.double_buffer else beats + shift
    rate = np.where(
        converting,
        np.where(piped, constants["converting_rate_piped"], constants["converting_rate_serial"]),
        np.where(piped, constants["native_rate_piped"], 1.0),
    )
    # A product in one window starts the array anew for every K fold: one edge of it, as far as it is occupied.
    skew = np.where(piped, 0, k_folds * np.minimum(np.minimum(m, n), view.rows))
    out[rows] = np.ceil(per_fold * k_folds * tiles * view.arrays / lanes / rate + skew)
