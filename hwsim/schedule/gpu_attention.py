"""Fused attention on a GPU as rows: heads, tiles of queries, parts of the keys, and the blocks of keys a CTA walks.

Stages: dispatch, DRAM to L2, queries and then keys and values from L2 to shared memory, scores, softmax, weighted values,
results, and where the keys are split the sum of the parts. Scores and weights stay in registers. Causal attention walks
the blocks up to a tile's diagonal: its loop over keys is an affine one. Masked scores of the blocks on the diagonal are
computed, and count. Copies of a cache that few queries stream through have cause ``streaming``. ``span`` of a product row:
rows of a warp, keys of a block, warps, and parts the keys are split into.
"""

from __future__ import annotations

from typing import NamedTuple

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import Loop
from hwsim.schedule.gpu_choice import GpuChoice, Walk
from hwsim.schedule.gpu_product import k_classes
from hwsim.schedule.gpu_rows import Stages
from hwsim.schedule.gpu_view import GpuView
from hwsim.schedule.table import CAUSE, FORMAT, LEVEL, ScheduleBuilder

PARTIAL_BYTES = 4
REGISTER, LOCAL = LEVEL["register"], LEVEL["local"]


class _Class(NamedTuple):
    """Blocks alike: index ranges over the loops, the affine loop if any, and their queries and keys."""

    first: tuple[int, ...]
    trips: tuple[int, ...]
    bend: tuple[int, int, int, int]
    queries: int
    keys: int


def lower_attention(builder: ScheduleBuilder, kernel: Kernel, choice: GpuChoice, view: GpuView) -> None:
    """Append the rows of one fused attention kernel."""
    assert choice.walk is not None
    rows = Stages(builder, view, choice.repeat, FORMAT[choice.format or "fp16"], choice.ctas)
    _Attention(rows, kernel, choice, choice.walk).lower()


