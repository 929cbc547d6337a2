"""DRAM timing tables: what one channel of a technology can do, from ``accelerators/constants/dram_timing.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.values import source_kind

REFRESH = ("ab", "pb")


@dataclass(frozen=True, slots=True)
class DramTiming:
    """One channel: its width and burst, its banks and rows, and times in ns (names are JEDEC's without the t).

    ``ccd_l_bursts`` is the column-to-column time within a bank group over the time of a burst; ``bubble`` the bus idle
    time between a read and a write; ``refresh`` is ``ab`` (all banks every ``refi``) or ``pb`` (one after the other).
    """

    kind: str
    channel_bits: int
    burst_length: int
    bank_groups: int
    banks_per_group: int
    row_bytes: int
    rate_gtps: float
    ccd_l_bursts: float
    rcd: float
    rp: float
    ras: float
    cl: float
    cwl: float
    rrd_s: float
    rrd_l: float
    faw: float
    rtp: float
    wr: float
    wtr_s: float
    wtr_l: float
    bubble: float
    refi: float
    rfc: float
    refresh: str
    source: str

    @property
    def banks(self) -> int:
        """Banks of a channel."""
        return self.bank_groups * self.banks_per_group

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst."""
        return self.channel_bits * self.burst_length // 8

    @property
    def burst_ns(self) -> float:
        """Time of one burst on the data bus."""
        return self.burst_length / self.rate_gtps

    @property
    def peak_bytes_per_s(self) -> float:
        """Peak of one channel."""
        return self.burst_bytes / self.burst_ns * 1e9

    def at_rate(self, rate_gtps: float) -> DramTiming:
        """Return the same array behind a bus of another data rate (GT/s)."""
        if not rate_gtps > 0:
            raise HwsimError(f"{self.kind}: a data rate of {rate_gtps:g} GT/s is not above 0")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return DramTiming(**(values | {"rate_gtps": rate_gtps}))


@cache
def load_dram_timings(file: Path | None = None) -> Mapping[str, DramTiming]:
    """Return the timing of every technology; raises HwsimError naming file and line of a wrong entry."""
    path = file or accelerators_dir() / "constants" / "dram_timing.csv"
    lines = [(i, x) for i, x in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if x and x[0] != "#"]
    names = [f.name for f in fields(DramTiming)]
    if next(csv.reader([lines[0][1]])) != names:
        raise HwsimError(f"{path.name}: the first line must name the columns {', '.join(names)}")
    out: dict[str, DramTiming] = {}
    for number, line in lines[1:]:
        row = dict(zip(names, next(csv.reader([line])), strict=False))
        try:
            values: dict[str, Any] = {f.name: _parse(f.type, row.get(f.name, ""), f.name) for f in fields(DramTiming)}
            timing = DramTiming(**values)
            if timing.refresh not in REFRESH:
                raise HwsimError(f"refresh '{timing.refresh[:16]}' is neither ab nor pb")
            source_kind(timing.source)
        except HwsimError as error:
            raise HwsimError(f"{path.name} line {number}: {error}") from None
        out[timing.kind] = timing
    return out


def _parse(kind: object, text: str, name: str) -> str | int | float:
    if kind == "str":
        return text
    try:
        value = int(text) if kind == "int" else float(text)
    except ValueError:
        raise HwsimError(f"{name} '{text[:16]}' is not a number") from None
    if value <= 0:
        raise HwsimError(f"{name} must be above 0")
    return value


def dram_timing(acc: Accelerator) -> tuple[DramTiming, int]:
    """Return the timing of a machine's DRAM at its own data rate, and its number of channels.

    Channels are as many as the bandwidth needs at the technology's customary rate; the rate is what makes them give it
    exactly. Raises HwsimError for a technology without a table.
    """
    level = acc.dram
    table = load_dram_timings()
    found = table.get(level.kind)
    if found is None:
        raise HwsimError(f"no timing of DRAM kind '{level.kind}'{near(level.kind, table)}; known: {', '.join(table)}")
    bandwidth = min(level.bandwidth_bytes_per_s, level.read_bytes_per_s)
    channels = max(1, round(bandwidth / found.peak_bytes_per_s))
    return found.at_rate(found.rate_gtps * bandwidth / (channels * found.peak_bytes_per_s)), channels
