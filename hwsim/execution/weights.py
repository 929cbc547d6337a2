"""Weights for traces: seeded random numbers at the scale trained networks start from, made layer by layer on demand."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.execution.products import bounded
from hwsim.formats import get_format
from hwsim.network.graph import Layer, Network
from hwsim.network.opdefs import Weight
from hwsim.network.ops_contract import integer

Array = npt.NDArray[Any]
INTEGER = ("int", "uint")


class RandomWeights(Mapping[str, Mapping[str, Array]]):
    """Layer id → name → array, drawn when read, so that a network larger than memory still runs layer by layer.

    Matrices are normal with variance 2 / fan-in before a rectifier and 1 / fan-in elsewhere (He 2015, LeCun 1998); batch-
    norm and normalisation scales uniform in [0.9, 1.1], shifts and biases normal at 0.05; tables normal at 1. Integer
    constants count 0, 1, 2 … (positions). A number depends on the seed, the layer's id and the weight's name only.
    """

    def __init__(self, net: Network, seed: int = 0) -> None:
        self.net, self.seed = net, seed
        self._shapes = net.weights

    def __getitem__(self, ident: str) -> Mapping[str, Array]:
        layer = self.net.by_id[ident]
        tied = layer.attrs.get("tied")
        if isinstance(tied, str) and tied in self.net.by_id and tied != ident:
            return self._tied(layer, self[tied])
        out = {w.name: self._draw(layer, w) for w in self._shapes.get(ident, ())}
        if "bn" in layer.fused:
            channels = layer.shape[-1] if layer.attrs.get("nhwc") or len(layer.shape) < 3 else layer.shape[1]
            for name in ("bn_scale", "bn_shift"):
                out[name] = self._draw(layer, Weight(name, (int(channels),)))
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self.net.by_id)

    def __len__(self) -> int:
        return len(self.net.by_id)

    def generator(self, ident: str, name: str) -> np.random.Generator:
        """The stream of one tensor."""
        return np.random.default_rng([self.seed & 0xFFFFFFFF, zlib.crc32(f"{ident}/{name}".encode())])

    def _draw(self, layer: Layer, weight: Weight) -> Array:
        bounded(weight.shape)
        rng, shape = self.generator(layer.id, weight.name), weight.shape
        if weight.name in ("constant", "const") and get_format(layer.dtype).kind in INTEGER:
            return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        draw = rng.standard_normal(shape, np.float32)
        if weight.role == "bias" or "shift" in weight.name or weight.name.startswith("bias"):
            return np.asarray(draw * np.float32(0.05))
        if "scale" in weight.name:
            return np.asarray(1 + np.float32(0.1) * rng.uniform(-1, 1, shape), np.float32)
        if weight.name == "slope":
            return np.asarray(np.abs(draw) * np.float32(0.25))
        if weight.role == "table" or weight.name in ("constant", "const"):
            return draw
        fan_in = math.prod(shape[1:]) if layer.op != "expert_linear" else shape[-1]
        gain = 2.0 if {"relu", "relu6", "hswish", "silu"} & set(layer.fused) else 1.0
        return np.asarray(draw * np.float32(math.sqrt(gain / max(1, fan_in))))

    def _tied(self, layer: Layer, other: Mapping[str, Array]) -> Mapping[str, Array]:
        wanted = self.net.by_id[layer.id]
        source = next(iter(other.values()))
        name = {"embedding": "table"}.get(wanted.op, "weight")
        out = {name: source}
        if wanted.attrs.get("bias"):
            out["bias"] = self._draw(layer, Weight("bias", (int(wanted.shape[-1]),), "bias"))
        return out


def random_weights(net: Network, seed: int = 0) -> RandomWeights:
    """Seeded random weights of a bound network; see `RandomWeights`."""
    return RandomWeights(net if net.is_bound else net.bind(), seed)


def random_inputs(net: Network, seed: int = 0) -> dict[str, Array]:
    """Seeded inputs of a bound network: floats standard normal, masks true, indices below the smallest table they meet."""
    out: dict[str, Array] = {}
    for tensor in net.inputs:
        shape = tuple(int(d) for d in tensor.shape)
        bounded(shape)
        rng = np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(tensor.name.encode())])
        kind = get_format(tensor.dtype).kind
        if tensor.dtype == "bool":
            out[tensor.name] = np.ones(shape, bool)
        elif kind in INTEGER:
            rows = [integer(net.by_id[i].attrs, "rows", 2) for i in net.consumers[tensor.name]]
            out[tensor.name] = rng.integers(0, max(1, min(rows, default=2)), shape, dtype=np.int64)
        else:
            out[tensor.name] = rng.standard_normal(shape, np.float32)
    return out
