"""Figures as inline SVG, drawn in per cent of their width: they fill any page and their text keeps its size.

Colours are style classes (``p0`` … ``p10``) that the page's style sheet defines for light and dark. ``data-t`` is what
the page shows beside the pointer. Everything a figure says is in a table of the page too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hwsim.report.table import clip, percent, plain, significant
from hwsim.report.table import si as plain_si
from hwsim.result import FURTHER_LIMITERS, LIMITERS, UNIT_NAMES

_PALETTE = {
    "matrix unit": 0, "vector unit": 1, "weight fetch": 2, "activation fetch": 3, "accumulator": 4, "conversion": 5,
    "result store": 6, "dispatch": 7, "weight shift": 8, "host link": 9, "input": 10,
    # … of other families: names that never stand on one page together may share a colour
    "tensor cores": 0, "CUDA cores": 1, "memory bandwidth": 2, "L2 bandwidth": 3, "latency": 4, "shared memory": 5,
    "epilogue": 6, "kernel launch": 7, "tail wave": 8, "instruction issue": 9, "communication": 10, "DLA": 4,
    "cells": 0, "SIMD units": 0, "processor": 1, "cache bandwidth": 3, "interpreter": 7, "host work": 4,
    "parameter streaming": 2, "flash": 5,
    # energy
    "matrix": 0, "vector": 1, "padding": 10, "array": 5, "registers": 9, "link": 8, "interconnect": 6, "static": 7,
    # units of the timeline
    "dma": 2, "store": 6, "shift": 8, "convert": 5, "cpu": 3, "dla": 4,
}  # fmt: skip
_SPARE = (2, 3, 4, 6, 8)  # for names of a machine's own memories, in order
COLOURS = 11


def text(value: object) -> str:
    """Return anything as HTML text: escaped, without control characters."""
    return escape(plain(str(value)))


def si(value: float, unit: str, digits: int = 3) -> str:
    """Return ``value`` with a decimal prefix, micro as a page shows it."""
    return plain_si(value, unit, digits).replace(" u", " µ")


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return the style class of each name; known causes and components keep theirs on every page."""
    out: dict[str, str] = {}
    names = list(names)
    taken = {_PALETTE[n] for n in names if n in _PALETTE}
    spare = [c for c in _SPARE if c not in taken] or list(_SPARE)
    for name in names:
        if name not in out:
            unknown = sum(1 for n in out if n not in _PALETTE)
            out[name] = f"p{_PALETTE[name] if name in _PALETTE else spare[unknown % len(spare)]}"
    return out


CAUSE_COLOURS = colours([*LIMITERS.values(), *FURTHER_LIMITERS.values(), *UNIT_NAMES])


def number(value: float) -> str:
    """Return a coordinate with as few digits as the eye needs."""
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"


def per_cent(value: float) -> str:
    """Return a share of 1 as an SVG length."""
    return number(100 * value) + "%"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a whole: its name, style class, share of 1 and value as text."""

    name: str
    colour: str
    share: float
    value: str


def stacked_bar(parts: Sequence[Part], label: str, height: int = 40, *, shares: bool = True) -> str:
    """Return one horizontal bar of parts, with the share in those wide enough where ``shares`` are wanted."""
    out, at = [], 0.0
    for part in parts:
        tip = text(f"{part.name}: {part.value}, {percent(100 * part.share)} %")
        out.append(_rect(at, part.share, 0, height, part.colour, tip))
        if shares and part.share > 0.09:
            middle = per_cent(at + part.share / 2)
            out.append(
                f'<text class="on" x="{middle}" y="{height // 2 + 5}" text-anchor="middle">{percent(100 * part.share)} %</text>'
            )
        at += part.share
    return _svg(height, label, out, "bar")


def legend(parts: Sequence[Part], caption: str, what: str, unit: str = "") -> str:
    """Return the parts as a table with colour keys, largest first."""
    rows = [
        f'<tr><th scope="row"><i class="key {p.colour}"></i>{text(p.name)}</th><td>{text(p.value)}</td>'
        f"<td>{percent(100 * p.share)} %</td></tr>"
        for p in parts
    ]
    head = f'<tr><th scope="col">{text(what)}</th><th scope="col">{text(unit)}</th><th scope="col">share</th></tr>'
    return (
        f'<table class="legend"><caption class="quiet">{text(caption)}</caption><thead>{head}</thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _rect(x: float, width: float, y: float, height: float, colour: str, tip: str = "") -> str:
    said = f' data-t="{tip}"' if tip else ""
    shape = f'x="{per_cent(x)}" y="{number(y)}" width="{per_cent(width)}" height="{number(height)}"'
    return f'<rect class="{colour}" {shape}{said}/>'


def _svg(height: float, label: str, body: Iterable[str], kind: str) -> str:
    return (
        f'<svg class="{kind}" width="100%" height="{number(height)}" role="img" aria-label="{text(label)}">'
        f"{''.join(body)}</svg>"
    )


# -- roofline ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel on the roofline: operations per byte (inf without traffic), operations per second, share of the time."""

    name: str
    intensity: float
    rate: float
    share: float
    limiter: str


