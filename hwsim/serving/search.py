"""Searches over runs: the highest rate a fleet sustains within the objective, the smallest fleet that carries a rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.serving.answer import Question, Serving, answer
from hwsim.serving.load import Load

_CLOSE = 0.005  # a rate is found to half a per cent
_LOWEST = 1e-4  # of what the machines do at their best: a lower rate is not looked for
MOST_COPIES = 16_384

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search of ``runs`` runs found: the run at ``passes``, and what was seen to fail.

    ``passes`` is None when nothing passes; the run is then the last that failed. ``fails`` is None when nothing did.
    """

    best: Serving
    passes: float | None
    fails: float | None
    runs: int


def variants(question: Question) -> list[Question]:
    """Return the question with the largest batches asked for, or by two rules worth trying.

    Without a size, with an objective: of the batches that fit twice in it (one running when a request comes, and its
    own) the one with the highest rate, and the same of those that fit once.
    """
    twice = question.batched(2.0)
    if question.batching.largest is not None or question.objective.within_s is None:
        return [twice]
    once = question.batched(1.0)
    return [twice] if [g.tables for g in once.groups] == [g.tables for g in twice.groups] else [twice, once]


def best_run(question: Question, load: Load, tell: Tell) -> Found:
    """Return the run of the variant that answers most requests in time, then the one that answers sooner."""
    runs = []
    for variant in variants(question):
        tell("serving")
        runs.append(answer(variant, load))
    best = min(runs, key=lambda run: (-(run.in_time or 0.0), run.latency.mean_s))
    return Found(best, None, None, len(runs))


def highest_rate(question: Question, load: Load, tell: Tell) -> Found:
    """Return the run at the highest rate that meets the objective, found to half a per cent.

    Every rate is served the same requests, closer together. Raises HwsimError without an objective.
    """
    if question.objective.within_s is None:
        raise HwsimError("give a rate (--rate 300/s), or an objective (--slo 20ms) to search the highest rate for")
    found = [_highest(variant, load, tell) for variant in variants(question)]
    best = max(found, key=lambda f: f.passes or 0.0)
    return replace(best, runs=sum(f.runs for f in found))


def _highest(question: Question, load: Load, tell: Tell) -> Found:
    """From what the machines do at their best the rate falls by steps until one passes; then it is bisected."""
    most = question.most_per_s / load.mean_samples
    runs = 0

    def at(rate: float) -> Serving:
        nonlocal runs
        runs += 1
        tell(f"at {rate:.4g}/s")
        return answer(question, load.at(rate))

    good, bad = at(most), most
    if good.verdict == "PASS":
        while good.verdict == "PASS" and bad < 1e3 * most:
            best, passes = good, bad
            bad *= 1.25
            good = at(bad)
    else:
        while good.verdict != "PASS":
            bad = good.load.rate_per_s or most
            if bad < _LOWEST * most or not reachable(question):
                return Found(good, None, bad, runs)
            good = at(0.8 * bad)
        best, passes = good, good.load.rate_per_s or most
    while bad > passes * (1 + _CLOSE):
        tried = at((bad + passes) / 2)
        if tried.verdict == "PASS":
            best, passes = tried, (bad + passes) / 2
        else:
            bad = (bad + passes) / 2
    return Found(best, passes, bad, runs)


def reachable(question: Question) -> bool:
    """Whether requests that meet empty machines would meet the objective."""
    within_s, host = question.objective.within_s, question.host
    if within_s is None:
        return True
    share = 0.0
    for m, model in enumerate(question.models):
        alone = [g.services[m].at(1).latency_s for g in question.groups if g.tables[m] is not None]
        if min(alone) + host.before_s + host.after_s <= within_s:
            share += model.share
    return question.objective.met(share)


def smallest_fleet(question: Question, load: Load, tell: Tell) -> Found:
    """Return the run on the fewest copies of the machines that meets the objective at the asked rate.

    One copy less was run and fails, or cannot carry the rate at all. Raises HwsimError without a rate or an objective.
    """
    if load.asked_per_s is None:
        raise HwsimError("machines=search needs a rate to carry: --rate 300/s, or a recording")
    if question.objective.within_s is None:
        raise HwsimError("machines=search needs an objective to meet: --slo 20ms")
    found = [_smallest(variant, load, tell) for variant in variants(question)]
    best = min(found, key=lambda f: f.passes or float("inf"))
    return replace(best, runs=sum(f.runs for f in found))


def _smallest(question: Question, load: Load, tell: Tell) -> Found:
    runs = 0

    def at(copies: int) -> Serving:
        nonlocal runs
        runs += 1
        tell(f"on {copies} machines")
        return answer(question.times(copies), load)

    asked = (load.asked_per_s or 0.0) * load.mean_samples
    low = max(0, int(0.98 * asked / question.most_per_s) - 1)  # so few fall behind for ever
    high, step = low + 1, 1
    if high > MOST_COPIES:
        raise HwsimError(f"machines=search: more than {MOST_COPIES} copies would be needed to carry the rate")
    found = at(high)
    while found.verdict != "PASS":
        before, low = found.in_time, high
        high, step = high + step, 2 * step
        if high > MOST_COPIES or not reachable(question):
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
