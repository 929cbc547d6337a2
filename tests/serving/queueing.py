"""What queueing theory says, from its own formulas and Markov chains; nothing here knows the engines."""

from __future__ import annotations

import math

import numpy as np


def poisson(mean: float, size: int) -> np.ndarray:
    """P(0), P(1), … of a Poisson variable."""
    log = np.arange(size) * math.log(mean) - mean - np.array([math.lgamma(k + 1) for k in range(size)])
    return np.exp(log)


def mg1_wait(rate: float, service: float, spread: float) -> float:
    """Pollaczek-Khinchine: mean wait before service, Poisson arrivals, service of that mean and coefficient of variation."""
    busy = rate * service
    return rate * service**2 * (1 + spread**2) / (2 * (1 - busy))


def mmc_wait(rate: float, service: float, servers: int) -> float:
    """Erlang C: mean wait before service, exponential service."""
    offered = rate * service
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    waits = last / (sum(terms) + last)
    return waits * service / (servers - offered)


def mmck_lost(rate: float, service: float, servers: int, places: int) -> float:
    """Share of arrivals lost: exponential service, so many servers and places to wait."""
    offered, weight, weights = rate * service, 1.0, [1.0]
    for n in range(1, servers + places + 1):
        weight *= offered / min(n, servers)
        weights.append(weight)
    return weights[-1] / sum(weights)


def mdc_wait(rate: float, service: float, servers: int, states: int = 400) -> float:
    """Crommelin: the number in system a service time later is what is left over plus what came; exact."""
    came = poisson(rate * service, states)
    step = np.zeros((states, states))
    for n in range(states):
        left = max(0, n - servers)
        step[n, left:] = came[: states - left]
        step[n, -1] += max(0.0, 1 - step[n].sum())
    found = stationary(step)
    return float(found @ np.arange(states)) / rate - service


def batches_wait(rate: float, service: list[float], states: int = 600) -> float:
    """Mean wait before service where a free server takes all that wait, ``len(service) - 1`` at most; exact.

    ``service[n]`` is what a batch of n takes. The chain is the number waiting when a batch ends; what waits over time
    follows from the renewal theorem.
    """
    largest = len(service) - 1
    step = np.zeros((states, states))
    area, length = np.zeros(states), np.zeros(states)
    for q in range(states):
        batch = min(max(q, 1), largest)
        left, time = max(0, q - batch), service[batch]
        came = poisson(rate * time, states)
        step[q, left:] = came[: states - left]
        step[q, -1] += max(0.0, 1 - step[q].sum())
        area[q] = left * time + rate * time**2 / 2
        length[q] = time + (1 / rate if q == 0 else 0.0)
    found = stationary(step)
    return float(found @ area / (found @ length)) / rate


def stationary(step: np.ndarray) -> np.ndarray:
    """The stationary distribution of a chain."""
    size = len(step)
    matrix = np.vstack([step.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(matrix, np.append(np.zeros(size), 1.0), rcond=None)[0]
