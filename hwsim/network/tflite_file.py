"""Read a TFLite flatbuffer into plain records, every count and offset checked: the file may be anything.

Slots and enumerations come from the generated bindings of the PyPI package ``tflite``. Their accessors follow whatever
offset the file states, so each length is bounded here before a loop or a copy, and any error they raise is turned into
one line at one place (`read_tflite`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS

MAX_FILE_BYTES = 2**31
MAX_TABLES = 200_000
MAX_RANK = 8
MAX_OPERANDS = 4096
MAX_TOTAL_OPERANDS = 2_000_000
MAX_NAME = 200
SMALL_BYTES = 1 << 16  # constants up to this size may hold shapes, axes or permutations

DTYPES: Mapping[int, str] = {
    0: "fp32", 1: "fp16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "fp64",
    12: "uint64", 15: "uint32", 16: "uint16", 17: "int4", 18: "bf16",
}  # fmt: skip
UNREADABLE: Mapping[int, str] = {
    5: "text",
    8: "complex numbers",
    11: "complex numbers",
    13: "a resource",
    14: "a variant",
}


@dataclass(frozen=True, slots=True)
class TfTensor:
    """One tensor of the main subgraph; ``data`` is set for small constants, ``stored_bytes`` is 0 for activations."""

    index: int
    name: str
    shape: tuple[int, ...]
    kind: int
    scales: tuple[float, ...]
    zeros: tuple[int, ...]
    axis: int
    variable: bool
    stored_bytes: int
    data: bytes | None

    @property
    def dtype(self) -> str:
        """Number format; raises HwsimError for text, complex numbers and resources."""
        found = DTYPES.get(self.kind)
        if found is None:
            what = UNREADABLE.get(self.kind, f"an unknown type ({self.kind})")
            raise HwsimError(f"tensor {self.index} ({self.name[:60]!r}) holds {what}, which hwsim does not read")
        return found


@dataclass(frozen=True, slots=True)
class TfOp:
    """One operator: its builtin name (``CUSTOM`` with ``custom`` the code), operands as tensor indices, options."""

    index: int
    code: str
    custom: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"operator {self.index} ({(self.custom or self.code)[:60]})"


@dataclass(frozen=True, slots=True)
class TfFile:
    """The main subgraph of a file; ``subgraphs`` counts all of them."""

    tensors: tuple[TfTensor, ...]
    operators: tuple[TfOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str
    version: int
    subgraphs: int


# Options of the operators hwsim reads: the table's class and the fields kept.
_CONV = ("Padding", "StrideW", "StrideH", "DilationWFactor", "DilationHFactor", "FusedActivationFunction")
_POOL = ("Padding", "StrideW", "StrideH", "FilterWidth", "FilterHeight", "FusedActivationFunction")
_FUSED = ("FusedActivationFunction",)
_REDUCER = ("ReducerOptions", ("KeepDims",))
OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": ("Conv2DOptions", _CONV),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_CONV, "DepthMultiplier")),
    "CONV_3D": ("Conv3DOptions", (*_CONV, "StrideD", "DilationDFactor")),
    "TRANSPOSE_CONV": ("TransposeConvOptions", ("Padding", "StrideW", "StrideH", "FusedActivationFunction")),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat", "KeepNumDims")),
    "BATCH_MATMUL": ("BatchMatMulOptions", ("AdjX", "AdjY")),
    "AVERAGE_POOL_2D": ("Pool2DOptions", _POOL),
    "MAX_POOL_2D": ("Pool2DOptions", _POOL),
    "ADD": ("AddOptions", _FUSED),
    "SUB": ("SubOptions", _FUSED),
    "MUL": ("MulOptions", _FUSED),
    "DIV": ("DivOptions", _FUSED),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "SVDF": ("SVDFOptions", ("Rank", "FusedActivationFunction")),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        "UnidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "TimeMajor"),
    ),
    "BIDIRECTIONAL_SEQUENCE_LSTM": (
        "BidirectionalSequenceLSTMOptions",
        ("FusedActivationFunction", "TimeMajor", "MergeOutputs"),
    ),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ("SequenceRNNOptions", ("FusedActivationFunction", "TimeMajor")),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "PACK": ("PackOptions", ("Axis",)),
    "UNPACK": ("UnpackOptions", ("Axis", "Num")),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", ("BlockSize",)),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", ("BlockSize",)),
    "GELU": ("GeluOptions", ("Approximate",)),
    "MEAN": _REDUCER,
    "SUM": _REDUCER,
    "REDUCE_MAX": _REDUCER,
    "REDUCE_MIN": _REDUCER,
    "REDUCE_PROD": _REDUCER,
    "REDUCE_ANY": _REDUCER,
    "REDUCE_ALL": _REDUCER,
}


def read_tflite(path: Path) -> TfFile:
    """Read the file; raise HwsimError in one line for anything that is not a well-formed TFLite model."""
    if not path.is_file():  # a device or pipe could be read for ever
        raise HwsimError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise HwsimError(f"{path}: {size} bytes; a TFLite file has at most 2 GiB")
        buffer = path.read_bytes()
    except OSError as error:
        raise HwsimError(f"{path}: cannot be read ({error.strerror})") from None
    return parse_tflite(buffer, str(path))


def parse_tflite(buffer: bytes, where: str = "model") -> TfFile:
    """Parse the bytes of a TFLite file; ``where`` names it in errors."""
    try:
        import tflite
    except ImportError:
        raise HwsimError(
            f"{where}: reading TFLite files needs the tflite package: pip install 'hwsim[tflite]'"
        ) from None
    if len(buffer) < 16 or buffer[4:8] != b"TFL3":
        raise HwsimError(f"{where}: not a TFLite model (its identifier is not TFL3)")
    import struct

    try:
        return _Reader(buffer, tflite).read()
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    except (
        struct.error, IndexError, KeyError, TypeError, ValueError, AttributeError, AssertionError, OverflowError,
        RecursionError, MemoryError, ZeroDivisionError,
    ):  # fmt: skip
        raise HwsimError(f"{where}: damaged TFLite file (an offset or length points outside it)") from None


class _Reader:
    """Reads one buffer through the generated bindings."""

    def __init__(self, buffer: bytes, bindings: Any) -> None:
        self.buffer = buffer
        self.tf = bindings
        self.operands = 0
        codes = vars(bindings.BuiltinOperator)
        self.names: dict[int, str] = {v: k for k, v in codes.items() if isinstance(v, int) and not k.startswith("_")}
        kinds = vars(bindings.BuiltinOptions)
        self.option_kinds: dict[str, int] = {k: v for k, v in kinds.items() if isinstance(v, int)}

    def read(self) -> TfFile:
        model = self.tf.Model.GetRootAs(self.buffer, 0)
        subgraphs = self.count(model.SubgraphsLength, "subgraphs")
        if not subgraphs:
            raise HwsimError("the file holds no subgraph")
        graph = model.Subgraphs(0)
        buffers = self.count(model.BuffersLength, "buffers")
        tensors = tuple(
            self.tensor(i, graph.Tensors(i), model, buffers) for i in range(self.count(graph.TensorsLength, "tensors"))
        )
        codes = [self.code(model.OperatorCodes(i)) for i in range(self.count(model.OperatorCodesLength, "codes"))]
        operators = tuple(
            self.operator(i, graph.Operators(i), codes, len(tensors))
            for i in range(self.count(graph.OperatorsLength, "operators"))
        )
        inputs = self.indices(graph.InputsLength, graph.Inputs, len(tensors), "the graph's inputs")
        outputs = self.indices(graph.OutputsLength, graph.Outputs, len(tensors), "the graph's outputs")
        text = self.text(model, 10)
        return TfFile(tensors, operators, inputs, outputs, text, int(model.Version()), subgraphs)

    def count(self, length: Callable[[], int], what: str) -> int:
        """A vector's length; four bytes an entry must fit into the file."""
        found = int(length())
        if not 0 <= found <= min(MAX_TABLES, len(self.buffer) // 4):
            raise HwsimError(f"{found} {what}: more than the file can hold")
        return found

    def indices(
        self, length: Callable[[], int], item: Callable[[int], int], tensors: int, what: str
    ) -> tuple[int, ...]:
        """Tensor indices; -1 marks an operand left out."""
        size = int(length())
        self.operands += max(size, 0)
        if not 0 <= size <= MAX_OPERANDS or self.operands > MAX_TOTAL_OPERANDS:
            raise HwsimError(f"{what} list {size} tensors")
        found = tuple(int(item(i)) for i in range(size))
        for index in found:
            if not -1 <= index < tensors:
                raise HwsimError(f"{what}: tensor {index} does not exist (the file has {tensors})")
        return found

    def text(self, table: Any, slot: int) -> str:
        """A string field, cut before it is copied: many tables may share one huge string."""
        tab = table._tab
        offset = tab.Offset(slot)
        if not offset:
            return ""
        start = tab.Vector(offset)
        length = min(int(tab.VectorLen(offset)), MAX_NAME)
        if start < 0 or start + length > len(self.buffer):
            raise HwsimError("a name lies outside the file")
        found = bytes(self.buffer[start : start + length]).decode("utf-8", errors="replace")
        return "".join(c if c.isprintable() else "?" for c in found)

    def tensor(self, index: int, table: Any, model: Any, buffers: int) -> TfTensor:
        rank = int(table.ShapeLength())
        name = self.text(table, 10)
        if not 0 <= rank <= MAX_RANK:
            raise HwsimError(f"tensor {index} ({name[:60]!r}) has rank {rank}; at most {MAX_RANK}")
        shape = tuple(int(table.Shape(i)) for i in range(rank))
        stored, data = self.contents(index, name, table, model, buffers)
        if stored and table.Sparsity() is None:
            bits = FORMATS[DTYPES[table.Type()]].width if table.Type() in DTYPES else 0
            if bits and -(-math.prod(shape) * bits // 8) != stored:
                raise HwsimError(f"tensor {index} ({name[:60]!r}) states {shape} but stores {stored} bytes")
        scales, zeros, axis = self.quantisation(index, name, table, shape)
        return TfTensor(
            index, name, shape, int(table.Type()), scales, zeros, axis, bool(table.IsVariable()), stored, data
        )

    def contents(self, index: int, name: str, table: Any, model: Any, buffers: int) -> tuple[int, bytes | None]:
        """Bytes a constant takes, and the bytes themselves when they are few."""
        number = int(table.Buffer())
        if not number:
            return 0, None
        if number >= buffers:
            raise HwsimError(f"tensor {index} ({name[:60]!r}) names buffer {number}; the file has {buffers}")
        buffer = model.Buffers(number)
        outside = int(buffer.Size())
        if outside and int(buffer.Offset()) > 1:  # stored behind the flatbuffer, as files above 2 GiB do
            if int(buffer.Offset()) + outside > len(self.buffer):
                raise HwsimError(f"buffer {number} lies outside the file")
            return outside, None
        length = int(buffer.DataLength())
        if not length:
            return 0, None
        start = int(buffer._tab.Vector(buffer._tab.Offset(4)))
        if start < 0 or length < 0 or start + length > len(self.buffer):
            raise HwsimError(f"buffer {number} lies outside the file")
        return length, bytes(self.buffer[start : start + length]) if length <= SMALL_BYTES else None

    def quantisation(
        self, index: int, name: str, table: Any, shape: tuple[int, ...]
    ) -> tuple[tuple[float, ...], tuple[int, ...], int]:
        """Scales, zero points and the axis they run along."""
        found = table.Quantization()
        if found is None:
            return (), (), 0
        scales, zeros = int(found.ScaleLength()), int(found.ZeroPointLength())
        if not scales:
            return (), (), 0
        axis = int(found.QuantizedDimension())
        limit = max(shape, default=1)
        if scales > max(limit, 1) or zeros not in (0, 1, scales):
            raise HwsimError(
                f"tensor {index} ({name[:60]!r}) has {scales} scales and {zeros} zero points for shape {shape}"
            )
        self.operands += scales
        if self.operands > MAX_TOTAL_OPERANDS:
            raise HwsimError("more quantisation scales than a model can have")
        values = tuple(found.ScaleAsNumpy().tolist())
        if any(not math.isfinite(s) or s < 0 for s in values):
            raise HwsimError(f"tensor {index} ({name[:60]!r}) has a quantisation scale that is no positive number")
        return values, tuple(found.ZeroPointAsNumpy().tolist()) if zeros else (), axis

    def code(self, table: Any) -> tuple[str, str]:
        number = max(int(table.BuiltinCode()), int(table.DeprecatedBuiltinCode()))
        name = self.names.get(number)
        if name is None:
            raise HwsimError(f"operator code {number} is unknown; the file is newer than this reader")
        return name, self.text(table, 6) if name == "CUSTOM" else ""

    def operator(self, index: int, table: Any, codes: list[tuple[str, str]], tensors: int) -> TfOp:
        number = int(table.OpcodeIndex())
        if not 0 <= number < len(codes):
            raise HwsimError(f"operator {index} names code {number}; the file has {len(codes)}")
        name, custom = codes[number]
        inputs = self.indices(table.InputsLength, table.Inputs, tensors, f"operator {index} ({name})")
        outputs = self.indices(table.OutputsLength, table.Outputs, tensors, f"operator {index} ({name})")
        return TfOp(index, name, custom, inputs, outputs, self.options(name, table))

    def options(self, name: str, table: Any) -> dict[str, int]:
        entry = OPTIONS.get(name)
        if entry is None:
            return {}
        kind, fields = entry
        raw = table.BuiltinOptions()
        if raw is None or int(table.BuiltinOptionsType()) != self.option_kinds[kind]:
            return {}
        options = getattr(self.tf, kind)()
        options.Init(raw.Bytes, raw.Pos)
        return {f: int(getattr(options, f)()) for f in fields}
