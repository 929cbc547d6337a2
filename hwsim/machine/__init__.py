"""ON WHAT: machines as data. Typed sections, a TOML loader with units, sources and inheritance, and the target grammar.

``keys`` declares the schema table, ``sections`` and ``systolic`` fill it, ``values`` and ``reader`` read files against
it, ``accelerator`` builds the typed machine, ``target`` and ``library`` find it, ``constants`` reads fitted constants.
"""

from __future__ import annotations

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import Constant, Constants, load_constants
from hwsim.machine.library import FAMILIES, list_accelerators, load_accelerator, vary
from hwsim.machine.sections import (
    Chip,
    Dispatch,
    Host,
    Interconnect,
    MemoryLevel,
    Numerics,
    Power,
    Price,
    Published,
    System,
)
from hwsim.machine.systolic import MatrixUnit, VectorUnit
from hwsim.machine.target import Target, parse_target
from hwsim.machine.values import Value

__all__ = [
    "FAMILIES", "Accelerator", "Chip", "Constant", "Constants", "Dispatch", "Host", "Interconnect", "MatrixUnit",
    "MemoryLevel", "Numerics", "Power", "Price", "Published", "System", "Target", "Value", "VectorUnit",
    "list_accelerators", "load_accelerator", "load_constants", "parse_target", "vary",
]  # fmt: skip
