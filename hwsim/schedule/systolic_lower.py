"""Lowering a product, cut into windows, to rows of the schedule.

Operands come from memory in windows that fit the chip; inside a window the arrays work through folds. Stages: ``dma``
loads a window of B, ``dma`` one of A, ``convert`` decodes the first stationary window of formats the array does not take,
``matrix`` runs the folds, ``vector`` pops results and does the fused element-wise work, ``store`` writes them back. One
window makes the stages run one after the other; several make a pipeline, two windows of each operand being alive at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.systolic_window import Shape, Window, epilogue_bytes
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

_CODES = {
    "step": AXIS["step"],
    "batch": AXIS["batch"],
    "m": AXIS["m"],
    "n": AXIS["n"],
    "tap": AXIS["k"],
    "k": AXIS["k"],
}


@dataclass(frozen=True, slots=True)
class LaneCosts:
    """Vector work of a kernel, in lane operations: of all fused layers together, and what software formats cost.

    ``prologue`` is per element of the first stationary window of a pipelined kernel, ``touch`` per result popped,
    ``copy`` per result moved between windows of a pipelined kernel; ``convert_a``/``convert_b`` per element of an operand
    that is widened before the arrays take it.
    """

    prologue: float = 0.0
    touch: float = 0.0
    copy: float = 0.0
    convert_a: float = 0.0
    convert_b: float = 0.0
    fused: float = 0.0


def lower_windows(
    builder: ScheduleBuilder, kernel: Kernel, view: SystolicView, shape: Shape, window: Window, costs: LaneCosts
) -> None:
    """Append the rows of a matrix kernel cut as ``window``; ``costs`` say what its vector work is worth."""
    lowering = _Lowering(builder, kernel, view, shape, window, costs)
    lowering.dispatch()
    lowering.loads()
    lowering.extras()
    lowering.prologue()
    lowering.matrix()
    lowering.results()
    lowering.store()


class _Lowering:
    """The rows of one kernel, stage by stage; ``stage`` is the last one added, ``feeds`` those the arrays wait for."""

    def __init__(
        self,
        builder: ScheduleBuilder,
        kernel: Kernel,
        view: SystolicView,
        shape: Shape,
        window: Window,
        costs: LaneCosts,
    ) -> None:
        assert kernel.multiply is not None
        self.builder, self.kernel, self.view, self.shape, self.window, self.costs = (
            builder, kernel, view, shape, window, costs,
        )  # fmt: skip
        self.multiply = kernel.multiply
        self.plan = plan = shape.plan
        nest = _nest(shape, window)
        self.loops = [x for x in nest if x.count > 1]
        self.fixed = {x.axis: x.edge for x in nest if x.count == 1}
        self.names = [x.axis for x in self.loops]
        self.inside_taps = 1 if any(x.axis == "tap" for x in nest) else plan.taps
        self.axes = tuple(_CODES[x] for x in self.names)
        self.depth = len(self.loops)
        self.outer = len([x for x in self.names if x in ("step", "batch", "m", "n")])
        self.stage = 0
        self.feeds: list[int] = []
        self.format = FORMAT[kernel.inputs[0].format]
        # Results that need packing are added up window by window, and hold up the next window until they have left.
        self.accumulates = window.piped and costs.touch > 0
        self.extra_bytes = epilogue_bytes(kernel)
        self.extra = 0  # the stage that loads what only the fused layers read
        self.stores = shape.c_level == "dram"
        self.results_total = max(1, plan.groups * shape.repeat * plan.m * plan.n)

    def extents(self, extent: dict[str, int]) -> tuple[int, int, int]:
        """m, n and k of one issue of a class of iterations."""
        plan = self.plan
        m, n, k = (extent.get(x, self.fixed.get(x, y)) for x, y in (("m", plan.m), ("n", plan.n), ("k", plan.k)))
        return m, n, k

    def operand_depth(self, *changing: str) -> int:
        """Loops down to the innermost one that changes an operand."""
        return max((i + 1 for i, x in enumerate(self.names) if x in changing), default=0)

    def dispatch(self) -> None:
        """The kernel begins when the one before it has ended, and every step of a recurrence when its state is known."""
        steps = self.loops[: int("step" in self.names)]
        loads = (self.shape.b_level == "dram") + (self.shape.a_level == "dram")
        loads += (self.extra_bytes > 0) + (self.costs.convert_a > 0) + (self.costs.convert_b > 0)
        results = loads + (self.window.piped and self.costs.prologue > 0) + 2
        self.builder.row(
            stage=0, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2, buffers=0, axis=self.axes, depth=len(steps),
            trips=tuple(x.count for x in steps), dep=(results,) if steps else (), format=self.format,
        )  # fmt: skip

    def loads(self) -> None:
        """A window of each operand that is not on the chip; halos of a convolution are read again."""
        plan, shape = self.plan, self.shape
        share_a = shape.a_bytes / (plan.groups * plan.m * plan.k)
        split_taps = plan.taps if self.inside_taps == 1 else 1
        share_b = shape.b_bytes / (plan.groups * plan.n * plan.k * split_taps)
        for column, level, depth in (
            (1, shape.b_level, self.operand_depth("batch", "n", "k", "tap")),
            (0, shape.a_level, self.operand_depth("step", "batch", "m", "k")),
        ):
            if level != "dram":
                self.convert(column, depth, 0)
                continue
            self.stage += 1
            self.feeds.append(self.stage)
            # Swapped, the streamed operand is the constant one.
            activation = (column == 0) != self.window.swap
            free = not activation and self.kernel.products[0].b_weight
            for first, trips, extent in split_classes(self.loops[:depth]):
                m, n, k = self.extents(extent)
                halo = shape.halo_bytes(m) * k / plan.k
                nbytes = max(1, round(n * k * share_b if column else m * k * share_a + halo))
                lead = (0,) * column
                self.builder.row(
                    stage=self.stage, unit=UNIT["dma"], axis=self.axes, depth=depth, first=first, trips=trips,
                    op=OPERATION["copy"], extent=(m, n, k), padded=(m, n, k), bytes=(*lead, nbytes), refetch=(*lead, depth),
                    source=(*lead, LEVEL["dram"]), target=(*lead, LEVEL["shared"]), buffers=self.view.buffers, dep=(0,),
                    cause=CAUSE["activation_fetch" if activation else "weight_fetch"], awaits=0 if free else 1,
                    format=self.format,
                )  # fmt: skip
            self.convert(column, depth, self.stage)

    def convert(self, column: int, depth: int, loaded: int) -> None:
        """Widening of an operand the arrays do not take as stored, window by window on the vector unit."""
        weights = (column == 1) != self.window.swap
        cost = self.costs.convert_b if weights else self.costs.convert_a
        if not cost:
            return
        self.stage += 1
        if loaded:
            self.feeds.pop()  # the arrays wait for the widened window instead
        self.feeds.append(self.stage)
        for first, trips, extent in split_classes(self.loops[:depth]):
            m, n, k = self.extents(extent)
            elements = (n if column else m) * k * (self.inside_taps if column else 1)
            self.builder.row(
                stage=self.stage, unit=UNIT["convert"], lanes=self.window.cores, axis=self.axes, depth=depth, first=first,
                trips=trips, extent=(m, n, k), padded=(m, n, k), op=OPERATION["convert"], ops=elements,
                issued=round(elements * cost), dep=(loaded,), cause=CAUSE["conversion"], buffers=self.view.buffers,
                awaits=1, source=(LEVEL["shared"],), target=(LEVEL["shared"],), format=self.format,
            )  # fmt: skip

    def extras(self) -> None:
        """What only the fused layers read (a residual), a tile ahead of them."""
        if not self.extra_bytes:
            return
        self.stage += 1
        self.extra = self.stage
        share = self.extra_bytes / self.results_total
        for first, trips, extent in split_classes(self.loops[: self.outer]):
            m, n, _ = self.extents(extent)
            self.builder.row(
                stage=self.stage, unit=UNIT["dma"], axis=self.axes, depth=self.outer, first=first, trips=trips,
                op=OPERATION["copy"], extent=(m, n, 1), padded=(m, n, 1), bytes=(round(m * n * share),), refetch=(self.outer,),
                source=(LEVEL["dram"],), target=(LEVEL["shared"],), buffers=self.view.buffers, dep=(0,),
                cause=CAUSE["activation_fetch"], awaits=1, format=self.format,
            )  # fmt: skip

    def prologue(self) -> None:
        """The first stationary window is decoded and pushed before the first fold; later ones hide behind products."""
        if not (self.window.piped and self.costs.prologue):
            return
        elements = min(self.plan.n, self.window.n) * min(self.plan.k, self.window.k)
        self.stage += 1
        self.builder.row(
            stage=self.stage, unit=UNIT["convert"], axis=self.axes, op=OPERATION["convert"], ops=elements,
            issued=round(self.costs.prologue * elements), dep=tuple(self.feeds[-1:]) or (0,), cause=CAUSE["conversion"],
            buffers=0, awaits=1, source=(LEVEL["shared"],), target=(LEVEL["shared"],), format=self.format,
        )  # fmt: skip
        self.feeds.append(self.stage)

    def matrix(self) -> None:
        """The folds of each window, dealt over the arrays; partial folds are rows of their own."""
        view, multiply = self.view, self.multiply
        self.stage += 1
        feeds = self.feeds[-3:] or [0]
        if self.accumulates or "step" in self.names:
            dep, lag = (*feeds, self.stage + 1), (0,) * (len(feeds) + 1)
        else:
            # Results alternate between two windows when windows are pipelined.
            dep, lag = (*feeds, self.stage + 1 + self.stores), (*(0 for _ in feeds), int(self.window.piped))
        m_unit, n_unit, k_unit = _fold_units(view)
        k_folds = self.plan.taps * -(-self.plan.k // (k_unit or self.plan.k))
        # K runs tap by tap: channel c of tap t is element t x channels + c of the sum.
        whole = {"step": 1, "batch": 1, "m": self.window.m, "n": self.window.n, "tap": self.plan.k, "k": self.window.k}
        fold = {"m": m_unit, "n": n_unit, "tap": self.plan.k, "k": k_unit}
        reduce = accumulation(view, self.kernel.accumulate)
        for first, trips, extent in split_classes(self.loops):
            m, n, k = self.extents(extent)
            # The last of the packed groups may be alone in its fold.
            k = k * extent.get("batch", self.fixed.get("batch", self.plan.per_group)) // self.plan.per_group
            inner = [
                Loop("tap", self.inside_taps),
                Loop.over("n", n, n_unit or n),
                Loop.over("m", m, m_unit or m),
                Loop.over("k", k, k_unit or k),
            ]
            shown = [x for x in inner if x.count > 1]
            rest = {x.axis: x.edge for x in inner if x.count == 1}
            every = self.depth + len(shown)
            for inner_first, inner_trips, size in split_classes(shown):
                fm, fn, fk = (size.get(x, rest.get(x, y)) for x, y in (("m", m), ("n", n), ("k", k)))
                padded = (m_unit or fm, n_unit or fn, k_unit or fk)
                sums = view.accumulator_bytes * fm * fn
                self.builder.row(
                    stage=self.stage, unit=UNIT["matrix"], lanes=view.arrays * self.window.cores,
                    axis=self.axes + tuple(_CODES[x.axis] for x in shown), depth=self.depth, first=first + inner_first,
                    trips=trips + inner_trips, extent=(fm, fn, fk), padded=padded, op=OPERATION["mac"],
                    span=(m, n, k, self.inside_taps), beat=max(1, round(64 * multiply.passes / multiply.rate)),
                    piped=int(self.window.piped), format=self.format, ops=fm * fn * fk * multiply.passes,
                    issued=padded[0] * padded[1] * padded[2] * multiply.passes,
                    # Sums are written after every fold and read back for every fold but the first of an output.
                    bytes=(fm * fk * self.shape.element_a, fn * fk * self.shape.element_b, sums, sums * (k_folds - 1) // k_folds),
                    refetch=(every,) * 4, source=(LEVEL["shared"], LEVEL["shared"], LEVEL["array"], LEVEL["accumulator"]),
                    target=(LEVEL["array"], LEVEL["array"], LEVEL["accumulator"], LEVEL["array"]), dep=dep, lag=lag,
                    stride=tuple(whole[x] for x in self.names) + tuple(fold[x.axis] for x in shown), reduce=reduce,
                    cause=CAUSE["matrix"], buffers=view.buffers, awaits=1,
                )  # fmt: skip

    def results(self) -> None:
        """Popping results and the fused layers; pipelined software formats are touched after every K window too."""
        costs = self.costs
        over, ends = self.loops[: self.outer], []
        if self.accumulates:
            over = [*over, *(Loop(x.axis, x.count, 0, 1) for x in self.loops[self.outer :])]
            ends = [x.axis for x in self.loops[self.outer :]]
        each = costs.touch + costs.copy if self.accumulates else costs.touch
        waits = (self.stage, self.extra) if self.extra else (self.stage,)
        self.stage += 1
        for first, trips, extent in split_classes(over):
            m, n, _ = self.extents({k: v for k, v in extent.items() if k not in ends})
            final = all(extent[x] == 1 for x in ends)
            per_result = each * (1 + (self.accumulates and final)) + (
                costs.fused / self.results_total if final else 0.0
            )
            self.builder.row(
                stage=self.stage, unit=UNIT["vector"], lanes=self.window.cores, axis=self.axes, depth=len(over), at_end=1,
                first=first, trips=trips, extent=(m, n, 1), padded=(m, n, 1), op=OPERATION["alu"], ops=m * n if final else 0,
                issued=round(m * n * per_result), dep=waits, cause=CAUSE["vector_unit"],
                buffers=self.view.buffers, bytes=(0, 0, m * n * self.view.accumulator_bytes), refetch=(0, 0, len(over)),
                source=(0, 0, LEVEL["accumulator"]), target=(0, 0, LEVEL["shared"]), format=self.format,
            )  # fmt: skip

    def store(self) -> None:
        """Results to memory."""
        if not self.stores:
            return
        share = self.shape.c_bytes / self.results_total
        self.stage += 1
        for first, trips, extent in split_classes(self.loops[: self.outer]):
            m, n, _ = self.extents(extent)
            self.builder.row(
                stage=self.stage, unit=UNIT["store"], axis=self.axes, depth=self.outer, at_end=1, first=first, trips=trips,
                extent=(m, n, 1), padded=(m, n, 1), op=OPERATION["copy"],
                bytes=(0, 0, round(m * n * share)), refetch=(0, 0, self.outer), source=(0, 0, LEVEL["shared"]),
                target=(0, 0, LEVEL["dram"]),
                dep=(self.stage - 1,), cause=CAUSE["store"], buffers=0, format=self.format,
            )  # fmt: skip


def accumulation(view: SystolicView, accumulate: str) -> tuple[int, int, int]:
    """How the array adds along K: products that share one rounding, the length of a column's chain, the sums' format."""
    return view.group, view.rows, FORMAT[accumulate]


def _nest(shape: Shape, window: Window) -> list[Loop]:
    """The window loops, outermost first: repetition and groups, then m and n in order, k and taps innermost."""
    plan = shape.plan
    m = Loop.over("m", plan.m, window.m)
    n = Loop.over("n", plan.n, window.n)
    return [
        Loop("step", shape.repeat),
        Loop.groups(plan),
        *((m, n) if window.order == "mn" else (n, m)),
        Loop.over("k", plan.k, window.k),
        *([Loop("tap", plan.taps)] if window.splits_taps(plan) else []),
    ]


def _fold_units(view: SystolicView) -> tuple[int, int, int]:
    """Extent of a fold in m, n and k; 0 for the axis that streams."""
    if view.dataflow == "os":
        return view.rows, view.cols, 0
    if view.dataflow == "is":
        return view.cols, 0, view.rows
    return 0, view.cols, view.rows
