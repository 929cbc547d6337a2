"""The page of keys is written from the schema, and its examples are true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, load_constants
from hwsim.machine.keytable import key_tables, rewrite

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accelerator_files.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_current() -> None:
    assert rewrite(TEXT) == TEXT, "run python -m hwsim.machine.keytable docs/accelerator_files.md"


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in key_tables().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert len(row.split("|")[4].strip()) > 4, row


def test_every_example_is_toml_and_the_first_one_loads(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) >= 4
    for example in examples:
        tomllib.loads(example)
    file = tmp_path / "first.toml"
    file.write_text(examples[0], encoding="utf-8")
    assert load_accelerator(file).memory["hbm"].bandwidth_bytes_per_s == 2e12
    constants = next(e for e in examples if "[constant." in e)
    file.write_text(constants, encoding="utf-8")
    assert load_constants("systolic", "tpu-v3", file)["ramp"] == 2e-6


def test_the_error_shown_is_the_error_given(tmp_path: Path) -> None:
    file = tmp_path / "accelerators" / "tpu-v9.toml"
    file.parent.mkdir()
    file.write_text(
        'based_on = "tpu-v4"\n[matrix_unit]\nrow = [256, "slides"]\n[memory.hbm]\nbandwidth = ["450 Gb", "slides"]\n'
    )
    with pytest.raises(HwsimError) as error:
        load_accelerator(file)
    shown = re.search(r"```\n(2 problems.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    assert " ".join(shown.group(1).split()) == str(error.value)
