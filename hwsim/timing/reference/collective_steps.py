"""Exchanges among devices played step by step on real numbers: who sends which elements to whom, port by port.

The obvious twin of `hwsim.link.collective`: it moves the values, so that a wrong share shows as a wrong sum, and clocks every
port with exact fractions. A port sends one element at a time; what arrives waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

Vectors = list[list[int]]


class Ports:
    """The outgoing and incoming side of every device's port, one element a ``beat``."""

    def __init__(self, ways: int, beat: Fraction) -> None:
        self.beat = beat
        self.out_free = [Fraction(0)] * ways
        self.in_free = [Fraction(0)] * ways
        self.sent = [0] * ways

    def send(self, source: int, target: int, count: int, ready: Fraction) -> Fraction:
        """Return when ``count`` elements that are ready at a time have arrived."""
        begin = max(ready, self.out_free[source], self.in_free[target])
        end = begin + count * self.beat
        self.out_free[source] = self.in_free[target] = end
        self.sent[source] += count
        return end


def one_shot(vectors: Vectors, beat: Fraction) -> tuple[Vectors, list[int], Fraction]:
    """Everybody reads all others; return the sums, elements sent by each device, and the time."""
    ways, ports = len(vectors), Ports(len(vectors), beat)
    done = Fraction(0)
    for shift in range(1, ways):
        for device in range(ways):
            done = max(done, ports.send((device + shift) % ways, device, len(vectors[0]), Fraction(0)))
    total = [sum(column) for column in zip(*vectors, strict=True)]
    return [list(total) for _ in vectors], ports.sent, done


def two_shots(vectors: Vectors, beat: Fraction) -> tuple[Vectors, list[int], Fraction]:
    """Everybody reads its share of all others and adds it up; then everybody reads all sums."""
    ways, ports = len(vectors), Ports(len(vectors), beat)
    shares = _shares(len(vectors[0]), ways)
    ready = Fraction(0)
    sums: list[list[int]] = [[] for _ in range(ways)]
    for shift in range(1, ways):
        for device in range(ways):
            ready = max(ready, ports.send((device + shift) % ways, device, len(shares[device]), Fraction(0)))
    for device in range(ways):
        sums[device] = [sum(v[i] for v in vectors) for i in shares[device]]
    done = ready
    for shift in range(1, ways):
        for device in range(ways):
            source = (device + shift) % ways
            done = max(done, ports.send(source, device, len(shares[source]), ready))
    out = [x for part in sums for x in part]
    return [list(out) for _ in vectors], ports.sent, done


def ring(vectors: Vectors, beat: Fraction) -> tuple[Vectors, list[int], Fraction]:
    """Shares go round: at every step a device sends one share to the next, first adding up, then handing out."""
    ways, ports = len(vectors), Ports(len(vectors), beat)
    shares = _shares(len(vectors[0]), ways)
    state = [list(v) for v in vectors]
    time = Fraction(0)
    for step in range(2 * (ways - 1)):
        arrivals = []
        moved = []
        for device in range(ways):
            share = shares[(device - step) % ways]
            moved.append(((device + 1) % ways, share, [state[device][i] for i in share]))
            arrivals.append(ports.send(device, (device + 1) % ways, len(share), time))
        for target, share, values in moved:
            for i, value in zip(share, values, strict=True):
                state[target][i] = state[target][i] + value if step < ways - 1 else value
        time = max(arrivals)
    return state, ports.sent, time


def _shares(count: int, ways: int) -> list[Sequence[int]]:
    size = -(-count // ways)
    return [range(i * size, min(count, (i + 1) * size)) for i in range(ways)]
