"""Token serving as SimPy processes, written to be read: every machine a process, every request an object, all looked up.

At one nanosecond iterations end first (`_ENDS`), then requests arrive (`_ARRIVES`), then free machines, in order, begin
their next iteration (`_BEGINS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from hwsim.serving.token_setup import TokenKind, TokenOutcome, TokenRequests, TokenSetup

_ENDS, _ARRIVES, _BEGINS = 2, 3, 4  # priorities; SimPy's own timeouts have 1


@dataclass
class _Request:
    number: int
    arrival: int
    prompt: int
    output: int
    made: int = 0  # tokens of the output
    kept: int = 0  # tokens whose keys and values are in memory
    start: int = -1
    first: int = -1
    finish: int = -1
    machine: int = -1
    sent_back: int = 0
    status: str = "served"

    @property
    def to_read(self) -> int:
        return self.prompt + self.made

    @property
    def full(self) -> int:
        """Tokens in memory when the last is made: all but that one."""
        return self.prompt + self.output - 1


@dataclass
class _Machine:
    number: int
    kind: TokenKind
    working: bool = False
    reading: list[_Request] = field(default_factory=list)
    running: list[_Request] = field(default_factory=list)  # in order of admission
    busy: int = 0
    peak: int = 0


class Shop:
    """All of it: `run` serves the requests and returns what became of them."""

    def __init__(self, setup: TokenSetup, requests: TokenRequests) -> None:
        self.setup, self.requests = setup, requests
        self.env: Any = simpy.Environment(0)
        self.all: list[_Request] = []
        self.machines = [_Machine(k, setup.kinds[kind]) for k, kind in enumerate(setup.machines)]
        self.line: list[list[_Request]] = [[] for _ in self.machines]
        self.turn = 0
        self.number: Counter[tuple[int, str, int, int]] = Counter()
        self.tokens: Counter[tuple[int, str, int, int]] = Counter()
        self.ended: list[_Machine] = []
        self.calling = False

    def run(self) -> TokenOutcome:
        """Serve every request."""
        self.env.process(self.customers())
        self.env.run()
        return self.outcome()

    def at(self, phase: int, what: Callable[[], None]) -> None:
        """Do something in a phase of the present nanosecond."""
        event = self.env.event()
        event._ok, event._value = True, None
        event.callbacks.append(lambda _: what())
        self.env.schedule(event, priority=phase)

    def begin_later(self) -> None:
        """Have the machines look for work at the end of this nanosecond."""
        if not self.calling:
            self.calling = True
            self.at(_BEGINS, self.begin)

    # -- customers -----------------------------------------------------------------------------------------------

    def customers(self) -> Iterator[Any]:
        """Let the requests come: by the clock, or the first of every client."""
        if self.requests.clients:
            for _ in range(min(self.requests.clients, self.requests.count)):
                self.at(_ARRIVES, self.arrive)
            return
        for arrival in self.requests.arrival_ns:
            yield self.env.timeout(arrival - self.env.now)
            self.at(_ARRIVES, self.arrive)

    def ask_again(self) -> Iterator[Any]:
        """One client asks again after its pause."""
        if self.requests.pause_ns:
            yield self.env.timeout(self.requests.pause_ns)
        self.at(_ARRIVES, self.arrive)

    def arrive(self) -> None:
        """The next request joins a line, or is sent away."""
        number = len(self.all)
        if number == self.requests.count:
            return
        request = _Request(number, self.env.now, self.requests.prompt[number], self.requests.output[number])
        self.all.append(request)
        for line in self.line:
            self.leave(line)
        line = self.line[0 if self.setup.routing == "shared" else self.route(request)]
        self.begin_later()
        if self.setup.queue_capacity is not None and len(line) >= self.setup.queue_capacity:
            request.status = "rejected"
            return
        line.append(request)

    def leave(self, line: list[_Request]) -> None:
        """Those go that have waited longer than the timeout without being begun."""
        timeout = self.setup.timeout_ns
        for request in list(line):
            if timeout is not None and request.start < 0 and self.env.now > request.arrival + timeout:
                request.status = "timed out"
                line.remove(request)

    def route(self, request: _Request) -> int:
        """Which machine's line to join."""
        rule, machines = self.setup.routing, range(len(self.machines))
        if rule == "round-robin":
            self.turn += 1
            return (self.turn - 1) % len(machines)

        def load(k: int) -> int:
            machine = self.machines[k]
            there = [*self.line[k], *machine.reading, *machine.running]
            if rule == "shortest-expected":
                return sum(r.prompt + r.output for r in there)
            return len(there)

        if rule == "two-choices" and len(machines) > 1:
            first, second = self.requests.picks[request.number]
            one = int(first * len(machines))
            other = [k for k in machines if k != one][int(second * (len(machines) - 1))]
            return one if load(one) <= load(other) else other
        return min(machines, key=lambda k: (load(k), k))

    # -- machines ------------------------------------------------------------------------------------------------

    def blocks(self, machine: _Machine, request: _Request) -> int:
        """Blocks a request on a machine holds."""
        return machine.kind.needs(request.full if self.setup.reserve == "full" else request.kept)

    def free(self, machine: _Machine) -> int:
        """Blocks nobody holds."""
        return machine.kind.blocks - sum(self.blocks(machine, r) for r in [*machine.reading, *machine.running])

    def begin(self) -> None:
        """Every machine that does nothing begins its next iteration, if there is one."""
        self.calling = False
        for machine in self.machines:
            if machine.working:
                continue
            line = self.line[0 if self.setup.routing == "shared" else machine.number]
            self.leave(line)
            self.admit(machine, line)
            if machine.reading:
                size, longest = up(len(machine.reading)), max(r.kept for r in machine.reading)
                self.iterate(machine, "prefill", size, longest)
            elif machine.running:
                if self.setup.reserve == "paged":
                    self.make_room(machine, line)
                earlier = sum(r.kept for r in machine.running)
                for request in machine.running:
                    request.kept += 1
                self.iterate(machine, "decode", up(len(machine.running)), earlier)

    def admit(self, machine: _Machine, line: list[_Request]) -> None:
        """Take those from the head of the line whose keys and values fit."""
        paged, kind = self.setup.reserve == "paged", machine.kind
        while line and len(machine.reading) < self.setup.prefill_batch:
            request = line[0]
            need = kind.needs(request.to_read if paged else request.full)
            nobody = not machine.reading and not machine.running
            spare = int(self.setup.spare * kind.blocks) if paged and not nobody else 0
            if len(machine.reading) + len(machine.running) >= kind.most or need > self.free(machine) - spare:
                return
            line.remove(request)
            request.start = self.env.now if request.start < 0 else request.start
            request.machine, request.kept = machine.number, request.to_read
            machine.reading.append(request)

    def make_room(self, machine: _Machine, line: list[_Request]) -> None:
        """Everyone is about to keep one token more; the youngest go back to the line while that does not fit."""
        while sum(machine.kind.needs(r.kept + 1) for r in machine.running) > machine.kind.blocks:
            youngest = machine.running.pop()
            youngest.kept, youngest.sent_back = 0, youngest.sent_back + 1
            line.insert(0, youngest)

    def iterate(self, machine: _Machine, phase: str, size: int, tokens: int) -> None:
        """One iteration."""
        curve = (machine.kind.prefill if phase == "prefill" else machine.kind.decode)[size]
        time = curve.at(tokens)
        key = (machine.number, phase, size, curve.piece(tokens))
        self.number[key] += 1
        self.tokens[key] += tokens
        machine.working = True
        machine.busy += time
        machine.peak = max(machine.peak, machine.kind.blocks - self.free(machine))
        self.env.process(self.work(machine, time))

    def work(self, machine: _Machine, time: int) -> Iterator[Any]:
        """The machine works for a while."""
        yield self.env.timeout(time)
        self.ended.append(machine)
        if len(self.ended) == 1:
            self.at(_ENDS, self.end)

    def end(self) -> None:
        """Iterations that end now: tokens are out, and who has all of theirs leaves."""
        for machine in sorted(self.ended, key=lambda m: m.number):
            machine.working = False
            if machine.reading:
                told, machine.reading = machine.reading, []
                machine.running += told
            else:
                told = machine.running
            for request in list(told):
                request.made += 1
                request.first = self.env.now if request.first < 0 else request.first
                if request.made == request.output:
                    request.finish = self.env.now
                    machine.running.remove(request)
                    if self.requests.clients:
                        self.env.process(self.ask_again())
        self.ended = []
        self.begin_later()

    def outcome(self) -> TokenOutcome:
        """What became of every request, and what the machines did."""
        status = {"served": 0, "rejected": 1, "timed out": 2}

        def column(get: Callable[[Any], int], of: list[Any]) -> np.ndarray[Any, Any]:
            return np.array([get(r) for r in of], np.int64)

        return TokenOutcome(
            column(lambda r: r.arrival, self.all),
            column(lambda r: r.start, self.all),
            column(lambda r: r.first, self.all),
            column(lambda r: r.finish, self.all),
            column(lambda r: r.machine, self.all),
            column(lambda r: r.sent_back, self.all),
            column(lambda r: status[r.status], self.all),
            {key: (self.number[key], self.tokens[key]) for key in sorted(self.number)},
            column(lambda m: m.busy, self.machines),
            column(lambda m: m.peak, self.machines),
        )


def up(number: int) -> int:
    """The least power of two that is not less."""
    power = 1
    while power < number:
        power *= 2
    return power


def run(setup: TokenSetup, requests: TokenRequests) -> TokenOutcome:
    """Return what becomes of ``requests`` (the twin of `hwsim.serving.token_engine.run`)."""
    return Shop(setup, requests).run()
