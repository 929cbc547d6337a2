"""The 22 stories of docs/stories: every command runs, and says what its page says it says."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

STORIES = Path(__file__).resolve().parents[2] / "docs" / "stories"


@cache
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stories_regenerate", STORIES / "regenerate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


PAGES = sorted(STORIES.glob("[0-9][0-9]_*.md"))


@cache
def texts(page: Path) -> tuple[str, ...]:
    """What the blocks of a page print, run once for all tests."""
    return tuple(runner().run_block(block).text for block in runner().blocks_of(page))


def of(number: int) -> tuple[str, ...]:
    return texts(next(p for p in PAGES if p.name.startswith(f"{number:02}_")))


_SCALE = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def latency(text: str) -> float:
    found = re.search(r"^  Latency  ([\d.]+) (\w+)", text, re.MULTILINE)
    assert found, text
    return float(found[1]) * _SCALE[found[2]]


def share(text: str, cause: str) -> float:
    """Per cent of the time a cause has in the line ``Time``."""
    line = re.search(r"^  Time +(.*)$", text, re.MULTILINE)
    assert line, text
    found = re.search(rf"{cause} ([\d.]+) %", line[1])
    return float(found[1]) if found else 0.0


def bound(text: str) -> str:
    found = re.search(r"^  Bound by (.*)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def numbers(line: str) -> list[float]:
    return [float(x) for x in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", line)]


def rows(text: str) -> dict[str, list[str]]:
    """Rows of a comparison by target."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return {cells[1]: cells for cells in lines if len(cells) > 5 and cells[0].isdigit()}


