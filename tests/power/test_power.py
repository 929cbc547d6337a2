"""Power without a schedule: the voltage curve, joules of hand-made activities, and the clock a limit allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary
from hwsim.machine.constants import load_constants
from hwsim.power import (
    Action,
    Activity,
    PowerProfile,
    Span,
    StaticPart,
    VoltageCurve,
    joules,
    stretched,
    sustained_clock,
)
from hwsim.power.gpu import gpu_power_profile, macs_per_lane

CURVE = VoltageCurve(floor_v=0.7, top_v=1.0, knee_hz=0.75e9, top_hz=1.5e9, reference_v=0.8)
PROFILE = PowerProfile(
    (
        Action("mac", "matrix", Span(1e-12, 0.5e-12, 2e-12), core=True, toggles=True),
        Action("read dram", "dram", Span(40e-12, 40e-12, 60e-12)),
    ),
    (
        StaticPart("idle", Span(30, 30, 30)),
        StaticPart("leakage", Span(20, 10, 40), "leakage"),
        StaticPart("clocks", Span(25, 10, 40), "clocking"),
    ),
    CURVE, clock_hz=1.5e9, floor_hz=0.2e9, tdp_w=250.0,
)  # fmt: skip


def test_voltage_is_flat_to_the_knee_and_linear_above() -> None:
    assert CURVE.volts(0.1e9) == CURVE.volts(0.75e9) == pytest.approx(0.7)
    assert CURVE.volts(1.125e9) == pytest.approx(0.85) and CURVE.volts(1.5e9) == pytest.approx(1.0)
    assert CURVE.dynamic(1.5e9) == pytest.approx(1 / 0.64)
    assert CURVE.leakage(1.5e9) == 1.0 and CURVE.clocking(1.5e9) == 1.0
    assert CURVE.clocking(0.75e9) == pytest.approx(0.5 * 0.49)
    with pytest.raises(HwsimError, match="does not rise"):
        VoltageCurve(1.0, 0.9, 1.0, 2.0, 0.8)


def test_joules_by_hand() -> None:
    work = Activity.of({"mac": 1e12, "read dram": 1e9}, 0.01)
    spent = joules(work, PROFILE)
    assert spent.by_component["matrix"] == pytest.approx(1.0 / 0.64)
    assert spent.by_component["dram"] == pytest.approx(0.04)
    assert spent.by_component["static"] == pytest.approx(0.75)
    assert spent.total_j.low < spent.total_j.value < spent.total_j.high
    assert spent.power_w.value == pytest.approx(spent.total_j.value / 0.01)
    slow = joules(work, PROFILE, clock_hz=0.75e9)
    assert slow.by_component["matrix"] == pytest.approx(0.49 / 0.64)
    assert slow.by_component["static"] == pytest.approx(0.01 * (30 + 20 * 0.7**3 + 25 * 0.245))
    assert joules(work, PROFILE, toggle=0.5).by_component["matrix"] == pytest.approx(0.5 / 0.64)


def test_bad_activities_are_refused() -> None:
    with pytest.raises(HwsimError, match=r"no action .mcc.*mac"):
        joules(Activity.of({"mcc": 1}, 1.0), PROFILE)
    with pytest.raises(HwsimError, match="negative"):
        Activity.of({"mac": -1}, 1.0)
    with pytest.raises(HwsimError, match="above 0 s"):
        stretched(0.0, [1.0, 0.0], 1e9)


def test_a_kernel_below_the_limit_keeps_its_clock() -> None:
    found = sustained_clock(PROFILE, Activity.of({"mac": 1e10}, 1.0), stretched(1.0, 0.0, 1.5e9))
    assert found.clock_hz[0] == 1.5e9 and not found.limited[0] and found.iterations == 0


def test_a_hot_kernel_meets_the_limit_and_power_equals_its_joules() -> None:
    work = Activity.of({"mac": [4e12, 1e10]}, [0.01, 0.01])
    found = sustained_clock(PROFILE, work, stretched([0.01, 0.01], 0.0, 1.5e9))
    assert found.limited.tolist() == [True, False]
    assert found.power_w[0] == pytest.approx(250, rel=1e-4) and found.clock_hz[1] == 1.5e9
    at = joules(Activity(work.names, work.counts, found.time_s), PROFILE, clock_hz=found.clock_hz)
    assert at.energy_j[0, :, 0].sum() / found.time_s[0] == pytest.approx(found.power_w[0])


def test_a_limit_below_the_idle_power_ends_at_the_lowest_clock() -> None:
    found = sustained_clock(PROFILE, Activity.of({"mac": 1e12}, 1.0), stretched(1e-3, 0.0, 1.5e9), tdp_w=10.0)
    assert found.clock_hz[0] == pytest.approx(0.2e9) and found.power_w[0] > 10 and found.limited[0]


def test_kernels_together_have_one_clock_and_their_mean_power_is_limited() -> None:
    work = Activity.of({"mac": [8e12, 0.0]}, [0.01, 0.01])
    time_at = stretched([0.01, 0.0], [0.0, 0.01], 1.5e9)
    alone = sustained_clock(PROFILE, work, time_at)
    both = sustained_clock(PROFILE, work, time_at, together=True)
    assert both.clock_hz.shape == (1,) and both.power_w[0] == pytest.approx(250, rel=1e-4)
    assert both.clock_hz[0] > alone.clock_hz[0]  # the idle half leaves room
    assert both.time_s[0] == pytest.approx(0.01 * 1.5e9 / both.clock_hz[0] + 0.01)


positive = st.floats(1e-6, 1e-1)


@given(st.floats(0, 1e13), st.floats(0, 1e10), positive, st.floats(0, 1e-1), st.floats(40, 500), st.floats(1.0, 2.0))
@settings(max_examples=200)
def test_the_clock_converges_and_is_monotone(
    macs: float, moved: float, compute: float, other: float, limit: float, more: float
) -> None:
    work = Activity.of({"mac": macs, "read dram": moved}, compute)
    time_at = stretched(compute, other, 1.5e9)
    found = sustained_clock(PROFILE, work, time_at, tdp_w=limit)
    clock, watts = found.clock_hz[0], found.power_w[0]
    assert 0.2e9 <= clock <= 1.5e9 and found.iterations <= 24
    # Within the limit, or already at the lowest clock.
    assert watts <= limit * (1 + 1e-9) or clock == 0.2e9
    if found.limited[0] and clock > 0.2e9:  # a little more clock would be too much
        faster = clock * (1 + 1e-5)
        seconds = float(time_at(np.array([faster]))[0])
        again = joules(Activity.of({"mac": macs, "read dram": moved}, seconds), PROFILE, clock_hz=faster)
        assert again.power_w.value >= limit * (1 - 1e-9)
    # More power, less work or constant data never lower the clock.
    for case in (
        sustained_clock(PROFILE, work, time_at, tdp_w=limit * more),
        sustained_clock(PROFILE, Activity.of({"mac": macs / more, "read dram": moved}, compute), time_at, tdp_w=limit),
        sustained_clock(PROFILE, work, time_at, tdp_w=limit, toggle=0.7),
    ):
        assert case.clock_hz[0] >= clock - 2e-6 * 1.5e9
        assert case.time_s[0] <= found.time_s[0] * (1 + 4e-5)


def test_many_problems_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    macs, compute = rng.uniform(0, 1e13, 50), rng.uniform(1e-3, 1e-1, 50)
    together = sustained_clock(PROFILE, Activity.of({"mac": macs}, compute), stretched(compute, 0.0, 1.5e9))
    assert 0 < together.limited.sum() < 50
    for i in range(50):
        one = sustained_clock(PROFILE, Activity.of({"mac": macs[i]}, compute[i]), stretched(compute[i], 0.0, 1.5e9))
        assert one.clock_hz[0] == together.clock_hz[i] and one.power_w[0] == pytest.approx(together.power_w[i])


def test_the_profile_of_a_gpu() -> None:
    profile = gpu_power_profile(load_accelerator("a100-sxm4-80gb"))
    at = {a.name: a for a in profile.actions}
    c = load_constants("power", "ampere-ga100")
    # fp16 products are summed in fp32 by an adder tree that rounds once; 7 bits of operands and sums move at 7 nm.
    mac = c["tensor_energy"] * (0.34 + 0.75 * 0.38 + 7 * c["tensor_register_bit"] * 1e12) * 1e-12
    assert at["mac fp16"].energy_j.value == pytest.approx(mac, rel=0.01, abs=0)
    assert at["instruction"].energy_j.value == pytest.approx(13e-12 * c["instruction_energy"], rel=0.02, abs=0)
    assert at["read dram"].energy_j.value == pytest.approx(8 * 3.7e-12) and not at["read dram"].core
    assert at["padding fp16"].energy_j.value < at["mac fp16"].energy_j.value
    assert at["mac int8"].energy_j.value < at["mac fp16"].energy_j.value < at["mac tf32"].energy_j.value * 1.001
    assert profile.tdp_w == 400 and not profile.notes  # its idle power is measured
    assert any("idle power of l4 is assumed" in note for note in gpu_power_profile(load_accelerator("l4")).notes)
    assert macs_per_lane("mma", "fp16") == 64 and macs_per_lane("mma", "int8") == 128


def test_a_smaller_die_and_a_finer_node_cost_less() -> None:
    acc = load_accelerator("a100-sxm4-80gb")
    wide, small = gpu_power_profile(acc), gpu_power_profile(vary(acc, {"chip.die_area": "400 mm2"}))
    l2 = wide.index["read l2"]
    assert small.energy_j[l2, 0] < wide.energy_j[l2, 0]
    finer = gpu_power_profile(vary(acc, {"power.node": "5 nm"}))
    for name in ("mac fp16", "instruction", "read l2", "lane"):
        assert finer.energy_j[finer.index[name], 0] < wide.energy_j[wide.index[name], 0]
    slower = gpu_power_profile(vary(acc, {"sm.clock": "900 MHz"}))
    assert slower.curve is not None and wide.curve is not None
    assert slower.curve.top_hz == wide.curve.top_hz  # the silicon is the same
    assert float(slower.static_w()[0]) < float(wide.static_w()[0])


def test_idle_power_without_a_measurement_is_near_the_measured_ones() -> None:
    """nvidia-smi listings: A100-SXM4-80GB 59 to 60 W, H100 SXM 72 to 88 W; the rule for boards without one: within a third."""
    for name, low, high in (("a100-sxm4-80gb", 59, 60), ("h100-sxm", 72, 88)):
        acc = load_accelerator(name)
        bare = replace(acc, power=replace(acc.power, idle_w=None))
        assert low * 0.67 < float(gpu_power_profile(bare).static_w(210e6)[0]) < high * 1.33


@pytest.mark.parametrize(("board", "measured"), [("250 W", 15.8), ("300 W", 17.5)])
def test_fp32_products_of_two_a100_boards_slow_down_as_measured(board: str, measured: float) -> None:
    """SGEMM medians of the neusight rows, large shapes: 15.8 and 17.5 TFLOP/s of a peak of 19.5; here within 12 %."""
    profile = gpu_power_profile(vary(load_accelerator("a100-sxm4-80gb"), {"power.tdp": board}))
    macs = 4096.0**3
    per_mac = {"simt fp32": 1.0, "instruction": 1.06 * 1.15, "read l2": 2 * 4 / 128, "read shared_memory": 0.25}
    seconds = macs * 2 / (0.95 * 19.5e12)
    work = Activity.of({name: macs * n for name, n in per_mac.items()}, seconds)
    found = sustained_clock(profile, work, stretched(seconds, 0.0, profile.clock_hz))
    assert found.limited[0] and found.power_w[0] == pytest.approx(float(board.split()[0]), rel=1e-4)
    assert 2 * macs / found.time_s[0] / 1e12 == pytest.approx(measured, rel=0.12)
