"""Language models on GPUs: bytes of a decode step counted from the trace by hand, caches, weights with their scales."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import hwsim
from hwsim.data import models_dir
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary

MODELS = [
    "llama2_7b", "llama2_13b", "llama2_70b", "llama3_8b", "llama3_70b", "llama3.2_1b", "mistral_7b", "mixtral_8x7b",
    "qwen2_7b", "opt_1.3b", "opt_30b", "gpt3_2.7b", "gpt3_175b", "gptj_6b", "megatron_gpt2_8.3b", "gpt2", "gpt2_xl",
]  # fmt: skip
# A machine of today's speed and any capacity: what is counted is bytes.
BIG = vary(load_accelerator("a100-sxm4-80gb"), {"memory.dram.capacity": "2000 GiB"})
BITS = {"bf16": 16, "w8a16": 8, "w4a16": 4}


def rows_of(name: str) -> list[dict[str, str]]:
    lines = (models_dir() / f"{name}.layers.csv").read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def word(row: dict[str, str], key: str) -> int:
    return int(next(w for w in row["attrs"].split() if w.startswith(f"{key}=")).split("=")[1])


def read_by_hand(name: str, batch: int, past: int, bits: int, group: int, kv_bits: int) -> tuple[int, int]:
    """Bytes of constants and of the cache that one decode step must read, from the trace's text alone."""
    rows = rows_of(name)
    shape = {row["id"]: row["out"].split("x") for row in rows}
    weights = cache = 0
    for row in rows:
        if row["op"] in ("linear", "expert_linear"):
            k, out = word(row, "k"), int(shape[row["id"]][-1])
            stored = 16 if "tied=" in row["attrs"] else bits
            count = k * out
            if row["op"] == "expert_linear":  # two of the experts for every token, different ones while there are any
                count *= min(word(row, "experts"), 2 * batch)
            weights += count * stored // 8
            if stored < 16:
                scales = count // k * (-(-k // group) if group else 1)
                weights += scales * (16 + (stored if group else 0)) // 8
        elif row["op"] == "attention":
            for src in row["src"].split()[1:3]:
                heads, depth = (int(shape[src][i]) for i in (1, 3))
                cache += batch * heads * past * depth * kv_bits // 8
    return weights, cache


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision, group", [("bf16", 0), ("w8a16", 0), ("w4a16g64kv8", 64)])
def test_a_decode_step_reads_its_weights_and_its_cache(name: str, precision: str, group: int) -> None:
    bits, kv_bits = BITS[precision.split("g")[0]], 8 if "kv8" in precision else 16
    result = hwsim.simulate(name, BIG, batch=4, phase="decode", context=1500, precision=precision, cache="cold")
    weights, cache = read_by_hand(name, 4, 1500, bits, group, kv_bits)
    read = sum(row["dram_read_bytes"] for row in result.kernels)
    # What is left are biases, look-ups, normalisations, and activations that the chip's caches do not hold.
    assert weights + cache <= read
    assert read <= 1.01 * (weights + cache)


@pytest.mark.parametrize("name", MODELS)
def test_the_cache_holds_every_token_and_a_step_writes_one_more(name: str) -> None:
    past, batch = 700, 3
    result = hwsim.simulate(name, BIG, batch=batch, phase="decode", context=past, precision="bf16kv8")
    _, read = read_by_hand(name, batch, past, 16, 0, 8)
    assert result.plan.cache_bytes * past == read * (past + 1)
    written = [o.bytes for k in result.plan.kernels for o in k.outputs if o.role == "keep"]
    assert sum(written) * past == read
    prefill = hwsim.simulate(name, BIG, batch=batch, phase="prefill", context=past, precision="bf16kv8")
    assert sum(o.bytes for k in prefill.plan.kernels for o in k.outputs if o.role == "keep") == read


def test_weight_only_gains_less_than_its_bytes() -> None:
    times = {
        p: hwsim.simulate("llama3_8b", "a100-sxm4-80gb", phase="decode", context=256, precision=p).latency_s
        for p in BITS
    }
    assert 1.2 < times["bf16"] / times["w8a16"] < 2.0
    assert times["bf16"] / times["w8a16"] < times["bf16"] / times["w4a16"] < 3.2


def test_longer_contexts_and_larger_batches_take_longer() -> None:
    at = [
        hwsim.simulate("qwen2_7b", "h100-sxm", batch=b, phase="decode", context=c, precision="bf16").latency_s
        for b, c in ((1, 128), (1, 4096), (8, 4096), (32, 4096))
    ]
    assert at == sorted(at)


def test_precisions_with_endings() -> None:
    from hwsim.plan.precision import PRESETS, named_precision

    assert named_precision("w4a16") == PRESETS["w4a16"]
    assert named_precision("w4a16g64kv8").group == 64 and named_precision("w4a16-g64-kvfp8").kv == "e4m3"
    assert named_precision("fp16kv16") == PRESETS["fp16"]
    for wrong in ("bf16g64", "w4a16g4", "bf16kv3", "kv8", "w4a16gkv8"):
        with pytest.raises(HwsimError, match="precision"):
            named_precision(wrong)


def test_quantised_weights_leave_look_ups_as_they_are() -> None:
    result = hwsim.simulate("llama3_8b", BIG, phase="decode", context=16, precision="w4a16")
    linear = 8_030_261_248 - 128256 * 4096 - 65 * 4096  # parameters without table and normalisations
    stored = linear // 2 + linear // 128 * 20 // 8 + 2 * (128256 * 4096 + 65 * 4096)
    assert result.plan.weight_bytes == pytest.approx(stored, rel=1e-4)


def test_networks_that_look_ahead_have_no_decode_phase() -> None:
    for name in ("bert_base", "t5_small", "whisper_base_decoder"):
        with pytest.raises(HwsimError, match="no decode phase"):
            hwsim.simulate(name, BIG, phase="decode", context=16)


def test_models_are_where_the_tests_look() -> None:
    assert all((Path(models_dir()) / f"{name}.layers.csv").is_file() for name in MODELS)
