"""Serving in batches: the question with its machines, one run of it, and what the requests met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

import hwsim
from hwsim.costs import Prices
from hwsim.machine import Accelerator
from hwsim.serving import engine, statistics
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.base import Answer, Flags, Ints, cost_dict, or_nan, pick
from hwsim.serving.fleet import Batching, Group, Model, kinds, with_tables
from hwsim.serving.host import Host, through, through_unsorted
from hwsim.serving.load import Load
from hwsim.serving.setup import NEVER, SERVED, Outcome, Requests, Setup
from hwsim.serving.statistics import Spread

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "network", "targets", "machines", "requests", "served", "rejected", "timed_out", "verdict", "objective_s",
    "percentile", "in_time", "asked_per_s", "served_per_s", "in_time_per_s", "mean_s", "mean_error_s", "p50_s", "p90_s",
    "p99_s", "p99.9_s", "most_s", "wait_mean_s", "wait_p99_s", "service_mean_s", "mean_batch", "busy", "queue_mean",
    "queue_most", "energy_each_j", "busy_j", "idle_j", "usd_per_million",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a run needs besides the load; ``percentile`` per cent are to be answered within ``within_s``."""

    models: tuple[Model, ...]
    groups: tuple[Group, ...]
    within_s: float | None
    percentile: float
    batching: Batching
    routing: str
    order: str
    queue_capacity: int | None
    timeout_s: float | None
    concurrent: int
    host: Host
    warmup: float
    swap_bytes_per_s: float | None
    prices: Prices

    @property
    def has_objective(self) -> bool:
        """Whether there is something to meet."""
        return self.within_s is not None

    def times(self, number: int) -> Question:
        """Return the question with ``number`` times the machines."""
        return replace(self, groups=tuple(replace(g, count=g.count * number) for g in self.groups))

    def variants(self) -> list[Question]:
        """Return the question with the largest batches asked for, or by two rules worth trying.

        Without a size, with an objective: of the batches that fit twice in it (one running when a request comes, and its
        own) the one with the highest rate, and the same of those that fit once.
        """
        twice = self._batched(2.0)
        if self.batching.largest is not None or self.within_s is None:
            return [twice]
        once = self._batched(1.0)
        return [twice] if [g.tables for g in once.groups] == [g.tables for g in twice.groups] else [twice, once]

    def _batched(self, waits: float) -> Question:
        batching = replace(self.batching, waits=waits)
        return replace(self, batching=batching, groups=with_tables(self.groups, batching, self.within_s))

    def most_per_s(self, load: Load) -> float:
        """Requests per second that the fleet serves at its best, every machine its share of each network."""
        total = 0.0
        for group in self.groups:
            pairs = [(m.share, t) for m, t in zip(self.models, group.tables, strict=True) if t is not None]
            seconds = sum(share / table.most_per_s for share, table in pairs)
            total += group.count * sum(share for share, _ in pairs) / seconds if seconds else 0.0
        return total / load.mean_samples

    def reachable(self) -> bool:
        """Whether requests that meet empty machines would meet the objective."""
        if self.within_s is None:
            return True
        share = 0.0
        for m, model in enumerate(self.models):
            alone = [g.services[m].at(1).latency_s for g in self.groups if g.tables[m] is not None]
            if min(alone) + self.host.before_s + self.host.after_s <= self.within_s:
                share += model.share
        return share >= self.percentile / 100 - 1e-9

    def setup(self) -> Setup:
        """Return machines and rules as the engines see them."""
        return Setup(
            kinds(self.groups, self.swap_bytes_per_s),
            tuple(g for g, group in enumerate(self.groups) for _ in range(group.count)),
            tuple(round(self.batching.delay_s * SECOND_NS) for _ in self.models),
            self.routing,
            self.order,
            self.queue_capacity,
            None if self.timeout_s is None else round(self.timeout_s * SECOND_NS),
            self.concurrent,
        )

    def run(self, load: Load, progress: Callable[[int], None] | None = None) -> Serving:
        """Return what ``load`` meets on the machines (of which the tables are filled)."""
        setup, host = self.setup(), self.host
        requests = load.requests([m.share for m in self.models], [m.net.name for m in self.models])
        if load.clients:  # they wait for the host too: a longer pause between two queueings
            extra = host.before_ns + host.after_ns
            outcome = engine.run(setup, replace(requests, pause_ns=requests.pause_ns + extra), progress)
            return Serving(self, load, setup, outcome, requests, outcome.arrival_ns, outcome.finish_ns + extra)
        asked = np.array(requests.arrival_ns, np.int64)
        ready = through(asked, host.before_ns, host.workers)
        outcome = engine.run(setup, replace(requests, arrival_ns=ready.tolist()), progress)
        done = np.full(len(asked), NEVER, np.int64)
        served = outcome.status == SERVED
        done[served] = through_unsorted(outcome.finish_ns[served], host.after_ns, host.workers)
        return Serving(self, load, setup, outcome, requests, asked, done)


