"""SCALE-Sim topology files: convolution and GEMM layer lists in CSV, read leniently and with every guess noted.

The format (SCALE-Sim 3.0, ``topologies/``): a header line, then ``name, H, W, R, S, C, N, stride[, N:M],`` for a
convolution or ``name, M, N, K[, N:M],`` for a GEMM. The tool itself drops whatever follows the last comma and takes any
ninth column for a sparsity ratio, so it refuses 29 of the 131 files it ships; all of them are read here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hwsim.errors import HwsimError
from hwsim.files import read_regular

Kind = Literal["conv", "gemm"]

MAX_FILE_BYTES = 16 << 20
MAX_DIMENSION = 10**9

CONV_FIELDS = ("ifmap_h", "ifmap_w", "filter_h", "filter_w", "channels", "num_filters", "stride_h")
GEMM_FIELDS = ("m", "n", "k")

_TITLES = {
    "ifmap_h": "IFMAP Height",
    "ifmap_w": "IFMAP Width",
    "filter_h": "Filter Height",
    "filter_w": "Filter Width",
    "channels": "Channels",
    "num_filters": "Num Filter",
    "stride_h": "Strides",
    "m": "M",
    "n": "N",
    "k": "K",
}
_INTEGER = re.compile(r"\d{1,12}")
_RATIO = re.compile(r"(\d{1,6})\s*:\s*(\d{1,6})")
_SYMBOL = re.compile(r"[A-Z]")
_TWO_INTEGERS = re.compile(r"(\d{1,12})\s+(\d{1,12})")


@dataclass(frozen=True, slots=True)
class TopologyLayer:
    """One line of a topology file.

    A GEMM (``kind == "gemm"``) is also given its convolution form, as SCALE-Sim runs it: H = M, W = K, R = 1, S = K,
    C = 1, stride 1; for a convolution ``m, n, k`` are its GEMM view (output pixels, filters, window size).
    ``sparsity`` is the (N, M) of a structured-sparse filter or None; ``batch`` is 1 unless a column says otherwise.
    """

    name: str
    kind: Kind
    ifmap_h: int
    ifmap_w: int
    filter_h: int
    filter_w: int
    channels: int
    num_filters: int
    stride_h: int = 1
    stride_w: int = 1
    sparsity: tuple[int, int] | None = None
    batch: int = 1
    line: int = 0

    @property
    def ofmap_h(self) -> int:
        """Output rows: ceil((H - R + stride) / stride), no padding (SCALE-Sim ``topology_utils``)."""
        return -((self.filter_h - self.ifmap_h - self.stride_h) // self.stride_h)

    @property
    def ofmap_w(self) -> int:
        """Output columns, as :attr:`ofmap_h`."""
        return -((self.filter_w - self.ifmap_w - self.stride_w) // self.stride_w)

    @property
    def m(self) -> int:
        """Rows of the GEMM view: output pixels."""
        return self.ofmap_h * self.ofmap_w

    @property
    def n(self) -> int:
        """Columns of the GEMM view: filters."""
        return self.num_filters

    @property
    def k(self) -> int:
        """Reduction length of the GEMM view: filter window size."""
        return self.filter_h * self.filter_w * self.channels

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of the layer."""
        return self.m * self.n * self.k

    @property
    def depthwise(self) -> bool:
        """Whether SCALE-Sim splits this convolution into one layer per channel (its name contains ``DP``)."""
        return self.kind == "conv" and "DP" in self.name


