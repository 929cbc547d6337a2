"""What every serving answer has: which requests count, shares in time, rates, energy, money, files."""

from __future__ import annotations

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.costs import Cost, Prices, fleet_cost
from hwsim.files import write_whole
from hwsim.machine import Accelerator
from hwsim.serving import statistics
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.load import Load
from hwsim.serving.setup import REJECTED, SERVED, TIMED_OUT
from hwsim.serving.statistics import Spread

if TYPE_CHECKING:
    import pandas as pd

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Answer(ABC):
    """An answer of `serve`: figures as attributes, ``requests`` one row each, text and files of it.

    Times are seconds from a request to its answer, host work included. ``searched`` says what a search found.
    """

    unit = "inference"  # what is counted in energy and money

    def __init__(
        self, load: Load, prices: Prices, warmup: float, percentile: float, status: Ints, asked_ns: Ints, done_ns: Ints
    ) -> None:
        self.load, self.prices, self.warmup, self.percentile = load, prices, warmup, percentile
        self.status, self.asked_ns, self.done_ns = status, asked_ns, done_ns
        self.searched: dict[str, Any] = {}

    # -- what a kind of answer says itself -------------------------------------------------------------------------

    @property
    @abstractmethod
    def networks(self) -> list[str]:
        """The networks' names."""

    @property
    @abstractmethod
    def fleet(self) -> list[tuple[Accelerator, int, float]]:
        """The machines: each kind, how many of it, watts of a waiting one."""

    @property
    @abstractmethod
    def timely(self) -> Flags | None:
        """Which requests met the objective; None without one."""

    @property
    @abstractmethod
    def most_per_s(self) -> float:
        """About how many requests per second the machines serve at their best."""

    @property
    @abstractmethod
    def busy(self) -> float:
        """Share of the machines' time in which they work."""

    @property
    @abstractmethod
    def energies_j(self) -> tuple[float, float]:
        """Joules of the work, and of everything else the machines did or waited for."""

    @property
    @abstractmethod
    def units(self) -> Ints:
        """How many units (inferences, tokens) each request asks for."""

    @property
    @abstractmethod
    def row(self) -> dict[str, Any]:
        """The answer as one row: the columns of the CSV file."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything but single requests as plain data, JSON-ready."""

    @property
    @abstractmethod
    def requests(self) -> pd.DataFrame:
        """One row a request."""

    @property
    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """What was chosen, what is included and left out, every price with its date."""

    @abstractmethod
    def text(self) -> str:
        """The answer for a terminal, at most 120 columns wide."""

    # -- requests ------------------------------------------------------------------------------------------------

    @cached_property
    def counted(self) -> Flags:
        """Which requests the figures of latency count: not those of the warm-up."""
        counts = np.ones(len(self.status), bool)
        counts[: math.floor(self.warmup * len(self.status))] = False
        return counts

    @cached_property
    def good(self) -> Flags:
        """Which of the counted requests were answered."""
        answered: Flags = self.counted & (self.status == SERVED)
        return answered

    @cached_property
    def latency(self) -> Spread:
        """The time from a request to its answer."""
        return self.spread_of(self.done_ns - self.asked_ns)

    def spread_of(self, times_ns: Ints, which: Flags | None = None) -> Spread:
        """Return the distribution of some time of the requests that count and were answered."""
        chosen = self.good if which is None else self.good & which
        quantiles = tuple(sorted({*statistics.PERCENTILES, self.percentile}))
        return statistics.spread(times_ns[chosen], quantiles)

    @cached_property
    def dropped(self) -> dict[str, int]:
        """Requests rejected at a full queue, and those that left after the timeout."""
        return {
            "rejected": int(np.count_nonzero(self.status == REJECTED)),
            "timed_out": int(np.count_nonzero(self.status == TIMED_OUT)),
        }

    @cached_property
    def in_time(self) -> float | None:
        """The share of the counted requests that met the objective; dropped ones did not. None without one."""
        timely = self.timely
        if timely is None:
            return None
        return float(np.count_nonzero(self.good & timely)) / max(1, int(np.count_nonzero(self.counted)))

    @property
    def verdict(self) -> str:
        """``PASS`` or ``FAIL`` against the objective, ``""`` without one."""
        if self.in_time is None:
            return ""
        return "PASS" if self.in_time >= self.percentile / 100 - 1e-12 else "FAIL"

    # -- rates, energy, money ------------------------------------------------------------------------------------

    @cached_property
    def horizon_ns(self) -> int:
        """Nanoseconds from the first request to the last answer."""
        last = max(int(self.done_ns.max(initial=0)), int(self.asked_ns[-1]) if len(self.asked_ns) else 0)
        return max(1, last - int(self.asked_ns[0]))

    @property
    def horizon_s(self) -> float:
        """Seconds from the first request to the last answer."""
        return self.horizon_ns / SECOND_NS

    @cached_property
    def _window(self) -> tuple[Flags, float]:
        """The requests that rates count, and the seconds they are counted over.

        Where requests come by themselves: the answers from the first request that counts to the last that comes, without
        the time in which the queues fill and drain. Else all of them over the whole run.
        """
        served = self.status == SERVED
        if self.load.open and len(self.asked_ns) > 1:
            begin, end = int(self.asked_ns[np.argmax(self.counted)]), int(self.asked_ns[-1])
            inside: Flags = served & (self.done_ns >= begin) & (self.done_ns <= end)
            if np.count_nonzero(inside) > 1:
                return inside, (end - begin) / SECOND_NS
        return served, self.horizon_s

    @cached_property
    def served_per_s(self) -> float:
        """Requests answered per second, while they come."""
        which, seconds = self._window
        return float(np.count_nonzero(which)) / seconds

    @cached_property
    def made_per_s(self) -> float:
        """Units (inferences, tokens) per second, of requests answered while they come."""
        return self.per_s(self.units)

    def per_s(self, amounts: Ints) -> float:
        """Return how much per second the requests answered while they come amount to."""
        which, seconds = self._window
        return float(amounts[which].sum()) / seconds

    @cached_property
    def made(self) -> int:
        """Units (inferences, tokens) of all requests answered."""
        return int(self.units[self.status == SERVED].sum())

    @property
    def timely_share(self) -> float:
        """Of the requests answered, the share in time; all of them without an objective."""
        answered = int(np.count_nonzero(self.good))
        if self.in_time is None or not answered:
            return 1.0 if answered else 0.0
        return self.in_time * int(np.count_nonzero(self.counted)) / answered

    @property
    def in_time_per_s(self) -> float:
        """Requests answered in time per second, while they come; all answered ones without an objective."""
        return self.served_per_s * self.timely_share

    @property
    def load_factor(self) -> float | None:
        """Asked rate over the most the fleet serves; None where nothing is asked."""
        asked = self.load.asked_per_s
        return None if asked is None else asked / self.most_per_s

    @property
    def busy_j(self) -> float:
        """Joules of the work, the static power of the machine that does it included."""
        return self.energies_j[0]

    @property
    def idle_j(self) -> float:
        """Joules of waiting machines (and of loading weights)."""
        return self.energies_j[1]

    @property
    def energy_j(self) -> float:
        """Joules of the run."""
        return self.busy_j + self.idle_j

    @property
    def power_w(self) -> float:
        """Average watts of the fleet."""
        return self.energy_j / self.horizon_s

    @property
    def energy_each_j(self) -> float:
        """Joules of the run for each inference or token, waiting included."""
        return self.energy_j / max(1, self.made)

    @cached_property
    def cost(self) -> Cost | None:
        """What a million inferences or tokens in time cost; None when there are none."""
        good = self.made_per_s * self.timely_share
        if good <= 0:
            return None
        return fleet_cost(
            self.prices,
            [(acc, count) for acc, count, _ in self.fleet],
            served_per_s=good,
            power_w=self.power_w,
            idle_w=sum(count * idle_w for _, count, idle_w in self.fleet),
            busy=self.busy,
        )

    @property
    def targets(self) -> str:
        """The machines as they are written: ``4xtpu-v5e,tpu-v4``."""
        return ",".join(acc.target if count == 1 else f"{count}x{acc.target}" for acc, count, _ in self.fleet)

    @property
    def machines(self) -> int:
        """How many machines there are."""
        return sum(count for _, count, _ in self.fleet)

    @property
    def common(self) -> dict[str, Any]:
        """What every row begins with."""
        return {
            "network": "+".join(self.networks),
            "targets": self.targets,
            "machines": self.machines,
            "requests": len(self.status),
            "served": int(np.count_nonzero(self.status == SERVED)),
            **self.dropped,
            "verdict": self.verdict,
            "percentile": self.percentile,
            "in_time": self.in_time,
            "asked_per_s": self.load.asked_per_s,
            "served_per_s": self.served_per_s,
            "in_time_per_s": self.in_time_per_s,
            "busy": self.busy,
            "busy_j": self.busy_j,
            "idle_j": self.idle_j,
            "usd_per_million": None if self.cost is None else self.cost.least,
        }

    # -- files ---------------------------------------------------------------------------------------------------

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the answer as JSON text, and write it to ``path`` when given."""
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False)
        if path is not None:
            write_whole(path, text + "\n")
        return text

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the answer as one row of CSV under its header, and write it to ``path`` when given."""
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, list(self.row), lineterminator="\n")
        table.writeheader()
        table.writerow(self.row)
        if path is not None:
            write_whole(path, buffer.getvalue())
        return buffer.getvalue()

    def requests_csv(self, path: str | Path | None = None) -> str:
        """Return every request as a row of CSV, and write it to ``path`` when given."""
        text = str(self.requests.to_csv(index=False, lineterminator="\n"))
        if path is not None:
            write_whole(path, text)
        return text

    def __repr__(self) -> str:
        name, mean_ms = "+".join(self.networks), self.latency.mean_s * 1e3
        return f"<Serving {name} on {self.targets}: mean {mean_ms:.4g} ms, {self.served_per_s:.4g}/s {self.verdict}>"


def or_nan(times_ns: Ints) -> npt.NDArray[np.float64]:
    """Return seconds, NaN where nothing happened."""
    return np.where(times_ns < 0, np.nan, times_ns / SECOND_NS)


def cost_dict(cost: Cost | None) -> dict[str, Any] | None:
    """Return a cost as plain data."""
    names = ("units", "busy", "rent", "hardware", "electricity", "buy", "carbon_g", "least", "basis")
    return None if cost is None else {name: getattr(cost, name) for name in names}


def pick(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a row, in their order."""
    return {name: row.get(name) for name in columns}
