"""What SCALE-Sim reports of one layer, with the averages it derives and the number types it prints."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.scalesim.operands import Storage

Number = int | float


@dataclass(frozen=True, slots=True)
class Span:
    """Accesses of one operand at one memory: first and last cycle, and words moved."""

    start: Number
    stop: Number
    words: Number

    @property
    def average(self) -> float:
        """Words per cycle between start and stop, both included."""
        return self.words / (self.stop - self.start + 1)


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One line of each report; fields are counts and cycles, properties are what the reports derive from them."""

    name: str
    macs: int
    pes: int
    demand_lines: int
    total_cycles: int
    stall_cycles: int
    mapping_efficiency: float
    compute_utilization: float
    sram_ifmap: Span
    sram_filter: Span
    sram_ofmap: Span
    dram_ifmap: Span
    dram_filter: Span
    dram_ofmap: Span
    storage: Storage | None = None

    @property
    def total_cycles_incl_prefetch(self) -> int:
        """DRAM output stop minus the earlier of the two DRAM read starts."""
        return int(self.dram_ofmap.stop - min(self.dram_ifmap.start, self.dram_filter.start))

    @property
    def overall_utilization_pct(self) -> float:
        """Dense multiply-accumulates over PE-cycles, in %."""
        return self.macs * 100 / (self.total_cycles * self.pes)

    @property
    def metadata_bandwidth(self) -> float:
        """Filter metadata words per cycle; 0 for a dense layer."""
        return self.storage.metadata / self.total_cycles if self.storage else 0.0

    def compute_items(self) -> list[Number]:
        """COMPUTE_REPORT after the layer number."""
        return [
            self.total_cycles_incl_prefetch,
            self.total_cycles,
            self.stall_cycles,
            self.overall_utilization_pct,
            self.mapping_efficiency * 100,
            self.compute_utilization * 100,
        ]

    def bandwidth_items(self) -> list[Number]:
        """BANDWIDTH_REPORT after the layer number."""
        total = self.total_cycles
        sram: list[Number] = [self.sram_ifmap.words / total, self.sram_filter.words / total]
        if self.storage:
            sram.append(self.metadata_bandwidth)
        sram.append(self.sram_ofmap.words / total)
        return [*sram, self.dram_ifmap.average, self.dram_filter.average, self.dram_ofmap.average]

    def detail_items(self) -> list[Number]:
        """DETAILED_ACCESS_REPORT after the layer number."""
        spans = (self.sram_ifmap, self.sram_filter, self.sram_ofmap, self.dram_ifmap, self.dram_filter, self.dram_ofmap)
        return [value for span in spans for value in (span.start, span.stop, span.words)]

    def sparse_items(self) -> list[Number]:
        """SPARSE_REPORT after the layer number and the representation."""
        if self.storage is None:
            return []
        return [self.storage.original, self.storage.new, self.storage.metadata, self.metadata_bandwidth]
