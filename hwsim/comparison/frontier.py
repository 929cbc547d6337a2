"""The Pareto front of a comparison: the rows that nothing beats in latency, energy and money together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Row = dict[str, Any]
Cost = Callable[[Row], float | None]


def answer_s(row: Row) -> float | None:
    """Seconds to the answer of the oldest request of a batch."""
    return None if row["latency_s"] is None else float(row["latency_s"] + row["fill_s"])


def energy_j(row: Row) -> float | None:
    """Joules of one inference."""
    return None if row["energy_per_inference_j"] is None else float(row["energy_per_inference_j"])


def usd(row: Row) -> float | None:
    """US dollars of a million inferences, None without a price."""
    return None if row["usd_per_million"] is None else float(row["usd_per_million"])


def pareto(rows: Iterable[Row], *costs: Cost) -> list[Row]:
    """Return the rows that no other row beats or equals in every cost while being better in one (lower is better).

    A row of which a cost is not known is left out.
    """
    told = [(row, [cost(row) for cost in costs]) for row in rows]
    known = [(row, [float(v) for v in values if v is not None]) for row, values in told if None not in values]

    def beaten(mine: list[float]) -> bool:
        return any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for _, other in known)

    return [row for row, mine in known if not beaten(mine)]


def mark(rows: Iterable[Row]) -> None:
    """Say in every row, as ``pareto``, whether it is on the front of latency, energy and money.

    Rows without a price are held against the others in latency and energy alone.
    """
    fitting = [row for row in rows if row["fits"]]
    priced = pareto(fitting, answer_s, energy_j, usd)
    two = pareto(fitting, answer_s, energy_j)
    for row in fitting:
        row["pareto"] = any(row is other for other in (priced if row["usd_per_million"] is not None else two))
