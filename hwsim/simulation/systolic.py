"""Simulation of the family ``systolic``: data parallel programs, each planned, lowered and timed by the pipeline engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from hwsim.energy.reading import read_energy
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_constants
from hwsim.network.graph import Network
from hwsim.plan.choose import lower_plan
from hwsim.plan.memory import Memory, memory_of
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan, Target, make_plan
from hwsim.plan.precision import multiply_on, parse_precision
from hwsim.result import Result, Totals
from hwsim.schedule.systolic_view import systolic_view
from hwsim.simulation import bind_network, check_plan
from hwsim.timing.run import run
from hwsim.timing.systolic_service import service_cycles


def simulate_systolic(net: Network, acc: Accelerator, options: RunOptions, plan: Plan | None) -> Result:
    """Return what ``net`` costs on a systolic machine (see `simulate`)."""
    if options.stack not in (None, "xla"):
        raise HwsimError(f"unknown stack {options.stack!r} for {acc.id}: only xla")
    notes: list[str] = []
    if options.sparsity == "2:4!":
        raise HwsimError(f"{acc.id} has no 2:4 sparse multiplier: drop --sparsity 2:4! or use a Tensor Core GPU")
    if options.cache == "cold":
        notes.append("every run reads its inputs and weights from memory: a cold cache costs nothing more")
    if options.sparsity == "2:4":
        notes.append(f"{acc.id} has no 2:4 sparse multiplier: run dense")
    view = systolic_view(acc)
    constants = load_constants("systolic", acc.architecture)
    programs = acc.programs
    share = -(-options.batch // programs)
    used = -(-options.batch // share)
    if programs > 1:
        part = f"batch {options.batch} over {programs} " + ("chips" if acc.chip.megacore else "cores")
        idle = f", {programs - used} of them idle" if used < programs else ""
        notes.append(f"data parallel: {part}, {share} each{idle}; every one holds all weights")
    bound = bind_network(net, options, share)
    multiply = partial(multiply_on, view.rates, view.fp32_passes, machine=view.name)
    where = Target(
        acc.id,
        lambda precision, layer: multiply(precision=precision, where=layer),
        view.resident_bytes,
        "dram" if view.activations_in_dram else "host",
    )
    table = parse_precision(options.precision)
    asked = options.precision if isinstance(options.precision, str | None) else sorted(options.precision.items())
    sizes = [f"{k[6:]}={v}" for k, v in sorted(bound.meta.items()) if k.startswith("bound_")]
    conditions = (*sizes, f"precision={asked}")
    if plan is None:
        plan = replace(make_plan(bound, where, table), conditions=conditions)
    else:
        check_plan(plan, conditions, bound.name, acc.id)
    _check_capacity(plan, view, acc, memory_of(plan, bound, view.dram_bytes, share))
    schedule = lower_plan(plan, view, constants)
    timing = run(schedule, service_cycles(schedule, view, constants).tolist())
    spilled = sum(o.bytes for k in plan.kernels[:-1] for o in k.outputs if o.level == "host")
    if spilled:
        notes.append(
            f"{spilled / 2**20:.1f} MiB of activations do not fit on the chip and cross the host link and back"
        )
    start_s = view.program_s
    sync_s = _synchronisation_s(acc, used)
    energy = read_energy(schedule, timing, acc, clock_hz=view.clock_hz, cores=view.cores)
    totals = Totals(
        batch=options.batch,
        share=share,
        programs=programs,
        used=used,
        clock_hz=view.clock_hz,
        peak_macs=view.peak_macs,
        dram_read_bytes_per_s=view.dram_read * view.clock_hz,
        dram_write_bytes_per_s=view.dram_write * view.clock_hz,
        dram_shared=view.dram_shared,
        overhead_s=start_s + sync_s,
    )
    if sync_s:
        notes.append(f"{used} programs meet at the end of a run: {sync_s * 1e6:.1f} us over the interconnect")
    return Result(
        bound, acc, options, plan, schedule, timing, energy, totals, (*notes, *plan.notes, *acc.notes), constants
    )


def _check_capacity(plan: Plan, view: Any, acc: Accelerator, memory: Memory) -> None:
    if view.activations_in_dram or plan.weight_bytes > view.dram_bytes:
        memory.check(plan.network, acc.id)


def _synchronisation_s(acc: Accelerator, used: int) -> float:
    """Time for the programs of a run to meet: one word to the farthest chip and back, hop by hop."""
    chips = -(-used // acc.programs_per_chip)
    link = acc.interconnect
    if chips <= 1 or link.topology == "none":
        return 0.0
    dims = acc.system.dims or (chips,)
    hops = 0
    for size in dims:
        wraps = link.topology.startswith("torus") and size >= link.wrap_axis
        hops += size // 2 if wraps or link.topology == "ring" else size - 1
    return 2 * hops * link.hop_latency_s
