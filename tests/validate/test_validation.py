"""Scores against definitions, duplicates, the command as typed, hostile tables."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.validate import Case, Outcome, score, validate
from hwsim.validate.measured import SHIPPED, find, table
from hwsim.validate.run import merged
from hwsim.validate.score import rank_correlation


def case(measured: float = 1.0, what: str = "a", excluded: str = "", row: int = 1) -> Case:
    return Case("s", row, "d", "t", "systolic", what, "fp16", measured, excluded=excluded)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30))
def test_ranks_are_spearmans(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(p[i]) for p in pairs] for i in (0, 1))
    found = rank_correlation(a, b)
    if len(set(a)) < 2 or len(set(b)) < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(spearmanr(a, b).statistic))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_a_score_is_what_it_says(ratios: list[float]) -> None:
    found = score([Outcome(case(2.0), 2.0 * r, 1.0) for r in ratios] + [Outcome(case(), refused="no")])
    errors = np.abs(np.array(ratios) - 1) * 100
    assert (found.rows, found.refused) == (len(ratios), 1)
    assert found.median_pct == pytest.approx(float(np.median(errors)))
    assert found.mean_pct == pytest.approx(float(errors.mean()))
    assert found.within_30_pct == pytest.approx(float((errors <= 30 + 1e-9).mean() * 100), abs=100 / len(ratios))
    assert found.roofline_median_pct == pytest.approx(50)


def test_duplicates_count_once_with_their_median_and_never_mix_with_excluded_ones() -> None:
    rows = [case(1.0), case(5.0), case(2.0), case(9.0, excluded="why"), case(7.0, what="b")]
    assert [(c.measured, c.excluded) for c in merged(rows)] == [(2.0, ""), (9.0, "why"), (7.0, "")]


def test_shipped_tables_keep_their_sources() -> None:
    names = {"measured_gemm", "measured_conv", "measured_networks", "measured_jetson_networks"}
    for name in names:
        path = find(SHIPPED, name)
        assert path is not None
        assert all(row["source"] for row in table(path))
    withheld = {"gemm", "coral-micro", "deepedgebench", "torch2trt-3rd", "dle", "softserve"}
    networks = find(SHIPPED, "measured_networks")
    assert networks is not None and not withheld & {row["group"] for row in table(networks)}


def test_tpu_v3_meets_its_bar() -> None:
    found = validate("tpu-v3")
    products = [o for o in found.counted if o.case.size in ("gemm", "conv")]
    assert len(products) >= 7 and score(products).mean_pct < 12
    assert found.exclusions() == {"unstated shape": 1}


def test_the_command_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    assert main(["validate", "tpu-v3", "--by", "size", "--csv", str(out), "--figures", str(tmp_path / "f")]) == 0
    told = capsys.readouterr().out
    assert "gemm" in told and "left out by rule: unstated shape: 1 rows" in told
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 13 and float(rows[0]["predicted"]) > 0
    assert (tmp_path / "f" / "tpu-v3.png").stat().st_size > 10_000
    assert main(["validate", "tpu-v3", "--markdown", "-"]) == 0
    assert capsys.readouterr().out.startswith("| suite | target | precision |")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["validate", "tpu-v33"], "unknown suite 'tpu-v33'"),
        (["validate", "tpu-v3", "--device", "tpu"], "no measured rows of device 'tpu'"),
        (["validate", "--data", "/no/such"], "no folder of measurements"),
        (["validate", "tpu-v3", "--by", "colour"], "colour"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_hostile_tables_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "measured_tpu_v3_cycles.csv.gz"
    broken.write_bytes(gzip.compress(b"workload,tpu_v3_cycles\ngemm_2x2x2,10\n")[:-6])
    with pytest.raises(HwsimError, match="cannot be read"):
        validate("tpu-v3", data=tmp_path)
    for text in (
        b"\xff\xfe\x00",
        b"workload,tpu_v3_cycles\ngemm_axb,10\n",
        b"workload,tpu_v3_cycles\ngemm_2x2x2,x\n",
        b"a,b\n1,2\n",
    ):
        broken.unlink(missing_ok=True)
        (tmp_path / "measured_tpu_v3_cycles.csv").write_bytes(text)
        table.cache_clear()
        with pytest.raises(HwsimError):
            validate("tpu-v3", data=tmp_path)


def test_matrix_products_of_gpus_meet_their_bars() -> None:
    """All rows of the shipped table; a fifth of the (N, K) pairs at most was fitted on (studies/gpu_gemm)."""
    found = validate("gpu-gemm")
    assert found.exclusions()["host-timed"] == 12

    def bar(target: str, *formats: str) -> float:
        return score([o for o in found.counted if o.case.target == target and o.case.precision in formats]).median_pct

    assert bar("a100-sxm4-80gb", "bf16") < 6 and bar("h100-sxm", "fp32") < 12
    assert bar("l40s", "bf16") < 9 and bar("b200", "bf16") < 9
    for target in ("a100-pcie-40gb", "a100-pcie-80gb", "l4", "t4", "v100-pcie"):
        assert bar(target, "fp32") < 12
    whole = score(found.counted)
    assert whole.rows > 20_000 and whole.refused == 0 and whole.rank > 0.99
    assert whole.median_pct < whole.roofline_median_pct / 3


def test_networks_on_gpus_are_compared_by_rules() -> None:
    found = validate("gpu-networks", devices=["t4"])
    assert found.exclusions() and not any(o.refused for o in found.counted)
    told = score(found.counted)
    assert told.rows > 40 and told.rank > 0.95 and told.median_pct < told.roofline_median_pct / 2


def test_ratios_cancel_what_is_wrong_on_both() -> None:
    from hwsim.validate.case import Case, Outcome
    from hwsim.validate.ratios import FEWEST, ratios

    def outcome(target: str, what: int, measured: float, predicted: float, group: str = "g") -> Outcome:
        return Outcome(Case("s", what, target, target, "gpu", f"net {what}", "fp16", measured, group=group), predicted)

    both = [
        outcome(t, i, m * (i + 1), 1.3 * p * (i + 1)) for i in range(FEWEST) for t, m, p in (("a", 2, 2), ("b", 1, 0.8))
    ]
    (found,) = ratios(both)
    assert found.targets == ("a", "b") and found.rows == FEWEST
    assert found.measured == pytest.approx(2)
    assert found.bias == pytest.approx(1.25) and found.median_pct == pytest.approx(25)
    assert ratios(both[2:]) == []  # too few
    apart = [outcome("a", i, 1, 1, "g") for i in range(9)] + [outcome("b", i, 1, 1, "h") for i in range(9)]
    assert ratios(apart) == []  # other sources measure otherwise
