"""The obvious twin of CTA dispatch: every CTA is placed and ended, one event after the other.

The rule, as far as it is public: CTAs go out in the order of their index, each to the SM with the fewest residents (the
lowest number among equals), at once while there is room, later whenever a resident ends. CTAs that end in one cycle free
their places together before any is filled. A CTA has a class; a class says how long it takes with r residents on its SM,
itself included. While r changes, it progresses at 1 / time(r) per cycle, in exact fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hwsim.errors import HwsimError


@dataclass
class Resident:
    """A CTA on an SM; ``left``: the share of its work still to do."""

    index: int
    kind: int
    started: Fraction
    left: Fraction = Fraction(1)


@dataclass
class GridRun:
    """What happened: ``end`` of the last CTA; for each CTA its SM, start and end; ``busy`` slot-cycles in use."""

    end: Fraction = Fraction(0)
    sm: list[int] = field(default_factory=list)
    start: list[Fraction] = field(default_factory=list)
    stop: list[Fraction] = field(default_factory=list)

    @property
    def busy(self) -> Fraction:
        """Slot-cycles during which a CTA was resident."""
        return sum((b - a for a, b in zip(self.start, self.stop, strict=True)), Fraction(0))


def run_grid(kinds: Sequence[int], cycles: Sequence[Sequence[int]], sms: int, per_sm: int) -> GridRun:
    """Dispatch CTAs of the given ``kinds`` in order over ``sms`` SMs of ``per_sm`` places each.

    ``cycles[kind][r - 1]``: how long such a CTA takes with r residents. Raises HwsimError for a machine without places
    or a class without a time for every number of residents.
    """
    if sms < 1 or per_sm < 1:
        raise HwsimError(f"CTA dispatch: {sms} SMs of {per_sm} places, expected at least one of each")
    if any(len(row) < per_sm or min(row) < 1 for row in cycles):
        raise HwsimError(f"CTA dispatch: every class needs {per_sm} times of at least 1 cycle")
    run = GridRun(sm=[-1] * len(kinds), start=[Fraction(0)] * len(kinds), stop=[Fraction(0)] * len(kinds))
    chip: list[list[Resident]] = [[] for _ in range(sms)]
    waiting = list(range(len(kinds)))[::-1]
    now = Fraction(0)
    while waiting or any(chip):
        # Hand out what fits.
        while waiting and min(len(there) for there in chip) < per_sm:
            here = min(range(sms), key=lambda s: len(chip[s]))
            index = waiting.pop()
            chip[here].append(Resident(index, kinds[index], now))
            run.sm[index], run.start[index] = here, now
        # The next end, at today's speeds.
        speed = [[Fraction(1, cycles[cta.kind][len(there) - 1]) for cta in there] for there in chip]
        pace = [pair for there, rates in zip(chip, speed, strict=True) for pair in zip(there, rates, strict=True)]
        step = min(cta.left / rate for cta, rate in pace)
        now += step
        for cta, rate in pace:
            cta.left -= step * rate
        for there in chip:
            for cta in [c for c in there if c.left == 0]:
                there.remove(cta)
                run.stop[cta.index] = now
    run.end = now
    return run


def tile_kinds(m_tiles: int, n_tiles: int, m_edge: bool, n_edge: bool, *, along_n: bool = True) -> list[int]:
    """Class of every CTA of a grid in raster order: 0 full, 1 last row, 2 last column, 3 the corner of both."""
    outer, inner = (m_tiles, n_tiles) if along_n else (n_tiles, m_tiles)
    kinds = []
    for i in range(outer):
        for j in range(inner):
            row, col = (i, j) if along_n else (j, i)
            kinds.append((m_edge and row == m_tiles - 1) + 2 * (n_edge and col == n_tiles - 1))
    return kinds
