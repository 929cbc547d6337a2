"""ONNX models with their weights: against ONNX Runtime where installed, operators against numpy, hostile files."""

# ruff: noqa: E501 (a case a line)
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import helper, numpy_helper
from onnx_models import FIXTURES, fixture, graph, onnxruntime_run

from hwsim.errors import HwsimError
from hwsim.execution import execute, verify
from hwsim.execution.onnx_load import load_onnx
from hwsim.execution.onnx_run import random_onnx_inputs, run_onnx
from hwsim.execution.products import EXACT, FP32

SIZES = {"batch": 2, "batch_size": 2, "seq": 6, "sequence_length": 6, "time": 5, "height": 64, "width": 48}
SMALL = [f for f in FIXTURES if f not in ("convnext_tiny", "efficientnet_b0", "mobilenet_v2_train")]


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(f, marks=pytest.mark.slow) for f in FIXTURES if f not in SMALL)]
)
def test_exported_models_agree_with_onnxruntime(name: str) -> None:
    """Float sums have no defined order: ONNX Runtime and exact arithmetic agree to fp32 rounding, not to the bit."""
    pytest.importorskip("onnxruntime")
    content = fixture(name)
    model = load_onnx(content)
    x = random_onnx_inputs(model, 0, SIZES)
    exact = run_onnx(model, x, lambda *_: EXACT)
    for got, want in zip(onnxruntime_run(content, x), exact.values(), strict=True):
        assert got.shape == want.shape
        assert float(want.std()) > 0
        assert float(np.abs(got - want).max()) < 2e-6 * float(np.abs(want).max())


@pytest.mark.parametrize("name", SMALL)
def test_exported_models_fp32_against_exact(name: str) -> None:
    model = load_onnx(fixture(name))
    x = random_onnx_inputs(model, 0, SIZES)
    exact, plain = run_onnx(model, x, lambda *_: EXACT), run_onnx(model, x, lambda *_: FP32)
    for key, want in exact.items():
        assert float(want.std()) > 0
        assert float(np.abs(plain[key] - want).max()) < 2e-6 * float(np.abs(want).max())


