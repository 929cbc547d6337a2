"""A TFLite file with its weights: what the executor needs beyond the importer's checked record.

`hwsim.network.tflite_file` checks structure, counts and offsets first; only a file that passed is read for constants
and the options kernels use.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_fixed import Array
from hwsim.errors import HwsimError
from hwsim.network.tflite_file import MAX_FILE_BYTES, TfFile, TfOp, TfTensor, parse_tflite

NUMPY: Mapping[str, str] = {
    "fp32": "float32", "fp16": "float16", "fp64": "float64", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "int4": "int8", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "bool": "bool",
}  # fmt: skip
MAX_CONSTANT_BYTES = 1 << 31

# Options the kernels use and the importer does not; vectors of integers are named with a star.
MORE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "RESHAPE": ("ReshapeOptions", ("NewShape*",)),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims*",)),
    "MIRROR_PAD": ("MirrorPadOptions", ("Mode",)),
    "SPLIT": ("SplitOptions", ("NumSplits",)),
    "SPLIT_V": ("SplitVOptions", ("NumSplits",)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "UnidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "TimeMajor", "CellClip", "ProjClip"),
    ),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: type, quantisation (float32 scales, integer zero points) and, for constants, the values."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    kind: str
    scales: Array
    zeros: Array
    axis: int
    variable: bool
    data: Array | None

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"tensor {self.index} ({self.name[:60]!r})"

    @property
    def quantised(self) -> bool:
        """Whether the tensor carries scales."""
        return self.scales.size > 0

    @property
    def scale(self) -> np.float32:
        """The per-tensor scale; raises HwsimError where there is none or it is not positive."""
        if not self.scales.size or not self.scales[0] > 0:
            raise HwsimError(f"{self.where} needs a positive quantisation scale")
        return np.float32(self.scales[0])

    @property
    def zero(self) -> int:
        """The per-tensor zero point (0 if the file states none); raises HwsimError outside the type's range."""
        zero = int(self.zeros[0]) if self.zeros.size else 0
        if self.dtype.kind in "iu" and not np.iinfo(self.dtype).min <= zero <= np.iinfo(self.dtype).max:
            raise HwsimError(f"{self.where}: zero point {zero} lies outside {self.dtype}")
        return zero


