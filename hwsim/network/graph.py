"""Tensor, Layer and Network: a neural network as a directed acyclic graph of operators on shaped tensors.

Shapes are symbolic (`hwsim.network.dims`); `Network.bind` replaces every symbol by a number. Derived quantities (MACs,
parameters, activation bytes, peak memory) are always computed from the graph, never stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from hwsim.errors import HwsimError, near
from hwsim.formats import storage_bytes
from hwsim.network.dims import Dim, IntShape, Shape, check_shape, evaluate

if TYPE_CHECKING:
    from hwsim.network.ops import Op, Product, VectorWork, Weight

AttrValue = int | float | str | bool | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named value flowing along an edge: its shape (symbolic or not) and number format."""

    name: str
    shape: Shape
    dtype: str = "fp32"


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator with the activations fused into it.

    ``src`` names the inputs: a network input's name or the id of an earlier layer, both as text. ``attrs`` are the
    operator's own (`hwsim.network.ops`); ``fused`` are element-wise operators applied to the output in order
    (``bn``, ``relu`` …). ``weight_dtype`` is None when weights have the layer's ``dtype``.
    """

    id: str
    name: str
    op: str
    src: tuple[str, ...]
    shape: Shape
    attrs: Mapping[str, AttrValue] = field(default_factory=dict)
    fused: tuple[str, ...] = ()
    dtype: str = "fp32"
    weight_dtype: str | None = None
    qparams: str = ""
    sparsity: str = ""

    @property
    def output(self) -> Tensor:
        """The tensor this layer produces."""
        return Tensor(self.id, self.shape, self.dtype)

    def attr(self, key: str, default: AttrValue) -> AttrValue:
        """Return attribute ``key`` or ``default``."""
        return self.attrs.get(key, default)

    def whole(self, key: str, default: int | None = None) -> int:
        """Return attribute ``key`` of a bound layer as a whole number; raise KeyError where it has neither that nor a default."""
        value = self.attrs[key] if default is None else self.attrs.get(key, default)
        if not isinstance(value, int | str):
            raise TypeError(f"{self.id}: {key} is no whole number")
        return int(value)


@dataclass(frozen=True)
class Network:
    """A DAG of layers in topological order.

    ``symbols`` maps each symbolic dimension to its default value (``N`` is the batch). ``meta`` carries provenance
    (source, licence, published MACs and parameters as check sums).
    """

    name: str
    inputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...] = ()
    symbols: Mapping[str, int] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)

    # -- structure -----------------------------------------------------------------------------------------------

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name: inputs, then layer outputs by id."""
        out = {t.name: t for t in self.inputs}
        for layer in self.layers:
            out[layer.id] = layer.output
        return out

    @cached_property
    def by_id(self) -> dict[str, Layer]:
        """Layers by id."""
        return {layer.id: layer for layer in self.layers}

    @cached_property
    def consumers(self) -> dict[str, list[str]]:
        """For each tensor name the ids of the layers reading it, in order."""
        out: dict[str, list[str]] = {name: [] for name in self.tensors}
        for layer in self.layers:
            for src in layer.src:
                out[src].append(layer.id)
        return out

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """Declared outputs, or every tensor nobody reads."""
        return self.outputs or tuple(layer.id for layer in self.layers if not self.consumers[layer.id])

    @property
    def is_bound(self) -> bool:
        """True when no symbol is left."""
        return not self.symbols

    def validate(self) -> Network:
        """Check ids, edges, operators, attributes and shapes; return self or raise HwsimError naming the layer."""
        from hwsim.network.ops import check_layer

        if not self.layers:
            raise HwsimError(f"network {self.name}: no layers")
        seen: dict[str, IntShape] = {}
        for tensor in self.inputs:
            if tensor.name in seen:
                raise HwsimError(f"network {self.name}: input {tensor.name!r} appears twice")
            seen[tensor.name] = check_shape(tensor.shape, self.symbols, f"input {tensor.name}")
        for layer in self.layers:
            where = f"network {self.name}, layer {layer.id} ({layer.name or layer.op})"
            if layer.id in seen:
                raise HwsimError(f"{where}: id used twice")
            for src in layer.src:
                if src not in seen:
                    known = f"{near(src, seen)}" or "; sources must be inputs or earlier layers"
                    raise HwsimError(f"{where}: unknown source {src!r}{known}")
            shape = check_shape(layer.shape, self.symbols, where)
            check_layer(layer, [seen[s] for s in layer.src], shape, self.symbols, where)
            seen[layer.id] = shape
        for name in self.outputs:
            if name not in seen:
                raise HwsimError(f"network {self.name}: output {name!r} is not a layer or input{near(name, seen)}")
        return self

    # -- binding -------------------------------------------------------------------------------------------------

    def bind(self, **values: int) -> Network:
        """Return the network with every symbol replaced: ``values`` override the defaults in ``symbols``.

        Raises HwsimError for an unknown symbol, a value below 0 (0 is legal only for symbols that may vanish, such
        as a past length ``P``), or a fixed batch asked to change.
        """
        for key, value in values.items():
            if key not in self.symbols:
                raise HwsimError(
                    f"network {self.name} has no symbol {key}"
                    + (f" (it has {', '.join(self.symbols)})" if self.symbols else ": all its shapes are fixed")
                )
            if value < 0 or value > 2**31:
                raise HwsimError(f"network {self.name}: {key}={value} is out of range")
        if self.is_bound:
            return self
        table = {**self.symbols, **values}
        memo: dict[Shape, IntShape] = {}

        def fix(shape: Shape, where: str) -> IntShape:
            hit = memo.get(shape)
            if hit is None:
                hit = memo[shape] = check_shape(shape, table, where)
            return hit

        layers = tuple(
            replace(
                layer,
                shape=fix(layer.shape, f"network {self.name}, layer {layer.id}"),
                attrs=_bind_attrs(layer, table),
            )
            for layer in self.layers
        )
        inputs = tuple(replace(t, shape=fix(t.shape, f"input {t.name}")) for t in self.inputs)
        bound = {f"bound_{k}": str(v) for k, v in table.items()}
        return Network(self.name, inputs, layers, self.outputs, {}, {**self.meta, **bound})

    # -- computed facts (bound networks, or symbols at their defaults) ---------------------------------------------

    @cached_property
    def _bound(self) -> Network:
        return self if self.is_bound else self.bind()

    @cached_property
    def _views(self) -> list[tuple[Layer, Op, list[IntShape]]]:
        from hwsim.network.ops import OPS

        net = self._bound
        return [(la, OPS[la.op], [_ints(net.tensors[s].shape) for s in la.src]) for la in net.layers]

    def input_shapes(self, layer: Layer) -> list[IntShape]:
        """Integer shapes of the inputs of ``layer`` (bound network)."""
        return [_ints(self.tensors[s].shape) for s in layer.src]

    @cached_property
    def products(self) -> dict[str, tuple[Product, ...]]:
        """The matrix products of each layer, by id."""
        return {la.id: op.products(la, ins, _ints(la.shape)) for la, op, ins in self._views}

    @cached_property
    def weights(self) -> dict[str, tuple[Weight, ...]]:
        """The constant tensors of each layer, by id (empty for layers that share another's through ``tied``)."""
        return {
            la.id: () if "tied" in la.attrs else op.weights(la, ins, _ints(la.shape)) for la, op, ins in self._views
        }

    @cached_property
    def vector_work(self) -> dict[str, VectorWork]:
        """Vector-unit work of each layer, fused activations included, by id."""
        from hwsim.network.ops import vector_work

        return {la.id: vector_work(la, op, ins, _ints(la.shape)) for la, op, ins in self._views}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run: convolutions, matrix products, attention and recurrent cells."""
        return sum(p.macs for ps in self.products.values() for p in ps)

    @property
    def params(self) -> int:
        """Learnable parameters, batch-norm scales and shifts included, shared tensors counted once."""
        from hwsim.network.ops import fused_params

        net = self._bound
        own = sum(w.elements for ws in self.weights.values() for w in ws if w.learned)
        return own + sum(fused_params(la) for la in net.layers)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as stored for inference (batch-norm folded away)."""
        by_id = self._bound.by_id
        return sum(w.bytes_as(by_id[i]) for i, ws in self.weights.items() for w in ws)

    def tensor_bytes(self, name: str) -> int:
        """Bytes of tensor ``name`` in its own format."""
        tensor = self._bound.tensors[name]
        count = 1
        for dim in _ints(tensor.shape):
            count *= dim
        return storage_bytes(count, tensor.dtype)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layer outputs that are not views of another tensor."""
        from hwsim.network.ops import OPS

        return sum(self.tensor_bytes(la.id) for la in self._bound.layers if OPS[la.op].kind != "view")

    @cached_property
    def peak_activation_bytes(self) -> int:
        """Largest sum of live tensors (inputs included) over the layers in file order; views share storage."""
        return max(self.live_bytes)

    @cached_property
    def live_bytes(self) -> list[int]:
        """Bytes of live tensors while each layer runs: its inputs, its output and all that is still needed."""
        from hwsim.network.ops import OPS

        net = self._bound
        root: dict[str, str] = {t.name: t.name for t in net.inputs}
        for la in net.layers:
            root[la.id] = root[la.src[0]] if OPS[la.op].kind == "view" and la.src else la.id
        last: dict[str, int] = {}
        for index, la in enumerate(net.layers):
            for src in la.src:
                last[root[src]] = index
        for name in net.output_names:
            last[root[name]] = len(net.layers)
        size = {name: self.tensor_bytes(name) for name in set(root.values())}
        dying: dict[int, list[str]] = {}
        for name, index in last.items():
            dying.setdefault(index, []).append(name)
        live = sum(size[t.name] for t in net.inputs)
        out: list[int] = []
        for index, la in enumerate(net.layers):
            if root[la.id] == la.id:
                live += size[la.id]
            out.append(live)
            live -= sum(size[name] for name in dying.get(index, ()))
            if root[la.id] == la.id and la.id not in last:
                live -= size[la.id]
        return out

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of key/value cache after this run (attention layers with a ``cache`` attribute)."""
        from hwsim.network.ops import kv_cache_elements

        return sum(
            storage_bytes(kv_cache_elements(la, ins), la.dtype) for la, _, ins in self._views if la.op == "attention"
        )

    def rename(self, name: str, meta: Mapping[str, str] | None = None) -> Network:
        """Return a copy under another name, with ``meta`` merged in."""
        return replace(self, name=name, meta={**self.meta, **(meta or {})})


