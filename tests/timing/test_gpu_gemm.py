"""Time of matrix products on GPUs: bounds that no constant may break, monotonicity, and the shares adding up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_tiles import tiles_for
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_gemm import Gemms, best_gemm, gemm_kind

A100 = gpu_view(load_accelerator("a100-sxm4-80gb"))
SHAPES = st.tuples(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 8))


def run(view: GpuView, shape: tuple[int, int, int, int], fmt: str = "bf16", **options: object) -> Gemms:
    m, n, k, batch = shape
    sparsity = str(options.pop("sparsity", "dense"))
    return best_gemm(view, gemm_kind(view, fmt, sparsity=sparsity), m, n, k, batch, **options)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(["bf16", "fp32", "int8"]))
def test_never_faster_than_the_roofline(shape: tuple[int, int, int, int], fmt: str) -> None:
    m, n, k, batch = shape
    kind = gemm_kind(A100, fmt)
    got = run(A100, shape, fmt, launch="none")
    compute = m * n * k * batch / (kind.rate * A100.sms * A100.clock_hz)
    moved = batch * (m * k * kind.a_bits + n * k * kind.b_bits) / 8
    assert got.time_s[0] >= max(compute, moved / A100.dram_bytes_per_s)
    assert got.dram_a[0] + got.dram_b[0] >= moved * (1 - 1e-12)


@settings(deadline=None, max_examples=60)
@given(SHAPES)
def test_the_shares_of_time_add_up(shape: tuple[int, int, int, int]) -> None:
    got = run(A100, shape)
    parts = (got.launch_s, got.prologue_s, got.main_s, got.tail_s, got.epilogue_s, got.reduce_s)
    assert all((p >= 0).all() for p in parts)
    np.testing.assert_allclose(sum(parts), got.time_s, rtol=1e-9)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(["dram_bytes_per_s", "l2_bytes_per_clk", "shared_bytes_per_clk", "clock_hz"]))
def test_more_of_a_resource_is_never_slower(shape: tuple[int, int, int, int], name: str) -> None:
    better = replace(A100, name="better", **{name: getattr(A100, name) * 1.5})  # type: ignore[arg-type]
    slow, fast = (run(v, shape, throttle=False) for v in (A100, better))
    assert fast.time_s[0] <= slow.time_s[0] * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_the_clock_never_needs_more_than_the_power_limit(shape: tuple[int, int, int, int]) -> None:
    small = replace(A100, name="small", tdp_w=150.0)
    got = run(small, shape)
    assert (got.clock_hz <= small.clock_hz).all()
    assert (got.power_w <= small.tdp_w * (1 + 1e-6)).all()
    assert got.time_s[0] >= run(A100, shape).time_s[0] * (1 - 1e-9)


def test_many_rows_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    shapes = [tuple(int(x) for x in rng.integers(1, 5000, 4)) for _ in range(300)]
    kind = gemm_kind(A100, "bf16")
    together = best_gemm(A100, kind, *np.array(shapes).T)
    for i in (0, 7, 255, 256, 299):
        assert run(A100, shapes[i]).time_s[0] == together.time_s[i]  # type: ignore[arg-type]


def test_occupancy_follows_the_resources() -> None:
    tiles = tiles_for(A100, "mma", 16, 16)
    assert (tiles.shared_bytes * tiles.occupancy <= A100.shared_bytes).all()
    assert (tiles.occupancy * tiles.warps * 32 <= A100.max_threads).all()
    assert (tiles.occupancy >= 1).all()
    assert (tiles.stages >= 2).all()


def test_what_a_gpu_lacks_is_refused() -> None:
    with pytest.raises(HwsimError, match="multiplies no fp8"):
        gemm_kind(A100, "fp8")
    with pytest.raises(HwsimError, match="no 2:4 sparse fp32"):
        gemm_kind(A100, "fp32", sparsity="2:4")
    with pytest.raises(HwsimError, match="at least 1"):
        run(A100, (0, 1, 1, 1))
    with pytest.raises(HwsimError, match="cold, chained, warm"):
        run(A100, (1, 1, 1, 1), cache="tepid")


def test_power_is_that_of_the_energy_tables() -> None:
    """Board power of a product at its clock: static power and its counted actions, by the one profile of the machine."""
    view = gpu_view(load_accelerator("l4"))
    kind = gemm_kind(view, "fp32")
    hot, free = (best_gemm(view, kind, 4096, 4096, 4096, throttle=throttle) for throttle in (True, False))
    assert hot.power_w[0] == pytest.approx(72, rel=1e-4) and free.power_w[0] > 2 * 72
    assert hot.clock_hz[0] < 0.5 * view.clock_hz and free.clock_hz[0] == view.clock_hz
    assert hot.time_s[0] > 2 * free.time_s[0]
