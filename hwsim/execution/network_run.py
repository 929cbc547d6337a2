"""A network of layers (a trace, or a graph built in Python) run with values, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.execution.operators import OPERATORS, activation
from hwsim.execution.operators_contract import Step
from hwsim.execution.products import Arithmetic, bounded
from hwsim.execution.weights import RandomWeights
from hwsim.formats import get_format
from hwsim.network.graph import Layer, Network

Array = npt.NDArray[Any]
MAX_MACS = 10**12
Pick = Callable[[Layer], Arithmetic]
Watch = Callable[[str, str, Array], None]


def run_network(
    net: Network,
    weights: Mapping[str, Mapping[str, Array]],
    inputs: Mapping[str, Array],
    pick: Pick,
    watch: Watch | None = None,
) -> dict[str, Array]:
    """Outputs of a bound network by name; ``pick`` gives each layer's arithmetic, ``watch`` sees (id, name, value).

    Tensors are dropped when nobody needs them any more. Raises HwsimError naming the layer for operators whose meaning the
    network does not state, integer layers without scales, and sizes beyond memory or reason.
    """
    net = net if net.is_bound else net.bind()
    if net.macs > MAX_MACS:
        raise HwsimError(
            f"network {net.name}: {net.macs:.3g} multiply-accumulates are too many to execute (limit 1e12)"
        )
    values = _bind(net, inputs, pick(net.layers[0]))
    left = {name: len(users) for name, users in net.consumers.items()}
    for name in net.output_names:
        left[name] = left.get(name, 0) + 1
    for layer in net.layers:
        where = f"network {net.name}, layer {layer.id} ({layer.name or layer.op})"
        made = _layer(net, layer, values, weights, pick(layer), where)
        if watch is not None:
            watch(layer.id, layer.name or layer.op, made)
        values[layer.id] = made
        for src in layer.src:
            left[src] -= 1
            if not left[src]:
                del values[src]
        if not left.get(layer.id):
            del values[layer.id]
    return {name: values[name] for name in net.output_names}


def _layer(
    net: Network,
    layer: Layer,
    values: Mapping[str, Array],
    weights: Mapping[str, Mapping[str, Array]],
    arithmetic: Arithmetic,
    where: str,
) -> Array:
    handler = OPERATORS.get(layer.op)
    if handler is None:
        raise HwsimError(f"{where}: {layer.op} cannot be executed: a trace does not state what it computes")
    if net.products.get(layer.id) and get_format(layer.dtype).kind in ("int", "uint"):
        raise HwsimError(f"{where}: an integer layer of a trace has no scales; execute a .tflite or QDQ .onnx file")
    shape = tuple(int(d) for d in layer.shape)
    extra = layer.fused.count("add")
    xs = tuple(values[s] for s in layer.src)
    operands, residuals = (xs[: len(xs) - extra], list(xs[len(xs) - extra :])) if extra else (xs, [])
    try:
        bounded(shape)
        given = weights.get(layer.id, {}) if not isinstance(weights, RandomWeights) else weights[layer.id]
        _check(net, layer, given)

        def past(name: str, size: tuple[int, ...]) -> Array:
            bounded(size)
            if name in given:
                return given[name]
            if isinstance(weights, RandomWeights):
                return weights.generator(layer.id, name).standard_normal(size, np.float32)
            raise HwsimError(f"the past {name}s are missing: give weights {name!r} of {size}")

        step = Step(layer, shape, operands, given, arithmetic, past)
        with np.errstate(all="ignore"):
            made = np.asarray(handler(step))
            axis = made.ndim - 1 if layer.attrs.get("nhwc") or made.ndim < 3 else 1
            for name in layer.fused:
                made = made + residuals.pop(0) if name == "add" else activation(name, made, given, axis)
            made = arithmetic.cast(made)
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError) as error:
        raise HwsimError(f"{where}: {layer.op} cannot be executed on {[x.shape for x in xs]} ({error})") from None
    if made.shape != shape:
        raise HwsimError(f"{where}: gives {made.shape} where the network states {shape}")
    return made


def _check(net: Network, layer: Layer, given: Mapping[str, Array]) -> None:
    """Weights must have the shapes the operator table says."""
    for weight in net.weights.get(layer.id, ()):
        array = given.get(weight.name)
        if array is not None and math.prod(array.shape) != weight.elements:
            raise HwsimError(f"weight {weight.name!r} is {array.shape}, expected {weight.shape}")


def _bind(net: Network, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for name in inputs:
        if name not in {t.name for t in net.inputs}:
            raise HwsimError(f"network {net.name} has no input {name!r}{near(name, [t.name for t in net.inputs])}")
    for tensor in net.inputs:
        if tensor.name not in inputs:
            raise HwsimError(f"network {net.name}: input {tensor.name!r} is missing")
        value = np.asarray(inputs[tensor.name])
        shape = tuple(int(d) for d in tensor.shape)
        if value.shape != shape:
            raise HwsimError(f"network {net.name}: input {tensor.name!r} is {value.shape}, expected {shape}")
        if value.dtype.kind not in "fiub":
            raise HwsimError(f"network {net.name}: input {tensor.name!r} holds {value.dtype}, expected numbers")
        whole = get_format(tensor.dtype).kind != "float"
        values[tensor.name] = value if whole else arithmetic.cast(value.astype(arithmetic.dtype))
    return values
