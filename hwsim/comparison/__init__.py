"""Many machines beside each other: who meets the objective, how many carry the rate, what a million inferences cost."""

from hwsim.comparison.answer import COLUMNS, Comparison, compare
from hwsim.comparison.contender import Contender, Demand, Point

__all__ = ["COLUMNS", "Comparison", "Contender", "Demand", "Point", "compare"]
