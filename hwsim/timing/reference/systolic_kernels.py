"""The loops of `systolic_plain` in numba's subset: same registers, same control, whole planes moved by flat loops.

Differences of form: every register that moves has two copies, read as the cycle began and written for the next; rows
have ``pitch`` = cols + 1 words, of which word 0 of what moves right is the wire from the edge, so that a plane moves
in one loop; a weight's row and validity share one word (``row + 1``, negative for padding). Registers that only pass
weights or finished sums are left alone while there is nothing in them.

One module, although long: numba's cache on disk notices a change in the file of the compiled function only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[Any]

# Positions of systolic_rtl.COUNTERS in the count vector.
TOTAL, STREAM, FILL, DRAIN, FIRST_SHIFT, WEIGHT_SHIFT, OUTPUT_STALL = range(7)
MACS, PORT_CYCLES, STREAMED_READS, OTHER_READS, PSUM_WRITES, PSUM_READS, OUTPUT_WRITES = range(7, 14)
# Columns of the fold table: the fields of systolic_rtl.Fold.
STEP0, STEP1, ROW0, ROW1, COL0, COL1, FIRST, LAST = range(8)


def exact_sum_to_odd(terms: Plane, length: int, partials: Plane) -> float:
    """Sum of ``terms[:length]`` as a double rounded to odd, so that one further rounding to fp32 is the exact sum's.

    The exact sum is kept as a list of doubles that do not overlap, as in Shewchuk, "Adaptive precision floating-point
    arithmetic" (1997); ``partials`` is scratch, one longer than ``terms``.
    """
    plain = 0.0
    for t in range(length):
        plain += terms[t]
    if not math.isfinite(plain):
        return plain
    used = 0
    for t in range(length):
        x = terms[t]
        kept = 0
        for p in range(used):
            y = partials[p]
            if abs(x) < abs(y):
                x, y = y, x
            high = x + y
            low = y - (high - x)
            if low != 0.0:
                partials[kept] = low
                kept += 1
            x = high
        partials[kept] = x
        used = kept + 1
    high = partials[used - 1]
    low = 0.0
    p = used - 2
    while p >= 0 and low == 0.0:
        x = high
        high = x + partials[p]
        low = partials[p] - (high - x)
        p -= 1
    if low != 0.0 and int(math.ldexp(math.frexp(high)[0], 53)) % 2 == 0:
        high = np.nextafter(high, math.inf if low > 0.0 else -math.inf)
    return float(high)


def move(source: Plane, target: Plane, size: int) -> None:
    """What registers held, their neighbours receive."""
    for q in range(size):
        target[q] = source[q]


def multiply_add(above: Plane, below: Plane, x: Plane, weight: Plane, size: int) -> None:
    """below = above + x * weight: int32 wraps, fp32 rounds once (the double sum rounds innocuously, Figueroa 1995)."""
    for q in range(size):
        below[q] = above[q] + x[q] * weight[q]


def multiply_accumulate(sums: Plane, x: Plane, weight: Plane, size: int) -> None:
    """sums += x * weight, rounded as in `multiply_add`."""
    for q in range(size):
        sums[q] = sums[q] + x[q] * weight[q]


def take_marked(plane: Plane, spare: Plane, marks: Plane, size: int) -> None:
    """Copy registers from their spares where marked."""
    for q in range(size):
        plane[q] = spare[q] if marks[q] == 1 else plane[q]


def catch_weights(plane: Plane, live: Plane, passing: Plane, passing_row: Plane, label: Plane, size: int) -> None:
    """Copy into weight registers where the weight passing by carries the register's row."""
    for q in range(size):
        plane[q] = passing[q] if abs(passing_row[q]) == label[q] else plane[q]
    for q in range(size):
        live[q] = (passing_row[q] > 0) if abs(passing_row[q]) == label[q] else live[q]


def count_live(x_live: Plane, weight_live: Plane, size: int) -> int:
    """Elements whose two operands are both real."""
    live = 0
    for q in range(size):
        live += x_live[q] & weight_live[q]
    return live


def fill(target: Plane, value: int, size: int) -> None:
    """Set registers to one value."""
    for q in range(size):
        target[q] = value


