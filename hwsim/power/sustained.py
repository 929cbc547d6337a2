"""The clock a chip sustains under its power limit: static power + energy of the work over its time = limit.

Power rises with the clock: the voltage does not fall, and the time does not grow. So the equation has one solution, or
none because the chip stays below its limit at its highest clock (or above it at its lowest). It is found by bisection,
for any number of problems at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.power.activity import Activity, PowerProfile

Floats = npt.NDArray[np.float64]

RANDOM_DATA = 1.0
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Sustained:
    """Clock, power and time of every problem: ``clock_hz[i]``, ``power_w[i]``, ``time_s[i]``, ``limited[i]``.

    ``iterations`` is how many halvings were needed, ``toggle`` the data's switching over random data's.
    """

    clock_hz: Floats
    power_w: Floats
    time_s: Floats
    limited: npt.NDArray[np.bool_]
    iterations: int
    toggle: float


def stretched(compute_s: Any, other_s: Any, clock_hz: float) -> Callable[[Floats], Floats]:
    """Return seconds by clock of work whose ``compute_s`` (at ``clock_hz``) follows the clock and overlaps ``other_s``.

    Both are numbers or one per kernel. Raises HwsimError when they are negative or both zero.
    """
    compute, other = (np.asarray(t, dtype=np.float64) for t in (compute_s, other_s))
    if not (np.all(compute >= 0) and np.all(other >= 0) and np.all(np.maximum(compute, other) > 0)):
        raise HwsimError("sustained clock: expected for every kernel a time above 0 s")

    def seconds(clock: Floats) -> Floats:
        return np.maximum(compute * (clock_hz / clock), other)

    return seconds


def sustained_clock(
    profile: PowerProfile,
    activity: Activity,
    time_at: Callable[[Floats], Any],
    *,
    tdp_w: float | None = None,
    toggle: float = RANDOM_DATA,
    together: bool = False,
    clock_hz: float | None = None,
) -> Sustained:
    """Return the clock every kernel of ``activity`` sustains at no more than the power limit.

    ``time_at`` gives the seconds of every kernel at an array of one clock per kernel, and must not grow with the clock
    (`stretched` makes one); the counts of an activity do not depend on the clock. With ``together`` all kernels run one
    after the other at one clock, and their mean power is limited. ``tdp_w`` and ``clock_hz`` replace the profile's limit and
    highest clock; without a limit every clock is the highest. Raises HwsimError for an action the machine does not have.
    """
    counts = activity.on(profile)
    limit = profile.tdp_w if tdp_w is None else tdp_w
    top = profile.clock_hz if clock_hz is None else clock_hz
    data = counts * (1.0 - profile.toggles * (1.0 - toggle)) * profile.energy_j[:, 0]
    core_j, fixed_j = (data * profile.core).sum(axis=1), (data * (1.0 - profile.core)).sum(axis=1)
    if together:
        core_j, fixed_j = core_j.sum(keepdims=True), fixed_j.sum(keepdims=True)
    size, kernels = len(core_j), len(counts)

    def at(clock: Floats) -> tuple[Floats, Floats]:
        """Power and time at one clock per problem."""
        time: Floats = np.asarray(time_at(np.broadcast_to(clock, (kernels,))), dtype=np.float64)
        if together:
            time = time.sum(keepdims=True)
        volts = 1.0 if profile.curve is None else profile.curve.dynamic(clock)
        return profile.static_w(clock)[..., 0] + (core_j * volts + fixed_j) / time, time

    clock = np.full(size, top)
    power, time = at(clock)
    if limit is None or not bool(np.any(power > limit)):
        return Sustained(clock, power, time, np.zeros(size, dtype=np.bool_), 0, toggle)
    hot = power > limit
    low, high = np.full(size, min(profile.floor_hz or top / 16, top)), np.full(size, top)
    iterations = 0
    while bool(np.any(hot & (high - low > TOLERANCE * top))):
        middle = (low + high) / 2
        above = at(middle)[0] > limit
        high, low = np.where(above, middle, high), np.where(above, low, middle)
        iterations += 1
    clock = np.where(hot, low, top)
    power, time = at(clock)
    return Sustained(clock, power, time, hot, iterations, toggle)
