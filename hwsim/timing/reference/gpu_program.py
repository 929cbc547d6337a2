"""Warp programs of a GEMM's main loop, instruction by instruction, from nothing but the tile.

Four ways of feeding a multiplier, one for each age of the hardware:

- `copied`: copies go to shared memory by themselves, `stages` buffers deep; warps load fragments of the next slice of k
  into registers while they multiply this one (Ampere and Ada, `cp.async` + `ldmatrix` + `mma`);
- `staged`: global loads go through registers and are stored to the other of two buffers (Maxwell to Turing);
- `grouped`: one warp orders bulk copies, warp groups multiply straight from shared memory (Hopper, `wgmma`);
- `matrix`: as before, with one warp ordering the multiplications of the whole CTA (Blackwell, `tcgen05`).

Every loop of a kernel is written out here; nothing is taken from the lowering or the closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.timing.gpu_instructions import Instruction
from hwsim.timing.reference.gpu_sm import PIECE, WAVEFRONT, Op

BITS = {"fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "fp4": 4}
LANES = (4, 8)  # threads of a warp over the rows and columns of its tile, on CUDA cores
META = 8  # one byte of metadata for so many elements of a sparse A: 2 bits for each of the half that is kept
VECTOR = 2  # least wavefronts of a vector load whose words many lanes share (assumed)


@dataclass(frozen=True)
class Tile:
    """What one CTA computes: m x n of C, k at a time, by warps (or warp groups) of warp_m x warp_n.

    ``groups`` of warps take different slices of each k-step. ``stages``: buffers in shared memory. ``overhead``:
    address and loop instructions of a warp and k-step. ``pair``: CTAs that share B. Those of `wgmma` send each other
    their part of it; those of `tcgen05` also leave it where it is and read it from both places.
    """

    m: int
    n: int
    k: int
    warp_m: int
    warp_n: int
    instruction: Instruction
    stages: int = 2
    groups: int = 1
    overhead: int = 4
    pair: int = 1

    def __post_init__(self) -> None:
        i = self.instruction
        slices = self.k / i.k / self.groups
        ok = self.m % self.warp_m == 0 and self.n % self.warp_n == 0 and slices == int(slices) and slices >= 1
        if i.simt:
            ok = ok and self.warp_m % LANES[0] == 0 and self.warp_n % LANES[1] == 0
        else:
            ok = ok and self.warp_m % i.m == 0 and self.warp_n % i.n == 0
        if not ok or self.stages < 2:
            raise HwsimError(
                f"tile {self.m}x{self.n}x{self.k}, warp {self.warp_m}x{self.warp_n}: not whole instructions of "
                f"{i.name}, or fewer than 2 stages"
            )

    @property
    def warps(self) -> int:
        return (self.m // self.warp_m) * (self.n // self.warp_n) * self.groups

    @property
    def bits(self) -> int:
        return BITS[self.instruction.input]

    def step_bytes(self) -> tuple[int, int]:
        """Bytes of A (with metadata) and of B that one k-step brings into shared memory."""
        a = self.m * self.k * self.bits // 8
        if self.instruction.sparse:
            a = a // 2 + self.m * self.k // META
        return a, self.n * self.k * self.bits // 8 // (self.pair if self.whole_cta else 1)

    @property
    def whole_cta(self) -> bool:
        return self.instruction.name.startswith("tcgen05")


def wavefronts(size: int) -> int:
    return -(-size // WAVEFRONT)


def packed(blocks: list[tuple[str, int]]) -> Iterator[Op]:
    """Loads of fragment blocks (register, bytes), as many to a load as fit into 16 B a lane."""
    at = 0
    while at < len(blocks):
        names, size = [blocks[at][0]], blocks[at][1]
        at += 1
        while at < len(blocks) and size + blocks[at][1] <= PIECE:
            names.append(blocks[at][0])
            size += blocks[at][1]
            at += 1
        yield Op("load", wavefronts=wavefronts(size), writes=tuple(names))


def fragment_loads(tile: Tile, buffer: int) -> list[Op]:
    """Loads of one slice of A and of B into register buffer ``buffer``, for one warp."""
    i = tile.instruction
    if i.simt:
        rows, cols = tile.warp_m // LANES[0], tile.warp_n // LANES[1]
        loads = []
        for letter, own, across in (("a", rows, tile.warp_m), ("b", cols, tile.warp_n)):
            words = own * i.k * tile.bits // 32  # 4 B words of a thread; lanes of one row or column read the same
            for first in range(0, max(words, 1), 4):
                unique = across * i.k * tile.bits // 8 * min(4, words - first) // max(words, 1)
                loads.append(
                    Op("load", wavefronts=max(VECTOR, wavefronts(unique)), writes=(f"{letter}{buffer}.{first}",))
                )
        return loads
    a_block, b_block = i.m * i.k * tile.bits // 8 // (2 if i.sparse else 1), i.n * i.k * tile.bits // 8
    a = [(f"a{buffer}.{r}", a_block) for r in range(tile.warp_m // i.m)]
    b = [(f"b{buffer}.{c}", b_block) for c in range(tile.warp_n // i.n)]
    meta = [(f"am{buffer}.{r}", i.m * i.k // META) for r in range(tile.warp_m // i.m)] if i.sparse else []
    return [*packed(a), *packed(b), *packed(meta)]


def multiplications(tile: Tile, buffer: int, step: int) -> list[Op]:
    """The multiplications of one slice, for one warp: B columns outside, rows of A inside, there and back."""
    i = tile.instruction
    ops = []
    if i.simt:
        rows, cols = tile.warp_m // LANES[0], tile.warp_n // LANES[1]
        # One instruction is one multiply-accumulate of k (or of k pairs: two packed results) a thread.
        results = 2 if i.input == "fp16" else 1
        for c in range(cols // results if cols % results == 0 else cols):
            for r in range(rows):
                a, b = r * i.k * tile.bits // 32 // 4 * 4, c * results * i.k * tile.bits // 32 // 4 * 4
                reads = (f"a{buffer}.{a}", f"b{buffer}.{b}", f"c{r}.{c}")
                ops.append(Op("math", step, i.cycles, i.own, i.chain, reads=reads, writes=(f"c{r}.{c}",)))
        return ops
    height = tile.warp_m // i.m
    for c in range(tile.warp_n // i.n):
        for r in range(height) if c % 2 == 0 else range(height - 1, -1, -1):
            reads = (f"a{buffer}.{r}", f"b{buffer}.{c}", f"c{r}.{c}", *((f"am{buffer}.{r}",) if i.sparse else ()))
            ops.append(Op("mma", step, i.cycles, i.own, i.chain, reads=reads, writes=(f"c{r}.{c}",)))
    return ops


def shares(tile: Tile, warp: int, kind: str) -> list[Op]:
    """A warp's part of what one k-step brings in: 16 B a lane and instruction, dealt to the warps in turn."""
    total = sum(tile.step_bytes())
    sizes = [min(PIECE, total - at) for at in range(0, total, PIECE)]
    return [Op(kind, bytes=size, wavefronts=wavefronts(size)) for size in sizes[warp :: tile.warps]]


