"""What a batch takes on a machine: each simulated once, batches between the simulated ones padded or interpolated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwsim.comparison.contender import Contender, own_formats, preset_label
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator
from hwsim.network.graph import Network
from hwsim.plan.options import RunOptions
from hwsim.serving.arrivals import SECOND_NS
from hwsim.simulation import simulate

if TYPE_CHECKING:
    from hwsim.result import Result

BETWEEN = ("pad", "interpolate", "exact")
LARGEST = 1024  # a batch nobody asked for is not larger


@dataclass(frozen=True, slots=True)
class Point:
    """One simulated batch: seconds until its results, seconds it occupies the machine, joules, and what memory it needs."""

    batch: int
    latency_s: float
    interval_s: float
    energy_j: float
    idle_w: float
    weight_bytes: int
    other_bytes: int  # activations and key/value cache of one program
    bound_by: str

    @property
    def throughput_per_s(self) -> float:
        """Inferences per second, batches back to back."""
        return self.batch / self.interval_s


@dataclass(frozen=True, slots=True)
class Table:
    """What every batch from 1 to the largest takes; entry 0 is unused. ``simulated`` are the sizes that were run."""

    hold_ns: tuple[int, ...]
    span_ns: tuple[int, ...]
    energy_j: tuple[float, ...]
    simulated: tuple[int, ...]

    @property
    def largest(self) -> int:
        """The largest batch."""
        return len(self.hold_ns) - 1

    @property
    def most_per_s(self) -> float:
        """Samples per second of the best batch, back to back."""
        return max(n / self.hold_ns[n] for n in range(1, len(self.hold_ns))) * SECOND_NS


class Service:
    """One network on one machine: what batches take. ``refused`` says why it does not run, "" when it does."""

    def __init__(self, net: Network, acc: Accelerator, options: RunOptions) -> None:
        self.net, self.acc = net, acc
        contender = Contender(net, acc, options)
        self.options, self.note = contender.options, contender.note
        self._points: dict[int, Point] = {}
        self.refused = ""
        try:
            self.at(1)
        except HwsimError as error:
            self.refused = str(error)

    @property
    def format(self) -> str:
        """The precision in one word."""
        precision = self.options.precision
        return own_formats(self.net) if precision is None else preset_label(precision)

    def result(self, batch: int, **changes: object) -> Result:
        """Return the simulation of a batch; raises HwsimError when the machine refuses it."""
        options = self.options
        asked: dict[str, object] = {
            "shapes": options.shapes,
            "phase": options.phase,
            "context": options.context,
            "precision": options.precision,
            "sparsity": options.sparsity,
            "stack": options.stack,
            "parallel": options.parallel,
        }
        return simulate(self.net, self.acc, batch=batch, **(asked | changes))  # type: ignore[arg-type]

    def at(self, batch: int) -> Point:
        """Return one simulated batch; raises HwsimError when the machine refuses it."""
        if batch not in self._points:
            self._points[batch] = _point(self.result(batch), batch)
        return self._points[batch]

    @property
    def batches(self) -> bool:
        """Whether the network takes batches: a file may fix its own."""
        return "N" in self.net.symbols

    def sizes(self, largest: int, extra: Iterable[int] = ()) -> list[int]:
        """Return the batches simulated for a largest one: powers of two, itself, and those asked for."""
        powers = [1 << e for e in range(largest.bit_length())]
        return sorted({*powers, largest, *(n for n in extra if n <= largest)})

    def table(self, largest: int, between: str = "pad", extra: Iterable[int] = ()) -> Table:
        """Return what batches of 1 to ``largest`` take; raises HwsimError when one of them is refused.

        Of the sizes not simulated, ``pad`` runs the next larger one, ``interpolate`` lies on a straight line between its
        neighbours, ``exact`` simulates every size.
        """
        sizes = list(range(1, largest + 1)) if between == "exact" else self.sizes(largest, extra)
        points = [self.at(n) for n in sizes]
        hold, span, energy = [0], [0], [0.0]
        for n in range(1, largest + 1):
            above = next(i for i, size in enumerate(sizes) if size >= n)
            high = points[above]
            low, part = high, 0.0
            if between == "interpolate" and sizes[above] != n:
                low = points[above - 1]
                part = (high.batch - n) / (high.batch - low.batch)  # of the way down
            hold.append(_ns(high.interval_s + part * (low.interval_s - high.interval_s)))
            span.append(max(hold[-1], _ns(high.latency_s + part * (low.latency_s - high.latency_s))))
            energy.append(high.energy_j + part * (low.energy_j - high.energy_j))
        return Table(tuple(hold), tuple(span), tuple(energy), tuple(sizes))

    def runs(self, batch: int) -> bool:
        """Whether the machine runs a batch."""
        try:
            self.at(batch)
        except HwsimError:
            return False
        return True

    def in_time(self, within_s: float, waits: float) -> int:
        """Return the power of two with the highest rate of those whose latency times ``waits`` is at most ``within_s``.

        0 when even one is late.
        """
        best, size = 0, 1
        while size <= (LARGEST if self.batches else 1) and self.runs(size):
            if self.at(size).latency_s * waits > within_s:
                break
            if not best or self.at(size).throughput_per_s >= self.at(best).throughput_per_s:
                best = size
            size *= 2
        return best

    def knee(self) -> int:
        """Return the power of two from which twice the batch gains less than 2 % of rate, or is refused."""
        size = 1
        while self.batches and size < LARGEST and self.runs(2 * size):
            if self.at(2 * size).throughput_per_s < 1.02 * self.at(size).throughput_per_s:
                break
            size *= 2
        return size

    # -- memory --------------------------------------------------------------------------------------------------

    def room_bytes(self, largest: int) -> int:
        """Return what the memory of one program holds besides activations and caches of a batch: room for weights."""
        try:
            capacity = self.acc.dram.capacity_bytes // self.acc.memory_share
        except HwsimError:
            return 1 << 62  # weights live nowhere that could be full
        return max(0, capacity - self.at(largest).other_bytes)

    @property
    def alone(self) -> bool:
        """Whether the machine keeps one network's parameters at a time: an Edge TPU, of networks compiled apart."""
        return self.acc.family == "edge-tpu"

    def swap_s(self, bytes_per_s: float | None) -> float:
        """Return seconds to load the weights: over the link to the host, at a given rate, or as a cold run says.

        Raises HwsimError when it is not known.
        """
        if self.alone and bytes_per_s is None:
            return max(0.0, self.result(1, cache="cold").latency_s - self.at(1).latency_s)
        host = self.acc.host
        link = min(host.bandwidth_bytes_per_s, host.to_chip_bytes_per_s) if bytes_per_s is None else bytes_per_s
        if math.isinf(link):
            raise HwsimError(
                f"{self.acc.id}: the networks do not fit together and no host link is stated to load them over; "
                "give its rate with --swap-bandwidth 12GB/s"
            )
        return host.round_trip_s + self.at(1).weight_bytes * self.acc.programs_per_chip / link


def _ns(seconds: float) -> int:
    return max(1, round(seconds * SECOND_NS))


def _point(result: Result, batch: int) -> Point:
    plan, totals = result.plan, result.totals
    return Point(
        batch,
        result.latency_s,
        batch / result.throughput_per_s,
        result.energy_j,
        result.energy.static.power_w.value * totals.programs,
        plan.weight_bytes,
        plan.activation_bytes + plan.cache_bytes,
        result.bound_by,
    )
