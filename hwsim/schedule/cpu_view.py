"""A processor as lowering and timing see it: what its threads issue, load and draw from each memory, per clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError, near
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.cpu import KERNELS, Core
from hwsim.machine.sections import MemoryLevel

# Of a shared cache: the rest holds code, stacks, other programs' data, and lines their set has no room for.
_USABLE = 0.75


@dataclass(frozen=True, slots=True)
class CpuView:
    """One processor and the library its kernels come from.

    Rates are per core and clock: instructions (``issue``, ``vector_ops`` …) or bytes (``load_bytes``, ``outer_bytes``).
    ``cache_bytes`` is what all threads together keep near them between kernels; ``flash_bytes`` is 0 on machines that
    load their programs and weights into memory. Memory bandwidths are in bytes per clock.
    """

    name: str
    architecture: str
    library: str
    clock_hz: float
    cores: int
    threads: int
    issue: int
    out_of_order: bool
    isa: str
    dot: str
    register_bytes: int
    vector_ops: float
    multiply_ops: float
    long_multiply_ops: float
    latency: int
    load_ops: float
    load_bytes: int
    store_bytes: int
    outer_bytes: float
    outer_all: float
    l1_bytes: int
    cache_bytes: int
    memory_one: float
    memory_all: float
    memory_bytes: int
    flash_bytes: int
    sram_bytes: int

    @property
    def microcontroller(self) -> bool:
        """Whether weights stay in flash and activations in SRAM."""
        return self.flash_bytes > 0

    @property
    def memory(self) -> float:
        """Bytes per clock all threads together move to and from memory."""
        return min(self.memory_all, self.threads * self.memory_one)


def cpu_view(acc: Accelerator, library: str | None = None, threads: int | None = None) -> CpuView:
    """Return the view of ``acc`` with kernels of ``library`` on ``threads`` threads (None: the machine's defaults).

    Raises HwsimError when it is no cpu, the library is unknown or made for other instructions, or there are fewer cores.
    """
    if acc.family != "cpu":
        raise HwsimError(f"{acc.id} is of family {acc.family}, not cpu")
    core = acc.section("core", Core)
    chosen = library or core.kernels
    if chosen not in KERNELS:
        raise HwsimError(f"unknown stack {chosen!r} for {acc.id}: one of {', '.join(KERNELS)}{near(chosen, KERNELS)}")
    small = core.isa in ("dsp", "scalar")
    if small != (chosen in ("cmsis-nn", "tflm-reference")) and chosen != "tflm-reference":
        fits = "cmsis-nn or tflm-reference" if small else "xnnpack, ruy, gemmlowp or tflm-reference"
        raise HwsimError(f"{acc.id} cannot run {chosen} kernels: choose {fits}")
    if threads is not None and not 1 <= threads <= acc.chip.cores:
        raise HwsimError(
            f"{acc.id} has {acc.chip.cores} cores, so it runs 1 to {acc.chip.cores} threads, not {threads}"
        )
    count = threads or core.threads
    levels = acc.memory
    flash = next((m for m in levels.values() if m.kind == "flash"), None)
    dram = next((m for m in levels.values() if m.is_dram), None)
    caches = [m for m in levels.values() if m.kind == "sram"]
    inner = caches[-1]
    shared = min((m.bandwidth_bytes_per_s for m in caches[:-1] if m.scope == "chip"), default=math.inf) / core.clock_hz
    far = min(flash.bandwidth_bytes_per_s, flash.read_bytes_per_s) if flash else 0.0
    if dram is not None:
        far = min(dram.bandwidth_bytes_per_s, dram.read_bytes_per_s)
    return CpuView(
        name=acc.id,
        architecture=acc.architecture,
        library=chosen,
        clock_hz=core.clock_hz,
        cores=acc.chip.cores,
        threads=count,
        issue=core.issue,
        out_of_order=core.out_of_order,
        isa="sse4" if chosen == "gemmlowp" and core.isa in ("avx2", "avx512") else core.isa,
        dot="none" if chosen == "gemmlowp" else core.dot,
        register_bytes=16 if chosen == "gemmlowp" and core.isa in ("avx2", "avx512") else core.simd_bits // 8,
        vector_ops=core.vector_ops,
        multiply_ops=core.multiply_ops,
        long_multiply_ops=core.long_multiply_ops,
        latency=core.latency_cycles,
        load_ops=core.load_ops,
        load_bytes=core.load_bytes,
        store_bytes=core.store_bytes,
        outer_bytes=core.outer_bytes,
        outer_all=shared,
        l1_bytes=inner.capacity_bytes,
        cache_bytes=int(_USABLE * sum(m.capacity_bytes * (count if m.scope == "core" else 1) for m in caches[:-1]))
        or _kept(inner, flash),
        memory_one=core.memory_bytes_per_s / core.clock_hz,
        memory_all=far / core.clock_hz,
        memory_bytes=dram.capacity_bytes if dram else 0,
        flash_bytes=flash.capacity_bytes if flash else 0,
        sram_bytes=sum(m.capacity_bytes for m in caches) if flash else 0,
    )  # fmt: skip


def _kept(inner: MemoryLevel, flash: MemoryLevel | None) -> int:
    """Bytes kept between kernels where there is one on-chip level: all of it beside flash, else none of a lone cache."""
    return inner.capacity_bytes if flash is not None else 0


def with_threads(view: CpuView, threads: int) -> CpuView:
    """Return ``view`` with other threads."""
    return replace(view, threads=threads)
