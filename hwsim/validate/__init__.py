"""How true hwsim is: measured rows against predictions, by device, kind and size, beside a plain roofline."""

from __future__ import annotations

from hwsim.validate.case import Case, Outcome
from hwsim.validate.run import Validation, validate
from hwsim.validate.score import Score, score

__all__ = ["Case", "Outcome", "Score", "Validation", "score", "validate"]
