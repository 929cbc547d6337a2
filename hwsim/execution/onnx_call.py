"""What an ONNX operator sees when it runs: operands, attributes with defaults, the arithmetic of products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution.products import Arithmetic
from hwsim.network.onnx_file import Node, Stored

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Call:
    """One node being run; ``xs`` are its operands (None: left out), ``extra`` what a rewrite attached to it."""

    node: Node
    xs: Sequence[Array | None]
    opset: int
    arithmetic: Arithmetic
    extra: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, index: int) -> Array:
        found = self.optional(index)
        if found is None:
            raise HwsimError(f"operand {index} is missing")
        return found

    def optional(self, index: int) -> Array | None:
        """Operand ``index``, None when left out."""
        return self.xs[index] if index < len(self.xs) else None

    def given(self) -> list[Array]:
        """Operands that are present."""
        return [x for x in self.xs if x is not None]

    def whole(self, name: str, default: int) -> int:
        """An integer attribute."""
        found = self.node.attrs.get(name, default)
        if not isinstance(found, int):
            raise HwsimError(f"attribute {name} is no integer")
        return found

    def real(self, name: str, default: float) -> float:
        """A real attribute."""
        found = self.node.attrs.get(name, default)
        if not isinstance(found, int | float):
            raise HwsimError(f"attribute {name} is no number")
        return float(found)

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        found = self.node.attrs.get(name, default)
        return found if isinstance(found, str) else default

    def ints(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """A list of integers, None when absent."""
        found = self.node.attrs.get(name)
        if found is None:
            return None if default is None else tuple(default)
        if not isinstance(found, tuple) or not all(isinstance(v, int) for v in found):
            raise HwsimError(f"attribute {name} is no list of integers")
        return tuple(v for v in found if isinstance(v, int))

    def stored(self, name: str) -> Stored | None:
        """A tensor attribute."""
        found = self.node.attrs.get(name)
        return found if isinstance(found, Stored) else None

    def axis(self, default: int, rank: int, name: str = "axis") -> int:
        """Attribute ``axis`` made non-negative."""
        return checked_axis(self.whole(name, default), rank)

    def axes(self, index: int) -> tuple[int, ...] | None:
        """Axes given as attribute or as operand ``index``, as the opset has it."""
        operand = self.optional(index)
        return tuple(int(v) for v in operand.reshape(-1)) if operand is not None else self.ints("axes")


Handler = Callable[[Call], "Array | Sequence[Array | None]"]


def checked_axis(axis: int, rank: int) -> int:
    """``axis`` in [0, rank)."""
    if not -rank <= axis < rank:
        raise HwsimError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def floating(x: Array, arithmetic: Arithmetic) -> Array:
    """Floats in the dtype the run computes in; everything else as it is."""
    return x.astype(arithmetic.dtype, copy=False) if x.dtype.kind == "f" else x
