"""Energy per action: tables by technology node, read once, and interpolated between the nodes they know.

Every figure is three: the one used, and the lowest and highest published for the same action, because tools differ by
more than an order of magnitude. Two tables ship in ``accelerators/constants/``: ``energy_actions.csv`` (arithmetic,
DRAM, links, ratios) and ``energy_sram.csv`` (on-chip memory by capacity). `docs/energy.md` compares their sources.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.machine.values import source_kind
from hwsim.power.span import Span

UNITS = {"pJ": 1e-12, "pJ/bit": 1e-12, "pJ/64bit": 1e-12 / 64, "pJ/bit/mm": 1e-9, "ratio": 1.0}
ACTION_COLUMNS = ("action", "key", "node_nm", "value", "low", "high", "unit", "source")
SRAM_COLUMNS = ("size_kB", "width_bits", "node_nm", "read_pJ", "write_pJ", "source")

# What Horowitz (45 nm) and Jouppi (7 nm) state for 1 MB over what the table has: 1.6 at both nodes.
_SRAM_HIGH = 1.6
# A memory cut into more banks than the table's drives shorter wires; assumed to save at most half.
_SRAM_LOW = 0.5


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the action table; ``node_nm`` is 0 where the process does not matter (then alone for its key)."""

    action: str
    key: str
    node_nm: float
    span: Span
    unit: str
    source: str
    kind: str


class Actions:
    """The action table: `at` gives the energy of an action on a node, `records` its lines and sources."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._by_key: dict[tuple[str, str], list[Record]] = {}
        for record in records:
            self._by_key.setdefault((record.action, record.key), []).append(record)
        for found in self._by_key.values():
            found.sort(key=lambda r: r.node_nm)

    def keys(self, action: str) -> tuple[str, ...]:
        """Return the keys (formats, kinds) an action is known for."""
        return tuple(key for name, key in self._by_key if name == action)

    def records(self, action: str, key: str) -> Sequence[Record]:
        """Return the lines of one action by node; raises HwsimError with near matches when there are none."""
        found = self._by_key.get((action, key))
        if found is None:
            known = self.keys(action)
            raise HwsimError(f"no energy for {action} '{key}'{near(key, known) or '; known: ' + ', '.join(known)}")
        return found

    def at(self, action: str, key: str, node_nm: float) -> Span:
        """Return the energy of an action at a process node, in J or J/bit (or the ratio).

        Between two nodes of the table, and beyond its ends along the last two, the logarithm of the energy is linear in
        the logarithm of the node.
        """
        lines = self.records(action, key)
        if len(lines) == 1:
            return lines[0].span
        nodes = [line.node_nm for line in lines]
        value, low, high = (loglog(node_nm, nodes, [line.span[i] for line in lines]) for i in range(3))
        return Span(value, min(low, value), max(high, value))

    def all_records(self) -> tuple[Record, ...]:
        """Return every line of the table."""
        return tuple(record for lines in self._by_key.values() for record in lines)


class SramTable:
    """Energy per bit of on-chip memory by capacity and node, interpolated in log-log in both.

    The table's words grow with its capacities (32 bits at 1 kB to 512 at 16 MB); at equal capacity a word twice as wide
    costs a tenth less per bit, so width enters only through them, and through the number of banks a caller cuts a
    memory into. Beyond 16 MB energy follows the one large memory with a figure (128 MiB at 7 nm), scaled to other nodes
    as the 16 MB one.
    """

    def __init__(
        self, sizes: Sequence[float], nodes: Sequence[float], read: Mapping[float, Sequence[float]],
        write: Mapping[float, Sequence[float]], ceiling: Actions,
    ) -> None:  # fmt: skip
        self._sizes, self._nodes, self._read, self._write = sizes, nodes, read, write
        self._ceiling = ceiling

    def read(self, capacity_bytes: float, node_nm: float) -> Span:
        """Return the energy of reading one bit of a memory of ``capacity_bytes``, J/bit."""
        return self._span(self._read, capacity_bytes, node_nm)

    def write(self, capacity_bytes: float, node_nm: float) -> Span:
        """Return the energy of writing one bit of a memory of ``capacity_bytes``, J/bit."""
        return self._span(self._write, capacity_bytes, node_nm)

    def _span(self, table: Mapping[float, Sequence[float]], capacity_bytes: float, node_nm: float) -> Span:
        size = capacity_bytes / 1024
        value = loglog(node_nm, self._nodes, [loglog(size, self._sizes, table[n]) for n in self._nodes])
        high = max(value * _SRAM_HIGH, self._published(size, node_nm))
        return Span(value, value * _SRAM_LOW, high)

    def _published(self, size_kb: float, node_nm: float) -> float:
        """Horowitz's 45 nm and Jouppi's 7 nm caches, dearer than the table when small; not extrapolated."""
        sizes = sorted(self._ceiling.keys("sram_access"), key=float)
        node = min(max(node_nm, 7.0), 45.0)
        points = [self._ceiling.at("sram_access", s, node).value for s in sizes]
        at = min(max(size_kb, float(sizes[0])), float(sizes[-1]))
        return loglog(at, [float(s) for s in sizes], points)


def loglog(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return y at ``x`` on straight lines through (xs, ys) in log-log; ``xs`` ascending, the end lines go on."""
    for i, (x0, x1) in enumerate(pairwise(xs)):
        if x <= x1 or i == len(xs) - 2:
            slope = math.log(ys[i + 1] / ys[i]) / math.log(x1 / x0)
            return float(ys[i] * (x / x0) ** slope)
    return float(ys[0])


