"""What a processor's cores draw while they run: fetching, decoding and moving, which dwarf the arithmetic itself.

The tables of energy per action know adders, multipliers and memories, not instruction pipelines. What a board's or chip's
file states as its power with all cores busy, less its power at rest, is shared equally by its cores; a kernel's threads draw
their part for as long as it runs. Arithmetic and memories are part of that power, so only what they leave is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwsim.energy.reading import Energy, Floats
from hwsim.machine.accelerator import Accelerator

COMPONENT = "cores"
_SPREAD = (0.6, 1.5)  # a core's share of the power of all, alone it draws more than its part, at low load less


def core_power_w(acc: Accelerator) -> float | None:
    """Return the watts one busy core adds to what the machine draws at rest; None where its file states neither."""
    power = acc.power
    busy = power.busy_w if power.busy_w is not None else power.tdp_w
    if busy is None:
        return None
    return max(0.0, busy - (power.idle_w or 0.0)) / acc.chip.cores


def with_cores(energy: Energy, acc: Accelerator, threads: Sequence[int]) -> Energy:
    """Return ``energy`` with a component ``cores``; ``threads`` is how many cores each kernel keeps busy."""
    each = core_power_w(acc)
    names = (*energy.components, COMPONENT)
    count = len(energy.time_s)
    if each is None:
        note = f"power of {acc.id} under load is unknown: instructions cost nothing here"
        return replace(
            energy, components=names, notes=(*energy.notes, note), joules=_append(energy.joules, np.zeros(count)),
            low_j=_append(energy.low_j, np.zeros(count)), high_j=_append(energy.high_j, np.zeros(count)),
        )  # fmt: skip
    active = np.asarray(threads, float) * each * energy.time_s
    static = energy.components.index("static")
    left = []
    for table, spread in ((energy.joules, 1.0), (energy.low_j, _SPREAD[0]), (energy.high_j, _SPREAD[1])):
        counted = table.sum(axis=1) - table[:, static]
        # a multiple of a power of two, as every other entry, so that components still add up to the last digit
        quantum = 2.0 ** (np.frexp(max(1e-30, float(active.sum() * _SPREAD[1] + table.sum())))[1] - 50)
        left.append(np.rint(np.maximum(0.0, active * spread - counted) / quantum) * quantum)
    entry = acc.values.get("power.busy") or acc.values.get("power.tdp")
    notes = energy.notes
    if entry is not None and entry.kind == "assumed":
        notes = (*notes, f"power of {acc.id} under load is {entry.source}")
    return replace(
        energy, components=names, joules=_append(energy.joules, left[0]), low_j=_append(energy.low_j, left[1]),
        high_j=_append(energy.high_j, left[2]), notes=notes,
    )  # fmt: skip


def _append(table: Floats, column: Floats) -> Floats:
    return np.concatenate([table, column[:, None]], axis=1)
