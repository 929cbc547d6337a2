"""Lowering a product onto an array whose weights arrive tile by tile through a queue (TPU v1).

Stages: ``dma`` fetches a weight tile from weight memory into the queue, ``shift`` moves it into the array's second
plane, ``matrix`` streams the rows past it, ``vector`` activates finished rows into the unified buffer. The queue and
the planes are buffers of the stages, so fetches run ahead of the layer that needs them (Jouppi et al., ISCA 2017, §2).
"""

from __future__ import annotations

import math

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, fold_plan, split_classes
from hwsim.schedule.systolic_lower import accumulation
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

_AXES = {"step": "step", "batch": "batch", "n": "n", "m": "m", "tap": "k", "k": "k"}


def lower_folds(builder: ScheduleBuilder, kernel: Kernel, view: SystolicView, lane_ops: float) -> None:
    """Append the rows of a matrix kernel; ``lane_ops`` are the lane operations of its fused vector work.

    The K loops are innermost, so partial sums stay in the accumulators; more rows than half the accumulators hold are
    cut into chunks, each of which fetches the weights again, unless both halves together hold all of them.
    """
    assert kernel.multiply is not None
    product = kernel.products[0]
    plan = fold_plan(product, view.rows, view.cols, view.pack_taps)
    half = view.accumulator_rows or plan.m
    chunk = plan.m if plan.m <= half * view.accumulator_buffers else -(-plan.m // -(-plan.m // half))
    single = chunk > half or product.repeat > 1  # both halves busy: the next tile waits until they are drained
    nest = [
        Loop("step", product.repeat),
        Loop.groups(plan),
        Loop.over("n", plan.n, view.cols),
        Loop.over("m", plan.m, chunk),
        Loop("tap", plan.taps),
        Loop.over("k", plan.k, view.rows),
    ]
    loops = [loop for loop in nest if loop.count > 1]
    fixed = {loop.axis: loop.edge for loop in nest if loop.count == 1}
    axes = tuple(AXIS[_AXES[loop.axis]] for loop in loops)
    outer = len([loop for loop in loops if loop.axis in ("step", "batch", "n", "m")])
    depth = len(loops)
    element = kernel.weights.bytes / max(1, kernel.weights.elements) if kernel.weights else 1.0
    tile = math.ceil(view.rows * view.cols * element)
    a_bytes = max(1, kernel.inputs[0].bytes // max(1, kernel.inputs[0].elements)) if kernel.inputs else 1
    passes = kernel.multiply.passes
    common = {"axis": axes}
    beat = max(1, round(64 * passes / kernel.multiply.rate))
    code = FORMAT[kernel.inputs[0].format]
    trips_all = tuple(x.count for x in loops)
    arriving = sum(o.bytes for o in kernel.inputs if o.level == "host")
    leaving = sum(o.bytes for o in kernel.outputs if o.level == "host")
    stage = 0
    if arriving:  # inputs that are not on the chip cross the host link first
        builder.row(
            **common, stage=stage, unit=UNIT["link"], bytes=(arriving,), source=(LEVEL["host"],), target=(LEVEL["shared"],),
            op=OPERATION["copy"], cause=CAUSE["link"], buffers=0, awaits=1,
        )  # fmt: skip
        stage += 1
    # The layer may begin when its input is complete; the queue refills meanwhile.
    dispatch = stage
    builder.row(
        **common, stage=dispatch, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=1, buffers=0,
        dep=(dispatch - 1,) if arriving else (),
    )  # fmt: skip
    fetched = product.b_weight
    fetch, shift, matrix, activate = dispatch + 1, dispatch + 2, dispatch + 3, dispatch + 4
    builder.row(
        **common, stage=fetch, unit=UNIT["dma"], depth=depth, trips=trips_all, bytes=(0, tile), refetch=(0, depth),
        source=(0, LEVEL["dram"] if fetched else LEVEL["shared"]), target=(0, LEVEL["fifo"]), buffers=view.fifo_tiles,
        cause=CAUSE["weight_fetch"], awaits=0 if fetched else 1, op=OPERATION["copy"], format=code,
    )  # fmt: skip
    builder.row(
        **common, stage=shift, unit=UNIT["shift"], depth=depth, trips=trips_all, bytes=(0, tile), refetch=(0, depth),
        source=(0, LEVEL["fifo"]), target=(0, LEVEL["array"]), buffers=2 if view.double_buffer else 1, dep=(fetch,),
        cause=CAUSE["weight_shift"], op=OPERATION["copy"], format=code,
    )  # fmt: skip
    size = {"step": 1, "batch": 1, "m": chunk, "n": view.cols, "tap": plan.k, "k": view.rows}
    strides = tuple(size[x.axis] for x in loops)
    for first, trips, extent in split_classes(loops):
        m, n, k = (extent.get(a, fixed.get(a, 1)) for a in ("m", "n", "k"))
        k = k * extent.get("batch", fixed.get("batch", plan.per_group)) // plan.per_group
        builder.row(
            **common, stage=matrix, unit=UNIT["matrix"], depth=depth, first=first, trips=trips, extent=(m, n, k),
            padded=(m, view.cols, view.rows), op=OPERATION["mac"], span=(m, n, k, 1), beat=beat, format=code,
            ops=m * n * k * passes, issued=m * view.cols * view.rows * passes,
            bytes=(m * view.rows * a_bytes, 0, m * n * view.accumulator_bytes), refetch=(depth, 0, depth),
            source=(LEVEL["shared"], 0, LEVEL["array"]), target=(LEVEL["array"], 0, LEVEL["accumulator"]),
            stride=strides, reduce=accumulation(view, kernel.accumulate),
            dep=(shift, dispatch, activate), lag=(0, 0, 0 if single else 1), buffers=0, cause=CAUSE["matrix"],
        )  # fmt: skip
    on_chip = sum(o.bytes for o in kernel.outputs) / max(1, product.c_elements * product.repeat)
    total_rows = plan.groups * product.repeat * plan.m * -(-plan.n // view.cols)
    per_row = lane_ops / max(1, total_rows)
    for first, trips, extent in split_classes(loops[:outer]):
        m, n = extent.get("m", fixed.get("m", 1)), extent.get("n", fixed.get("n", 1))
        builder.row(
            **common, stage=activate, unit=UNIT["vector"], depth=outer, at_end=1, first=first, trips=trips,
            extent=(m, n, 1), padded=(m, view.cols, 1), op=OPERATION["alu"], ops=m * n, format=code,
            issued=max(m * view.lanes, round(per_row * m)), bytes=(0, 0, round(m * n * on_chip)), refetch=(0, 0, outer),
            source=(0, 0, LEVEL["accumulator"]), target=(0, 0, LEVEL["shared"]), dep=(matrix,), buffers=0,
            cause=CAUSE["vector_unit"],
        )  # fmt: skip
    if leaving:
        builder.row(
            **common, stage=activate + 1, unit=UNIT["link"], at_end=1, bytes=(0, 0, leaving), op=OPERATION["copy"],
            source=(0, 0, LEVEL["shared"]), target=(0, 0, LEVEL["host"]), dep=(activate,), cause=CAUSE["link"], buffers=0,
        )  # fmt: skip
