"""Small TFLite flatbuffers for tests, written with the generated bindings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "string": 5, "bool": 6, "int16": 7, "int8": 9}


@dataclass
class T:
    """A tensor: ``data`` makes it a constant; ``shape`` is the array's unless given."""

    name: str
    shape: Sequence[int] = ()
    kind: str = "float32"
    data: np.ndarray | None = None
    scales: Sequence[float] = ()
    zeros: Sequence[int] = ()
    axis: int = 0
    variable: bool = False


@dataclass
class Op:
    """An operator: operands by tensor name ("" leaves one out), options as (table, fields)."""

    code: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: tuple[str, dict[str, Any]] | None = None
    custom: str = ""


@dataclass
class File:
    tensors: list[T] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    inputs: Sequence[str] = ("x",)
    outputs: Sequence[str] = ("y",)

    def bytes(self) -> bytes:
        b = flatbuffers.Builder(1024)
        index = {t.name: i for i, t in enumerate(self.tensors)}
        index[""] = -1

        def ints(values: Sequence[int], start: Any) -> int:
            start(b, len(values))
            for v in reversed(values):
                b.PrependInt32(v)
            return int(b.EndVector())

        def vector(offsets: Sequence[int], start: Any) -> int:
            start(b, len(offsets))
            for o in reversed(offsets):
                b.PrependUOffsetTRelative(o)
            return int(b.EndVector())

        buffers, contents = [], [None, *(t.data for t in self.tensors)]
        for data in contents:
            raw = None if data is None else b.CreateByteVector(np.ascontiguousarray(data).tobytes())
            tflite.BufferStart(b)
            if raw is not None:
                tflite.BufferAddData(b, raw)
            buffers.append(tflite.BufferEnd(b))
        tensors = []
        for i, t in enumerate(self.tensors):
            shape = ints(list(t.data.shape if t.data is not None else t.shape), tflite.TensorStartShapeVector)
            name, quant = b.CreateString(t.name), None
            if t.scales:
                tflite.QuantizationParametersStartScaleVector(b, len(t.scales))
                for s in reversed(t.scales):
                    b.PrependFloat32(s)
                scales = b.EndVector()
                tflite.QuantizationParametersStartZeroPointVector(b, len(t.zeros))
                for z in reversed(t.zeros):
                    b.PrependInt64(z)
                zeros = b.EndVector()
                tflite.QuantizationParametersStart(b)
                tflite.QuantizationParametersAddScale(b, scales)
                tflite.QuantizationParametersAddZeroPoint(b, zeros)
                tflite.QuantizationParametersAddQuantizedDimension(b, t.axis)
                quant = tflite.QuantizationParametersEnd(b)
            tflite.TensorStart(b)
            tflite.TensorAddShape(b, shape)
            tflite.TensorAddType(b, TYPES[str(t.data.dtype) if t.data is not None else t.kind])
            tflite.TensorAddBuffer(b, i + 1)
            tflite.TensorAddName(b, name)
            tflite.TensorAddIsVariable(b, t.variable)
            if quant is not None:
                tflite.TensorAddQuantization(b, quant)
            tensors.append(tflite.TensorEnd(b))
        codes, numbers = [], []
        for op in self.ops:
            custom = b.CreateString(op.custom) if op.custom else None
            tflite.OperatorCodeStart(b)
            number = getattr(tflite.BuiltinOperator, op.code)
            tflite.OperatorCodeAddBuiltinCode(b, number)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(b, min(number, 127))
            if custom is not None:
                tflite.OperatorCodeAddCustomCode(b, custom)
            numbers.append(len(codes))
            codes.append(tflite.OperatorCodeEnd(b))
        operators = []
        for op, number in zip(self.ops, numbers, strict=True):
            inputs = ints([index[n] for n in op.inputs], tflite.OperatorStartInputsVector)
            outputs = ints([index[n] for n in op.outputs], tflite.OperatorStartOutputsVector)
            table = None
            if op.options:
                kind, fields = op.options
                getattr(tflite, f"{kind}Start")(b)
                for key, value in fields.items():
                    getattr(tflite, f"{kind}Add{key}")(b, value)
                table = getattr(tflite, f"{kind}End")(b)
            tflite.OperatorStart(b)
            tflite.OperatorAddOpcodeIndex(b, number)
            tflite.OperatorAddInputs(b, inputs)
            tflite.OperatorAddOutputs(b, outputs)
            if op.options and table is not None:
                tflite.OperatorAddBuiltinOptionsType(b, getattr(tflite.BuiltinOptions, op.options[0]))
                tflite.OperatorAddBuiltinOptions(b, table)
            operators.append(tflite.OperatorEnd(b))
        tensor_vector = vector(tensors, tflite.SubGraphStartTensorsVector)
        operator_vector = vector(operators, tflite.SubGraphStartOperatorsVector)
        ins = ints([index[n] for n in self.inputs], tflite.SubGraphStartInputsVector)
        outs = ints([index[n] for n in self.outputs], tflite.SubGraphStartOutputsVector)
        tflite.SubGraphStart(b)
        tflite.SubGraphAddTensors(b, tensor_vector)
        tflite.SubGraphAddOperators(b, operator_vector)
        tflite.SubGraphAddInputs(b, ins)
        tflite.SubGraphAddOutputs(b, outs)
        graph = tflite.SubGraphEnd(b)
        graphs = vector([graph], tflite.ModelStartSubgraphsVector)
        code_vector = vector(codes, tflite.ModelStartOperatorCodesVector)
        buffer_vector = vector(buffers, tflite.ModelStartBuffersVector)
        tflite.ModelStart(b)
        tflite.ModelAddVersion(b, 3)
        tflite.ModelAddSubgraphs(b, graphs)
        tflite.ModelAddOperatorCodes(b, code_vector)
        tflite.ModelAddBuffers(b, buffer_vector)
        b.Finish(tflite.ModelEnd(b), b"TFL3")
        return bytes(b.Output())
