"""The page of a comparison: whole, closed, loading nothing, with the rows' own numbers; the Pareto front by brute force."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strict_page import Page

import hwsim
from hwsim.cli import main
from hwsim.comparison import Comparison
from hwsim.report.compare_html import comparison_page, pareto
from hwsim.report.scatter import Mark, scatter

TARGETS = "tpu-v1,tpu-v3,tpu-v4,tpu-v5e,tpu-v6e,tpu-v7"


@pytest.fixture(scope="module")
def answer() -> Comparison:
    return hwsim.compare("resnet50", TARGETS, slo="20ms", rate="300/s")


def test_the_page_is_closed_and_loads_nothing(answer: Comparison) -> None:
    text = comparison_page(answer)
    page = Page(text)
    assert page.loads and all(load.startswith("href=#") for load in page.loads)
    assert {load[6:] for load in page.loads} <= set(page.ids), "a link leads nowhere"
    assert page.policy.startswith("default-src 'none'") and not page.unnamed
    assert not re.search(r"url\(|@import|<script src|fetch\(|\bnan\b|None", text)
    assert len(text) < 1_500_000


def test_every_machine_that_runs_has_its_row_and_its_numbers(answer: Comparison) -> None:
    rows = Page(comparison_page(answer)).rows
    head = next(r for r in rows if r[:2] == ["machine", "#"])
    found = {r[0]: dict(zip(head, r, strict=True)) for r in rows if len(r) == len(head) and r is not head}
    assert set(found) == {row["target"] for row in answer.rows if row["fits"]}
    for row in answer.rows:
        shown = found[row["target"]]
        assert float(shown["latency ms"]) == pytest.approx(row["latency_s"] * 1e3, rel=0.006)
        assert shown["bound by"] == row["bound_by"]


def test_shares_of_time_and_energy_are_those_of_the_run(answer: Comparison) -> None:
    for row in answer.rows:
        result = hwsim.simulate(
            "resnet50", row["target"], batch=row["batch"], precision=row["precision"] if row["precision_note"] else None
        )
        assert sum(row["time_shares"].values()) == pytest.approx(1)
        assert row["time_shares"] == result.time_shares
        assert sum(row["energy_parts_j"].values()) == pytest.approx(result.energy_j)


def test_refusals_are_on_the_page() -> None:
    text = comparison_page(hwsim.compare("llama3_70b", "tpu-v5e,tpu-v3", precision="bf16", phase="decode", context=128))
    assert 'id="refused"' in text and "does not fit" in text and "No machine of the list" in text


costs = st.one_of(st.none(), st.integers(0, 5).map(float))


@given(st.lists(st.tuples(costs, costs), max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[float | None, float | None]]) -> None:
    rows: list[dict[str, Any]] = [{"a": a, "b": b} for a, b in points]
    front = pareto(rows, lambda r: r["a"], lambda r: r["b"])
    known = [r for r in rows if r["a"] is not None and r["b"] is not None]
    for row in known:
        beaten = any(
            other["a"] <= row["a"] and other["b"] <= row["b"] and (other["a"], other["b"]) != (row["a"], row["b"])
            for other in known
        )
        assert (row in front) == (not beaten)


def test_names_of_points_never_cover_each_other() -> None:
    marks = [Mark(1 + 0.01 * i, 2 + 0.01 * (i % 3), f"machine-{i}", "tip", "p0", True) for i in range(20)]
    drawn = scatter(marks, "ms", "$", "plot", 3.0)
    assert drawn.count("<circle") == 20 and 1 <= drawn.count('class="small"') < 20


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "c.html"
    assert main(["compare", "alexnet", "--on", "tpu-v3,tpu-v4", "--html", str(page)]) == 0
    assert f"wrote {page}" in capsys.readouterr().out and page.read_text().startswith("<!DOCTYPE html>")
    assert main(["compare", "alexnet", "--on", "tpu-v3", "--html", str(tmp_path / "no" / "x")]) == 2


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_it(answer: Comparison, tmp_path: Path) -> None:
    probe = """<script>document.title = "probe " + [document.documentElement.scrollWidth > innerWidth,
    Array.prototype.every.call(document.querySelectorAll("svg"), function (s) { return s.getBoundingClientRect().width > 20; }),
    performance.getEntriesByType("resource").length].join(" ");</script>"""
    page = tmp_path / "page.html"
    page.write_text(comparison_page(answer).replace("</body>", probe + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=700,900", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "<title>probe false true 0</title>" in done.stdout