def test_there_is_a_page_for_each_of_the_22_questions() -> None:
    assert [int(p.name[:2]) for p in PAGES] == list(range(1, 23))
    index = (STORIES / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        title = text.split("\n", 1)[0]
        assert title.startswith(f"# {int(page.name[:2])}. ")
        assert f"]({page.name})" in index
        prose = re.sub(r"```.*?```|<!--.*?-->", "", text.partition("\n")[2], flags=re.DOTALL)
        assert len(prose.split()) > 60, f"{page.name} explains nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_what_the_page_shows_is_what_is_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = runner().blocks_of(page)
    assert [b.source for b in blocks if b.is_command] == re.findall(r"^\$ (hwsim .*)$", text, re.MULTILINE)
    assert len(blocks) == text.count("```console\n") + text.count("```python\n")
    assert blocks and text.count("```python\n") == text.count("```text\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_command_runs_and_still_says_what_is_shown(page: Path) -> None:
    for block, fresh in zip(runner().blocks_of(page), texts(page), strict=True):
        shown = runner().kept(fresh, block.show)  # raises where a line the page keeps is gone
        assert block.stored.startswith("hwsim: ") == fresh.startswith("hwsim: "), fresh
        assert "Traceback" not in fresh

        def labels(printed: str) -> list[str]:
            return re.findall(r"^  ([A-Z]\w+) ", printed, re.MULTILINE)

        assert labels(shown) == labels(block.stored), f"run docs/stories/regenerate.py {page.name[:2]}"


def story_1() -> None:
    fp16, int8, casts = of(1)
    assert bound(int8) == "kernel launch" and share(int8, "kernel launch") > share(fp16, "kernel launch")
    assert 1.0 < latency(fp16) / latency(int8) < 2.0
    assert re.search(r"Formats +int8 \d+", int8)
    few, many = (numbers(line) for line in casts.splitlines())
    assert few[3] > few[1]  # 16 rows: int8 with its casts is slower than fp16
    assert many[3] < many[1]


def story_2() -> None:
    shown, refused, fp16, p40 = of(2)
    assert "simt.rates.fp16" in shown and "rates.int8" not in shown
    assert refused.startswith("hwsim: ") and "does not multiply int8" in refused and "--precision fp16" in refused
    assert latency(fp16) > 0 and re.search(r"Formats +int8", p40)


def story_3() -> None:
    for text in of(3)[:3]:
        whole = " ".join(text.split())
        found = re.search(r"2:4 in (\d+) of (\d+) .*?, ([\d.]+) % .*?: ([\d.]+)x there, ([\d.]+)x in all", whole)
        if found is None:  # no sparse kernel was worth taking, and the line says why of every product
            assert re.search(
                r"2:4 in 0 of \d+ products with weights; .*(no faster than dense|no sparse kernel)", whole
            ), text
            continue
        taken, asked, part, there, overall = map(float, found.groups())
        assert taken <= asked and 1.0 <= overall <= 1.3
        assert overall <= 1 / (1 - part / 100 * (1 - 1 / there)) + 0.011  # Amdahl: no more than its layers gain
    end, explained = (float(x) for x in re.findall(r"([\d.]+)x", of(3)[3].splitlines()[-1]))
    assert end == pytest.approx(explained, abs=0.03)


def story_4() -> None:
    grid, single = of(4)
    table = [numbers(line) for line in grid.splitlines()[2:]]
    assert all(0 < gain < 2.0 for row in table for gain in row[1:])
    assert all(row[1] < 1.2 for row in table) and table[-1][-1] > 1.2
    # One row of 4096 x 4096 gains what weights weigh less, 1 / 0.5625 at most.
    assert 1 < table[0][3] < 1.78 and "2:4 in 1 of 1" in single


def story_5() -> None:
    refused, half, table = of(5)
    assert "processors only" in refused and bound(half) == "kernel launch"
    lines = table.splitlines()
    fewer = numbers(lines[0])[0]
    gain = {line.split()[0]: float(re.findall(r"([\d.]+)x", line)[0]) for line in lines[1:4]}
    assert gain["t4"] < 1.3 < fewer and gain["t4"] < gain["tpu-v3-core"] < gain["raspberry-pi-4"] <= fewer
    time = {int(x[0]): x[1] for x in re.findall(r"(\d+) filters on T4: (\d+)", table)}
    assert time[255] == time[256] and int(time[129]) > int(time[128])
    dense, sparse = numbers(lines[-1])[-2:]
    assert sparse < dense


def story_6() -> None:
    efficient, resnet, table = of(6)
    assert share(efficient, "memory bandwidth") > 2 * share(resnet, "memory bandwidth")
    useful = [numbers(re.search(r"^  Cores +(.*)$", t, re.MULTILINE)[1])[0] for t in (efficient, resnet)]  # type: ignore[index]
    assert useful[0] < useful[1] / 2
    by = {(w[0], w[1]): numbers(line) for line in table.splitlines() if (w := line.split())}
    for stack in ("compiled", "eager"):
        small, large = by[stack, "efficientnet_b2"][-1], by[stack, "resnet50"][-1]
        assert small > 0.6 * large  # a quarter of the work, most of the time


def story_7() -> None:
    fits, spills, run, four = of(7)
    assert "streaming uncached model parameters: 0.00B" in fits
    streamed = float(re.search(r"Off-chip .*: ([\d.]+)MiB", spills)[1])  # type: ignore[index]
    assert streamed > 10 and bound(run) == "parameter streaming" and share(run, "parameter streaming") > 50
    assert len(re.findall(r"segment \d of 4", four)) == 4
    assert sum(float(x) for x in re.findall(r"Off-chip .*: ([\d.]+)MiB", four)) < streamed / 4


def story_8() -> None:
    compiled, run = of(8)
    for status in ("Mapped to Edge TPU", "More than one subgraph is not supported", "unsupported data type"):
        assert status in compiled
    assert bound(run) == "host work" and "64 of 72 operators on the Edge TPU, 8 on" in run


def story_9() -> None:
    run, compared, sizes = of(9)
    assert bound(run) in ("host work", "host link")
    alone = re.search(r"desktop-xeon alone .*: [\d.]+ ms, ([\d.]+) times as long", " ".join(run.split()))
    assert alone and float(alone[1]) < 1
    ms = {name: float(cells[4]) for name, cells in rows(compared).items()}
    assert ms["desktop-xeon"] < ms["coral-usb:max"]
    million = {line.split()[0]: numbers(line.split("from")[1])[0] for line in sizes.splitlines()}
    assert million["coral-usb:max@raspberry-pi-4/usb3"] < million["coral-usb:max"]  # a slower host: it pays earlier
    assert million["coral-usb:max@raspberry-pi-4/usb3"] < million["coral-usb:max@raspberry-pi-4/usb2"]


def story_10() -> None:
    large, small, mini, chips = of(10)
    ms = {name: float(cells[4]) for name, cells in rows(large).items()}
    assert ms["coral-dev-board-mini:max"] > 4 * ms["coral-usb:max"]
    quick = {name: float(cells[4]) for name, cells in rows(small).items()}
    ratio = quick["coral-dev-board-mini:max"] / quick["coral-usb:max"]
    assert 1.5 < ratio < ms["coral-dev-board-mini:max"] / ms["coral-usb:max"]
    assert share(mini, "parameter streaming") > 80
    one, two, four = (max(numbers(line.split(":")[-1])) for line in chips.splitlines())
    assert four < two < one


def story_11() -> None:
    text = of(11)[0]
    found = rows(text)
    assert "FAIL" in found["jetson-nano:maxn"] and "PASS" in found["jetson-orin-nano:15w"]
    verdicts = ["PASS" in cells for cells in found.values()]
    assert verdicts == sorted(verdicts, reverse=True)  # what meets the objective comes first
    assert "purchase 99 USD (read 2019" in text and "Next to try" in text


def story_12() -> None:
    compared, table = of(12)
    assert len(rows(compared)) == 4
    for line in table.splitlines()[2:]:
        peak, net, token = (float(x) for x in re.findall(r"([\d.]+)x", line))
        assert 1.1 < net <= peak * 1.02 and 1.0 < token <= peak * 1.02  # no more than clocks and units explain
    thirty = next(line for line in table.splitlines() if line.startswith("30w"))
    assert 1.5 < float(re.findall(r"([\d.]+)x", thirty)[2]) < 4.0  # DRAM alone says 1, clocks and units 4.25


def story_13() -> None:
    run, capped, served = of(13)
    assert re.search(r"Energy .* average [\d.]+ W of 15.0 W TDP", run)
    assert re.search(r"design power of 70 W: the clock falls to \d+ of \d+ MHz", " ".join(capped.split()))
    work, waiting = re.search(r"work ([\d.]+) mJ, waiting ([\d.]+) mJ", served).groups()  # type: ignore[union-attr]
    assert float(waiting) > float(work)


def story_14() -> None:
    gpu, dla, torn, both = of(14)
    assert latency(dla) > latency(gpu) and "55 of 55 kernels on one DLA in 1 subgraph" in dla
    assert watts(dla) < watts(gpu)
    assert bound(torn) == "dispatch" and "hswish is no layer of dla" in torn
    assert re.search(r"\d+ images on the GPU, \d+ on each of 2 DLAs", both)


def watts(text: str) -> float:
    return float(re.search(r"average ([\d.]+) W", text)[1])  # type: ignore[index]


def story_15() -> None:
    found = [line.split() for line in of(15)[0].splitlines() if re.match(r" +\d+ +a100", line)]
    by = {int(cells[3]): (float(cells[5]), float(cells[7]), cells[4]) for cells in found}
    assert set(by) == {1, 2, 4, 8, 16, 32, 64, 128}
    assert by[2][1] > 1.6 * by[1][1] and by[128][1] < 1.1 * by[64][1]  # before and behind the knee
    assert [by[b][0] for b in sorted(by)] == sorted(by[b][0] for b in by)
    assert by[1][2] == "PASS" and by[128][2] == "FAIL"


def story_16() -> None:
    refused, fits, full, batch, nano, fast = of(16)
    assert "does not fit" in refused and "narrower precision" in refused
    assert re.search(r"Memory +weights .* key/value cache .* of 8.00 GiB", fits)
    would = re.search(r"does not fit .*batch (\d+) per program.* would fit", full)
    assert would and 16 <= int(would[1]) < 64
    assert "key/value cache 16.0 GiB" in batch and re.search(r"^  Fits +batch \d+", batch, re.MULTILINE)
    paces = [float(re.search(r"([\d.]+) tokens/s", text)[1]) for text in (nano, fast)]
    assert 1.2 < paces[1] / paces[0] < 1.6  # as the bandwidths are to each other: 102 to 68 GB/s
    assert "weights 4.61 GiB" in nano and "of 8.00 GiB" in nano


def story_17() -> None:
    table, decode, prefill = of(17)
    by = {line.split()[0]: numbers(line) for line in table.splitlines()[1:]}
    for name in ("w8a16", "w4a16"):
        gain, ratio = by[name][-2:]
        assert 1.2 < gain < ratio < 4
    assert bound(decode) == "memory bandwidth" and "widened to bf16 in the main loop" in decode
    assert bound(prefill) == "tensor cores"


def story_18() -> None:
    run, table = of(18)
    useful, padded = numbers(re.search(r"^  Arrays +(.*)$", run, re.MULTILINE)[1])[:2]  # type: ignore[index]
    assert useful < 5 < padded
    for line in table.splitlines()[1:]:
        parts = [float(x) for x in re.findall(r"([\d.]+)%", line)]
        assert len(parts) == 4 and sum(parts) == pytest.approx(100, abs=0.3)
        if " features.0.0 " in line:
            assert parts[0] < 2 and parts[1] > 30  # the stem: padding, not waiting


def story_19() -> None:
    reference, xnnpack, compared = of(19)
    assert "0 of" in reference and "0 of" in xnnpack
    assert len(re.findall(r"first difference in operator \d+, \w+: [\d.]+% of values, at most 1 step", compared)) == 2


def story_20() -> None:
    run, served = of(20)
    line = " ".join(run.split())
    assert re.search(r"Pipeline decode .* \+ network .* \+ nms ", line)
    part = re.search(r"of which the network (\d+) %", line)
    assert part and int(part[1]) < 50
    assert "host work on each request: 20 ms before" in served


def story_21() -> None:
    idle, busy, over = of(21)
    cost = [{name: float(re.sub(r" b$", "", cells[-2])) for name, cells in rows(text).items()} for text in (idle, busy)]
    assert min(cost[0], key=cost[0].__getitem__) == "raspberry-pi-5"
    assert cost[0]["t4"] > 1000 * cost[1]["t4"]  # an idle card is paid for all the same
    assert "given by the user" in idle
    segments = [
        line.split()
        for line in over[over.index("Cheapest by") :].splitlines()
        if re.match(r" +[\d.]+ +(\d|and up)", line)
    ]
    assert segments[0][2] == "raspberry-pi-5" and "jetson-orin-nano:15w" in segments[-1]  # small traffic, small board
    assert len(segments) > 2  # one more machine at a time


def story_22() -> None:
    table, processor, tpu = of(22)
    total = next(line for line in table.splitlines() if line.startswith("  all"))
    assert numbers(total)[1] < numbers(total)[-1]  # better than the roofline of the same rows
    assert re.search(r"likely [\d.]+ \w+ to [\d.]+ \w+ \(\d+ measured network rows", processor)
    assert re.search(r"measured kernel rows|likely", tpu)


STATEMENTS: dict[int, Callable[[], Any]] = {n: globals()[f"story_{n}"] for n in range(1, 23)}


@pytest.mark.parametrize("number", sorted(STATEMENTS))
def test_the_answer_explains_what_the_page_says(number: int) -> None:
    STATEMENTS[number]()
