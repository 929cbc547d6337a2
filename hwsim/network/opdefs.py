"""What an operator is: its entry in the table, and the work, weights and products the entry computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hwsim.formats import storage_bytes
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Layer


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant operand of a layer; ``role`` is ``weight``, ``bias`` (wider when quantised) or ``table``."""

    name: str
    shape: IntShape
    role: str = "weight"
    learned: bool = True

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def bytes_as(self, layer: Layer) -> int:
        """Bytes as stored for ``layer``: biases of 8-bit layers are int32, everything else has the weight format."""
        dtype = layer.weight_dtype or layer.dtype
        if self.role == "bias" and dtype in ("int8", "uint8", "int4"):
            dtype = "int32"
        return storage_bytes(self.elements, dtype)


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """What a convolution's matrix view forgets: kernel, stride, dilation, padding and spatial extents."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]  # begin of every axis, then end of every axis
    in_spatial: tuple[int, ...]
    out_spatial: tuple[int, ...]
    in_channels: int  # per group
    out_channels: int  # per group
    images: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """A batch of matrix products C[m,n] = A[m,k] x B[k,n], done ``repeat`` times one after the other.

    ``a_elements`` etc. count distinct elements in memory per repetition over the whole batch (a convolution's input is
    smaller than m x k). ``b_weight`` says whether B is constant. ``causal`` marks the half-filled score matrix of
    autoregressive attention; ``macs`` counts it whole, as published figures do.
    """

    label: str
    batch: int
    m: int
    n: int
    k: int
    a_elements: int
    b_elements: int
    c_elements: int
    b_weight: bool = True
    repeat: int = 1
    causal: bool = False
    rows: int = 0  # useful rows over the whole batch where they are fewer than batch x m (uneven experts)
    conv: ConvGeometry | None = None
    span: int = 0  # keys all queries of a head read together, where a sliding window shows each only n of them

    @property
    def macs(self) -> int:
        return (self.rows or self.batch * self.m) * self.n * self.k * self.repeat


@dataclass(frozen=True, slots=True)
class VectorWork:
    """Arithmetic of a layer outside its matrix products.

    ``alu`` are simple lane operations (add, multiply, compare), ``special`` transcendental ones (exp, rsqrt, tanh…);
    ``read``/``write`` count elements moved when the layer runs on its own; ``passes`` how often the input is read.
    """

    alu: int = 0
    special: int = 0
    read: int = 0
    write: int = 0
    passes: int = 1


Attrs = Mapping[str, AttrValue]
Infer = Callable[[Sequence[IntShape], Attrs, IntShape | None], IntShape]


def _no_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    return ()


def _no_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    return ()


def _no_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    return VectorWork()


@dataclass(frozen=True, slots=True)
class Op:
    """One operator. ``attrs`` maps attribute names to a type code: i int, f float, t ints, s text, b flag, d dimension.

    ``infer(input shapes, attrs, stated output)`` returns the output shape; where the attributes leave a dimension free
    (output channels) it takes it from the stated output. It raises HwsimError with the reason when inputs are wrong.
    """

    name: str
    kind: str
    arity: tuple[int, int]
    infer: Infer
    attrs: Mapping[str, str] = field(default_factory=dict)
    weights: Callable[[Layer, Sequence[IntShape], IntShape], tuple[Weight, ...]] = _no_weights
    products: Callable[[Layer, Sequence[IntShape], IntShape], tuple[Product, ...]] = _no_products
    work: Callable[[Layer, Sequence[IntShape], IntShape], VectorWork] = _no_work
    doc: str = ""

    @property
    def dim_attrs(self) -> tuple[str, ...]:
        """Attributes that are symbolic dimensions."""
        return tuple(k for k, v in self.attrs.items() if v == "d")
