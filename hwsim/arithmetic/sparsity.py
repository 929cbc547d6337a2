"""2:4 structured sparsity: which weights to keep, the compressed operand with its metadata, and back.

Patterns and metadata are those of PTX ``mma.sp`` (PTX ISA 9.7.14.6): 2 of every 4 consecutive elements along k; for tf32
1 of 2; for 4-bit types two *pairs* of every four pairs. Metadata is one nibble per group, ``index0 | index1 << 2``,
equal indices invalid. For tf32 the two halves of the element each take an index, so position 0 is 0b0100 and position 1
is 0b1110.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.formats import get_format

Array = npt.NDArray[Any]
_TF32 = {0b0100: 0, 0b1110: 1}


class Pattern(NamedTuple):
    """How many elements of a group are kept, and how many move together."""

    group: int
    keep: int
    unit: int

    @property
    def units(self) -> int:
        return self.group // self.unit


class Compressed(NamedTuple):
    """Kept elements (…, k / 2) and metadata nibbles (…, k / group) of uint8, one per group."""

    values: Array
    metadata: npt.NDArray[np.uint8]


def pattern(fmt: str) -> Pattern:
    """The pattern that ``mma.sp`` requires of a format: 2:4, 1:2 for tf32, pairs for 4-bit types."""
    f = get_format(fmt)
    if f.width == 32:
        return Pattern(2, 1, 1)
    if f.width == 4:
        return Pattern(8, 4, 2)
    if f.width > 32 or f.width < 4:
        raise HwsimError(f"{f.name}: no sparse instruction takes it; fp16, bf16, tf32, fp8, int8 and int4 have one")
    return Pattern(4, 2, 1)


def prune(weights: npt.ArrayLike, *, fmt: str = "fp16", method: str = "magnitude") -> npt.NDArray[np.bool_]:
    """Mask (same shape as ``weights``, values, not bits) of what to keep along the last axis.

    ``magnitude`` keeps in each group the pattern with the largest sum of magnitudes, which is optimal per group; ties go
    to the earliest elements. ``tile`` keeps two per row and per column of each 4 × 4 tile (ASP's m4n2_2d, its best of
    the 90 patterns), so that the transpose complies too; 2:4 formats only. NaN counts as infinitely large. Raises
    HwsimError if the axes are no multiples of the group.
    """
    w = np.abs(np.asarray(weights, np.float64))
    p = pattern(fmt)
    w = np.where(np.isnan(w), np.inf, w)
    _whole_groups(w, p)
    if method == "magnitude":
        size = _scores(w, p)
        order = np.argsort(-size, axis=-1, kind="stable")
        kept = np.zeros(size.shape, bool)
        np.put_along_axis(kept, order[..., : p.keep // p.unit], True, axis=-1)
        mask: npt.NDArray[np.bool_] = np.repeat(kept, p.unit, axis=-1).reshape(w.shape)
        return mask
    if method == "tile":
        if p.group != 4 or w.ndim != 2 or w.shape[0] % 4:
            raise HwsimError(
                f"prune by tile: expected a matrix with rows and columns in fours and a 2:4 format, got {w.shape}"
            )
        tiles = w.reshape(w.shape[0] // 4, 4, w.shape[1] // 4, 4).swapaxes(1, 2).reshape(-1, 16)
        finite = np.where(np.isinf(tiles), np.finfo(np.float64).max / 32, tiles)
        best = np.argmax(finite @ _tile_patterns().T.astype(np.float64), axis=1)
        kept = _tile_patterns()[best].reshape(w.shape[0] // 4, w.shape[1] // 4, 4, 4).swapaxes(1, 2)
        return np.asarray(kept.reshape(w.shape), bool)
    raise HwsimError(f"prune method {method!r}: expected magnitude or tile")


def permute_columns(
    weights: npt.ArrayLike, *, fmt: str = "fp16", attempts: int = 10, seed: int = 0, swaps: int = 100_000
) -> npt.NDArray[np.intp]:
    """Order of the columns (k) of ``weights`` (n, k) under which `prune` by magnitude keeps the most.

    Greedy search over swaps of two columns in different groups, the best swap first, until none helps; then up to
    ``attempts`` escapes (random swaps, kept if the search from there ends higher). Pool & Yu, "Channel permutations for
    N:M sparsity", NeurIPS 2021, §4; deterministic in ``seed``; at most ``swaps`` swaps. The same order must be applied
    to the other operand's rows, which leaves the exact product unchanged.
    """
    w = np.abs(np.nan_to_num(np.asarray(weights, np.float64)))
    p = pattern(fmt)
    if w.ndim != 2:
        raise HwsimError(f"permute_columns: expected a matrix (n, k), got {w.shape}")
    _whole_groups(w, p)
    rng = np.random.default_rng(seed)
    order, budget = _climb(w, np.arange(w.shape[1]), p, swaps)
    best = _retained(w[:, order], p)
    for _ in range(attempts if w.shape[1] > p.group else 0):
        trial = order.copy()
        for _ in range(3):
            i, j = rng.choice(len(trial), 2, replace=False)
            trial[[i, j]] = trial[[j, i]]
        trial, budget = _climb(w, trial, p, budget)
        kept = _retained(w[:, trial], p)
        if kept > best:
            order, best = trial, kept
    return order


def compress(values: Array, *, fmt: str, mask: npt.NDArray[np.bool_] | None = None) -> Compressed:
    """Compress bit patterns or values (…, k) that comply with the pattern of ``fmt``.

    Kept elements are those of ``mask`` or the non-zero ones (as numbers: -0 is zero); a group with fewer keeps its first
    zeros too, so that every group has its full number in ascending order. Raises HwsimError naming the first group that
    does not comply.
    """
    given = np.asarray(values)
    p = pattern(fmt)
    _whole_groups(given, p)
    live = _nonzero(given, fmt) if mask is None else np.asarray(mask, bool)
    if live.shape != given.shape:
        raise HwsimError(f"mask {live.shape} for values {given.shape}")
    by_unit = live.reshape(*given.shape[:-1], -1, p.units, p.unit).any(axis=-1)
    count, most = by_unit.sum(axis=-1), p.keep // p.unit
    if bool((count > most).any()):
        where = tuple(int(i) for i in np.argwhere(count > most)[0])
        what = "pairs" if p.unit == 2 else "elements"
        raise HwsimError(
            f"{p.keep}:{p.group} sparsity of {fmt}: group {where[-1]} of row {where[:-1]} has {int(count[where])} non-zero"
            f" {what}, at most {most} allowed; prune first"
        )
    position = np.arange(p.units)
    order = np.argsort(np.where(by_unit, position, position + p.units), axis=-1, kind="stable")[..., :most]
    index = np.sort(order, axis=-1)
    groups = given.reshape(*given.shape[:-1], -1, p.units, p.unit)
    kept = np.take_along_axis(groups, index[..., None], axis=-2).reshape(*given.shape[:-1], -1)
    return Compressed(kept, _nibbles(index, p))


def decompress(compressed: Compressed, *, fmt: str) -> Array:
    """The full operand (…, k), zeros where nothing was kept."""
    values, p = np.asarray(compressed.values), pattern(fmt)
    columns = selected(compressed.metadata, fmt=fmt)
    if columns.shape != values.shape:
        raise HwsimError(f"metadata {np.shape(compressed.metadata)} does not fit values {values.shape}")
    out = np.zeros((*values.shape[:-1], values.shape[-1] * p.group // p.keep), values.dtype)
    np.put_along_axis(out, columns, values, axis=-1)
    return out


def selected(metadata: npt.ArrayLike, *, fmt: str, ordered: bool = False) -> npt.NDArray[np.int64]:
    """Columns k that metadata nibbles (…, groups) select: (…, kept), in the order of the compressed operand.

    Raises HwsimError for nibbles that the instruction set calls invalid: equal indices, for tf32 anything but 0b0100 and
    0b1110, with ``ordered`` (``sp::ordered_metadata``) indices that do not increase.
    """
    nibbles, p = np.asarray(metadata), pattern(fmt)
    if nibbles.dtype.kind not in "iu":
        raise HwsimError(f"sparse metadata: expected integers 0 to 15, got {nibbles.dtype}")
    nibbles = nibbles.astype(np.int64)
    base = np.arange(nibbles.shape[-1]) * p.group
    low, high = nibbles & 3, nibbles >> 2
    valid = (nibbles >= 0) & (nibbles < 16) & (low != high)
    if p.group == 2:
        valid &= np.isin(nibbles, list(_TF32))
        _check_nibbles(nibbles, valid, fmt)
        return np.asarray(base + (nibbles == 0b1110), np.int64)
    if ordered:
        valid &= low < high
    _check_nibbles(nibbles, valid, fmt)
    first = base[:, None] + np.stack([low, high], axis=-1) * p.unit
    every = first[..., None] + np.arange(p.unit)
    return np.asarray(every.reshape(*nibbles.shape[:-1], -1), np.int64)


def pack_metadata(metadata: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Nibbles (…, groups) as the 32-bit registers ``mma.sp`` reads: eight to a word, the first in the low bits."""
    nibbles = np.asarray(metadata).astype(np.uint32)
    missing = -nibbles.shape[-1] % 8
    if missing:
        raise HwsimError(f"metadata of {nibbles.shape[-1]} groups: registers hold eight each")
    words = nibbles.reshape(*nibbles.shape[:-1], -1, 8) << np.arange(0, 32, 4, dtype=np.uint32)
    return np.asarray(np.bitwise_or.reduce(words, axis=-1), np.uint32)


