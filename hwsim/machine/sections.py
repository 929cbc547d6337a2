"""The sections every family shares: chip, memories, host, interconnect, dispatch, power, price, numerics, system.

Attributes hold base units (Hz, B, B/s, s, W; nm for a node); a bandwidth nobody states is infinite, i.e. no limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.machine.keys import Section, key

MEMORY_KINDS = (
    "sram", "registers", "fifo", "flash", "ddr3", "ddr4", "ddr5", "lpddr4", "lpddr4x", "lpddr5", "lpddr5x", "gddr5", "gddr6",
    "gddr6x", "gddr7", "hbm2", "hbm2e", "hbm3", "hbm3e", "dram",
)  # fmt: skip
DRAM_KINDS = frozenset(MEMORY_KINDS[4:])

_FAST = 1e18  # B/s: no memory or link is near it, so a larger number is a slip of the unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What one chip consists of."""

    cores: int = key("cores that can run one program each, or share one, on a chip", "count", low=1, high=4096)
    megacore: bool = key("whether the cores share the memory and work on one program", kind="bool", default=False)
    die_area_m2: float | None = key("die area", "area", toml="die_area", default=None, low=1e-8, high=0.1)
    year: int | None = key("year the chip was first used or sold", "count", default=None, low=1970, high=2100)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLevel:
    """One level of the memory hierarchy, ``[memory.<level>]``; levels are in order, the outermost first."""

    name: str = ""
    kind: str = key("technology, used by the energy model", kind="text", choices=MEMORY_KINDS)
    scope: str = key(
        "what the capacity and bandwidths are stated per; `unit` is one matrix unit",
        kind="text", choices=("chip", "core", "unit"),
    )  # fmt: skip
    capacity_bytes: int = key("capacity of one scope", "bytes", toml="capacity", low=1, high=1e15)
    bandwidth_bytes_per_s: float = key(
        "reads and writes together; absent means no limit",
        "bandwidth", toml="bandwidth", default=math.inf, low=1, high=_FAST,
    )  # fmt: skip
    read_bytes_per_s: float = key(
        "reads alone; absent means only `bandwidth` limits them",
        "bandwidth", toml="read_bandwidth", default=math.inf, low=1, high=_FAST,
    )  # fmt: skip
    write_bytes_per_s: float = key(
        "writes alone; absent means only `bandwidth` limits them",
        "bandwidth", toml="write_bandwidth", default=math.inf, low=1, high=_FAST,
    )  # fmt: skip
    latency_s: float = key(
        "time from a request to its first byte", "time", toml="latency", default=0.0, low=0, high=1e-3
    )
    word_bytes: int = key("smallest access", "bytes", toml="word", default=1, low=1, high=4096)
    buffers: int = key(
        "how many tiles are kept apart in it (2 is double buffering)", "count", default=1, low=1, high=64
    )
    holds: tuple[str, ...] = key(
        "operands it may hold; absent means all",
        kind="texts", default=("weights", "activations", "outputs"), choices=("weights", "activations", "outputs"),
    )  # fmt: skip

    @property
    def is_dram(self) -> bool:
        """Whether the level is off-chip memory."""
        return self.kind in DRAM_KINDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine that feeds the chip, and the link to it."""

    name: str = key("default host, an accelerator file of family cpu", kind="text", default="")
    link: str = key("link technology, e.g. pcie3-x16 or usb3", kind="text", default="")
    bandwidth_bytes_per_s: float = key(
        "effective rate of one direction, per chip; absent means no limit",
        "bandwidth", toml="bandwidth", default=math.inf, low=1e3, high=_FAST,
    )  # fmt: skip
    to_chip_bytes_per_s: float = key(
        "host to chip where it differs", "bandwidth", toml="to_chip", default=math.inf, low=1e3, high=_FAST
    )
    to_host_bytes_per_s: float = key(
        "chip to host where it differs", "bandwidth", toml="to_host", default=math.inf, low=1e3, high=_FAST
    )
    round_trip_s: float = key(
        "time of an empty request and its answer", "time", toml="round_trip", default=0.0, low=0, high=1
    )
    to_chip_chunk_bytes: int = key(
        "largest transfer to the chip; longer ones are cut, 0 means they are not",
        "bytes", toml="to_chip_chunk", default=0, low=0, high=1 << 30,
    )  # fmt: skip
    to_host_chunk_bytes: int = key(
        "largest transfer to the host; longer ones are cut, 0 means they are not",
        "bytes", toml="to_host_chunk", default=0, low=0, high=1 << 30,
    )  # fmt: skip
    in_flight: int = key("transfers that may be under way at once", "count", default=1, low=1, high=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interconnect:
    """Links between chips."""

    topology: str = key(
        "how the links join chips",
        kind="text", default="none", choices=("none", "ring", "mesh-2d", "torus-2d", "torus-3d", "switch"),
    )  # fmt: skip
    links: int = key("links of one chip", "count", default=0, low=0, high=64)
    link_bytes_per_s: float = key(
        "effective rate of one link, one way", "bandwidth", toml="link_bandwidth", default=0.0, low=1e6, high=_FAST
    )
    hop_latency_s: float = key("time of one hop", "time", toml="hop_latency", default=0.0, low=0, high=1e-2)
    wrap_axis: int = key(
        "shortest axis that has a wrap-around link; 1 means every axis of a torus", "count", default=1, low=1, high=4096
    )
    largest: tuple[int, ...] = key(
        "chips along each axis of the largest system", "count", kind="counts", default=(), low=1, high=65536
    )
    network_bytes_per_s: float = key(
        "data-centre network of one host, one way",
        "bandwidth",
        toml="network_bandwidth",
        default=0.0,
        low=1e6,
        high=_FAST,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """What it costs to start work; what no data sheet states is fitted per family and lives in its constants file."""

    program_s: float = key("once per run of the whole network", "time", toml="program", default=0.0, low=0, high=10)
    kernel_s: float = key("once per kernel", "time", toml="kernel", default=0.0, low=0, high=1)
    instruction_cycles: float = key(
        "matrix-unit clocks per issued instruction", "ratio", toml="instruction", default=0.0, low=0, high=1e6
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power and technology of one chip."""

    node_nm: float | None = key("process node, nm", "node", toml="node", default=None, low=1, high=1000)
    tdp_w: float | None = key("thermal design power", "power", toml="tdp", default=None, low=1e-3, high=1e5)
    idle_w: float | None = key("power when idle", "power", toml="idle", default=None, low=0, high=1e5)
    busy_w: float | None = key("mean power when busy", "power", toml="busy", default=None, low=1e-3, high=1e5)
    voltage_v: float | None = key("core supply voltage", "voltage", toml="voltage", default=None, low=0.2, high=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one chip costs; every price says when it was read."""

    hourly_usd: float | None = key("rent of one chip", "price_rate", toml="hourly", default=None, low=0, high=1e5)
    purchase_usd: float | None = key(
        "price of one chip or board", "price", toml="purchase", default=None, low=0, high=1e8
    )
    date: str = key("when the prices were read; required with a price", kind="text", default="")
    region: str = key("region of a rental price", kind="text", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """How values are computed: names of arithmetic profiles and number formats."""

    profile: str = key("arithmetic profile of the matrix unit, e.g. mxu-v1", kind="text", default="")
    accumulate: str = key("format of partial sums", kind="text", default="fp32")
    fp32_passes: int = key(
        "bf16 passes of one fp32 product by default; 0 refuses fp32", "count", default=0, low=0, high=9
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A board, slice or pod: how many chips work together."""

    chips: int = key("chips in the system", "count", default=1, low=1, high=1_000_000)
    chip: str = key("the file of one of its chips", kind="text", default="")
    dims: tuple[int, ...] = key(
        "chips along each axis; their product is `chips`", "count", kind="counts", default=(), low=1
    )
    hosts: int = key("host machines of the system", "count", default=1, low=1, high=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Published peaks of one chip, dense: never used by the model, only checked against array size times clock."""

    peak_bf16: float | None = key("bf16 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_fp16: float | None = key("fp16 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_fp32: float | None = key("fp32 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_e4m3: float | None = key("fp8 (e4m3) peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_int8: float | None = key("int8 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_int4: float | None = key("int4 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_int16: float | None = key("int16 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_tf32: float | None = key("tf32 peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_e2m1: float | None = key("fp4 (e2m1) peak", "op_rate", default=None, low=1e6, high=1e18)
    peak_fp64: float | None = key("fp64 peak", "op_rate", default=None, low=1e6, high=1e18)
    half_accumulate_fp16: float | None = key(
        "fp16 peak with 16-bit accumulators, where it differs", "op_rate", default=None, low=1e6, high=1e18
    )
    half_accumulate_e4m3: float | None = key(
        "fp8 peak with 16-bit accumulators, where it differs", "op_rate", default=None, low=1e6, high=1e18
    )
    sparse_int8: float | None = key(
        "2:4 sparse int8 peak of all engines together, as marketed", "op_rate", default=None, low=1e6, high=1e18
    )
    sparse_int8_dla: float | None = key(
        "2:4 sparse int8 peak of the DLAs together", "op_rate", default=None, low=1e6, high=1e18
    )


COMMON = (
    Section("chip", Chip, "what one chip consists of", required=True),
    Section("memory", MemoryLevel, "the memory hierarchy, outermost level first", many=True, required=True),
    Section("host", Host, "the machine that feeds the chip, and the link to it"),
    Section("link", Host, "other links to the host, chosen as TARGET@HOST/LINK; same keys as [host]", many=True),
    Section("interconnect", Interconnect, "links between chips"),
    Section("dispatch", Dispatch, "what it costs to start work"),
    Section("power", Power, "power and technology of one chip"),
    Section("price", Price, "what one chip costs"),
    Section("numerics", Numerics, "how values are computed"),
    Section("system", System, "a board, slice or pod of chips"),
    Section("published", Published, "published peaks of one chip, only checked against"),
)
