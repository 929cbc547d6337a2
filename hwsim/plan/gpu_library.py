"""Kernels of a library whose products end with their sums and whose other kernels are written by hand (FasterTransformer 5).

From its sources (NVIDIA/FasterTransformer df4a753): cuBLAS multiplies weights stored k x n; a kernel of its own adds the biases
of queries, keys and values and sets heads aside where nothing element-wise follows (AddQKVBiasTranspose), another merges the
heads of unfused attention (TransposeQKV); windows go back to their places in a kernel (ReverseRoll); element-wise and row kernels
move two halves, or one float, a thread; patches are convolved by cuDNN's plain implicit product, which knows no Tensor Cores;
attention of 8 bits is between two changes of layout (to rows, with the biases, and back to columns of 32).
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.plan.kernel import Kernel

ACCESS_BYTES = 4


def as_library(kernel: Kernel) -> Kernel:
    """Return a kernel as the library has it."""
    if kernel.kind in ("vector", "move"):
        return replace(kernel, access_bytes=ACCESS_BYTES)
    if kernel.kind != "matmul":
        return kernel
    if kernel.products[0].conv is not None:
        return replace(kernel, pipe="simt")
    return replace(kernel, layout="nn" if kernel.products[0].b_weight else kernel.layout)


def then(kernels: list[Kernel], index: int, what: str) -> list[Kernel]:
    """Return ``kernels`` (the first is number ``index``) with one after them that adds a bias or moves their result."""
    last = kernels[-1]
    adds = what == "bias"
    before = tuple(replace(o, tensor=f"{o.tensor}.{what}", role="") for o in last.outputs)
    after = Kernel(
        name=f"{last.name} {what}", op="add" if adds else "copy", kind="vector" if adds else "move", layers=last.layers,
        inputs=tuple(replace(o, role="x") for o in before), outputs=last.outputs,
        alu=sum(o.elements for o in before) if adds else 0, producers=(index + len(kernels) - 1,),
    )  # fmt: skip
    return [*kernels[:-1], replace(last, outputs=before), after]
