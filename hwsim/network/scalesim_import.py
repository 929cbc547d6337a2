"""SCALE-Sim topology files as networks: a list of layers, each with an input of its own (the format has no graph)."""

from __future__ import annotations

import os
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.network.graph import AttrValue, Layer, Network, Tensor
from hwsim.network.scalesim_topology import Topology, TopologyLayer, read_topology

MAX_LAYERS = 100_000
WORD = "int8"  # SCALE-Sim's words are one byte


def from_scalesim(path: str | os.PathLike[str]) -> Network:
    """Return the network of a SCALE-Sim convolution or GEMM topology file.

    Every layer reads a network input of its own and is an output; the batch is the file's (1 unless a column says
    otherwise). Raises HwsimError for what `read_topology` refuses and for template files whose letters have no value.
    """
    return network_of(read_topology(Path(path)), Path(path).name)


def network_of(topology: Topology, source: str) -> Network:
    """Return the layers of a parsed topology as a network; ``source`` names the file in errors."""
    if topology.unresolved:
        letters = ", ".join(topology.unresolved)
        raise HwsimError(f"{source}: a template; its letters {letters} have no value, write numbers in their place")
    if len(topology.layers) > MAX_LAYERS:
        raise HwsimError(f"{source}: {len(topology.layers)} layers; at most {MAX_LAYERS} are read")
    inputs: list[Tensor] = []
    layers: list[Layer] = []
    for number, row in enumerate(topology.layers, 1):
        feed, layer = _layer(row, str(number))
        inputs.append(feed)
        layers.append(layer)
    meta = {"source": f"SCALE-Sim {topology.kind} topology {source}"}
    if topology.notes:
        meta["notes"] = "; ".join(topology.notes)[:2000]
    return Network(topology.name, tuple(inputs), tuple(layers), tuple(la.id for la in layers), {}, meta).validate()


def _layer(row: TopologyLayer, ident: str) -> tuple[Tensor, Layer]:
    feed = f"x{ident}"
    sparsity = f"{row.sparsity[0]}:{row.sparsity[1]}" if row.sparsity else ""
    if row.kind == "gemm":
        layer = Layer(ident, row.name, "linear", (feed,), (row.m, row.n), {"k": row.k}, dtype=WORD, sparsity=sparsity)
        return Tensor(feed, (row.m, row.k), WORD), layer
    attrs: dict[str, AttrValue] = {"k": (row.filter_h, row.filter_w)}
    if (row.stride_h, row.stride_w) != (1, 1):
        attrs["s"] = (row.stride_h, row.stride_w)
    # SCALE-Sim rounds the number of windows up, so the last one may hang over the end of the input.
    over_h = (row.ofmap_h - 1) * row.stride_h + row.filter_h - row.ifmap_h
    over_w = (row.ofmap_w - 1) * row.stride_w + row.filter_w - row.ifmap_w
    if over_h or over_w:
        attrs["p"] = (0, 0, over_h, over_w)
    features = row.num_filters
    if row.depthwise and row.channels > 1:  # split there into one convolution per channel
        attrs["g"] = row.channels
        features *= row.channels
    shape = (row.batch, features, row.ofmap_h, row.ofmap_w)
    layer = Layer(ident, row.name, "conv", (feed,), shape, attrs, dtype=WORD, sparsity=sparsity)
    return Tensor(feed, (row.batch, row.channels, row.ifmap_h, row.ifmap_w), WORD), layer
