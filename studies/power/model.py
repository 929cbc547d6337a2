"""One row through the simulator: the board at the row's clocks, joules per inference by component, static watts, rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rows import Row

import hwsim
from hwsim.machine import Accelerator, load_accelerator, vary
from hwsim.power.gpu import gpu_power_profile

SOURCE = "assumed: the clocks of the measured row"


@dataclass(frozen=True)
class Modelled:
    """Simulated rate (inferences per second), joules per inference that are work, and static watts by part."""

    rate: float
    work_j: dict[str, float]
    static_w: dict[str, float]


def machine(row: Row) -> Accelerator:
    """Return the board of a row at its clocks; what is not stated keeps the board's highest."""
    acc = load_accelerator(f"{row.board}:maxn" if row.board != "jetson-xavier-nx" else row.board)
    changes: dict[str, object] = {}
    if row.gpu_mhz > 0:
        changes["sm.clock"] = f"{row.gpu_mhz:g} MHz"
    if row.emc_mhz > 0:
        from hwsim.machine.gpu import gpu_of

        bits = gpu_of(acc).soc.bus_bits or 128
        changes["soc.emc_clock"] = f"{row.emc_mhz:g} MHz"
        changes["memory.dram.bandwidth"] = f"{2 * row.emc_mhz * bits / 8 / 1000:.6g} GB/s"
    if row.cpu_mhz > 0:
        changes["soc.cpu_clock"] = f"{row.cpu_mhz:g} MHz"
    if row.cpu_cores:
        changes["soc.cpu_cores"] = row.cpu_cores
    if row.dla and row.dla_mhz > 200:
        changes["dla.clock"] = f"{row.dla_mhz:g} MHz"
    return vary(acc, changes, SOURCE) if changes else acc


def simulate(row: Row) -> Modelled:
    """Return what the simulator says of a row."""
    acc = machine(row)
    batch = row.batch
    stack = "gpu+dla" if row.dla else "compiled"
    result = hwsim.simulate(row.network, acc, batch=batch, shapes=dict(row.shapes), precision=row.precision, stack=stack)
    joules = dict(result.energy.by_component)
    joules.pop("static")
    used = result.totals.used
    work = {name: value * used / batch for name, value in joules.items() if value}
    profile = gpu_power_profile(acc)
    static: dict[str, float] = {}
    for part in profile.statics:
        scale = 1.0
        if profile.curve is not None and part.follows == "clocking":
            scale = float(profile.curve.clocking(profile.clock_hz))
        static[part.name] = static.get(part.name, 0.0) + part.power_w.value * scale
    return Modelled(result.throughput_per_s, work, static)


def module_w(found: Modelled, rate: float) -> float:
    """Module power at a rate of inferences."""
    return sum(found.static_w.values()) + rate * math.fsum(found.work_j.values())
