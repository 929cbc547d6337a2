"""One measured row as a question to hwsim, and the answer to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A measured row: what ran where, what was measured, and why it does not count where it is excluded.

    ``device`` is the row's own word, ``target`` the machine hwsim takes it for. ``measured`` is in seconds for one run
    (``quantity`` ``latency``), or watts (``power``), joules, bytes: lower or higher is the same to a relative error.
    ``group`` is the source's own grouping, ``size`` a class of the suite. ``excluded`` names the rule that takes the row out
    of the scores. ``question`` is what the suite's predictor needs, as plain data.
    """

    suite: str
    row: int
    device: str
    target: str
    family: str
    what: str
    precision: str
    measured: float
    quantity: str = "latency"
    group: str = ""
    size: str = ""
    excluded: str = ""
    question: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes two rows the same question: their measurements are duplicates."""
        return self.suite, self.target, self.what, self.precision, self.group


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case with what hwsim and a plain roofline say; ``refused`` is hwsim's reason where it gives no answer."""

    case: Case
    predicted: float = math.nan
    roofline: float = math.nan
    refused: str = ""

    @property
    def ratio(self) -> float:
        """Predicted over measured; NaN without an answer."""
        return self.predicted / self.case.measured

    @property
    def error_pct(self) -> float:
        """Absolute error in percent of the measurement."""
        return abs(self.ratio - 1) * 100

    @property
    def roofline_error_pct(self) -> float:
        """The roofline's absolute error in percent."""
        return abs(self.roofline / self.case.measured - 1) * 100
