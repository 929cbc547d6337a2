"""Every shipped processor answers, and other machines can ask what their host costs."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary
from hwsim.machine.library import machine_names
from hwsim.network.load import load_network
from hwsim.plan.cpu_work import cpu_kernel, cpu_kernel_s, cpu_kernels, host_work_s

DATA = Path(__file__).parents[1] / "data"


def test_a_network_on_a_processor_adds_up() -> None:
    result = hwsim.simulate("mobilenet_v1", "raspberry-pi-4")
    assert sum(r["latency_s"] for r in result.kernels) == pytest.approx(result.latency_s)
    assert sum(result.time_shares.values()) == pytest.approx(1.0)
    assert result.latency_s >= result.bound_s > 0
    assert result.kernels[0]["core_limit"]


def test_fewer_threads_are_slower_and_named_after_a_colon() -> None:
    one, four = (hwsim.simulate("mobilenet_v2", "raspberry-pi-4", stack=f"xnnpack:{n}").latency_s for n in (1, 4))
    assert 1.5 * four < one < 4.2 * four
    with pytest.raises(HwsimError, match="4 cores"):
        hwsim.simulate("mobilenet_v2", "raspberry-pi-4", stack="xnnpack:5")


def test_fallback_kernels_cost_what_they_do_in_a_whole_run() -> None:
    acc = load_accelerator("raspberry-pi-4")
    net = load_network("mobilenet_v2").bind(N=1)
    kernels = cpu_kernels(net, acc)
    result = hwsim.simulate("mobilenet_v2", "raspberry-pi-4")
    assert sum(cpu_kernel_s(acc, k) for k in kernels) == pytest.approx(result.latency_s, rel=1e-3)
    some = cpu_kernels(net, acc, layers={net.layers[-1].id})
    assert [k.layers for k in some] == [kernels[-1].layers]
    assert cpu_kernel(acc, some[0]).limit


def test_host_work_is_bounded_by_memory_and_grows() -> None:
    acc = load_accelerator("raspberry-pi-4")
    assert host_work_s(acc) == 0.0
    megabyte = host_work_s(acc, read_bytes=1e6)
    assert megabyte >= 1e6 / 5.1e9
    assert host_work_s(acc, read_bytes=1e6, scalar_operations=1e6) > megabyte
    assert host_work_s(acc, read_bytes=1e6, in_cache=True) < megabyte
    with pytest.raises(HwsimError, match="negative"):
        host_work_s(acc, read_bytes=-1)


FILES = sorted(p for p in (DATA / "tflite").iterdir() if ".tflite" in p.name)
TINY = {
    "mlperf_tiny_ad01_int8", "mlperf_tiny_kws_ref_model", "mlperf_tiny_pretrainedResnet_quant", "mlperf_tiny_str_ww_ref_model",
    "tflm_hello_world_int8", "tflm_keyword_scrambled_8bit", "tflm_micro_speech_quantized", "tflm_person_detect",
    "tflm_trained_lstm_int8", "coral_keras_lstm_mnist_ptq", "coral_mobilenet_v1_0.25_128_quant",
}  # fmt: skip


def opened(path: Path, folder: Path) -> Path:
    """The file itself, unpacked where it is kept packed."""
    if path.suffix != ".gz":
        return path
    plain = folder / path.stem
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    return plain


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name.partition(".tflite")[0])
def test_every_tflite_file_runs(path: Path, tmp_path: Path) -> None:
    file = opened(path, tmp_path)
    if "edgetpu" in file.name:
        with pytest.raises(HwsimError, match="compiled for the Edge TPU"):
            hwsim.simulate(file, "raspberry-pi-4")
        return
    board = hwsim.simulate(file, "raspberry-pi-4")
    assert board.latency_s >= board.bound_s > 0
    if file.stem in TINY:
        micro = hwsim.simulate(file, "nucleo-l4r5zi")
        assert micro.latency_s > board.latency_s
        assert any("SRAM arena" in n for n in micro.notes)


def test_what_does_not_fit_a_microcontroller_is_refused_with_figures() -> None:
    with pytest.raises(
        HwsimError, match=r"does not fit the flash and the SRAM of nucleo-l4r5zi: flash \d+ of 2048 KiB"
    ) as caught:
        hwsim.simulate("mobilenet_v2", "nucleo-l4r5zi", precision="int8")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "googlenet", "resnet50"])
def test_bytes_against_floats_without_dot_products(name: str) -> None:
    """gemmlowp's README tells 1.5 to 2 times; TensorFlow Lite's networks on Pixel 3 measure 1.31 to 1.88."""
    floats, integers = (hwsim.simulate(name, "pixel-3", precision=p, stack="ruy:1").latency_s for p in ("fp32", "int8"))
    assert 1.3 <= floats / integers <= 2.2


def test_dot_products_make_bytes_several_times_faster() -> None:
    floats, integers = (
        hwsim.simulate("mobilenet_v1", "pixel-4", precision=p, stack="xnnpack:1").latency_s for p in ("fp32", "int8")
    )
    assert floats / integers > 2.2


def test_blocks_of_zeros_pay_when_there_are_many() -> None:
    dense = hwsim.simulate("mobilenet_v1", "pixel-2", precision="fp32", stack="xnnpack:1")
    gains = [
        dense.latency_s
        / hwsim.simulate("mobilenet_v1", "pixel-2", precision="fp32", stack="xnnpack:1", sparsity=s).latency_s
        for s in ("30%x4", "70%x4", "90%x4")
    ]
    assert gains == sorted(gains) and gains[0] < 1.0 < gains[1]
    assert 1.3 < gains[2] < 10 / 1.0
    wide, narrow = (
        hwsim.simulate("mobilenet_v1", "pixel-2", precision="fp32", stack="xnnpack:1", sparsity=s).latency_s
        for s in ("90%x4", "90%x1")
    )
    assert wide < narrow


@pytest.mark.parametrize(
    ("device", "stack", "sparsity", "told"),
    [
        ("raspberry-pi-4", None, "2:4!", "no 2:4"),
        ("raspberry-pi-4", "ruy:1", "90%x4", "XNNPACK"),
        ("raspberry-pi-4", None, "90%x3", "90%x3"),
        ("tpu-v3", None, "90%x4", "processors only"),
        ("a30", None, "90%x4", "processors only"),
        ("raspberry-pi-4", "mkl", None, "mkl"),
    ],
)
def test_what_a_processor_lacks_is_refused(device: str, stack: str | None, sparsity: str | None, told: str) -> None:
    with pytest.raises(HwsimError, match=told) as caught:
        hwsim.simulate("mobilenet_v1", device, stack=stack, sparsity=sparsity)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "change"),
    [
        ("raspberry-pi-4", {"core.clock": "1.6 GHz"}),
        ("raspberry-pi-4", {"memory.dram.bandwidth": "11 GB/s", "core.memory_bandwidth": "10 GB/s"}),
        ("raspberry-pi-4", {"memory.l2.bandwidth": "48 GB/s"}),
        ("raspberry-pi-4", {"memory.l2.capacity": "2 MiB"}),
        ("raspberry-pi-4", {"core.issue": 4}),
        ("raspberry-pi-4", {"core.load_ops": 2}),
        ("raspberry-pi-4", {"core.vector_ops": 3}),
        ("nucleo-l4r5zi", {"core.clock": "160 MHz"}),
        ("nucleo-l4r5zi", {"memory.flash.bandwidth": "640 MB/s"}),
    ],
    ids=str,
)
def test_more_of_anything_is_never_slower(device: str, change: dict[str, object]) -> None:
    acc = load_accelerator(device)
    network = "mlperf_tiny_ic" if device.startswith("nucleo") else "mobilenet_v2"
    for precision in ("fp32", "int8"):
        base = hwsim.simulate(network, acc, precision=precision).latency_s
        assert hwsim.simulate(network, vary(acc, change), precision=precision).latency_s <= base * (1 + 1e-9)


@pytest.mark.parametrize("name", [m for m in machine_names() if load_accelerator(m).family == "cpu"])
def test_every_processor_answers(name: str) -> None:
    result = hwsim.simulate("mlperf_tiny_vww", name, precision="int8")
    assert result.latency_s >= result.bound_s > 0
    assert result.energy.total_j > 0
