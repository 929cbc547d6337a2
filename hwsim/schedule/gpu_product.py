"""A product on a GPU as rows: loops batch, m, n and split (one CTA each) and k, the steps of a CTA.

Stages: dispatch, DRAM to L2, L2 to shared memory, products, fused arithmetic, results, and where K is split the sum of
the parts. Convolutions are implicit products: their rows of A are positions, k counts taps outside and channels inside.
Minimal filtering in kernels of its own has transforms before and after (cause ``streaming``).
"""

from __future__ import annotations

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop, split_classes
from hwsim.schedule.gpu_choice import GpuChoice, Transform
from hwsim.schedule.gpu_rows import Stages, even
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

INDEX_BITS = 1.0  # of 2:4 sparse weights, per element dense ones would have: two for each kept one of a pair
PARTIAL_BYTES = 4

Class = tuple[tuple[int, ...], tuple[int, ...], int]


def lower_product(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """Append the rows of one product."""
    rows = _Product(builder, kernel, choice, view)
    rows.loads()
    rows.products()
    rows.ends()


class _Product:
    def __init__(self, builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
        self.kernel, self.choice, self.view = kernel, choice, view
        self.rows = Stages(builder, view, choice.repeat, FORMAT[choice.format], choice.ctas)
        tm, tn, _ = choice.tile
        outer = [Loop("batch", choice.batch), Loop.over("m", choice.m, tm), Loop.over("n", choice.n, tn)]
        self.loops = [x for x in outer if x.count > 1]
        self.fixed = {x.axis: x.edge for x in outer if x.count == 1}
        split, steps = choice.split, choice.k_steps
        self.k_loops = [Loop("split", split)] * (split > 1) + [Loop("k", steps)] * (steps > 1)
        self.sparse = bool(choice.sparse.get("chosen"))

    def _tiles(self) -> list[tuple[tuple[int, ...], tuple[int, ...], int, int]]:
        """Classes of output tiles: first and trips of the outer loops, rows and columns."""
        return [
            (first, trips, extent.get("m", self.fixed.get("m", 1)), extent.get("n", self.fixed.get("n", 1)))
            for first, trips, extent in split_classes(self.loops)
        ]

    def loads(self) -> None:
        choice, rows = self.choice, self.rows
        for each in choice.transforms:
            if not each.after:
                _transform(rows, each)
        rows.next()
        rows.move("dma", [round(choice.dram[x]) for x in ("a", "b", "x")], "dram", "shared", "dram")
        rows.next()
        a_bits, b_bits, _, _ = choice.bits
        split_a, split_b, share_a, share_b = choice.parts
        for first, trips, m, n in self._tiles():
            for k_first, k_trips, k in self._k_classes():
                a = m * k * a_bits / 8 / (split_a * share_a)
                b, index = n * k * b_bits / 8 / (split_b * share_b), 0.0
                if self.sparse:
                    b, index = b / 2, n * k * INDEX_BITS / 8 / (split_b * share_b)
                rows.move(
                    "dma", (round(a), round(b), 0, round(index)), "shared", "local", "l2",
                    loops=[*self.loops, *self.k_loops], first=(*first, *k_first), trips=(*trips, *k_trips),
                    extent=(m, n, k), padded=choice.tile, span=choice.parts,
                )  # fmt: skip

    def products(self) -> None:
        choice, rows = self.choice, self.rows
        tm, tn, tk = choice.tile
        a_bits, _, _, b_bits = choice.bits
        b = tn * tk * b_bits / 8 / choice.parts[1]
        each = (round(tm * tk * a_bits / 8 / choice.parts[0]), round(b), 0, 0)
        if self.sparse:
            each = (each[0], round(b / 2), 0, round(tn * tk * INDEX_BITS / 8 / choice.parts[1]))
        tensor = choice.pipe == "tensor"
        nest = [*self.loops, *self.k_loops]
        done = choice.m * choice.n * choice.k * choice.batch * choice.repeat
        # Padded channels and uneven groups; minimal filtering multiplies less than the layer's count.
        density = choice.useful or min(1.0, self.kernel.macs / max(1, done))
        local = LEVEL["local"]
        rows.next()
        for first, trips, m, n in self._tiles():
            for k_first, k_trips, k in self._k_classes():
                columns = rows.nest(nest, (*first, *k_first), (*trips, *k_trips))
                axes = columns["axis"]
                assert isinstance(axes, tuple)
                rows.work(
                    "matrix" if tensor else "vector", "mac", columns, stride=self._strides(axes), extent=(m, n, k),
                    padded=choice.tile, ops=round(m * n * k * density), issued=tm * tn * tk, span=choice.warps,
                    bytes=each, refetch=(len(axes),) * 4, source=(local, local, 0, local),
                    target=(LEVEL["register"], LEVEL["register"], 0, LEVEL["register"]), buffers=choice.stages,
                    piped=choice.occupancy, beat=max(1, round(64 * tm * tn * tk / choice.rate)),
                    cause=CAUSE["matrix" if tensor else "vector_unit"],
                    reduce=(max(1, min(16, tk)), 0, FORMAT.get(self.kernel.accumulate, 0)),
                )  # fmt: skip

    def ends(self) -> None:
        choice, rows, kernel = self.choice, self.rows, self.kernel
        rows.next()
        rows.move("dma", (0, 0, round(choice.l2["x"])), "shared", "register", "l2")
        self._fused()
        results = choice.m * choice.n * choice.batch
        width = PARTIAL_BYTES * 8 if choice.split > 1 else choice.bits[2]
        rows.next()
        lead = [Loop("split", choice.split)] * (choice.split > 1)
        for first, trips, m, n in self._tiles():
            more = ([0], [choice.split]) if lead else ([], [])
            rows.move(
                "store", (0, 0, round(m * n * width / 8)), "register", "shared", "epilogue", loops=[*self.loops, *lead],
                first=(*first, *more[0]), trips=(*trips, *more[1]), extent=(m, n, 1),
            )  # fmt: skip
        if choice.split > 1:
            rows.next()
            rows.move("dma", (0, 0, PARTIAL_BYTES * results * choice.split), "shared", "register", "l2")
            rows.next()
            rows.work("vector", "alu", rows.nest(()), at_end=1, ops=results * choice.split,
                      issued=results * choice.split, cause=CAUSE["epilogue"], buffers=0)  # fmt: skip
            rows.next()
            rows.move("store", (0, 0, round(results * choice.bits[2] / 8)), "register", "shared", "epilogue")
        rows.next()
        rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")
        for each in choice.transforms:
            if each.after:
                _transform(rows, each)
        assert kernel.multiply is not None

    def _fused(self) -> None:
        """Lane operations of the layers fused to the end, dealt over the output tiles."""
        rows, kernel, choice = self.rows, self.kernel, self.choice
        tiles = Loop("m", choice.batch * choice.grid[0] * choice.grid[1])
        rows.next()
        for operation, total in (("alu", kernel.alu), ("special", kernel.special)):
            parts = even(round(total / choice.repeat), tiles.count) if total or operation == "alu" else []
            for first, trips, ops in parts:
                rows.work("vector", operation, rows.nest([tiles], [first], [trips]), at_end=1, ops=ops, issued=ops,
                          cause=CAUSE["epilogue"], buffers=0)  # fmt: skip

    def _k_classes(self) -> list[Class]:
        return k_classes(self.choice.k, self.choice.tile[2], self.choice.split, self.choice.k_steps)

    def _strides(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        tm, tn, tk = self.choice.tile
        size = {AXIS["m"]: tm, AXIS["n"]: tn, AXIS["split"]: self.choice.k_steps * tk, AXIS["k"]: tk}
        return tuple(size.get(axis, 1) for axis in axes)


def k_classes(k: int, step: int, split: int, steps: int) -> list[Class]:
    """(first, trips, extent) over the loops split and k (each left out where it has one iteration)."""
    total = max(1, -(-k // step))
    edge = k - (total - 1) * step
    out: list[Class] = []

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


def _transform(rows: Stages, each: Transform) -> None:
    """A kernel of its own that streams: operand A is what crosses to DRAM, B and C what is read and written."""
    rows.next()
    levels = LEVEL["dram"], LEVEL["shared"], LEVEL["register"]
    nest = rows.nest(())
    rows.builder.row(
        stage=rows.stage, unit=UNIT["dma"], cause=CAUSE["streaming"], awaits=1, buffers=0, dep=(rows.stage - 1,),
        format=rows.code, lanes=rows.view.sms, op=OPERATION["copy"], span=(1, 0, round(1000 * each.access)),
        bytes=(round(each.dram), round(each.read), round(each.written)),
        refetch=(nest["depth"],) * 3, source=levels, target=(levels[1], levels[2], levels[1]), **nest,
    )  # fmt: skip
