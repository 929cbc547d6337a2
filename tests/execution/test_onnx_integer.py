"""Quantised ONNX networks: bit for bit against ONNX Runtime where installed, and against integers summed by definition."""

# ruff: noqa: E501 (a case a line)
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
from onnx import helper
from onnx_models import graph

from hwsim.execution.onnx_integer import fuse
from hwsim.execution.onnx_load import load_onnx
from hwsim.execution.onnx_run import run_onnx
from hwsim.execution.products import FP32


def _ort(content: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return list(ort.InferenceSession(content, options, providers=["CPUExecutionProvider"]).run(None, inputs))


def _q(x: str, p: str, y: str) -> Any:
    return helper.make_node("QuantizeLinear", [x, f"{p}_s", f"{p}_z"], [y])


def _dq(x: str, p: str, y: str, **attrs: Any) -> Any:
    return helper.make_node("DequantizeLinear", [x, f"{p}_s", f"{p}_z"], [y], **attrs)


def _codes(rng: np.random.Generator, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def _params(rng: np.random.Generator, kind: type, *names: str) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for name in names:
        out[f"{name}_s"] = np.float32(rng.uniform(0.005, 0.05))
        out[f"{name}_z"] = np.asarray(_codes(rng, kind, ()) // 2, kind)
    return out


def _check(content: bytes, feed: dict[str, np.ndarray], op: str) -> None:
    model = load_onnx(content)
    assert any(n.op == op for n in fuse(model.graph, model.stored).nodes)
    made = list(run_onnx(model, feed, lambda *_: FP32).values())
    for got, want in zip(made, _ort(content, feed), strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want), f"{np.count_nonzero(got != want)} of {got.size} differ"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_convolution(kind: type, per_channel: bool, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = _params(rng, kind, "x", "y") | {
        "w": _codes(rng, np.int8, (8, 8 // groups, 3, 3)),
        "b": rng.integers(-9999, 9999, 8).astype(np.int32),
    }
    scales = rng.uniform(0.001, 0.02, 8).astype(np.float32) if per_channel else np.float32(0.01)
    stored |= {
        "w_s": scales,
        "w_z": np.zeros(np.shape(scales), np.int8),
        "b_s": np.asarray(stored["x_s"] * scales, np.float32),
        "b_z": np.zeros(np.shape(scales), np.int32),
    }
    axis = {"axis": 0} if per_channel else {}
    stored["y_s"] = np.float32(stored["x_s"] * 0.2 * np.sqrt(64 / groups) * 3)
    nodes = [_dq("x", "x", "xf"), _dq("w", "w", "wf", **axis), _dq("b", "b", "bf", **axis),
             helper.make_node("Conv", ["xf", "wf", "bf"], ["c"], group=groups, pads=[1, 1, 1, 1], strides=[1 + seed % 2, 1]), _q("c", "y", "y")]  # fmt: skip
    _check(
        graph(nodes, {"x": (kind, (2, 8, 9, 7))}, ["y"], stored), {"x": _codes(rng, kind, (2, 8, 9, 7))}, "QLinearConv"
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "MatMul float", "Gemm float"])
def test_matrix_products(kind: type, op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = _params(rng, kind, "x", "y") | {
        "w": _codes(rng, np.int8, (40, 24)),
        "b": rng.integers(-9999, 9999, 24).astype(np.int32),
        "w_z": np.int8(0),
        "b_z": np.int32(0),
    }
    stored |= {
        "w_s": np.float32(0.01),
        "b_s": np.float32(stored["x_s"] * np.float32(0.01)),
        "y_s": np.float32(stored["x_s"] * 12),
    }
    gemm = op.startswith("Gemm")
    nodes = [_dq("x", "x", "xf"), _dq("w", "w", "wf"), *([_dq("b", "b", "bf")] if gemm else []),
             helper.make_node(op.split()[0], ["xf", "wf", "bf"] if gemm else ["xf", "wf"], ["c"])]  # fmt: skip
    last = "c" if "float" in op else "y"
    nodes += [] if last == "c" else [_q("c", "y", "y")]
    shape = (7, 40) if gemm else (2, 7, 40)
    rule = {"MatMul": "QLinearMatMul", "Gemm": "QGemm", "MatMul float": "MatMulIntegerToFloat", "Gemm float": "QGemm"}[
        op
    ]
    _check(graph(nodes, {"x": (kind, shape)}, [last], stored), {"x": _codes(rng, kind, shape)}, rule)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("op", ["Add", "Mul", "Concat"])
def test_two_operands(kind: type, op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = _params(rng, kind, "a", "b", "y")
    nodes = [
        _dq("a", "a", "af"),
        _dq("b", "b", "bf"),
        helper.make_node(op, ["af", "bf"], ["c"], **({"axis": 1} if op == "Concat" else {})),
        _q("c", "y", "y"),
    ]
    shape = (3, 5, 31, 17)
    feed = {"a": _codes(rng, kind, shape), "b": _codes(rng, kind, shape)}
    _check(graph(nodes, {"a": (kind, shape), "b": (kind, shape)}, ["y"], stored), feed, f"QLinear{op}")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize(("op", "attrs", "rule"), [
    ("Sigmoid", {}, "QLinearSigmoid"), ("LeakyRelu", {"alpha": 0.1}, "QLinearLeakyRelu"), ("GlobalAveragePool", {}, "QLinearGlobalAveragePool"),
    ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}, "QLinearAveragePool"),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, "QLinearAveragePool"),
    ("MaxPool", {"kernel_shape": [2, 2]}, "MaxPool"), ("Relu", {}, "Relu"), ("Transpose", {"perm": [0, 2, 3, 1]}, "Transpose"),
])  # fmt: skip
def test_one_operand(kind: type, op: str, attrs: dict[str, Any], rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stored = _params(rng, kind, "x", "y")
    if op == "Sigmoid":
        stored |= {"y_s": np.float32(1 / 256), "y_z": np.asarray(np.iinfo(kind).min, kind)}
    nodes = [_dq("x", "x", "xf"), helper.make_node(op, ["xf"], ["c"], **attrs), _q("c", "y", "y")]
    shape = (2, 6, 11, 8)
    _check(graph(nodes, {"x": (kind, shape)}, ["y"], stored), {"x": _codes(rng, kind, shape)}, rule)


def test_a_chain_of_layers() -> None:
    """Two convolutions, a residual, a pool and a classifier, float in and float out."""
    rng = np.random.default_rng(5)
    stored: dict[str, np.ndarray] = {"x_s": np.float32(0.03), "x_z": np.uint8(120), "p_s": np.float32(0.11), "p_z": np.uint8(0), "r_s": np.float32(0.12),
                                     "r_z": np.uint8(90), "s_s": np.float32(0.15), "s_z": np.uint8(100), "g_s": np.float32(0.02), "g_z": np.uint8(100)}  # fmt: skip
    for name, shape in (("u", (8, 3, 3, 3)), ("v", (8, 8, 3, 3)), ("f", (8, 10))):
        stored |= {name: _codes(rng, np.int8, shape), f"{name}_s": np.float32(0.004), f"{name}_z": np.int8(0)}
    nodes = [_q("in", "x", "x"), _dq("x", "x", "xf"), _dq("u", "u", "uf"), helper.make_node("Conv", ["xf", "uf"], ["c1"], pads=[1] * 4), _q("c1", "p", "p"),
             _dq("p", "p", "pf"), _dq("v", "v", "vf"), helper.make_node("Conv", ["pf", "vf"], ["c2"], pads=[1] * 4), _q("c2", "r", "r"), _dq("r", "r", "rf"),
             helper.make_node("Add", ["pf", "rf"], ["a"]), _q("a", "s", "s"), _dq("s", "s", "sf"), helper.make_node("GlobalAveragePool", ["sf"], ["m"]), _q("m", "g", "g"),
             _dq("g", "g", "gf"), helper.make_node("Flatten", ["gf"], ["fl"]), _q("fl", "g", "gq"), _dq("gq", "g", "gd"), _dq("f", "f", "ff"), helper.make_node("MatMul", ["gd", "ff"], ["y"])]  # fmt: skip
    content = graph(nodes, {"in": (np.float32, (2, 3, 12, 12))}, ["y"], stored)
    _check(content, {"in": rng.standard_normal((2, 3, 12, 12)).astype(np.float32)}, "QLinearAdd")


def test_integer_convolution_by_definition() -> None:
    """Without any runtime: sums of (x − z_x) w, one rounding."""
    rng = np.random.default_rng(6)
    x, w = _codes(rng, np.uint8, (1, 2, 4, 4)), _codes(rng, np.int8, (3, 2, 2, 2))
    stored = {
        "xs": np.float32(0.02),
        "xz": np.uint8(7),
        "w": w,
        "ws": np.float32([0.01, 0.02, 0.03]),
        "wz": np.zeros(3, np.int8),
        "ys": np.float32(0.25),
        "yz": np.uint8(128),
    }
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    made = run_onnx(
        load_onnx(graph([node], {"x": (np.uint8, (1, 2, 4, 4))}, ["y"], stored)), {"x": x}, lambda *_: FP32
    )["y"]
    for f, i, j in np.ndindex(3, 3, 3):
        acc = int(
            sum(
                (int(x[0, c, i + r, j + s]) - 7) * int(w[f, c, r, s])
                for c in range(2)
                for r in range(2)
                for s in range(2)
            )
        )
        factor = stored["xs"] * stored["ws"][f] / stored["ys"]
        assert int(made[0, f, i, j]) == min(255, max(0, round(float(np.float32(acc) * factor)) + 128))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_every_pair_of_codes(op: str, seed: int) -> None:
    """All 65,536 pairs: among them the ties that one rounding more or less turns."""
    import onnx

    rng = np.random.default_rng(100 + seed)
    pairs = {"a": np.arange(256, dtype=np.uint8).repeat(256), "b": np.tile(np.arange(256, dtype=np.uint8), 256)}
    stored = _params(rng, np.uint8, "a", "b", "y")
    names = ["a", "a_s", "a_z", "b", "b_s", "b_z", "y_s", "y_z"]
    node = helper.make_node(f"QLinear{op}", names, ["y"], domain="com.microsoft")
    model = onnx.load_model_from_string(graph([node], dict.fromkeys(pairs, (np.uint8, (65536,))), ["y"], stored))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    content = model.SerializeToString()
    made = run_onnx(load_onnx(content), pairs, lambda *_: FP32)["y"]
    assert np.array_equal(made, _ort(content, pairs)[0])


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("name", ["mobilenet_v2_train", "efficientnet_b0"])
def test_whole_networks(name: str, form: str, activations: str, per_channel: bool, tmp_path: Any) -> None:
    """Exported networks quantised by ONNX Runtime's own tool: every output value, bit for bit."""
    pytest.importorskip("onnxruntime")
    from onnx_models import fixture
    from onnxruntime import quantization as tool
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from hwsim.execution.onnx_run import random_onnx_inputs

    content = fixture(name)
    (tmp_path / "f.onnx").write_bytes(content)
    quant_pre_process(str(tmp_path / "f.onnx"), str(tmp_path / "p.onnx"), skip_symbolic_shape=True)

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.left = iter([random_onnx_inputs(load_onnx(content), seed) for seed in range(2)])

        def get_next(self) -> Any:
            return next(self.left, None)

    tool.quantize_static(
        str(tmp_path / "p.onnx"), str(tmp_path / "q.onnx"), Reader(), quant_format=tool.QuantFormat[form], per_channel=per_channel,
        activation_type=tool.QuantType[activations], weight_type=tool.QuantType.QInt8,
    )  # fmt: skip
    made = (tmp_path / "q.onnx").read_bytes()
    feed = random_onnx_inputs(load_onnx(made), 9, {"batch": 2})
    got = list(run_onnx(load_onnx(made), feed, lambda *_: FP32).values())
    want = _ort(made, feed)
    assert float(want[0].std()) > 0
    assert np.array_equal(got[0], want[0])
