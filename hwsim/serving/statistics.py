"""What the requests of a run say: percentiles, means with their uncertainty, queue lengths, how busy machines were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.setup import REJECTED, Outcome

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_GROUPS = 20
_STUDENT_95 = 2.093  # two-sided 95 % quantile of Student's t with 19 degrees of freedom

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spread:
    """How one time of many requests is distributed, seconds; ``error_s`` is the half width of a 95 % interval of the mean.

    The interval comes from the means of 20 groups of consecutive requests, which are nearly independent where a group
    is much longer than a busy period; NaN for fewer than 40 requests.
    """

    count: int
    mean_s: float
    error_s: float
    percentiles_s: dict[float, float]
    most_s: float

    def to_dict(self) -> dict[str, float | None]:
        """As plain data, JSON-ready: ``mean_s``, ``p99_s`` …"""
        out: dict[str, float | None] = {"mean_s": self.mean_s, "mean_error_s": self.error_s}
        out |= {f"p{q:g}_s": value for q, value in self.percentiles_s.items()}
        out["most_s"] = self.most_s
        return {name: None if value is None or math.isnan(value) else value for name, value in out.items()}


def spread(times_ns: Ints, percentiles: tuple[float, ...] = PERCENTILES) -> Spread:
    """Return the distribution of some times; a percentile is the least time that so many requests do not exceed."""
    count = len(times_ns)
    if not count:
        nan = math.nan
        return Spread(0, nan, nan, dict.fromkeys(percentiles, nan), nan)
    ordered = np.sort(times_ns)
    found = {q: float(ordered[rank(q, count)]) / SECOND_NS for q in percentiles}
    error = math.nan
    if count >= 2 * _GROUPS:
        means = np.array([float(np.mean(group)) for group in np.array_split(times_ns, _GROUPS)])
        error = _STUDENT_95 * float(np.std(means, ddof=1)) / math.sqrt(_GROUPS) / SECOND_NS
    return Spread(count, float(np.mean(times_ns)) / SECOND_NS, error, found, float(ordered[-1]) / SECOND_NS)


def rank(percentile: float, count: int) -> int:
    """Return the place, from 0, of the least value that ``percentile`` per cent of ``count`` values do not exceed."""
    return min(count - 1, max(0, math.ceil(percentile / 100 * count - 1e-9) - 1))


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests waiting to begin: the mean over time and the most at once."""

    mean: float
    most: int


def queue(outcome: Outcome, horizon_ns: int, timeout_ns: int | None = None) -> Queue:
    """Return how many requests waited, those that left after ``timeout_ns`` too; those rejected never did."""
    waited = outcome.status != REJECTED
    came, left = outcome.arrival_ns[waited], outcome.start_ns[waited]
    left = np.where(left < 0, came + (timeout_ns or 0), left)
    if not len(came) or horizon_ns <= 0:
        return Queue(0.0, 0)
    times = np.concatenate([came, left])
    steps = np.concatenate([np.ones(len(came), np.int64), -np.ones(len(left), np.int64)])
    order = np.lexsort((steps, times))  # at one time those who begin leave first
    most = int(np.cumsum(steps[order]).max(initial=0))
    return Queue(float(np.sum(left - came)) / horizon_ns, max(0, most))


@dataclass(frozen=True, slots=True)
class Use:
    """How one machine spent a run: shares of the time, batches and samples, and their mean size."""

    busy: float
    loading: float
    batches: int
    samples: int

    @property
    def mean_batch(self) -> float:
        """Samples of a batch, on average."""
        return self.samples / self.batches if self.batches else 0.0


def uses(outcome: Outcome, machines: int, horizon_ns: int) -> list[Use]:
    """Return the use of every machine within ``horizon_ns``."""
    which = outcome.batches["machine"]

    def total(name: str) -> npt.NDArray[np.float64]:
        return np.bincount(which, weights=outcome.batches[name].astype(float), minlength=machines).astype(float)

    work, loading, samples = total("work_ns"), total("loading_ns"), total("samples")
    number = np.bincount(which, minlength=machines)
    span = max(1, horizon_ns)
    return [
        Use((work[k] - loading[k]) / span, loading[k] / span, int(number[k]), int(samples[k])) for k in range(machines)
    ]
