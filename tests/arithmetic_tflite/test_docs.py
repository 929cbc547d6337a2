"""The page's table of evidence is the one the recorded results give."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tflite")
from evidence import table


def test_the_page_shows_the_recorded_evidence() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tflite_arithmetic.md").read_text(encoding="utf-8")
    assert table() in page
