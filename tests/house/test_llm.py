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
    "llama2_7b", "llama2_13b", "llama2_70b", "llama3_8b", "llama3_70b", "llama3.2_1b", "qwen3_32b", "mistral_7b", "mixtral_8x7b",
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


# -- several GPUs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama2_7b", "mixtral_8x7b", "opt_1.3b", "gptj_6b"])
def test_more_gpus_are_never_slower_in_computing_and_move_the_same_bytes(name: str) -> None:
    runs = [
        hwsim.simulate(name, f"a100-sxm4-80gb*{n}", batch=8, phase="decode", context=1000, parallel="tensor", precision="fp16",
                       cache="cold")
        for n in (2, 4, 8)
    ]  # fmt: skip
    own = [r.latency_s * (1 - r.time_shares.get("communication", 0.0)) for r in runs]
    assert own == sorted(own, reverse=True)
    assert [r.totals.ways for r in runs] == [2, 4, 8] and all(r.groups == 1 for r in runs)
    # Weights and caches are read once by all together; what every GPU has of its own are small activations.
    weights, cache = read_by_hand(name, 8, 1000, 16, 0, 16)
    for run in runs:
        read = sum(row["dram_read_bytes"] for row in run.kernels) * run.totals.used
        assert 0.995 * (weights + cache) <= read <= 1.04 * (weights + cache)
        assert run.macs == runs[0].macs and run.tokens is not None and run.tokens.sequences == 8


