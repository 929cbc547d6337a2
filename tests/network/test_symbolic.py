"""Fitting dimensions as expressions of symbols."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.builder import Builder
from hwsim.network.dims import evaluate
from hwsim.network.graph import Network
from hwsim.network.symbolic import symbolise


def one_tensor(*names: str, law: str) -> Network:
    """A network whose only free dimension follows ``law`` of the symbols."""

    def make(**sizes: int) -> Network:
        net = Builder("law")
        x = net.input("x", (1, evaluate(law, sizes)))
        net.op("relu", x)
        return net.build()

    defaults = {n: 3 + i for i, n in enumerate(names)}
    return symbolise(make, defaults, {n: 8 + 3 * i for i, n in enumerate(names)})


@settings(deadline=None)
@given(st.tuples(*[st.integers(0, 50)] * 4), st.integers(1, 4), st.tuples(*[st.integers(1, 40)] * 2))
def test_multilinear_laws_are_recovered(c: tuple[int, int, int, int], scale: int, point: tuple[int, int]) -> None:
    law = f"({c[0]}*N*S+{c[1]}*N+{c[2]}*S+{c[3]}+1)*{scale}"
    net = one_tensor("N", "S", law=law)
    n, s = point
    want = evaluate(law, {"N": n, "S": s})
    assert net.bind(N=n, S=s).inputs[0].shape == (1, want)
    assert net.bind(N=n, S=s).layers[0].shape == (1, want)


def test_halves_are_floor_divisions() -> None:
    def make(H: int) -> Network:
        net = Builder("half")
        net.pool(net.input("x", (1, 3, H, H)), "max", 2)
        return net.build()

    net = symbolise(make, {"H": 8}, {"H": 32})
    assert net.layers[0].shape == (1, 3, "(H)/2", "(H)/2")
    assert net.bind(H=20).layers[0].shape == (1, 3, 10, 10)


@pytest.mark.parametrize("law", ["N*N", "(N+1)/2", "N*N*N-N*N"])
def test_other_laws_are_refused(law: str) -> None:
    with pytest.raises(HwsimError, match="not a product or sum of N"):
        one_tensor("N", law=law)


def test_changing_graphs_and_attributes_are_refused() -> None:
    def deeper(N: int) -> Network:
        net = Builder("deeper")
        x = net.input("x", (1, 4))
        for _ in range(N):
            x = net.op("relu", x)
        return net.build()

    def wider(N: int) -> Network:
        net = Builder("wider")
        net.pool(net.input("x", (1, 1, 64, 64)), "max", N)
        return net.build()

    with pytest.raises(HwsimError, match="graph changes with N"):
        symbolise(deeper, {"N": 1}, {"N": 2})
    with pytest.raises(HwsimError, match=r"attribute|dimension"):
        symbolise(wider, {"N": 2}, {"N": 4})


def test_dimension_attributes_become_expressions() -> None:
    def make(S: int, P: int) -> Network:
        net = Builder("cache")
        q = net.input("q", (1, 2, S, 8))
        net.attention(q, q, q, causal=True, cache=2 * P)
        return net.build()

    net = symbolise(make, {"S": 4, "P": 0}, {"S": 6, "P": 3})
    assert net.layers[0].attrs["cache"] == "2*P"
    assert net.bind(P=5).layers[0].attrs["cache"] == 10
    assert net.bind(S=1, P=5).macs == 2 * 2 * 11 * 8
