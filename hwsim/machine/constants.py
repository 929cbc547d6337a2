"""Fitted constants of a family: named, bounded, with the data they were fitted on; never part of a device file.

``accelerators/constants/<family>.toml`` holds ``[constant.NAME]`` tables, and ``[architecture.ARCH.NAME]`` where an
architecture needs its own value::

    [constant.ramp]
    value = ["1.1 us", "derived: fitted by studies/tpu_v4/fit.py on ...", "0.1 us", "10 us"]
    dimension = "time"
    means = "time until the pipeline is full"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.machine.keys import KeySpec
from hwsim.machine.reader import LABEL, Problems, file_label, read_toml
from hwsim.machine.values import Value, read_leaf
from hwsim.units import DIMENSIONS


@dataclass(frozen=True, slots=True)
class Constant:
    """One fitted constant in the base unit of its dimension, with the physical range it was bounded to."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    dimension: str
    means: str
    source: str
    kind: str


class Constants(Mapping[str, float]):
    """The constants of one family (and architecture) by name; ``table`` keeps their bounds and sources."""

    def __init__(self, family: str, table: Mapping[str, Constant]) -> None:
        self.family = family
        self.table = table

    def __getitem__(self, name: str) -> float:
        """Return a constant's value in its base unit; raises HwsimError naming the near ones."""
        found = self.table.get(name)
        if found is None:
            raise HwsimError(f"family {self.family} has no constant '{name}'{near(name, self.table)}")
        return found.value

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


def load_constants(family: str, architecture: str = "", file: Path | None = None) -> Constants:
    """Return the fitted constants of ``family``, those of ``architecture`` taking precedence.

    A family without a file has none. Raises HwsimError listing every problem of the file.
    """
    if file is None:
        file = accelerators_dir() / "constants" / f"{family}.toml"
        if not file.is_file():
            return Constants(family, {})
        stat = file.stat()
        return _shipped(family, architecture, file, stat.st_mtime_ns, stat.st_size)
    return _load(family, architecture, file)


@lru_cache(maxsize=64)
def _shipped(family: str, architecture: str, file: Path, mtime_ns: int, size: int) -> Constants:
    """A file as it was when last written: a comparison or a sweep asks for it once per run."""
    return _load(family, architecture, file)


def _load(family: str, architecture: str, file: Path) -> Constants:
    problems = Problems(file_label(file))
    table = read_toml(file)
    for name in table:
        if name not in ("constant", "architecture"):
            problems.add(name[:64], f"no such key{near(name[:64], ('constant', 'architecture'))}")
    found = _read(table.get("constant", {}), "constant", problems)
    architectures = table.get("architecture", {})
    if not isinstance(architectures, dict):
        problems.add("architecture", "must be tables [architecture.<name>.<constant>]")
        architectures = {}
    for name, body in architectures.items():
        own = _read(body, f"architecture.{name[:64]}", problems)
        if name == architecture:
            found |= own
    problems.raise_any()
    return Constants(family, found)


def _read(body: object, at: str, problems: Problems) -> dict[str, Constant]:
    if not isinstance(body, dict):
        problems.add(at, f"must be tables [{at}.<name>]")
        return {}
    found: dict[str, Constant] = {}
    for name, table in body.items():
        try:
            found[name] = _constant(name, table)
        except HwsimError as error:
            problems.add(f"{at}.{name[:64]}", str(error))
    return found


def _constant(name: str, table: object) -> Constant:
    keys = ("value", "dimension", "means")
    if not isinstance(table, dict) or not LABEL.fullmatch(name):
        raise HwsimError("must be a table with value, dimension and means, its name in lower case")
    unknown = [k for k in table if k not in keys]
    if unknown:
        raise HwsimError(f"no such key '{unknown[0][:64]}'{near(unknown[0][:64], keys)}")
    means, dimension, raw = table.get("means"), table.get("dimension", "ratio"), table.get("value")
    if not isinstance(means, str) or len(means.strip()) < 8:
        raise HwsimError("means: must say what the constant stands for")
    if not isinstance(dimension, str) or dimension not in DIMENSIONS:
        raise HwsimError(f"dimension: {str(dimension)[:48]!r} is not known{near(str(dimension)[:48], DIMENSIONS)}")
    if not isinstance(raw, list) or len(raw) != 4:
        raise HwsimError("value: must be [value, source, low, high]")
    free = KeySpec(name, name, means, "quantity", dimension)
    low, high = (_bound(free, bound, raw[1]) for bound in raw[2:])
    if not low <= high:
        raise HwsimError(f"value: its low bound {raw[2]} is above its high bound {raw[3]}")
    value = read_leaf(KeySpec(name, name, means, "quantity", dimension, low=low, high=high), raw[:2], name, "")
    return Constant(name, _float(value), low, high, value.unit, dimension, means, value.source, value.kind)


def _bound(spec: KeySpec, raw: object, source: object) -> float:
    return _float(read_leaf(spec, [raw, source], spec.toml, ""))


def _float(value: Value) -> float:
    assert isinstance(value.value, int | float)
    return float(value.value)
