"""What a DLA does for each kernel it takes: products of one image, and the bytes that leave the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hwsim.formats import FORMATS
from hwsim.plan.dla import subgraphs
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.timing.dla import INDEX_BITS, DlaTimes, DlaView, DlaWork, dla_times


def dla_work(kernels: Sequence[Kernel], on_dla: Sequence[bool], images: int, view: DlaView) -> DlaWork:
    """Return the work of the kernels on the DLA, in order; sizes are those of one of ``images``.

    A tensor that its subgraph alone makes and reads, and that fits the SRAM, never leaves the engine.
    """
    kept = _resident(kernels, on_dla, images, view)
    return DlaWork.of([_row(k, images, view, kept) for k, mine in zip(kernels, on_dla, strict=True) if mine])


def _resident(kernels: Sequence[Kernel], on_dla: Sequence[bool], images: int, view: DlaView) -> set[str]:
    part = dict.fromkeys(range(len(kernels)), -1) | {i: n for n, run in enumerate(subgraphs(on_dla)) for i in run}
    readers: dict[str, set[int]] = {}
    for i, kernel in enumerate(kernels):
        for operand in kernel.inputs:
            readers.setdefault(operand.tensor, set()).add(part[i])
    kept: set[str] = set()
    for i, kernel in enumerate(kernels):
        for operand in kernel.outputs:
            own = part[i] >= 0 and readers.get(operand.tensor) == {part[i]}
            if own and operand.bytes <= view.sram_bytes * images:
                kept.add(operand.tensor)
    return kept


def _row(kernel: Kernel, images: int, view: DlaView, kept: set[str]) -> dict[str, Any]:
    """One kernel as a row of `DlaWork`."""
    fmt = kernel.multiply.format if kernel.multiply else ""
    read = sum(o.bytes for o in kernel.inputs if o.tensor not in kept) / images
    written = sum(o.bytes for o in kernel.outputs if o.tensor not in kept) / images
    weights = float(kernel.weight_bytes)
    row: dict[str, Any] = {
        "images": images, "positions": 0, "taps": 0, "row": 1, "inputs": 0, "outputs": 0, "groups": 1, "kernels": 0,
        "elements": 0, "read_bytes": read, "write_bytes": written, "weight_bytes": weights, "sparse": False,
    }  # fmt: skip
    if not kernel.products:
        row["elements"] = max(sum(o.elements for o in side) for side in (kernel.inputs, kernel.outputs)) / images
        return row
    product = kernel.products[0]
    geometry = product.conv
    row["kernels"] = view.kernels[fmt]
    if geometry is None:
        row |= {"positions": product.m * product.batch / images, "taps": 1, "inputs": product.k, "outputs": product.n}
    else:
        row |= {
            "positions": math.prod(geometry.out_spatial), "taps": math.prod(geometry.kernel), "row": geometry.kernel[-1],
            "inputs": geometry.in_channels, "outputs": geometry.out_channels, "groups": product.batch,
        }  # fmt: skip
    if kernel.sparsity and view.sparse and row["groups"] == 1 and row["inputs"] > view.channels:
        row["sparse"] = True
        row["weight_bytes"] = weights * (0.5 + 0.5 * INDEX_BITS / FORMATS[fmt].width)
    return row


def dla_choices(
    kernels: Sequence[Kernel], on_dla: Sequence[bool], images: int, view: DlaView, slowdown: float = 1.0
) -> dict[int, GpuChoice]:
    """Return what the DLA does for each kernel it runs, by its number; the first of a subgraph pays the hand-over.

    In a choice of the DLA ``ctas`` are images, ``k_steps`` clocks of the array for one, and ``tile`` is the array.
    """
    numbers = [i for i, mine in enumerate(on_dla) if mine]
    if not numbers:
        return {}
    work = dla_work(kernels, on_dla, images, view)
    times = dla_times(view, work, slowdown)
    first = {run.start for run in subgraphs(on_dla)}
    return {i: _choice(kernels[i], at, view, work, times, i in first) for at, i in enumerate(numbers)}


def _choice(kernel: Kernel, at: int, view: DlaView, work: DlaWork, times: DlaTimes, enters: bool) -> GpuChoice:
    product = kernel.products[0] if kernel.products else None
    fmt = kernel.multiply.format if kernel.multiply else kernel.inputs[0].format if kernel.inputs else ""
    images = int(work.images[at])
    parts = {"launch": float(times.layer_s[at]), "main": float(times.body_s[at])}
    if enters:
        parts["handover"] = view.handover_s
    bytes_each = {"a": work.read_bytes, "b": work.weight_bytes, "c": work.write_bytes}
    limiter = "dla" if times.compute_s[at] >= times.memory_s[at] else "dram"
    tile = (view.positions, view.kernels.get(fmt, 0) if product else 1, view.channels if product else 1)
    return GpuChoice(
        "dla", "dla", fmt, product.m if product else 1, product.n if product else 1, product.k if product else 1,
        product.batch if product else 1, tile, ctas=images, limiter=limiter, times=parts,
        dram={name: float(v[at]) * images for name, v in bytes_each.items()},
        sparse=_sparse(kernel, bool(work.sparse[at])),
        k_steps=round(float(times.cycles[at]) / images),
    )  # fmt: skip


def _sparse(kernel: Kernel, skipped: bool) -> dict[str, object]:
    if not kernel.sparsity:
        return {}
    limit = "" if skipped else "a DLA skips zeros of ungrouped layers with more channels than its array has"
    return {"eligible": skipped, "chosen": skipped, "gain": "", "limit": limit}
