"""Kernel: a group of layers that runs as one program on the machine, with everything lowering needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwsim.network.opdefs import Product
from hwsim.plan.precision import Multiply


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor a kernel reads or writes: its name, distinct elements, bytes, number format and where it lives.

    ``level`` is a memory level code name of the schedule (``dram`` or ``shared``: on the chip between kernels);
    ``convert`` marks an operand the vector unit must convert before it can be used. ``role``, where a family needs it,
    says what the kernel does with it (``a``, ``b``, ``mask``, ``cache``, ``table`` or ``x``: read by fused layers);
    ``cached`` is the share of its bytes found in (or, written, staying in) a cache above the memory it lives in.
    """

    tensor: str
    elements: int
    bytes: int
    format: str
    level: str = "dram"
    convert: bool = False
    role: str = ""
    cached: float = 0.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One program: matrix products or vector work, with the element-wise layers fused into its end.

    ``kind``: ``matmul`` (also convolutions; one product, ``a`` x ``b``), ``attention`` (two products around a softmax),
    ``vector`` (element-wise, reductions, normalisation, pooling), ``move`` (data movement) or ``host``.
    ``inputs`` are the activations read, ``weights`` the constants, ``outputs`` the tensors other kernels read.
    ``alu``/``special`` are lane operations of everything fused, ``passes`` how often the input is read through.
    """

    name: str
    op: str
    kind: str
    layers: tuple[str, ...]
    products: tuple[Product, ...] = ()
    multiply: Multiply | None = None
    a: Operand | None = None
    b: Operand | None = None
    inputs: tuple[Operand, ...] = ()
    weights: Operand | None = None
    outputs: tuple[Operand, ...] = ()
    alu: int = 0
    special: int = 0
    passes: int = 1
    rows: int = 1  # independent rows a reduction works on
    repeat: int = 1
    mask_bytes: int = 0  # of an attention mask that is not on the chip
    producers: tuple[int, ...] = ()
    accumulate: str = "fp32"
    sparsity: str = ""  # "2:4" where the weights may be stored and multiplied so
    layout: str = "tn"  # how B of a product is stored: n x k as a linear layer's weights, "nn" k x n
    pipe: str = ""  # "simt" where a library has CUDA-core kernels only
    access_bytes: int = 16  # what a thread of a kernel without products moves at once
    sweeps: int = 0  # how often such a kernel reads its rows from memory; 0: once where a CTA can keep one
    notes: tuple[str, ...] = field(default=())

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return sum(p.macs for p in self.products)

    @property
    def input_bytes(self) -> int:
        """Bytes of all distinct activations read."""
        return sum(o.bytes for o in self.inputs)

    @property
    def output_bytes(self) -> int:
        """Bytes of all tensors written for other kernels."""
        return sum(o.bytes for o in self.outputs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of constants read."""
        return self.weights.bytes if self.weights else 0
