"""What the Edge TPU's compiler would make of a network: statuses, sizes, the log, segments, several models, refusals."""

from __future__ import annotations

import gzip
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.cli import main
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, load_constants
from hwsim.network.builder import Builder
from hwsim.plan.edge_tpu_compile import Compiled, cut
from hwsim.plan.edge_tpu_graph import Feature, Op
from hwsim.plan.edge_tpu_log import compiler_log, operator_table, size_text
from hwsim.plan.edge_tpu_memory import Parameters, fill, parameters
from hwsim.plan.edge_tpu_support import (
    DATA_TYPE,
    LIMITATION,
    MAPPED,
    RANK,
    STATUSES,
    SUBGRAPH,
    UNSUPPORTED,
    operator_rules,
    partition,
    status,
)
from hwsim.simulation.edge_tpu_compiler import edge_tpu_compile, json_of

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "tests" / "data" / "tflite"
sys.path.insert(0, str(ROOT / "studies" / "edge_tpu"))
import check_compiled  # noqa: E402

KIB = 1024


def one(model: object, **options: object) -> Compiled:
    return edge_tpu_compile(model, "coral-usb", **options)[0]  # type: ignore[arg-type]


def op(
    code: str, *shapes: tuple[int, int, int], out: tuple[int, int, int], dtype: str = "int8", deep: bool = False
) -> Op:
    inputs = tuple(Feature(f"in{i}", dtype, *shape) for i, shape in enumerate(shapes))
    return Op(0, code, None, (), inputs, (Feature("out", dtype, *out, deep),))


# -- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (op("ADD", (4, 4, 8), (4, 4, 8), out=(4, 4, 8)), MAPPED),
        (op("ADD", (4, 4, 8), (4, 4, 8), out=(4, 4, 8), dtype="fp32"), DATA_TYPE),
        (op("ADD", (4, 4, 8), out=(4, 4, 8), deep=True), RANK),
        (op("CAST", (4, 4, 8), out=(4, 4, 8)), UNSUPPORTED),
        (op("ARG_MAX", (4, 4, 8), out=(4, 4, 1)), UNSUPPORTED),
        (op("QUANTIZE", (4, 4, 8), out=(4, 4, 8)), MAPPED),
        (op("QUANTIZE", (4, 4, 8), out=(4, 4, 8), dtype="fp32"), LIMITATION),
        (op("SOFTMAX", (1, 1, 1000), out=(1, 1, 1000)), MAPPED),
        (op("SOFTMAX", (4, 4, 10), out=(4, 4, 10)), LIMITATION),
        (op("FULLY_CONNECTED", (1, 1, 8), out=(1, 1, 8)), MAPPED),
        (op("FULLY_CONNECTED", (1, 5, 8), out=(1, 5, 8)), LIMITATION),
        (op("RESIZE_BILINEAR", (33, 33, 8), out=(65, 65, 8)), MAPPED),
        (op("RESIZE_BILINEAR", (33, 33, 8), out=(513, 513, 8)), LIMITATION),
        (op("CUSTOM:TFLite_Detection_PostProcess", (1, 9, 4), out=(1, 10, 4)), UNSUPPORTED),
    ],
)
def test_status_of_one_operator(found: Op, told: str) -> None:
    assert status(found) == told and told in STATUSES


def test_the_table_of_operators_has_sources() -> None:
    lines = (ROOT / "accelerators" / "constants" / "edge_tpu_operators.csv").read_text().splitlines()
    assert len(operator_rules()) == len(lines) - 1 > 35
    assert all(len(line.split(",", 2)[2]) > 10 for line in lines[1:])


@pytest.mark.parametrize("row", check_compiled.rows(), ids=lambda r: f"{r['model']}:{r['quantity']}")
def test_what_the_real_compiler_wrote(row: dict[str, str]) -> None:
    done = check_compiled.compiled(row["model"], [FILES])
    if done is None:
        pytest.skip("a file of google-coral/test_data, not shipped")
    assert check_compiled.value(done, row["quantity"]) == pytest.approx(float(row["value"]), rel=0.08)
    if "lstm" not in row["model"]:
        assert check_compiled.value(done, row["quantity"]) == pytest.approx(float(row["value"]), rel=0.015)
    if not row["model"].startswith("ssd"):
        told = {k: int(v) for k, v in (part.split("=") for part in row["left_on_host"].split())}
        assert check_compiled.left_on_host(done) == told


