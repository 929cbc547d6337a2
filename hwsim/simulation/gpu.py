"""Simulation of the family ``gpu``: plan for a software stack, choose kernels, lower, and read time and energy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hwsim.energy.reading import read_energy
from hwsim.errors import HwsimError, near
from hwsim.machine import Accelerator, load_constants
from hwsim.machine.gpu import gpu_of
from hwsim.network.graph import Network
from hwsim.plan.gpu_choose import ChoiceOptions, choose_kernels, launch_seconds
from hwsim.plan.gpu_plan import STACK_ALIASES, STACKS, GpuTarget, Stack, make_gpu_plan
from hwsim.plan.gpu_precision import faster_formats, multiply_gpu, sixteen_bits
from hwsim.plan.gpu_residency import place_in_l2
from hwsim.plan.gpu_widening import widening_s
from hwsim.plan.kernel import Kernel
from hwsim.plan.memory import memory_of
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan
from hwsim.plan.precision import Multiply, Precision, parse_precision
from hwsim.result import Result, Totals
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_lower import lower_gpu
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.simulation import check_plan
from hwsim.simulation.gpu_clock import settle
from hwsim.simulation.gpu_share import share_of
from hwsim.timing.gpu_run import run_gpu

DLA_STACKS = {
    "dla": "dla", "tensorrt-dla": "dla", "trt-dla": "dla", "dla-only": "dla-only", "dla-auto": "dla-auto", "gpu+dla": "gpu+dla",
}  # fmt: skip


def simulate_gpu(net: Network, acc: Accelerator, options: RunOptions, plan: Plan | None) -> Result:
    """Return what ``net`` costs on a GPU (see `simulate`)."""
    if (options.stack or "").lower() in DLA_STACKS:
        from hwsim.simulation.gpu_dla import simulate_dla

        return simulate_dla(net, acc, options, plan)
    stack = _stack(options.stack, acc.id)
    view = gpu_view(acc, half_accumulators=stack.half_accumulators)
    notes: list[str] = []
    if options.sparsity in ("2:4", "2:4!") and not view.sparse and options.emulate:
        notes.append(
            f"{acc.id} has no 2:4 sparse Tensor Cores: emulated, weights are stored compressed, expanded in the main loop "
            "and multiplied dense"
        )
    elif options.sparsity in ("2:4", "2:4!") and not view.sparse:
        if options.sparsity == "2:4!":
            raise HwsimError(f"{acc.id} has no 2:4 sparse Tensor Cores: drop --sparsity, or use Ampere or later")
        notes.append(f"{acc.id} has no 2:4 sparse Tensor Cores: run dense")
    table, changed = sixteen_bits(parse_precision(options.precision), {**view.simt_macs, **view.tensor_macs}, acc.id)
    notes += [changed] if changed else []
    if stack.compiles:
        table, changed = faster_formats(table, view.tensor_macs, view.simt_macs, acc.id)
        notes += [changed] if changed else []
    mine = share_of(net, acc, options, table)
    bound = mine.bound
    notes += mine.notes
    asked = options.precision if isinstance(options.precision, str | None) else sorted(options.precision.items())
    sizes = [f"{k[6:]}={v}" for k, v in sorted(bound.meta.items()) if k.startswith("bound_")]
    conditions = (
        *sizes,
        f"precision={asked}",
        f"sparsity={options.sparsity}",
        f"stack={stack.name}",
        f"cache={options.cache}",
        *(["emulate"] if options.emulate else []),
        *([f"parallel={mine.layout}"] if mine.layout.tensor > 1 else []),
    )
    if plan is None:
        sparsity = options.sparsity if view.sparse or options.emulate else None
        target = gpu_target(view, acc, options.emulate)
        plan = make_gpu_plan(mine.local, target, table, stack, sparsity)
        read = {o.tensor for k in plan.kernels for o in k.inputs}
        outputs = {o.tensor for k in plan.kernels for o in k.outputs if o.role == "keep" or o.tensor not in read}
        room = view.l2_bytes * view.constants["resident_share"]
        placed = place_in_l2(list(plan.kernels), room, outputs, options.cache == "warm", view.constants["l2_edge"])
        plan = replace(plan, kernels=tuple(placed), conditions=conditions)
    else:
        check_plan(plan, conditions, bound.name, acc.id)
    notes += _half_accumulators(plan, acc, stack) + _single_precision(plan, view)
    runtime = round(view.constants["runtime_memory"])
    memory = memory_of(plan, bound, view.dram_capacity, mine.batch, runtime=runtime)
    memory.check(plan.network, acc.id, mine.advice(memory))
    alone = len(plan.kernels) == 1  # run again and again, its code is found
    how = ChoiceOptions(
        stack.launch, stack.head_length, cold_code=not alone, fabric=mine.fabric, prepared=stack.compiles
    )
    host_s = _host_seconds(view, stack)
    kernels = plan.kernels
    view, choices, schedule, limited = settle(
        view,
        acc,
        lambda at: choose_kernels(kernels, at, how),
        lambda chosen: lower_gpu(kernels, chosen, view),
        host_s=host_s,
    )
    if limited:
        notes.append(limited)
    if options.sparsity == "2:4!":
        _all_sparse(plan, choices, acc.id)
    notes += _few_rows(plan, choices)
    beside = {i: choice for i, choice in enumerate(choices) if choice.pipe == "link"}
    timing = run_gpu(schedule, view, launch_seconds(view, how), host_s, beside)
    energy = read_energy(schedule, timing, acc, clock_hz=view.clock_hz, cores=1, core_clock_hz=view.clock_hz)
    totals = Totals(
        batch=options.batch, share=mine.batch, programs=acc.programs, used=mine.used, clock_hz=view.clock_hz, peak_macs=view.sms,
        dram_read_bytes_per_s=view.dram_bytes_per_s, dram_write_bytes_per_s=view.dram_bytes_per_s, dram_shared=True,
        overhead_s=0.0, units=("tensor cores", "CUDA cores"), ways=mine.layout.tensor, runtime_bytes=runtime,
        workspace_bytes=max((_workspace(choice) for choice in choices), default=0),
    )  # fmt: skip
    details = [
        {**_detail(choice), "widening_s": widening_s(kernel, choice, view), "emulates": _emulates(kernel)}
        for kernel, choice in zip(kernels, choices, strict=True)
    ]
    return Result(
        bound, acc, options, plan, schedule, timing, energy, totals, (*notes, *plan.notes, *acc.notes),
        load_constants("gpu", acc.architecture), details,
    )  # fmt: skip


def _host_seconds(view: GpuView, stack: Stack) -> float:
    """What the host takes to start a kernel on a stream; in a graph nothing is started."""
    own = view.constants[stack.host] if stack.host else 0.0
    return max(view.stream_launch_s, own) if stack.launch == "stream" else 0.0


def _stack(asked: str | None, machine: str) -> Stack:
    name = (asked or "compiled").lower()
    found = STACKS.get(STACK_ALIASES.get(name, name))
    if found is None:
        known = [*STACKS, *STACK_ALIASES, *DLA_STACKS]
        offered = ", ".join([*STACKS, *dict.fromkeys(DLA_STACKS.values())])
        raise HwsimError(f"unknown stack {name[:32]!r} for {machine}: one of {offered}{near(name[:32], known)}")
    return found


def gpu_target(view: GpuView, acc: Accelerator, emulate: bool = False) -> GpuTarget:
    """Return what planning needs to know of a machine."""
    rates = {**view.simt_macs, **view.tensor_macs}

    def multiply(precision: Precision, layer: str) -> Multiply:
        return multiply_gpu(rates, precision, acc.id, layer, emulate)

    def fuses(fmt: str, depth: int) -> bool:
        return fmt in view.tensor_macs and fmt not in ("tf32", "fp32", "fp64") and depth <= 256

    return GpuTarget(acc.id, multiply, fuses, view.sparse, emulate, acc.architecture)


def _half_accumulators(plan: Plan, acc: Accelerator, stack: Stack) -> list[str]:
    """What to say where an engine gains by adding fp16 products up in fp16."""
    tensor = gpu_of(acc).tensor
    faster = tensor.macs_per_clk("fp16", "fp16") > tensor.macs_per_clk("fp16")
    if not (
        faster and stack.half_accumulators and any(k.multiply and k.multiply.format == "fp16" for k in plan.kernels)
    ):
        return []
    return ["engines add fp16 products up in fp16, faster on this card than in fp32, as --stack eager does"]


def _single_precision(plan: Plan, view: GpuView) -> list[str]:
    """What to say of fp32 products on a chip whose libraries would take TF32 for many of them."""
    if view.tensor_macs.get("tf32", 0.0) <= 0:
        return []
    if not any(k.multiply and k.multiply.format == "fp32" for k in plan.kernels):
        return []
    return [
        "fp32 is multiplied as such, on CUDA cores; TensorRT, and PyTorch's convolutions, take TF32 on Tensor Cores unless "
        "told not to: --precision tf32"
    ]


def _all_sparse(plan: Plan, choices: list[GpuChoice], machine: str) -> None:
    """``2:4!`` refuses where a product with weights has no sparse kernel."""
    for kernel, choice in zip(plan.kernels, choices, strict=True):
        if kernel.sparsity and not choice.sparse.get("eligible") and not choice.sparse.get("emulated"):
            reason = choice.sparse.get("limit", "")
            raise HwsimError(
                f"{kernel.name}: no 2:4 sparse kernel on {machine} ({reason}); --sparsity 2:4 runs it dense"
            )


def _few_rows(plan: Plan, choices: list[GpuChoice]) -> list[str]:
    """Why a sparse product of few rows is quicker here than its users find it."""
    few = [k.name for k, c in zip(plan.kernels, choices, strict=True) if c.sparse.get("chosen") and _rows(k) < 32]
    if not few:
        return []
    return [
        f"{few[0]}{f' and {len(few) - 1} more' if len(few) > 1 else ''}: 2:4 with fewer than 32 rows is timed as the "
        "best kernel alone, its sums cut into parts; PyTorch pads the rows to 16, 32 or 64 in kernels of their own and "
        "is slower than dense there (pytorch/pytorch#111339: 0.11x for 1x4096x4096)"
    ]


def _rows(kernel: Kernel) -> int:
    return max((p.batch * p.m for p in kernel.products), default=0)


def _emulates(kernel: Kernel) -> str:
    """The format a product stands for, where the machine multiplies another."""
    return kernel.multiply.emulates if kernel.multiply is not None else ""


def _workspace(choice: GpuChoice) -> int:
    """Bytes of partial results (4 B each) that the parts of a split kernel leave for the one that adds them."""
    if choice.split <= 1 or choice.pipe == "link":
        return 0
    results = choice.m * choice.batch * (choice.k + 2 if choice.algorithm == "attention" else choice.n)
    return 4 * choice.split * results


def _detail(choice: GpuChoice) -> dict[str, Any]:
    """What a GPU kernel's row says beside its costs."""
    product = choice.algorithm not in ("memory", "direct") and choice.pipe != "link"
    return {
        "algorithm": choice.algorithm,
        "tile": "x".join(map(str, choice.tile)) if product else "",
        "stages": choice.stages if product else 0,
        "grid": "x".join(map(str, (*choice.grid, choice.batch))) if product else str(choice.ctas),
        "ctas": choice.ctas,
        "waves": round(choice.waves, 3),
        "occupancy": choice.occupancy,
        "split_k": choice.split,
        "limited_by": choice.limiter,
        "sparse_eligible": choice.sparse.get("eligible", ""),
        "sparse_chosen": choice.sparse.get("chosen", ""),
        "sparse_gain": choice.sparse.get("gain", ""),
        "sparse_limit": choice.sparse.get("limit", ""),
        "sparse_emulated": choice.sparse.get("emulated", ""),
    }
