"""Rows of a processor's schedule against the layers themselves, and what must hold of their time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.machine import Accelerator, load_accelerator, load_constants
from hwsim.network.graph import Network
from hwsim.plan.cpu_work import cpu_plan
from hwsim.plan.precision import parse_precision
from hwsim.schedule.cpu_lower import Sparsity, lower_cpu, threads_of
from hwsim.schedule.cpu_view import CpuView, cpu_view
from hwsim.schedule.table import LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder
from hwsim.timing.cpu import kernel_times

PI = load_accelerator("raspberry-pi-4")
CONSTANTS = load_constants("cpu")


def lowered(
    net: Network, acc: Accelerator, view: CpuView, precision: str | None = None, sparsity: Sparsity | None = None,
    *, warm: bool = True,
) -> Schedule:  # fmt: skip
    plan = cpu_plan(net.bind() if net.symbols else net, acc, parse_precision(precision), warm=warm, view=view)
    builder = ScheduleBuilder()
    for kernel in plan.kernels:
        lower_cpu(builder, kernel, view, sparsity)
        builder.end_kernel(kernel.name, kernel.producers)
    return builder.build()


def seconds(schedule: Schedule, view: CpuView) -> float:
    return sum(t.clocks for t in kernel_times(schedule, view, CONSTANTS)) / view.clock_hz


CONVS = st.builds(
    lambda c, size, k, r, stride, groups: hwsim.conv2d(
        n=1, c=c * groups, h=size, w=size, k=k * groups, r=r, s=r, stride=stride, padding=r // 2, groups=groups
    ),
    st.integers(1, 40), st.integers(4, 20), st.integers(1, 40), st.sampled_from([1, 3, 5]), st.integers(1, 2),
    st.sampled_from([1, 1, 2]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(CONVS, st.sampled_from(["fp32", "int8"]), st.sampled_from(["xnnpack", "ruy", "gemmlowp"]), st.integers(1, 4))
def test_every_product_is_done_once_and_padding_is_no_less(net: Network, form: str, library: str, threads: int) -> None:
    view = cpu_view(PI, library, threads)
    schedule = lowered(net, PI, view, form, warm=False)
    mac = schedule.op == OPERATION["mac"]
    useful = (schedule.instances() * schedule.ops)[mac].sum()
    issued = (schedule.instances() * schedule.issued)[mac].sum()
    macs = net.bind().macs if net.symbols else net.macs
    # pieces are dealt in whole products: less than one of a piece may be lost
    assert macs - schedule.instances()[mac].sum() <= useful <= macs
    assert issued >= 0.999 * useful
    moved = schedule.moved_bytes()
    size = 4 if form == "fp32" else 1
    layer = net.layers[0]
    product = net.products[layer.id][0]
    read = moved[schedule.source == LEVEL["dram"]].sum()
    assert read >= (product.a_elements + product.b_elements) * size * 0.999
    assert moved[schedule.target == LEVEL["dram"]].sum() >= product.c_elements * size


@settings(max_examples=40, deadline=None)
@given(CONVS, st.sampled_from(["fp32", "int8"]), st.sampled_from(["xnnpack", "ruy"]))
def test_time_is_monotone_in_the_machine(net: Network, form: str, library: str) -> None:
    one, four = (cpu_view(PI, library, n) for n in (1, 4))
    at_one = seconds(lowered(net, PI, one, form), one)
    at_four = seconds(lowered(net, PI, four, form), four)
    forks = 2 * len(net.layers) * max(CONSTANTS["fork_join_xnnpack"], CONSTANTS["fork_join_tflite"])
    assert at_four <= at_one + forks + 1e-9
    peak = PI.rates[form] * four.threads * PI.macs_per_s
    assert at_four >= (net.bind().macs if net.symbols else net.macs) / peak
    schedule = lowered(net, PI, four, form)
    for better in ({"memory_all": 2 * four.memory_all, "memory_one": 2 * four.memory_one}, {"outer_bytes": 2 * four.outer_bytes},
                   {"issue": 2 * four.issue}, {"load_bytes": 2 * four.load_bytes}):  # fmt: skip
        assert seconds(schedule, replace(four, **better)) <= at_four + 1e-12


@pytest.mark.parametrize("block", [1, 2, 4, 8, 16])
def test_fewer_nonzero_blocks_take_less_and_are_no_free_lunch(block: int) -> None:
    net = hwsim.conv2d(n=1, c=256, h=28, w=28, k=256, r=1, s=1)
    view = cpu_view(PI, "xnnpack", 1)
    times = [seconds(lowered(net, PI, view, "fp32", Sparsity(d, block)), view) for d in (1.0, 0.5, 0.3, 0.1, 0.05)]
    assert times == sorted(times, reverse=True)
    dense = seconds(lowered(net, PI, view, "fp32"), view)
    assert times[0] > dense  # a dense matrix in sparse form is slower
    assert dense / times[3] < 10  # a tenth of the products is not a tenth of the time


def test_threads_follow_the_library() -> None:
    ruy, own = cpu_view(PI, "ruy", 4), cpu_view(PI, "xnnpack", 4)
    assert [threads_of(ruy, m) for m in (0, 1 << 15, 1 << 16, 1 << 20)] == [1, 1, 2, 4]
    assert threads_of(own, 1) == 4


def test_units_and_stages() -> None:
    schedule = lowered(hwsim.load_network("mobilenet_v1").bind(N=1), PI, cpu_view(PI))
    assert set(np.unique(schedule.unit)) == {UNIT["dispatch"], UNIT["cpu"], UNIT["dma"]}
    for k in range(schedule.kernels):
        stages = schedule.stage[schedule.starts[k] : schedule.starts[k + 1]]
        assert list(stages) == list(range(len(stages)))
