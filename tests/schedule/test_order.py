"""Is K walked once, in the order the loops say?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.machine import load_accelerator, vary
from hwsim.network.builder import Builder
from hwsim.schedule.order import k_chains

MACHINES = {
    "tpu-v1": {"matrix_unit.rows": 16, "matrix_unit.cols": 16},
    "tpu-v3-core": {"matrix_unit.rows": 16, "matrix_unit.cols": 16, "memory.vmem.capacity": "8 KiB"},
    "scalesim-16x16-ws": {"memory.filter_sram.capacity": "2 KiB"},
}


@pytest.mark.parametrize("machine", list(MACHINES))
@settings(max_examples=25, deadline=None)
@given(channels=st.integers(1, 70), features=st.integers(1, 40), size=st.integers(3, 9), kernel=st.sampled_from([1, 3]))
def test_every_k_of_a_convolution_once(machine: str, channels: int, features: int, size: int, kernel: int) -> None:
    net = Builder("conv")
    made = net.conv(net.input("x", (1, channels, size, size)), features, kernel, 1, kernel // 2)
    acc = vary(load_accelerator(machine), MACHINES[machine])
    result = hwsim.simulate(net.build(made), acc, precision="bf16" if machine == "tpu-v3-core" else "int8")
    chains = k_chains(result.schedule, 0)
    walked = [k for begin, end in chains for k in range(begin, end)]
    assert sorted(walked) == list(range(channels * kernel * kernel))
    assert all(0 < end - begin <= 16 for begin, end in chains)


def test_a_whole_window_walks_tap_by_tap() -> None:
    net = Builder("conv")
    made = net.conv(net.input("x", (1, 200, 6, 6)), 8, 3, 1, 1)
    result = hwsim.simulate(net.build(made), "tpu-v3-core", precision="bf16")
    chains = k_chains(result.schedule, 0)
    assert chains[:3] == [(0, 128), (128, 200), (200, 328)]
    assert len(chains) == 18
