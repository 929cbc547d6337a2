"""The page's table of all kernels: columns as data, units fixed per column so that they sort and compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.report.figures import text
from hwsim.report.table import clip, percent, significant

if TYPE_CHECKING:
    from hwsim.result import Result

MAX_ROWS = 1000
"""Kernels in the table; of more, the most expensive (the CSV has all)."""

_CELLS = 30_000  # beyond this many cells only the main columns are written, so that the page stays small

_KNOWN = {
    "kernel", "name", "op", "kind", "layers", "format", "passes", "macs", "latency_s", "cycles", "share_pct", "bound_s",
    "sol_pct", "bound", "limiter", "utilization_useful_pct", "utilization_padded_pct", "dram_read_bytes",
    "dram_write_bytes", "on_chip_read_bytes", "weight_bytes", "energy_j",
}  # fmt: skip
"""Columns that every family has and that the table shows in its own way."""

Cell = Callable[[dict[str, Any]], str]


@dataclass(frozen=True, slots=True)
class _Column:
    head: str
    cell: Cell
    words: bool = False
    detail: bool = False


def _scaled(key: str, scale: float, digits: int = 3) -> Cell:
    return lambda row: significant(row[key] * scale, digits)


def _share(key: str) -> Cell:
    return lambda row: percent(row[key])


def _word(key: str, width: int = 90) -> Cell:
    return lambda row: text(clip(str(row[key]), width))


_MAIN = (
    _Column("kernel", _word("name"), words=True),
    _Column("#", lambda row: str(row["kernel"])),
    _Column("op", _word("op"), words=True),
    _Column("format", _word("format"), words=True),
    _Column("time µs", _scaled("latency_s", 1e6)),
    _Column("share %", _share("share_pct")),
    _Column("bound µs", _scaled("bound_s", 1e6)),
    _Column("SOL %", _share("sol_pct")),
    _Column("bound", _word("bound"), words=True),
    _Column("limiter", _word("limiter"), words=True),
    _Column("useful %", _share("utilization_useful_pct")),
    _Column("padded %", _share("utilization_padded_pct")),
    _Column("read KiB", _scaled("dram_read_bytes", 1 / 1024, 4)),
    _Column("written KiB", _scaled("dram_write_bytes", 1 / 1024, 4)),
    _Column("energy µJ", _scaled("energy_j", 1e6)),
)
_DETAIL = (
    _Column("kind", _word("kind"), words=True, detail=True),
    _Column("layers", _word("layers", 200), words=True, detail=True),
    _Column("passes", lambda row: str(row["passes"] or ""), detail=True),
    _Column("MMAC", _scaled("macs", 1e-6), detail=True),
    _Column("cycles", lambda row: str(row["cycles"]), detail=True),
    _Column("on-chip read KiB", _scaled("on_chip_read_bytes", 1 / 1024, 4), detail=True),
    _Column("weights KiB", _scaled("weight_bytes", 1 / 1024, 4), detail=True),
)


def _planned(rows: list[dict[str, Any]]) -> list[_Column]:
    """What a family says of how its kernels run (tile, grid, waves …): the columns between energy and time by cause."""
    names = [key for key in rows[0] if key not in _KNOWN and not key.startswith(("time_", "energy_"))]
    shown = [key for key in names if any(row[key] not in ("", None) for row in rows)]
    return [_Column(key.replace("_", " "), _figure(key), detail=True) for key in shown]


def _figure(key: str) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        value = row[key]
        if isinstance(value, bool):
            return "yes" if value else "no"
        return significant(value) if isinstance(value, float) else text(clip("" if value is None else str(value), 90))

    return cell


def _measured(rows: list[dict[str, Any]]) -> list[_Column]:
    """Columns of time by cause and energy by component, those that are zero everywhere left out."""
    out = []
    for key in rows[0]:
        kind = key.split("_", 1)[0]
        if kind not in ("time", "energy") or key == "energy_j" or not any(row[key] for row in rows):
            continue
        name = key.split("_", 1)[1].rsplit("_", 1)[0].replace("_", " ")
        head = f"{name} µs" if kind == "time" else f"{name} µJ"
        out.append(_Column(head, _scaled(key, 1e6), detail=True))
    return out


def kernel_table(result: Result) -> str:
    """Return the section with one row per kernel, sortable and searchable by script; details are one tick away."""
    rows = result.kernels
    total = len(rows)
    if total > MAX_ROWS:
        largest = sorted(rows, key=lambda row: -row["latency_s"])[:MAX_ROWS]
        rows = sorted(largest, key=lambda row: row["kernel"])
    columns = [*_MAIN, *_DETAIL, *_planned(rows), *_measured(rows)]
    complete = len(columns) * len(rows) <= _CELLS
    if not complete:
        columns = list(_MAIN)
    head = "".join(f'<th scope="col"{_kind(c)}><button type="button">{text(c.head)}</button></th>' for c in columns)
    body = "\n".join(_row(row, columns) for row in rows)
    lead = (
        f"{total} kernels of one program, in order."
        if total == len(rows)
        else (f"The {len(rows)} most expensive of {total} kernels, in order; the CSV has all.")
    )
    more = (
        '<input type="checkbox" id="more"> <label for="more" class="soft">time by cause, energy by component and more</label>'
        if complete
        else '<input type="checkbox" id="more" hidden>'
    )
    tools = (
        '<div class="tools js" hidden><input type="search" id="filter" placeholder="filter, e.g. conv weight" '
        'aria-label="filter kernels"><span id="count" class="soft" role="status"></span>'
        '<span class="soft">click a heading to sort</span></div>'
    )
    return (
        '<section id="table" class="long" aria-labelledby="table-h"><h2 id="table-h">All kernels</h2>'
        f'<p class="soft">{lead}{"" if complete else " Details by cause and component are in the CSV."}</p>'
        f"{tools}{more}"
        '<div class="big-table" tabindex="0" role="region" aria-label="table of kernels"><table id="all">'
        f"<caption hidden>Kernels of one program</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div></section>"
    )


def _kind(column: _Column) -> str:
    kinds = " ".join(name for name, on in (("l", column.words), ("x", column.detail)) if on)
    return f' class="{kinds}"' if kinds else ""


def _row(row: dict[str, Any], columns: list[_Column]) -> str:
    cells = [f"<td{_kind(c)}>{c.cell(row)}</td>" for c in columns[1:]]
    return f'<tr><th scope="row">{columns[0].cell(row)}</th>{"".join(cells)}</tr>'
