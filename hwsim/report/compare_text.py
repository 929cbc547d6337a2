"""A comparison as text: one line a machine, then why some are refused, what to try next, and what was assumed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from hwsim.comparison import Comparison
from hwsim.report.table import clip, plain, significant, table
from hwsim.units import format_quantity

WIDTH = 120
_HEADER = (
    "#", "target", "format", "batch", "", "ms", "most", "inf/s", "units", "chips", "W", "mJ/inf", "$/M inf", "bound by"
)  # fmt: skip
_LEFT = (1, 2, 4, 13)
_SPARED = ("units", "most", "W")  # left out, in this order, where names of targets need the room; files have all


def comparison_text(comparison: Comparison) -> str:
    """Return the comparison, at most 120 columns wide and without colour."""
    rows = comparison.rows
    asked = [f"{plain(clip(comparison.network.name, 60))} on {len(rows)} machine{'s' if len(rows) != 1 else ''}"]
    if len({row["target"] for row in rows}) < len(rows):
        asked = [f"{plain(clip(comparison.network.name, 60))}, machines and batches"]
    if comparison.demand.objective_s is not None:
        asked.append(f"objective {format_quantity(comparison.demand.objective_s, 'time')}")
    if comparison.demand.rate_per_s is not None:
        asked.append(f"rate {format_quantity(comparison.demand.rate_per_s, 'rate')}")
    if comparison.per_month is not None:
        asked.append(f"{comparison.per_month:,.0f} requests a month")
    parts = [", ".join(asked), _ranking(comparison), _front(comparison), _refusals(rows)]
    parts += [_working(rows), _next(rows), _notes(comparison)]
    return "\n\n".join(part for part in parts if part)


def _ranking(comparison: Comparison) -> str:
    fitting = [row for row in comparison.rows if row["fits"]]
    if not fitting:
        return ""
    wait = any(row["fill_s"] for row in fitting)
    header = tuple("ms+wait" if wait and h == "ms" else h for h in _HEADER)
    keep = [i for i in range(len(header)) if i != 6 or comparison.demand.objective_s is not None]
    rows = [_cells(row) for row in fitting]
    for name in ("", *_SPARED):  # a target cut short may be any of its like: other columns go first
        keep = [i for i in keep if not name or _HEADER[i] != name]
        cells = [[row[i] for i in keep] for row in rows]
        names, left = tuple(header[i] for i in keep), [keep.index(i) for i in _LEFT]
        others = table(names, [[c if i != 1 else "" for i, c in enumerate(row)] for row in cells], left)
        room = WIDTH - max(map(len, others.splitlines())) + len("target")
        if room >= max(len(row[1]) for row in cells):
            break
    return table(names, [[clip(c, max(8, room)) if i == 1 else c for i, c in enumerate(row)] for row in cells], left)


def _cells(row: Mapping[str, Any]) -> list[str]:
    latency = _short(row["latency_s"] * 1e3)
    if row["fill_s"]:
        latency += f"+{_short(row['fill_s'] * 1e3)}"
    usd = "no price" if row["usd_per_million"] is None else _short(row["usd_per_million"])
    return [
        str(row["rank"]),
        row["target"],
        clip(row["precision"], 8) + ("*" if row["precision_note"] else ""),
        str(row["batch"]),
        row["verdict"],
        latency,
        "none" if row["largest_batch"] is None else str(row["largest_batch"]),
        _short(row["throughput_per_s"]),
        _count(row["units"]),
        _count(row["chips"]),
        _short(row["power_w"]),
        _short(row["energy_per_inference_j"] * 1e3),
        usd + (" b" if row["usd_basis"] == "buy" else ""),
        clip(row["bound_by"], 16),
    ]


def _count(value: int) -> str:
    return str(value) if value < 10**6 else f"{value:.3g}"


def _short(value: float) -> str:
    """Three significant digits, in powers of ten where a plain number would be long."""
    return significant(value) if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"


def _front(comparison: Comparison) -> str:
    """What nothing beats, and what it is a month."""
    lines = []
    if len(comparison.rows) > 1 and comparison.front:
        names = ", ".join(_named(row, comparison.rows) for row in comparison.front)
        lines.append(_item(f"Nothing beats in latency, energy and cost together: {names}"))
    monthly = [row for row in comparison.rows if row["usd_per_month"] is not None]
    if monthly:
        told = ", ".join(f"{_named(row, comparison.rows)} ${_short(row['usd_per_month'])}" for row in monthly)
        lines.append(_item(f"A month: {told}"))
    return "\n".join(lines)


def break_even_text(comparison: Comparison) -> str:
    """Return who is cheapest at which request rate, as a table, and who is not in it and why."""
    found = comparison.break_even
    header = ("requests/s from", "to", "cheapest", "$/M inf from", "to", "units at the end")
    cells = [
        [
            _rate(s.low_per_s), "and up" if s.high_per_s is None else _rate(s.high_per_s), s.target,
            _short(s.usd_per_million_low), _short(s.usd_per_million_high), _count(s.units_high),
        ]
        for s in found.segments
    ]  # fmt: skip
    lines = ["Cheapest by request rate (each machine's cheapest batch in time, as many machines as the rate needs)"]
    lines += [table(header, cells, left=(2,))] if cells else ["  nobody: no price is known, or nobody is in time"]
    lines += [_item(f"no price is known of {', '.join(found.unpriced)}")] if found.unpriced else []
    lines += [_item(f"never in time: {', '.join(found.late)}")] if found.late else []
    return "\n".join(lines)


def _rate(value: float) -> str:
    return f"{float(f'{value:.3g}'):.9g}"


def _refusals(rows: list[dict[str, Any]]) -> str:
    refused = [row for row in rows if not row["fits"]]
    lines = [_item(f"{_named(row, rows)}: {row['refused']}") for row in refused]
    return "Refused\n" + "\n".join(lines) if lines else ""


def _working(rows: list[dict[str, Any]]) -> str:
    """How each cost came about, so that it can be checked by hand."""
    lines = []
    for row in rows:
        parts = []
        paid = f"{_count(row['chips'] or 0)} chip{'s' if row['chips'] != 1 else ''} {_short(100 * (row['busy'] or 0))} % busy"
        if row["rent_usd_per_million"] is not None:
            parts.append(f"rent ${_short(row['rent_usd_per_million'])}")
        if row["buy_usd_per_million"] is not None:
            hardware, electricity = row["hardware_usd_per_million"], row["electricity_usd_per_million"]
            parts.append(f"bought ${_short(hardware)} + electricity ${_short(electricity)}")
        if row["carbon_g_per_million"] is not None:
            parts.append(f"carbon {_short(row['carbon_g_per_million'] / 1e3)} kg CO2e")
        if parts:
            lines.append(_item(f"{_named(row, rows)}: {'; '.join(parts)} ({paid})"))
    return "Cost of a million inferences\n" + "\n".join(lines) if lines else ""


def _next(rows: list[dict[str, Any]]) -> str:
    lines = [_item(f"{_named(row, rows)}: {'; '.join(s['text'] for s in row['next'])}") for row in rows if row["next"]]
    best = "" if len(rows) <= 10 else " for the ten best"
    return f"Next to try{best} (simulated; a narrower format changes the values)\n" + "\n".join(lines) if lines else ""


def _named(row: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    many = sum(other["target"] == row["target"] for other in rows) > 1
    return str(row["target"]) + (f", batch {row['batch']}" if many else "")


def _notes(comparison: Comparison) -> str:
    rows, lines = comparison.rows, []
    legend = ["'units' machines carry the rate" if comparison.demand.rate_per_s is not None else ""]
    if comparison.demand.objective_s is not None:
        legend.append("'most' is the largest batch that meets the objective")
    if any(row["usd_basis"] == "buy" for row in rows):
        legend.append("'b' is the cost of buying, the others rent")
    if any(legend):
        lines.append("; ".join(filter(None, legend)))
    lines += [f"* {note}" for note in dict.fromkeys(row["precision_note"] for row in rows) if note]
    return "Notes\n" + "\n".join(_item(line) for line in [*lines, *comparison.notes])


def _item(text: str) -> str:
    return textwrap.fill(plain(text), WIDTH - 2, initial_indent="  - ", subsequent_indent="    ")
