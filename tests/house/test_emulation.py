"""Block-scaled formats from the command to the kernel; formats a GPU lacks are refused in one line, or emulated."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.report.text import summary
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_gemm import best_gemm, gemm_kind

STEP = {"phase": "decode", "context": 256}


@pytest.mark.parametrize(("name", "bits"), [("nvfp4", 4.5), ("mxfp4", 4.25), ("mxfp8", 8.25)])
def test_blocks_bring_their_scales_and_leave_the_rest_wide(name: str, bits: float) -> None:
    result = hwsim.simulate("llama3_8b", "b200", precision=name, **STEP)
    linear = 8_030_261_248 - 128256 * 4096 - 65 * 4096  # parameters without table and normalisations
    stored = linear * bits / 8 + 2 * (128256 * 4096 + 65 * 4096)
    assert result.plan.weight_bytes == pytest.approx(stored, rel=1e-4)
    wide = hwsim.simulate("llama3_8b", "b200", precision="bf16", **STEP)
    assert result.plan.cache_bytes == wide.plan.cache_bytes  # the cache is what it was
    formats = {(k["op"], k["format"]) for k in result.kernels if k["op"] in ("linear", "attention")}
    assert formats == {("linear", "e4m3" if name == "mxfp8" else "e2m1"), ("attention", "bf16")}
    assert result.latency_s < wide.latency_s


@pytest.mark.parametrize("machine", ["b200", "rtx-5090"])
@pytest.mark.parametrize("name", ["nvfp4", "mxfp8"])
def test_a_product_in_a_network_is_the_engines_product(machine: str, name: str) -> None:
    acc = load_accelerator(machine)
    result = hwsim.simulate(hwsim.matmul(512, 4096, 4096), machine, precision=name, cache="cold")
    (product,) = (k for k in result.kernels if k["op"] == "linear")
    casts = [k for k in result.kernels if k["op"] == "quantize"]
    assert product["dram_read_bytes"] >= 4096 * 4096 * (4.5 if name == "nvfp4" else 8.25) / 8
    assert len(casts) == (2 if name == "nvfp4" else 1)  # NVFP4 has a factor of the whole tensor besides
    view = gpu_view(acc)
    alone = best_gemm(view, gemm_kind(view, name, output="bf16"), 512, 4096, 4096, cache="chained")
    # In a network its code is cold, which a product run again and again does not see.
    cold = view.constants["code_misses"] * view.dram_latency_s
    assert 0 <= product["latency_s"] - float(alone.time_s[0]) <= cold + 2e-6


def test_fewer_scales_take_less_copying() -> None:
    view = gpu_view(load_accelerator("b200"))
    at = [float(best_gemm(view, gemm_kind(view, f), 64, 4096, 8192).time_s[0]) for f in ("mxfp4", "nvfp4")]
    assert at[0] < at[1]


@pytest.mark.parametrize(
    ("machine", "precision", "words"),
    [
        ("h100-sxm", "nvfp4", "does not multiply nvfp4 .* try --precision fp8, or --emulate"),
        ("h100-sxm", "mxfp8", "does not multiply mxfp8 .* try --precision fp8, or --emulate"),
        ("a100", "fp8", "does not multiply e4m3; .* try --precision fp16, or --emulate"),
        ("t4", "bf16", "does not multiply bf16; .* try --precision fp16, or --emulate"),
        ("h100-sxm", "int4", "does not multiply int4; .* --emulate"),
        ("p100-sxm2", "int8", "does not multiply int8; .* --emulate"),
    ],
)
def test_what_a_chip_lacks_is_refused_or_emulated(machine: str, precision: str, words: str) -> None:
    at = {"batch": 8, "precision": precision}
    with pytest.raises(HwsimError, match=words) as caught:
        hwsim.simulate("bert_base", machine, **at)
    assert "\n" not in str(caught.value)
    result = hwsim.simulate("bert_base", machine, emulate=True, **at)
    assert any("emulated, activations" in note for note in result.notes)
    assert any(k["emulates"] for k in result.kernels)
    assert "Emulated" in summary(result)


def test_emulation_gains_bytes_and_no_arithmetic() -> None:
    at = {"batch": 32}
    eight = hwsim.simulate("bert_large", "a100", precision="fp8", emulate=True, **at)
    sixteen = hwsim.simulate("bert_large", "a100", precision="bf16", **at)
    assert eight.plan.weight_bytes < 0.6 * sixteen.plan.weight_bytes and eight.dram_bytes < sixteen.dram_bytes
    assert 0.9 < eight.latency_s / sixteen.latency_s < 1.3
    # One token at a time is bound by reading weights: there it does gain, and less than its bytes.
    narrow, wide = (hwsim.simulate("llama3_8b", "a100", precision=p, emulate=True, **STEP) for p in ("fp8", "bf16"))
    assert 1.2 < wide.latency_s / narrow.latency_s < wide.dram_bytes / narrow.dram_bytes
    # Without 16-bit floats that hold it, a T4 does bf16 at fp32's pace.
    slow, fast = (hwsim.simulate("bert_base", "t4", batch=8, precision=p, emulate=True) for p in ("bf16", "fp16"))
    assert slow.latency_s > 4 * fast.latency_s


def test_nothing_is_emulated_that_the_chip_has() -> None:
    plain, asked = (hwsim.simulate("resnet50", "a100", precision="int8", batch=4, emulate=e) for e in (False, True))
    assert asked.latency_s == plain.latency_s and not any(k["emulates"] for k in asked.kernels)


@pytest.mark.parametrize("machine", ["v100-sxm2", "t4"])
def test_2_4_weights_on_dense_cores_are_read_compressed(machine: str) -> None:
    at = {"precision": "fp16", "cache": "cold"}
    one = hwsim.matmul(64, 4096, 4096)
    dense = hwsim.simulate(one, machine, **at)
    packed = hwsim.simulate(one, machine, sparsity="2:4!", emulate=True, **at)
    weights = 4096 * 4096
    assert dense.dram_bytes - packed.dram_bytes == 2 * weights - weights * 9 // 8  # half of them, and an index of each
    assert packed.latency_s < dense.latency_s  # few rows: bound by reading
    with pytest.raises(HwsimError, match="no 2:4 sparse"):
        hwsim.simulate(one, machine, sparsity="2:4!", **at)
    many = {s: hwsim.simulate("bert_large", machine, batch=8, sparsity=s, emulate=True, **at) for s in (None, "2:4")}
    assert sum(k["sparse_emulated"] is True for k in many["2:4"].kernels) > 90
    assert not any(k["sparse_chosen"] for k in many["2:4"].kernels)
    assert many["2:4"].latency_s > 0.85 * many[None].latency_s  # no arithmetic is saved
    assert "multiplied dense (emulated): 96" in summary(many["2:4"])


def test_the_command_says_that_it_emulates(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "resnet50", "--on", "a100", "--precision", "fp8", "--emulate", "--top", "1"]) == 0
    said = capsys.readouterr().out
    assert "Emulated" in said and "e4m3 run in bf16" in said
    assert main(["run", "resnet50", "--on", "tpu-v5e", "--emulate"]) == 2
    assert "--emulate is for GPUs" in capsys.readouterr().err
