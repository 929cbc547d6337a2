"""ONNX files with their weights: records of the importer plus every stored number, external data read within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.network.onnx_file import DTYPES, MAX_FILE_BYTES, OnnxFile, of_model

Array = npt.NDArray[Any]
MAX_WEIGHT_BYTES = 2**33
NUMPY = {"fp32": "<f4", "uint8": "u1", "int8": "i1", "uint16": "<u2", "int16": "<i2", "int32": "<i4", "int64": "<i8",
         "bool": "?", "fp16": "<f2", "fp64": "<f8", "uint32": "<u4", "uint64": "<u8"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A model ready to run: its graph's records and every stored tensor by name."""

    source: str
    graph: OnnxFile
    stored: dict[str, Array]


def load_onnx(source: Path | str | bytes) -> OnnxModel:
    """Read a model and its weights from a path or bytes; raises HwsimError in one line for anything damaged or too large.

    External data must be a regular file in the model's own folder (or below it), and hold what the model states.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise HwsimError("executing ONNX files needs the onnx package: pip install 'hwsim[onnx]'") from None
    where, folder, content = _content(source)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except (DecodeError, ValueError, RecursionError, MemoryError):
        raise HwsimError(f"{where}: not an ONNX model (its protocol buffer cannot be decoded)") from None
    del content
    graph = of_model(model, where)
    stored: dict[str, Array] = {}
    total = 0
    for name, proto in _tensors(model):
        try:
            array = _numbers(proto, folder)
        except HwsimError as error:
            raise HwsimError(f"{where}: stored tensor {name[:80]!r}: {error}") from None
        except (ValueError, TypeError, OverflowError, MemoryError, OSError):
            raise HwsimError(f"{where}: stored tensor {name[:80]!r} cannot be read") from None
        total += array.nbytes
        if total > MAX_WEIGHT_BYTES:
            raise HwsimError(f"{where}: more than {MAX_WEIGHT_BYTES >> 30} GiB of weights")
        stored[name] = array
    missing = [n for n in graph.stored if n not in stored]
    if missing:
        raise HwsimError(f"{where}: stored tensor {missing[0][:80]!r} is sparse, which is not executed")
    return OnnxModel(where, graph, stored)


def _content(source: Path | str | bytes) -> tuple[str, Path | None, bytes]:
    if isinstance(source, bytes):
        return "model", None, source
    path = Path(source)
    if not path.is_file():
        raise HwsimError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    try:
        if path.stat().st_size >= MAX_FILE_BYTES:
            raise HwsimError(f"{path}: an ONNX file has less than 2 GiB (weights go into external data)")
        return path.name, path.parent, path.read_bytes()
    except OSError as error:
        raise HwsimError(f"{path}: cannot be read ({error.strerror})") from None


def _tensors(model: Any) -> list[tuple[str, Any]]:
    found = [(t.name, t) for t in model.graph.initializer]
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and node.output:
            found += [(node.output[0], a.t) for a in node.attribute if a.name == "value" and a.type == 4]
    return found


def _numbers(proto: Any, folder: Path | None) -> Array:
    dtype = DTYPES.get(proto.data_type)
    if dtype is None:
        raise HwsimError("its number format cannot be executed")
    shape = tuple(int(d) for d in proto.dims)
    if any(d < 0 for d in shape) or math.prod(shape) > 2**33:
        raise HwsimError(f"impossible shape {list(shape)}")
    count = math.prod(shape)
    need = -(-count * FORMATS[dtype].width // 8) if FORMATS[dtype].width >= 8 else -(-count * FORMATS[dtype].bits // 8)
    if proto.data_location == 1:
        raw = _external(proto, folder, need)
    else:
        raw = proto.raw_data
    if raw:
        if len(raw) != need:
            raise HwsimError(f"states {list(shape)} {dtype} but holds {len(raw)} bytes")
        return decoded(np.frombuffer(raw, np.uint8), dtype, count).reshape(shape)
    field = {"fp32": "float_data", "int64": "int64_data", "fp64": "double_data", "uint32": "uint64_data",
             "uint64": "uint64_data"}.get(dtype, "int32_data")  # fmt: skip
    values = getattr(proto, field)
    packed = dtype in ("int4", "uint4")
    if len(values) != (need if packed else count):
        raise HwsimError(f"states {list(shape)} but holds {len(values)} numbers")
    if dtype in ("fp16", "bf16"):
        return decoded(np.array(values, np.uint16).view(np.uint8), dtype, count).reshape(shape)
    if packed:
        return decoded(np.array(values, np.int64).astype(np.uint8), dtype, count).reshape(shape)
    if dtype not in NUMPY:
        raise HwsimError(f"{dtype} values cannot be executed")
    return np.array(values).astype(NUMPY[dtype]).reshape(shape)


def decoded(raw: npt.NDArray[np.uint8], dtype: str, count: int) -> Array:
    """Numbers of little-endian bytes; bf16 as float32, 4-bit integers one to a byte (the low half first)."""
    if dtype == "bf16":
        return np.asarray((raw.view("<u2").astype(np.uint32) << 16).view(np.float32))
    if dtype in ("int4", "uint4"):
        both = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:count]
        return np.where(both > 7, both.astype(np.int8) - 16, both).astype(np.int8) if dtype == "int4" else both
    if dtype not in NUMPY:
        raise HwsimError(f"{dtype} values cannot be executed")
    return np.asarray(raw.view(NUMPY[dtype]))


def _external(proto: Any, folder: Path | None, need: int) -> bytes:
    said = {e.key: e.value for e in proto.external_data}
    if folder is None:
        raise HwsimError("its external data needs a model read from a path")
    name = said.get("location", "")
    base = folder.resolve()
    try:
        path = (base / name).resolve()
        offset, length = int(said.get("offset", "0") or 0), int(said.get("length", "") or need)
    except (ValueError, OSError):
        raise HwsimError("damaged reference to external data") from None
    if not name or "\0" in name or not path.is_relative_to(base):
        raise HwsimError(f"external data {name[:80]!r} is outside the model's folder")
    if not path.is_file():
        raise HwsimError(f"external data {name[:80]!r} is missing")
    if offset < 0 or length != need or offset + need > path.stat().st_size:
        raise HwsimError(f"external data {name[:80]!r} does not hold {need} bytes at {offset}")
    if need > MAX_WEIGHT_BYTES:
        raise HwsimError("too large")
    with path.open("rb") as file:
        file.seek(offset)
        return bytes(file.read(need))