def unpack_metadata(words: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Inverse of `pack_metadata`."""
    given = np.asarray(words, np.uint32)
    nibbles = (given[..., None] >> np.arange(0, 32, 4, dtype=np.uint32)) & np.uint32(15)
    return nibbles.reshape(*given.shape[:-1], -1).astype(np.uint8)


def complies(values: Array, *, fmt: str) -> bool:
    """Whether the non-zero elements along the last axis fit the pattern of ``fmt``."""
    given, p = np.asarray(values), pattern(fmt)
    if given.shape[-1] % p.group:
        return False
    by_unit = _nonzero(given, fmt).reshape(*given.shape[:-1], -1, p.units, p.unit).any(axis=-1)
    return bool((by_unit.sum(axis=-1) <= p.keep // p.unit).all())


def _nonzero(values: Array, fmt: str) -> npt.NDArray[np.bool_]:
    f = get_format(fmt)
    if values.dtype.kind == "u" and f.kind == "float" and f.signed:  # bits: all but the sign
        return np.asarray((values & values.dtype.type((1 << (f.width - 1)) - 1)) != 0)
    return np.asarray(values != 0)


def _whole_groups(values: Array, p: Pattern) -> None:
    if values.ndim == 0 or values.shape[-1] % p.group:
        raise HwsimError(f"{p.keep}:{p.group} sparsity: the last axis of {values.shape} is no multiple of {p.group}")


def _scores(w: Array, p: Pattern) -> Array:
    return np.asarray(w.reshape(*w.shape[:-1], -1, p.units, p.unit).sum(axis=-1))


def _nibbles(index: npt.NDArray[np.intp], p: Pattern) -> npt.NDArray[np.uint8]:
    if p.group == 2:
        return np.where(index[..., 0] == 1, 0b1110, 0b0100).astype(np.uint8)
    return (index[..., 0] | (index[..., 1] << 2)).astype(np.uint8)


def _check_nibbles(nibbles: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_], fmt: str) -> None:
    if not valid.all():
        where = tuple(int(i) for i in np.argwhere(~valid)[0])
        raise HwsimError(f"sparse metadata for {fmt}: nibble {int(nibbles[where]):#06b} at {where} is invalid")


@cache
def _tile_patterns() -> npt.NDArray[np.bool_]:
    """The 90 4 × 4 masks with two in every row and column, in lexicographic order."""
    rows = [tuple(i in pair for i in range(4)) for pair in itertools.combinations(range(4), 2)]
    masks = [np.array(four) for four in itertools.product(rows, repeat=4)]
    return np.array([mask.ravel() for mask in masks if (mask.sum(axis=0) == 2).all()])


def _retained(w: Array, p: Pattern) -> float:
    """Magnitude that pruning keeps."""
    return float(np.sort(_scores(w, p), axis=-1)[..., p.units - p.keep // p.unit :].sum())


def _climb(w: Array, order: npt.NDArray[np.intp], p: Pattern, budget: int) -> tuple[npt.NDArray[np.intp], int]:
    """Swap columns of two groups while that keeps more, the best pair of each round first."""
    order = order.copy()
    groups = len(order) // p.group
    gain = np.full((groups, groups), np.nan)
    swap = np.zeros((groups, groups, 2), np.intp)
    while budget > 0:
        for g, h in itertools.combinations(range(groups), 2):
            if np.isnan(gain[g, h]):
                gain[g, h], swap[g, h] = _best_swap(w, order, p, g, h)
        usable = np.nan_to_num(gain, nan=0.0)
        if groups < 2 or usable.max() <= 1e-9:
            break
        g, h = divmod(int(usable.argmax()), groups)
        i, j = swap[g, h]
        order[[i, j]] = order[[j, i]]
        for changed in (g, h):
            gain[changed, :] = gain[:, changed] = np.nan
        budget -= 1
    return order, budget


def _best_swap(w: Array, order: npt.NDArray[np.intp], p: Pattern, g: int, h: int) -> tuple[float, tuple[int, int]]:
    """Gain and positions of the best exchange of one column of group g with one of group h."""
    left, right = np.arange(g * p.group, (g + 1) * p.group), np.arange(h * p.group, (h + 1) * p.group)
    both = np.concatenate([left, right])
    before = _retained(w[:, order[both]], p)
    pairs = list(itertools.product(range(p.group), repeat=2))
    trials = np.tile(order[both], (len(pairs), 1))
    for t, (i, j) in enumerate(pairs):
        trials[t, [i, p.group + j]] = trials[t, [p.group + j, i]]
    kept = np.sort(_scores(w[:, trials], p), axis=-1)[..., p.units - p.keep // p.unit :].sum(axis=(0, 2, 3))
    best = int(np.argmax(kept))
    i, j = pairs[best]
    return float(kept[best]) - before, (int(left[i]), int(right[j]))
