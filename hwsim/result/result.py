"""Result: what a run costs, in total and per kernel, with the reason for every number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.bands import Band, band_of
from hwsim.files import write_whole
from hwsim.language import Tokens, tokens_of
from hwsim.machine import Accelerator
from hwsim.network.graph import Network
from hwsim.plan.memory import Memory, memory_of
from hwsim.plan.options import RunOptions
from hwsim.plan.plan import Plan
from hwsim.result.kernels import KernelTable
from hwsim.result.plain import plain_data
from hwsim.result.totals import Totals
from hwsim.result.traffic import traffic
from hwsim.schedule.table import Schedule
from hwsim.timing.run import Timing

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.energy.reading import Energy


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
        told = [self.memory.beyond] if self.memory is not None and self.memory.beyond else []
        self.notes = tuple(dict.fromkeys([*told, *notes, *energy.notes]))
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
        return int(self._table.dram_read.sum() + self._table.dram_written.sum()) * self.totals.used

    @property
    def traffic(self) -> list[dict[str, Any]]:
        """Bytes every memory moved in one run of all programs, beside the least any schedule of these kernels could.

        One dictionary per memory: ``memory``, ``read_bytes``, ``written_bytes``, ``compulsory_bytes`` (every operand of
        every kernel once; in off-chip memory those that live there, less what a cache above holds), ``ratio``, and
        ``network_bytes``, the same if nothing but weights, inputs and results of the whole network left the chip.
        """
        return traffic(self.plan, self.energy, self.accelerator, self.totals.used)

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
            for name, cycles in self._table.parts(k).items():
                out[name] = out.get(name, 0.0) + cycles / total
        if self.totals.overhead_s:
            out["dispatch"] = out.get("dispatch", 0.0) + self.totals.overhead_s * self.totals.clock_hz / total
        return dict(sorted(out.items(), key=lambda kv: -kv[1]))

    @cached_property
    def error_band(self) -> Band | None:
        """How far off latencies of this family have been from measured ones; None where nothing was measured."""
        return band_of(self.accelerator.family, len(self.plan.kernels), engine=self._table.uses_engine,
                       tokens=self.tokens is not None)  # fmt: skip

    @cached_property
    def bound_s(self) -> float:
        """Speed-of-light bound of one run: the sum over kernels of compute or memory time, whichever is longer."""
        return float(sum(row["bound_s"] for row in self.kernels))

    # -- per kernel ----------------------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> KernelTable:
        family, details = self.accelerator.family, self.details
        return KernelTable(
            self.plan, self.schedule, self.timing, self.energy, self.totals, self.latency_s, family, details
        )

    @property
    def limiters(self) -> tuple[str, ...]:
        """Names of everything a kernel's time is split into, in a fixed order; the columns ``time_<name>_s``."""
        return self._table.limiters

    @property
    def kernels(self) -> list[dict[str, Any]]:
        """One dictionary per kernel of one program: what it is, what it costs and why (units in the names)."""
        return self._table.rows

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
        return plain_data(self)

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
