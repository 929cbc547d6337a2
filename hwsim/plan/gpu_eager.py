"""Kernels of a framework that runs one operator at a time, where one layer of a trace is several of its operators.

Attention out of operators (Hugging Face's GPT-2, OPT and others; PyTorch's matmul copies operands of four axes whose heads
are not contiguous): queries, keys and values are copied with heads aside, scores are scaled, masked and normalised by three
kernels, results are copied back. The tangent form of GELU is eight element-wise kernels (transformers, NewGELUActivation).
"""

from __future__ import annotations

from dataclasses import replace

from hwsim.plan.kernel import Kernel, Operand

# x^3, 0.044715 x^3, x + that, its scaling, the tangent, 1 + that, x / 2, and their product: how many tensors each reads.
GELU_READS = (1, 1, 2, 1, 1, 1, 1, 2)
# PyTorch (aten SoftMax.cu, layer_norm_kernel.cu): a warp keeps a row of up to 1024 in registers; longer rows are read for the
# maximum, the sum and the result; a normalisation reads its row for mean and variance, and again for the result.
WARP_SOFTMAX = 1024
SWEEPS = {"softmax": 3, "log_softmax": 3, "layer_norm": 2, "rms_norm": 2, "group_norm": 2, "instance_norm": 2}


def as_operator(kernel: Kernel) -> Kernel:
    """Return a kernel as a framework's own operator reads it."""
    sweeps = SWEEPS.get(kernel.op, 0)
    if kernel.kind != "vector" or not sweeps or not kernel.inputs:
        return kernel
    if kernel.op.endswith("softmax") and kernel.inputs[0].elements <= WARP_SOFTMAX * kernel.rows:
        return kernel
    return replace(kernel, sweeps=sweeps)


def apart(kernels: list[Kernel], index: int, images: int) -> list[Kernel]:
    """Return unfused attention (queries by keys, softmax, by values; the first is kernel ``index``) as operators.

    ``images``: with one, heads need no copy to lie one after the other.
    """
    first, softmax, last = kernels
    qk, pv = first.products[0], last.products[0]
    scores = first.outputs[0]
    out: list[Kernel] = []

    def add(kernel: Kernel) -> int:
        out.append(kernel)
        return index + len(out) - 1

    def copy(name: str, source: Operand, producers: tuple[int, ...]) -> Operand:
        made = replace(source, tensor=f"{source.tensor}.{name}", role="")
        add(
            Kernel(f"{first.layers[-1]} {name}", "copy", "move", first.layers, inputs=(replace(source, role="x"),),
                   outputs=(made,), producers=producers)
        )  # fmt: skip
        return made

    a = next(o for o in first.inputs if o.role == "a")
    b = next(o for o in first.inputs if o.role == "b")
    values = next(o for o in last.inputs if o.role == "b")
    if images > 1:
        a, b, values = (
            replace(copy(name, o, first.producers), role=o.role)
            for name, o in (("queries", a), ("keys", b), ("values", values))
        )
    lead = tuple(range(index, index + len(out))) or first.producers
    at = add(replace(first, inputs=(a, b, *(o for o in first.inputs if o.role == "x")), producers=lead))
    base = replace(softmax, passes=1, special=0, alu=qk.c_elements)
    mask = tuple(o for o in softmax.inputs[1:])
    masked = bool(mask) or (qk.causal and qk.m > 1)
    names = ["scale", *(["mask"] if masked else [])]
    for name in names:
        reads = (replace(scores, role="x"), *(mask if name == "mask" else ()))
        scores = replace(scores, tensor=f"{first.outputs[0].tensor}.{name}")
        at = add(
            replace(base, name=f"{first.name[:-3]} {name}", op="mul", inputs=reads, outputs=(scores,), producers=(at,))
        )
    at = add(replace(softmax, inputs=(replace(scores, role="x"),), producers=(at,)))
    at = add(replace(last, inputs=(last.inputs[0], values), layout="nn", producers=tuple(sorted({*lead, at}))))
    merged = last.outputs[0]
    apart_result = replace(merged, tensor=f"{merged.tensor}.heads")
    out[-1] = replace(out[-1], outputs=(apart_result,))
    add(
        Kernel(f"{first.name[:-3]} merge", "copy", "move", last.layers, inputs=(replace(apart_result, role="x"),),
               outputs=(merged,), producers=(at,))
    )  # fmt: skip
    assert pv.batch == qk.batch
    return out


def tangent_gelu(kernel: Kernel, index: int) -> list[Kernel]:
    """Return a tangent GELU as the operators a framework runs it by; the first is kernel ``index``."""
    x, result = kernel.inputs[0], kernel.outputs[0]
    out = []
    for step, reads in enumerate(GELU_READS):
        done = step == len(GELU_READS) - 1
        made = result if done else replace(result, tensor=f"{result.tensor}.{step}")
        before = (replace(result, tensor=f"{result.tensor}.{step - 1}", role="x"),) if step else ()
        inputs = (*before, *([replace(x, role="x")] if reads > len(before) else []))
        out.append(
            replace(
                kernel, name=f"{kernel.name} {step + 1}", inputs=inputs, outputs=(made,), alu=0 if step == 4 else x.elements,
                special=x.elements if step == 4 else 0, producers=kernel.producers if not step else (index + step - 1,),
            )
        )  # fmt: skip
    return out
