"""An ONNX model run with its own weights, node by node, its products through an arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.execution.onnx_call import Call, Handler, floating
from hwsim.execution.onnx_data import DATA
from hwsim.execution.onnx_integer import INTEGER, fuse
from hwsim.execution.onnx_load import NUMPY, OnnxModel
from hwsim.execution.onnx_math import CONTRACT, ELEMENTWISE, MATH
from hwsim.execution.products import Arithmetic
from hwsim.network.onnx_file import Node

Array = npt.NDArray[Any]
Pick = Callable[[str, str], Arithmetic]
Watch = Callable[[str, str, Array], None]
NODES: dict[str, Handler] = {**MATH, **DATA, **INTEGER}
DOMAINS = ("", "com.microsoft")


def run_onnx(
    model: OnnxModel,
    inputs: Mapping[str, Array],
    pick: Pick,
    watch: Watch | None = None,
) -> dict[str, Array]:
    """Outputs by name. ``pick`` gives the arithmetic of a node (name, operator), ``watch`` sees (tensor, node, value).

    A result is rounded to the machine's stored format unless it is a product's whose only reader is element-wise: that
    runs in the product's epilogue. Raises HwsimError naming the node.
    """
    graph = fuse(model.graph, model.stored)
    default = pick("", "")
    values = _bind(model, inputs, default)
    for name, array in model.stored.items():
        values[name] = floating(array, default)
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in set(node.inputs):
            readers.setdefault(name, []).append(node)
    left = {name: len(users) for name, users in readers.items()}
    for name in graph.outputs:
        left[name] = left.get(name, 0) + 1
    epilogue: set[str] = set()
    for node in graph.nodes:
        arithmetic = pick(node.name or node.outputs[0], node.op)
        made = _node(model, node, values, arithmetic)
        inside = node.op in CONTRACT or (node.op in ELEMENTWISE and any(n in epilogue for n in node.inputs))
        for name, value in zip(node.outputs, made, strict=False):
            if not name or value is None:
                continue
            users = readers.get(name, [])
            if inside and len(users) == 1 and users[0].op in ELEMENTWISE and name not in graph.outputs:
                epilogue.add(name)
            elif arithmetic.store and name not in model.stored:
                value = arithmetic.cast(value)
            values[name] = value
            if watch is not None and node.op not in ("Constant", "Shape"):
                watch(name, f"{node.op} {node.name}".strip(), value)
        for name in set(node.inputs):
            if name in left:
                left[name] -= 1
                if not left[name] and name not in graph.outputs:
                    values.pop(name, None)
    missing = [n for n in graph.outputs if n not in values]
    if missing:
        raise HwsimError(f"{model.source}: output {missing[0][:80]!r} is made by no node")
    return {name: values[name] for name in graph.outputs}


def _node(model: OnnxModel, node: Node, values: Mapping[str, Array], arithmetic: Arithmetic) -> Sequence[Array | None]:
    where = f"{model.source}: {node.where}"
    if node.op == "Constant" and node.outputs[0] in model.stored:
        return [values[node.outputs[0]]]
    handler = NODES.get(node.op) if node.domain in DOMAINS else None
    if handler is None:
        name = f"{node.domain}.{node.op}" if node.domain else node.op
        raise HwsimError(f"{where}: operator {name[:60]} cannot be executed{near(node.op, NODES)}")
    xs: list[Array | None] = []
    for name in node.inputs:
        if name and name not in values:
            raise HwsimError(f"{where}: operand {name[:80]!r} was not computed")
        xs.append(values[name] if name else None)
    try:
        with np.errstate(all="ignore"):
            made = handler(Call(node, xs, model.graph.opset, arithmetic))
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError):
        shapes = [None if x is None else x.shape for x in xs]
        raise HwsimError(f"{where}: its operands {shapes[:6]} and attributes contradict each other") from None
    parts: Sequence[Array | None] = [made] if isinstance(made, np.ndarray | np.generic) else made
    return [None if p is None else floating(np.asarray(p), arithmetic) for p in parts]


def _bind(model: OnnxModel, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> dict[str, Array]:
    known = [i.name for i in model.graph.inputs]
    for name in inputs:
        if name not in known:
            raise HwsimError(f"{model.source}: no input {name!r}{near(name, known)}")
    values: dict[str, Array] = {}
    symbols: dict[str, int] = {}
    for info in model.graph.inputs:
        if info.name not in inputs:
            raise HwsimError(f"{model.source}: input {info.name!r} is missing")
        value = np.asarray(inputs[info.name])
        if value.dtype.kind not in "fiub":
            raise HwsimError(f"{model.source}: input {info.name!r} holds {value.dtype}, expected numbers")
        dims = info.dims
        if dims is not None:
            fits = len(dims) == value.ndim
            for want, got in zip(dims, value.shape, strict=False):
                fits &= want is None or (symbols.setdefault(want, got) if isinstance(want, str) else want) == got
            if not fits:
                shown = "x".join(str(d) if d is not None else "?" for d in dims)
                raise HwsimError(f"{model.source}: input {info.name!r} is {value.shape}, expected {shown}")
        kind = NUMPY.get(info.dtype)
        if kind is not None and np.dtype(kind).kind != "f":
            value = value.astype(kind)
        elif value.dtype.kind != "f":
            value = value.astype(np.float32)
        values[info.name] = arithmetic.cast(floating(value, arithmetic)) if value.dtype.kind == "f" else value
    return values


def random_onnx_inputs(model: OnnxModel, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Seeded inputs: floats standard normal, integers 0 or 1 (any table holds them), masks true; open dimensions 1."""
    from hwsim.execution.products import bounded

    chosen = dict(sizes or {})
    out: dict[str, Array] = {}
    for i, info in enumerate(model.graph.inputs):
        if info.dims is None or not info.dtype:
            raise HwsimError(f"{model.source}: input {info.name!r} states no shape; give inputs")
        shape = tuple(d if isinstance(d, int) else chosen.get(d or "", 1) for d in info.dims)
        bounded(shape)
        rng = np.random.default_rng([seed & 0xFFFFFFFF, i])
        kind = np.dtype(NUMPY.get(info.dtype, "<f4"))
        if kind.kind == "f":
            out[info.name] = rng.standard_normal(shape).astype(kind)
        elif kind.kind == "b":
            out[info.name] = np.ones(shape, bool)
        elif kind.itemsize == 1:
            out[info.name] = rng.integers(np.iinfo(kind).min, np.iinfo(kind).max + 1, shape).astype(kind)
        else:
            out[info.name] = rng.integers(0, 2, shape).astype(kind)
    return out
