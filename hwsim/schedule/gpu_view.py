"""A GPU as lowering and timing see it: the numbers of one machine in one power mode, in base units.

Everything that separates two devices of an architecture is here; what is fitted (efficiencies, overheads) is in
``accelerators/constants/gpu.toml`` and belongs to an architecture or to all GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.machine.gpu import gpu_of
from hwsim.power.activity import PowerProfile
from hwsim.power.gpu import gpu_power_profile

# Memories that give streams another share of their bandwidth than `stream_efficiency`.
STREAM_SHARES = {
    "gddr6": "stream_gddr6",
    "lpddr4": "stream_lpddr",
    "lpddr4x": "stream_lpddr",
    "lpddr5": "stream_lpddr",
    "lpddr5x": "stream_lpddr",
}


@dataclass(frozen=True)
class GpuView:
    """One GPU: sizes per SM, rates per clock of an SM, chip memories, power.

    ``tensor_macs`` and ``simt_macs`` map format names to dense multiply-accumulates per clock of one SM;
    ``tensor_kind`` is the instruction family of its tensor kernels ("" without tensor cores); ``clock_hz`` is the highest
    clock of the mode, which power may lower.
    """

    name: str
    architecture: str
    tensor_kind: str
    sms: int
    clock_hz: float
    tensor_macs: Mapping[str, float]
    simt_macs: Mapping[str, float]
    sparse: bool
    sub_cores: int
    registers: int
    shared_bytes: int
    max_shared_per_cta: int
    shared_reserved: int
    shared_bytes_per_clk: float
    max_threads: int
    max_ctas: int
    special_per_clk: float
    l2_bytes: int
    l2_segments: int
    l2_bytes_per_clk: float
    l2_sm_bytes_per_clk: float
    l2_latency_cycles: float
    dram_bytes_per_s: float
    dram_latency_s: float
    dram_kind: str
    dram_capacity: int
    tdp_w: float
    node_nm: float
    graph_launch_s: float
    stream_launch_s: float
    constants: Mapping[str, float] = field(default_factory=dict)
    power: PowerProfile | None = None

    @property
    def stream_bytes_per_s(self) -> float:
        """Bandwidth that kernels reach that stream through DRAM: a share by its technology."""
        return self.dram_bytes_per_s * self.constants[STREAM_SHARES.get(self.dram_kind, "stream_efficiency")]

    def __hash__(self) -> int:
        return hash((self.name, self.architecture, self.sms, self.clock_hz, self.l2_bytes, self.dram_bytes_per_s))


def gpu_view(acc: Accelerator, *, half_accumulators: bool = False) -> GpuView:
    """Return ``acc`` as the GPU models see it, with the rates of fp16 sums for fp16 if asked; HwsimError when it is no GPU."""
    gpu = gpu_of(acc)
    sm, l2, tdp = gpu.sm, gpu.l2, acc.power.tdp_w
    dram = acc.dram
    rates = dict(gpu.tensor.rates)
    if half_accumulators and "fp16" in rates:
        rates["fp16"] = gpu.tensor.macs_per_clk("fp16", "fp16")
    # The clock Tensor peaks are stated at is no limit: power decides what a kernel reaches.
    return GpuView(
        name=acc.id,
        architecture=acc.architecture,
        tensor_kind=gpu.tensor.instruction if gpu.tensor.count else "",
        sms=sm.count,
        clock_hz=sm.clock_hz,
        tensor_macs=_with_aliases(rates),
        simt_macs=_with_aliases(gpu.simt.rates),
        sparse=gpu.tensor.sparsity,
        sub_cores=sm.sub_cores,
        registers=sm.registers_bytes // 4,
        shared_bytes=sm.shared_bytes,
        max_shared_per_cta=sm.max_shared_per_cta_bytes,
        shared_reserved=sm.shared_reserved_bytes,
        shared_bytes_per_clk=sm.shared_bytes_per_clk,
        max_threads=sm.max_threads,
        max_ctas=sm.max_ctas,
        special_per_clk=gpu.simt.special,
        l2_bytes=l2.capacity_bytes,
        l2_segments=l2.segments,
        l2_bytes_per_clk=l2.bytes_per_clk,
        l2_sm_bytes_per_clk=sm.l2_bytes_per_clk,
        l2_latency_cycles=l2.latency_cycles,
        dram_bytes_per_s=min(dram.bandwidth_bytes_per_s, dram.read_bytes_per_s),
        dram_latency_s=dram.latency_s,
        dram_kind=dram.kind,
        dram_capacity=dram.capacity_bytes,
        tdp_w=math.inf if tdp is None or gpu.soc.unified else tdp,
        node_nm=acc.power.node_nm or 7.0,
        graph_launch_s=gpu.launch.graph_s,
        stream_launch_s=gpu.launch.stream_s,
        constants=load_constants("gpu", acc.architecture),
        power=gpu_power_profile(acc),
    )


def _with_aliases(rates: Mapping[str, float]) -> dict[str, float]:
    """Rates by format name, ``fp8`` standing for the faster of its two encodings."""
    out = dict(rates)
    eight = [rates[name] for name in ("e4m3", "e5m2") if name in rates]
    if eight and "fp8" not in out:
        out["fp8"] = max(eight)
    return out
