"""One operator being executed: its operands, options and outputs, and the budget that bounds hostile files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_fixed import Array, round_half_away
from hwsim.arithmetic.tflite_model import Model, Tensor
from hwsim.arithmetic.tflite_semantics import Semantics
from hwsim.errors import HwsimError
from hwsim.network.tflite_file import TfOp

MAX_TENSOR_ELEMENTS = 1 << 26
MAX_WORK = 1 << 40  # multiply-accumulates and elements of one run

NONE, RELU, RELU_N1, RELU6 = 0, 1, 2, 3


@dataclass(slots=True)
class Budget:
    """What a run may still compute; every operator charges it before it works."""

    work: int = MAX_WORK


@dataclass(slots=True)
class Call:
    """Operands by position; ``values`` maps tensor index to array, ``state`` keeps variable tensors between runs."""

    model: Model
    op: TfOp
    semantics: Semantics
    values: dict[int, Array]
    state: dict[int, Array]
    budget: Budget
    cache: dict[Any, Any] = field(default_factory=dict)

    def fail(self, message: str) -> HwsimError:
        """The error naming this operator; ``raise call.fail(...)``."""
        out = self.op.outputs[0] if self.op.outputs else -1
        layer = f" making {self.model.tensors[out].name[:60]!r}" if out >= 0 else ""
        return HwsimError(f"{self.model.source}: {self.op.where}{layer}: {message}")

    def has(self, position: int) -> bool:
        """Whether the operand is given."""
        return position < len(self.op.inputs) and self.op.inputs[position] >= 0

    def meta(self, position: int) -> Tensor:
        """The tensor record of an operand."""
        if not self.has(position):
            raise self.fail(f"operand {position} is missing")
        return self.model.tensors[self.op.inputs[position]]

    def out(self, position: int = 0) -> Tensor:
        """The tensor record of an output."""
        if position >= len(self.op.outputs) or self.op.outputs[position] < 0:
            raise self.fail(f"output {position} is missing")
        return self.model.tensors[self.op.outputs[position]]

    def x(self, position: int) -> Array:
        """The value of an operand."""
        meta = self.meta(position)
        found = self.values.get(meta.index)
        if found is None:
            found = meta.data
        if found is None:
            raise self.fail(f"{meta.where} is used before it is computed")
        return found

    def option(self, name: str, default: Any = 0) -> Any:
        """An option of the operator, or ``default`` where the file leaves it out."""
        return self.op.options.get(name, default)

    def constant(self, position: int) -> Array:
        """An operand that must be a constant of the file or computed before, as int64."""
        found = self.x(position)
        if found.dtype.kind not in "iu" or found.size > 4096:
            raise self.fail(f"operand {position} must be a short list of integers")
        return found.astype(np.int64)

    def claim(self, shape: Sequence[int], work: int = 0) -> tuple[int, ...]:
        """Check an output's size and charge the budget; returns the shape."""
        elements = math.prod(shape)
        if any(d < 0 for d in shape) or elements > MAX_TENSOR_ELEMENTS:
            raise self.fail(
                f"an output of shape {tuple(shape)} is too large or negative (limit {MAX_TENSOR_ELEMENTS} elements)"
            )
        self.budget.work -= elements + work
        if self.budget.work < 0:
            raise self.fail(f"the model needs more than {MAX_WORK} operations, the limit of one run")
        return tuple(int(d) for d in shape)

    def clamp(self, tensor: Tensor) -> tuple[int, int]:
        """Quantised bounds of the fused activation, within the output type's range."""
        limits = np.iinfo(tensor.dtype)
        low, high = int(limits.min), int(limits.max)
        activation = self.option("FusedActivationFunction")
        if activation == NONE:
            return low, high

        def quantised(value: float) -> int:
            if self.semantics.clamp == "even":  # XNNPACK adds the zero point before it rounds
                return int(np.rint(np.clip(np.float32(value) / tensor.scale + np.float32(tensor.zero), low, high)))
            level = float(round_half_away(np.float32(value) / np.asarray(tensor.scale)))
            return tensor.zero + int(min(max(level, -(2.0**31)), 2.0**31 - 1))

        if activation == RELU:
            return max(low, quantised(0.0)), high
        if activation == RELU6:
            return max(low, quantised(0.0)), min(high, quantised(6.0))
        if activation == RELU_N1:
            return max(low, quantised(-1.0)), min(high, quantised(1.0))
        raise self.fail(f"fused activation {activation} has no quantised form")

    def float_clamp(self, y: Array) -> Array:
        """Apply the fused activation to a float result."""
        activation = self.option("FusedActivationFunction")
        bounds = {NONE: None, RELU: (0.0, np.inf), RELU_N1: (-1.0, 1.0), RELU6: (0.0, 6.0)}
        if activation not in bounds:
            raise self.fail(f"fused activation {activation} is not supported")
        limits = bounds[activation]
        return y if limits is None else np.clip(y, np.float32(limits[0]), np.float32(limits[1]))

    def same_quantisation(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors share scale and zero point."""
        return a.dtype == b.dtype and (not a.quantised or not b.quantised or (a.scale == b.scale and a.zero == b.zero))

    def refuse_types(self, *allowed: str) -> HwsimError:
        """The error for operand types no kernel takes."""
        types = ", ".join(self.model.tensors[i].kind for i in self.op.inputs if i >= 0)
        return self.fail(
            f"no {self.semantics.name} kernel for ({types}) -> {self.out().kind}; supported: {', '.join(allowed)}"
        )


Handler = Callable[[Call], "Array | tuple[Array, ...] | list[Array]"]
