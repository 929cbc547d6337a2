"""The engine against published runs of MLPerf's Server scenario: what docs/serving.md and the study say holds."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

STUDY = Path(__file__).resolve().parents[2] / "studies" / "mlperf_server"
sys.path.insert(0, str(STUDY))

import run as study  # noqa: E402


def test_one_batch_at_a_time_waits_as_published() -> None:
    """Two A2 and one batch at a time: the objective is the limit, mean and p99 within 5 %."""
    (row,) = [r for r in study.rows() if r["system"] == "A2x2_TRT" and r["network"] == "ssd-resnet34"]
    mean, _, _, p99 = study.predicted(row, "shared")
    assert mean == pytest.approx(float(row["mean_ms"]), rel=0.05)
    assert p99 == pytest.approx(float(row["p99_ms"]), rel=0.05)
    assert study.highest(row, "shared") == pytest.approx(
        float(row["server_per_s"]) / float(row["offline_per_s"]), rel=0.06
    )


def test_streams_that_share_explain_latencies_that_one_after_the_other_does_not() -> None:
    errors: dict[str, list[float]] = {"one": [], "shared": []}
    for row in study.rows():
        if row["network"] == "ssd-resnet34" and row["streams"] == "2" and row["round"] == "v1.1":
            for reading in errors:
                mean = float(study.latencies_ms(row, reading, float(row["server_per_s"]), 20_000).mean())
                errors[reading].append(abs(mean / float(row["mean_ms"]) - 1))
    assert len(errors["one"]) == 7
    assert float(np.median(errors["shared"])) < 0.15 < float(np.median(errors["one"]))


def test_the_scores_are_of_these_rows() -> None:
    with (STUDY / "scores.csv").open(encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    assert [(s["round"], s["system"], s["network"]) for s in scores] == [
        (r["round"], r["system"], r["network"]) for r in study.rows()
    ]
    readme = (STUDY / "README.md").read_text(encoding="utf-8")
    assert study.table(scores) in readme
