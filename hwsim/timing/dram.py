"""DRAM efficiency in closed form: what share of its peak a channel delivers to an access pattern, and what limits it.

A row is opened for h bursts; opening rows is limited by each bank's row cycle, by four activations per tFAW and by tRRD, the
data bus by the burst time. Reads and writes come in batches, with a turnaround between. Refresh takes all banks at once or one
at a time. The twin that serves every burst by command is `hwsim.timing.reference.dram_banks`; evidence *bounded*:
tests/timing/test_dram.py holds the quantiles of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.dram_timing import DramTiming, dram_timing

Floats = npt.NDArray[np.float64]

INTERLEAVE = 256  # bytes before the next channel
WINDOW = 128  # requests a controller sees at once, of reads and of writes: what streams that read and write need on A100 and H100
SHARP = (
    5.0  # how soon a limit binds when another is near: exponent of the norm that joins them; checked against the twin
)
LIMITS = ("bus", "bank", "activation")


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Share of the peak (0 to 1), its limit before turnarounds, and bursts per activation; arrays or numbers alike."""

    share: Any
    limit: Any
    bursts_per_row: Any
    refresh_loss: Any
    turnaround_loss: Any


def dram_efficiency(
    timing: DramTiming,
    channels: int,
    *,
    streams: npt.ArrayLike = 1,
    run_bytes: npt.ArrayLike = 1 << 20,
    stride_bytes: npt.ArrayLike = 0,
    turn_bytes: npt.ArrayLike = 512,
    write_share: npt.ArrayLike = 0.0,
    window: int = WINDOW,
) -> Efficiency:
    """Return what ``channels`` channels deliver to ``streams`` visitors that touch ``turn_bytes`` a turn in runs.

    Runs are ``run_bytes`` of contiguous memory, their beginnings ``stride_bytes`` apart (0: they follow each other);
    ``write_share`` of the visitors write. Arguments broadcast. Raises HwsimError for sizes below 1 or a share outside
    0 to 1.
    """
    given: list[Floats] = [
        np.asarray(x, np.float64) for x in (streams, run_bytes, stride_bytes, turn_bytes, write_share)
    ]
    s, run, stride, turn, w = np.broadcast_arrays(*given)
    if not (
        np.all(s >= 1)
        and np.all(run >= 1)
        and np.all(turn >= 1)
        and np.all((w >= 0) & (w <= 1))
        and np.all(stride >= 0)
    ):
        raise HwsimError("dram efficiency: streams and sizes must be at least 1, the write share between 0 and 1")
    t = timing
    far: Floats = np.where(stride > run, 1.0, 0.0)
    turn = np.asarray(np.minimum(turn, run), np.float64)
    used = np.minimum(1.0, np.where(far > 0, run, turn) / t.burst_bytes)  # less than a burst still moves a whole one
    mixed = (w > 0) & (w < 1)
    rows_open, per_row = _rows(t, channels, s / np.where(mixed, 2.0, 1.0), run, stride, turn, far, window)
    hold = np.maximum(
        t.ras, t.rcd + (per_row - 1) * t.ccd_l_bursts * t.burst_ns + (1 - w) * t.rtp + w * (t.cwl + t.burst_ns + t.wr)
    )
    busy = np.minimum(_distinct(t.banks, rows_open), t.banks)
    limits = np.stack([
        per_row * t.burst_ns * np.where((t.bank_groups > 1) & (rows_open < 1.5), t.ccd_l_bursts, 1.0),
        (t.rp + hold) / busy,
        np.maximum(t.faw / 4, t.rrd_s) * np.ones_like(per_row),
    ])  # fmt: skip
    slowest = limits.max(axis=0)
    joined = slowest * ((limits / slowest) ** SHARP).sum(axis=0) ** (1 / SHARP)
    # A batch of writes is three quarters of a queue; around it the bus turns twice and new rows are opened.
    work = 0.75 * window / np.where(w > 0, np.maximum(w, 1e-6), 1.0) * joined / per_row
    pair = t.bubble + t.wtr_s + t.cl + t.rp + t.rcd
    turned = np.where(mixed, work / (work + pair), 1.0)
    refreshed = 1 - t.rfc / t.refi * (1.0 if t.refresh == "ab" else 1 - limits[0] / joined)
    share = used * per_row * t.burst_ns / joined * turned * refreshed
    return Efficiency(share, np.array(LIMITS)[limits.argmax(axis=0)], per_row, 1 - refreshed, 1 - turned)


