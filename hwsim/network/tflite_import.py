"""TFLite files as networks: one layer an operator, layout NHWC, quantisation kept in short form.

The trace keeps what cost models need; an executor reads scales and weights from the file, found through ``op=`` (the
operator's index) in the ``qparams`` column. ``operators`` in the header lists the file's operators by index, ``*`` marking
those on constants alone. Shapes, the batch included, are the file's and stay fixed.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.network.graph import Network
from hwsim.network.importing import Emitter, Value, quant_text, word
from hwsim.network.tflite_file import TfFile, read_tflite
from hwsim.network.tflite_graph import TfGraph
from hwsim.network.tflite_ops import HANDLERS

_MOST_OPERATORS = 4096  # of a file whose operators are listed in the trace
CONTROL_FLOW = frozenset({"IF", "WHILE", "CALL", "STABLEHLO_WHILE", "STABLEHLO_COMPOSITE", "DELEGATE"})


def from_tflite(path: str | os.PathLike[str]) -> Network:
    """Return the network of a TFLite flatbuffer, without TensorFlow.

    Unknown and custom operators become ``custom`` layers, left to the host. Raises HwsimError in one line for damaged
    files, control flow, tensors of text, and a missing ``tflite`` package.
    """
    file = Path(path)
    return network_of(read_tflite(file), file.name)


def network_of(parsed: TfFile, source: str) -> Network:
    """Return the network of a parsed file; ``source`` names it in errors."""
    try:
        return _walk(parsed, source)
    except HwsimError as error:
        raise HwsimError(f"{source}: {error}") from None
    except (
        struct.error,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        MemoryError,
    ):
        raise HwsimError(f"{source}: damaged TFLite file (its operators contradict each other)") from None


def _walk(parsed: TfFile, source: str) -> Network:
    emit = Emitter(source.rsplit(".", 1)[0] or source)
    made = {i for op in parsed.operators for i in op.outputs}
    graph = TfGraph(parsed, emit, made=made)
    for index in dict.fromkeys(parsed.inputs):
        if index < 0:
            continue
        tensor = parsed.tensors[index]
        emit.where = f"input {tensor.name!r}"
        value = emit.input(tensor.name, graph.shape(tensor), tensor.dtype)
        value.quant = quant_text(tensor.scales, tensor.zeros, tensor.axis, "x")
        graph.values[index] = value
    codes: list[str] = []
    for op in parsed.operators:
        graph.op = op
        emit.where = op.where
        codes.append(f"CUSTOM:{word(op.custom)}" if op.custom else op.code)
        if op.code in CONTROL_FLOW:
            raise HwsimError(f"{op.where}: control flow is not supported; export the graph without it")
        if any(i >= 0 for i in op.outputs) and not _operator(graph):
            codes[-1] += "*"
    emit.where = "graph"
    meta = {
        "source": f"TFLite {source}" + (f" ({parsed.description})" if parsed.description else ""),
        "layout": "NHWC",
    }
    if len(codes) <= _MOST_OPERATORS:
        meta["operators"] = " ".join(codes)
    return emit.network((graph.value(parsed.tensors[i]) for i in parsed.outputs if i >= 0), meta)


def _operator(g: TfGraph) -> bool:
    """Walk one operator; return whether it does anything at run time (one on constants makes a constant)."""
    op = g.op
    given = [g.x(i) for i in range(len(op.inputs)) if g.has(i)]
    if given and all(v.is_const for v in given) and not any(t.variable for t in (g.tensor(i) for i in _given(g))):
        for i, index in enumerate(op.outputs):
            if index >= 0:
                g.store(i, _constant(g, i, given))
        return False
    handler = HANDLERS.get(op.code)
    if handler is None:
        g.host()
    else:
        handler(g)
    return True


def _given(g: TfGraph) -> list[int]:
    return [i for i in range(len(g.op.inputs)) if g.has(i)]


def _constant(g: TfGraph, position: int, given: list[Value]) -> Value:
    """An operator on constants makes a constant: its shape is the file's, its numbers are not needed.

    A dequantised weight keeps its storage format, so that half-precision files are costed as they are stored.
    """
    tensor = g.tensor(position, output=True)
    shape, first = g.shape(tensor), given[0]
    if g.op.code in ("DEQUANTIZE", "DENSIFY") and first.shape == shape:
        return Value(shape, first.dtype, None, None, first.learned, True, first.origin, "", tensor.dtype)
    return Value(shape, tensor.dtype, None, None, any(v.learned for v in given), True, f"t{tensor.index}")
