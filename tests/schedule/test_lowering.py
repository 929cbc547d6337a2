"""Is what the schedule computes what the layer asks for? Tiles from the lowering, products from the layer by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.machine import load_accelerator, vary
from hwsim.schedule.table import UNIT

SMALL = {
    "tpu-v1": {"matrix_unit.rows": 8, "matrix_unit.cols": 8, "matrix_unit.accumulator_entries": 32},
    "tpu-v4": {
        "matrix_unit.rows": 8,
        "matrix_unit.cols": 8,
        "memory.vmem.capacity": "4 KiB",
        "memory.cmem.capacity": "4 KiB",
    },
    "scalesim-8x8-ws": {"memory.filter_sram.capacity": "1 KiB", "memory.ifmap_sram.capacity": "1 KiB"},
    "scalesim-8x8-os": {"memory.ofmap_sram.capacity": "1 KiB"},
    "scalesim-8x8-is": {"memory.ifmap_sram.capacity": "512 B"},
}


@pytest.mark.parametrize("machine", list(SMALL))
@settings(max_examples=12, deadline=None)
@given(m=st.integers(1, 40), n=st.integers(1, 40), k=st.integers(1, 60))
def test_every_product_of_a_matmul_is_computed_once(machine: str, m: int, n: int, k: int) -> None:
    acc = vary(load_accelerator(machine), SMALL[machine])
    result = hwsim.simulate(hwsim.matmul(m, n, k), acc, precision="bf16" if machine == "tpu-v4" else "int8")
    schedule = result.schedule
    done = np.zeros((m, n, k), np.int64)
    # A transposed product streams the columns of B: its m walks n.
    swapped = (n, m, k)
    turned = np.zeros(swapped, np.int64)
    fits = True
    for instance in schedule.expand(0):
        if schedule.unit[instance.row] != UNIT["matrix"]:
            continue
        origin = schedule.origin(instance)
        begin = [origin.get(axis, 0) for axis in ("m", "n", "k")]
        extent = schedule.extent[instance.row].tolist()
        box = tuple(slice(b, b + e) for b, e in zip(begin, extent, strict=True))
        fits = fits and all(b + e <= whole for b, e, whole in zip(begin, extent, done.shape, strict=True))
        done[box] += 1
        turned[box] += 1
    assert (fits and (done == 1).all()) or (turned == 1).all()
