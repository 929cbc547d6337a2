"""When requests come: evenly, at random (Poisson), in bursts (gamma gaps, two-state Poisson); the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.units import parse

SECOND_NS = 10**9
LONGEST_S = 3.0e9  # about a century: what whole nanoseconds in 64 bits hold, with room
_PATTERNS = {
    "uniform": "uniform: evenly spaced",
    "poisson": "poisson: independent of one another",
    "gamma": "gamma:3 has gaps with 3 times the spread of poisson's",
    "mmpp": "mmpp:4,10%,1s comes at 4 times the mean rate for 10 % of the time, in bursts of 1 s on average",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """How requests follow one another: ``name`` is one of uniform, poisson, gamma, mmpp.

    ``spread`` is the coefficient of variation of the gaps (gamma); ``peak`` the rate in a burst over the mean rate,
    ``share`` the share of time in bursts, ``burst_s`` their mean length (mmpp, a two-state Poisson process).
    """

    name: str = "poisson"
    spread: float = 1.0
    peak: float = 1.0
    share: float = 0.5
    burst_s: float = 1.0

    def __str__(self) -> str:
        if self.name == "gamma":
            return f"gamma:{self.spread:g}"
        if self.name == "mmpp":
            return f"mmpp:{self.peak:g},{self.share:g},{self.burst_s:g}s"
        return self.name


def parse_pattern(text: str) -> Pattern:
    """Return the pattern in ``text``: uniform, poisson, gamma:SPREAD or mmpp:PEAK,SHARE,BURST.

    Raises HwsimError when it is none of them, saying how they are written.
    """
    name, _, rest = text.strip().partition(":")
    if name not in _PATTERNS:
        raise HwsimError(f"unknown arrivals {text[:40]!r}: one of {', '.join(_PATTERNS)}{near(name, _PATTERNS)}")
    parts = [part.strip() for part in rest.split(",")] if rest else []
    expected = {"gamma": 1, "mmpp": 3}.get(name, 0)
    if len(parts) != expected:
        raise HwsimError(f"arrivals {text[:40]!r}: write e.g. {_PATTERNS[name]}")
    try:
        if name == "gamma":
            spread = _number(parts[0], 0.01, 100.0)
            return Pattern(name, spread=spread)
        if name == "mmpp":
            peak, share = _number(parts[0], 1.0, 1e6), _number(parts[1], 1e-6, 1 - 1e-6)
            burst_s = parse(parts[2], "time")
            if not 1e-9 <= burst_s <= LONGEST_S:
                raise HwsimError(f"a burst of {parts[2][:20]} is not between 1 ns and {LONGEST_S:g} s")
            if peak * share > 1:
                raise HwsimError(f"{peak:g} times the mean rate for {share:.3g} of the time is more than all requests")
            return Pattern(name, peak=peak, share=share, burst_s=burst_s)
    except HwsimError as error:
        raise HwsimError(f"arrivals {text[:40]!r}: {error}") from None
    return Pattern(name)


def _number(text: str, low: float, high: float) -> float:
    value = parse(text, "ratio")
    if not low <= value <= high:
        raise HwsimError(f"{text[:20]} is not between {low:g} and {high:g}")
    return value


def arrival_times(pattern: Pattern, rate_per_s: float, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return ``count`` arrival times, ns, that do not fall, at ``rate_per_s`` on average.

    The same seed draws the same numbers at every rate, so that rates are compared on the same requests. Raises
    HwsimError when the last would come later than whole nanoseconds can hold.
    """
    if count / rate_per_s > LONGEST_S / 4:
        raise HwsimError(
            f"{count} requests at {rate_per_s:g}/s take more than a lifetime: ask for fewer, or a higher rate"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    if pattern.name == "uniform":
        times = np.arange(count) / rate_per_s
    elif pattern.name == "gamma":
        shape = 1.0 / pattern.spread**2
        times = np.cumsum(generator.gamma(shape, 1.0 / shape, count)) / rate_per_s
    elif pattern.name == "mmpp":
        times = _two_states(pattern, rate_per_s, _exponential(generator, count), generator)
    else:
        times = np.cumsum(_exponential(generator, count)) / rate_per_s
    if times[-1] > LONGEST_S:
        raise HwsimError(f"the last of {count} requests comes after {times[-1]:.3g} s: ask for fewer, or a higher rate")
    return np.rint(times * SECOND_NS).astype(np.int64)


def _exponential(generator: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return -np.log1p(-generator.random(count))


def _two_states(
    pattern: Pattern, rate_per_s: float, gaps: npt.NDArray[np.float64], generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Arrivals of a Poisson process whose rate alternates: where its cumulative rate passes a sum of unit gaps."""
    wanted = np.cumsum(gaps)
    quiet_s = pattern.burst_s * (1.0 - pattern.share) / pattern.share
    low = (1.0 - pattern.peak * pattern.share) / (1.0 - pattern.share)
    rates = np.array([max(0.0, low), pattern.peak]) * rate_per_s
    state = int(generator.random() < pattern.share)
    ends, sums = [np.zeros(1)], [np.zeros(1)]
    while sums[-1][-1] < wanted[-1]:
        states = (state + np.arange(1024)) % 2
        lengths = _exponential(generator, 1024) * np.where(states == 1, pattern.burst_s, quiet_s)
        ends.append(ends[-1][-1] + np.cumsum(lengths))
        sums.append(sums[-1][-1] + np.cumsum(lengths * rates[states]))
        state = (state + 1024) % 2
        if ends[-1][-1] > LONGEST_S:
            break
    found: npt.NDArray[np.float64] = np.interp(wanted, np.concatenate(sums), np.concatenate(ends), right=2 * LONGEST_S)
    return found


def stretches(spread: float, count: int, seed: int) -> list[float]:
    """Return ``count`` factors of mean 1 and coefficient of variation ``spread`` (gamma; 1 is exponential)."""
    if spread == 0.0:
        return []
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    shape = 1.0 / spread**2
    factors: list[float] = generator.gamma(shape, 1.0 / shape, count).tolist()
    return factors


def picks(count: int, seed: int) -> list[list[float]]:
    """Return two numbers in [0, 1) for each request, for the routing that looks at two machines."""
    generator = np.random.Generator(np.random.PCG64([seed, 2]))
    drawn: list[list[float]] = generator.random((count, 2)).tolist()
    return drawn


def choices(shares: tuple[float, ...], count: int, seed: int) -> list[int]:
    """Return which model each request asks for, at random in proportion to ``shares``."""
    if len(shares) == 1:
        return [0] * count
    generator = np.random.Generator(np.random.PCG64([seed, 3]))
    bounds = np.cumsum(shares) / sum(shares)
    drawn = np.searchsorted(bounds, generator.random(count), side="right")
    return [min(int(m), len(shares) - 1) for m in drawn]


def lengths(mean: float, spread: float, count: int, seed: int, stream: int) -> list[int]:
    """Return whole lengths of at least 1: all ``mean``, or lognormal around it with coefficient of variation ``spread``."""
    if spread == 0.0:
        return [max(1, round(mean))] * count
    generator = np.random.Generator(np.random.PCG64([seed, stream]))
    sigma = np.sqrt(np.log1p(spread**2))
    drawn = np.exp(np.log(mean) - sigma**2 / 2 + sigma * generator.standard_normal(count))
    return [max(1, int(v)) for v in np.rint(drawn)]
