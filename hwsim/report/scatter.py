"""A scatter plot on two logarithmic scales with named points, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.report.figures import number, per_cent, text
from hwsim.report.table import significant

_HEIGHT, _TOP, _BOTTOM = 380, 22, 34
_WIDTH = 510  # pixels of half a page, for placing names; wider figures leave more room


@dataclass(frozen=True, slots=True)
class Mark:
    """One point: its place, name, what to say of it, style class, and whether its name is always shown."""

    x: float
    y: float
    name: str
    tip: str
    style: str
    named: bool


def scatter(marks: Sequence[Mark], x_label: str, y_label: str, label: str, limit: float | None = None) -> str:
    """Return the plot; ``limit`` draws a line at that x. All values must be above 0."""
    xs = [m.x for m in marks] + ([limit] if limit else [])
    left, right = _range(xs)
    low, high = _range([m.y for m in marks])

    def at_x(value: float) -> float:
        return 0.03 + 0.92 * (math.log10(value) - left) / (right - left)

    def at_y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - math.log10(value)) / (high - low)

    out: list[str] = []
    for value in _ticks(left, right):
        at = per_cent(at_x(value))
        out.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        out.append(
            f'<text class="tick" text-anchor="middle" x="{at}" y="{_HEIGHT - _BOTTOM + 15}">{_short(value)}</text>'
        )
    for value in _ticks(low, high):
        at = number(at_y(value))
        out.append(f'<line class="grid" x1="3%" x2="95%" y1="{at}" y2="{at}"/>')
        out.append(f'<text class="tick" x="3.4%" y="{number(at_y(value) - 4)}">{_short(value)}</text>')
    if limit:
        at = per_cent(at_x(limit))
        out.append(
            f'<line class="roof" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke-dasharray="5 4"/>'
        )
    boxes = [(at_x(m.x) * _WIDTH - 7, at_y(m.y) - 7, at_x(m.x) * _WIDTH + 7, at_y(m.y) + 7) for m in marks]
    for m in sorted(marks, key=lambda m: m.named):
        place = f'cx="{per_cent(at_x(m.x))}" cy="{number(at_y(m.y))}"'
        out.append(f'<circle class="dot {m.style}" {place} r="6" data-t="{text(m.tip)}"/>')
    for m in sorted(marks, key=lambda m: (not m.named, m.y)):
        out += _name(m, at_x(m.x) * _WIDTH, at_y(m.y), boxes)
    out.append(f'<text class="axis" x="3%" y="13">{text(y_label)}</text>')
    out.append(f'<text class="axis" x="95%" y="{_HEIGHT - 4}" text-anchor="end">{text(x_label)}</text>')
    return (
        f'<svg class="plot" width="100%" height="{_HEIGHT}" role="img" aria-label="{text(label)}">{"".join(out)}</svg>'
    )


def _name(m: Mark, x: float, y: float, boxes: list[tuple[float, float, float, float]]) -> list[str]:
    """The point's name right, left, above or below of it, where it covers nothing; none where every place is taken."""
    wide = 6.6 * len(m.name)
    for dx, dy, anchor in ((10, 4, "start"), (-10, 4, "end"), (0, -11, "middle"), (0, 19, "middle")):
        begin = x + dx - (wide if anchor == "end" else wide / 2 if anchor == "middle" else 0)
        box = (begin, y + dy - 10, begin + wide, y + dy + 3)
        inside = box[0] > 0 and box[2] < _WIDTH
        if inside and not any(a[0] < box[2] and box[0] < a[2] and a[1] < box[3] and box[1] < a[3] for a in boxes):
            boxes.append(box)
            place = f'text-anchor="{anchor}" x="{per_cent((x + dx) / _WIDTH)}" y="{number(y + dy)}"'
            return [f'<text class="small" {place}>{text(m.name)}</text>']
    return []


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Logarithms of the ends of a scale that holds all values with room around them."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.08, 0.07 * (high - low))
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two powers of ten, given as logarithms: 1, 2, 5 of each decade, fewer on wide scales."""
    factors = (1, 1.5, 2, 3, 5, 7) if high - low < 1 else (1, 2, 5) if high - low < 2.2 else (1,)
    found = [f * 10.0**d for d in range(math.floor(low), math.ceil(high) + 1) for f in factors]
    return [v for v in found if low <= math.log10(v) <= high]


def _short(value: float) -> str:
    if 1e-3 <= value < 1e4:
        return significant(value, 2).removesuffix(".0")
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
