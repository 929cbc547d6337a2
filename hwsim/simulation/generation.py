"""Generation: a prompt is read, then tokens are made one after the other over a growing cache.

A step's time follows the context nearly in straight lines, with small jumps where kernels are cut differently. Steps are
simulated exactly at some contexts, more of them where a straight line would be off, and every other step lies on the line
between its neighbours; the answer says how many were simulated and by how much the lines were off where they were checked.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from os import PathLike
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.cache import with_cache
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.result import Result
from hwsim.simulation import simulate

CLOSE = 0.004  # a line this near the step it is checked at is kept
POINTS = 33  # steps simulated at most


@dataclass(frozen=True)
class Generation:
    """``tokens`` new tokens for each of ``batch`` sequences after a prompt of ``prompt`` tokens.

    ``prefill`` is the run that reads the prompts and makes the first tokens; ``steps`` the decode steps simulated, by the
    tokens in the cache before each; ``off`` the largest share by which a line missed a step it was checked at.
    """

    prompt: int
    tokens: int
    batch: int
    prefill: Result
    steps: dict[int, Result]
    off: float

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token of every sequence."""
        return self.prefill.latency_s

    @cached_property
    def decode_s(self) -> float:
        """Seconds of all tokens after the first."""
        return self._sum({p: r.latency_s for p, r in self.steps.items()})

    @property
    def tpot_s(self) -> float:
        """Seconds for each token after the first, on average; 0 where there is none."""
        return self.decode_s / (self.tokens - 1) if self.tokens > 1 else 0.0

    @property
    def total_s(self) -> float:
        """Seconds from the prompts to the last tokens."""
        return self.ttft_s + self.decode_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens made per second by all sequences, the reading of the prompts included."""
        return self.batch * self.tokens / self.total_s

    @cached_property
    def energy_j(self) -> float:
        """Joules of all of it."""
        return self.prefill.energy_j + self._sum({p: r.energy_j for p, r in self.steps.items()})

    @property
    def last(self) -> Result:
        """The run that needs most memory: the last step, or the prefill where it is the only run."""
        return self.steps[max(self.steps)] if self.steps else self.prefill

    @property
    def note(self) -> str:
        """How the steps were added up."""
        if not self.steps:
            return "the prefill makes the only token"
        if len(self.steps) == self.tokens - 1:
            return f"all {self.tokens - 1} decode steps simulated"
        return (
            f"{len(self.steps)} of {self.tokens - 1} decode steps simulated, straight lines between "
            f"(at most {100 * self.off:.2g} % off where checked)"
        )

    def step_s(self, past: int) -> float:
        """Seconds of the step that finds ``past`` tokens in the cache."""
        return _line({p: r.latency_s for p, r in self.steps.items()}, past)

    def _sum(self, values: dict[int, float]) -> float:
        """The sum over all steps of the lines through ``values``."""
        if not values:
            return 0.0
        at = sorted(values)
        total = values[at[0]]
        for low, high in pairwise(at):
            count = high - low  # steps low + 1 ... high
            rise = (values[high] - values[low]) / count
            total += count * values[low] + rise * count * (count + 1) / 2
        return total

    def to_dict(self) -> dict[str, Any]:
        """The totals as plain data, JSON-ready, with the steps simulated."""
        memory = self.last.memory
        return {
            "network": self.prefill.network.name, "target": self.prefill.accelerator.target, "prompt": self.prompt,
            "tokens": self.tokens, "batch": self.batch, "ttft_s": self.ttft_s, "tpot_s": self.tpot_s,
            "total_s": self.total_s, "tokens_per_s": self.tokens_per_s, "energy_j": self.energy_j,
            "energy_per_token_j": self.energy_j / (self.batch * self.tokens),
            "memory_bytes": None if memory is None else memory.need,
            "steps": {str(p): self.steps[p].latency_s for p in sorted(self.steps)},
            "notes": [self.note, *self.last.notes],
        }  # fmt: skip

    def to_json(self) -> str:
        """The totals as JSON text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def __repr__(self) -> str:
        return (
            f"<Generation {self.prefill.network.name} on {self.prefill.accelerator.target}, batch {self.batch}: "
            f"{self.prompt} + {self.tokens} tokens, first after {self.ttft_s * 1e3:.4g} ms, "
            f"{self.tpot_s * 1e3:.4g} ms a token, {self.tokens_per_s:.4g} tokens/s>"
        )


def generate(
    network: str | PathLike[str] | Network | Any, target: str | PathLike[str] | Accelerator, *, prompt: int,
    tokens: int, batch: int = 1, **options: Any,
) -> Generation:  # fmt: skip
    """Return what it takes to read prompts of ``prompt`` tokens and make ``tokens`` tokens for each of ``batch`` sequences.

    ``options`` are those of `simulate`, without phase and context. Raises HwsimError for networks without a decode phase
    and for what does not fit at the end, when the cache is longest.
    """
    for name, value in (("prompt", prompt), ("tokens", tokens)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**20:
            raise HwsimError(f"{name} must be a whole number from 1 to {2**20}, not {value!r}")
    if "phase" in options or "context" in options:
        raise HwsimError("generate reads the prompt and makes the tokens: leave phase and context out")
    net = load_network(network)
    if with_cache(net) is None:
        raise HwsimError(f"network {net.name} keeps no key/value cache: it generates no tokens")
    acc = load_accelerator(target if isinstance(target, Accelerator) else str(target))

    def step(past: int) -> Result:
        return simulate(net, acc, batch=batch, phase="decode", context=past, **options)

    first, last = prompt, prompt + tokens - 2
    steps: dict[int, Result] = {}
    off = 0.0
    if tokens > 1:
        steps[last] = step(last)  # what needs most memory comes first
        off = _refine(step, steps, first, last)
    prefill = simulate(net, acc, batch=batch, phase="prefill", context=prompt, **options)
    return Generation(prompt, tokens, batch, prefill, steps, off)


def _refine(step: Callable[[int], Result], steps: dict[int, Result], first: int, last: int) -> float:
    """Simulate steps between ``first`` and ``last`` until lines between them are close; return the largest miss kept."""
    if first not in steps:
        steps[first] = step(first)
    off = 0.0
    spans = [(first, last)]
    while spans and len(steps) < POINTS:
        low, high = spans.pop(0)
        middle = (low + high) // 2
        if middle in (low, high):
            continue
        steps[middle] = step(middle)
        ends = {low: steps[low].latency_s, high: steps[high].latency_s}
        miss = abs(_line(ends, middle) / steps[middle].latency_s - 1)
        if miss > CLOSE:
            spans += [(low, middle), (middle, high)]
        else:
            off = max(off, miss)
    return off


def _line(values: dict[int, float], at: int) -> float:
    """The value at a number on the lines through ``values``."""
    known = sorted(values)
    i = min(max(bisect_right(known, at) - 1, 0), max(0, len(known) - 2))
    low, high = known[i], known[min(i + 1, len(known) - 1)]
    if low == high:
        return values[low]
    return values[low] + (values[high] - values[low]) * (at - low) / (high - low)
