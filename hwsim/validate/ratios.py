"""How well ratios between two machines come out: the same rows on both, the predicted against the measured quotient.

A purchase is a choice between machines, and what the model has wrong of a network on both cancels in the quotient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hwsim.validate.case import Outcome

FEWEST = 5  # shared rows that make a pair


@dataclass(frozen=True, slots=True)
class RatioScore:
    """One pair of targets of one source: errors in percent of the measured quotient, median of predicted over measured one."""

    group: str
    targets: tuple[str, str]
    rows: int
    measured: float
    median_pct: float
    p90_pct: float
    bias: float


def ratios(outcomes: Iterable[Outcome]) -> list[RatioScore]:
    """Return the score of every two targets that share at least `FEWEST` answered rows of one source.

    ``measured`` is the median of the first target's over the second's measurement.
    """
    found: dict[str, dict[str, dict[tuple[str, str, str], Outcome]]] = {}
    for o in outcomes:
        if not o.refused and math.isfinite(o.ratio):
            key = (o.case.what, o.case.precision, o.case.quantity)
            found.setdefault(f"{o.case.suite} {o.case.group}".strip(), {}).setdefault(o.case.target, {})[key] = o
    out: list[RatioScore] = []
    for group, machines in sorted(found.items()):
        for a, b in itertools.combinations(sorted(machines), 2):
            shared = [(machines[a][k], machines[b][k]) for k in machines[a] if k in machines[b]]
            if len(shared) < FEWEST:
                continue
            quotients = np.array([x.ratio / y.ratio for x, y in shared])
            error = np.abs(quotients - 1) * 100
            measured = float(np.median([x.case.measured / y.case.measured for x, y in shared]))
            out.append(
                RatioScore(
                    group, (a, b), len(shared), measured, float(np.median(error)), float(np.percentile(error, 90)),
                    float(np.median(quotients)),
                )
            )  # fmt: skip
    return out
