"""Products as a systolic matrix unit (TPU) sums them. A declared model: no recording of these bits is public.

bf16 operands, exact products, partial sums in fp32 to nearest even: one product after the other down a column (before
v4i), or groups of four products that join the partial sum exactly before one rounding (v4i and later; Jouppi et al.,
"Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021, §V). A tile of k starts from zero and its sum is
added to the accumulator in fp32. fp32 operands take 1, 3 or 6 bf16 passes. `hwsim.timing.reference.systolic_rtl` steps
the same machine register by register, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic import gemm_kernels as kernels
from hwsim.arithmetic.formats import decode, encode
from hwsim.arithmetic.threads import over_tiles
from hwsim.errors import HwsimError, near

Floats = npt.NDArray[Any]
Singles = npt.NDArray[np.float32]
PASSES = (1, 3, 6)


class MatrixUnit(NamedTuple):
    """Rows of the array (k per tile), products that join a partial sum at once, operand formats."""

    rows: int
    group: int
    inputs: tuple[str, ...]


UNITS = {
    "tpu-v1": MatrixUnit(256, 1, ("int8", "uint8")),
    "tpu-v2": MatrixUnit(128, 1, ("bf16", "fp32")),
    "tpu-v3": MatrixUnit(128, 1, ("bf16", "fp32")),
    "tpu-v4i": MatrixUnit(128, 4, ("bf16", "fp32", "int8", "uint8")),
    "tpu-v4": MatrixUnit(128, 4, ("bf16", "fp32", "int8", "uint8")),
    "tpu-v5e": MatrixUnit(128, 4, ("bf16", "fp32", "e5m2", "int8", "uint8", "int4")),
    "tpu-v5p": MatrixUnit(128, 4, ("bf16", "fp32", "e5m2", "int8", "uint8", "int4")),
    "tpu-v6e": MatrixUnit(256, 4, ("bf16", "fp32", "e5m2", "int8", "uint8", "int4")),
    "tpu-v7": MatrixUnit(256, 4, ("bf16", "fp32", "e4m3", "e5m2")),
}
"""Sizes and operands: jax 0.10.2 tpu_info.py; groups: Jouppi 2021 for v4i, assumed to hold for what followed."""


def matrix_unit(profile: str) -> MatrixUnit | None:
    """The unit of a TPU profile (``tpu-v3-core`` too), None for other machines; HwsimError for an unknown TPU."""
    name = profile.strip().lower().replace("_", "-")
    if not name.startswith("tpu"):
        return None
    parts = name.split("-")
    for end in range(len(parts), 0, -1):
        unit = UNITS.get("-".join(parts[:end]))
        if unit is not None:
            return unit
    raise HwsimError(f"no matrix unit for profile {profile!r}{near(name, UNITS)}; known: {', '.join(UNITS)}")


def bf16_product(
    a: Floats, b: Floats, c: Singles | None, unit: MatrixUnit, *, flush: bool, engine: str, threads: int
) -> Singles:
    """``a`` (m, k) times ``b`` (k, n), values that bf16 holds, plus ``c`` (fp32, or None for nothing to add)."""
    if flush:
        a, b = _flush(a), _flush(b)
    total: Singles | None = None
    for k in range(0, a.shape[1], unit.rows):
        x, y = a[:, k : k + unit.rows], b[k : k + unit.rows]
        part = _tile(x, y, unit.group, flush, engine, threads)
        if x.shape[1] <= unit.rows - unit.group:  # rows of the array below add +0, which a sum underflowed to -0 shows
            part = part + np.float32(0.0)
        total = part if total is None else _add(total, part, flush)
    assert total is not None
    return total if c is None else _add(c, total, flush)


def fp32_product(
    a: Singles, b: Singles, c: Singles | None, unit: MatrixUnit, passes: int, *, flush: bool, engine: str, threads: int
) -> Singles:
    """fp32 operands split into bf16 parts: 1, 3 or 6 products of parts, the least significant first, added in fp32."""
    if passes not in PASSES:
        raise HwsimError(f"passes is {passes}, expected 1, 3 or 6")
    parts = {1: 1, 3: 2, 6: 3}[passes]
    x, y = _split(a, parts), _split(b, parts)
    pairs = [(i, j) for i in range(parts) for j in range(parts) if i + j < parts]
    for i, j in sorted(pairs, key=lambda pair: (-(pair[0] + pair[1]), -pair[0])):
        part = bf16_product(x[i], y[j], None, unit, flush=flush, engine=engine, threads=threads)
        c = part if c is None else _add(c, part, flush)
    assert c is not None
    return c


def _split(values: Singles, parts: int) -> list[Floats]:
    """bf16 values that sum to ``values`` as closely as ``parts`` of them can: each the nearest to what is left."""
    found, rest = [], values.astype(np.float64)
    for _ in range(parts):
        part = decode(encode(rest, "bf16"), "bf16")
        found.append(part)
        with np.errstate(invalid="ignore"):
            rest = np.where(np.isfinite(part), rest - part, 0.0)
    return found


def _tile(a: Floats, b: Floats, group: int, flush: bool, engine: str, threads: int) -> Singles:
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    spare = -a.shape[1] % group
    if spare:  # rows of the array without a weight add exact zeros
        a, b = np.pad(a, ((0, 0), (0, spare))), np.pad(b, ((0, spare), (0, 0)))
    if engine == "numba" and kernels.narrow(*out.shape):
        return _tile(b.T, a.T, group, flush, engine, threads).T
    kind = np.float32 if group == 1 and _products_fit(a, b) else np.float64
    x, y = np.ascontiguousarray(a, kind), np.ascontiguousarray(b, kind)
    name = "sequential_tile" if group == 1 else "grouped_tile"
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if engine == "numba":
            kernel = _kernel(name)

            def work(rows: tuple[int, int], cols: tuple[int, int]) -> None:
                kernel(x, y, out, rows, cols, flush)

            over_tiles(work, (out.shape[0], out.shape[1]), kernels.WIDTH, threads)
        elif group == 1:
            for k in range(x.shape[1]):
                out = _rounded(out + x[:, k, None] * y[k], flush)
        else:
            for k in range(0, x.shape[1], 4):
                out = _rounded(_sum_of_four(out, x[:, k : k + 4], y[k : k + 4]), flush)
    return out


def _sum_of_four(before: Singles, x: Floats, y: Floats) -> Floats:
    """``before`` plus four products, float64, exact or rounded to odd."""
    total, lost = before.astype(np.float64), np.zeros(before.shape)
    products = [x[:, k, None] * y[k] for k in range(4)]
    for product in products:
        grown = total + product
        part = grown - total
        lost += np.abs((total - (grown - part)) + (product - part))
        total = grown
    scratch = np.zeros(8)
    for i, j in np.argwhere((lost > 0) & np.isfinite(total)):
        terms = np.array([float(before[i, j]), *(float(p[i, j]) for p in products)])
        total[i, j] = kernels.sum_to_odd(terms, scratch)
    return total


def _rounded(total: Floats, flush: bool) -> Singles:
    single = total.astype(np.float32)
    return _flush(single) if flush else single


def _add(x: Singles, y: Singles, flush: bool) -> Singles:
    with np.errstate(invalid="ignore", over="ignore"):
        total = x + y
    return _flush(total) if flush else total


def _flush(x: Floats) -> Floats:
    return np.where(np.abs(x) < 2.0**-126, x * 0, x)


def _products_fit(a: Floats, b: Floats) -> bool:
    """Whether every non-zero product is a normal float32, hence exact there."""
    x, y = np.abs(a), np.abs(b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return False
    if not (x.any() and y.any()):
        return True
    return bool(x.max() * y.max() < 2.0**127 and x[x > 0].min() * y[y > 0].min() >= 2.0**-126)


@cache
def _kernel(name: str) -> Callable[..., None]:
    return kernels.compiled(name)
