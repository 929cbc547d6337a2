"""Static power: what a chip draws while it waits, from measurement where there is one."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.energy.actions import Span, load_actions
from hwsim.machine.accelerator import Accelerator


@dataclass(frozen=True, slots=True)
class StaticPower:
    """Static power of one program's share of a chip, W; ``share`` of the chip, source, and a note for the answer."""

    power_w: Span
    share: float
    source: str
    note: str


def static_power(acc: Accelerator, cores: int | None = None) -> StaticPower:
    """Return the static power of the part of ``acc`` one program runs on.

    The measured idle power where the machine's file has it; else a fraction of the design power, else of the mean busy
    power (fractions of ``energy_actions.csv``); else nothing, with a note. A program pays for the ``cores`` it runs on
    as a part of the chip's; by default all, or one where cores run programs of their own (systolic, no megacore).
    """
    actions, power = load_actions(), acc.power
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
    for base, name, ratio in (
        (power.tdp_w, "design", "idle_over_tdp"),
        (power.busy_w, "mean busy", "idle_over_busy"),
    ):
        if base is not None:
            part = actions.at("ratio", ratio, 0)
            note = f"static power of {acc.id} is assumed: {part.value:.0%} of its {name} power of {base:g} W"
            source = f"assumed: {part.value:g} of the {name} power; {actions.records('ratio', ratio)[0].source}"
            return StaticPower(part.scaled(base * share), share, source, note)
    note = f"static power of {acc.id} is unknown and left out: joules are those of the work alone"
    return StaticPower(Span(0.0, 0.0, 0.0), share, "unknown", note)
