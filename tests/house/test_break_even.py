"""Money over the request rate, requests a month, and the Pareto front: by hand, and what must hold."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hwsim
from hwsim.cli import main
from hwsim.comparison.frontier import pareto
from hwsim.costs import Prices

TWO = ("tpu-v1", "tpu-v5e")
PRICES = Prices().with_price("tpu-v1=20000USD").with_price("tpu-v5e=1.2USD/h")


def compared(**options: Any) -> Any:
    return hwsim.compare("mobilenet_v2", TWO, prices=PRICES, precision="int8", suggest=0, **options)


def test_the_cheapest_at_every_rate_is_the_least_of_the_curves() -> None:
    found = compared(slo="20ms").break_even
    by_rate: dict[float, dict[str, float]] = {}
    for row in found.rows:
        by_rate.setdefault(row["rate_per_s"], {})[row["target"]] = row["usd_per_million"]
        assert row["usd_per_hour"] == pytest.approx(row["usd_per_million"] * row["rate_per_s"] * 3600e-6)
    assert len(found.segments) >= 2 and found.segments[0].target == "tpu-v1"
    for rate, told in by_rate.items():
        (leader,) = [
            s.target for s in found.segments if s.low_per_s <= rate and (s.high_per_s is None or rate < s.high_per_s)
        ]
        least = min(told.values())
        assert told[leader] <= least * 1.01, (rate, leader, told)


def test_at_the_change_both_cost_the_same_or_one_more_machine_is_needed() -> None:
    found = compared(slo="20ms").break_even
    change = found.segments[1].low_per_s
    for rate, cheaper in ((change * 0.99, found.segments[0].target), (change * 1.01, found.segments[1].target)):
        rows = compared(slo="20ms", rate=rate).rows
        assert rows[0]["target"] == cheaper or rows[0]["usd_per_million"] == pytest.approx(
            rows[1]["usd_per_million"], rel=0.05
        )


def test_curves_do_not_fall_below_the_busy_machine_nor_rise_with_the_rate_of_one_machine() -> None:
    rows = compared(slo="20ms").break_even.rows
    for _, group in itertools.groupby(rows, key=lambda row: row["target"]):
        alone = [row["usd_per_million"] for row in group if row["units"] == 1]
        assert len(alone) > 10 and all(a >= b - 1e-12 for a, b in itertools.pairwise(alone))


def test_a_point_of_a_curve_is_a_row_of_compare() -> None:
    found = compared(slo="20ms", batch=1).break_even
    row = next(r for r in found.rows if r["target"] == "tpu-v5e" and r["rate_per_s"] > 10)
    options: dict[str, Any] = {"batch": row["batch"], "rate": row["rate_per_s"], "precision": "int8", "prices": PRICES}
    (same,) = hwsim.compare("mobilenet_v2", "tpu-v5e", **options).rows
    assert (same["units"], same["usd_per_million"]) == (row["units"], pytest.approx(row["usd_per_million"]))


def test_who_is_not_in_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", "mobilenet_v2", "--on", "tpu-v1,tpu-v4i,tpu-v5e", "--price", "tpu-v1=500USD", "--slo", "140us"]
    argv += ["--precision", "int8", "--break-even"]
    code = main(argv)
    out = capsys.readouterr().out
    assert code == 0 and "no price is known of tpu-v4i" in out and "never in time: tpu-v1" in out
    assert "Cheapest by request rate" in out and max(map(len, out.splitlines())) <= 120


def test_the_curves_are_written_as_csv(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["compare", "mobilenet_v2", "--on", "tpu-v5e", "--slo", "20ms", "--break-even-csv", "-"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert code == 0 and len(rows) > 100 and {r["target"] for r in rows} == {"tpu-v5e"}


def test_requests_a_month_are_a_rate_in_the_hours_with_work(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", "mobilenet_v2", "--on", "tpu-v5e", "--requests-per-month", "30M", "--utilization", "50%"]
    assert main([*argv, "--json", "-"]) == 0
    whole = json.loads(capsys.readouterr().out)
    month_s = 365.25 / 12 * 86400
    assert whole["rate_per_s"] == pytest.approx(30e6 / month_s / 0.5)
    (row,) = whole["rows"]
    assert row["usd_per_month"] == pytest.approx(1.20 * month_s / 3600), "one chip, rented all month"
    assert main(argv) == 0 and "A month: tpu-v5e $87" in capsys.readouterr().out
    for wrong in ("0", "x", "3T", "-3", "1e99"):
        assert main(["compare", "mobilenet_v2", "--on", "tpu-v5e", f"--requests-per-month={wrong}"]) == 2
        assert "requests per month must be" in capsys.readouterr().err


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)), max_size=20))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int, int]]) -> None:
    rows: list[dict[str, Any]] = [{"v": p} for p in points]
    front = pareto(rows, *(lambda row, i=i: float(row["v"][i]) for i in range(3)))
    for row in rows:
        beaten = any(all(a <= b for a, b in zip(o["v"], row["v"], strict=True)) and o["v"] != row["v"] for o in rows)
        assert (row in front) is not beaten


def test_rows_say_whether_they_are_on_the_front() -> None:
    rows = compared(batch=[1, 8, 64]).rows
    front = [row for row in rows if row["pareto"]]
    assert front and len(front) < len(rows)
    costs = ("latency_s", "energy_per_inference_j", "usd_per_million")
    for row in rows:
        better = [o for o in rows if o is not row and all(o[c] <= row[c] for c in costs)]
        assert row["pareto"] is not bool(better)
