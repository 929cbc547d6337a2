"""ONNX models for the tests of this folder: the exported fixtures with seeded weights, and graphs built node by node."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "data" / "onnx"
FIXTURES = ("bert_dynamo", "bert_legacy17", "gpt2_dynamo", "llama_dynamo", "lstm", "se17", "se_dynamo", "se_hw",
            "mobilenet_v2_train", "efficientnet_b0", "convnext_tiny")  # fmt: skip


def fixture(name: str, seed: int = 0) -> bytes:
    """An exported model whose missing weights are drawn: matrices at 1 / sqrt(fan-in), variances positive."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(gzip.decompress((DATA / f"{name}.onnx.gz").read_bytes()))
    rng = np.random.default_rng(seed)
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.data_location != 1:
            continue
        shape = tuple(tensor.dims)
        if tensor.data_type == 7:  # positions and token types
            ids = (np.arange(np.prod(shape), dtype=np.int64) % 2).reshape(shape)
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(ids, tensor.name))
            continue
        assert tensor.data_type == 1, tensor.name
        draw = rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(max(1, np.prod(shape[1:]))))
        if len(shape) < 2:
            draw = np.abs(draw) * np.float32(0.1) + np.float32(0.5)
        model.graph.initializer[i].CopyFrom(numpy_helper.from_array(draw.astype(np.float32), tensor.name))
    return bytes(model.SerializeToString())


def graph(nodes: list[Any], inputs: dict[str, tuple[np.dtype[Any] | type, tuple[int, ...]]], outputs: list[str],
          stored: dict[str, np.ndarray] | None = None, opset: int = 17) -> bytes:  # fmt: skip
    """A model of ``nodes``; outputs without stated shapes."""
    import onnx
    from onnx import helper, numpy_helper

    made = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), s)
            for n, (t, s) in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(n) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (stored or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = onnx.shape_inference.infer_shapes(helper.make_model(made, opset_imports=imports, ir_version=8))
    for output in model.graph.output:
        if not output.type.HasField("tensor_type"):
            output.type.tensor_type.elem_type = 1
    return bytes(model.SerializeToString())


def onnxruntime_run(model: bytes, inputs: dict[str, np.ndarray], optimise: bool = True) -> list[np.ndarray]:
    """What ONNX Runtime's CPU provider gives, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))
