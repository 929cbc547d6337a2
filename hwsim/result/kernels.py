"""The table of kernels: what each is, what it costs and why, read from the schedule, its timing and its energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.plan.plan import Plan
from hwsim.result.limiters import ALL, LIMITERS
from hwsim.result.totals import Totals
from hwsim.schedule.table import CAUSES, LEVEL, OPERATION, UNIT, Schedule
from hwsim.timing.run import Timing

if TYPE_CHECKING:
    from hwsim.energy.reading import Energy


@dataclass(frozen=True)
class KernelTable:
    """Kernels of one program; ``latency_s`` is that of the whole run, ``details`` what the family adds by kernel."""

    plan: Plan
    schedule: Schedule
    timing: Timing
    energy: Energy
    totals: Totals
    latency_s: float
    family: str
    details: Sequence[Mapping[str, Any]]

    def _per_kernel(self, values: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(
            self.schedule.kernel[rows], weights=values[rows].astype(float), minlength=len(self.plan.kernels)
        )

    def parts(self, kernel: int) -> dict[str, int]:
        """Cycles of one kernel by what the machine did or waited for; they add up to its cycles."""
        unit = 2 if self._is_dla[kernel] else 0 if self._is_matrix[kernel] else 1
        parts = {self.totals.units[unit]: int(self.timing.busy[kernel])}
        waits = self.timing.waits[kernel]
        for code in np.flatnonzero(waits):
            label = ALL[CAUSES[code]]
            parts[label] = parts.get(label, 0) + int(waits[code])
        return parts

    @cached_property
    def limiters(self) -> tuple[str, ...]:
        """Names of everything a kernel's time is split into, in a fixed order; the columns ``time_<name>_s``."""
        if self.family == "systolic":
            return tuple(LIMITERS.values())
        seen = set().union(*(self.parts(k) for k in range(len(self.plan.kernels))))
        known = (*self.totals.units, *ALL.values())
        return tuple(name for name in dict.fromkeys(known) if name in seen)

    @cached_property
    def _is_matrix(self) -> np.ndarray[Any, Any]:
        multiplies = self.schedule.unit == UNIT["matrix"]
        if self.family == "cpu":  # its cores do both
            multiplies |= (self.schedule.unit == UNIT["cpu"]) & (self.schedule.op == OPERATION["mac"])
        return self._per_kernel(np.ones(self.schedule.rows), multiplies) > 0

    @property
    def uses_engine(self) -> bool:
        """Whether a fixed-function engine runs any of the kernels."""
        return bool(self._is_dla.any())

    @cached_property
    def _is_dla(self) -> np.ndarray[Any, Any]:
        return self._per_kernel(np.ones(self.schedule.rows), self.schedule.unit == UNIT["dla"]) > 0

    @cached_property
    def _moved(self) -> np.ndarray[Any, Any]:
        return self.schedule.moved_bytes()

    @cached_property
    def dram_read(self) -> np.ndarray[Any, Any]:
        """Bytes read from off-chip memory, by kernel."""
        read = (self._moved * (self.schedule.source == LEVEL["dram"])).sum(axis=1)
        return self._per_kernel(read, np.ones(len(read), bool))

    @cached_property
    def dram_written(self) -> np.ndarray[Any, Any]:
        """Bytes written to off-chip memory, by kernel."""
        written = (self._moved * (self.schedule.target == LEVEL["dram"])).sum(axis=1)
        return self._per_kernel(written, np.ones(len(written), bool))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per kernel of one program: what it is, what it costs and why (units in the names)."""
        clock, totals = self.totals.clock_hz, self.totals
        timing, schedule = self.timing, self.schedule
        mac = schedule.op == OPERATION["mac"]
        issued = self._per_kernel(schedule.instances() * schedule.issued, mac)
        useful = self._per_kernel(schedule.instances() * schedule.ops, mac)
        chip = (self._moved * (schedule.source == LEVEL["shared"])).sum(axis=1)
        on_chip = self._per_kernel(chip, np.ones(len(chip), bool))
        energies = self.energy.per_kernel
        rows: list[dict[str, Any]] = []
        for k, kernel in enumerate(self.plan.kernels):
            cycles = int(timing.end[k] - timing.begin[k])
            parts = self.parts(k)
            # Causal attention skips what its mask hides, so its work is what the schedule executes.
            work = (
                int(useful[k]) // max(1, kernel.multiply.passes if kernel.multiply else 1) if useful[k] else kernel.macs
            )
            work = min(work, kernel.macs)  # experts of uneven load are scheduled as if even
            rate = kernel.multiply.rate / kernel.multiply.passes if kernel.multiply else 1.0
            # A 2:4 kernel multiplies by the kept half of its weights alone, at the same rate.
            kept = 0.5 if self.details and self.details[k].get("sparse_chosen") else 1.0
            compute_s = kept * work / (totals.peak_macs * rate * clock)
            memory_s = totals.memory_s(float(self.dram_read[k]), float(self.dram_written[k]))
            bound_s = max(compute_s, memory_s)
            latency_s = cycles / clock
            native = kernel.multiply.rate if kernel.multiply else 1.0
            capacity = cycles * totals.peak_macs * native
            rows.append(
                {
                    "kernel": k,
                    "name": kernel.name,
                    "op": kernel.op,
                    "kind": kernel.kind,
                    "layers": " ".join(kernel.layers),
                    "format": kernel.multiply.format if kernel.multiply else "",
                    "passes": kernel.multiply.passes if kernel.multiply else 0,
                    "macs": work,
                    "latency_s": latency_s,
                    "cycles": cycles,
                    "share_pct": 100.0 * latency_s / self.latency_s,
                    "bound_s": bound_s,
                    "sol_pct": 100.0 * bound_s / latency_s if latency_s else 100.0,
                    "bound": "compute" if compute_s >= memory_s else "memory",
                    "limiter": max(parts, key=lambda p: parts[p]) if cycles else "",
                    "utilization_useful_pct": 100.0 * (work if issued[k] else 0) / capacity if cycles else 0.0,
                    "utilization_padded_pct": 100.0 * float(issued[k]) / capacity if cycles else 0.0,
                    "dram_read_bytes": int(self.dram_read[k]),
                    "dram_write_bytes": int(self.dram_written[k]),
                    "on_chip_read_bytes": int(on_chip[k]),
                    "weight_bytes": kernel.weight_bytes,
                    "energy_j": float(sum(v[k] for v in energies.values())),
                    **(self.details[k] if self.details else {}),
                    **{f"time_{name.replace(' ', '_')}_s": parts.get(name, 0) / clock for name in self.limiters},
                    **{f"energy_{name}_j": float(v[k]) for name, v in energies.items()},
                }
            )
        return rows
