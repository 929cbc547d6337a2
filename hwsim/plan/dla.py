"""Which kernels a DLA takes, in which order they hand over least, and where a network is best cut between GPU and DLA.

`dla_operators.csv` has one line per operator: ``product`` (multiplied), ``fused`` (in the output stage of the layer before),
``pass`` (a layer of its own), ``move`` (only addresses), whether each generation takes it, and its limits.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.network.graph import Layer, Network
from hwsim.plan.kernel import Kernel

FORMATS = ("int8", "fp16")
_LIMIT = re.compile(r"(\w+)<=(\d+)")
_CASTS = ("cast", "quantize", "dequantize", "requantize")
_POOLS = ("max_pool", "avg_pool", "adaptive_avg_pool")


@dataclass(frozen=True, slots=True)
class DlaOperator:
    """One line of the table; ``limits`` are the largest values of spatial, kernel, stride, padding, dilation, channels."""

    op: str
    kind: str
    generations: frozenset[str]
    limits: Mapping[str, int]
    source: str


@cache
def dla_operators() -> dict[str, DlaOperator]:
    """The table by operator."""
    with (Path(__file__).parent / "dla_operators.csv").open(encoding="utf-8", newline="") as handle:
        lines = list(csv.DictReader(handle))
    generations = [name for name in lines[0] if name.startswith("dla-")]
    return {
        line["op"]: DlaOperator(
            line["op"],
            line["kind"],
            frozenset(g for g in generations if line[g] == "yes"),
            {name: int(value) for name, value in _LIMIT.findall(line["limits"])},
            line["source"],
        )
        for line in lines
    }


def dla_refusal(net: Network, kernel: Kernel, generation: str) -> str:
    """Return why a DLA of ``generation`` does not take a kernel of the bound network ``net``, "" when it does."""
    if not any(generation in op.generations for op in dla_operators().values()):
        known = sorted({g for op in dla_operators().values() for g in op.generations})
        raise HwsimError(f"DLA generation {generation!r} is not known{near(generation, known)}")
    layers = {la.id: la for la in net.layers}
    if kernel.kind == "attention":
        return "attention is no DLA layer"
    if kernel.multiply is not None and kernel.multiply.format not in FORMATS:
        return f"a DLA multiplies {' and '.join(FORMATS)}, not {kernel.multiply.format}"
    if kernel.products and not all(p.b_weight for p in kernel.products):
        return "both operands of its product are computed"
    # Its input and output stages convert, so a cast may read and a product may write what it does not compute with.
    read = () if kernel.op in _CASTS else kernel.inputs
    written = () if kernel.op in _CASTS or kernel.products else kernel.outputs
    wide = [o.format for o in (*read, *written) if o.format not in (*FORMATS, "uint8")]
    if wide:
        return f"a DLA computes in {' and '.join(FORMATS)}, not {wide[0]}"
    for layer_id in kernel.layers:
        layer = layers.get(layer_id)
        if layer is None:  # made by a rewrite of the compiler, from layers checked on their own
            continue
        for op in (layer.op, *layer.fused):
            found = dla_operators().get(op)
            if found is None or generation not in found.generations:
                return f"{op} is no layer of {generation}"
        reason = _beyond(net, layer, kernel, dla_operators()[layer.op].limits)
        if reason:
            return reason
    if not kernel.layers:
        found = dla_operators().get(kernel.op)
        return "" if found and generation in found.generations else f"{kernel.op} is no layer of {generation}"
    return ""


def _beyond(net: Network, layer: Layer, kernel: Kernel, limits: Mapping[str, int]) -> str:
    """Which limit of its operator a layer exceeds, in words."""
    sizes: dict[str, int] = {}
    geometry = next((p.conv for p in kernel.products if p.conv is not None), None)
    if layer.op in ("conv", "conv_transpose") and geometry is not None:
        sizes = {
            "spatial": len(geometry.kernel), "kernel": max(geometry.kernel), "stride": max(geometry.stride),
            "padding": max(geometry.padding, default=0), "dilation": max(geometry.dilation),
            "channels": max(geometry.in_channels, geometry.out_channels) * kernel.products[0].batch,
        }  # fmt: skip
    elif layer.op == "linear" and kernel.products:
        sizes = {"channels": max(kernel.products[0].k, kernel.products[0].n)}
    elif layer.op in ("max_pool", "avg_pool"):
        sizes = {"kernel": _largest(layer, "k"), "stride": _largest(layer, "s"), "padding": _largest(layer, "p")}
    elif layer.op == "adaptive_avg_pool":
        inside, outside = net.input_shapes(layer)[0], net.tensors[layer.id].shape
        sizes = {"kernel": max(-(-int(a) // max(1, int(b))) for a, b in zip(inside[2:], outside[2:], strict=False))}
    for name, largest in limits.items():
        if sizes.get(name, 0) > largest:
            return f"{layer.op} with {name} {sizes[name]} (at most {largest})"
    return ""


def _largest(layer: Layer, key: str) -> int:
    value = layer.attr(key, 1)
    parts = value if isinstance(value, tuple | list) else re.findall(r"\d+", str(value))
    return max((int(p) for p in parts), default=1)


def merge_pools(kernels: Sequence[Kernel], takes: Sequence[bool]) -> tuple[list[Kernel], list[bool]]:
    """Return the kernels with every pooling layer run in the output stage of the DLA layer that alone feeds it.

    NVDLA passes results on to its pooling unit without storing them; a residual sum in between prevents it.
    """
    readers: dict[str, int] = {}
    for kernel in kernels:
        for operand in kernel.inputs:
            readers[operand.tensor] = readers.get(operand.tensor, 0) + 1
    maker = {o.tensor: i for i, k in enumerate(kernels) for o in k.outputs}
    into: dict[int, int] = {}
    merged = list(kernels)
    for i, kernel in enumerate(kernels):
        if not takes[i] or kernel.op not in _POOLS or len(kernel.inputs) != 1:
            continue
        source = maker.get(kernel.inputs[0].tensor)
        if source is None or source in into or not takes[source] or not merged[source].products:
            continue
        first = merged[source]
        alone = len(first.outputs) == 1 and readers[kernel.inputs[0].tensor] == 1 and len(first.inputs) == 1
        if alone:
            merged[source] = replace(
                first, name=f"{first.name} + {kernel.name}", layers=(*first.layers, *kernel.layers), outputs=kernel.outputs,
                alu=first.alu + kernel.alu,
            )  # fmt: skip
            into[i] = source
    kept = [i for i in range(len(kernels)) if i not in into]
    where = {old: new for new, old in enumerate(kept)} | {}
    for old, target in into.items():
        where[old] = where[target]
    out = [replace(merged[i], producers=tuple(sorted({where[p] for p in merged[i].producers}))) for i in kept]
    return out, [takes[i] for i in kept]


def order_by_engine(kernels: Sequence[Kernel], on_dla: Sequence[bool]) -> list[int]:
    """Return an order that keeps every kernel after its producers and changes engines seldom.

    An engine goes on as long as something it may run is ready; of what is ready the earliest goes first.
    """
    missing = [len(set(k.producers)) for k in kernels]
    users: list[list[int]] = [[] for _ in kernels]
    for i, kernel in enumerate(kernels):
        for producer in set(kernel.producers):
            users[producer].append(i)
    ready = [i for i, count in enumerate(missing) if count == 0]
    order: list[int] = []
    engine: bool | None = None
    while ready:
        same = [i for i in ready if on_dla[i] == engine]
        chosen = min(same or ready)
        engine = on_dla[chosen]
        ready.remove(chosen)
        order.append(chosen)
        for user in users[chosen]:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return order


def reorder(kernels: Sequence[Kernel], order: Sequence[int]) -> list[Kernel]:
    """Return the kernels in ``order``, their producers numbered anew."""
    place = {old: new for new, old in enumerate(order)}
    return [replace(kernels[i], producers=tuple(sorted(place[p] for p in kernels[i].producers))) for i in order]


def subgraphs(on_dla: Sequence[bool]) -> list[range]:
    """Return the runs of consecutive kernels on the DLA: each is submitted to the engine as one subgraph."""
    out: list[range] = []
    start: int | None = None
    for i, mine in enumerate([*on_dla, False]):
        if mine and start is None:
            start = i
        elif not mine and start is not None:
            out.append(range(start, i))
            start = None
    return out


def best_engines(
    gpu_s: Sequence[float], dla_s: Sequence[float], takes: Sequence[bool], handover_s: float
) -> tuple[list[bool], float]:
    """Return the assignment of kernels, run in this order, that ends soonest, and its seconds.

    Every run of kernels on the DLA costs ``handover_s`` once. The optimum, by dynamic programming over the order.
    """
    on_gpu, on_dla = 0.0, float("inf")
    back: list[tuple[bool, bool]] = []  # whether the kernel before was on the DLA, by where this one is
    for i, (gpu, dla) in enumerate(zip(gpu_s, dla_s, strict=True)):
        from_gpu = on_gpu <= on_dla
        enter, stay = on_gpu + handover_s, on_dla
        back.append((not from_gpu, stay < enter))
        on_gpu, on_dla = min(on_gpu, on_dla) + gpu, (min(enter, stay) + dla if takes[i] else float("inf"))
    at_dla = on_dla < on_gpu
    total = min(on_gpu, on_dla)
    out: list[bool] = []
    for choice in reversed(back):
        out.append(at_dla)
        at_dla = choice[1] if at_dla else choice[0]
    return out[::-1], total
