"""Integer operators of ONNX that appear alone, weights with zero points, scales per column: against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import helper
from onnx_models import graph
from test_onnx_integer import _codes, _dq, _ort, _params, _q

from hwsim.execution.onnx_load import load_onnx
from hwsim.execution.onnx_run import run_onnx
from hwsim.execution.products import FP32


def same(content: bytes, feed: dict[str, np.ndarray]) -> None:
    made = list(run_onnx(load_onnx(content), feed, lambda *_: FP32).values())
    for got, want in zip(made, _ort(content, feed), strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want), f"{np.count_nonzero(got != want)} of {got.size} differ"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("zero", [0, 5])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_columns_and_zero_points(op: str, columns: bool, zero: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.001, 0.02, 24).astype(np.float32) if columns else np.float32(0.01)
    stored = _params(rng, np.uint8, "x", "y") | {"w": _codes(rng, np.int8, (40, 24)), "w_s": scales}
    stored |= {
        "w_z": np.full(np.shape(scales), zero, np.int8),
        "b": rng.integers(-9999, 9999, 24).astype(np.int32),
        "b_s": np.asarray(stored["x_s"] * scales, np.float32),
        "b_z": np.zeros(np.shape(scales), np.int32),
        "y_s": np.float32(stored["x_s"] * 12),
    }
    gemm = op == "Gemm"
    nodes = [_dq("x", "x", "xf"), _dq("w", "w", "wf", **({"axis": 1} if columns else {}))]
    nodes += [_dq("b", "b", "bf", **({"axis": 0} if columns else {}))] if gemm else []
    nodes += [helper.make_node(op, ["xf", "wf", "bf"] if gemm else ["xf", "wf"], ["c"]), _q("c", "y", "y")]
    same(graph(nodes, {"x": (np.uint8, (7, 40))}, ["y"], stored), {"x": _codes(rng, np.uint8, (7, 40))})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_matmul_integer(kind: type, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = {"w": _codes(rng, np.int8, (40, 24)), "x_z": np.asarray(_codes(rng, kind, ()), kind), "w_z": np.int8(0)}
    nodes = [helper.make_node("MatMulInteger", ["x", "w", "x_z", "w_z"], ["y"])]
    same(graph(nodes, {"x": (kind, (3, 7, 40))}, ["y"], stored), {"x": _codes(rng, kind, (3, 7, 40))})


@pytest.mark.parametrize("seed", range(4))
def test_conv_integer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = {"w": _codes(rng, np.uint8, (6, 4, 3, 3)), "x_z": np.asarray(_codes(rng, np.uint8, ()), np.uint8)}
    stored["w_z"] = np.uint8(128)
    nodes = [
        helper.make_node("ConvInteger", ["x", "w", "x_z", "w_z"], ["y"], pads=[1, 1, 1, 1], strides=[1 + seed % 2, 1])
    ]
    same(graph(nodes, {"x": (np.uint8, (2, 4, 9, 8))}, ["y"], stored), {"x": _codes(rng, np.uint8, (2, 4, 9, 8))})


@pytest.mark.parametrize("seed", range(8))
def test_dynamic_quantisation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((5, 33)) * 10.0 ** rng.integers(-3, 4) + rng.integers(-2, 3)).astype(np.float32)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])]
    same(graph(nodes, {"x": (np.float32, (5, 33))}, ["q", "s", "z"], {}), {"x": x})