def _ints(shape: Shape) -> IntShape:
    return shape  # type: ignore[return-value]  # bound networks hold integers only


def _bind_attrs(layer: Layer, table: Mapping[str, int]) -> Mapping[str, AttrValue]:
    from hwsim.network.ops import OPS

    dims = OPS[layer.op].dim_attrs if layer.op in OPS else ()
    if not any(key in layer.attrs for key in dims):
        return layer.attrs
    return {k: evaluate(_dim(v), table) if k in dims else v for k, v in layer.attrs.items()}


def _dim(value: AttrValue) -> Dim:
    if isinstance(value, int | str):
        return value
    raise HwsimError(f"attribute value {value!r} is not a dimension")


def topological(layers: Iterable[Layer], inputs: Iterable[str]) -> tuple[Layer, ...]:
    """Return ``layers`` sorted so that sources come first (stable); raise HwsimError on a cycle."""
    pending = list(layers)
    done = set(inputs)
    known = done | {la.id for la in pending}
    waiting: dict[str, list[Layer]] = {}
    missing: dict[str, int] = {}
    ready: list[Layer] = []
    for la in pending:
        needs = {s for s in la.src if s in known and s not in done}
        missing[la.id] = len(needs)
        for s in needs:
            waiting.setdefault(s, []).append(la)
        if not needs:
            ready.append(la)
    out: list[Layer] = []
    at = 0
    while at < len(ready):
        la = ready[at]
        at += 1
        out.append(la)
        for user in waiting.get(la.id, ()):
            missing[user.id] -= 1
            if not missing[user.id]:
                ready.append(user)
    if len(out) != len(pending):
        stuck = next(la for la in pending if missing[la.id])
        raise HwsimError(f"layer {stuck.id} ({stuck.name or stuck.op}) is part of a cycle")
    return tuple(out)