@cache
def load_actions(file: Path | None = None) -> Actions:
    """Return the action table (the one that ships, or ``file``); raises HwsimError naming file and line."""
    path = file or accelerators_dir() / "constants" / "energy_actions.csv"
    records = []
    for line, row in _lines(path, ACTION_COLUMNS):
        try:
            unit = row["unit"]
            if unit not in UNITS:
                raise HwsimError(f"unit '{unit[:32]}' is not known{near(unit[:32], UNITS)}")
            value, low, high = (_positive(row[name], name) for name in ("value", "low", "high"))
            if not low <= value <= high:
                raise HwsimError(f"value {value:g} is outside its interval {low:g} to {high:g}")
            node = _positive(row["node_nm"], "node_nm") if row["node_nm"] else 0.0
            span = Span(value, low, high).scaled(UNITS[unit])
            kind = source_kind(row["source"])
            records.append(Record(row["action"], row["key"], node, span, unit, row["source"], kind))
        except HwsimError as error:
            raise HwsimError(f"{path.name} line {line}: {error}") from None
    return Actions(records)


@cache
def load_sram(file: Path | None = None) -> SramTable:
    """Return the table of on-chip memory (the one that ships, or ``file``); raises HwsimError naming file and line."""
    path = file or accelerators_dir() / "constants" / "energy_sram.csv"
    cells: dict[float, dict[float, tuple[float, float]]] = {}
    for line, row in _lines(path, SRAM_COLUMNS):
        try:
            size, width, node, read, write = (_positive(row[name], name) for name in SRAM_COLUMNS[:5])
            source_kind(row["source"])
        except HwsimError as error:
            raise HwsimError(f"{path.name} line {line}: {error}") from None
        cells.setdefault(node, {})[size] = (read / width * 1e-12, write / width * 1e-12)
    nodes = sorted(cells)
    sizes = sorted({size for column in cells.values() for size in column})
    read_j: dict[float, list[float]] = {node: [] for node in nodes}
    write_j: dict[float, list[float]] = {node: [] for node in nodes}
    for i, size in enumerate(sizes):
        for node in nodes:
            here = cells[node].get(size)
            if here is None:
                other = next(n for n in nodes if size in cells[n])
                if not i:
                    raise HwsimError(f"{path.name}: no memory of {size:g} kB at {node:g} nm, the smallest of the table")
                here = (
                    read_j[node][i - 1] * cells[other][size][0] / cells[other][sizes[i - 1]][0],
                    write_j[node][i - 1] * cells[other][size][1] / cells[other][sizes[i - 1]][1],
                )
            read_j[node].append(here[0])
            write_j[node].append(here[1])
    return SramTable(sizes, nodes, read_j, write_j, load_actions())


def _lines(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a table below its header, by column, with their line numbers; comment lines begin with #."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HwsimError(f"cannot read {path.name}: {error}") from None
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line and not line.startswith("#")]
    if not lines or tuple(next(csv.reader([lines[0][1]]))) != tuple(columns):
        raise HwsimError(f"{path.name}: the first line must name the columns {', '.join(columns)}")
    out = []
    for number, line in lines[1:]:
        fields = next(csv.reader([line]))
        if len(fields) != len(columns):
            raise HwsimError(f"{path.name} line {number}: {len(fields)} fields, expected {len(columns)}")
        out.append((number, dict(zip(columns, fields, strict=True))))
    return out


def _positive(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise HwsimError(f"{name} '{text[:32]}' is no number") from None
    if not 0 < value < math.inf:
        raise HwsimError(f"{name} must be above 0, not {text[:32]}")
    return value
