"""Simulation of the family ``cpu``: operators one after the other, each on the threads its library gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwsim.energy.cores import with_cores
from hwsim.energy.reading import read_energy
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_constants
from hwsim.network.graph import Network
from hwsim.plan.cpu_work import cpu_plan
from hwsim.plan.memory import memory_of
from hwsim.plan.options import RunOptions, block_sparsity
from hwsim.plan.plan import Plan
from hwsim.plan.precision import parse_precision
from hwsim.result import Result, Totals
from hwsim.schedule.cpu_lower import Sparsity, lower_cpu
from hwsim.schedule.cpu_view import CpuView, cpu_view
from hwsim.schedule.table import ScheduleBuilder
from hwsim.simulation import bind_network, check_plan
from hwsim.timing.cpu import cpu_timing, kernel_times

_KIB = 1024
# What TensorFlow Lite Micro keeps in its arena per tensor and operator, and what its code takes of the flash.
_NODE_BYTES = 256
_CODE_BYTES = 80 * _KIB


def simulate_cpu(net: Network, acc: Accelerator, options: RunOptions, plan: Plan | None) -> Result:
    """Return what ``net`` costs on a processor (see `simulate`).

    ``stack`` names the kernel library, and the threads after a colon (``ruy:1``). Raises HwsimError when a
    microcontroller's flash or SRAM is too small, in one line that says by how much.
    """
    library, threads = _stack(options.stack, acc)
    view = cpu_view(acc, library, threads)
    constants = load_constants("cpu", acc.architecture)
    notes = [f"{view.library} kernels on {view.threads} thread{'s' if view.threads > 1 else ''}"]
    sparsity: Sparsity | None = None
    if options.sparsity in ("2:4", "2:4!"):
        if options.sparsity == "2:4!":
            raise HwsimError(
                f"{acc.id} has no 2:4 sparse multiplier: drop --sparsity 2:4! or try block sparsity, 90%x4"
            )
        notes.append(f"{acc.id} has no 2:4 sparse multiplier: run dense")
    elif options.sparsity is not None and options.sparsity != "dense":
        share, block = block_sparsity(options.sparsity)
        if view.library != "xnnpack":
            raise HwsimError(f"{acc.id}: block-sparse kernels are XNNPACK's; {view.library} has none")
        sparsity = Sparsity(1 - share, block)
        notes.append(
            f"weights of 1 x 1 convolutions are {share:.0%} zeros in blocks of {block} output channels: nonzero blocks alone run"
        )
    bound = bind_network(net, options, options.batch)
    table = parse_precision(options.precision)
    asked = options.precision if isinstance(options.precision, str | None) else sorted(options.precision.items())
    sizes = [f"{k[6:]}={v}" for k, v in sorted(bound.meta.items()) if k.startswith("bound_")]
    conditions = (*sizes, f"precision={asked}")
    if plan is None:
        made = cpu_plan(bound, acc, table, warm=options.cache == "warm", view=view)
        plan = replace(made, conditions=conditions)
    else:
        check_plan(plan, conditions, bound.name, acc.id)
    if view.microcontroller:
        notes.append(_check_memories(plan, view, acc))
    else:
        memory_of(plan, bound, view.memory_bytes, options.batch).check(plan.network, acc.id)
    builder = ScheduleBuilder()
    seen: dict[tuple[object, ...], int] = {}
    for kernel in plan.kernels:
        key = (
            kernel.kind, kernel.op, kernel.products, kernel.multiply, kernel.alu, kernel.special, kernel.passes, kernel.rows,
            tuple((o.elements, o.bytes, o.format, o.cached) for o in kernel.inputs),
            tuple((o.elements, o.bytes, o.format, o.cached) for o in kernel.outputs),
            kernel.weights and (kernel.weights.bytes, kernel.weights.cached),
        )  # fmt: skip
        if key in seen:
            builder.repeat(seen[key])
        else:
            lower_cpu(builder, kernel, view, sparsity)
        number = builder.end_kernel(kernel.name, kernel.producers)
        seen.setdefault(key, number)
    schedule = builder.build()
    times = kernel_times(schedule, view, constants)
    timing = cpu_timing(schedule, times)
    energy = read_energy(schedule, timing, acc, clock_hz=view.clock_hz, cores=acc.chip.cores)
    energy = with_cores(energy, acc, [t.threads for t in times])
    totals = Totals(
        batch=options.batch, share=options.batch, programs=1, used=1, clock_hz=view.clock_hz, peak_macs=view.threads,
        dram_read_bytes_per_s=view.memory * view.clock_hz, dram_write_bytes_per_s=view.memory * view.clock_hz,
        dram_shared=True, overhead_s=acc.dispatch.program_s, units=("SIMD units", "processor"),
    )  # fmt: skip
    details = [{"core_limit": t.limit, "threads": t.threads} for t in times]
    return Result(
        bound,
        acc,
        options,
        plan,
        schedule,
        timing,
        energy,
        totals,
        (*notes, *plan.notes, *acc.notes),
        constants,
        details,
    )


def _stack(stack: str | None, acc: Accelerator) -> tuple[str | None, int | None]:
    if stack is None:
        return None, None
    name, colon, count = stack.partition(":")
    if colon and not (count.isascii() and count.isdigit() and len(count) <= 4):
        raise HwsimError(f"stack {stack!r}: write the library and its threads as {name or 'xnnpack'}:2")
    return name or None, int(count) if colon else None


def arena_bytes(plan: Plan, view: CpuView) -> int:
    """Return the bytes of SRAM a TensorFlow Lite Micro arena needs: live tensors, scratch buffers and bookkeeping."""
    scratch = 0
    for kernel in plan.kernels:
        for product in kernel.products:
            if product.conv is not None and view.library == "cmsis-nn":
                scratch = max(scratch, 4 * product.k)  # two columns of 16-bit values
    return plan.activation_bytes + plan.cache_bytes + scratch + _NODE_BYTES * len(plan.kernels)


def _check_memories(plan: Plan, view: CpuView, acc: Accelerator) -> str:
    """The note on flash and arena; raises HwsimError, one line, when either is too small."""
    flash, arena = plan.weight_bytes + _CODE_BYTES, arena_bytes(plan, view)
    told = (
        f"flash {flash / _KIB:.0f} of {view.flash_bytes / _KIB:.0f} KiB (weights {plan.weight_bytes / _KIB:.0f}, code "
        f"{_CODE_BYTES / _KIB:.0f}), SRAM arena {arena / _KIB:.0f} of {view.sram_bytes / _KIB:.0f} KiB"
    )
    short: list[str] = []
    if flash > view.flash_bytes:
        short.append("the flash")
    if arena > view.sram_bytes:
        short.append("the SRAM")
    if short:
        advice = "int8 weights and activations, a smaller input, or a larger part would be needed"
        raise HwsimError(f"{plan.network} does not fit {' and '.join(short)} of {acc.id}: {told}; {advice}")
    return told


def explain(result: Result) -> list[dict[str, Any]]:
    """Return what limits each kernel inside the core, as rows of a table."""
    return [{"name": r["name"], "core_limit": r["core_limit"], "threads": r["threads"]} for r in result.kernels]
