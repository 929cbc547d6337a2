"""Every recorded and published Tensor Core result, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crafted_cases import cases
from tensor_core_vectors import answer, differing, generated, index, integers, recorded

from hwsim.arithmetic import fused_dot, sparse_dot

RECORDED = recorded()
ARCHES = sorted({row["file"] for row in index()})


@pytest.mark.parametrize(("name", "call"), RECORDED, ids=[name for name, _ in RECORDED])
def test_silicon(name: str, call: dict[str, Any]) -> None:
    assert differing(answer(call), call["want"], call["output"]) == 0


def test_silicon_is_all_there() -> None:
    assert sum(call["want"].size for _, call in RECORDED) == 24000 + 11630
    gpus = {name.split("-")[0] for name, _ in RECORDED}
    assert gpus == {"V100", "A100", "A2", "Ada", "L40S", "H100", "H200", "B200", "RTX4060"}


@pytest.mark.parametrize("file", ARCHES)
def test_generated_instructions(file: str) -> None:
    rows = [row for row in index() if row["file"] == file]
    wrong = {}
    for row in rows:
        call = generated(row)
        wrong[row["id"]] = differing(answer(call), call["want"], row["d"])
    assert not {k: v for k, v in wrong.items() if v}
    assert len(index()) == 262


@pytest.mark.parametrize("row", index("int_index.csv"), ids=lambda row: row["id"])
def test_integer_instructions(row: dict[str, str]) -> None:
    v = integers(row)
    parts = row["id"].split(".")
    if row["kind"] == "binary":
        got = fused_dot(v["a"], v["b"], v["c"], profile="a100", input="b1", output="int32", instruction=row["id"])
        assert np.array_equal(got, v["d_wrap"])
        return
    common: dict[str, Any] = {"profile": "a100", "input": (parts[-2], parts[-1]), "output": "int32"}
    for saturate, key in ((False, "d_wrap"), (True, "d_satfinite")):
        if row["kind"] == "sparse int":
            got = sparse_dot(v["a"], v["meta"], v["b"], v["c"], saturate=saturate, **common)
        else:
            shape = next(p for p in parts if p.startswith("m") and p != "mma")
            got = fused_dot(v["a"], v["b"], v["c"], saturate=saturate, instruction=shape, **common)
        assert np.array_equal(got, v[key])


@pytest.mark.parametrize(("name", "call"), list(cases()), ids=[name for name, _ in cases()])
def test_exponent_of_zero_and_sign_of_nothing(name: str, call: dict[str, Any]) -> None:
    assert np.array_equal(answer(call), call["want"])
