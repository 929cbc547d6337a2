"""Casts on a GPU: where a tensor's stored format is not the one a product multiplies.

A compiling stack lets the kernel that makes the tensor write it in the format that is read (both formats where both are
read); a framework, and an input of the network, take kernels of their own: where the format needs a scale computed at run
time, those that libraries run (`hwsim.timing.gpu_quant.CHAINS`), which read the tensor once for the scale and once to convert.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hwsim.formats import FORMATS, storage_bytes
from hwsim.plan.kernel import Kernel, Operand
from hwsim.timing.gpu_quant import CHAINS

_SCALED = frozenset({"int8", "uint8", "int4", "e4m3", "e5m2", "e2m1"})


def insert_casts(kernels: list[Kernel], fuse: bool, outside: Iterable[str], known: bool = False) -> list[Kernel]:
    """Return ``kernels`` with every operand of a product in the format it multiplies; ``outside``: given tensors.

    Kernels are renumbered; each cast comes right before the first kernel that needs it. ``known``: scales were calibrated.
    """
    wanted: dict[str, set[str]] = {}  # tensor: formats products read it in
    for kernel in kernels:
        for operand in kernel.inputs:
            fmt = _wanted(kernel, operand)
            if fmt:
                wanted.setdefault(operand.tensor, set()).add(fmt)
    if not wanted:
        return kernels
    fixed = set(outside)
    made_by = {o.tensor for k in kernels for o in k.outputs}
    in_place = {t for t in wanted if fuse and t in made_by and t not in fixed}
    as_is = {o.tensor for k in kernels for o in k.inputs if o.tensor in in_place and not _wanted(k, o)}
    as_is |= in_place - {o.tensor for k in kernels for o in k.inputs}
    read = {o.tensor for k in kernels for o in k.inputs}
    results = {o.tensor for k in kernels for o in k.outputs if o.tensor not in read}
    out: list[Kernel] = []
    renumbered: list[int] = []
    ready: dict[tuple[str, str], int] = {}  # (tensor, format): number of the cast that makes it
    for kernel in kernels:
        producers = {renumbered[p] for p in kernel.producers}
        inputs: list[Operand] = []
        for operand in kernel.inputs:
            fmt = _wanted(kernel, operand)
            if not fmt:
                inputs.append(operand)
                continue
            cast = _as(operand, fmt)
            if operand.tensor not in in_place:
                number = ready.get((operand.tensor, fmt))
                if number is None:
                    out += _cast_kernels(operand, cast, len(out), tuple(sorted(producers)), known)
                    number = ready[operand.tensor, fmt] = len(out) - 1
                producers.add(number)
            inputs.append(cast)
        outputs: list[Operand] = []
        for operand in kernel.outputs:
            keep = operand.tensor not in in_place or operand.tensor in as_is or operand.tensor in results
            outputs += [operand] if keep else []
            if operand.tensor in in_place:
                outputs += [_as(operand, fmt) for fmt in sorted(wanted[operand.tensor])]
        renumbered.append(len(out))
        out.append(replace(kernel, inputs=tuple(inputs), outputs=tuple(outputs), producers=tuple(sorted(producers))))
    return out


def _wanted(kernel: Kernel, operand: Operand) -> str:
    """The format a product multiplies an operand in, where it is not the stored one and no tile converts it."""
    if kernel.multiply is None or operand.role not in ("a", "b") or kernel.multiply.convert_a:
        return ""
    fmt = kernel.multiply.format.split("x")[0]
    stored = operand.format
    if kernel.multiply.block:
        return f"{fmt}/{kernel.multiply.block}"  # with a scale for every so many
    same = stored == fmt or {stored, fmt} in ({"int8", "uint8"}, {"fp32", "tf32"}, {"int4", "uint4"})
    return "" if same or FORMATS[stored].kind == "bool" else fmt


def _as(operand: Operand, wanted: str) -> Operand:
    fmt, _, block = wanted.partition("/")
    scales = -(-operand.elements // int(block)) if block else 0  # of 8 bits
    stored = storage_bytes(operand.elements, fmt) + scales
    return replace(operand, tensor=f"{operand.tensor}.{wanted}", format=fmt, bytes=stored)


def _cast_kernels(
    source: Operand, target: Operand, index: int, producers: tuple[int, ...], known: bool
) -> list[Kernel]:
    """The kernels of a cast, the first is number ``index``; ``known``: its scale was found ahead of time (calibration)."""
    x = replace(source, role="x")
    name, layers = f"cast {source.tensor} to {target.format}", (source.tensor,)
    whole = Kernel(
        name=name, op="quantize" if target.format in _SCALED else "cast", kind="vector", layers=layers, inputs=(x,),
        outputs=(replace(target, role=""),), alu=source.elements, producers=producers,
    )  # fmt: skip
    if known or target.format not in _SCALED:
        return [whole]
    block = target.tensor.rpartition("/")[2] if "/" in target.tensor else ""
    chain = CHAINS.get({"16": "nvfp4", "32": "mxfp4"}.get(block, target.format), CHAINS["int8"])
    out: list[Kernel] = []
    before: tuple[Operand, ...] = ()
    for step, (what, reads, writes) in enumerate(chain):
        last = step == len(chain) - 1
        scale = Operand(f"{target.tensor}.{what}", 1, 4, "fp32")
        after = (() if not step else (index + step - 1,)) or producers
        inputs = (*((x,) if reads else ()), *before)
        out.append(
            replace(
                whole, name=name if last else f"{name}: {what}", inputs=inputs,
                outputs=whole.outputs if writes else (scale,), producers=after,
                alu=5 * source.elements if reads else 0, passes=2 if reads and (writes or not last) and not block else 1,
            )
        )  # fmt: skip
        before = (replace(scale, role="x"),)
    return out
