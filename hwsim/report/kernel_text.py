"""Kernels as text tables: what each costs, how it runs, and time and energy by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hwsim.report.kinds import kinds
from hwsim.report.table import clip, percent, significant, size, table

if TYPE_CHECKING:
    from hwsim.result import Result

Cell = Callable[[Mapping[str, Any]], str]

_START: dict[str, Cell] = {
    "#": lambda row: str(row["kernel"]),
    "kernel": lambda row: clip(row["name"], 34),
    "op": lambda row: row["op"],
    "ms": lambda row: significant(row["latency_s"] * 1e3),
    "share %": lambda row: percent(row["share_pct"]),
    "SOL %": lambda row: percent(row["sol_pct"]),
    "limiter": lambda row: row["limiter"],
}
_MIDDLE: dict[str, Cell] = {
    "useful %": lambda row: percent(row["utilization_useful_pct"]),
    "padded %": lambda row: percent(row["utilization_padded_pct"]),
}
_END: dict[str, Cell] = {
    "read": lambda row: size(row["dram_read_bytes"]),
    "written": lambda row: size(row["dram_write_bytes"]),
    "mJ": lambda row: significant(row["energy_j"] * 1e3),
}
_WORDS = ("kernel", "op", "limiter", "runs as")


def _runs_as(row: Mapping[str, Any]) -> str:
    """A GPU kernel's plan in a few characters: tile, ways K is split, CTAs a SM holds."""
    if not row.get("tile"):
        return str(row.get("algorithm", ""))
    split = f" /{row['split_k']}" if row.get("split_k", 1) > 1 else ""
    sparse = " 2:4" if row.get("sparse_chosen") is True else ""
    other = f" {row['algorithm']}" if row["algorithm"] != "gemm" else ""
    return f"{row['tile']}{split}{other}{sparse}"


_GPU: dict[str, Cell] = {
    "runs as": _runs_as,
    "waves": lambda row: significant(row["waves"], 2) if row.get("waves") else "",
    "useful %": _MIDDLE["useful %"],
}


def _columns(result: Result) -> dict[str, Cell]:
    """What the table says of a kernel of this family."""
    planned = any(row.get("tile") for row in result.kernels)
    return _START | (_GPU if planned else _MIDDLE) | _END


def kernel_table(result: Result) -> str:
    """Return the table of all kernels, in order."""
    columns = _columns(result)
    cells = [[cell(row) for cell in columns.values()] for row in result.kernels]
    return table(tuple(columns), cells, left=[i for i, name in enumerate(columns) if name in _WORDS])


def kind_table(result: Result, count: int) -> str:
    """Return the ``count`` costliest kinds of kernels: alike ones in one line, with their number and joint share."""
    columns = _columns(result)
    cells = []
    for group in kinds(result.kernels, count):
        first = {**group[0], "share_pct": sum(row["share_pct"] for row in group)}
        row = [cell(first) for cell in columns.values()]
        cells.append([row[0], f"{len(group)}x" if len(group) > 1 else "", *row[1:]])
    header = ("#", "", *tuple(columns)[1:])
    return table(header, cells, left=[i for i, name in enumerate(header) if name in _WORDS])


def detail_table(result: Result) -> str:
    """Return, per kernel, microseconds by what it did or waited for, and microjoules by component."""
    first = result.kernels[0]
    times = [k for k in first if k.startswith("time_") and any(row[k] for row in result.kernels)]
    energies = [
        k for k in first if k.startswith("energy_") and k != "energy_j" and any(row[k] for row in result.kernels)
    ]
    header = ["#", "kernel", *(f"{k[5:-2]} us" for k in times), *(f"{k[7:-2]} uJ" for k in energies)]
    cells = [
        [str(row["kernel"]), clip(row["name"], 28), *(significant(row[k] * 1e6) for k in (*times, *energies))]
        for row in result.kernels
    ]
    return table([h.replace("_", " ") for h in header], cells, left=(1,))
