"""What was chosen for one kernel on a GPU: the algorithm, its tile and grid, and the estimate it was chosen by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Transform(NamedTuple):
    """A kernel that streams before (or ``after``) a product: bytes to and from DRAM, L2 bytes read and written.

    ``access`` is the share of a transfer that is used: values scattered over many planes fill no row of the memory.
    """

    dram: float
    read: float
    written: float
    access: float = 1.0
    after: bool = False


@dataclass(frozen=True, slots=True)
class Walk:
    """How attention's CTAs walk the keys: ``heads`` (rows of one head, or of all heads that share its keys) by tiles of
    queries by blocks of keys.

    ``past``: keys all queries see, the diagonal begins after them (-1: every query sees every key). ``whole``: a CTA walks
    all tiles of queries of a head. ``alu`` and ``special`` are lane operations of a block, bytes those of one element of
    queries and results (``act``), keys and values (``kv``); ``shared_bytes`` are read beside them (masks).
    ``streams``: keys and values are a cache that few queries stream through (decoding).
    """

    heads: int
    rows: int
    keys: int
    depth: int
    width: int
    past: int
    whole: bool
    alu: float
    special: float
    act: float
    kv: float
    shared_bytes: float = 0.0
    streams: bool = False


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """One kernel as a library would start it.

    ``algorithm``: gemm, implicit_gemm, winograd, winograd_4x4, direct, attention, memory, dla, or what an exchange between
    devices (pipe ``link``, ``k_steps`` bytes sent by each) does. ``times`` are seconds by what passes them (launch,
    latency, main, tail, epilogue, reduce), ``dram``/``l2`` bytes by operand (a, b, c, x).
    ``warps``: rows and columns of C of a unit (a warp, a warp group), warps of a CTA, groups of warps that share k;
    ``parts``: parts A and B are split in over a pair of SMs, CTAs one L2 read of them serves. ``rate``:
    multiply-accumulates per clock of an SM; ``bits`` of an element of A, of B as stored, of C, of B as multiplied.
    ``transforms`` are kernels around the product. ``sparse`` explains a 2:4 sparse
    kernel: eligible, chosen, gain over dense and what limits it.
    """

    algorithm: str
    pipe: str = ""
    format: str = ""
    m: int = 1
    n: int = 1
    k: int = 1
    batch: int = 1
    tile: tuple[int, int, int] = (1, 1, 1)
    stages: int = 1
    warps: tuple[int, int, int, int] = (1, 1, 1, 1)
    grid: tuple[int, int] = (1, 1)
    split: int = 1
    ctas: int = 1
    k_steps: int = 1
    waves: float = 1.0
    occupancy: int = 1
    limiter: str = ""
    repeat: int = 1
    times: dict[str, float] = field(default_factory=dict)
    dram: dict[str, float] = field(default_factory=dict)
    l2: dict[str, float] = field(default_factory=dict)
    sparse: dict[str, object] = field(default_factory=dict)
    parts: tuple[int, int, int, int] = (1, 1, 1, 1)
    rate: float = 1.0
    bits: tuple[float, float, float, float] = (16.0, 16.0, 16.0, 16.0)
    transforms: tuple[Transform, ...] = ()
    useful: float = 0.0  # share of its products that are not padding, where the layer's count does not say
    walk: Walk | None = None
    syncs: int = 0  # of a kernel without products: how often its threads wait for each other
    access: float = 1.0  # share of a transfer it uses
    vector_bytes: int = 16  # what one of its threads moves at once

    @property
    def time_s(self) -> float:
        """Seconds of the kernel, its repetitions included."""
        return sum(self.times.values()) * self.repeat
