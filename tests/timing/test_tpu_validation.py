"""Measured TPU kernels: the bars of accuracy, on rows no constant was fitted on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import HwsimError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies" / "tpu_timing"))

import reference_rows as rows
import retime
import validate

REFERENCE = Path(os.environ.get("HWSIM_REFERENCE", str(rows.DEFAULT)))
measured_files = pytest.mark.skipif(
    not (REFERENCE / rows.V4_KERNELS).is_file(), reason=f"{REFERENCE} has no {rows.V4_KERNELS} (not redistributable)"
)


@pytest.fixture(scope="module")
def v3() -> list[validate.Workload]:
    return validate.v3_workloads()


@pytest.fixture(scope="module")
def v4() -> validate.Products:
    return validate.products(REFERENCE)


@pytest.fixture(scope="module")
def vector() -> list[validate.Score]:
    return validate.vector_scores(REFERENCE)


def test_tpu_v3_products_and_convolutions(v3: list[validate.Workload]) -> None:
    assert sum(w.kind in ("gemm", "conv") for w in v3) == 7
    assert validate.v3_mean_pct(v3) <= 12
    assert all(abs(w.error_pct) <= 20 for w in v3 if w.kind in ("gemm", "conv"))


def test_tpu_v3_softmax(v3: list[validate.Workload]) -> None:
    """Three reads and one write of fp32, nothing of it fitted."""
    assert validate.v3_mean_pct(v3, ("softmax",)) <= 12


def test_constants_are_inside_their_physical_range() -> None:
    for name, entry in retime.shipped("tpu-v4").table.items():
        assert entry.low <= entry.value <= entry.high, name


def test_a_missing_reference_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match="--reference") as caught:
        rows.present(tmp_path)
    assert "\n" not in str(caught.value)


@measured_files
def test_tpu_v4_products_on_the_held_out_half(v4: validate.Products) -> None:
    held = v4.held
    assert held.sum() == 497
    found = validate.score("", "", "", v4.models["hwsim"][held], v4.measured[held])
    assert found.median_pct <= 5.5
    assert found.mean_pct <= 7.5
    assert found.p95_pct <= 20
    for index, label in enumerate(validate.CLASSES):
        use = held & (v4.size_class == index)
        error = np.abs(v4.models["hwsim"][use] / v4.measured[use] - 1)
        assert np.median(error) <= 0.08, label


@measured_files
@pytest.mark.parametrize("other", ["linear fit, eight constants", "roofline + 1 us", "SCALE-Sim TPU, published fit"])
def test_tpu_v4_products_beat_models_without_a_schedule(v4: validate.Products, other: str) -> None:
    held = v4.held
    ours, theirs = (np.abs(v4.models[m] / v4.measured - 1)[held] for m in ("hwsim", other))
    assert ours.mean() < theirs.mean()
    assert np.median(ours) < np.median(theirs)


@measured_files
@pytest.mark.parametrize("kernels, bar", [("add > 2e5 elements", 12), ("layer norm", 12), ("HBM copy", 10)])
def test_tpu_v4_vector_kernels_and_copies(vector: list[validate.Score], kernels: str, bar: float) -> None:
    scores = [s for s in vector if s.kernels == kernels and s.rows == "held out" and "alone" not in s.model]
    assert len(scores) == 1
    assert scores[0].median_pct <= bar
