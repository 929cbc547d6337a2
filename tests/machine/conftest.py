"""A minimal machine file to break in one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MINIMAL = """\
name = "toy"
family = "systolic"

[chip]
cores = [1, "paper §1"]

[matrix_unit]
count = [1, "paper §1"]
rows = [4, "paper §1"]
cols = [4, "paper §1"]
clock = ["1 GHz", "paper §1"]
dataflow = "weight-stationary"
overlap_folds = [false, "paper §1"]

[matrix_unit.rates]
int8 = [1, "paper §1"]

[vector_unit]
lanes = [4, "assumed: one a column"]
clock = ["1 GHz", "paper §1"]

[memory.dram]
kind = "dram"
scope = "chip"
capacity = ["1 GiB", "paper §1"]
bandwidth = ["10 GB/s", "derived: 10 B per clock"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a machine file: the minimal one with ``(old, new)`` replacements and ``more`` text at its end."""

    def _write(name: str = "toy", *changes: tuple[str, str], more: str = "", text: str = MINIMAL) -> Path:
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        file = tmp_path / f"{name}.toml"
        file.write_text(text + more, encoding="utf-8")
        return file

    return _write
