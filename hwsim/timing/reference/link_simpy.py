"""Messages over a link, event by event: a sender, a wire each way, and tokens for the chunks under way.

The obvious twin of `hwsim.link.model`: nothing here knows a formula.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import simpy

from hwsim.link.model import Link, Message


def play(link: Link, messages: Sequence[Message]) -> list[tuple[float, float]]:
    """Return when each message's first chunk is started and its last one arrives, s."""
    env = simpy.Environment()
    tokens = simpy.Container(env, capacity=link.in_flight, init=link.in_flight)
    wires = [simpy.Resource(env, capacity=1) for _ in range(2)]
    times: list[list[float]] = [[-1.0, -1.0] for _ in messages]

    def carry(number: int, nbytes: int, to_host: bool, before: Any, done: Any) -> Generator[Any, Any, None]:
        if before is not None:
            yield before  # chunks of one direction arrive in the order they were started
        with wires[to_host].request() as wire:
            yield wire
            yield env.timeout(nbytes / link.rate(to_host))
        times[number][1] = env.now
        yield tokens.put(1)
        done.succeed()

    def send() -> Generator[Any, Any, None]:
        latest: list[Any] = [None, None]
        for number, message in enumerate(messages):
            left = message.nbytes
            size = link.to_host_chunk_bytes if message.to_host else link.to_chip_chunk_bytes
            first = True
            while first or left > 0:
                if env.now < message.ready_s:
                    yield env.timeout(message.ready_s - env.now)
                yield tokens.get(1)
                if first:
                    times[number][0] = env.now
                first = False
                part = min(left, size) if size > 0 else left
                left -= part
                if message.start_s:
                    yield env.timeout(message.start_s)
                done = env.event()
                env.process(carry(number, part, message.to_host, latest[message.to_host], done))
                latest[message.to_host] = done

    env.process(send())
    env.run()
    return [(a, b) for a, b in times]
