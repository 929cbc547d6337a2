"""DRAM traffic of a GEMM under an L2, in closed form, from the order in which its CTAs run.

CTAs are numbered ``width`` columns of tiles at a time, down the rows (a *group*; transposed where the raster runs the other
way), and run in waves of ``slots``. Those of a wave walk along k together, so a tile they share comes from DRAM once. What
is used again later comes again unless everything touched in between fits in the cache, the one least recently used going
first:

- a wave smaller than a group keeps using its columns of B, wave after wave: they stay if a wave's operands and results
  fit; A comes back with the next group, and stays if all of A and the group's columns and results fit;
- a wave of several groups sweeps all of A: it stays if a wave's operands and results fit.

*Bounded*: `hwsim.timing.reference.gpu_l2` keeps whole tiles in a fully associative cache, request by request;
`tests/timing/test_gpu_l2.py` commits the quantiles of the difference. Arguments are numbers or arrays that broadcast.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

Numbers: TypeAlias = Any
"""A Python number or a numpy array."""


class L2Traffic(NamedTuple):
    """Bytes of A, B, C from and to DRAM, and of A, B, C between SMs and L2."""

    dram_a: Numbers
    dram_b: Numbers
    dram_c: Numbers
    l2_a: Numbers
    l2_b: Numbers
    l2_c: Numbers


def l2_traffic(
    m: Numbers,
    n: Numbers,
    k: Numbers,
    tile_m: Numbers,
    tile_n: Numbers,
    slots: Numbers,
    capacity: Numbers,
    width: Numbers = 1,
    along_n: Numbers = False,
    a: Numbers = 2,
    b: Numbers = 2,
    c: Numbers = 2,
) -> L2Traffic:
    """Traffic of C[m, n] = A[m, k] B[k, n] in tiles, ``slots`` CTAs at a time, with a cold L2 of ``capacity`` bytes.

    ``a``, ``b``, ``c``: bytes per element. ``width``: tiles of the short side of a group; ``along_n``: groups are rows of
    tiles and run across the columns. Results are counted once. Operands alone; add what a split of K moves.
    """
    rows, cols = -(-m // tile_m), -(-n // tile_n)
    whole_a, whole_b, whole_c = 1.0 * m * k * a, 1.0 * n * k * b, 1.0 * m * n * c
    flip = np.asarray(along_n, bool)
    down = np.where(flip, cols, rows)  # tiles along the group, and across the groups
    across = np.where(flip, rows, cols)
    swept = np.where(flip, whole_b, whole_a)  # the operand that comes back with every group
    held = np.where(flip, whole_a, whole_b)  # the one a group keeps
    wide = np.minimum(width, across)
    ctas = down * across
    wave = np.minimum(slots, ctas)
    waves = -(-ctas // np.maximum(wave, 1))
    group = wide * down
    results = whole_c / ctas
    # A turn is a wave, or a row of the group where that is longer: after it the same columns are used again.
    turn = np.maximum(wave, wide)
    long = np.minimum(down, np.maximum(turn / wide, 1.0))
    short = np.minimum(across, np.maximum(wide, turn / down))
    footprint = swept * long / down + held * short / across + results * turn
    stays = footprint <= capacity  # from turn to turn
    returns = swept + held * wide / across + results * group <= capacity  # from group to group
    # Turns inside groups. Those that begin in the middle of a row of the group bring its operand in again.
    groups = -(-across // wide)
    broken = (wave % wide > 0) * (wave > wide) * (1 - stays)
    passes = np.where(returns, 1.0, groups)
    # A wave shorter than that row brings its operand in again if it does not outlast the wave.
    alone = swept / down + held * wave / across + results * wave > capacity
    passes = passes * np.where(alone & (wave < wide), -(-wide // wave), 1)
    within = swept * (passes + broken * (waves - 1) / down)
    within_held = held * np.where(stays, 1.0, np.maximum(1.0, group / turn + (group % turn > 0) * (turn < group) / 2))
    # Turns over several groups, each a sweep of the operand that comes back; the last one is not whole.
    rest = ctas - (waves - 1) * wave
    sweeps = np.maximum(1.0, waves - 1 + np.minimum(1.0, rest / down))
    over = swept * np.where(stays, 1.0, sweeps)
    over_held = held * (1 + (1 - stays) * (waves - 1) * (wave % group > 0) * wide / across)
    several = wave >= group
    dram_swept, dram_held = np.where(several, over, within), np.where(several, over_held, within_held)
    dram_a, dram_b = np.where(flip, dram_held, dram_swept), np.where(flip, dram_swept, dram_held)
    parts = (dram_a, dram_b, whole_c, cols * whole_a, rows * whole_b, whole_c)
    return L2Traffic(*(x.item() if np.ndim(x) == 0 and hasattr(x, "item") else x for x in parts))