class _Attention:
    def __init__(self, rows: Stages, kernel: Kernel, choice: GpuChoice, walk: Walk) -> None:
        self.rows, self.kernel, self.choice, self.walk = rows, kernel, choice, walk
        tq, tk, _ = choice.tile
        self.tiles = -(-walk.rows // tq)
        self.blocks = -(-walk.keys // tk)
        self.share = -(-self.blocks // choice.split)
        # Where a block of keys is longer than a tile of queries, the tiles that walk as far are a loop of their own.
        self.inner = max(1, tk // tq) if walk.past >= 0 else 1
        self.outer = -(-self.tiles // self.inner)
        self.m_loops = [Loop("m", self.outer), *([Loop("m", self.inner)] if self.inner > 1 else [])]
        self.n_loops = [*([Loop("n", choice.split)] if choice.split > 1 else []), Loop("n", self.share)]
        self.classes = self._causal() if walk.past >= 0 else self._even()

    def lower(self) -> None:
        rows, choice, walk = self.rows, self.choice, self.walk
        out = walk.heads * walk.rows * walk.width * walk.act
        rows.next()
        rows.move("dma", (round(choice.dram["a"]), 0, 0, round(choice.dram["x"])), "dram", "shared", "dram")
        rows.next()
        self._per_tile("dma", walk.depth * walk.act, 0, "shared", "local", "l2", [*self._parts()])
        if walk.shared_bytes:
            rows.move("dma", (0, 0, 0, round(walk.shared_bytes)), "shared", "local", "l2")
        rows.next()
        self._keys()
        rows.next()
        self._products("qk", walk.depth)
        rows.next()
        self._softmax()
        rows.next()
        self._products("pv", walk.width)
        rows.next()
        if choice.split == 1:
            self._per_tile("store", walk.width * walk.act, 2, "register", "shared", "epilogue", [])
        else:
            partial = (walk.width + 2) * PARTIAL_BYTES
            self._per_tile("store", partial, 2, "register", "shared", "epilogue", self._parts())
            rows.next()
            parts = walk.heads * walk.rows * choice.split
            rows.move("dma", (0, 0, parts * partial), "shared", "register", "l2")
            rows.next()
            rows.work("vector", "alu", rows.nest(()), at_end=1, ops=parts * walk.width, issued=parts * walk.width,
                      cause=CAUSE["epilogue"], buffers=0)  # fmt: skip
            rows.next()
            rows.move("store", (0, 0, round(out)), "register", "shared", "epilogue")
        rows.next()
        rows.move("store", (0, 0, round(choice.dram["c"])), "shared", "dram", "dram")

    def _parts(self) -> list[Loop]:
        return [Loop("n", self.choice.split)] if self.choice.split > 1 else []

    def _loops(self) -> list[Loop]:
        return [Loop("batch", self.walk.heads), *self.m_loops, *self.n_loops]

    def _per_tile(
        self, unit: str, width: float, operand: int, source: str, target: str, cause: str, more: list[Loop]
    ) -> None:
        """Move the queries or results of every tile, the last of a head maybe fewer."""
        tq = self.choice.tile[0]
        loops = [Loop("batch", self.walk.heads), Loop("m", self.tiles), *more]
        edge = self.walk.rows - (self.tiles - 1) * tq
        for first, count, queries in ((0, self.tiles - 1, tq), (self.tiles - 1, 1, edge)):
            if count:
                nbytes = [0] * operand + [round(queries * width)]
                lead, walked = [0, first, *(0 for _ in more)], [self.walk.heads, count, *(x.count for x in more)]
                self.rows.move(unit, nbytes, source, target, cause, loops=loops, first=lead, trips=walked)

    def _keys(self) -> None:
        """Load keys and values, block by block; a CTA that walks all tiles of a head keeps them."""
        walk = self.walk
        width = (walk.depth + walk.width) * walk.kv
        cause = "streaming" if walk.streams else "l2"
        if not walk.whole:
            for c in self.classes:
                self.rows.move("dma", (0, round(c.keys * width)), "shared", "local", cause, loops=self._loops(),
                               first=c.first, trips=c.trips, bend=self._bend(c))  # fmt: skip
            return
        tk = self.choice.tile[1]
        loops = [Loop("batch", walk.heads), Loop("n", self.blocks)]
        edge = walk.keys - (self.blocks - 1) * tk
        for first, count, keys in ((0, self.blocks - 1, tk), (self.blocks - 1, 1, edge)):
            if count:
                self.rows.move("dma", (0, round(keys * width)), "shared", "local", "l2", loops=loops,
                               first=[0, first], trips=[walk.heads, count])  # fmt: skip

    def _bend(self, c: _Class) -> tuple[int, int, int, int]:
        loop, outer, step, first = c.bend
        lead = len(self.rows.steps)
        return (loop + lead, outer + lead, step, first) if loop >= 0 else c.bend

    def _products(self, which: str, depth: int) -> None:
        choice, rows, walk = self.choice, self.rows, self.walk
        tq, tk, _ = choice.tile
        tensor = choice.pipe == "tensor"
        padded = -(-depth // 16) * 16 if which == "qk" else depth
        for c in self.classes:
            nest = rows.nest(self._loops(), c.first, c.trips)
            axes = nest["axis"]
            assert isinstance(axes, tuple)
            extent = (c.queries, c.keys, depth) if which == "qk" else (c.queries, depth, c.keys)
            padding = (tq, tk, padded) if which == "qk" else (tq, padded, tk)
            rows.work(
                "matrix" if tensor else "vector", "mac", nest, stride=self._strides(), bend=self._bend(c), extent=extent,
                padded=padding, ops=extent[0] * extent[1] * extent[2], issued=tq * tk * padded, span=choice.warps,
                bytes=(0, round(tk * depth * walk.kv)), refetch=(0, len(axes)), source=(REGISTER, LOCAL),
                target=(REGISTER, REGISTER), buffers=choice.stages, piped=choice.occupancy,
                beat=max(1, round(64 * tq * tk * padded / choice.rate)),
                cause=CAUSE["matrix" if tensor else "vector_unit"], reduce=(16, 0, FORMAT["fp32"]),
            )  # fmt: skip

    def _softmax(self) -> None:
        walk, rows = self.walk, self.rows
        for operation, per_block in (("alu", walk.alu), ("special", walk.special)):
            for c in self.classes:
                rows.work("vector", operation, rows.nest(self._loops(), c.first, c.trips), bend=self._bend(c),
                          ops=round(per_block), issued=round(per_block), cause=CAUSE["issue"])  # fmt: skip

    def _strides(self) -> tuple[int, ...]:
        tq, tk, _ = self.choice.tile
        m = [self.inner * tq, *([tq] if self.inner > 1 else [])]
        n = [*([self.share * tk] if self.choice.split > 1 else []), tk]
        return (*(1 for _ in self.rows.steps), 1, *m, *n)

    def _even(self) -> list[_Class]:
        """Every tile walks every block of its part of the keys."""
        tq, tk, _ = self.choice.tile
        edge = self.walk.rows - (self.tiles - 1) * tq
        out = []
        for first, count, queries in ((0, self.tiles - 1, tq), (self.tiles - 1, 1, edge)):
            if not count:
                continue
            for n_first, n_trips, keys in k_classes(self.walk.keys, tk, self.choice.split, self.share):
                # A loop over one block has no index there.
                n_first, n_trips = (n_first, n_trips) if self.share > 1 else ((*n_first, 0), (*n_trips, 1))
                out.append(
                    _Class((0, first, *n_first), (self.walk.heads, count, *n_trips), (-1, -1, 0, 0), queries, keys)
                )
        return out

    def _causal(self) -> list[_Class]:
        """Tile i walks the blocks up to the last key its last query sees."""
        tq, tk, _ = self.choice.tile
        walk, out = self.walk, []
        step = max(1, tq // tk)
        for j in range(self.inner):
            count = len(range(j, self.tiles, self.inner))
            if not count:
                continue
            base = -(-(walk.past + (j + 1) * tq) // tk)
            last = range(max(0, count - 2), count)
            alone = [at for at in last if self._differs(j + at * self.inner, base + step * at)]
            bent = count - len(alone)
            loop = 2 + (self.inner > 1)
            if bent:
                lead, walked = ([0, 0], [walk.heads, bent])
                if self.inner > 1:
                    lead, walked = [*lead, j], [*walked, 1]
                bend = (loop, 1, step, 0) if bent > 1 else (-1, -1, 0, 0)
                out.append(_Class((*lead, 0), (*walked, base), bend, tq, tk))
            for at in alone:
                tile = j + at * self.inner
                lead, walked = ([0, at], [walk.heads, 1])
                if self.inner > 1:
                    lead, walked = [*lead, j], [*walked, 1]
                queries = min(tq, walk.rows - tile * tq)
                blocks = min(self.blocks, base + step * at)
                edge = min(tk, walk.keys - (blocks - 1) * tk)
                for n_first, n_trips, keys in ((0, blocks - 1, tk), (blocks - 1, 1, edge)):
                    if n_trips:
                        out.append(_Class((*lead, n_first), (*walked, n_trips), (-1, -1, 0, 0), queries, keys))
        return out

    def _differs(self, tile: int, trips: int) -> bool:
        """Whether a tile has fewer queries, or walks to the end of the keys."""
        return (tile + 1) * self.choice.tile[0] > self.walk.rows or trips >= self.blocks
