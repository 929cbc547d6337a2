"""How a supply voltage follows the clock of a chip, and what that does to energy and leakage.

The curve is the usual one of adaptive voltage: a floor up to a knee, then a straight line to the voltage of the highest
clock. Vendors do not publish theirs; the constants are in ``accelerators/constants/power.toml`` with their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError

Floats = npt.NDArray[np.float64]

# Leakage current grows with the voltage too (barrier lowering), so leakage power rises faster than V: between V^2 and V^4.
LEAKAGE_EXPONENT = 3.0


@dataclass(frozen=True, slots=True)
class VoltageCurve:
    """Supply voltage by clock: ``floor_v`` up to ``knee_hz``, then linear to ``top_v`` at ``top_hz`` (and beyond it).

    ``reference_v`` is the voltage at which the energies it scales are stated. Raises HwsimError when the floor is above
    the top or the knee above the highest clock.
    """

    floor_v: float
    top_v: float
    knee_hz: float
    top_hz: float
    reference_v: float

    def __post_init__(self) -> None:
        if not (0 < self.floor_v <= self.top_v and 0 <= self.knee_hz < self.top_hz and self.reference_v > 0):
            raise HwsimError(
                f"voltage curve: {self.floor_v:g} to {self.top_v:g} V from {self.knee_hz:g} to {self.top_hz:g} Hz "
                f"does not rise, or its reference {self.reference_v:g} V is not above 0"
            )

    def volts(self, clock_hz: Any) -> Any:
        """Return the supply voltage at ``clock_hz`` (a number or an array), V."""
        slope = (self.top_v - self.floor_v) / (self.top_hz - self.knee_hz)
        return self.floor_v + slope * np.maximum(np.asarray(clock_hz, dtype=np.float64) - self.knee_hz, 0.0)

    def dynamic(self, clock_hz: Any) -> Any:
        """Return what one switching event costs at ``clock_hz`` over what it costs at the reference voltage: V^2."""
        return (self.volts(clock_hz) / self.reference_v) ** 2

    def leakage(self, clock_hz: Any) -> Any:
        """Return leakage power at ``clock_hz`` over that at the highest clock."""
        return (self.volts(clock_hz) / self.top_v) ** LEAKAGE_EXPONENT

    def clocking(self, clock_hz: Any) -> Any:
        """Return the power of what switches in every clock at ``clock_hz`` over that at the highest clock: f V^2."""
        clock = np.asarray(clock_hz, dtype=np.float64)
        return clock / self.top_hz * (self.volts(clock) / self.top_v) ** 2
