"""What a stepped SM settles into: the period of its k-steps, once it has one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from hwsim.errors import HwsimError
from hwsim.timing.reference.gpu_program import Tile, cta_programs
from hwsim.timing.reference.gpu_sm import Sm, SmConfig, SmRun

LONGEST = 24  # k-steps of a period


def run_tile(tile: Tile, config: SmConfig, residents: int = 1, steps: int = 96) -> SmRun:
    """Step an SM through ``steps`` k-steps of ``residents`` equal CTAs that start together."""
    return Sm(config, [cta_programs(tile, steps)] * residents).run()


def period(run: SmRun, stages: int) -> tuple[Fraction, bool]:
    """Clocks in which the resident CTAs advance one k-step, and whether they do so periodically to the last clock.

    The last 2 ``stages`` + 4 k-steps, where nothing new is ordered, do not count. Without a period of up to ``LONGEST``
    k-steps, seen at least three times, the mean over the second half of the rest is returned. Raises HwsimError for short
    runs.
    """
    per_cta = [_period(ends[: len(ends) - 2 * stages - 4]) for ends in run.step_end]
    return sum((p for p, _ in per_cta), Fraction(0)) / len(per_cta), all(exact for _, exact in per_cta)


def _period(ends: Sequence[int]) -> tuple[Fraction, bool]:
    if len(ends) < 8:
        raise HwsimError("SM: too few k-steps for a steady state")
    gaps = [b - a for a, b in pairwise(ends)]
    for length in range(1, LONGEST + 1):
        seen = max(2 * length, LONGEST)  # as many gaps equal those one period before
        if seen + length <= len(gaps) and gaps[-seen:] == gaps[-seen - length : -length]:
            return Fraction(sum(gaps[-length:]), length), True
    half = len(gaps) // 2
    return Fraction(sum(gaps[half:]), len(gaps) - half), False
