"""The array stage of a schedule against the register-transfer twin, which derives its folds from the matrices alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.machine import load_accelerator, vary
from hwsim.schedule.table import OPERATION, UNIT
from hwsim.timing.reference.systolic_rtl import ArrayConfig, run_array


@pytest.mark.parametrize("dataflow", ["ws", "os", "is"])
@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(1, 40), k=st.integers(1, 40), rows=st.integers(1, 9), cols=st.integers(1, 9))
def test_cycles_and_products_of_the_array(dataflow: str, m: int, n: int, k: int, rows: int, cols: int) -> None:
    # With an unlimited memory nothing is gained by cutting the product, so the array sees it whole.
    unlimited = {f"memory.dram.{way}_bandwidth": "1e17 B/s" for way in ("read", "write")}
    changes = {"matrix_unit.rows": rows, "matrix_unit.cols": cols, **unlimited}
    acc = vary(load_accelerator(f"scalesim-8x8-{dataflow}"), changes)
    result = hwsim.simulate(hwsim.matmul(m, n, k), acc, precision="int8")
    rng = np.random.default_rng(m * 1000 + n * 100 + k)
    a, b = rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    config = ArrayConfig(rows=rows, cols=cols, overlap=False, weight_double_buffer=False)
    twin = run_array(a, b, dataflow, config, compiled=False)
    schedule = result.schedule
    matrix = schedule.unit == UNIT["matrix"]
    assert int(schedule.issues()[matrix].max()) == 1
    assert int(result.timing.unit_busy[0][UNIT["matrix"]]) == twin.total
    macs = (schedule.instances() * schedule.ops)[schedule.op == OPERATION["mac"]].sum()
    assert int(macs) == twin.macs == m * n * k
