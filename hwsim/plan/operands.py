"""What planners of every family derive of a network: formats, sizes and constants of tensors, peaks, names of kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.formats import storage_bytes
from hwsim.network.graph import Layer, Network
from hwsim.network.opdefs import Weight
from hwsim.network.ops import OPS, kv_cache_elements
from hwsim.plan.kernel import Operand
from hwsim.plan.precision import Precision, precision_of, tensor_format


def tensor_formats(net: Network, table: dict[str, Precision] | None) -> dict[str, str]:
    """The format every tensor is stored in under a precision assignment."""
    out: dict[str, str] = {}
    star = (table or {}).get("*")
    for tensor in net.inputs:
        out[tensor.name] = tensor_format(tensor.dtype, star)
    for layer in net.layers:
        out[layer.id] = tensor_format(layer.dtype, precision_of(layer, table) if table else None)
    return out


def elements_of(net: Network, name: str) -> int:
    """Elements of a tensor of a bound network."""
    return math.prod(int(d) for d in net.tensors[name].shape)


def without_form(layer: Layer) -> str:
    """The note on a layer that no accelerator runs; raises HwsimError where the layer hides a whole network."""
    code = str(layer.attrs.get("code", ""))
    if code.startswith("edgetpu"):
        raise HwsimError(
            f"layer {layer.id} ({code}) is a program compiled for the Edge TPU: what it computes cannot be seen; "
            "use the file it was compiled from"
        )
    if layer.op == "custom":
        return f"operator {code} ({layer.name}) is unknown: its bytes are counted, its arithmetic is not"
    return f"{layer.op} ({layer.name}) has no accelerator form: costed as vector work"


def lead_layer(layers: Sequence[Layer]) -> Layer:
    """The layer a kernel is named after: its product or reduction, else its first."""
    kinds = [OPS[la.op].kind for la in layers]
    first = next((kinds.index(kind) for kind in ("contract", "reduce") if kind in kinds), 0)
    return layers[first]


def kernel_name(layers: Sequence[Layer], lead: Layer) -> str:
    """The name of a kernel of these layers, the first of which it is called after."""
    extra = len(layers) - 1
    return f"{lead.name or lead.op}{f' (+{extra})' if extra else ''}"


def group_weights(net: Network, layers: Sequence[Layer], precision: Precision) -> Operand | None:
    """The constants a kernel reads, as one operand; None without any. Biases of integer layers are 32 bits wide."""
    elements = nbytes = 0
    tensor = ""
    for layer in layers:
        op = OPS[layer.op]
        if layer.op == "embedding":
            continue  # counted by the rows it looks up
        shapes = net.input_shapes(layer)
        if layer.op == "expert_linear":  # only the experts that some row is sent to
            product = net.products[layer.id][0]
            elements += product.b_elements
            nbytes += storage_bytes(product.b_elements, precision.weights)
            nbytes += precision.scale_bytes(product.b_elements, product.k)
            tensor = tensor or layer.id
            continue
        for weight in op.weights(layer, shapes, tuple(int(d) for d in layer.shape)):
            elements += weight.elements
            nbytes += _stored(layer, weight, precision)
            tensor = tensor or str(layer.attrs.get("tied", layer.id))
    return Operand(f"{tensor}.weights", elements, nbytes, precision.weights) if elements else None


def weight_bytes(net: Network, table: dict[str, Precision] | None) -> int:
    """Bytes of all constants in the assigned formats, look-up tables included, shared ones once."""
    total = 0
    for layer in net.layers:
        found = net.weights[layer.id]
        if found:
            precision = precision_of(layer, table)
            total += sum(_stored(layer, weight, precision) for weight in found)
    return total


def _stored(layer: Layer, weight: Weight, precision: Precision) -> int:
    """Bytes of one constant: biases of integer layers are 32 bits wide; narrow weights bring their scales.

    Vectors (biases, scales and shifts of normalisations) stay as wide as activations where only weights are quantised, and as
    results where formats are block-scaled.
    """
    fmt = precision.weights
    if (precision.weight_only or precision.block) and len(weight.shape) < 2:
        return storage_bytes(weight.elements, precision.output if precision.block else precision.activations)
    if weight.role == "bias" and fmt in ("int8", "uint8", "int4"):
        fmt = "int32"
    depth = math.prod(weight.shape[1:]) if layer.op.startswith("conv") else weight.shape[-1] if weight.shape else 1
    return storage_bytes(weight.elements, fmt) + precision.scale_bytes(weight.elements, depth)


def cache_bytes(net: Network, table: dict[str, Precision] | None) -> int:
    """Bytes of keys and values that outlive the run."""
    return sum(
        storage_bytes(kv_cache_elements(la, net.input_shapes(la)), precision_of(la, table).cache)
        for la in net.layers
        if la.op == "attention"
    )


def peak_bytes(
    made: list[list[str]],
    read: list[list[str]],
    size: dict[str, int],
    kept: set[str],
    inputs: list[str],
    results: set[str],
) -> int:
    """Largest sum of off-chip tensors alive while a kernel runs."""
    last: dict[str, int] = {}
    for k, names in enumerate(read):
        for name in names:
            last[name] = k
    for name in results:
        last[name] = len(made)
    live = sum(size[n] for n in inputs)
    peak = live
    ending: dict[int, list[str]] = {}
    for name, k in last.items():
        if name not in kept:
            ending.setdefault(k, []).append(name)
    for k, names in enumerate(made):
        fresh = [n for n in names if n not in kept]
        live += sum(size[n] for n in fresh)
        peak = max(peak, live)
        live -= sum(size[n] for n in ending.get(k, ()))
        live -= sum(size[n] for n in fresh if n not in last)
    return peak
