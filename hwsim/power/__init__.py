"""Power as physics without a schedule: what actions cost, how voltage follows the clock, and the clock a power limit allows.

Energy fills an `Activity` from a schedule; a timing model that has no schedule yet (kernel choice) fills one from counts.
"""

from hwsim.power.activity import Action, Activity, Joules, PowerProfile, StaticPart, joules
from hwsim.power.curve import VoltageCurve
from hwsim.power.span import NOTHING, Span
from hwsim.power.sustained import Sustained, stretched, sustained_clock

__all__ = [
    "NOTHING",
    "Action",
    "Activity",
    "Joules",
    "PowerProfile",
    "Span",
    "StaticPart",
    "Sustained",
    "VoltageCurve",
    "joules",
    "stretched",
    "sustained_clock",
]
