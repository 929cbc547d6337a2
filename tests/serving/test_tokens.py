"""Tokens of a language model, as called and as typed: against single simulations, by hand, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli import main
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.plan.options import RunOptions
from hwsim.serving.token_service import TokenService, prompt_nodes

MODEL, MACHINE = "llama3.2_1b", "tpu-v5e"
QUICK: dict[str, Any] = {"precision": "bf16", "requests": 300, "seed": 2}


def simulate(phase: str, context: int, batch: int = 1) -> Any:
    return hwsim.simulate(MODEL, MACHINE, phase=phase, context=context, batch=batch, precision="bf16")


def test_a_lone_request_takes_its_prefill_and_its_decodes() -> None:
    seen = hwsim.serve(MODEL, MACHINE, prompt=512, output=9, clients=1, precision="bf16", requests=3)
    first = simulate("prefill", 512).latency_s
    others = sum(simulate("decode", 512 + n).latency_s for n in range(8))
    assert seen.ttft.mean_s == pytest.approx(first, abs=2e-9)
    assert seen.tpot.mean_s == pytest.approx(others / 8, rel=1e-4)
    assert seen.latency.mean_s == pytest.approx(first + others, rel=1e-4)
    joules = simulate("prefill", 512).energy_j + sum(simulate("decode", 512 + n).energy_j for n in range(8))
    assert seen.energy_j == pytest.approx(3 * joules, rel=1e-3)


def test_straight_lines_between_simulated_lengths_are_close_to_simulations() -> None:
    """Off the nodes: decode within 1 %, prefill within 4 %, for a batch and a length nobody asked for."""
    service = TokenService(load_network(MODEL), load_accelerator(MACHINE), RunOptions(precision="bf16"))
    for batch in (1, 8, 32):
        curve = service.decode(batch, 4096, 10**9).curve
        for context in (64, 300, 777, 1500, 3000):
            exact = simulate("decode", context, batch).latency_s
            assert curve.at(batch * context) / 1e9 == pytest.approx(exact, rel=0.01), (batch, context)
    curve = service.prefill(1, prompt_nodes(64, 2048, range(64, 2049))).curve
    for context in (80, 150, 300, 610, 1200, 1800):
        assert curve.at(context) / 1e9 == pytest.approx(simulate("prefill", context).latency_s, rel=0.04), context


def test_key_value_memory_is_what_weights_and_activations_leave() -> None:
    seen = hwsim.serve(MODEL, MACHINE, prompt=512, output=8, rate="1/s", **QUICK)
    (group,) = seen.to_dict()["groups"]
    plan = simulate("decode", 1023).plan
    assert group["kv_bytes_per_token"] == plan.cache_bytes / 1024 == 32768
    room = 16 * 2**30 - plan.weight_bytes
    assert 0.9 * room < group["kv_tokens"] * 32768 < room


def test_many_requests_share_an_iteration_and_memory_is_the_limit() -> None:
    few = hwsim.serve(MODEL, MACHINE, prompt=512, output=64, scenario="offline", max_batch=4, **QUICK)
    many = hwsim.serve(MODEL, MACHINE, prompt=512, output=64, scenario="offline", max_batch=64, **QUICK)
    assert few.mean_batch == pytest.approx(4, rel=0.05) and many.mean_batch > 40
    assert many.made_per_s > 2 * few.made_per_s
    assert many.made == 300 * 64 and many.outcome.peak_blocks[0] <= 64 * 36


def test_the_objectives_are_of_every_request() -> None:
    seen = hwsim.serve(
        MODEL, MACHINE, prompt="256±80%", output="64±80%", rate="20/s", ttft="15ms", tpot="7ms", warmup=0.0, **QUICK
    )
    table = seen.requests
    first = table.first_s - table.asked_s
    after = (table.done_s - table.first_s) / np.maximum(1, table.output - 1)
    good = (first <= 15e-3 + 1e-9) & (after <= 7e-3 + 1e-9)
    assert 0 < int(good.sum()) < 300 and seen.in_time == pytest.approx(good.mean())
    assert seen.ttft.percentiles_s[90.0] == pytest.approx(np.sort(first)[269], abs=1e-9)
    assert seen.verdict == "FAIL"


def test_the_search_finds_the_highest_rate() -> None:
    options: dict[str, Any] = {"prompt": 256, "output": 32, "ttft": "60ms", "tpot": "12ms", **QUICK}
    found = hwsim.serve(MODEL, MACHINE, **options)
    passes, fails = found.searched["passes"], found.searched["fails"]
    assert found.verdict == "PASS" and fails <= passes * 1.0051
    assert hwsim.serve(MODEL, MACHINE, rate=passes, **options).verdict == "PASS"
    assert hwsim.serve(MODEL, MACHINE, rate=fails, **options).verdict == "FAIL"


def test_the_smallest_fleet_and_its_neighbour() -> None:
    options: dict[str, Any] = {"prompt": 256, "output": 64, "ttft": "60ms", "tpot": "12ms", "rate": "120/s", **QUICK}
    found = hwsim.serve(MODEL, MACHINE, machines="search", **options)
    count = int(found.searched["passes"])
    assert count > 1 and found.machines == count and found.verdict == "PASS"
    assert hwsim.serve(MODEL, MACHINE, machines=count - 1, **options).verdict == "FAIL"


def test_money_is_per_million_tokens_in_time() -> None:
    seen = hwsim.serve(MODEL, MACHINE, prompt=256, output=32, rate="10/s", **QUICK)
    assert seen.cost is not None and seen.cost.rent == pytest.approx(1.20 / 3600 / seen.made_per_s * 1e6)
    assert seen.made_per_s == pytest.approx(32 * 10, rel=0.15)


def test_the_page_as_typed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = "".join(f"2023-11-16 18:17:{s:02d}.5,{100 + 7 * s},{5 + s}\n" for s in range(60))
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    code = main(
        [
            "serve",
            MODEL,
            "--on",
            MACHINE,
            "--precision",
            "bf16",
            "--trace",
            str(file),
            "--ttft",
            "50ms",
            "--tpot",
            "20ms",
        ]
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 120
    for word in ("Verdict   PASS", "To first", "Per token", "tokens/s written", "a million tokens in time",
                 "60 recorded requests", "key/value memory", "straight lines", "1.20 USD/h"):  # fmt: skip
        assert word in out, word
    code = main(["serve", MODEL, "--on", MACHINE, "--precision", "bf16", "--trace", str(file), "--json", "-"])
    whole = json.loads(capsys.readouterr().out)
    assert code == 0 and whole["requests"] == 60 and whole["ttft"]["p99_s"] > whole["ttft"]["p50_s"] > 0


FIVE = (MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "5", "--output", "5")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("resnet50", "--on", MACHINE, "--rate", "1/s", "--prompt", "5", "--output", "5"), "keeps no key/value cache"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "5"), "give the lengths of prompts and outputs"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "x", "--output", "5"), "write tokens as 512"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "0", "--output", "5"), "must be 1 to"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "5±9999%", "--output", "5"), "spread by at most"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "1000000", "--output", "5"), "does not fit"),
        ((MODEL, "--on", MACHINE, "--rate", "1/s", "--prompt", "5", "--output", "600000"), "are left beside the weights"),
        ((*FIVE, "--ttft", "5"), "ttft: '5' is not a time"),
        ((*FIVE, "--reserve", "all"), "unknown reserve"),
        ((*FIVE, "--after", "1ms"), "is for networks in batches"),
        ((*FIVE, "--block", "0"), "block must be"),
        (("resnet50", "--on", MACHINE, "--rate", "1/s", "--ttft", "5ms"), "ttft: is of tokens"),
        ((f"{MODEL},gptj_6b", "--on", MACHINE, "--rate", "1/s", "--prompt", "5", "--output", "5"), "one language model"),
        ((MODEL, "--on", MACHINE, "--prompt", "5", "--output", "5"), "give a rate"),
    ],
)  # fmt: skip
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str) -> None:
    code = main(["serve", *argv, "--precision", "bf16", "--requests", "10"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err
