"""Lowering to a GPU: each chosen kernel as rows of the schedule table.

Levels: ``dram``; ``shared`` is the L2 all SMs share; ``local`` an SM's shared memory; ``register`` its register file. Lanes
are SMs. The dispatch row's ``ops`` are the CTAs a start puts to work. On the CUDA cores products are ``vector`` rows with
op ``mac``. A product row's ``span`` is the unit tile (m, n), the warps of a CTA and the groups of warps that share k,
``buffers`` its stages, ``piped`` the CTAs an SM holds, ``beat`` the clocks (in 64ths) the pipe takes for one padded
instance; the ``span`` of the copies that feed it are the parts A and B are split in over a pair of SMs and the CTAs one L2
read serves. A kernel without products has ``span`` (threads of a CTA, times they wait for each other, thousandths of a
transfer that are used).
"""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop
from hwsim.schedule.gpu_attention import lower_attention
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_product import lower_product
from hwsim.schedule.gpu_rows import Stages, even
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import CAUSE, FORMAT, Schedule, ScheduleBuilder

CTA_THREADS = 256  # of a kernel without products


def lower_gpu(kernels: Sequence[Kernel], choices: Sequence[GpuChoice], view: GpuView) -> Schedule:
    """Return the schedule of all kernels as chosen; equal kernels share their rows."""
    builder = ScheduleBuilder()
    seen: dict[tuple[object, ...], int] = {}
    for kernel, choice in zip(kernels, choices, strict=True):
        # Equal kernels have the very same choice; how many results they make is part of it.
        key = (id(choice), tuple((o.bytes, o.cached) for o in kernel.outputs), kernel.macs)
        known = seen.get(key)
        if known is not None:
            builder.repeat(known)
        elif choice.pipe == "dla":
            _engine(builder, kernel, choice, view)
        elif choice.pipe == "link":
            _exchange(builder, kernel, choice, view)
        elif choice.walk is not None:
            lower_attention(builder, kernel, choice, view)
        elif choice.pipe and choice.algorithm not in ("memory", "direct"):
            lower_product(builder, kernel, choice, view)
        else:
            _vector(builder, kernel, choice, view)
        number = builder.end_kernel(kernel.name, kernel.producers)
        seen.setdefault(key, number)
    return builder.build()


def _vector(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    fmt = choice.format or (kernel.inputs[0].format if kernel.inputs else "fp32")
    rows = Stages(builder, view, choice.repeat, FORMAT[fmt], choice.ctas)
    out = sum(o.bytes for o in kernel.outputs)
    rows.next()
    rows.move("dma", (round(choice.dram["a"]),), "dram", "shared", "dram")
    rows.next()
    rows.move("dma", (max(0, round(choice.l2["a"]) - out),), "shared", "register", "l2")
    rows.next()
    loops = [Loop("m", choice.ctas)]
    span = (CTA_THREADS, choice.syncs, round(1000 * choice.access), choice.vector_bytes)
    for operation, total in (("mac", kernel.macs), ("alu", kernel.alu), ("special", kernel.special)):
        if not total and operation != "alu":
            continue
        for first, trips, ops in even(round(total / choice.repeat), choice.ctas):
            rows.work("vector", operation, rows.nest(loops, [first], [trips]), ops=ops, issued=ops, span=span,
                      cause=CAUSE["issue"], piped=choice.occupancy)  # fmt: skip
    rows.next()
    rows.move("store", (0, 0, out), "register", "shared", "epilogue")
    rows.next()
    rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")


def _exchange(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """Bytes to and from other devices on unit ``link``, and the additions of a reduction; ``k`` devices take part."""
    rows = Stages(builder, view, choice.repeat, FORMAT[choice.format], choice.ctas)
    rows.next()
    rows.move("dma", (round(choice.dram["a"]),), "dram", "shared", "dram")
    rows.next()
    rows.move("link", (choice.k_steps,), "shared", "shared", "communication")
    rows.next()
    sums = kernel.outputs[0].elements * (choice.k - 1) if kernel.op == "all_reduce" else 0
    # Shares are added by one device each, unless everybody adds everything.
    each = -(-sums // (choice.ctas * (1 if choice.algorithm == "one-shot" else max(1, choice.k))))
    rows.work("vector", "alu", rows.nest([Loop("m", choice.ctas)]), ops=each, issued=each, cause=CAUSE["issue"])
    rows.next()
    rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")


def _engine(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """A layer on the DLA, image by image: a product row's ``padded`` is its array (positions, kernels, channels)."""
    images = max(1, choice.ctas)
    rows = Stages(builder, view, choice.repeat, FORMAT[choice.format or "int8"], images)
    loops = [Loop("batch", images)] if images > 1 else []
    rows.next()
    rows.move("dma", [round(choice.dram[x] / images) for x in ("a", "b")], "dram", "register", "dram", loops=loops)
    rows.next()
    positions, kernels, channels = choice.tile
    cells = choice.k_steps * positions * kernels * channels
    product = choice.k_steps > 0
    # A row that stands for whole networks has no products of its own: its cells are all that is known of them.
    each = (-(-kernel.macs // images) or cells) if product else -(-kernel.alu // images)
    rows.work(
        "dla", "mac" if product else "alu", rows.nest(loops), ops=each, padded=(positions, kernels, channels),
        issued=max(each, cells), cause=CAUSE["matrix"],
    )  # fmt: skip
    rows.next()
    rows.move("store", (0, 0, round(choice.dram["c"] / images)), "register", "dram", "dram", loops=loops)
