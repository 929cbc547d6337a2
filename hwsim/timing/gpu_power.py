"""The clock a GPU sustains: where static power plus energy per operation times rate meets the power limit.

Dynamic energy scales with the square of the supply voltage, and the voltage falls linearly with the clock down to a floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView

if TYPE_CHECKING:
    from hwsim.timing.gpu_gemm import GemmKind

Floats = npt.NDArray[np.float64]
STEPS = 24  # halvings of the clock interval


def sustained_clock(
    view: GpuView,
    kind: GemmKind,
    macs: Floats,
    time_and_bytes: Callable[[Floats], tuple[Floats, Floats]],
    clock: Floats,
    throttle: bool = True,
) -> tuple[Floats, Floats]:
    """Return (clock in Hz, board power in W) of kernels of ``macs`` multiply-accumulates each; shape [rows].

    ``time_and_bytes`` gives seconds and DRAM bytes at given clocks. Where ``clock`` needs more than the power limit, the
    highest clock that does not is found by bisection.
    """
    c = view.constants
    energy = mac_energy(view, kind)

    def power(hz: Any) -> Floats:
        seconds, moved = time_and_bytes(hz)
        joules = macs * energy * voltage(view, hz) ** 2 + moved * c["dram_j_per_byte"]
        return np.asarray(view.idle_w + joules / seconds, float)

    top = power(clock)
    if not throttle or not (top > view.tdp_w).any():
        return clock, top
    low, high = np.full_like(clock, 0.1 * view.clock_hz), clock.copy()
    over = top > view.tdp_w
    for _ in range(STEPS):
        middle = np.where(over, 0.5 * (low + high), clock)
        fits = power(middle) <= view.tdp_w
        low = np.where(over & fits, middle, low)
        high = np.where(over & ~fits, middle, high)
    found = np.where(over, low, clock)
    return found, power(found)


def voltage(view: GpuView, clock: Any) -> Any:
    """Return the supply voltage at ``clock`` relative to that at the highest clock."""
    floor = view.constants["voltage_floor"]
    return np.maximum(floor, view.constants["voltage_slope"] * (np.asarray(clock) / view.clock_hz - 1) + 1)


def mac_energy(view: GpuView, kind: GemmKind) -> float:
    """Return joules of one multiply-accumulate with its operand movement inside the SM, at the highest clock."""
    c = view.constants
    base = c["tensor_j_per_mac"] if kind.pipe == "tensor" else c["simt_j_per_mac"]
    width = kind.compute_bits / (16 if kind.pipe == "tensor" else 32)
    return float(base * width * (view.node_nm / 7.0) * c["data_toggle"])
