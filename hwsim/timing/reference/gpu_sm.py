"""The obvious twin of a streaming multiprocessor: warps, schedulers and pipes, stepped clock by clock.

Every clock each sub-core's scheduler looks at its warps in turn and issues the next instruction (in order) of the first
one that can go: its registers are there, its pipe is free, its barrier has opened. What the instruction then occupies:

- a *pipe* of the sub-core (tensor, fp32, alu) for `cycles`; its result is there after `latency`;
- the *port* of shared memory, one wavefront of 128 B a clock, first come, first served, for loads and stores of warps, for
  what copies bring in, and for operands that matrix instructions of a warp group or a CTA read themselves;
- the *link* to the memory behind, a bandwidth and a latency, for copies and global loads;
- the *matrix unit* of the whole SM (`wgmma`, `tcgen05`), a queue of asynchronous instructions.

`gpu_program` writes the instructions of a GEMM's main loop, `docs/gpu_sm.md` explains both with pictures, and
`hwsim.timing.gpu_sm` has the closed form this twin checks. Nothing here is shared with it.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from hwsim.errors import HwsimError, near

WAVEFRONT = 128  # bytes: 32 banks of 4
PIECE = 512  # bytes a bulk copy brings in at a time
POLICIES = ("lrr", "gto")
PIPES = {"mma": "tensor", "math": "fp32", "alu": "alu"}


@dataclass(frozen=True)
class SmConfig:
    """One SM. Latencies and intervals in its clocks.

    The link to the memory behind brings ``burst_bytes_per_clk`` at a time and ``link_bytes_per_clk`` in the long run,
    this SM's share of what all draw on: what others leave unused now may be used later. What a neighbour in the cluster
    draws for both (`Op.drawn`) takes time on the link but nothing of the share.
    ``policy``: "lrr" looks first at the warp after the one issued last, "gto" stays with that one, then the oldest.
    """

    sub_cores: int = 4
    issue: int = 1
    policy: str = "lrr"
    shared_latency: int = 23
    wavefront_latency: int = 2
    barrier_latency: int = 10
    link_bytes_per_clk: Fraction = Fraction(32)
    burst_bytes_per_clk: Fraction = Fraction(64)
    link_latency: int = 500

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise HwsimError(f"warp policy '{self.policy[:32]}': expected lrr or gto{near(self.policy, POLICIES)}")
        if min(self.sub_cores, self.issue) < 1 or min(self.link_bytes_per_clk, self.burst_bytes_per_clk) <= 0:
            raise HwsimError("an SM needs at least one sub-core, one issue slot and a link of more than 0 B/clk")


@dataclass(frozen=True, slots=True)
class Op:
    """One instruction of a warp, for `step` of its loop.

    ``kind``: mma, math, alu (a pipe); load, store (shared memory); copy (global to shared, asynchronous), fetch (global
    to registers); commit, wait (this warp's groups of copies or asynchronous matrix instructions: at most ``count`` may
    be unfinished); barrier (of the CTA); bulk (a copy that announces itself as ``event``); matrix (asynchronous, on the
    SM's matrix unit); await, arrive (an ``event`` of the CTA: open after ``count`` arrivals).
    ``own``: clocks before the same warp may use the same pipe again. ``drawn``: bytes of a bulk copy this SM itself
    asks for, a neighbour sending the others (0: all). ``arrive_at_end``: the group's end announces it.
    """

    kind: str
    step: int = 0
    cycles: int = 1
    own: int = 1
    latency: int = 1
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    wavefronts: int = 0
    bytes: int = 0
    drawn: int = 0
    count: int = 0
    event: tuple[str, int] = ("", 0)
    arrive_at_end: bool = False


@dataclass(eq=False)
class Warp:
    """A warp at work: where it is in its program, when its registers are ready, which groups it has in flight."""

    cta: int
    core: int
    ops: Sequence[Op]
    at: int = 0
    ready: dict[str, int] = field(default_factory=dict)
    pipe_again: dict[str, int] = field(default_factory=dict)
    groups: list[int] = field(default_factory=lambda: [0])  # unfinished members of each group, the open one last
    group_end: list[int] = field(default_factory=lambda: [0])
    announce: dict[int, tuple[str, int]] = field(default_factory=dict)
    barrier_open: int | None = 0
    stalls: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> bool:
        return self.at >= len(self.ops)


@dataclass
class SmRun:
    """What happened. Times are clocks from the start of the CTAs.

    ``step_end[c]``: when CTA c's last multiplication of each step was issued (the matrix unit: ended). ``first``: when
    the first one was. ``end``: when everything, results included, was there. ``busy``: clocks of each unit in use.
    ``stalls[w]``: clocks of warp w by reason: issue, not_selected, tensor, math, registers, shared, copy, barrier.
    ``spans``: (unit, warp, kind, step, begin, end) of everything that occupied a pipe, the port, the link.
    """

    end: int = 0
    first: int = -1
    step_end: list[list[int]] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)
    stalls: list[dict[str, int]] = field(default_factory=list)
    spans: list[tuple[str, int, str, int, int, int]] = field(default_factory=list)


class Sm:
    """An SM with the warps of its resident CTAs; `run` steps it until they are done."""

    def __init__(self, config: SmConfig, ctas: Sequence[Sequence[Sequence[Op]]]) -> None:
        self.config = config
        self.warps: list[Warp] = []
        for c, programs in enumerate(ctas):
            # Warps are dealt to sub-cores in turn, a CTA's first warp after the previous CTA's last.
            for ops in programs:
                self.warps.append(Warp(c, len(self.warps) % config.sub_cores, ops))
        self.cores = [[w for w in self.warps if w.core == core] for core in range(config.sub_cores)]
        self.number = {id(w): i for i, w in enumerate(self.warps)}
        self.turn = [0] * config.sub_cores
        self.pipe_free: dict[tuple[int, str], int] = defaultdict(int)
        self.port_free = 0
        self.link_free = Fraction(0)
        self.moved = Fraction(0)
        self.matrix_queue: list[tuple[Warp, int, Op]] = []
        self.matrix_busy = False
        self.future: list[tuple[int, int, Callable[[int], None]]] = []
        self.serial = 0
        self.arrivals: Counter[tuple[int, tuple[str, int]]] = Counter()
        self.event_end: dict[tuple[int, tuple[str, int]], int] = defaultdict(int)
        self.at_barrier: list[list[Warp]] = [[] for _ in ctas]
        self.run_log = SmRun(step_end=[[] for _ in ctas])

    # --- units

    def later(self, when: int, what: Callable[[int], None]) -> None:
        self.serial += 1
        heapq.heappush(self.future, (when, self.serial, what))

    def use_port(self, now: int, wavefronts: int, warp: Warp, op: Op) -> int:
        """Queue at the port of shared memory; returns when the last wavefront has passed."""
        begin = max(now, self.port_free)
        self.port_free = begin + wavefronts
        self.log("port", warp, op, begin, self.port_free)
        return self.port_free

    def use_link(self, now: int, size: int, drawn: Fraction | int, warp: Warp, op: Op) -> int:
        """Queue at the link; returns the clock in which the last of ``size`` bytes has arrived, ``drawn`` for this SM."""
        begin = max(Fraction(now), self.link_free)
        self.moved += drawn
        self.link_free = max(
            begin + size / self.config.burst_bytes_per_clk, self.moved / self.config.link_bytes_per_clk
        )
        self.log("link", warp, op, begin.__ceil__(), self.link_free.__ceil__())
        return (self.link_free + self.config.link_latency).__ceil__()

    def log(self, unit: str, warp: Warp, op: Op, begin: int, end: int) -> None:
        self.run_log.busy[unit] += end - begin
        self.run_log.spans.append((unit, self.number[id(warp)], op.kind, op.step, begin, end))
        self.run_log.end = max(self.run_log.end, end)

    def multiplied(self, warp: Warp, op: Op, issued: int, end: int) -> None:
        ends = self.run_log.step_end[warp.cta]
        ends.extend([0] * (op.step + 1 - len(ends)))
        ends[op.step] = max(ends[op.step], issued)
        self.run_log.first = issued if self.run_log.first < 0 else min(self.run_log.first, issued)
        self.run_log.end = max(self.run_log.end, end)

    # --- groups, events

    def member_ends(self, warp: Warp, group: int, when: int) -> None:
        warp.groups[group] -= 1
        warp.group_end[group] = max(warp.group_end[group], when)
        self.group_may_end(warp, group)

    def group_may_end(self, warp: Warp, group: int) -> None:
        closed = group < len(warp.groups) - 1
        if closed and warp.groups[group] == 0 and group in warp.announce:
            self.arrive(warp.cta, warp.announce.pop(group), warp.group_end[group])

    def arrive(self, cta: int, event: tuple[str, int], when: int) -> None:
        self.arrivals[cta, event] += 1
        self.event_end[cta, event] = max(self.event_end[cta, event], when)

    # --- may this instruction issue, and if not, why

    def blocked(self, warp: Warp, now: int) -> tuple[int | None, str]:
        """Earliest clock in which the warp's next instruction may issue (None: not known yet), and what it waits for."""
        op = warp.ops[warp.at]
        if warp.barrier_open is None:
            return None, "barrier"
        if warp.barrier_open > now:
            return warp.barrier_open, "barrier"
        when, why = now, "issue"
        for register in op.reads:
            if warp.ready.get(register, 0) > when:
                when = warp.ready[register]
                why = "shared" if register[0] in "ab" else "copy" if register[0] == "g" else "registers"
        if op.kind in PIPES:
            pipe = PIPES[op.kind]
            free = max(self.pipe_free[warp.core, pipe], warp.pipe_again.get(pipe, 0))
            if free > when:
                when, why = free, "tensor" if pipe == "tensor" else "math"
        elif op.kind == "wait":
            for group in range(len(warp.groups) - 1 - op.count):
                if warp.groups[group]:
                    return None, "copy"
                when = max(when, warp.group_end[group])
            why = "copy" if when > now else "issue"
        elif op.kind == "await":
            if self.arrivals[warp.cta, op.event] < op.count:
                return None, "copy"
            when = max(when, self.event_end[warp.cta, op.event])
            why = "copy" if when > now else "issue"
        return when, why

    # --- issue

    def issue(self, warp: Warp, now: int) -> None:
        op = warp.ops[warp.at]
        warp.at += 1
        config = self.config
        if op.kind in PIPES:
            pipe = PIPES[op.kind]
            self.pipe_free[warp.core, pipe] = now + op.cycles
            warp.pipe_again[pipe] = now + op.own
            self.log(f"{pipe}{warp.core}", warp, op, now, now + op.cycles)
            if op.kind != "alu":
                self.multiplied(warp, op, now, now + max(op.cycles, op.latency))
            result = now + op.latency
        elif op.kind == "load":
            self.use_port(now, op.wavefronts, warp, op)
            begin = self.port_free - op.wavefronts
            result = begin + config.shared_latency + config.wavefront_latency * (op.wavefronts - 1)
        elif op.kind == "fetch":
            landed = self.use_link(now, op.bytes, op.bytes, warp, op)
            for register in op.writes:
                warp.ready[register] = 1 << 60
            self.later(
                landed, lambda t: warp.ready.update(dict.fromkeys(op.writes, self.use_port(t, op.wavefronts, warp, op)))
            )
            return
        else:
            self.issue_other(warp, op, now)
            return
        for register in op.writes:
            warp.ready[register] = result

    def issue_other(self, warp: Warp, op: Op, now: int) -> None:
        if op.kind == "store":
            self.use_port(now, op.wavefronts, warp, op)
        elif op.kind == "copy":
            group = len(warp.groups) - 1
            warp.groups[group] += 1
            landed = self.use_link(now, op.bytes, op.bytes, warp, op)
            self.later(landed, lambda t: self.member_ends(warp, group, self.use_port(t, op.wavefronts, warp, op)))
        elif op.kind == "bulk":
            pieces = [min(PIECE, op.bytes - at) for at in range(0, op.bytes, PIECE)]
            left = [len(pieces)]

            def landed_piece(when: int, size: int) -> None:
                end = self.use_port(when, -(-size // WAVEFRONT), warp, op)
                left[0] -= 1
                if left[0] == 0:
                    self.arrive(warp.cta, op.event, end)

            part = Fraction(op.drawn or op.bytes, op.bytes)
            for size in pieces:
                landed = self.use_link(now, size, size * part, warp, op)
                self.later(landed, lambda t, size=size: landed_piece(t, size))  # type: ignore[misc]
        elif op.kind == "matrix":
            warp.groups[-1] += 1
            self.matrix_queue.append((warp, len(warp.groups) - 1, op))
            if not self.matrix_busy:
                self.start_matrix(now)
        elif op.kind == "commit":
            if op.arrive_at_end:
                warp.announce[len(warp.groups) - 1] = op.event
            warp.groups.append(0)
            warp.group_end.append(now)
            self.group_may_end(warp, len(warp.groups) - 2)
        elif op.kind == "barrier":
            there = self.at_barrier[warp.cta]
            there.append(warp)
            warp.barrier_open = None
            members = [w for w in self.warps if w.cta == warp.cta]
            if len(there) == len(members):
                for w in members:
                    w.barrier_open = now + self.config.barrier_latency
                there.clear()
        elif op.kind == "arrive":
            self.arrive(warp.cta, op.event, now)
        elif op.kind not in ("wait", "await"):
            raise HwsimError(f"no instruction '{op.kind[:32]}'")

    def start_matrix(self, now: int) -> None:
        """The matrix unit takes the next instruction; its operands stream through the port while it runs."""
        self.matrix_busy = bool(self.matrix_queue)
        if not self.matrix_busy:
            return
        warp, group, op = self.matrix_queue.pop(0)
        fed = self.use_port(now, op.wavefronts, warp, op) if op.wavefronts else now
        end = max(now + op.cycles, fed)
        self.log("matrix", warp, op, now, end)
        self.multiplied(warp, op, end, now + max(op.latency, end - now))

        def finished(when: int) -> None:
            self.member_ends(warp, group, when + max(0, op.latency - op.cycles))
            self.start_matrix(when)

        self.later(end, finished)

    # --- the clock

    def run(self, limit: int = 10_000_000) -> SmRun:
        """Step until every warp is done. Raises HwsimError if they wait for each other, or after ``limit`` clocks."""
        now = 0
        while not all(w.done for w in self.warps) or self.future:
            while self.future and self.future[0][0] <= now:
                when, _, what = heapq.heappop(self.future)
                what(when)
            issued: set[int] = set()
            for core in range(self.config.sub_cores):
                for _ in range(self.config.issue):
                    warp = self.choose(core, now)
                    if warp is not None:
                        self.issue(warp, now)
                        issued.add(id(warp))
            wake = [when for when, _, _ in self.future[:1]]
            waiting: list[tuple[Warp, str]] = []
            for warp in self.warps:
                if id(warp) in issued:
                    warp.stalls["issue"] += 1
                    wake.append(now + 1)
                    continue
                if warp.done:
                    continue
                soonest, why = self.blocked(warp, now)
                if soonest is not None:
                    wake.append(max(soonest, now + 1))
                waiting.append((warp, "not_selected" if why == "issue" else why))
            if not wake:
                if all(w.done for w in self.warps):
                    break
                raise HwsimError(f"SM: warps wait for each other at clock {now}")
            following = max(now + 1, min(wake))
            for warp, why in waiting:
                warp.stalls[why] += following - now
            now = following
            if now > limit:
                raise HwsimError(f"SM: not done after {limit} clocks")
        self.run_log.end = max(self.run_log.end, now)
        self.run_log.stalls = [dict(w.stalls) for w in self.warps]
        return self.run_log

    def choose(self, core: int, now: int) -> Warp | None:
        """The warp of a sub-core whose instruction issues in this clock."""
        warps = self.cores[core]
        order: Iterable[int] = range(len(warps))
        if self.config.policy == "lrr":
            order = [(self.turn[core] + i) % len(warps) for i in range(len(warps))]
        elif warps:
            order = [self.turn[core], *(i for i in range(len(warps)) if i != self.turn[core])]
        for i in order:
            if warps[i].done:
                continue
            when, _ = self.blocked(warps[i], now)
            if when is not None and when <= now:
                self.turn[core] = (i + 1) % len(warps) if self.config.policy == "lrr" else i
                return warps[i]
        return None
