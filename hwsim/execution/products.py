"""Matrix products and convolutions through one interchangeable arithmetic: exact, fp32, or a machine's bits.

A machine's products go through `hwsim.arithmetic.gemm`. On a systolic array k is walked as the schedule walks it
(`hwsim.schedule.folds`): tap by tap, channels inside, chains as long as the array has rows, narrow groups packed block-
diagonally. On Tensor Cores, k is walked in one ascending order, taps outside and channels inside (channels last), which is
an assumption about the library's kernel: no order is published.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.formats import get_format
from hwsim.network.opdefs import ConvGeometry, Product
from hwsim.schedule.folds import FoldPlan, fold_plan

Array = npt.NDArray[Any]
MAX_ELEMENTS = 1 << 29  # of one tensor
PATCH_ELEMENTS = 1 << 24  # unfolded input held at once


@dataclass(slots=True)
class Tally:
    """Values lost to a format: finite ones beyond its range (infinite, or clamped where it saturates), non-zero ones that
    became zero."""

    overflow: int = 0
    saturated: int = 0
    underflow: int = 0

    def count(self, before: Array, after: Array, fmt: str, saturate: bool) -> None:
        """Compare values before and after rounding to ``fmt``."""
        finite = np.isfinite(before)
        self.overflow += int(np.count_nonzero(finite & ~np.isfinite(after)))
        self.underflow += int(np.count_nonzero((before != 0) & (after == 0)))
        if saturate:
            self.saturated += int(np.count_nonzero(finite & (np.abs(before) > _largest(fmt))))


Audit = Callable[[Array, Array, list[tuple[int, int]], Array], None]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How products are summed and values are kept.

    Without ``profile`` numpy computes in ``dtype``. With it, operands are rounded to ``inputs`` (activations, weights) and
    multiplied as that machine does; ``store`` is the format a layer's result is rounded to ("" keeps fp32). ``rows``,
    ``cols`` and ``pack_taps`` describe a systolic array (0 rows: Tensor Cores), ``passes`` its passes for fp32 operands.
    ``scaled`` brings each operand to the format's full range by one factor per tensor first (fp8); ``block`` elements along k
    share a scale of format ``scale`` (0: none; `hwsim.execution.blocks`). ``tally`` counts
    what rounding operands and results loses; ``order`` are the chains of k a schedule walks (else one window's);
    ``audit`` is shown every product: operands' bits, chains of k, sums as float32.
    """

    name: str
    dtype: npt.DTypeLike = np.float32
    profile: str = ""
    inputs: tuple[str, str] = ("fp32", "fp32")
    store: str = ""
    passes: int = 1
    rows: int = 0
    cols: int = 0
    pack_taps: str = "row"
    scaled: bool = False
    block: int = 0
    scale: str = ""
    tally: Tally | None = None
    audit: Audit | None = None
    order: tuple[tuple[int, int], ...] = ()

    def cast(self, x: Array) -> Array:
        """``x`` as a layer's result is kept: floats rounded to nearest even in the stored format."""
        if x.dtype.kind != "f":
            return x
        if not self.store:
            return x.astype(self.dtype, copy=False)
        kept = rounded(x, self.store)
        if self.tally is not None:
            self.tally.count(x, kept, self.store, saturate=False)
        return kept


EXACT = Arithmetic("exact", np.float64)
FP32 = Arithmetic("fp32", np.float32)


