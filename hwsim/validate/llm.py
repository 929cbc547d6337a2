"""Suite ``llm``: language models on GPUs, tokens in steady service and one stream alone.

Two tables ship with hwsim. ``measured_llm_served`` (rows of ai-dynamo/aiconfigurator, Apache-2.0; made by
``studies/llm/share_served.py``) has servers of TensorRT-LLM, vLLM and SGLang that hold a number of requests at once, every
one with the same lengths; ``measured_networks`` has single streams of torchao, and MLPerf's Offline runs of Llama 2 70B.

What is scored is the time of a whole answer over its tokens: a decode step of all requests at their mean length, and the
reading of one prompt for each of them, since in the time a request makes its tokens every one is replaced once. Whether that
reading falls on first tokens or between others is up to a scheduler, and rows do not say. Servers take nine tenths of the memory
(the default of all three); requests whose caches that does not hold wait for the others. Rules that
take rows out (``llm_rules.csv``) look at the row, or at the chip's peaks; what rows do not say of how they were served is in
``llm_sources.csv``. No constant here is fitted to these rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from hwsim.errors import FitError, HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import SHIPPED, find, table

MACHINES = {"a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm", "h200_sxm": "h200", "b200_sxm": "b200"}
TRACES = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama3_8b", "nvidia/Llama-3.1-8B-Instruct-FP8": "llama3_8b",
    "meta-llama/Llama-3.1-70B": "llama3_70b", "Qwen/Qwen3-32B": "qwen3_32b", "nvidia/Qwen3-32B-NVFP4": "qwen3_32b",
}  # fmt: skip
# What multiplies the linear layers, and bytes of a weight, for the rule on peaks.
LEAST = {"": ("bf16", 2.0), "fp8": ("e4m3", 1.0), "fp8_block": ("e4m3", 1.0), "nvfp4": ("e2m1", 0.5)}
# torchao's own rows: precision and 2:4 by its words. A short prompt and 200 tokens are its script's defaults.
STREAMS = {
    ("bf16", "dense"): ("bf16", None), ("int8 w-only", "dense"): ("w8a16", None),
    ("int4 w-only g64", "dense"): ("w4a16g64", None), ("int4 w-only g64", "2:4 (sparse-marlin)"): ("w4a16g64", "2:4"),
}  # fmt: skip
STREAM_PROMPT, STREAM_TOKENS = 8, 200
# MLPerf v4.1, closed, NVIDIA's code (mlcommons/inference_results_v4.1, closed/NVIDIA/configs/llama2-70b/Offline): pairs of GPUs
# share the model in fp8 and hold so many requests; answers have 274 tokens on average (tokens over samples a second).
OFFLINE = {"DGX-H100_H100-SXM": ("h100-sxm", 896), "H100-NVL-94GB": ("h100-nvl", 1300)}
OFFLINE_WAYS, OFFLINE_TOKENS = 2, 274
MEMORY_SHARE = 0.9
_HELD = re.compile(r"silicon_concurrency=(\d+)")
HERE = Path(__file__).resolve().parent


def cases(folder: Path) -> list[Case]:
    """Return the rows of both tables: of ``folder``, or those that ship with hwsim where it has none."""
    served, streams = (
        find(folder, name) or find(SHIPPED, name) for name in ("measured_llm_served", "measured_networks")
    )
    out = [_served(row) for row in table(served)] if served else []
    for row in table(streams) if streams else ():
        out += [_stream(row)] if row["group"] == "torchao" else []
        out += [_offline(row)] if row["group"] == "mlperf-v4.1" and row["model"].startswith("llama2-70b") else []
    return _whole_sources([case for case in out if case is not None])


def _whole_sources(found: list[Case]) -> list[Case]:
    """A source some of whose rows cannot be what it says is not to be trusted in the others."""
    reason = _reason("peaks")
    bad = {(c.question.get("source"), c.group, c.device) for c in found if c.excluded == reason}
    return [
        replace(c, excluded=reason) if not c.excluded and (c.question.get("source"), c.group, c.device) in bad else c
        for c in found
    ]


@lru_cache(maxsize=2)
def _lines(name: str) -> tuple[dict[str, str], ...]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(line for line in file if not line.startswith("#")))


def rules() -> tuple[dict[str, str], ...]:
    """Return the rules that leave rows out."""
    return _lines("llm_rules.csv")


def _source(row: dict[str, str], words: str) -> dict[str, str] | None:
    """How the source of a row served a quantisation; None where that is not known."""
    for line in _lines("llm_sources.csv"):
        if re.fullmatch(line["matches"], row["silicon_data_source"]) and re.fullmatch(line["quantisation"], words):
            return line
    return None


def _matches(rule: dict[str, str], row: dict[str, str]) -> bool:
    if rule["matches"] == "computed":
        return False
    return re.fullmatch(rule["matches"], row[rule["field"]], re.DOTALL) is not None


def _reason(rule: str) -> str:
    return next(r["reason"] for r in rules() if r["rule"] == rule)


def _served(row: dict[str, str]) -> Case | None:
    trace, machine = TRACES.get(row["model_path"]), MACHINES.get(row["system"])
    if trace is None or machine is None or row["mode"] != "agg":
        return None  # other models and machines have no trace or no file; split prefill and decode are two fleets
    words = row["gemm_quant_mode"] or row["precision"]
    ways, held = int(float(row["tp_size"])), int(float(row["batch_size"]))
    source = _source(row, words)
    mean = float(source["lengths"]) if source else 1.0
    prompt, made = (round(mean * int(row[name])) for name in ("isl", "osl"))
    measured = (float(row["silicon_ttft_ms"]) + (made - 1) * float(row["silicon_tpot_ms"])) / 1e3 / made
    stated = _HELD.search(row["silicon_data_source"])
    excluded = next((r["reason"] for r in rules() if _matches(r, row)), "")
    if not excluded and source is None:
        excluded = _reason("other-formats")
    elif not excluded and (stated is None or int(stated[1]) != held):
        excluded = _reason("held")
    elif not excluded and measured < _least_s(trace, machine, words, ways, held, prompt, made):
        excluded = _reason("peaks")
    precision = source["precision"] if source else ""
    file = row["silicon_data_source"].split(";")[0]
    question = {
        "trace": trace, "batch": held, "prompt": prompt, "tokens": made, "precision": precision, "source": file,
    }  # fmt: skip
    target = f"{machine}*{ways}" if ways > 1 else machine
    case = Case(
        "llm", int(row["row"]), row["system"], target, "gpu", f"{trace} {row['isl']}+{row['osl']} b{held}", words or "bf16",
        measured,
        group=row["backend"], size=f"{ways} GPU{'s' if ways > 1 else ''}", excluded=excluded, question=question,
    )  # fmt: skip
    return case


@lru_cache(maxsize=4096)
def _least_s(trace: str, machine: str, words: str, ways: int, held: int, prompt: int, made: int) -> float:
    """Seconds for an output token that the chips' peaks allow: arithmetic of all prompts, then weights and caches read."""
    net, acc = load_network(trace), load_accelerator(machine)
    token = net.bind(N=1, S=1, P=0)
    ops = 2 * token.macs * held * prompt / made
    weights = token.params * LEAST[words][1]
    cache = net.bind(N=1, S=1, P=prompt).kv_cache_bytes * held
    peak = acc.peak_ops_per_s(LEAST[words][0])
    return (ops / peak + (weights + cache) / acc.dram.bandwidth_bytes_per_s) / ways


