"""Fusion on a GPU: which layers run as one kernel under a compiling stack, and under a framework that compiles nothing.

``compiled`` (TensorRT, Myelin, XLA class), in file order of the layers:

* a view is free, and so is a constant; a transpose next to a matrix product, a slice, a padding before a convolution are
  addressing;
* a concatenation is free where each part comes from a kernel that may write into the joint tensor (a part has one home:
  the first concatenation that takes it); other parts are copied, and so are results of products that others read too;
* element-wise layers (look-ups and rolls among them) join the latest kernel that makes one of their inputs if nobody else reads
  that tensor and all other inputs exist before it starts; they join a product or a reduction only where the result is
  not larger;
* a reduction absorbs element-wise kernels that only it reads, attention the rotations of its queries and keys.

``eager``: a kernel per layer; only views, and transposes a strided product reads, are free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hwsim.network.graph import Layer, Network
from hwsim.network.ops import OPS
from hwsim.plan.fusion import ADDRESSING, POINTWISE, only_readdresses

# They read elsewhere than they write: element-wise to a compiler, but no tile of a product can end in them.
GATHERS = frozenset({"embedding", "roll"})


# Activations of more than a comparison. TensorRT's convolutions add before an activation, not after one: these and a sum behind
# them are a kernel ("PWN(PWN(PWN(Sigmoid), Mul), Add)" after a bare "Conv" on Orin, ultralytics/ultralytics issue 17640).
APART = frozenset({"silu", "swish", "sigmoid", "hswish", "hsigmoid", "mish", "tanh", "elu", "selu", "softplus"})


def activates_before_sum(layer: Layer, net: Network) -> bool:
    """Whether ``layer`` is an activation whose only reader adds something to it."""
    readers = net.consumers[layer.id]
    return layer.op in APART and len(readers) == 1 and net.by_id[next(iter(readers))].op == "add"


def sums_after_activation(net: Network) -> set[str]:
    """Convolutions that a trace ends with such an activation."""
    found = set()
    for layer in net.layers:
        if layer.op != "conv" or not APART & set(layer.fused):
            continue
        readers = net.consumers[layer.id]
        inside = "add" in layer.fused and layer.fused.index("add") > min(
            map(layer.fused.index, APART & set(layer.fused))
        )
        behind = layer.fused[-1] in APART and len(readers) == 1 and net.by_id[next(iter(readers))].op == "add"
        found |= {layer.id} if inside or behind else set()
    return found


@dataclass(slots=True)
class GpuGroup:
    """Layers of one kernel under construction: ``tensor`` is the result later layers may join on, ``reads`` its inputs.

    ``copies`` are parts of a concatenation this kernel moves because no kernel could write them in place.
    """

    index: int
    kind: str
    layers: list[Layer]
    tensor: str
    reads: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Kernels in execution order; ``parts`` maps every tensor to the stored tensors its data lies in."""

    groups: list[GpuGroup]
    parts: dict[str, tuple[str, ...]]
    constants: frozenset[str]


def group_gpu(net: Network, fuse: bool = True, epilogues: bool = True, packs: bool = True) -> Grouping:
    """Return the kernels of a bound network under a compiling stack (``fuse``) or a framework (not).

    ``epilogues``: whether element-wise layers may end a product's kernel. ``packs``: whether a convolution's result that
    others read too is copied into a concatenation.
    """
    return _Grouper(net, fuse, epilogues, packs).run()


