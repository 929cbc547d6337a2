"""Planning: a bound network and a machine become a list of kernels, each with its operands' formats, sizes and places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hwsim.errors import HwsimError
from hwsim.formats import storage_bytes
from hwsim.network.graph import Network
from hwsim.network.ops import OPS, kv_cache_elements
from hwsim.plan.fusion import Group, group_layers, only_readdresses
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.memory import Memory
from hwsim.plan.operands import (
    cache_bytes,
    elements_of,
    group_weights,
    kernel_name,
    lead_layer,
    peak_bytes,
    tensor_formats,
    weight_bytes,
    without_form,
)
from hwsim.plan.precision import Multiply, Precision, check_patterns, precision_of
from hwsim.plan.recurrent import split_steps
from hwsim.plan.residency import keep_on_chip


@dataclass(frozen=True)
class Plan:
    """What runs: the kernels in order, and what the reader should know about the choices made.

    ``weight_bytes``, ``activation_bytes`` (peak of what lives off-chip) and ``cache_bytes`` are what must fit in memory.
    """

    network: str
    machine: str
    kernels: tuple[Kernel, ...]
    weight_bytes: int = 0
    activation_bytes: int = 0
    cache_bytes: int = 0
    notes: tuple[str, ...] = field(default=())
    conditions: tuple[str, ...] = field(default=())  # sizes and precision it was made for

    def to_dict(self) -> dict[str, object]:
        """The plan as plain data: per kernel its layers, formats and places."""
        return {
            "network": self.network,
            "machine": self.machine,
            "kernels": [
                {
                    "name": k.name,
                    "kind": k.kind,
                    "layers": list(k.layers),
                    "multiply": k.multiply.format if k.multiply else "",
                    "passes": k.multiply.passes if k.multiply else 0,
                    "inputs": [[o.tensor, o.format, o.level] for o in k.inputs],
                    "outputs": [[o.tensor, o.format, o.level] for o in k.outputs],
                }
                for k in self.kernels
            ],
        }

    @property
    def digest(self) -> str:
        """A short hash of the plan: equal plans compute equal values."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


Grouping = Callable[[Network], tuple[list[Group], dict[str, str]]]


@dataclass(frozen=True)
class Target:
    """What planning needs to know of a machine: how it multiplies, and how much stays on the chip between kernels."""

    machine: str
    multiply: Callable[[Precision, str], Multiply]
    resident_bytes: int = 0
    outside_level: str = "dram"


def make_plan(
    net: Network, target: Target, table: dict[str, Precision] | None, grouping: Grouping = group_layers
) -> Plan:
    """Return the plan of a bound network on ``target`` with the precision assignment ``table`` (None: its own formats).

    ``grouping`` says which layers run as one kernel, and which tensors only re-address others.
    Raises HwsimError naming the layer when the machine cannot multiply its formats.
    """
    check_patterns(net, table)
    groups, root = grouping(net)
    if not groups:
        raise HwsimError(f"network {net.name} only gives its inputs other shapes: there is nothing to run")
    formats = tensor_formats(net, table)
    size = {name: storage_bytes(elements_of(net, name), formats[name]) for name in set(root.values())}
    results = {root[n] for n in net.output_names}
    read_by: dict[str, set[int]] = {}
    for group in groups:
        for name in group.reads:
            read_by.setdefault(name, set()).add(group.index)
    made = [_outputs(group, read_by, results) for group in groups]
    outside = {t.name for t in net.inputs} | results | _cached(net, root)
    kept = keep_on_chip(made, [g.reads for g in groups], size, target.resident_bytes, outside)
    maker = {name: g.index for g, names in zip(groups, made, strict=True) for name in names}
    slices = _slices(net, root)
    kernels: list[Kernel] = []
    last_of: list[int] = []  # the kernel that finishes each group
    for group in groups:
        whole = _kernel(net, group, made[group.index], size, formats, kept, maker, slices, target, table)
        whole = replace(whole, producers=tuple(sorted({last_of[g] for g in whole.producers})))
        kernels += split_steps(whole, len(kernels), target.resident_bytes, target.outside_level)
        last_of.append(len(kernels) - 1)
    notes = list(dict.fromkeys(n for k in kernels for n in k.notes))
    return Plan(
        net.name,
        target.machine,
        tuple(kernels),
        weight_bytes(net, table),
        peak_bytes(made, [g.reads for g in groups], size, kept, [t.name for t in net.inputs], results),
        cache_bytes(net, table),
        tuple(notes),
    )


def _cached(net: Network, root: dict[str, str]) -> set[str]:
    """Keys and values that outlive the run: attention with a cache leaves them in memory for the next token."""
    return {root[src] for la in net.layers if la.op == "attention" and "cache" in la.attrs for src in la.src[1:3]}


