"""State while an ONNX graph is walked at concrete sizes: what each name holds, and how nodes become layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape
from hwsim.network.importing import FLOATS, Emitter, Value, join_quant
from hwsim.network.onnx_file import DTYPES, Node, OnnxFile, Stored

DimOf = Callable[["int | str | None"], "int | None"]


@dataclass(slots=True)
class OnnxGraph:
    """Walks the nodes of one file; ``values`` maps names to what they hold, ``dim_of`` evaluates declared sizes."""

    file: OnnxFile
    emit: Emitter
    dim_of: DimOf
    values: dict[str, Value] = field(default_factory=dict)
    needed: frozenset[str] = frozenset()
    node: Node = field(default_factory=lambda: Node(0, "", "", "", (), ()))

    # -- operands ------------------------------------------------------------------------------------------------

    def fail(self, why: str) -> HwsimError:
        """An error about the current node."""
        return HwsimError(f"{self.node.where}: {why}")

    def has(self, position: int) -> bool:
        """True when operand ``position`` is given."""
        return position < len(self.node.inputs) and bool(self.node.inputs[position])

    def wants(self, position: int) -> bool:
        """True when output ``position`` is named and read by a node or the caller."""
        outputs = self.node.outputs
        return position < len(outputs) and bool(outputs[position]) and outputs[position] in self.needed

    def x(self, position: int = 0) -> Value:
        """Operand ``position``."""
        if not self.has(position):
            raise self.fail(f"operand {position} is missing")
        return self.value(self.node.inputs[position])

    def opt(self, position: int) -> Value | None:
        """Operand ``position`` or None when left out."""
        return self.x(position) if self.has(position) else None

    def given(self) -> list[Value]:
        """All operands that are not left out."""
        return [self.value(n) for n in self.node.inputs if n]

    def value(self, name: str) -> Value:
        """What ``name`` holds."""
        found = self.values.get(name)
        if found is None:
            stored = self.file.stored.get(name)
            if stored is None:
                raise self.fail(f"it reads {name[:80]!r}, which nothing makes")
            found = self.values[name] = constant(stored, name)
        return found

    def numbers(self, position: int) -> np.ndarray | None:
        """The numbers of operand ``position`` when it is a small constant."""
        found = self.opt(position)
        return None if found is None else found.data

    def ints(self, position: int, key: str = "") -> list[int] | None:
        """Integers of constant operand ``position``, or of attribute ``key`` (older versions)."""
        data = self.numbers(position)
        if data is not None:
            return [int(v) for v in data.reshape(-1)]
        if self.has(position) and not self.x(position).elements:
            return []
        return self.attr_ints(key) if key else None

    # -- attributes ----------------------------------------------------------------------------------------------

    def attr_int(self, key: str, default: int) -> int:
        """Integer attribute."""
        value = self.node.attrs.get(key)
        if value is None:
            return default
        if not isinstance(value, int):
            raise self.fail(f"attribute {key} is not an integer")
        return value

    def attr_float(self, key: str, default: float) -> float:
        """Number attribute."""
        value = self.node.attrs.get(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(f"attribute {key} is not a number")
        return float(value)

    def attr_str(self, key: str, default: str) -> str:
        """Text attribute."""
        value = self.node.attrs.get(key)
        return value if isinstance(value, str) else default

    def attr_ints(self, key: str) -> list[int] | None:
        """Integers attribute, None when absent."""
        value = self.node.attrs.get(key)
        if value is None:
            return None
        if not isinstance(value, tuple) or len(value) > 4096 or any(not isinstance(v, int) for v in value):
            raise self.fail(f"attribute {key} is not a list of integers")
        return [int(v) for v in value]

    def axis(self, value: int, rank: int) -> int:
        """``value`` as an index from the front."""
        if not -rank <= value < rank:
            raise self.fail(f"axis {value} is out of range for rank {rank}")
        return value % rank

    # -- results -------------------------------------------------------------------------------------------------

    def store(self, position: int, value: Value) -> Value:
        """Let output ``position`` hold ``value``."""
        if position < len(self.node.outputs) and self.node.outputs[position]:
            if value.is_const and not value.origin:
                value.origin = self.node.outputs[position]
            self.values[self.node.outputs[position]] = value
        return value

    @property
    def label(self) -> str:
        """A layer's name: the node's, or its output's."""
        name = self.node.name or (self.node.outputs[0] if self.node.outputs else "")
        return name.strip("/") or self.node.op

    def layer(
        self, op: str, /, *values: Value, weight: Value | None = None, added: Value | None = None, **kw: Any
    ) -> Value:
        """Emit layer ``op`` for the current node and store it as the first output.

        ``weight`` and ``added`` (a bias) are the constants it owns: they give storage format, quantisation, identity.
        """
        return self.store(0, self.part(op, *values, weight=weight, added=added, **kw))

    def part(
        self, op: str, /, *values: Value, weight: Value | None = None, added: Value | None = None, **kw: Any
    ) -> Value:
        """As `layer`, for a layer that is only part of the current node."""
        kw.setdefault("name", self.label)
        if weight is not None:
            kw.setdefault("weight_dtype", weight.dtype)
            kw["qparams"] = join_quant(kw.get("qparams", ""), weight.quant)
            if weight.origin:
                kw["weights_of"] = f"{weight.origin} {added.origin}" if added is not None else weight.origin
        return self.emit.layer(op, *values, **kw)

    def reshaped(self, value: Value, shape: Sequence[int], *, fixed: bool = True) -> Value:
        """``value`` under another shape; constants keep their identity."""
        want = tuple(int(d) for d in shape)
        if want == value.shape:
            return value
        made = self.part("reshape", value, out=want, fixed=fixed)
        return as_stored(made, value)

    def declared(self, position: int) -> tuple[IntShape, str] | None:
        """Shape and format the file declares for output ``position``, when complete."""
        if position >= len(self.node.outputs):
            return None
        info = self.file.declared.get(self.node.outputs[position])
        if info is None or info.dims is None:
            return None
        dims = [self.dim_of(d) for d in info.dims]
        if any(d is None or d < 1 for d in dims):
            return None
        return tuple(d for d in dims if d is not None), info.dtype or "fp32"

    def data_dependent(self) -> IntShape:
        """The declared shape of an output whose size depends on values; raises HwsimError when there is none."""
        found = self.declared(0)
        if found is None:
            name = self.node.outputs[0] if self.node.outputs else ""
            raise self.fail(
                f"the shape of {name[:80]!r} cannot be known before the values are; declare it (value_info) in the file"
            )
        return found[0]


