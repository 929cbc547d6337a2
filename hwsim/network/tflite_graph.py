"""State while a TFLite graph is walked: which value each tensor holds, and how operators turn operands into layers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.formats import get_format
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue
from hwsim.network.importing import FLOATS, Emitter, Value, join_quant, quant_text, word
from hwsim.network.tflite_file import TfFile, TfOp, TfTensor

# ActivationFunctionType of the schema, as fused activations of the trace
FUSED: dict[int, str] = {0: "", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh", 5: "sign"}
_NUMPY = {"int32": "<i4", "int64": "<i8", "fp32": "<f4", "uint8": "u1", "int8": "i1", "int16": "<i2"}


@dataclass(slots=True)
class TfGraph:
    """Walks the operators of one file; ``values`` maps tensor indices to what they hold so far."""

    file: TfFile
    emit: Emitter
    values: dict[int, Value] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)
    op: TfOp = field(default_factory=lambda: TfOp(0, "", "", (), ()))

    # -- operands ------------------------------------------------------------------------------------------------

    def tensor(self, position: int, *, output: bool = False) -> TfTensor:
        """The record of input (or output) ``position`` of the current operator."""
        indices = self.op.outputs if output else self.op.inputs
        if position >= len(indices) or indices[position] < 0:
            side = "output" if output else "input"
            raise HwsimError(f"{self.op.where}: {side} {position} is missing")
        return self.file.tensors[indices[position]]

    def has(self, position: int) -> bool:
        """True when input ``position`` is given."""
        return position < len(self.op.inputs) and self.op.inputs[position] >= 0

    def x(self, position: int = 0) -> Value:
        """The value of input ``position``."""
        return self.value(self.tensor(position))

    def value(self, tensor: TfTensor) -> Value:
        """What ``tensor`` holds: a constant of the file, or what an earlier operator left there."""
        found = self.values.get(tensor.index)
        if found is not None:
            return found
        if not tensor.stored_bytes and not tensor.variable:
            if tensor.index in self.made:
                why = "is only made by a later operator"
            else:
                why = "is neither stored nor made by any operator"
            raise HwsimError(f"{self.op.where}: it reads tensor {tensor.index} ({tensor.name[:60]!r}), which {why}")
        shape, dtype = self.shape(tensor), tensor.dtype
        learned = dtype in FLOATS or bool(tensor.scales)
        data = self.numbers(tensor)
        float_dtype = "fp32" if tensor.scales and dtype not in FLOATS else ""
        made = Value(shape, dtype, None, data, learned, True, f"t{tensor.index}", "", float_dtype)
        self.values[tensor.index] = made
        return made

    def shape(self, tensor: TfTensor) -> IntShape:
        """The tensor's shape; raises HwsimError for one that cannot be."""
        for dim in tensor.shape:
            if dim < 0 or dim > 2**31:
                raise HwsimError(f"tensor {tensor.index} ({tensor.name[:60]!r}) has shape {list(tensor.shape)}")
        return tensor.shape

    def numbers(self, tensor: TfTensor) -> np.ndarray | None:
        """The elements of a small constant, or None."""
        kind = _NUMPY.get(tensor.dtype)
        if tensor.data is None or kind is None or len(tensor.data) != np.dtype(kind).itemsize * math.prod(tensor.shape):
            return None
        return np.frombuffer(tensor.data, kind).reshape(tensor.shape)

    def ints(self, position: int) -> list[int] | None:
        """The integers of constant input ``position``; None when it is missing or not a small constant."""
        if not self.has(position):
            return None
        data = self.x(position).data
        return None if data is None or data.dtype.kind not in "iu" else [int(v) for v in data.reshape(-1)]

    def opt(self, key: str, default: int = 0) -> int:
        """Option ``key`` of the current operator."""
        return self.op.options.get(key, default)

    @property
    def fused(self) -> str:
        """The fused activation of the current operator."""
        number = self.opt("FusedActivationFunction")
        if "LSTM" in self.op.code or "RNN" in self.op.code:
            return ""
        if number not in FUSED:
            raise HwsimError(f"{self.op.where}: unknown fused activation {number}")
        return FUSED[number]

    # -- results -------------------------------------------------------------------------------------------------

    def layer(self, op: str, /, *values: Value, weight: int | None = None, **attrs: Any) -> Value:
        """Emit the current operator as layer ``op`` and store its first output; ``weight`` is the weight's position."""
        return self.layer_out(0, op, *values, weight=weight, **attrs)

    def layer_out(self, position: int, op: str, /, *values: Value, weight: int | None = None, **attrs: Any) -> Value:
        """As `layer`, for output ``position``."""
        tensor = self.tensor(position, output=True)
        constant = self.tensor(weight) if weight is not None else None
        value = self.emit.layer(
            op, *values, out=self.shape(tensor), name=_label(tensor), dtype=tensor.dtype, fused=self.fused,
            weight_dtype=self.x(weight).dtype if weight is not None else None,
            weights_of=self.owned(weight) if weight is not None else "",
            qparams=self.quant(tensor, values, constant), **attrs,
        )  # fmt: skip
        return self.store(position, value)

    def owned(self, weight: int) -> str:
        """The stored tensors the current operator owns, as one key: its weights and a bias after them."""
        keys = [self.x(weight).origin]
        if self.op.code in ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SVDF") and self.has(
            weight + 1
        ):
            keys.append(self.x(weight + 1).origin)
        return " ".join(keys) if all(keys) else ""

    def store(self, position: int, value: Value) -> Value:
        """Let output ``position`` hold ``value``."""
        self.values[self.tensor(position, output=True).index] = value
        return value

    def quant(self, tensor: TfTensor, values: tuple[Value, ...], weight: TfTensor | None = None) -> str:
        """Quantisation of output, weights and network inputs read, and the operator's index in the file."""
        parts = [f"op={self.op.index}", quant_text(tensor.scales, tensor.zeros, tensor.axis)]
        if weight is not None:
            parts.append(quant_text(weight.scales, weight.zeros, weight.axis, "w"))
        if values and isinstance(values[0].source, str) and values[0].quant:
            parts.append(values[0].quant)
        return join_quant(*parts)

    def step(self, op: str, /, *values: Value, out: IntShape, **attrs: Any) -> Value:
        """A layer between operands and output of the current operator, in its first operand's format (``of=``: part of it)."""
        label = _label(self.tensor(0, output=True))
        return self.emit.layer(op, *values, out=out, name=label, qparams=f"of={self.op.index}", **attrs)

    def reshaped(self, value: Value, shape: IntShape) -> Value:
        """``value`` under another shape of as many elements."""
        return value if value.shape == shape else self.step("reshape", value, out=shape)

    def elementwise(self, op: str, *, commutes: bool = True) -> Value:
        """A two-operand element-wise operator; a constant operand becomes an attribute."""
        a, b = self.x(0), self.x(1)
        if not a.is_const and not b.is_const:
            return self.layer(op, a, b)
        reverse = a.is_const
        if reverse:
            a, b = b, a
        constant = self.tensor(0 if reverse else 1)
        attrs: dict[str, AttrValue] = {}
        if b.elements == 1 and len(b.shape) <= len(a.shape):
            real = _scalar(b, constant)
            if real is not None:
                attrs["value"] = real
        else:
            attrs["const"] = b.shape
            attrs["learned"] = b.learned
        if reverse and not commutes:
            attrs["reverse"] = True
        return self.layer(op, a, weight=0 if reverse else 1, **attrs)

    def host(self) -> None:
        """Leave the current operator to the host, with every output it states."""
        given = [self.x(i) for i in range(len(self.op.inputs)) if self.has(i)]
        active = [v for v in given if not v.is_const]
        if len(active) > 64:
            raise HwsimError(f"{self.op.where}: {len(active)} inputs; at most 64 are read")
        first = self.layer("custom", *active, code=word(self.op.custom or self.op.code))
        for i in range(1, len(self.op.outputs)):
            if self.op.outputs[i] >= 0:
                tensor = self.tensor(i, output=True)
                self.store(i, self.emit.select(first, i, self.shape(tensor), tensor.dtype))


def _label(tensor: TfTensor) -> str:
    """A layer's name: the converter joins the names of all operators it merged, the first one says enough."""
    return tensor.name.split(";", 1)[0]


def _scalar(value: Value, tensor: TfTensor) -> float | None:
    """The real number of a one-element constant, dequantised."""
    if value.data is None:
        return None
    raw = float(value.data.reshape(-1)[0])
    if tensor.scales:
        raw = (raw - (tensor.zeros[0] if tensor.zeros else 0)) * tensor.scales[0]
    return raw if math.isfinite(raw) else None


def is_float(dtype: str) -> bool:
    """True for a floating-point format."""
    return get_format(dtype).kind == "float"
