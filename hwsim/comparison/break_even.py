"""Break-even: which machine is cheapest at which request rate, and where that changes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hwsim.comparison.contender import MAX_BATCH, Contender, Demand, Point
from hwsim.costs import Cost, Prices, cost_of, units_for

COLUMNS = ("target", "rate_per_s", "batch", "units", "busy", "usd_per_million", "usd_per_hour", "usd_basis")
_GRID = 24  # rates a factor of ten
_CLOSE = 0.002  # a change is found to so much of the rate


@dataclass(frozen=True, slots=True)
class Segment:
    """Between two rates (from ``low_per_s``, below ``high_per_s``; None beyond those asked) one machine is cheapest."""

    low_per_s: float
    high_per_s: float | None
    target: str
    usd_per_million_low: float
    usd_per_million_high: float
    units_high: int


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Costs over the rate, ready for a figure: ``rows`` one a machine and rate, ``segments`` who is cheapest where.

    ``unpriced`` names machines without a price, ``late`` those that miss the objective at every rate.
    """

    rows: list[dict[str, Any]]
    segments: list[Segment]
    unpriced: tuple[str, ...]
    late: tuple[str, ...]

    def to_csv(self) -> str:
        """Return the rows as CSV text."""
        buffer = io.StringIO()
        table = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        return buffer.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        names = Segment.__dataclass_fields__
        segments = [{name: getattr(segment, name) for name in names} for segment in self.segments]
        return {"segments": segments, "unpriced": list(self.unpriced), "late": list(self.late), "rows": self.rows}


def break_even(
    contenders: Mapping[str, Contender],
    demand: Demand,
    prices: Prices,
    low_per_s: float = 0.01,
    high_per_s: float = 100_000.0,
    batches: Sequence[int] | None = None,
) -> BreakEven:
    """Return what a million inferences cost on each machine at rates between two, and which one is cheapest where.

    At every rate a machine runs its cheapest batch (a power of two, or one of ``batches``) that meets the objective,
    the wait for it to fill included, on as many machines as the rate needs.
    """
    steps = max(2, math.ceil(math.log10(high_per_s / low_per_s) * _GRID) + 1)
    rates = [low_per_s * (high_per_s / low_per_s) ** (i / (steps - 1)) for i in range(steps)]
    points = {name: _points(contender, demand, batches) for name, contender in contenders.items()}
    priced = {n: c for n, c in contenders.items() if prices.rent_of(c.acc) or prices.purchase_of(c.acc)}

    def best(name: str, rate: float) -> tuple[float, Point, Cost] | None:
        return _cheapest_batch(contenders[name], points[name], replace(demand, rate_per_s=rate), prices)

    rows, leaders = [], []
    for rate in rates:
        found = {name: best(name, rate) for name in priced}
        for name, told in found.items():
            if told is not None:
                rows.append(_row(name, rate, told))
        able = {name: told for name, told in found.items() if told is not None}
        leaders.append(min(able, key=lambda n: able[n][0]) if able else None)
    rows.sort(key=lambda row: list(contenders).index(row["target"]))

    def leader(rate: float) -> str | None:
        able = {name: told[0] for name in priced if (told := best(name, rate)) is not None}
        return min(able, key=lambda n: able[n]) if able else None

    changes = [i for i in range(1, len(rates)) if leaders[i] != leaders[i - 1]]
    bounds = [(rates[0], leaders[0])]
    bounds += [(_change(leader, rates[i - 1], rates[i], leaders[i - 1]), leaders[i]) for i in changes]
    segments = []
    for i, (begin, cheapest) in enumerate(bounds):
        end = bounds[i + 1][0] if i + 1 < len(bounds) else None
        if cheapest is None:
            continue
        first, last = best(cheapest, begin), best(cheapest, (end or rates[-1]) * (1 - 1e-9))
        if first is not None and last is not None:
            segments.append(Segment(begin, end, cheapest, first[0], last[0], last[2].units))
    seen = {row["target"] for row in rows}
    late = tuple(name for name in priced if name not in seen)
    return BreakEven(rows, segments, tuple(n for n in contenders if n not in priced), late)


def _points(contender: Contender, demand: Demand, batches: Sequence[int] | None) -> list[Point]:
    """Batches that run, and without waiting for them to fill would be in time."""
    if batches is None:
        most = 1
        if "N" in contender.net.symbols:
            top = contender.search(replace(demand, rate_per_s=None)) if demand.objective_s is not None else 64
            most = min(top or 1, MAX_BATCH)
        batches = [1 << e for e in range(most.bit_length())]
    alone = replace(demand, rate_per_s=None)
    return [point for point in map(contender.at, batches) if alone.met(point)]


def _cheapest_batch(
    contender: Contender, points: Sequence[Point], demand: Demand, prices: Prices
) -> tuple[float, Point, Cost] | None:
    best: tuple[float, Point, Cost] | None = None
    for point in points:
        if not demand.met(point):
            continue
        cost = cost_of(
            prices, contender.acc, throughput_per_s=point.throughput_per_s, energy_per_inference_j=point.energy_each_j,
            idle_w=point.idle_w, rate_per_s=demand.rate_per_s,
        )  # fmt: skip
        if cost.least is not None and (best is None or cost.least < best[0]):
            best = (cost.least, point, cost)
    return best


def _change(leader: Any, low: float, high: float, before: str | None) -> float:
    """The rate between two at which ``before`` stops being the cheapest."""
    while high > low * (1 + _CLOSE):
        middle = math.sqrt(low * high)
        if leader(middle) == before:
            low = middle
        else:
            high = middle
    return high


def _row(name: str, rate: float, told: tuple[float, Point, Cost]) -> dict[str, Any]:
    usd, point, cost = told
    return {
        "target": name,
        "rate_per_s": rate,
        "batch": point.batch,
        "units": units_for(rate, point.throughput_per_s),
        "busy": cost.busy,
        "usd_per_million": usd,
        "usd_per_hour": usd * rate * 3600 / 1e6,
        "usd_basis": cost.basis,
    }
