"""Quantities in text ("940 MHz", "16 GiB", "450 GB/s") to SI floats and back, with the dimension checked.

A *dimension* names what is measured; its base unit is the SI one where SI has one (Hz, B, s, W, J, V, m2) and otherwise
the field's own (nm for a process node, USD per hour for a rental price). Decimal prefixes are powers of 1000, binary
ones ("KiB", "MiB") powers of 1024, and a lower-case b is a bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from hwsim.errors import HwsimError, near

_LARGE = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SMALL = {
    "": 0,
    "m": -3,
    "u": -6,
    "µ": -6,
    "μ": -6,
    "n": -9,
    "p": -12,
    "f": -15,
}  # both micro signs are typed in practice
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50}

_NUMBER = re.compile(r"[+-]?(?:\d[\d_]{0,39}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Dimension:
    """One kind of quantity: its name in prose, base unit, accepted units with their exact factor, and an example."""

    name: str
    what: str
    base: str
    example: str
    units: Mapping[str, Decimal]
    printed: tuple[str, ...]  # the units a value is printed in, smallest first


def _decimal(stem: str, prefixes: Mapping[str, int], factor: str = "1", tail: str = "") -> dict[str, Decimal]:
    return {f"{p}{stem}{tail}": Decimal(factor).scaleb(e) for p, e in prefixes.items()}


def _binary(stem: str, factor: str = "1", tail: str = "") -> dict[str, Decimal]:
    return {f"{p}{stem}{tail}": Decimal(2**e) * Decimal(factor) for p, e in _BINARY.items()}


def _per(units: Mapping[str, Decimal], tails: tuple[str, ...]) -> dict[str, Decimal]:
    return {f"{u}{t}": f for u, f in units.items() for t in tails}


_BYTES = {**_decimal("B", _LARGE), **_binary("B"), "byte": Decimal(1), "bytes": Decimal(1)}
_BITS = {**_decimal("b", _LARGE, "0.125"), **_decimal("bit", _LARGE, "0.125"), **_binary("b", "0.125")}
_SECONDS = {**_decimal("s", _SMALL), "min": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_JOULES = {**_decimal("J", _SMALL), **_decimal("J", _LARGE), **_decimal("Wh", _LARGE, "3600")}
_OPS = {
    **_per(_decimal("OP", _LARGE), ("S", "/s")),
    **_per(_decimal("FLOP", _LARGE), ("S", "/s")),
    **_per(_decimal("op", _LARGE), ("/s",)),
}

_USD = {"USD": Decimal(1), "$": Decimal(1)}

DIMENSIONS: Mapping[str, Dimension] = {
    d.name: d
    for d in (
        Dimension("count", "a whole number", "", "128", {"": Decimal(1)}, ("",)),
        Dimension("ratio", "a plain number or a percentage", "", "0.5", {"": Decimal(1), "%": Decimal("0.01")}, ("",)),
        Dimension("frequency", "a frequency", "Hz", "940 MHz", _decimal("Hz", _LARGE),
                  ("Hz", "kHz", "MHz", "GHz", "THz")),
        Dimension("rate", "a rate per second", "/s", "300/s", {"/s": Decimal(1), "k/s": Decimal(1000)}, ("/s",)),
        Dimension("bytes", "bytes", "B", "16 GiB", _BYTES, ("B", "kB", "MB", "GB", "TB", "PB")),
        Dimension("bandwidth", "bytes per second", "B/s", "450 GB/s",
                  {**_per(_BYTES, ("/s",)), **_per(_BITS, ("/s",)), **_decimal("bps", _LARGE, "0.125")},
                  ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s")),
        Dimension("time", "a time", "s", "1 us", _SECONDS, ("fs", "ps", "ns", "us", "ms", "s")),
        Dimension("power", "a power", "W", "350 W", {**_decimal("W", _SMALL), **_decimal("W", _LARGE)},
                  ("uW", "mW", "W", "kW", "MW")),
        Dimension("energy", "an energy", "J", "12 pJ", _JOULES, ("fJ", "pJ", "nJ", "uJ", "mJ", "J", "kJ", "MJ")),
        Dimension("energy_per_bit", "an energy per bit", "J/bit", "12 pJ/bit",
                  {**_per(_decimal("J", _SMALL), ("/bit", "/b")),
                   **_per(_decimal("J", _SMALL, "0.125"), ("/B", "/byte"))},
                  ("fJ/bit", "pJ/bit", "nJ/bit", "uJ/bit")),
        Dimension("voltage", "a voltage", "V", "0.9 V", _decimal("V", _SMALL), ("mV", "V")),
        Dimension("node", "a process node in nm", "nm", "7 nm", {"nm": Decimal(1), "um": Decimal(1000)}, ("nm",)),
        Dimension("area", "an area", "m2", "331 mm2",
                  {"m2": Decimal(1), "mm2": Decimal("1e-6"), "um2": Decimal("1e-12")}, ("um2", "mm2", "m2")),
        Dimension("op_rate", "operations per second", "op/s", "92 TOPS", _OPS,
                  ("OPS", "KOPS", "MOPS", "GOPS", "TOPS", "POPS", "EOPS")),
        Dimension("price", "a price in US dollars", "USD", "249 USD", _USD, ("USD",)),
        Dimension("price_rate", "US dollars per hour", "USD/h", "3.22 USD/h", _per(_USD, ("/h",)), ("USD/h",)),
        Dimension("energy_price", "US dollars per kWh", "USD/kWh", "0.12 USD/kWh", _per(_USD, ("/kWh",)),
                  ("USD/kWh",)),
    )
}  # fmt: skip


def dimension(name: str) -> Dimension:
    """Return the dimension called ``name``; raises HwsimError naming the near ones."""
    found = DIMENSIONS.get(name)
    if found is None:
        raise HwsimError(f"no dimension '{name}'{near(name, DIMENSIONS)}")
    return found


def _clip(text: str) -> str:
    """Hostile text, short and on one line."""
    shown = text if len(text) <= 40 else text[:37] + "..."
    return repr(shown)


def parse(text: str, of: str) -> float:
    """Return the quantity in ``text`` in the base unit of dimension ``of`` (a key of DIMENSIONS).

    The result is the float nearest to the decimal text, so "1.2 us" is exactly 1.2e-6. Raises HwsimError when the text
    is no quantity, has no unit or a unit of another dimension, saying what would work.
    """
    dim = dimension(of)
    works = f'write e.g. "{dim.example}"'
    stripped = text.strip()
    match = _NUMBER.match(stripped)
    if match is None or len(stripped) > 120:
        raise HwsimError(f"{_clip(text)} is not {dim.what}; {works}")
    unit = stripped[match.end() :].strip()
    factor = dim.units.get(unit)
    if factor is None:
        raise HwsimError(f"{_clip(text)} is not {dim.what}{_why(unit, dim)}; {works}")
    value = float(Decimal(match.group().replace("_", "")) * factor)
    if not math.isfinite(value):
        raise HwsimError(f"{_clip(text)} is too large; {works}")
    return value


def _why(unit: str, dim: Dimension) -> str:
    if not unit:
        return " (it has no unit)"
    others = [d.what for d in DIMENSIONS.values() if unit in d.units]
    if others:
        return f" (it is {others[0]})"
    same = [u for u in dim.units if u.lower() == unit.lower()]
    hint = f"; did you mean {same[0]}?" if same else near(unit, (u for u in dim.units if u))
    return f" (unknown unit {_clip(unit)}{hint.rstrip('?')})".replace("; did", ", did")


def format_quantity(value: float, of: str, digits: int = 4) -> str:
    """Return ``value``, in the base unit of dimension ``of``, as text with a unit and ``digits`` significant digits.

    Bytes print in binary units when they are a whole or half number of them. ``digits=17`` round-trips exactly.
    """
    dim = dimension(of)
    if not math.isfinite(value):
        return "unlimited" if value > 0 else str(value)
    if of == "bytes":
        binary = _format_binary(value)
        if binary:
            return binary
    unit = dim.printed[0]
    for candidate in dim.printed:  # the largest unit in which the number is at least one
        if abs(value) >= float(dim.units[candidate]) * (1 - 10.0**-digits):
            unit = candidate
    if value == 0:
        unit = dim.base if dim.base in dim.units else dim.printed[0]
    number = _trim(float(Decimal(value) / dim.units[unit]), digits)
    return f"{number}{'' if unit.startswith('/') or not unit else ' '}{unit}"


def _format_binary(value: float) -> str:
    """Text in KiB ... TiB when the value is a whole or half number of the largest unit that fits, else ""."""
    for prefix in reversed(_BINARY):
        scaled = value / 2 ** _BINARY[prefix]
        if scaled >= 1:
            return f"{_trim(scaled, 17)} {prefix}B" if scaled * 2 == int(scaled * 2) and scaled < 1e6 else ""
    return ""


def _trim(number: float, digits: int) -> str:
    if float(number).is_integer() and abs(number) < 10**15:
        rounded = float(f"{number:.{digits}g}")
        return str(int(rounded))
    return f"{number:.{digits}g}"
