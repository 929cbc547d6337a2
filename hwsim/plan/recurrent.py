"""Recurrent layers as kernels: the input's product over all steps at once, then the state's product step by step."""

from __future__ import annotations

from dataclasses import replace

from hwsim.formats import storage_bytes
from hwsim.plan.kernel import Kernel, Operand


def split_steps(kernel: Kernel, index: int, resident_bytes: int, outside_level: str) -> list[Kernel]:
    """Return the kernels of ``kernel``, which is number ``index`` of the plan: itself unless it has several products.

    A recurrent layer's input product does not depend on its state and runs for all steps together; what it leaves stays
    on the chip if it fits, and so do the weights of the state. The state's products run one step after the other and
    carry the gates' vector work.
    """
    if kernel.kind != "matmul" or len(kernel.products) < 2:
        return [kernel]
    first, *steps = kernel.products
    weights = [_share(kernel, i) for i in range(len(kernel.products))]
    fmt = kernel.inputs[0].format
    gate_bytes = storage_bytes(first.c_elements, fmt)
    level = "shared" if gate_bytes <= resident_bytes else outside_level
    kept = sum(w.bytes for w in weights[1:] if w is not None)
    if outside_level == "dram" and kept <= resident_bytes // 2 and weights[0] is not None:
        # What every step multiplies is read once, with the first product, and stays.
        weights[0] = replace(weights[0], bytes=weights[0].bytes + kept)
        weights[1:] = [replace(w, level="shared") if w is not None else None for w in weights[1:]]
    gates = Operand(f"{kernel.layers[0]}.gates", first.c_elements, gate_bytes, fmt, level)
    out = [
        replace(
            kernel, name=f"{kernel.name} input", products=(first,), weights=weights[0], outputs=(gates,), alu=0, special=0,
            repeat=1,
        )
    ]  # fmt: skip
    for i, product in enumerate(steps, 1):
        state = Operand(
            f"{kernel.layers[0]}.state", product.a_elements, storage_bytes(product.a_elements, fmt), fmt, "shared"
        )
        final = i == len(steps)
        out.append(
            replace(
                kernel, name=f"{kernel.name} {product.label}", products=(product,), weights=weights[i],
                inputs=(state, gates) if i == 1 else (state,), outputs=kernel.outputs if final else (state,),
                alu=kernel.alu if i == 1 else 0, special=kernel.special if i == 1 else 0, repeat=product.repeat,
                producers=(index + i - 1,), notes=(),
            )
        )  # fmt: skip
    return out


def _share(kernel: Kernel, i: int) -> Operand | None:
    """The part of the layer's constants that product ``i`` multiplies."""
    if kernel.weights is None:
        return None
    mine, total = kernel.products[i].b_elements, sum(p.b_elements for p in kernel.products)
    w = kernel.weights
    return replace(w, tensor=f"{w.tensor}.{i}", elements=w.elements * mine // total, bytes=w.bytes * mine // total)
