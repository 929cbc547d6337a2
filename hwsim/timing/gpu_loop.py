"""Main loops of the GEMM engine's candidates: tiles of the catalogue put into the closed form of one SM, array-first.

`hwsim.timing.gpu_sm` is proven against a twin that steps every clock; here a tile, a device and a kind of product become
its arguments. Which operand is the instruction's A is decided by the hardware: the sparse one, and the one of which a tile
has whole rows of `wgmma` or `tcgen05`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_instructions import instructions
from hwsim.timing.gpu_sm import BITS, BY_HAND, META, LoopTerms, Operation, SmNumbers, loop_shape, loop_terms

if TYPE_CHECKING:
    from hwsim.timing.gpu_kind import GemmKind

WARP = 32
# Architectures the table of instructions lacks, and the one whose instructions theirs are.
LIKE = {"blackwell-gb20x": "ada", "blackwell-gb10b": "blackwell"}
NAMES = {"hmma": "hmma", "mma": "", "wgmma": "wgmma", "tcgen05": "tcgen05"}  # how a family's instructions begin


class Shape(NamedTuple):
    """What the form takes of the instruction a width is multiplied by."""

    m: int
    n: int
    n_most: int
    k: float
    gap: int
    chain: int
    result: int


@cache
def shape_of(architecture: str, family: str, bits: int, sparse: bool) -> Shape:
    """Return the deepest instruction of ``family`` for operands ``bits`` wide (its k by its bytes where none is as wide).

    ``gap``: clocks one warp's own interval is longer than the pipe's.
    """
    like = LIKE.get(architecture, architecture)
    unit = "matrix" if family in ("wgmma", "tcgen05") else "pipe"
    have = [
        i
        for (of, _), i in instructions().items()
        if of == like and i.unit == unit and not i.simt and i.name.startswith(NAMES[family])
    ]
    if sparse and not any(i.sparse for i in have):
        deeper = shape_of(architecture, family, bits, False)  # no sparse one is listed: twice as deep, as everywhere
        return deeper._replace(k=2 * deeper.k)
    have = [i for i in have if i.sparse == sparse]
    best = min(have, key=lambda i: (abs(np.log2(BITS[i.input] / bits)), -i.k))
    k = best.k * BITS[best.input] / bits
    return Shape(best.m, best.n, best.n_most, k, best.own - best.cycles, best.chain, best.result)


def chain_of(architecture: str) -> int:
    """Return the clocks until a CUDA core's result can be used."""
    like = LIKE.get(architecture, architecture)
    return instructions()[like, "ffma"].chain


def tile_operation(view: GpuView, kind: GemmKind, flip: Any) -> Operation:
    """Return the instruction of a kind of product on a device at its rate, A and B exchanged where ``flip``."""
    a_bytes, b_bytes = np.asarray(kind.a_bits) / 8, np.asarray(kind.b_bits) / 8
    a_bytes, b_bytes = np.where(flip, b_bytes, a_bytes), np.where(flip, a_bytes, b_bytes)
    by_hand = view.architecture in BY_HAND
    bits = np.rint(np.asarray(kind.compute_bits, np.float64)).astype(np.int64)
    if kind.pipe == "simt":
        packed = np.maximum(1, 32 // np.maximum(bits, 1))
        results = np.where(bits == 16, 2, 1)
        depth = packed // results  # k of one instruction and result
        cycles = WARP * packed * view.sub_cores / kind.rate
        wait = chain_of(view.architecture)
        return Operation(
            0, 0, 0, depth, a_bytes, b_bytes, results, cycles, cycles, wait, wait, False, False, False, by_hand
        )  # fmt: skip
    if bits.ndim == 0:
        columns: list[Any] = list(shape_of(view.architecture, kind.instruction, int(bits), kind.sparse))
    else:
        unique, which = np.unique(bits, return_inverse=True)
        table = [shape_of(view.architecture, kind.instruction, int(x), kind.sparse) for x in unique]
        columns = [np.array(column)[which] for column in zip(*table, strict=True)]
    m, n, n_most, k, gap, chain, result = columns
    matrix = kind.instruction in ("wgmma", "tcgen05")
    cycles = m * n * k * (0.5 if kind.sparse else 1.0) * (1 if matrix else view.sub_cores) / kind.rate
    return Operation(
        m, n, n_most, k, a_bytes, b_bytes, 1, cycles, cycles + gap, chain, result, kind.sparse, matrix,
        kind.instruction == "tcgen05", by_hand,
    )  # fmt: skip


def flipped(view: GpuView, kind: GemmKind, t: Mapping[str, Any]) -> Any:
    """Whether the product's B is the instruction's A."""
    if kind.sparse:
        return np.ones_like(t["m"], bool)
    if kind.instruction == "wgmma":
        return np.asarray(t["unit_m"]) != 64
    if kind.instruction == "tcgen05":
        return (np.asarray(t["m"]) % 128 > 0) | ((np.asarray(t["split_a"]) > 1) & (np.asarray(t["split_b"]) == 1))
    return np.zeros_like(t["m"], bool)


def l2_share(view: GpuView, kind: GemmKind) -> float:
    """Return the share of the L2's bandwidth, and of an SM's path to it, that a kind's loads reach."""
    return view.constants["l2_bulk" if kind.bulk else "l2_threads"]


def taken(loop: LoopTerms, at: Any) -> LoopTerms:
    """Return the loops of some tiles."""

    def pick(x: Any) -> Any:
        return np.asarray(x)[at] if np.ndim(x) else x

    (one, parts), (other, more) = loop.trips
    trips = (pick(one), pick(parts)), (pick(other), pick(more))
    return LoopTerms(**{name: trips if name == "trips" else pick(getattr(loop, name)) for name in LoopTerms._fields})


def tile_loop(view: GpuView, kind: GemmKind, t: Mapping[str, Any], share: float) -> LoopTerms:
    """Return the loop of tiles ``t`` (`hwsim.schedule.gpu_tiles.Tiles` by name), arrays [tiles].

    ``share``: of the SM's path to the L2 that loads reach.
    """
    flip = flipped(view, kind, t)
    i = tile_operation(view, kind, flip)

    def pair(name: str) -> tuple[Any, Any]:
        """A tile parameter of the instruction's A and of its B."""
        a, b = (("m", "n") if name == "" else (f"{name}_m", f"{name}_n")) if name in ("", "unit") else (
            f"{name}_a", f"{name}_b"
        )  # fmt: skip
        return np.where(flip, t[b], t[a]), np.where(flip, t[a], t[b])

    (m, n), (unit_m, unit_n), (_, split), (share_a, share_b) = pair(""), pair("unit"), pair("split"), pair("share")
    shape = loop_shape(m, n, t["k"], unit_m, unit_n, i, t["slices"], split)
    a_bytes = m * t["k"] * i.a_bytes
    if i.sparse:
        a_bytes = a_bytes / 2 + m * t["k"] / META
    drawn = a_bytes / share_a + n * t["k"] * i.b_bytes / split / share_b
    shape = shape._replace(link_bytes=drawn)
    return loop_terms(shape, i, sm_numbers(view, share), t["stages"])


def sm_numbers(view: GpuView, share: float = 1.0) -> SmNumbers:
    """Return a device's SM as the closed form takes it, but for its share of the L2 and its latency."""
    issue = 2 if view.architecture in ("maxwell", "pascal") else 1  # schedulers that pair instructions
    return SmNumbers(view.sub_cores, issue, burst_bytes_per_clk=view.l2_sm_bytes_per_clk * share)
