"""The page, the timeline and the profile: whole, closed, bounded, and with the result's own numbers."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from strict_page import Page

from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.network.builder import Builder
from hwsim.report.figures import colours, ticks, unit_track
from hwsim.report.html import html_page
from hwsim.report.perfetto import MAX_SLICES, trace
from hwsim.report.timeline import Slice, merged, unit_slices
from hwsim.result import Result
from hwsim.schedule.table import UNITS
from hwsim.simulation import simulate


@pytest.fixture(scope="module")
def resnet() -> Result:
    return simulate("resnet50", "tpu-v4", batch=2)


@pytest.fixture(scope="module")
def densenet() -> Result:
    return simulate("densenet201", "tpu-v4")


def small(name: str) -> Result:
    """A one-layer network whose names are hostile."""
    net = Builder(name)
    return simulate(net.build(net.linear(net.input("a", (8, 64)), 64, bias=False, name=name)), "tpu-v3-core")


def test_the_page_is_closed_balanced_and_named(resnet: Result) -> None:
    page = Page(html_page(resnet))
    assert page.loads and all(load.startswith("href=#") for load in page.loads)
    assert page.policy.startswith("default-src 'none'")
    assert len(set(page.ids)) == len(page.ids)
    assert {load[6:] for load in page.loads} <= set(page.ids)
    assert page.tags.count("h1") == 1 and page.tags.count("h2") >= 8 and not page.unnamed
    assert page.tags.count("caption") == page.tags.count("table")
    assert not re.search(r"url\(|@import|<script src|fetch\(|XMLHttp|\bnan\b", html_page(resnet))


def test_every_kernel_is_in_the_table_with_its_time(densenet: Result) -> None:
    text = html_page(densenet)
    rows = Page(text).rows
    head = next(r for r in rows if r[:2] == ["kernel", "#"])
    body = [r for r in rows if len(r) == len(head) and r is not head]
    assert [int(r[1]) for r in body] == list(range(len(densenet.kernels)))
    for row, kernel in zip(body, densenet.kernels, strict=True):
        assert row[head.index("limiter")] == kernel["limiter"]
        assert float(row[head.index("time µs")]) == pytest.approx(kernel["latency_s"] * 1e6, rel=0.006)
    assert len(densenet.kernels) > 323 and len(text.encode()) < 1_500_000


def test_the_parts_of_the_bars_add_up(resnet: Result) -> None:
    text = html_page(resnet)
    for section in ("time", "energy"):
        figure = text.split(f'<section id="{section}"')[1].split("</svg>")[0]
        widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)%"', figure)]
        assert len(widths) > 2 and sum(widths) == pytest.approx(100.0, abs=0.02)


def test_equal_kernels_are_one_bar_and_none_is_lost(densenet: Result) -> None:
    section = html_page(densenet).split('<section id="kernels"')[1].split("</section>")[0]
    found = re.search(r"(\d+) of (\d+) kernels, ([\d.]+) %", section)
    assert found and int(found.group(2)) == len(densenet.kernels)
    counts = [int(n or 1) for n in re.findall(r'<span class="n" title="[^"]*?(?: ×(\d+))?">', section)]
    assert sum(counts) == int(found.group(1)) and max(counts) > 1 and len(counts) <= 20
    alike: dict[tuple[float, str], float] = {}
    for row in densenet.kernels:
        key = (row["latency_s"], row["op"])
        alike[key] = alike.get(key, 0.0) + row["share_pct"]
    assert float(found.group(3)) <= sum(sorted(alike.values())[-20:]) + 0.5


def test_the_largest_network_stays_small() -> None:
    result = simulate("sdxl_unet", "tpu-v5p")
    text = html_page(result)
    assert len(result.kernels) > 1000 and len(text.encode()) < 1_500_000
    assert f"of {len(result.kernels)} kernels" in text
    Page(text)


def test_names_cannot_break_out_of_the_page() -> None:
    name = '</script><script>alert("1")</script>\x00\x1b[31m\'&<b>'
    text = html_page(small(name))
    page = Page(text)
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert "\x00" not in text and "\x1b" not in text and "alert(" in text


def test_equal_results_give_equal_files(resnet: Result) -> None:
    again = simulate("resnet50", "tpu-v4", batch=2)
    assert resnet.to_html() == again.to_html()
    assert resnet.to_perfetto() == again.to_perfetto()
    assert resnet.to_profile() == again.to_profile()


@pytest.mark.parametrize("target", ["tpu-v1", "tpu-v3-core", "scalesim-32x32-os", "eyeriss-like", "tpu-v4-8"])
def test_every_kind_of_machine_has_a_page(target: str) -> None:
    result = simulate("mobilenet_v2", target, precision="int8" if target != "tpu-v3-core" else None)
    Page(html_page(result))
    check_trace(result, trace(result))


# -- timeline ----------------------------------------------------------------------------------------------------------


def check_trace(result: Result, data: dict[str, Any]) -> dict[int, str]:
    """Check the form of a trace and that no thread overlaps; return its threads by name."""
    events = data["traceEvents"]
    threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    last = dict.fromkeys(threads, 0)
    spans = [e for e in events if e["ph"] == "X"]
    assert {e["ph"] for e in events} == {"M", "X"} and {e["pid"] for e in events} == {1}
    for e in spans:
        begin, end = round(e["ts"] * 1000), round((e["ts"] + e["dur"]) * 1000)
        assert last[e["tid"]] <= begin <= end
        last[e["tid"]] = end
    kernels = [e for e in spans if e["cat"] == "kernel"]
    assert max(last.values()) <= round(result.latency_s * 1e9) + 1
    assert sum(e["dur"] for e in kernels) == pytest.approx(result.latency_s * 1e6, rel=1e-5)
    return threads


def test_the_timeline_has_every_issue_where_the_units_were_busy(resnet: Result) -> None:
    data = json.loads(resnet.to_perfetto())
    threads = check_trace(resnet, data)
    assert set(threads.values()) <= {"kernels", *UNITS} and "kernels" in threads.values()
    units = [e for e in data["traceEvents"] if e.get("cat") == "unit"]
    assert all({"cause", "bytes", "kernel"} <= set(e["args"]) for e in units)
    for tid, name in threads.items():
        if name != "kernels":
            cycles = sum(e["args"]["cycles"] for e in units if e["tid"] == tid)
            assert cycles == resnet.timing.unit_busy[:, UNITS.index(name)].sum()
    moved = sum(e["args"]["bytes"] for e in units)
    assert moved == pytest.approx(int(resnet.schedule.moved_bytes().sum()), rel=1e-6)


def test_a_schedule_of_many_issues_is_drawn_by_kernel(resnet: Result) -> None:
    data = trace(resnet, max_issues=10)
    check_trace(resnet, data)
    units = [e for e in data["traceEvents"] if e.get("cat") == "unit"]
    assert units and all("aggregated" in e["args"] for e in units)
    assert len(units) <= len(resnet.kernels) * len(UNITS)
    assert unit_slices(resnet, 10) is None and "too many issues" in data["otherData"]["units"]


def test_slices_are_bounded_and_lose_nothing() -> None:
    result = simulate("bert_base", "tpu-v3-core", shapes={"S": 512})
    exact = unit_slices(result)
    assert exact is not None
    few = merged(exact, 8)
    counts: dict[tuple[str, int], int] = {}
    for s in few:
        counts[s.unit, s.kernel] = counts.get((s.unit, s.kernel), 0) + 1
    assert max(counts.values()) <= 8 and len(few) < len(exact)
    for what in ("busy", "issues", "moved"):
        assert sum(getattr(s, what) for s in few) == pytest.approx(sum(getattr(s, what) for s in exact))
    check_trace(result, trace(result, max_slices=8))
    assert MAX_SLICES >= 8


def test_a_twin_that_contradicts_the_result_is_not_drawn(resnet: Result) -> None:
    other = simulate("resnet50", "tpu-v4", batch=2)
    other.constants = {**other.constants, "memory_efficiency": other.constants["memory_efficiency"] / 2}
    assert unit_slices(other) is None and unit_slices(resnet) is not None


def test_merging_neighbours() -> None:
    parts = [Slice("dma", 0, what, at, at + 2, 2, 1, 10.0) for at, what in ((0, "a"), (3, "b"), (9, "a"))]
    assert merged(parts, 1) == [Slice("dma", 0, "a + b", 0, 11, 6, 3, 30.0)]
    assert merged(parts, 3) == parts


def test_profile_has_the_form_of_trtexec(resnet: Result) -> None:
    first, *rest = json.loads(resnet.to_profile())
    assert first == {"count": 1}
    assert [list(e) for e in rest] == [["name", "timeMs", "averageMs", "medianMs", "percentage"]] * len(resnet.kernels)
    assert [e["name"] for e in rest] == [row["name"] for row in resnet.kernels]
    assert sum(e["percentage"] for e in rest) == pytest.approx(100.0)
    overhead = resnet.totals.overhead_s
    assert sum(e["timeMs"] for e in rest) == pytest.approx((resnet.latency_s - overhead) * 1e3)


# -- parts of figures --------------------------------------------------------------------------------------------------


def test_ticks_are_round_and_cover() -> None:
    assert ticks(1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(0.0) == [0.0]
    for total in (3e-9, 0.00039, 7.0, 912.0):
        found = ticks(total)
        assert 3 <= len(found) <= 9 and found[-1] <= total * (1 + 1e-9)


def test_colours_are_distinct_until_they_run_out() -> None:
    found = colours(["matrix", "hbm", "cmem", "vmem", "static"])
    assert len(set(found.values())) == 5 and found == colours(list(found))


def test_a_unit_is_shaded_by_how_busy_it_was() -> None:
    drawn = unit_track([(0.0, 0.5, 1.0), (0.5, 1.0, 0.25)], "p0", "matrix")
    assert 'fill-opacity="1" d="M0 0h2000' in drawn and 'fill-opacity="0.25" d="M2000 0h2000' in drawn


# -- files and commands ------------------------------------------------------------------------------------------------


def test_the_command_writes_all_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, packed, profile = tmp_path / "a.html", tmp_path / "a.json.gz", tmp_path / "p.json"
    argv = ["run", "alexnet", "--on", "tpu-v3", "--html", str(page), "--perfetto", str(packed)]
    assert main([*argv, "--exportProfile", str(profile)]) == 0
    out = capsys.readouterr().out
    assert all(f"wrote {path}" in out for path in (page, packed, profile))
    result = simulate("alexnet", "tpu-v3")
    assert page.read_text() == result.to_html() and profile.read_text() == result.to_profile()
    assert gzip.decompress(packed.read_bytes()).decode() == result.to_perfetto()
    assert packed.read_bytes()[4:8] == bytes(4), "a time stamp makes equal traces differ"
    assert main(["run", "alexnet", "--on", "tpu-v3", "--export-profile", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0] == {"count": 1}


@pytest.mark.parametrize("flag", ["--html", "--perfetto", "--export-profile"])
def test_what_cannot_be_written_is_refused_first(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no_such_network", "--on", "tpu-v3", flag, str(tmp_path / "no" / "file")]) == 2
    assert "no folder" in capsys.readouterr().err
    both = str(tmp_path / "x")
    assert main(["run", "alexnet", "--on", "tpu-v3", "--json", both, flag, both]) == 2
    assert "own file" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_python_refuses_the_same_way(resnet: Result, tmp_path: Path) -> None:
    for write in (resnet.to_html, resnet.to_perfetto, resnet.to_profile):
        with pytest.raises(HwsimError, match="no folder"):
            write(tmp_path / "no" / "file")


# -- in a browser ------------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
PROBE = """
<script>
var say = {}, all = document.getElementById("all"), cell = function (r, c) { return all.tBodies[0].rows[r].cells[c]; };
var time = Array.prototype.findIndex.call(all.tHead.rows[0].cells, function (c) { return /^time/.test(c.textContent); });
all.tHead.rows[0].cells[time].querySelector("button").click();
say.sorted = all.tHead.rows[0].cells[time].getAttribute("aria-sort");
say.times = [0, 1, 2].map(function (r) { return +cell(r, time).textContent; });
var filter = document.getElementById("filter");
filter.value = "fc";
filter.dispatchEvent(new Event("input"));
say.left = all.tBodies[0].querySelectorAll("tr:not([hidden])").length;
document.getElementById("zoomin").click();
say.zoomed = document.getElementById("wide").style.width;
var before = getComputedStyle(document.body).backgroundColor;
document.getElementById("theme").click();
say.switched = before !== getComputedStyle(document.body).backgroundColor;
say.overflow = document.documentElement.scrollWidth > innerWidth;
say.drawn = Array.prototype.every.call(document.querySelectorAll("svg"), function (s) {
  var b = s.getBoundingClientRect(); return b.width > 20 && b.height > 5; });
say.loaded = performance.getEntriesByType("resource").length;
document.title = "probe " + JSON.stringify(say);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_draws_sorts_filters_and_loads_nothing(resnet: Result, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text(resnet.to_html().replace("</body>", PROBE + "</body>"), encoding="utf-8")
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    found = re.search(r"<title>probe (\{.*?\})</title>", done.stdout)
    assert found, done.stderr[-500:]
    say = json.loads(found.group(1))
    longest = sorted((row["latency_s"] * 1e6 for row in resnet.kernels), reverse=True)[:3]
    assert say.pop("times") == pytest.approx(longest, rel=0.006)
    fc = sum("fc" in " ".join(map(str, row.values())) for row in resnet.kernels)
    assert say == {
        "sorted": "descending", "left": fc, "zoomed": "200%", "switched": True, "overflow": False, "drawn": True, "loaded": 0,
    }  # fmt: skip
