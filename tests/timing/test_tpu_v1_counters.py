"""TPU v1's cycle counters: the six applications of the paper within 8 points each, and what it takes to get there."""

from __future__ import annotations

import functools
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import hwsim
from hwsim.plan.plan import Plan

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies" / "tpu_v1"))

import counters as study

APPS = {app.name: app for app in study.measured()}
POINTS = 8.0  # the bar; the vendor's own model errs by 5 to 11 % of cycles


@functools.cache
def plan_of(name: str) -> Plan:
    return study.plan_of(APPS[name])


def worst(machine: study.Machine) -> float:
    return max(study.worst(study.errors(app, study.counters(plan_of(app.name), machine))) for app in APPS.values())


def test_measured_counters_account_for_every_cycle() -> None:
    for app in APPS.values():
        assert sum(app.values[c] for c in study.COUNTERS) == pytest.approx(100, abs=0.15), app.name


@pytest.mark.parametrize("name", APPS)
def test_counters_within_the_bar(name: str) -> None:
    found = study.counters(plan_of(name), study.machine())
    for counter in study.COUNTERS:
        assert abs(found[counter] - APPS[name].values[counter]) <= POINTS, counter
    assert found["useful_macs"] == pytest.approx(APPS[name].values["useful_macs"], abs=1.0)


@pytest.mark.parametrize("name", APPS)
def test_the_study_times_what_a_run_times(name: str) -> None:
    result = hwsim.simulate(f"tpu1_{name.lower()}", study.MACHINE, batch=APPS[name].batch)
    assert result.cycles == study.counters(plan_of(name), study.machine())["cycles"]


def test_layer_sync_is_what_the_raw_stall_counter_says() -> None:
    """The constant is the RAW-stall counter per layer, and holds whichever application is left out of the median."""
    machine = study.machine()
    plans = {name: plan_of(name) for name in APPS}
    each = study.sync_of(list(APPS.values()), plans, machine)
    assert statistics.median(each.values()) == pytest.approx(machine.constants["layer_sync"], rel=0.02)
    for name, app in APPS.items():
        rest = statistics.median(v for other, v in each.items() if other != name)
        assert study.worst(study.errors(app, study.counters(plans[name], machine.with_sync(rest)))) <= POINTS


def fifo(tiles: int) -> study.Machine:
    machine = study.machine()
    return replace(machine, view=replace(machine.view, fifo_tiles=tiles))


def fetch(cycles: int) -> study.Machine:
    machine = study.machine()
    factor = machine.constants["memory_efficiency"] * 65536 / machine.view.dram_read / cycles
    return replace(machine, constants={**machine.constants, "memory_efficiency": factor})


def shift(rows_per_clk: int, clks_per_row: int) -> study.Machine:
    machine = study.machine()
    view = replace(machine.view, weight_rows_per_clk=rows_per_clk, clks_per_weight_row=clks_per_row)
    return replace(machine, view=view)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(fifo(1), id="queue of one tile"),
        pytest.param(fetch(1000), id="fetch in 1000 clocks"),
        pytest.param(fetch(2000), id="fetch in 2000 clocks"),
        pytest.param(shift(2, 1), id="shift in 128 clocks"),
        pytest.param(shift(1, 2), id="shift in 512 clocks"),
        pytest.param(study.machine().with_sync(1000), id="layers a third of the synchronisation apart"),
    ],
)
def test_a_wrong_machine_misses_the_bar(wrong: study.Machine) -> None:
    assert worst(wrong) > POINTS


def test_cnn0_needs_both_weight_planes() -> None:
    """2888 rows per tile hide every fetch and shift, as measured; with one plane each shift shows."""
    machine = study.machine()
    single = replace(machine, view=replace(machine.view, double_buffer=False))
    both, one = (study.counters(plan_of("CNN0"), m)["weight_shift"] for m in (machine, single))
    assert both < 0.05
    assert one > 3


def test_queue_of_four_is_not_told_from_two() -> None:
    """What these counters cannot see, so that nobody reads it into them."""
    assert abs(worst(fifo(2)) - worst(fifo(4))) < 1
