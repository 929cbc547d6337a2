"""Programs saved by `torch.export.save`: the graph is JSON inside a ZIP archive, so neither torch nor pickle is needed.

Weights, constants and sample inputs in the archive are left unread. Form: torch `export/pt2_archive` and
`torch/_export/serde/schema.py`, schema version 8 (and 5 to 7, whose archive keeps the JSON under another name).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError
from hwsim.network.torch_graph import Ref, TorchConst, TorchGraph, TorchNode, TorchTensor, dtype_name, target_name

MAX_JSON = 256 * 2**20
# ScalarType of the schema.
_SCALARS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 12: "bool", 13: "bfloat16", 29: "float8_e4m3fn", 30: "float8_e5m2",
}  # fmt: skip
_CONSTANTS = ("parameter", "buffer", "tensor_constant")


def read_pt2(path: Path) -> TorchGraph:
    """Return the graph of a ``.pt2`` file; raise HwsimError for anything that is not one, or has dynamic shapes."""
    program, weights = _load(path)
    try:
        return _graph(program, weights)
    except HwsimError as error:
        raise HwsimError(f"{path}: {error}") from None
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, StopIteration, OverflowError) as error:
        raise HwsimError(f"{path}: not a program hwsim can read ({type(error).__name__}: {str(error)[:80]})") from None


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            models = [n for n in names if n.endswith(".json") and ("models/" in n or "exported_program" in n)]
            if len(models) != 1:
                raise HwsimError(f"{path}: holds {len(models)} exported programs, not one")
            program = _json(archive, models[0])
            tables = [n for n in names if n.endswith("weights_config.json")]
            weights = _json(archive, tables[0]) if len(tables) == 1 else {}
    except OSError as error:
        raise HwsimError(f"{path}: cannot be read ({error.strerror or 'damaged archive'})") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise HwsimError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
        raise HwsimError(f"{path}: not a torch.export archive ({str(error)[:80]})") from None
    except Exception as error:  # a damaged stream: zlib.error and friends
        raise HwsimError(f"{path}: damaged archive ({type(error).__name__})") from None
    return program, weights


def _json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > MAX_JSON:
        raise HwsimError(f"{name} is larger than {MAX_JSON >> 20} MiB")
    with archive.open(name) as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise HwsimError(f"{name} is larger than {MAX_JSON >> 20} MiB")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise HwsimError(f"{name} is not a JSON object")
    return value


def _graph(program: dict[str, Any], weights: dict[str, Any]) -> TorchGraph:
    module = program["graph_module"]
    graph, signature = module["graph"], module["signature"]
    tensors = {name: _tensor(meta, name) for name, meta in graph["tensor_values"].items()}
    stored = weights.get("config", {})
    consts: dict[str, TorchConst] = {}
    inputs: list[tuple[str, TorchTensor]] = []
    for spec in signature["input_specs"]:
        kind, body = next(iter(spec.items()))
        if kind in _CONSTANTS:
            name = body["arg"]["name"]
            label = next((v for k, v in body.items() if k.endswith("_name")), name)
            # Tied parameters are stored once.
            key = stored.get(label, {}).get("path_name", label)
            consts[name] = TorchConst(tensors[name], str(key), kind == "parameter")
        elif kind == "user_input" and "as_tensor" in body["arg"]:
            name = _name(body["arg"]["as_tensor"])
            inputs.append((name, tensors[name]))
    nodes = [made for node in graph["nodes"] for made in _nodes(node, tensors)]
    outputs = tuple(Ref(name) for argument in graph["outputs"] for name in _names(argument))
    return TorchGraph(tuple(inputs), consts, tuple(nodes), outputs)


def _tensor(meta: dict[str, Any], name: str) -> TorchTensor:
    shape: list[int] = []
    for size in meta["sizes"]:
        extent = size.get("as_int")
        if not isinstance(extent, int) or extent < 0:
            raise HwsimError(f"{name} has a dynamic dimension; export with fixed shapes (no dynamic_shapes=)")
        shape.append(extent)
    return TorchTensor(tuple(shape), dtype_name(_SCALARS.get(meta["dtype"], f"code {meta['dtype']}")))


def _nodes(node: dict[str, Any], tensors: dict[str, TorchTensor]) -> Iterator[TorchNode]:
    """One call, and one getitem for each result of a call with several."""
    if node["target"].startswith("torch.ops.higher_order"):
        raise HwsimError(f"control flow inside the program ({node['target']}) cannot be imported")
    args = tuple(_value(i["arg"]) for i in node["inputs"] if i.get("kind", 1) == 1)
    kwargs = {i["name"]: _value(i["arg"]) for i in node["inputs"] if i.get("kind", 1) != 1}
    names = [name for argument in node["outputs"] for name in _names(argument)]
    listed = len(node["outputs"]) != 1 or "as_tensor" not in node["outputs"][0]
    path, module = _module(node.get("metadata", {}).get("nn_module_stack", ""))
    whole = f"{names[0]}%" if listed and names else names[0] if names else ""
    outs = tuple(tensors.get(name) for name in names)
    yield TorchNode(whole, target_name(node["target"]), args, kwargs, outs, path, module)
    if listed:
        for index, name in enumerate(names):
            yield TorchNode(name, "getitem", (Ref(whole), index), {}, (outs[index],), path, module)


def _name(tensor: dict[str, Any]) -> str:
    name = tensor["name"]
    if not isinstance(name, str):
        raise HwsimError(f"a tensor of the program is called {str(name)[:40]!r}, which is no name")
    return name


def _names(argument: dict[str, Any]) -> list[str]:
    kind, body = next(iter(argument.items()))
    if kind == "as_tensor":
        return [_name(body)]
    if kind in ("as_tensors", "as_optional_tensors"):
        return [n for item in body for n in ([_name(item)] if "name" in item else _names(item))]
    return []


def _value(argument: dict[str, Any]) -> Any:
    kind, body = next(iter(argument.items()))
    if kind == "as_tensor":
        return Ref(_name(body))
    if kind == "as_tensors":
        return [Ref(_name(item)) for item in body]
    if kind == "as_optional_tensors":
        return [_value(item) for item in body]
    if kind == "as_none":
        return None
    if kind in ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings"):
        return body
    if kind == "as_float":
        return float(body)
    if kind == "as_floats":
        return [float(v) for v in body]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        if "as_int" in body or "as_float" in body or "as_bool" in body:
            return next(iter(body.values()))
        raise HwsimError("dynamic sizes in the program; export with fixed shapes (no dynamic_shapes=)")
    if kind == "as_sym_ints":
        return [_value({"as_sym_int": item}) for item in body]
    return str(body)


def _module(stack: str) -> tuple[str, str]:
    last = stack.rsplit(";", 1)[-1].split(",")
    return (last[1], last[2]) if len(last) == 3 else ("", "")