def _stream(row: dict[str, str]) -> Case | None:
    found = STREAMS.get((row["precision"], row["sparsity"]))
    if row["metric"] != "throughput_tokps" or found is None:
        return None
    precision, sparsity = found
    question = {
        "trace": "llama3_8b", "batch": 1, "prompt": STREAM_PROMPT, "tokens": STREAM_TOKENS, "precision": precision,
        "sparsity": sparsity,
    }  # fmt: skip
    what = f"llama3_8b stream{' 2:4' if sparsity else ''}"
    return Case(
        "llm", int(row["row"]), row["device_variant"], "a100-sxm4-80gb", "gpu", what, precision, 1 / float(row["value"]),
        group="torchao", size="1 GPU", question=question,
    )  # fmt: skip


def _offline(row: dict[str, str]) -> Case | None:
    found = next((known for name, known in OFFLINE.items() if name in row["device_variant"]), None)
    if found is None or row["metric"] != "throughput_ips":
        return None
    machine, held = found
    question = {
        "trace": "llama2_70b", "batch": held, "prompt": OFFLINE_TOKENS, "tokens": OFFLINE_TOKENS,
        "precision": "fp8,lm_head=fp16",
    }  # fmt: skip
    measured = held / (float(row["value"]) * OFFLINE_WAYS * OFFLINE_TOKENS)
    return Case(
        "llm", int(row["row"]), row["device_variant"], f"{machine}*{OFFLINE_WAYS}", "gpu", f"llama2_70b OpenOrca b{held}", "fp8",
        measured, group="mlperf", size="2 GPUs", excluded=_reason("lengths"), question=question,
    )  # fmt: skip


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's answer to each case: seconds of an answer for each of its tokens."""
    return [_outcome(case) for case in chosen]


def _outcome(case: Case) -> Outcome:
    q = case.question
    if not q["precision"]:
        return Outcome(case, refused=case.excluded)
    common = (q["trace"], case.target, q["precision"], q.get("sparsity"))
    context, held = q["prompt"] + q["tokens"] // 2, q["batch"]
    try:
        running = held
        try:
            step = _run(*common, "decode", context, held)
        except FitError:
            step = _run(*common, "decode", context, 1)
            running = max(1, min(held, step[2]))
            step = _run(*common, "decode", context, running)
        if step[2] < running:
            running = max(1, step[2])
            step = _run(*common, "decode", context, running)
        prompt = _run(*common, "prefill", q["prompt"], 1)
    except HwsimError as error:
        return Outcome(case, refused=str(error))
    turns, read = held / running, held / q["tokens"]
    return Outcome(case, *(turns * a + read * b for a, b in zip(step[:2], prompt[:2], strict=True)))


@lru_cache(maxsize=4096)
def _run(
    trace: str, target: str, precision: str, sparsity: str | None, phase: str, context: int, batch: int
) -> tuple[float, float, int]:
    """Seconds of a run, of its roofline, and how many such sequences a server's share of the memory holds."""
    from hwsim.simulation import simulate

    result = simulate(
        trace,
        target,
        batch=batch,
        phase=phase,
        context=context,
        precision=precision,
        sparsity=sparsity,
        parallel="tensor",
    )
    memory = result.memory
    assert memory is not None
    room = MEMORY_SHARE * memory.capacity - memory.weights - memory.workspace - memory.runtime
    each = max(1, memory.activations + memory.cache) / memory.batch
    return result.latency_s, result.bound_s, int(room / each)
