"""Static power: what a chip draws while it waits, from measurement where there is one."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.energy.cells import peak_cell_power_w
from hwsim.energy.levels import DEFAULT_NODE_NM
from hwsim.machine.accelerator import Accelerator
from hwsim.power.actions import load_actions
from hwsim.power.gpu import gpu_power_profile
from hwsim.power.span import Span


@dataclass(frozen=True, slots=True)
class StaticPower:
    """Static power of one program's share of a chip, W; ``share`` of the chip, source, and a note for the answer."""

    power_w: Span
    share: float
    source: str
    note: str


def static_power(acc: Accelerator, cores: int | None = None) -> StaticPower:
    """Return the static power of the part of ``acc`` one program runs on.

    The idle power where the machine's file has it; else a fraction of its design power, of its mean busy power, or of
    what its cells take at peak (fractions of ``energy_actions.csv``); nothing, with a note, for a machine without any.
    A GPU waits at its lowest clock (`hwsim.power.gpu`). A program pays for the ``cores`` it runs on as a part of the
    chip's; by default all, or one where cores run programs of their own (systolic, no megacore).
    """
    actions, power = load_actions(), acc.power
    if acc.family == "gpu":
        profile = gpu_power_profile(acc)
        waiting = Span(*(float(w) for w in profile.static_w(profile.floor_hz)))
        return StaticPower(waiting, 1.0, "hwsim.power.gpu", "; ".join(profile.notes))
    if cores is None:
        cores = 1 if acc.family == "systolic" and not acc.chip.megacore else acc.chip.cores
    share = cores / acc.chip.cores
    if power.idle_w is not None:
        entry = acc.values.get("power.idle")
        source = entry.source if entry is not None else ""
        if entry is None or entry.kind != "assumed":
            return StaticPower(Span(*(power.idle_w,) * 3).scaled(share), share, source, "")
        span = actions.at("ratio", "unmeasured_idle", 0).scaled(power.idle_w * share)
        return StaticPower(span, share, source, f"idle power of {acc.id} is {source}")
    peak = peak_cell_power_w(acc, power.node_nm or DEFAULT_NODE_NM).value
    for base, name, ratio in (
        (power.tdp_w, "design power", "idle_over_tdp"),
        (power.busy_w, "mean busy power", "idle_over_busy"),
        (peak or None, "cells' power at peak", "idle_over_cells"),
    ):
        if base is not None:
            part = actions.at("ratio", ratio, 0)
            text = f"{part.value:.0%} of its {name} of {base:.3g} W"
            note = f"static power of {acc.id} is assumed: {text}"
            source = f"assumed: {text}; {actions.records('ratio', ratio)[0].source}"
            return StaticPower(part.scaled(base * share), share, source, note)
    note = f"static power of {acc.id} is unknown and left out: joules are those of the work alone"
    return StaticPower(Span(0.0, 0.0, 0.0), share, "unknown", note)