@dataclass(frozen=True, slots=True)
class Model:
    """The main subgraph of a TFLite file with its constants."""

    tensors: tuple[Tensor, ...]
    operators: tuple[TfOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # operator -> its hidden tensors
    source: str = "model"


def load_model(model: str | os.PathLike[str] | bytes) -> Model:
    """Read a ``.tflite`` file (path or its bytes) with all constants; raises HwsimError in one line if damaged."""
    if isinstance(model, bytes):
        return _read(model, "model")
    path = Path(model)
    if not path.is_file():  # a device or pipe could be read for ever
        raise HwsimError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise HwsimError(f"{path}: a TFLite file has at most 2 GiB")
        return _read(path.read_bytes(), path.name)
    except OSError as error:
        raise HwsimError(f"{path}: cannot be read ({error.strerror})") from None


def _read(buffer: bytes, source: str) -> Model:
    parsed = parse_tflite(buffer, source)
    try:
        return _Constants(buffer, parsed, source).model()
    except HwsimError as error:
        raise HwsimError(f"{source}: {error}") from None
    except (
        struct.error, LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, RecursionError,
        MemoryError,
    ):  # fmt: skip
        raise HwsimError(f"{source}: damaged TFLite file (an offset or length points outside it)") from None


class _Constants:
    """Second pass over a checked file."""

    def __init__(self, buffer: bytes, parsed: TfFile, source: str) -> None:
        import tflite

        self.buffer, self.parsed, self.source, self.tf = buffer, parsed, source, tflite
        self.model_table = tflite.Model.GetRootAs(buffer, 0)
        self.graph = self.model_table.Subgraphs(0)
        self.bytes = 0

    def model(self) -> Model:
        tensors = tuple(self.tensor(t) for t in self.parsed.tensors)
        operators, hidden = [], {}
        for op in self.parsed.operators:
            table = self.graph.Operators(op.index)
            operators.append(self.operator(op, table))
            if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
                count = int(table.IntermediatesLength())
                if not 0 <= count <= 16:
                    raise HwsimError(f"{op.where} lists {count} intermediate tensors")
                hidden[op.index] = tuple(int(table.Intermediates(i)) for i in range(count))
                if any(not 0 <= i < len(tensors) for i in hidden[op.index]):
                    raise HwsimError(f"{op.where} names an intermediate tensor that does not exist")
        return Model(tensors, tuple(operators), self.parsed.inputs, self.parsed.outputs, hidden, self.source)

    def tensor(self, t: TfTensor) -> Tensor:
        kind = t.dtype
        if kind not in NUMPY:
            raise HwsimError(f"tensor {t.index} ({t.name[:60]!r}): values of type {kind} cannot be executed")
        dtype = np.dtype(NUMPY[kind])
        if any(d < 0 for d in t.shape) and t.stored_bytes:
            raise HwsimError(f"tensor {t.index} ({t.name[:60]!r}) states shape {t.shape}")
        data = self.constant(t, kind, dtype) if t.stored_bytes else None
        zeros = np.array(t.zeros, dtype=np.int64)
        scales = np.array(t.scales, dtype=np.float32)
        return Tensor(t.index, t.name, t.shape, dtype, kind, scales, zeros, t.axis, t.variable, data)

    def constant(self, t: TfTensor, kind: str, dtype: np.dtype[Any]) -> Array:
        where = f"tensor {t.index} ({t.name[:60]!r})"
        self.bytes += t.stored_bytes  # many tensors may share one buffer
        if self.bytes > MAX_CONSTANT_BYTES:
            raise HwsimError("the constants take more than 2 GiB")
        table = self.graph.Tensors(t.index)
        if table.Sparsity() is not None:
            raise HwsimError(f"{where} is stored sparse, which cannot be executed; export the model dense")
        stored = self.model_table.Buffers(int(table.Buffer()))
        if int(stored.Size()) and int(stored.Offset()) > 1:
            start = int(stored.Offset())
        else:
            start = int(stored._tab.Vector(stored._tab.Offset(4)))
        raw = np.frombuffer(self.buffer, dtype=np.uint8, count=t.stored_bytes, offset=start)
        count = math.prod(t.shape)
        if kind == "int4":  # two to a byte, the low half first
            nibbles = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:count]
            return (((nibbles ^ 8).astype(np.int8)) - 8).astype(np.int8).reshape(t.shape)
        if raw.size != count * dtype.itemsize:
            raise HwsimError(f"{where} states {t.shape} but stores {raw.size} bytes")
        values = np.frombuffer(raw.tobytes(), dtype=dtype.newbyteorder("<")).astype(dtype, copy=False)
        return values.reshape(t.shape)

    def operator(self, op: TfOp, table: Any) -> TfOp:
        """The operator with its options complete; the importer's entry is kept where nothing is added."""
        entry = MORE.get(op.code)
        if entry is None:
            return op
        kind, fields = entry
        raw = table.BuiltinOptions()
        if raw is None or int(table.BuiltinOptionsType()) != getattr(self.tf.BuiltinOptions, kind):
            return op
        options = getattr(self.tf, kind)()
        options.Init(raw.Bytes, raw.Pos)
        found: dict[str, Any] = {}
        for name in fields:
            if name.endswith("*"):
                base = name[:-1]
                count = int(getattr(options, f"{base}Length")())
                if not 0 <= count <= 8:
                    raise HwsimError(f"{op.where} states {count} values of {base}")
                found[base] = tuple(int(getattr(options, base)(i)) for i in range(count))
            else:
                value = getattr(options, name)()
                found[name] = float(value) if isinstance(value, float) else int(value)
        return TfOp(op.index, op.code, op.custom, op.inputs, op.outputs, found)
