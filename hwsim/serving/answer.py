"""serve: what a load of requests meets on a fleet of machines: waiting, objectives met, energy, money."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import hwsim
from hwsim.costs import Cost, Prices, fleet_cost
from hwsim.files import write_whole
from hwsim.serving import engine, statistics
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.fleet import Batching, Group, Model, kinds, with_tables
from hwsim.serving.host import Host, through_unsorted
from hwsim.serving.host import through as through_host
from hwsim.serving.load import Load
from hwsim.serving.setup import NEVER, REJECTED, SERVED, TIMED_OUT, Outcome, Setup
from hwsim.serving.statistics import Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

Ints = npt.NDArray[np.int64]

COLUMNS = (
    "network", "targets", "machines", "requests", "served", "rejected", "timed_out", "verdict", "objective_s",
    "percentile", "in_time", "asked_per_s", "served_per_s", "in_time_per_s", "mean_s", "mean_error_s", "p50_s", "p90_s",
    "p99_s", "p99.9_s", "most_s", "wait_mean_s", "wait_p99_s", "service_mean_s", "mean_batch", "busy", "queue_mean",
    "queue_most", "energy_j", "busy_j", "idle_j", "usd_per_million",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objective:
    """``percentile`` per cent of the requests are to be answered within ``within_s``; None asks for nothing."""

    within_s: float | None
    percentile: float

    def met(self, share: float | None) -> bool:
        """Whether this share of requests in time is enough."""
        return share is not None and share >= self.percentile / 100 - 1e-12


@dataclass(frozen=True, slots=True)
class Question:
    """Everything a run needs besides the load and the number of machines."""

    models: tuple[Model, ...]
    groups: tuple[Group, ...]
    objective: Objective
    batching: Batching
    routing: str
    order: str
    queue_capacity: int | None
    timeout_s: float | None
    host: Host
    warmup: float
    swap_bytes_per_s: float | None
    prices: Prices

    def batched(self, waits: float) -> Question:
        """Return the question with the tables of one rule for the largest batch."""
        batching = replace(self.batching, waits=waits)
        return replace(self, batching=batching, groups=with_tables(self.groups, batching, self.objective.within_s))

    def times(self, number: int) -> Question:
        """Return the question with ``number`` times the machines."""
        return replace(self, groups=tuple(replace(g, count=g.count * number) for g in self.groups))

    @property
    def most_per_s(self) -> float:
        """Requests of one sample per second that the fleet serves at its best, every machine its share of each network."""
        total = 0.0
        for group in self.groups:
            seconds = sum(
                m.share / t.most_per_s for m, t in zip(self.models, group.tables, strict=True) if t is not None
            )
            served = sum(m.share for m, t in zip(self.models, group.tables, strict=True) if t is not None)
            total += group.count * served / seconds if seconds else 0.0
        return total

    def setup(self) -> Setup:
        """Return machines and rules as the engines see them."""
        numbers = [g for g, group in enumerate(self.groups) for _ in range(group.count)]
        return Setup(
            kinds(self.groups, self.swap_bytes_per_s),
            tuple(numbers),
            tuple(round(self.batching.delay_s * SECOND_NS) for _ in self.models),
            self.routing,
            self.order,
            self.queue_capacity,
            None if self.timeout_s is None else round(self.timeout_s * SECOND_NS),
        )


def answer(question: Question, load: Load, progress: Callable[[int], None] | None = None) -> Serving:
    """Return what ``load`` meets on the machines of ``question`` (of which the tables are filled)."""
    setup, host = question.setup(), question.host
    requests = load.requests([m.share for m in question.models], [m.net.name for m in question.models])
    if load.clients:  # they wait for the host too: a longer pause between two queueings
        asks = replace(requests, pause_ns=requests.pause_ns + host.before_ns + host.after_ns)
        outcome = engine.run(setup, asks, progress)
        return Serving(
            question, load, setup, outcome, outcome.arrival_ns, outcome.finish_ns + host.before_ns + host.after_ns
        )
    asked = np.array(requests.arrival_ns, np.int64)
    ready = through_host(asked, host.before_ns, host.workers)
    outcome = engine.run(setup, replace(requests, arrival_ns=ready.tolist()), progress)
    done = np.full(len(asked), NEVER, np.int64)
    served = outcome.status == SERVED
    done[served] = through_unsorted(outcome.finish_ns[served], host.after_ns, host.workers)
    return Serving(question, load, setup, outcome, asked, done)


class Serving:
    """The answer of `serve`: percentiles, rates, use, energy and money as attributes; ``requests`` one row each.

    Times are seconds from a request to its answer, host included. ``searched`` says in words what a search found.
    """

    def __init__(
        self, question: Question, load: Load, setup: Setup, outcome: Outcome, asked_ns: Ints, done_ns: Ints
    ) -> None:
        self.question, self.load, self.setup, self.outcome = question, load, setup, outcome
        self.asked_ns, self.done_ns = asked_ns, done_ns
        self.searched: dict[str, Any] = {}

    # -- requests ------------------------------------------------------------------------------------------------

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """Which requests the figures of latency count: not those of the warm-up."""
        return statistics.measured(self.outcome, self.question.warmup)

    @cached_property
    def _good(self) -> npt.NDArray[np.bool_]:
        good: npt.NDArray[np.bool_] = self.counted & (self.outcome.status == SERVED)
        return good

    @cached_property
    def model_of(self) -> Ints:
        """The number of the network each request asks for."""
        shares, names = [m.share for m in self.question.models], self.networks
        return np.array(
            self.load.requests(shares, names).model if len(shares) > 1 else [0] * len(self.asked_ns), np.int64
        )

    @property
    def networks(self) -> list[str]:
        """The networks' names."""
        return [m.net.name for m in self.question.models]

    def latency_of(self, which: npt.NDArray[np.bool_]) -> Spread:
        """Return the distribution of the time to the answer of some requests."""
        chosen = which & self._good
        asked = self.question.objective.percentile
        quantiles = tuple(sorted({*statistics.PERCENTILES, asked}))
        return statistics.spread(self.done_ns[chosen] - self.asked_ns[chosen], quantiles)

    @cached_property
    def latency(self) -> Spread:
        """The time from a request to its answer."""
        return self.latency_of(self.counted)

    @cached_property
    def wait(self) -> Spread:
        """The time in the queue of a machine."""
        return statistics.spread((self.outcome.start_ns - self.outcome.arrival_ns)[self._good])

    @cached_property
    def service(self) -> Spread:
        """The time on a machine, from the first sample's start to the last one's result."""
        return statistics.spread((self.outcome.finish_ns - self.outcome.start_ns)[self._good])

    @cached_property
    def dropped(self) -> dict[str, int]:
        """Requests rejected at a full queue, and those that left after the timeout."""
        status = self.outcome.status
        return {
            "rejected": int(np.count_nonzero(status == REJECTED)),
            "timed_out": int(np.count_nonzero(status == TIMED_OUT)),
        }

    @cached_property
    def in_time(self) -> float | None:
        """The share of the counted requests answered within the objective; dropped ones are not. None without one."""
        within = self.question.objective.within_s
        if within is None:
            return None
        late = self.done_ns - self.asked_ns > within * SECOND_NS + 0.5
        return float(np.count_nonzero(self._good & ~late)) / max(1, int(np.count_nonzero(self.counted)))

    @property
    def verdict(self) -> str:
        """``PASS`` or ``FAIL`` against the objective, ``""`` without one."""
        if self.question.objective.within_s is None:
            return ""
        return "PASS" if self.question.objective.met(self.in_time) else "FAIL"

    # -- rates ---------------------------------------------------------------------------------------------------

    @cached_property
    def horizon_s(self) -> float:
        """Seconds from the first request to the last answer."""
        return self._horizon_ns / SECOND_NS

    @cached_property
    def _horizon_ns(self) -> int:
        last = max(int(self.done_ns.max(initial=0)), int(self.asked_ns[-1]) if len(self.asked_ns) else 0)
        return max(1, last - int(self.asked_ns[0]))

    @cached_property
    def served_per_s(self) -> float:
        """Requests answered per second of the run."""
        return float(np.count_nonzero(self.outcome.status == SERVED)) / self.horizon_s

    @cached_property
    def samples_per_s(self) -> float:
        """Inferences per second of the run."""
        return float(self.outcome.batches["samples"].sum()) / self.horizon_s

    @property
    def in_time_per_s(self) -> float:
        """Requests answered within the objective per second of the run; all answered ones without an objective."""
        if self.in_time is None:
            return self.served_per_s
        answered = float(np.count_nonzero(self._good)) / max(1, int(np.count_nonzero(self.counted)))
        return self.served_per_s * self.in_time / answered if answered else 0.0

    @property
    def load_factor(self) -> float | None:
        """Asked rate over the most the fleet serves, back to back in its best batches; None where nothing is asked."""
        asked = self.load.asked_per_s
        if asked is None:
            return None
        return asked * self.load.mean_samples / self.question.most_per_s

    # -- machines ------------------------------------------------------------------------------------------------

    @cached_property
    def uses(self) -> list[statistics.Use]:
        """How each machine spent the run."""
        return statistics.uses(self.outcome, len(self.setup.machines), self._horizon_ns)

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
        return statistics.queue(self.outcome, self._horizon_ns, self.setup.timeout_ns)

    @cached_property
    def _energy(self) -> tuple[float, float]:
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

    @property
    def busy_j(self) -> float:
        """Joules of the batches, the static power of the machine that runs one included."""
        return self._energy[0]

    @property
    def idle_j(self) -> float:
        """Joules of waiting and loading machines."""
        return self._energy[1]

    @property
    def energy_j(self) -> float:
        """Joules of the run."""
        return self.busy_j + self.idle_j

    @property
    def power_w(self) -> float:
        """Average watts of the fleet."""
        return self.energy_j / self.horizon_s

    @property
    def energy_per_inference_j(self) -> float:
        """Joules of the run over its inferences, waiting included."""
        return self.energy_j / max(1.0, float(self.outcome.batches["samples"].sum()))

    @cached_property
    def cost(self) -> Cost | None:
        """What a million inferences in time cost; None when there are none."""
        good = self.samples_per_s * (self.in_time_per_s / self.served_per_s if self.served_per_s else 0.0)
        if good <= 0:
            return None
        groups = self.question.groups
        return fleet_cost(
            self.question.prices,
            [(g.acc, g.count) for g in groups],
            served_per_s=good,
            power_w=self.power_w,
            idle_w=sum(g.idle_w * g.count for g in groups),
            busy=self.busy,
        )

    # -- tables --------------------------------------------------------------------------------------------------

    @property
    def targets(self) -> str:
        """The machines as they are written: ``4xtpu-v5e,tpu-v4``."""
        return ",".join(g.acc.target if g.count == 1 else f"{g.count}x{g.acc.target}" for g in self.question.groups)

    @cached_property
    def by_model(self) -> list[dict[str, Any]]:
        """One row a network: requests, share in time, latency, mean batch."""
        rows, table = [], self.outcome.batches
        within = self.question.objective.within_s
        for m, model in enumerate(self.question.models):
            mine = self.model_of == m
            counted = int(np.count_nonzero(mine & self.counted))
            good = mine & self._good
            late = self.done_ns - self.asked_ns > (within or math.inf) * SECOND_NS + 0.5
            batches = int(np.count_nonzero(table["model"] == m))
            rows.append(
                {
                    "network": model.net.name,
                    "requests": int(np.count_nonzero(mine)),
                    "in_time": None if within is None or not counted else int(np.count_nonzero(good & ~late)) / counted,
                    "mean_batch": int(table["samples"][table["model"] == m].sum()) / batches if batches else 0.0,
                    "loads": int(np.count_nonzero((table["model"] == m) & (table["loading_ns"] > 0))),
                    **self.latency_of(mine).to_dict(),
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
        latency = self.latency.to_dict()
        row: dict[str, Any] = {
            "network": "+".join(self.networks),
            "targets": self.targets,
            "machines": len(self.setup.machines),
            "requests": len(self.asked_ns),
            "served": int(np.count_nonzero(self.outcome.status == SERVED)),
            **self.dropped,
            "verdict": self.verdict,
            "objective_s": self.question.objective.within_s,
            "percentile": self.question.objective.percentile,
            "in_time": self.in_time,
            "asked_per_s": self.load.asked_per_s,
            "served_per_s": self.served_per_s,
            "in_time_per_s": self.in_time_per_s,
            **{name: latency.get(name) for name in COLUMNS if name in latency},
            "wait_mean_s": self.wait.to_dict()["mean_s"],
            "wait_p99_s": self.wait.to_dict()["p99_s"],
            "service_mean_s": self.service.to_dict()["mean_s"],
            "mean_batch": self.mean_batch,
            "busy": self.busy,
            "queue_mean": self.queue.mean,
            "queue_most": self.queue.most,
            "energy_j": self.energy_per_inference_j,
            "busy_j": self.busy_j,
            "idle_j": self.idle_j,
            "usd_per_million": None if self.cost is None else self.cost.least,
        }
        return {name: row[name] for name in COLUMNS}

    @property
    def requests(self) -> pd.DataFrame:
        """One row a request: when asked, queued, begun, finished and answered (s), on which machine, in what batch."""
        import pandas as pd

        outcome = self.outcome
        columns: dict[str, Any] = {
            "asked_s": self.asked_ns / SECOND_NS,
            "network": np.array(self.networks)[self.model_of],
            "queued_s": outcome.arrival_ns / SECOND_NS,
            "start_s": _or_nan(outcome.start_ns),
            "finish_s": _or_nan(outcome.finish_ns),
            "done_s": _or_nan(self.done_ns),
            "machine": outcome.machine,
            "batch": outcome.batch,
            "status": np.array(["served", "rejected", "timed out"])[outcome.status],
        }
        return pd.DataFrame(columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen, what is included and left out, every price with its date."""
        from hwsim.serving.notes import notes

        return notes(self)

    # -- files ---------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but single requests as plain data, JSON-ready."""
        cost = self.cost
        return {
            "hwsim": hwsim.__version__,
            "load": self.load.words(),
            "searched": self.searched,
            **self.row,
            "latency": self.latency.to_dict(),
            "wait": self.wait.to_dict(),
            "service": self.service.to_dict(),
            "load_factor": self.load_factor,
            "samples_per_s": self.samples_per_s,
            "horizon_s": self.horizon_s,
            "power_w": self.power_w,
            "cost": None if cost is None else _cost_dict(cost),
            "networks": self.by_model,
            "groups": self.by_group,
            "batch_sizes": {str(size): count for size, count in self.batch_sizes.items()},
            "notes": list(self.notes),
        }

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the answer as JSON text, and write it to ``path`` when given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_whole(path, text + "\n")
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the answer as one row of CSV under its header, and write it to ``path`` when given."""
        return _csv([self.row], COLUMNS, path)

    def requests_csv(self, path: str | Path | None = None) -> str:
        """Return every request as a row of CSV, and write it to ``path`` when given."""
        text = str(self.requests.to_csv(index=False, lineterminator="\n"))
        if path is not None:
            write_whole(path, text)
        return text

    def __repr__(self) -> str:
        name, mean_ms = "+".join(self.networks), self.latency.mean_s * 1e3
        return f"<Serving {name} on {self.targets}: mean {mean_ms:.4g} ms, {self.served_per_s:.4g}/s {self.verdict}>"


def _or_nan(times_ns: Ints) -> npt.NDArray[np.float64]:
    return np.where(times_ns < 0, np.nan, times_ns / SECOND_NS)


def _cost_dict(cost: Cost) -> dict[str, Any]:
    names = ("units", "busy", "rent", "hardware", "electricity", "buy", "carbon_g", "least", "basis")
    return {name: getattr(cost, name) for name in names}


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: str | Path | None) -> str:
    buffer = io.StringIO()
    table = csv.DictWriter(buffer, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    if path is not None:
        write_whole(path, buffer.getvalue())
    return buffer.getvalue()
