"""Simulation of the family ``edge-tpu``: the compiler's view, the link, the chip, and the host that does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hwsim.energy.reading import read_energy
from hwsim.errors import HwsimError
from hwsim.link import Link, host_link
from hwsim.machine import Accelerator, load_accelerator, load_constants
from hwsim.machine.constants import Constants
from hwsim.machine.cpu import Usb
from hwsim.machine.edge_tpu import Tensor
from hwsim.network.graph import Network
from hwsim.plan.cpu_work import cpu_kernel_s, cpu_kernels, host_work_s
from hwsim.plan.edge_tpu_compile import Compiled, compile_network
from hwsim.plan.edge_tpu_log import compiler_log
from hwsim.plan.edge_tpu_plan import HOST_KERNELS, HOST_THREADS, Step, make_steps, steps_plan
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan
from hwsim.plan.precision import Precision, check_patterns, parse_precision
from hwsim.result import Result, Totals
from hwsim.schedule import edge_tpu as lowering
from hwsim.schedule.table import Schedule, ScheduleBuilder
from hwsim.simulation import bind_network, check_plan
from hwsim.timing.edge_tpu import edge_tpu_timing, service_clks
from hwsim.timing.run import Timing

_MIB = 2**20


class EdgeTpuResult(Result):
    """A result with the compiler's view: ``compiled``, and its log as text, ``compiler_log``."""

    compiled: Compiled
    steps: tuple[Step, ...]

    @property
    def compiler_log(self) -> str:
        """What ``edgetpu_compiler -s`` would print of memory, subgraphs and operators."""
        return compiler_log(self.compiled)


