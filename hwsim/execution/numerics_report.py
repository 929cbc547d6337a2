"""What a precision does to a network's values, layer by layer: error growth, overflow, underflow, and the layer that hurts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.execution.choose import Assignment, machine, watched
from hwsim.execution.metrics import statistics
from hwsim.execution.products import EXACT, Arithmetic, Tally
from hwsim.execution.run import TfliteSubject, keeper, open_subject
from hwsim.network.graph import Network

if TYPE_CHECKING:
    from hwsim.machine.accelerator import Accelerator

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LayerNumerics:
    """One layer under one precision.

    ``snr_db`` is its result's signal-to-noise ratio against exact arithmetic, everything before it included; ``loss_db`` how
    much lower that is than its worst operand's (negative where noise averages out). ``overflow`` counts finite values that
    left the format's range, ``saturated`` those clamped, ``underflow`` non-zero values that became zero, over the operands of
    its products and its result; ``not_finite`` results that are infinite or NaN where the exact ones are not.
    """

    layer: str
    label: str
    snr_db: float
    loss_db: float
    max_ulp: float
    overflow: int
    saturated: int
    underflow: int
    not_finite: int


@dataclass(frozen=True, slots=True)
class Numerics:
    """Layers of one precision in order of execution."""

    precision: str
    layers: tuple[LayerNumerics, ...]

    @property
    def worst(self) -> LayerNumerics:
        """The layer that hurts most: one that leaves the finite numbers, else the largest loss among those below 80 dB."""
        for layer in self.layers:
            if layer.not_finite:
                return layer
        low = [la for la in self.layers if la.snr_db < 80] or list(self.layers)
        return max(low, key=lambda la: la.loss_db)


def numerics(
    net: Network | str | os.PathLike[str],
    acc: Accelerator | str,
    precisions: Sequence[str],
    inputs: Mapping[str, Array] | Sequence[Array] | Array | None = None,
    *,
    seed: int = 0,
    batch: int = 1,
    shapes: Mapping[str, int] | None = None,
    weights: Mapping[str, Mapping[str, Array]] | None = None,
) -> tuple[Numerics, ...]:
    """Per-layer numerics of ``net`` on ``acc`` for each precision; other arguments as for `execute`.

    Raises HwsimError for integer files, precisions the machine lacks, and intermediates beyond 2^28 values.
    """
    from hwsim.errors import HwsimError

    subject = open_subject(net, seed=seed, batch=batch, shapes=shapes, weights=weights)
    if isinstance(subject, TfliteSubject):
        raise HwsimError(f"{subject.name}: a .tflite file states its own integers; use verify")
    given = subject.named(inputs)
    target = machine(acc)
    assignments = [(name, Assignment(target, name)) for name in precisions]
    exact, _, watch = keeper()
    subject.run(given, lambda _n, _o: EXACT, watch)
    sources = subject.sources()
    found = []
    for name, assignment in assignments:
        subject.follow(acc, name)
        found.append(_one(name, assignment, subject.run, given, exact, sources))
    return tuple(found)


def _one(
    precision: str,
    assignment: Assignment,
    run: Any,
    inputs: dict[str, Array],
    exact: dict[str, Array],
    sources: dict[str, tuple[str, ...]],
) -> Numerics:
    found: list[LayerNumerics] = []
    snr: dict[str, float] = {}
    current = Tally()

    def pick(name: str, op: str) -> Arithmetic:
        # asked once before each layer: what is counted from here on belongs to it
        nonlocal current
        current = Tally()
        return watched(assignment.of(name, op), tally=current)

    def watch(name: str, label: str, value: Array) -> None:
        nonlocal current
        want = exact.get(name)
        if want is None or want.dtype.kind != "f" or not want.size or want.shape != value.shape:
            return
        stats = statistics(value, want, assignment.of("", "").store or "fp32")
        before = min((snr[s] for s in sources.get(name, ()) if s in snr), default=math.inf)
        snr[name] = stats.snr_db
        loss = 0.0 if math.isinf(before) and math.isinf(stats.snr_db) else min(before, 200.0) - min(stats.snr_db, 200.0)
        lost = (current.overflow, current.saturated, current.underflow, stats.not_finite)
        found.append(LayerNumerics(name, label, stats.snr_db, loss, stats.max_ulp, *lost))

    with np.errstate(all="ignore"):
        run(inputs, pick, watch)
    return Numerics(precision, tuple(found))
