"""One link: rates, chunks and what may be under way, with the time of a message and of a queue of messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.machine.sections import Host, Interconnect


@dataclass(frozen=True, slots=True)
class Link:
    """Effective rates of both directions, B/s; the largest chunk each carries (0: not cut); chunks under way at once.

    ``round_trip_s`` is the time of an empty request and its answer, paid once a request, not once a chunk.
    """

    name: str
    to_chip_bytes_per_s: float
    to_host_bytes_per_s: float
    round_trip_s: float = 0.0
    to_chip_chunk_bytes: int = 0
    to_host_chunk_bytes: int = 0
    in_flight: int = 1

    def rate(self, to_host: bool) -> float:
        """Bytes per second of one direction."""
        return self.to_host_bytes_per_s if to_host else self.to_chip_bytes_per_s

    def chunks(self, nbytes: int, to_host: bool) -> tuple[int, int]:
        """Return how many chunks carry ``nbytes`` one way, and the bytes of the last; an empty message is one chunk."""
        size = self.to_host_chunk_bytes if to_host else self.to_chip_chunk_bytes
        if size <= 0 or nbytes <= size:
            return 1, nbytes
        count = -(-nbytes // size)
        return count, nbytes - (count - 1) * size


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes to send, the earliest time they may start, and what starting one chunk costs the sender, s."""

    nbytes: int
    ready_s: float = 0.0
    start_s: float = 0.0
    to_host: bool = False


def host_link(host: Host) -> Link:
    """Return the link a machine's ``[host]`` or ``[link.<name>]`` table describes; a stated rate of both ways limits each."""
    return Link(
        host.link or "link",
        min(host.to_chip_bytes_per_s, host.bandwidth_bytes_per_s),
        min(host.to_host_bytes_per_s, host.bandwidth_bytes_per_s),
        host.round_trip_s,
        host.to_chip_chunk_bytes,
        host.to_host_chunk_bytes,
        host.in_flight,
    )


def chip_link(interconnect: Interconnect) -> Link:
    """Return one link between chips (NVLink, ICI) as ``[interconnect]`` describes it."""
    rate = interconnect.link_bytes_per_s or math.inf
    return Link(interconnect.topology, rate, rate, 2 * interconnect.hop_latency_s)


def transfer_s(link: Link, nbytes: int, *, to_host: bool = False, start_s: float = 0.0) -> float:
    """Return the seconds from starting a message to its last byte, on an idle link.

    Exact for chunks of one size and a shorter last one: with one chunk under way starting and carrying alternate, with
    more the slower of the two sets the pace. ``round_trip_s`` is not included.
    """
    count, last = link.chunks(nbytes, to_host)
    rate = link.rate(to_host)
    wire_last = last / rate
    if count == 1:
        return start_s + wire_last
    size = link.to_host_chunk_bytes if to_host else link.to_chip_chunk_bytes
    wire = size / rate
    if link.in_flight == 1:
        return count * start_s + (count - 1) * wire + wire_last
    return max(start_s + (count - 1) * wire, count * start_s) + wire_last


def drain(link: Link, messages: Sequence[Message]) -> list[tuple[float, float]]:
    """Return when each message begins and ends, sent in order over one link, first come, first served.

    One sender starts the chunks of all messages in order; each direction has its own wire (full duplex), and at most
    ``in_flight`` chunks are between start and arrival.
    """
    sender = 0.0
    wire = [0.0, 0.0]
    under_way: list[float] = []  # arrivals of the latest chunks
    out: list[tuple[float, float]] = []
    for message in messages:
        count, last = link.chunks(message.nbytes, message.to_host)
        size = link.to_host_chunk_bytes if message.to_host else link.to_chip_chunk_bytes
        rate = link.rate(message.to_host)
        begin = math.nan
        arrived = 0.0
        for i in range(count):
            free = under_way[-link.in_flight] if len(under_way) >= link.in_flight else 0.0
            start = max(sender, message.ready_s, free)
            begin = start if i == 0 else begin
            sender = start + message.start_s
            arrived = max(sender, wire[message.to_host]) + (size if i < count - 1 else last) / rate
            wire[message.to_host] = arrived
            under_way.append(arrived)
            under_way.sort()
            del under_way[: -link.in_flight]
        out.append((begin, arrived))
    return out
