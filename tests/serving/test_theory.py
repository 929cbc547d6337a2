"""Steady state against queueing theory: the exact mean lies in the confidence interval of seeded runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import queueing

from hwsim.serving import engine, token_engine
from hwsim.serving.arrivals import Pattern, arrival_times, lengths, picks, stretches
from hwsim.serving.setup import REJECTED, Kind, Outcome, Requests, Setup
from hwsim.serving.token_setup import Curve, TokenKind, TokenRequests, TokenSetup

RUNS, REQUESTS, WARMUP = 8, 30_000, 3_000
STUDENT_999 = 5.408  # two-sided 99.9 % quantile of Student's t with 7 degrees of freedom
MS = 1_000_000


def outcomes(
    rate: float,
    times_ms: list[float],
    machines: int,
    routing: str,
    spread: float = 0.0,
    places: int | None = None,
    runs: int = RUNS,
    concurrent: int = 1,
) -> list[Outcome]:
    times = tuple(round(t * MS) for t in times_ms)
    setup = Setup(
        (Kind((times,), (times,), (0,), (0,), 1),),
        (0,) * machines,
        (0,),
        routing,
        queue_capacity=places,
        concurrent=concurrent,
    )
    found = []
    for seed in range(runs):
        requests = Requests(
            arrival_times(Pattern(), rate, REQUESTS, seed).tolist(), [0] * REQUESTS, [1] * REQUESTS,
            picks=picks(REQUESTS, seed), stretch=stretches(spread, REQUESTS, seed),
        )  # fmt: skip
        found.append(engine.run(setup, requests))
    return found


def wait_s(outcome: Outcome) -> float:
    return float(np.mean((outcome.start_ns - outcome.arrival_ns)[WARMUP:])) / 1e9


def check(theory: float, runs: list[Outcome], of: Callable[[Outcome], float], close: float) -> None:
    """The theory lies in the 99.9 % interval, and the interval is narrow enough to mean something."""
    seen = [of(run) for run in runs]
    half = STUDENT_999 * float(np.std(seen, ddof=1)) / RUNS**0.5
    assert half < close * theory, f"half width {half / theory:.1%} of {theory:.4g}"
    assert abs(float(np.mean(seen)) - theory) <= half, f"{np.mean(seen):.5g} ± {half:.2g}, theory {theory:.5g}"


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_one_machine_is_md1_mg1_mm1(load: float, spread: float) -> None:
    rate = load / 1e-3
    check(queueing.mg1_wait(rate, 1e-3, spread), outcomes(rate, [0, 1.0], 1, "shared", spread), wait_s, 0.12)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_batches_that_share_a_machine_are_mg1_ps(spread: float) -> None:
    """Processor sharing: the mean time in system is that of the work over the idle share, whatever the work's spread."""
    runs = outcomes(0.6 / 1e-3, [0, 1.0], 1, "shared", spread, concurrent=16)
    check(1e-3 / 0.4, runs, lambda run: float(np.mean((run.finish_ns - run.arrival_ns)[WARMUP:])) / 1e9, 0.1)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (5, 0.7)])
def test_one_queue_for_several_is_mmc(servers: int, load: float) -> None:
    rate = load * servers / 1e-3
    check(queueing.mmc_wait(rate, 1e-3, servers), outcomes(rate, [0, 1.0], servers, "shared", 1.0), wait_s, 0.15)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.8), (5, 0.8)])
def test_one_queue_for_several_is_mdc(servers: int, load: float) -> None:
    rate = load * servers / 1e-3
    check(queueing.mdc_wait(rate, 1e-3, servers), outcomes(rate, [0, 1.0], servers, "shared"), wait_s, 0.12)


@pytest.mark.parametrize("load", [0.4, 0.8, 0.9])
def test_batches_are_the_bulk_queue(load: float) -> None:
    times = [0.0, 1.0, 1.1, 1.3, 1.4, 1.7, 1.7, 2.0, 2.1]
    rate = load * 8 / 2.1e-3
    check(queueing.batches_wait(rate, [t * 1e-3 for t in times]), outcomes(rate, times, 1, "shared"), wait_s, 0.1)


