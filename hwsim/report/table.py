"""Fixed-width text tables and quantities for people: they survive logs, pipes and diffs."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PREFIXES = (
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def si(value: float, unit: str, digits: int = 3) -> str:
    """Return ``value`` with a decimal prefix: ``3.15 ms``, ``138 GB/s``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale * 0.9995:
            return f"{significant(value / scale, digits)} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


def significant(value: float, digits: int = 3) -> str:
    """Return ``value`` rounded to significant digits, without exponents for ordinary sizes."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, places)}f}" if places >= 0 else f"{round(value, places):.0f}"


def size(value: float) -> str:
    """Return bytes with a binary prefix: ``24.5 MiB``."""
    for scale, prefix in ((2**40, "Ti"), (2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if abs(value) >= scale:
            return f"{significant(value / scale)} {prefix}B"
    return f"{value:.0f} B"


def percent(value: float) -> str:
    """Return a percentage with a sensible number of digits."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), indent: str = "  ") -> str:
    """Return rows under a header in aligned columns; ``left`` columns are flush left, the others right."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(header[i]), *(len(r[i]) for r in rows)) if rows else len(header[i]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        parts = [c.ljust(widths[i]) if i in left else c.rjust(widths[i]) for i, c in enumerate(cells)]
        return (indent + "  ".join(parts)).rstrip()

    return "\n".join([line(header), indent + "  ".join("-" * w for w in widths), *(line(r) for r in rows)])


def plain(text: str) -> str:
    """Return ``text`` with control characters (of names in files of others) replaced, so that it stays one plain line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def clip(text: str, width: int) -> str:
    """Return ``text`` shortened in the middle to ``width`` characters."""
    if len(text) <= width:
        return text
    keep = width - 1
    return text[: keep - keep // 2] + "…" + text[len(text) - keep // 2 :]