class _Grouper:
    def __init__(self, net: Network, fuse: bool, epilogues: bool, packs: bool) -> None:
        self.net, self.fuse, self.epilogues, self.packs = net, fuse, epilogues, packs
        self.parts: dict[str, tuple[str, ...]] = {t.name: (t.name,) for t in net.inputs}
        self.made_by: dict[str, GpuGroup] = {}
        self.groups: list[GpuGroup] = []
        self.constants: set[str] = set()
        self.housed: set[str] = set()  # stored tensors that already live inside a joint tensor
        self.results: set[str] = set(net.output_names)
        self.alias = {la.id: self._is_alias(la) for la in net.layers}
        self.readers_of: dict[str, frozenset[str]] = {}

    def run(self) -> Grouping:
        for layer in self.net.layers:
            if layer.op == "constant":
                self.parts[layer.id] = (layer.id,)
                self.constants.add(layer.id)
            elif layer.src and self.alias[layer.id]:
                self.parts[layer.id] = self.parts[layer.src[0]]
                if layer.id in self.results:
                    self.results.update(self.parts[layer.id])
            elif layer.op == "concat" and self.fuse:
                self._concat(layer)
            else:
                self._place(layer)
        return Grouping(self.groups, self.parts, frozenset(self.constants))

    def _is_alias(self, layer: Layer) -> bool:
        if OPS[layer.op].kind == "view":
            return True
        if self.fuse:
            return only_readdresses(layer, self.net)
        if layer.op in ADDRESSING:
            return True
        return layer.op == "transpose" and only_readdresses(layer, self.net)

    def readers(self, name: str) -> frozenset[str]:
        """Layers reading ``name``, looking through views and joint tensors."""
        found = self.readers_of.get(name)
        if found is None:
            seen: set[str] = set()
            stack = [name]
            while stack:
                for reader in self.net.consumers[stack.pop()]:
                    if self.alias[reader]:
                        stack.append(reader)
                    else:
                        seen.add(reader)
            found = self.readers_of[name] = frozenset(seen)
        return found

    def elements(self, name: str) -> int:
        return math.prod(int(d) for d in self.net.tensors[name].shape)

    def _sources(self, layer: Layer) -> list[str]:
        return list(dict.fromkeys(part for s in layer.src for part in self.parts[s]))

    def _concat(self, layer: Layer) -> None:
        """A joint tensor: parts whose makers write into it are its storage, the others are copied by one kernel."""
        kept: list[str] = []
        copied: list[str] = []
        for src in layer.src:
            stored = self.parts[src]
            fits = all(p in self.made_by and p not in self.housed and self._whole(src, p) for p in stored)
            # A convolution whose result others read too writes it packed, and it is copied into the joint tensor: engines
            # show such copies one by one (per-layer profiles of YOLOv8 on AGX Orin and others, TensorRT 8.5 and 10).
            product = any(p in self.made_by and self.made_by[p].kind == "matmul" for p in stored)
            shared = self.packs and product and len(self.readers(src)) > 1
            if (fits and not shared) or (len(stored) > 1 and all(p in self.made_by for p in stored)):
                kept += stored
            else:
                copied += stored
        if copied:
            size = layer.id
            group = GpuGroup(len(self.groups), "move", [layer], size, list(dict.fromkeys(copied)), copied)
            self.groups.append(group)
            self.made_by[size] = group
            kept.append(size)
        elif layer.attrs.get("constant"):
            kept.append(layer.id)
            self.constants.add(layer.id)
        self.housed.update(kept)
        self.parts[layer.id] = tuple(dict.fromkeys(kept))
        if layer.id in self.results:
            self.results.update(kept)

    def _whole(self, src: str, part: str) -> bool:
        """Whether a part is all of the tensor it lies in (a slice of something else cannot be housed)."""
        return self.elements(src) >= self.elements(part)

    def _place(self, layer: Layer) -> None:
        op = OPS[layer.op]
        sources = self._sources(layer)
        pointwise = op.kind == "elementwise" or layer.op in POINTWISE or layer.op in GATHERS
        host = self._host(layer, sources, pointwise) if self.fuse else None
        if host is None:
            kind = {"contract": "matmul", "elementwise": "pointwise"}.get(op.kind, op.kind)
            if pointwise:
                kind = "pointwise"
            if layer.op == "attention":
                kind = "attention"
            host = GpuGroup(len(self.groups), kind, [layer], layer.id, sources)
            self.groups.append(host)
            if kind == "attention" and self.fuse:
                self._absorb(host)
        else:
            host.layers.append(layer)
            host.reads += [s for s in sources if s != host.tensor and s not in host.reads]
            if not pointwise:
                host.kind = "reduce"
            host.tensor = layer.id
        self.parts[layer.id] = (layer.id,)
        self.made_by[layer.id] = host

    def _host(self, layer: Layer, sources: list[str], pointwise: bool) -> GpuGroup | None:
        kind = OPS[layer.op].kind
        if not pointwise and kind != "reduce":
            return None
        candidates = [g for s in sources if (g := self.made_by.get(s)) is not None]
        for group in sorted(candidates, key=lambda g: -g.index):
            joined = group.tensor
            if joined in self.housed or joined in self.results or joined not in sources:
                continue
            if self.readers(joined) != {layer.id} or group.kind in ("move", "host", "collective"):
                continue
            if not pointwise and group.kind != "pointwise":
                continue
            if group.kind == "matmul" and not self.epilogues:
                continue
            if group.kind != "pointwise" and self.elements(layer.id) > self.elements(joined):
                continue
            if group.kind == "matmul" and activates_before_sum(layer, self.net):
                continue
            if layer.op in GATHERS and group.kind in ("matmul", "attention"):
                continue
            others = [s for s in sources if s != joined]
            if any((g := self.made_by.get(s)) is not None and g.index > group.index for s in others):
                continue
            return group
        return None

    def _absorb(self, attention: GpuGroup) -> None:
        """Rotations and scalings of queries and keys that only this attention reads run inside it."""
        layer = attention.layers[0]
        for name in list(attention.reads):
            group = self.made_by.get(name)
            if group is None or group is not self.groups[group.index] or group.kind != "pointwise":
                continue
            if group.tensor != name or self.readers(name) != {layer.id} or name in self.results:
                continue
            at = attention.reads.index(name)
            attention.reads[at : at + 1] = [r for r in group.reads if r not in attention.reads]
            attention.layers = [*group.layers, *attention.layers]
            for inside in group.layers:
                self.made_by[inside.id] = attention
            self._remove(group)

    def _remove(self, group: GpuGroup) -> None:
        self.groups.remove(group)
        for i, other in enumerate(self.groups):
            other.index = i
