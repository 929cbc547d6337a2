"""How many requests a second of CPU serves: the two engines of serving, and the searches around them.

    python benchmarks/serving_speed.py [--requests 1000000]

Prints CPU seconds of this process. The target is a million requests in less than a minute.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import hwsim
from hwsim.serving import engine, token_engine
from hwsim.serving.arrivals import Pattern, arrival_times, lengths, picks
from hwsim.serving.reference import batches
from hwsim.serving.setup import Kind, Requests, Setup
from hwsim.serving.token_setup import Curve, TokenKind, TokenRequests, TokenSetup

MS = 1_000_000


def batch_case(
    count: int, machines: int, cap: int, load: float, routing: str, concurrent: int = 1
) -> tuple[Setup, Requests]:
    """Batches of up to ``cap`` that take 1 ms and 50 us a sample, on so many machines kept so busy."""
    hold = (0, *(MS + 50_000 * n for n in range(1, cap + 1)))
    rate = load * machines * cap / hold[cap] * 1e9
    setup = Setup((Kind((hold,), (hold,), (0,), (0,), 1),), (0,) * machines, (0,), routing, concurrent=concurrent)
    arrival = arrival_times(Pattern(), rate, count, 0).tolist()
    return setup, Requests(arrival, [0] * count, [1] * count, picks=picks(count, 0))


def token_case(count: int, machines: int, load: float) -> tuple[TokenSetup, TokenRequests]:
    """Prompts of 512 and outputs of 128 tokens on average: about what an 8-billion-parameter model takes on a TPU v6e."""
    decode = {1 << e: Curve((1, 1 << (e + 12)), (11 * MS, 11 * MS + (1 << e) * MS // 4)) for e in range(7)}
    kind = TokenKind({1: Curve((1, 4096), (11 * MS, 100 * MS))}, decode, 8000, 16, 64)
    prompts, outputs = lengths(512, 0.5, count, 0, 4), lengths(128, 0.5, count, 0, 5)
    each_s = 22e-3 + 128 * 15e-3 / 64
    arrival = arrival_times(Pattern(), load * machines / each_s, count, 0).tolist()
    return TokenSetup((kind,), (0,) * machines, "least-loaded"), TokenRequests(arrival, prompts, outputs)


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1_000_000)
    count = parser.parse_args().requests
    for name, case in (
        ("batches of 1, one machine", batch_case(count, 1, 1, 0.8, "shared")),
        ("batches of 16, one machine", batch_case(count, 1, 16, 0.8, "shared")),
        ("batches of 16, 8 machines, least loaded", batch_case(count, 8, 16, 0.8, "least-loaded")),
        ("batches of 16, 8 machines, shortest expected", batch_case(count, 8, 16, 0.8, "shortest-expected")),
        ("batches of 16, 8 machines, 2 batches at once", batch_case(count, 8, 16, 0.8, "shared", 2)),
        ("batches of 16, 100 machines, two choices", batch_case(count, 100, 16, 0.8, "two-choices")),
    ):
        begin = time.process_time()
        seen = engine.run(*case)
        spent = time.process_time() - begin
        print(f"{name:48} {count:9d} requests {spent:6.2f} s   {60 * count / spent / 1e6:5.1f} million a minute")
        assert int(seen.batches["samples"].sum()) == count
    begin = time.process_time()
    out = token_engine.run(*token_case(count, 8, 0.7))
    spent = time.process_time() - begin
    iterations = sum(number for number, _ in out.iterations.values())
    print(f"{'tokens, 8 machines':48} {count:9d} requests {spent:6.2f} s   {60 * count / spent / 1e6:5.1f} million a minute, "
          f"{spent / iterations * 1e6:.2f} us an iteration")  # fmt: skip
    few = 2000
    setup, requests = batch_case(few, 8, 16, 0.8, "least-loaded")
    begin = time.process_time()
    batches.run(setup, requests)
    print(f"{'the SimPy twin, 8 machines':48} {few:9d} requests {time.process_time() - begin:6.2f} s")
    for name, options in (
        ("serve at a rate, 100000 requests", {"rate": "3000/s", "slo": "20ms"}),
        ("serve, highest rate searched", {"slo": "20ms"}),
        ("serve, fleet searched at 30000/s", {"rate": "30000/s", "slo": "20ms", "machines": "search"}),
    ):
        begin = time.process_time()
        served = hwsim.serve("resnet50", "tpu-v5e", **options)
        runs = served.searched.get("runs", 1)
        print(f"{name:48} {runs:9d} runs     {time.process_time() - begin:6.2f} s")
    assert np.isfinite(served.latency.mean_s)


if __name__ == "__main__":
    main()
