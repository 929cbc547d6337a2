"""Family "gpu": streaming multiprocessors with or without Tensor Cores, and the DLA of a Jetson.

Rates are multiply-accumulates per clock of one SM. The Tensor Cores' are at ``SM.matrix_clock_hz``, the rest at
``SM.clock_hz``: what a data sheet calls its Tensor peak is often stated at a lower clock than the boost clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwsim.machine.keys import Family, Section, key
from hwsim.machine.sections import COMMON

if TYPE_CHECKING:
    from hwsim.machine.accelerator import Accelerator

INSTRUCTIONS = ("hmma", "mma", "wgmma", "tcgen05")
WARP = 32  # threads, on every NVIDIA GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class SM:
    """The streaming multiprocessors: how many, how fast, and what a cooperative thread array (CTA) may take of one."""

    count: int = key("enabled SMs", "count", low=1, high=1024)
    clock_hz: float = key("highest sustained clock (boost)", "frequency", toml="clock", low=1e6, high=1e10)
    tensor_clock_hz: float | None = key(
        "clock the Tensor peaks are stated at, where it is not `clock`",
        "frequency", toml="tensor_clock", default=None, low=1e6, high=1e10,
    )  # fmt: skip
    sub_cores: int = key("partitions of an SM, each with its warp scheduler", "count", default=4, low=1, high=16)
    issue: int = key("instructions a scheduler issues per clock", "count", default=1, low=1, high=4)
    registers_bytes: int = key("register file of one SM", "bytes", toml="registers", low=1024, high=1 << 24)
    max_registers: int = key("registers (of 4 B) one thread may use", "count", default=255, low=16, high=1024)
    l1_bytes: int = key("level-1 data cache, shared memory included where they are one", "bytes", toml="l1", low=1024)
    shared_bytes: int = key("most shared memory of one SM", "bytes", toml="shared", low=1024, high=1 << 24)
    max_shared_per_cta_bytes: int = key(
        "most shared memory of one CTA", "bytes", toml="max_shared_per_cta", low=1024, high=1 << 24
    )
    shared_reserved_bytes: int = key(
        "shared memory the system takes of every CTA", "bytes", toml="shared_reserved", default=0, low=0, high=1 << 16
    )
    max_threads: int = key("resident threads of one SM", "count", low=32, high=1 << 16)
    max_ctas: int = key("resident CTAs of one SM", "count", low=1, high=1024)
    shared_bytes_per_clk: float = key(
        "shared memory, reads of one SM per clock", "ratio", default=128, low=1, high=4096
    )
    l1_bytes_per_clk: float = key("level-1 hits of one SM, bytes per clock", "ratio", default=64, low=1, high=4096)
    l2_bytes_per_clk: float = key(
        "what one SM can take from the L2, bytes per clock", "ratio", default=64, low=1, high=4096
    )
    shared_latency_cycles: float = key("load from shared memory", "ratio", toml="shared_latency", default=30, low=1)
    l1_latency_cycles: float = key("load that hits the level-1 cache", "ratio", toml="l1_latency", default=33, low=1)
    alu_latency_cycles: float = key("dependent arithmetic instruction", "ratio", toml="alu_latency", default=4, low=1)

    @property
    def matrix_clock_hz(self) -> float:
        """Clock of the Tensor peaks."""
        return self.tensor_clock_hz or self.clock_hz

    @property
    def max_warps(self) -> int:
        """Resident warps of one SM."""
        return self.max_threads // WARP


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """The Tensor Cores; without this table a GPU has none."""

    count: int = key("Tensor Cores of one SM", "count", default=0, low=0, high=64)
    instruction: str = key(
        "newest matrix instruction: hmma of a quarter-warp, mma.sync of a warp, wgmma of a warp group, tcgen05 of a CTA",
        kind="text", choices=INSTRUCTIONS, default="mma",
    )  # fmt: skip
    sparsity: bool = key("whether 2:4 sparse operands run at twice the rate", kind="bool", default=False)
    memory_bytes: int = key("tensor memory of one SM", "bytes", toml="memory", default=0, low=0, high=1 << 24)
    rates: Mapping[str, float] = key(
        "dense multiply-accumulates per clock of one SM, 32-bit accumulators; `AxB` is A times B",
        "ratio", kind="rates", factory=dict, low=0.5, high=1 << 20,
    )  # fmt: skip
    half_accumulate: Mapping[str, float] = key(
        "the same with 16-bit accumulators, where it differs",
        "ratio", kind="rates", factory=dict, low=0.5, high=1 << 20,
    )  # fmt: skip

    def macs_per_clk(self, number_format: str, accumulate: str = "fp32") -> float:
        """Dense multiply-accumulates per clock of one SM; 0.0 when not native."""
        rate = self.rates.get(number_format, 0.0)
        return self.half_accumulate.get(number_format, rate) if accumulate == "fp16" else rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Simt:
    """The CUDA cores."""

    rates: Mapping[str, float] = key(
        "multiply-accumulates per clock of one SM: fp32, fp16 (two a lane where packed), int8 (dp4a), fp64",
        "ratio", kind="rates", low=0.25, high=1 << 16,
    )  # fmt: skip
    special: float = key("special functions (exp2, rsqrt) per clock of one SM", "ratio", default=16, low=1, high=1024)
    load_store: float = key("addresses per clock of one SM", "ratio", default=32, low=1, high=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class L2:
    """The last-level cache all SMs share."""

    capacity_bytes: int = key("capacity", "bytes", toml="capacity", low=1024, high=1 << 40)
    segments: int = key(
        "parts, each near to some SMs; data of a far part crosses a link", "count", default=1, low=1, high=16
    )
    bytes_per_clk: float = key("reads that hit, all SMs together, per SM clock", "ratio", low=1, high=1 << 20)
    latency_cycles: float = key("hit in the near part, SM clocks", "ratio", toml="latency", default=220, low=1)
    far_latency_cycles: float = key(
        "hit in a far part, SM clocks; absent means as near", "ratio", toml="far_latency", default=0.0, low=0
    )
    line_bytes: int = key("cache line", "bytes", toml="line", default=128, low=32, high=4096)
    sector_bytes: int = key("smallest transfer", "bytes", toml="sector", default=32, low=8, high=4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Time between the starts of dependent kernels that do nothing."""

    stream_s: float = key("launched one by one on a stream", "time", toml="stream", default=2.5e-6, low=1e-8, high=1e-2)
    graph_s: float = key("inside a CUDA graph", "time", toml="graph", default=1.3e-6, low=1e-8, high=1e-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Soc:
    """What a Jetson's GPU shares its chip with: the memory controller (EMC) and the CPU."""

    unified: bool = key("whether CPU and GPU share the DRAM", kind="bool", default=False)
    emc_clock_hz: float | None = key(
        "memory controller clock; two transfers a clock",
        "frequency",
        toml="emc_clock",
        default=None,
        low=1e6,
        high=1e11,
    )
    bus_bits: int | None = key("width of the memory bus in bits", "count", default=None, low=8, high=16384)
    cpu: str = key("the CPU, e.g. cortex-a78ae", kind="text", default="")
    cpu_cores: int = key("CPU cores that are on", "count", default=0, low=0, high=1024)
    cpu_clock_hz: float | None = key(
        "highest CPU clock", "frequency", toml="cpu_clock", default=None, low=1e6, high=1e10
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dla:
    """The deep-learning accelerators of a Jetson; without this table there is none."""

    count: int = key("engines", "count", default=0, low=0, high=16)
    generation: str = key("generation, e.g. dla-2: names the layers it takes", kind="text", default="")
    clock_hz: float = key("engine clock", "frequency", toml="clock", default=1e9, low=1e6, high=1e10)
    sparsity: bool = key("whether 2:4 sparse weights run at twice the rate", kind="bool", default=False)
    sram_bytes: int = key("on-chip buffer of one engine", "bytes", toml="sram", default=1 << 19, low=0, high=1 << 30)
    channels: int = key("input channels multiplied at once", "count", default=64, low=1, high=4096)
    positions: int = key("output positions computed at once", "count", default=1, low=1, high=64)
    rates: Mapping[str, float] = key(
        "dense multiply-accumulates per clock of one engine", "ratio", kind="rates", factory=dict, low=1, high=1 << 20
    )

    def macs_per_s(self, number_format: str) -> float:
        """Dense multiply-accumulates per second of one engine; 0.0 when not native."""
        return self.rates.get(number_format, 0.0) * self.clock_hz

    def kernels(self, number_format: str) -> int:
        """Output channels computed at once; 0 when not native."""
        return int(self.rates.get(number_format, 0.0)) // (self.channels * self.positions)


@dataclass(frozen=True, slots=True)
class Gpu:
    """The sections of one GPU together."""

    sm: SM
    tensor: Tensor
    simt: Simt
    l2: L2
    launch: Launch
    soc: Soc
    dla: Dla


def gpu_of(acc: Accelerator) -> Gpu:
    """Return the GPU sections of a machine; raises HwsimError when it is of another family."""
    return Gpu(
        acc.section("sm", SM), acc.section("tensor", Tensor), acc.section("simt", Simt), acc.section("l2", L2),
        acc.section("launch", Launch), acc.section("soc", Soc), acc.section("dla", Dla),
    )  # fmt: skip


_UNSIGNED = {"int8": ("uint8", "int8xuint8", "uint8xint8"), "int4": ("uint4", "int4xuint4", "uint4xint4")}


def _throughput(built: Mapping[str, Any]) -> tuple[float, Mapping[str, float]]:
    """One multiply-accumulate per SM and SM clock, and how many of them each format gets on its fastest pipe."""
    sm: SM = built["sm"]
    tensor: Tensor = built["tensor"]
    simt: Simt = built["simt"]
    rates = dict(simt.rates)
    if tensor.count:
        scale = sm.matrix_clock_hz / sm.clock_hz
        for name, rate in tensor.rates.items():  # fp64 products draw little power: they keep the boost clock
            rates[name] = max(rates.get(name, 0.0), rate * (1.0 if name == "fp64" else scale))
    for signed, others in _UNSIGNED.items():  # integer instructions take either sign on either side
        if signed in rates:
            rates |= dict.fromkeys(others, rates[signed])
    return sm.count * sm.clock_hz, rates


def _check(built: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sm: SM = built["sm"]
    tensor: Tensor = built["tensor"]
    l2: L2 = built["l2"]
    dla: Dla = built["dla"]
    if sm.max_shared_per_cta_bytes + sm.shared_reserved_bytes > sm.shared_bytes:
        yield "sm.max_shared_per_cta", "with shared_reserved is more than shared"
    if sm.shared_bytes > sm.l1_bytes and sm.l1_bytes > sm.max_shared_per_cta_bytes:
        yield "sm.shared", "is more than l1, of which it is a part"
    if bool(tensor.count) != bool(tensor.rates):
        yield "tensor", "count and [tensor.rates] go together"
    if 0 < l2.far_latency_cycles < l2.latency_cycles:
        yield "l2.far_latency", "is less than latency"
    if l2.segments > 1 and l2.capacity_bytes % l2.segments:
        yield "l2.segments", "do not divide the capacity"
    if bool(dla.count) != bool(dla.rates):
        yield "dla", "count and [dla.rates] go together"
    for name, rate in dla.rates.items():
        if rate % (dla.channels * dla.positions):
            yield f"dla.rates.{name}", "is no multiple of channels x positions"


GPU = Family(
    "gpu",
    "GPUs: data-centre, desktop and Jetson",
    (
        COMMON[0],
        Section("sm", SM, "the streaming multiprocessors", required=True),
        Section("tensor", Tensor, "the Tensor Cores of one SM"),
        Section("simt", Simt, "the CUDA cores of one SM", required=True),
        Section("l2", L2, "the last-level cache", required=True),
        Section("launch", Launch, "time between kernels"),
        Section("soc", Soc, "the rest of a Jetson's chip"),
        Section("dla", Dla, "the deep-learning accelerators of a Jetson"),
        *COMMON[1:],
    ),
    throughput=_throughput,
    check=_check,
)
