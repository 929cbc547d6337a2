"""From ATen calls to hwsim rows: one method per kind of operator, tables in `torch_ops`.

Values are of two kinds. A `View` reads an activation; metadata operators only change the view. A `Const` does not depend
on any floating-point input: parameters, index and mask arithmetic. Constants are folded (a compiler computes them once);
only a learned one that something other than a layer's own weight needs is written out as rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hwsim.errors import HwsimError
from hwsim.network import torch_ops as table
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Network, Tensor
from hwsim.network.torch_graph import Ref, TorchGraph, TorchNode
from hwsim.network.torch_rows import Rows, fold
from hwsim.network.torch_views import View, plan, view_of


Value: TypeAlias = "View | Const | tuple[Any, ...] | None"


@dataclass(slots=True)
class Const:
    """A value known before the first float input: ``shape`` as seen, ``core`` as stored (it broadcasts to ``shape``).

    ``param`` is the parameter it is a view of, element for element; ``learned`` whether any parameter is behind it;
    ``causal`` whether positions were compared to make it.
    """

    shape: IntShape
    core: IntShape
    dtype: str
    param: str | None = None
    learned: bool = False
    causal: bool = False
    node: TorchNode | None = None
    runtime: str | None = None
    reads: dict[str, Value] = field(default_factory=dict)
    forced: View | None = field(default=None)


def convert(graph: TorchGraph, name: str, meta: dict[str, str] | None = None) -> Network:
    """Return the network of an exported program; raise HwsimError naming module and operator it cannot express."""
    return Converter(graph).run(name, meta or {})


class Converter:
    """Walks the calls in order, keeping the value of every name."""

    def __init__(self, graph: TorchGraph) -> None:
        self.graph = graph
        self.rows = Rows()
        self.env: dict[str, Value] = {}
        self.dtypes: dict[str, str] = {}
        self.used: dict[str, str] = {}
        self.param_size: dict[str, int] = {}
        self.inputs: list[Tensor] = []
        self.node: TorchNode = TorchNode("", "")

    # -- driving -------------------------------------------------------------------------------------------------

    def run(self, name: str, meta: dict[str, str]) -> Network:
        for key, const in self.graph.consts.items():
            size = math.prod(const.tensor.shape)
            self.param_size[const.key] = size
            learned = const.learned and const.tensor.is_float
            self.env[key] = Const(
                const.tensor.shape, const.tensor.shape, const.tensor.dtype, const.key if learned else None, learned
            )
        for key, tensor in self.graph.inputs:
            label = key.replace(" ", "_")
            self.inputs.append(Tensor(label, tensor.shape, tensor.dtype))
            self.dtypes[label] = tensor.dtype
            if "mask" in key or tensor.dtype == "bool":
                self.env[key] = Const(tensor.shape, tensor.shape, tensor.dtype, runtime=label)
            else:
                self.env[key] = view_of(label, tensor.shape)
        for node in self.graph.nodes:
            self.node = node
            self.env[node.name] = self.visit(node)
            if node.target.endswith("_") and not node.target.startswith("_") and node.args:
                self._overwrite(node)
        outputs = []
        for ref in self.graph.outputs:
            value = self.env.get(ref.name)
            if isinstance(value, View):
                outputs.append(self.make(value))
        outputs = list(dict.fromkeys(outputs))
        if not outputs:
            raise HwsimError(f"{name}: no output depends on a floating-point input")
        fold(self.rows, outputs)
        return self.rows.network(name, tuple(self.inputs), outputs, meta)

    def _overwrite(self, node: TorchNode) -> None:
        """An in-place call changes its first argument, under whatever name it is read later."""
        first = node.args[0]
        if isinstance(first, Ref):
            old = self.env.get(first.name)
            for key, value in self.env.items():
                if value is old and old is not None:
                    self.env[key] = self.env[node.name]

    def visit(self, node: TorchNode) -> Value:
        """The value of one call."""
        target = node.target
        if target in table.IGNORE:
            return None
        if target == "getitem":
            whole = self.value(node.args[0])
            index = node.args[1]
            return whole[index] if isinstance(whole, tuple) else whole
        if target.endswith("_") and not target.startswith("_"):
            target = target[:-1]
        operands = self._operands(node)
        if target in table.MAKERS:
            return self._constant(node, operands)
        floats = [o for o in operands if isinstance(o, View) and self._is_float(o)]
        views = [o for o in operands if isinstance(o, View)]
        if not floats and target not in ("embedding", "embedding_bag"):
            metadata = target in table.SAME or target in table.RESHAPE or target in table.PERMUTE
            if not views or not (metadata or (node.outs and node.outs[0] and node.out.is_float)):
                return self._constant(node, operands)
        return self.handle(target, node)

    def handle(self, target: str, node: TorchNode) -> Value:
        """Dispatch one call by the tables."""
        for names, method in _TABLES:
            if target in names:
                return method(self, target, node)
        method_ = _METHODS.get(target)
        if method_ is None:
            raise HwsimError(
                f"{node.where}: this PyTorch operator has no hwsim equivalent; export a part of the model without it"
            )
        return method_(self, node)

    def _operands(self, node: TorchNode) -> list[Value]:
        found: list[Value] = []

        def walk(value: Any) -> None:
            if isinstance(value, Ref):
                got = self.env.get(value.name)
                found.extend(got if isinstance(got, tuple) else (got,))
            elif isinstance(value, list | tuple):
                for v in value:
                    walk(v)

        walk(list(node.args))
        walk(list(node.kwargs.values()))
        return [f for f in found if f is not None]

    def _is_float(self, view: View) -> bool:
        return not self.dtypes.get(view.base, "fp32").startswith(("int", "uint", "bool"))

    def _constant(self, node: TorchNode, operands: Sequence[Value]) -> Value:
        """Constant in, constant out: no row, unless someone needs the value as an activation."""
        consts = [o for o in operands if isinstance(o, Const)]
        runtime = next((c.runtime for c in consts if c.runtime), None) or next(
            (o.base for o in operands if isinstance(o, View)), None
        )
        positions = node.target in table.TRIANGLE or (
            node.target in table.ORDER and sum(math.prod(c.core) > 1 for c in consts) == 2
        )
        causal = positions or any(c.causal for c in consts)
        learned = any(c.learned for c in consts)
        target = node.target.rstrip("_")
        results: list[Const | None] = []
        for out in node.outs:
            if out is None:
                results.append(None)
                continue
            one = Const(out.shape, out.shape, out.dtype, None, learned, causal, node, runtime)
            if learned:
                one.reads = {ref.name: self.env.get(ref.name) for ref in _refs(node)}
            if target in table.UNIFORM:
                one.core = (1,) * len(out.shape)
            elif target in table.SAME and consts:
                one.param, one.core = consts[0].param, consts[0].core
            elif target in ("expand", "expand_as") and consts:
                one.param = consts[0].param
                one.core = (1,) * (len(out.shape) - len(consts[0].core)) + consts[0].core
            elif (target in table.RESHAPE or target in table.PERMUTE) and consts and consts[0].core == consts[0].shape:
                one.param = consts[0].param
            elif target in (*table.BINARY, *table.UNARY, "where", "masked_fill") and len(node.outs) == 1:
                one.core = _broadcast_cores([c.core for c in consts], out.shape)
            elif target == "transpose" and consts:
                one.core = tuple(1 if math.prod(consts[0].core) == 1 else d for d in out.shape)
            results.append(one)
        if len(node.outs) == 1 and not target.startswith(("split", "chunk", "unbind")):
            return results[0]
        return tuple(results)

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, arg: Any) -> Value:
        """The value of an argument that is a reference."""
        return self.env.get(arg.name) if isinstance(arg, Ref) else None

    def arg(self, node: TorchNode, index: int, name: str, default: Any = None) -> Any:
        """Argument by position or keyword."""
        if index < len(node.args):
            return node.args[index]
        return node.kwargs.get(name, default)

    def view(self, arg: Any, node: TorchNode) -> View:
        """An argument as an activation; constants are written out."""
        got = self.value(arg)
        if isinstance(got, View):
            return got
        if isinstance(got, Const):
            return self.force(got)
        raise HwsimError(f"{node.where}: needs a tensor, got {arg!r}")

    def const(self, arg: Any, node: TorchNode) -> Const | None:
        """An argument as a constant, None when absent; raises HwsimError when it is an activation."""
        if arg is None:
            return None
        got = self.value(arg)
        if isinstance(got, Const):
            return got
        raise HwsimError(f"{node.where}: a weight that depends on the input is not supported here")

    def label(self, node: TorchNode, op: str) -> str:
        """Name of a row: the module's path, with the operator unless the module is one layer."""
        if not node.path:
            return op if op in _MOVES else node.name
        leaf = node.module.startswith(table.LEAF_MODULES) and not node.module.endswith("MultiheadAttention")
        return node.path if leaf and op not in _MOVES else f"{node.path}.{op}"

    def row(self, op: str, src: Sequence[str], shape: Sequence[int], /, **attrs: AttrValue | None) -> View:
        """Add a row for the current call."""
        node = self.node
        dtype = node.outs[0].dtype if node.outs and node.outs[0] is not None else "fp32"
        ident = self.rows.add(op, self.label(node, op), list(src), tuple(shape), attrs, dtype)
        self.dtypes[ident] = dtype
        return view_of(ident, tuple(shape))

    def make(self, view: View) -> str:
        """The id of a tensor equal to ``view``: rows for whatever its mapping moves."""
        at = view.base
        dtype = self.dtypes.get(at, "fp32")
        for step in plan(view):
            attrs: dict[str, AttrValue | None] = {}
            if step.op == "split":
                attrs = {"axis": step.axis, "start": step.start}
            elif step.op == "transpose":
                attrs = {"perm": step.perm}
            at = self.rows.add(step.op, self.label(self.node, step.op), [at], step.shape, attrs, dtype)
            self.dtypes[at] = dtype
        return at

    def solid(self, view: View) -> View:
        """``view`` as a tensor of its own."""
        return view if view.identity else view_of(self.make(view), view.shape)

    def force(self, const: Const) -> View:
        """A constant as an activation: learned ones through a table look-up or their own arithmetic."""
        if const.forced is not None:
            return const.forced
        node, saved = const.node, self.node
        if const.runtime is not None and node is None:
            made = view_of(const.runtime, const.shape)
        elif not const.learned:
            made = self._expand(self._stored(const.core, const.dtype), const.shape)
        elif const.param is not None:
            width = const.core[-1] if const.core else 1
            count = math.prod(const.core) // width
            looked = self._look_up(const.param, count, width, (count,))
            again = looked.reshape(const.core)
            assert again is not None
            made = self._expand(again, const.shape)
        else:
            assert node is not None
            made = self._replay(const, node)
        self.node = saved
        const.forced = made
        return made

    def _replay(self, const: Const, node: TorchNode) -> View:
        self.node = node
        target = node.target.rstrip("_")
        source = const.reads.get(node.args[0].name) if node.args and isinstance(node.args[0], Ref) else None
        if target in ("slice", "narrow", "index_select", "index", "select") and isinstance(source, Const):
            picked = source.param is not None and len(source.core) == 2 and source.core == source.shape
            rows = const.shape[-1:] == source.shape[-1:]
            if picked and rows and source.param is not None:
                found = self._look_up(source.param, source.shape[0], source.shape[1], (math.prod(const.shape[:-1]),))
                again = found.reshape(const.shape)
                assert again is not None
                return again
        if target == "getitem":
            raise HwsimError(f"{node.where}: a part of a learned constant used as an activation is not supported")
        # An in-place call may have rebound a name since; weights of a convolution or linear layer stay weights.
        shadow = {name: self.env.get(name) for name in const.reads}
        self.env.update(const.reads)
        for arg in _refs(node)[: 1 if target in _WEIGHTED else None]:
            value = self.env.get(arg.name)
            if isinstance(value, Const) and (value.learned or target in _WEIGHTED):
                self.env[arg.name] = self.force(value)
        self.node = node
        try:
            made = self.handle(target, node)
        finally:
            self.env.update(shadow)
        if not isinstance(made, View):
            raise HwsimError(f"{node.where}: a learned constant with several results is not supported")
        return made

    def _stored(self, shape: IntShape, dtype: str) -> View:
        ident = self.rows.add("constant", self.label(self.node, "constant"), [], shape, None, dtype)
        self.dtypes[ident] = dtype
        return view_of(ident, shape)

    def _look_up(self, key: str, count: int, width: int, index: IntShape) -> View:
        ids = self._stored(index, "int64")
        attrs: dict[str, AttrValue | None] = {"rows": count, "width": width, "tied": self.used.get(key)}
        ident = self.rows.add("embedding", self.label(self.node, "embedding"), [ids.base], (*index, width), attrs)
        self.used.setdefault(key, ident)
        return view_of(ident, (*index, width))

    def _expand(self, view: View, shape: IntShape) -> View:
        if view.shape == shape:
            return view
        while len(view.shape) < len(shape):
            view = view.insert(0)
        dtype = self.dtypes.get(view.base, "fp32")
        ident = self.rows.add("expand", self.label(self.node, "expand"), [self.make(view)], shape, None, dtype)
        self.dtypes[ident] = dtype
        return view_of(ident, shape)

    # -- metadata operators --------------------------------------------------------------------------------------

    def same(self, target: str, node: TorchNode) -> Value:
        """First argument unchanged; integers turned into floats become a cast."""
        got = self.value(node.args[0])
        out = node.outs[0] if node.outs else None
        if isinstance(got, View) and out is not None:
            have = self.dtypes.get(got.base, "fp32")
            if have != out.dtype and (out.is_float != self._is_float(got)):
                return self.row("cast", [self.make(got)], out.shape)
        return (got, None) if target == "native_dropout" else got

    def reshape(self, target: str, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        shape = node.out.shape
        made = view.reshape(shape)
        if made is None:
            solid = self.solid(view)
            made = solid.reshape(shape)
        if made is None:
            made = self.row("reshape", [self.make(view)], shape)
        return made

    def permute(self, target: str, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        rank = len(view.shape)
        if target in ("t", "numpy_T"):
            order = list(range(rank))[::-1]
        elif target in ("permute", "permute_copy"):
            order = [int(p) % rank for p in self.arg(node, 1, "dims")]
        elif target in ("movedim", "moveaxis"):
            a, b = self.arg(node, 1, "source"), self.arg(node, 2, "destination")
            froms = [int(v) % rank for v in (a if isinstance(a, list) else [a])]
            tos = [int(v) % rank for v in (b if isinstance(b, list) else [b])]
            order = [i for i in range(rank) if i not in froms]
            for to, source in sorted(zip(tos, froms, strict=True)):
                order.insert(to, source)
        else:
            a, b = (-2, -1) if target == "mT" else (int(self.arg(node, 1, "dim0")), int(self.arg(node, 2, "dim1")))
            order = list(range(rank))
            order[a], order[b] = order[b], order[a]
        return view.permute(order)

    def part(self, view: View, dim: int, start: int, size: int) -> View:
        """A contiguous part, as a mapping when possible."""
        made = view.part(dim, start, size)
        if made is None:
            made = self.solid(view).part(dim, start, size)
        assert made is not None  # one atom per dimension: always expressible
        return made

    def slice_(self, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        dim = int(self.arg(node, 1, "dim", 0)) % len(view.shape)
        extent, size = view.shape[dim], node.out.shape[dim]
        start = self.arg(node, 2, "start", 0) or 0
        start = max(0, min(extent, start + extent if start < 0 else start))
        step = int(self.arg(node, 4, "step", 1) or 1)
        if node.target.startswith("narrow"):
            step = 1
        if step != 1:
            return self.row("slice", [self.make(view)], node.out.shape, axis=dim, start=start, step=step)
        return self.part(view, dim, start, size)

    def select(self, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        dim = int(node.args[1]) % len(view.shape)
        index = int(node.args[2])
        return self.part(view, dim, index % view.shape[dim], 1).drop(dim)

    def split(self, target: str, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        default = self.arg(node, 1, "dim", 0) if target == "unbind" else self.arg(node, 2, "dim", 0)
        dim = int(default) % len(view.shape)
        parts: list[View] = []
        start = 0
        for out in node.outs:
            size = 1 if target == "unbind" else out.shape[dim] if out else 0
            made = self.part(view, dim, start, size)
            parts.append(made.drop(dim) if target == "unbind" else made)
            start += size
        return tuple(parts)

    def expand(self, node: TorchNode) -> Value:
        return self._expand(self.view(node.args[0], node), node.out.shape)

    # -- element-wise ------------------------------------------------------------------------------------------------

    def unary(self, target: str, node: TorchNode) -> Value:
        op = table.UNARY[target]
        attrs: dict[str, AttrValue | None] = {}
        if op == "clip":
            attrs = _bounds(node, self)
        return self.pointwise(self.view(node.args[0], node), op, attrs)

    def pointwise(self, view: View, op: str, attrs: dict[str, AttrValue | None] | None = None) -> View:
        """An element-wise operator on one activation, applied before any re-arrangement."""
        if view.sliced:
            view = self.solid(view)
        made = self.row(op, [view.base], view.base_shape, **(attrs or {}))
        return view.on(made.base)

    def hardtanh(self, node: TorchNode) -> Value:
        low, high = float(self.arg(node, 1, "min_val", -1.0)), float(self.arg(node, 2, "max_val", 1.0))
        view = self.view(node.args[0], node)
        name = {(0.0, 6.0): "relu6", (-1.0, 1.0): "relu_n1_to_1"}.get((low, high))
        return self.pointwise(view, name) if name else self.pointwise(view, "clip", {"low": low, "high": high})

    def gelu(self, node: TorchNode) -> Value:
        kind = self.arg(node, 1, "approximate", "none")
        return self.pointwise(self.view(node.args[0], node), "gelu_tanh" if kind == "tanh" else "gelu")

    def prelu(self, node: TorchNode) -> Value:
        slope = self.const(node.args[1], node)
        return self.pointwise(self.view(node.args[0], node), "prelu", {"width": math.prod(slope.shape) if slope else 1})

    def binary(self, target: str, node: TorchNode) -> Value:
        return self.combine(table.BINARY[target], node, node.args[0], node.args[1])

    def combine(self, op: str, node: TorchNode, a: Any, b: Any) -> Value:
        """An element-wise operator on two values, either of which may be a number or a constant."""
        left, right = self.value(a), self.value(b)
        if isinstance(left, View) and isinstance(right, View):
            return self._combine_views(op, node, left, right)
        view = left if isinstance(left, View) else right
        other, raw = (right, b) if view is left else (left, a)
        if not isinstance(view, View):
            raise HwsimError(f"{node.where}: needs a tensor operand")
        if not isinstance(other, Const):
            if raw == {"add": 0, "sub": 0, "mul": 1, "div": 1}.get(op, "") and (view is left or op in ("add", "mul")):
                return view
            if op == "pow" and view is left:
                name = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(raw)
                if name:
                    return self.pointwise(view, name)
            number = float(raw) if isinstance(raw, int | float) else None
            return self.pointwise(view, op, {"value": number})
        if math.prod(other.core) == 1 and not other.learned:
            grown = self._grown(view, node)
            return self.pointwise(grown, op)
        if other.learned and (other.param is None or math.prod(other.core) != self.param_size.get(other.param)):
            return self._combine_views(op, node, view, self.force(other))
        learned = other.param is not None and other.param not in self.used
        if len(view.shape) < len(node.out.shape) or view.shape != node.out.shape:
            made = self.row(op, [self.make(view)], node.out.shape, const=other.core, learned=learned)
        else:
            core = _trim(other.core)
            inside = None if len(core) > len(view.shape) else view.constant_in_base(core)
            if inside is None:
                view = self.solid(view)
                inside = core
            made = view.on(self.row(op, [view.base], view.base_shape, const=inside, learned=learned).base)
        if learned and other.param is not None:
            self.used[other.param] = made.base
        return made

    def _grown(self, view: View, node: TorchNode) -> View:
        return view if view.shape == node.out.shape else self._expand(view, node.out.shape)

    def _combine_views(self, op: str, node: TorchNode, left: View, right: View) -> View:
        same = left.base_shape == right.base_shape and not left.sliced and not right.sliced
        if same and left.dims == right.dims and left.atoms == right.atoms and left.base_dims == right.base_dims:
            return left.on(self.row(op, [left.base, right.base], left.base_shape).base)
        return self.row(op, [self.make(left), self.make(right)], node.out.shape)

    def rsub(self, node: TorchNode) -> Value:
        return self.combine("sub", node, node.args[1], node.args[0])

    def addcmul(self, node: TorchNode) -> Value:
        product = self.row("mul", [self.make(self.view(a, node)) for a in node.args[1:3]], node.out.shape)
        return self._combine_views("add", node, self.view(node.args[0], node), product)

    def where(self, node: TorchNode) -> Value:
        """Select by a mask; what the mask is made of is folded, so it counts as a constant."""
        values = [self.value(a) for a in _refs(node)]
        sources = [self.make(v) for v in values if isinstance(v, View) and self._is_float(v)]
        shapes = [v.shape for v in values if isinstance(v, View) and self._is_float(v)]
        cores = [v.core for v in values if isinstance(v, Const)]
        mask = _trim(_broadcast_cores(cores, node.out.shape))
        shape = _broadcast_cores([*shapes, mask], node.out.shape)
        made = self.row("where", sources, shape, const=mask if cores else None)
        return self._expand(made, node.out.shape)

    # -- contractions ----------------------------------------------------------------------------------------------

    def conv(self, target: str, node: TorchNode) -> Value:
        x = self.solid(self.view(node.args[0], node))
        weight = self.const(node.args[1], node)
        assert weight is not None
        rank = len(weight.shape) - 2
        bias = self.const(self.arg(node, 2, "bias"), node)
        general = target in ("convolution", "_convolution")
        transposed = target.startswith("conv_transpose") or (general and bool(self.arg(node, 6, "transposed")))
        stride = _repeat(self.arg(node, 3, "stride", 1), rank)
        padding = self.arg(node, 4, "padding", 0)
        output_padding = (0,) * rank
        if target.startswith("conv_transpose"):
            output_padding = _repeat(self.arg(node, 5, "output_padding", 0), rank)
            groups, dilation = int(self.arg(node, 6, "groups", 1)), _repeat(self.arg(node, 7, "dilation", 1), rank)
        elif general:
            dilation, groups = _repeat(self.arg(node, 5, "dilation", 1), rank), int(self.arg(node, 8, "groups", 1))
            output_padding = _repeat(self.arg(node, 7, "output_padding", 0), rank)
        else:
            dilation, groups = _repeat(self.arg(node, 5, "dilation", 1), rank), int(self.arg(node, 6, "groups", 1))
        kernel = weight.shape[2:]
        if padding == "same":
            spread = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            begin, end = tuple(s // 2 for s in spread), tuple(s - s // 2 for s in spread)
            pads = begin if begin == end else (*begin, *end)
        else:
            pads = (0,) * rank if padding == "valid" else _repeat(padding, rank)
        out = node.out.shape
        if len(out) == rank + 1:  # without a batch dimension
            x, out = self.solid(x.insert(0)), (1, *out)
        made = self.row(
            "conv_transpose" if transposed else "conv", [x.base], out, k=kernel,
            s=_short(stride) if any(v != 1 for v in stride) else None, p=_short(pads) if any(pads) else None,
            d=_short(dilation) if any(v != 1 for v in dilation) else None, g=groups if groups != 1 else None,
            op=_short(output_padding) if any(output_padding) else None, bias=bias is not None, tied=self._tie(weight),
        )  # fmt: skip
        self._claim(weight, made)
        return made if len(out) == len(node.out.shape) else made.drop(0)

    def _tie(self, weight: Value) -> str | None:
        return self.used.get(weight.param) if isinstance(weight, Const) and weight.param is not None else None

    def _claim(self, weight: Value, made: View) -> None:
        if isinstance(weight, Const) and weight.param is not None:
            self.used.setdefault(weight.param, made.base)

    def by_rows(self, view: View, emit: Callable[[str, IntShape], View]) -> View:
        """Apply a row-wise operator without paying for the arrangement of its rows."""
        if view.whole_rows:
            made = emit(view.base, view.base_shape)
            return view.with_rows(made.base, made.shape[-1])
        rows = view.sorted_rows()
        made = emit(self.make(rows), rows.shape)
        if rows is view:
            return made
        return view.rows_over(rows, made.base, made.shape[-1])

    def matrix(self, view: View, weight: Const, bias: Const | None, width: int) -> View:
        """Rows of an activation times a constant matrix of ``width`` columns."""
        tied = self._tie(weight)
        separate = tied is not None and bias is not None and bias.param not in self.used

        def emit(base: str, shape: IntShape) -> View:
            return self.row(
                "linear", [base], (*shape[:-1], width), k=shape[-1], bias=bias is not None and not separate, tied=tied
            )

        made = self.by_rows(view, emit)
        self._claim(weight, made)
        if bias is not None:
            self._claim(bias, made)
        if separate:
            made = made.on(self.row("add", [made.base], made.base_shape, const=(width,), learned=True).base)
        return made

    def linear(self, node: TorchNode) -> Value:
        weight = self.const(node.args[1], node)
        assert weight is not None
        bias = self.const(self.arg(node, 2, "bias"), node)
        return self.matrix(self.view(node.args[0], node), weight, bias, weight.shape[0])

    def addmm(self, node: TorchNode) -> Value:
        weight = self.value(node.args[2])
        bias = self.value(node.args[0])
        if isinstance(weight, Const) and isinstance(bias, Const):
            return self.matrix(self.view(node.args[1], node), weight, bias, weight.shape[-1])
        product = self._multiply(node, node.args[1], node.args[2], node.out.shape)
        return self.combine_view(node, "add", product, node.args[0])

    def combine_view(self, node: TorchNode, op: str, view: View, other: Any) -> Value:
        """Like `combine`, with the first operand already a view."""
        self.env["%tmp"] = view
        return self.combine(op, node, Ref("%tmp"), other)

    def matmul(self, node: TorchNode) -> Value:
        return self._multiply(node, node.args[0], node.args[1], node.out.shape)

    def baddbmm(self, node: TorchNode) -> Value:
        product = self._multiply(node, node.args[1], node.args[2], node.out.shape)
        if self.arg(node, 3, "beta", 1) == 0:
            return product
        return self.combine_view(node, "add", product, node.args[0])

    def _multiply(self, node: TorchNode, a: Any, b: Any, out: IntShape) -> View:
        left, right = self.value(a), self.value(b)
        if (
            isinstance(right, Const)
            and len(_trim(right.shape)) <= 2
            and isinstance(left, View)
            and len(right.shape) >= 2
        ):
            return self.matrix(left, right, None, right.shape[-1])
        x, y = self.view(a, node), self.view(b, node)
        if len(x.shape) < 2 or len(y.shape) < 2:
            raise HwsimError(f"{node.where}: a product with a vector is not supported")
        swap = [*range(len(y.shape) - 2), len(y.shape) - 1, len(y.shape) - 2]
        other = y.permute(swap)
        flipped = _cost(other) < _cost(y) or (_cost(other) == _cost(y) and y.dims[-1] > y.dims[-2])
        return self.row("matmul", [self.make(x), self.make(other if flipped else y)], out, bt=flipped)

    def attention(self, node: TorchNode) -> Value:
        q, k, v = (self.view(a, node) for a in node.args[:3])
        mask = self.value(self.arg(node, 3, "attn_mask"))
        causal = bool(self.arg(node, 5, "is_causal", False))
        sources = [self.make(t) for t in (q, k, v)]
        if isinstance(mask, Const) and not mask.learned:
            causal = causal or mask.causal
        elif isinstance(mask, Const):
            sources.append(self.make(self.force(mask)))
        elif isinstance(mask, View):
            sources.append(self.make(mask))
        shape = (*q.shape[:-1], v.shape[-1])
        if len(q.shape) == 2:
            raise HwsimError(f"{node.where}: attention without heads or batch is not supported")
        return self.row("attention", sources, shape, causal=causal)

    def recurrent(self, target: str, node: TorchNode) -> Value:
        x = self.view(node.args[0], node)
        weights, has_bias, layers = node.args[2], bool(node.args[3]), int(node.args[4])
        both, batch_first = bool(node.args[7]), bool(node.args[8])
        per = (4 if has_bias else 2) * (2 if both else 1)
        first = self.const(weights[0], node)
        assert first is not None
        hidden = first.shape[0] // {"lstm": 4, "gru": 3}.get(target, 1)
        if len(weights) != per * layers:
            raise HwsimError(f"{node.where}: projected recurrent cells are not supported")
        for _ in range(layers):
            width = hidden * (2 if both else 1)
            x = self.row(
                target if target in ("lstm", "gru") else "rnn", [self.make(x)], (*x.shape[:2], width), h=hidden,
                bi=both, bias=has_bias, bias2=has_bias, seq_first=not batch_first,
            )  # fmt: skip
        state = None if len(node.outs) < 2 or node.outs[1] is None else node.outs[1]
        last: Value = Const(state.shape, state.shape, state.dtype) if state else None
        return (x, *([last] * (len(node.outs) - 1)))

    def embedding(self, node: TorchNode) -> Value:
        weight = self.const(node.args[0], node)
        assert weight is not None
        ids = self.value(node.args[1])
        if isinstance(ids, View):
            index = ids
        else:
            assert isinstance(ids, Const)
            index = self._stored(ids.core, "int64")
        rows, width = weight.shape
        shape = (*index.shape, width)
        if not index.sliced and index.dims != index.base_dims:
            made = self.row(
                "embedding", [index.base], (*index.base_shape, width), rows=rows, width=width, tied=self._tie(weight)
            )
            self._claim(weight, made)
            again = made.reshape(shape) if index.shape != index.base_shape else None
            if again is not None and sorted(index.dims) == list(index.dims):
                return again
        made = self.row("embedding", [self.make(index)], shape, rows=rows, width=width, tied=self._tie(weight))
        self._claim(weight, made)
        return made if shape == node.out.shape else self._expand(made, node.out.shape)

    # -- normalisation, pooling, reductions ------------------------------------------------------------------------

    def batch_norm(self, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        weight = self.const(self.arg(node, 1, "weight"), node)
        width = view.shape[1]
        solid = self.solid(view)
        tied = self._tie(weight) if weight else None
        made = self.row("batch_norm", [solid.base], solid.shape, width=width, vectors=None if weight else 0, tied=tied)
        if weight:
            self._claim(weight, made)
        return (made, None, None) if len(node.outs) > 1 else made

    def layer_norm(self, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        shape = [int(v) for v in self.arg(node, 1, "normalized_shape")]
        weight, bias = self.value(self.arg(node, 2, "weight")), self.value(self.arg(node, 3, "bias"))
        op = "rms_norm" if node.target.endswith("rms_norm") else "layer_norm"
        full = 1 if op == "rms_norm" else 2
        vectors = (1 if weight else 0) + (1 if bias and op == "layer_norm" else 0)
        width = math.prod(shape)

        def emit(base: str, extent: IntShape) -> View:
            some = None if vectors == full else vectors
            return self.row(op, [base], extent, width=width, vectors=some, tied=self._tie(weight))

        if len(shape) == 1:
            made = self.by_rows(view, emit)
        else:
            made = emit(self.make(view), view.shape)
        self._claim(weight, made)
        return (made, None, None) if len(node.outs) > 1 else made

    def group_norm(self, node: TorchNode) -> Value:
        solid = self.solid(self.view(node.args[0], node))
        native = node.target.startswith("native")
        groups = int(self.arg(node, 6 if native else 1, "group" if native else "num_groups"))
        weight = self.value(self.arg(node, 1 if native else 2, "weight"))
        made = self.row(
            "group_norm", [solid.base], solid.shape, width=solid.shape[1], groups=groups,
            vectors=None if weight else 0, tied=self._tie(weight),
        )  # fmt: skip
        self._claim(weight, made)
        return (made, None, None) if native else made

    def instance_norm(self, node: TorchNode) -> Value:
        solid = self.solid(self.view(node.args[0], node))
        weight = self.value(self.arg(node, 1, "weight"))
        return self.row("instance_norm", [solid.base], solid.shape, width=solid.shape[1], vectors=None if weight else 0)

    def softmax(self, target: str, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        axis = int(self.arg(node, 1, "dim")) % len(view.shape)
        op = table.SOFTMAX[target]
        if axis == len(view.shape) - 1:
            return self.by_rows(view, lambda base, shape: self.row(op, [base], shape, axis=len(shape) - 1))
        return self.row(op, [self.make(view)], view.shape, axis=axis)

    def pool(self, target: str, node: TorchNode) -> Value:
        solid = self.solid(self.view(node.args[0], node))
        rank = int(target[target.index("pool") + 4])
        kernel = _repeat(self.arg(node, 1, "kernel_size"), rank)
        stride = _repeat(self.arg(node, 2, "stride") or kernel, rank)
        padding = _repeat(self.arg(node, 3, "padding", 0), rank)
        largest = target.startswith("max")
        dilation = _repeat(self.arg(node, 4, "dilation", 1), rank) if largest else (1,) * rank
        ceil = bool(self.arg(node, 5, "ceil_mode", False) if largest else self.arg(node, 4, "ceil_mode", False))
        counted = False if largest else bool(self.arg(node, 5, "count_include_pad", True)) and any(padding)
        made = self.row(
            table.POOL[target], [solid.base], node.out.shape, k=kernel, s=_short(stride) if stride != kernel else None,
            p=_short(padding) if any(padding) else None, d=_short(dilation) if any(v != 1 for v in dilation) else None,
            ceil=ceil, count_pad=counted,
        )  # fmt: skip
        return (made, None) if len(node.outs) > 1 else made

    def adaptive(self, target: str, node: TorchNode) -> Value:
        solid = self.solid(self.view(node.args[0], node))
        if solid.shape == node.out.shape:
            return (solid, None) if len(node.outs) > 1 else solid
        rank = int(target[target.index("pool") + 4])
        made = self.row(table.ADAPTIVE[target], [solid.base], node.out.shape, size=node.out.shape[-rank:])
        return (made, None) if len(node.outs) > 1 else made

    def reduce(self, target: str, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        rank = len(view.shape)
        at = 2 if target in ("linalg_vector_norm", "norm") else 1
        if target in ("max", "min") and isinstance(self.arg(node, 1, "other"), Ref):
            return self.combine("maximum" if target == "max" else "minimum", node, node.args[0], node.args[1])
        dims = self.arg(node, at, "dim")
        axes = (
            range(rank)
            if dims is None or dims == []
            else [int(d) % rank for d in (dims if isinstance(dims, list) else [dims])]
        )
        kept = {i: d for i, d in enumerate(view.shape) if i not in axes}
        keep = len(node.out.shape) == rank and rank > 0 and len(kept) < rank
        made = self.row(table.REDUCE[target], [self.make(view)], node.out.shape, axes=tuple(sorted(axes)), keep=keep)
        return (made, None) if len(node.outs) > 1 else made

    # -- moving data -----------------------------------------------------------------------------------------------

    def cat(self, node: TorchNode) -> Value:
        items = node.args[0]
        axis = int(self.arg(node, 1, "dim", 0))
        if node.target == "stack":
            rank = len(node.out.shape)
            axis %= rank
            views = [self.view(i, node).insert(axis) for i in items]
            return self.row("concat", [self.make(v) for v in views], node.out.shape, axis=axis)
        axis %= len(node.out.shape)
        values = [self.value(i) for i in items]
        views = [v for v in values if isinstance(v, View)]
        consts = [v for v in values if isinstance(v, Const) and v.shape != (0,)]
        rows = 0
        sources: list[str] = []
        for value in values:
            if isinstance(value, Const) and value in consts:
                whole = value.param is not None and math.prod(value.core) == self.param_size.get(value.param)
                if whole and value.param not in self.used and axis != 0 and value.core[0] == 1 and rows == 0:
                    rows = value.shape[axis]
                    self.used[str(value.param)] = "%cat"
                else:
                    sources.append(self.make(self._expand(self.force(value), value.shape)))
            elif isinstance(value, View):
                sources.append(self.make(value))
        if len(views) == 1 and not rows and len(sources) == 1:
            return views[0]
        return self.row("concat", sources, node.out.shape, axis=axis, constant=rows or None)

    def roll(self, node: TorchNode) -> Value:
        view = self.solid(self.view(node.args[0], node))
        axes, shift = _tuple(self.arg(node, 2, "dims", [])), _tuple(node.args[1])
        return self.row("roll", [view.base], view.shape, axes=axes, shift=shift)

    def flip(self, node: TorchNode) -> Value:
        view = self.solid(self.view(node.args[0], node))
        return self.row("flip", [view.base], view.shape, axes=_tuple(node.args[1]))

    def pad(self, node: TorchNode) -> Value:
        amounts = [int(v) for v in node.args[1]]
        if not any(amounts):
            return self.value(node.args[0])
        view = self.solid(self.view(node.args[0], node))
        rank = len(view.shape)
        begin, end = [0] * rank, [0] * rank
        for i in range(len(amounts) // 2):
            begin[rank - 1 - i], end[rank - 1 - i] = amounts[2 * i], amounts[2 * i + 1]
        mode = "constant"
        fill = 0.0
        if node.target == "pad":
            mode = str(self.arg(node, 2, "mode", "constant"))
            fill = self.arg(node, 3, "value") or 0.0
        elif node.target.startswith(("reflection", "replication")):
            mode = node.target.split("_")[0]
        else:
            fill = self.arg(node, 2, "value", 0) or 0.0
        if min(*begin, *end) < 0:
            for dim, (b, e) in enumerate(zip(begin, end, strict=True)):
                if b < 0 or e < 0:
                    view = self.part(view, dim, max(0, -b), view.shape[dim] + min(b, 0) + min(e, 0))
            begin, end = [max(0, b) for b in begin], [max(0, e) for e in end]
            if not any((*begin, *end)):
                return view
        kind = None if mode == "constant" and fill == 0 else mode if mode != "constant" else "fill"
        return self.row("pad", [self.make(view)], node.out.shape, p=(*begin, *end), mode=kind)

    def resize(self, target: str, node: TorchNode) -> Value:
        view = self.solid(self.view(node.args[0], node))
        if view.shape == node.out.shape:
            return view
        return self.row("resize", [view.base], node.out.shape, mode=table.RESIZE[target])

    def shuffle(self, node: TorchNode) -> Value:
        solid = self.solid(self.view(node.args[0], node))
        op = "space_to_depth" if node.target == "pixel_unshuffle" else "depth_to_space"
        return self.row(op, [solid.base], node.out.shape, block=int(node.args[1]))

    def channel_shuffle(self, node: TorchNode) -> Value:
        view = self.view(node.args[0], node)
        n, c, *rest = view.shape
        groups = int(node.args[1])
        split = view.reshape((n, groups, c // groups, *rest)) or self.solid(view).reshape(
            (n, groups, c // groups, *rest)
        )
        assert split is not None
        swapped = split.permute((0, 2, 1, *range(3, 3 + len(rest))))
        return swapped.reshape((n, c, *rest))

    def gather(self, node: TorchNode) -> Value:
        sources = [self.make(v) for v in self._operands(node) if isinstance(v, View)][:2]
        axis = 0
        if node.target in ("gather", "index_select"):
            axis = int(node.args[1])
        elif node.target == "index":
            axis = next((i for i, v in enumerate(node.args[1]) if v is not None), 0)
        return self.row("gather", sources, node.out.shape, axis=axis % max(1, len(node.out.shape)))

    def repeat(self, node: TorchNode) -> Value:
        return self.row("tile", [self.make(self.view(node.args[0], node))], node.out.shape)

    def grid_sample(self, node: TorchNode) -> Value:
        return self.row("grid_sample", [self.make(self.view(a, node)) for a in node.args[:2]], node.out.shape)

    def top_k(self, node: TorchNode) -> Value:
        made = self.row("top_k", [self.make(self.view(node.args[0], node))], node.out.shape, k=int(node.args[1]))
        index = node.outs[1]
        assert index is not None
        return (made, Const(index.shape, index.shape, index.dtype, runtime=made.base))

    def einsum(self, node: TorchNode) -> Value:
        return _einsum(self, node)


# -- helpers -----------------------------------------------------------------------------------------------------------


def _repeat(value: Any, rank: int) -> IntShape:
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    return values * rank if len(values) == 1 else values


def _tuple(value: Any) -> IntShape:
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)


def _short(values: IntShape) -> IntShape:
    """One value where all are equal."""
    return values[:1] if len(set(values)) == 1 else values


def _trim(shape: IntShape) -> IntShape:
    """Without leading dimensions of 1, which broadcasting adds back."""
    at = 0
    while at < len(shape) - 1 and shape[at] == 1:
        at += 1
    return shape[at:]


def _broadcast_cores(cores: Sequence[IntShape], out: IntShape) -> IntShape:
    rank = len(out)
    full = [(1,) * (rank - len(c)) + c for c in cores]
    return tuple(max((c[i] for c in full), default=1) for i in range(rank))


def _cost(view: View) -> int:
    return sum({"transpose": 100, "split": 1, "reshape": 1}[s.op] for s in plan(view))


def _refs(node: TorchNode) -> list[Ref]:
    found: list[Ref] = []

    def walk(value: Any) -> None:
        if isinstance(value, Ref):
            found.append(value)
        elif isinstance(value, list | tuple):
            for v in value:
                walk(v)

    walk(list(node.args))
    walk(list(node.kwargs.values()))
    return found


def _bounds(node: TorchNode, at: Converter) -> dict[str, AttrValue | None]:
    if node.target.startswith("clamp_max"):
        low, high = None, at.arg(node, 1, "max")
    else:
        low, high = at.arg(node, 1, "min"), at.arg(node, 2, "max")
    return {
        "low": float(low) if isinstance(low, int | float) else None,
        "high": float(high) if isinstance(high, int | float) else None,
    }


def _einsum(at: Converter, node: TorchNode) -> View:
    """Two-operand contraction as one batched product: batch, row, column and reduced letters."""
    equation, operands = str(node.args[0]).replace(" ", ""), node.args[1]
    left, _, out = equation.partition("->")
    names = left.split(",")
    if len(names) != 2 or "." in equation or not out or any(len(set(n)) != len(n) for n in names):
        raise HwsimError(f"{node.where}: einsum {equation!r} is not a product of two tensors")
    a, b = names
    x, y = at.view(operands[0], node), at.view(operands[1], node)
    size = dict(zip(a, x.shape, strict=True)) | dict(zip(b, y.shape, strict=True))
    batch = [c for c in out if c in a and c in b]
    rows = [c for c in out if c in a and c not in b]
    cols = [c for c in out if c in b and c not in a]
    inner = [c for c in a if c in b and c not in out]
    if set(a) != {*batch, *rows, *inner} or set(b) != {*batch, *cols, *inner}:
        raise HwsimError(f"{node.where}: einsum {equation!r} is not a product of two tensors")

    def arrange(view: View, have: str, groups: list[list[str]]) -> str:
        moved = view.permute([have.index(c) for g in groups for c in g])
        shape = tuple(math.prod(size[c] for c in g) for g in groups)
        shaped = moved.reshape(shape) or at.solid(moved).reshape(shape)
        assert shaped is not None
        return at.make(shaped)

    m, n, count = (math.prod(size[c] for c in g) for g in (rows, cols, batch))
    first = arrange(x, a, [batch, rows, inner])
    second = arrange(y, b, [batch, cols, inner])
    made = at.row("matmul", [first, second], (count, m, n), bt=True)
    opened = made.reshape(tuple(size[c] for c in (*batch, *rows, *cols)))
    assert opened is not None
    order = [*batch, *rows, *cols]
    return opened.permute([order.index(c) for c in out])


_MOVES = frozenset(("split", "reshape", "transpose", "expand", "constant", "embedding"))
_WEIGHTED = frozenset(("linear", "addmm", "conv1d", "conv2d", "layer_norm", "batch_norm", "embedding", "rms_norm"))
_CONVS = frozenset(
    (
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "convolution",
        "_convolution",
    )
)
_TABLES: tuple[tuple[Any, Callable[[Converter, str, TorchNode], Value]], ...] = (
    (table.SAME, Converter.same),
    (table.RESHAPE, Converter.reshape),
    (table.PERMUTE, Converter.permute),
    (table.UNARY, Converter.unary),
    (table.BINARY, Converter.binary),
    (table.REDUCE, Converter.reduce),
    (table.SOFTMAX, Converter.softmax),
    (table.POOL, Converter.pool),
    (table.ADAPTIVE, Converter.adaptive),
    (table.RESIZE, Converter.resize),
    (_CONVS, Converter.conv),
    (("split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk", "tensor_split"), Converter.split),
    (("lstm", "gru", "rnn_tanh", "rnn_relu"), Converter.recurrent),
)
_METHODS: dict[str, Callable[[Converter, TorchNode], Value]] = {
    "slice": Converter.slice_, "narrow": Converter.slice_, "select": Converter.select, "expand": Converter.expand,
    "expand_as": Converter.expand, "broadcast_to": Converter.expand, "hardtanh": Converter.hardtanh,
    "gelu": Converter.gelu, "prelu": Converter.prelu, "addcmul": Converter.addcmul, "where": Converter.where,
    "masked_fill": Converter.where, "linear": Converter.linear, "addmm": Converter.addmm, "mm": Converter.matmul,
    "bmm": Converter.matmul, "matmul": Converter.matmul, "baddbmm": Converter.baddbmm,
    "scaled_dot_product_attention": Converter.attention, "embedding": Converter.embedding,
    "batch_norm": Converter.batch_norm, "_native_batch_norm_legit_no_training": Converter.batch_norm,
    "layer_norm": Converter.layer_norm, "native_layer_norm": Converter.layer_norm, "rms_norm": Converter.layer_norm,
    "group_norm": Converter.group_norm, "native_group_norm": Converter.group_norm,
    "instance_norm": Converter.instance_norm, "cat": Converter.cat, "concat": Converter.cat, "stack": Converter.cat,
    "roll": Converter.roll, "flip": Converter.flip, "pad": Converter.pad, "constant_pad_nd": Converter.pad,
    "reflection_pad2d": Converter.pad, "replication_pad2d": Converter.pad, "pixel_shuffle": Converter.shuffle,
    "pixel_unshuffle": Converter.shuffle, "channel_shuffle": Converter.channel_shuffle, "index": Converter.gather,
    "gather": Converter.gather, "index_select": Converter.gather, "repeat": Converter.repeat,
    "repeat_interleave": Converter.repeat, "tile": Converter.repeat, "grid_sampler": Converter.grid_sample,
    "grid_sampler_2d": Converter.grid_sample, "topk": Converter.top_k, "einsum": Converter.einsum,
}  # fmt: skip
