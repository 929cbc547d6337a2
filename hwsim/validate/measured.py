"""The measured tables: those that ship with hwsim, or a folder of the same files that also holds what may not be shared."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from hwsim.errors import HwsimError

SHIPPED = Path(__file__).resolve().parent / "measured"
_MOST_BYTES = 64 * 2**20


def measured_dir(folder: str | Path | None = None) -> Path:
    """Return the folder of measured tables: the one given, else the one that ships with hwsim.

    Raises HwsimError when there is no such folder.
    """
    if folder is None:
        return SHIPPED
    path = Path(folder)
    if not path.is_dir():
        raise HwsimError(f"no folder of measurements {str(folder)!r}")
    return path


@lru_cache(maxsize=16)
def table(path: Path) -> tuple[dict[str, str], ...]:
    """Return the rows of a measured table (CSV, maybe packed), each with its number under ``row``.

    Raises HwsimError when the file is missing, unreadable or too large.
    """
    return tuple(_rows(path))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise HwsimError(f"{path.name}: cannot be read ({error})") from None
    if len(data) > _MOST_BYTES:
        raise HwsimError(f"{path.name}: larger than {_MOST_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise HwsimError(f"{path.name}: not UTF-8 text") from None
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), 1):
        yield {"row": str(number)} | {k: (v or "").strip() for k, v in row.items() if isinstance(k, str)}


def lines(path: Path) -> Iterator[dict[str, str]]:
    """Return the rows of a table of the package itself, in which lines that begin with # are remarks."""
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


def find(folder: Path, name: str) -> Path | None:
    """Return the table called ``name`` in ``folder``, packed or not; None when it is not there."""
    return next((path for path in (folder / f"{name}.csv.gz", folder / f"{name}.csv") if path.is_file()), None)
