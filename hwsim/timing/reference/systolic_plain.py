"""The systolic array one register plane at a time: every assignment to a register is a line, every cycle one pass.

Written to be checked by eye, so only small arrays are practical. Within a cycle everything reads the registers as the
cycle began; the block "clock edge" at its end writes them. Row ``i`` of the array belongs to stage ``i //
rows_per_stage``.
"""

from __future__ import annotations

import numpy as np

from hwsim.timing.reference.systolic_numbers import add_products
from hwsim.timing.reference.systolic_rtl import COUNTERS, ArrayConfig, Job

NONE = -1  # no fold, no row: an empty slot in a control register


def run_stationary(job: Job, array: ArrayConfig, early: int = 0) -> dict[str, int]:
    """Step a weight-stationary array through all folds of ``job``; returns the counters, fills ``job.output``."""
    count = dict.fromkeys(COUNTERS, 0)
    h, w, lanes, ports = array.rows, array.cols, array.rows_per_clk, array.weight_rows_per_clk
    stages = array.stages
    stage_of = [i // array.rows_per_stage for i in range(h)]
    value, total = job.streamed.dtype, job.output.dtype

    # Registers of the array. Operands move right, partial sums and weights move down.
    x = np.zeros((lanes, h, w), value)
    x_live = np.zeros((lanes, h, w), bool)
    swap = np.zeros((stages, w), bool)  # "take your shadow weight now", ahead of a fold's first operands
    active = np.zeros((h, w), value)
    active_live = np.zeros((h, w), bool)
    shadow = np.zeros((h, w), value)
    shadow_live = np.zeros((h, w), bool)
    psum = np.zeros((lanes, stages, w), total)
    path = np.zeros((stages, ports, w), value)  # weights on their way down, each with the row it belongs to
    path_live = np.zeros((stages, ports, w), bool)
    path_row = np.full((stages, ports, w), NONE)

    # Skew registers: slot d holds what entered d cycles ago; stage d (column d) taps slot d. Slot 0 is the input
    # itself.
    edge_x = np.zeros((stages, lanes, h), value)
    edge_live = np.zeros((stages, lanes, h), bool)
    edge_swap = np.zeros(stages, bool)
    port_w = np.zeros((w, ports, w), value)
    port_live = np.zeros((w, ports, w), bool)
    port_row = np.full((w, ports), NONE)

    # The address that follows each beat down the left column and along the bottom row to the accumulators.
    line_fold = np.full(stages - 1 + w, NONE)
    line_beat = np.zeros(stages - 1 + w, int)
    accumulators = np.zeros((max(fold.step1 - fold.step0 for fold in job.folds), w), total)

    # Control.
    fold, beat = NONE, 0  # the fold being streamed and its next beat
    tile, tile_rows, port_clk = 0, 0, 0  # the weight tile being shifted, how many of its rows have entered
    beats_of = [len(range(f.step0, f.step1, lanes)) for f in job.folds]
    # A run is what flows through the array without emptying it by rule: all folds with overlap, else one.
    in_run, run_beats, bottom_beats = False, 0, 0  # bottom_beats: those the bottom-left element has received

    while count["output_writes"] < job.output.size or np.any(line_fold[1:] != NONE):
        count["total"] += 1
        empty = bool(np.all(line_fold[1:] == NONE))
        if empty and not array.overlap:
            in_run = False

        # --- control: what enters the left edge
        streaming = fold != NONE and beat < beats_of[fold]
        if not streaming and fold + 1 < len(job.folds):
            weights_in = tile > fold + 1 or (tile == fold + 1 and tile_rows + early >= h)
            if weights_in and (array.overlap or empty):
                fold, beat, streaming = fold + 1, 0, True
                if not in_run:
                    in_run, bottom_beats = True, 0
                    run_beats = sum(beats_of) if array.overlap else beats_of[fold]
        edge_x[0], edge_live[0], edge_swap[0] = 0, False, False
        line_fold[0] = NONE
        if streaming:
            f = job.folds[fold]
            for lane in range(lanes):
                step = f.step0 + beat * lanes + lane
                if step < f.step1:
                    edge_x[0, lane, : f.row1 - f.row0] = job.streamed[step, f.row0 : f.row1]
                    edge_live[0, lane, : f.row1 - f.row0] = True
                    count["streamed_reads"] += f.row1 - f.row0
            edge_swap[0] = beat == 0
            line_fold[0], line_beat[0] = fold, beat
            beat += 1

        # --- control: what enters the weight port. A tile may enter once the previous one has left its registers.
        if tile < len(job.folds) and tile_rows >= h and fold >= tile:
            tile, tile_rows, port_clk = tile + 1, 0, 0
        if array.weight_double_buffer:
            room = fold >= tile - 1
        elif array.overlap:
            room = tile == 0 or (fold == tile - 1 and beat == beats_of[fold] and not streaming)
        else:
            room = tile == 0 or (fold == tile - 1 and beat == beats_of[fold] and not streaming and empty)
        port_w[0], port_live[0], port_row[0] = 0, False, NONE
        if tile < len(job.folds) and room and tile_rows < h:
            count["weight_shift_cycles"] += 1
            port_clk += 1
            if port_clk == array.clks_per_weight_row:
                port_clk = 0
                f = job.folds[tile]
                for port in range(min(ports, h - tile_rows)):
                    port_row[0, port] = tile_rows
                    if f.row0 + tile_rows < f.row1:
                        port_w[0, port, : f.col1 - f.col0] = job.other[f.row0 + tile_rows, f.col0 : f.col1]
                        port_live[0, port, : f.col1 - f.col0] = True
                        count["other_reads"] += f.col1 - f.col0
                    tile_rows += 1

        # --- the elements: operands from the left, partial sums from above, weights from above
        x_in, x_live_in, swap_in = np.zeros_like(x), np.zeros_like(x_live), np.zeros_like(swap)
        x_in[:, :, 1:], x_live_in[:, :, 1:], swap_in[:, 1:] = x[:, :, :-1], x_live[:, :, :-1], swap[:, :-1]
        for i in range(h):
            x_in[:, i, 0], x_live_in[:, i, 0] = edge_x[stage_of[i], :, i], edge_live[stage_of[i], :, i]
        swap_in[:, 0] = edge_swap
        path_in, path_live_in, path_row_in = np.roll(path, 1, 0), np.roll(path_live, 1, 0), np.roll(path_row, 1, 0)
        for j in range(w):
            path_in[0, :, j], path_live_in[0, :, j] = port_w[j, :, j], port_live[j, :, j]
            path_row_in[0, :, j] = port_row[j]

        take = swap_in[stage_of] & array.weight_double_buffer
        weight, weight_live = np.where(take, shadow, active), np.where(take, shadow_live, active_live)
        count["macs"] += int(np.sum(x_live_in & weight_live))
        psum_out = np.zeros_like(psum)
        with np.errstate(invalid="ignore"):
            products = x_in * weight
        for lane in range(lanes):
            for d in range(stages):
                rows = [i for i in range(h) if stage_of[i] == d]
                for j in range(w):
                    above = psum[lane, d - 1, j] if d > 0 else total.type(0)
                    psum_out[lane, d, j] = add_products(above, products[lane, rows, j])

        # --- the accumulators under the array, one per column
        for j in range(w):
            if line_fold[stages - 1 + j] != NONE:
                f = job.folds[line_fold[stages - 1 + j]]
                for lane in range(lanes):
                    row = int(line_beat[stages - 1 + j]) * lanes + lane
                    if f.step0 + row < f.step1 and f.col0 + j < f.col1:
                        arriving = psum_out[lane, stages - 1, j]
                        if f.first:
                            accumulators[row, j] = arriving
                        else:
                            accumulators[row, j] = add_products(accumulators[row, j], np.array([arriving]))
                            count["psum_reads"] += 1
                        count["psum_writes"] += 1
                        if f.last:
                            job.output[f.step0 + row, f.col0 + j] = accumulators[row, j]
                            count["output_writes"] += 1

        # --- what kind of cycle this was, seen by the bottom-left element
        if line_fold[stages - 1] != NONE:
            count["stream"] += 1
            bottom_beats += 1
        elif not in_run:
            count["first_shift" if fold == NONE else "weight_shift"] += 1
        elif bottom_beats == 0:
            count["fill"] += 1
        else:
            count["drain" if bottom_beats == run_beats else "weight_shift"] += 1

        # --- clock edge
        x, x_live, swap, psum = x_in, x_live_in, swap_in, psum_out
        active, active_live = weight, weight_live
        path, path_live, path_row = path_in, path_live_in, path_row_in
        plane, plane_live = (shadow, shadow_live) if array.weight_double_buffer else (active, active_live)
        for i in range(h):
            for port in range(ports):
                here = path_row[stage_of[i], port] == i  # the columns in which row i's weight passes by
                plane[i, here] = path[stage_of[i], port, here]
                plane_live[i, here] = path_live[stage_of[i], port, here]
        edge_x[1:], edge_live[1:], edge_swap[1:] = edge_x[:-1].copy(), edge_live[:-1].copy(), edge_swap[:-1].copy()
        port_w[1:], port_live[1:], port_row[1:] = port_w[:-1].copy(), port_live[:-1].copy(), port_row[:-1].copy()
        line_fold[1:], line_beat[1:] = line_fold[:-1].copy(), line_beat[:-1].copy()
    return count


def run_output_stationary(job: Job, array: ArrayConfig, early: int = 0) -> dict[str, int]:
    """Step an output-stationary array through all folds of ``job``; returns the counters, fills ``job.output``."""
    count = dict.fromkeys(COUNTERS, 0)
    h, w, lanes, stages = array.rows, array.cols, array.rows_per_clk, array.stages
    stage_of = [i // array.rows_per_stage for i in range(h)]
    value, total = job.streamed.dtype, job.output.dtype

    # Registers of the array. A moves right with its tokens, B moves down, sums stay.
    a, a_live = np.zeros((lanes, h, w), value), np.zeros((lanes, h, w), bool)
    b, b_live = np.zeros((lanes, stages, w), value), np.zeros((lanes, stages, w), bool)
    first, last = np.zeros((stages, w), bool), np.full((stages, w), NONE)  # a fold's first beat; last beat: its fold
    sums = np.zeros((h, w), total)

    # Skew registers as above: stage d taps slot d of A, column j taps slot j of B.
    edge_a, edge_a_live = np.zeros((stages, lanes, h), value), np.zeros((stages, lanes, h), bool)
    edge_first, edge_last = np.zeros(stages, bool), np.full(stages, NONE)
    top_b, top_b_live = np.zeros((w, lanes, w), value), np.zeros((w, lanes, w), bool)
    in_flight = np.zeros(stages - 1 + w, bool)  # which slots of the bottom row's path hold a beat

    fold, beat, bus_free = NONE, 0, 0  # bus_free: first cycle in which column 0's bus is not promised to anyone
    depth = job.other.shape[0]
    beats_of_fold = len(range(0, depth, lanes))
    in_run, run_beats, bottom_beats = False, 0, 0

    while count["output_writes"] < job.output.size or np.any(in_flight[1:]):
        cycle = count["total"]
        count["total"] += 1
        empty = not np.any(in_flight[1:])
        if empty and not array.overlap:
            in_run = False

        # --- control: a fold may start if its first result finds the bus free
        streaming = fold != NONE and beat < beats_of_fold
        if not streaming and fold + 1 < len(job.folds) and (array.overlap or empty):
            result = cycle + beats_of_fold - 1
            if result + early >= bus_free:
                fold, beat, streaming, bus_free = fold + 1, 0, True, result + stages
                if not in_run:
                    in_run, bottom_beats = True, 0
                    run_beats = beats_of_fold * (len(job.folds) if array.overlap else 1)
        edge_a[0], edge_a_live[0], top_b[0], top_b_live[0] = 0, False, 0, False
        edge_first[0], edge_last[0], in_flight[0] = False, NONE, streaming
        if streaming:
            f = job.folds[fold]
            for lane in range(lanes):
                k = beat * lanes + lane
                if k < depth:
                    edge_a[0, lane, : f.row1 - f.row0] = job.streamed[f.row0 : f.row1, k]
                    edge_a_live[0, lane, : f.row1 - f.row0] = True
                    top_b[0, lane, : f.col1 - f.col0] = job.other[k, f.col0 : f.col1]
                    top_b_live[0, lane, : f.col1 - f.col0] = True
                    count["streamed_reads"] += f.row1 - f.row0
                    count["other_reads"] += f.col1 - f.col0
            edge_first[0] = beat == 0
            beat += 1
            edge_last[0] = fold if beat == beats_of_fold else NONE

        # --- the elements
        a_in, a_live_in = np.roll(a, 1, 2), np.roll(a_live, 1, 2)
        first_in, last_in = np.roll(first, 1, 1), np.roll(last, 1, 1)
        b_in, b_live_in = np.roll(b, 1, 1), np.roll(b_live, 1, 1)
        for i in range(h):
            a_in[:, i, 0], a_live_in[:, i, 0] = edge_a[stage_of[i], :, i], edge_a_live[stage_of[i], :, i]
        first_in[:, 0], last_in[:, 0] = edge_first, edge_last
        for j in range(w):
            b_in[:, 0, j], b_live_in[:, 0, j] = top_b[j, :, j], top_b_live[j, :, j]
        count["macs"] += int(np.sum(a_live_in & b_live_in[:, stage_of]))
        with np.errstate(invalid="ignore"):
            products = a_in * b_in[:, stage_of]
        sums_out = np.zeros_like(sums)
        for i in range(h):
            for j in range(w):
                before = total.type(0) if first_in[stage_of[i], j] else sums[i, j]
                sums_out[i, j] = add_products(before, products[:, i, j])

        # --- the output bus of each column
        for j in range(w):
            finished = [d for d in range(stages) if last_in[d, j] != NONE]
            assert len(finished) <= 1, "two stages drive one column bus"
            for i in (i for i in range(h) if stage_of[i] in finished):
                f = job.folds[last_in[stage_of[i], j]]
                if f.row0 + i < f.row1 and f.col0 + j < f.col1:
                    job.output[f.row0 + i, f.col0 + j] = sums_out[i, j]
                    count["output_writes"] += 1

        # --- what kind of cycle this was, seen by the bottom-left element
        if in_flight[stages - 1]:
            count["stream"] += 1
            bottom_beats += 1
        elif bottom_beats == 0:
            count["fill"] += 1
        else:
            count["drain" if bottom_beats == run_beats else "output_stall"] += 1

        # --- clock edge
        a, a_live, first, last, b, b_live, sums = a_in, a_live_in, first_in, last_in, b_in, b_live_in, sums_out
        edge_a[1:], edge_a_live[1:] = edge_a[:-1].copy(), edge_a_live[:-1].copy()
        edge_first[1:], edge_last[1:] = edge_first[:-1].copy(), edge_last[:-1].copy()
        top_b[1:], top_b_live[1:], in_flight[1:] = top_b[:-1].copy(), top_b_live[:-1].copy(), in_flight[:-1].copy()
    return count