def rounded(x: Array, fmt: str) -> Array:
    """Floats rounded once to nearest even in ``fmt``, as float32."""
    if fmt == "fp32":
        return x.astype(np.float32, copy=False)
    if fmt == "fp16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    if fmt == "bf16" and x.dtype == np.float32:
        code = np.ascontiguousarray(x).view(np.uint32)
        even = (code + (((code >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), np.float32(np.nan), even.view(np.float32))
    from hwsim.arithmetic.formats import decode, encode

    return decode(encode(x, fmt), fmt).astype(np.float32)


def product(a: Array, b: Array, arithmetic: Arithmetic) -> Array:
    """``a`` (..., m, k) times ``b`` (..., k, n), leading dimensions broadcast; float64 for exact, else float32.

    Raises HwsimError for shapes that do not multiply or a result of more than 2^29 elements.
    """
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise HwsimError(f"cannot multiply {a.shape} with {b.shape}")
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise HwsimError(f"cannot multiply {a.shape} with {b.shape}") from None
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    bounded((*batch, m, n))
    if not arithmetic.profile:
        return np.asarray(a.astype(arithmetic.dtype, copy=False) @ b.astype(arithmetic.dtype, copy=False))
    if 0 in (*batch, m, k, n):
        return np.zeros((*batch, m, n), np.float32)
    if arithmetic.block and b.ndim == 2:
        return _blocks(a.reshape(-1, k), b, arithmetic).reshape(*batch, m, n)
    if b.ndim == 2:
        return _sum(Operand(a.reshape(-1, k), arithmetic, 0), Operand(b, arithmetic, 1), arithmetic).reshape(
            *batch, m, n
        )
    left = np.broadcast_to(a, (*batch, m, k)).reshape(-1, m, k)
    right = np.broadcast_to(b, (*batch, k, n)).reshape(-1, k, n)
    x, y = Operand(left, arithmetic, 0), Operand(right, arithmetic, 1)
    parts = [_sum(x.of(x.bits[i]), y.of(y.bits[i]), arithmetic) for i in range(len(left))]
    return np.stack(parts).reshape(*batch, m, n)


def _blocks(a: Array, b: Array, arithmetic: Arithmetic) -> Array:
    """A product of block-scaled operands; scales of whole tensors multiply the sums in fp32."""
    from hwsim.arithmetic import gemm
    from hwsim.execution.blocks import blocks_of, values_of

    sides = []
    for values, fmt in zip((a, b.T), arithmetic.inputs, strict=True):
        found = blocks_of(values, fmt, arithmetic.block, arithmetic.scale)
        if arithmetic.tally is not None:
            kept = values_of(found, fmt, arithmetic.block, arithmetic.scale)
            arithmetic.tally.count(values, kept, fmt, saturate=False)
        sides.append(found)
    x, y = sides
    named = "nvfp4" if arithmetic.scale == "ue4m3" else ""
    pair = (named, named) if named else arithmetic.inputs
    total = gemm(
        x.bits, np.ascontiguousarray(y.bits.T), None, profile=arithmetic.profile, input=pair, output="fp32", scale_a=x.scales,
        scale_b=np.ascontiguousarray(y.scales.T),
    )  # fmt: skip
    values = np.asarray(total).view(np.float32)
    return (values * np.float32(x.factor * y.factor)).astype(np.float32)


class Operand:
    """A matrix operand as bit patterns of its format, and the factor its values were divided by."""

    def __init__(self, values: Array, arithmetic: Arithmetic, side: int) -> None:
        fmt = arithmetic.inputs[side]
        self.factor = 1.0
        if arithmetic.scaled:
            peak = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
            # a power of two: exact, so that only the format's own rounding is seen
            self.factor = 2.0 ** math.ceil(math.log2(peak / _largest(fmt))) if peak > 0 else 1.0
            values = values / values.dtype.type(self.factor)
        self.bits = _encode(values, fmt, arithmetic.scaled)
        if arithmetic.tally is not None:
            from hwsim.arithmetic.formats import decode

            arithmetic.tally.count(values, decode(self.bits, fmt), fmt, arithmetic.scaled)

    def of(self, bits: Array) -> Operand:
        """Other bits (a part, a rearrangement) under the same factor."""
        part = object.__new__(Operand)
        part.bits, part.factor = bits, self.factor
        return part


def _largest(fmt: str) -> float:
    from hwsim.arithmetic.formats import decode, largest_finite

    return float(decode(np.array([largest_finite(fmt)]), fmt)[0])


def _encode(values: Array, fmt: str, saturate: bool) -> Array:
    if fmt == "fp32":
        return np.ascontiguousarray(values, np.float32).view(np.uint32)
    if fmt == "bf16" and values.dtype == np.float32:
        return (rounded(values, "bf16").view(np.uint32) >> 16).astype(np.uint16)
    if fmt == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    from hwsim.arithmetic.formats import encode

    return encode(values, fmt, overflow="saturate" if saturate else None)


def _sum(a: Operand, b: Operand, arithmetic: Arithmetic, chains: list[tuple[int, int]] | None = None) -> Array:
    """One product (m, k) x (k, n), k walked in ``chains``, the result in float32."""
    from hwsim.arithmetic import gemm

    x, y = a.bits, b.bits
    k = x.shape[1]
    more: dict[str, Any] = {}
    if arithmetic.rows:
        if chains is None and covers(arithmetic.order, k) and not regular(arithmetic.order, arithmetic.rows):
            chains = list(arithmetic.order)
        if chains is None:
            # several passes stay inside a tile; with one pass gemm itself closes a chain every ``rows``
            step = arithmetic.rows if arithmetic.passes > 1 else k
            chains = [(i, min(i + step, k)) for i in range(0, k, step)]
        more = {"passes": arithmetic.passes, "tile_k": arithmetic.rows}
    total: Array | None = None
    for start, stop in chains or [(0, k)]:
        total = gemm(
            x[:, start:stop],
            y[start:stop],
            total,
            profile=arithmetic.profile,
            input=arithmetic.inputs,
            output="fp32",
            **more,
        )
    assert total is not None
    values = np.asarray(total).view(np.float32)
    if arithmetic.audit is not None:
        arithmetic.audit(x, y, chains or [(0, k)], values)
    factor = a.factor * b.factor
    return values if factor == 1.0 else (values * np.float32(factor)).astype(np.float32)


# -- convolution ----------------------------------------------------------------------------------------------------


def convolve(x: Array, weight: Array, geometry: ConvGeometry, groups: int, arithmetic: Arithmetic) -> Array:
    """Convolution of ``x`` (n, c, spatial...) with ``weight`` (features, c / groups, kernel...), without bias."""
    n, features = x.shape[0], weight.shape[0]
    out_spatial, kernel = geometry.out_spatial, geometry.kernel
    taps, channels, per_group = math.prod(kernel), geometry.in_channels, geometry.out_channels
    pixels = math.prod(out_spatial)
    bounded((n, features, *out_spatial))
    scale = Operand(x, arithmetic, 0) if arithmetic.profile else None
    values = scale.bits if scale is not None else x.astype(arithmetic.dtype, copy=False)
    flat = np.moveaxis(weight, 1, -1).reshape(groups, per_group, taps * channels)  # taps outside, channels inside
    out = np.empty((n, pixels, features), np.float32 if arithmetic.profile else arithmetic.dtype)
    right = Operand(flat, arithmetic, 1) if arithmetic.profile else None
    together = max(1, PATCH_ELEMENTS // max(1, pixels * taps * channels * groups))
    plan = _plan(geometry, groups, arithmetic)
    for first in range(0, n, together):
        part = values[first : first + together]
        patches = unfold(part, geometry)  # (images, pixels, taps, c)
        rows = patches.reshape(len(part) * pixels, taps, groups, channels)
        made = _grouped(rows, flat, scale, right, arithmetic, plan)
        out[first : first + together] = made.reshape(len(part), pixels, features)
    return np.moveaxis(out, 2, 1).reshape(n, features, *out_spatial)


def _plan(geometry: ConvGeometry, groups: int, arithmetic: Arithmetic) -> FoldPlan:
    k = math.prod(geometry.kernel) * geometry.in_channels
    product_ = Product("conv", groups, 1, geometry.out_channels, k, 0, 0, 0, conv=geometry)
    if arithmetic.rows:
        return fold_plan(product_, arithmetic.rows, arithmetic.cols, arithmetic.pack_taps)
    return FoldPlan(groups, 1, geometry.out_channels, 1, k)


def covers(order: tuple[tuple[int, int], ...], k: int) -> bool:
    """Whether ``order`` is of a product whose reduction has length ``k``."""
    return bool(order) and max(end for _, end in order) == k


def regular(order: tuple[tuple[int, int], ...], rows: int) -> bool:
    """Whether ``order`` is k from beginning to end in whole chains, as one call of `gemm` walks it."""
    return all(begin == i * rows for i, (begin, _) in enumerate(order))


def chains_of(plan: FoldPlan, rows: int) -> list[tuple[int, int]]:
    """Begin and end of every chain along a packed product's k: each tap's (or tap row's) elements in steps of ``rows``."""
    starts = [
        (t * plan.k + i, t * plan.k + min(i + rows, plan.k)) for t in range(plan.taps) for i in range(0, plan.k, rows)
    ]
    return starts


def _grouped(
    rows: Array, flat: Array, x: Operand | None, right: Operand | None, arithmetic: Arithmetic, plan: FoldPlan
) -> Array:
    """Products of unfolded ``rows`` (m, taps, groups, channels) with every group's filters: (m, features)."""
    m, taps, groups, channels = rows.shape
    width = flat.shape[1]
    if x is None or right is None:
        if groups == 1:
            return np.asarray(rows.reshape(m, -1) @ flat[0].T.astype(rows.dtype))
        wide = flat.astype(rows.dtype).reshape(groups, width, taps, channels)
        if channels == 1:
            return np.asarray(np.einsum("mtg,gft->mgf", rows[..., 0], wide[..., 0])).reshape(m, -1)
        return np.asarray(np.einsum("mtgc,gftc->mgf", rows, wide, optimize=True)).reshape(m, -1)
    chains = chains_of(plan, arithmetic.rows) if arithmetic.rows else None
    if chains is not None and covers(arithmetic.order, plan.taps * plan.k):
        chains = list(arithmetic.order)
    out = np.empty((m, groups * width), np.float32)
    step = plan.per_group
    for g in range(0, groups, step):
        size = min(step, groups - g)
        block = rows[:, :, g : g + size]
        if size == 1:
            left, matrix = block.reshape(m, -1), right.bits[g].T
        else:
            left, matrix = _packed(block, right.bits[g : g + size], plan)
        out[:, g * width : (g + size) * width] = _sum(x.of(left), right.of(matrix), arithmetic, chains)
    return out


def _packed(block: Array, filters: Array, plan: FoldPlan) -> tuple[Array, Array]:
    """Groups side by side on one array, block-diagonal; per fold the rows of one group lie together.

    A last pack with fewer groups is filled with zero rows, which add exact zeros.
    """
    m, _, size, channels = block.shape
    alone = plan.k // plan.per_group  # k of one group in one fold
    inside = alone // channels  # taps that share a fold
    width = filters.shape[1]
    left = np.zeros((m, plan.taps, plan.per_group, alone), block.dtype)
    left[:, :, :size] = (
        block.reshape(m, plan.taps, inside, size, channels).transpose(0, 1, 3, 2, 4).reshape(m, plan.taps, size, alone)
    )
    right = np.zeros((plan.taps, plan.per_group, alone, size, width), filters.dtype)
    for i in range(size):
        right[:, i, :, i] = filters[i].reshape(width, plan.taps, alone).transpose(1, 2, 0)
    return left.reshape(m, -1), right.reshape(plan.taps * plan.k, size * width)


def unfold(x: Array, geometry: ConvGeometry, fill: Any = 0) -> Array:
    """Windows of ``x`` (n, c, spatial...): (n, output pixels, taps, c), ``fill`` outside the input."""
    rank = len(geometry.kernel)
    before, after = geometry.padding[:rank], geometry.padding[rank:]
    moved = np.moveaxis(x, 1, -1)
    low = [max(0, p) for p in before]
    need = [
        (geometry.out_spatial[i] - 1) * geometry.stride[i] + geometry.dilation[i] * (geometry.kernel[i] - 1) + 1
        for i in range(rank)
    ]
    high = [max(0, need[i] - low[i] - geometry.in_spatial[i], after[i]) for i in range(rank)]
    bounded((x.shape[0], *(s + a + b for s, a, b in zip(geometry.in_spatial, low, high, strict=True)), x.shape[1]))
    padded = np.pad(moved, ((0, 0), *zip(low, high, strict=True), (0, 0)), constant_values=fill)
    crop = tuple(slice(max(0, -p), None) for p in before)
    padded = padded[(slice(None), *crop)]
    bounded((x.shape[0], *geometry.out_spatial, *geometry.kernel, x.shape[1]))
    n, c, strides = x.shape[0], x.shape[1], padded.strides
    view = np.lib.stride_tricks.as_strided(
        padded,
        (n, *geometry.out_spatial, *geometry.kernel, c),
        (
            strides[0],
            *(strides[1 + i] * geometry.stride[i] for i in range(rank)),
            *(strides[1 + i] * geometry.dilation[i] for i in range(rank)),
            strides[-1],
        ),
        writeable=False,
    )
    return view.reshape(n, math.prod(geometry.out_spatial), math.prod(geometry.kernel), c)


def transposed(x: Array, weight: Array, geometry: ConvGeometry, groups: int, arithmetic: Arithmetic) -> Array:
    """Transposed convolution; ``weight`` (c, features / groups, kernel...): every pixel times the kernel, then added up.

    The products run as the machine's; the overlapping results are added in fp32 in the order of the taps.
    """
    n, c, spatial = x.shape[0], x.shape[1], geometry.in_spatial
    kernel, rank = geometry.kernel, len(geometry.kernel)
    per = geometry.out_channels
    taps = math.prod(kernel)
    full = [(spatial[i] - 1) * geometry.stride[i] + geometry.dilation[i] * (kernel[i] - 1) + 1 for i in range(rank)]
    grown = [max(full[i], geometry.padding[i] + geometry.out_spatial[i]) for i in range(rank)]
    bounded((n, groups * per, *grown))
    bounded((n * math.prod(spatial), groups * per * taps))
    rows = np.moveaxis(x, 1, -1).reshape(-1, groups, c // groups)
    flat = weight.reshape(groups, c // groups, per * taps)
    parts = [product(rows[:, g], flat[g], arithmetic) for g in range(groups)]
    made = np.stack(parts, axis=1).reshape(n, *spatial, groups * per, *kernel)
    out = np.zeros((n, groups * per, *grown), made.dtype)
    for tap in np.ndindex(*kernel):
        at = tuple(
            slice(tap[i] * geometry.dilation[i], tap[i] * geometry.dilation[i] + (spatial[i] - 1) * geometry.stride[i] + 1,
                  geometry.stride[i])
            for i in range(rank)
        )  # fmt: skip
        out[(slice(None), slice(None), *at)] += np.moveaxis(made[(..., *tap)], -1, 1)
    crop = tuple(slice(geometry.padding[i], geometry.padding[i] + geometry.out_spatial[i]) for i in range(rank))
    return np.ascontiguousarray(out[(slice(None), slice(None), *crop)])


def bounded(shape: tuple[int, ...]) -> None:
    """Raise HwsimError for a tensor too large to hold."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise HwsimError(f"a tensor of {'x'.join(map(str, shape))} is too large to execute (limit 2^29 elements)")


def check_format(fmt: str) -> str:
    """Canonical name of a number format."""
    return get_format(fmt).name
