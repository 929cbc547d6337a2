"""The GEMM engine's main loops: those of the SM's closed form over the whole catalogue, and of its twin on samples."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_instructions import instruction
from hwsim.timing.gpu_loop import shape_of
from hwsim.timing.reference.gpu_program import Tile
from hwsim.timing.reference.gpu_sm import SmConfig
from hwsim.timing.reference.gpu_steady import period, run_tile

PATH = Path(__file__).resolve().parents[2] / "studies" / "gpu_sm" / "engine.py"
SPEC = importlib.util.spec_from_file_location("gpu_sm_engine_study", PATH)
assert SPEC and SPEC.loader
study: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(study)


@pytest.mark.parametrize("case", study.CASES, ids=lambda c: "-".join(c))
def test_without_its_fitted_shares_the_engine_is_the_closed_form(case):
    """*Exact*: every tile of the catalogue that is made of whole instructions, from one CTA an SM to as many as fit."""
    device, number_format, sparsity, name = case
    view = study.without_shares(gpu_view(load_accelerator(device)))
    i = instruction(view.architecture, name)
    tiles, _ = study.engine_clocks(view, number_format, sparsity)
    compared = 0
    for residents in range(1, int(tiles.occupancy.max()) + 1):
        held = np.minimum(residents, tiles.occupancy)
        _, engine = study.engine_clocks(view, number_format, sparsity, held)
        for at in range(len(tiles)):
            form = study.sm_clocks(view, i, tiles, at, int(held[at]))
            if form is not None:
                assert float(engine[at]) == pytest.approx(form[0], rel=1e-9), (tiles.name[at], int(held[at]), form[1])
                compared += residents == 1
    assert compared >= 0.4 * len(tiles)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(study.CASES), st.integers(0, 1000), st.integers(1, 3))
def test_the_twin_that_steps_every_clock_takes_what_the_engine_says(case, pick, residents):
    """*Bounded*, as the closed form is: never faster, and at most a quarter longer where several circuits are close."""
    device, number_format, sparsity, name = case
    view = study.without_shares(gpu_view(load_accelerator(device)))
    i = instruction(view.architecture, name)
    tiles, _ = study.engine_clocks(view, number_format, sparsity)
    small = [at for at in range(len(tiles)) if (t := study.sm_tile(view, i, tiles, at)) and _alone(t, tiles, at)]
    if not small:
        return
    at = small[pick % len(small)]
    held = np.minimum(residents, tiles.occupancy)
    t = study.sm_tile(view, i, tiles, at)
    tile = Tile(t["m"], t["n"], t["k"], t["unit_m"], t["unit_n"], i, t["stages"], t["slices"])
    config = SmConfig(
        view.sub_cores, 2 if view.architecture == "pascal" else 1,
        link_bytes_per_clk=Fraction(view.l2_bytes_per_clk) / view.sms,
        burst_bytes_per_clk=Fraction(view.l2_sm_bytes_per_clk), link_latency=round(view.dram_latency_s * view.clock_hz),
    )  # fmt: skip
    _, engine = study.engine_clocks(view, number_format, sparsity, held)
    clocks, _ = period(run_tile(tile, config, int(held[at]), 44 + 2 * tile.stages), tile.stages)
    assert float(clocks) >= float(engine[at]) * (1 - 0.006)
    assert float(clocks) <= float(engine[at]) * 1.25


def _alone(t: dict[str, int], tiles: Any, at: int) -> bool:
    """A tile whose CTAs share no operand with neighbours and that a twin steps in a second."""
    shares = t["share_a"] * t["share_b"] * t["split_a"] * t["split_b"]
    return shares == 1 and tiles.m[at] * tiles.n[at] <= 128 * 128


def test_instructions_an_architecture_lacks_are_those_of_its_kin():
    fp4 = shape_of("blackwell", "tcgen05", 4, False)
    assert (fp4.m, fp4.k) == (128, 64)
    assert shape_of("volta", "hmma", 8, False).k == 2 * shape_of("volta", "hmma", 16, False).k  # Xavier's int8
    assert shape_of("blackwell-gb20x", "mma", 16, False) == shape_of("ada", "mma", 16, False)
    assert shape_of("ampere-ga10b", "mma", 16, True).k == 2 * shape_of("ampere-ga10b", "mma", 16, False).k


def test_fitted_shares_stay_within_what_a_main_loop_can_lose():
    """Nothing the engine says of a main loop is under the SM's own bound, nor over it by more than its shares."""
    ratios = [float(r["engine_over_sm"]) for r in study.compare() if r["limit"] in ("tensor", "link", "shared")]
    assert min(ratios) >= 1.0
    assert max(ratios) <= 2.0
