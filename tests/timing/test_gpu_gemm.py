"""Time of matrix products on GPUs: bounds that no constant may break, monotonicity, and the shares adding up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.api import matmul
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary
from hwsim.schedule.gpu_tiles import KINDS, tiles_for
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.simulation import simulate
from hwsim.timing.gpu_cost import Rows, Surroundings, cost, rounds
from hwsim.timing.gpu_dispatch import shared_makespan
from hwsim.timing.gpu_gemm import Gemms, best_gemm, found_share, gemm_kind
from hwsim.timing.gpu_kind import GemmKind
from hwsim.timing.gpu_quant import CHAINS, cast_chain

VIEWS = {name: gpu_view(load_accelerator(name)) for name in ("a100-sxm4-80gb", "h100-sxm", "b200", "t4", "l40s")}
A100, H100 = VIEWS["a100-sxm4-80gb"], VIEWS["h100-sxm"]
FORMATS = {
    "a100-sxm4-80gb": ("bf16", "fp32", "int8", "tf32"), "h100-sxm": ("bf16", "fp8", "fp32"), "b200": ("bf16", "nvfp4"),
    "t4": ("fp16", "fp32"), "l40s": ("bf16", "fp8"),
}  # fmt: skip
CASES = [(name, fmt) for name, formats in FORMATS.items() for fmt in formats]
SHAPES = st.tuples(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 8))


def run(view: GpuView, shape: tuple[int, int, int, int], fmt: str = "bf16", **options: Any) -> Gemms:
    m, n, k, batch = shape
    sparsity = options.pop("sparsity", "dense")
    return best_gemm(view, gemm_kind(view, fmt, sparsity=sparsity), m, n, k, batch, **options)


@settings(deadline=None, max_examples=80)
@given(SHAPES, st.sampled_from(CASES))
def test_never_faster_than_the_roofline(shape: tuple[int, int, int, int], case: tuple[str, str]) -> None:
    m, n, k, batch = shape
    view = VIEWS[case[0]]
    kind = gemm_kind(view, case[1])
    got = run(view, shape, case[1], launch="none")
    compute = m * n * k * batch / (kind.rate * view.sms * view.clock_hz)
    read = batch * (m * k * kind.a_bits + n * k * kind.b_bits) / 8
    assert got.time_s[0] >= max(compute, read / view.dram_bytes_per_s)
    assert got.dram_a[0] + got.dram_b[0] >= read * (1 - 1e-12)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(CASES))
def test_the_shares_of_time_add_up(shape: tuple[int, int, int, int], case: tuple[str, str]) -> None:
    got = run(VIEWS[case[0]], shape, case[1])
    parts = (got.launch_s, got.prologue_s, got.main_s, got.tail_s, got.epilogue_s, got.reduce_s)
    assert all((p >= -1e-15).all() for p in parts)
    np.testing.assert_allclose(sum(parts), got.time_s, rtol=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    SHAPES,
    st.sampled_from(CASES),
    st.sampled_from(
        ["dram_bytes_per_s", "l2_bytes_per_clk", "l2_sm_bytes_per_clk", "shared_bytes_per_clk", "clock_hz"]
    ),
)
def test_more_of_a_resource_is_never_slower(shape: tuple[int, int, int, int], case: tuple[str, str], name: str) -> None:
    view = VIEWS[case[0]]
    better = replace(view, name="better", **{name: getattr(view, name) * 1.5})
    slow, fast = (run(v, shape, case[1], throttle=False) for v in (view, better))
    assert fast.time_s[0] <= slow.time_s[0] * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.sampled_from(CASES))
def test_a_warm_cache_is_never_slower(shape: tuple[int, int, int, int], case: tuple[str, str]) -> None:
    times = [
        run(VIEWS[case[0]], shape, case[1], cache=c, throttle=False).time_s[0] for c in ("cold", "chained", "warm")
    ]
    assert times[0] >= times[1] * (1 - 1e-9) >= times[2] * (1 - 1e-9) ** 2


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_the_clock_never_needs_more_than_the_power_limit(shape: tuple[int, int, int, int]) -> None:
    small = replace(A100, name="small", tdp_w=150.0)
    got = run(small, shape)
    assert (got.clock_hz <= small.clock_hz).all()
    assert (got.power_w <= small.tdp_w * (1 + 1e-4)).all()
    assert got.time_s[0] >= run(A100, shape).time_s[0] * (1 - 1e-9)
    assert (run(small, shape, toggle=0.5).time_s <= got.time_s * (1 + 1e-9)).all()


def test_more_sms_help_where_there_is_work_for_them() -> None:
    half = replace(A100, name="half", sms=54)
    full, less = (run(v, (8192, 8192, 4096, 1), throttle=False) for v in (A100, half))
    assert 1.6 < less.time_s[0] / full.time_s[0] < 2.1


def test_many_rows_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    shapes = [tuple(int(x) for x in rng.integers(1, 5000, 4)) for _ in range(300)]
    kind = gemm_kind(A100, "bf16")
    together = best_gemm(A100, kind, *np.array(shapes).T)
    for i in (0, 7, 67, 68, 299):
        assert run(A100, shapes[i]).time_s[0] == together.time_s[i]  # type: ignore[arg-type]


def test_the_chosen_candidate_is_the_fastest() -> None:
    kind = gemm_kind(A100, "bf16")
    got = best_gemm(A100, kind, 384, 4096, 1024)
    for tile in range(len(got.tiles)):
        for split in (1, 2, 4):
            other = best_gemm(A100, kind, 384, 4096, 1024, given=(tile, split))
            assert other.time_s[0] >= got.time_s[0] * (1 - 1e-9)


@pytest.mark.parametrize("ctas", [1, 107, 108, 109, 215, 216, 217, 1000, 4321])
@pytest.mark.parametrize("occupancy", [1, 2, 3])
def test_rounds_are_those_of_the_dispatcher(ctas: int, occupancy: int) -> None:
    """What a grid takes by rounds is what the dispatcher's closed form (equal to its twin) says."""
    full, _, last = rounds(ctas, 108, occupancy)
    cycles = [1000 + 300 * c for c in range(occupancy)]
    assert full * cycles[-1] + (cycles[last - 1] if last else 0) == shared_makespan(ctas, 108, cycles).cycles


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
def test_occupancy_follows_the_resources(name: str, kind: str) -> None:
    view = VIEWS[name]
    tiles = tiles_for(view, kind, 16, 16)
    assert (tiles.shared_bytes * tiles.occupancy <= view.shared_bytes).all()
    assert (tiles.shared_bytes - view.shared_reserved <= view.max_shared_per_cta).all()
    assert (tiles.occupancy * tiles.warps * 32 <= view.max_threads).all()
    assert (tiles.occupancy * tiles.warps * 32 * tiles.registers <= view.registers).all()
    assert (tiles.occupancy >= 1).all()
    assert (tiles.stages >= 2).all()
    assert len({*tiles.name}) == len(tiles)


