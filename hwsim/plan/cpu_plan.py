"""Plans for a processor: one kernel an operator, as an interpreter calls them, and what its caches hold between kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.network.graph import Layer, Network
from hwsim.network.ops import FUSED, OPS
from hwsim.plan.fusion import POINTWISE, Group, only_readdresses
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.precision import INTEGERS, Multiply, Precision

# Activations that clamp, or are part of the operator's own epilogue; the others are operators of their own.
_CLAMPS = frozenset({"relu", "relu6", "relu_n1_to_1", "clip"})
_FOLDED = _CLAMPS | {"bn", "add"}
_ADDRESSED = frozenset({"slice", "expand", "transpose"})


def group_operators(net: Network) -> tuple[list[Group], dict[str, str]]:
    """Return one group per operator of a bound network, and for every tensor the one that stores its data.

    Views and the padding of a convolution are free; a batch normalisation right after a product is folded into its
    weights, a clamp into the operator before it. Nothing else is fused: every operator reads and writes its tensors.
    """
    root: dict[str, str] = {t.name: t.name for t in net.inputs}
    groups: list[Group] = []
    made_by: dict[str, Group] = {}
    results = set(net.output_names)
    for layer in net.layers:
        if layer.src and layer.op not in _ADDRESSED and only_readdresses(layer, net):
            root[layer.id] = root[layer.src[0]]
            continue
        sources = list(dict.fromkeys(root[s] for s in layer.src))
        host = made_by.get(sources[0]) if len(sources) == 1 else None
        if host is not None and _folds(layer, host, net, results):
            host.layers.append(layer)
            host.tensor = layer.id
        else:
            kind = {"contract": "matmul"}.get(OPS[layer.op].kind, OPS[layer.op].kind)
            if layer.op in POINTWISE:
                kind = "elementwise"
            if layer.op == "attention":
                kind = "attention"
            host = Group(len(groups), kind, [layer], layer.id, sources)
            groups.append(host)
        root[layer.id] = layer.id
        made_by[layer.id] = host
    return groups, root


def _folds(layer: Layer, host: Group, net: Network, results: set[str]) -> bool:
    last = host.layers[-1]
    if net.consumers[last.id] != [layer.id] or last.id in results or layer.src[0] != last.id:
        return False
    if layer.op == "batch_norm":
        return host.kind == "matmul" and len(host.layers) == 1
    return layer.op in _CLAMPS and host.kind in ("matmul", "elementwise")


def own_activations(net: Network, kernels: tuple[Kernel, ...]) -> tuple[Kernel, ...]:
    """Return ``kernels`` with an operator of its own for every activation of ``net`` that no library fuses.

    Clamps, batch normalisations and additions are part of the operator they follow; ``hswish``, ``sigmoid`` and the like
    read its result and write it again.
    """
    numbered: list[int] = []
    out: list[Kernel] = []
    for kernel in kernels:
        last = net.by_id[kernel.layers[-1]]
        own = [name for name in last.fused if name in FUSED and name not in _FOLDED]
        alu, special = (sum(FUSED[name][i] for name in own) for i in (0, 1))
        count = kernel.outputs[-1].elements
        out.append(
            replace(
                kernel, alu=max(0, kernel.alu - alu * count), special=max(0, kernel.special - special * count),
                producers=tuple(numbered[p] for p in kernel.producers),
            )
        )  # fmt: skip
        for name in own:
            work = FUSED[name]
            out.append(
                Kernel(
                    name=f"{kernel.name} {name}", op=name, kind="vector", layers=(last.id,), inputs=(kernel.outputs[-1],),
                    outputs=(kernel.outputs[-1],), alu=work[0] * count, special=work[1] * count, rows=kernel.rows,
                    producers=(len(out) - 1,),
                )
            )  # fmt: skip
        numbered.append(len(out) - 1)
    return tuple(out)


def multiply_with(rates: Mapping[str, float], precision: Precision, machine: str, where: str) -> Multiply:
    """Return how a core with native ``rates`` (multiply-accumulates per clock) multiplies ``precision``'s operands.

    Floats it lacks are computed in fp32, narrower integers in 8 bits, 8-bit weights with float activations in 8 bits
    (activations are quantised as they are read). Raises HwsimError when the machine multiplies nothing like it.
    """
    act, weight = FORMATS[precision.activations].name, FORMATS[precision.weights].name
    if act == weight and rates.get(act, 0.0) > 0:
        return Multiply(act, rates[act], 1, False, False)
    both = act in INTEGERS and weight in INTEGERS
    narrow = max(FORMATS[act].width, FORMATS[weight].width) <= 8
    if both and narrow and rates.get("int8", 0.0) > 0:
        note = (
            ""
            if {act, weight} <= {"int8", "uint8"}
            else f"{machine} has no {act} x {weight} multiplication: widened to int8"
        )
        return Multiply("int8", rates["int8"], 1, act not in ("int8", "uint8"), weight not in ("int8", "uint8"), note)
    if weight in ("int8", "int4") and act not in INTEGERS and rates.get("int8", 0.0) > 0:
        return Multiply(
            "int8",
            rates["int8"],
            1,
            True,
            weight != "int8",
            f"{machine} quantises {act} activations to int8 as it reads them",
        )
    if rates.get("fp32", 0.0) > 0:
        if both:
            note = f"{machine} multiplies {act} x {weight} one by one, at the rate of fp32"
        else:
            wide = act if act != "fp32" else weight
            note = f"{machine} has no {wide} arithmetic: computed in fp32"
        return Multiply("fp32", rates["fp32"], 1, act != "fp32", weight != "fp32", note)
    raise HwsimError(
        f"{where}: {machine} multiplies {', '.join(rates)} only, not {act} x {weight}; try --precision {next(iter(rates))}"
    )


def place_in_caches(kernels: tuple[Kernel, ...], capacity: int, *, warm: bool) -> tuple[Kernel, ...]:
    """Return ``kernels`` with the share of every operand that ``capacity`` bytes of shared cache still hold.

    Caches keep what was touched last: a tensor is found again as far as what was touched since leaves room for it.
    Weights were last touched in the run before (never, in a cold one). Results count as kept in cache as far as their
    next reader finds them.
    """
    touched = 0.0
    when: dict[str, float] = {}  # tensor: bytes touched when it was last used
    total = sum(k.input_bytes + k.weight_bytes + k.output_bytes for k in kernels)
    out: list[Kernel] = []
    written: dict[str, tuple[int, int]] = {}  # tensor: (kernel, position among its outputs)
    found_later: dict[tuple[int, int], float] = {}
    for number, kernel in enumerate(kernels):
        inputs: list[Operand] = []
        for operand in kernel.inputs:
            share = 0.0
            if operand.tensor in when:
                share = _share(capacity, touched - when[operand.tensor], operand.bytes)
            elif warm and not kernel.producers:
                share = _share(capacity, total, operand.bytes)
            inputs.append(replace(operand, cached=share))
            if operand.tensor in written:
                spot = written[operand.tensor]
                found_later[spot] = max(found_later.get(spot, 0.0), share)
        weights = kernel.weights
        if weights is not None:
            share = 0.0
            if weights.tensor in when:
                share = _share(capacity, touched - when[weights.tensor], weights.bytes)
            elif warm:
                share = _share(capacity, total, weights.bytes)
            weights = replace(weights, cached=share)
        touched += kernel.input_bytes + kernel.weight_bytes + kernel.output_bytes
        for operand in (*kernel.inputs, *((kernel.weights,) if kernel.weights else ()), *kernel.outputs):
            when[operand.tensor] = touched
        for position, operand in enumerate(kernel.outputs):
            written[operand.tensor] = (number, position)
        out.append(replace(kernel, inputs=tuple(inputs), weights=weights))
    return tuple(
        replace(k, outputs=tuple(replace(o, cached=found_later.get((i, p), 0.0)) for p, o in enumerate(k.outputs)))
        for i, k in enumerate(out)
    )


def _share(capacity: int, since: float, nbytes: int) -> float:
    return min(1.0, max(0.0, (capacity - since) / nbytes)) if nbytes > 0 else 1.0
