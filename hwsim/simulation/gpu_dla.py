"""Jetson boards with their DLAs: a network on an engine with the GPU as its stand-in, or on all engines side by side.

``dla`` runs every layer the DLA takes there and the rest on the GPU, as TensorRT does with a DLA core and GPU fallback;
``dla-only`` refuses networks with a layer the DLA does not take; ``dla-auto`` uses the DLA where it ends sooner, hand-overs
included; ``gpu+dla`` splits a batch over the GPU and all DLAs, each with a copy of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hwsim.energy.reading import read_energy
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_constants
from hwsim.network.graph import Network
from hwsim.plan.dla import best_engines, dla_refusal, merge_pools, order_by_engine, reorder, subgraphs
from hwsim.plan.dla_work import dla_choices
from hwsim.plan.gpu_choose import ChoiceOptions, choose_kernels, launch_seconds
from hwsim.plan.gpu_plan import STACKS, make_gpu_plan
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan, check_fits
from hwsim.plan.precision import parse_precision
from hwsim.result import Result, Totals
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_lower import lower_gpu
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.simulation import bind_network, check_plan
from hwsim.simulation.gpu import DLA_STACKS, _detail, gpu_target, simulate_gpu
from hwsim.timing.dla import DlaView, dla_view
from hwsim.timing.gpu_run import run_gpu

UNITS = ("tensor cores", "CUDA cores", "DLA")
STACK = replace(STACKS["compiled"], packs=False)  # of what stays on the GPU; an engine writes where results belong
HOW = ChoiceOptions(STACK.launch, STACK.head_length)


def simulate_dla(net: Network, acc: Accelerator, options: RunOptions, plan: Plan | None) -> Result:
    """Return what ``net`` costs on a board with DLAs under one of `DLA_STACKS`.

    Raises HwsimError for a board without DLA, several boards, and a network no layer of which the DLA takes.
    """
    engine = dla_view(acc)
    stack = DLA_STACKS[(options.stack or "").lower()]
    if engine is None:
        raise HwsimError(f"{acc.id} has no DLA: run it without --stack {stack}, or on jetson-agx-orin or jetson-xavier")
    if acc.programs > 1:
        raise HwsimError(f"--stack {stack} runs on one board, not {acc.target}")
    view = gpu_view(acc)
    if stack == "gpu+dla":
        if plan is not None:
            raise HwsimError("--stack gpu+dla makes its own plan: it splits the batch")
        return _beside(net, acc, options, view, engine)
    return _one_engine(net, acc, options, view, engine, stack, plan)


def _one_engine(
    net: Network, acc: Accelerator, options: RunOptions, view: GpuView, engine: DlaView, stack: str, plan: Plan | None
) -> Result:
    bound = bind_network(net, options, options.batch)
    conditions = (
        f"N={options.batch}",
        f"precision={options.precision}",
        f"sparsity={options.sparsity}",
        f"stack={stack}",
    )
    if plan is None:
        plan = replace(_plan(bound, acc, options, view), conditions=conditions)
    else:
        check_plan(plan, conditions, bound.name, acc.id)
    check_fits(plan, view.dram_capacity, acc.id, options.batch)
    work = _Split(bound, list(plan.kernels), view, engine, options.batch)
    if stack == "dla-only" and not all(work.takes):
        name, reason = next((k.name, why) for k, why in zip(plan.kernels, work.reasons, strict=True) if why)
        raise HwsimError(f"{name}: {reason}; --stack dla runs it on the GPU instead")
    if stack == "dla-auto":
        work.choose()
    elif not any(k.products for k, mine in zip(work.kernels, work.takes, strict=True) if mine):
        raise HwsimError(f"no product of {bound.name} runs on the DLA of {acc.id}: {work.reasons[0]}")
    if not any(work.takes):
        found = simulate_gpu(net, acc, replace(options, stack="compiled"), None)
        found.notes = ("no part of the network ends sooner on the DLA: all of it runs on the GPU", *found.notes)
        return found
    choices = work.choices()
    plan = replace(plan, kernels=tuple(work.kernels))
    schedule = lower_gpu(work.kernels, choices, view)
    beside = {i: c for i, c in enumerate(choices) if c.pipe == "dla"}
    timing = run_gpu(schedule, view, launch_seconds(view, HOW), elsewhere=beside)
    energy = read_energy(schedule, timing, acc, clock_hz=view.clock_hz, cores=1)
    # A whole network on the engine: the next run is submitted while this one computes.
    whole = timing.cycles / view.clock_hz - engine.handover_s if all(work.takes) else None
    return Result(
        bound, acc, options, plan, schedule, timing, energy, _totals(options.batch, options.batch, view, whole),
        (*work.notes(), *plan.notes, *acc.notes), _constants(acc, engine), _details(choices),
    )  # fmt: skip


def _plan(bound: Network, acc: Accelerator, options: RunOptions, view: GpuView) -> Plan:
    table = parse_precision(options.precision)
    return make_gpu_plan(
        bound, gpu_target(view, acc, options.emulate), table, STACK, options.sparsity if view.sparse else None
    )


class _Split:
    """The kernels of a plan dealt to the GPU and one DLA, in the order they run."""

    def __init__(self, net: Network, kernels: list[Kernel], view: GpuView, engine: DlaView, images: int) -> None:
        self.view, self.engine, self.images = view, engine, images
        self.plain = kernels
        self.reasons = [dla_refusal(net, k, engine.generation) for k in kernels]
        self.refused = {k.name: why for k, why in zip(kernels, self.reasons, strict=True) if why}
        self._place([not why for why in self.reasons])

    def _place(self, takes: list[bool]) -> None:
        merged, takes = merge_pools(self.plain, takes)
        order = order_by_engine(merged, takes)
        placed = reorder(merged, order)
        self.takes = [takes[i] for i in order]
        self.kernels = [
            _at_engine_rate(k, self.engine, self.view) if mine else k
            for k, mine in zip(placed, self.takes, strict=True)
        ]

    def choose(self) -> None:
        """Keep on the DLA only what ends sooner there, whole runs of kernels and their hand-overs counted."""
        takes = [not why for why in self.reasons]
        order = order_by_engine(self.plain, takes)
        kernels, takes = reorder(self.plain, order), [takes[i] for i in order]
        gpu = choose_kernels(kernels, self.view, HOW)
        mine = dla_choices(kernels, takes, self.images, self.engine)
        dla_s = [mine[i].time_s - mine[i].times.get("handover", 0.0) if i in mine else 0.0 for i in range(len(kernels))]
        chosen, _ = best_engines([c.time_s for c in gpu], dla_s, takes, self.engine.handover_s)
        back = dict(zip(order, chosen, strict=True))
        self._place([back[i] for i in range(len(order))])

    def choices(self, slowdown: float = 1.0) -> list[GpuChoice]:
        """What runs for each kernel."""
        mine = dla_choices(self.kernels, self.takes, self.images, self.engine, slowdown)
        rest = [i for i in range(len(self.kernels)) if i not in mine]
        chosen = choose_kernels([self.kernels[i] for i in rest], self.view, HOW)
        gpu = dict(zip(rest, chosen, strict=True))
        return [mine.get(i) or gpu[i] for i in range(len(self.kernels))]

    def notes(self) -> list[str]:
        """Where the network ran and why."""
        runs = subgraphs(self.takes)
        count = sum(self.takes)
        out = [
            f"{count} of {len(self.takes)} kernels on one DLA in {len(runs)} subgraph{'s' if len(runs) != 1 else ''}, "
            f"{len(runs) * self.engine.handover_s * 1e3:.2g} ms of hand-over"
        ]
        shown = list(dict.fromkeys(self.refused.values()))[:4]
        if shown:
            out.append(f"on the GPU: {'; '.join(shown)}")
        return out


def _at_engine_rate(kernel: Kernel, engine: DlaView, view: GpuView) -> Kernel:
    """The kernel with its products counted at the engine's peak: in multiply-accumulates per SM and SM clock."""
    if kernel.multiply is None:
        return kernel
    rate = engine.macs_per_s(kernel.multiply.format) / (view.sms * view.clock_hz)
    return replace(kernel, multiply=replace(kernel.multiply, rate=rate))


