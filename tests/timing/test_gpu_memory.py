"""Kernels without products: never below the roofline, monotone in what a machine has, and what the L2 holds of tensors."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.plan.gpu_candidates import memory_work
from hwsim.plan.gpu_residency import place_in_l2
from hwsim.plan.kernel import Kernel, Operand
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_memory import VectorWork, vector_times

VIEWS = {
    name: gpu_view(hwsim.load_accelerator(name)) for name in ("a100-pcie-40gb", "t4", "jetson-orin-nano", "p100-pcie")
}
views = st.sampled_from(sorted(VIEWS)).map(VIEWS.__getitem__)


@st.composite
def works(draw: st.DrawFn) -> VectorWork:
    read, write = draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9))
    crossing = read + write + draw(st.integers(0, 10**8))
    wide = draw(st.sampled_from([2, 4, 16]))
    return VectorWork(
        read, write, crossing, max(1, crossing // wide), draw(st.integers(0, 10**10)), draw(st.integers(0, 10**9)),
        crossing / wide, draw(st.integers(0, 3)), draw(st.sampled_from([0.5, 1.0])), wide,
    )  # fmt: skip


def seconds(view: GpuView, work: VectorWork) -> float:
    return float(vector_times(view, work, 1e-6).time_s[0])


@settings(max_examples=60, deadline=None)
@given(views, works())
def test_never_below_the_roofline(view: GpuView, work: VectorWork) -> None:
    moved = (work.dram_read + work.dram_write) / view.dram_bytes_per_s  # type: ignore[operator]
    lanes = view.simt_macs["fp32"] * view.sms * view.clock_hz
    computed = max(work.alu / lanes, work.special / (view.special_per_clk * view.sms * view.clock_hz))  # type: ignore[operator]
    assert seconds(view, work) >= max(moved, computed) + 1e-6


@settings(max_examples=60, deadline=None)
@given(views, works(), st.floats(1.0, 4.0))
def test_more_of_anything_is_never_slower(view: GpuView, work: VectorWork, factor: float) -> None:
    base = seconds(view, work) * (1 + 1e-12)
    assert seconds(replace(view, dram_bytes_per_s=view.dram_bytes_per_s * factor), work) <= base
    assert seconds(replace(view, l2_bytes_per_clk=view.l2_bytes_per_clk * factor), work) <= base
    assert seconds(replace(view, clock_hz=view.clock_hz * factor), work) <= base
    assert seconds(replace(view, sms=round(view.sms * factor)), work) <= base
    assert seconds(view, replace(work, dram_read=work.dram_read * factor)) * (1 + 1e-12) >= base / (1 + 1e-12)  # type: ignore[operator]


def row_kernel(rows: int, width: int, **more: int) -> Kernel:
    held = 4 * rows * width
    x, y = (Operand(n, rows * width, held, "fp32") for n in "xy")
    return Kernel("norm", "layer_norm", "vector", ("norm",), inputs=(x,), outputs=(y,), alu=7 * rows * width,
                  passes=3, rows=rows, **more)  # fmt: skip


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_a_row_read_again_comes_from_memory_only_where_too_many_are_under_way(name: str) -> None:
    view = VIEWS[name]
    small, wide = row_kernel(10**5, 64, sweeps=2), row_kernel(10**5, 1 << 14, sweeps=2)
    once = row_kernel(10**5, 1 << 12)
    assert memory_work(once, view).dram_read == once.inputs[0].bytes
    if view.l2_bytes * view.constants["resident_share"] > view.sms * (view.max_threads // 128) * 4 * 64:
        assert memory_work(small, view).dram_read == small.inputs[0].bytes
    assert memory_work(wide, view).dram_read == pytest.approx(2 * wide.inputs[0].bytes)  # 128 rows of 64 KiB an SM


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=8), st.floats(1e5, 1e8), st.floats(1.0, 3.0))
def test_a_chain_finds_no_less_in_a_larger_l2_and_moves_what_it_must(
    sizes: list[int], room: float, factor: float
) -> None:
    tensors = [Operand(f"t{i}", n, n, "int8") for i, n in enumerate(sizes)]
    chain = [Kernel(f"k{i}", "relu", "vector", (f"k{i}",), inputs=(a,), outputs=(b,))
             for i, (a, b) in enumerate(itertools.pairwise(tensors))]  # fmt: skip
    outputs = {tensors[-1].tensor}
    small, large = (place_in_l2(chain, room * f, outputs, True, 0.08) for f in (1.0, factor))
    for few, many in zip(small, large, strict=True):
        assert few.inputs[0].cached <= many.inputs[0].cached
    if chain:
        assert large[0].inputs[0].cached == 0  # given from outside
        assert large[-1].outputs[0].cached == 0  # the result leaves
    for before, after in itertools.pairwise(large):  # written through exactly as far as it is read back
        assert before.outputs[0].cached == after.inputs[0].cached


def test_a_tensor_larger_than_the_l2_pushes_itself_out() -> None:
    def found(nbytes: int) -> float:
        x, y, z = (Operand(n, nbytes, nbytes, "int8") for n in "xyz")
        made = Kernel("a", "relu", "vector", ("a",), inputs=(x,), outputs=(y,))
        read = Kernel("b", "relu", "vector", ("b",), inputs=(y,), outputs=(z,))
        return place_in_l2([made, read], 1e6, {"z"}, True, 0.1)[1].inputs[0].cached

    assert found(10**6) == 1.0
    assert found(1_050_000) == pytest.approx(0.5)
    assert found(1_200_000) == 0.0


def test_narrow_accesses_cost_instructions() -> None:
    view = VIEWS["a100-pcie-40gb"]
    n = 10**8
    wide, narrow = (VectorWork(0, 0, n, n / b, vectors=n / b, vector_bytes=b) for b in (16, 2))
    assert seconds(view, narrow) > 1.5 * seconds(view, wide)
    assert np.isfinite(seconds(view, narrow))