def test_exchanges_are_rows_on_the_link_with_their_energy() -> None:
    from hwsim.schedule.table import UNIT

    result = hwsim.simulate("llama3_8b", "h100-sxm*4", batch=16, phase="decode", context=64, parallel="tensor")
    schedule = result.schedule
    exchanged = [k for k in result.kernels if k["op"] in ("all_reduce", "all_gather")]
    assert len(exchanged) == 2 * 32 + 1 + 1
    rows = schedule.unit == UNIT["link"]
    sent = int(schedule.moved_bytes()[rows].sum())
    payload = 16 * 4096 * 2
    # One-shot: every GPU reads all of the three others; the logits are gathered once.
    assert sent == 65 * 3 * payload + 3 * (16 * 128256 * 2 // 4)
    assert result.energy.by_component["interconnect"] == pytest.approx(sent * 8e-12 * 8, rel=1e-6)
    assert result.time_shares["communication"] == pytest.approx(
        sum(k["time_communication_s"] for k in exchanged) / result.latency_s
    )


def test_slow_links_cost_more_and_one_device_needs_none() -> None:
    both = {
        m: hwsim.simulate("llama3_8b", f"{m}*2", phase="prefill", context=2048, parallel="tensor")
        for m in ("l40s", "h100-sxm")
    }
    share = {m: r.time_shares["communication"] for m, r in both.items()}
    assert share["l40s"] > 3 * share["h100-sxm"]
    alone = hwsim.simulate("llama3_8b", "h100-sxm", phase="prefill", context=2048, parallel="tensor")
    assert alone.latency_s == hwsim.simulate("llama3_8b", "h100-sxm", phase="prefill", context=2048).latency_s


def test_a_model_no_gpu_holds_is_shared_by_all_and_says_so() -> None:
    result = hwsim.simulate("llama3_70b", "h100-sxm*4", phase="decode", context=1024)
    assert result.totals.ways == 4 and any("tensor parallel: 4 GPUs" in n and "80 GiB" in n for n in result.notes)
    small = hwsim.simulate("llama3_8b", "h100-sxm*4", batch=4, phase="decode", context=1024)
    assert small.totals.ways == 1 and any("data parallel" in n for n in small.notes)
    both = hwsim.simulate("llama3_8b", "h100-sxm*4", batch=4, phase="decode", context=1024, parallel="tensor=2")
    assert (both.totals.ways, both.groups, both.totals.share) == (2, 2, 2)


def test_layouts_that_cannot_be_are_refused() -> None:
    for target, parallel, words in (
        ("h100-sxm*4", "tensor=3", "tensor=3 does not divide them"),
        ("h100-sxm*4", "tensor=2,data=4", "does not divide|does not say"),
        ("h100-sxm*4", "tensors", "did you mean tensor"),
        ("h100-sxm*4", "data,tensor", "does not say"),
        ("h100-sxm*16", "tensor", "join 8 devices"),
        ("tpu-v4*4", "tensor", "for GPUs only"),
        ("h100-sxm*4", "", "write data, tensor"),
    ):
        with pytest.raises(HwsimError, match=words) as caught:
            hwsim.simulate("llama3_8b", target, parallel=parallel)
        assert "\n" not in str(caught.value)


# -- what fits, and how long it all takes ------------------------------------------------------------------------------


def test_what_would_fit_is_what_fits() -> None:
    at = {"phase": "decode", "precision": "w4a16"}
    result = hwsim.simulate("llama3_8b", "l4", context=2000, **at)
    memory = result.memory
    assert memory is not None and memory.need <= memory.capacity
    assert memory.largest_batch == hwsim.largest_batch("llama3_8b", "l4", context=2000, **at)
    assert memory.longest_context == hwsim.longest_context("llama3_8b", "l4", **at)
    with pytest.raises(HwsimError, match=f"batch {memory.largest_batch} per program or a context of"):
        hwsim.simulate("llama3_8b", "l4", batch=memory.largest_batch + 1, context=2000, **at)


def test_no_context_is_longer_than_the_models_own() -> None:
    at = {"phase": "decode", "precision": "fp16"}
    short = hwsim.simulate("llama2_7b", BIG, context=4095, **at)
    assert short.memory is not None and short.memory.longest_context == 4095 == hwsim.longest_context(
        "llama2_7b", BIG, **at
    )
    assert not any("made for" in note for note in short.notes)
    long = hwsim.simulate("llama2_7b", BIG, context=4096, **at)  # the token being made is the 4097th
    assert "4097 tokens are more than the 4096 this model was made for" in long.notes[0]
    read = hwsim.simulate("gpt2", BIG, phase="prefill", context=1025)
    assert "1025 tokens are more than the 1024" in read.notes[0] and read.memory is not None
    assert read.memory.longest_context == 1024 == hwsim.longest_context("gpt2", BIG)
    made = hwsim.generate("gpt2", "a2", prompt=1000, tokens=26)
    assert any("more than the 1024" in note for note in made.to_dict()["notes"])
    # Without a statement, and in encoders, there is no end.
    memory = hwsim.simulate("bert_base", BIG, shapes={"S": 5000}).memory
    assert memory is not None and memory.own == 0


def test_nothing_fits_where_the_weights_do_not() -> None:
    assert hwsim.largest_batch("gpt3_175b", "l4", phase="decode", context=16) == 0
    assert hwsim.longest_context("llama3_70b", "h100-sxm", phase="decode") == 0
    with pytest.raises(HwsimError, match="no language model"):
        hwsim.longest_context("resnet50", "l4")


def test_a_shared_model_would_fit_and_the_refusal_says_so() -> None:
    at = {"batch": 40, "phase": "decode", "context": 1200}
    with pytest.raises(HwsimError, match="it would with --parallel tensor"):
        hwsim.simulate("llama2_13b", "a100-sxm4-40gb*2", parallel="data", **at)
    assert hwsim.simulate("llama2_13b", "a100-sxm4-40gb*2", parallel="tensor", **at).totals.ways == 2


def test_generation_is_a_prefill_and_the_sum_of_its_steps() -> None:
    short = hwsim.generate("llama3.2_1b", "l4", prompt=100, tokens=9, precision="bf16")
    steps = [
        hwsim.simulate("llama3.2_1b", "l4", phase="decode", context=100 + i, precision="bf16").latency_s
        for i in range(8)
    ]
    assert short.decode_s == pytest.approx(sum(steps), rel=2 * 0.004)
    first = hwsim.simulate("llama3.2_1b", "l4", phase="prefill", context=100, precision="bf16").latency_s
    assert short.ttft_s == first and short.total_s == pytest.approx(first + short.decode_s)
    assert short.tokens_per_s == pytest.approx(9 / short.total_s) and short.tpot_s == pytest.approx(short.decode_s / 8)
    one = hwsim.generate("llama3.2_1b", "l4", prompt=100, tokens=1, precision="bf16")
    assert one.total_s == first and one.tpot_s == 0.0
    longer = hwsim.generate("llama3.2_1b", "l4", prompt=100, tokens=900, precision="bf16", batch=16)
    assert longer.tpot_s > short.tpot_s and len(longer.steps) < 40 and "decode steps simulated" in longer.note


def test_generation_refuses_what_does_not_fit_at_the_end() -> None:
    for wrong in (
        {"prompt": 0, "tokens": 5},
        {"prompt": 5, "tokens": 0},
        {"prompt": 5, "tokens": 5, "phase": "decode"},
    ):
        with pytest.raises(HwsimError):
            hwsim.generate("llama3_8b", "l4", **wrong)
    with pytest.raises(HwsimError, match="does not fit"):
        hwsim.generate("llama3_8b", "l4", prompt=1000, tokens=1000, batch=64)
    with pytest.raises(HwsimError, match="generates no tokens"):
        hwsim.generate("bert_base", "l4", prompt=10, tokens=10)


def test_the_command_line_answers_in_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    from hwsim.cli import main

    words = ["run", "llama3_8b", "--on", "h100-sxm", "--phase", "decode", "--context", "4096", "--batch", "32"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "tokens/s for each of 32" in text and "key/value cache 16.0 GiB" in text and "Fits     batch 128" in text
    assert main(["run", "llama3_8b", "--on", "h100-sxm", "--prompt", "512", "--generate", "128"]) == 0
    text = capsys.readouterr().out
    assert "to read 512 tokens" in text and "a token on average" in text and "In all" in text
    for wrong in (["--prompt", "5"], ["--generate", "5", "--phase", "decode"], ["--generate", "5", "--csv", "-"]):
        assert main(["run", "llama3_8b", "--on", "h100-sxm", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_widening_is_told_where_something_is_widened() -> None:
    at = {"phase": "decode", "context": 256, "batch": 4}
    spent = {
        p: sum(k["widening_s"] for k in hwsim.simulate("llama3_8b", "a100-sxm4-80gb", precision=p, **at).kernels)
        for p in ("bf16", "w8a16", "w4a16", "bf16kv8", "int8")
    }
    assert spent["bf16"] == spent["int8"] == 0.0 < spent["bf16kv8"] < spent["w8a16"] == spent["w4a16"]


def test_narrow_weights_run_with_fp16_where_there_is_no_bf16() -> None:
    result = hwsim.simulate("llama3.2_1b", "t4", phase="decode", context=64, precision="w4a16")
    assert any("t4 has no bf16" in note for note in result.notes)
    assert {k.multiply.format for k in result.plan.kernels if k.multiply} == {"fp16"}
    with pytest.raises(HwsimError, match="does not multiply bf16"):
        hwsim.simulate("llama3.2_1b", "t4", phase="decode", context=64, precision="bf16")


def test_2_4_weights_of_four_bits_gain_less_than_their_bytes() -> None:
    at = {"phase": "decode", "context": 100, "precision": "w4a16g64"}
    dense, sparse = (hwsim.simulate("llama3_8b", "a100-sxm4-80gb", sparsity=s, **at) for s in (None, "2:4"))
    assert 1.05 < dense.latency_s / sparse.latency_s < dense.dram_bytes / sparse.dram_bytes < 1.5
    hopper = hwsim.simulate("llama3_8b", "h100-sxm", sparsity="2:4", **at)
    assert not any(k["sparse_chosen"] for k in hopper.kernels)
