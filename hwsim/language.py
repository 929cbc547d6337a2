"""What a run of a language model means in tokens: per second, for each sequence, to the first one and between the others."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.network.cache import LENGTH, PAST, keeps_cache
from hwsim.network.graph import Network


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one run: ``sequences`` side by side, each ``new`` ones after ``past`` ones in the cache, in ``latency_s``.

    ``phase`` is ``decode`` (one token each) or ``prefill`` (a prompt each, which also makes the first token).
    """

    phase: str
    sequences: int
    new: int
    past: int
    latency_s: float
    throughput_per_s: float  # of runs

    @property
    def per_s(self) -> float:
        """Tokens made (decode) or read (prefill) per second by all sequences."""
        return self.new * self.throughput_per_s

    @property
    def each_per_s(self) -> float:
        """Tokens per second of one sequence."""
        return self.new / self.latency_s

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token (prefill): the prompts of a run are read together."""
        return self.latency_s if self.phase == "prefill" else None

    @property
    def tpot_s(self) -> float | None:
        """Seconds for each token after the first (decode)."""
        return self.latency_s if self.phase == "decode" else None


def tokens_of(net: Network, sequences: int, latency_s: float, throughput_per_s: float) -> Tokens | None:
    """Return the tokens of a run of bound ``net``; None where it keeps no key/value cache."""
    if f"bound_{LENGTH}" not in net.meta or not keeps_cache(net):
        return None
    new, past = int(net.meta[f"bound_{LENGTH}"]), int(net.meta.get(f"bound_{PAST}", 0))
    phase = "decode" if new == 1 and past > 0 else "prefill"
    return Tokens(phase, sequences, new, past, latency_s, throughput_per_s)