@dataclass(frozen=True, slots=True)
class Roof:
    """A ceiling: operations per second of a number format, or bytes per second of a memory (may be inf)."""

    name: str
    per_s: float


_PLOT = 400
_TOP, _BOTTOM = 26, 34


class _Axes:
    """Logarithmic axes over whole decades: x in shares of the width, y in pixels."""

    def __init__(self, x: tuple[int, int], y: tuple[int, int]) -> None:
        self.x, self.y = x, y

    def at_x(self, value: float) -> float:
        return 0.012 + 0.976 * (math.log10(value) - self.x[0]) / (self.x[1] - self.x[0])

    def at_y(self, value: float) -> float:
        high = _PLOT - _TOP - _BOTTOM
        return _TOP + high * (self.y[1] - math.log10(value)) / (self.y[1] - self.y[0])

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
        (x1, y1), (x2, y2) = start, end
        return (
            f'<line class="{kind}" x1="{per_cent(self.at_x(x1))}" y1="{number(self.at_y(y1))}" '
            f'x2="{per_cent(self.at_x(x2))}" y2="{number(self.at_y(y2))}"/>'
        )


def roofline(points: Sequence[Point], compute: Sequence[Roof], memory: Roof, label: str) -> str:
    """Return the log-log plot of kernels under the compute and memory ceilings; points without traffic sit at the right.

    Compute ceilings and points with rates are expected; there is nothing to draw without either.
    """
    points = [p for p in points if p.rate > 0]
    peak = max(roof.per_s for roof in compute)
    bandwidth = memory.per_s if math.isfinite(memory.per_s) else 0.0
    finite = [p.intensity for p in points if math.isfinite(p.intensity)]
    ridge = peak / bandwidth if bandwidth else 1.0
    x = (math.floor(math.log10(min([*finite, ridge / 10]))), math.ceil(math.log10(max([*finite, ridge * 10])) + 0.25))
    low = min([peak / 1e3, *(p.rate for p in points)])
    y = (max(math.floor(math.log10(low)), math.ceil(math.log10(peak)) - 9), math.ceil(math.log10(peak) + 0.05))
    axes = _Axes(x, y)
    out, labels = _grid(axes)
    left, right = 10.0 ** x[0], 10.0 ** x[1]
    if bandwidth:
        start = max(left, 10.0 ** y[0] / bandwidth)
        out.append(axes.line((start, start * bandwidth), (ridge, peak), "roof"))
        at = math.sqrt(start * ridge)
        out.append(
            f'<text class="rooftext" text-anchor="end" x="{per_cent(axes.at_x(at) - 0.012)}" '
            f'y="{number(axes.at_y(at * bandwidth) - 6)}">{text(memory.name)} {si(bandwidth, "B/s")}</text>'
        )
    for roof in sorted(compute, key=lambda r: -r.per_s):
        begin = max(left, roof.per_s / bandwidth) if bandwidth else left
        out.append(axes.line((begin, roof.per_s), (right, roof.per_s), "roof"))
        out.append(
            f'<text class="rooftext" text-anchor="end" x="98.8%" y="{number(axes.at_y(roof.per_s) - 6)}">'
            f"{text(roof.name)} {si(roof.per_s, 'op/s')}</text>"
        )
    for p in sorted(points, key=lambda p: -p.share):
        out.append(_dot(axes, p, right))
    return _svg(_PLOT, label, [*out, *labels], "plot")


def _grid(axes: _Axes) -> tuple[list[str], list[str]]:
    """Lines, and the words that are drawn over everything."""
    out: list[str] = []
    labels: list[str] = []
    (left, right), (bottom, top) = axes.x, axes.y
    for decade in range(left, right + 1):
        at = 10.0**decade
        out.append(axes.line((at, 10.0**bottom), (at, 10.0**top), "grid"))
        anchor = "start" if decade == left else "end" if decade == right else "middle"
        shown = significant(at, 1) if -3 <= decade <= 3 else si(at, "", 1).strip()
        x = per_cent(axes.at_x(at))
        labels.append(f'<text class="tick" text-anchor="{anchor}" x="{x}" y="{_PLOT - _BOTTOM + 15}">{shown}</text>')
    for decade in range(bottom, top + 1):
        at = 10.0**decade
        out.append(axes.line((10.0**left, at), (10.0**right, at), "grid"))
        if bottom < decade < top:
            labels.append(f'<text class="tick" x="1.6%" y="{number(axes.at_y(at) - 4)}">{si(at, "op/s", 1)}</text>')
    labels.append('<text class="axis" x="1.2%" y="14">operations per second</text>')
    labels.append(
        f'<text class="axis" x="98.8%" y="{_PLOT - 4}" text-anchor="end">operations per byte of memory traffic</text>'
    )
    return out, labels