def add_stage_exactly(
    above: Plane, below: Plane, x: Plane, weight: Plane, rows: int, pitch: int, scratch: Plane
) -> None:
    """A stage of several rows: below = above + the exact sum of x * weight over its rows, rounded once.

    Doubles are tried first; where one of their sums was inexact the column is summed again without loss.
    """
    total, inexact, terms, partials = scratch[0], scratch[1], scratch[2], scratch[3]
    for j in range(pitch):
        total[j] = above[j]
        inexact[j] = 0.0
    for i in range(rows):
        xi, wi = x[i * pitch :], weight[i * pitch :]
        for j in range(pitch):
            product = xi[j] * wi[j]
            before = total[j]
            after = before + product
            back = after - before
            error = (before - (after - back)) + (product - back)
            inexact[j] += abs(error)
            total[j] = after
    for j in range(pitch):
        if inexact[j] == 0.0:
            below[j] = total[j]
        else:
            terms[0] = above[j]
            for i in range(rows):
                terms[1 + i] = x[i * pitch + j] * weight[i * pitch + j]
            below[j] = exact_sum_to_odd(terms, 1 + rows, partials)


HELPERS = (
    exact_sum_to_odd,
    move,
    fill,
    multiply_add,
    multiply_accumulate,
    take_marked,
    catch_weights,
    count_live,
    add_stage_exactly,
)


