"""Find and read networks: a zoo name, or a file of any form hwsim imports.

resnet50                 a trace in models/
my.layers.csv            a layer trace        alexnet.csv     a SCALE-Sim topology
model.onnx  model.tflite model.pt2            files of other frameworks (extras onnx, tflite, torch)
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.data import data_root
from hwsim.errors import HwsimError, near
from hwsim.network.graph import Network
from hwsim.network.trace import is_trace, read_trace

if TYPE_CHECKING:
    from os import PathLike

SUFFIX = ".layers.csv"


def zoo() -> dict[str, Path]:
    """Return the shipped traces by name."""
    folder = data_root() / "models"
    return {p.name[: -len(SUFFIX)]: p for p in sorted(folder.glob(f"*{SUFFIX}"))}


def load_network(source: str | PathLike[str] | Network | Any) -> Network:
    """Return the network called or stored at ``source``, or made from a torch module / exported program.

    An existing path wins over a zoo name. Raises HwsimError for unknown names (with near matches), unreadable files and
    unsupported operators, naming the layer.
    """
    if isinstance(source, Network):
        return source
    if not isinstance(source, str) and not hasattr(source, "__fspath__"):
        from hwsim.network.torch_import import from_torch

        return from_torch(source)
    text = str(source)
    path = Path(text)
    if _is_file(path):
        return _read(path)
    if path.suffix and (path.parent != Path() or path.suffix in (".csv", ".onnx", ".tflite", ".pt2")):
        raise HwsimError(f"{text}: {_what_is(path)}")
    names = zoo()
    name = text.removeprefix("torchvision:").removeprefix("timm:")
    hit = names.get(name)
    if hit is None:  # resnet-50, ResNet50, bert_large: names differ in case and in what parts their words
        alike = [known for known in names if _letters(known) == _letters(name)]
        hit = names[alike[0]] if len(alike) == 1 else None
    if hit is None:
        raise HwsimError(f"unknown network {text[:200]!r}{near(name[:200], names)} (hwsim list networks shows all)")
    stat = hit.stat()
    return _shipped(hit, stat.st_mtime_ns, stat.st_size)


def _letters(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "-_. "))


@lru_cache(maxsize=32)
def _shipped(path: Path, mtime_ns: int, size: int) -> Network:
    """A shipped trace as it was when last written: a comparison or a sweep asks for it once per run."""
    return read_trace(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than any path
        return False


def _what_is(path: Path) -> str:
    try:
        return "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
    except OSError as error:
        return str(error.strerror)


def _read(path: Path) -> Network:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        from hwsim.network.onnx_import import from_onnx

        return from_onnx(path)
    if suffix in (".tflite", ".lite"):
        from hwsim.network.tflite_import import from_tflite

        return from_tflite(path)
    if suffix == ".pt2":
        from hwsim.network.torch_import import from_pt2

        return from_pt2(path)
    if suffix in (".csv", ".txt"):
        try:
            with path.open(encoding="utf-8") as file:
                first = file.readline(400)
        except (OSError, UnicodeDecodeError):
            raise HwsimError(f"{path}: cannot be read as text") from None
        if is_trace(first):
            return read_trace(path)
        from hwsim.network.scalesim_import import from_scalesim

        return from_scalesim(path)
    raise HwsimError(f"{path}: unknown kind of file {suffix!r}; hwsim reads .layers.csv, .csv, .onnx, .tflite and .pt2")


def list_networks() -> list[dict[str, object]]:
    """Return one row per shipped network: name, task, symbols, layers, MACs, parameters (from the headers)."""
    rows: list[dict[str, object]] = []
    for name, path in zoo().items():
        head: dict[str, str] = {}
        count = 0
        with path.open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("#"):
                    key, _, value = line[1:].partition(":")
                    head.setdefault(key.strip(), value.strip())
                else:
                    count += 1
        rows.append(
            {
                "name": name,
                "task": head.get("task", ""),
                "symbols": head.get("symbols", ""),
                "layers": count - 1,
                "gmacs": round(int(head.get("macs", 0)) / 1e9, 4),
                "mparams": round(int(head.get("params", 0)) / 1e6, 3),
                "source": head.get("source", ""),
            }
        )
    return rows