def _distinct(banks: int, rows: Floats) -> Floats:
    """Expected banks with work when ``rows`` rows lie in random banks; at least one."""
    out: Floats = np.maximum(banks * (1 - (1 - 1 / banks) ** rows), 1.0)
    return out


def _rows(
    t: DramTiming, channels: int, s: Floats, run: Floats, stride: Floats, turn: Floats, far: Floats, window: int
) -> tuple[Floats, Floats]:
    """Rows the window of one channel covers, and bursts a row is opened for.

    A visitor comes to a channel with a piece of the interleave (or its share of a long turn), whose bursts alternate over
    bank groups, each with a row of its own. The next pieces find the rows open unless another visitor's row took the bank.
    """
    s = np.maximum(s, 1.0)
    longest = np.where(far > 0, run, np.inf)
    piece = np.minimum(longest, np.maximum(INTERLEAVE, turn / channels))
    bursts = np.maximum(np.ceil(piece / t.burst_bytes), 1.0)
    groups = np.minimum(t.bank_groups, bursts)
    # Visits of one visitor that lie in the same rows (all that a row of every group spans, over all channels): those of
    # one run, and of the other runs that begin there.
    span = float(t.row_bytes * t.bank_groups * channels)
    per_run = np.where(far > 0, np.minimum(run, span), span) / (channels * piece)
    others = np.where(far > 0, np.maximum(span / np.maximum(stride, 1.0) - 1, 0.0), 0.0)
    visits = np.maximum(per_run, 1.0) + others * np.minimum(per_run, 1.0)
    # In the window are so many of a visitor's visits; of a visit made in short turns, as much as fits beside the others'.
    seen = window / (bursts * s)
    here = np.where(turn < piece, np.maximum(s / channels, 1.0), 1.0)
    whole = np.clip(window / (here * bursts), np.minimum(np.maximum(turn / t.burst_bytes, 1.0) / bursts, 1.0), 1.0)
    kept = (1 - 1 / t.banks_per_group) ** (s - 1)
    together = np.minimum(
        visits, whole * (1 + np.where(s > 1, np.minimum(seen, visits), 0.0)) / np.maximum(1 - kept, 1e-9)
    )
    per_row = np.minimum(np.maximum(bursts / groups * together, 1.0), t.row_bytes / t.burst_bytes)
    ahead = np.where(far > 0, 0.0, groups)  # a stream's next rows are opened while its last ones are read
    return np.maximum(window / per_row, groups) + ahead, per_row


@dataclass(frozen=True, slots=True)
class DramModel:
    """One machine's DRAM: timing at its own rate, channels, and peak in bytes per second."""

    timing: DramTiming
    channels: int
    peak_bytes_per_s: float

    def bandwidth(self, write_share: npt.ArrayLike = 0.0, **pattern: Any) -> Any:
        """Return the bytes per second of a pattern (arguments of `dram_efficiency`), by default long streams.

        A kernel that reads and writes is two streams; its ``write_share`` is that of its bytes.
        """
        return self.peak_bytes_per_s * self.efficiency(write_share, **pattern).share

    def efficiency(self, write_share: npt.ArrayLike = 0.0, **pattern: Any) -> Efficiency:
        """Return the efficiency of a pattern, by default of one long stream, or of two where some bytes are written."""
        w = np.asarray(write_share, dtype=np.float64)
        streams = pattern.pop("streams", np.where((w > 0) & (w < 1), 2, 1))
        defaults = {"turn_bytes": 4096, **pattern}
        return dram_efficiency(self.timing, self.channels, streams=streams, write_share=w, **defaults)


def dram_model(acc: Accelerator) -> DramModel:
    """Return the DRAM model of a machine; raises HwsimError when its technology has no timing table."""
    timing, channels = dram_timing(acc)
    return DramModel(timing, channels, channels * timing.peak_bytes_per_s)
