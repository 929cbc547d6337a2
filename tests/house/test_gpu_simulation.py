"""Whole networks on GPUs: answers keep their bounds, options change what they should, refusals are one line."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.errors import HwsimError

A100 = "a100-sxm4-80gb"


def test_a_network_end_to_end_adds_up() -> None:
    res = hwsim.simulate("resnet50", A100, precision="fp16", batch=8)
    rows = res.kernels
    assert sum(r["cycles"] for r in rows) == res.cycles
    assert sum(r["latency_s"] for r in rows) == pytest.approx(res.latency_s)
    assert res.latency_s >= res.bound_s
    assert sum(res.time_shares.values()) == pytest.approx(1)
    assert res.macs == 8 * 4089184256
    assert all(r["sol_pct"] <= 100 for r in rows)
    assert {"tile", "grid", "waves", "occupancy", "split_k", "algorithm"} <= rows[0].keys()


@pytest.mark.parametrize("name", ["mobilenet_v2", "bert_base", "gpt2", "swin_t", "densenet121", "efficientnet_b0"])
def test_narrower_formats_and_newer_chips_are_not_slower(name: str) -> None:
    fp16 = hwsim.simulate(name, A100, precision="fp16", batch=32).latency_s
    assert hwsim.simulate(name, A100, precision="fp32", batch=32).latency_s > fp16
    assert hwsim.simulate(name, A100, precision="int8", batch=32).latency_s < fp16
    assert hwsim.simulate(name, "h100-sxm", precision="fp16", batch=32).latency_s < fp16
    assert hwsim.simulate(name, "t4", precision="fp16", batch=32).latency_s > 2 * fp16


def test_stacks() -> None:
    compiled = hwsim.simulate("bert_base", A100, precision="fp16")
    stream = hwsim.simulate("bert_base", A100, precision="fp16", stack="tensorrt-stream")
    eager = hwsim.simulate("bert_base", A100, precision="fp16", stack="pytorch")
    assert compiled.latency_s < stream.latency_s < eager.latency_s
    with pytest.raises(HwsimError, match="unknown stack"):
        hwsim.simulate("bert_base", A100, stack="tensorflow")


def test_sparsity_gains_less_than_twice_and_says_why() -> None:
    dense = hwsim.simulate("bert_large", A100, precision="int8", batch=32)
    sparse = hwsim.simulate("bert_large", A100, precision="int8", batch=32, sparsity="2:4")
    assert 1.0 < dense.latency_s / sparse.latency_s < 1.6
    chosen = [r for r in sparse.kernels if r["sparse_chosen"] is True]
    assert chosen and all(1 < r["sparse_gain"] <= 2.001 for r in chosen)
    assert all(r["sparse_limit"] for r in sparse.kernels if r["sparse_eligible"] != "")
    tiny = hwsim.simulate(hwsim.matmul(1, 4096, 4096), A100, precision="fp16", sparsity="2:4")
    assert tiny.kernels[0]["sparse_gain"] != ""
    with pytest.raises(HwsimError, match="no 2:4 sparse"):
        hwsim.simulate("bert_large", "t4", precision="int8", sparsity="2:4!")


def test_refusals() -> None:
    with pytest.raises(HwsimError, match="does not multiply e4m3"):
        hwsim.simulate("bert_base", A100, precision="fp8")
    with pytest.raises(HwsimError, match="does not fit"):
        hwsim.simulate("llama2_70b", A100, precision="fp16", phase="decode", context=128)
