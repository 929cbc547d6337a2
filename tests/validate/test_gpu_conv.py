"""Suite gpu-conv: rows become questions as their sources ran them; held-out rows keep to their target."""

from __future__ import annotations

from statistics import median

import pytest

from hwsim.validate import validate
from hwsim.validate.gpu_conv import _padded, cases, positions, settled, source_of
from hwsim.validate.measured import measured_dir


def test_rows_of_devices_the_table_lacks_come_from_the_other() -> None:
    found = cases(measured_dir())
    devices = {c.device for c in found}
    assert devices == {"A100-PCIE-80GB", "V100-PCIE-32GB", "T4", "V100", "P100-PCIE-16GB", "P4"}
    assert not any(c.excluded for c in found)
    neusight = [c for c in found if c.question["prefix"] == "neusight"]
    assert len({(c.device, c.question["position"]) for c in neusight}) == len(neusight)  # each ran once, at its place
    assert {c.group for c in neusight} >= {"neusight/winograd", "neusight/winograd 4x4", "neusight/implicit gemm"}


def test_sources_say_how_they_ran() -> None:
    half, whole = (source_of("deepbench", "T4", x) for x in ("fp16", "fp32"))
    assert half is not None and whole is not None and source_of("nobody", "T4", "fp32") is None
    odd = {"n": 1, "c": 3, "h": 161, "w": 700, "k": 33, "r": 3, "s": 3}
    assert _padded(whole, "fp32", odd) == odd
    assert _padded(half, "fp16", odd) == odd | {"c": 8, "k": 40}
    byte = source_of("deepbench", "T4", "int8")
    assert byte is not None and _padded(byte, "int8", odd) == odd | {"c": 32, "h": 164, "k": 64}
    assert _padded(byte, "int8", odd | {"c": 4, "h": 160, "k": 32}) == odd | {"c": 32, "h": 160, "k": 32}
    assert positions()["T4", "38", "893", "5", "326"] == 0


def test_a_limiter_that_has_not_acted_slows_nothing() -> None:
    assert settled(1e-3, 2e-3, 0.0) == 2e-3
    assert settled(1e-3, 2e-3, 1e3) == pytest.approx(1e-3, rel=1e-5)
    assert 1e-3 < settled(1e-3, 2e-3, 2e-3) < 2e-3


@pytest.mark.slow
def test_held_out_rows_keep_to_fifteen_percent() -> None:
    found = validate("gpu-conv")
    assert found.score().refused == 0
    for device in ("A100-PCIE-80GB", "V100-PCIE-32GB", "T4", "P100-PCIE-16GB", "P4"):
        errors = [o.error_pct for o in found.counted if o.case.device == device and o.case.precision == "fp32"]
        assert len(errors) > 1000 and median(errors) <= 15