def _dot(axes: _Axes, p: Point, right: float) -> str:
    known = math.isfinite(p.intensity)
    radius = 3 + 22 * math.sqrt(p.share)
    x = axes.at_x(min(max(p.intensity, 10.0 ** axes.x[0]), right)) if known else 0.985
    y = axes.at_y(max(p.rate, 10.0 ** axes.y[0]))
    where = f"{significant(p.intensity)} op/B" if known else "no off-chip traffic"
    tip = text(f"{clip(p.name, 60)}: {si(p.rate, 'op/s')}, {where}, {percent(100 * p.share)} % of time, {p.limiter}")
    colour = CAUSE_COLOURS.get(p.limiter, "p7")
    return f'<circle class="dot {colour}" cx="{per_cent(x)}" cy="{number(y)}" r="{number(radius)}" data-t="{tip}"/>'


# -- kernels against their bounds --------------------------------------------------------------------------------------


def kernel_bar(parts: Sequence[Part], bound: float, label: str) -> str:
    """Return one kernel's bar: parts in shares of the scale, and a mark where its bound is."""
    out, at = [], 0.0
    for part in parts:
        out.append(_rect(at, part.share, 3, 14, part.colour, text(f"{part.name}: {part.value}")))
        at += part.share
    x = per_cent(min(1.0, bound))
    out += [f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="20"/>' for kind in ("halo", "mark")]
    return _svg(20, label, out, "bar")


# -- timeline ----------------------------------------------------------------------------------------------------------

_STEPS = 4000  # columns of the timeline: no interval is drawn finer
_SHADES = 8


def ticks(total: float, most: int = 8) -> list[float]:
    """Return round values from 0 to ``total``, at most ``most`` steps apart."""
    if not total > 0:
        return [0.0]
    raw = total / most
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(f * scale for f in (1, 2, 5, 10) if f * scale >= raw * (1 - 1e-9))
    return [i * step for i in range(int(total / step + 1e-9) + 1)]


def time_axis(total_s: float) -> str:
    """Return the scale above a timeline."""
    out = []
    for i, at in enumerate(ticks(total_s)):
        share = at / total_s if total_s else 0.0
        anchor = "start" if share < 0.02 else "end" if share > 0.97 else "middle"
        shown = si(at, "s").replace(".00 ", " ").replace(".0 ", " ") if at else "0"
        kind = "tick odd" if i % 2 else "tick"  # narrow pages show every other
        out.append(f'<text class="{kind}" text-anchor="{anchor}" x="{per_cent(share)}" y="13">{shown}</text>')
        out.append(f'<line class="grid" x1="{per_cent(share)}" x2="{per_cent(share)}" y1="17" y2="22"/>')
    return _svg(22, "time since the start of the run", out, "axisbar")


def kernel_track(spans: Sequence[tuple[float, float, str, str, str]], label: str) -> str:
    """Return the track of kernels: (start, length) in shares of the run, style class, name, and what to say of it."""
    out = []
    edge = " kern" if len(spans) <= 300 else ""  # lines between more of them would cover them
    for start, length, colour, name, tip in spans:
        out.append(_rect(start, length, 2, 24, colour + edge, text(tip)))
        fits = int(length * 130)
        if fits > len(name) + 1:
            out.append(f'<text class="on small" x="{per_cent(start + 0.004)}" y="18">{text(name)}</text>')
    return _svg(28, label, out, "track")


def unit_track(spans: Sequence[tuple[float, float, float]], colour: str, label: str) -> str:
    """Return the track of a unit: (start, end, busy share) in shares of the run, darker where it was busier."""
    cells = [0.0] * _STEPS
    for start, end, busy in spans:
        _spread(cells, start * _STEPS, end * _STEPS, busy)
    paths: dict[int, list[str]] = {}
    begin = 0
    while begin < _STEPS:
        shade = _shade(cells[begin])
        stop = begin + 1
        while stop < _STEPS and _shade(cells[stop]) == shade:
            stop += 1
        if shade:
            paths.setdefault(shade, []).append(f"M{begin} 0h{stop - begin}v1h-{stop - begin}z")
        begin = stop
    body = [
        f'<path class="{colour}" fill-opacity="{number(shade / _SHADES)}" d="{"".join(d)}"/>'
        for shade, d in sorted(paths.items())
    ]
    return (
        f'<svg class="track unit" width="100%" height="20" viewBox="0 0 {_STEPS} 1" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(label)}" data-t="{text(label)}">{"".join(body)}</svg>'
    )


def _spread(cells: list[float], start: float, end: float, busy: float) -> None:
    """Add ``busy`` of the interval [start, end), in cells, to each cell's busy share."""
    first, last = max(0, int(start)), min(_STEPS - 1, int(end))
    for cell in range(first, last + 1):
        cells[cell] += busy * max(0.0, min(end, cell + 1) - max(start, cell))


def _shade(busy: float) -> int:
    return 0 if busy <= 0 else min(_SHADES, math.ceil(_SHADES * min(busy, 1.0) - 1e-9))


def parts_of(values: Mapping[str, float], total: float, unit: str, style: Mapping[str, str]) -> list[Part]:
    """Return nonzero values as parts of ``total``, largest first."""
    ordered = sorted(values.items(), key=lambda kv: -kv[1])
    return [Part(n, style[n], v / total if total else 0.0, si(v, unit)) for n, v in ordered if v > 0]
