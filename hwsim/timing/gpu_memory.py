"""Time of kernels without matrix products on a GPU: element-wise, normalisation, softmax, pooling, copies, casts.

A kernel's threads each move a vector of 16 bytes at a time (4 in libraries that move two halves). Its time is a launch,
the latency of what it does one thing after the other, and the slowest of three streams: DRAM, L2, instructions. The
memory system only fills while enough bytes are in flight (Little's law): bytes of resident threads over the latency.
Everything is arrays [rows].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView

Floats = npt.NDArray[np.float64]

THREADS = 256  # of a CTA
WARP = 32
SYNC_CYCLES = 60.0  # of a reduction over a CTA: shuffles in a warp, a barrier, shuffles again
BOUNDS = ("launch", "latency", "dram", "l2", "issue")


@dataclass(frozen=True, slots=True)
class VectorWork:
    """What kernels do, arrays [rows] or numbers that broadcast.

    ``dram_read``/``dram_write`` bytes that cross to DRAM, ``l2_bytes`` all bytes that cross between SMs and L2.
    ``threads`` could work side by side. ``alu`` and ``special`` lane operations, ``vectors`` accesses.
    ``phases``: how often a thread waits for others before it goes on (a softmax: maximum, sum); ``serial`` accesses one
    thread makes one after the other. ``access``: share of a DRAM or L2 transfer that is used. ``vector_bytes`` of an access.
    """

    dram_read: npt.ArrayLike
    dram_write: npt.ArrayLike
    l2_bytes: npt.ArrayLike
    threads: npt.ArrayLike
    alu: npt.ArrayLike = 0.0
    special: npt.ArrayLike = 0.0
    vectors: npt.ArrayLike = 0.0
    phases: npt.ArrayLike = 0
    access: npt.ArrayLike = 1.0
    vector_bytes: npt.ArrayLike = 16.0


@dataclass(frozen=True, slots=True)
class VectorTimes:
    """Answers [rows]: ``time_s`` = ``launch_s`` + ``latency_s`` + ``body_s``; ``bound`` indexes `BOUNDS`."""

    time_s: Floats
    launch_s: Floats
    latency_s: Floats
    body_s: Floats
    bound: npt.NDArray[np.int64]
    ctas: npt.NDArray[np.int64]
    waves: Floats


def vector_times(view: GpuView, work: VectorWork, launch_s: float, clock_hz: float | None = None) -> VectorTimes:
    """Return how long the kernels take at ``clock_hz`` (the highest by default), each started in ``launch_s``."""
    c = view.constants
    clock = clock_hz or view.clock_hz
    read, write, l2, threads, alu, special, vectors, phases, access, wide = np.broadcast_arrays(
        *(
            np.atleast_1d(np.asarray(x, np.float64))
            for x in (
                work.dram_read, work.dram_write, work.l2_bytes, work.threads, work.alu, work.special, work.vectors,
                work.phases, work.access, work.vector_bytes,
            )
        )
    )  # fmt: skip
    ctas = np.maximum(1.0, np.ceil(threads / THREADS))
    per_sm = view.max_threads // THREADS
    active = np.minimum(ctas, view.sms)
    resident = np.minimum(ctas, view.sms * per_sm)
    # An access of every thread, and a second one under way while the first is used.
    flight = resident * THREADS * wide * 2
    dram_latency = view.dram_latency_s * c["loaded_latency"]
    l2_latency = view.l2_latency_cycles / clock
    dram_rate = np.minimum(view.stream_bytes_per_s * access, flight / dram_latency)
    l2_rate = np.minimum(view.l2_bytes_per_clk * c["l2_efficiency"] * clock, active * view.l2_sm_bytes_per_clk * clock)
    l2_rate = np.minimum(l2_rate * access, flight / l2_latency)
    lanes = view.simt_macs["fp32"] * active * clock
    issue = alu / (lanes * c["issue_efficiency"])
    issue = np.maximum(issue, special / (view.special_per_clk * active * clock))
    around = c["vector_instructions"] * vectors + c["reduce_instructions"] * phases * threads
    issue = np.maximum(issue, (alu + special + around) / (lanes * c["issue_efficiency"]))
    streams = np.stack([(read + write) / dram_rate, l2 / l2_rate, issue])
    body = streams.max(axis=0)
    latency = np.where(read > 0, dram_latency, l2_latency) + phases * (SYNC_CYCLES / clock)
    launch = np.full(len(body), launch_s)
    time = launch + latency + body
    parts = np.stack([launch, latency, *streams])
    bound = np.argmax(parts, axis=0).astype(np.int64)
    waves = ctas / (view.sms * per_sm)
    return VectorTimes(time, launch, latency, body, bound, ctas.astype(np.int64), waves)


def transform_seconds(
    view: GpuView, dram: npt.ArrayLike, read: npt.ArrayLike, written: npt.ArrayLike, access: npt.ArrayLike = 1.0
) -> Floats:
    """Seconds of kernels that stream ``read`` and ``written`` bytes through the L2, ``dram`` of them beyond it.

    ``access`` is the share of a transfer that is used.
    """
    crossing = np.asarray(dram, np.float64) / view.stream_bytes_per_s
    through = (np.asarray(read, np.float64) + np.asarray(written, np.float64)) / (
        view.l2_bytes_per_clk * view.constants["l2_efficiency"] * view.clock_hz
    )
    return np.asarray(np.maximum(crossing, through) / np.asarray(access, np.float64), np.float64)
