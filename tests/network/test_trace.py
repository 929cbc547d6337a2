"""The layer trace: exact round trip, precise refusals, nothing but HwsimError for damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.network.load import load_network, zoo
from hwsim.network.symbolic import symbolise
from hwsim.network.trace import format_trace, is_trace, parse_trace, read_trace, write_trace

GOOD = """# layertrace: 2
# model: tiny
# symbols: N=1 S=4
# input: x fp32[Nx3x8x8]
# source: by hand
# params: 246
# macs: 1856
id,name,op,src,out,attrs,fused,dtype,weights
1,conv1,conv,x,Nx4x4x4,k=3x3 s=2 p=1,bn+relu,,
2,flat,reshape,1,Nx64,,,,
3,fc,linear,2,Nx2,k=64 bias,,int8,int4
4,act,relu,3,Nx2,,,int8,
"""


def good() -> Network:
    return parse_trace(GOOD, "tiny")


def test_reads_what_it_says() -> None:
    net = good()
    assert (net.name, dict(net.symbols), net.meta["source"]) == ("tiny", {"N": 1, "S": 4}, "by hand")
    assert net.macs == 4 * 16 * 27 + 64 * 2
    assert net.params == 4 * 27 + 2 * 4 + 64 * 2 + 2
    assert net.layers[0].fused == ("bn", "relu")
    assert (net.layers[2].dtype, net.layers[2].weight_dtype) == ("int8", "int4")
    assert net.bind(N=5).layers[0].shape == (5, 4, 4, 4)


def test_round_trip() -> None:
    text = format_trace(good())
    again = parse_trace(text, "tiny")
    assert format_trace(again) == text
    assert again.layers == good().layers
    assert again.inputs == good().inputs


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("# layertrace: 2", "# layertrace: 9", "version '9'"),
        ("# layertrace: 2", "id,name", "first line"),
        ("# input: x fp32[Nx3x8x8]", "# input: x", "is not of the form"),
        ("# input: x fp32[Nx3x8x8]", "# input: x fp99[Nx3x8x8]", "fp99"),
        ("# symbols: N=1 S=4", "# symbols: n=1", "upper-case"),
        ("# macs: 1856", "# macs: 1", "macs = 1"),
        ("# params: 246", "# params: 1", "params = 1"),
        ("id,name,op", "id,name,opp", "column 'op' is missing"),
        ("dtype,weights", "dtyp,weights", "unknown column 'dtyp'"),
        ("1,conv1,conv,x,", "1,conv1,convv,x,", "unknown operator 'convv'"),
        ("2,flat,reshape,1,", "2,flat,reshape,9,", "unknown source '9'"),
        ("2,flat,reshape,1,", "1,flat,reshape,1,", "id used twice"),
        ("k=3x3 s=2 p=1", "k=3x3 s=2 pp=1", "no attribute 'pp'"),
        ("k=3x3 s=2 p=1", "k=3x3 s=two p=1", "is not integers"),
        ("k=3x3 s=2 p=1", "k=3x3 k=3x3", "given twice"),
        ("bn+relu", "bn+reluu", "unknown fused activation 'reluu'"),
        ("Nx4x4x4", "Nx4x4x5", "gives 1x4x4x4"),
        ("Nx4x4x4", "Mx4x4x4", "symbol M"),
        ("Nx4x4x4", "0x4x4x4", "not between"),
        ("k=64 bias", "k=63 bias", "k=63"),
        ("int8,int4", "int8,int9", "int9"),
        ("4,act,relu,3,Nx2,,,int8,", "4,act,relu,3,Nx2,,,int8,,,,,,,", "fields for"),
        ("4,act,relu,3,Nx2,,,int8,", "4,act,relu,,Nx2,,,int8,", "takes 1 to 3 inputs"),
    ],
)
def test_refusals_say_what_is_wrong(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(HwsimError) as caught:
        parse_trace(GOOD.replace(old, new, 1), "tiny.csv")
    message = str(caught.value)
    assert says in message, message
    assert "tiny.csv" in message
    assert "\n" not in message


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "tiny.layers.csv"
    write_trace(good(), path)
    assert read_trace(path).layers == load_network(path).layers == good().layers
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.layers.csv"]
    with pytest.raises(HwsimError, match="cannot be written"):
        write_trace(good(), tmp_path / "no" / "such" / "folder.csv")
    for name, content in (("binary.csv", b"\xff\xfe\x00"), ("empty.csv", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HwsimError):
            read_trace(tmp_path / name)
    with pytest.raises(HwsimError, match="cannot be read"):
        read_trace(tmp_path)
    with pytest.raises(HwsimError, match="no such file"):
        load_network(tmp_path / "missing.csv")


def test_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "tiny.csv"
    path.write_bytes(("\ufeff" + GOOD.replace("\n", "\r\n")).encode())
    assert load_network(path).layers == good().layers


def test_readable_with_pandas(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "tiny.csv"
    write_trace(good(), path)
    table = pd.read_csv(path, comment="#", dtype=str, keep_default_na=False)
    assert list(table["op"]) == ["conv", "reshape", "linear", "relu"]


def test_is_trace() -> None:
    assert is_trace("# layertrace: 2")
    assert is_trace("\ufeff#layertrace:2")
    assert not is_trace("Layer name, IFMAP Height")


def test_unknown_name_suggests() -> None:
    with pytest.raises(HwsimError, match="mobilenet_v1"):
        load_network("mobilenet_v1x")


@pytest.mark.parametrize(
    "text",
    [
        "# layertrace: 2\n",
        "# layertrace: 2\nid,name,op,src,out\n",
        "\x00",
        '# layertrace: 2\n"',
        "# layertrace: 2\n" + "a" * 200_000,
    ],
)
def test_hollow_files(text: str) -> None:
    with pytest.raises(HwsimError):
        parse_trace(text)


WORDS = st.sampled_from(
    ["x", "1", "2", "99", "conv", "linear", "Nx4", "N", "k=3x3", "k=", "g=0", "s=0x0", "p=-1", "bias", "bn+bn", "add",
     "fp32", "-1", "", "9" * 30, "attention", "lstm", "h=0", "embedding", "rows=1", "concat", "axis=9", "NxNxNxN", "#",
     "reshape", "pad", "perm=0x0", "expert_linear", "experts=0", "cache=P", "max_pool", "k=0", "softmax", "width=-5"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), WORDS), min_size=1, max_size=4))
def test_fuzzed_cells(edits: list[tuple[int, str]]) -> None:
    head, table = GOOD.split("id,name", 1)
    cells = ("id,name" + table).split(",")
    for at, word in edits:
        cells[at % len(cells)] = word
    check_only_hwsim_errors(head.replace("# params: 246\n# macs: 1856\n", "") + ",".join(cells))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.text(max_size=8))
def test_fuzzed_text(at: int, length: int, insert: str) -> None:
    check_only_hwsim_errors(GOOD[:at] + insert + GOOD[at + length :])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["resnet8_like", "mlperf_tiny_kws", "mlperf_tiny_sww", "tpu1_lstm1", "dlrm", "rnnt"]), st.data())
def test_mutated_real_files(name: str, data: st.DataObject) -> None:
    path = zoo().get(name)
    if path is None:
        path = zoo()["mlperf_tiny_ic"]
    lines = path.read_text(encoding="utf-8").splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "double", "swap", "cut"]))
        if kind == "drop":
            del lines[at]
        elif kind == "double":
            lines.insert(at, lines[at])
        elif kind == "swap":
            lines[at], lines[-1] = lines[-1], lines[at]
        else:
            lines[at] = lines[at][: data.draw(st.integers(0, max(0, len(lines[at]) - 1)))]
        if not lines:
            break
    check_only_hwsim_errors("\n".join(line for line in lines if not line.startswith(("# macs", "# params"))))


def check_only_hwsim_errors(text: str) -> None:
    """Parse; whatever is accepted must also have finite, consistent figures and survive a round trip."""
    try:
        net = parse_trace(text, "fuzz")
        bound = net.bind()
        figures = (bound.macs, bound.params, bound.weight_bytes, bound.peak_activation_bytes, bound.kv_cache_bytes)
        work = bound.vector_work
    except HwsimError as error:
        assert "\n" not in str(error)
        return
    assert min(figures) >= 0
    assert len(work) == len(net.layers)
    assert parse_trace(format_trace(net), "again").layers == net.layers


NAMES = st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="#"), max_size=12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(NAMES, st.sampled_from(["relu", "add", "conv", "linear"])), min_size=1, max_size=6))
def test_any_names_round_trip(rows: list[tuple[str, str]]) -> None:
    def make(N: int) -> Network:
        net = Builder("named", meta={"source": "hypothesis, with a comma: and a colon"})
        x = net.input("x", (N, 4, 6, 6))
        for name, op in rows:
            label = " ".join(name.split())
            if op == "conv":
                x = net.conv(x, 4, 3, p=1, name=label)
            elif op == "linear":
                x = net.linear(x, 6, name=label)
            else:
                x = net.op(op, *([x] * (2 if op == "add" else 1)), name=label)
        return net.build()

    net = symbolise(make, {"N": 1}, {"N": 2})
    again = parse_trace(format_trace(net), "again")
    assert [la.op for la in again.layers] == [la.op for la in net.layers]
    assert [la.name for la in again.layers] == [la.name.strip() for la in net.layers]
    assert format_trace(again) == format_trace(parse_trace(format_trace(again), "third"))