def test_after_an_unsupported_operator_comes_no_second_subgraph() -> None:
    done = one(FILES / "coral_deeplabv3_mnv2_pascal_quant.tflite")
    counts = {s: done.status.count(s) for s in set(done.status)}
    assert counts[MAPPED] == 64 and counts[SUBGRAPH] >= 2
    assert done.status[0] == MAPPED
    table = operator_table(done)
    assert table.splitlines()[:2] == ["Operator                       Count      Status", ""]
    assert "DEPTHWISE_CONV_2D              17         Mapped to Edge TPU" in table
    assert "ARG_MAX                        1          Operation is working on an unsupported data type" in table
    assert "CONV_2D                        2          More than one subgraph is not supported" in table


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 30), max_size=3)), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_partition_keeps_the_order_of_what_depends(drawn: list[tuple[bool, list[int]]]) -> None:
    ops = []
    for i, (_, sources) in enumerate(drawn):
        inputs = tuple(Feature(f"t{s % i}", "int8", 1, 1, 4) for s in sources) if i else ()
        ops.append(Op(i, "ADD", None, (), inputs, (Feature(f"t{i}", "int8", 1, 1, 4),)))
    takes = [t for t, _ in drawn]
    group = partition(ops, takes)
    for i, each in enumerate(ops):
        assert all(group[int(t.name[1:])] <= group[i] for t in each.inputs)
    for g in set(group):
        assert len({takes[i] for i in range(len(ops)) if group[i] == g}) == 1
    assert sorted(set(group)) == list(range(max(group) + 1))


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_the_log_of_mobilenet_v1() -> None:
    text = compiler_log(one("mobilenet_v1", precision="uint8"))
    assert "On-chip memory used for caching model parameters: 4.26MiB" in text  # 4.21 in public logs
    assert "On-chip memory remaining for caching model parameters: 2.86MiB" in text
    assert "Off-chip memory used for streaming uncached model parameters: 0.00B" in text
    assert "Number of Edge TPU subgraphs: 1" in text and "Total number of operations: 31" in text
    assert "not all operations are supported" not in text