@dataclass(frozen=True, slots=True)
class Topology:
    """A parsed topology: layers in file order, the readings that had to be chosen, and symbols left without a value.

    A dimension written as a letter (``B``, ``H`` in template files) without a value is held as 1 and listed in
    ``unresolved``; whoever costs the layers must refuse it or pass ``symbols`` to :func:`read_topology`.
    """

    name: str
    kind: Kind
    layers: tuple[TopologyLayer, ...]
    notes: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reader:
    source: str
    symbols: Mapping[str, int]
    header: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unresolved: set[str] = field(default_factory=set)
    ninth: dict[str, int] = field(default_factory=dict)

    def fail(self, line: int, what: str, why: str) -> HwsimError:
        return HwsimError(f"{self.source}, line {line}, {what}: {why}")

    def integer(self, text: str, line: int, what: str) -> int:
        if _INTEGER.fullmatch(text):
            value = int(text)
        elif _SYMBOL.fullmatch(text):
            if text not in self.symbols:
                self.unresolved.add(text)
                return 1
            value = self.symbols[text]
        else:
            raise self.fail(line, what, f"expected a positive whole number, found {_shown(text)}")
        if not 1 <= value <= MAX_DIMENSION:
            raise self.fail(line, what, f"{value} is outside 1 … {MAX_DIMENSION}")
        return value

    def ratio(self, text: str, line: int) -> tuple[int, int]:
        match = _RATIO.fullmatch(text)
        if not match:
            raise self.fail(line, "sparsity", f"expected N:M such as 2:4, found {_shown(text)}")
        n, m = int(match[1]), int(match[2])
        if not 1 <= n <= m:
            raise self.fail(line, "sparsity", f"{n}:{m} needs 1 <= N <= M")
        return n, m


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def parse_topology(
    text: str, *, source: str = "topology", kind: Kind | None = None, symbols: Mapping[str, int] | None = None
) -> Topology:
    """Parse the text of a topology file.

    ``kind`` None decides from the header (``M, N, K``) or else from the number of fields. ``source`` names the file in
    errors. Raises HwsimError naming file, line and field.
    """
    if len(text) > MAX_FILE_BYTES:
        raise HwsimError(f"{source}: {len(text)} characters; a topology file may have {MAX_FILE_BYTES}")
    lines = text.lstrip("\ufeff").splitlines()
    if not lines:
        raise HwsimError(f"{source}: empty file; the first line of a topology is a header, layers follow")
    separator = "\t" if "\t" in lines[0] and "," not in lines[0] else ","
    reader = _Reader(source, dict(symbols or {}), header=[c.strip() for c in lines[0].split(separator)])
    if separator == "\t":
        reader.notes.append("fields are separated by tabs")
    if sum(bool(_INTEGER.fullmatch(c)) for c in reader.header) >= 3:
        reader.notes.append("line 1 holds numbers but was taken for the header, as SCALE-Sim does")

    rows: list[tuple[int, str, list[str]]] = []
    for number, raw in enumerate(lines[1:], start=2):
        cells = _cells(raw, separator, reader, number)
        if not cells:
            continue
        if len(cells) == 1:
            reader.notes.append(f"line {number}: {_shown(cells[0])} stands alone and was taken for a section title")
            continue
        rows.append((number, cells[0], cells[1:]))
    if not rows:
        raise HwsimError(f"{source}: no layers; a layer is 'conv1, 224, 224, 7, 7, 3, 64, 2,' or 'fc, M, N, K,'")
    if kind is None:
        kind = _guess_kind(reader.header, rows)
    read = _gemm_layer if kind == "gemm" else _conv_layer
    layers = tuple(read(reader, number, name, cells) for number, name, cells in rows)
    for reading, count in reader.ninth.items():
        reader.notes.append(f"{count} layer{'s' * (count > 1)}: {reading}")
    if reader.unresolved:
        reader.notes.append(f"template: no value given for {', '.join(sorted(reader.unresolved))}")
    return Topology(Path(source).stem, kind, layers, tuple(reader.notes), tuple(sorted(reader.unresolved)))


