"""Fusion: which layers run as one kernel, as an XLA-like compiler groups them.

Rules, in file order of the layers (each is the closest single-kernel form the compiler has; what is not here is not fused):

* a view is free: its tensor is its source's;
* element-wise layers join the latest kernel that produces one of their inputs, if nobody else reads that tensor and
  every other input exists before that kernel starts (a residual addition joins the later branch); one whose result is
  larger (a gate multiplied into a feature map) does not join a product or a reduction, whose tiles are of their own result;
* a reduction (normalisation, softmax, pooling) absorbs element-wise kernels that only it reads, and later element-wise
  layers join it; it never joins a matrix product, whose tiles do not hold whole rows;
* a transpose next to a matrix product, a slice, and a padding before a convolution are addressing, not work;
* look-ups, concatenations, resampling and other data movement are kernels of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwsim.network.graph import Layer, Network
from hwsim.network.ops import OPS

# Reductions over nothing but their own element, or a neighbour: they fuse like element-wise layers.
POINTWISE = frozenset({"batch_norm", "rope"})
ADDRESSING = frozenset({"slice", "expand"})


@dataclass(slots=True)
class Group:
    """Layers of one kernel under construction; ``tensor`` is the result later layers may join on."""

    index: int
    kind: str
    layers: list[Layer]
    tensor: str
    reads: list[str] = field(default_factory=list)


def group_layers(net: Network) -> tuple[list[Group], dict[str, str]]:
    """Return the kernels of a bound network in execution order, and for every tensor the one that stores its data.

    The second value maps views (and addressing-only layers) to the tensor they alias; others map to themselves.
    """
    consumers = net.consumers
    root: dict[str, str] = {t.name: t.name for t in net.inputs}
    made_by: dict[str, Group] = {}
    groups: list[Group] = []
    results = set(net.output_names)

    readers_of: dict[str, set[str]] = {}

    def readers(name: str) -> set[str]:
        """Layers reading ``name``, looking through views."""
        found = readers_of.get(name)
        if found is None:
            found = readers_of[name] = set()
            stack = [name]
            while stack:
                for reader in consumers[stack.pop()]:
                    if is_alias(net.by_id[reader]):
                        stack.append(reader)
                    else:
                        found.add(reader)
        return found

    alias_cache: dict[str, bool] = {}

    def is_alias(layer: Layer) -> bool:
        hit = alias_cache.get(layer.id)
        if hit is None:
            hit = alias_cache[layer.id] = only_readdresses(layer, net)
        return hit

    def elements(name: str) -> int:
        return math.prod(int(d) for d in net.tensors[name].shape)

    def only_reader(name: str, layer: Layer) -> bool:
        return name not in results and readers(name) == {layer.id}

    for layer in net.layers:
        op = OPS[layer.op]
        if layer.src and is_alias(layer):
            root[layer.id] = root[layer.src[0]]
            if layer.id in results:
                results.add(root[layer.id])
            continue
        sources = list(dict.fromkeys(root[s] for s in layer.src))
        host: Group | None = None
        pointwise = op.kind == "elementwise" or layer.op in POINTWISE
        if pointwise or op.kind == "reduce":
            candidates = [g for s in sources if (g := made_by.get(s)) is not None]
            for group in sorted(candidates, key=lambda g: -g.index):
                joined = group.tensor
                if not only_reader(joined, layer) or group.kind in ("move", "host"):
                    continue
                if not pointwise and group.kind != "elementwise":
                    continue
                if group.kind != "elementwise" and elements(layer.id) > elements(joined):
                    continue
                others = [s for s in sources if s != joined]
                if any((g := made_by.get(s)) is not None and g.index > group.index for s in others):
                    continue
                host = group
                break
        if host is not None:
            host.layers.append(layer)
            host.reads += [s for s in sources if s != host.tensor and s not in host.reads]
            if not pointwise:
                host.kind = "reduce"
            host.tensor = layer.id
        else:
            kind = {"contract": "matmul"}.get(op.kind, op.kind)
            if layer.op in POINTWISE:
                kind = "elementwise"
            if layer.op == "attention":
                kind = "attention"
            host = Group(len(groups), kind, [layer], layer.id, sources)
            groups.append(host)
        root[layer.id] = layer.id
        made_by[layer.id] = host
    return groups, root


def only_readdresses(layer: Layer, net: Network) -> bool:
    """Whether a layer only re-addresses the data of its first source."""
    kind = OPS[layer.op].kind
    if kind == "view" or layer.op in ADDRESSING:
        return True
    if layer.op == "transpose":
        return _next_to_product(layer, net)
    if layer.op == "pad":
        readers = net.consumers[layer.id]
        return bool(readers) and all(net.by_id[r].op == "conv" for r in readers)
    return False


def _next_to_product(layer: Layer, net: Network) -> bool:
    """Whether a transpose's data comes from, or goes only to, matrix products (through views): a layout they choose."""
    name = layer.src[0]
    while name in net.by_id and OPS[net.by_id[name].op].kind == "view":
        name = net.by_id[name].src[0]
    if name in net.by_id and OPS[net.by_id[name].op].kind == "contract":
        return True
    stack, seen = list(net.consumers[layer.id]), set[str]()
    while stack:
        reader = net.by_id[stack.pop()]
        kind = OPS[reader.op].kind
        if kind == "view" or reader.op in POINTWISE:
            stack += [r for r in net.consumers[reader.id] if r not in seen]
        elif kind != "contract":
            return False
        seen.add(reader.id)
    return bool(seen)