def test_a_tile_is_dropped_where_it_does_not_fit() -> None:
    small = replace(A100, name="small", shared_bytes=48 * 1024, max_shared_per_cta=47 * 1024)
    assert len(tiles_for(small, "mma", 32, 32)) < len(tiles_for(A100, "mma", 32, 32))
    with pytest.raises(HwsimError, match="no mma tile fits"):
        tiles_for(replace(small, name="tiny", shared_bytes=2048, max_shared_per_cta=1024), "mma", 32, 32)


def test_the_catalogue_knows_libraries_layouts_and_generations() -> None:
    assert len(tiles_for(A100, "simt", 32, 32, "nn")) == 1  # ampere_sgemm has one kernel of that layout
    assert {*tiles_for(VIEWS["t4"], "simt", 32, 32, "nn").m} == {32, 64, 128}
    first, current = (tiles_for(H100, "wgmma", 16, 16, kernels=g) for g in ("first", "current"))
    assert {*first.m, *first.n} <= {64, 128, 256} and len(first) < len(current)
    with pytest.raises(HwsimError, match="neither tn nor nn"):
        tiles_for(A100, "simt", 32, 32, "tt")
    with pytest.raises(HwsimError, match="neither current nor first"):
        tiles_for(A100, "mma", 16, 16, kernels="next")
    with pytest.raises(HwsimError, match="no tiles of kind"):
        tiles_for(A100, "vmma", 16, 16)


