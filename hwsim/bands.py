"""How far off answers of a family have been: error quantiles of its measured rows, which every answer carries.

``accelerators/constants/error_bands.csv`` is written by ``studies/validation/bands.py`` from ``hwsim validate``; this module
only reads it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from hwsim.data import accelerators_dir


@dataclass(frozen=True, slots=True)
class Band:
    """Errors of one kind of answer of a family, % of the measurement: median, 90th percentile, and how many rows.

    ``kind`` is ``network``, ``kernel``, ``engine`` (networks on a DLA) or ``language model`` (tokens), ``quantity``
    ``latency`` or ``power``;
    ``low``/``high`` are the 5th and 95th percentile of measured over predicted: what an answer times them spans nine tenths
    of the measured rows.
    """

    family: str
    kind: str
    quantity: str
    rows: int
    machines: int
    median_pct: float
    p90_pct: float
    low: float
    high: float

    def __str__(self) -> str:
        what = f"{self.rows} measured {self.kind} rows of {self.machines} machine{'s' if self.machines != 1 else ''}"
        return f"{what}: median error {self.median_pct:.0f} %, 90 % within {self.p90_pct:.0f} %"


@cache
def bands() -> dict[tuple[str, str, str], Band]:
    """Return all bands by family, kind and quantity; none where the table is not there."""
    path = accelerators_dir() / "constants" / "error_bands.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        found = [
            Band(
                r["family"], r["kind"], r["quantity"], int(r["rows"]), int(r["machines"]), float(r["median_pct"]),
                float(r["p90_pct"]), float(r["low"]), float(r["high"]),
            )
            for r in csv.DictReader(line for line in file if not line.startswith("#"))
        ]  # fmt: skip
    return {(b.family, b.kind, b.quantity): b for b in found}


def band_of(
    family: str, kernels: int, quantity: str = "latency", *, engine: bool = False, tokens: bool = False
) -> Band | None:
    """Return the band of an answer with so many kernels: that of networks, or of single kernels where it is one.

    ``engine`` asks for that of a fixed-function engine beside the family's cores (a DLA), ``tokens`` for that of language
    models, where the family has one.

    Falls back on the other kind; None where nothing of the family was measured.
    """
    if engine:
        return bands().get((family, "engine", quantity))
    if tokens and (family, "language model", quantity) in bands():
        return bands()[family, "language model", quantity]
    order = ("network", "kernel") if kernels > 1 else ("kernel", "network")
    return next((found for kind in order if (found := bands().get((family, kind, quantity))) is not None), None)
