"""Searches over runs: the highest rate a fleet sustains within the objective, the smallest fleet that carries a rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hwsim.errors import HwsimError
from hwsim.serving.base import Answer
from hwsim.serving.load import Load

_CLOSE = 0.005  # a rate is found to half a per cent
_LOWEST = 1e-4  # of what the machines do at their best: a lower rate is not looked for
MOST_COPIES = 16_384

Note = Callable[[int], None]  # told how many requests of a run have come
Tell = Callable[[str], Note | None]  # told what is about to be run


class Asked(Protocol):
    """A question that can be run: of networks in batches or of tokens."""

    @property
    def has_objective(self) -> bool:
        """Whether there is something to meet."""

    def variants(self) -> Sequence[Asked]:
        """Return the same question with what it leaves open chosen, in each way worth trying."""

    def times(self, number: int) -> Asked:
        """Return the question with ``number`` times the machines."""

    def most_per_s(self, load: Load) -> float:
        """About how many requests per second the machines serve at their best."""

    def reachable(self) -> bool:
        """Whether requests that meet empty machines would meet the objective."""

    def run(self, load: Load, progress: Note | None = None) -> Answer:
        """Run it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search of ``runs`` runs found: the run at ``passes``, and what was seen to fail.

    ``passes`` is None when nothing passes; the run is then the last that failed. ``fails`` is None when nothing did.
    """

    best: Answer
    passes: float | None
    fails: float | None
    runs: int


def best_run(question: Asked, load: Load, tell: Tell) -> Found:
    """Return the run of the variant that answers most requests in time, then the one that answers sooner."""
    runs = [variant.run(load, tell("requests")) for variant in question.variants()]
    best = min(runs, key=lambda run: (-(run.in_time or 0.0), run.latency.mean_s))
    return Found(best, None, None, len(runs))


def highest_rate(question: Asked, load: Load, tell: Tell) -> Found:
    """Return the run at the highest rate that meets the objective, found to half a per cent.

    Every rate is served the same requests, closer together. Raises HwsimError without an objective.
    """
    if not question.has_objective:
        raise HwsimError("give a rate (--rate 300/s), or an objective (--slo 20ms) to search the highest rate for")
    found = [_highest(variant, load, tell) for variant in question.variants()]
    best = max(found, key=lambda f: f.passes or 0.0)
    return replace(best, runs=sum(f.runs for f in found))


def _highest(question: Asked, load: Load, tell: Tell) -> Found:
    """From what the machines do at their best the rate falls by steps until one passes; then it is bisected."""
    most, runs = question.most_per_s(load), 0

    def at(rate: float) -> Answer:
        nonlocal runs
        runs += 1
        return question.run(load.at(rate), tell(f"requests at {rate:.4g}/s"))

    rate = most
    seen = at(rate)
    if seen.verdict == "PASS":
        while seen.verdict == "PASS" and rate < 1e3 * most:
            best, passes = seen, rate
            rate *= 1.25
            seen = at(rate)
        fails = rate
    else:
        while seen.verdict != "PASS":
            fails = rate
            rate *= 0.8
            if rate < _LOWEST * most or not question.reachable():
                return Found(seen, None, fails, runs)
            seen = at(rate)
        best, passes = seen, rate
    while fails > passes * (1 + _CLOSE):
        rate = (fails + passes) / 2
        seen = at(rate)
        if seen.verdict == "PASS":
            best, passes = seen, rate
        else:
            fails = rate
    return Found(best, passes, fails, runs)


def smallest_fleet(question: Asked, load: Load, tell: Tell) -> Found:
    """Return the run on the fewest copies of the machines that meets the objective at the asked rate.

    One copy less was run and fails. Raises HwsimError without a rate or an objective.
    """
    if load.asked_per_s is None:
        raise HwsimError("machines=search needs a rate to carry: --rate 300/s, or a recording")
    if not question.has_objective:
        raise HwsimError("machines=search needs an objective to meet: --slo 20ms")
    found = [_smallest(variant, load, tell) for variant in question.variants()]
    best = min(found, key=lambda f: f.passes or float("inf"))
    return replace(best, runs=sum(f.runs for f in found))


def _smallest(question: Asked, load: Load, tell: Tell) -> Found:
    runs = 0

    def at(copies: int) -> Answer:
        nonlocal runs
        runs += 1
        return question.times(copies).run(load, tell(f"requests on {copies} cop{'y' if copies == 1 else 'ies'}"))

    low = max(0, int(0.98 * (load.asked_per_s or 0.0) / question.most_per_s(load)) - 1)  # probably too few
    high, step = low + 1, 1
    if high > MOST_COPIES:
        raise HwsimError(f"machines=search: more than {MOST_COPIES} copies would be needed to carry the rate")
    found = at(high)
    while found.verdict == "PASS" and low > 0:
        fewer = at(low)
        if fewer.verdict != "PASS":
            break
        high, low, found = low, low - 1, fewer
    while found.verdict != "PASS":
        before, low = found.in_time, high
        high, step = high + step, 2 * step
        if high > MOST_COPIES or not question.reachable():
            return Found(found, None, float(low), runs)
        found = at(high)
        if found.verdict != "PASS" and step > 8 and found.in_time == before:
            return Found(found, None, float(high), runs)  # more machines change nothing
    while high - low > 1:
        middle = (low + high) // 2
        tried = at(middle)
        if tried.verdict == "PASS":
            high, found = middle, tried
        else:
            low = middle
    return Found(found, float(high), float(low) if low else None, runs)
