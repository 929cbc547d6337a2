"""The answer of a run."""

from hwsim.result.limiters import FURTHER_LIMITERS, LIMITERS, UNIT_NAMES
from hwsim.result.result import Result
from hwsim.result.totals import Totals

__all__ = ["FURTHER_LIMITERS", "LIMITERS", "UNIT_NAMES", "Result", "Totals"]
