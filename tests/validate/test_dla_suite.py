"""Suite dla: every published row is answered, engines keep their order, and an answer on a DLA carries that band."""

from __future__ import annotations

import pytest

from hwsim.bands import bands
from hwsim.simulation import simulate
from hwsim.validate import validate
from hwsim.validate.measured import SHIPPED, table


def test_every_row_of_the_table_is_answered() -> None:
    found = validate("dla")
    assert len(found.outcomes) == len(table(SHIPPED / "measured_dla.csv")) == 37
    assert not [o.refused for o in found.outcomes if o.refused]
    assert all(o.predicted >= o.roofline * 0.5 for o in found.outcomes if o.case.size == "2:4")
    assert all(o.predicted >= o.roofline for o in found.outcomes if o.case.size == "dense")


def test_the_score_is_that_of_the_page() -> None:
    """docs/dla.md quotes the study: 3.9 % on six fitted rows, 6.3 % on 14 held-out ones; together 5.6 %."""
    dense = next(s for s in validate("dla").by("group") if s.group == ("orin",))
    assert dense.rows == 20 and dense.mean_pct == pytest.approx(5.6, abs=0.1) and dense.rank > 0.98


def test_a_network_on_a_dla_carries_the_band_of_dlas() -> None:
    on_engine = simulate("resnet50", "jetson-agx-orin-64gb", precision="int8", stack="dla")
    on_gpu = simulate("resnet50", "jetson-agx-orin-64gb", precision="int8")
    assert on_engine.error_band == bands()["gpu", "engine", "latency"]
    assert on_gpu.error_band == bands()["gpu", "network", "latency"]
