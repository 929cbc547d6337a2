"""The command and the Python form: files, frame, errors, and nothing half-written."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from test_scalesim_config import FULL

from hwsim.errors import HwsimError
from hwsim.scalesim import command, parse_config, parse_topology, read_config, run, simulate, write_reports
from hwsim.scalesim import report as reports_module

CONFIG = FULL.replace("USER", "CALC").replace("true", "false").replace("True", "False")
TOPOLOGY = "Layer, M, N, K,\nfirst, 40, 30, 50,\nsecond, 7, 8, 9,\n"
NAMES = ["BANDWIDTH_REPORT.csv", "COMPUTE_REPORT.csv", "DETAILED_ACCESS_REPORT.csv"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "scale.cfg").write_text(CONFIG)
    (tmp_path / "net.csv").write_text(TOPOLOGY)
    return tmp_path


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args([str(word) for word in words]))


def test_reports_are_written_where_the_tool_writes_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call("-c", files / "scale.cfg", "-t", files / "net.csv", "-p", files / "a" / "b", "-s", "N")
    folder = files / "a" / "b" / "scale_example_run_32x32_ws"
    assert code == 0
    assert sorted(p.name for p in folder.iterdir()) == NAMES
    printed = capsys.readouterr().out
    assert "first" in printed and "total" in printed and str(folder) in printed
    expected = reports_module.report_texts(
        parse_config(CONFIG), simulate(parse_config(CONFIG), parse_topology(TOPOLOGY))
    )
    assert {p.name: p.read_text() for p in folder.iterdir()} == expected
    lines = expected["COMPUTE_REPORT.csv"].split("\n")
    # 2 column folds of 30 filters on 16, 2 row folds of 50 on 32: 4 x (40 + 64 + 16 - 2) - 1
    assert lines[1].split(", ")[2] == str(4 * 118 - 1)


def test_sparse_report_and_gemm_flag(files: Path) -> None:
    (files / "sparse.cfg").write_text(CONFIG.replace("SparsitySupport : false", "SparsitySupport : true"))
    (files / "s.csv").write_text("x\nfirst, 40, 30, 50, 2:4,\n")
    assert call("-c", files / "sparse.cfg", "-t", files / "s.csv", "-i", "gemm", "-p", files / "out", "-q") == 0
    (folder,) = (files / "out").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == [*NAMES, "SPARSE_REPORT.csv"]
    assert (folder / "SPARSE_REPORT.csv").read_text().split("\n")[1].startswith("0, csr, 1500, ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-c", "absent.cfg", "-t", "net.csv"], "cannot read configuration 'absent.cfg'"),
        (["-c", "scale.cfg", "-t", "absent.csv"], "cannot read topology 'absent.csv'"),
        (["-c", "scale.cfg", "-t", "net.csv", "-i", "conv"], "net.csv, line 2, fields: a convolution needs"),
        (["-c", "scale.cfg", "-t", "net.csv", "--symbol", "b=1"], "--symbol 'b=1': expected a letter"),
        (["-c", "scale.cfg", "-t", "net.csv", "-p", "scale.cfg"], "cannot write reports to"),
        (["-c", "user.cfg", "-t", "net.csv"], "UseRamulatorTrace: needs latency files"),
        (["-c", "layout.cfg", "-t", "net.csv"], "[layout]: a custom filter layout needs a layout file"),
        (["-c", "scale.cfg", "-t", "huge.csv"], "layer 'huge': an operand of more than 2^48 words"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    files: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    Path("user.cfg").write_text(FULL.replace("SparsitySupport : true", "SparsitySupport : false"))
    Path("layout.cfg").write_text(Path("user.cfg").read_text().replace("UseRamulatorTrace: True", ""))
    Path("huge.csv").write_text("L,M,N,K,\nok, 4, 4, 4,\nhuge, 999999999, 999999999, 999999999,\n")
    assert call(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("results").exists()


def test_a_failing_write_leaves_earlier_reports_alone(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, topology = parse_config(CONFIG), parse_topology(TOPOLOGY)
    folder = write_reports(config, topology, files / "out")
    before = {p.name: p.read_text() for p in folder.iterdir()}
    written: list[str] = []
    true_write = Path.write_text

    def full_disk(self: Path, *args: object, **keywords: object) -> int:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(self.name)
        return true_write(self, *args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(HwsimError, match="No space left on device"):
        write_reports(config, parse_topology("x,M,N,K,\nother, 3, 3, 3,\n"), files / "out")
    assert {p.name: p.read_text() for p in folder.iterdir()} == before


def test_frame_has_the_columns_of_all_reports(files: Path) -> None:
    frame = run(files / "scale.cfg", files / "net.csv")
    again = run(read_config(files / "scale.cfg"), parse_topology(TOPOLOGY), input_type="gemm")
    assert frame.equals(again)
    texts = reports_module.report_texts(parse_config(CONFIG), simulate(parse_config(CONFIG), parse_topology(TOPOLOGY)))
    for text in texts.values():
        header, *lines = (line.rstrip(", ").split(", ") for line in text.strip().split("\n"))
        for column in header:
            assert column in frame.columns
        for line, (_, row) in zip(lines, frame.iterrows(), strict=True):
            assert [float(cell) for cell in line] == [float(row[column]) for column in header]
    assert list(frame["Layer"]) == ["first", "second"]


def test_unknown_input_type() -> None:
    with pytest.raises(HwsimError, match="expected conv or gemm"):
        run("a", "b", input_type="mm")  # type: ignore[arg-type]


def test_import_is_light() -> None:
    heavy = ("pandas", "numba", "scipy", "onnx")
    code = f"import hwsim.scalesim.command, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
