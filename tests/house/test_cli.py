"""The command line as a user types it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from hwsim.cli import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


def test_run_prints_what_how_much_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "run", "resnet50", "--on", "tpu-v3", "--batch", "8")
    assert (code, err) == (0, "")
    for word in ("Latency", "bound", "Rate", "Energy", "Traffic", "Memory", "Bound by", "conv1", "assumed numbers"):
        assert word in out


def test_files_hold_the_same_numbers_as_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target, table = tmp_path / "out.json", tmp_path / "layers.csv"
    code, _, _ = run(
        capsys,
        "run",
        "mobilenet_v2",
        "--on",
        "tpu-v4",
        "--precision",
        "int8",
        "--json",
        str(target),
        "--csv",
        str(table),
    )
    assert code == 0
    whole = json.loads(target.read_text())
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == len(whole["kernels"])
    assert sum(float(r["latency_s"]) for r in rows) == pytest.approx(whole["latency_s"], rel=1e-12)
    assert sum(float(r["energy_j"]) for r in rows) == pytest.approx(
        sum(whole["energy_components_j"].values()), rel=1e-9
    )
    assert list(tmp_path.iterdir()) == [table, target] or len(list(tmp_path.iterdir())) == 2


def test_json_to_standard_output_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "alexnet", "--on", "tpu-v2", "--json", "-")
    assert code == 0
    assert json.loads(out)["network"] == "alexnet"


def test_detail_and_layers(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "run", "alexnet", "--on", "tpu-v4", "--layers", "--detail")
    assert code == 0
    assert "matrix unit us" in out and "static uJ" in out


@pytest.mark.parametrize("what", ["networks", "accelerators"])
def test_list(capsys: pytest.CaptureFixture[str], what: str) -> None:
    code, out, _ = run(capsys, "list", what)
    assert code == 0 and len(out.splitlines()) > 20
    code, out, _ = run(capsys, "list", what, "--json")
    assert code == 0 and len(json.loads(out)) > 20


def test_show_a_machine_with_sources_and_a_network_with_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "tpu-v4")
    assert code == 0 and "matrix_unit.rows" in out and "source" in out
    code, out, _ = run(capsys, "show", "resnet50")
    assert code == 0 and "25,557,032" in out


def test_import_writes_a_trace_that_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    topology = tmp_path / "tiny.csv"
    topology.write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "Conv1, 16, 16, 3, 3, 8, 16, 1,\n"
    )
    trace = tmp_path / "tiny.layers.csv"
    code, out, err = run(capsys, "import", str(topology), "-o", str(trace))
    assert (code, err) == (0, "") and "1 layers" in out
    code, out, _ = run(capsys, "run", str(trace), "--on", "scalesim-32x32-ws")
    assert code == 0 and "Conv1" in out
    code, out, _ = run(capsys, "run", str(topology), "--on", "scalesim-32x32-os")
    assert code == 0 and "Conv1" in out


BAD = [
    (["run", "resnet5", "--on", "tpu-v3"], "resnet50"),
    (["run", "resnet50", "--on", "tpu-v33"], "tpu-v3"),
    (["run", "resnet50"], "--on"),
    (["run", "resnet50", "--on", "tpu-v3", "--batch", "0"], "batch"),
    (["run", "resnet50", "--on", "tpu-v3", "--batch", "-4"], "batch"),
    (["run", "resnet50", "--on", "tpu-v3", "--batch", "many"], "batch"),
    (["run", "resnet50", "--on", "tpu-v3", "--precision", "int9"], "int8"),
    (["run", "resnet50", "--on", "tpu-v3", "--phase", "decode"], "sequence"),
    (["run", "resnet50", "--on", "tpu-v3", "--shapes", "S=4"], "symbol"),
    (["run", "resnet50", "--on", "tpu-v3", "--shapes", "S"], "S=384"),
    (["run", "resnet50", "--on", "tpu-v3", "--sparsity", "2:4!"], "2:4"),
    (["run", "resnet50", "--on", "tpu-v3", "--stack", "tensorrt"], "xla"),
    (["run", "resnet50", "--on", "tpu-v3", "--top", "0"], "--top"),
    (["run", "resnet50", "--on", "tpu-v1"], "int8"),
    (["run", "gpt3_175b", "--on", "tpu-v3", "--precision", "bf16"], "does not fit"),
    (["run", "missing.onnx", "--on", "tpu-v3"], "missing.onnx"),
    (["run", "resnet50", "--on", "missing.toml"], "missing.toml"),
    (["show", "tpu-v44"], "tpu-v4"),
    (["list", "network"], "networks"),
    (["frobnicate"], "run"),
    (["import", "resnet50", "-o", "/nowhere/at/all.layers.csv"], "/nowhere/at/all.layers.csv"),
]


@pytest.mark.parametrize(("argv", "says"), BAD, ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    code, out, err = run(capsys, *argv)
    assert code == 2 and out == ""
    assert err.startswith("hwsim: ") and len(err.splitlines()) == 1
    assert says in err
    assert "Traceback" not in err


def test_nothing_is_left_half_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "run", "resnet50", "--on", "tpu-v3", "--json", str(tmp_path / "no" / "out.json"))
    assert code == 2 and "cannot be written" in err
    assert list(tmp_path.iterdir()) == []


def test_a_host_may_be_said_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "alexnet", "--on", "tpu-v3@a", "--host", "b"]) == 2
    assert "already names its host" in capsys.readouterr().err
    assert main(["run", "alexnet", "--on", "tpu-v3*2", "--host", "no-such-host"]) == 2
    assert "no accelerator 'no-such-host'" in capsys.readouterr().err


def test_the_compilers_view_of_an_edge_tpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "mobilenet_v2", "--on", "coral-usb", "--precision", "int8"]) == 0
    log = capsys.readouterr().out
    assert "On-chip memory used for caching model parameters:" in log and "Number of Edge TPU subgraphs: 1" in log
    assert "Mapped to Edge TPU" in log
    assert main(["run", "mobilenet_v2", "--on", "coral-usb", "--precision", "int8"]) == 0
    told = capsys.readouterr().out
    assert "Off-chip memory used for streaming uncached model parameters:" in told
    assert main(["compile", "mobilenet_v2", "--on", "t4"]) == 2
    assert "edgetpu_compiler compiles for coral-usb" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ResNet-50", "resnet_50", "resnet50"])
def test_names_of_networks_are_forgiving(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, err = run(capsys, "run", name, "--on", "tpu-v4")
    assert (code, err) == (0, "") and out.startswith("resnet50 on ")