def stationary_kernel(streamed: Plane, other: Plane, output: Plane, folds: Plane, sizes: Plane, count: Plane) -> None:
    """The loop of `systolic_plain.run_stationary`."""
    h, w, lanes, ports, clks_per_row, g, overlap, double_buffer, early, rounds = sizes
    stages, pitch = (h + g - 1) // g, w + 1
    plane, tall, sums = h * pitch, stages * pitch, (stages + 1) * pitch
    x = np.zeros((2, lanes * plane), streamed.dtype)  # [lane, row, word]
    x_live = np.zeros((2, lanes * plane), np.int8)
    swap = np.zeros((2, plane), np.int8)  # a stage's token, kept by each of its rows
    active, shadow = np.zeros(plane, streamed.dtype), np.zeros(plane, streamed.dtype)
    active_live, shadow_live = np.zeros(plane, np.int8), np.zeros(plane, np.int8)
    caught, caught_live = active, active_live  # the registers that incoming weights go to
    if double_buffer == 1:
        caught, caught_live = shadow, shadow_live
    label = np.zeros(plane, np.int32)
    for q in range(plane):
        label[q] = q // pitch + 1
    psum = np.zeros((2, lanes * sums), output.dtype)  # [lane, stage + 1, word]; row 0: the zeros above the array
    path = np.zeros((2, ports * tall), streamed.dtype)  # [port, stage, word]
    path_row = np.zeros((2, ports * tall), np.int32)
    edge_x = np.zeros((2, stages * lanes * h), streamed.dtype)  # [slot, lane, row]
    edge_live = np.zeros((2, stages * lanes * h), np.int8)
    edge_swap = np.zeros(stages, np.int64)
    port_w = np.zeros((2, w * ports * w), streamed.dtype)  # [slot, port, column]
    port_row = np.zeros((2, w * ports * w), np.int32)
    length = stages - 1 + w
    line_fold, line_beat = np.full(length, -1, np.int64), np.zeros(length, np.int64)
    deepest, all_beats = 0, 0
    for f in range(folds.shape[0]):
        deepest = max(deepest, folds[f, STEP1] - folds[f, STEP0])
        all_beats += (folds[f, STEP1] - folds[f, STEP0] + lanes - 1) // lanes
    accumulators = np.zeros((deepest, w), output.dtype)
    scratch = np.zeros((4, max(pitch, g + 2)), np.float64)

    fold, beat, beats = -1, 0, 0
    tile, tile_rows, port_clk = 0, 0, 0
    weights_moving = 0  # cycles until the last weight that entered has left the array
    line_used = 0  # cycles until the last beat that entered has left it
    in_run, run_beats, bottom_beats = False, 0, 0
    now = 0
    while count[OUTPUT_WRITES] < output.size or line_used > 0:
        count[TOTAL] += 1
        empty = line_used == 0
        if empty and overlap == 0:
            in_run = False
        then = 1 - now

        # Control: left edge.
        streaming = fold >= 0 and beat < beats
        if not streaming and fold + 1 < folds.shape[0]:
            weights_in = tile == fold + 1 and tile_rows + early >= h
            if weights_in and (overlap == 1 or empty):
                fold, beat, streaming = fold + 1, 0, True
                beats = (folds[fold, STEP1] - folds[fold, STEP0] + lanes - 1) // lanes
                if not in_run:
                    in_run, bottom_beats = True, 0
                    run_beats = all_beats if overlap == 1 else beats
        fill(edge_x[now], 0, lanes * h)
        fill(edge_live[now], 0, lanes * h)
        edge_swap[0] = 0
        line_fold[0] = -1
        line_used = max(0, line_used - 1)
        if streaming:
            row0, row1 = folds[fold, ROW0], folds[fold, ROW1]
            for lane in range(lanes):
                step = folds[fold, STEP0] + beat * lanes + lane
                if step < folds[fold, STEP1]:
                    for i in range(row1 - row0):
                        edge_x[now, lane * h + i] = streamed[step, row0 + i]
                        edge_live[now, lane * h + i] = 1
                    count[STREAMED_READS] += row1 - row0
            if beat == 0:
                edge_swap[0] = 1
            line_fold[0] = fold
            line_beat[0] = beat
            line_used = length - 1
            beat += 1

        # Control: weight port.
        if tile < folds.shape[0] and tile_rows >= h and fold >= tile:
            tile, tile_rows, port_clk = tile + 1, 0, 0
        if double_buffer == 1:
            room = fold >= tile - 1
        else:
            room = tile == 0 or (fold == tile - 1 and beat == beats and not streaming and (overlap == 1 or empty))
        weights_moving = max(0, weights_moving - 1)
        if weights_moving > 0:
            fill(port_row[now], 0, ports * w)
        if tile < folds.shape[0] and room and tile_rows < h:
            count[PORT_CYCLES] += 1
            port_clk += 1
            if port_clk == clks_per_row:
                port_clk = 0
                weights_moving = stages + w
                fill(port_w[now], 0, ports * w)
                fill(port_row[now], 0, ports * w)
                col0, col1 = folds[tile, COL0], folds[tile, COL1]
                for port in range(min(ports, h - tile_rows)):
                    row = folds[tile, ROW0] + tile_rows
                    tile_rows += 1
                    real = col1 - col0 if row < folds[tile, ROW1] else 0
                    for j in range(real):
                        port_w[now, port * w + j] = other[row, col0 + j]
                        port_row[now, port * w + j] = tile_rows
                    for j in range(real, w):
                        port_row[now, port * w + j] = -tile_rows
                    count[OTHER_READS] += real

        # The elements.
        for lane in range(lanes):
            for i in range(h):
                x[now, lane * plane + i * pitch] = edge_x[now, (i // g * lanes + lane) * h + i]
                x_live[now, lane * plane + i * pitch] = edge_live[now, (i // g * lanes + lane) * h + i]
        for i in range(h):
            swap[now, i * pitch] = edge_swap[i // g]
        if double_buffer == 1:
            take_marked(active, shadow, swap[now], plane)
            take_marked(active_live, shadow_live, swap[now], plane)
        for lane in range(lanes):
            lane_x, above, below = x[now, lane * plane :], psum[now, lane * sums :], psum[then, lane * sums + pitch :]
            count[MACS] += count_live(x_live[now, lane * plane :], active_live, plane)
            for d in range(1 if g == 1 else stages):  # all stages at once, or one by one with the rows they add
                rows, q, size = min(g, h - d * g), d * g * pitch, plane if g == 1 else pitch
                stage_above, stage_below = above[d * pitch :], below[d * pitch :]
                if g > 1 and rounds == 1:
                    add_stage_exactly(stage_above, stage_below, lane_x[q:], active[q:], rows, pitch, scratch)
                else:
                    multiply_add(stage_above, stage_below, lane_x[q:], active[q:], size)
                    for i in range(1, rows):
                        multiply_accumulate(stage_below, lane_x[q + i * pitch :], active[q + i * pitch :], pitch)

        # The accumulators.
        for j in range(w):
            f = line_fold[stages - 1 + j]
            if f >= 0:
                for lane in range(lanes):
                    row = line_beat[stages - 1 + j] * lanes + lane
                    step, column = folds[f, STEP0] + row, folds[f, COL0] + j
                    if step < folds[f, STEP1] and column < folds[f, COL1]:
                        arriving = psum[then, lane * sums + tall + j]
                        if folds[f, FIRST] == 1:
                            accumulators[row, j] = arriving
                        else:
                            accumulators[row, j] = accumulators[row, j] + arriving
                            count[PSUM_READS] += 1
                        count[PSUM_WRITES] += 1
                        if folds[f, LAST] == 1:
                            output[step, column] = accumulators[row, j]
                            count[OUTPUT_WRITES] += 1

        # The kind of cycle.
        if line_fold[stages - 1] >= 0:
            count[STREAM] += 1
            bottom_beats += 1
        elif not in_run:
            count[FIRST_SHIFT if fold < 0 else WEIGHT_SHIFT] += 1
        elif bottom_beats == 0:
            count[FILL] += 1
        else:
            count[DRAIN if bottom_beats == run_beats else WEIGHT_SHIFT] += 1

        # Clock edge.
        move(x[now], x[then, 1:], lanes * plane - 1)
        move(x_live[now], x_live[then, 1:], lanes * plane - 1)
        move(swap[now], swap[then, 1:], plane - 1)
        move(edge_x[now], edge_x[then, lanes * h :], (stages - 1) * lanes * h)
        move(edge_live[now], edge_live[then, lanes * h :], (stages - 1) * lanes * h)
        for d in range(stages - 1, 0, -1):
            edge_swap[d] = edge_swap[d - 1]
        for d in range(length - 1, 0, -1):
            line_fold[d] = line_fold[d - 1]
            line_beat[d] = line_beat[d - 1]
        if weights_moving > 0:
            for port in range(ports):
                for j in range(w):
                    path[now, port * tall + j] = port_w[now, (j * ports + port) * w + j]
                    path_row[now, port * tall + j] = port_row[now, (j * ports + port) * w + j]
                for d in range(1 if g == 1 else h):  # all rows at once, or each beside its stage
                    p, q, size = port * tall + d // g * pitch, d * pitch, plane if g == 1 else pitch
                    catch_weights(caught[q:], caught_live[q:], path[now, p:], path_row[now, p:], label[q:], size)
            move(path[now], path[then, pitch:], ports * tall - pitch)
            move(path_row[now], path_row[then, pitch:], ports * tall - pitch)
            move(port_w[now], port_w[then, ports * w :], (w - 1) * ports * w)
            move(port_row[now], port_row[then, ports * w :], (w - 1) * ports * w)
        now = then


def output_stationary_kernel(
    streamed: Plane, other: Plane, output: Plane, folds: Plane, sizes: Plane, count: Plane
) -> None:
    """The loop of `systolic_plain.run_output_stationary`."""
    h, w, lanes, _, _, g, overlap, _, early, rounds = sizes
    stages, pitch = (h + g - 1) // g, w + 1
    plane, tall = h * pitch, stages * pitch
    a = np.zeros((2, lanes * plane), streamed.dtype)  # [lane, row, word]
    a_live = np.zeros((2, lanes * plane), np.int8)
    first = np.zeros((2, plane), np.int8)  # a stage's tokens, kept by each of its rows
    last = np.full((2, plane), -1, np.int32)
    b = np.zeros((2, lanes * tall), streamed.dtype)  # [lane, stage, word]
    b_live = np.zeros((2, lanes * tall), np.int8)
    sums, zeros = np.zeros(plane, output.dtype), np.zeros(plane, output.dtype)
    edge_a = np.zeros((2, stages * lanes * h), streamed.dtype)  # [slot, lane, row]
    edge_a_live = np.zeros((2, stages * lanes * h), np.int8)
    edge_first, edge_last = np.zeros(stages, np.int64), np.full(stages, -1, np.int64)
    top_b = np.zeros((2, w * lanes * w), streamed.dtype)  # [slot, lane, column]
    top_b_live = np.zeros((2, w * lanes * w), np.int8)
    length = stages - 1 + w
    in_flight = np.zeros(length, np.int64)
    scratch = np.zeros((4, max(pitch, lanes + 2)), np.float64)
    row_a, row_b = np.zeros(lanes * pitch, streamed.dtype), np.zeros(lanes * pitch, streamed.dtype)
    depth = other.shape[0]
    beats = (depth + lanes - 1) // lanes

    fold, beat, bus_free, line_used = -1, 0, 0, 0
    results_moving = 0  # cycles until the token of the last finished fold has left the array
    in_run, run_beats, bottom_beats = False, 0, 0
    now = 0
    while count[OUTPUT_WRITES] < output.size or line_used > 0:
        cycle = count[TOTAL]
        count[TOTAL] += 1
        empty = line_used == 0
        if empty and overlap == 0:
            in_run = False
        then = 1 - now

        # Control.
        streaming = fold >= 0 and beat < beats
        if not streaming and fold + 1 < folds.shape[0] and (overlap == 1 or empty):
            result = cycle + beats - 1
            if result + early >= bus_free:
                fold, beat, streaming, bus_free = fold + 1, 0, True, result + stages
                if not in_run:
                    in_run, bottom_beats = True, 0
                    run_beats = beats * folds.shape[0] if overlap == 1 else beats
        fill(edge_a[now], 0, lanes * h)
        fill(edge_a_live[now], 0, lanes * h)
        fill(top_b[now], 0, lanes * w)
        fill(top_b_live[now], 0, lanes * w)
        edge_first[0] = 0
        edge_last[0] = -1
        in_flight[0] = 0
        line_used, results_moving = max(0, line_used - 1), max(0, results_moving - 1)
        if streaming:
            row0, row1, col0, col1 = folds[fold, ROW0], folds[fold, ROW1], folds[fold, COL0], folds[fold, COL1]
            for lane in range(lanes):
                k = beat * lanes + lane
                if k < depth:
                    for i in range(row1 - row0):
                        edge_a[now, lane * h + i] = streamed[row0 + i, k]
                        edge_a_live[now, lane * h + i] = 1
                    for j in range(col1 - col0):
                        top_b[now, lane * w + j] = other[k, col0 + j]
                        top_b_live[now, lane * w + j] = 1
                    count[STREAMED_READS] += row1 - row0
                    count[OTHER_READS] += col1 - col0
            in_flight[0] = 1
            line_used = length - 1
            if beat == 0:
                edge_first[0] = 1
            beat += 1
            if beat == beats:
                edge_last[0] = fold
                results_moving = length

        # The elements.
        for i in range(h):
            first[now, i * pitch] = edge_first[i // g]
            last[now, i * pitch] = edge_last[i // g]
            for lane in range(lanes):
                a[now, lane * plane + i * pitch] = edge_a[now, (i // g * lanes + lane) * h + i]
                a_live[now, lane * plane + i * pitch] = edge_a_live[now, (i // g * lanes + lane) * h + i]
        for lane in range(lanes):
            for j in range(w):
                b[now, lane * tall + j] = top_b[now, (j * lanes + lane) * w + j]
                b_live[now, lane * tall + j] = top_b_live[now, (j * lanes + lane) * w + j]
        take_marked(sums, zeros, first[now], plane)
        for lane in range(lanes):
            for i in range(1 if g == 1 else h):  # all rows at once, or each beside its stage
                p, q, size = lane * plane + i * pitch, lane * tall + i // g * pitch, plane if g == 1 else pitch
                count[MACS] += count_live(a_live[now, p:], b_live[now, q:], size)
                if lanes == 1 or rounds == 0:
                    multiply_accumulate(sums[i * pitch :], a[now, p:], b[now, q:], size)
        if lanes > 1 and rounds == 1:
            for i in range(h):
                for lane in range(lanes):
                    move(a[now, lane * plane + i * pitch :], row_a[lane * pitch :], pitch)
                    move(b[now, lane * tall + i // g * pitch :], row_b[lane * pitch :], pitch)
                add_stage_exactly(sums[i * pitch :], sums[i * pitch :], row_a, row_b, lanes, pitch, scratch)

        # The output buses.
        for j in range(w if results_moving > 0 else 0):
            driver = -1
            for i in range(h):
                f = last[now, i * pitch + j]
                if f >= 0:
                    if driver >= 0 and driver != i // g:
                        raise AssertionError("two stages drive one column bus")
                    driver = i // g
                    if folds[f, ROW0] + i < folds[f, ROW1] and folds[f, COL0] + j < folds[f, COL1]:
                        output[folds[f, ROW0] + i, folds[f, COL0] + j] = sums[i * pitch + j]
                        count[OUTPUT_WRITES] += 1

        # The kind of cycle.
        if in_flight[stages - 1] == 1:
            count[STREAM] += 1
            bottom_beats += 1
        elif bottom_beats == 0:
            count[FILL] += 1
        else:
            count[DRAIN if bottom_beats == run_beats else OUTPUT_STALL] += 1

        # Clock edge.
        move(a[now], a[then, 1:], lanes * plane - 1)
        move(a_live[now], a_live[then, 1:], lanes * plane - 1)
        move(first[now], first[then, 1:], plane - 1)
        move(last[now], last[then, 1:], plane - 1)
        move(b[now], b[then, pitch:], lanes * tall - pitch)
        move(b_live[now], b_live[then, pitch:], lanes * tall - pitch)
        move(edge_a[now], edge_a[then, lanes * h :], (stages - 1) * lanes * h)
        move(edge_a_live[now], edge_a_live[then, lanes * h :], (stages - 1) * lanes * h)
        move(top_b[now], top_b[then, lanes * w :], (w - 1) * lanes * w)
        move(top_b_live[now], top_b_live[then, lanes * w :], (w - 1) * lanes * w)
        for d in range(stages - 1, 0, -1):
            edge_first[d] = edge_first[d - 1]
            edge_last[d] = edge_last[d - 1]
        for d in range(length - 1, 0, -1):
            in_flight[d] = in_flight[d - 1]
        now = then