def _totals(batch: int, share: int, view: GpuView, interval_s: float | None = None) -> Totals:
    return Totals(
        batch=batch, share=share, programs=1, used=1, clock_hz=view.clock_hz, peak_macs=view.sms,
        dram_read_bytes_per_s=view.dram_bytes_per_s, dram_write_bytes_per_s=view.dram_bytes_per_s, dram_shared=True,
        overhead_s=0.0, units=UNITS, interval_s=interval_s,
    )  # fmt: skip


def _constants(acc: Accelerator, engine: DlaView) -> dict[str, float]:
    dla = {f"dla {name}": value for name, value in load_constants("dla", engine.generation).items()}
    return {**load_constants("gpu", acc.architecture), **dla}


def _details(choices: Sequence[GpuChoice]) -> list[dict[str, Any]]:
    return [{"engine": "DLA" if choice.pipe == "dla" else "GPU"} | _detail(choice) for choice in choices]


# -- all engines side by side --------------------------------------------------------------------------------------


def _beside(net: Network, acc: Accelerator, options: RunOptions, view: GpuView, engine: DlaView) -> Result:
    """A batch split so that the GPU and every DLA end together, each slowed by the others' traffic."""
    alone, single = replace(options, stack="compiled"), replace(options, batch=1)
    image = bind_network(net, single, 1)
    one = _Split(image, list(_plan(image, acc, single, view).kernels), view, engine, 1)
    if not any(k.products for k, mine in zip(one.kernels, one.takes, strict=True) if mine):
        raise HwsimError(f"no product of {net.name} runs on the DLA of {acc.id}: {one.reasons[0]}")
    tail = [k.name for k, mine in zip(one.kernels, one.takes, strict=True) if not mine]
    image_s, image_bytes = _image(one, 1.0)
    mine, slow = 0, 1.0
    gpu = simulate_gpu(net, acc, alone, None)
    for _ in range(6):  # the split and the slow-down depend on each other; both settle in three or four steps
        image_s, _ = _image(one, slow)
        gpu_s = gpu.latency_s * (1 + gpu.time_shares.get("memory bandwidth", 0.0) * (slow - 1))
        per_image = gpu_s / gpu.totals.share
        share = round(options.batch * per_image / (per_image * engine.engines + image_s))
        share = max(0, min(share, (options.batch - 1) // engine.engines))
        rest = options.batch - share * engine.engines
        if rest != gpu.totals.share:
            gpu = simulate_gpu(net, acc, replace(alone, batch=rest), None)
        demand = gpu.dram_bytes / gpu.latency_s + engine.engines * image_bytes / _image(one, 1.0)[0] * (share > 0)
        settled = max(1.0, demand / (engine.shared * engine.dram_bytes_per_s))
        if share == mine and abs(settled - slow) < 1e-3:
            break
        mine, slow = share, settled
    gpu_s = gpu.latency_s * (1 + gpu.time_shares.get("memory bandwidth", 0.0) * (slow - 1))
    handover = engine.handover_s * len(subgraphs(one.takes))
    dla_s = mine * image_s + (handover if mine else 0.0)
    return _joined(net, acc, options, view, engine, gpu, one, mine, gpu_s, dla_s, slow, tail)


def _image(one: _Split, slow: float) -> tuple[float, float]:
    """Seconds of one image on a DLA, and its bytes."""
    chosen = dla_choices(one.kernels, one.takes, 1, one.engine, slow)
    seconds = sum(c.time_s - c.times.get("handover", 0.0) for c in chosen.values())
    return seconds, sum(sum(c.dram.values()) for c in chosen.values())


def _joined(
    net: Network, acc: Accelerator, options: RunOptions, view: GpuView, engine: DlaView, gpu: Result, one: _Split,
    share: int, gpu_s: float, dla_s: float, slow: float, tail: list[str],
) -> Result:  # fmt: skip
    """The GPU's kernels, and one more that stands for what the DLAs did beside them."""
    count = engine.engines * share
    view = replace(view, clock_hz=gpu.totals.clock_hz)  # power may have lowered it
    bound = bind_network(net, options, options.batch)
    chosen = dla_choices(one.kernels, one.takes, 1, engine, slow)
    stretch = gpu_s / gpu.latency_s
    kernels, choices = list(gpu.plan.kernels), [_stretched(c, stretch) for c in _gpu_choices(gpu, view)]
    if count:
        lead = next(one.kernels[i] for i in chosen if one.kernels[i].products)
        moved = {x: sum(c.dram[x] for c in chosen.values()) * count for x in ("a", "b", "c")}
        results = Operand("dla.results", 1, round(moved["c"]), lead.inputs[0].format)
        images = Operand("dla.images", 1, round(moved["a"]), lead.inputs[0].format)
        kernels.append(
            replace(
                lead, name=f"{engine.engines} DLA x {share} images", kind="vector", layers=(), products=(), multiply=None,
                weights=None, inputs=(images,), outputs=(results,), producers=(), alu=0, special=0,
            )
        )  # fmt: skip
        last = next(c for i, c in chosen.items() if one.kernels[i].products)
        choices.append(
            replace(
                last, m=1, n=1, k=1, batch=1, ctas=count, times={"main": max(0.0, dla_s - gpu_s)}, dram=moved, limiter="dla",
                k_steps=sum(c.k_steps for c in chosen.values() if c.tile[1] > 1),
            )
        )  # fmt: skip
    schedule = lower_gpu(kernels, choices, view)
    timing = run_gpu(schedule, view, launch_seconds(view, HOW), elsewhere=dict(enumerate(choices)))
    energy = read_energy(schedule, timing, acc, clock_hz=view.clock_hz, cores=1)
    rates = f"GPU {(options.batch - count) / gpu_s:.0f}/s, each DLA {share / dla_s if share else 0:.0f}/s"
    notes = [f"{options.batch - count} images on the GPU, {share} on each of {engine.engines} DLAs at once: {rates}"]
    notes.append("the DLA's row of the table has what it takes longer than the GPU")
    if slow > 1.0:
        notes.append(f"together they ask for {slow:.2f} times the DRAM bandwidth there is")
    if tail:
        notes.append(f"left to the GPU without cost, of the DLA's images: {', '.join(tail[:4])}")
    plan = replace(gpu.plan, kernels=tuple(kernels), conditions=(f"N={options.batch}", "stack=gpu+dla"))
    return Result(
        bound, acc, options, plan, schedule, timing, energy, _totals(options.batch, options.batch, view),
        (*notes, *gpu.notes), _constants(acc, engine), _details(choices),
    )  # fmt: skip


def _gpu_choices(gpu: Result, view: GpuView) -> list[GpuChoice]:
    return choose_kernels(gpu.plan.kernels, view, HOW)


def _stretched(choice: GpuChoice, factor: float) -> GpuChoice:
    return choice if factor == 1.0 else replace(choice, times={name: t * factor for name, t in choice.times.items()})
