"""Energy of processors: what busy cores draw, and parts that add up."""

from __future__ import annotations

import math

import pytest

import hwsim
from hwsim.energy.cores import core_power_w
from hwsim.machine import load_accelerator


@pytest.mark.parametrize("device", ["raspberry-pi-4", "nucleo-l4r5zi", "x86-server"])
def test_components_add_up_and_stay_near_the_stated_power(device: str) -> None:
    acc = load_accelerator(device)
    result = hwsim.simulate("mlperf_tiny_ic", device, precision="int8")
    energy = result.energy
    assert math.fsum(energy.by_component.values()) == pytest.approx(energy.total_j, rel=1e-12)
    assert (energy.low_j.sum(axis=1) <= energy.joules.sum(axis=1)).all()
    assert (energy.high_j.sum(axis=1) >= energy.joules.sum(axis=1)).all()
    each = core_power_w(acc)
    assert each is not None and each > 0
    busy = acc.power.busy_w if acc.power.busy_w is not None else acc.power.tdp_w
    assert busy is not None and energy.power_w <= 1.05 * busy


def test_one_thread_draws_less_than_four_but_needs_more_energy_at_rest() -> None:
    one, four = (hwsim.simulate("mobilenet_v2", "raspberry-pi-4", stack=f"xnnpack:{n}").energy for n in (1, 4))
    assert one.power_w < four.power_w
    assert one.by_component["static"] > four.by_component["static"]


def test_the_cores_share_goes_with_the_time() -> None:
    energy = hwsim.simulate("mobilenet_v1", "raspberry-pi-4", stack="xnnpack:4").energy
    assert energy.by_component["cores"] > 0.3 * energy.dynamic_j  # instructions dwarf the arithmetic itself
