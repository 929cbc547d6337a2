"""What a GPU inference library does to a network before it forms kernels, as network to network rewrites.

``compiled`` stacks (TensorRT, Myelin, XLA, FasterTransformer class) compute constant parts ahead of time, multiply layers
that read the same tensor together, and recognise attention written out as products around a softmax. ``eager``
frameworks run what is written: even the activations a trace folds into a layer are layers of their own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hwsim.network.dims import Shape
from hwsim.network.graph import Layer, Network
from hwsim.network.ops import OPS
from hwsim.plan.gpu_fusion import sums_after_activation

# Element-wise steps that may stand between a score product and its softmax.
_SCORE_STEPS = frozenset({"add", "mul", "div", "where", "sub", "maximum", "minimum"})
MAX_HEAD = 256  # depth of a head fused attention kernels take


def compile_rewrites(net: Network, epilogues: bool = True) -> Network:
    """Return ``net`` as a compiler sees it: constants folded, sibling products merged, attention recognised.

    Without ``epilogues`` products end with their results: activations a trace folds into them are layers of their own.
    """
    net = merge_siblings(recognise_attention(fold_constants(net)))
    apart = sums_after_activation(net)
    net = expand_fused(net, folded=True, only=apart) if apart else net
    return net if epilogues else expand_fused(net, folded=True)


def fold_constants(net: Network) -> Network:
    """Replace every layer that depends on constants only by a constant of its result."""
    fixed: set[str] = set()
    layers: list[Layer] = []
    for layer in net.layers:
        known = layer.op == "constant" or (layer.src and all(s in fixed for s in layer.src))
        if not known or OPS[layer.op].kind == "host":
            layers.append(layer)
            continue
        fixed.add(layer.id)
        if layer.op == "constant":
            layers.append(layer)
        else:
            layers.append(replace(layer, op="constant", src=(), attrs={}, fused=()))
    return _with_layers(net, layers)


def expand_fused(net: Network, folded: bool = False, only: Collection[str] | None = None) -> Network:
    """Make every activation and residual a trace has folded into a layer a layer of its own (what a framework runs).

    ``folded``: scales and shifts (batch norms) stay in the weights of the products before them. ``only`` names the layers
    to open, by id; None means all.
    """
    layers: list[Layer] = []
    last: dict[str, str] = {}  # what a layer's readers now read
    for layer in net.layers:
        src = tuple(last.get(s, s) for s in layer.src)
        if not layer.fused or (only is not None and layer.id not in only):
            layers.append(replace(layer, src=src))
            continue
        own = len(src) - layer.fused.count("add")
        residual = list(src[own:])
        kept = ("bn",) if folded and layer.fused[0] == "bn" and OPS[layer.op].kind == "contract" else ()
        layers.append(replace(layer, src=src[:own], fused=kept))
        at = layer.id
        for i, name in enumerate(layer.fused[len(kept) :]):
            new = f"{layer.id}.{i}.{name}"
            inputs = (at, residual.pop(0)) if name == "add" else (at,)
            op, attrs = ("batch_norm", {"width": _channels(layer)}) if name == "bn" else (_OWN_OP.get(name, name), {})
            if op not in OPS:
                op = "clip"
            layers.append(
                Layer(new, f"{layer.name}.{name}", op, inputs, layer.shape, attrs, (), layer.dtype, layer.weight_dtype)
            )
            at = new
        last[layer.id] = at
    outputs = tuple(last.get(n, n) for n in net.output_names)
    return replace(_with_layers(net, layers), outputs=outputs)


_OWN_OP = {"swish": "silu", "tanh_half": "tanh"}


def _channels(layer: Layer) -> int:
    shape = layer.shape
    size = shape[-1] if layer.attrs.get("nhwc") or len(shape) < 3 else shape[1]
    return int(size)


def merge_siblings(net: Network) -> Network:
    """Multiply linear layers that read the same tensor, alike in everything but their weights, as one wide product.

    The parts are read in place by those that read the layers (query, key and value projections).
    """
    root = _view_roots(net)
    families: dict[tuple[object, ...], list[Layer]] = {}
    for layer in net.layers:
        if layer.op == "linear" and "tied" not in layer.attrs and not layer.fused:
            key = (root[layer.src[0]], layer.shape[:-1], bool(layer.attrs.get("bias")), layer.dtype, layer.weight_dtype,
                   layer.sparsity)  # fmt: skip
            families.setdefault(key, []).append(layer)
    merged: dict[str, Layer] = {}  # by the first member's id
    replaced: dict[str, Layer] = {}
    for members in families.values():
        if len(members) < 2:
            continue
        first = members[0]
        width = sum(int(m.shape[-1]) for m in members)
        whole = f"{first.id}.merged"
        name = "|".join([first.name, *(m.name.rsplit(".", 1)[-1] for m in members[1:])])
        merged[first.id] = replace(first, id=whole, name=name, shape=(*first.shape[:-1], width))
        start = 0
        for member in members:
            replaced[member.id] = Layer(
                member.id, member.name, "split", (whole,), member.shape, {"axis": len(member.shape) - 1, "start": start},
                (), member.dtype,
            )  # fmt: skip
            start += int(member.shape[-1])
    if not merged:
        return net
    layers: list[Layer] = []
    for layer in net.layers:
        if layer.id in merged:
            layers.append(merged[layer.id])
        layers.append(replaced.get(layer.id, layer))
    return _with_layers(net, layers)


def recognise_attention(net: Network) -> Network:
    """Replace product, element-wise steps, softmax, product by one attention layer where a fused kernel takes it.

    Scores may be scaled, biased and masked on their way; nobody else may read what lies between the two products.
    """
    by_id, consumers = net.by_id, net.consumers
    results = set(net.output_names)
    gone: set[str] = set()
    made: dict[str, list[Layer]] = {}
    for layer in net.layers:
        if layer.op != "softmax" or layer.id in results:
            continue
        found = _around(layer, by_id, consumers, results)
        if found is None:
            continue
        scores, steps, values = found
        q, k, v = scores.src[0], scores.src[1], values.src[1]
        rank = len(scores.shape)
        heads = tuple(int(d) for d in scores.shape[:-2])
        depth, width = int(net.tensors[q].shape[-1]), int(values.shape[-1])
        keys = int(scores.shape[-1])
        if rank < 3 or not len(net.tensors[q].shape) == len(net.tensors[k].shape) == len(net.tensors[v].shape) == rank:
            continue
        if max(depth, width) > MAX_HEAD or _heads(net, k) != heads or _heads(net, v) != heads:
            continue
        # Views may transpose here: they cost nothing, and attention reads keys and values by rows.
        extra: list[Layer] = []
        kname, vname = f"{scores.id}.k", f"{values.id}.v"
        extra.append(Layer(kname, scores.name, "reshape", (k,), (*heads, keys, depth), {}, (), scores.dtype))
        extra.append(Layer(vname, values.name, "reshape", (v,), (*heads, keys, width), {}, (), values.dtype))
        between = {s.id for s in steps} | {scores.id}
        biases = [s for step in steps for s in step.src if s not in between]
        known = {**by_id}
        mask = next((b for b in biases if math.prod(_ints(net, b)) > 1), None)
        src = (q, kname, vname, mask) if mask is not None else (q, kname, vname)
        attention = Layer(values.id, values.name, "attention", src, values.shape, {}, values.fused, values.dtype)
        if any(b in gone for b in biases) or any(s not in known and s not in _names(net) for s in src[:1]):
            continue
        gone |= between | {layer.id}
        made[values.id] = [*extra, attention]
    if not made:
        return net
    layers = []
    for layer in net.layers:
        if layer.id in made:
            layers += made[layer.id]
        elif layer.id not in gone:
            layers.append(layer)
    return _with_layers(net, layers)


def _names(net: Network) -> set[str]:
    return {t.name for t in net.inputs}


def _ints(net: Network, name: str) -> tuple[int, ...]:
    return tuple(int(d) for d in net.tensors[name].shape)


def _heads(net: Network, name: str) -> tuple[int, ...]:
    return _ints(net, name)[:-2]


def _around(
    softmax: Layer, by_id: Mapping[str, Layer], consumers: Mapping[str, list[str]], results: set[str]
) -> tuple[Layer, list[Layer], Layer] | None:
    """The product whose scores ``softmax`` takes, the steps between, and the product that reads its result."""
    if softmax.attrs.get("axis", -1) not in (-1, len(softmax.shape) - 1) or softmax.fused:
        return None
    readers = consumers[softmax.id]
    if len(readers) != 1:
        return None
    values = by_id[readers[0]]
    if values.op != "matmul" or values.src[0] != softmax.id or values.shape[:-1] != softmax.shape[:-1]:
        return None
    steps: list[Layer] = []
    at = softmax
    for _ in range(8):
        above = [by_id[s] for s in at.src if s in by_id and by_id[s].shape == softmax.shape and s not in results]
        main = next((la for la in above if len(consumers[la.id]) == 1 and (la.op == "matmul" or _step(la))), None)
        if main is None:
            return None
        if main.op == "matmul":
            return (main, steps, values) if not main.fused else None
        steps.append(main)
        at = main
    return None


def _step(layer: Layer) -> bool:
    return layer.op in _SCORE_STEPS and not layer.fused


def _view_roots(net: Network) -> dict[str, str]:
    root: dict[str, str] = {t.name: t.name for t in net.inputs}
    for layer in net.layers:
        same = OPS[layer.op].kind == "view" and layer.op != "select" and len(layer.src) == 1
        whole = same and _size(layer.shape) == _size(net.tensors[layer.src[0]].shape)
        root[layer.id] = root[layer.src[0]] if whole else layer.id
    return root


def _size(shape: Shape) -> int:
    return math.prod(int(d) for d in shape)


def _with_layers(net: Network, layers: Iterable[Layer]) -> Network:
    """A network with other layers whose declared results stay the same."""
    return Network(net.name, net.inputs, tuple(layers), net.output_names, net.symbols, net.meta)
