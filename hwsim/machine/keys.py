"""The schema table of a machine file: a section is a dataclass, each field with its key's dimension, range and doc.

``key(...)`` declares a field; ``specs(cls)`` reads the table back for the loader, the printed documentation and the
tests. One declaration per key, so the typed attribute, the file's key and the documentation cannot drift apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

REQUIRED: Any = dataclasses.MISSING


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One key of a section: its name in the file, the attribute it becomes, what it may hold and what it means."""

    toml: str
    attribute: str
    doc: str
    kind: str  # quantity, counts, bool, text, texts or rates (a table of number formats)
    dimension: str = ""  # of quantity, counts and rates: a key of units.DIMENSIONS
    required: bool = False
    default: object = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def key(
    doc: str,
    dimension: str = "",
    *,
    kind: str = "quantity",
    toml: str = "",
    default: Any = REQUIRED,
    factory: Callable[[], Any] | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Declare one field of a section dataclass: its meaning, dimension, bounds (inclusive, in base units) and default.

    ``toml`` is the key in the file when it differs from the attribute (``clock`` becomes ``clock_hz``).
    """
    metadata = {
        "doc": doc, "dimension": dimension, "kind": kind, "toml": toml, "low": low, "high": high,
        "choices": tuple(choices),
    }  # fmt: skip
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def specs(cls: type) -> dict[str, KeySpec]:
    """Return the keys of a section dataclass by their name in the file, in declaration order."""
    table: dict[str, KeySpec] = {}
    for field in dataclasses.fields(cls):
        if "doc" not in field.metadata:
            continue
        meta = field.metadata
        factory = field.default_factory is not dataclasses.MISSING
        spec = KeySpec(
            toml=meta["toml"] or field.name,
            attribute=field.name,
            doc=meta["doc"],
            kind=meta["kind"],
            dimension=meta["dimension"],
            required=field.default is dataclasses.MISSING and not factory,
            default=None if field.default is dataclasses.MISSING else field.default,
            low=meta["low"],
            high=meta["high"],
            choices=meta["choices"],
        )
        table[spec.toml] = spec
    return table


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a family's files: ``[name]``, or ``[name.<label>]`` as often as wanted when ``many``."""

    name: str
    cls: type
    doc: str
    many: bool = False
    required: bool = False


def _none(built: Mapping[str, Any]) -> tuple[float, Mapping[str, float]]:
    """No multiplier is known."""
    return 0.0, {}


def _nothing_wrong(built: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """No contradiction is known."""
    return ()


@dataclass(frozen=True, slots=True)
class Family:
    """One family of machines: its name, the sections its files may have, and what its multipliers do.

    ``throughput`` maps the built sections to the multiply-accumulates per second of one core at rate 1, and the rate of
    each number format (and pair "AxB") it multiplies natively. ``check`` yields (path, message) of contradictions.
    """

    name: str
    doc: str
    sections: tuple[Section, ...]
    throughput: Callable[[Mapping[str, Any]], tuple[float, Mapping[str, float]]] = _none
    check: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]] = _nothing_wrong

    def section(self, name: str) -> Section | None:
        """Return the section called ``name``, or None."""
        return next((s for s in self.sections if s.name == name), None)
