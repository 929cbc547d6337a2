"""The order in which a kernel's schedule adds along K: what the arithmetic reading needs of it.

Every output element of a kernel walks K alike, so the order is read off the tile that begins at the origin of m and n:
its matrix instances in loop order, each a chain of consecutive k.
"""

from __future__ import annotations

from hwsim.schedule.table import AXES, LEVEL, LOOPS, OPERATION, UNIT, Schedule

_K_AXES = ("k", "split")


def k_chains(schedule: Schedule, kernel: int) -> list[tuple[int, int]]:
    """Return half-open k ranges of ``kernel``'s chains, in the order in which they reach an output's sum.

    A convolution's k counts taps outside, channels inside. Longer instances are cut into the chains their ``reduce``
    column states. Kernels without products have none.
    """
    lo, hi = int(schedule.starts[kernel]), int(schedule.starts[kernel + 1])
    rows = [r for r in range(lo, hi) if schedule.unit[r] == UNIT["matrix"] or _on_lanes(schedule, r)]
    if not rows:
        return []
    stage = int(schedule.stage[rows[0]])
    found: list[tuple[tuple[int, ...], int, int]] = []
    for row in rows:
        if int(schedule.stage[row]) != stage:
            continue
        axes = [AXES[int(a)] for a in schedule.axis[row]]
        first, trips = schedule.first[row].tolist(), schedule.trips[row].tolist()
        if any(f for f, axis in zip(first, axes, strict=True) if axis not in _K_AXES):
            continue  # not the tile at the origin
        walks = [
            range(f, f + t) if axis in _K_AXES else range(1) for f, t, axis in zip(first, trips, axes, strict=True)
        ]
        indices: list[tuple[int, ...]] = [()]
        for walk in walks:
            indices = [(*i, j) for i in indices for j in walk]
        for index in indices:
            begin = sum(index[v] * int(schedule.stride[row][v]) for v in range(LOOPS) if axes[v] in _K_AXES)
            found.append((index, begin, begin + int(schedule.extent[row][2])))
    chain = int(schedule.reduce[rows[0]][1])
    out: list[tuple[int, int]] = []
    for _, begin, end in sorted(found):
        step = chain or end - begin
        out += [(at, min(at + step, end)) for at in range(begin, end, step)]
    return out


def _on_lanes(schedule: Schedule, row: int) -> bool:
    """Whether a row is a tiled product on vector lanes (a GPU's CUDA cores)."""
    return bool(schedule.op[row] == OPERATION["mac"] and schedule.source[row, 0] == LEVEL["local"])
