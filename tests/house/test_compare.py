"""compare, as a user types it: verdicts, costs by hand, refusals that do not end it, errors in one line."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.cli import main
from hwsim.comparison import Comparison, Demand, Point
from hwsim.costs import Prices, cost_of
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.report.compare_text import comparison_text

TWENTY = (
    "tpu-v1,tpu-v2,tpu-v2-core,tpu-v2-8,tpu-v3,tpu-v3-core,tpu-v3-8,tpu-v4,tpu-v4-8,tpu-v4-pod,tpu-v4i,tpu-v5e,"
    "tpu-v5e-8,tpu-v5p,tpu-v5p-8,tpu-v6e,tpu-v6e-8,tpu-v7,tpu-v7-8,scalesim-32x32-ws"
)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def compare(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, out, err = run(capsys, "compare", *argv, "--json", "-")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert isinstance(whole, dict)
    return whole


def test_the_page_says_who_passes_what_it_costs_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "compare", "resnet50", "--on", "tpu-v1,tpu-v4,tpu-v5e", "--slo", "20ms", "--rate", "3000/s"
    )
    assert (code, err) == (0, "")
    for word in ("objective 20 ms", "rate 3000/s", "PASS", "$/M inf", "1.20 USD/h", "Next to try", "no price is known of tpu-v1",
                 "tpu-v1 does not multiply the network's fp32", "ranked by"):  # fmt: skip
        assert word in out, word
    assert max(map(len, out.splitlines())) <= 120
    assert "\x1b" not in out


def test_wide_names_and_many_figures_stay_within_120_columns(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / ("a-machine-with-a-name-that-goes-on-and-on-and-on" * 2 + ".toml")
    file.write_text('name = "X"\nbased_on = "tpu-v4-pod"\n')
    code, out, _ = run(
        capsys, "compare", "resnet50", "--on", f"{file},tpu-v4-pod", "--slo", "20ms", "--rate", "90000000/s",
        "--price", f"{file.stem}=2000USD",
    )  # fmt: skip
    assert code == 0 and "…" in out
    assert max(map(len, out.splitlines())) <= 120


@settings(max_examples=12, deadline=None)
@given(
    network=st.sampled_from(["alexnet", "mobilenet_v2", "tpu1_mlp0"]),
    target=st.sampled_from(["tpu-v1", "tpu-v3", "tpu-v4*2", "tpu-v5e", "scalesim-32x32-ws"]),
    slo=st.floats(1e-4, 0.2),
    rate=st.none() | st.floats(1, 1e5),
)
def test_a_pass_is_a_run_that_meets_the_objective_and_twice_the_batch_is_none(
    network: str, target: str, slo: float, rate: float | None
) -> None:
    (row,) = hwsim.compare(network, target, slo=slo, rate=rate).rows
    precision = row["precision"] if row["precision_note"] else None

    def answer_s(batch: int) -> float:
        try:
            latency_s = hwsim.simulate(network, target, batch=batch, precision=precision).latency_s
        except HwsimError as error:  # a batch beyond the memory is never in time
            assert "does not fit" in str(error)
            return math.inf
        return latency_s + ((batch - 1) / rate if rate else 0.0)

    assert answer_s(row["batch"]) == pytest.approx(row["latency_s"] + row["fill_s"], rel=1e-12)
    if row["verdict"] == "FAIL":
        assert row["largest_batch"] is None and answer_s(1) > slo
        return
    assert answer_s(row["batch"]) <= slo and answer_s(row["largest_batch"]) <= slo
    assert answer_s(2 * row["largest_batch"]) > slo
    assert (
        row["units"] * row["throughput_per_s"] >= (rate or 0) > (row["units"] - 1) * row["throughput_per_s"] or not rate
    )


def test_costs_add_up_by_hand() -> None:
    """150/s on machines of 100/s, asked half the time: 2 machines, 75 inferences a paid second, 37.5 % busy."""
    acc = load_accelerator("tpu-v4i")
    prices = Prices().with_price("tpu-v4i=1.2USD/h").with_price("tpu-v4i=26298USD")  # 3 years: 1 USD an hour
    prices = prices.with_assumption("utilization", "50%").with_assumption("carbon_g_per_kwh", "400")
    cost = cost_of(prices, acc, throughput_per_s=100.0, energy_per_inference_j=0.5, idle_w=10.0, rate_per_s=150.0)
    assert (cost.units, cost.busy) == (2, 0.375)
    hours = 2 * 1e6 / 75 / 3600  # of machines, for a million
    kwh = (0.5 + 2 * 10.0 * 0.625 / 75) * 1.3 * 1e6 / 3.6e6  # idle machines and cooling included
    assert cost.rent == pytest.approx(1.2 * hours)
    assert cost.hardware == pytest.approx(hours)
    assert cost.electricity == pytest.approx(0.12 * kwh)
    assert cost.buy == pytest.approx(hours + 0.12 * kwh)
    assert cost.carbon_g == pytest.approx(400 * kwh)
    assert (cost.least, cost.basis) == (cost.buy, "buy")


def test_a_rented_row_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = compare(capsys, "resnet50", "--on", "tpu-v4-8", "--batch", "64")["rows"]
    seen = hwsim.simulate("resnet50", "tpu-v4-8", batch=64)
    assert row["usd_per_million"] == pytest.approx(4 * 3.22 / (seen.throughput_per_s * 3600) * 1e6)
    assert row["energy_per_inference_j"] == pytest.approx(seen.energy_j / 64)
    assert (row["chips"], row["usd_basis"], row["verdict"]) == (4, "rent", "")


def test_one_that_refuses_does_not_end_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    whole = compare(capsys, "llama2_7b", "--on", "tpu-v5e,scalesim-32x32-ws,tpu-v4", "--phase", "decode", "--context", "1024",
                    "--batch", "64", "--precision", "bf16")  # fmt: skip
    by_name = {row["target"]: row for row in whole["rows"]}
    assert not by_name["tpu-v5e"]["fits"] and "does not fit" in by_name["tpu-v5e"]["refused"]
    assert not by_name["scalesim-32x32-ws"]["fits"] and "int8 only" in by_name["scalesim-32x32-ws"]["refused"]
    assert [row["rank"] for row in whole["rows"]] == [1, 2, 3]
    code, out, _ = run(capsys, "compare", "gpt3_175b", "--on", "tpu-v4,tpu-v5e")
    assert code == 0 and "Refused" in out and "nothing: every machine refuses" in out


def test_what_is_next_was_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = compare(capsys, "resnet50", "--on", "tpu-v5e", "--batch", "8")["rows"]
    steps = {step["change"]: step for step in row["next"]}
    assert {"precision bf16", "precision int8"} <= set(steps)
    seen = hwsim.simulate("resnet50", "tpu-v5e", batch=8, precision="int8")
    assert steps["precision int8"]["latency_s"] == seen.latency_s
    assert steps["precision int8"]["throughput_gain"] == pytest.approx(seen.throughput_per_s / row["throughput_per_s"])


def test_ranking_is_by_verdict_then_cost_then_energy() -> None:
    rows = hwsim.compare("resnet50", "tpu-v1,tpu-v2,tpu-v3,tpu-v4,tpu-v5e,tpu-v7", batch=[1, 64], slo="8ms").rows

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        usd = row["usd_per_million"]
        return (row["verdict"] != "PASS", usd is None, row["energy_per_inference_j"] if usd is None else usd)

    assert len(rows) == 12
    assert [order(r) for r in rows] == sorted(order(r) for r in rows)


def test_a_price_file_overrides_and_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        '[assumptions]\nelectricity = ["0.30 USD/kWh", "our bill of 2026"]\nlife_years = [5, "our book-keeping"]\n'
        '[price.tpu-v1]\npurchase = ["5000 USD", "a guess for this test"]\ndate = "2026-11-01"\n'
    )
    argv = ("compare", "tpu1_mlp0", "--on", "tpu-v1", "--batch", "200", "--prices", str(file))
    code, out, _ = run(capsys, *argv)
    assert code == 0
    for word in ("5000 USD", "2026-11-01", "a guess for this test", "0.30 USD/kWh", "our bill of 2026", "life years 5"):
        assert word in out, word
    (row,) = compare(capsys, *argv[1:])["rows"]
    assert row["hardware_usd_per_million"] == pytest.approx(5000 / (5 * 8766) / 3600 / row["throughput_per_s"] * 1e6)
    seen = hwsim.simulate("tpu1_mlp0", "tpu-v1", batch=200)
    electricity = seen.energy_j / 200 * 1.3 * 1e6 / 3.6e6 * 0.30
    assert row["electricity_usd_per_million"] == pytest.approx(electricity)
    assert row["usd_per_million"] == pytest.approx(row["hardware_usd_per_million"] + electricity)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[price.tpu-v1]\npurchase = ['5000 USD', 'a guess']", "date is missing"),
        ("[price.tpu-v1]\ndate='2026'\npurchase = '5000 USD'", "no source"),
        ("[price.tpu-v1]\ndate='2026'\nhourly = ['5000 USD', 'a guess']", "is a price in US dollars"),
        ("[price.tpu-v1]\ndate='2026'\nrental = ['5 USD/h', 'a guess']", "no such key 'rental'"),
        ("[assumptions]\nlife = [3, 'guess']", "no such key"),
        ("[assumptions]\nutilization = ['130%', 'a guess']", "out of range"),
        ("price = 3", "must be a table"),
        ("[prices]\nx = 1", "no such table"),
        ("[price.tpu-v99]\ndate='2026'\nhourly = ['5 USD/h', 'a guess']", "no such machine"),
        ("[price", "not valid TOML"),
    ],
)
def test_a_wrong_price_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    code, out, err = run(capsys, "compare", "alexnet", "--on", "tpu-v1", "--prices", str(file))
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("alexnet", "--on", "tpu-v4,tpu-v9"), "no accelerator 'tpu-v9'; did you mean"),
        (("alexnett", "--on", "tpu-v4"), "alexnet"),
        (("alexnet", "--on", "tpu-v4,,tpu-v3"), "name machines with commas"),
        (("alexnet", "--on", "tpu-v4", "--slo", "20"), "slo: '20' is not a time"),
        (("alexnet", "--on", "tpu-v4", "--slo=-1ms"), "more than nothing"),
        (("alexnet", "--on", "tpu-v4", "--rate", "300"), "rate: '300' is not a rate"),
        (("alexnet", "--on", "tpu-v4", "--rate", "0/s"), "more than nothing"),
        (("alexnet", "--on", "tpu-v4", "--batch", "0"), "batch must be a whole number"),
        (("alexnet", "--on", "tpu-v4", "--batches", "1,x"), "whole numbers with commas"),
        (("alexnet", "--on", "tpu-v4", "--batch", "1", "--batches", "2"), "not allowed with"),
        (("alexnet", "--on", "tpu-v4", "--precision", "int7"), "unknown precision"),
        (("alexnet", "--on", "tpu-v4", "--precision", "nolayer=int8"), "no layer or operator"),
        (("alexnet", "--on", "tpu-v4", "--phase", "decode"), "no sequence length"),
        (("alexnet", "--on", "tpu-v4", "--price", "tpu-v4"), "write a machine and its price"),
        (("alexnet", "--on", "tpu-v4", "--price", "tpu-v4=3"), "it has no unit"),
        (("alexnet", "--on", "tpu-v4", "--price", "tpu-4v=3USD/h"), "no such machine; did you mean"),
        (("alexnet", "--on", "tpu-v4", "--utilization", "0"), "utilization: "),
        (("alexnet", "--on", "tpu-v4", "--prices", "none.toml"), "no price file"),
        (("alexnet", "--on", "tpu-v4", "--json", "/nowhere/x.json"), "cannot be written"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str) -> None:
    code, out, err = run(capsys, "compare", *argv)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("targets", "options"),
    [
        (3, {}), ([], {}), (["tpu-v4", 3], {}), ("tpu-v4", {"batch": 3.5}), ("tpu-v4", {"batch": "8"}),
        ("tpu-v4", {"batch": []}), ("tpu-v4", {"slo": float("nan")}), ("tpu-v4", {"slo": True}),
        ("tpu-v4", {"rate": "1e300/s"}), ("tpu-v4", {"prices": 3}), ("tpu-v4", {"shapes": {"Q": 3}}),
    ],
)  # fmt: skip
def test_wrong_arguments_are_explained(targets: Any, options: dict[str, Any]) -> None:
    with pytest.raises(hwsim.HwsimError):
        hwsim.compare("alexnet", targets, **options)


def test_csv_json_and_table_hold_the_same_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = hwsim.compare("alexnet", ["tpu-v4", "tpu-v1"], slo="10ms")
    assert isinstance(found, Comparison)
    rows = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "x.csv"))))
    assert (tmp_path / "x.csv").read_text() == found.to_csv()
    assert [r["target"] for r in rows] == [r["target"] for r in found.rows] == list(found.table["target"])
    assert [float(r["latency_s"]) for r in rows] == [r["latency_s"] for r in json.loads(found.to_json())["rows"]]
    code, out, _ = run(capsys, "compare", "alexnet", "--on", "tpu-v4,tpu-v1", "--slo", "10ms", "--csv", "-")
    assert code == 0 and list(csv.DictReader(io.StringIO(out))) == rows


def test_a_batch_that_is_fixed_in_its_file_is_not_searched(tmp_path: Path) -> None:
    fixed = hwsim.matmul(64, 64, 64)
    (row,) = hwsim.compare(fixed, "tpu-v4", slo="1s").rows
    assert (row["batch"], row["largest_batch"], row["verdict"]) == (1, 1, "PASS")


def test_the_wait_for_a_batch_counts() -> None:
    demand = Demand(objective_s=0.02, rate_per_s=300.0)
    assert demand.met(Point(4, latency_s=0.01)) and not demand.met(Point(4, latency_s=0.0101))  # 3 more at 300/s: 10 ms
    assert not demand.met(Point(1, refused="it does not fit"))


def test_defaults_are_dated_and_said_to_be_assumed() -> None:
    prices = Prices()
    assert all(value.kind == "assumed" for value in prices.assumptions.values())
    assert "read 2026" in str(prices.rent_of(load_accelerator("tpu-v4-8")))
    assert prices.rent_of(load_accelerator("tpu-v4i")) is None


@pytest.mark.parametrize("rate", ["300/s", None])
def test_twenty_machines_are_twenty_rows(rate: str | None) -> None:
    assert len(hwsim.compare("resnet50", TWENTY, slo="20ms", rate=rate).rows) == 20


def test_the_notes_say_how_true_each_family_is() -> None:
    found = hwsim.compare("mobilenet_v2", ["pixel-4", "tpu-v3-core"], batch=1)
    told = [note for note in found.notes if note.startswith("how true latencies")]
    assert len(told) == 2
    assert re.search(r"family cpu are: \d+ measured network rows of \d+ machines: median error \d+ %", told[0])
    assert re.search(r"family systolic are: \d+ measured kernel rows", told[1])


def test_targets_are_named_whole_where_there_is_room() -> None:
    boards = "jetson-agx-orin-64gb:maxn,jetson-agx-orin-32gb:maxn,jetson-agx-orin-64gb:50w,jetson-orin-nx-16gb:maxn"
    text = comparison_text(hwsim.compare("resnet50", boards, slo="20ms", rate="300/s"))
    assert all(any(line.split()[1:2] == [name] for line in text.splitlines()) for name in boards.split(","))
    assert max(map(len, text.splitlines())) <= 120
