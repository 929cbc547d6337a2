"""The clock a GPU sustains over a whole network: its kernels' mean power at the power limit, as a fixed point.

A power controller averages over milliseconds, so one clock holds for the run. Kernels chosen at the highest clock give the
activity; how each kernel's time follows the clock is a + b / clock through two evaluations. The clock found is confirmed by
choosing and timing the kernels at it, until power is within a hundredth of the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.energy.counting import count
from hwsim.energy.meter import meter
from hwsim.machine import Accelerator
from hwsim.power.activity import Activity, joules
from hwsim.power.sustained import RANDOM_DATA, sustained_clock
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import Schedule

Floats = npt.NDArray[np.float64]

ROUNDS = 4
CLOSE = 0.01
PROBE = 0.7  # the second clock that shows how times follow the first


class Settled(NamedTuple):
    """The kernels at the clock they sustain, that clock, and what to say of it (empty when nothing is limited)."""

    view: GpuView
    choices: list[GpuChoice]
    schedule: Schedule
    note: str


def settle(
    view: GpuView,
    acc: Accelerator,
    choose: Callable[[GpuView], list[GpuChoice]],
    lower: Callable[[Sequence[GpuChoice]], Schedule],
    *,
    host_s: float = 0.0,
    toggle: float = RANDOM_DATA,
) -> Settled:
    """Return the kernels of a run at the clock its mean power allows.

    ``choose`` costs the kernels on a view (at its clock), ``lower`` makes their schedule; ``host_s`` is the least time
    between two kernels' starts.
    """
    choices = choose(view)
    schedule = lower(choices)
    profile = view.power
    if profile is None or profile.tdp_w is None:
        return Settled(view, choices, schedule, "")
    seconds = _seconds(choices, host_s)
    found = meter(acc, True)
    activity = Activity(tuple(profile.index), count(schedule, found).counts, seconds)
    limit = profile.tdp_w
    if joules(activity, profile, toggle=toggle).power_w.value <= limit:
        return Settled(view, choices, schedule, "")
    top = view.clock_hz
    clocks, times = [top], [seconds]
    probe = PROBE * top
    for _ in range(ROUNDS):
        clocks.append(probe)
        slower = replace(view, clock_hz=probe)
        choices = choose(slower)
        times.append(_seconds(choices, host_s))
        schedule = lower(choices)
        activity = Activity(tuple(profile.index), count(schedule, found).counts, times[-1])
        watts = joules(activity, profile, clock_hz=probe, toggle=toggle).power_w.value
        if abs(watts / limit - 1) < CLOSE or (watts > limit and probe <= profile.floor_hz * 1.001):
            break
        settled = sustained_clock(profile, activity, _follow(clocks, times), toggle=toggle, together=True)
        probe = float(settled.clock_hz[0])
    view = replace(view, clock_hz=clocks[-1])
    data = "random data" if toggle == RANDOM_DATA else f"data that switch {toggle:.2g} times as much as random ones"
    note = (
        f"design power of {limit:.3g} W: the clock falls to {view.clock_hz / 1e6:.0f} of {top / 1e6:.0f} MHz ({data})"
    )
    return Settled(view, choices, schedule, note)


def _seconds(choices: Sequence[GpuChoice], host_s: float) -> Floats:
    out: Floats = np.maximum(np.array([choice.time_s for choice in choices], np.float64), host_s)
    return out


def _follow(clocks: Sequence[float], times: Sequence[Floats]) -> Callable[[Floats], Floats]:
    """Seconds by clock through the two evaluations nearest each other: a + b / clock, neither negative."""
    f0, f1 = clocks[0] if len(clocks) == 2 else clocks[-2], clocks[-1]
    t0, t1 = times[0] if len(times) == 2 else times[-2], times[-1]
    if f0 == f1:
        f0, t0 = clocks[0], times[0]
    slope = np.maximum((t1 - t0) / (1 / f1 - 1 / f0), 0.0)
    rest = np.maximum(t1 - slope / f1, 0.0)
    slope = np.where(rest > 0, slope, t1 * f1)

    def seconds(clock: Floats) -> Floats:
        return rest + slope / clock

    return seconds
