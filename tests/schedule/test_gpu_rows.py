"""Rows of GPU kernels: they tile the layer exactly, move and multiply what a derivation by hand says, and time follows them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.machine import load_accelerator
from hwsim.network.opdefs import Product
from hwsim.plan.gpu_choose import ChoiceOptions, choose_kernels, launch_seconds
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.precision import Multiply
from hwsim.schedule.gpu_choice import GpuChoice, Walk
from hwsim.schedule.gpu_lower import lower_gpu
from hwsim.schedule.gpu_view import gpu_view
from hwsim.schedule.order import k_chains
from hwsim.schedule.table import LEVEL, OPERATION, UNIT, Schedule
from hwsim.timing.gpu_rows import read_rows

A100 = gpu_view(load_accelerator("a100-sxm4-80gb"))
H100 = gpu_view(load_accelerator("h100-sxm"))
FP16 = Multiply("fp16", 1.0, 1, False, False)
HOW = ChoiceOptions()


def product_kernel(m: int, n: int, k: int, batch: int = 1, *, alu: int = 0, sparsity: str = "") -> Kernel:
    weights = batch == 1
    product = Product("p", batch, m, n, k, batch * m * k, batch * n * k, batch * m * n, b_weight=weights)
    a = Operand("x", batch * m * k, 2 * batch * m * k, "fp16", role="a")
    b = Operand("w", batch * n * k, 2 * batch * n * k, "fp16", role="b")
    out = Operand("y", batch * m * n, 2 * batch * m * n, "fp16")
    return Kernel(
        "p", "linear", "matmul", ("p",), (product,), FP16, inputs=(a,) if weights else (a, b),
        weights=replace(b, role="") if weights else None, outputs=(out,), alu=alu, sparsity=sparsity,
    )  # fmt: skip


def attention_kernel(heads: int, queries: int, keys: int, depth: int = 64, *, causal: bool = False) -> Kernel:
    def operand(name: str, elements: int, role: str) -> Operand:
        return Operand(name, elements, 2 * elements, "fp16", role=role)

    qk = Product("qk", heads, queries, keys, depth, heads * queries * depth, heads * keys * depth,
                 heads * queries * keys, b_weight=False, causal=causal)  # fmt: skip
    pv = Product("pv", heads, queries, depth, keys, heads * queries * keys, heads * keys * depth,
                 heads * queries * depth, b_weight=False, causal=causal)  # fmt: skip
    inputs = operand("q", heads * queries * depth, "a"), *(operand(x, heads * keys * depth, "b") for x in "kv")
    return Kernel(
        "attn", "attention", "attention", ("attn",), (qk, pv), FP16, inputs=inputs,
        outputs=(operand("o", heads * queries * depth, ""),), alu=5 * heads * queries * keys,
        special=heads * queries * keys,
    )  # fmt: skip


def lowered(kernel: Kernel, **changes: object) -> tuple[GpuChoice, Schedule]:
    choice = replace(choose_kernels([kernel], A100, HOW)[0], **changes)
    return choice, lower_gpu([kernel], [choice], A100)


def moved(schedule: Schedule, source: str, target: str, operand: int) -> int:
    rows = (schedule.source[:, operand] == LEVEL[source]) & (schedule.target[:, operand] == LEVEL[target])
    rows &= schedule.op == OPERATION["copy"]
    return int(schedule.moved_bytes()[rows, operand].sum())


def tiled(choice: GpuChoice, m: int, n: int, k: int, batch: int, tile: tuple[int, int, int], split: int) -> GpuChoice:
    tm, tn, tk = tile
    total = -(-k // tk)
    steps = -(-total // split)
    split = -(-total // steps)
    grid = -(-m // tm), -(-n // tn)
    return replace(choice, tile=tile, split=split, k_steps=steps, grid=grid, ctas=grid[0] * grid[1] * batch * split)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 90), st.integers(1, 3), st.sampled_from([(16, 32, 16), (32, 16, 32)]),
    st.integers(1, 4),
)  # fmt: skip
def test_products_are_tiled_exactly_once(
    m: int, n: int, k: int, batch: int, tile: tuple[int, int, int], split: int
) -> None:
    kernel = product_kernel(m, n, k, batch, alu=3 * m * n * batch)
    choice = tiled(choose_kernels([kernel], A100, HOW)[0], m, n, k, batch, tile, split)
    schedule = lower_gpu([kernel], [choice], A100)
    seen = np.zeros((batch, m, n, k), np.int64)
    loads = 0
    for instance in schedule.expand(0):
        row = instance.row
        copies = schedule.op[row] == OPERATION["copy"] and schedule.target[row, 0] == LEVEL["local"]
        if copies:
            rows, _, depth = schedule.extent[row]
            loads += rows * depth * 2
        if schedule.op[row] != OPERATION["mac"]:
            continue
        at = schedule.origin(instance)
        rows, columns, depth = (int(v) for v in schedule.extent[row])
        b, i, j, q = at.get("batch", 0), at.get("m", 0), at.get("n", 0), at.get("k", 0)
        seen[b, i : i + rows, j : j + columns, q : q + depth] += 1
    assert (seen == 1).all()
    macs = schedule.op == OPERATION["mac"]
    assert int((schedule.ops * schedule.instances())[macs].sum()) == m * n * k * batch
    # A crosses from the L2 once per column of tiles, B once per row of tiles.
    tm, tn, _ = choice.tile
    assert moved(schedule, "shared", "local", 0) == loads == 2 * batch * m * k * -(-n // tn)
    assert moved(schedule, "shared", "local", 1) == 2 * batch * n * k * -(-m // tm)
    fused = (schedule.op == OPERATION["alu"]) & (schedule.at_end == 1)
    sums = m * n * batch * choice.split if choice.split > 1 else 0
    assert int((schedule.ops * schedule.instances())[fused].sum()) == kernel.alu + sums
    width = 4 * choice.split if choice.split > 1 else 2
    stored = moved(schedule, "register", "shared", 2) - (2 * m * n * batch if choice.split > 1 else 0)
    assert stored == width * m * n * batch
    chains = k_chains(schedule, 0)
    assert [a for a, _ in chains] == [0, *(b for _, b in chains[:-1])]
    assert chains[-1][1] == k


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4), st.integers(1, 150), st.integers(0, 120), st.booleans(),
    st.sampled_from([(32, 16), (16, 16), (16, 32), (16, 64)]),
)  # fmt: skip
def test_causal_attention_walks_the_blocks_up_to_the_diagonal(
    heads: int, queries: int, past: int, causal: bool, tile: tuple[int, int]
) -> None:
    keys, depth = queries + past, 16
    tq, tk = tile
    kernel = attention_kernel(heads, queries, keys, depth, causal=causal)
    diagonal = causal and queries > 1
    walk = Walk(heads, queries, keys, depth, depth, past if diagonal else -1, False, 6 * tq * tk, tq * tk, 2, 2)
    choice = GpuChoice(
        "attention", "tensor", "fp16", queries, keys, depth, heads, (tq, tk, depth), 2, (16, tk, 4, 1), (-(-queries // tq), 1),
        1, heads * -(-queries // tq), dram={"a": 8, "c": 4, "x": 0}, l2={"a": 0}, walk=walk,
    )  # fmt: skip
    schedule = lower_gpu([kernel], [choice], A100)
    scores: dict[tuple[int, ...], int] = {}
    for i, j in itertools.product(range(0, queries, tq), range(0, keys, tk)):
        rows, columns = min(tq, queries - i), min(tk, keys - j)
        # A block is walked when the tile's last query would see its first key.
        if not diagonal or j < past + i + tq:
            scores[i, j] = rows * columns
    assert scores
    macs = np.flatnonzero(schedule.op == OPERATION["mac"])
    stages = sorted({int(schedule.stage[r]) for r in macs})
    for stage in stages:
        found: dict[tuple[int, ...], int] = {}
        for instance in schedule.expand(0):
            if instance.stage != stage:
                continue
            at = schedule.origin(instance)
            if at["batch"] == 0:
                extent = schedule.extent[instance.row]
                key = at.get("m", 0), at.get("n", 0)
                assert key not in found
                found[key] = int(extent[0] * extent[1] * extent[2]) // depth
        assert found == scores
    total = heads * sum(scores.values()) * depth * 2
    assert int((schedule.ops * schedule.instances())[macs].sum()) == total
    read = sum(min(tk, keys - j) for _, j in scores) * 2 * depth * 2 * heads
    assert moved(schedule, "shared", "local", 1) == read


def test_a_hundred_thousand_ctas_and_a_split_k_take_few_rows() -> None:
    wide = product_kernel(131072, 16384, 512)
    choice, schedule = lowered(wide)
    assert choice.ctas > 60_000
    assert schedule.rows < 40
    macs = schedule.op == OPERATION["mac"]
    assert int((schedule.ops * schedule.instances())[macs].sum()) == wide.macs
    deep = product_kernel(48, 80, 100_003)
    choice = tiled(choose_kernels([deep], A100, HOW)[0], 48, 80, 100_003, 1, (64, 64, 64), 24)
    schedule = lower_gpu([deep], [choice], A100)
    assert choice.split > 10
    assert schedule.rows < 60
    macs = schedule.op == OPERATION["mac"]
    assert int((schedule.ops * schedule.instances())[macs].sum()) == deep.macs
    assert k_chains(schedule, 0)[-1][1] == 100_003


@pytest.mark.parametrize(
    "kernel",
    [
        product_kernel(4096, 4096, 4096),
        product_kernel(100, 77, 5000, alu=3 * 7700),
        product_kernel(64, 64, 64, 384),
        product_kernel(4096, 4096, 4096, sparsity="2:4"),
        attention_kernel(384, 384, 384),
        attention_kernel(32, 2048, 2048, 128, causal=True),
        attention_kernel(32, 1000, 1777, 128, causal=True),
    ],
)
@pytest.mark.parametrize("view", [A100, H100])
def test_time_read_from_the_rows_is_the_estimate(kernel: Kernel, view: object) -> None:
    chosen = choose_kernels([kernel], view, HOW)  # type: ignore[arg-type]
    schedule = lower_gpu([kernel], chosen, view)  # type: ignore[arg-type]
    reading = read_rows(schedule, view, launch_seconds(view, HOW))[0]  # type: ignore[arg-type]
    assert reading is not None
    assert sum(reading.times.values()) == pytest.approx(sum(chosen[0].times.values()), rel=1e-3)
    assert reading.limiter == chosen[0].limiter


def test_sparse_weights_bring_their_indices() -> None:
    kernel = product_kernel(8192, 4096, 4096, sparsity="2:4")
    choice, schedule = lowered(kernel)
    assert choice.sparse["chosen"]
    rows = -(-8192 // choice.tile[0])
    shares = choice.parts[1] * choice.parts[3]
    dense = 4096 * 4096 * 2 * rows / shares
    assert moved(schedule, "shared", "local", 1) == pytest.approx(dense / 2)
    assert moved(schedule, "shared", "local", 3) == pytest.approx(dense / 16)  # two bits for every kept 16


def test_rows_of_ctas_and_vectors() -> None:
    kernel = Kernel("add", "add", "vector", ("add",), inputs=(Operand("x", 1000003, 2000006, "fp16"),),
                    outputs=(Operand("y", 1000003, 2000006, "fp16"),), alu=1000003)  # fmt: skip
    choice, schedule = lowered(kernel)
    alu = schedule.op == OPERATION["alu"]
    assert int((schedule.ops * schedule.instances())[alu].sum()) == 1000003
    dispatch = schedule.unit == UNIT["dispatch"]
    assert schedule.ops[dispatch].tolist() == [choice.ctas]
    reading = read_rows(schedule, A100, launch_seconds(A100, HOW))[0]
    assert reading is not None
    assert sum(reading.times.values()) == pytest.approx(sum(choice.times.values()), rel=1e-3)
