"""The fast engine of token serving: iterations of prefill and decode, key/value blocks counted, never listed.

`docs/serving.md` states the rules; `reference/tokens.py` is the same as SimPy processes. All running requests of a machine
get a token in the same decode iteration, so counters do: a request ends at a known count of them, and needs a block
whenever that count and its length say so.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable

import numpy as np

from hwsim.serving.setup import NEVER, REJECTED, SERVED, TIMED_OUT
from hwsim.serving.token_setup import Curve, Ints, TokenOutcome, TokenRequests, TokenSetup, power_above

_TELL = 2_000  # requests between two words of progress


def run(setup: TokenSetup, requests: TokenRequests, progress: Callable[[int], None] | None = None) -> TokenOutcome:
    """Return what becomes of ``requests``; ``progress`` is told how many have come."""
    return _Run(setup, requests).run(progress)


class _Machine:
    """One machine: who runs on it, and its counters."""

    __slots__ = (
        "admitted",
        "busy_ns",
        "ending",
        "free_blocks",
        "growing",
        "kept",
        "kind",
        "number",
        "peak",
        "prefilling",
        "queue",
        "running",
        "sizes",
        "steps",
        "total",
    )  # fmt: skip

    def __init__(self, number: int, setup: TokenSetup, queue: int) -> None:
        self.number, self.queue = number, queue
        self.kind = setup.kinds[setup.machines[number]]
        self.free_blocks = self.total = self.kind.blocks
        self.running = 0  # requests that get tokens
        self.kept = 0  # their tokens in memory
        self.steps = 0  # decode iterations done
        self.ending: dict[int, list[tuple[int, int]]] = {}  # by the step they end with: requests and their tries
        self.growing = [0] * self.kind.block_tokens  # running requests by the steps (mod block) that need a block
        self.admitted: list[int] = []  # in order; paged only, to know the youngest
        self.prefilling: list[int] = []  # whose prompts it reads; empty in decode
        self.busy_ns = 0
        self.peak = 0
        self.sizes = [power_above(n) if n else 0 for n in range(self.kind.most + 1)]


class _Run:
    def __init__(self, setup: TokenSetup, requests: TokenRequests) -> None:
        self.setup, self.requests = setup, requests
        count, machines = requests.count, len(setup.machines)
        self.closed, self.paged = requests.clients > 0, setup.reserve == "paged"
        self.arrival = [0] * min(requests.clients, count) if self.closed else list(requests.arrival_ns)
        self.prompt, self.output = list(requests.prompt), list(requests.output)
        self.start, self.first, self.finish = [NEVER] * count, [NEVER] * count, [NEVER] * count
        self.machine, self.sent_back, self.status = [NEVER] * count, [0] * count, [SERVED] * count
        self.written = [0] * count  # tokens made before the present admission
        self.base = [0] * count  # length minus the machine's steps at admission
        self.shared = setup.routing == "shared"
        queues = 1 if self.shared else machines
        self.fresh = [deque[int]() for _ in range(queues)]
        self.back = [deque[int]() for _ in range(queues)]  # those sent back, before all others
        self.all = [_Machine(k, setup, 0 if self.shared else k) for k in range(machines)]
        self.load = [0] * machines
        self.weight = [0] * machines  # tokens to read and to write
        self.turn = 0
        self.events: list[tuple[int, int]] = []  # end of an iteration, machine
        self.iterations: dict[tuple[int, str, int, int], list[int]] = {}

    def run(self, progress: Callable[[int], None] | None) -> TokenOutcome:
        """Serve every request."""
        arrival, events, upcoming, told = self.arrival, self.events, 0, _TELL
        idle = set(range(len(self.all)))
        while upcoming < len(arrival) or events:
            now = events[0][0] if events else arrival[upcoming]
            if upcoming < len(arrival) and arrival[upcoming] < now:
                now = arrival[upcoming]
            if progress is not None and upcoming >= told:
                told += _TELL
                progress(upcoming)
            ended = []
            while events and events[0][0] == now:
                ended.append(heapq.heappop(events)[1])
            for k in ended:
                self._end(self.all[k], now)
            free = ended  # ascending, as the heap gives them
            while upcoming < len(arrival) and arrival[upcoming] == now:
                k = self._arrive(upcoming, now)
                upcoming += 1
                if k in idle and not self.shared:
                    idle.remove(k)
                    free = sorted([*free, k])
            if self.shared and idle and (self.fresh[0] or self.back[0]):
                free = sorted([*free, *idle])
                idle.clear()
            while free:
                k, *free = free
                if not self._begin(self.all[k], now):
                    idle.add(k)
                if self.shared and idle and self.back[0]:  # sent back just now: machines whose turn is yet to come
                    later = {other for other in idle if other > k}
                    idle -= later
                    free = sorted([*free, *later])
        return self._outcome()

    # -- arrivals ------------------------------------------------------------------------------------------------

    def _arrive(self, i: int, now: int) -> int:
        """Put a request into its queue and return that; -1 when it is rejected."""
        setup = self.setup
        queue = 0 if self.shared else self._route(i, now)
        if setup.timeout_ns is not None:
            self._purge(queue, now)
        if setup.queue_capacity is not None and len(self.fresh[queue]) + len(self.back[queue]) >= setup.queue_capacity:
            self.status[i] = REJECTED
            return -1
        self.fresh[queue].append(i)
        if not self.shared:
            self.load[queue] += 1
            self.weight[queue] += self.prompt[i] + self.output[i]
        return queue

    def _route(self, i: int, now: int) -> int:
        setup, machines = self.setup, len(self.all)
        if machines == 1:
            return 0
        if setup.timeout_ns is not None:
            for queue in range(machines):
                self._purge(queue, now)
        if setup.routing == "round-robin":
            self.turn += 1
            return (self.turn - 1) % machines
        load = self.weight if setup.routing == "shortest-expected" else self.load
        if setup.routing == "two-choices":
            first, second = self.requests.picks[i]
            a, b = int(first * machines), int(second * (machines - 1))
            b += b >= a
            return a if load[a] <= load[b] else b
        return load.index(min(load))

    def _purge(self, queue: int, now: int) -> None:
        timeout, line = self.setup.timeout_ns, self.fresh[queue]
        while timeout is not None and line and now - self.arrival[line[0]] > timeout:
            i = line.popleft()
            self.status[i] = TIMED_OUT
            if not self.shared:
                self.load[queue] -= 1
                self.weight[queue] -= self.prompt[i] + self.output[i]

    # -- iterations ----------------------------------------------------------------------------------------------

    def _begin(self, m: _Machine, now: int) -> bool:
        """Start the next iteration of a free machine; False when there is nothing to do."""
        if self.setup.timeout_ns is not None:
            self._purge(m.queue, now)
        if self.back[m.queue] or self.fresh[m.queue]:
            group = self._admit(m, now)
            if group:
                longest = max(self.prompt[i] + self.written[i] for i in group)
                size = power_above(len(group))
                self._iterate(m, m.kind.prefill[size], "prefill", size, longest, now)
                m.prefilling = group
                return True
        if not m.running:
            return False
        if self.paged:
            self._grow(m)
        size = m.sizes[m.running]
        self._iterate(m, m.kind.decode[size], "decode", size, m.kept, now)
        return True

    def _iterate(self, m: _Machine, curve: Curve, phase: str, size: int, tokens: int, now: int) -> None:
        nodes, times = curve.tokens, curve.ns
        j = bisect_right(nodes, tokens) - 1
        j = min(j, len(nodes) - 2)
        if j < 0:
            ns = times[0]
        else:
            low = nodes[j]
            ns = times[j] + (times[j + 1] - times[j]) * (tokens - low) // (nodes[j + 1] - low)
        key = (m.number, phase, size, j)
        seen = self.iterations.get(key)
        if seen is None:
            self.iterations[key] = [1, tokens]
        else:
            seen[0] += 1
            seen[1] += tokens
        m.busy_ns += ns
        used = m.total - m.free_blocks
        if used > m.peak:
            m.peak = used
        heapq.heappush(self.events, (now + ns, m.number))

    def _admit(self, m: _Machine, now: int) -> list[int]:
        """Take those from the queue whose keys and values fit."""
        setup, back, fresh = self.setup, self.back[m.queue], self.fresh[m.queue]
        group: list[int] = []
        keep = int(setup.spare * m.total) if self.paged else 0
        while len(group) < setup.prefill_batch and m.running + len(group) < m.kind.most and (back or fresh):
            line = back or fresh
            i = line[0]
            length = self.prompt[i] + self.written[i]
            need = m.kind.needs(length if self.paged else self.prompt[i] + self.output[i] - 1)
            alone = not m.running and not group
            if need > m.free_blocks - (0 if alone else keep):
                break
            line.popleft()
            m.free_blocks -= need
            group.append(i)
            if self.start[i] == NEVER:
                self.start[i] = now
            self.machine[i] = m.number
        return group

    def _grow(self, m: _Machine) -> None:
        """Give everyone whose last block is full a new one; the youngest go back while there are too few."""
        need = m.growing[m.steps % m.kind.block_tokens]
        while need > m.free_blocks:
            i = m.admitted.pop()
            length = self.base[i] + m.steps
            phase = -self.base[i] % m.kind.block_tokens
            m.growing[phase] -= 1
            need = m.growing[m.steps % m.kind.block_tokens]
            m.free_blocks += m.kind.needs(length)
            m.running -= 1
            m.kept -= length
            self.written[i] = length - self.prompt[i] + 1  # the last one made is not in memory yet
            self.sent_back[i] += 1
            self.back[m.queue].appendleft(i)
        m.free_blocks -= need

    def _end(self, m: _Machine, now: int) -> None:
        """The iteration is over: first tokens, or one more for everyone, and who has all of theirs leaves."""
        if m.prefilling:
            for i in m.prefilling:
                self._join(m, i, now)
            m.prefilling = []
            return
        m.steps += 1
        m.kept += m.running
        block = m.kind.block_tokens
        for i, tries in m.ending.pop(m.steps, ()):
            if tries != self.sent_back[i]:
                continue
            length = self.base[i] + m.steps
            m.growing[-self.base[i] % block] -= 1
            m.running -= 1
            m.kept -= length
            full = self.prompt[i] + self.output[i] - 1
            m.free_blocks += m.kind.needs(length if self.paged else full)
            if self.paged:
                m.admitted.remove(i)
            self._leave(m, i, now)

    def _join(self, m: _Machine, i: int, now: int) -> None:
        length = self.prompt[i] + self.written[i]
        if self.first[i] == NEVER:
            self.first[i] = now
        left = self.output[i] - self.written[i] - 1
        if left == 0:
            m.free_blocks += m.kind.needs(length if self.paged else self.prompt[i] + self.output[i] - 1)
            self._leave(m, i, now)
            return
        self.base[i] = length - m.steps
        m.running += 1
        m.kept += length
        m.growing[-self.base[i] % m.kind.block_tokens] += 1
        if self.paged:
            m.admitted.append(i)
        m.ending.setdefault(m.steps + left, []).append((i, self.sent_back[i]))

    def _leave(self, m: _Machine, i: int, now: int) -> None:
        self.finish[i] = now
        if not self.shared:
            self.load[m.number] -= 1
            self.weight[m.number] -= self.prompt[i] + self.output[i]
        if self.closed and len(self.arrival) < self.requests.count:
            self.arrival.append(now + self.requests.pause_ns)

    def _outcome(self) -> TokenOutcome:
        def array(values: list[int]) -> Ints:
            return np.array(values, np.int64)

        return TokenOutcome(
            array(self.arrival),
            array(self.start),
            array(self.first),
            array(self.finish),
            array(self.machine),
            array(self.sent_back),
            array(self.status),
            {key: (n, tokens) for key, (n, tokens) in sorted(self.iterations.items())},
            array([m.busy_ns for m in self.all]),
            array([m.peak for m in self.all]),
        )
