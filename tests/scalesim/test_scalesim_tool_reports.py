"""Report files equal, byte for byte, those SCALE-Sim 3.0 wrote for the same files; engine and slow twin alike."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from hwsim.errors import HwsimError
from hwsim.scalesim import api, parse_config, parse_topology
from hwsim.scalesim.layout import parse_layout
from hwsim.scalesim.reference import simulate_slowly
from hwsim.scalesim.report import report_texts

DATA = Path(__file__).parents[1] / "data" / "scalesim"


def recorded(theme: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / "tool_reports.json.gz", "rt") as file:
        return [case for case in json.load(file) if case["theme"] == theme]


def reports(case: dict[str, Any], slow: bool) -> dict[str, str]:
    config = parse_config(case["config"])
    topology = parse_topology(case["topology"], kind="gemm" if case["gemm"] else "conv")
    layout = parse_layout(case["layout"]) if case["theme"] == "layout" else None
    if not slow:
        return report_texts(config, api.simulate(config, topology, layout))
    first = layout[0] if layout else None
    return report_texts(config, [simulate_slowly(config, layer, first) for layer in api.expand_depthwise(topology)])


THEMES = [("calc", 40), ("user", 40), ("sparse", 60), ("layout", 30)]


def check(cases: list[dict[str, Any]], slow: bool) -> int:
    """Compare cases and return how many were run rather than refused."""
    ran = 0
    for case in cases:
        if "refused" in case:
            with pytest.raises(HwsimError):
                reports(case, slow)
        else:
            ran += 1
            assert reports(case, slow) == case["reports"], case["topology"]
    return ran


@pytest.mark.parametrize(("theme", "cases"), THEMES)
def test_engine_writes_the_tools_reports(theme: str, cases: int) -> None:
    found = recorded(theme)
    assert len(found) == cases
    assert check(found, slow=False) >= cases * 2 // 3


@pytest.mark.parametrize(("theme", "cases"), THEMES)
def test_twin_writes_the_tools_reports(theme: str, cases: int) -> None:
    assert check(recorded(theme)[::4], slow=True) >= cases // 8


@pytest.mark.slow
@pytest.mark.parametrize("theme", [theme for theme, _ in THEMES])
def test_twin_writes_all_of_the_tools_reports(theme: str) -> None:
    check(recorded(theme), slow=True)


def test_recorded_cases_reach_the_hard_paths() -> None:
    """The fixture would prove little without stalls, flushes, holes and every sparse representation."""
    cases = [c for theme in ("calc", "user", "sparse", "layout") for c in recorded(theme) if "reports" in c]
    stalled = sum(int(line.split(",")[3]) > 0 for c in cases for line in compute_lines(c))
    assert stalled > 30
    assert {"csr", "csc", "ellpack_block"} <= {
        c["reports"]["SPARSE_REPORT.csv"].split("\n")[1].split(", ")[1] for c in cases if c["theme"] == "sparse"
    }
    flushed = sum(float(line.split(",")[11]) > 0 for c in cases for line in detail_lines(c) if "CALC" in c["config"])
    assert flushed > 5


def compute_lines(case: dict[str, Any]) -> list[str]:
    return case["reports"]["COMPUTE_REPORT.csv"].splitlines()[1:]


def detail_lines(case: dict[str, Any]) -> list[str]:
    return case["reports"]["DETAILED_ACCESS_REPORT.csv"].splitlines()[1:]
