"""Three hard cases in the schedule table, checked against the layer itself: every product once, every byte counted.

A convolution on a systolic array with partial windows everywhere, a GPU GEMM of 10^5 CTAs with split K, and fused
causal attention. The lowerings are prototypes (``gate_*.py`` beside this file); what is tested is that the table can
say what timing, energy and arithmetic need, in a few dozen rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

import gate_attention
import gate_gpu_gemm
import gate_tpu_conv
import numpy as np
import numpy.typing as npt
import pytest
from gate_attention import Attention
from gate_gpu_gemm import Gemm
from gate_tpu_conv import Conv

from hwsim.schedule.table import LEVEL, LOOPS, OPERATION, UNIT, Instance, Schedule
from hwsim.timing.reference.pipeline_simpy import simulate
from hwsim.timing.run import run

FEW_DOZEN = 60

CONVOLUTIONS = {
    "resnet50 3x3": Conv(56, 64, 64, 3, 1, 1),
    "resnet50 stem": Conv(224, 3, 64, 7, 2, 3),
}
ARRAYS = {"128x128": (128, 128, 9), "48x40": (48, 40, 5), "small layer fits": (512, 512, 200)}
"""Rows, columns, output rows at a time: the second has partial tiles along m, n and k."""


def mac_tiles(schedule: Schedule, stage: int) -> Iterator[tuple[Instance, dict[str, int], tuple[int, int, int]]]:
    """Instance, origin and (m, n, k) extent of every tile of products of a stage."""
    for instance in schedule.expand(0):
        if instance.stage == stage:
            yield instance, schedule.origin(instance), tuple(int(v) for v in schedule.extent[instance.row])


def moved(schedule: Schedule, stage: int, operand: int) -> int:
    return int(schedule.moved_bytes()[schedule.stage == stage, operand].sum())


# (a) A convolution on a systolic array -------------------------------------------------------------------------------


@pytest.fixture(params=CONVOLUTIONS, scope="module")
def conv(request: pytest.FixtureRequest) -> Conv:
    return CONVOLUTIONS[request.param]


@pytest.fixture(params=ARRAYS, scope="module")
def array(request: pytest.FixtureRequest) -> tuple[int, int, int]:
    return ARRAYS[request.param]


def test_conv_computes_every_product_once(conv: Conv, array: tuple[int, int, int]) -> None:
    schedule = gate_tpu_conv.lower(conv, *array)
    assert schedule.rows <= FEW_DOZEN
    times = np.zeros((conv.m, conv.n, conv.k), np.uint8)
    for _, origin, extent in mac_tiles(schedule, 4):
        m, n, k = (slice(origin[axis], origin[axis] + size) for axis, size in zip("mnk", extent, strict=True))
        assert (m.stop, n.stop, k.stop) <= times.shape
        times[m, n, k] += 1
    assert times.min() == times.max() == 1
    mac = schedule.op == OPERATION["mac"]
    assert (schedule.instances() * schedule.ops)[mac].sum() == conv.m * conv.n * conv.k


def test_conv_bytes_are_those_the_layer_needs(conv: Conv, array: tuple[int, int, int]) -> None:
    rows, cols, chunk = array
    schedule = gate_tpu_conv.lower(conv, *array)
    image = np.arange(conv.size**2).reshape(conv.size, conv.size)
    padded = np.pad(image, conv.pad, constant_values=-1)
    window = np.lib.stride_tricks.sliding_window_view(padded, (conv.window, conv.window))
    window = window[:: conv.stride, :: conv.stride]  # [out row, out column, kernel row, kernel column]
    fetched = 0
    chunks = range(0, conv.out, chunk)
    for first in chunks:
        pixels = np.unique(window[first : first + chunk])
        fetched += int((pixels >= 0).sum()) * conv.c * gate_tpu_conv.ELEMENT
    widths = -(-conv.n // cols)
    assert moved(schedule, 1, 0) == fetched * widths
    assert moved(schedule, 2, 1) == conv.k * conv.n * gate_tpu_conv.ELEMENT * len(chunks)
    tiles = len({(o["m"], o["n"], o["k"]) for _, o, _ in mac_tiles(schedule, 4)})
    assert moved(schedule, 3, 1) == tiles * rows * cols * gate_tpu_conv.ELEMENT
    outputs = conv.m * conv.n
    k_tiles = conv.window * -(-conv.window * conv.c // rows)
    assert moved(schedule, 4, 2) == outputs * k_tiles * gate_tpu_conv.WORD
    assert moved(schedule, 6, 2) == outputs * gate_tpu_conv.ELEMENT


def test_conv_says_in_which_order_k_is_summed(conv: Conv, array: tuple[int, int, int]) -> None:
    schedule = gate_tpu_conv.lower(conv, *array)
    chains: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    starts = 0
    k_loops = schedule.axis[schedule.stage == 4][0] == 4
    for instance, origin, extent in mac_tiles(schedule, 4):
        chains[origin["m"], origin["n"]].append((origin["k"], origin["k"] + extent[2]))
        starts += all(i == 0 for i, k in zip(instance.index, k_loops, strict=True) if k)
        group, chain, _ = schedule.reduce[instance.row]
        assert group == 1 and chain == array[0] >= extent[2]
    row = conv.window * conv.c
    for pieces in chains.values():
        assert [k for piece in pieces for k in range(*piece)] == list(range(conv.k))
        assert all(lo // row == (hi - 1) // row for lo, hi in pieces)  # no chain crosses a kernel row
    assert starts == len(chains)  # every other instance reads the partial sum it adds to


def test_conv_runs_alike_in_engine_and_twin(conv: Conv, array: tuple[int, int, int]) -> None:
    schedule = gate_tpu_conv.lower(conv, *array)
    for dram, onchip in ((4, 256), (700, 256), (64, 64)):
        moving = -(-schedule.bytes.sum(axis=1) // dram)
        vector = -(-schedule.issued // onchip)
        service = np.select(
            [schedule.unit == UNIT[u] for u in ("dispatch", "matrix", "vector", "shift")],
            [700 + 0 * moving, schedule.extent[:, 0], vector, array[0] + 0 * moving], moving,
        ).tolist()  # fmt: skip
        timing, twin = run(schedule, service), simulate(schedule, service)
        assert timing.end.tolist() == twin.end
        assert timing.unit_busy.tolist() == twin.unit_busy
        assert timing.busy[0] == sum(extent[0] for _, _, extent in mac_tiles(schedule, 4))


# (b) A GPU GEMM with split K -----------------------------------------------------------------------------------------

LARGE = Gemm(20_000, 21_050, 4_104)
GEMMS = {
    "small": Gemm(300, 260, 520),
    "exact": Gemm(256, 256, 512),
    "tiny": Gemm(5, 7, 9),
    "uneven": Gemm(130, 400, 1000, splits=3, instruction_k=8),
}


def test_gemm_of_100000_ctas_is_a_few_dozen_rows() -> None:
    schedule = gate_gpu_gemm.lower(LARGE)
    assert schedule.rows <= FEW_DOZEN
    ctas = schedule.iterations()[schedule.stage == 4, 3].sum()
    assert ctas > 10**5
    mac = schedule.op == OPERATION["mac"]
    assert (schedule.instances() * schedule.ops)[mac].sum() == LARGE.m * LARGE.n * LARGE.k
    timing = run(schedule, [1000 if u == UNIT["matrix"] else 10 for u in schedule.unit])
    assert timing.cycles > 0 and schedule.issues().max() == 1


def row_origins(schedule: Schedule, row: int) -> npt.NDArray[np.int64]:
    """Origins (m, n, k) of all tiles of a row, [instances, 3]."""
    spans = [range(int(f), int(f + t)) for f, t in zip(schedule.first[row], schedule.trips[row], strict=True)]
    index = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, LOOPS)
    at = index * schedule.stride[row]
    axes = schedule.axis[row]
    return np.stack([at[:, axes == 2].sum(1), at[:, axes == 3].sum(1), at[:, (axes == 4) | (axes == 5)].sum(1)], axis=1)


def test_large_gemm_computes_every_tile_once() -> None:
    schedule = gate_gpu_gemm.lower(LARGE)
    tile = np.array([LARGE.tile_m, LARGE.tile_n, LARGE.tile_k])
    size = np.array([LARGE.m, LARGE.n, LARGE.k])
    times = np.zeros(-(-size // tile), np.uint8)
    for row in np.flatnonzero(schedule.op == OPERATION["mac"]):
        origins = row_origins(schedule, int(row))
        assert (origins % tile == 0).all()
        assert (np.minimum(tile, size - origins) == schedule.extent[row]).all()
        np.add.at(times, tuple((origins // tile).T), 1)
    assert times.min() == times.max() == 1


@pytest.mark.parametrize("name", GEMMS)
def test_gemm_computes_every_product_once_and_adds_the_splits_in_order(name: str) -> None:
    gemm = GEMMS[name]
    schedule = gate_gpu_gemm.lower(gemm)
    times = np.zeros((gemm.m, gemm.n, gemm.k), np.uint8)
    sums: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for instance, origin, extent in mac_tiles(schedule, 3):
        m, n, k = (slice(origin[axis], origin[axis] + width) for axis, width in zip("mnk", extent, strict=True))
        times[m, n, k] += 1
        sums[instance.index[0], m.start, n.start] += list(range(k.start, k.stop))
    assert times.min() == times.max() == 1
    # One CTA adds a consecutive range of K in ascending order, and no two splits share an element.
    splits = max(s for s, *_ in sums) + 1
    for (split, m0, n0), elements in sums.items():
        assert all(b == a + 1 for a, b in pairwise(elements))
        assert elements[0] == (sums[split - 1, m0, n0][-1] + 1 if split else 0)
    assert all(sums[splits - 1, m0, n0][-1] == gemm.k - 1 for _, m0, n0 in sums)
    # The second kernel adds exactly these splits, ascending, to each tile.
    added: dict[tuple[int, int], list[int]] = defaultdict(list)
    for instance in schedule.expand(1):
        if instance.stage == 2:
            origin = schedule.origin(instance)
            added[origin["m"], origin["n"]].append(origin["k"])
    assert added == {(m0, n0): [sums[s, m0, n0][0] for s in range(splits)] for _, m0, n0 in sums}
    assert all(schedule.reduce[schedule.op == OPERATION["mac"], 0] == gemm.instruction_k)


@pytest.mark.parametrize("name", [*GEMMS, "large"])
def test_gemm_bytes_by_level(name: str) -> None:
    gemm = GEMMS.get(name, LARGE)
    schedule = gate_gpu_gemm.lower(gemm)
    moved_bytes = schedule.moved_bytes()
    first = schedule.kernel == 0
    tiles_m, tiles_n = -(-gemm.m // gemm.tile_m), -(-gemm.n // gemm.tile_n)
    to_local = (schedule.target == LEVEL["local"]) & first[:, None]
    # Every column of CTAs reads all of A, every row of CTAs all of B, whatever the split.
    assert np.where(to_local, moved_bytes, 0)[:, 0].sum() == tiles_n * gemm.m * gemm.k * gate_gpu_gemm.ELEMENT
    assert np.where(to_local, moved_bytes, 0)[:, 1].sum() == tiles_m * gemm.n * gemm.k * gate_gpu_gemm.ELEMENT
    steps = -(-gemm.k // gemm.tile_k)
    splits = -(-steps // -(-steps // gemm.splits))
    partial = splits * gemm.m * gemm.n * gate_gpu_gemm.WORD
    to_dram = schedule.target[:, 2] == LEVEL["dram"]
    assert moved_bytes[first & to_dram, 2].sum() == partial
    assert moved_bytes[~first & (schedule.unit == UNIT["dma"]), 2].sum() == partial
    assert moved_bytes[~first & (schedule.unit == UNIT["store"]), 2].sum() == gemm.m * gemm.n * gate_gpu_gemm.ELEMENT


# (c) Fused causal attention ------------------------------------------------------------------------------------------

ATTENTIONS = {
    "exact": Attention(3, 512, 64, 128),
    "partial": Attention(2, 300, 16, 64),
    "one block": Attention(2, 50, 8, 64),
    "two": Attention(1, 65, 8, 64),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_computes_every_visible_pair_once(name: str) -> None:
    layer = ATTENTIONS[name]
    schedule = gate_attention.lower(layer)
    assert schedule.rows <= FEW_DOZEN
    visible = np.tril(np.ones((layer.length, layer.length), np.uint8))
    for stage, key_axis, position in ((3, "n", 1), (5, "k", 2)):
        times = np.zeros((layer.heads, layer.length, layer.length), np.uint8)
        for instance, origin, extent in mac_tiles(schedule, stage):
            rows = slice(origin["m"], origin["m"] + extent[0])
            keys = slice(origin[key_axis], origin[key_axis] + extent[position])
            times[origin["head"], rows, keys] += 1
            width = layer.width
            assert schedule.ops[instance.row] == visible[rows, keys].sum() * width
        np.testing.assert_array_equal(times * visible, np.broadcast_to(visible, times.shape))
        # What is computed beyond the visible pairs lies in the diagonal blocks, and is counted as padding.
        wasted = (times * (1 - visible)).sum() * layer.width
        here = schedule.stage == stage
        assert (schedule.instances() * (schedule.issued - schedule.ops))[here].sum() == wasted
        useful = layer.heads * layer.length * (layer.length + 1) // 2 * layer.width
        assert (schedule.instances() * schedule.ops)[here].sum() == useful


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_bytes(name: str) -> None:
    layer = ATTENTIONS[name]
    schedule = gate_attention.lower(layer)
    blocks = [(i, min(i + layer.block, layer.length)) for i in range(0, layer.length, layer.block)]
    row = layer.width * gate_attention.ELEMENT
    assert moved(schedule, 1, 0) == layer.heads * layer.length * row
    assert moved(schedule, 2, 1) == layer.heads * sum(2 * last * row for _, last in blocks)
    assert moved(schedule, 6, 2) == layer.heads * layer.length * row


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_visits_keys_in_order_and_ends_on_the_diagonal(name: str) -> None:
    layer = ATTENTIONS[name]
    schedule = gate_attention.lower(layer)
    keys: dict[tuple[int, int], list[int]] = defaultdict(list)
    for _, origin, extent in mac_tiles(schedule, 5):
        keys[origin["head"], origin["m"]] += range(origin["k"], origin["k"] + extent[2])
    for (_, m0), visited in keys.items():
        assert visited == list(range(min(m0 + layer.block, layer.length)))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_runs_alike_in_engine_and_twin(name: str) -> None:
    schedule = gate_attention.lower(ATTENTIONS[name])
    for speed in (7, 900):
        cost = schedule.bytes.sum(axis=1) // speed + schedule.issued // 500
        service = np.where(schedule.unit == UNIT["vector"], cost * 3, cost).tolist()
        timing, twin = run(schedule, service), simulate(schedule, service)
        assert timing.end.tolist() == twin.end
        assert timing.unit_busy.tolist() == twin.unit_busy


def test_long_attention_is_still_a_few_rows() -> None:
    layer = Attention(32, 131_072, 128, 512)
    schedule = gate_attention.lower(layer)
    assert schedule.rows <= FEW_DOZEN
    blocks = 131_072 // 512
    timing = run(schedule, [5] * schedule.rows)
    matrix = 2 * 32 * blocks * (blocks + 1) // 2 * 5
    assert timing.unit_busy[0, UNIT["matrix"]] == matrix <= timing.cycles < matrix * 2
