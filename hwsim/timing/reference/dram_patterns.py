"""Addresses as kernels make them, and where they lie in a memory: the input of the channel model.

Visitors (CTAs, warps) each walk a region of their own in runs of contiguous bytes, a turn at a time; the memory spreads
addresses over channels, bank groups, banks and rows. Only the requests of one channel are returned.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.machine.dram_timing import DramTiming
from hwsim.timing.reference.dram_banks import Request

INTERLEAVE = 256  # bytes before the next channel


@dataclass(frozen=True, slots=True)
class Pattern:
    """``streams`` visitors; each turn one of them touches ``turn_bytes`` of its run of ``run_bytes``, then jumps on.

    Runs begin ``stride_bytes`` apart (0: they follow each other). ``write_share`` of the visitors write. ``order`` is
    ``round`` (one after the other) or ``random``.
    """

    streams: int = 1
    run_bytes: int = 1 << 20
    stride_bytes: int = 0
    turn_bytes: int = 512
    write_share: float = 0.0
    order: str = "round"


def locate(address: int, timing: DramTiming, channels: int) -> tuple[int, Request]:
    """Return (channel, read request) of the burst at ``address``: interleaved channels, then groups, columns, banks, rows.

    Channel and bank are mixed with the address bits above them, so that strides do not meet in one of them.
    """
    block, inside = divmod(address, INTERLEAVE)
    above = block // channels
    burst = (above * INTERLEAVE + inside) // timing.burst_bytes
    group = burst % timing.bank_groups
    row_bursts = timing.row_bytes // timing.burst_bytes
    rest = burst // timing.bank_groups // row_bursts
    row, bank = divmod(rest, timing.banks_per_group)
    mixed = row * 2654435761 >> 7
    where = Request((group + mixed) % timing.bank_groups, (bank + mixed // 4) % timing.banks_per_group, row, False)
    return (block + (above * 2654435761 >> 9)) % channels, where


def requests(pattern: Pattern, timing: DramTiming, channels: int, count: int, seed: int = 1) -> Iterator[Request]:
    """Yield ``count`` requests that channel 0 gets when a kernel touches memory as ``pattern`` says."""
    rng = random.Random(seed)
    region = 1 << 26
    starts = [
        rng.randrange(1 << 14) * region + rng.randrange(region // INTERLEAVE) * INTERLEAVE
        for _ in range(pattern.streams)
    ]
    done = [0] * pattern.streams  # bytes of its runs a visitor has touched
    stride = pattern.stride_bytes or pattern.run_bytes
    writers = round(pattern.write_share * pattern.streams)
    # Writers are spread among the readers.
    writes = (
        [(i * writers) % pattern.streams < writers for i in range(pattern.streams)]
        if writers
        else [False] * pattern.streams
    )
    made = 0
    turn = 0
    while made < count:
        who = turn % pattern.streams if pattern.order == "round" else rng.randrange(pattern.streams)
        turn += 1
        left = min(pattern.turn_bytes, pattern.run_bytes)
        while left > 0:
            run, at = divmod(done[who], pattern.run_bytes)
            address = starts[who] + run * stride + at
            step = min(left, pattern.run_bytes - at, timing.burst_bytes - address % timing.burst_bytes)
            channel, where = locate(address, timing, channels)
            if channel == 0:
                yield Request(where.group, where.bank, where.row, writes[who])
                made += 1
                if made == count:
                    return
            done[who] += step
            left -= step