def spread(ops: list[Op], slot: int, slots: int) -> list[Op]:
    """The ``slot``-th of ``slots`` equal parts."""
    return ops[len(ops) * slot // slots : len(ops) * (slot + 1) // slots]


def at_step(ops: list[Op], step: int) -> Iterator[Op]:
    for op in ops:
        yield Op(**{f: getattr(op, f) for f in op.__dataclass_fields__} | {"step": step})


def copied(tile: Tile, warp: int, steps: int) -> Iterator[Op]:
    """Program of one warp: asynchronous copies, `stages` - 1 k-steps ahead; fragments one slice ahead."""
    slices = tile.k // tile.instruction.k // tile.groups
    ahead = tile.stages - 1
    copies = shares(tile, warp, "copy")
    for step in range(ahead):
        if step < steps:
            yield from at_step(copies, step)
        yield Op("commit")
    yield Op("wait", count=ahead - 1)
    yield Op("barrier")
    yield from fragment_loads(tile, 0)
    buffer = 0
    for step in range(steps):
        ordered = copies if step + ahead < steps else []
        for s in range(slices):
            last = s == slices - 1
            # Copies go out in all slices but the last, which waits for those of the next k-step.
            slots = max(1, slices - 1)
            if s < slots:
                yield from at_step(spread(ordered, s, slots), step + ahead)
            if last:
                yield from at_step([Op("alu")] * tile.overhead, step)
                yield Op("commit", step)
                yield Op("wait", step, count=ahead - 1)
                yield Op("barrier", step)
            if not (last and step == steps - 1):
                yield from at_step(fragment_loads(tile, 1 - buffer), step)
            yield from multiplications(tile, buffer, step)
            buffer = 1 - buffer


def staged(tile: Tile, warp: int, steps: int) -> Iterator[Op]:
    """Program of one warp: the next k-step is fetched to registers first thing and stored to the other buffer last."""
    slices = tile.k // tile.instruction.k // tile.groups
    parts = shares(tile, warp, "fetch")
    fetches = [Op("fetch", bytes=p.bytes, wavefronts=p.wavefronts, writes=(f"g{n}",)) for n, p in enumerate(parts)]
    stores = [Op("store", wavefronts=p.wavefronts, reads=(f"g{n}",)) for n, p in enumerate(parts)]
    yield from fetches
    yield from stores
    yield Op("barrier")
    yield from fragment_loads(tile, 0)
    buffer = 0
    for step in range(steps):
        more = step < steps - 1
        if more:
            yield from at_step(fetches, step + 1)
        for s in range(slices):
            if s == slices - 1:
                yield from at_step([Op("alu")] * tile.overhead, step)
                if more:
                    yield from at_step(stores, step + 1)
                    yield Op("barrier", step)
            if more or s < slices - 1:
                yield from at_step(fragment_loads(tile, 1 - buffer), step)
            yield from multiplications(tile, buffer, step)
            buffer = 1 - buffer


def ordering(tile: Tile, steps: int, consumers: int) -> Iterator[Op]:
    """Program of the warp that orders bulk copies: one a k-step, as soon as its buffer has been used by all."""
    for step in range(steps):
        if step >= tile.stages:
            yield Op("await", step, event=("empty", step - tile.stages), count=consumers)
        a, b = tile.step_bytes()
        drawn = a + (b if tile.whole_cta else b // tile.pair)
        yield Op("bulk", step, bytes=a + b, drawn=drawn, event=("full", step))


def grouped(tile: Tile, steps: int) -> Iterator[Op]:
    """Program of one warp group (its leading warp): multiply from shared memory, one k-step in flight behind."""
    i = tile.instruction
    for step in range(steps):
        yield Op("await", step, event=("full", step), count=1)
        for _ in range(tile.k // i.k):
            for _ in range(tile.warp_m // i.m):
                yield from matrix_ops(tile, step)
        yield Op("commit", step)
        yield from at_step([Op("alu")] * tile.overhead, step)
        if step:
            yield Op("wait", step, count=1)
            yield Op("arrive", step, event=("empty", step - 1))
    yield Op("wait", steps, count=0)


def matrix(tile: Tile, steps: int) -> Iterator[Op]:
    """Program of the warp that orders a CTA's multiplications: their end frees the buffer without anyone's help."""
    i = tile.instruction
    for step in range(steps):
        yield Op("await", step, event=("full", step), count=1)
        for _ in range(tile.k // i.k):
            for _ in range(tile.m // i.m):
                yield from matrix_ops(tile, step)
        yield Op("commit", step, event=("empty", step), arrive_at_end=True)
        yield from at_step([Op("alu")] * tile.overhead, step)
    yield Op("wait", steps, count=0)


def matrix_ops(tile: Tile, step: int) -> Iterator[Op]:
    """One row of instructions over the columns of the tile, both operands read from shared memory."""
    i = tile.instruction
    a = i.m * i.k * tile.bits // 8
    if i.sparse:
        a //= 2  # metadata goes through registers
    left = tile.warp_n
    while left:
        n = min(left, i.n_most)
        left -= n
        cycles = i.cycles * n // i.n
        size = a + n * i.k * tile.bits // 8 // (tile.pair if tile.whole_cta else 1)
        yield Op("matrix", step, cycles=cycles, latency=cycles + i.result - i.cycles, wavefronts=wavefronts(size))


def cta_programs(tile: Tile, steps: int) -> list[list[Op]]:
    """Programs of all warps of a CTA over ``steps`` k-steps, in the style of the tile's instruction."""
    if tile.whole_cta:
        return [list(ordering(tile, steps, 1)), list(matrix(tile, steps))]
    if tile.instruction.unit == "matrix":
        return [list(ordering(tile, steps, tile.warps)), *(list(grouped(tile, steps)) for _ in range(tile.warps))]
    copies = tile.instruction.architecture not in ("maxwell", "pascal", "volta", "turing")
    program = copied if copies else staged
    return [list(program(tile, warp, steps)) for warp in range(tile.warps)]


def multiply_loop(instruction: Instruction, warps: int, ilp: int, iterations: int) -> list[list[Op]]:
    """The microbenchmark: ``warps`` warps, each adding to ``ilp`` accumulators in turn, ``iterations`` times."""
    i = instruction
    if i.unit == "matrix":
        one = [Op("matrix", s, cycles=i.cycles * i.n_most // i.n) for s in range(iterations) for _ in range(ilp)]
        return [[*one, Op("commit"), Op("wait")]] * warps
    kind = "math" if i.simt else "mma"
    ops = [
        Op(kind, s, i.cycles, i.own, i.chain, reads=(f"c{c}",), writes=(f"c{c}",))
        for s in range(iterations)
        for c in range(ilp)
    ]
    return [ops] * warps
