"""Family "cpu": processors that run networks themselves, from server cores to microcontrollers.

What a kernel library needs to know of a core is its SIMD unit (how wide, how many instructions a clock), its loads, and
how fast bytes arrive from each cache and from memory. Caches and memories are levels ``[memory.<level>]``, outermost
first: ``dram``, ``l3``, ``l2``, ``l1`` of an application processor, ``flash`` and ``sram`` of a microcontroller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.machine.keys import Family, Section, key
from hwsim.machine.sections import COMMON

ISAS = ("neon", "neon32", "sse4", "avx2", "avx512", "dsp", "scalar")
DOTS = ("none", "sdot", "i8mm", "vnni")
KERNELS = ("xnnpack", "ruy", "gemmlowp", "cmsis-nn", "tflm-reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """One core, its SIMD unit, and the software it runs networks with."""

    clock_hz: float = key("core clock under load", "frequency", toml="clock", low=1e5, high=1e10)
    issue: int = key("instructions issued per clock", "count", low=1, high=16)
    out_of_order: bool = key("whether a stalled instruction lets later ones pass", kind="bool")
    isa: str = key("SIMD instruction set the kernels are written in", kind="text", choices=ISAS)
    dot: str = key("8-bit dot-product instructions", kind="text", default="none", choices=DOTS)
    simd_bits: int = key("width of a SIMD register", "count", low=32, high=2048)
    vector_ops: float = key("SIMD instructions of full width per clock", "ratio", low=0.25, high=8)
    multiply_ops: float = key("SIMD multiply-accumulates of full width per clock, fp32", "ratio", low=0.25, high=8)
    long_multiply_ops: float = key(
        "SIMD 8-bit multiplications per clock, full-width results (dot products where there are)",
        "ratio", low=0.25, high=8,
    )  # fmt: skip
    latency_cycles: int = key(
        "clocks from a multiply-accumulate to the next on the same register", "count", toml="latency", low=1, high=32
    )
    load_ops: float = key("load instructions per clock", "ratio", low=0.25, high=8)
    load_bytes: int = key("bytes loaded from the innermost memory per clock", "bytes", low=1, high=512)
    store_bytes: int = key("bytes stored to the innermost memory per clock", "bytes", low=1, high=512)
    outer_bytes: float = key(
        "bytes a core draws per clock from the level behind its innermost memory", "ratio", low=0.25, high=512
    )
    memory_bytes_per_s: float = key(
        "bytes one core moves to and from memory per second", "bandwidth", toml="memory_bandwidth", low=1e6, high=1e13
    )
    threads: int = key("threads the software uses by default", "count", default=1, low=1, high=1024)
    kernels: str = key("kernel library used by default", kind="text", choices=KERNELS)
    rates: Mapping[str, float] = key(
        "peak multiply-accumulates of one core per clock, by number format", "ratio", kind="rates", low=0.01, high=4096
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usb:
    """The USB host controller."""

    completion_s: float = key(
        "least time from one transfer's completion to the next, where the controller holds interrupts back",
        "time", toml="completion", default=0.0, low=0, high=1e-2,
    )  # fmt: skip


def _throughput(built: Mapping[str, Any]) -> tuple[float, Mapping[str, float]]:
    """A core's clock, and what it multiplies per clock."""
    core: Core = built["core"]
    return core.clock_hz, core.rates


def _check(built: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    core: Core = built["core"]
    if core.threads > built["chip"].cores:
        yield "core.threads", f"more threads ({core.threads}) than cores ({built['chip'].cores})"
    if core.multiply_ops > core.vector_ops:
        yield "core.multiply_ops", "more multiplications than SIMD instructions per clock"
    if not any(level.kind == "sram" for level in built["memory"].values()):
        yield "memory", "needs at least one cache or SRAM level"


CPU = Family(
    "cpu",
    "processors that run networks themselves, from server cores to microcontrollers",
    (
        COMMON[0],
        Section("core", Core, "one core and its software", required=True),
        Section("usb", Usb, "the USB host controller"),
        *COMMON[1:],
    ),
    throughput=_throughput,
    check=_check,
)
