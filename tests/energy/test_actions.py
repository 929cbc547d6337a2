"""Energy tables: every figure has a source and an interval, and reads between nodes and capacities are sane."""

from __future__ import annotations

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.data import accelerators_dir
from hwsim.energy.cells import ADDERS, adder_of, multiplier_j
from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.machine.sections import DRAM_KINDS
from hwsim.machine.values import source_kind
from hwsim.power.actions import ACTION_COLUMNS, load_actions, load_sram, loglog
from hwsim.power.span import Span

NODES = st.floats(3, 130)


def test_every_record_has_a_source_and_an_interval_around_its_value() -> None:
    records = load_actions().all_records()
    assert len(records) > 80
    for record in records:
        assert record.kind == source_kind(record.source)
        assert 0 < record.span.low <= record.span.value <= record.span.high < math.inf


def test_every_sram_row_has_a_source() -> None:
    text = (accelerators_dir() / "constants" / "energy_sram.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert len(rows) == 61
    for row in rows:
        source_kind(row["source"])


def test_every_dram_kind_a_machine_may_have_and_every_format_is_covered() -> None:
    actions = load_actions()
    for kind in DRAM_KINDS:
        assert actions.at("dram", kind, 7).value > 0
    for name in FORMATS:
        assert multiplier_j(name, 7).value > 0 and adder_of(name) in ADDERS


@given(st.sampled_from(sorted(FORMATS)), NODES, NODES)
def test_arithmetic_falls_with_the_node(name: str, first: float, second: float) -> None:
    small, large = sorted((first, second))
    actions = load_actions()
    for at in (multiplier_j, lambda n, node: actions.at("add", adder_of(n), node)):
        low, high = at(name, small), at(name, large)
        assert low.value <= high.value * (1 + 1e-12)
        assert low.low <= low.value <= low.high


@given(st.floats(1024, 2**28), st.floats(1024, 2**28), NODES, NODES)
def test_sram_rises_with_capacity_and_node(size: float, other: float, node: float, another: float) -> None:
    sram = load_sram()
    sizes, nodes = sorted((size, other)), sorted((node, another))
    for read in (sram.read, sram.write):
        # The table itself is not monotonic in capacity for writes where the word widens (8 to 32 kB, 64 bits).
        if read == sram.read:
            assert read(sizes[0], node).value <= read(sizes[1], node).value * (1 + 1e-12)
        assert read(size, nodes[0]).value <= read(size, nodes[1]).value * (1 + 1e-12)
        span = read(size, node)
        assert span.low <= span.value <= span.high


def test_tables_are_read_exactly_at_their_own_points() -> None:
    actions, sram = load_actions(), load_sram()
    assert actions.at("multiply", "int8", 45).value == pytest.approx(0.2e-12)
    assert actions.at("multiply", "bf16", 7).value == pytest.approx(0.21e-12)
    assert sram.read(32 * 1024, 45).value == pytest.approx(17.0418e-12 / 64)
    assert sram.write(2 << 20, 22).value == pytest.approx(87.2286e-12 / 256)
    assert sram.read(128 << 20, 7).value == pytest.approx(1.88e-12)
    ratio = sram.read(128 << 20, 28).value / sram.read(16 << 20, 28).value
    assert ratio == pytest.approx(1.88 / (284.602 / 512))


def test_published_figures_lie_in_the_intervals() -> None:
    """What other tools and papers state at a stated node is inside the interval, wherever it was not used itself."""
    sram = load_sram()
    for size_kb, node, pj_per_bit in ((32, 45, 20 / 64), (1024, 45, 100 / 64), (1024, 7, 14 / 64), (4096, 7, 0.249)):
        span = sram.read(size_kb * 1024, node)
        assert span.low <= pj_per_bit * 1e-12 <= span.high * (1 + 1e-9)
    mac = load_actions().at("multiply", "int8", 7).plus(load_actions().at("add", "int32", 7))
    assert mac.low <= 0.084e-12 <= mac.high


def test_loglog_is_a_power_law_between_and_beyond() -> None:
    xs, ys = (1.0, 10.0, 100.0), (2.0, 20.0, 2000.0)
    for x, y in ((0.1, 0.2), (1, 2), (3, 6), (10, 20), (31.6227766, 200), (1000, 200000)):
        assert loglog(x, xs, ys) == pytest.approx(y)
    points = [loglog(x / 7, xs, ys) for x in range(1, 2000)]
    assert all(a < b for a, b in pairwise(points))


def test_spans_add_and_scale_by_their_ends() -> None:
    assert Span(2, 1, 4).plus(Span(1, 0, 2)).scaled(3) == Span(9, 3, 18)


def test_unknown_keys_name_the_near_ones() -> None:
    with pytest.raises(HwsimError, match="hbm2"):
        load_actions().at("dram", "hbm22", 7)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("multiply,int8,45,0.2,0.3,0.9,pJ,horowitz", "outside its interval"),
        ("multiply,int8,45,0.2,0.1,0.9,pF,horowitz", "unit"),
        ("multiply,int8,45,0.2,0.1,0.9,pJ,", "source"),
        ("multiply,int8,45,0.2,0.1,0.9,pJ,assumed", "no reason"),
        ("multiply,int8,45,nan,0.1,0.9,pJ,horowitz", "value"),
        ("multiply,int8,45,-1,-2,0.9,pJ,horowitz", "value"),
        ("multiply,int8,x,0.2,0.1,0.9,pJ,horowitz", "node_nm"),
        ("multiply,int8,45,0.2", "fields"),
    ],
)
def test_damaged_tables_are_refused_with_their_line(tmp_path: Path, line: str, word: str) -> None:
    file = tmp_path / "actions.csv"
    file.write_text("# comment\n" + ",".join(ACTION_COLUMNS) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(HwsimError) as error:
        load_actions(file)
    assert "line 3" in str(error.value) and word in str(error.value) and "\n" not in str(error.value)
