"""The layer trace: one CSV, one layer a line, `#` header lines for everything about the network as a whole.

    # layertrace: 2
    # model: resnet50
    # symbols: N=1
    # input: x fp32[Nx3x224x224]
    # params: 25557032
    # macs: 4089184256
    id,name,op,src,out,attrs,fused,dtype,weights,qparams,sparsity
    1,conv1,conv,x,Nx64x112x112,k=7x7 s=2 p=3,bn+relu,,,,

``src`` are ids or input names separated by spaces; ``dtype`` empty means fp32, ``weights`` empty means the same format
as ``dtype``. ``params`` and ``macs`` are check sums: `read_trace` refuses a file whose layers do not add up to them.
pandas reads it with ``comment="#"``.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.files import write_whole
from hwsim.formats import get_format
from hwsim.network.dims import evaluate, format_shape, parse_shape
from hwsim.network.graph import Layer, Network, Tensor

VERSION = "2"
COLUMNS = ("id", "name", "op", "src", "out", "attrs", "fused", "dtype", "weights", "qparams", "sparsity")
MAX_BYTES = 64 * 2**20
_INPUT = re.compile(r"^(\S+)\s+([A-Za-z]\w*)\[(.*)\]$")
_SYMBOL = re.compile(r"^([A-Z][A-Z0-9_]*)=(\d{1,10})$")


def is_trace(first_line: str) -> bool:
    """True when a file whose first line is this is a layer trace."""
    return first_line.lstrip("\ufeff").replace(" ", "").startswith("#layertrace:")


def read_trace(path: str | Path) -> Network:
    """Read a layer trace file; raise HwsimError naming file, line and field."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise HwsimError(f"{file}: larger than {MAX_BYTES >> 20} MiB, not a layer trace")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HwsimError(
            f"{file}: cannot be read as text ({getattr(error, 'strerror', None) or 'not UTF-8'})"
        ) from None
    return parse_trace(text, str(file))


def parse_trace(text: str, where: str = "trace") -> Network:
    """Parse the text of a layer trace; ``where`` names it in errors."""
    lines = text.lstrip("\ufeff").splitlines()
    if not lines or not is_trace(lines[0]):
        raise HwsimError(f"{where}: the first line must be '# layertrace: {VERSION}'")
    version = lines[0].split(":", 1)[1].strip()
    if version != VERSION:
        raise HwsimError(f"{where}: layer trace version {version!r}; this hwsim reads version {VERSION}")
    meta: dict[str, str] = {}
    inputs: list[Tensor] = []
    symbols: dict[str, int] = {}
    body = 1
    for body in range(1, len(lines)):  # the loop's last value is where the table starts
        line = lines[body]
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        key, value = key.strip(), value.strip()
        at = f"{where}:{body + 1}"
        if not colon:
            continue
        if key == "input":
            inputs.append(_parse_input(value, at))
        elif key == "symbols":
            for word in value.split():
                hit = _SYMBOL.match(word)
                if hit is None:
                    raise HwsimError(f"{at}: symbol {word!r} is not NAME=default with an upper-case name")
                symbols[hit.group(1)] = int(hit.group(2))
        elif key:
            meta[key] = value
    layers = tuple(_parse_rows(lines[body:], where, body))
    outputs = tuple(meta.pop("output", "").split())
    net = Network(meta.pop("model", Path(where).name.split(".")[0]), tuple(inputs), layers, outputs, symbols, meta)
    try:
        net.validate()
    except HwsimError as error:
        raise HwsimError(f"{where}: {error}") from None
    for key, actual in (("macs", net.macs), ("params", net.params)):
        stated = meta.get(key)
        if stated is not None and stated != str(actual):
            raise HwsimError(f"{where}: the header says {key} = {stated}, but the layers add up to {actual}")
    return net


def _parse_input(value: str, at: str) -> Tensor:
    hit = _INPUT.match(value)
    if hit is None:
        raise HwsimError(f"{at}: input {value!r} is not of the form: name fp32[Nx3x224x224]")
    try:
        return Tensor(hit.group(1), parse_shape(hit.group(3)), get_format(hit.group(2)).name)
    except HwsimError as error:
        raise HwsimError(f"{at}: {error}") from None


