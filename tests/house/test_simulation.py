"""What every answer must satisfy, whatever the network and machine."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.machine import load_accelerator, vary
from hwsim.network.builder import Builder
from hwsim.network.graph import Network

PRECISION = {
    "tpu-v1": "int8",
    "scalesim-32x32-ws": "int8",
    "scalesim-16x16-os": "int8",
    "scalesim-8x8-is": "int8",
    "eyeriss-like": "int16",
}
MACHINES = [
    "tpu-v1",
    "tpu-v2-core",
    "tpu-v3",
    "tpu-v4",
    "tpu-v5e",
    "tpu-v6e",
    "tpu-v7",
    "tpu-v3-8",
    *[m for m in PRECISION if m != "tpu-v1"],
]
NETWORKS = ["alexnet", "resnet50", "mobilenet_v2", "bert_base", "tpu1_mlp0"]


def check(result: hwsim.Result) -> None:
    """The relations that hold by construction of an honest model."""
    kernels = result.kernels
    overhead = result.totals.overhead_s
    assert sum(k["latency_s"] for k in kernels) + overhead == pytest.approx(result.latency_s, rel=1e-12)
    assert sum(result.time_shares.values()) == pytest.approx(1.0, rel=1e-9)
    assert 0 <= result.utilization <= 1
    assert result.bound_s <= result.latency_s * (1 + 1e-9)
    spent = sum(k["energy_j"] for k in kernels) * result.totals.used + result.idle_j
    assert result.energy_j == pytest.approx(spent, rel=1e-9)
    low, high = result.energy.interval_j
    assert low <= result.energy.total_j <= high
    for k in kernels:
        times = sum(v for name, v in k.items() if name.startswith("time_"))
        assert times == pytest.approx(k["latency_s"], rel=1e-9, abs=1e-15)
        assert 0 <= k["utilization_useful_pct"] <= k["utilization_padded_pct"] + 1e-6
    assert result.throughput_per_s == pytest.approx(result.totals.batch / result.latency_s)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_answer_adds_up(network: str, machine: str) -> None:
    try:
        result = hwsim.simulate(network, machine, precision=PRECISION.get(machine, "bf16"))
    except hwsim.HwsimError as error:
        assert "does not fit" in str(error)
        return
    check(result)


def _products(result: hwsim.Result) -> int:
    schedule = result.schedule
    from hwsim.schedule.table import OPERATION

    mac = schedule.op == OPERATION["mac"]
    return int((schedule.instances() * schedule.ops)[mac].sum())


@pytest.mark.parametrize("machine", ["tpu-v1", "tpu-v3-core", "tpu-v4", "scalesim-32x32-ws", "scalesim-16x16-os"])
@pytest.mark.parametrize("network", ["alexnet", "resnet50", "vgg16", "gnmt", "bert_base"])
def test_the_schedule_multiplies_every_product_once(network: str, machine: str) -> None:
    result = hwsim.simulate(network, machine, precision=PRECISION.get(machine, "bf16"))
    assert _products(result) == result.network.macs


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 3000), n=st.integers(1, 3000), k=st.integers(1, 3000),
    machine=st.sampled_from(
        ["tpu-v1", "tpu-v3-core", "tpu-v4", "tpu-v6e", "scalesim-32x32-ws", "scalesim-16x16-os", "scalesim-8x8-is"]
    ),
)  # fmt: skip
def test_any_product_adds_up(m: int, n: int, k: int, machine: str) -> None:
    net = hwsim.matmul(m, n, k)
    result = hwsim.simulate(net, machine, precision=PRECISION.get(machine, "bf16"))
    check(result)
    assert _products(result) == m * n * k
    if machine != "tpu-v1":  # there activations come over the host link
        width = 1 if machine.startswith("scale") else 2
        assert result.dram_bytes >= width * (m * k + k * n + m * n)


@settings(max_examples=40, deadline=None)
@given(
    c=st.sampled_from([1, 3, 16, 64, 100, 192]), f=st.sampled_from([1, 8, 64, 130]), size=st.integers(3, 40),
    kernel=st.sampled_from([1, 3, 5]), stride=st.integers(1, 2), depthwise=st.booleans(),
    machine=st.sampled_from(["tpu-v1", "tpu-v3-core", "tpu-v4", "scalesim-32x32-ws", "scalesim-16x16-os"]),
)  # fmt: skip
def test_any_convolution_adds_up(
    c: int, f: int, size: int, kernel: int, stride: int, depthwise: bool, machine: str
) -> None:
    net = Builder("conv")
    x = net.input("x", (1, c, size, size))
    made = net.conv(x, c if depthwise else f, kernel, stride, kernel // 2, g=c if depthwise else 1)
    result = hwsim.simulate(net.build(made), machine, precision=PRECISION.get(machine, "bf16"))
    check(result)
    products = _products(result)
    assert products in (result.network.macs, 0)  # 0: multiplied lane by lane on the vector unit


@pytest.mark.parametrize("machine", ["tpu-v3-core", "tpu-v4", "scalesim-32x32-ws"])
@pytest.mark.parametrize(("path", "more"), [("bandwidth", 2.0), ("clock", 1.5)])
def test_more_of_a_resource_is_never_slower(machine: str, path: str, more: float) -> None:
    acc = load_accelerator(machine)
    if path == "clock":
        faster = vary(acc, {"matrix_unit.clock": f"{acc.matrix_unit.clock_hz * more} Hz"})
    else:
        name = next(m for m, level in acc.memory.items() if level.is_dram)
        keys = [k for k in acc.values if k.startswith(f"memory.{name}.") and k.endswith("bandwidth")]
        faster = vary(acc, {key: f"{float(acc.values[key].value) * more} B/s" for key in keys})
    precision = PRECISION.get(machine, "bf16")
    for net in ("alexnet", "resnet50"):
        before, after = (hwsim.simulate(net, a, precision=precision).latency_s for a in (acc, faster))
        assert after <= before * (1 + 1e-9)


def test_batch_scales_work_exactly_and_data_parallel_splits_it() -> None:
    one, eight = (hwsim.simulate("resnet50", "tpu-v3-core", batch=b, precision="bf16") for b in (1, 8))
    assert eight.macs == 8 * one.macs
    assert one.latency_s < eight.latency_s < 8 * one.latency_s
    board = hwsim.simulate("resnet50", "tpu-v3-8", batch=64, precision="bf16")
    core = hwsim.simulate("resnet50", "tpu-v3-core", batch=8, precision="bf16")
    assert board.totals.used == 8 and board.macs == 8 * core.macs
    assert core.latency_s < board.latency_s < core.latency_s + 1e-4  # and the programs meet at the end


def test_a_plan_runs_again_to_the_same_answer() -> None:
    first = hwsim.simulate("alexnet", "tpu-v4", precision="bf16")
    again = hwsim.simulate("alexnet", "tpu-v4", precision="bf16", plan=first.plan)
    assert first.to_json() == again.to_json()
    with pytest.raises(hwsim.HwsimError, match="plan is for"):
        hwsim.simulate("alexnet", "tpu-v3", precision="bf16", plan=first.plan)


def test_three_passes_cost_three_times_the_array_and_int8_is_no_faster_where_it_is_converted() -> None:
    once, thrice = (hwsim.simulate(hwsim.matmul(4096, 4096, 4096), "tpu-v4", precision=p) for p in ("fp32", "fp32x3"))
    assert 2.5 < thrice.latency_s / once.latency_s < 3.0
    assert any("3 bf16 passes" in note for note in thrice.notes)
    eight = hwsim.simulate(hwsim.matmul(4096, 4096, 4096), "tpu-v3-core", precision="int8")
    sixteen = hwsim.simulate(hwsim.matmul(4096, 4096, 4096), "tpu-v3-core", precision="bf16")
    assert 0.9 < eight.latency_s / sixteen.latency_s <= 1.0
    assert any("converted to bf16" in note for note in eight.notes)


def test_decode_is_bound_by_the_weights_and_prefill_by_the_arrays() -> None:
    decode = hwsim.simulate("llama3_8b", "tpu-v4", precision="bf16", phase="decode", context=2048)
    prefill = hwsim.simulate("llama3_8b", "tpu-v4", precision="bf16", phase="prefill", context=2048)
    assert decode.bound_by == "weight fetch" and prefill.bound_by == "matrix unit"
    assert decode.dram_bytes > decode.plan.weight_bytes * 0.9


def test_the_same_question_gives_the_same_bits() -> None:
    texts = {hwsim.simulate("mobilenet_v2", "tpu-v4", batch=3, precision="bf16").to_json() for _ in range(3)}
    assert len(texts) == 1


def test_a_fixed_batch_refuses_to_change() -> None:
    net: Network = dataclasses.replace(hwsim.load_network("alexnet").bind(N=1), symbols={})
    with pytest.raises(hwsim.HwsimError, match="batch is fixed"):
        hwsim.simulate(net, "tpu-v4", batch=2)


def test_layers_is_the_kernels_as_a_frame() -> None:
    result = hwsim.simulate("alexnet", "tpu-v4", precision="bf16")
    frame = result.layers
    assert len(frame) == len(result.kernels)
    assert frame["latency_s"].sum() == pytest.approx(result.latency_s - result.totals.overhead_s)
