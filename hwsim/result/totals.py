"""How one program's figures scale to the whole run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """How one program's figures scale to the whole run: programs used side by side, and what a run costs once."""

    batch: int
    share: int
    programs: int
    used: int
    clock_hz: float
    peak_macs: int
    dram_read_bytes_per_s: float
    dram_write_bytes_per_s: float
    dram_shared: bool
    overhead_s: float
    units: tuple[str, ...] = ("matrix unit", "vector unit")  # what the busy time of a kernel is called; third: a DLA
    ways: int = 1  # programs that share the work of one
    workspace_bytes: int = 0  # scratch of one program's kernels
    runtime_bytes: int = 0  # what software keeps of one program's memory for itself
    interval_s: float | None = None  # between the results of runs back to back, where they overlap; None: the latency

    def memory_s(self, read_bytes: float, written_bytes: float) -> float:
        """Least time to move these bytes at the peak bandwidths, which reads and writes share or not."""
        read, written = read_bytes / self.dram_read_bytes_per_s, written_bytes / self.dram_write_bytes_per_s
        return read + written if self.dram_shared else max(read, written)
