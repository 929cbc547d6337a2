"""The GEMM engine's main loops beside the closed form of the SM, operands found in the L2."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_instructions import instruction

STUDY = Path(__file__).resolve().parents[2] / "studies" / "gpu_sm" / "engine.py"


@pytest.fixture(scope="module")
def study() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_sm_engine_study", STUDY)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("device", "number_format", "name"), [
    ("v100-sxm2", "fp16", "hmma.884"), ("a100-sxm4-80gb", "fp16", "mma.16816"), ("a100-sxm4-80gb", "int8", "mma.16832"),
    ("a10", "fp16", "mma.16816"), ("l40s", "fp16", "mma.16816"), ("h100-sxm", "fp16", "wgmma.64nk16"),
    ("h100-sxm", "fp8", "wgmma.64nk32"), ("b200", "fp16", "tcgen05.128nk16"),
])  # fmt: skip
def test_without_its_fitted_shares_the_engine_is_the_sm(study, device, number_format, name):
    """Equal where tensor pipe, link or shared memory limit; the rest is what the engine's shares and `step` stand for."""
    view = study.without_shares(gpu_view(load_accelerator(device)))
    tiles, engine = study.engine_clocks(view, number_format, "dense")
    i = instruction(view.architecture, name)
    equal = 0
    for at in range(len(tiles)):
        form = study.sm_clocks(view, i, tiles, at)
        if form is None:
            continue
        assert float(engine[at]) <= form[0] * (1 + 1e-9), tiles.name[at]
        if form[1] in ("tensor", "link"):
            assert float(engine[at]) == pytest.approx(form[0], rel=1e-6), tiles.name[at]
            equal += 1
    assert equal >= len(tiles) / 2


def test_fitted_shares_stay_within_what_a_main_loop_can_lose(study):
    """Nothing the engine says of a main loop is far under the SM's own bound, nor over it by more than its L2 share."""
    ratios = [float(r["engine_over_sm"]) for r in study.compare() if r["limit"] in ("tensor", "link", "shared")]
    assert np.quantile(ratios, 0.02) >= 0.78
    assert max(ratios) <= 2.0
