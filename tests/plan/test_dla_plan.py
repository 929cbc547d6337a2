"""Which layers a DLA takes, in which order engines change least, and the best cut."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.network.ops import OPS
from hwsim.plan.dla import (
    best_engines,
    dla_operators,
    dla_refusal,
    merge_pools,
    order_by_engine,
    reorder,
    subgraphs,
)
from hwsim.plan.gpu_plan import STACKS, make_gpu_plan
from hwsim.plan.kernel import Kernel
from hwsim.plan.precision import parse_precision
from hwsim.schedule.gpu_view import gpu_view
from hwsim.simulation.gpu import gpu_target


def kernels_of(name: str, precision: str = "int8", generation: str = "dla-2") -> tuple[list[Kernel], list[str]]:
    acc = load_accelerator("jetson-agx-orin-64gb")
    net = load_network(name).bind(N=1)
    plan = make_gpu_plan(net, gpu_target(gpu_view(acc), acc), parse_precision(precision), STACKS["compiled"], None)
    return list(plan.kernels), [dla_refusal(net, k, generation) for k in plan.kernels]


def test_the_table_names_operators_and_its_sources() -> None:
    fused = {"bn", "bias"}  # written in the fused column of traces only
    for name, op in dla_operators().items():
        assert name in OPS or name in fused, name
        assert op.kind in ("product", "fused", "pass", "move") and len(op.source) > 10
        assert op.generations <= {"dla-1", "dla-2"}
        assert set(op.limits) <= {"spatial", "kernel", "stride", "padding", "dilation", "channels"}
    assert "softmax" in {n for n, op in dla_operators().items() if op.generations == {"dla-2"}}


@pytest.mark.parametrize(
    ("network", "generation", "words"),
    [
        ("vit_b_16", "dla-2", "conv with stride 16 (at most 8)"),
        ("vit_b_16", "dla-2", "attention is no DLA layer"),
        ("mobilenet_v3_large", "dla-2", "hswish is no layer of dla-2"),
        ("ssd_mobilenet_v1", "dla-1", "nms is no layer of dla-1"),
        ("unet_3d", "dla-2", "conv with spatial 3 (at most 2)"),
    ],
)
def test_what_stays_on_the_gpu_and_why(network: str, generation: str, words: str) -> None:
    assert words in kernels_of(network, generation=generation)[1]


def test_formats_a_dla_lacks_are_named() -> None:
    assert set(kernels_of("resnet50", "fp32")[1]) >= {"a DLA multiplies int8 and fp16, not fp32"}
    assert not any(kernels_of("resnet50", "fp16")[1])
    net = load_network("resnet50").bind(N=1)
    with pytest.raises(HwsimError, match="DLA generation 'dla-9' is not known"):
        dla_refusal(net, kernels_of("resnet50")[0][0], "dla-9")


def test_whole_networks_run_on_a_dla() -> None:
    for name in ("resnet50", "retinanet_resnext50", "efficientnet_lite0"):
        assert not any(kernels_of(name)[1]), name


def test_pooling_runs_in_the_output_stage_of_the_layer_before() -> None:
    kernels, reasons = kernels_of("resnet50")
    merged, takes = merge_pools(kernels, [not r for r in reasons])
    assert len(merged) == len(kernels) - 1 and all(takes), "the last pool follows a residual sum"
    assert merged[0].name == "conv1 + maxpool" and merged[0].outputs == kernels[1].outputs
    assert sum(k.macs for k in merged) == sum(k.macs for k in kernels)
    for i, kernel in enumerate(merged):
        assert all(p < i for p in kernel.producers)
    apart, _ = merge_pools(kernels, [k.op != "max_pool" for k in kernels])
    assert len(apart) == len(kernels), "a pool on the GPU reads what was stored"


GRAPHS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.tuples(*(st.sets(st.integers(0, max(0, i - 1)), max_size=3) if i else st.just(set()) for i in range(n))),
        st.lists(st.booleans(), min_size=n, max_size=n),
    )
)


@settings(max_examples=300, deadline=None)
@given(GRAPHS)
def test_any_order_keeps_producers_first_and_changes_no_more_often(
    graph: tuple[tuple[set[int], ...], list[bool]],
) -> None:
    producers, on_dla = graph
    kernels = [Kernel(str(i), "add", "vector", (str(i),), producers=tuple(sorted(p))) for i, p in enumerate(producers)]
    order = order_by_engine(kernels, on_dla)
    assert sorted(order) == list(range(len(kernels)))
    moved = reorder(kernels, order)
    for i, kernel in enumerate(moved):
        assert all(p < i for p in kernel.producers)
        assert {moved[p].name for p in kernel.producers} == {str(p) for p in producers[int(kernel.name)]}
    if all(on_dla) or not any(on_dla):
        assert len(subgraphs([on_dla[i] for i in order])) == int(any(on_dla))


def test_branches_on_different_engines_do_not_alternate() -> None:
    pairs = [Kernel(str(i), "add", "vector", (str(i),), producers=(i - 2,) if i > 1 else ()) for i in range(8)]
    on_dla = [i % 2 == 0 for i in range(8)]
    assert len(subgraphs(on_dla)) == 4
    assert len(subgraphs([on_dla[i] for i in order_by_engine(pairs, on_dla)])) == 1


def cost(gpu: list[float], dla: list[float], chosen: tuple[bool, ...], handover: float) -> float:
    total, before = 0.0, False
    for g, d, mine in zip(gpu, dla, chosen, strict=True):
        total += (d + (0.0 if before else handover)) if mine else g
        before = mine
    return total


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=8), st.integers(0, 6)
)
def test_the_best_cut_is_the_best_of_all(layers: list[tuple[int, int, bool]], handover: int) -> None:
    gpu, dla = ([float(row[i]) for row in layers] for i in (0, 1))
    takes = [row[2] for row in layers]
    chosen, total = best_engines(gpu, dla, takes, handover)
    assert all(t or not c for c, t in zip(chosen, takes, strict=True))
    assert total == cost(gpu, dla, tuple(chosen), handover)
    every = itertools.product(*((False, True) if t else (False,) for t in takes))
    assert total == min(cost(gpu, dla, c, handover) for c in every)


def test_kernels_keep_their_identity_through_a_reorder() -> None:
    kernels, _ = kernels_of("resnet50")
    same = reorder(kernels, range(len(kernels)))
    assert same == [replace(k, producers=tuple(sorted(k.producers))) for k in kernels]