def simulate_edge_tpu(
    net: Network, acc: Accelerator, options: RunOptions, plan: Plan | None, constants: Constants | None = None
) -> EdgeTpuResult:
    """Return what ``net`` costs on an Edge TPU and its host (see `simulate`).

    Several chips take a segment each, one after the other, and pipeline the runs. A batch is so many runs. ``constants``
    replace the family's (a fit tries many). Raises HwsimError for networks that are not quantised, and for a host that is
    not known.
    """
    notes = _option_notes(acc, options)
    host = host_of(acc)
    if constants is None:
        constants = load_constants("edge-tpu", acc.architecture)
    bound = bind_network(net, options, 1)
    table = parse_precision(options.precision)
    check_patterns(bound, table)
    done = compile_network(bound, acc, table, segments=_segments(bound, acc, table))
    steps = make_steps(done, acc, host, table, constants, upload=options.cache == "cold")
    asked = options.precision if isinstance(options.precision, str | None) else sorted(options.precision.items())
    sizes = [f"{k[6:]}={v}" for k, v in sorted(bound.meta.items()) if k.startswith("bound_")]
    conditions = (*sizes, f"precision={asked}", f"host={host.target}", f"cache={options.cache}")
    if plan is None:
        plan = steps_plan(done, steps, conditions)
    else:
        check_plan(plan, conditions, bound.name, acc.id)
    tensor = acc.section("tensor", Tensor)
    link = host_link(acc.host)
    schedule = lower_steps(done, steps, tensor, constants)
    timing = edge_tpu_timing(
        schedule, service_clks(schedule, tensor, link, chunk_start_s(acc, host, constants), constants)
    )
    latency_s = timing.cycles / tensor.clock_hz
    interval_s = _interval_s(steps, timing, tensor.clock_hz, len(done.segments))
    batch = options.batch
    energy = read_energy(schedule, timing, acc, clock_hz=tensor.clock_hz, dynamic_scale=float(batch))
    totals = Totals(
        batch=batch, share=1, programs=acc.chips, used=1, clock_hz=tensor.clock_hz, peak_macs=tensor.macs_per_clk,
        dram_read_bytes_per_s=math.inf, dram_write_bytes_per_s=math.inf, dram_shared=True,
        overhead_s=(batch - 1) * interval_s, units=("cells", "cells"),
        interval_s=batch * interval_s if interval_s < latency_s else None,
    )  # fmt: skip
    details = _details(done, steps, schedule, timing, tensor, link)
    notes += _run_notes(done, steps, acc, host, table, latency_s)
    result = EdgeTpuResult(
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
    result.compiled, result.steps = done, tuple(steps)
    return result


def host_of(acc: Accelerator) -> Accelerator:
    """Return the machine that hosts ``acc``; raises HwsimError when it names none or one that is no processor."""
    if not acc.host.name:
        raise HwsimError(f"{acc.id} names no host: give one, as {acc.id}@raspberry-pi-4")
    host = load_accelerator(acc.host.name)
    if host.family != "cpu":
        raise HwsimError(f"{host.id} is of family {host.family}, so it cannot be the host of {acc.id}")
    return host


def chunk_start_s(acc: Accelerator, host: Accelerator, constants: Mapping[str, float]) -> float:
    """Return what the host spends to start one chunk: a USB transfer each; PCIe cards fetch their pages themselves."""
    if not acc.host.link.startswith("usb"):
        return 0.0
    held_back = host.section("usb", Usb).completion_s
    return max(held_back, host_work_s(host, scalar_operations=constants["chunk_instructions"]))


def lower_steps(done: Compiled, steps: list[Step], tensor: Tensor, constants: Mapping[str, float]) -> Schedule:
    """Return the schedule of ``steps``, one kernel each."""
    builder = ScheduleBuilder()
    clock = tensor.clock_hz
    for step in steps:
        clks = math.ceil(step.host_s * clock)
        if step.place == "chip":
            op = done.operators[step.operator]
            work = lowering.work_of(op, tensor, constants["narrow_bytes"])
            fetch = lowering.Fetch(step.code, step.streamed, step.shared)
            lowering.lower_op(builder, op, work, fetch, tensor)
        elif step.place == "to chip":
            lowering.to_chip(builder, clks, step.code, step.inputs)
        elif step.place == "from chip":
            lowering.from_chip(builder, step.outputs, clks)
        else:
            lowering.on_host(builder, clks)
        builder.end_kernel(step.kernel.name, step.kernel.producers)
    return builder.build()


def _segments(net: Network, acc: Accelerator, table: dict[str, Precision] | None) -> int:
    """One segment a chip, or as many as there are operators for."""
    if acc.chips == 1:
        return 1
    mapped = len(compile_network(net, acc, table).mapped)
    return max(1, min(acc.chips, mapped))


def _interval_s(steps: list[Step], timing: Timing, clock_hz: float, segments: int) -> float:
    """Seconds between results of runs back to back: the slowest segment, or the host, if that is busier."""
    spent = (timing.end - timing.begin) / clock_hz
    if segments <= 1:
        return float(spent.sum())
    each = [0.0] * segments
    host = 0.0
    for step, seconds in zip(steps, spent, strict=True):
        if step.place == "host":
            host += float(seconds)
        else:
            each[step.segment] += float(seconds)
    return max(*each, host)


def _option_notes(acc: Accelerator, options: RunOptions) -> list[str]:
    notes = []
    if options.stack not in (None, "edgetpu"):
        raise HwsimError(f"unknown stack {options.stack!r} for {acc.id}: only edgetpu")
    if options.sparsity not in (None, "dense"):
        if options.sparsity == "2:4!":
            raise HwsimError(f"{acc.id} has no 2:4 sparse multiplier: drop --sparsity 2:4! or use a Tensor Core GPU")
        notes.append(f"{acc.id} has no sparse multiplier: run dense")
    if options.cache == "cold":
        notes.append("first run: the parameters are loaded into the chip's cache before it")
    if options.batch > 1:
        notes.append(
            f"batch {options.batch}: so many runs, one after the other; the Edge TPU takes one input at a time"
        )
    return notes


def _details(
    done: Compiled, steps: list[Step], schedule: Schedule, timing: Timing, tensor: Tensor, link: Link
) -> list[dict[str, Any]]:
    """Per kernel: where it ran, what of it crossed the link, what lay on the chip, and its own bound."""
    clock = tensor.clock_hz
    out: list[dict[str, Any]] = []
    for k, step in enumerate(steps):
        latency_s = int(timing.end[k] - timing.begin[k]) / clock
        up = (step.inputs + step.streamed + step.code) / link.to_chip_bytes_per_s
        down = step.outputs / link.to_host_bytes_per_s
        compute = step.kernel.macs / (tensor.macs_per_clk * clock)
        bound_s = max(up + down, compute, latency_s if step.place == "host" else 0.0)
        work = None
        if step.place == "chip":
            work = lowering.work_of(done.operators[step.operator], tensor, 64.0)
        out.append(
            {
                "bound_s": bound_s,
                "sol_pct": 100.0 * bound_s / latency_s if latency_s else 100.0,
                "bound": "compute" if compute >= up + down else "link",
                "place": step.place,
                "segment": step.segment,
                "cached_bytes": step.cached,
                "streamed_bytes": step.streamed,
                "code_bytes": step.code,
                "to_chip_bytes": step.inputs + step.streamed + step.code,
                "to_host_bytes": step.outputs,
                "tiles_used": _tiles_used(work, tensor) if work else 0,
            }
        )
    return out


def _tiles_used(work: lowering.Work, tensor: Tensor) -> int:
    """Tiles that have anything to do."""
    if work.split:
        return min(tensor.tiles, -(-work.z // tensor.cells))
    down, across = -(-work.y // tensor.tiles_y), -(-work.x // tensor.tiles_x)
    return -(-work.y // down) * -(-work.x // across)


def _run_notes(
    done: Compiled, steps: list[Step], acc: Accelerator, host: Accelerator, table: dict[str, Precision] | None,
    latency_s: float,
) -> list[str]:  # fmt: skip
    mapped, total = len(done.mapped), len([op for op in done.operators if not op.folded])
    crossings = sum(step.place in ("to chip", "from chip") for step in steps)
    notes = [
        f"{mapped} of {total} operators on the Edge TPU, {total - mapped} on {host.id}; the link is crossed {crossings} times",
    ]
    if done.segments:
        kept, streamed = done.cached_bytes, done.streamed_bytes
        code = sum(s.instruction_bytes for s in done.segments)
        cost = (streamed + code) / host_link(acc.host).to_chip_bytes_per_s
        notes.append(
            f"parameters: {kept / _MIB:.2f} MiB stay on the chip, {streamed / _MIB:.2f} MiB are streamed in every run; with "
            f"{code / 1024:.0f} KiB of code that is {cost * 1e3:.2f} ms of link time, part of it behind the computation"
        )
    alone = host_alone_s(done.network, host, table)
    notes.append(
        f"{host.id} alone ({HOST_KERNELS}, {HOST_THREADS} thread): {alone * 1e3:.3g} ms, {alone / latency_s:.3g} times as long"
    )
    return notes


def host_alone_s(net: Network, host: Accelerator, table: dict[str, Precision] | None) -> float:
    """Return the seconds of a bound network on the host alone, with the kernels it uses beside an Edge TPU."""
    kernels = cpu_kernels(net, host, table)
    return sum(cpu_kernel_s(host, kernel, stack=HOST_KERNELS, threads=HOST_THREADS) for kernel in kernels)


def with_host(acc: Accelerator, host: str) -> Accelerator:
    """Return ``acc`` on another host, over the link it has (see the target grammar for others)."""
    from hwsim.machine.target import parse_target

    return load_accelerator(str(replace(parse_target(acc.target), host=host)))
