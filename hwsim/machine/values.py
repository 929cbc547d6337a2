"""One number of a machine file: the value in base units, its unit, and where it is from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

from hwsim.errors import HwsimError, near
from hwsim.machine.keys import KeySpec
from hwsim.units import DIMENSIONS, format_quantity, parse

Scalar: TypeAlias = int | float | bool | str | tuple[int, ...] | tuple[str, ...]

SOURCE_KINDS = ("document", "measurement", "derived", "assumed")

_KIND_WORD = re.compile(r"(assumed|derived|measured|measurement|fitted)\b[\s:,;-]*(.*)", re.IGNORECASE | re.DOTALL)
_WHOLE = frozenset({"count", "bytes"})


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a machine: ``value`` in ``unit`` (the base unit), as written in ``text``, with its source.

    ``kind`` is what the source is: a document, a measurement, or derived or assumed (by its first word).
    """

    path: str
    value: Scalar
    unit: str
    text: str
    source: str
    kind: str
    file: str

    @property
    def number(self) -> float:
        """The value as a float; raises HwsimError when it is none."""
        if not isinstance(self.value, int | float):
            raise HwsimError(f"{self.path}: {self.text!r} is no number")
        return float(self.value)


def source_kind(source: str) -> str:
    """Return what a source text is; raises HwsimError when it is too short to be one or gives no reason."""
    if len(source.strip()) < 4:
        raise HwsimError(f"source {source!r} says nothing; name the document, measurement or reason")
    match = _KIND_WORD.match(source.strip())
    if match is None:
        return "document"
    word = match.group(1).lower()
    if len(match.group(2).strip()) < 4:
        raise HwsimError(f"source {source!r} gives no reason; write e.g. '{word}: why'")
    return {"measured": "measurement", "fitted": "derived"}.get(word, word)


def read_leaf(spec: KeySpec, raw: object, path: str, file: str) -> Value:
    """Return the checked value of one key, in base units; raises HwsimError without the path, which the caller adds."""
    if spec.kind == "text" and isinstance(raw, str):
        return Value(path, _text(spec, raw), "", raw, "", "document", file)
    if not isinstance(raw, list):
        raise HwsimError(f'{_show(raw)} has no source; write [{example_text(spec)}, "where it is from"]')
    if len(raw) != 2 or not isinstance(raw[1], str):
        raise HwsimError(f'must be a pair of value and source; write [{example_text(spec)}, "where it is from"]')
    kind = source_kind(raw[1])
    value = _checked(spec, raw[0])
    unit = DIMENSIONS[spec.dimension].base if spec.dimension else ""
    return Value(path, value, unit, _written(raw[0]), raw[1].strip(), kind, file)


def _checked(spec: KeySpec, raw: object) -> Scalar:
    if spec.kind == "text":
        if not isinstance(raw, str):
            raise HwsimError(f"{_show(raw)} is not text")
        return _text(spec, raw)
    if spec.kind == "bool":
        if not isinstance(raw, bool):
            raise HwsimError(f"{_show(raw)} is neither true nor false")
        return raw
    if spec.kind == "texts":
        if not isinstance(raw, list) or not 1 <= len(raw) <= 16 or not all(isinstance(r, str) for r in raw):
            raise HwsimError(f"{_show(raw)} is not a list of texts")
        return tuple(_text(spec, str(r)) for r in raw)
    if spec.kind == "counts":
        if not isinstance(raw, list) or not 1 <= len(raw) <= 8:
            raise HwsimError(f"{_show(raw)} is not a list of whole numbers; write e.g. [16, 16]")
        return tuple(int(_number(spec, r)) for r in raw)
    return _number(spec, raw)


def _text(spec: KeySpec, text: str) -> str:
    if spec.choices and text not in spec.choices:
        hint = near(text, spec.choices) or f"; choose from {', '.join(spec.choices)}"
        raise HwsimError(f"{_show(text)} is not known{hint}")
    if len(text) > 400 or not text.isprintable():
        raise HwsimError(f"{_show(text)} is too long or not printable")
    return text


def _number(spec: KeySpec, raw: object) -> int | float:
    dimension = DIMENSIONS[spec.dimension]
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise HwsimError(f"{_show(raw)} is not {dimension.what}; write e.g. {example_text(spec)}")
    if isinstance(raw, str):
        value: int | float = parse(raw, spec.dimension)
    elif dimension.base:
        raise HwsimError(f'{_show(raw)} is not {dimension.what} (it has no unit); write e.g. "{dimension.example}"')
    else:
        value = raw
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        finite = False
    if not finite:
        raise HwsimError(f"{_show(raw)} is not {dimension.what}")
    if spec.dimension in _WHOLE:
        if value != int(value):
            raise HwsimError(f"{_show(raw)} is not a whole number{' of bytes' if dimension.base else ''}")
        value = int(value)
    else:
        value = float(value)
    _in_range(spec, value, raw)
    return value


def _in_range(spec: KeySpec, value: int | float, raw: object) -> None:
    low = -math.inf if spec.low is None else spec.low
    high = math.inf if spec.high is None else spec.high
    if not low <= value <= high:
        bounds = [bound_text(b, spec.dimension) for b in (low, high) if math.isfinite(b)]
        side = "between" if len(bounds) == 2 else "at least" if math.isfinite(low) else "at most"
        raise HwsimError(f"{_show(raw)} is out of range; it must be {side} {' and '.join(bounds)}")


def bound_text(value: float, dimension: str) -> str:
    """Return a bound of a key's range as text."""
    return f"{value:.10g}" if dimension in ("count", "ratio") else format_quantity(value, dimension)


def example_text(spec: KeySpec) -> str:
    """Return an example of what a key may hold, as written in a file."""
    if spec.kind == "bool":
        return "true"
    if spec.kind in ("text", "texts"):
        shown = f'"{spec.choices[0]}"' if spec.choices else '"text"'
        return f"[{shown}]" if spec.kind == "texts" else shown
    dimension = DIMENSIONS[spec.dimension]
    if spec.kind == "counts":
        return "[16, 16]"
    return f'"{dimension.example}"' if dimension.base else dimension.example


def _show(raw: object) -> str:
    """Hostile input, short and on one line."""
    try:
        shown = repr(raw)
    except (ValueError, RecursionError):  # an integer too long to print, a list too deep
        shown = f"a {type(raw).__name__}"
    return shown if len(shown) <= 48 else shown[:45] + "..."


def _written(raw: object) -> str:
    if isinstance(raw, list):
        return "[" + ", ".join(str(r) for r in raw) + "]"
    return str(raw).lower() if isinstance(raw, bool) else str(raw)
