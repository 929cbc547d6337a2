"""What was chosen for one kernel on a GPU: the algorithm, its tile and grid, and the estimate it was chosen by."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """One kernel as a library would start it.

    ``algorithm``: gemm, implicit_gemm, winograd, direct, attention, memory, or what an exchange between devices (pipe
    ``link``, ``k_steps`` bytes sent by each) does. ``times`` are seconds by what passes them
    (launch, latency, main, tail, epilogue, reduce), ``dram``/``l2`` bytes by operand (a, b, c, x). ``speed`` explains a
    2:4 sparse kernel: eligible, chosen, gain over dense and what limits it.
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

    @property
    def time_s(self) -> float:
        """Seconds of the kernel, its repetitions included."""
        return sum(self.times.values()) * self.repeat