def constant(stored: Stored, name: str) -> Value:
    """The value of a stored tensor; stored floats of more than one element are learned."""
    learned = stored.dtype in FLOATS and math.prod(stored.shape) > 1
    return Value(stored.shape, stored.dtype, None, stored.data, learned, True, name)


def as_stored(made: Value, like: Value) -> Value:
    """``made``, a rearrangement of constant ``like``: the same stored tensor, format and quantisation."""
    if made.is_const and like.is_const:
        made.dtype, made.float_dtype, made.quant = like.dtype, like.float_dtype, like.quant
        made.origin, made.learned = like.origin, like.learned
    return made


def scalar(value: Value) -> float | None:
    """The number of a fixed one-element constant, when known and finite."""
    if value.data is None or value.data.size != 1 or not value.fixed:
        return None
    real = float(value.data.reshape(-1)[0])
    return real if math.isfinite(real) else None


def elementwise(g: OnnxGraph, op: str, a: Value, b: Value, *, commutes: bool = True, dtype: str | None = None) -> Value:
    """A two-operand element-wise layer; a constant operand of fixed shape becomes an attribute."""
    if a.is_const == b.is_const:
        return g.part(op, a, b, dtype=dtype)
    reverse = a.is_const
    x, c = (b, a) if reverse else (a, b)
    kw: dict[str, Any] = {"reverse": reverse and not commutes, "dtype": dtype or x.arithmetic_dtype}
    if c.elements == 1 and len(c.shape) <= len(x.shape):
        return g.part(op, x, value=scalar(c), **kw)
    if not c.fixed:
        return g.part(op, a, b, dtype=kw["dtype"])
    return g.part(op, x, weight=c, const=c.shape, learned=c.learned, **kw)


def dtype_of(number: int, g: OnnxGraph) -> str:
    """The format of an ONNX element type number."""
    found = DTYPES.get(number)
    if found is None:
        raise g.fail(f"element type {number} is not supported")
    return found


Handler = Callable[[OnnxGraph], object]
Table = Mapping[str, Handler]
