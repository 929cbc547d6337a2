"""Prototype: a GPU GEMM in CTAs of 128 x 128 x 32 with split K, and the kernel that adds up the splits.

One issue is the whole grid, dealt over the streaming multiprocessors (lanes): how CTAs fill waves is the reader's
business. Levels: ``shared`` is the L2, ``local`` a multiprocessor's shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate_common import Cut, Piece, classes

from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

ELEMENT = 2  # fp16
WORD = 4  # fp32 partial sums


@dataclass(frozen=True)
class Gemm:
    m: int
    n: int
    k: int
    tile_m: int = 128
    tile_n: int = 128
    tile_k: int = 32
    splits: int = 4
    instruction_k: int = 16
    lanes: int = 108


def split_pieces(gemm: Gemm) -> list[tuple[Piece, Piece]]:
    """The classes of (split, k step): all splits but the last are full, it ends in a partial step."""
    steps = Cut(gemm.k, gemm.tile_k).count
    per_split = Cut(steps, gemm.splits).count
    used = Cut(steps, per_split).count
    out = [((0, used - 1, 1), (0, per_split, gemm.tile_k))] if used > 1 else []
    rest = gemm.k - (used - 1) * per_split * gemm.tile_k
    return out + [((used - 1, 1, 1), piece) for piece in Cut(rest, gemm.tile_k).pieces()]


def lower(gemm: Gemm) -> Schedule:
    """The schedule of the two kernels."""
    tall, wide = Cut(gemm.m, gemm.tile_m), Cut(gemm.n, gemm.tile_n)
    per_split = Cut(Cut(gemm.k, gemm.tile_k).count, gemm.splits).count
    splits = max(first + trips for (first, trips, _), _ in split_pieces(gemm))
    table = ScheduleBuilder()
    nest = {
        "axis": (AXIS["split"], AXIS["m"], AXIS["n"], AXIS["k"]), "format": FORMAT["fp16"], "lanes": gemm.lanes,
        "stride": (per_split * gemm.tile_k, gemm.tile_m, gemm.tile_n, gemm.tile_k), "buffers": 0,
    }  # fmt: skip
    table.row(**nest, stage=0, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2)
    for stage, operand, cause in ((1, 0, "activation_fetch"), (2, 1, "weight_fetch")):
        pieces = [p.pieces(edge=i == operand) for i, p in enumerate((tall, wide))]
        for split, k_steps in split_pieces(gemm):
            for first, trips, (_, m, n, k) in classes([split], *pieces, [k_steps]):
                table.row(
                    **nest, stage=stage, unit=UNIT["dma"], first=first, trips=trips, op=OPERATION["copy"],
                    bytes=(0,) * operand + ((m, n)[operand] * k * ELEMENT,), refetch=4, source=LEVEL["shared"],
                    target=LEVEL["local"], dep=(0,), cause=CAUSE[cause],
                )  # fmt: skip
    for split, k_steps in split_pieces(gemm):
        for first, trips, (_, m, n, k) in classes([split], tall.pieces(), wide.pieces(), [k_steps]):
            table.row(
                **nest, stage=3, unit=UNIT["matrix"], first=first, trips=trips, extent=(m, n, k),
                padded=(gemm.tile_m, gemm.tile_n, gemm.tile_k), op=OPERATION["mac"], ops=m * n * k,
                issued=gemm.tile_m * gemm.tile_n * gemm.tile_k, dep=(1, 2), cause=CAUSE["matrix"],
                reduce=(gemm.instruction_k, 0, FORMAT["fp32"]),
            )  # fmt: skip
    for first, trips, (_, m, n) in classes([(0, splits, 1)], tall.pieces(), wide.pieces()):
        table.row(
            **nest, stage=4, unit=UNIT["store"], first=first, trips=trips, extent=(m, n, 1), op=OPERATION["copy"],
            padded=(gemm.tile_m, gemm.tile_n, 1), bytes=(0, 0, m * n * WORD), refetch=(0, 0, 3),
            source=LEVEL["register"], target=LEVEL["dram"], dep=(3,), cause=CAUSE["store"],
        )  # fmt: skip
    table.end_kernel("gemm")
    # The splits are added in ascending order: the loop over them is innermost.
    nest |= {
        "axis": (AXIS["m"], AXIS["n"], AXIS["split"]), "format": FORMAT["fp32"],
        "stride": (gemm.tile_m, gemm.tile_n, per_split * gemm.tile_k),
    }  # fmt: skip
    table.row(**nest, stage=0, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2)
    for stage, unit, op in ((1, "dma", "copy"), (2, "vector", "alu"), (3, "store", "copy")):
        over = [] if unit == "store" else [[(0, splits, 1)]]
        for first, trips, (m, n, *_) in classes(tall.pieces(), wide.pieces(), *over):
            nbytes = {"dma": m * n * WORD, "vector": 0, "store": m * n * ELEMENT}[unit]
            table.row(
                **nest, stage=stage, unit=UNIT[unit], first=first, trips=trips, extent=(m, n, 1),
                padded=(gemm.tile_m, gemm.tile_n, 1), op=OPERATION[op], ops=m * n, issued=gemm.tile_m * gemm.tile_n,
                bytes=(0, 0, nbytes), refetch=(0, 0, 2 if unit == "store" else 3),
                source=LEVEL["dram" if unit == "dma" else "register"],
                target=LEVEL["dram" if unit == "store" else "register"], dep=(stage - 1,), cause=CAUSE["store"],
            )  # fmt: skip
    table.end_kernel("add splits", (0,))
    return table.build()
