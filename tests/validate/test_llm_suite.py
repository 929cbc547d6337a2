"""Suite ``llm``: rows of servers and single streams become questions, rules look at rows, answers add prompts to steps."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import hwsim
from hwsim.validate import validate
from hwsim.validate.llm import cases, predict, rules

COLUMNS = (
    "silicon_data_source", "backend", "model_path", "system", "precision", "mode", "isl", "osl", "gemm_quant_mode", "batch_size",
    "tp_size", "pp_size", "silicon_ttft_ms",
    "silicon_tpot_ms",
)  # fmt: skip
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def folder_with(tmp_path: Path, *rows: dict[str, object]) -> Path:
    """A table of invented rows in the form of the real one."""
    with (tmp_path / "measured_llm_served.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, COLUMNS)
        out.writeheader()
        out.writerows(rows)
    return tmp_path


def row(**more: object) -> dict[str, object]:
    given = {
        "silicon_data_source": "silicon_concurrency=4", "backend": "server", "model_path": LLAMA, "system": "h100_sxm",
        "precision": "", "mode": "agg", "isl": 512, "osl": 64, "gemm_quant_mode": "", "batch_size": 4, "tp_size": 2,
        "pp_size": 1, "silicon_ttft_ms": 100.0, "silicon_tpot_ms": 5.0,
    }  # fmt: skip
    return {**given, **more}


def test_a_served_row_is_a_step_of_all_and_its_share_of_the_others_prompts(tmp_path: Path) -> None:
    found = [case for case in cases(folder_with(tmp_path, row())) if case.group == "server"]
    (case,) = found
    assert case.target == "h100-sxm*2" and not case.excluded
    assert case.measured == pytest.approx((0.1 + 63 * 5e-3) / 64)  # first token and the others
    (outcome,) = predict(found)
    at = {"precision": "bf16", "parallel": "tensor"}
    step = hwsim.simulate("llama3_8b", "h100-sxm*2", batch=4, phase="decode", context=512 + 32, **at)
    prompt = hwsim.simulate("llama3_8b", "h100-sxm*2", phase="prefill", context=512, **at)
    assert outcome.predicted == pytest.approx(step.latency_s + 4 / 64 * prompt.latency_s)
    assert 0 < outcome.roofline < outcome.predicted


def test_rules_look_at_the_row(tmp_path: Path) -> None:
    rows = (
        row(gemm_quant_mode="int4_wo"),
        row(pp_size=2),
        row(silicon_data_source="elsewhere"),
        row(silicon_data_source="silicon_concurrency=8"),
        # The weights alone take longer to read; the other row of that source is not trusted either.
        row(
            silicon_data_source="silicon_concurrency=4; fast", silicon_tpot_ms=0.5, silicon_ttft_ms=1, system="h200_sxm"
        ),
        row(silicon_data_source="silicon_concurrency=4; fast", isl=600, system="h200_sxm"),
        row(),
        row(mode="disagg"),
        row(model_path="somebody/else"),
    )
    reasons = {rule["rule"]: rule["reason"] for rule in rules()}
    why = [case.excluded for case in cases(folder_with(tmp_path, *rows)) if case.group == "server"]
    assert why == [reasons[name] for name in ("other-formats", "pipelined", "held", "held", "peaks", "peaks")] + [""]


def test_single_streams_are_torchaos(tmp_path: Path) -> None:
    header = "group,metric,precision,sparsity,value,device_variant"
    images = "torchao,throughput_ips,bf16,dense,20,A100"  # no language model
    lines = [header, "torchao,throughput_tokps,int4 w-only g64,2:4 (sparse-marlin),200,A100-80GB", images]
    (tmp_path / "measured_networks.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (case,) = [case for case in cases(tmp_path) if case.group == "torchao"]
    assert case.measured == 1 / 200 and case.question["sparsity"] == "2:4" and case.precision == "w4a16g64"
    (outcome,) = predict([case])
    assert outcome.predicted > outcome.roofline > 0


def test_shipped_rows_are_enough(tmp_path: Path) -> None:
    found = cases(tmp_path)  # a folder without tables: those of the package
    counted = [case for case in found if not case.excluded]
    assert len(counted) > 500 and {case.group for case in counted} == {"trtllm", "vllm", "sglang", "torchao"}
    assert validate("llm", devices=["a100-sxm4-80gb"]).score().within_30_pct > 70
