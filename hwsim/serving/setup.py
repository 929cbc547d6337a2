"""What both serving engines are given and what they hand back: machines, queues, requests; whole nanoseconds throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

ROUTINGS = ("shared", "round-robin", "least-loaded", "shortest-expected", "two-choices")
ORDERS = ("oldest", "resident")
SERVED, REJECTED, TIMED_OUT = 0, 1, 2
NEVER = -1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of machine: what a batch of each model takes on it.

    ``hold_ns[m][n]`` is how long ``n`` samples of model ``m`` occupy the machine, ``span_ns[m][n]`` (at least as long)
    when their results are out; entry 0 is unused, the last one is the largest batch, an empty row a model it does not
    serve. ``weight_bytes`` and ``capacity_bytes`` say which models are resident together, ``swap_ns`` what loading costs.
    """

    hold_ns: tuple[tuple[int, ...], ...]
    span_ns: tuple[tuple[int, ...], ...]
    swap_ns: tuple[int, ...]
    weight_bytes: tuple[int, ...]
    capacity_bytes: int

    def max_batch(self, model: int) -> int:
        """Return the largest batch of ``model``, 0 when it is not served."""
        return max(0, len(self.hold_ns[model]) - 1)


@dataclass(frozen=True, slots=True)
class Setup:
    """Machines, queues and rules.

    A machine takes a batch when it is free and the samples waiting fill its largest batch, or the oldest has waited
    ``max_delay_ns`` of its model. Of several ready models the one whose head came first goes (``oldest``), or one that
    is resident before one that is not (``resident``). A request that finds ``queue_capacity`` requests waiting is
    rejected; one not begun ``timeout_ns`` after it came leaves. A machine runs up to ``concurrent`` batches at once, which
    share it equally; streams that wait for the shared queue take batches in the order in which they became free.
    """

    kinds: tuple[Kind, ...]
    machines: tuple[int, ...]  # the kind of each
    max_delay_ns: tuple[int, ...]  # by model
    routing: str = "shared"
    order: str = "oldest"
    queue_capacity: int | None = None
    timeout_ns: int | None = None
    concurrent: int = 1

    @property
    def ticks(self) -> int:
        """Parts of a nanosecond that any number of concurrent batches divides: progress is counted in them."""
        return math.lcm(*range(1, self.concurrent + 1))

    @property
    def models(self) -> int:
        """How many models there are."""
        return len(self.max_delay_ns)

    def serving(self, model: int) -> tuple[int, ...]:
        """Return the machines that serve ``model``."""
        return tuple(k for k, kind in enumerate(self.machines) if self.kinds[kind].max_batch(model))

    def resident_at_start(self, machine: int) -> list[int]:
        """Return the models loaded before the first request: in order, as far as they fit."""
        kind = self.kinds[self.machines[machine]]
        found: list[int] = []
        free = kind.capacity_bytes
        for m in range(self.models):
            if kind.max_batch(m) and kind.weight_bytes[m] <= free:
                found.append(m)
                free -= kind.weight_bytes[m]
        return found


@dataclass(frozen=True, slots=True)
class Requests:
    """Who asks for what, when.

    Open: ``arrival_ns`` does not fall. Closed (``clients`` > 0): each of them asks again ``pause_ns`` after its answer, and
    ``arrival_ns`` is not read. ``picks`` holds two numbers in [0, 1) a request for ``two-choices``; ``stretch[j]``
    multiplies the time of the j-th batch begun.
    """

    arrival_ns: Sequence[int]
    model: Sequence[int]
    samples: Sequence[int]
    clients: int = 0
    pause_ns: int = 0
    picks: Sequence[Sequence[float]] = ()
    stretch: Sequence[float] = ()

    @property
    def count(self) -> int:
        """How many requests are made."""
        return len(self.model)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of every request and every batch, as int64 arrays.

    ``start_ns`` is when the first sample of a request begins, ``finish_ns`` when the results of its last are out (both
    NEVER when dropped), ``batch`` the samples of the batch its last one ran in; ``status`` is SERVED, REJECTED or
    TIMED_OUT. ``batches`` has one row a batch: machine, model, samples, start, nanoseconds it is on the machine (loading
    included), nanoseconds of loading, and nanoseconds it would be there alone.
    """

    arrival_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    machine: Ints
    batch: Ints
    status: Ints
    batches: dict[str, Ints] = field(default_factory=dict)

    def same(self, other: Outcome) -> str:
        """Return the first difference to ``other`` in words, ``""`` when there is none."""
        pairs: list[tuple[str, Any, Any]] = [
            (name, getattr(self, name), getattr(other, name))
            for name in ("arrival_ns", "start_ns", "finish_ns", "machine", "batch", "status")
        ]
        pairs += [(f"batches.{name}", self.batches[name], other.batches[name]) for name in self.batches]
        for name, ours, theirs in pairs:
            if len(ours) != len(theirs):
                return f"{name}: {len(ours)} entries, not {len(theirs)}"
            different = np.flatnonzero(ours != theirs)
            if len(different):
                i = int(different[0])
                return f"{name}[{i}]: {int(ours[i])}, not {int(theirs[i])}"
        return ""


BATCH_COLUMNS = ("machine", "model", "samples", "start_ns", "held_ns", "loading_ns", "work_ns")


def stretched(ns: int, factor: float) -> int:
    """Return ``ns`` times ``factor`` as whole nanoseconds, at least one."""
    return max(1, round(ns * factor))
