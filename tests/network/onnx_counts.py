"""MACs and parameters of an ONNX model by brute force, on shapes from onnx's own inference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx
from onnx import shape_inference


def fixed(model: Any, sizes: Mapping[str, int]) -> Any:
    """A copy with every named dimension of the inputs set and declared inner shapes dropped."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    del out.graph.value_info[:]
    for value in out.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    for value in out.graph.output:
        value.type.tensor_type.ClearField("shape")
    return out


def shapes_of(model: Any) -> dict[str, list[int]]:
    """Shape of every tensor onnx can infer, initializers included."""
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    out = {t.name: list(t.dims) for t in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            out[value.name] = [d.dim_value for d in dims]
    return out


def macs_of(model: Any, sizes: Mapping[str, int] | None = None) -> int:
    """Multiply-accumulates of convolutions and matrix products."""
    model = fixed(model, sizes or {})
    shape = shapes_of(model)
    total = 0
    for node in model.graph.node:
        attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type in ("Conv", "ConvInteger"):
            total += math.prod(shape[node.output[0]]) * math.prod(shape[node.input[1]][1:])
        elif node.op_type == "QLinearConv":
            total += math.prod(shape[node.output[0]]) * math.prod(shape[node.input[3]][1:])
        elif node.op_type == "ConvTranspose":
            total += math.prod(shape[node.input[0]]) * math.prod(shape[node.input[1]][1:])
        elif node.op_type == "Gemm":
            depth = shape[node.input[0]][0 if attrs.get("transA") else 1]
            total += math.prod(shape[node.output[0]]) * depth
        elif node.op_type == "MatMul":
            total += math.prod(shape[node.output[0]]) * shape[node.input[0]][-1]
        elif node.op_type == "LSTM":
            steps, batch, _ = shape[node.input[0]]
            total += steps * batch * (math.prod(shape[node.input[1]]) + math.prod(shape[node.input[2]]))
    return total


def stored_params(model: Any) -> int:
    """Elements of all stored floats of more than one element."""
    floats = (1, 10, 11, 16)
    sizes = [math.prod(t.dims) for t in model.graph.initializer if t.data_type in floats]
    return sum(s for s in sizes if s > 1)
