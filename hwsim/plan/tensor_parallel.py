"""Tensor parallelism: one device's share of a bound network, with the exchanges between devices as layers.

The cut follows Shoeybi et al. 2019 (Megatron-LM, arXiv:1909.08053): a product whose result is only read part by part
(through element-wise layers, or head by head through attention) makes the columns of its part; the product that reads such
a part multiplies rows, and its result is a sum over devices, which is reduced where somebody needs all of it. Sums pass
through what is linear (additions of sums, views, weighting), so that branches side by side share one reduction. The largest
look-up table is cut by rows, results of the network by columns, both padded to equal parts. Key/value heads fewer than
devices are held by several. Experts are cut like any other product: every device has a part of each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Layer, Network
from hwsim.network.ops import OPS
from hwsim.network.ops_contract import integer
from hwsim.network.ops_vector import NORM
from hwsim.plan.gpu_rewrite import expand_fused

LEAST_SHARE = 0.5  # of the weights that must be cut for the division to be one
_PRODUCTS = ("linear", "expert_linear")
_LAST_ONLY = ("layer_norm", "rms_norm", "softmax", "log_softmax", "l2_norm", "rope")


@dataclass(frozen=True, slots=True)
class Held:
    """What a device holds of a tensor: all of it, ``extent`` along ``axis`` (a part), or one of the terms of a sum."""

    kind: str = "whole"
    axis: int = 0
    extent: int = 0


WHOLE, SUM = Held(), Held("sum")


@dataclass(frozen=True, slots=True)
class Taker:
    """Who reads a part in the end: how many pieces there are, whether devices may hold the same, whether to pad."""

    units: int
    what: str
    copies: bool = False
    pads: bool = False


def tensor_parallel(net: Network, ways: int) -> Network:
    """Return the network one of ``ways`` devices runs, bound as ``net`` is; ``net`` itself for one device.

    Raises HwsimError where heads or columns do not divide, or most of the weights would not be cut.
    """
    if ways <= 1:
        return net
    found = _Cut(net, ways)
    found.run()
    if found.reopened:  # activations fused into products of rows come after the reduction
        net = expand_fused(net, only=found.reopened)
        found = _Cut(net, ways)
        found.run()
    before = sum(w.elements for ws in net.weights.values() for w in ws)
    out = found.network()
    after = sum(w.elements for ws in out.weights.values() for w in ws)
    if before == 0 or after > before * (1 - LEAST_SHARE * (1 - 1 / ways)):
        raise HwsimError(
            f"network {net.name} has too few products to divide among devices "
            f"({after / max(1, before):.0%} of its weights would be on each of {ways}): run it data parallel"
        )
    return out


class _Cut:
    def __init__(self, net: Network, ways: int) -> None:
        self.net, self.ways = net, ways
        self.held: dict[str, Held] = {t.name: WHOLE for t in net.inputs}
        self.local: dict[str, str] = {t.name: t.name for t in net.inputs}  # the tensor a device has of each
        self.gathered: dict[str, str] = {}
        self.layers: list[Layer] = []
        self.results = set(net.output_names)
        self.takers_of: dict[tuple[str, int], tuple[Taker, ...] | None] = {}
        self.reopened: set[str] = set()
        tables = [la.whole("rows") for la in net.layers if la.op == "embedding"]
        self.vocabulary = max(tables, default=0)

    def run(self) -> None:
        for layer in self.net.layers:
            self._place(layer)

    def network(self) -> Network:
        outputs = tuple(self._whole(name) for name in self.net.output_names)
        net = Network(
            self.net.name, self.net.inputs, tuple(self.layers), outputs, {}, {**self.net.meta, "ways": str(self.ways)}
        )
        return net.validate()

    # -- what is emitted -------------------------------------------------------------------------------------------

    def _shape(self, name: str) -> IntShape:
        return tuple(int(d) for d in self.net.tensors[name].shape)

    def _emit(self, layer: Layer, held: Held, src: tuple[str, ...], **attrs: AttrValue) -> None:
        shape = self._shape(layer.id)
        if held.kind == "part":
            shape = (*shape[: held.axis], held.extent, *shape[held.axis + 1 :])
        merged = {**layer.attrs, **attrs} if attrs else layer.attrs
        self.layers.append(replace(layer, src=src, shape=shape, attrs=merged))
        self.held[layer.id], self.local[layer.id] = held, layer.id

    def _whole(self, name: str) -> str:
        """The tensor with all of ``name`` on every device, exchanged for if need be."""
        held = self.held[name]
        if held.kind == "whole":
            return self.local[name]
        if held.kind == "part" and name in self.gathered:
            return self.gathered[name]
        made = self.net.by_id[name]
        op, attrs = ("all_reduce", {}) if held.kind == "sum" else ("all_gather", {"axis": held.axis})
        new = Layer(
            f"{name}.{op}", f"{made.name or made.op}.{op}", op, (self.local[name],), self._shape(name),
            {"ways": self.ways, **attrs}, (), made.dtype,
        )  # fmt: skip
        self.layers.append(new)
        if held.kind == "sum":
            self.held[name], self.local[name] = WHOLE, new.id
        else:
            self.gathered[name] = new.id
        return new.id

    def _part(self, name: str, axis: int, extent: int) -> str:
        """This device's part of a tensor it holds whole: read in place."""
        held = self.held[name]
        if held == Held("part", axis, extent):
            return self.local[name]
        whole, shape = self._whole(name), self._shape(name)
        made = self.net.tensors[name]
        new = f"{name}.part{axis}"
        if all(la.id != new for la in self.layers):
            local = (*shape[:axis], extent, *shape[axis + 1 :])
            self.layers.append(Layer(new, new, "split", (whole,), local, {"axis": axis, "start": 0}, (), made.dtype))
        return new

    # -- layer by layer --------------------------------------------------------------------------------------------

    def _place(self, layer: Layer) -> None:
        kind = OPS[layer.op].kind
        if layer.op in _PRODUCTS:
            self._product(layer)
        elif layer.op == "attention":
            self._attention(layer)
        elif layer.op == "embedding":
            self._embedding(layer)
        elif kind == "elementwise":
            self._elementwise(layer)
        elif kind == "reduce" or layer.op == "rope":
            self._reduce(layer)
        else:
            self._move(layer)

    def _product(self, layer: Layer) -> None:
        src = layer.src[0]
        held, rank = self.held[src], len(self._shape(layer.id))
        extra = layer.src[1:]
        if held.kind == "part" and held.axis == rank - 1:
            if layer.fused:
                self.reopened.add(layer.id)
            self._emit(layer, SUM, (self.local[src],), **({"k": held.extent} if "k" in layer.attrs else {}))
            return
        whole = self._whole(src)
        takers = self.takers(layer.id, rank - 1)
        if not takers or extra:
            self._emit(layer, WHOLE, (whole, *(self._whole(s) for s in extra)))
            return
        self._emit(layer, Held("part", rank - 1, self._extent(layer, takers)), (whole,))

    def _extent(self, layer: Layer, takers: tuple[Taker, ...]) -> int:
        """Columns of a product one device makes."""
        width = self._shape(layer.id)[-1]
        parts = set()
        for taker in takers:
            if taker.units % self.ways == 0 or taker.pads:
                parts.add(self.ways)
            elif taker.copies and self.ways % taker.units == 0:
                parts.add(taker.units)
            else:
                good = [n for n in range(2, self.ways + 1) if taker.units % n == 0]
                advice = f"; {', '.join(map(str, good))} would" if good else ""
                raise HwsimError(
                    f"network {self.net.name}: {taker.units} {taker.what} do not divide among {self.ways} devices{advice}"
                )
        if len(parts) > 1 or (width % max(parts) and not all(t.pads for t in takers)):
            raise HwsimError(
                f"network {self.net.name}: layer {layer.id} ({layer.name}) does not divide among {self.ways} devices"
            )
        return -(-width // parts.pop())

    def _attention(self, layer: Layer) -> None:
        q, k, v = layer.src[:3]
        axis = len(self._shape(q)) - 3
        cut = [self.held[s].kind == "part" and self.held[s].axis == axis for s in (q, k, v)]
        if not all(cut):
            self._emit(layer, WHOLE, tuple(self._whole(s) for s in layer.src))
            return
        heads, shared = self.held[q].extent, self.held[k].extent
        if heads % shared or shared != self.held[v].extent:
            raise HwsimError(
                f"network {self.net.name}: {heads} query heads of a device are no multiple of its {shared} key/value heads"
            )
        src = [self.local[s] for s in (q, k, v)]
        for name in layer.src[3:]:
            shape = self._shape(name)
            at = len(shape) - 3
            per_head = at >= 0 and shape[at] > 1
            src.append(self._part(name, at, heads) if per_head else self._whole(name))
        self._emit(layer, Held("part", axis, heads), tuple(src))

    def _embedding(self, layer: Layer) -> None:
        ids = self._whole(layer.src[0])
        rows, width = layer.whole("rows"), layer.whole("width")
        large = rows == self.vocabulary and rows >= width and not layer.attrs.get("bag") and not layer.fused
        if large:
            self._emit(layer, SUM, (ids,), rows=-(-rows // self.ways))
        else:
            self._emit(layer, WHOLE, (ids,))

    def _elementwise(self, layer: Layer) -> None:
        sums = [self.held[s].kind == "sum" for s in layer.src]
        if any(sums) and not layer.fused:
            adds = layer.op in ("add", "sub", "add_n") and all(sums) and "const" not in layer.attrs
            alone = sum(sums) == 1 and (layer.op == "mul" or (layer.op == "div" and sums[0]))
            others = [s for s in layer.src if self.held[s].kind == "part"]
            if (adds or alone) and not others and not layer.attrs.get("reverse"):
                self._emit(layer, SUM, tuple(self.local[s] for s in layer.src))
                return
        for name in layer.src:
            if self.held[name].kind == "sum":
                self._whole(name)
        rank = len(self._shape(layer.id))
        parts = {
            (self.held[s].axis - len(self._shape(s)), self.held[s].extent)
            for s in layer.src
            if self.held[s].kind == "part"
        }
        if len(parts) != 1:
            self._emit(layer, WHOLE, tuple(self._whole(s) for s in layer.src))
            return
        back, extent = parts.pop()
        size = self._shape(layer.id)[rank + back]
        src = []
        for name in layer.src:
            shape = self._shape(name)
            at = len(shape) + back
            src.append(self._part(name, at, extent) if at >= 0 and shape[at] == size > 1 else self._whole(name))
        const = layer.attrs.get("const")
        attrs: dict[str, AttrValue] = {}
        if isinstance(const, tuple) and len(const) >= -back and const[back] == size > 1:
            at = len(const) + back
            attrs["const"] = (*const[:at], extent, *const[at + 1 :])
        self._emit(layer, Held("part", rank + back, extent), tuple(src), **attrs)

    def _reduce(self, layer: Layer) -> None:
        src = layer.src[0]
        held = self.held[src]
        linear = layer.op in ("reduce_sum", "reduce_mean") and not layer.fused
        if held.kind == "sum" and linear:
            self._emit(layer, SUM, (self.local[src],))
            return
        axis = self._through_reduction(layer, held.axis) if held.kind == "part" and len(layer.src) == 1 else None
        if axis is None:
            self._emit(layer, WHOLE, tuple(self._whole(s) for s in layer.src))
        else:
            self._emit(layer, Held("part", axis, held.extent), (self.local[src],))

    def _through_reduction(self, layer: Layer, axis: int) -> int | None:
        """The axis of a reduction's result that ``axis`` of its input becomes; None where it is reduced."""
        rank = len(self._shape(layer.src[0]))
        if layer.op in _LAST_ONLY:
            over = integer(layer.attrs, "axis", -1) % rank if "softmax" in layer.op else rank - 1
            return None if axis == over else axis
        if layer.op in NORM or not layer.op.startswith("reduce_"):
            return None
        axes = layer.attrs.get("axes", tuple(range(rank)))
        gone = {a % rank for a in (axes if isinstance(axes, tuple) else (int(axes),))}
        if axis in gone:
            return None
        return axis if layer.attrs.get("keep") else axis - sum(a < axis for a in gone)

    def _move(self, layer: Layer) -> None:
        if not layer.src:
            self._emit(layer, WHOLE, ())
            return
        held = self.held[layer.src[0]]
        single = len(layer.src) == 1 and not layer.fused
        readdresses = OPS[layer.op].kind == "view" or layer.op in ("transpose", "slice", "copy")
        if held.kind == "sum" and single and readdresses:
            self._emit(layer, SUM, (self.local[layer.src[0]],))
            return
        if held.kind == "part" and single:
            size = self._shape(layer.src[0])[held.axis]
            moved = self._through_move(layer, held.axis, held.extent, size)
            if moved is not None:
                axis, extent, attrs = moved
                self._emit(layer, Held("part", axis, extent), (self.local[layer.src[0]],), **attrs)
                return
        self._emit(layer, WHOLE, tuple(self._whole(s) for s in layer.src))

    def _through_move(
        self, layer: Layer, axis: int, extent: int, size: int
    ) -> tuple[int, int, dict[str, AttrValue]] | None:
        """(axis, extent, changed attributes) of what a view or a slice makes of a part; None where it cannot."""
        before, after = self._shape(layer.src[0]), self._shape(layer.id)
        if layer.op in ("identity", "copy"):
            return axis, extent, {}
        if layer.op == "transpose":
            perm = layer.attrs.get("perm")
            return (perm.index(axis), extent, {}) if isinstance(perm, tuple) else None
        if layer.op in ("split", "slice"):
            along = layer.whole("axis", 0) % len(before)
            if along != axis:
                return (axis, extent, {}) if len(before) == len(after) else None
            start = layer.whole("start", 0)
            if layer.op == "slice" or start * extent % size or after[axis] * extent % size:
                return None
            return axis, after[axis] * extent // size, {"start": start * extent // size}
        if layer.op in ("reshape", "expand"):
            return _reshaped(before, after, axis, extent, layer.op == "expand")
        return None

    # -- who reads a part ------------------------------------------------------------------------------------------

    def takers(self, name: str, axis: int) -> tuple[Taker, ...] | None:
        """Who reads ``name`` in the end if devices hold it cut along ``axis``; None where somebody needs all of it."""
        key = (name, axis)
        if key not in self.takers_of:
            self.takers_of[key] = None  # a cycle there is none; this guards the recursion
            self.takers_of[key] = self._takers(name, axis)
        return self.takers_of[key]

    def _takers(self, name: str, axis: int) -> tuple[Taker, ...] | None:
        out: list[Taker] = []
        size = self._shape(name)[axis]
        if name in self.results:
            out.append(Taker(size, "results", pads=True))
        for reader in self.net.consumers[name]:
            layer = self.net.by_id[reader]
            found = self._taken(layer, name, axis)
            if found is None:
                return None
            out += found
        return tuple(dict.fromkeys(out))

    def _taken(self, layer: Layer, name: str, axis: int) -> tuple[Taker, ...] | None:
        shape = self._shape(name)
        kind = OPS[layer.op].kind
        if layer.op in _PRODUCTS:
            last = axis == len(shape) - 1 and name == layer.src[0]
            return (Taker(shape[axis], f"inputs of {layer.name or layer.op}"),) if last else None
        if layer.op == "attention":
            if axis != len(shape) - 3 or name not in layer.src[:3]:
                return None
            if name != layer.src[0]:
                return (Taker(shape[axis], "key/value heads", copies=True),)
            beyond = self.takers(layer.id, axis)
            return None if beyond is None else (Taker(shape[axis], "query heads"), *(t for t in beyond if t.pads))
        if kind == "elementwise":
            at = axis + len(self._shape(layer.id)) - len(shape)
            return self.takers(layer.id, at) if self._shape(layer.id)[at] == shape[axis] else None
        if kind == "reduce":
            after = self._through_reduction(layer, axis) if len(layer.src) == 1 else None
            return None if after is None else self.takers(layer.id, after)
        if len(layer.src) == 1:
            moved = self._through_move(layer, axis, shape[axis], shape[axis])
            return None if moved is None else self.takers(layer.id, moved[0])
        return None


def _reshaped(
    before: IntShape, after: IntShape, axis: int, extent: int, grows: bool
) -> tuple[int, int, dict[str, AttrValue]] | None:
    """Where a part along ``axis`` is after a reshape: the axis that begins at the same element, and its extent there."""
    if grows:  # dimensions of size 1 are repeated
        return (axis, extent, {}) if len(before) == len(after) and before[axis] == after[axis] else None
    outer, inner = math.prod(before[:axis]), math.prod(before[axis + 1 :])
    for at, size in enumerate(after):
        rest = math.prod(after[at + 1 :])
        if math.prod(after[:at]) != outer or size == 1 != before[axis]:
            continue
        if extent * inner % rest:
            return None
        return at, extent * inner // rest, {}
    return None
