"""Does execution walk k as the schedule does?"""

from __future__ import annotations

import numpy as np

import hwsim
from hwsim.execution.order import schedule_orders
from hwsim.execution.run import execute
from hwsim.machine import load_accelerator, vary
from hwsim.network.builder import Builder
from hwsim.network.graph import Network


def network() -> Network:
    net = Builder("conv")
    return net.build(net.conv(net.input("x", (1, 48, 9, 9)), 24, 3, 1, 1, name="only"))


def test_a_smaller_chip_walks_k_otherwise_and_gives_other_bits() -> None:
    net = network()
    whole = vary(load_accelerator("tpu-v3-core"), {"matrix_unit.rows": 16, "matrix_unit.cols": 16})
    cut = vary(whole, {"memory.vmem.capacity": "8 KiB"})
    orders = [schedule_orders(net, acc, "bf16")[0]["1"] for acc in (whole, cut)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    values = [next(iter(execute(net, acc, precision="bf16", seed=3).outputs.values())) for acc in (whole, cut)]
    # bf16 results hide most of it: compare the sums themselves
    wide = [next(iter(execute(net, acc, precision="fp32", seed=3).outputs.values())) for acc in (whole, cut)]
    assert np.allclose(wide[0], wide[1], rtol=1e-2, atol=1e-2)
    assert np.count_nonzero(wide[0] != wide[1]) > 0
    assert values[0].shape == values[1].shape


def test_verification_follows_the_order_too() -> None:
    acc = vary(
        load_accelerator("tpu-v3-core"),
        {"matrix_unit.rows": 16, "matrix_unit.cols": 16, "memory.vmem.capacity": "8 KiB"},
    )
    found = hwsim.verify(network(), acc, precision="bf16", seed=3)
    assert found.is_bit_exact and found.compared > 0


def test_a_network_that_does_not_fit_says_so() -> None:
    acc = vary(load_accelerator("tpu-v3-core"), {"memory.hbm.capacity": "1 KiB"})
    orders, note = schedule_orders(network(), acc, "bf16")
    assert orders == {} and "does not fit" in note
