"""Folds: how a matrix product or convolution is cut into pieces the size of a systolic array.

A convolution runs tap by tap: the rows of a fold hold input channels of one kernel tap, because that is what lies side
by side in memory (channels last). Where the channels of a whole kernel row fit the array they share a fold, since
neighbouring pixels' channels are contiguous too. Groups narrower than the array are packed side by side, block-diagonally.
Machines that unfold the input completely (``pack_taps = "full"``, SCALE-Sim's arrays) cut K as if it were one axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.network.opdefs import Product


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """A product as a loop nest over folds of ``rows`` x ``cols``.

    ``groups`` independent products (after packing), each ``m`` x ``n`` x (``taps`` x ``k``); ``per_group`` original
    groups share one. Useful work is groups x m x n x taps x k multiply-accumulates times ``per_group`` corrections already
    applied: ``m * n * k`` of an instance counts only useful products.
    """

    groups: int
    m: int
    n: int
    taps: int
    k: int
    per_group: int = 1
    last_groups: int = 0  # original groups in the last packed one, when it is not full

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        full = self.m * self.n * self.taps * self.k
        if not self.last_groups:
            return self.groups * full
        return (self.groups - 1) * full + full // self.per_group * self.last_groups


def fold_plan(product: Product, rows: int, cols: int, pack_taps: str) -> FoldPlan:
    """Return how ``product`` maps onto an array of ``rows`` x ``cols`` (weight-stationary view: K on rows, N on columns)."""
    conv = product.conv
    if conv is None:
        return FoldPlan(product.batch, product.m, product.n, 1, product.k)
    if conv.transposed:
        # Every input pixel meets the whole kernel: K is the channels, N the channels times taps.
        return _packed(product, 1, product.k, rows, cols)
    taps = math.prod(conv.kernel)
    channels = conv.in_channels
    if pack_taps == "full":
        return _packed(product, 1, taps * channels, rows, cols)
    width = conv.kernel[-1]
    if channels * width <= rows and len(conv.kernel) > 0:
        return _packed(product, taps // width, channels * width, rows, cols)
    return _packed(product, taps, channels, rows, cols)


def _packed(product: Product, taps: int, k: int, rows: int, cols: int) -> FoldPlan:
    groups = product.batch
    together = max(1, min(rows // k, cols // product.n, groups)) if groups > 1 and k <= rows else 1
    if together == 1:
        return FoldPlan(groups, product.m, product.n, taps, k)
    packed = -(-groups // together)
    return FoldPlan(packed, product.m, product.n, taps, k * together, together, groups % together)


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop of a nest: its axis, iterations, and the extent of full iterations and of the last one."""

    axis: str
    count: int
    full: int = 1
    edge: int = 1

    @staticmethod
    def groups(plan: FoldPlan) -> Loop:
        """The loop over independent products; the last one may hold fewer packed groups."""
        return Loop("batch", plan.groups, plan.per_group, plan.last_groups or plan.per_group)

    @staticmethod
    def over(axis: str, total: int, step: int) -> Loop:
        """The loop that walks ``total`` in steps of ``step``."""
        step = max(1, min(step, total))
        count = -(-total // step)
        return Loop(axis, count, step, total - (count - 1) * step)


def split_classes(loops: list[Loop]) -> list[tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]]:
    """Return (first, trips, extents) of every class of iterations: full and last ones wherever their extents differ."""
    out: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, int]]] = [((), (), {})]
    for loop in loops:
        parts: list[tuple[int, int, int]]
        if loop.count > 1 and loop.edge != loop.full:
            parts = [(0, loop.count - 1, loop.full), (loop.count - 1, 1, loop.edge)]
        else:
            parts = [(0, loop.count, loop.edge)]
        if len(parts) == 1 and loop.axis == "tap":
            out = [((*f, 0), (*t, loop.count), e) for f, t, e in out]
            continue
        out = [((*f, lo), (*t, n), {**e, loop.axis: size}) for f, t, e in out for lo, n, size in parts]
    return out
