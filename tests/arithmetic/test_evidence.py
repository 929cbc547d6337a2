"""The evidence table of the docs page is what a run over the vectors gives; every mutation of a rule is noticed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def study(name: str) -> ModuleType:
    path = ROOT / "studies" / "arithmetic_mutations" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"arithmetic_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_todays_evidence() -> None:
    evidence = study("evidence")
    page = (ROOT / "docs" / "arithmetic.md").read_text(encoding="utf-8")
    assert page.split(evidence.BEGIN)[1].split(evidence.END)[0] == evidence.table()


@pytest.mark.parametrize(
    "name", ["one fraction bit more", "fp32 to nearest", "exponent of zero one lower", "products normalised"]
)
def test_a_mutation_is_noticed(name: str) -> None:
    mutate = study("mutate")
    with mutate.MUTATIONS[name]():
        assert sum(mutate.noticed()) > 0


@pytest.mark.slow
def test_every_mutation_is_noticed() -> None:
    mutate = study("mutate")
    assert mutate.noticed() == (0, 0, 0)
    for name, change in mutate.MUTATIONS.items():
        with change():
            assert sum(mutate.noticed()) > 0, name
    assert mutate.gemm_order() > 0