class Serving(Answer):
    """The answer of `serve` for networks in batches."""

    def __init__(
        self,
        question: Question,
        load: Load,
        setup: Setup,
        outcome: Outcome,
        asked: Requests,
        asked_ns: Ints,
        done_ns: Ints,
    ) -> None:
        super().__init__(load, question.prices, question.warmup, question.percentile, outcome.status, asked_ns, done_ns)
        self.question, self.setup, self.outcome = question, setup, outcome
        self.model_of, self.samples = np.array(asked.model, np.int64), np.array(asked.samples, np.int64)

    @property
    def networks(self) -> list[str]:
        """The networks' names."""
        return [m.net.name for m in self.question.models]

    @property
    def fleet(self) -> list[tuple[Accelerator, int, float]]:
        """The machines: each kind, how many of it, watts of a waiting one."""
        return [(g.acc, g.count, g.idle_w) for g in self.question.groups]

    @cached_property
    def timely(self) -> Flags | None:
        """Which requests were answered within the objective; None without one."""
        within = self.question.within_s
        if within is None:
            return None
        flags: Flags = self.done_ns - self.asked_ns <= within * SECOND_NS + 0.5
        return flags

    @cached_property
    def wait(self) -> Spread:
        """The time in the queue of a machine."""
        return self.spread_of(self.outcome.start_ns - self.outcome.arrival_ns)

    @cached_property
    def service(self) -> Spread:
        """The time on a machine, from the first sample's start to the last one's result."""
        return self.spread_of(self.outcome.finish_ns - self.outcome.start_ns)

    # -- machines ------------------------------------------------------------------------------------------------

    @property
    def most_per_s(self) -> float:
        """Requests per second the fleet serves back to back in its best batches."""
        return self.question.most_per_s(self.load)

    @property
    def units(self) -> Ints:
        """Inferences each request asks for."""
        return self.samples

    @cached_property
    def uses(self) -> list[statistics.Use]:
        """How each machine spent the run."""
        return statistics.uses(self.outcome, len(self.setup.machines), self.horizon_ns)

    @property
    def busy(self) -> float:
        """Share of the machines' time in which they compute or load weights."""
        return sum(u.busy + u.loading for u in self.uses) / len(self.uses)

    @property
    def mean_batch(self) -> float:
        """Samples of a batch, on average."""
        batches = sum(u.batches for u in self.uses)
        return sum(u.samples for u in self.uses) / batches if batches else 0.0

    @cached_property
    def queue(self) -> statistics.Queue:
        """Requests waiting, over all queues."""
        return statistics.queue(self.outcome, self.horizon_ns, self.setup.timeout_ns)

    @cached_property
    def energies_j(self) -> tuple[float, float]:
        """Joules of the batches, and of everything else the machines did or waited for."""
        table, busy, idle = self.outcome.batches, 0.0, 0.0
        kind_of = np.array(self.setup.machines, np.int64)[table["machine"]]
        for g, group in enumerate(self.question.groups):
            joules = nominal_s = 0.0
            for m, costs in enumerate(group.tables):
                if costs is None:
                    continue
                sizes = np.bincount(
                    table["samples"][(kind_of == g) & (table["model"] == m)], minlength=costs.largest + 1
                )
                joules += float(sizes @ np.array(costs.energy_j))
                nominal_s += float(sizes @ np.array(costs.span_ns)) / SECOND_NS
            busy += joules
            idle += group.idle_w * (group.count * self.horizon_s - nominal_s)
        return busy, idle

    # -- tables --------------------------------------------------------------------------------------------------

    @cached_property
    def by_model(self) -> list[dict[str, Any]]:
        """One row a network: requests, share in time, latency, mean batch, times it was loaded."""
        rows, table = [], self.outcome.batches
        times = self.done_ns - self.asked_ns
        for m, model in enumerate(self.question.models):
            mine, batches = self.model_of == m, table["model"] == m
            counted, number = int(np.count_nonzero(mine & self.counted)), int(np.count_nonzero(batches))
            timely = self.timely
            rows.append(
                {
                    "network": model.net.name,
                    "requests": int(np.count_nonzero(mine)),
                    "in_time": None
                    if timely is None or not counted
                    else int(np.count_nonzero(mine & self.good & timely)) / counted,
                    "mean_batch": int(table["samples"][batches].sum()) / number if number else 0.0,
                    "loads": int(np.count_nonzero(batches & (table["loading_ns"] > 0))),
                    **self.spread_of(times, mine).to_dict(),
                }
            )
        return rows

    @cached_property
    def by_group(self) -> list[dict[str, Any]]:
        """One row a kind of machine: how many, how busy the least and the most is, batches, largest batch by network."""
        rows, first = [], 0
        for group in self.question.groups:
            uses = self.uses[first : first + group.count]
            first += group.count
            shares = [u.busy + u.loading for u in uses]
            batches = sum(u.batches for u in uses)
            rows.append(
                {
                    "target": group.acc.target,
                    "machines": group.count,
                    "formats": [s.format for s in group.services],
                    "max_batch": [0 if t is None else t.largest for t in group.tables],
                    "busy": sum(shares) / len(shares),
                    "busy_least": min(shares),
                    "busy_most": max(shares),
                    "loading": sum(u.loading for u in uses) / len(uses),
                    "batches": batches,
                    "mean_batch": sum(u.samples for u in uses) / batches if batches else 0.0,
                    "refused": {
                        m.net.name: s.refused
                        for m, s in zip(self.question.models, group.services, strict=True)
                        if s.refused
                    },
                }
            )
        return rows

    @cached_property
    def batch_sizes(self) -> dict[int, int]:
        """How many batches had how many samples."""
        counts = np.bincount(self.outcome.batches["samples"]).tolist()
        return {size: count for size, count in enumerate(counts) if count}

    @property
    def row(self) -> dict[str, Any]:
        """The answer as one row: the columns of the CSV file."""
        wait, service = self.wait.to_dict(), self.service.to_dict()
        row = {
            **self.common,
            **self.latency.to_dict(),
            "objective_s": self.question.within_s,
            "wait_mean_s": wait["mean_s"],
            "wait_p99_s": wait["p99_s"],
            "service_mean_s": service["mean_s"],
            "mean_batch": self.mean_batch,
            "queue_mean": self.queue.mean,
            "queue_most": self.queue.most,
            "energy_each_j": self.energy_each_j,
        }
        return pick(row, COLUMNS)

    @property
    def requests(self) -> pd.DataFrame:
        """One row a request: when asked, queued, begun, finished and answered (s), on which machine, in what batch."""
        import pandas as pd

        outcome = self.outcome
        columns: dict[str, Any] = {
            "asked_s": self.asked_ns / SECOND_NS,
            "network": np.array(self.networks)[self.model_of],
            "queued_s": outcome.arrival_ns / SECOND_NS,
            "start_s": or_nan(outcome.start_ns),
            "finish_s": or_nan(outcome.finish_ns),
            "done_s": or_nan(self.done_ns),
            "machine": outcome.machine,
            "batch": outcome.batch,
            "status": np.array(["served", "rejected", "timed out"])[outcome.status],
        }
        return pd.DataFrame(columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, what is included and left out, every price with its date."""
        from hwsim.serving.notes import batch_notes

        return batch_notes(self)

    def text(self) -> str:
        """The answer for a terminal, at most 120 columns wide."""
        from hwsim.serving.text import batch_text

        return batch_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but single requests as plain data, JSON-ready."""
        return {
            "hwsim": hwsim.__version__,
            "load": self.load.words(),
            "searched": self.searched,
            **self.row,
            "latency": self.latency.to_dict(),
            "wait": self.wait.to_dict(),
            "service": self.service.to_dict(),
            "load_factor": self.load_factor,
            "inferences_per_s": self.made_per_s,
            "horizon_s": self.horizon_s,
            "power_w": self.power_w,
            "cost": cost_dict(self.cost),
            "networks": self.by_model,
            "groups": self.by_group,
            "batch_sizes": {str(size): count for size, count in self.batch_sizes.items()},
            "notes": list(self.notes),
        }
