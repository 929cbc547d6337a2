"""Pooling and spatial interpolation on (n, c, spatial...) arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution.products import bounded, unfold
from hwsim.network.opdefs import ConvGeometry

Array = npt.NDArray[Any]


def geometry(
    x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    out: Sequence[int],
) -> ConvGeometry:  # fmt: skip
    """Window geometry of ``x`` (n, c, spatial...) with output extents ``out``."""
    c = x.shape[1]
    return ConvGeometry(
        tuple(kernel), tuple(stride), tuple(dilation), tuple(padding), tuple(x.shape[2:]), tuple(out), c, c, x.shape[0]
    )


def max_pool(x: Array, windows: ConvGeometry) -> Array:
    """Maximum of each window; padding never wins."""
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    made = unfold(x, windows, low).max(axis=2)
    return np.ascontiguousarray(np.moveaxis(made, -1, 1).reshape(x.shape[0], x.shape[1], *windows.out_spatial))


def counts(windows: ConvGeometry, include_padding: bool) -> Array:
    """How many cells each window averages over: (pixels, 1); cells beyond the stated padding never count."""
    rank = len(windows.kernel)
    per_axis = []
    for i in range(rank):
        size = windows.in_spatial[i]
        low, high = (-windows.padding[i], size + windows.padding[rank + i]) if include_padding else (0, size)
        starts = np.arange(windows.out_spatial[i]) * windows.stride[i] - windows.padding[i]
        cells = starts[:, None] + np.arange(windows.kernel[i]) * windows.dilation[i]
        per_axis.append(((cells >= low) & (cells < high)).sum(axis=1))
    total = per_axis[0]
    for other in per_axis[1:]:
        total = np.multiply.outer(total, other)
    return np.asarray(total).reshape(-1, 1)


def avg_pool(x: Array, windows: ConvGeometry, include_padding: bool) -> Array:
    """Mean of each window."""
    total = unfold(x, windows).sum(axis=2, dtype=x.dtype)
    made = total / np.maximum(counts(windows, include_padding), 1).astype(x.dtype)
    return np.ascontiguousarray(np.moveaxis(made, -1, 1).reshape(x.shape[0], x.shape[1], *windows.out_spatial))


def adaptive(x: Array, size: Sequence[int], reduce: Any) -> Array:
    """``reduce`` over windows floor(i h / o) … ceil((i + 1) h / o) that tile the input."""
    out = np.empty((*x.shape[:2], *size), x.dtype)
    if math.prod(size) > 1 << 16:
        raise HwsimError(f"adaptive pooling to {'x'.join(map(str, size))} has too many windows")
    for at in np.ndindex(*size):
        window = tuple(slice(i * h // o, -(-(i + 1) * h // o)) for i, h, o in zip(at, x.shape[2:], size, strict=True))
        out[(..., *at)] = reduce(x[(slice(None), slice(None), *window)], axis=tuple(range(2, x.ndim)))
    return out


def coordinates(
    size: int, out: int, mode: str, scale: float | None = None, roi: tuple[float, float] = (0.0, 1.0)
) -> npt.NDArray[np.float64]:
    """Input coordinate of every output sample along one axis (ONNX Resize coordinate_transformation_mode)."""
    x = np.arange(out, dtype=np.float64)
    ratio = scale if scale is not None else out / size
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and out > 1):
        return (x + 0.5) / ratio - 0.5
    if mode == "half_pixel_symmetric":
        shift = size / 2 * (1 - out / (ratio * size))
        return shift + (x + 0.5) / ratio - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(out)
    if mode == "align_corners":
        return x * (size - 1) / (out - 1) if out > 1 else np.zeros(out)
    if mode == "asymmetric":
        return x / ratio
    if mode == "tf_half_pixel_for_nn":
        return (x + 0.5) / ratio
    if mode == "tf_crop_and_resize":
        if out > 1:
            return roi[0] * (size - 1) + x * (roi[1] - roi[0]) * (size - 1) / (out - 1)
        return np.full(1, 0.5 * (roi[0] + roi[1]) * (size - 1))
    raise HwsimError(f"coordinate transformation {mode[:40]!r} is not known")


def resize_axis(
    x: Array, axis: int, at: npt.NDArray[np.float64], mode: str, cubic: float = -0.75, nearest: str = ""
) -> Array:
    """``x`` sampled along ``axis`` at ``at``: mode nearest, linear (bilinear) or cubic (bicubic), edges repeated."""
    size = x.shape[axis]
    shape = [1] * x.ndim
    shape[axis] = -1
    if mode == "nearest":
        roundings: dict[str, Callable[[Array], Array]] = {
            "floor": np.floor, "ceil": np.ceil, "round_prefer_ceil": lambda v: np.asarray(np.floor(v + 0.5)),
            "round_prefer_floor": lambda v: np.asarray(np.ceil(v - 0.5)),
        }  # fmt: skip
        rounding = roundings.get(nearest or "round_prefer_floor")
        if rounding is None:
            raise HwsimError(f"nearest mode {nearest[:40]!r} is not known")
        return np.take(x, np.clip(rounding(at), 0, size - 1).astype(np.int64), axis=axis)
    base = np.floor(at)
    part = (at - base).astype(x.dtype)
    if mode in ("linear", "bilinear"):
        taps: list[tuple[int, Array]] = [(0, 1 - part), (1, part)]
    elif mode in ("cubic", "bicubic"):
        taps = [(o, _cubic(np.abs(part - o), cubic).astype(x.dtype)) for o in (-1, 0, 1, 2)]
    else:
        raise HwsimError(f"interpolation {mode[:40]!r} is not known")
    out: Array | None = None
    for offset, weight in taps:
        cells = np.take(x, np.clip(base + offset, 0, size - 1).astype(np.int64), axis=axis)
        made = cells * weight.reshape(shape)
        out = made if out is None else out + made
    assert out is not None
    return out


def _cubic(d: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (Keys 1981)."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def resize(x: Array, out: Sequence[int], mode: str, transform: str = "half_pixel") -> Array:
    """Spatial axes of (n, c, spatial...) resampled to ``out``."""
    for i, extent in enumerate(out):
        bounded((*x.shape[: 2 + i], extent, *x.shape[3 + i :]))
        if x.shape[2 + i] != extent:
            nearest = "floor" if transform == "asymmetric" else ""
            x = resize_axis(x, 2 + i, coordinates(x.shape[2 + i], extent, transform), mode, nearest=nearest)
    return x


def depth_to_space(x: Array, block: int, *, crd: bool = False) -> Array:
    """Channels to spatial blocks (n, c, h, w), depth-column-row order unless ``crd``."""
    n, c, h, w = x.shape
    if crd:
        parts = x.reshape(n, c // block**2, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = x.reshape(n, block, block, c // block**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def space_to_depth(x: Array, block: int) -> Array:
    """Spatial blocks to channels (n, c, h, w)."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)
