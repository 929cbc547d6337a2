"""Recorded requests: a CSV file of times, and optionally samples, model and tokens; damaged files are named by line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from hwsim.errors import HwsimError, near
from hwsim.files import read_regular
from hwsim.serving.arrivals import LONGEST_S, SECOND_NS

_TIMES = {
    "time_s": 9, "time": 9, "timestamp": 9, "arrival_s": 9, "arrival": 9, "arrived_at": 9, "seconds": 9,
    "time_ms": 6, "arrival_ms": 6, "time_us": 3, "arrival_us": 3, "time_ns": 0, "arrival_ns": 0,
}  # fmt: skip
_COLUMNS = {
    "samples": ("samples", "size", "batch", "items"),
    "model": ("model", "network"),
    "prompt": ("prompt", "prompt_tokens", "input_tokens", "contexttokens", "context_tokens", "num_prefill_tokens"),
    "output": ("output", "output_tokens", "generatedtokens", "generated_tokens", "num_decode_tokens"),
}
_NUMBER = re.compile(r"[+-]?(\d{1,20}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}(\.0*)?", re.ASCII)
_MOST_ROWS = 50_000_000


@dataclass(slots=True)
class Trace:
    """Requests in order: ``arrival_ns`` counts from the first; a list is empty where the file has no such column."""

    name: str
    arrival_ns: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    model: list[str] = field(default_factory=list)
    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)

    @property
    def span_s(self) -> float:
        """Seconds from the first request to the last."""
        return self.arrival_ns[-1] / SECOND_NS

    @property
    def rate_per_s(self) -> float | None:
        """Requests per second, None when all come at once."""
        return (len(self.arrival_ns) - 1) / self.span_s if self.span_s > 0 else None

    def faster(self, factor: float) -> list[int]:
        """Return the arrival times with every gap divided by ``factor``."""
        return self.arrival_ns if factor == 1.0 else [round(t / factor) for t in self.arrival_ns]


def read_trace(path: str | Path) -> Trace:
    """Return the requests in a CSV file with a header.

    ``time_s`` (also time_ms, time_us, time_ns, timestamp …: numbers, or dates as 2026-11-01 18:17:03.98) must not fall;
    only differences count. Optional: ``samples``, ``model``, ``prompt`` and ``output`` (tokens). Raises HwsimError naming
    the first line that is wrong.
    """
    file = Path(path)
    label = file.name[:80] or str(path)[:80]
    try:
        text = read_regular(file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HwsimError(f"{label}: is no text file of requests") from None
    except (OSError, ValueError) as error:
        raise HwsimError(f"no trace file {str(path)[:100]!r} ({getattr(error, 'strerror', None) or error})") from None
    try:
        return _read(label, csv.reader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise HwsimError(f"{label}: is no CSV file ({error})") from None


def _read(label: str, rows: Iterator[list[str]]) -> Trace:
    header = next(rows, None)
    if not header:
        raise HwsimError(f"{label}: is empty; the first line names the columns, as time_s,samples")
    names = [name.strip().lower() for name in header]
    when = next((c for c, name in enumerate(names) if name in _TIMES), None)
    if when is None:
        shown = ", ".join(name[:20] for name in names[:6])
        raise HwsimError(f"{label}: no column of times among {shown}; name one time_s{near(names[0][:40], _TIMES)}")
    exponent = _TIMES[names[when]]
    columns = {what: c for what, known in _COLUMNS.items() for c, name in enumerate(names) if name in known}
    trace, first = Trace(label), None
    previous = 0
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        at = f"{label}, line {number}"
        if len(row) != len(header):
            raise HwsimError(f"{at}: {len(row)} values under {len(header)} columns")
        if number > _MOST_ROWS:
            raise HwsimError(f"{label}: more than {_MOST_ROWS} lines; split it")
        time = _time(row[when], exponent, at)
        if first is None:
            first = time
        time -= first
        if time < previous:
            raise HwsimError(f"{at}: time {row[when].strip()[:30]} is before the one above; sort the file by time")
        if time > LONGEST_S * SECOND_NS:
            raise HwsimError(f"{at}: time {row[when].strip()[:30]} is more than {LONGEST_S:g} s after the first")
        previous = time
        trace.arrival_ns.append(time)
        for what, c in columns.items():
            if what == "model":
                trace.model.append(row[c].strip())
            else:
                getattr(trace, what).append(_whole(row[c], what, at))
    if not trace.arrival_ns:
        raise HwsimError(f"{label}: has a header but no requests")
    return trace


def _time(text: str, exponent: int, at: str) -> int:
    """Nanoseconds in a number of some unit, or in a date."""
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        value = Decimal(stripped).scaleb(exponent)
        if abs(value) > 10**28:
            raise HwsimError(f"{at}: time {stripped[:30]} is too large")
        return int(value.to_integral_value())
    if len(stripped) >= 10 and stripped[4:5] == "-":
        try:
            moment = datetime.fromisoformat(stripped)
        except ValueError:
            pass
        else:
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            gone = moment - datetime(1970, 1, 1, tzinfo=UTC)
            return (gone.days * 86400 + gone.seconds) * SECOND_NS + gone.microseconds * 1000
    raise HwsimError(f"{at}: {stripped[:30]!r} is no time; write seconds as 12.5, or a date as 2026-11-01 18:17:03.98")


def _whole(text: str, what: str, at: str) -> int:
    stripped = text.strip()
    if not _WHOLE.fullmatch(stripped) or int(stripped.partition(".")[0]) < 1:
        raise HwsimError(f"{at}: {what} must be a whole number from 1 to 999999999, not {stripped[:30]!r}")
    return int(stripped.partition(".")[0])
