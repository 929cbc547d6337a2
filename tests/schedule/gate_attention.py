"""Prototype: fused causal attention in square blocks; the key loop of a query block ends at the diagonal.

Per head and query block: for every key block up to the diagonal, scores = Q K^T, their exponentials, and weights x V
added to the running output. The key loop is affine: query block i sees key blocks 0 … i; the last of them is the
diagonal block, of which only the lower triangle is useful, and is a class of its own that moves with i.
"""

from __future__ import annotations

from dataclasses import dataclass

from gate_common import Cut

from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

ELEMENT = 2  # bf16


@dataclass(frozen=True)
class Attention:
    heads: int
    length: int
    width: int
    block: int


def lower(layer: Attention) -> Schedule:
    """The schedule of one fused kernel; loops are head, query block, key block."""
    blocks, d = Cut(layer.length, layer.block), layer.width
    table = ScheduleBuilder()
    stride = (1, layer.block, layer.block)
    query_nest = {"axis": (AXIS["head"], AXIS["m"]), "stride": stride[:2], "format": FORMAT["bf16"]}
    table.row(**query_nest, stage=0, unit=UNIT["dispatch"], buffers=0, cause=CAUSE["dispatch"], awaits=2)
    for first, trips, m in blocks.pieces():
        table.row(
            **query_nest, stage=1, unit=UNIT["dma"], depth=2, first=(0, first), trips=(layer.heads, trips),
            extent=(m, 1, d), op=OPERATION["copy"], bytes=(m * d * ELEMENT,), refetch=2, source=LEVEL["dram"],
            target=LEVEL["shared"], dep=(0,), awaits=1, cause=CAUSE["activation_fetch"],
        )  # fmt: skip
    # (query blocks, key blocks, bend, query rows, key rows, useful pairs): below the diagonal, then on it.
    cases = []
    for first, trips, m in blocks.pieces():
        cases.append(((first, trips), (0, 0), (2, 1, 1, 0), m, layer.block, m * layer.block))
        cases.append(((first, trips), (0, 1), (2, 1, 0, 1), m, m, m * (m + 1) // 2))
    stages = (
        (2, "dma", "copy", (0,), "weight_fetch"), (3, "matrix", "mac", (1, 2), "matrix"),
        (4, "vector", "special", (3,), "vector_unit"), (5, "matrix", "mac", (4,), "matrix"),
    )  # fmt: skip
    for stage, unit, op, dep, cause in stages:
        # The key loop walks n of the scores and k of the output.
        axis = (AXIS["head"], AXIS["m"], AXIS["k" if stage == 5 else "n"])
        for queries, keys, bend, m, n, useful in cases:
            extent = {2: (1, n, d), 3: (m, n, d), 4: (m, n, 1), 5: (m, d, n)}[stage]
            padded = {2: (1, n, d), 3: (m, n, d), 4: (m, n, 1), 5: (m, d, n)}[stage]
            ops = {2: 0, 3: useful * d, 4: useful, 5: useful * d}[stage]
            issued = {2: 0, 3: m * n * d, 4: m * n, 5: m * n * d}[stage]
            table.row(
                axis=axis, stride=stride, format=FORMAT["bf16"], stage=stage, unit=UNIT[unit], depth=3, bend=bend,
                first=(0, queries[0], keys[0]), trips=(layer.heads, queries[1], keys[1]), extent=extent, padded=padded,
                op=OPERATION[op], ops=ops, issued=issued, bytes=(0, 2 * n * d * ELEMENT * (stage == 2)), refetch=3,
                source=LEVEL["dram" if stage == 2 else "shared"], target=LEVEL["shared"], buffers=2, dep=dep,
                awaits=1, cause=CAUSE[cause], reduce=(1, n if stage == 5 else 0, FORMAT["fp32"]),
            )  # fmt: skip
    for first, trips, m in blocks.pieces():
        table.row(
            **query_nest, stage=6, unit=UNIT["store"], depth=2, at_end=1, first=(0, first), trips=(layer.heads, trips),
            extent=(m, d, 1), op=OPERATION["copy"], bytes=(0, 0, m * d * ELEMENT), refetch=2, source=LEVEL["shared"],
            target=LEVEL["dram"], buffers=0, dep=(5,), cause=CAUSE["store"],
        )  # fmt: skip
    table.end_kernel("attention")
    return table.build()
