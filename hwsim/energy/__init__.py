"""Reading 2 of a schedule: energy per action by technology node, and joules per kernel and component."""

from hwsim.energy.levels import Store, level_map
from hwsim.energy.reading import Energy, exceeds, power_w, read_energy
from hwsim.energy.static import StaticPower, static_power
from hwsim.power.actions import Actions, SramTable, load_actions, load_sram
from hwsim.power.span import Span

__all__ = [
    "Actions",
    "Energy",
    "Span",
    "SramTable",
    "StaticPower",
    "Store",
    "exceeds",
    "level_map",
    "load_actions",
    "load_sram",
    "power_w",
    "read_energy",
    "static_power",
]
