"""Power beside the accelerator: modules at rest, Jetson kits at the wall."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, load_constants, vary
from hwsim.power import Span
from hwsim.power.gpu import gpu_power_profile, voltage_curve
from hwsim.power.wall import wall_power_w

STUDY = Path(__file__).resolve().parents[2] / "studies" / "power"


def test_wall_power_is_carrier_and_supply() -> None:
    c = load_constants("power")
    agx, nx = load_accelerator("jetson-agx-orin-64gb"), load_accelerator("jetson-orin-nx-16gb")
    ten = Span(10.0, 8.0, 15.0)
    assert wall_power_w(agx, ten).value == pytest.approx(c["carrier_agx"] + 10 * c["supply"])
    assert wall_power_w(nx, ten).value == pytest.approx(c["carrier_nx"] + 10 * c["supply"])
    low, high = wall_power_w(agx, ten)[1:]
    assert low < wall_power_w(agx, ten).value < high
    with pytest.raises(HwsimError, match="server around a100-pcie-40gb"):
        wall_power_w(load_accelerator("a100-pcie-40gb"), ten)


def test_a_modules_power_at_rest_is_its_files() -> None:
    acc = load_accelerator("jetson-agx-orin-64gb")
    parts = {p.name: p.power_w.value for p in gpu_power_profile(acc).statics}
    assert parts["soc"] == acc.power.idle_w and set(parts) == {"clocks", "dram", "soc", "cpu"}
    unknown = gpu_power_profile(load_accelerator("jetson-tx1"))
    assert any("at rest is assumed" in note for note in unknown.notes)


def test_slower_clocks_of_a_module_cost_less_at_every_step() -> None:
    base = load_accelerator("jetson-agx-orin-64gb:maxn")
    watts, per_image = [], []
    for mhz in (400, 625, 829, 1033, 1300):
        acc = vary(base, {"sm.clock": f"{mhz} MHz"}, "assumed: a test")
        result = hwsim.simulate("resnet50", acc, batch=8, precision="int8")
        watts.append(result.power_w)
        per_image.append(result.energy.dynamic_j)
    assert watts == sorted(watts) and per_image == sorted(per_image)
    # Up to the knee the supply holds, so the work costs the same.
    assert voltage_curve(base).knee_hz > 625e6 and per_image[0] == pytest.approx(per_image[1], rel=0.02)
    assert per_image[-1] > 1.5 * per_image[0]


def test_a_measured_row_at_its_clocks() -> None:
    """ResNet-50, one image at a time, AGX Orin in the MaxQ configuration of MLPerf v3.0: 14.8 W at the wall."""
    changes = {
        "sm.clock": "624.75 MHz", "soc.emc_clock": "2133 MHz", "memory.dram.bandwidth": "136.5 GB/s",
        "soc.cpu_clock": "576 MHz", "soc.cpu_cores": 4,
    }  # fmt: skip
    acc = vary(load_accelerator("jetson-agx-orin-64gb:maxn"), changes, "assumed: the row's clocks")
    result = hwsim.simulate("resnet50", acc, batch=1, precision="int8", stack="compiled")
    low, high = (joules / float(result.energy.time_s.sum()) for joules in result.energy.interval_j)
    wall = wall_power_w(acc, Span(result.power_w, low, high))
    assert wall.low < 14.8 < wall.high and wall.value == pytest.approx(14.8, rel=0.35)


def test_the_study_says_what_its_rows_say() -> None:
    with (STUDY / "jetson.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (STUDY / "scores.csv").open(encoding="utf-8") as file:
        total = next(csv.reader(list(file)[1:]))
    assert len(rows) == 70 and total[1] == "70"
    for column, at in (("modelled_w_at_measured_rate", 2), ("modelled_w", 5)):
        error = np.array([float(r[column]) / float(r["measured_w"]) - 1 for r in rows])
        assert float(total[at].rstrip("%")) == pytest.approx(100 * np.median(abs(error)), abs=0.1)
        assert np.median(abs(error)) <= 0.16 and np.quantile(abs(error), 0.9) <= 0.35
