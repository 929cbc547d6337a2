"""Parquet files hold the same rows; without pyarrow one line says what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import hwsim
from hwsim.cli import main
from hwsim.errors import HwsimError


def test_a_result_and_a_comparison_come_back(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    result = hwsim.simulate("alexnet", "tpu-v3")
    result.to_parquet(tmp_path / "r.parquet")
    found = pd.read_parquet(tmp_path / "r.parquet")
    assert found["latency_s"].tolist() == result.layers["latency_s"].tolist()
    assert found["name"].tolist() == result.layers["name"].tolist()
    assert main(["compare", "alexnet", "--on", "tpu-v1,tpu-v3", "--parquet", str(tmp_path / "c.parquet")]) == 0
    assert set(pd.read_parquet(tmp_path / "c.parquet")["target"]) == {"tpu-v1", "tpu-v3"}


def test_without_pyarrow_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HwsimError, match="need pyarrow"):
        hwsim.simulate("alexnet", "tpu-v3").to_parquet(tmp_path / "r.parquet")
    assert not list(tmp_path.iterdir())