def test_small_products_split_k_and_large_ones_fill_the_chip() -> None:
    few = run(A100, (16, 512, 16384, 1))
    assert few.split[0] > 1 and few.reduce_s[0] > 0 and few.ctas[0] == few.grid_m[0] * few.grid_n[0] * few.split[0]
    many = run(A100, (8192, 8192, 8192, 1))
    assert many.limiter_names() == ["tensor"] and many.waves[0] > 5
    assert run(A100, (1, 16384, 16384, 1)).limiter_names() == ["dram"]
    assert run(A100, (8, 128, 64, 1)).limiter_names() == ["launch"]
    assert run(A100, (4096, 4096, 4096, 1), "fp32").limiter_names() == ["simt"]


def test_block_scales_slow_down_few_ctas() -> None:
    """NVFP4 on B200 takes so long per k-step however narrow the product: the time follows K alone."""
    view = VIEWS["b200"]
    one, two = (run(view, (2, n, 65536, 1), "nvfp4").time_s[0] for n in (512, 5120))
    assert two < 1.1 * one
    assert one > 256 * 800 / view.clock_hz


def test_what_lies_in_the_l2() -> None:
    l40s = VIEWS["l40s"]
    shares = found_share(l40s, np.array([0.5, 1.0, 1.04, 1.5]) * l40s.l2_bytes)
    assert shares[0] == shares[1] == 1 and 0 < shares[2] < 1 and shares[3] == 0
    assert found_share(H100, 0.6 * H100.l2_bytes) == 0  # both segments hold what every SM reads
    cold, warm = (run(l40s, (4, 4096, 1024, 1), cache=c).dram_bytes[0] for c in ("cold", "warm"))
    assert warm == 0 < cold
    kind = gemm_kind(A100, "bf16")
    around = Surroundings(found_a=1.0, found_b=1.0, kept_c=1.0)
    assert best_gemm(A100, kind, 256, 256, 256, around=around).dram_bytes[0] == 0


def test_sparse_gains_less_than_two_and_nothing_where_launches_rule() -> None:
    def gain(shape: tuple[int, int, int, int]) -> float:
        dense, sparse = (run(A100, shape, "fp16", sparsity=s).time_s[0] for s in ("dense", "2:4"))
        return float(dense / sparse)

    assert 1.3 < gain((8192, 8192, 8192, 1)) < 1.9
    assert gain((32, 768, 768, 1)) < 1.0
    assert 1.0 < gain((8, 512, 16384, 1)) < 1.78  # K is split where a library searches; 1 / 0.5625 by bytes alone
    unsearched = best_gemm(A100, gemm_kind(A100, "fp16", sparsity="2:4", kernels="first"), 8, 512, 16384)
    assert unsearched.split[0] == 1  # by default it is not: PyTorch's users saw a ninth of the dense speed
    assert run(A100, (8, 512, 16384, 1), "fp16").time_s[0] < 0.5 * unsearched.time_s[0]
    twice = run(A100, (4096, 4096, 4096, 1), "fp16", sparsity="2:4")
    assert twice.split[0] == 1 and twice.dram_b[0] < run(A100, (4096, 4096, 4096, 1), "fp16").dram_b[0]


def test_weights_alone_narrow_help_memory_bound_products() -> None:
    def time(shape: tuple[int, int, int], weights: str) -> float:
        return float(best_gemm(A100, gemm_kind(A100, "fp16", weights), *shape).time_s[0])

    assert time((1, 16384, 16384), "int4") < time((1, 16384, 16384), "int8") < time((1, 16384, 16384), "")
    assert time((4096, 4096, 4096), "int4") > 0.9 * time((4096, 4096, 4096), "")