RNG = np.random.default_rng(0)
F = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)
W = RNG.standard_normal((6, 2, 3, 2)).astype(np.float32)
WT = RNG.standard_normal((4, 3, 3, 2)).astype(np.float32)
V = RNG.standard_normal(6).astype(np.float32)
CASES: list[tuple[str, list[np.ndarray], dict[str, Any], int]] = [
    ("Conv", [F, W, V], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}, 17),
    ("Conv", [F, W, V], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}, 17),
    ("ConvTranspose", [F, WT, V], {"group": 2, "pads": [1, 0, 1, 1], "strides": [2, 3], "output_padding": [1, 0]}, 17),
    ("MaxPool", [F], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}, 17),
    ("AveragePool", [F], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}, 17),
    ("AveragePool", [F], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "count_include_pad": 1}, 17),
    ("AveragePool", [F], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, 17),
    ("GlobalAveragePool", [F], {}, 17), ("LRN", [F], {"size": 3, "alpha": 0.1, "beta": 0.7, "bias": 2.0}, 17),
    ("Gemm", [F[0, 0], F[1, 1], F[0, 0, :, 0]], {"transB": 1, "alpha": 0.5, "beta": 2.0}, 17),
    ("MatMul", [F, np.swapaxes(F[:1], 2, 3).copy()], {}, 17), ("Softmax", [F], {"axis": 1}, 17), ("Softmax", [F], {"axis": 1}, 11),
    ("LogSoftmax", [F], {}, 17), ("InstanceNormalization", [F, V[:4], V[2:]], {}, 17), ("Gelu", [F], {"approximate": "tanh"}, 20),
    ("LayerNormalization", [F, F[0, 0, 0], F[0, 1, 0]], {"epsilon": 1e-3}, 17), ("ReduceLogSumExp", [F], {"axes": [1, 3]}, 17),
    ("ReduceL2", [F], {"axes": [-1], "keepdims": 0}, 17), ("ArgMax", [F], {"axis": 2, "keepdims": 0}, 17),
    ("CumSum", [F, np.array(1)], {"exclusive": 1, "reverse": 1}, 17), ("Pad", [F, np.array([0, 0, 1, 2, 0, 0, 2, 1])], {"mode": "reflect"}, 17),
    ("Slice", [F, np.array([-1, 4]), np.array([-7, 0]), np.array([2, 3]), np.array([-2, -1])], {}, 17),
    ("Gather", [F, np.array([[1, -1], [0, 2]])], {"axis": 1}, 17), ("Expand", [F[:, :1], np.array([1, 4, 1, 1])], {}, 17),
    ("Resize", [F, np.zeros(0, np.float32), np.float32([1, 1, 2, 1.5])], {"mode": "linear"}, 17),
    ("Resize", [F, np.zeros(0, np.float32), np.float32([1, 1, 2, 1.5])], {"mode": "cubic"}, 17),
    ("Resize", [F, np.zeros(0, np.float32), np.float32([1, 1, 2, 2])], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, 17),
    ("Resize", [F, np.zeros(0, np.float32), np.zeros(0, np.float32), np.array([2, 4, 11, 3])], {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, 17),
    ("TopK", [F, np.array([3])], {"axis": 2}, 17), ("DepthToSpace", [F], {"blocksize": 2, "mode": "CRD"}, 17),
    ("Trilu", [F, np.array(1)], {"upper": 0}, 17), ("OneHot", [np.array([1, -1, 0]), np.array(4), np.float32([2, 5])], {"axis": 0}, 17),
    ("GatherND", [F, np.array([[[1], [2]], [[0], [3]]])], {"batch_dims": 1}, 17), ("HardSigmoid", [F], {}, 17), ("Selu", [F], {}, 17),
    ("GRU", [F[0], RNG.standard_normal((2, 9, 5), np.float32), RNG.standard_normal((2, 9, 3), np.float32), RNG.standard_normal((2, 18), np.float32)],
     {"hidden_size": 3, "direction": "bidirectional", "linear_before_reset": 1}, 17),
    ("GRU", [F[0], RNG.standard_normal((1, 9, 5), np.float32), RNG.standard_normal((1, 9, 3), np.float32), RNG.standard_normal((1, 18), np.float32)],
     {"hidden_size": 3}, 17),
    ("LSTM", [F[0], RNG.standard_normal((1, 12, 5), np.float32), RNG.standard_normal((1, 12, 3), np.float32)], {"hidden_size": 3, "direction": "reverse"}, 17),
    ("RNN", [F[0], RNG.standard_normal((1, 3, 5), np.float32), RNG.standard_normal((1, 3, 3), np.float32)], {"hidden_size": 3}, 17),
]  # fmt: skip


