"""Hostile machine files: whatever the text, a machine or one clear line, and soon."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator, load_constants, vary

TEXTS = [f.read_text(encoding="utf-8") for f in sorted(accelerators_dir().glob("*.toml"))]
LINES = sorted({line for text in TEXTS for line in text.splitlines() if line})
FRAGMENTS = [
    "",
    '"',
    "[",
    "]",
    "=",
    "[]",
    "{}",
    "nan",
    "-1",
    "0",
    "1e999",
    "true",
    '"1 GHz"',
    "\\u0000",
    "9" * 400,
    ".",
    "#",
]

loose = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


def one_line_or_machine(file: Path) -> None:
    try:
        assert isinstance(load_accelerator(file), Accelerator)
    except HwsimError as error:
        assert str(error).isprintable() and str(error)


@loose
@given(data=st.data())
def test_mutated_text(tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.sampled_from(FRAGMENTS) | st.text(max_size=4)) + text[end:]
    file = tmp_path / "fuzz.toml"
    file.write_text(text, encoding="utf-8", errors="replace")
    one_line_or_machine(file)


@loose
@given(data=st.data())
def test_shuffled_lines_of_many_files(tmp_path: Path, data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(TEXTS)).splitlines()
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + data.draw(st.integers(0, 2))] = [data.draw(st.sampled_from(LINES))]
    file = tmp_path / "fuzz.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    one_line_or_machine(file)


@loose
@given(raw=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "fuzz.toml"
    file.write_bytes(raw)
    one_line_or_machine(file)
    try:
        load_constants("systolic", file=file)
    except HwsimError as error:
        assert str(error).isprintable()


PATHS = sorted(load_accelerator("tpu-v1").values)
ODD: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.lists(st.integers(), max_size=3)
)


@loose
@given(path=st.sampled_from(PATHS) | st.text(max_size=20), value=ODD)
def test_any_variation_is_checked(path: str, value: object) -> None:
    acc = load_accelerator("tpu-v1")
    try:
        varied = vary(acc, {path: value})
    except HwsimError as error:
        assert str(error)
    else:
        assert varied.matrix_unit.rows > 0 and varied.matrix_unit.clock_hz > 0


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 20_000 + " = 1",
        "\n".join(f"k{i}" + ".a" * 480 + " = 1" for i in range(240)),
        "\n".join(f"[memory.l{i}]\nkind = 1" for i in range(8_000)),
        "x = " + "[" * 900 + "]" * 900,
        'name = "' + "x" * 200_000 + '"',
        "\n".join(f"k{i} = {i}" for i in range(20_000)),
    ],
    ids=["deep key", "deep keys", "many levels", "deep list", "long text", "many keys"],
)
def test_a_large_hostile_file_is_refused_soon(tmp_path: Path, text: str) -> None:
    file = tmp_path / "fuzz.toml"
    file.write_text('family = "systolic"\n' + text)
    start = time.process_time()
    with pytest.raises(HwsimError) as error:
        load_accelerator(file)
    assert time.process_time() - start < 5 and len(str(error.value)) < 100_000
