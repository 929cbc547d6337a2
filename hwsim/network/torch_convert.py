"""From ATen calls to hwsim rows: the walk over the calls; the operators are in `torch_move`, `_vector` and `_contract`.

Values are of two kinds. A `View` reads an activation; metadata operators only change the view. A `Const` does not
depend on any floating-point input: parameters, index and mask arithmetic. Constants are folded (a compiler computes
them once); only a learned one that something other than a layer's own weight needs is written out as rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hwsim.errors import HwsimError
from hwsim.network import torch_contract, torch_move, torch_vector
from hwsim.network import torch_ops as table
from hwsim.network.dims import IntShape
from hwsim.network.graph import AttrValue, Network, Tensor
from hwsim.network.torch_graph import Ref, TorchGraph, TorchNode
from hwsim.network.torch_rows import Rows, fold
from hwsim.network.torch_values import Const, Value, broadcast_cores, refs
from hwsim.network.torch_views import View, plan, view_of


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
            self.rows.inputs[label] = tensor.shape
            if "mask" in key or tensor.dtype == "bool":
                self.env[key] = Const(tensor.shape, tensor.shape, tensor.dtype, runtime=label)
            else:
                self.env[key] = view_of(label, tensor.shape)
        for node in self.graph.nodes:
            self.node = node
            self.env[node.name] = self._visit_checked(node)
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

    def _visit_checked(self, node: TorchNode) -> Value:
        try:
            return self.visit(node)
        except HwsimError:
            raise
        except (
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            ArithmeticError,
            AssertionError,
            RecursionError,
        ) as error:
            # A saved program is input: its arguments need not be what the operator takes.
            reason = f"{type(error).__name__} {str(error)[:60]}".strip()
            raise HwsimError(f"{node.where}: its arguments are not what this operator takes ({reason})") from None

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
        operands = self.operands(node)
        if target in table.MAKERS:
            return self._constant(node, operands)
        floats = [o for o in operands if isinstance(o, View) and self.is_float(o)]
        views = [o for o in operands if isinstance(o, View)]
        if not floats and target not in ("embedding", "embedding_bag"):
            metadata = target in table.SAME or target in table.RESHAPE or target in table.PERMUTE
            if not views or not (metadata or (node.outs and node.outs[0] and node.out.is_float)):
                return self._constant(node, operands)
        return self.handle(target, node)

    def handle(self, target: str, node: TorchNode) -> Value:
        """Dispatch one call by the tables of the handler modules."""
        handler = _HANDLERS.get(target)
        if handler is None:
            raise HwsimError(
                f"{node.where}: this PyTorch operator has no hwsim equivalent; export a part of the model without it"
            )
        return handler(self, target, node)

    def operands(self, node: TorchNode) -> list[Value]:
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

    def is_float(self, view: View) -> bool:
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
                one.reads = {ref.name: self.env.get(ref.name) for ref in refs(node)}
            uniform = bool(consts) and not learned and all(math.prod(c.core) == 1 for c in consts)
            if target in table.UNIFORM or (uniform and target in _KEEP_UNIFORM):
                one.core = (1,) * len(out.shape)
            elif target in table.SAME and consts:
                one.param, one.core = consts[0].param, consts[0].core
            elif target in ("expand", "expand_as") and consts:
                one.param = consts[0].param
                one.core = (1,) * (len(out.shape) - len(consts[0].core)) + consts[0].core
            elif (target in table.RESHAPE or target in table.PERMUTE) and consts and consts[0].core == consts[0].shape:
                one.param = consts[0].param
            elif target in (*table.BINARY, *table.UNARY, "where", "masked_fill") and len(node.outs) == 1:
                one.core = broadcast_cores([c.core for c in consts], out.shape)
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
            made = self.expand(self.stored(const.core, const.dtype), const.shape)
        elif const.param is not None:
            width = const.core[-1] if const.core else 1
            count = math.prod(const.core) // width
            looked = self._look_up(const.param, count, width, (count,))
            again = looked.reshape(const.core)
            assert again is not None
            made = self.expand(again, const.shape)
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
        for arg in refs(node)[: 1 if target in _WEIGHTED else None]:
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

    def stored(self, shape: IntShape, dtype: str) -> View:
        ident = self.rows.add("constant", self.label(self.node, "constant"), [], shape, None, dtype)
        self.dtypes[ident] = dtype
        return view_of(ident, shape)

    def _look_up(self, key: str, count: int, width: int, index: IntShape) -> View:
        ids = self.stored(index, "int64")
        attrs: dict[str, AttrValue | None] = {"rows": count, "width": width, "tied": self.used.get(key)}
        ident = self.rows.add("embedding", self.label(self.node, "embedding"), [ids.base], (*index, width), attrs)
        self.used.setdefault(key, ident)
        return view_of(ident, (*index, width))

    def expand(self, view: View, shape: IntShape) -> View:
        if view.shape == shape:
            return view
        while len(view.shape) < len(shape):
            view = view.insert(0)
        dtype = self.dtypes.get(view.base, "fp32")
        ident = self.rows.add("expand", self.label(self.node, "expand"), [self.make(view)], shape, None, dtype)
        self.dtypes[ident] = dtype
        return view_of(ident, shape)

    def pointwise(self, view: View, op: str, attrs: dict[str, AttrValue | None] | None = None) -> View:
        """An element-wise operator on one activation, applied before any re-arrangement."""
        if view.sliced:
            view = self.solid(view)
        made = self.row(op, [view.base], view.base_shape, **(attrs or {}))
        return view.on(made.base)

    # -- what handlers share ------------------------------------------------------------------------------------------

    def tie(self, weight: Value) -> str | None:
        return self.used.get(weight.param) if isinstance(weight, Const) and weight.param is not None else None

    def claim(self, weight: Value, made: View) -> None:
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


_MOVES = frozenset(("split", "reshape", "transpose", "expand", "constant", "embedding"))
_WEIGHTED = frozenset(("linear", "addmm", "conv1d", "conv2d", "layer_norm", "batch_norm", "embedding", "rms_norm"))
_HANDLERS = {**torch_move.HANDLERS, **torch_vector.HANDLERS, **torch_contract.HANDLERS}
# Of one number everywhere these make one number everywhere.
_KEEP_UNIFORM = frozenset().union(
    table.SAME, table.RESHAPE, table.PERMUTE, table.EXPAND, table.UNARY, table.BINARY, ("slice", "select", "where")
)
