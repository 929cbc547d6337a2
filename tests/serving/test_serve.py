"""serve, as called and as typed: figures by hand, searches whose answers are run again, errors in one line."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.cli import main
from hwsim.report.progress import Progress
from hwsim.serving.setup import SERVED

QUICK: dict[str, Any] = {"requests": 5000, "seed": 1}


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def serve(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    code, out, err = run(capsys, "serve", *argv, "--json", "-")
    assert (code, err) == (0, "")
    whole = json.loads(out)
    assert isinstance(whole, dict)
    return whole


# -- figures by hand ---------------------------------------------------------------------------------------------


def test_single_stream_is_the_latency_of_a_run() -> None:
    seen = hwsim.serve("resnet50", "tpu-v4", scenario="single-stream")
    alone = hwsim.simulate("resnet50", "tpu-v4")
    assert seen.latency.percentiles_s[90.0] == pytest.approx(alone.latency_s, abs=1e-9)
    assert seen.latency.mean_s == seen.latency.most_s and seen.wait.most_s == 0
    assert seen.served_per_s == pytest.approx(alone.throughput_per_s, rel=1e-5)
    assert seen.energy_each_j == pytest.approx(alone.energy_j, rel=1e-5)


def test_multi_stream_is_a_batch_of_eight() -> None:
    seen = hwsim.serve("resnet50", "tpu-v4", scenario="multi-stream")
    assert seen.latency.mean_s == pytest.approx(hwsim.simulate("resnet50", "tpu-v4", batch=8).latency_s, abs=1e-9)
    assert seen.made_per_s == pytest.approx(8 * seen.served_per_s)


def test_offline_is_full_batches_back_to_back() -> None:
    seen = hwsim.serve("resnet50", "2xtpu-v5e", scenario="offline", requests=1000, max_batch=64)
    full, rest = (hwsim.simulate("resnet50", "tpu-v5e", batch=n) for n in (64, 64))  # the last 40 are padded
    assert seen.horizon_s == pytest.approx(8 * full.latency_s, abs=1e-7)
    assert seen.batch_sizes == {40: 1, 64: 15}
    assert seen.made_per_s == pytest.approx(1000 / (8 * full.latency_s), rel=1e-6)
    assert seen.energy_each_j == pytest.approx((15 * full.energy_j + rest.energy_j) / 1000, rel=1e-6)


def test_padding_interpolation_and_exact_sizes_are_what_they_say() -> None:
    times = {n: hwsim.simulate("resnet50", "tpu-v5e", batch=n).latency_s for n in (4, 5, 6, 8)}
    expected = {"pad": times[8], "interpolate": times[4] + (times[8] - times[4]) / 4, "exact": times[5]}
    for between, time in expected.items():
        seen = hwsim.serve("resnet50", "tpu-v5e", scenario="offline", requests=5, max_batch=8, between=between)
        assert seen.horizon_s == pytest.approx(time, abs=1e-9)


def test_percentiles_shares_and_rates_follow_from_the_requests() -> None:
    seen = hwsim.serve(
        "resnet50", "tpu-v5e", rate="5000/s", slo="3ms", queue=20, timeout="3500us", max_batch=4, **QUICK
    )
    table = seen.requests
    counted = table.iloc[250:]
    served = counted[counted.status == "served"]
    times = np.sort((served.done_s - served.asked_s).to_numpy())
    assert 0 < len(served) < len(counted), "some are dropped, or this tests less than it says"
    for q, value in seen.latency.percentiles_s.items():
        assert np.mean(times <= value + 1e-12) >= q / 100 > np.mean(times < value - 1e-12)
    assert seen.in_time == pytest.approx(np.sum(times <= 3e-3) / len(counted), abs=1e-12)
    assert seen.wait.mean_s == pytest.approx(float((served.start_s - served.queued_s).mean()))
    assert seen.served_per_s == pytest.approx((table.status == "served").sum() / table.done_s.max(), rel=1e-3)
    lost = {"rejected": (table.status == "rejected").sum(), "timed_out": (table.status == "timed out").sum()}
    assert seen.dropped == lost


def test_energy_is_batches_and_waiting() -> None:
    seen = hwsim.serve("resnet50", "tpu-v5e", rate="100/s", requests=50, max_batch=1)
    alone = hwsim.simulate("resnet50", "tpu-v5e")
    idle_w = alone.energy.static.power_w.value
    assert seen.busy_j == pytest.approx(50 * alone.energy_j)
    assert seen.idle_j == pytest.approx(idle_w * (seen.horizon_s - 50 * alone.latency_s), rel=1e-4)
    assert seen.power_w == pytest.approx(seen.energy_j / seen.horizon_s)


def test_money_counts_what_is_in_time() -> None:
    seen = hwsim.serve("resnet50", "2xtpu-v5e", rate="10300/s", slo="5ms", max_batch=4, **QUICK)
    assert seen.in_time is not None and 0.2 < seen.in_time < 1 and seen.cost is not None
    assert seen.cost.rent == pytest.approx(2 * 1.20 / 3600 / seen.in_time_per_s * 1e6)
    assert seen.in_time_per_s == pytest.approx(seen.served_per_s * seen.in_time)


def test_bought_machines_pay_for_the_power_drawn() -> None:
    from hwsim.costs import Prices

    prices = Prices().with_price("tpu-v4i=26298USD").with_assumption("utilization", "50%")  # 3 years: 1 USD an hour
    seen = hwsim.serve("resnet50", "3xtpu-v4i", rate="2000/s", prices=prices, precision="bf16", **QUICK)
    assert seen.cost is not None and seen.cost.rent is None
    assert seen.cost.hardware == pytest.approx(3 / 3600 / (seen.served_per_s / 2) * 1e6)
    idle_w = 3 * hwsim.simulate("resnet50", "tpu-v4i", precision="bf16").energy.static.power_w.value
    kwh = (seen.power_w + idle_w) / 2 / (seen.served_per_s / 2) * 1e6 / 3.6e6 * 1.3
    assert seen.cost.electricity == pytest.approx(kwh * 0.12)


def test_host_work_adds_to_every_request_and_may_be_the_limit() -> None:
    options: dict[str, Any] = {"rate": "400/s", "max_batch": 4, "warmup": 0.0, **QUICK}
    bare = hwsim.serve("resnet50", "tpu-v5e", **options)
    hosted = hwsim.serve("resnet50", "tpu-v5e", before="1ms", after="20ms", **options)
    assert hosted.latency.mean_s == pytest.approx(bare.latency.mean_s + 21e-3, abs=1e-8)
    few = hwsim.serve("resnet50", "tpu-v5e", before="1ms", after="20ms", host_workers=4, **options)
    assert few.served_per_s == pytest.approx(4 / 20e-3, rel=0.02), "four workers of 20 ms serve 200 a second"
    closed = hwsim.serve("resnet50", "tpu-v5e", clients=1, before="1ms", after="20ms", requests=100)
    alone = hwsim.simulate("resnet50", "tpu-v5e").latency_s
    assert closed.latency.mean_s == pytest.approx(alone + 21e-3, abs=1e-8)
    assert closed.served_per_s == pytest.approx(1 / (alone + 21e-3), rel=1e-3)


def small(folder: Path, mib: int) -> str:
    file = folder / "small.toml"
    file.write_text(
        f'name = "Small"\nbased_on = "tpu-v5e"\n[memory.hbm]\ncapacity = ["{mib} MiB", "a test"]\n'
        '[price]\nhourly = ["1 USD/h", "a test"]\ndate = "2026-11-01"\n'
    )
    return str(file)


def test_networks_that_do_not_fit_together_are_loaded_over_the_link(tmp_path: Path) -> None:
    machine = small(tmp_path, 240)
    both = {"resnet50": 1.0, "bert_base": 1.0}
    seen = hwsim.serve(both, machine, rate="50/s", precision="bf16", requests=400, max_batch=1)
    weights = {n: hwsim.simulate(n, "tpu-v5e", precision="bf16").plan.weight_bytes for n in both}
    loads = seen.outcome.batches["loading_ns"]
    for m, name in enumerate(both):
        mine = seen.outcome.batches["model"] == m
        assert set((loads[mine]).tolist()) == {0, round(weights[name] / 15e9 * 1e9)}
    changes = int(np.count_nonzero(np.diff(seen.outcome.batches["model"]))) + int(seen.outcome.batches["model"][0] != 0)
    assert int(np.count_nonzero(loads)) == changes, "loaded whenever the other was in the way"
    assert any("take turns in memory" in note for note in seen.notes)
    roomy = hwsim.serve(both, "tpu-v5e", rate="50/s", precision="bf16", requests=400, max_batch=1)
    assert not roomy.outcome.batches["loading_ns"].any()
    sticky = hwsim.serve(both, machine, rate="150/s", precision="bf16", order="resident", requests=400, max_batch=1)
    asked = hwsim.serve(both, machine, rate="150/s", precision="bf16", requests=400, max_batch=1)
    assert np.count_nonzero(sticky.outcome.batches["loading_ns"]) < np.count_nonzero(
        asked.outcome.batches["loading_ns"]
    )


def test_a_machine_that_refuses_a_network_serves_the_others(tmp_path: Path) -> None:
    tiny = small(tmp_path, 60)
    both = {"bert_base": 1.0, "resnet50": 3.0}
    seen = hwsim.serve(both, f"{tiny},tpu-v4", rate="300/s", precision="bf16", requests=400, max_batch=4)
    machines = {m: set(seen.outcome.machine[seen.model_of == m].tolist()) for m in range(2)}
    assert machines == {0: {1}, 1: {0, 1}}, "bert_base is served by the large machine alone"
    assert any("does not serve bert_base" in note for note in seen.notes)


# -- searches ----------------------------------------------------------------------------------------------------


def test_the_highest_rate_meets_the_objective_and_half_a_per_cent_more_does_not() -> None:
    options: dict[str, Any] = {"slo": "10ms", "max_batch": 16, **QUICK}
    found = hwsim.serve("resnet50", "tpu-v5e", **options)
    passes, fails = found.searched["passes"], found.searched["fails"]
    assert found.verdict == "PASS" and passes < fails <= passes * 1.0051
    assert hwsim.serve("resnet50", "tpu-v5e", rate=passes, **options).verdict == "PASS"
    assert hwsim.serve("resnet50", "tpu-v5e", rate=fails, **options).verdict == "FAIL"
    assert hwsim.serve("resnet50", "tpu-v5e", rate="search", **options).searched == found.searched


def test_the_smallest_fleet_meets_the_objective_and_one_less_does_not() -> None:
    options: dict[str, Any] = {"slo": "10ms", "rate": "25000/s", **QUICK}
    found = hwsim.serve("resnet50", "tpu-v5e", machines="search", **options)
    count = int(found.searched["passes"])
    assert found.verdict == "PASS" and len(found.setup.machines) == count > 2
    assert hwsim.serve("resnet50", "tpu-v5e", machines=count, **options).verdict == "PASS"
    assert hwsim.serve("resnet50", "tpu-v5e", machines=count - 1, **options).verdict == "FAIL"


@pytest.mark.parametrize("options", [{"rate": "100/s", "machines": "search"}, {}])
def test_an_objective_nobody_can_meet_ends_the_search(options: dict[str, Any]) -> None:
    found = hwsim.serve("resnet50", "tpu-v5e", slo="10us", **options, **QUICK)
    assert found.verdict == "FAIL" and found.searched["passes"] is None and found.searched["runs"] < 10


def test_more_machines_than_help_end_the_search() -> None:
    """The objective is shorter than the host work: no fleet changes that."""
    found = hwsim.serve("resnet50", "tpu-v5e", slo="10ms", before="9.9ms", rate="100/s", machines="search", **QUICK)
    assert found.searched["passes"] is None and found.searched["runs"] < 12


def test_larger_batches_are_tried_where_they_fit_once() -> None:
    found = hwsim.serve("resnet50", "tpu-v5e", slo="10ms", **QUICK)
    for batch in (8, 16, 32):
        other = hwsim.serve("resnet50", "tpu-v5e", slo="10ms", max_batch=batch, **QUICK)
        assert (other.searched["passes"] or 0) <= found.searched["passes"] * 1.006


# -- as typed ----------------------------------------------------------------------------------------------------


def test_the_page_says_who_waits_what_it_costs_and_what_was_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "serve", "resnet50=70%,bert_base=30%", "--on", "2xtpu-v5e,tpu-v4", "--rate", "1500/s", "--slo", "20ms",
        "--requests", "4000", "--precision", "bf16", "--carbon-g-per-kwh", "400",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for word in ("Verdict   PASS", "p99", "waiting mean", "requests/s answered", "least-loaded", "% busy", "an inference",
                 "rent $", "kg CO2e", "bert_base", "tpu-v4", "1.20 USD/h", "poisson at 1500/s", "seed 0"):  # fmt: skip
        assert word in out, word
    assert max(map(len, out.splitlines())) <= 120 and "\x1b" not in out


def test_the_same_question_has_the_same_answer_and_files_agree(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = (
        "resnet50",
        "--on",
        "tpu-v5e",
        "--rate",
        "2000/s",
        "--slo",
        "5ms",
        "--requests",
        "2000",
        "--arrivals",
        "gamma:2",
    )
    one, two = serve(capsys, *argv), serve(capsys, *argv)
    assert one == two and one != serve(capsys, *argv, "--seed", "1")
    files = [str(tmp_path / name) for name in ("x.json", "x.csv", "r.csv")]
    code, out, _ = run(capsys, "serve", *argv, "--json", files[0], "--csv", files[1], "--requests-csv", files[2])
    assert code == 0 and all(f"wrote {file}" in out for file in files)
    (row,) = csv.DictReader(io.StringIO(Path(files[1]).read_text()))
    assert json.loads(Path(files[0]).read_text()) == one and float(row["p99_s"]) == one["latency"]["p99_s"]
    assert len(Path(files[2]).read_text().splitlines()) == 2001


def test_a_recording_is_replayed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("time_s,samples,model\n0,1,resnet50\n0.001,4,bert_base\n0.5,2,resnet50\n")
    seen = serve(
        capsys, "resnet50,bert_base", "--on", "tpu-v4", "--trace", str(file), "--max-batch", "4", "--precision", "bf16"
    )
    assert seen["requests"] == 3 and [row["requests"] for row in seen["networks"]] == [2, 1]
    ran = (("resnet50", 1), ("bert_base", 4), ("resnet50", 2))
    times = [hwsim.simulate(n, "tpu-v4", batch=b, precision="bf16").latency_s for n, b in ran]
    assert seen["latency"]["mean_s"] == pytest.approx(sum(times) / 3, abs=2e-9)
    faster = serve(
        capsys, "resnet50,bert_base", "--on", "tpu-v4", "--trace", str(file), "--rate", "400/s", "--precision", "bf16"
    )
    assert faster["asked_per_s"] == 400 and faster["horizon_s"] < 0.01


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("alexnet", "--on", "tpu-v9", "--rate", "3/s"), "no accelerator 'tpu-v9'"),
        (("alexnett", "--on", "tpu-v4", "--rate", "3/s"), "alexnet"),
        (("alexnet", "--on", "0xtpu-v4", "--rate", "3/s"), "must be 1 to"),
        (("alexnet", "--on", "tpu-v4,,", "--rate", "3/s"), "target '' is not"),
        (("alexnet", "--on", "tpu-v4"), "give a rate (--rate 300/s), or an objective"),
        (("alexnet", "--on", "tpu-v4", "--rate", "300"), "rate: '300' is not a rate"),
        (("alexnet", "--on", "tpu-v4", "--rate", "0/s"), "rate must be between"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--slo", "20"), "slo: '20' is not a time"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--percentile", "0"), "percentile must be"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--percentile", "nan"), "percentile must be"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--arrivals", "poison"), "did you mean poisson"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--routing", "random"), "unknown routing"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--between", "pads"), "did you mean pad"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--machines", "many"), "or search, not 'many'"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--machines", "1000000"), "one run holds"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--requests", "0"), "requests must be a whole number"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--requests", "999999999"), "one run holds"),
        (
            ("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--requests", "5", "--duration", "5s"),
            "one of them is enough",
        ),
        (("alexnet", "--on", "tpu-v4", "--rate", "1e-9/s"), "more than a lifetime"),
        (("alexnet", "--on", "tpu-v4", "--scenario", "servers"), "unknown scenario"),
        (("alexnet", "--on", "tpu-v4", "--scenario", "offline", "--rate", "3/s"), "sets its own pace"),
        (("alexnet", "--on", "tpu-v4", "--scenario", "offline", "--clients", "3"), "wait for nobody"),
        (("alexnet", "--on", "tpu-v4", "--clients", "3", "--queue", "3"), "never turned away"),
        (("alexnet", "--on", "tpu-v4", "--clients", "3", "--after", "1ms", "--host-workers", "2"), "need as many"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--machines", "search"), "needs an objective"),
        (("alexnet", "--on", "tpu-v4", "--machines", "search", "--slo", "1s"), "needs a rate"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--seed", "-1"), "seed must be"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--trace", "none.csv"), "no trace file"),
        (("alexnet=0", "--on", "tpu-v4", "--rate", "3/s"), "more than nothing"),
        (("alexnet=x", "--on", "tpu-v4", "--rate", "3/s"), "the share of alexnet"),
        (("alexnet,alexnet", "--on", "tpu-v4", "--rate", "3/s"), "named twice"),
        (("gpt3_175b", "--on", "tpu-v4,tpu-v5e", "--rate", "3/s"), "does not fit"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--precision", "int7"), "unknown precision"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--price", "tpu-4v=3USD/h"), "no such machine"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--json", "/nowhere/x.json"), "cannot be written"),
        (("alexnet", "--on", "tpu-v4", "--rate", "3/s", "--csv", "-", "--json", "-"), "two outputs"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str) -> None:
    code, out, err = run(capsys, "serve", *argv)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1, err


def test_hostile_recordings_end_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    for text in (
        "time_s\n2\n1\n",
        "time_s\nnan\n",
        "size\n1\n",
        "time_s,model\n0,vgg\n",
        "time_s,samples\n0,999999999\n",
    ):
        file.write_text(text)
        code, out, err = run(capsys, "serve", "alexnet", "--on", "tpu-v4", "--trace", str(file))
        assert (
            (code, out) == (2, "") and len(err.splitlines()) == 1 and "t.csv" in err
        ) or "samples are more" in err, err


# -- progress ----------------------------------------------------------------------------------------------------


def test_the_bar_fits_every_terminal() -> None:
    bar = Progress("serving at 1234/s, run", total=100)
    bar.done = 37
    for columns in range(2, 140):
        line = bar.line(12.0, columns)
        assert len(line) <= max(1, columns - 1) and line.isprintable()
    assert "37 %" in bar.line(12.0, 80) and "0:20 left" in bar.line(12.0, 80)
    assert bar.line(12.0, 20).endswith(" 37 %") and bar.line(12.0, 20).startswith("serving")
    assert Progress("counting").line(3.0, 80) == "counting 0, 0:03"


def test_a_pipe_sees_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwsim.report.progress._PATIENCE_S", 0.0)
    stream = io.StringIO()
    with Progress("work", 3, stream) as bar:
        for done in range(4):
            bar.at(done)
    assert stream.getvalue() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("term", "shown"), [("xterm", True), ("dumb", False)])
def test_a_terminal_sees_a_bar_that_goes_away(term: str, shown: bool) -> None:
    main_end, end = pty.openpty()
    code = (
        "import hwsim.report.progress as p\np._PATIENCE_S = 0.0\np._EVERY_S = 0.0\n"
        "with p.Progress('work', 2) as bar:\n    bar.at(1)\n    bar.at(2)\n"
    )
    env = {**os.environ, "TERM": term, "NO_COLOR": "1", "COLUMNS": "40"}
    subprocess.run([sys.executable, "-c", code], stderr=end, stdout=subprocess.DEVNULL, env=env, check=True)
    os.close(end)
    seen = b""
    while True:
        try:
            part = os.read(main_end, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(main_end)
    text = seen.decode()
    assert ("50 %" in text) is shown and "\x1b" not in text
    assert not shown or (text.endswith("\r") and text.rsplit("\r", 2)[1].strip() == "")


def test_nobody_is_counted_twice_when_all_are_dropped() -> None:
    seen = hwsim.serve("resnet50", "tpu-v5e", rate="9000/s", slo="1ms", timeout=0.0, queue=1, max_batch=1, **QUICK)
    statuses = seen.outcome.status
    assert int(np.count_nonzero(statuses == SERVED)) + sum(seen.dropped.values()) == len(statuses)
    assert seen.to_json() and seen.to_csv()


def test_an_edge_tpu_keeps_one_network_at_a_time() -> None:
    both = {"mobilenet_v1": 1.0, "mobilenet_v2": 1.0}
    seen = hwsim.serve(both, "coral-usb", rate="20/s", precision="int8", requests=200, max_batch=1)
    batches = seen.outcome.batches
    changes = int(np.count_nonzero(np.diff(batches["model"]))) + int(batches["model"][0] != 0)
    assert int(np.count_nonzero(batches["loading_ns"])) == changes > 20
    for m, name in enumerate(both):
        cold, warm = (hwsim.simulate(name, "coral-usb", precision="int8", cache=c).latency_s for c in ("cold", "warm"))
        assert batches["loading_ns"][batches["model"] == m].max() == pytest.approx((cold - warm) * 1e9, abs=1)
    assert any("one network at a time" in note for note in seen.notes)