@pytest.mark.parametrize(("op", "arrays", "attrs", "opset"), CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_operators_against_the_reference_evaluator(
    op: str, arrays: list[np.ndarray], attrs: dict[str, Any], opset: int
) -> None:
    """Against onnx's own evaluator, and ONNX Runtime where installed."""
    names = [f"i{i}" for i in range(len(arrays))]
    used = [n if a.size else "" for n, a in zip(names, arrays, strict=True)]
    outs = ["y"] if op not in ("TopK", "LSTM", "GRU", "RNN") else ["y", "z"]
    node = helper.make_node(op, used, outs, **attrs)
    given = {n: (a.dtype, a.shape) for n, a in zip(names, arrays, strict=True) if a.size}
    content = graph([node], given, outs, opset=opset)
    feed = {n: a for n, a in zip(names, arrays, strict=True) if a.size}
    made = list(run_onnx(load_onnx(content), feed, lambda *_: EXACT).values())
    answers = []
    try:
        import onnxruntime  # noqa: F401

        answers.append(onnxruntime_run(content, feed))
    except ImportError:
        pass
    # onnx's own evaluator deviates from the standard (and from ONNX Runtime) in these
    lacking = op in ("GRU", "RNN", "LRN", "ConvTranspose") or attrs.get("direction") == "reverse" or opset < 13
    if not lacking and attrs.get("nearest_mode") is None:
        from onnx.reference import ReferenceEvaluator

        answers.append(list(ReferenceEvaluator(onnx.load_model_from_string(content)).run(None, feed)))
    if not answers:
        pytest.skip("onnxruntime is not installed")
    for answer in answers:
        for got, want in zip(made, answer, strict=True):
            assert got.shape == want.shape
            assert np.allclose(got, want, rtol=1e-5, atol=1e-5)


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    return path


def test_execute_and_verify_a_float_file_on_a_machine(tmp_path: Path) -> None:
    path = _file(tmp_path, fixture("se17"))
    found = verify(path, "tpu-v4", precision="bf16", batch=1, samples=4)
    assert found.is_bit_exact
    assert found.compared == 24 and 20 < min(e.snr_db for e in found.error.values()) < 80
    made = execute(path, "h100", precision="fp16", intermediates=True)
    assert all(np.array_equal(v, v.astype(np.float16).astype(np.float32)) for v in made.outputs.values())


def test_a_products_epilogue_runs_in_fp32(tmp_path: Path) -> None:
    w = np.float32([[1.0, 0.0], [0.0, 1.0]])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    content = graph(nodes, {"x": (np.float32, (1, 2))}, ["y"], {"w": w, "b": np.float32([2.0**-9, -1.0])})
    made = execute(_file(tmp_path, content), "a100", np.float32([[1.0, 1 + 2.0**-7]]), precision="bf16").outputs["y"]
    # 1 + 2^-7 is bf16; with b = -1 the difference survives because the sum is rounded once, after the addition
    assert made.tolist() == [[1.0, 2.0**-7]]


def test_hostile_files(tmp_path: Path) -> None:
    node = helper.make_node("ConstantOfShape", ["s"], ["y"])
    huge = graph(
        [node, helper.make_node("Add", ["y", "x"], ["z"])],
        {"x": (np.float32, (1,))},
        ["z"],
        {"s": np.array([2**20, 2**20])},
    )
    with pytest.raises(HwsimError, match="too large to execute"):
        run_onnx(load_onnx(huge), {"x": np.zeros(1, np.float32)}, lambda *_: FP32)
    for bad in (b"", b"\x00" * 100, fixture("lstm")[:-50]):
        with pytest.raises(HwsimError) as caught:
            load_onnx(bad)
        assert "\n" not in str(caught.value)
    model = onnx.load_model_from_string(
        graph([helper.make_node("Relu", ["x"], ["y"])], {"x": (np.float32, (1,))}, ["y"])
    )
    for location, message in (
        ("../secret", "outside"),
        ("/etc/passwd", "outside"),
        ("gone.bin", "missing"),
        ("short.bin", "does not hold"),
    ):
        (tmp_path / "short.bin").write_bytes(b"123")
        tensor = numpy_helper.from_array(np.float32([1]), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        del model.graph.initializer[:]
        model.graph.initializer.append(tensor)
        with pytest.raises(HwsimError, match=message):
            load_onnx(_file(tmp_path, model.SerializeToString()))


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(graph([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (np.float32, (2,))}, ["y"]
                                              , {"w": np.float32([3, 4])}))  # fmt: skip
    tensor = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(b"\0" * 4 + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in (("location", "w.bin"), ("offset", "4"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    made = execute(_file(tmp_path, model.SerializeToString()), "exact", np.float32([1, 1]))
    assert made.outputs["y"].tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    "op", ["Conv", "Gather", "Reshape", "Split", "Pad", "Resize", "MaxPool", "Gemm", "Slice", "LSTM", "TopK"]
)
def test_nonsense_operands_end_in_one_line(op: str) -> None:
    rng = np.random.default_rng(1)
    for seed in range(6):
        count = int(rng.integers(1, 5))
        arrays = {
            f"i{i}": (rng.integers(-9, 9, rng.integers(0, 4, rng.integers(0, 4))).astype(rng.choice(["i8", "f4"])))
            for i in range(count)
        }
        node = helper.make_node(op, list(arrays), ["y"])
        content = helper.make_model(helper.make_graph([node], "g", [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in arrays.items()],
                                                      [helper.make_empty_tensor_value_info("y")]))  # fmt: skip
        try:
            run_onnx(load_onnx(content.SerializeToString()), arrays, lambda *_: FP32)
        except HwsimError as error:
            assert "\n" not in str(error), seed