def test_a_full_queue_turns_away_what_theory_says() -> None:
    rate = 0.9 * 2 / 1e-3
    theory = queueing.mmck_lost(rate, 1e-3, 2, 3)
    runs = outcomes(rate, [0, 1.0], 2, "shared", 1.0, places=3)
    check(theory, runs, lambda run: float(np.mean(run.status[WARMUP:] == REJECTED)), 0.1)


def test_round_robin_leaves_each_machine_more_regular_arrivals() -> None:
    """Each of many machines sees the c-th arrival: the wait lies between none (uniform) and that of Poisson alone."""
    rate = 0.8 * 4 / 1e-3
    alone = queueing.mg1_wait(rate / 4, 1e-3, 0.0)
    turns = float(np.mean([wait_s(run) for run in outcomes(rate, [0, 1.0], 4, "round-robin", runs=3)]))
    shared = queueing.mdc_wait(rate, 1e-3, 4)
    assert shared < turns < 0.6 * alone


def test_two_choices_come_near_the_mean_field_of_many_machines() -> None:
    """Of infinitely many machines the share with k or more requests is load^(2^k - 1) (Vvedenskaya; Mitzenmacher)."""
    load, machines = 0.8, 200
    rate = load * machines / 1e-3
    in_system = sum(load ** (2**k - 1) for k in range(1, 12))
    theory = in_system / load * 1e-3 - 1e-3
    seen = float(np.mean([wait_s(run) for run in outcomes(rate, [0, 1.0], machines, "two-choices", 1.0, runs=3)]))
    assert seen == pytest.approx(theory, rel=0.05)


def test_better_routing_waits_less() -> None:
    rate = 0.85 * 8 / 1e-3
    waits = {
        rule: float(np.mean([wait_s(run) for run in outcomes(rate, [0, 1.0], 8, rule, runs=2)]))
        for rule in ("shared", "shortest-expected", "least-loaded", "two-choices", "round-robin")
    }
    assert waits["shared"] <= waits["shortest-expected"] * 1.001
    assert waits["shortest-expected"] <= waits["least-loaded"] < waits["two-choices"]


def test_tokens_one_request_at_a_time_are_mg1() -> None:
    """A machine that runs one request at a time serves as long as its prompt and tokens take, whatever their spread."""
    prefill, decode = Curve((1, 1001), (2 * MS, 12 * MS)), Curve((1, 2001), (MS, 3 * MS))
    setup = TokenSetup((TokenKind({1: prefill}, {1: decode}, 10_000, 16, 1),), (0,))
    waits, theory, count = [], [], 10_000
    for seed in range(RUNS):
        prompts, outputs = lengths(300, 0.7, count, seed, 4), lengths(20, 1.0, count, seed, 5)
        pairs = zip(prompts, outputs, strict=True)
        times = np.array([prefill.at(p) + sum(decode.at(p + n) for n in range(o - 1)) for p, o in pairs])
        mean_s = float(times.mean()) / 1e9
        rate = 0.7 / mean_s
        arrival = arrival_times(Pattern(), rate, count, seed).tolist()
        seen = token_engine.run(setup, TokenRequests(arrival, prompts, outputs))
        assert (seen.finish_ns - seen.start_ns == times).all()
        waits.append(float(np.mean((seen.start_ns - seen.arrival_ns)[WARMUP:])) / 1e9)
        theory.append(queueing.mg1_wait(rate, mean_s, float(np.std(times) / np.mean(times))))
    errors = np.array(waits) / np.array(theory) - 1
    half = STUDENT_999 * float(np.std(errors, ddof=1)) / RUNS**0.5
    assert half < 0.2 and abs(float(errors.mean())) <= half
