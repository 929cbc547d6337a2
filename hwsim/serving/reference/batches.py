"""Batch serving as SimPy processes, written to be read: customers, machines and a clerk; every rule looked up afresh.

What happens at one nanosecond happens in phases, as `docs/serving.md` says: machines end batches (`_ENDS`), requests
arrive (`_ARRIVES`), the clerk hands batches to free machines (`_HANDS_OUT`). SimPy orders events of one time by priority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from hwsim.serving.setup import BATCH_COLUMNS, Outcome, Requests, Setup

_ENDS, _ARRIVES, _HANDS_OUT = 2, 3, 4  # priorities; SimPy's own timeouts have 1


@dataclass
class _Request:
    number: int
    model: int
    samples: int
    arrival: int
    waiting: int  # samples not begun
    start: int = -1
    finish: int = -1
    machine: int = -1
    batch: int = 0
    status: str = "served"


@dataclass
class _Batch:
    number: int
    left: int  # ticks of work
    tail: int  # nanoseconds from its end until results are out
    samples: int
    done: list[_Request]


@dataclass
class _Machine:
    number: int
    batches: list[_Batch] = field(default_factory=list)
    since: int = 0  # when their work was last counted
    changes: int = 0
    loaded: list[int] = field(default_factory=list)  # models, the least recently used first
    running: int = 0  # samples whose results are not out


class Shop:
    """All of it: `run` serves the requests and returns what became of them."""

    def __init__(self, setup: Setup, requests: Requests) -> None:
        self.setup, self.requests = setup, requests
        self.env: Any = simpy.Environment(0)
        self.all: list[_Request] = []
        self.machines = [_Machine(k, loaded=setup.resident_at_start(k)) for k in range(len(setup.machines))]
        self.line: list[list[_Request]] = [
            [] for _ in self.machines
        ]  # in order of arrival; the shared one is the first
        self.turn = [0] * setup.models
        self.batches: list[list[int]] = []
        self.over: list[_Machine] = []
        self.ended: list[tuple[int, _Batch]] = []
        self.slots = [k for _ in range(setup.concurrent) for k in range(len(self.machines))]  # the longest free first
        self.settling = self.handing_out = False

    def run(self) -> Outcome:
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
        """The next request comes to a queue, or is sent away."""
        number = len(self.all)
        if number == self.requests.count:
            return
        samples = self.requests.samples[number]
        request = _Request(number, self.requests.model[number], samples, self.env.now, samples)
        self.all.append(request)
        for line in self.line:
            self.leave(line)
        line = self.line[0 if self.setup.routing == "shared" else self.route(request)]
        capacity = self.setup.queue_capacity
        if capacity is not None and len(line) >= capacity:
            request.status = "rejected"
            return
        line.append(request)
        self.call_clerk()

    def leave(self, line: list[_Request]) -> None:
        """Those go that have waited longer than the timeout without being begun."""
        timeout = self.setup.timeout_ns
        for request in list(line):
            if timeout is not None and request.start < 0 and self.env.now > request.arrival + timeout:
                request.status = "timed out"
                line.remove(request)

    def route(self, request: _Request) -> int:
        """Which machine's line to join."""
        able = self.setup.serving(request.model)
        rule = self.setup.routing
        if rule == "round-robin":
            self.turn[request.model] += 1
            return able[(self.turn[request.model] - 1) % len(able)]
        if rule == "two-choices" and len(able) > 1:
            first, second = self.requests.picks[request.number]
            one = able[int(first * len(able))]
            others = [k for k in able if k != one]
            other = others[int(second * len(others))]
            return one if self.outstanding(one) <= self.outstanding(other) else other
        if rule == "shortest-expected":
            return min(able, key=lambda k: (self.expected(k, request), k))
        return min(able, key=lambda k: (self.outstanding(k), k))

    def outstanding(self, k: int) -> int:
        """Samples waiting for and running on a machine."""
        return self.machines[k].running + sum(r.waiting for r in self.line[k])

    def expected(self, k: int, request: _Request) -> int:
        """Time until a machine would have done everything in its line and this request: full batches and a rest of each."""
        kind = self.setup.kinds[self.setup.machines[k]]
        self.count_work(self.machines[k])
        total: int = sum(b.left for b in self.machines[k].batches) // self.setup.ticks
        for model in range(self.setup.models):
            samples = sum(r.waiting for r in [*self.line[k], request] if r.model == model)
            while samples:
                batch = min(samples, kind.max_batch(model))
                total += kind.hold_ns[model][batch]
                samples -= batch
        return total

    # -- the clerk -----------------------------------------------------------------------------------------------

    def call_clerk(self) -> None:
        """Have batches handed out at the end of this nanosecond."""
        if not self.handing_out:
            self.handing_out = True
            self.at(_HANDS_OUT, self.hand_out)

    def call_clerk_later(self, delay: int) -> Iterator[Any]:
        """Have batches handed out when the oldest will have waited long enough."""
        yield self.env.timeout(delay)
        self.call_clerk()

    def hand_out(self) -> None:
        """Every free slot takes the batch that is ready for it.

        Machines in order; of several streams that wait for one queue the one that was free longest comes first.
        """
        self.handing_out = False
        waiting_together = self.setup.routing == "shared" and self.setup.concurrent > 1
        for number in list(self.slots) if waiting_together else sorted(self.slots):
            machine = self.machines[number]
            line = self.line[0 if self.setup.routing == "shared" else number]
            self.leave(line)
            model = self.ready(machine, line)
            if model is not None:
                self.slots.remove(number)
                self.begin(machine, line, model)

    def ready(self, machine: _Machine, line: list[_Request]) -> int | None:
        """The model whose batch a machine takes now, if any."""
        kind = self.setup.kinds[self.setup.machines[machine.number]]
        found = []
        for model in range(self.setup.models):
            mine = [r for r in line if r.model == model]
            if not mine or not kind.max_batch(model):
                continue
            waited, patience = self.env.now - mine[0].arrival, self.setup.max_delay_ns[model]
            if waited >= patience or sum(r.waiting for r in mine) >= kind.max_batch(model):
                away = self.setup.order == "resident" and model not in machine.loaded
                found.append((away, mine[0].arrival, model))
            else:
                self.env.process(self.call_clerk_later(patience - waited))
        return min(found)[2] if found else None

    # -- machines ------------------------------------------------------------------------------------------------

    def begin(self, machine: _Machine, line: list[_Request], model: int) -> None:
        """A machine takes as many samples of a model as its largest batch has, from the head of the line."""
        kind = self.setup.kinds[self.setup.machines[machine.number]]
        room = kind.max_batch(model)
        done = []
        for request in [r for r in line if r.model == model]:
            if not room:
                break
            if request.start < 0:
                request.start = self.env.now
            take = min(room, request.waiting)
            request.waiting -= take
            room -= take
            if not request.waiting:
                done.append(request)
                line.remove(request)
        samples = kind.max_batch(model) - room
        stretch = self.requests.stretch[len(self.batches)] if self.requests.stretch else 1.0
        hold, span = (max(1, round(t[model][samples] * stretch)) for t in (kind.hold_ns, kind.span_ns))
        loading = self.load(machine, model)
        work = loading + hold
        batch = _Batch(len(self.batches), work * self.setup.ticks, span - hold, samples, done)
        self.batches.append([machine.number, model, samples, self.env.now, 0, loading, work])
        machine.running += samples
        for request in done:
            request.machine, request.batch = machine.number, samples
        self.count_work(machine)
        machine.batches.append(batch)
        self.watch(machine)

    def count_work(self, machine: _Machine) -> None:
        """What its batches have done since they were last looked at: an equal share of the machine each."""
        for batch in machine.batches:
            batch.left -= (self.env.now - machine.since) * self.setup.ticks // len(machine.batches)
        machine.since = self.env.now

    def watch(self, machine: _Machine) -> None:
        """Look again when the first of its batches will be done, if nothing else happens."""
        machine.changes += 1
        if machine.batches:
            self.env.process(self.look_again(machine, machine.changes))

    def look_again(self, machine: _Machine, changes: int) -> Iterator[Any]:
        """Wait for the first of its batches; they may have changed by then."""
        least, ticks = min(b.left for b in machine.batches) * len(machine.batches), self.setup.ticks
        yield self.env.timeout((least + ticks - 1) // ticks)
        if machine.changes == changes:
            self.over.append(machine)
            self.settle_later()

    def load(self, machine: _Machine, model: int) -> int:
        """Make a model resident, the least recently used leaving for it; how long that takes."""
        kind = self.setup.kinds[self.setup.machines[machine.number]]
        if model in machine.loaded:
            machine.loaded = [m for m in machine.loaded if m != model] + [model]
            return 0
        keep = machine.loaded
        while keep and sum(kind.weight_bytes[m] for m in [*keep, model]) > kind.capacity_bytes:
            keep = keep[1:]
        fits = kind.weight_bytes[model] <= kind.capacity_bytes
        machine.loaded = [*keep, model] if fits else keep
        return kind.swap_ns[model]

    def settle_later(self) -> None:
        """Have ends of batches looked after in this nanosecond."""
        if not self.settling:
            self.settling = True
            self.at(_ENDS, self.settle)

    def deliver(self, machine: _Machine, batch: _Batch) -> Iterator[Any]:
        """The results of a batch come out after its end."""
        yield self.env.timeout(batch.tail)
        self.ended.append((machine.number, batch))
        self.settle_later()

    def settle(self) -> None:
        """Batches that end this nanosecond free their machines; those whose results are out answer their requests."""
        self.settling = False
        for machine in sorted(self.over, key=lambda m: m.number):
            self.count_work(machine)
            for batch in [b for b in machine.batches if b.left <= 0]:
                machine.batches.remove(batch)
                self.slots.append(machine.number)
                self.batches[batch.number][4] = self.env.now - self.batches[batch.number][3]
                if batch.tail:
                    self.env.process(self.deliver(machine, batch))
                else:
                    self.ended.append((machine.number, batch))
            self.watch(machine)
            self.call_clerk()
        for number, batch in sorted(self.ended, key=lambda e: (e[0], e[1].number)):
            self.machines[number].running -= batch.samples
            for request in batch.done:
                request.finish = self.env.now
                if self.requests.clients:
                    self.env.process(self.ask_again())
        self.over, self.ended = [], []

    def outcome(self) -> Outcome:
        """What became of every request and batch."""

        def column(get: Callable[[_Request], int]) -> np.ndarray[Any, Any]:
            return np.array([get(r) for r in self.all], np.int64)

        status = {"served": 0, "rejected": 1, "timed out": 2}
        return Outcome(
            column(lambda r: r.arrival),
            column(lambda r: r.start),
            column(lambda r: r.finish),
            column(lambda r: r.machine),
            column(lambda r: r.batch),
            column(lambda r: status[r.status]),
            {name: np.array([b[c] for b in self.batches], np.int64) for c, name in enumerate(BATCH_COLUMNS)},
        )


def run(setup: Setup, requests: Requests) -> Outcome:
    """Return what becomes of ``requests`` on the machines of ``setup`` (the twin of `hwsim.serving.engine.run`)."""
    return Shop(setup, requests).run()
