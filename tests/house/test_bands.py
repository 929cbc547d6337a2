"""Every answer says how far off its family has been; the band is that of the measured rows."""

from __future__ import annotations

import json

import hwsim
from hwsim.api import matmul
from hwsim.bands import band_of, bands
from hwsim.report import text


def test_bands_are_whole_and_sane() -> None:
    assert bands(), "no band shipped"
    for band in bands().values():
        assert band.rows > 0 and 0 < band.low <= 1.05 and band.high >= 0.95
        assert 0 <= band.median_pct <= band.p90_pct


def test_one_kernel_is_judged_by_kernels_and_a_network_by_networks() -> None:
    kernel = band_of("systolic", 1)
    assert kernel is not None and kernel.kind == "kernel"
    for family, _, quantity in bands():
        found = band_of(family, 2, quantity)
        assert found is not None and (found.kind == "network" or (family, "network", quantity) not in bands())
    assert band_of("no such family", 3) is None


def test_tokens_are_judged_by_language_models() -> None:
    step = hwsim.simulate("llama3.2_1b", "l4", phase="decode", context=100)
    assert step.error_band is not None and step.error_band.kind == "language model"
    assert "language model rows" in text.summary(step)
    network = hwsim.simulate("resnet18", "l4", precision="fp16")
    assert network.error_band is not None and network.error_band.kind == "network"
    assert band_of("systolic", 5, tokens=True) == band_of("systolic", 5)  # none was measured there


def test_answers_carry_their_band() -> None:
    one = hwsim.simulate(matmul(512, 512, 512), "tpu-v4", precision="bf16")
    assert "likely" in text.summary(one) and json.loads(one.to_json())["error_band"]["kind"] == "kernel"
    assert "median error" in one.to_html()
    many = hwsim.simulate("alexnet", "tpu-v4")
    assert ("no network of this family was measured" in text.summary(many)) == (
        ("systolic", "network", "latency") not in bands()
    )