def _parse_rows(lines: list[str], where: str, offset: int) -> list[Layer]:
    from hwsim.network.ops import parse_attrs

    if not lines:
        raise HwsimError(f"{where}: no table of layers")
    try:
        rows = list(csv.reader(lines))
    except csv.Error as error:
        raise HwsimError(f"{where}: not a CSV table ({error})") from None
    header = [h.strip() for h in rows[0]]
    for needed in COLUMNS[:5]:
        if needed not in header:
            raise HwsimError(f"{where}:{offset + 1}: column {needed!r} is missing from {','.join(header)!r}")
    for name in header:
        if name not in COLUMNS:
            raise HwsimError(f"{where}:{offset + 1}: unknown column {name!r}{near(name, COLUMNS)}")
    out: list[Layer] = []
    cache: dict[tuple[str, str], dict[str, object]] = {}
    for number, row in enumerate(rows[1:], offset + 2):
        if not row or row[0].startswith("#"):
            continue
        at = f"{where}:{number}"
        if len(row) > len(header):
            raise HwsimError(f"{at}: {len(row)} fields for {len(header)} columns")
        cell = dict(zip(header, row, strict=False))
        op, attr_text = cell.get("op", "").strip(), cell.get("attrs", "")
        key = (op, attr_text)
        if key not in cache:
            cache[key] = parse_attrs(op, attr_text, at)  # type: ignore[assignment]
        try:
            dtype = get_format(cell.get("dtype") or "fp32").name
            weights = get_format(cell["weights"]).name if cell.get("weights") else None
            shape = parse_shape(cell.get("out", ""))
        except HwsimError as error:
            raise HwsimError(f"{at}: {error}") from None
        out.append(
            Layer(
                id=cell["id"].strip(),
                name=_one_line(cell.get("name", "")),
                op=op,
                src=tuple(cell.get("src", "").split()),
                shape=shape,
                attrs=cache[key],  # type: ignore[arg-type]
                fused=tuple(cell["fused"].split("+")) if cell.get("fused") else (),
                dtype=dtype,
                weight_dtype=weights,
                qparams=cell.get("qparams", ""),
                sparsity=cell.get("sparsity", ""),
            )
        )
    return out


def format_trace(net: Network) -> str:
    """Return ``net`` as trace text; reading it back gives an equal network."""
    from hwsim.network.ops import format_attrs

    head = [f"# layertrace: {VERSION}", f"# model: {net.name}"]
    if net.symbols:
        head.append("# symbols: " + " ".join(f"{k}={v}" for k, v in net.symbols.items()))
    head += [f"# input: {t.name} {t.dtype}[{format_shape(t.shape)}]" for t in net.inputs]
    if net.outputs:
        head.append(f"# output: {' '.join(net.outputs)}")
    skip = {"params", "macs"}
    head += [f"# {k}: {_one_line(v)}" for k, v in net.meta.items() if k not in skip and not k.startswith("bound_")]
    head += [f"# params: {net.params}", f"# macs: {net.macs}"]
    used = {
        "dtype": any(la.dtype != "fp32" for la in net.layers),
        "weights": any(la.weight_dtype for la in net.layers),
        "qparams": any(la.qparams for la in net.layers),
        "sparsity": any(la.sparsity for la in net.layers),
    }
    columns = [c for c in COLUMNS if used.get(c, True)]
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(columns)
    for la in net.layers:
        cell = {
            "id": la.id,
            "name": _one_line(la.name),
            "op": la.op,
            "src": " ".join(la.src),
            "out": format_shape(la.shape),
            "attrs": format_attrs(la),
            "fused": "+".join(la.fused),
            "dtype": "" if la.dtype == "fp32" else la.dtype,
            "weights": la.weight_dtype or "",
            "qparams": la.qparams,
            "sparsity": la.sparsity,
        }
        table.writerow([cell[c] for c in columns])
    return "\n".join(head) + "\n" + buffer.getvalue()


def write_trace(net: Network, path: str | Path) -> None:
    """Write ``net`` to ``path``, whole or not at all."""
    write_whole(path, format_trace(net))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def evaluate_symbols(net: Network, text: str) -> int:
    """Return the value of a dimension expression under the network's defaults."""
    return evaluate(text, net.symbols)
