"""Topology and layout files: every form SCALE-Sim's repository ships (excerpts, MIT), fuzzing, and clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.scalesim import TopologyLayer, api, parse_topology, read_topology
from hwsim.scalesim.layout import parse_layout

HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
CONV1 = (224, 224, 7, 7, 3, 64, 2, 2)


def sizes(layer: TopologyLayer) -> tuple[int, ...]:
    first = (layer.ifmap_h, layer.ifmap_w, layer.filter_h, layer.filter_w)
    return (*first, layer.channels, layer.num_filters, layer.stride_h, layer.stride_w)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (HEADER + "\nConv1, 224, 224, 7, 7, 3, 64, 2,\n", ""),
        (HEADER + "Conv1,224,224,7,7,3,64,2", ""),  # no trailing comma
        ("\ufeff" + HEADER + "Conv1,224,224,7,7,3,64,2,\r\n", ""),
        (HEADER + ",,,,,,,,\nConv1,224,224,7,7,3,64,2,#dw\n", ""),
        (HEADER.replace(",", "\t") + "Conv1\t224\t224\t7\t7\t3\t64\t2\t\n", "tabs"),
        (HEADER[:-1] + ",Eh,Ew,e2\nConv1,224,224,7,7,3,64,2,,110,110,12100\n", "column 10 (Eh) is ignored"),
        (HEADER + "AlphaGoZero,\nConv1,224,224,7,7,3,64,2,\n", "line 2: 'AlphaGoZero' stands alone"),
        (HEADER + "Conv1,224,224,7,7,,3 64,2,\n", "line 2: fields ',3 64' read as 3, 64"),
        (HEADER + "Conv1,224,224,7,7,3,64,2,2,\n", "column 9 is the stride along the width, having no header"),
        (HEADER[:-1] + " Batch Size,\nConv1,224,224,7,7,3,64,2,1,\n", "column 9 is the batch, by its header"),
        (HEADER[:-1] + " Sparsity,\nConv1,224,224,7,7,3,64,2, 2:4,\n", "column 9 is the sparsity ratio"),
        (HEADER + "Conv1,224,224,7,7,3,64,2,2:4\n", "column 9 is the sparsity ratio"),
    ],
)
def test_shipped_forms(text: str, note: str) -> None:
    topology = parse_topology(text)
    assert topology.kind == "conv"
    (layer,) = topology.layers
    assert (layer.name, *sizes(layer)) == ("Conv1", *CONV1)
    assert layer.sparsity == ((2, 4) if "2:4" in text else None)
    assert note in "".join(topology.notes)
    assert bool(note) == bool(topology.notes)


def test_two_strides_and_views() -> None:
    (layer,) = parse_topology(HEADER + "c, 10, 12, 3, 2, 4, 5, 2, 3,\n").layers
    assert (layer.stride_h, layer.stride_w) == (2, 3)
    # ceil((10 - 3 + 2) / 2) = 5, ceil((12 - 2 + 3) / 3) = 5
    assert (layer.ofmap_h, layer.ofmap_w, layer.m, layer.n, layer.k) == (5, 5, 25, 5, 24)
    assert layer.macs == 25 * 5 * 24


@pytest.mark.parametrize("header", ["Layer,M,N,K,", "L,M,N,K,", "Layer Name, M, N, K, Sparsity,", "anything"])
def test_gemm_is_recognised(header: str) -> None:
    topology = parse_topology(header + "\nG, 3, 5, 16, 3:4,\nH, 1, 5, 16,\n")
    first, second = topology.layers
    assert topology.kind == first.kind == "gemm"
    assert (first.m, first.n, first.k, first.sparsity, second.sparsity) == (3, 5, 16, (3, 4), None)
    assert sizes(first) == (3, 16, 1, 16, 1, 5, 1, 1)


def test_templates_need_values() -> None:
    text = HEADER + "gate, 1, B, 1, 1, H, H, 1,\nwise, 1, B, 1, B, H, 1, 1, \n"
    topology = parse_topology(text)
    assert topology.unresolved == ("B", "H")
    from hwsim.scalesim import Config, simulate

    with pytest.raises(HwsimError, match="template: give B, H a value"):
        simulate(Config(), topology)
    filled = parse_topology(text, symbols={"B": 8, "H": 32})
    assert filled.unresolved == ()
    assert sizes(filled.layers[0]) == (1, 8, 1, 1, 32, 32, 1, 1)


def test_depthwise_layers_split_into_channels() -> None:
    topology = parse_topology(HEADER + "a, 4, 4, 1, 1, 2, 3, 1,\nDP1, 8, 8, 3, 3, 3, 1, 1,\n")
    names = [(layer.name, layer.channels) for layer in api.expand_depthwise(topology)]
    assert names == [("a", 2), ("DP1Channel_0", 1), ("DP1Channel_1", 1), ("DP1Channel_2", 1)]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("", None, "t.csv: empty file"),
        (HEADER, None, "t.csv: no layers"),
        (HEADER + "c, 8, 8, 3, 3, 1, 1, 0,\n", None, "t.csv, line 2, Strides: 0 is outside 1"),
        (
            HEADER + "\nc, 8, 8, x1, 3, 1, 1, 1,\n",
            None,
            "t.csv, line 3, Filter Height: expected a positive whole number",
        ),
        (HEADER + "c, 8, 8, -3, 3, 1, 1, 1,\n", None, "Filter Height: expected a positive whole number, found '-3'"),
        (HEADER + "c, 8, 8, 9, 3, 1, 1, 1,\n", None, "Filter Height: 9 is larger than IFMAP Height 8"),
        (HEADER + "c, 8, 8, 3, 3, 1, 99999999999, 1,\n", None, "Num Filter: 99999999999 is outside"),
        (HEADER + "c, 8, 8, 3, 3, 1,\n", None, "line 2, fields: a convolution needs name, H, W, R, S, C, N, stride"),
        (HEADER + "c, 8, 8, 3,\n", None, "found 3 of its seven numbers (a GEMM topology? use -i gemm)"),
        ("header\nc, 8, 8, 3,\n", "conv", "found 3 of its seven numbers (a GEMM topology? use -i gemm)"),
        (HEADER + "c, 8, 8, 3, 3, 1, 1, 1, 4:2,\n", None, "sparsity: 4:2 needs 1 <= N <= M"),
        (HEADER + "c, 8, 8, 3, 3, 1, 1, 1, 2:x,\n", None, "sparsity: expected N:M such as 2:4, found '2:x'"),
        ("L,M,N,K,\nG, 3, 5,\n", None, "line 2, fields: a GEMM needs name, M, N, K"),
        ("L,M,N,K,\nG, 3, 5, 6, 7,\n", None, "sparsity: expected N:M such as 2:4, found '7'"),
        (HEADER + "c, 8, 8, 3, 3, 1, 1, 1,\n", "gemm", "line 2"),
    ],
)
def test_errors_name_file_line_and_field(text: str, kind: str | None, expected: str) -> None:
    with pytest.raises(HwsimError) as caught:
        parse_topology(text, source="t.csv", kind=kind)  # type: ignore[arg-type]
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path, "a\0b"):
        with pytest.raises(HwsimError, match="cannot read topology"):
            read_topology(path)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(HwsimError):
        read_topology(binary)


PIECES = st.sampled_from(
    [
        "8",
        "1",
        "2:4",
        ",",
        ",,",
        "\n",
        "\t",
        " ",
        "#",
        "x",
        "B",
        "-1",
        "1e9",
        "3 4",
        "G",
        "M,N,K",
        "9" * 13,
        "²",
        "\x00",
        "\x85",
    ]
)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join)),
    st.sampled_from((None, "conv", "gemm")),
)
def test_any_text_is_a_topology_or_a_clear_error(text: str, kind: str | None) -> None:
    for body in (text, HEADER + text, HEADER + "c, 8, 8, 3, 3, 1, 1, 1," + text):
        try:
            topology = parse_topology(body, kind=kind)  # type: ignore[arg-type]
        except HwsimError as error:
            assert "\n" not in str(error)
        else:
            assert all(layer.macs >= 1 for layer in topology.layers)


LAYOUT = "a,2,2,1,1,4,4,0,1,2,4,5,3,3,2,1,0,4,5,6,7"


def test_layout_is_read() -> None:
    for line in (LAYOUT, LAYOUT + ",", LAYOUT.replace(",", ", ") + ",\n\n"):
        (layout,) = parse_layout("header\n" + line)
        assert layout.factors == (2, 2, 1, 1, 4, 4)
        assert layout.ifmap_inside + layout.ifmap_between == (0, 1, 2, 4, 5, 3)
        assert layout.filter_inside + layout.filter_between == (3, 2, 1, 0, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "l.csv: no layers"),
        ("a,1,2", "l.csv, line 2: expected a name and 20 numbers, found 3 fields"),
        (LAYOUT.replace("a,2", "a,x"), "l.csv, line 2, column 2: expected a whole number, found 'x'"),
        (LAYOUT.replace("a,2", "a,0"), "ifmap height intraline factor: 0 is outside"),
        (LAYOUT.replace("0,1,2,4", "0,1,1,4"), "ifmap order: [0, 1, 1] is not a permutation of 0 … 2"),
    ],
)
def test_layout_errors(line: str, expected: str) -> None:
    with pytest.raises(HwsimError) as caught:
        parse_layout("header\n" + line, source="l.csv")
    assert expected in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=100), st.integers(0, len(LAYOUT)), st.integers(0, 6))
def test_any_text_is_a_layout_or_a_clear_error(text: str, start: int, length: int) -> None:
    for body in (text, "header\n" + LAYOUT[:start] + text + LAYOUT[start + length :]):
        try:
            parse_layout(body)
        except HwsimError as error:
            assert "\n" not in str(error)
