"""What the file importers share: values (activations or constants), drafts of layers, and the network made of them.

An importer walks the operators of a file once, at concrete sizes. A `Value` is what an operator reads or writes: the
output of a layer, a network input, or a constant (whose numbers are kept only when small: shape arithmetic needs them).
An operator whose operands are all constant makes a constant, not a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.network.dims import MAX_DIM, IntShape
from hwsim.network.graph import AttrValue, Layer, Network, Tensor
from hwsim.network.ops import OPS

if TYPE_CHECKING:
    import numpy as np

MAX_ELEMENTS = 2**48
FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16", "e4m3", "e5m2"})


@dataclass(slots=True)
class Value:
    """A tensor while importing: shape, number format, and either the layer that makes it or a constant.

    ``source`` is a draft or a network input's name; None means constant. ``data`` are a constant's numbers when they
    are small. ``learned`` marks a stored float parameter, ``fixed`` a constant whose shape no symbol can change,
    ``origin`` the stored tensor a constant comes from, and ``quant`` its quantisation in the trace's short form.
    """

    shape: IntShape
    dtype: str
    source: Draft | str | None = None
    data: np.ndarray | None = None
    learned: bool = False
    fixed: bool = True
    origin: str = ""
    quant: str = ""
    float_dtype: str = ""  # of a constant stored in integers: the format it is dequantised to

    @property
    def is_const(self) -> bool:
        """True for a constant."""
        return self.source is None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def arithmetic_dtype(self) -> str:
        """The format arithmetic sees: that of the values, not of their storage."""
        return self.float_dtype or self.dtype


@dataclass(slots=True, eq=False)
class Draft:
    """A layer under construction; sources are drafts or names of network inputs."""

    name: str
    op: str
    src: list[Draft | str]
    shape: IntShape
    attrs: dict[str, AttrValue]
    dtype: str
    fused: list[str] = field(default_factory=list)
    weight_dtype: str | None = None
    qparams: str = ""
    weights_of: str = ""  # names of the stored tensors this layer owns, to find shared ones

    def source_dtype(self, index: int, inputs: dict[str, Tensor]) -> str:
        """Number format of source ``index``."""
        src = self.src[index]
        return inputs[src].dtype if isinstance(src, str) else src.dtype


@dataclass(slots=True)
class Emitter:
    """Collects network inputs and drafts; ``where`` names the operator being read in every error."""

    name: str
    where: str = ""
    inputs: dict[str, Tensor] = field(default_factory=dict)
    drafts: list[Draft] = field(default_factory=list)
    constants: dict[str, Value] = field(default_factory=dict)

    def input(self, name: str, shape: IntShape, dtype: str) -> Value:
        """Declare a network input; the name is made printable, unique and unlike a layer id."""
        plain = "".join(c if c.isprintable() and not c.isspace() else "_" for c in name)[:200] or "input"
        if plain.isdigit():
            plain = f"x{plain}"
        while plain in self.inputs:
            plain += "_"
        self.check(shape)
        self.inputs[plain] = Tensor(plain, shape, dtype)
        return Value(shape, dtype, plain)

    def check(self, shape: IntShape) -> None:
        """Refuse dimensions no tensor can have."""
        total = 1
        for dim in shape:
            if not 1 <= dim <= MAX_DIM:
                raise HwsimError(f"{self.where}: dimension {dim} is not between 1 and {MAX_DIM}")
            total *= dim
        if total > MAX_ELEMENTS:
            raise HwsimError(f"{self.where}: a tensor of {total} elements is more than 2^48")

    def layer(
        self,
        op: str,
        /,
        *values: Value,
        out: Sequence[int] | None = None,
        name: str = "",
        dtype: str | None = None,
        weight_dtype: str | None = None,
        qparams: str = "",
        weights_of: str = "",
        fused: str = "",
        fixed: bool = True,
        **attrs: Any,
    ) -> Value:
        """Add operator ``op`` on ``values`` and return its output; a constant when all values are constant.

        Attributes that are None or False are left out; ``fixed`` is False when the output's shape depends on a symbol
        beyond what the operands tell. Raises HwsimError naming the operator when shapes do not fit.
        """
        kept: dict[str, AttrValue] = {k: v for k, v in attrs.items() if v is not None and v is not False}
        stated = None if out is None else tuple(int(d) for d in out)
        shape = self._infer(op, values, kept, stated)
        kind = dtype or (values[0].arithmetic_dtype if values else "fp32")
        if op != "constant" and values and all(v.is_const for v in values):
            learned = any(v.learned for v in values)
            stays = fixed and all(v.fixed for v in values)
            if stays or not learned:
                return Value(shape, kind, learned=learned, fixed=stays)
            # A parameter read in a size that depends on a symbol (a position table cut to the sequence): the whole
            # parameter is stored, so it becomes a layer and what is done with it is work.
        self.check(shape)
        stored = weight_dtype if weight_dtype and weight_dtype != kind else None
        sources = [self.source(v) for v in values]
        draft = Draft(name or op, op, sources, shape, kept, kind, [fused] if fused else [], stored, qparams, weights_of)
        self.drafts.append(draft)
        return Value(shape, kind, draft)

    def _infer(
        self, op: str, values: Sequence[Value], attrs: dict[str, AttrValue], stated: IntShape | None
    ) -> IntShape:
        try:
            shape = OPS[op].infer([v.shape for v in values], attrs, stated)
        except HwsimError as error:
            raise HwsimError(f"{self.where}: {error}") from None
        except (IndexError, KeyError, TypeError, ValueError, ArithmeticError):
            shapes = ", ".join("x".join(map(str, v.shape)) for v in values)
            raise HwsimError(f"{self.where}: {op} cannot take inputs of shape {shapes}") from None
        if stated is not None and shape != stated:
            got, said = "x".join(map(str, shape)), "x".join(map(str, stated))
            raise HwsimError(f"{self.where}: {op} gives {got}, but the file states {said}")
        return shape

    def source(self, value: Value) -> Draft | str:
        """The draft or input that makes ``value``; a constant becomes a ``constant`` layer, once per stored tensor."""
        if value.source is not None:
            return value.source
        key = value.origin if value.origin and value.origin in self.constants else ""
        if key and self.constants[key].shape == value.shape:
            found = self.constants[key].source
            assert found is not None
            return found
        self.check(value.shape)
        attrs: dict[str, AttrValue] = {"learned": True} if value.learned else {}
        dtype = value.arithmetic_dtype
        draft = Draft(value.origin or "constant", "constant", [], value.shape, attrs, dtype)
        if value.dtype != dtype:
            draft.weight_dtype = value.dtype
        if value.learned:
            draft.weights_of = value.origin
        self.drafts.append(draft)
        if value.origin:
            self.constants[value.origin] = Value(value.shape, dtype, draft)
        return draft

    def select(self, owner: Value, index: int, shape: Sequence[int], dtype: str | None = None) -> Value:
        """Further output ``index`` of the layer that makes ``owner``."""
        return self.layer("select", owner, out=shape, dtype=dtype, i=index)

    def network(self, outputs: Iterable[Value], meta: dict[str, str]) -> Network:
        """Number the drafts and return the validated network; constant outputs are left out."""
        ids: dict[int, str] = {id(d): str(i) for i, d in enumerate(self.drafts, 1)}
        owner: dict[str, str] = {}
        layers: list[Layer] = []
        for draft in self.drafts:
            attrs = draft.attrs
            if draft.weights_of:
                first = owner.setdefault(draft.weights_of, ids[id(draft)])
                if first != ids[id(draft)]:
                    attrs = {**attrs, "tied": first}
            layers.append(
                Layer(
                    id=ids[id(draft)],
                    name=_printable(draft.name),
                    op=draft.op,
                    src=tuple(s if isinstance(s, str) else ids[id(s)] for s in draft.src),
                    shape=draft.shape,
                    attrs=attrs,
                    fused=tuple(draft.fused),
                    dtype=draft.dtype,
                    weight_dtype=draft.weight_dtype,
                    qparams=draft.qparams,
                )
            )
        names: list[str] = []
        for value in outputs:
            if isinstance(value.source, Draft) and id(value.source) in ids:
                names.append(ids[id(value.source)])
            elif isinstance(value.source, str):
                names.append(value.source)
        unique = tuple(dict.fromkeys(names))
        net = Network(self.name, tuple(self.inputs.values()), tuple(layers), unique, {}, meta)
        return net.validate()


def _printable(text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text[:200])
    return " ".join(clean.split())


def word(text: str) -> str:
    """``text`` as one word a trace attribute can hold."""
    clean = "".join(c if c.isprintable() and not c.isspace() and c != "=" else "_" for c in text[:100])
    return clean or "unnamed"


def quant_text(scales: Sequence[float], zeros: Sequence[int], axis: int = 0, prefix: str = "") -> str:
    """Quantisation parameters in the trace's short form (real = scale * (integer - zero point)).

    ``s=0.0235 z=-128`` is the output's, per tensor; ``s=per-channel:64@1`` stands for 64 scales along axis 1, which
    stay in the file. ``prefix`` ``w`` makes it the weights' (``ws= wz=``), ``x`` that of a network input read.
    """
    import numpy as np

    if not len(scales):
        return ""
    if len(scales) == 1:
        zero = int(zeros[0]) if len(zeros) else 0
        return f"{prefix}s={np.float32(scales[0])!s} {prefix}z={zero}"
    moved = any(int(z) for z in zeros)
    return f"{prefix}s=per-channel:{len(scales)}@{axis}" + (f" {prefix}z=per-channel" if moved else "")


def join_quant(*parts: str) -> str:
    """The non-empty parts, separated by blanks."""
    return " ".join(p for p in parts if p)
