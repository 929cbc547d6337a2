"""What both engines of token serving are given and hand back: prefill and decode times, key/value memory, requests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

RESERVES = ("paged", "full")
TOKEN_ROUTINGS = ("shared", "round-robin", "least-loaded", "shortest-expected", "two-choices")


@dataclass(frozen=True, slots=True)
class Curve:
    """Time of an iteration over tokens: straight lines between nodes, in whole nanoseconds; the last one goes on.

    The first node is 1: no iteration has fewer tokens.
    """

    tokens: tuple[int, ...]
    ns: tuple[int, ...]

    def at(self, tokens: int) -> int:
        """Return the nanoseconds of ``tokens``."""
        j = self.piece(tokens)
        if j < 0:
            return self.ns[0]
        low, high = self.tokens[j], self.tokens[j + 1]
        return self.ns[j] + (self.ns[j + 1] - self.ns[j]) * (tokens - low) // (high - low)

    def piece(self, tokens: int) -> int:
        """Return which straight line holds ``tokens``; -1 for a curve of one node."""
        return min(bisect_right(self.tokens, tokens) - 1, len(self.tokens) - 2)


@dataclass(frozen=True, slots=True)
class TokenKind:
    """One kind of machine.

    ``prefill[n]`` is over the longest of ``n`` prompts read together, ``decode[b]`` over the tokens kept by all ``b``
    requests that get one token each, for powers of two: an iteration in between takes the next larger one. ``blocks`` of
    ``block_tokens`` tokens each hold keys and values; at most ``most`` requests run together.
    """

    prefill: Mapping[int, Curve]
    decode: Mapping[int, Curve]
    blocks: int
    block_tokens: int
    most: int

    def needs(self, tokens: int) -> int:
        """Return the blocks that hold ``tokens``."""
        return -(-tokens // self.block_tokens)


@dataclass(frozen=True, slots=True)
class TokenSetup:
    """Machines and rules: continuous batching, prompts first.

    Between two iterations a machine admits waiting requests, the oldest first, while the running ones are fewer than its
    most and their keys and values fit, at most ``prefill_batch`` at once, and reads their prompts together, which makes
    their first token; with nobody to admit, everyone running gets one token. ``full`` reserves memory for all tokens of
    a request when it is admitted. ``paged`` takes blocks as they fill, leaves ``spare`` of them free on admission, and when
    none is left sends the youngest back to the queue's head, to be read again with what it has written.
    """

    kinds: tuple[TokenKind, ...]
    machines: tuple[int, ...]
    routing: str = "shared"
    reserve: str = "paged"
    prefill_batch: int = 1
    spare: float = 0.01
    queue_capacity: int | None = None
    timeout_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRequests:
    """Who asks for how many tokens, when; closed as `setup.Requests` is, with ``clients`` and ``pause_ns``."""

    arrival_ns: Sequence[int]
    prompt: Sequence[int]
    output: Sequence[int]
    clients: int = 0
    pause_ns: int = 0
    picks: Sequence[Sequence[float]] = ()

    @property
    def count(self) -> int:
        """How many requests are made."""
        return len(self.prompt)


@dataclass(frozen=True, slots=True)
class TokenOutcome:
    """What became of every request: begun, first and last token out (ns), machine, times sent back, status.

    ``iterations[(machine, phase, size, piece)]`` counts iterations and sums their tokens, by the straight line of the
    curve that timed them: time and energy of a machine follow from it. ``busy_ns`` is by machine, ``peak_blocks`` too.
    """

    arrival_ns: Ints
    start_ns: Ints
    first_ns: Ints
    finish_ns: Ints
    machine: Ints
    sent_back: Ints
    status: Ints
    iterations: Mapping[tuple[int, str, int, int], tuple[int, int]]
    busy_ns: Ints
    peak_blocks: Ints

    def same(self, other: TokenOutcome) -> str:
        """Return the first difference to ``other`` in words, ``""`` when there is none."""
        for name in (field.name for field in fields(self) if field.name != "iterations"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if len(ours) != len(theirs):
                return f"{name}: {len(ours)} entries, not {len(theirs)}"
            different = np.flatnonzero(ours != theirs)
            if len(different):
                return f"{name}[{different[0]}]: {ours[different[0]]}, not {theirs[different[0]]}"
        if dict(self.iterations) != dict(other.iterations):
            return f"iterations: {dict(self.iterations)}, not {dict(other.iterations)}"
        return ""


def power_above(number: int) -> int:
    """Return the least power of two that is not less than ``number``."""
    return 1 << (number - 1).bit_length()
