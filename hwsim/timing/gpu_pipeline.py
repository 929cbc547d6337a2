"""The main loop of a CTA in closed form: copies into a ring of buffers beside computing on them."""

from __future__ import annotations


def pipeline_cycles(steps: int, stages: int, load: int, latency: int, use: int) -> int:
    """Return the cycles of a main loop of ``steps`` k-steps with ``stages`` buffers, copies in order. *Exact*.

    A copy occupies the path for ``load`` cycles and its data arrive ``latency`` cycles after it ends; computing on a
    buffer takes ``use`` cycles and frees it. Copies start as soon as the path and a buffer are free, and a step computes
    when its data are there and the step before has computed. All integers, ``steps`` and ``stages`` at least 1.

    The first step waits for its own copy; after that the slowest of path, compute unit and the round trip of a buffer
    (copy, latency, compute; ``stages`` of them at once) sets the pace.
    """
    first = trip = load + latency + use
    pace = max(load, use)
    if trip <= stages * pace:
        return first + (steps - 1) * pace
    bursts, within = divmod(steps - 1, stages)  # the buffers run out: a burst of `stages` steps per round trip
    return first + bursts * trip + within * pace
