"""The fast engine of batch serving: one heap of events, arrays of requests; millions of requests a minute.

`docs/serving.md` states the rules. Everything that happens at one nanosecond happens in three steps: machines end their
batches, then requests arrive, then free machines take batches. `reference/batches.py` does the same as SimPy processes.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import deque
from collections.abc import Callable

import numpy as np

from hwsim.serving.setup import (
    BATCH_COLUMNS,
    NEVER,
    REJECTED,
    SERVED,
    TIMED_OUT,
    Outcome,
    Requests,
    Setup,
    stretched,
)

_FREE, _OUT, _TIMER = 0, 1, 2  # what an event of the heap is
_TELL = 10_000  # requests between two words of progress


def run(setup: Setup, requests: Requests, progress: Callable[[int], None] | None = None) -> Outcome:
    """Return what becomes of ``requests`` on the machines of ``setup``; ``progress`` is told how many have come."""
    return _Run(setup, requests).run(progress)


class _Running:
    """The batches that share a machine: with n of them, each moves on by a tick in n parts of a nanosecond.

    ``done`` counts ticks that one of them has received so far; a batch ends when it has grown by its work.
    """

    __slots__ = ("batches", "changes", "done", "since", "ticks")

    def __init__(self, ticks: int) -> None:
        self.ticks, self.done, self.since, self.changes = ticks, 0, 0, 0
        self.batches: list[
            tuple[int, int, int]
        ] = []  # a heap: done at its end, number, nanoseconds until results are out

    def advance(self, now: int) -> None:
        """Let time pass."""
        if self.batches:
            self.done += (now - self.since) * (self.ticks // len(self.batches))
        self.since = now

    def join(self, now: int, work_ns: int, number: int, tail_ns: int) -> None:
        """One more batch shares the machine."""
        self.advance(now)
        heapq.heappush(self.batches, (self.done + work_ns * self.ticks, number, tail_ns))
        self.changes += 1

    def leave(self, now: int) -> list[tuple[int, int]]:
        """Return number and tail of the batches that are done."""
        self.advance(now)
        gone = []
        while self.batches and self.batches[0][0] <= self.done:
            _, number, tail = heapq.heappop(self.batches)
            gone.append((number, tail))
        self.changes += 1
        return gone

    def next_end(self) -> int:
        """Return when the next one ends, NEVER without any."""
        if not self.batches:
            return NEVER
        left = self.batches[0][0] - self.done
        return self.since - (-left * len(self.batches) // self.ticks)

    def work_ns(self, now: int) -> int:
        """Return the work that is left, alone on the machine."""
        self.advance(now)
        return sum(end - self.done for end, _, _ in self.batches) // self.ticks


class _Run:
    """One run: the state of queues and machines, and what happens to them."""

    def __init__(self, setup: Setup, requests: Requests) -> None:
        self.setup, self.requests = setup, requests
        machines, models, count = len(setup.machines), setup.models, requests.count
        self.shared = setup.routing == "shared"
        self.closed = requests.clients > 0
        self.arrival = [0] * min(requests.clients, count) if self.closed else list(requests.arrival_ns)
        self.model, self.samples = list(requests.model), list(requests.samples)
        self.single = max(self.samples, default=1) == 1
        self.left = self.samples.copy()
        self.start, self.finish = [NEVER] * count, [NEVER] * count
        self.machine, self.batch, self.status = [NEVER] * count, [0] * count, [SERVED] * count
        self.batches: list[list[int]] = []  # columns as BATCH_COLUMNS
        queues = 1 if self.shared else machines
        self.waiting = [[deque[int]() for _ in range(models)] for _ in range(queues)]
        self.queued = [[0] * models for _ in range(queues)]  # samples
        self.armed = [NEVER] * queues  # when the timer of a queue goes off
        self.kind = [setup.kinds[k] for k in setup.machines]
        self.cap = [[kind.max_batch(m) for m in range(models)] for kind in self.kind]
        self.slots = [setup.concurrent] * machines  # batches more that it takes
        self.idle_list = list(range(machines)) * setup.concurrent  # free slots, for the shared queue alone
        self.free_at = [0] * machines  # where one batch runs at a time
        self.several = setup.concurrent > 1
        self.running = [_Running(setup.ticks) for _ in range(machines)] if self.several else []
        self.load = [0] * machines  # samples waiting and running
        self.resident = [setup.resident_at_start(k) for k in range(machines)]
        self.swaps = [sum(kind.weight_bytes) > kind.capacity_bytes for kind in self.kind]
        self.serving = [setup.serving(m) for m in range(models)]
        self.everywhere = [len(s) == machines for s in self.serving]
        self.turn = [0] * models
        self.work = [[0] * models for _ in range(queues)]  # time of what waits, for shortest-expected
        self.members: list[list[int]] = []  # of each batch, the requests it ends (closed loop)
        self.events: list[tuple[int, int, int, int]] = []  # time, what, machine or queue, batch
        self.outs = self.closed or setup.routing in ("least-loaded", "two-choices")

    def run(self, progress: Callable[[int], None] | None) -> Outcome:
        """Serve every request."""
        arrival, events = self.arrival, self.events
        pop, arrive, shared = heapq.heappop, self._arrive, self.shared
        upcoming, count, told = 0, self.requests.count, _TELL
        touched: list[int] = []  # queues in which something may begin
        while upcoming < len(arrival) or events:
            now = arrival[upcoming] if upcoming < len(arrival) else events[0][0]
            if events and events[0][0] < now:
                now = events[0][0]
            if upcoming >= told:
                told += _TELL
                if progress is not None:
                    progress(upcoming)
            touched.clear()
            ended: list[tuple[int, int]] = []
            while events and events[0][0] == now:
                _, what, where, batch = pop(events)
                if what == _FREE:
                    if self.several and not self._leave(where, batch, now, ended):
                        continue  # things changed since this end was foreseen
                    if not self.several:
                        self.slots[where] = 1
                        if shared:
                            insort(self.idle_list, where)
                    touched.append(0 if shared else where)
                elif what == _OUT:
                    ended.append((where, batch))
                else:
                    self.armed[where] = NEVER
                    touched.append(where)
            for where, batch in sorted(ended):
                self.load[where] -= self.batches[batch][2]
                if self.closed:
                    again = [now + self.requests.pause_ns] * len(self.members[batch])
                    arrival.extend(again[: count - len(arrival)])
            while upcoming < len(arrival) and arrival[upcoming] == now:
                queue = arrive(upcoming, now)
                if queue >= 0:
                    touched.append(queue)
                upcoming += 1
            if shared:
                if touched and self.idle_list:
                    self._dispatch_shared(now)
            else:
                for queue in sorted(set(touched)) if len(touched) > 1 else touched:
                    while self.slots[queue] and self._dispatch(queue, now):
                        pass
        return self._outcome()

    # -- arrivals ------------------------------------------------------------------------------------------------

    def _arrive(self, i: int, now: int) -> int:
        """Put request ``i`` into its queue and return that; -1 when it is rejected."""
        m, setup = self.model[i], self.setup
        queue = 0 if self.shared else self._route(i, m, now)
        if setup.timeout_ns is not None:
            self._purge(queue, now)
        waiting = self.waiting[queue]
        if setup.queue_capacity is not None and sum(map(len, waiting)) >= setup.queue_capacity:
            self.status[i] = REJECTED
            return -1
        waiting[m].append(i)
        samples = self.samples[i]
        self.queued[queue][m] += samples
        if not self.shared:
            self.load[queue] += samples
            if setup.routing == "shortest-expected":
                self._weigh(queue, m)
        return queue

    def _route(self, i: int, m: int, now: int) -> int:
        """The machine whose queue a request joins; ties go to the first."""
        setup, able = self.setup, self.serving[m]
        if len(able) == 1:
            return able[0]
        if setup.timeout_ns is not None:
            for queue in able:
                self._purge(queue, now)
        if setup.routing == "round-robin":
            turn = self.turn[m]
            self.turn[m] = (turn + 1) % len(able)
            return able[turn]
        load = self.load
        if setup.routing == "least-loaded":
            if self.everywhere[m]:
                return load.index(min(load))
            return min(able, key=load.__getitem__)
        if setup.routing == "two-choices":
            first, second = self.requests.picks[i]
            a, b = int(first * len(able)), int(second * (len(able) - 1))
            b += b >= a
            one, other = able[a], able[b]
            return one if load[one] <= load[other] else other
        best, least = NEVER, 0
        for k in able:
            until = self.free_at[k]
            work = self.work[k]
            cost = self.running[k].work_ns(now) if self.several else until - now if until > now else 0
            cost += sum(work) - work[m]
            cost += self._work(k, m, self.queued[k][m] + self.samples[i])
            if best < 0 or cost < least:
                best, least = k, cost
        return best

    def _work(self, machine: int, m: int, samples: int) -> int:
        """Time of ``samples`` of a model in full batches and a rest."""
        hold, cap = self.kind[machine].hold_ns[m], self.cap[machine][m]
        full, rest = divmod(samples, cap)
        return full * hold[cap] + (hold[rest] if rest else 0)

    def _weigh(self, queue: int, m: int) -> None:
        self.work[queue][m] = self._work(queue, m, self.queued[queue][m]) if self.queued[queue][m] else 0

    def _purge(self, queue: int, now: int) -> None:
        """Let those leave that waited longer than the timeout."""
        timeout = self.setup.timeout_ns
        if timeout is None:
            return
        for m, line in enumerate(self.waiting[queue]):
            gone = 0
            begun = line.popleft() if line and self.start[line[0]] != NEVER else NEVER  # it stays
            while line and now - self.arrival[line[0]] > timeout:
                i = line.popleft()
                self.status[i] = TIMED_OUT
                gone += self.samples[i]
            if begun != NEVER:
                line.appendleft(begun)
            if gone:
                self.queued[queue][m] -= gone
                if not self.shared:
                    self.load[queue] -= gone
                    if self.setup.routing == "shortest-expected":
                        self._weigh(queue, m)

    # -- machines ------------------------------------------------------------------------------------------------

    def _dispatch_shared(self, now: int) -> None:
        self._purge(0, now)
        refused = set()  # kinds for which nothing is ready
        for k in self.idle_list.copy():
            kind = self.setup.machines[k]
            if kind in refused:
                continue
            m = self._ready(k, 0, now)
            if m < 0:
                refused.add(kind)
                continue
            self.idle_list.remove(k)  # the first of its slots
            self._begin(k, 0, m, now)

    def _dispatch(self, k: int, now: int) -> bool:
        """Begin a batch on a machine with a queue of its own; False when none is ready."""
        self._purge(k, now)
        m = self._ready(k, k, now)
        if m >= 0:
            self._begin(k, k, m, now)
        return m >= 0

    def _ready(self, k: int, queue: int, now: int) -> int:
        """The model whose batch machine ``k`` takes now; -1, and a timer set, when none is ready."""
        setup, cap = self.setup, self.cap[k]
        best, oldest, held, alarm = NEVER, 0, False, NEVER
        for m, line in enumerate(self.waiting[queue]):
            if not line or not cap[m]:
                continue
            came = self.arrival[line[0]]
            due = came + setup.max_delay_ns[m]
            if due > now and self.queued[queue][m] < cap[m]:
                alarm = due if alarm < 0 or due < alarm else alarm
                continue
            here = setup.order == "resident" and m in self.resident[k]
            if best < 0 or (here and not held) or (here == held and came < oldest):
                best, oldest, held = m, came, here
        if best < 0 and alarm >= 0 and not 0 <= self.armed[queue] <= alarm:
            self.armed[queue] = alarm
            heapq.heappush(self.events, (alarm, _TIMER, queue, 0))
        return best

    def _begin(self, k: int, queue: int, m: int, now: int) -> None:
        """Take the longest batch there is and run it."""
        line, cap, kind = self.waiting[queue][m], self.cap[k][m], self.kind[k]
        number = len(self.batches)
        if self.single:
            taken = len(line) if len(line) < cap else cap
            members = [line.popleft() for _ in range(taken)]
            for i in members:
                self.start[i] = now
        else:
            taken, members = self._take(line, cap, now)
        loading = self._load(k, m) if self.swaps[k] else 0
        hold, span = kind.hold_ns[m][taken], kind.span_ns[m][taken]
        if self.requests.stretch:
            factor = self.requests.stretch[number]
            hold, span = stretched(hold, factor), stretched(span, factor)
        for i in members:
            self.machine[i] = k
            self.batch[i] = taken
        work = loading + hold
        self.batches.append([k, m, taken, now, work, loading, work])
        self.slots[k] -= 1
        self.queued[queue][m] -= taken
        if self.setup.routing == "shortest-expected":
            self._weigh(queue, m)
        if self.several:
            self.members.append(members)
            self.running[k].join(now, work, number, span - hold)
            self._foresee(k)
            return
        free, out = now + work, now + loading + span
        for i in members:
            self.finish[i] = out
        self.free_at[k] = free
        heapq.heappush(self.events, (free, _FREE, k, number))
        if self.outs:
            self.members.append(members if self.closed else [])
            heapq.heappush(self.events, (out, _OUT, k, number))

    def _foresee(self, k: int) -> None:
        """Note when the next of the batches that share a machine ends, if nothing changes until then."""
        running = self.running[k]
        end = running.next_end()
        if end >= 0:
            heapq.heappush(self.events, (end, _FREE, k, running.changes))

    def _leave(self, k: int, changes: int, now: int, ended: list[tuple[int, int]]) -> bool:
        """End the batches of a shared machine that are done; False when this was foreseen before its last change."""
        running = self.running[k]
        if running.changes != changes:
            return False
        for number, tail in running.leave(now):
            self.batches[number][4] = now - self.batches[number][3]
            for i in self.members[number]:
                self.finish[i] = now + tail
            self.slots[k] += 1
            if self.shared:
                self.idle_list.append(k)
            if self.outs and not tail:
                ended.append((k, number))
            elif self.outs:
                heapq.heappush(self.events, (now + tail, _OUT, k, number))
        self._foresee(k)
        return True

    def _take(self, line: deque[int], cap: int, now: int) -> tuple[int, list[int]]:
        """Samples taken from a line of requests of several, and the requests that end with them."""
        taken = 0
        members: list[int] = []
        while line and taken < cap:
            i = line[0]
            if self.start[i] == NEVER:
                self.start[i] = now
            room = cap - taken
            if self.left[i] > room:
                self.left[i] -= room
                return cap, members
            taken += self.left[i]
            self.left[i] = 0
            members.append(line.popleft())
        return taken, members

    def _load(self, k: int, m: int) -> int:
        """Make a model resident, the least recently used leaving for it; return what loading takes."""
        resident, kind = self.resident[k], self.kind[k]
        if m in resident:
            resident.remove(m)
            resident.append(m)
            return 0
        need = kind.weight_bytes[m]
        while resident and sum(kind.weight_bytes[r] for r in resident) + need > kind.capacity_bytes:
            resident.pop(0)
        if need <= kind.capacity_bytes:
            resident.append(m)
        return kind.swap_ns[m]

    def _outcome(self) -> Outcome:
        def array(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            return np.array(values, np.int64)

        table = np.array(self.batches, np.int64).reshape(len(self.batches), len(BATCH_COLUMNS))
        return Outcome(
            array(self.arrival),
            array(self.start),
            array(self.finish),
            array(self.machine),
            array(self.batch),
            array(self.status),
            {name: np.ascontiguousarray(table[:, c]) for c, name in enumerate(BATCH_COLUMNS)},
        )
