"""Open dimensions of an ONNX model's inputs as the trace's symbols: N batch, S sequence, P past, H and W image.

Exporters name open dimensions freely (``batch_size``, ``past_sequence_length + 1``, ``input_ids_dynamic_axes_2``) or
not at all; the rules below give each a symbol or an expression of symbols, first come, first served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hwsim.errors import HwsimError
from hwsim.network.dims import evaluate
from hwsim.network.onnx_file import Declared

DEFAULTS: Mapping[str, int] = {"N": 1, "S": 128, "P": 128, "H": 224, "W": 224}
OTHER_DEFAULT = 16
# Two sizes of every symbol at which the graph is built to see how dimensions follow it. They differ from each other and
# from 1, so that no shape coincides by accident; one size is odd, so that only laws without rounding pass.
PROBES: Mapping[str, tuple[int, int]] = {"N": (2, 3), "S": (64, 97), "P": (48, 81), "H": (224, 257), "W": (192, 331)}
MAX_SYMBOLS = 5

_ANONYMOUS = re.compile(r"unk_|dynamic_axes|^none$|^\?$|^-1$|^s\d+$|^dim_?\d*$|^d\d+$", re.I)
_LENGTH = re.compile(r"seq|len|time|token|frame")
_PART = re.compile(r"\s*\+\s*")


@dataclass(slots=True)
class Symbols:
    """The expression of every named open dimension, and the symbols they use with their default sizes."""

    expressions: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, int] = field(default_factory=dict)

    def expression(self, name: str | None, position: int, rank: int, known: Iterable[str] = ()) -> str:
        """The expression of open dimension ``name`` (None: unnamed) at ``position`` of a tensor of ``rank``."""
        key = name if name is not None else f"?{position}/{rank}"
        if key not in self.expressions:
            self.expressions[key] = self._choose(name, position, rank, set(known))
        return self.expressions[key]

    def _choose(self, name: str | None, position: int, rank: int, known: set[str]) -> str:
        if name is None or _ANONYMOUS.search(name):
            return self._use(_by_position(position, rank))
        if "+" in name:
            parts = [p for p in _PART.split(name.strip()) if p]
            if len(parts) > 4:
                raise HwsimError(f"open dimension {name[:60]!r} is not understood")
            terms = [p if p.isdigit() else self.expression(p, 1, rank, known) for p in parts]
            return f"({'+'.join(terms)})" if len(terms) > 1 else terms[0]
        low = name.lower()
        if "batch" in low or low in ("n", "b", "bs", "bsz"):
            return self._use("N")
        if "past" in low or "cache" in low:
            return self._mine("P", name)
        if "total" in low and any("past" in k.lower() for k in known):
            return f"({self._use('P')}+{self._use('S')})"
        if low in ("h", "height", "image_height", "img_h"):
            return self._use("H")
        if low in ("w", "width", "image_width", "img_w"):
            return self._use("W")
        if _LENGTH.search(low) or low in ("s", "t", "l"):
            return self._mine("S", name)
        return self._mine("", name)

    def _mine(self, symbol: str, name: str) -> str:
        """``symbol`` when no differently named dimension has it, else a symbol made of the name."""
        if symbol and symbol not in self.defaults:
            return self._use(symbol)
        own = re.sub(r"[^A-Z0-9_]", "_", name.upper()).strip("_")[:24] or "D"
        own = own if own[0].isalpha() else f"D{own}"
        while own in self.defaults or own in DEFAULTS:
            own += "_"
        return self._use(own, DEFAULTS["S"] if _LENGTH.search(name.lower()) else OTHER_DEFAULT)

    def _use(self, symbol: str, default: int = OTHER_DEFAULT) -> str:
        self.defaults.setdefault(symbol, DEFAULTS.get(symbol, default))
        return symbol

    def dim(self, value: int | str | None, sizes: Mapping[str, int]) -> int | None:
        """A declared dimension at concrete ``sizes``; None when it says nothing."""
        if isinstance(value, int):
            return value
        if value is None or value not in self.expressions:
            return None
        return evaluate(self.expressions[value], sizes)


def _by_position(position: int, rank: int) -> str:
    if position == 0:
        return "N"
    if rank >= 4 and position >= rank - 2:
        return "W" if position == rank - 1 else "H"
    return "S" if position == 1 else f"D{position}"


def probes(symbols: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Two sizes for each symbol, all different."""
    first: dict[str, int] = {}
    second: dict[str, int] = {}
    for i, name in enumerate(symbols):
        first[name], second[name] = PROBES.get(name, (16 + 5 * i, 25 + 8 * i))
    return first, second


def input_shape(info: Declared, symbols: Symbols, known: Iterable[str]) -> tuple[int | str, ...]:
    """An input's shape with open dimensions as expressions; raises HwsimError naming input and dimension."""
    if info.dims is None:
        raise HwsimError(f"input {info.name[:80]!r} declares no shape; export the model with one")
    if not info.dtype:
        raise HwsimError(f"input {info.name[:80]!r} is no tensor of numbers")
    out: list[int | str] = []
    for i, dim in enumerate(info.dims):
        if isinstance(dim, int):
            if dim < 1:
                raise HwsimError(f"input {info.name[:80]!r}: dimension {i} is {dim}; it must be at least 1 or named")
            out.append(dim)
        else:
            out.append(symbols.expression(dim, i, len(info.dims), known))
            if dim is None:
                continue
    return tuple(out)