def read_topology(path: str | Path, *, kind: Kind | None = None, symbols: Mapping[str, int] | None = None) -> Topology:
    """Read a SCALE-Sim topology CSV (convolution or GEMM); see :func:`parse_topology`. Raises HwsimError."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise HwsimError(f"{path}: larger than the {MAX_FILE_BYTES >> 20} MiB a topology file may have")
        raw = read_regular(path)
    except (OSError, ValueError) as error:
        if isinstance(error, HwsimError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HwsimError(f"cannot read topology {_shown(str(path))}: {reason}") from None
    return parse_topology(raw.decode("utf-8", errors="replace"), source=str(path), kind=kind, symbols=symbols)


def _cells(raw: str, separator: str, reader: _Reader, number: int) -> list[str]:
    """Split one line: comments and trailing blanks off, a transposed comma and blank (``, ,1 2,``) repaired."""
    cells = [c.strip() for c in raw.split("#", 1)[0].split(separator)]
    for i in range(1, len(cells) - 1):
        pair = _TWO_INTEGERS.fullmatch(cells[i + 1])
        if cells[i] == "" and pair:
            reader.notes.append(
                f"line {number}: fields {_shown(cells[i] + ',' + cells[i + 1])} read as {pair[1]}, {pair[2]}"
            )
            cells[i : i + 2] = [pair[1], pair[2]]
    while cells and cells[-1] == "":
        cells.pop()
    return cells


def _guess_kind(header: list[str], rows: list[tuple[int, str, list[str]]]) -> Kind:
    if [c.lower() for c in header[1:4]] == ["m", "n", "k"]:
        return "gemm"
    if any("ifmap" in c.lower() for c in header):
        return "conv"
    return "gemm" if max(len(cells) for _, _, cells in rows) <= 4 else "conv"


def _gemm_layer(reader: _Reader, number: int, name: str, cells: list[str]) -> TopologyLayer:
    if len(cells) < 3:
        raise reader.fail(number, "fields", f"a GEMM needs name, M, N, K; found {len(cells)} of its three numbers")
    m, n, k = (reader.integer(cells[i], number, GEMM_FIELDS[i].upper()) for i in range(3))
    sparsity = reader.ratio(cells[3], number) if len(cells) > 3 and cells[3] else None
    if len(cells) > 4:
        raise reader.fail(number, "fields", f"a GEMM has name, M, N, K and N:M; found {len(cells) + 1} fields")
    return TopologyLayer(name, "gemm", m, k, 1, k, 1, n, sparsity=sparsity, line=number)


def _conv_layer(reader: _Reader, number: int, name: str, cells: list[str]) -> TopologyLayer:
    if len(cells) < 7:
        found = f"found {len(cells)} of its seven numbers"
        hint = " (a GEMM topology? use -i gemm)" if len(cells) in (3, 4) else ""
        raise reader.fail(number, "fields", f"a convolution needs name, H, W, R, S, C, N, stride; {found}{hint}")
    values = {f: reader.integer(cells[i], number, _TITLES[f]) for i, f in enumerate(CONV_FIELDS)}
    stride_w, batch, sparsity = values["stride_h"], 1, None
    for position, cell in enumerate(cells[7:], start=8):
        title = reader.header[position] if position < len(reader.header) else ""
        if cell == "":
            continue
        if ":" in cell and sparsity is None:
            sparsity, reading = reader.ratio(cell, number), f"column {position + 1} is the sparsity ratio N:M"
        elif "batch" in title.lower():
            batch, reading = reader.integer(cell, number, title), f"column {position + 1} is the batch, by its header"
        elif position == 8 and (title == "" or "strid" in title.lower()):
            stride_w = reader.integer(cell, number, "stride width")
            why = "by its header" if title else "having no header and no colon"
            reading = f"column {position + 1} is the stride along the width, {why}"
        else:
            reading = f"column {position + 1}{f' ({title[:40]})' if title else ''} is ignored"
        reader.ninth[reading] = reader.ninth.get(reading, 0) + 1
    for inside, outside in (("filter_h", "ifmap_h"), ("filter_w", "ifmap_w")):
        if values[inside] > values[outside] and not reader.unresolved:
            why = f"{values[inside]} is larger than {_TITLES[outside]} {values[outside]} (the format has no padding)"
            raise reader.fail(number, _TITLES[inside], why)
    return TopologyLayer(
        name,
        "conv",
        values["ifmap_h"],
        values["ifmap_w"],
        values["filter_h"],
        values["filter_w"],
        values["channels"],
        values["num_filters"],
        values["stride_h"],
        stride_w,
        sparsity,
        batch,
        number,
    )
