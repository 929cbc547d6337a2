"""Convolutions on CUDA cores: their grids are the recorded ones, their costs keep to bounds, rows read as chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim import simulate
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.plan.gpu_choose import ChoiceOptions, candidates, choose_kernels, launch_seconds
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_lower import lower_gpu
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.schedule.table import OPERATION
from hwsim.timing.gpu_rows import read_rows
from hwsim.validate.gpu_conv import MACHINES, conv_kernel
from hwsim.validate.measured import SHIPPED, find, table

VIEWS = {
    name: gpu_view(load_accelerator(name)) for name in ("v100-pcie", "t4", "a100-pcie-80gb", "p100-pcie", "jetson-nano")
}
# Whose power limits no single convolution: kernels are chosen at the full clock, and a limit may reorder those near each other.
ACCELERATORS = {name: load_accelerator(name) for name in ("p100-pcie", "a100-pcie-80gb", "jetson-nano")}
HOW = ChoiceOptions("stream", cold_code=False)
SHAPES = st.tuples(
    st.integers(1, 40), st.integers(1, 300), st.integers(3, 60), st.integers(1, 300), st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
)  # fmt: skip


def square(view: GpuView, n: int, c: int, h: int, k: int, r: int = 3, stride: int = 1, dtype: str = "fp32") -> Kernel:
    return conv_kernel(view, dtype, n=n, c=c, h=h, w=h, k=k, r=r, s=r, stride=(stride,) * 2, pad=(r // 2,) * 2)


def named(view: GpuView, kernel: Kernel, how: ChoiceOptions = HOW) -> dict[str, GpuChoice]:
    return {choice.algorithm: choice for _, choice in candidates([kernel], view, how)[0]}


def recorded(algorithm: str, each: int) -> list[dict[str, str]]:
    path = find(SHIPPED, "measured_conv_neusight")
    assert path is not None
    return [row for row in table(path) if row["algorithm"] == algorithm][::each]


@pytest.mark.parametrize("algorithm", ["winograd", "winograd_4x4"])
def test_grids_of_minimal_filtering_are_those_cudnn_launched(algorithm: str) -> None:
    rows = recorded(algorithm, 40)
    assert len(rows) > 200
    for row in rows:
        view = gpu_view(load_accelerator(MACHINES[row["device"]]))
        shape = (int(row[x]) for x in "NCHK")
        choice = named(view, square(view, *shape))[algorithm]
        x, y, z = (int(v) for v in row["grid"].split("x"))
        if algorithm == "winograd_4x4":
            tile_m, tile_n = (int(v) for v in row["kernel"].split("_")[2].split("x"))
            assert (-(-choice.m // tile_m), -(-choice.n // tile_n), choice.batch) == (x, y, z)
        elif view.architecture == "pascal":  # its library has many arrangements and does not always take the best
            assert choice.ctas <= x * y * z
        elif "148" in row["kernel"] and view.architecture != "ampere-ga100":
            assert choice.ctas == x * y * z


def test_grids_of_implicit_products_are_those_cudnn_launched() -> None:
    for row in recorded("implicit_gemm", 60):
        sizes = [part for part in row["kernel"].split("_") if "x" in part and part[0].isdigit()]
        tile_m, tile_n = (int(v) for v in sizes[0].split("x"))
        x, y, z = (int(v) for v in row["grid"].split("x"))
        n, h, k = (int(row[c]) for c in "NHK")
        assert (-(-n * h * h // tile_m), -(-k // tile_n), 1) == (x, y, z)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(sorted(VIEWS)))
def test_no_algorithm_beats_the_roofline_of_its_own_work(shape: tuple[int, ...], name: str) -> None:
    view = VIEWS[name]
    kernel = square(view, *shape)
    product = kernel.products[0]
    # A 1 x 1 filter of stride 2 does not look at all of its input.
    moved = min(kernel.inputs[0].bytes, 4 * product.m * product.k) + kernel.outputs[0].bytes
    for algorithm, choice in named(view, kernel).items():
        products = kernel.macs
        if algorithm == "winograd":
            products = choice.useful * choice.m * choice.n * choice.k
            assert products * 9 / 4 >= kernel.macs * (1 - 1e-9)  # whole squares only add to the count
        elif algorithm == "winograd_4x4":
            products = choice.useful * choice.m * choice.n * choice.k * choice.batch
            assert products * 4 >= kernel.macs * (1 - 1e-9)
        lanes = view.simt_macs["fp32"] * view.sms * view.clock_hz
        assert choice.time_s >= products / lanes * (1 - 1e-9)
        # What the L2 keeps crosses no DRAM; beyond it every byte does.
        assert choice.time_s >= (moved - 2 * view.l2_bytes) / view.dram_bytes_per_s


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(sorted(VIEWS)), st.floats(1.0, 8.0))
def test_more_bandwidth_is_never_slower(shape: tuple[int, ...], name: str, more: float) -> None:
    view = VIEWS[name]
    kernel = square(view, *shape)
    faster = replace(view, dram_bytes_per_s=view.dram_bytes_per_s * more, l2_bytes_per_clk=view.l2_bytes_per_clk * more)
    slow, fast = (named(v, kernel) for v in (view, faster))
    for algorithm, choice in slow.items():
        assert fast[algorithm].time_s <= choice.time_s * (1 + 1e-9)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from(sorted(VIEWS)), st.integers(1, 9), st.sampled_from(["n", "c", "k"]))
def test_a_larger_convolution_is_never_faster(shape: tuple[int, ...], name: str, more: int, axis: str) -> None:
    view = VIEWS[name]
    n, c, h, k, r, stride = shape
    larger = (n + more * (axis == "n"), c + 8 * more * (axis == "c"), h, k + more * (axis == "k"), r, stride)
    kernels = [square(view, *x) for x in (shape, larger)]
    small, large = (named(view, kernel) for kernel in kernels)
    # Results leave through the SMs that made them: one more CTA may open another SM's path to the L2.
    path = kernels[0].outputs[0].bytes / (view.l2_sm_bytes_per_clk * view.constants["l2_threads"] * view.clock_hz)
    for algorithm in small.keys() & large.keys():
        # Splits and tiles are chosen before bytes are rounded: a thousandth is no order.
        few = small[algorithm].ctas < view.sms
        assert small[algorithm].time_s <= large[algorithm].time_s * 1.001 + (path if few else 0.0)


@settings(deadline=None, max_examples=25)
@given(SHAPES, st.sampled_from(sorted(VIEWS)), st.booleans())
def test_rows_take_what_the_choice_said(shape: tuple[int, ...], name: str, prepared: bool) -> None:
    view = VIEWS[name]
    kernel = square(view, *shape)
    how = replace(HOW, prepared=prepared)
    for _, choice in candidates([kernel], view, how)[0]:
        schedule = lower_gpu([kernel], [choice], view)
        reading = read_rows(schedule, view, launch_seconds(view, how))[0]
        assert reading is not None
        assert sum(reading.times.values()) == pytest.approx(choice.time_s, rel=2e-2)
        macs = schedule.op == OPERATION["mac"]
        done = int((schedule.ops * schedule.instances())[macs].sum())
        if choice.useful:
            assert done == pytest.approx(choice.useful * choice.m * choice.n * choice.k * choice.batch, rel=0.01)
        else:
            assert done == pytest.approx(kernel.macs, rel=0.01)


def test_filters_made_ready_before_the_run_save_their_kernel() -> None:
    view = VIEWS["v100-pcie"]
    kernel = square(view, 8, 512, 14, 512)
    ready, eager = (named(view, kernel, replace(HOW, prepared=p)) for p in (True, False))
    for algorithm in ("winograd", "winograd_4x4"):
        assert len(eager[algorithm].transforms) == len(ready[algorithm].transforms) + 1
        assert eager[algorithm].time_s > ready[algorithm].time_s
    # A library called for one convolution first computes offsets, a launch and next to nothing more.
    assert [t.dram for t in eager["implicit_gemm"].transforms] == [0.0] and not ready["implicit_gemm"].transforms
    launch = launch_seconds(view, HOW)
    assert launch < eager["implicit_gemm"].time_s - ready["implicit_gemm"].time_s < launch + 1e-6


def test_rows_of_filters_that_end_in_a_sector_are_written_whole() -> None:
    view = VIEWS["v100-pcie"]
    how = replace(HOW, prepared=False)
    odd, even = (named(view, square(view, 16, c, 7, 512), how)["winograd_4x4"] for c in (509, 512))
    assert odd.transforms[0].access < even.transforms[0].access and odd.time_s > even.time_s


def test_only_voltas_tensor_cores_split_k() -> None:
    deep = {"n": 1, "c": 512, "h": 7, "w": 7, "k": 64, "r": 3, "s": 3, "stride": (1, 1), "pad": (1, 1)}
    for name, splits in (("v100-pcie", True), ("t4", False), ("a100-pcie-80gb", False)):
        view = VIEWS[name]
        choice = choose_kernels([conv_kernel(view, "fp16", **deep)], view, HOW)[0]
        assert (choice.split > 1) is splits


def test_library_calls_on_turing_bring_8_bit_filters_into_order() -> None:
    view = VIEWS["t4"]
    shape = {"n": 2, "c": 512, "h": 14, "w": 14, "k": 512, "r": 3, "s": 3, "stride": (1, 1), "pad": (1, 1)}
    kernel = conv_kernel(view, "int8", **shape)
    ready, eager = (choose_kernels([kernel], view, replace(HOW, prepared=p))[0] for p in (True, False))
    weights = 512 * 512 * 9
    assert [t.read for t in eager.transforms] == [4 * 512 * 9, weights] and not ready.transforms
    assert min(eager.tile[:2]) >= 64 and max(eager.tile[:2]) >= 128 and eager.time_s > ready.time_s


def test_one_image_does_not_pay_for_planes_of_sixteen() -> None:
    view = VIEWS["v100-pcie"]
    found = named(view, square(view, 1, 256, 14, 256))
    assert found["winograd_4x4"].useful == pytest.approx(1 / 16)
    assert choose_kernels([square(view, 1, 256, 14, 256)], view, HOW)[0].algorithm == "winograd"


def other(kind: str, n: int, c: int, h: int) -> Network:
    """One convolution that is not a plain square one."""
    net = Builder(kind)
    x = net.input("x", (n, c, h, h))
    if kind == "transposed":
        return net.build(net.op("conv_transpose", x, out=(n, c, 2 * h, 2 * h), k=(2, 2), s=(2, 2))).bind()
    groups = {"depthwise": c, "pairs": c // 2}.get(kind, 1)
    dilation = 2 if kind == "dilated" else 1
    return net.build(net.conv(x, c, 1 if kind == "pointwise" else 3, p=dilation, d=dilation, g=groups)).bind()


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["depthwise", "pairs", "dilated", "transposed", "pointwise"]), st.integers(1, 8),
    st.integers(1, 64), st.integers(4, 40), st.sampled_from(["fp32", "fp16"]), st.sampled_from(sorted(ACCELERATORS)),
)  # fmt: skip
def test_other_convolutions_keep_to_their_roofline_too(
    kind: str, n: int, half: int, h: int, dtype: str, name: str
) -> None:
    c = 2 * half
    one, two, wide = (
        simulate(other(kind, images, c, h), target, precision=dtype)
        for images, target in ((n, ACCELERATORS[name]), (2 * n, ACCELERATORS[name]), (n, faster(name)))
    )
    assert one.latency_s >= one.bound_s
    # More threads ask for the same filters at once, which is quicker by nanoseconds where nothing else takes time.
    assert two.latency_s >= one.latency_s - 20e-9
    assert wide.latency_s <= one.latency_s * 1.001
    if kind == "depthwise":
        assert one.kernels[-1]["algorithm"] == "direct"


def faster(name: str) -> Accelerator:
    """The machine with twice the DRAM bandwidth."""
    acc = ACCELERATORS[name]
    rates = {
        "bandwidth_bytes_per_s": 2 * acc.dram.bandwidth_bytes_per_s,
        "read_bytes_per_s": 2 * acc.dram.read_bytes_per_s,
    }
    return replace(acc, memory={key: replace(m, **rates) if m.is_dram else m for key, m in acc.memory.items()})
