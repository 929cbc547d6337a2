"""Lowering to a GPU: each chosen kernel as rows of the schedule table.

Levels: ``dram``; ``shared`` is the L2 all SMs share; ``local`` an SM's shared memory; ``register`` and ``accumulator`` its
register file. Lanes are SMs. A product's loops are batch, m, n and split (one CTA each) and k (the steps of a CTA):
stages dispatch, DRAM to L2, L2 to shared memory, products, fused arithmetic, results, and where K is split the sum of the
parts. On the CUDA cores products are ``vector`` rows with op ``mac``. ``span`` of a product row is its warp tile (m, n), the
warps of a CTA and the groups of warps that share k; ``buffers`` its stages; ``piped`` the CTAs an SM holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwsim.formats import FORMATS
from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

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
        elif choice.algorithm == "attention":
            _attention(builder, kernel, choice, view)
        elif choice.pipe and choice.algorithm not in ("memory", "direct"):
            _product(builder, kernel, choice, view)
        else:
            _vector(builder, kernel, choice, view)
        number = builder.end_kernel(kernel.name, kernel.producers)
        seen.setdefault(key, number)
    return builder.build()


class _Stages:
    """Rows of one kernel, stage by stage."""

    def __init__(self, builder: ScheduleBuilder, view: GpuView, repeat: int, code: int) -> None:
        self.builder, self.view, self.code = builder, view, code
        self.steps = [Loop("step", repeat)] if repeat > 1 else []
        self.stage = 0
        builder.row(
            stage=0, unit=UNIT["dispatch"], cause=CAUSE["launch"], awaits=2, buffers=0, axis=self.axes(self.steps),
            trips=tuple(x.count for x in self.steps), depth=len(self.steps), format=code,
        )  # fmt: skip

    @staticmethod
    def axes(loops: Sequence[Loop]) -> tuple[int, ...]:
        return tuple(AXIS[x.axis] for x in loops)

    def move(
        self, unit: str, nbytes: tuple[int, ...], source: str, target: str, cause: str, *, loops: Sequence[Loop] = (),
        first: tuple[int, ...] | None = None, trips: tuple[int, ...] | None = None,
        extent: tuple[int, int, int] = (1, 1, 1), new: bool = True,
    ) -> None:  # fmt: skip
        """A copy of bytes per operand, once per iteration of ``loops`` (the recurrence's steps come first)."""
        nest = [*self.steps, *loops]
        if new:
            self.stage += 1
        lead = (0,) * len(self.steps)
        steps = tuple(x.count for x in self.steps)
        depth = len(nest)
        self.builder.row(
            stage=self.stage, unit=UNIT[unit], axis=self.axes(nest), depth=depth, format=self.code, lanes=self.view.sms,
            first=(*lead, *(first or (0,) * len(loops))), trips=(*steps, *(trips or tuple(x.count for x in loops))),
            extent=extent, padded=extent, op=OPERATION["copy"], bytes=nbytes, refetch=(depth,) * len(nbytes),
            source=(LEVEL[source],) * len(nbytes), target=(LEVEL[target],) * len(nbytes), cause=CAUSE[cause], awaits=1,
            buffers=0, dep=(self.stage - 1,),
        )  # fmt: skip

    def work(self, unit: str, operation: str, **values: object) -> None:
        """A row of arithmetic in the current stage."""
        self.builder.row(
            stage=self.stage, unit=UNIT[unit], op=OPERATION[operation], format=self.code, lanes=self.view.sms,
            dep=(self.stage - 1,), awaits=1, **values,
        )  # fmt: skip


def _product(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    code = FORMAT[choice.format]
    rows = _Stages(builder, view, choice.repeat, code)
    dram, l2 = choice.dram, choice.l2
    rows.move("dma", tuple(round(dram[x]) for x in ("a", "b", "x")), "dram", "shared", "dram")
    tm, tn, tk = choice.tile
    outer = [
        Loop("batch", choice.batch),
        Loop.over("m", choice.m, tm),
        Loop.over("n", choice.n, tn),
    ]
    loops = [x for x in outer if x.count > 1]
    fixed = {x.axis: x.edge for x in outer if x.count == 1}
    ctas = max(1, math.prod(x.count for x in outer))
    k_classes = _k_classes(choice.k, tk, choice.split, choice.k_steps)
    # What a k-step of a full tile moves; edges move their share.
    steps = max(1, -(-choice.k // tk)) * ctas
    share_a, share_b = l2["a"] / steps / (tm * tk), l2["b"] / steps / (tn * tk)
    k_loops = [Loop("split", choice.split)] * (choice.split > 1) + [Loop("k", choice.k_steps)] * (choice.k_steps > 1)
    nest = [*loops, *k_loops]
    density = kernel.macs / max(1, choice.m * choice.n * choice.k * choice.batch * choice.repeat)
    matrix = "matrix" if choice.pipe == "tensor" else "vector"
    cause = "matrix" if choice.pipe == "tensor" else "vector_unit"
    for load in (True, False):
        rows.stage += 1
        for first, trips, extent in split_classes(loops):
            m, n = extent.get("m", fixed.get("m", 1)), extent.get("n", fixed.get("n", 1))
            for k_first, k_trips, k in k_classes:
                where = {"first": (*first, *k_first), "trips": (*trips, *k_trips)}
                if load:
                    rows.move(
                        "dma", (round(tm * tk * share_a), round(tn * tk * share_b)), "shared", "local", "l2", loops=nest,
                        extent=(m, n, k), new=False, **where,
                    )  # fmt: skip
                    continue
                lead = (0,) * len(rows.steps)
                counts = tuple(x.count for x in rows.steps)
                axes = rows.axes([*rows.steps, *nest])
                rows.work(
                    matrix, "mac", axis=axes, first=(*lead, *where["first"]), trips=(*counts, *where["trips"]),
                    depth=len(axes), stride=_strides(axes, choice), extent=(m, n, k), padded=(tm, tn, tk),
                    ops=round(m * n * k * density), issued=tm * tn * tk, span=choice.warps,
                    bytes=_operands(kernel, choice), refetch=(len(axes),) * 4,
                    source=(LEVEL["local"], LEVEL["local"], 0, LEVEL["local"]),
                    target=(LEVEL["register"], LEVEL["register"], 0, LEVEL["register"]),
                    buffers=min(8, choice.stages), piped=choice.occupancy,
                    beat=max(1, round(64 * tk / max(1.0, _rate(view, choice)))), cause=CAUSE[cause],
                    reduce=(max(1, min(16, tk)), 0, FORMAT.get(kernel.accumulate, 0)),
                )  # fmt: skip
    rows.stage += 1
    results = max(1, choice.m * choice.n * choice.batch)
    for first, trips, extent in split_classes(loops):
        m, n = extent.get("m", fixed.get("m", 1)), extent.get("n", fixed.get("n", 1))
        lead, counts = (0,) * len(rows.steps), tuple(x.count for x in rows.steps)
        axes = rows.axes([*rows.steps, *loops])
        part = m * n / results / choice.repeat
        rows.work(
            "vector", "alu", axis=axes, first=(*lead, *first), trips=(*counts, *trips), depth=len(axes), at_end=1,
            extent=(m, n, 1), padded=(m, n, 1), ops=round(kernel.alu * part), issued=round((kernel.alu + kernel.special) * part),
            cause=CAUSE["epilogue"], buffers=0,
        )  # fmt: skip
    width = sum(o.bytes for o in kernel.outputs) / results
    if choice.split > 1:
        width = 4.0
    rows.stage += 1
    store = [*loops, *([Loop("split", choice.split)] if choice.split > 1 else [])]
    for first, trips, extent in split_classes(loops):
        m, n = extent.get("m", fixed.get("m", 1)), extent.get("n", fixed.get("n", 1))
        more = ((0,), (choice.split,)) if choice.split > 1 else ((), ())
        rows.move(
            "store", (0, 0, round(m * n * width)), "register", "shared", "epilogue", loops=store, new=False,
            first=(*first, *more[0]), trips=(*trips, *more[1]), extent=(m, n, 1),
        )  # fmt: skip
    if choice.split > 1:
        rows.move("dma", (0, 0, round(4 * results * choice.split)), "shared", "register", "l2")
        rows.stage += 1
        axes = rows.axes(rows.steps)
        rows.work(
            "vector", "alu", axis=axes, trips=tuple(x.count for x in rows.steps), depth=len(axes), at_end=1,
            ops=results * choice.split, issued=results * choice.split, cause=CAUSE["epilogue"], buffers=0,
        )  # fmt: skip
        rows.move("store", (0, 0, sum(o.bytes for o in kernel.outputs)), "register", "shared", "epilogue")
    rows.move("store", (0, 0, round(dram["c"])), "shared", "dram", "dram")


def _k_classes(k: int, step: int, split: int, steps: int) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
    """(first, trips, extent) over the loops split and k (each left out where it has one iteration)."""
    total = max(1, -(-k // step))
    edge = k - (total - 1) * step
    out: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []

    def add(split_first: int, splits: int, first: int, trips: int, extent: int) -> None:
        if trips < 1 or splits < 1:
            return
        lead = ((split_first,), (splits,)) if split > 1 else ((), ())
        inner = ((first,), (trips,)) if steps > 1 else ((), ())
        out.append(((*lead[0], *inner[0]), (*lead[1], *inner[1]), extent))

    whole = (total - 1) // steps  # splits whose steps are all full
    add(0, whole, 0, steps, step)
    rest = total - whole * steps  # steps of the last split, its last one maybe partial
    add(whole, 1, 0, rest - 1, step)
    add(whole, 1, rest - 1, 1, edge)
    return out


def _strides(axes: tuple[int, ...], choice: GpuChoice) -> tuple[int, ...]:
    tm, tn, tk = choice.tile
    size = {AXIS["batch"]: 1, AXIS["m"]: tm, AXIS["n"]: tn, AXIS["split"]: choice.k_steps * tk, AXIS["k"]: tk}
    return tuple(size.get(axis, 1) for axis in axes)


def _operands(kernel: Kernel, choice: GpuChoice) -> tuple[int, int, int, int]:
    """Bytes of A, B, C and metadata one k-step of a tile reads: 2:4 weights are half, with two index bits per element kept."""
    tm, tn, tk = choice.tile
    a, b = tm * tk * _width(kernel, "a"), tn * tk * _width(kernel, "b")
    if choice.sparse.get("chosen"):
        return round(a), round(b / 2), 0, tn * tk // 8
    return round(a), round(b), 0, 0


def _width(kernel: Kernel, role: str) -> float:
    fmt = next((o.format for o in kernel.inputs if o.role == role), kernel.inputs[0].format)
    if role == "b" and kernel.weights is not None and kernel.products[0].b_weight:
        fmt = kernel.weights.format
    return FORMATS[fmt].width / 8


def _rate(view: GpuView, choice: GpuChoice) -> float:
    rates = view.tensor_macs if choice.pipe == "tensor" else view.simt_macs
    return rates[choice.format]


def _attention(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    qk, pv = kernel.products
    rows = _Stages(builder, view, choice.repeat, FORMAT[choice.format or "fp16"])
    out = sum(o.bytes for o in kernel.outputs)
    kept = sum(round(o.bytes * (1 - o.cached)) for o in kernel.outputs)
    rows.move("dma", (max(0, round(choice.dram["a"]) - kept),), "dram", "shared", "dram")
    rows.move("dma", (max(0, round(choice.l2["a"]) - out),), "shared", "local", "l2")
    tq, tk, _ = choice.tile
    heads = choice.batch
    share = qk.m * heads
    for name, product, ops in (("qk", qk, qk.macs), ("softmax", qk, kernel.alu), ("pv", pv, pv.macs)):
        rows.stage += 1
        causal = 0.5 if qk.causal and qk.m > 1 and qk.n == qk.m else 1.0
        axes = rows.axes([*rows.steps, Loop("batch", heads)])
        trips = (*(x.count for x in rows.steps), heads)
        each = max(1, round(ops * causal / max(1, share) * qk.m / choice.repeat))
        if name == "softmax":
            rows.work("vector", "alu", axis=axes, trips=trips, depth=len(axes), ops=each, issued=each, extent=(qk.m, qk.n, 1),
                      padded=(qk.m, qk.n, 1), cause=CAUSE["issue"])  # fmt: skip
            continue
        rows.work(
            "matrix", "mac", axis=axes, trips=trips, depth=len(axes), extent=(product.m, product.n, product.k),
            padded=(tq, tk, product.k), ops=each, issued=max(each, -(-qk.m // tq) * tq * product.n * product.k // 1),
            span=choice.warps, piped=choice.occupancy, cause=CAUSE["matrix"],
            reduce=(16, 0, FORMAT["fp32"]),
        )  # fmt: skip
    rows.move("store", (0, 0, out), "register", "shared", "epilogue")
    rows.move("store", (0, 0, kept), "shared", "dram", "dram")


def _vector(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    fmt = choice.format or (kernel.inputs[0].format if kernel.inputs else "fp32")
    rows = _Stages(builder, view, choice.repeat, FORMAT[fmt])
    out = sum(o.bytes for o in kernel.outputs)
    rows.move("dma", (round(choice.dram["a"]),), "dram", "shared", "dram")
    rows.move("dma", (max(0, round(choice.l2["a"]) - out),), "shared", "register", "l2")
    rows.stage += 1
    axes = rows.axes([*rows.steps, Loop("m", choice.ctas)])
    trips = (*(x.count for x in rows.steps), choice.ctas)
    done = max(1, choice.ctas * choice.repeat)
    for operation, total in (("mac", kernel.macs), ("alu", kernel.alu), ("special", kernel.special)):
        if total or operation == "alu":
            each = -(-total // done)
            rows.work("vector", operation, axis=axes, trips=trips, depth=len(axes), ops=each, issued=each,
                      cause=CAUSE["issue"], piped=choice.occupancy)  # fmt: skip
    rows.move("store", (0, 0, out), "register", "shared", "epilogue")
    rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")


def _exchange(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """Bytes to and from other devices on unit ``link``, and the additions of a reduction; ``k`` devices take part."""
    rows = _Stages(builder, view, choice.repeat, FORMAT[choice.format])
    rows.move("dma", (round(choice.dram["a"]),), "dram", "shared", "dram")
    rows.move("link", (choice.k_steps,), "shared", "shared", "communication")
    rows.stage += 1
    axes = rows.axes([*rows.steps, Loop("m", choice.ctas)])
    trips = (*(x.count for x in rows.steps), choice.ctas)
    sums = kernel.outputs[0].elements * (choice.k - 1) if kernel.op == "all_reduce" else 0
    # Shares are added by one device each, unless everybody adds everything.
    each = -(-sums // (choice.ctas * (1 if choice.algorithm == "one-shot" else max(1, choice.k))))
    rows.work("vector", "alu", axis=axes, trips=trips, depth=len(axes), ops=each, issued=each, cause=CAUSE["issue"])
    rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")


def _engine(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """A layer on the DLA, image by image: ``span`` is its array (positions, kernels, channels)."""
    rows = _Stages(builder, view, choice.repeat, FORMAT[choice.format or "int8"])
    images = max(1, choice.ctas)
    loop = [Loop("batch", images)] if images > 1 else []
    rows.move("dma", tuple(round(choice.dram[x] / images) for x in ("a", "b")), "dram", "register", "dram", loops=loop)
    rows.stage += 1
    axes = rows.axes([*rows.steps, *loop])
    trips = (*(x.count for x in rows.steps), *(x.count for x in loop))
    positions, kernels, channels = choice.tile
    cells = choice.k_steps * positions * kernels * channels
    product = choice.k_steps > 0
    # A row that stands for whole networks has no products of its own: its cells are all that is known of them.
    each = (-(-kernel.macs // images) or cells) if product else -(-kernel.alu // images)
    rows.work(
        "dla", "mac" if product else "alu", axis=axes, trips=trips, depth=len(axes), ops=each,
        padded=(positions, kernels, channels), issued=max(each, cells), cause=CAUSE["matrix"],
    )  # fmt: skip
    rows.move("store", (0, 0, round(choice.dram["c"] / images)), "register", "dram", "dram", loops=loop)
