"""Error distributions of a set of outcomes, grouped as asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.validate.case import Outcome

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one group of rows, in percent of the measurement; ``bias`` is the median of predicted over measured.

    ``rank`` is Spearman's rank correlation of predictions and measurements, NaN below three rows.
    """

    group: tuple[str, ...]
    rows: int
    refused: int
    median_pct: float
    mean_pct: float
    p90_pct: float
    within_30_pct: float
    bias: float
    rank: float
    roofline_median_pct: float
    roofline_mean_pct: float


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation, ties sharing their mean rank; NaN below three pairs or without spread."""
    if len(a) < 3:
        return math.nan
    x, y = _ranks(np.asarray(a, float)), _ranks(np.asarray(b, float))
    x, y = x - x.mean(), y - y.mean()
    spread = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / spread if spread else math.nan


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts - 1) / 2
    out: Floats = mean[inverse]
    return out


def score(outcomes: Iterable[Outcome], group: tuple[str, ...] = ()) -> Score:
    """Return the errors of all outcomes that have an answer; refused ones are counted."""
    every = list(outcomes)
    told = [o for o in every if not o.refused and math.isfinite(o.ratio)]
    if not told:
        nan = math.nan
        return Score(group, 0, len(every), nan, nan, nan, nan, nan, nan, nan, nan)
    error = np.array([o.error_pct for o in told])
    roof = np.array([o.roofline_error_pct for o in told])
    roof = roof[np.isfinite(roof)]
    return Score(
        group,
        len(told),
        len(every) - len(told),
        float(np.median(error)),
        float(error.mean()),
        float(np.percentile(error, 90)),
        float((error <= 30 + 1e-9).mean() * 100),
        float(np.median([o.ratio for o in told])),
        rank_correlation([o.predicted for o in told], [o.case.measured for o in told]),
        float(np.median(roof)) if len(roof) else math.nan,
        float(roof.mean()) if len(roof) else math.nan,
    )


def grouped(outcomes: Iterable[Outcome], key: Callable[[Outcome], tuple[str, ...]]) -> list[Score]:
    """Return the score of each group, in order of the groups' names."""
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), []).append(outcome)
    return [score(found[name], name) for name in sorted(found)]
