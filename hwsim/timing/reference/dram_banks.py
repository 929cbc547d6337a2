"""One DRAM channel, command by command: banks, row buffers, the data bus, turnarounds and refresh; slow and obvious.

The controller is first-ready, first-come-first-served over a window of waiting requests: a column command whose row is
open goes before row commands, older requests before younger. Reads go first; writes wait in a queue of their own that is
drained in batches. A row is closed only when no waiting request wants it. Every command is issued at the earliest time
all timing rules allow. Times are in ns, of `hwsim.machine.dram_timing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hwsim.machine.dram_timing import DramTiming


@dataclass(frozen=True, slots=True)
class Request:
    """One burst: its bank group, bank of the group, row, and whether it writes."""

    group: int
    bank: int
    row: int
    write: bool


@dataclass(frozen=True, slots=True)
class ChannelRun:
    """What serving all requests took: ns from the first command to the last datum, and how often things happened."""

    time_ns: float
    bursts: int
    activations: int
    turnarounds: int
    refreshes: int
    efficiency: float


@dataclass(slots=True)
class _Bank:
    row: int = -1
    activated: float = -1e9  # time of the last activation
    ready: float = 0.0  # earliest activation
    column: float = 0.0  # earliest column command
    precharge: float = 0.0  # earliest precharge
    refresh_due: bool = False


@dataclass(slots=True)
class _Channel:
    timing: DramTiming
    banks: list[list[_Bank]]
    activations: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=4))  # (time, group), last four
    last_column: float = -1e9
    last_group: int = -1
    last_write: bool = False
    data_end: float = 0.0
    count_activations: int = 0
    count_turnarounds: int = 0
    count_refreshes: int = 0
    next_refresh: float = 0.0
    refresh_turn: int = 0

    def column_time(self, request: Request) -> float:
        """Earliest column command of a request whose row is open."""
        t = self.timing
        at = self.banks[request.group][request.bank].column
        if self.last_group >= 0:
            if request.write == self.last_write:
                gap = t.burst_ns * (t.ccd_l_bursts if request.group == self.last_group else 1.0)
            elif request.write:
                gap = t.cl + t.burst_ns + t.bubble - t.cwl
            else:
                gap = t.cwl + t.burst_ns + (t.wtr_l if request.group == self.last_group else t.wtr_s)
            at = max(at, self.last_column + gap)
        return at

    def activate_time(self, request: Request) -> float:
        """Earliest activation of a request's row in its precharged bank."""
        t = self.timing
        at = self.banks[request.group][request.bank].ready
        if self.activations:
            time, group = self.activations[-1]
            at = max(at, time + (t.rrd_l if group == request.group else t.rrd_s))
        if len(self.activations) == 4:
            at = max(at, self.activations[0][0] + t.faw)
        return at

    def column(self, request: Request, at: float) -> None:
        t = self.timing
        bank = self.banks[request.group][request.bank]
        if self.last_group >= 0 and request.write != self.last_write:
            self.count_turnarounds += 1
        self.last_column, self.last_group, self.last_write = at, request.group, request.write
        if request.write:
            self.data_end = at + t.cwl + t.burst_ns
            bank.precharge = max(bank.precharge, self.data_end + t.wr)
        else:
            self.data_end = at + t.cl + t.burst_ns
            bank.precharge = max(bank.precharge, at + t.rtp)

    def activate(self, request: Request, at: float) -> None:
        t = self.timing
        bank = self.banks[request.group][request.bank]
        bank.row, bank.activated = request.row, at
        bank.column, bank.precharge = at + t.rcd, at + t.ras
        self.activations.append((at, request.group))
        self.count_activations += 1

    def close(self, bank: _Bank, at: float) -> None:
        bank.row = -1
        bank.ready = at + self.timing.rp

    def refresh(self, now: float) -> float:
        """Do the refreshes that are due; return the time the channel may go on at."""
        t = self.timing
        every = t.refi / (t.banks if t.refresh == "pb" else 1)
        while now >= self.next_refresh:
            if t.refresh == "ab":
                start = now
                for group in self.banks:
                    for bank in group:
                        start = max(start, bank.ready if bank.row < 0 else bank.precharge + t.rp)
                for group in self.banks:
                    for bank in group:
                        bank.row, bank.ready = -1, start + t.rfc
            else:
                bank = self.banks[self.refresh_turn % t.bank_groups][self.refresh_turn // t.bank_groups]
                start = max(now, bank.ready if bank.row < 0 else bank.precharge + t.rp)
                bank.row, bank.ready = -1, start + t.rfc
                self.refresh_turn = (self.refresh_turn + 1) % t.banks
            self.count_refreshes += 1
            self.next_refresh += every
        return now


def run_channel(timing: DramTiming, requests: Iterable[Request], *, window: int = 128, writes: int = 128) -> ChannelRun:
    """Return what serving ``requests`` takes on one channel that always has its queues full.

    ``window`` is the number of reads, ``writes`` the number of writes the controller sees at once; writes are drained
    when their queue is full, down to a quarter of it.
    """
    channel = _Channel(timing, [[_Bank() for _ in range(timing.banks_per_group)] for _ in range(timing.bank_groups)])
    channel.next_refresh = timing.refi / (timing.banks if timing.refresh == "pb" else 1)
    source = iter(requests)
    coming = next(source, None)
    reading: list[Request] = []
    writing: list[Request] = []
    draining = False
    now, bursts = 0.0, 0
    while True:
        while coming is not None and len(writing if coming.write else reading) < (writes if coming.write else window):
            (writing if coming.write else reading).append(coming)
            coming = next(source, None)
        if not reading and not writing:
            break
        if draining:
            draining = bool(writing) and (len(writing) > writes // 4 or not reading)
        else:
            draining = not reading or len(writing) >= writes
        queue = writing if draining and writing else reading
        now = channel.refresh(now)
        action, request, at = _next(channel, queue)
        now = max(now, at)
        bank = channel.banks[request.group][request.bank]
        if action == "column":
            channel.column(request, now)
            queue.remove(request)
            bursts += 1
        elif action == "activate":
            channel.activate(request, now)
        else:
            channel.close(bank, now)
    total = channel.data_end
    return ChannelRun(
        total, bursts, channel.count_activations, channel.count_turnarounds, channel.count_refreshes,
        bursts * timing.burst_ns / total if total else 0.0,
    )  # fmt: skip


def _next(channel: _Channel, queue: list[Request]) -> tuple[str, Request, float]:
    """The command to issue: the earliest possible; of equal times columns first, then the oldest request's."""
    best: tuple[float, int, int, str, Request] | None = None
    seen: set[tuple[int, int]] = set()
    wanted = {(r.group, r.bank, r.row) for r in queue}
    for age, request in enumerate(queue):
        bank = channel.banks[request.group][request.bank]
        key = (request.group, request.bank)
        if bank.row == request.row:
            option = (channel.column_time(request), 0, age, "column", request)
        elif key in seen:
            continue  # an older request has this bank's next row command
        elif bank.row < 0:
            option = (channel.activate_time(request), 1, age, "activate", request)
            seen.add(key)
        elif (request.group, request.bank, bank.row) in wanted:
            continue  # somebody still wants the open row
        else:
            option = (bank.precharge, 1, age, "precharge", request)
            seen.add(key)
        if best is None or option[:3] < best[:3]:
            best = option
    assert best is not None
    return best[3], best[4], best[0]
