"""One row through the simulator: the board at the row's clocks, joules per inference by component, static watts, rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rows import Row

import hwsim
from hwsim.machine import Accelerator, load_accelerator, load_constants, vary
from hwsim.machine.gpu import gpu_of
from hwsim.power.curve import VoltageCurve
from hwsim.power.gpu import gpu_power_profile

SOURCE = "assumed: the clocks of the measured row"


CORE = ("matrix", "padding", "vector", "instructions", "shared_memory", "l2")


@dataclass(frozen=True)
class Modelled:
    """What the simulator says of a row: inferences per second, joules of one by component, static watts by part.

    ``scale`` is what the supply multiplies the work of the cores by (components `CORE`), ``curve`` that supply.
    """

    rate: float
    work_j: dict[str, float]
    static_w: dict[str, float]
    scale: float
    curve: VoltageCurve
    clock_hz: float
    cpu_ratio: float  # clock of the CPU over its highest
    cpu_cores: int

    def module_w(self, rate: float) -> float:
        """Power of the module at a rate of inferences."""
        return sum(self.static_w.values()) + rate * math.fsum(self.work_j.values())


def machine(row: Row) -> Accelerator:
    """Return the board of a row at its clocks; what is not stated keeps the board's highest."""
    acc = load_accelerator(f"{row.board}:maxn" if row.board != "jetson-xavier-nx" else row.board)
    changes: dict[str, object] = {}
    if row.gpu_mhz > 0:
        changes["sm.clock"] = f"{row.gpu_mhz:g} MHz"
    if row.emc_mhz > 0:
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
    stack = "gpu+dla" if row.dla else "compiled"
    result = hwsim.simulate(
        row.network, acc, batch=row.batch, shapes=dict(row.shapes), precision=row.precision, stack=stack
    )
    joules = dict(result.energy.by_component)
    joules.pop("static")
    used = result.totals.used
    work = {name: value * used / row.batch for name, value in joules.items() if value}
    profile = gpu_power_profile(acc)
    assert profile.curve is not None
    static: dict[str, float] = {}
    for part in profile.statics:
        scale = float(profile.curve.clocking(profile.clock_hz)) if part.follows == "clocking" else 1.0
        static[part.name] = static.get(part.name, 0.0) + part.power_w.value * scale
    soc = gpu_of(acc).soc
    return Modelled(
        result.throughput_per_s, work, static, float(profile.curve.dynamic(profile.clock_hz)), profile.curve,
        profile.clock_hz, (soc.cpu_clock_hz or 0.0) / load_constants("power")["cpu_clock"], soc.cpu_cores,
    )  # fmt: skip
