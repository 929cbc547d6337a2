"""ONNX files as networks: every opset real models use, quantised forms, open dimensions as symbols.

The graph is walked at concrete sizes, so that shape arithmetic is ordinary arithmetic; open dimensions are found again
by walking it at several sizes and solving for each dimension (`hwsim.network.symbolic`). Weights are never read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.network.canonical import canonicalise
from hwsim.network.dims import evaluate
from hwsim.network.graph import Network
from hwsim.network.importing import Emitter, Value, word
from hwsim.network.onnx_attention import ATTENTION, MICROSOFT
from hwsim.network.onnx_contract import CONTRACT
from hwsim.network.onnx_file import OnnxFile, read_onnx
from hwsim.network.onnx_fold import fold
from hwsim.network.onnx_graph import Handler, OnnxGraph
from hwsim.network.onnx_move import MOVE
from hwsim.network.onnx_quant import QUANT
from hwsim.network.onnx_shape import SHAPE
from hwsim.network.onnx_symbols import MAX_SYMBOLS, Symbols, input_shape, probes
from hwsim.network.onnx_vector import VECTOR
from hwsim.network.symbolic import symbolise

STANDARD: dict[str, Handler] = {**CONTRACT, **VECTOR, **SHAPE, **MOVE, **QUANT, **ATTENTION}
MAX_VISITS = 100_000  # nodes times the sizes a graph is walked at: bounds the time an import takes
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
# Operators that only rearrange: a parameter that passes through stays that parameter, so it is not folded.
REARRANGE = frozenset({"Slice", "Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Expand", "Split"})
# Element-wise functions too rare to model: the host computes them, the shape is the operand's.
SAME_SHAPE = frozenset(
    {
        "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan", "Shrink", "Hardmax", "CumProd",
        "Bernoulli", "ReverseSequence", "RandomNormalLike", "RandomUniformLike",
    }
)  # fmt: skip


def from_onnx(path: str | os.PathLike[str], sizes: Mapping[str, int] | None = None) -> Network:
    """Return the network of an ONNX file; external weight files are not opened.

    Open dimensions become symbols (N batch, S sequence, P past, H and W image, others by their name); ``sizes`` fixes
    some of them. A symbol that some dimension does not follow as a sum of products is fixed at its default, which the
    network's ``fixed`` note says. Raises HwsimError in one line for damaged files, control flow, shapes that depend on
    values, and operators it does not know, naming the node.
    """
    file = Path(path)
    return network_of(read_onnx(file), file.name, sizes)


def network_of(parsed: OnnxFile, source: str, sizes: Mapping[str, int] | None = None) -> Network:
    """Return the network of a parsed file; ``source`` names it in errors."""
    try:
        return _symbolic(parsed, source, dict(sizes or {}))
    except HwsimError as error:
        raise HwsimError(f"{source}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MemoryError):
        raise HwsimError(f"{source}: damaged ONNX model (its operators contradict each other)") from None


def _symbolic(parsed: OnnxFile, source: str, chosen: dict[str, int]) -> Network:
    symbols = Symbols()
    known = [d for info in parsed.inputs for d in info.dims or () if isinstance(d, str)]
    shapes = [input_shape(info, symbols, known) for info in parsed.inputs]
    for name, value in chosen.items():
        if name not in symbols.defaults:
            raise HwsimError(f"no open dimension {name}{near(name, symbols.defaults)}")
        if not 0 < value <= 2**31:
            raise HwsimError(f"{name}={value} is out of range")
    defaults = {**symbols.defaults, **chosen}
    free = [s for s in defaults if s not in chosen]
    fixed: list[str] = []
    most = MAX_SYMBOLS
    while most > 1 and len(parsed.nodes) * (2**most + 1) > MAX_VISITS:
        most -= 1
    if len(free) > most:
        fixed, free = free[most:], free[:most]

    def make(**given: int) -> Network:
        table = {**defaults, **given}
        return _walk(parsed, source, symbols, shapes, table)

    net = _fit(make, free, defaults) if free else None
    if free and net is None:
        try:
            make()  # a model wrong at any size says so here
        except HwsimError as error:
            tried = " ".join(f"{n}={v}" for n, v in defaults.items())
            raise HwsimError(f"{error} (open dimensions taken as {tried})") from None
        alone = [n for n in free if _fit(make, [n], defaults) is not None]
        fixed += [n for n in free if n not in alone]
        net = _fit(make, alone, defaults) if alone else None
        if net is None and alone:
            fixed += alone
    if net is None:
        net = make()
    notes = {"fixed": " ".join(f"{n}={defaults[n]}" for n in fixed)} if fixed else {}
    return replace(net, meta={**net.meta, **notes})


def _fit(make: object, names: list[str], defaults: Mapping[str, int]) -> Network | None:
    """The network with ``names`` as symbols; None when some dimension does not follow them."""
    first, second = probes(names)
    try:
        found = symbolise(make, first, second)  # type: ignore[arg-type]
        return replace(found, symbols={n: defaults[n] for n in names}).validate()
    except HwsimError:
        return None


def _walk(
    parsed: OnnxFile,
    source: str,
    symbols: Symbols,
    shapes: list[tuple[int | str, ...]],
    sizes: Mapping[str, int],
) -> Network:
    """The network at concrete ``sizes``."""
    emit = Emitter(_title(parsed, source))
    read = {n for node in parsed.nodes for n in node.inputs}
    graph = OnnxGraph(parsed, emit, lambda d: symbols.dim(d, sizes), needed=frozenset(read.union(parsed.outputs)))
    for info, shape in zip(parsed.inputs, shapes, strict=True):
        emit.where = f"input {info.name[:80]!r}"
        graph.values[info.name] = emit.input(info.name, tuple(evaluate(d, sizes) for d in shape), info.dtype)
    for node in parsed.nodes:
        if not any(name in graph.needed for name in node.outputs):
            continue
        graph.node = node
        emit.where = node.where
        _node(graph)
    outputs: list[Value] = []
    for name in parsed.outputs:
        if name in graph.values:
            outputs.append(replace(graph.values[name]))
        elif name not in parsed.stored:
            raise HwsimError(f"output {name[:80]!r} is made by no node")
    emit.where = "graph"
    if not any(not v.is_const for v in outputs):
        raise HwsimError("no output depends on an input")
    canonicalise(emit, outputs)
    meta = {"source": f"ONNX {source} (opset {parsed.opset}{f', {parsed.producer}' if parsed.producer else ''})"}
    return emit.network(outputs, meta)


def _title(parsed: OnnxFile, source: str) -> str:
    stem = source.rsplit(".", 1)[0]
    return " ".join("".join(c if c.isprintable() else " " for c in stem).split()) or "onnx"


def _node(g: OnnxGraph) -> None:
    node = g.node
    if node.op in CONTROL_FLOW or node.op.startswith("Sequence") or node.op in ("Optional", "SplitToSequence"):
        raise g.fail("control flow and sequences are not supported; export the model without them")
    operands = [g.value(n) if n else None for n in node.inputs]
    if all(v is None or v.data is not None for v in operands) and not (node.op in REARRANGE and _is_table(operands)):
        folded = fold(node, [None if v is None else v.data for v in operands], g.file.opset)
        if folded is not None:
            _store_folded(g, operands, folded)
            return
    if node.domain == "":
        handler = STANDARD.get(node.op)
    elif node.domain in ("com.microsoft", "ai.onnx.contrib"):
        handler = MICROSOFT.get(node.op) or QUANT.get(node.op) or STANDARD.get(node.op)
    else:
        handler = None
    if handler is None:
        _unknown(g)
    else:
        handler(g)
    for i, name in enumerate(node.outputs):
        if g.wants(i) and name not in g.values:
            raise g.fail(f"its output {i} ({name[:80]!r}) is not supported")


def _is_table(operands: Sequence[Value | None]) -> bool:
    """True when the first operand is a parameter, unless it is a mere vector that no symbol resizes."""
    first = operands[0] if operands else None
    if first is None or not first.learned:
        return False
    return sum(d > 1 for d in first.shape) >= 2 or any(v is not None and not v.fixed for v in operands)


def _store_folded(g: OnnxGraph, operands: list[Value | None], folded: Sequence[object]) -> None:
    import numpy as np

    given = [v for v in operands if v is not None]
    for i, data in enumerate(folded):
        array = np.asarray(data)
        dtype = _DTYPES.get(array.dtype.str[1:], "fp32")
        fixed = all(v.fixed for v in given)
        learned = fixed and array.size > 1 and any(v.learned for v in given)
        g.store(i, Value(array.shape, dtype, None, array, learned, fixed))


_DTYPES = {"f4": "fp32", "f8": "fp64", "f2": "fp16", "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8",
           "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8", "b1": "bool"}  # fmt: skip


def _unknown(g: OnnxGraph) -> None:
    """An operator without a rule: the host's, when the file declares what it gives."""
    node = g.node
    shapes = [g.declared(i) for i in range(len(node.outputs))]
    if node.op in SAME_SHAPE and not node.domain:
        shapes = [(g.x(0).shape, g.x(0).arithmetic_dtype)]
    active = [v for v in g.given() if not v.is_const]
    if shapes[:1] in ([], [None]) or len(active) > 64:
        name = f"{node.domain}.{node.op}" if node.domain else node.op
        raise HwsimError(
            f"{node.where}: operator {word(name)[:80]} is not supported and the file declares no shape for its output"
            f"{near(node.op, STANDARD)}"
        )
    first: Value | None = None
    for i, found in enumerate(shapes):
        if found is None or not g.wants(i):
            continue
        shape, dtype = found
        if not active:
            g.store(i, Value(shape, dtype, fixed=False))
        elif first is None:
            first = g.part("custom", *active, out=shape, dtype=dtype, code=word(node.op))
            g.store(i, first)
        else:
            g.store(i, g.emit.select(first, i, shape, dtype))
