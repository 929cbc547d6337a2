"""Result: what a run costs, in total and per kernel, with the reason for every number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hwsim
from hwsim.bands import Band, band_of
from hwsim.files import write_whole
from hwsim.language import Tokens, tokens_of
from hwsim.machine import Accelerator
from hwsim.network.graph import Network
from hwsim.plan.memory import Memory, memory_of
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan
from hwsim.schedule.table import CAUSES, LEVEL, OPERATION, UNIT, Schedule
from hwsim.timing.run import Timing

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.energy.reading import Energy

LIMITERS = {
    "matrix": "matrix unit", "vector_unit": "vector unit", "weight_fetch": "weight fetch", "weight_shift": "weight shift",
    "activation_fetch": "activation fetch", "accumulator": "accumulator", "store": "result store",
    "dispatch": "dispatch", "conversion": "conversion", "link": "host link", "none": "input",
}  # fmt: skip
"""What a systolic machine does or waits for, by cause code: the names every report uses."""

FURTHER_LIMITERS = {
    "launch": "kernel launch", "tail": "tail wave", "dram": "memory bandwidth", "l2": "L2 bandwidth",
    "shared_memory": "shared memory", "latency": "latency", "epilogue": "epilogue", "issue": "instruction issue",
    "cache": "cache bandwidth", "interpreter": "interpreter", "host": "host work", "streaming": "parameter streaming",
    "communication": "communication", "flash": "flash",
}  # fmt: skip
"""Further names that other families use."""

_NAMES = LIMITERS | FURTHER_LIMITERS
UNIT_NAMES = ("tensor cores", "CUDA cores", "DLA", "cells", "SIMD units", "processor")
"""What other families call their busy units."""


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


class Result:
    """What a network costs on a machine.

    Figures of the whole run (all programs side by side) are attributes: ``latency_s``, ``cycles``, ``throughput_per_s``,
    ``energy_j``, ``power_w``, ``dram_bytes``, ``utilization``, ``bound_by``. ``layers`` is a pandas DataFrame with one
    row per kernel of one program; ``kernels`` the same rows as plain dictionaries. Their latencies, with the overhead of
    a run, add up to ``latency_s``.
    """

    def __init__(
        self,
        network: Network,
        accelerator: Accelerator,
        options: RunOptions,
        plan: Plan,
        schedule: Schedule,
        timing: Timing,
        energy: Energy,
        totals: Totals,
        notes: Iterable[str],
        constants: Mapping[str, float],
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.network = network
        self.accelerator = accelerator
        self.options = options
        self.plan = plan
        self.schedule = schedule
        self.timing = timing
        self.energy = energy
        self.totals = totals
        self.details = tuple(details)  # by kernel, what its family has to say of it: further columns of `kernels`
        self.notes = tuple(dict.fromkeys([*notes, *energy.notes]))
        if any(row["sol_pct"] > 100.0 + 1e-6 for row in self.kernels):
            early = "a kernel's weights may arrive while the one before it runs, so it can take less than its own bound"
            self.notes = (*self.notes, early)
        self.constants = constants

    @property
    def compiler_log(self) -> str:
        """What the machine's own compiler would print of the network; empty where it prints none."""
        return ""

    # -- totals --------------------------------------------------------------------------------------------------

    @property
    def cycles(self) -> int:
        """Array clocks of one program from first issue to last end."""
        return self.timing.cycles

    @property
    def latency_s(self) -> float:
        """Seconds from the start of a run to its last result."""
        return self.cycles / self.totals.clock_hz + self.totals.overhead_s

    @property
    def throughput_per_s(self) -> float:
        """Inferences per second, runs one after the other (overlapped where the machine pipelines runs)."""
        return self.totals.batch / (self.totals.interval_s or self.latency_s)

    @property
    def tokens(self) -> Tokens | None:
        """What the run means in tokens, for language models with a key/value cache; None for other networks."""
        return tokens_of(self.network, self.totals.batch, self.latency_s, self.throughput_per_s)

    @property
    def memory(self) -> Memory | None:
        """What the run needs of one program's memory, and what would fit; None where a machine has no memory of its own."""
        acc, totals = self.accelerator, self.totals
        if not any(level.is_dram for level in acc.memory.values()):
            return None
        capacity = acc.dram.capacity_bytes // acc.memory_share
        return memory_of(self.plan, self.network, capacity, totals.share, totals.workspace_bytes, totals.runtime_bytes)

    @property
    def energy_j(self) -> float:
        """Joules of one run, all programs; static power included, of idle ones and during the overhead of a run too."""
        return float(self.energy.total_j) * self.totals.used + self.idle_j

    @property
    def idle_j(self) -> float:
        """Static joules outside the kernels: unused programs, and every program while a run starts and ends."""
        totals, watts = self.totals, self.energy.static.power_w.value
        unused = (totals.programs - totals.used) * self.latency_s
        return watts * (unused + totals.used * totals.overhead_s)

    @property
    def power_w(self) -> float:
        """Average watts over a run."""
        return self.energy_j / self.latency_s

    @property
    def groups(self) -> int:
        """Groups of programs that share the batch: as many as programs, unless several share the work of one."""
        return self.totals.programs // self.totals.ways

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run as published figures count them (masked scores included), all programs."""
        if "bound_N" in self.network.meta:
            return self.network.macs // self.totals.share * self.totals.batch
        return self.network.macs * self.totals.used

    @property
    def dram_bytes(self) -> int:
        """Bytes moved to and from off-chip memory in one run, all programs."""
        return int(self._dram_read.sum() + self._dram_written.sum()) * self.totals.used

    @property
    def traffic(self) -> list[dict[str, Any]]:
        """Bytes every memory moved in one run of all programs, beside the least any schedule of these kernels could.

        One dictionary per memory: ``memory``, ``read_bytes``, ``written_bytes``, ``compulsory_bytes`` (every operand of
        every kernel once; in off-chip memory those that live there, less what a cache above holds), ``ratio``, and
        ``network_bytes``, the same if nothing but weights, inputs and results of the whole network left the chip.
        """
        kernels = self.plan.kernels
        operands = [o for k in kernels for o in (*k.inputs, *k.outputs, *((k.weights,) if k.weights else ()))]
        off_chip = sum(round(o.bytes * (1 - o.cached)) for o in operands if o.level == "dram")
        everything = sum(o.bytes for o in operands)
        made = {o.tensor for k in kernels for o in k.outputs}
        read = {o.tensor for k in kernels for o in k.inputs}
        ends = {o.tensor: o.bytes for k in kernels for o in k.inputs if o.tensor not in made}
        ends |= {o.tensor: o.bytes for k in kernels for o in k.outputs if o.tensor not in read}
        network = self.plan.weight_bytes + sum(ends.values())
        used, rows = self.totals.used, []
        for column, memory in enumerate(self.energy.memories):
            level = self.accelerator.memory.get(memory)
            least = off_chip if level is not None and level.is_dram else everything
            moved = [
                float(table[:, column].sum()) * used for table in (self.energy.read_bytes, self.energy.written_bytes)
            ]
            ratio = sum(moved) / (least * used) if least else 0.0
            rows.append(
                {
                    "memory": memory, "read_bytes": int(moved[0]), "written_bytes": int(moved[1]),
                    "compulsory_bytes": least * used, "ratio": ratio, "network_bytes": network * used,
                }
            )  # fmt: skip
        return rows

    @property
    def utilization(self) -> float:
        """Useful multiply-accumulates over what the arrays could do in that time at their rate for each format."""
        busy = sum(row["utilization_useful_pct"] / 100 * row["cycles"] for row in self.kernels)
        return float(busy / max(1.0, self.latency_s * self.totals.clock_hz))

    @property
    def bound_by(self) -> str:
        """What takes the largest share of the time."""
        shares = self.time_shares
        return max(shares, key=lambda name: shares[name])

    @cached_property
    def time_shares(self) -> dict[str, float]:
        """Share of the latency by what the machine was doing or waiting for; they add up to 1."""
        total = self.latency_s * self.totals.clock_hz
        out: dict[str, float] = {}
        for k in range(len(self.plan.kernels)):
            for name, cycles in self._parts(k).items():
                out[name] = out.get(name, 0.0) + cycles / total
        if self.totals.overhead_s:
            out["dispatch"] = out.get("dispatch", 0.0) + self.totals.overhead_s * self.totals.clock_hz / total
        return dict(sorted(out.items(), key=lambda kv: -kv[1]))

    @cached_property
    def error_band(self) -> Band | None:
        """How far off latencies of this family have been from measured ones; None where nothing was measured."""
        return band_of(self.accelerator.family, len(self.plan.kernels))

    @cached_property
    def bound_s(self) -> float:
        """Speed-of-light bound of one run: the sum over kernels of compute or memory time, whichever is longer."""
        return float(sum(row["bound_s"] for row in self.kernels))

    # -- per kernel ----------------------------------------------------------------------------------------------

    def _per_kernel(self, values: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.bincount(
            self.schedule.kernel[rows], weights=values[rows].astype(float), minlength=len(self.plan.kernels)
        )

    def _parts(self, kernel: int) -> dict[str, int]:
        """Cycles of one kernel by what the machine did or waited for; they add up to its cycles."""
        unit = 2 if self._is_dla[kernel] else 0 if self._is_matrix[kernel] else 1
        parts = {self.totals.units[unit]: int(self.timing.busy[kernel])}
        waits = self.timing.waits[kernel]
        for code in np.flatnonzero(waits):
            label = _NAMES[CAUSES[code]]
            parts[label] = parts.get(label, 0) + int(waits[code])
        return parts

    @cached_property
    def limiters(self) -> tuple[str, ...]:
        """Names of everything a kernel's time is split into, in a fixed order; the columns ``time_<name>_s``."""
        if self.accelerator.family == "systolic":
            return tuple(LIMITERS.values())
        seen = set().union(*(self._parts(k) for k in range(len(self.plan.kernels))))
        known = (*self.totals.units, *_NAMES.values())
        return tuple(name for name in dict.fromkeys(known) if name in seen)

    @cached_property
    def _is_matrix(self) -> np.ndarray[Any, Any]:
        multiplies = self.schedule.unit == UNIT["matrix"]
        if self.accelerator.family == "cpu":  # its cores do both
            multiplies |= (self.schedule.unit == UNIT["cpu"]) & (self.schedule.op == OPERATION["mac"])
        return self._per_kernel(np.ones(self.schedule.rows), multiplies) > 0

    @cached_property
    def _is_dla(self) -> np.ndarray[Any, Any]:
        return self._per_kernel(np.ones(self.schedule.rows), self.schedule.unit == UNIT["dla"]) > 0

    @cached_property
    def _moved(self) -> np.ndarray[Any, Any]:
        return self.schedule.moved_bytes()

    @cached_property
    def _dram_read(self) -> np.ndarray[Any, Any]:
        read = (self._moved * (self.schedule.source == LEVEL["dram"])).sum(axis=1)
        return self._per_kernel(read, np.ones(len(read), bool))

    @cached_property
    def _dram_written(self) -> np.ndarray[Any, Any]:
        written = (self._moved * (self.schedule.target == LEVEL["dram"])).sum(axis=1)
        return self._per_kernel(written, np.ones(len(written), bool))

    @cached_property
    def kernels(self) -> list[dict[str, Any]]:
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
            parts = self._parts(k)
            # Causal attention skips what its mask hides, so its work is what the schedule executes.
            work = (
                int(useful[k]) // max(1, kernel.multiply.passes if kernel.multiply else 1) if useful[k] else kernel.macs
            )
            work = min(work, kernel.macs)  # experts of uneven load are scheduled as if even
            rate = kernel.multiply.rate / kernel.multiply.passes if kernel.multiply else 1.0
            # A 2:4 kernel multiplies by the kept half of its weights alone, at the same rate.
            kept = 0.5 if self.details and self.details[k].get("sparse_chosen") else 1.0
            compute_s = kept * work / (totals.peak_macs * rate * clock)
            memory_s = totals.memory_s(float(self._dram_read[k]), float(self._dram_written[k]))
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
                    "dram_read_bytes": int(self._dram_read[k]),
                    "dram_write_bytes": int(self._dram_written[k]),
                    "on_chip_read_bytes": int(on_chip[k]),
                    "weight_bytes": kernel.weight_bytes,
                    "energy_j": float(sum(v[k] for v in energies.values())),
                    **(self.details[k] if self.details else {}),
                    **{f"time_{name.replace(' ', '_')}_s": parts.get(name, 0) / clock for name in self.limiters},
                    **{f"energy_{name}_j": float(v[k]) for name, v in energies.items()},
                }
            )
        return rows

    @cached_property
    def layers(self) -> pd.DataFrame:
        """The kernels as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.kernels)

    # -- assumptions ---------------------------------------------------------------------------------------------

    @cached_property
    def assumptions(self) -> tuple[str, ...]:
        """Numbers nobody published that this answer rests on, with the reason for each."""
        return tuple(f"{v.path} = {v.text}: {v.source}" for v in self.accelerator.assumed)

    # -- files ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, JSON-ready."""
        options = self.options
        return {
            "hwsim": hwsim.__version__,
            "network": self.network.name,
            "target": self.accelerator.target,
            "options": {
                "batch": options.batch,
                "shapes": dict(options.shapes),
                "phase": options.phase,
                "context": options.context,
                "precision": options.precision
                if isinstance(options.precision, str | None)
                else dict(options.precision),
                "sparsity": options.sparsity,
            },
            "latency_s": self.latency_s,
            "cycles": self.cycles,
            "throughput_per_s": self.throughput_per_s,
            "energy_j": self.energy_j,
            "power_w": self.power_w,
            "dram_bytes": self.dram_bytes,
            "macs": self.macs,
            "utilization": self.utilization,
            "bound_by": self.bound_by,
            "bound_s": self.bound_s,
            "error_band": None if self.error_band is None else asdict(self.error_band),
            "time_shares": self.time_shares,
            "energy_components_j": {
                name: float(v.sum()) * self.totals.used for name, v in self.energy.per_kernel.items()
            },
            "weight_bytes": self.plan.weight_bytes,
            "peak_activation_bytes": self.plan.activation_bytes,
            "kv_cache_bytes": self.plan.cache_bytes,
            "memory": self._memory_dict(),
            "tokens": self._tokens_dict(),
            "parallel": {"groups": self.groups, "ways": self.totals.ways},
            "programs": {"available": self.totals.programs, "used": self.totals.used, "batch_each": self.totals.share},
            "plan": self.plan.digest,
            "machine": self.accelerator.digest,
            "notes": list(self.notes),
            "assumptions": list(self.assumptions),
            "kernels": self.kernels,
        }

    def _memory_dict(self) -> dict[str, Any] | None:
        memory = self.memory
        if memory is None:
            return None
        more = {"need": memory.need, "largest_batch": memory.largest_batch * self.groups}
        return {**asdict(memory), **more, "longest_context": memory.longest_context}

    def _tokens_dict(self) -> dict[str, Any] | None:
        tokens = self.tokens
        if tokens is None:
            return None
        names = ("phase", "new", "past", "per_s", "each_per_s", "ttft_s", "tpot_s")
        return {name: getattr(tokens, name) for name in names}

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the result as JSON text, and write it to ``path`` when given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_whole(path, text + "\n")
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the per-kernel table as CSV text, and write it to ``path`` when given."""
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, list(self.kernels[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(self.kernels)
        if path is not None:
            write_whole(path, buffer.getvalue())
        return buffer.getvalue()

    def to_parquet(self, path: str | Path) -> None:
        """Write the per-kernel table as Parquet (extra ``parquet``)."""
        from hwsim.report.parquet import write_parquet

        write_parquet(self.kernels, path)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the result as one self-contained HTML page, and write it to ``path`` when given."""
        from hwsim.report.html import html_page

        page = html_page(self)
        if path is not None:
            write_whole(path, page)
        return page

    def to_perfetto(self, path: str | Path | None = None) -> str:
        """Return the timeline as Chrome JSON (ui.perfetto.dev), and write it to ``path`` when given (``.gz``: packed)."""
        from hwsim.report.perfetto import packed, perfetto_json

        trace = perfetto_json(self)
        if path is not None:
            write_whole(path, packed(trace) if str(path).endswith(".gz") else trace)
        return trace

    def to_profile(self, path: str | Path | None = None) -> str:
        """Return time per kernel in the JSON form of trtexec's profile, and write it to ``path`` when given."""
        from hwsim.report.profile import profile_json

        profile = profile_json(self)
        if path is not None:
            write_whole(path, profile)
        return profile

    def __repr__(self) -> str:
        return (
            f"<Result {self.network.name} on {self.accelerator.target}, batch {self.totals.batch}: "
            f"{self.latency_s * 1e3:.4g} ms, {self.energy_j * 1e3:.4g} mJ, bound by {self.bound_by}>"
        )
