"""Exchanges among devices: the closed forms against the twin that moves every element, and what must hold of any fabric."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.link.collective import Fabric, all_gather, all_reduce, fabric_of, send
from hwsim.link.collective import _one_shot as one_shot
from hwsim.link.collective import _ring as ring
from hwsim.link.collective import _two_shots as two_shots
from hwsim.link.model import Link
from hwsim.machine import load_accelerator
from hwsim.machine.constants import Constants, load_constants
from hwsim.timing.reference import collective_steps as steps

REAL = load_constants("link")
PLAIN = Constants(
    "link",
    {
        **REAL.table,
        **{k: replace(REAL.table[k], value=1.0) for k in ("shot_efficiency", "ring_efficiency")},
        "ring_fill": replace(REAL.table["ring_fill"], value=0.0),
    },
)


def fabric(
    ways: int, rate: float = 1.0, signal: float = 0.0, direct: bool = True, constants: Constants = PLAIN
) -> Fabric:
    return Fabric(Link("link", rate, rate, 2 * signal), ways, signal, direct, constants)


@given(st.integers(2, 6), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_every_algorithm_makes_the_sum_and_sends_what_it_says(ways: int, share: int, random: object) -> None:
    count = ways * share  # shares of one size: where they differ, the closed form rounds up
    vectors = [[random.randrange(100) for _ in range(count)] for _ in range(ways)]
    total = [sum(column) for column in zip(*vectors, strict=True)]
    for play, formula in ((steps.one_shot, one_shot), (steps.two_shots, two_shots), (steps.ring, ring)):
        result, sent, time = play([list(v) for v in vectors], Fraction(1))
        assert all(device == total for device in result), formula.__name__
        said = formula(fabric(ways), count)
        assert sent == [said.sent_bytes] * ways, formula.__name__
        assert Fraction(said.wire_s) == time, formula.__name__


@given(st.integers(1, 16), st.integers(0, 1 << 31))
def test_an_all_reduce_sends_no_less_than_it_must(ways: int, nbytes: int) -> None:
    found = all_reduce(fabric(ways, 3e11, 1e-6, constants=REAL), nbytes)
    least = 2 * nbytes * (ways - 1) / ways if ways > 1 else 0
    assert found.sent_bytes >= int(least)
    assert found.wire_s * 3e11 >= least * 0.999


@given(st.integers(2, 8), st.integers(1, 1 << 30), st.floats(1e9, 1e12), st.booleans())
def test_faster_links_and_shorter_messages_are_never_slower(ways: int, nbytes: int, rate: float, direct: bool) -> None:
    base = all_reduce(fabric(ways, rate, 1e-6, direct, REAL), nbytes).time_s
    assert all_reduce(fabric(ways, 2 * rate, 1e-6, direct, REAL), nbytes).time_s <= base * (1 + 1e-12)
    assert all_reduce(fabric(ways, rate, 5e-7, direct, REAL), nbytes).time_s <= base * (1 + 1e-12)
    half = min(nbytes // 2, 1 << 22)
    assert all_reduce(fabric(ways, rate, 1e-6, direct, REAL), half).time_s <= base * (1 + 1e-12)


def test_one_device_exchanges_nothing() -> None:
    assert all_reduce(fabric(1), 1000).time_s == all_gather(fabric(1), 1000).time_s == 0.0


def test_machines_say_what_joins_them() -> None:
    h100, l4, pair = (load_accelerator(n) for n in ("h100-sxm", "l4", "a100-pcie-80gb"))
    assert fabric_of(h100, 8).direct and fabric_of(h100, 8).port.name == "NVLink"
    assert fabric_of(pair, 2).port.name == "NVLink" and fabric_of(pair, 4).port.name.startswith("pcie")
    assert all_reduce(fabric_of(h100, 2), 1 << 20).time_s < all_reduce(fabric_of(l4, 2), 1 << 20).time_s / 3
    assert send(fabric_of(h100, 2), 1 << 20).time_s < all_reduce(fabric_of(h100, 8), 1 << 20).time_s
    with pytest.raises(HwsimError, match="join 8 devices, not 16"):
        fabric_of(h100, 16)
    with pytest.raises(HwsimError, match="one host joins 8 cards"):
        fabric_of(l4, 12)


# aiconfigurator (Apache-2.0), all-reduce of 16-bit sums in a CUDA graph, us: median of frameworks, as the fit's table has it.
MEASURED = [
    ("h200", 8, 1 << 14, 3.7), ("h200", 8, 1 << 20, 14.1), ("h200", 4, 1 << 22, 29.7), ("h200", 8, 1 << 26, 318.0),
    ("h100-sxm", 2, 1 << 14, 2.9), ("a100-sxm4-80gb", 8, 1 << 20, 21.7), ("b200", 8, 1 << 27, 396.0),
]  # fmt: skip


@pytest.mark.parametrize("machine, ways, nbytes, measured_us", MEASURED)
def test_all_reduces_take_what_was_measured(machine: str, ways: int, nbytes: int, measured_us: float) -> None:
    found = all_reduce(fabric_of(load_accelerator(machine), ways), nbytes).time_s * 1e6 + 1.3
    assert found == pytest.approx(measured_us, rel=0.3)