def _outputs(group: Group, read_by: dict[str, set[int]], results: set[str]) -> list[str]:
    """Tensors of ``group`` that other kernels or the user read (at least its last one)."""
    inside = [la.id for la in group.layers]
    found = [n for n in inside if n in results or any(g != group.index for g in read_by.get(n, ()))]
    return found or [group.tensor]


def _slices(net: Network, root: dict[str, str]) -> dict[tuple[str, str], int]:
    """Elements of a stored tensor that a layer reads when it reads only a part (through slice or split)."""
    out: dict[tuple[str, str], int] = {}
    for layer in net.layers:
        for src in layer.src:
            stored = root[src]
            if stored == src:
                continue
            part = elements_of(net, src)
            if part != elements_of(net, stored):
                key = (layer.id, stored)
                out[key] = out.get(key, 0) + part
    return out


def _read_elements(net: Network, group: Group, name: str, slices: dict[tuple[str, str], int]) -> int:
    whole = elements_of(net, name)
    parts = [slices[key] for la in group.layers if (key := (la.id, name)) in slices]
    return min(whole, sum(parts)) if parts else whole


def _kernel(
    net: Network,
    group: Group,
    made: list[str],
    size: dict[str, int],
    formats: dict[str, str],
    kept: set[str],
    maker: dict[str, int],
    slices: dict[tuple[str, str], int],
    target: Target,
    table: dict[str, Precision] | None,
) -> Kernel:
    lead = lead_layer(group.layers)
    precision = precision_of(lead, table)
    notes: list[str] = []
    multiply: Multiply | None = None
    products = net.products[lead.id] if group.kind in ("matmul", "attention") else ()
    if products:
        multiply = target.multiply(precision, f"layer {lead.id} ({lead.name or lead.op})")
        if multiply.note:
            notes.append(multiply.note)
    inputs = []
    for name in group.reads:
        elements = _read_elements(net, group, name, slices)
        nbytes = storage_bytes(elements, formats[name])
        level = "shared" if name in kept else target.outside_level
        inputs.append(Operand(name, elements, nbytes, formats[name], level))
    work = [net.vector_work[la.id] for la in group.layers]
    if lead.op == "embedding":  # reads the looked-up rows, not the ids' worth of table
        rows = min(work[0].read, sum(w.elements for w in OPS[lead.op].weights(lead, net.input_shapes(lead), ())))
        inputs = [*inputs, Operand(f"{lead.id}.rows", rows, storage_bytes(rows, precision.weights), precision.weights)]
    weights = group_weights(net, group.layers, precision)
    if lead.op == "attention":
        past = kv_cache_elements(lead, net.input_shapes(lead)) - sum(elements_of(net, s) for s in lead.src[1:3])
        if past > 0:
            nbytes = storage_bytes(past, precision.cache)
            inputs.append(Operand(f"{lead.id}.cache", past, nbytes, precision.cache))
    mask_bytes = 0
    if lead.op == "attention" and len(lead.src) > 3:
        mask = next((o for o in inputs if o.tensor == _stored(net, lead.src[3])), None)
        mask_bytes = mask.bytes if mask is not None and mask.level != "shared" else 0
    outputs = tuple(
        Operand(n, elements_of(net, n), size[n], formats[n], "shared" if n in kept else target.outside_level)
        for n in made
    )
    kind = group.kind
    if kind in ("elementwise", "reduce"):
        kind = "vector"
    if any(OPS[la.op].kind == "host" for la in group.layers):
        notes.append(without_form(lead))
        kind = "vector"
    out_shape = net.tensors[lead.id].shape
    return Kernel(
        name=kernel_name(group.layers, lead),
        op=lead.op,
        kind=kind,
        layers=tuple(la.id for la in group.layers),
        products=products,
        multiply=multiply,
        inputs=tuple(inputs),
        weights=weights,
        outputs=outputs,
        alu=sum(w.alu for w in work),
        special=sum(w.special for w in work),
        passes=max(w.passes for w in work),
        rows=max(1, elements_of(net, lead.id) // max(1, int(out_shape[-1]))) if out_shape else 1,
        repeat=max((p.repeat for p in products), default=1),
        mask_bytes=mask_bytes,
        producers=tuple(sorted({maker[n] for n in group.reads if n in maker and maker[n] != group.index})),
        accumulate=precision.accumulate,
        notes=tuple(notes),
    )


def _stored(net: Network, name: str) -> str:
    """The tensor behind ``name``, looking through views and what else is only addressing."""
    while name in net.by_id and net.by_id[name].src and only_readdresses(net.by_id[name], net):
        name = net.by_id[name].src[0]
    return name


def check_fits(plan: Plan, capacity_bytes: int, machine: str, batch: int) -> None:
    """Raise FitError when weights, activations and caches exceed ``capacity_bytes``, saying what would fit."""
    Memory(plan.weight_bytes, plan.activation_bytes, plan.cache_bytes, capacity_bytes, batch).check(
        plan.network, machine
    )
