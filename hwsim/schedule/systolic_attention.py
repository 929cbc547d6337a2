"""Lowering fused attention on arrays: query blocks stay on the chip while key and value blocks stream past them.

Per query block and head: scores = Q K^T on the arrays, softmax (running maximum and sum) on the vector unit, weights x V
on the arrays; the score matrix never leaves the chip (Dao et al., 2022; the TPU library kernel of the same name).
"""

from __future__ import annotations

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.systolic_lower import accumulation
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

BLOCK = 512  # default query and key block of the library kernel, declared


def lower_attention(builder: ScheduleBuilder, kernel: Kernel, view: SystolicView, lane_ops: float, edge: int) -> None:
    """Append the rows of a fused attention kernel; ``lane_ops`` are those of its softmax, on-chip for any block size.

    Causal attention runs only the blocks a query block can see: the key loop grows by one block per query block.
    """
    assert kernel.multiply is not None
    qk, pv = kernel.products
    rows_q, length, depth_k, depth_v, batch = qk.m, qk.n, qk.k, pv.n, qk.batch
    span = qk.span or length
    shared_kv = max(1, batch * span * depth_k // max(1, qk.b_elements))  # query heads per key/value head
    block = min(BLOCK, edge or BLOCK)
    growing = qk.causal and length == rows_q and rows_q > block
    if growing:
        # Equal blocks, so that the key loop ends on the diagonal block of every query block.
        block = -(-rows_q // -(-rows_q // block))
    elif rows_q * shared_kv <= block:
        # Few queries (decoding): the heads that share keys and values are rows of one block.
        rows_q, batch, shared_kv = rows_q * shared_kv, batch // shared_kv, 1
    # Under a sliding window a block of queries sees the keys of all of them.
    length = min(span, length + min(rows_q, block) - 1) if span > length else length
    query, keys = Loop.over("m", rows_q, block), Loop.over("n", length, block)
    nest = [Loop("batch", batch), query, keys]
    loops = [x for x in nest if x.count > 1]
    names = [x.axis for x in loops]
    axes = tuple(AXIS[x] for x in names)
    fixed = {"m": query.edge, "n": keys.edge}
    full = len(loops)
    outer = len([x for x in names if x != "n"])
    bend = (-1, -1, 0, 0)
    if growing:
        bend = (names.index("n"), names.index("m"), 1, 0)
    code = FORMAT[kernel.inputs[0].format]
    element = max(1, kernel.inputs[0].bytes // max(1, kernel.inputs[0].elements))
    beat = max(1, round(64 * kernel.multiply.passes / kernel.multiply.rate))
    common = {"axis": axes, "format": code}
    # Query first, then keys, values and what is cached of them; one tensor may hold them all.
    query_dram = kernel.inputs[0].level == "dram"
    keys_dram = any(o.level == "dram" for o in kernel.inputs[1:]) or (len(kernel.inputs) == 1 and query_dram)
    out_dram = any(o.level == "dram" for o in kernel.outputs)

    def trips_of(trips: tuple[int, ...]) -> tuple[int, ...]:
        """A growing key loop starts with the one block the first query block sees."""
        return tuple(1 if i == bend[0] else t for i, t in enumerate(trips))

    def parts(over: list[Loop]) -> list[tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]]:
        if bend[0] < 0 or len(over) < full:
            return split_classes(over)
        # Extents of a growing loop are averaged: the last block of each query block is the diagonal one.
        return split_classes([Loop(x.axis, x.count, x.full, x.full) if x.axis == "n" else x for x in over])

    builder.row(**common, stage=0, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2, buffers=0)
    stage = 0
    feeds: list[int] = []
    if query_dram:
        stage += 1
        feeds.append(stage)
        for first, trips, extent in split_classes(loops[:outer]):
            m = extent.get("m", fixed["m"])
            builder.row(
                **common, stage=stage, unit=UNIT["dma"], depth=outer, first=first, trips=trips, extent=(m, 1, depth_k),
                padded=(m, 1, depth_k), op=OPERATION["copy"], bytes=(m * depth_k * element,), refetch=(outer,),
                source=(LEVEL["dram"],), target=(LEVEL["shared"],), dep=(0,), cause=CAUSE["activation_fetch"],
                buffers=view.buffers, awaits=1,
            )  # fmt: skip
    if keys_dram or kernel.mask_bytes:
        stage += 1
        feeds.append(stage)
        masked = kernel.mask_bytes // max(1, batch * query.count * keys.count)
        for first, trips, extent in parts(loops):
            n = extent.get("n", fixed["n"])
            nbytes = max(1, masked + (n * (depth_k + depth_v) * element // shared_kv if keys_dram else 0))
            builder.row(
                **common, stage=stage, unit=UNIT["dma"], depth=full, first=first, trips=trips_of(trips), bend=bend,
                extent=(1, n, depth_k), padded=(1, n, depth_k), op=OPERATION["copy"], bytes=(0, nbytes),
                refetch=(0, full), source=(0, LEVEL["dram"]), target=(0, LEVEL["shared"]), dep=(0,),
                cause=CAUSE["weight_fetch"], buffers=view.buffers, awaits=1,
            )  # fmt: skip
    feeds = feeds or [0]
    lane = lane_ops / max(1, batch * rows_q * length)
    for name, depth_in, width_of in (("qk", depth_k, "n"), ("softmax", 0, ""), ("pv", 0, "v")):
        stage += 1
        for first, trips, extent in parts(loops):
            m, n = extent.get("m", fixed["m"]), extent.get("n", fixed["n"])
            if name == "softmax":
                builder.row(
                    **common, stage=stage, unit=UNIT["vector"], lanes=view.cores, depth=full, first=first,
                    trips=trips_of(trips), bend=bend, extent=(m, n, 1), padded=(m, n, 1), op=OPERATION["alu"], ops=m * n,
                    issued=max(1, round(m * n * lane)), dep=(stage - 1,), cause=CAUSE["vector_unit"], buffers=view.buffers,
                    bytes=(0, 0, m * n * view.accumulator_bytes), refetch=(0, 0, full), source=(0, 0, LEVEL["accumulator"]),
                    target=(0, 0, LEVEL["shared"]),
                )  # fmt: skip
                continue
            em, en, ek = (m, n, depth_in) if width_of == "n" else (m, depth_v, n)
            builder.row(
                **common, stage=stage, unit=UNIT["matrix"], lanes=view.arrays * view.cores, depth=full, first=first,
                trips=trips_of(trips), bend=bend, extent=(em, en, ek),
                padded=(em, -(-en // view.cols) * view.cols, -(-ek // view.rows) * view.rows), op=OPERATION["mac"],
                span=(em, en, ek, 1), beat=beat, ops=em * en * ek * kernel.multiply.passes,
                issued=em * -(-en // view.cols) * view.cols * -(-ek // view.rows) * view.rows * kernel.multiply.passes,
                bytes=(em * ek * element, en * ek * element, em * en * view.accumulator_bytes), refetch=(full,) * 3,
                source=(LEVEL["shared"], LEVEL["shared"], LEVEL["array"]),
                target=(LEVEL["array"], LEVEL["array"], LEVEL["accumulator"]),
                reduce=accumulation(view, kernel.accumulate),
                dep=tuple(feeds) if name == "qk" else (stage - 1,), cause=CAUSE["matrix"], buffers=view.buffers, awaits=1,
            )  # fmt: skip
    stage += 1
    for first, trips, extent in split_classes(loops[:outer]):
        m = extent.get("m", fixed["m"])
        nbytes = m * depth_v * element if out_dram else 0
        builder.row(
            **common, stage=stage, unit=UNIT["store"], depth=outer, at_end=1, first=first, trips=trips,
            extent=(m, depth_v, 1), padded=(m, depth_v, 1), op=OPERATION["copy"], bytes=(0, 0, nbytes),
            refetch=(0, 0, outer), source=(0, 0, LEVEL["shared"]), target=(0, 0, LEVEL["dram"] if out_dram else LEVEL["shared"]),
            dep=(stage - 1,), cause=CAUSE["store"], buffers=0,
        )  # fmt: skip
