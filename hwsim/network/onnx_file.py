"""Read an ONNX file into plain records: nodes, stored tensors, declared shapes. Weights stay unread.

External data files are never opened: a tensor's shape is in the model file. Only tensors of a few kilobytes keep their
numbers (shapes, axes, scalars). Local functions are expanded, with their depth and size bounded.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.network.onnx_strip import STRIPPED, strip_weights

MAX_FILE_BYTES = 2**31
MAX_NODES = 30_000
MAX_RANK = 16
MAX_DEPTH = 16
SMALL_BYTES = 1 << 16

DTYPES: Mapping[int, str] = {
    1: "fp32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "fp16",
    11: "fp64", 12: "uint32", 13: "uint64", 16: "bf16", 17: "e4m3", 18: "e4m3", 19: "e5m2", 20: "e5m2", 21: "uint4",
    22: "int4", 23: "e2m1", 24: "ue8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
_NUMPY = {"fp32": "<f4", "uint8": "u1", "int8": "i1", "uint16": "<u2", "int16": "<i2", "int32": "<i4", "int64": "<i8",
          "bool": "?", "fp16": "<f2", "fp64": "<f8", "uint32": "<u4", "uint64": "<u8"}  # fmt: skip
# The typed field an element is stored in when raw_data is absent.
_FIELDS = {"fp32": "float_data", "int64": "int64_data", "fp64": "double_data", "uint32": "uint64_data",
           "uint64": "uint64_data"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the file: shape, number format, and its numbers when small and in the file itself."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared tensor: number format (empty if unknown) and dimensions; a text is a symbol, None says nothing."""

    name: str
    dtype: str
    dims: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class Reference:
    """An attribute of a function body that takes the caller's value."""

    name: str


Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Stored | Reference | None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call; an empty name among the operands means one left out."""

    index: int
    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How errors name it."""
        op = "".join(c if c.isprintable() else "?" for c in self.op[:40])
        return f"node {self.index} ({op}{f' {self.name[:80]!r}' if self.name else ''})"


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A model: nodes sorted so that operands come first, and everything they refer to by name."""

    name: str
    nodes: tuple[Node, ...]
    stored: Mapping[str, Stored]
    inputs: tuple[Declared, ...]
    outputs: tuple[str, ...]
    declared: Mapping[str, Declared]
    opsets: Mapping[str, int]
    producer: str

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.opsets.get("", 13)


def read_onnx(path: Path) -> OnnxFile:
    """Read the file; raise HwsimError in one line for anything that is not a well-formed ONNX model."""
    if not path.is_file():  # a device or pipe could be read for ever
        raise HwsimError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        size = path.stat().st_size
        if size >= MAX_FILE_BYTES:
            raise HwsimError(f"{path}: {size} bytes; an ONNX file has less than 2 GiB (weights go into external data)")
        with path.open("rb") as file:
            if not size:
                return parse_onnx(b"", str(path))
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                content = _stripped(bytes(mapped) if size <= SMALL_BYTES else mapped, str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        raise HwsimError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    return _parse(content, str(path))


def _stripped(content: bytes | mmap.mmap, where: str) -> bytes:
    view = memoryview(content)
    try:
        return strip_weights(view)
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    finally:
        view.release()


def parse_onnx(content: bytes, where: str = "model") -> OnnxFile:
    """Parse the bytes of an ONNX file; ``where`` names it in errors."""
    return _parse(_stripped(content, where), where)


def _parse(content: bytes, where: str) -> OnnxFile:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise HwsimError(f"{where}: reading ONNX files needs the onnx package: pip install 'hwsim[onnx]'") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError, RecursionError, MemoryError):
        raise HwsimError(f"{where}: not an ONNX model (its protocol buffer cannot be decoded)") from None
    return of_model(model, where)


def of_model(model: Any, where: str) -> OnnxFile:
    """Records of a loaded ``onnx.ModelProto``."""
    try:
        return _records(model)
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    except (UnicodeDecodeError, ValueError, TypeError, OverflowError, MemoryError, RecursionError, AttributeError):
        raise HwsimError(f"{where}: damaged ONNX model (text that is not UTF-8 or numbers out of range)") from None


def _records(model: Any) -> OnnxFile:
    graph = model.graph
    if not graph.node:
        raise HwsimError("the model holds no operators")
    stored = {t.name: _tensor(t) for t in graph.initializer}
    for sparse in graph.sparse_initializer:
        values = sparse.values
        stored[values.name] = Stored(
            values.name, _shape(values.name, sparse.dims), _dtype(values.name, values.data_type)
        )
    functions = {(f.domain, f.name): f for f in model.functions}
    nodes: list[Node] = []
    _expand(graph.node, functions, {}, "", nodes, 0)
    outputs = tuple(v.name for v in graph.output)
    inputs = tuple(_declared(v) for v in graph.input if v.name not in stored)
    declared = {v.name: _declared(v) for v in (*graph.value_info, *graph.output)}
    opsets = {
        o.domain.removeprefix("ai.onnx") if o.domain == "ai.onnx" else o.domain: int(o.version)
        for o in model.opset_import
    }
    order = _sorted(nodes, {*stored, *(v.name for v in inputs)})
    producer = " ".join(f"{model.producer_name} {model.producer_version}".split())[:100]
    return OnnxFile(graph.name, order, stored, inputs, outputs, declared, opsets, producer)


def _expand(
    protos: Iterable[Any],
    functions: Mapping[tuple[str, str], Any],
    rename: Mapping[str, str],
    prefix: str,
    out: list[Node],
    depth: int,
) -> None:
    """Append the records of ``protos``, replacing calls of local functions by their bodies."""
    if depth > MAX_DEPTH:
        raise HwsimError(f"local functions call each other more than {MAX_DEPTH} deep")
    for proto in protos:
        if len(out) >= MAX_NODES:
            raise HwsimError(f"more than {MAX_NODES} operators")

        def local(name: str) -> str:
            return rename.get(name, prefix + name if name else "")

        inputs, outputs = tuple(local(n) for n in proto.input), tuple(local(n) for n in proto.output)
        attrs = {a.name: _attribute(a) for a in proto.attribute}
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        body = functions.get((proto.domain, proto.op_type))
        if body is None:
            out.append(Node(len(out), prefix + proto.name, proto.op_type, domain, inputs, outputs, attrs))
            continue
        names = dict(zip(body.input, (*inputs, *[""] * len(body.input)), strict=False))
        names.update(zip(body.output, outputs, strict=False))
        start = len(out)
        _expand(body.node, functions, names, f"{prefix}{proto.name or proto.op_type}{start}/", out, depth + 1)
        for i in range(start, len(out)):
            node = out[i]
            if any(isinstance(v, Reference) for v in node.attrs.values()):
                filled = {k: attrs.get(v.name) if isinstance(v, Reference) else v for k, v in node.attrs.items()}
                out[i] = Node(node.index, node.name, node.op, node.domain, node.inputs, node.outputs, filled)


def _attribute(proto: Any) -> Attribute:
    if proto.ref_attr_name:
        return Reference(proto.ref_attr_name)
    kind = proto.type
    if kind == 1:
        return float(proto.f)
    if kind == 2:
        return int(proto.i)
    if kind == 3:
        return bytes(proto.s[:4096]).decode("utf-8", errors="replace")
    if kind == 4:
        return _tensor(proto.t)
    if kind == 6:
        return tuple(float(v) for v in proto.floats)
    if kind == 7:
        return tuple(int(v) for v in proto.ints)
    if kind == 8:
        return tuple(bytes(v[:4096]).decode("utf-8", errors="replace") for v in proto.strings)
    return None


def _shape(name: str, dims: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(d) for d in dims)
    if len(shape) > MAX_RANK:
        raise HwsimError(f"stored tensor {name[:80]!r} has rank {len(shape)}; at most {MAX_RANK}")
    if any(d < 0 or d > 2**40 for d in shape) or math.prod(shape) > 2**48:
        raise HwsimError(f"stored tensor {name[:80]!r} has the impossible shape {list(shape)}")
    return shape


def _dtype(name: str, number: int) -> str:
    found = DTYPES.get(number)
    if found is None:
        what = {8: "text", 14: "complex numbers", 15: "complex numbers"}.get(number, f"an unknown type ({number})")
        raise HwsimError(f"tensor {name[:80]!r} holds {what}, which hwsim does not read")
    return found


def _tensor(proto: Any) -> Stored:
    name, shape = proto.name, _shape(proto.name, proto.dims)
    if proto.data_type == 8:  # text: labels and the like, of no cost
        return Stored(name, shape, "uint8")
    dtype = _dtype(name, proto.data_type)
    elements = math.prod(shape)
    need = -(-elements * FORMATS[dtype].width // 8)
    if proto.data_location == 1:
        held = next((e.value for e in proto.external_data if e.key == STRIPPED), None)
        if held is not None and held != str(need):
            raise HwsimError(f"stored tensor {name[:80]!r} states {list(shape)} {dtype} but holds {held[:20]} bytes")
        return Stored(name, shape, dtype)
    raw = proto.raw_data
    kind = _NUMPY.get(dtype)
    if raw:
        if len(raw) != need:
            raise HwsimError(f"stored tensor {name[:80]!r} states {list(shape)} {dtype} but holds {len(raw)} bytes")
        if kind is None or need > SMALL_BYTES:
            return Stored(name, shape, dtype)
        return Stored(name, shape, dtype, np.frombuffer(raw, kind).reshape(shape))
    values = getattr(proto, _FIELDS.get(dtype, "int32_data"))
    packed = -(-elements * FORMATS[dtype].width // 8) if FORMATS[dtype].width < 8 else elements
    if len(values) not in (elements, packed):
        # a shape-only model keeps the shapes of its weights and drops the numbers
        if not len(values):
            return Stored(name, shape, dtype)
        raise HwsimError(f"stored tensor {name[:80]!r} states {list(shape)} but holds {len(values)} numbers")
    if kind is None or need > SMALL_BYTES or len(values) != elements:
        return Stored(name, shape, dtype)
    if dtype == "fp16":
        return Stored(name, shape, dtype, np.array(values, np.uint16).view(np.float16).reshape(shape))
    return Stored(name, shape, dtype, np.array(values).astype(kind).reshape(shape))


def _declared(info: Any) -> Declared:
    kind = info.type
    if not kind.HasField("tensor_type"):
        return Declared(info.name, "", None)
    dtype = DTYPES.get(kind.tensor_type.elem_type, "")
    if not kind.tensor_type.HasField("shape"):
        return Declared(info.name, dtype, None)
    dims = kind.tensor_type.shape.dim
    if len(dims) > MAX_RANK:
        raise HwsimError(f"tensor {info.name[:80]!r} has rank {len(dims)}; at most {MAX_RANK}")
    return Declared(info.name, dtype, tuple(_dim(d) for d in dims))


def _dim(dim: Any) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param[:200]) or None


def _sorted(nodes: list[Node], known: set[str]) -> tuple[Node, ...]:
    """Nodes with operands first (stable); raises HwsimError on a cycle, a missing operand or a tensor made twice."""
    maker: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in node.outputs:
            if name and (name in maker or name in known):
                raise HwsimError(f"{node.where}: tensor {name[:80]!r} is made twice")
            if name:
                maker[name] = i
    waiting: dict[int, list[int]] = {}
    missing = [0] * len(nodes)
    for i, node in enumerate(nodes):
        for name in set(node.inputs):
            if not name or name in known:
                continue
            if name not in maker:
                raise HwsimError(f"{node.where}: it reads {name[:80]!r}, which is neither stored nor made by any node")
            waiting.setdefault(maker[name], []).append(i)
            missing[i] += 1
    ready = [i for i in range(len(nodes)) if not missing[i]]
    at = 0
    while at < len(ready):
        for user in waiting.get(ready[at], ()):
            missing[user] -= 1
            if not missing[user]:
                ready.append(user)
        at += 1
    if len(ready) != len(nodes):
        stuck = next(i for i in range(len(nodes)) if missing[i])
        raise HwsimError(f"{nodes[stuck].where}: it is part of a cycle")
    if ready == sorted(ready):
        return tuple(nodes)
    return tuple(nodes[i] for i in ready)