def test_memory_kept_free_is_what_logs_leave_out() -> None:
    def offered(done: Compiled) -> float:
        return (done.cached_bytes + done.remaining_bytes) / 2**20

    for name, mib in (("mobilenet_v1", 7.14), ("mobilenet_v2", 6.91), ("synthetic_conv_32x7_L10", 5.01)):
        assert offered(one(name, precision="uint8")) == pytest.approx(mib, rel=0.015)
    assert "remaining for caching model parameters: 3.15MiB" in compiler_log(one("mobilenet_v2", precision="uint8"))
    net = Builder("issue_572", dtype="int8")  # its last layer ends in one column and is larger than a tile's memory
    x = net.conv(net.input("x", (1, 96, 7, 7)), 576, 1, bias=True)
    done = one(net.build(net.conv(x, 128, 7, bias=True)).bind())
    assert offered(done) == pytest.approx(1.09, rel=0.1) and done.streamed_bytes == pytest.approx(
        3.45 * 2**20, rel=0.01
    )


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0.00B"), (512, "512.00B"), (1792, "1.75KiB"), (3932160, "3.75MiB"), (5 << 30, "5.00GiB")]
)
def test_sizes_in_words(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


def test_a_fully_connected_stays_whole_or_not_at_all() -> None:
    acc = load_accelerator("coral-usb")
    each = [Parameters(1024, 1024, 4000, True)] * 3
    cache = fill(each, 10_000, 16)
    assert set(cache.kept) == {0, 1} and cache.streams == {2: 1024} and cache.free_tile == 2000
    shared = fill([Parameters(64_000, 64_000, 4000, False)] * 3, 10_000, 16)
    assert shared.kept == {0: 64_000, 1: 64_000, 2: 32_000} and shared.streams == {2: 32_000}
    dense = Builder("dense", dtype="int8")
    net = dense.build(dense.linear(dense.input("x", (1, 100)), 100, bias=True)).bind()
    stored = one(net).parameters[0]
    assert stored is not None and stored.split and stored.stream == 64 * (2 * (100 + 8))
    assert parameters(one(net).operators[0], acc, load_constants("edge-tpu")) == stored


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(0, 2000), st.integers(0, 500), st.booleans())
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_between_cache_and_link(sizes: list[int], tile: int, used: int, split: bool) -> None:
    each = [Parameters(64 * s, 64 * s, 64 * s if split else -(-64 * s // 16), split) for s in sizes]
    cache = fill(each, tile, 16, used)
    assert 0 <= cache.free_tile <= max(0, tile - used)
    for i, p in enumerate(each):
        assert p.stream <= cache.kept.get(i, 0) + cache.streams.get(i, 0) <= p.stream + 64
    more = fill(each, tile + 100, 16, used)
    assert more.streamed <= cache.streamed or split


# -- segments and several models ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_a_cut_fills_equal_shares(sizes: list[int], parts: int) -> None:
    parts = min(parts, len(sizes))
    found = cut(sizes, parts)
    assert [i for run in found for i in run] == list(range(len(sizes))) and len(found) == parts
    assert all(found)
    share = sum(sizes) / parts
    for run, following in itertools.pairwise(found):
        filled = sum(sizes[i] for i in run)
        assert filled <= share or len(run) == 1
        forced = len(sizes) - following[0] <= parts - found.index(run) - 1
        assert forced or filled + sizes[following[0]] > share


@pytest.mark.parametrize(
    ("network", "shares"),
    [
        ("ssd_mobilenet_v1", [3363072, 3694528]),
        ("ssd_mobilenet_v1", [2310400, 1315840, 3431360]),
        ("ssd_mobilenet_v1", [1741056, 1622016, 1510912, 2183616]),
        ("ssd_mobilenet_v2_quant", [2914752, 3608512]),
        ("ssd_mobilenet_v2_quant", [2171328, 1991168, 2360768]),
        ("ssd_mobilenet_v2_quant", [1824448, 1090304, 1247744, 2360768]),
    ],
)
def test_pipelines_are_cut_where_the_real_compiler_cuts(network: str, shares: list[int]) -> None:
    # google-coral/test_data 104342d, pipeline/: parameter bytes of the compiled segments
    done = one(network, precision="uint8", segments=len(shares))
    mine = [sum(p.stream for i in s.operators if (p := done.parameters[i])) for s in done.segments]
    assert mine[:-1] == shares[:-1]
    assert mine[-1] == pytest.approx(shares[-1], rel=0.02)


def test_segments_in_the_log() -> None:
    two = one("ssd_mobilenet_v1", precision="uint8", segments=2)
    assert sum(len(s.operators) for s in two.segments) == len(one("ssd_mobilenet_v1", precision="uint8").mapped)
    assert two.segments[0].outputs and two.segments[1].inputs
    text = compiler_log(two, show_operations=False)
    assert text.count("Off-chip memory") == 2 and "segment 1 of 2" in text
    with pytest.raises(HwsimError, match="segments of"):
        one("mobilenet_v1", precision="uint8", segments=60)


def test_models_compiled_together_share_the_memory() -> None:
    alone = [one(n, precision="uint8") for n in ("mobilenet_v1", "mobilenet_v2")]
    both = edge_tpu_compile(["mobilenet_v1", "mobilenet_v2"], "coral-usb", precision="uint8")
    assert both[0].cached_bytes == alone[0].cached_bytes and both[0].streamed_bytes == 0
    assert both[1].cached_bytes < alone[1].cached_bytes and both[1].streamed_bytes > 0
    assert both[0].remaining_bytes == both[1].remaining_bytes < alone[1].remaining_bytes
    with pytest.raises(HwsimError, match="one or the other"):
        edge_tpu_compile(["mobilenet_v1", "mobilenet_v2"], "coral-usb", precision="uint8", segments=2)


# -- refusals and the command -------------------------------------------------------------------------------------------


def test_float_models_are_refused_with_advice() -> None:
    with pytest.raises(HwsimError, match=r"mobilenet_v2 is fp32: coral-usb takes int8 or uint8 alone; quantise it"):
        one("mobilenet_v2")
    with pytest.raises(HwsimError, match="file it was compiled from"):
        one(FILES / "coral_mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    with pytest.raises(HwsimError, match="family systolic"):
        edge_tpu_compile("mobilenet_v2", "tpu-v3")


def test_float_inputs_are_cast_on_the_host() -> None:
    net = Builder("cast", dtype="int8")
    x = net.input("x", (1, 8, 8, 8), dtype="fp32")
    cast = net.op("quantize", x, dtype="int8")
    y = net.conv(cast, 16, 3, 1, "same", bias=True)
    out = net.op("dequantize", y, dtype="fp32")
    done = one(net.build(out).bind())
    assert [(o.code, s) for o, s in zip(done.operators, done.status, strict=True)] == [
        ("QUANTIZE", LIMITATION), ("CONV_2D", MAPPED), ("DEQUANTIZE", DATA_TYPE),
    ]  # fmt: skip


def test_the_command_prints_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(FILES / "tflm_person_detect.tflite"), "--on", "coral-usb"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        "Input model: tflm_person_detect\nOn-chip memory used for caching model parameters: 306.38KiB"
    )
    assert "Mapped to Edge TPU" in text
    assert main(["compile", "mobilenet_v2", "--on", "coral-usb", "--precision=int8", "--quiet"]) == 0
    assert "Mapped" not in capsys.readouterr().out
    data = json_of(one(FILES / "tflm_person_detect.tflite"))
    assert data["cached_bytes"] == 313728 and data["segments"][0]["streamed_bytes"] == 0


def zeroed(name: str, folder: Path) -> Path:
    """A file that ships packed: its weights are zero."""
    target = folder / name.replace(".zeroed.tflite.gz", ".tflite")
    target.write_bytes(gzip.decompress((FILES / name).read_bytes()))
    return target


def test_every_file_at_hand_runs(tmp_path: Path) -> None:
    files = [f for f in sorted(FILES.glob("*.tflite")) if "edgetpu" not in f.name]
    files += [zeroed(f.name, tmp_path) for f in sorted(FILES.glob("*.zeroed.tflite.gz"))]
    assert len(files) > 12
    for file in files:
        for target in ("coral-usb@raspberry-pi-4", "coral-usb:std@raspberry-pi-3/usb2"):
            result = hwsim.simulate(file, target)
            assert result.latency_s > 1e-4 and result.energy.total_j > 0
            assert "On-chip memory used" in result.compiler_log  # type: ignore[attr-defined]
    small = one(
        files[-2]
        if "0.5_160" in files[-2].name
        else zeroed("coral_mobilenet_v1_0.5_160_quant.zeroed.tflite.gz", tmp_path)
    )
    total = sum(p.stream for p in small.parameters if p is not None)
    assert total == pytest.approx(1473280, rel=0.002)
