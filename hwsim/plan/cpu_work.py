"""What a processor costs for one kernel, or for plain work on bytes: the door for machines that leave work to their host.

``cpu_kernels`` plans the kernels of a network (or of some of its layers) on a processor, ``cpu_kernel_s`` times one, and
``host_work_s`` times a pass over data described by its bytes and operations (a conversion, a copy, a stage around a
network). All are pure functions of a machine; constants are the family's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

from hwsim.errors import HwsimError
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.machine.cpu import Core
from hwsim.network.graph import Network
from hwsim.plan.cpu_plan import group_operators, multiply_with, own_activations, place_in_caches
from hwsim.plan.kernel import Kernel
from hwsim.plan.plan import Plan, Target, make_plan
from hwsim.plan.precision import Precision
from hwsim.schedule.cpu_lower import Sparsity, lower_cpu
from hwsim.schedule.cpu_view import CpuView, cpu_view
from hwsim.schedule.table import ScheduleBuilder
from hwsim.timing.cpu import KernelTime, kernel_times, loop_clocks, sustained_issue


@dataclass(frozen=True, slots=True)
class CpuCost:
    """Seconds of one kernel on a processor: the work itself and the waits by cause, and the core's busiest resource."""

    seconds: float
    work_s: float
    waits_s: Mapping[str, float]
    limit: str
    threads: int


def cpu_plan(net: Network, acc: Accelerator, table: dict[str, Precision] | None, *, warm: bool = True,
             view: CpuView | None = None) -> Plan:  # fmt: skip
    """Return the plan of a bound network on processor ``acc``, one kernel an operator, placed in its caches.

    Raises HwsimError when ``acc`` is no processor, or naming the layer whose formats it cannot multiply.
    """
    from dataclasses import replace

    rates = acc.section("core", Core).rates
    multiply = partial(multiply_with, rates)
    target = Target(acc.id, lambda precision, layer: multiply(precision, acc.id, layer))
    plan = make_plan(net, target, table, group_operators)
    capacity = (view or cpu_view(acc)).cache_bytes
    return replace(plan, kernels=place_in_caches(own_activations(net, plan.kernels), capacity, warm=warm))


def cpu_kernels(
    net: Network, acc: Accelerator, table: dict[str, Precision] | None = None, layers: Collection[str] | None = None
) -> tuple[Kernel, ...]:
    """Return the kernels a processor would run ``net`` (bound) with, those with a layer of ``layers`` (ids) alone.

    Operands found in its caches say so as if all of the network ran there. Raises HwsimError as `cpu_plan` does.
    """
    kernels = cpu_plan(net, acc, table).kernels
    return kernels if layers is None else tuple(k for k in kernels if any(x in layers for x in k.layers))


def cpu_kernel(
    acc: Accelerator, kernel: Kernel, *, stack: str | None = None, threads: int | None = None,
    sparsity: Sparsity | None = None,
) -> CpuCost:  # fmt: skip
    """Return what ``kernel`` costs on processor ``acc``, with kernels of ``stack`` on ``threads`` (None: its defaults).

    Raises HwsimError as `cpu_view` does.
    """
    view = cpu_view(acc, stack, threads)
    builder = ScheduleBuilder()
    lower_cpu(builder, kernel, view, sparsity)
    builder.end_kernel(kernel.name)
    return _cost(kernel_times(builder.build(), view, load_constants("cpu", acc.architecture))[0], view)


def cpu_kernel_s(acc: Accelerator, kernel: Kernel, *, stack: str | None = None, threads: int | None = None) -> float:
    """Return the seconds of ``kernel`` on processor ``acc`` (see `cpu_kernel`)."""
    return cpu_kernel(acc, kernel, stack=stack, threads=threads).seconds


def _cost(time: KernelTime, view: CpuView) -> CpuCost:
    clock = view.clock_hz
    waits = {name: clocks / clock for name, clocks in time.waits.items()}
    return CpuCost(time.clocks / clock, time.work / clock, waits, time.limit, time.threads)


def host_work_s(
    acc: Accelerator, *, read_bytes: float = 0.0, written_bytes: float = 0.0, simd_operations: float = 0.0,
    scalar_operations: float = 0.0, threads: int = 1, in_cache: bool = False, calls: int = 0,
) -> float:  # fmt: skip
    """Return the seconds of one pass over data on processor ``acc``.

    ``read_bytes`` and ``written_bytes`` go through SIMD registers, and through memory unless ``in_cache``;
    ``simd_operations`` are lane operations of 32 bits done a register at a time, ``scalar_operations`` instructions done
    one by one; ``calls`` operators are called by the interpreter. Raises HwsimError for a negative amount.
    """
    if min(read_bytes, written_bytes, simd_operations, scalar_operations, calls) < 0:
        raise HwsimError(f"{acc.id}: amounts of host work cannot be negative")
    view = cpu_view(acc, None, threads)
    constants = load_constants("cpu", acc.architecture)
    order = "out_of_order" if view.out_of_order else "in_order"
    size = view.register_bytes
    moves = (read_bytes + written_bytes) / size
    clocks, _ = loop_clocks(
        view,
        0.0,
        simd_operations * 4 / size,
        moves,
        scalar_operations + moves / 2,
        read_bytes,
        written_bytes,
        integer=False,
    )
    work = clocks / sustained_issue(view, constants) / threads
    far = 0.0 if in_cache else (read_bytes + written_bytes) / (view.memory * constants["memory_efficiency"])
    slowest = max(work, far)
    total = slowest + (1 - constants[f"overlap_{order}"]) * (work + far - slowest)
    fork = constants["fork_join_tflite"] if threads > 1 else 0.0
    return total / view.clock_hz + fork + calls * constants["operator_tflite"] / view.clock_hz
