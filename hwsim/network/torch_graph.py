"""An exported PyTorch program as plain data: what the importer reads, without importing torch.

`graph_of` reads a `torch.export.ExportedProgram`; `torch_pt2` reads the JSON inside a saved ``.pt2`` file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape

DTYPES: Mapping[str, str] = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2", "int64": "int64", "int32": "int32", "int16": "int16", "int8": "int8", "uint8": "uint8",
    "bool": "bool", "complex64": "fp64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to an earlier node, input or constant by name."""

    name: str


@dataclass(frozen=True, slots=True)
class TorchTensor:
    """Shape and hwsim number format of one value."""

    shape: IntShape
    dtype: str = "fp32"

    @property
    def is_float(self) -> bool:
        return not self.dtype.startswith(("int", "uint", "bool"))


@dataclass(frozen=True, slots=True)
class TorchConst:
    """A parameter or buffer; ``key`` is the same for two names of one (tied) tensor."""

    tensor: TorchTensor
    key: str
    learned: bool


@dataclass(frozen=True, slots=True)
class TorchNode:
    """One ATen call: ``target`` is ``conv2d`` or ``add_`` without namespace and overload; ``outs`` its results."""

    name: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    outs: tuple[TorchTensor | None, ...] = ()
    path: str = ""
    module: str = ""

    @property
    def out(self) -> TorchTensor:
        """The first result; raises HwsimError when the node has none."""
        if not self.outs or self.outs[0] is None:
            raise HwsimError(f"{self.where}: its result has no shape")
        return self.outs[0]

    @property
    def where(self) -> str:
        """How errors name the node."""
        return f"{self.path or self.name} (aten.{self.target})"


@dataclass(frozen=True)
class TorchGraph:
    """A whole program: inputs, constants, calls in order, results."""

    inputs: tuple[tuple[str, TorchTensor], ...]
    consts: Mapping[str, TorchConst]
    nodes: tuple[TorchNode, ...]
    outputs: tuple[Ref, ...]


def dtype_name(text: object) -> str:
    """Return hwsim's name of a torch dtype; raise HwsimError for one it does not know."""
    name = str(text).removeprefix("torch.").lower()
    if name not in DTYPES:
        raise HwsimError(f"torch dtype {name!r} is not supported (known: {', '.join(DTYPES)})")
    return DTYPES[name]


def target_name(target: object) -> str:
    """``aten.add_.Tensor`` to ``add_``; ``<built-in function getitem>`` to ``getitem``."""
    text = str(target)
    if "getitem" in text:
        return "getitem"
    parts = text.removeprefix("torch.ops.").split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "aten" else text


def graph_of(program: Any) -> TorchGraph:
    """Return the plain form of a `torch.export.ExportedProgram`; raise HwsimError for dynamic shapes."""
    consts: dict[str, TorchConst] = {}
    user: list[str] = []
    alias: dict[int, str] = {}
    learned: dict[str, tuple[str, bool]] = {}
    for spec in program.graph_signature.input_specs:
        kind = spec.kind.name
        if kind == "USER_INPUT":
            user.append(getattr(spec.arg, "name", ""))
        else:
            learned[spec.arg.name] = (str(spec.target), kind == "PARAMETER")
    tensors = {**dict(program.constants), **dict(program.state_dict)}
    inputs: list[tuple[str, TorchTensor]] = []
    nodes: list[TorchNode] = []
    outputs: tuple[Ref, ...] = ()
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder":
            if node.name in learned:
                name, is_parameter = learned[node.name]
                tensor = tensors.get(name)
                key = alias.setdefault(id(tensor), name) if tensor is not None else name
                if hasattr(value, "shape"):
                    consts[node.name] = TorchConst(_tensor(value, node.name), key, is_parameter)
            elif node.name in user and hasattr(value, "shape"):
                inputs.append((node.name, _tensor(value, node.name)))
        elif node.op == "call_function":
            values = value if isinstance(value, tuple | list) else (value,)
            outs = tuple(_tensor(v, node.name) if hasattr(v, "shape") else None for v in values)
            path, module = _module(node)
            nodes.append(
                TorchNode(
                    node.name,
                    target_name(node.target),
                    tuple(_plain(a) for a in node.args),
                    {k: _plain(v) for k, v in node.kwargs.items()},
                    outs,
                    path,
                    module,
                )
            )
        elif node.op == "output":
            outputs = tuple(r for r in _flatten(_plain(node.args)) if isinstance(r, Ref))
        elif node.op == "get_attr":
            raise HwsimError(f"{node.name}: control flow inside the program ({node.target}) cannot be imported")
    return TorchGraph(tuple(inputs), consts, tuple(nodes), outputs)


def _tensor(value: Any, name: str) -> TorchTensor:
    shape: list[int] = []
    for extent in value.shape:
        if type(extent) is not int:
            raise HwsimError(f"{name}: dynamic dimension {extent}; export with fixed shapes (no dynamic_shapes=)")
        shape.append(extent)
    return TorchTensor(tuple(shape), dtype_name(value.dtype))


def _module(node: Any) -> tuple[str, str]:
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, module = list(stack.values())[-1]
    return str(path), module if isinstance(module, str) else f"{module.__module__}.{module.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if type(value).__name__ == "Node" and hasattr(value, "meta"):
        return Ref(value.name)
    if value is None or isinstance(value, bool | int | float | str | Ref):
        return value
    return str(value)


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, tuple | list):
        return [value]
    return [x for v in value for x in _flatten(v)]
