"""SCALE-Sim topologies as networks: shapes by brute force, MACs, batch, sparsity, templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.load import load_network
from hwsim.network.scalesim_import import from_scalesim, network_of
from hwsim.network.scalesim_topology import parse_topology
from hwsim.network.trace import format_trace, parse_trace

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"


def windows(size: int, kernel: int, stride: int) -> int:
    """How many times a window is placed when the last one may hang over the end."""
    count, start = 1, 0
    while start + kernel < size:
        start += stride
        count += 1
    return count


@given(
    h=st.integers(1, 40), w=st.integers(1, 40), r=st.integers(1, 7), s=st.integers(1, 7), c=st.integers(1, 9),
    n=st.integers(1, 9), stride=st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_convolution_windows_and_macs(h: int, w: int, r: int, s: int, c: int, n: int, stride: int) -> None:
    if r > h or s > w:
        return
    net = network_of(parse_topology(f"{CONV}a, {h}, {w}, {r}, {s}, {c}, {n}, {stride},\n"), "t.csv")
    rows, columns = windows(h, r, stride), windows(w, s, stride)
    assert net.layers[0].shape == (1, n, rows, columns)
    assert net.macs == rows * columns * n * r * s * c
    assert net.params == n * r * s * c


def test_gemm_and_sparsity() -> None:
    net = network_of(parse_topology("name, M, N, K,\nfc, 5, 7, 11, 2:4,\n"), "g.csv")
    layer = net.layers[0]
    assert (net.inputs[0].shape, layer.shape, net.macs, layer.sparsity) == ((5, 11), (5, 7), 5 * 7 * 11, "2:4")


def test_depthwise_by_name_is_one_convolution_per_channel() -> None:
    net = network_of(parse_topology(f"{CONV}DP1, 10, 10, 3, 3, 16, 1, 1,\n"), "d.csv")
    assert net.layers[0].attrs["g"] == 16
    assert net.layers[0].shape == (1, 16, 8, 8)
    assert net.macs == 64 * 9 * 16


def test_batch_column() -> None:
    header = CONV.strip().rstrip(",") + ", Batch Size,\n"
    net = network_of(parse_topology(f"{header}a, 8, 8, 3, 3, 2, 4, 1, 5,\n"), "b.csv")
    assert net.inputs[0].shape[0] == net.layers[0].shape[0] == 5


def test_file_layers_are_independent_and_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(f"{CONV}a, 12, 12, 3, 3, 3, 8, 2,\nb, 6, 6, 1, 1, 8, 4, 1,\n")
    net = load_network(path)
    assert net == from_scalesim(path)
    assert [la.src for la in net.layers] == [("x1",), ("x2",)]
    assert net.output_names == ("1", "2")
    again = parse_trace(format_trace(net))
    assert (again.layers, again.inputs, again.macs) == (net.layers, net.inputs, net.macs)
    with pytest.raises(HwsimError, match="no symbol N: all its shapes are fixed"):
        net.bind(N=4)


def test_template_is_refused() -> None:
    with pytest.raises(HwsimError, match="letters B have no value"):
        network_of(parse_topology("name, M, N, K,\nfc, B, 7, 11,\n"), "lstm.csv")


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_network_or_one_line(text: str) -> None:
    try:
        network_of(parse_topology(text), "any.csv")
    except HwsimError as error:
        assert "\n" not in str(error)


@given(st.text(alphabet="0123456789,:-.\nabM NK#", max_size=120))
@settings(max_examples=200, deadline=None)
def test_almost_tables_are_networks_or_one_line(text: str) -> None:
    try:
        network_of(parse_topology(CONV + text), "any.csv")
    except HwsimError as error:
        assert "\n" not in str(error)
