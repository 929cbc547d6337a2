"""Work of the host before and after the machine: decoding, resizing, non-maximum suppression; by so many workers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.serving.arrivals import SECOND_NS

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Host:
    """Seconds of every request before and after the machine; ``workers`` of each stage, None for as many as it takes.

    ``said`` names the stages the times were simulated for, "" where they were given.
    """

    before_s: float = 0.0
    after_s: float = 0.0
    workers: int | None = None
    said: str = ""

    @property
    def before_ns(self) -> int:
        """Nanoseconds before the machine."""
        return round(self.before_s * SECOND_NS)

    @property
    def after_ns(self) -> int:
        """Nanoseconds after the machine."""
        return round(self.after_s * SECOND_NS)

    def check(self, clients: int) -> Host:
        """Return self, or raise HwsimError: clients that wait cannot share fewer workers than they are."""
        if clients and self.workers is not None and self.workers < clients:
            raise HwsimError(
                f"host workers: {clients} clients that wait for their answer need as many, not {self.workers}"
            )
        return self


def through(times_ns: Ints, stage_ns: int, workers: int | None) -> Ints:
    """Return when requests that come at ``times_ns`` (not falling) leave a stage of ``workers``, first come, first served."""
    if not stage_ns or workers is None or workers >= len(times_ns):
        return times_ns + stage_ns
    busy = deque([0] * workers)  # when each worker is free, the earliest first: all take equally long
    out = []
    for time in times_ns.tolist():
        free = busy.popleft()
        out.append((time if time > free else free) + stage_ns)
        busy.append(out[-1])
    return np.array(out, np.int64)


def through_unsorted(times_ns: Ints, stage_ns: int, workers: int | None) -> Ints:
    """Return the same for times in any order; those that come together go by number."""
    order = np.argsort(times_ns, kind="stable")
    out = np.empty_like(times_ns)
    out[order] = through(times_ns[order], stage_ns, workers)
    return out