def test_quantised_chains() -> None:
    for fmt, kernels in CHAINS.items():
        chain = cast_chain(H100, fmt, [1024, 1 << 26])
        assert [c.name for c in chain] == [k[0] for k in kernels]
        assert all((c.time_s >= H100.graph_launch_s).all() for c in chain)
        written = sum(c.dram_bytes[1] for c in chain)
        assert written >= (1 << 26) * 2  # read at least once
    assert cast_chain(H100, "bf16", 100) == []
    four = sum(c.time_s[0] for c in cast_chain(H100, "fp8", 1024))
    assert 8e-6 < four < 13e-6  # the floor measured above that of a bf16 product is 9.6 us


def test_a_kernel_of_one_cta_by_hand() -> None:
    """One CTA of 128 x 128 on one SM: first load, k-steps at the pipe's pace, epilogue, stores."""
    kind: GemmKind = gemm_kind(A100, "fp16")
    tiles = kind.tiles(A100)
    index = int(np.flatnonzero((tiles.m == 128) & (tiles.n == 128))[0])
    t = {name: getattr(tiles, name)[[index]] for name in tiles.__slots__ if name not in ("kind", "name")}
    one = np.ones(1, np.int64)
    zero = np.zeros(1)
    rows = Rows(128 * one, 128 * one, 65536 * one, one, zero, zero, one * 1.0, one * 1.0, one * 1.0, zero, zero, zero)
    c = {**A100.constants, "latency_threads": 1.0}  # four buffers then hide it
    p = cost(replace(A100, constants=c), kind, t, one, rows, "none", A100.clock_hz)
    steps = 65536 // int(tiles.k[index])
    # 2 slices of 4 x 8 products, 9 clocks apart for one warp, 8 loads between slices, and 25 clocks from the last product
    # to the next (`test_gpu_sm.test_a_tile_by_hand`); the pipes' own 512 clocks are less.
    assert (int(tiles.k[index]), int(tiles.warps[index])) == (32, 4)
    step = 31 * 9 + 9 + 31 * 9 + 25
    first = A100.dram_latency_s * c["latency_threads"]
    stores = 128 * 128 * 2 / (64 * c["l2_threads"] * A100.clock_hz)
    expected = c["product_kernel"] + first + steps * step / A100.clock_hz + stores
    expected += c["epilogue_threads"] / A100.clock_hz
    assert p.time[0] == pytest.approx(expected, rel=1e-9)


def test_what_a_gpu_lacks_is_refused() -> None:
    with pytest.raises(HwsimError, match="multiplies no fp8"):
        gemm_kind(A100, "fp8")
    with pytest.raises(HwsimError, match="no product of format 'fp7'"):
        gemm_kind(A100, "fp7")
    with pytest.raises(HwsimError, match="no 2:4 sparse fp32"):
        gemm_kind(A100, "fp32", sparsity="2:4")
    with pytest.raises(HwsimError, match="neither dense nor 2:4"):
        gemm_kind(A100, "fp16", sparsity="1:2")
    with pytest.raises(HwsimError, match="multiplies no fp32"):
        gemm_kind(A100, "fp32", pipe="tensor")
    with pytest.raises(HwsimError, match="neither tensor nor simt"):
        gemm_kind(A100, "fp32", pipe="dsp")
    with pytest.raises(HwsimError, match="at least 1"):
        run(A100, (0, 1, 1, 1))
    with pytest.raises(HwsimError, match="cold, chained, warm"):
        run(A100, (1, 1, 1, 1), cache="tepid")


def test_a_panel_stays_in_an_l2_that_holds_a_window() -> None:
    """Windows of CTAs follow each other along one side: with a large L2 beside few SMs the operand they share is read once."""
    thor = load_accelerator("jetson-thor")
    small = vary(thor, {"l2.capacity": "4 MiB"})
    large, little = (simulate(matmul(8192, 8192, 8192), acc, precision="bf16") for acc in (thor, small))
    assert large.dram_bytes < 0.7 * little.dram_bytes and large.latency_s < little.latency_s
    assert large.dram_bytes >= 3 * 2 * 8192**2 * 0.5  # results may stay behind in the L2, operands are read
