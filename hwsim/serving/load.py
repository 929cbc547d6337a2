"""Who asks, how often: MLPerf's scenarios, arrivals at a rate, clients that wait for their answer, recorded requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hwsim.errors import HwsimError, near
from hwsim.serving.arrivals import SECOND_NS, Pattern, arrival_times, choices, lengths, picks, stretches
from hwsim.serving.setup import Requests
from hwsim.serving.token_setup import TokenRequests
from hwsim.serving.trace import Trace

SCENARIOS = ("single-stream", "multi-stream", "server", "offline")
MULTI_STREAM_SAMPLES = 8  # of a query, in MLPerf
MOST_REQUESTS = 20_000_000
MOST_SAMPLES = 50_000_000
_COUNTS = {"single-stream": 1024, "multi-stream": 1024, "server": 100_000, "offline": 24_576}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of prompts or outputs: ``mean``, lognormal with coefficient of variation ``spread`` (0: all the same)."""

    mean: float
    spread: float = 0.0

    def __str__(self) -> str:
        return f"{self.mean:g}" + (f" ± {100 * self.spread:.3g} %" if self.spread else "")


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a fleet; see `hwsim.serving.answer.serve` for the meaning of each field."""

    scenario: str = "server"
    rate_per_s: float | None = None
    pattern: Pattern = field(default_factory=Pattern)
    trace: Trace | None = None
    count: int = 0
    samples: int = 1
    clients: int = 0
    pause_s: float = 0.0
    variation: float = 0.0
    seed: int = 0
    prompt: Lengths | None = None
    output: Lengths | None = None

    @property
    def open(self) -> bool:
        """Whether requests come by the clock, not after an answer."""
        return self.clients == 0 and self.scenario == "server"

    @property
    def of_tokens(self) -> bool:
        """Whether requests are for tokens of a language model."""
        recorded = self.trace is not None and bool(self.trace.prompt or self.trace.output)
        return recorded or self.prompt is not None or self.output is not None

    @property
    def asked_per_s(self) -> float | None:
        """Requests per second that are asked for, None where the machine sets the pace."""
        if not self.open:
            return None
        if self.rate_per_s is None and self.trace is not None:
            return self.trace.rate_per_s
        return self.rate_per_s

    @property
    def mean_samples(self) -> float:
        """Samples of a request, on average."""
        several = self.trace.samples[: self.count] if self.trace is not None else []
        return sum(several) / len(several) if several else float(self.samples)

    def at(self, rate_per_s: float) -> Load:
        """Return the same load at another rate."""
        return replace(self, rate_per_s=rate_per_s)

    def words(self) -> str:
        """Say who asks."""
        if self.scenario == "offline":
            return f"offline: {self.count} {'samples' if self.prompt is None else 'requests'} at once{self._lengths()}"
        if not self.open:
            who = f"{self.clients} client{'s' if self.clients != 1 else ''}"
            after = f", pausing {self.pause_s:g} s" if self.pause_s else ""
            what = f" of {self.samples} samples" if self.samples > 1 else ""
            name = self.scenario if self.clients == 1 and not after else "closed"
            return f"{name}: {who}{after}, {self.count} requests{what}{self._lengths()}"
        rate = "" if self.asked_per_s is None else f" at {float(f'{self.asked_per_s:.5g}'):.9g}/s"
        if self.trace is not None:
            return f"server: {self.count} recorded requests of {self.trace.name}{rate}{self._lengths()}"
        return f"server: {self.count} requests, {self.pattern}{rate}, seed {self.seed}{self._lengths()}"

    def _lengths(self) -> str:
        read = "" if self.prompt is None else f"; prompts of {self.prompt} tokens"
        return read + ("" if self.output is None else f"; outputs of {self.output}")

    def requests(self, shares: Sequence[float], names: Sequence[str]) -> Requests:
        """Return the requests for the networks called ``names`` with these shares.

        Raises HwsimError when a recorded request names a network that is not served, or no rate is known.
        """
        samples = [self.samples] * self.count
        if self.trace is not None and self.trace.samples:
            samples = self.trace.samples[: self.count]
        return Requests(
            self._arrivals(),
            self._models(shares, names),
            samples,
            self.clients,
            round(self.pause_s * SECOND_NS),
            picks(self.count, self.seed),
            stretches(self.variation, sum(samples), self.seed),
        )

    def token_requests(self) -> TokenRequests:
        """Return the requests for tokens; raises HwsimError when no lengths, or no rate, are known."""
        prompts, outputs = self.tokens()
        pause, drawn = round(self.pause_s * SECOND_NS), picks(self.count, self.seed)
        return TokenRequests(self._arrivals(), prompts, outputs, self.clients, pause, drawn)

    def tokens(self) -> tuple[list[int], list[int]]:
        """Return the tokens of every prompt and of every output; raises HwsimError when they are not known."""
        trace, count = self.trace, self.count
        prompts = trace.prompt[:count] if trace is not None else []
        outputs = trace.output[:count] if trace is not None else []
        if not prompts and self.prompt is not None:
            prompts = lengths(self.prompt.mean, self.prompt.spread, count, self.seed, 4)
        if not outputs and self.output is not None:
            outputs = lengths(self.output.mean, self.output.spread, count, self.seed, 5)
        if not prompts or not outputs:
            raise HwsimError(
                "tokens: give the lengths of prompts and outputs (--prompt 512 --output 128), or record both"
            )
        return prompts, outputs

    def _arrivals(self) -> list[int]:
        """When requests come, where they do so by themselves."""
        trace = self.trace
        if self.open and trace is not None:
            factor = 1.0 if self.rate_per_s is None or trace.rate_per_s is None else self.rate_per_s / trace.rate_per_s
            return trace.faster(factor)[: self.count]
        if self.open:
            if self.rate_per_s is None:
                raise HwsimError("no rate to serve is known")
            times: list[int] = arrival_times(self.pattern, self.rate_per_s, self.count, self.seed).tolist()
            return times
        return [0] * self.count if self.scenario == "offline" else []

    def _models(self, shares: Sequence[float], names: Sequence[str]) -> list[int]:
        if self.trace is None or not self.trace.model:
            return choices(tuple(shares), self.count, self.seed)
        place = {name: m for m, name in enumerate(names)}
        for name in self.trace.model:
            if name not in place:
                raise HwsimError(f"{self.trace.name}: asks for {name[:40]!r}, which is not served{near(name, names)}")
        return [place[name] for name in self.trace.model[: self.count]]


def make_load(
    scenario: str | None,
    *,
    rate_per_s: float | None,
    pattern: Pattern,
    trace: Trace | None,
    count: int | None,
    duration_s: float | None,
    samples: int | None,
    clients: int | None,
    pause_s: float,
    variation: float,
    seed: int,
    prompt: Lengths | None = None,
    output: Lengths | None = None,
) -> Load:
    """Return the load these options describe; raises HwsimError for those that exclude each other."""
    name = scenario or ("server" if clients is None else "single-stream")
    if name not in SCENARIOS:
        raise HwsimError(f"unknown scenario {name[:40]!r}: one of {', '.join(SCENARIOS)}{near(name, SCENARIOS)}")
    timed = {"rate": rate_per_s, "trace": trace, "duration": duration_s}
    if name != "server" or clients is not None:
        for what, value in timed.items():
            if value is not None:
                by = f"the {name} scenario" if clients is None else "clients that wait for their answer"
                raise HwsimError(f"{what}: {by} sets its own pace")
    if clients is not None and name in ("server", "offline") and scenario is not None:
        raise HwsimError(f"clients: the {name} scenario has requests that wait for nobody")
    if name == "single-stream" or name == "multi-stream":
        clients = 1 if clients is None else clients
    if samples is None:
        samples = MULTI_STREAM_SAMPLES if name == "multi-stream" else 1
    total = _count(name, rate_per_s, trace, count, duration_s)
    if total > MOST_REQUESTS:
        raise HwsimError(
            f"{total} requests are more than the {MOST_REQUESTS} one run holds: ask for fewer, or a shorter time"
        )
    if name == "offline":
        total, samples = total * samples, 1
    several = sum(trace.samples[:total]) if trace is not None and trace.samples else total * samples
    if several > MOST_SAMPLES:
        raise HwsimError(f"{several} samples are more than the {MOST_SAMPLES} one run holds: ask for fewer requests")
    return Load(
        name, rate_per_s, pattern, trace, total, samples, clients or 0, pause_s, variation, seed, prompt, output
    )


def _count(
    name: str, rate_per_s: float | None, trace: Trace | None, count: int | None, duration_s: float | None
) -> int:
    """How many requests a run has."""
    if count is not None and duration_s is not None:
        raise HwsimError("requests and duration: one of them is enough")
    if trace is not None:
        if duration_s is not None:
            raise HwsimError("duration: a recording has its own length; requests=N takes its first N")
        return len(trace.arrival_ns) if count is None else min(count, len(trace.arrival_ns))
    if duration_s is not None:
        if rate_per_s is None:
            raise HwsimError("duration: needs a rate")
        return max(1, round(duration_s * rate_per_s))
    return _COUNTS[name] if count is None else count
