"""Inner loops of whole products, in numba's subset: a tile of rows and columns through a range of k.

Loops run along the columns so that they vectorise; the arithmetic is that of `hwsim.arithmetic.engine`, whose argument
for exactness holds here too. ``single`` products (float32) are exact when no product leaves the normal range, which the
caller checks; alignment multiplies by a power of two and truncates by conversion to int32. Sixteen aligned products stay
below 2^31 (3.996 · 2^25 · 16), so sums of up to sixteen are int32 and pass into float64, exact to 2^53.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[Any]
ZERO_EXPONENT = -8192  # of a zero operand: no product with it can be taken for one without
WIDTH = 256  # columns of a tile: its scratch stays in the first-level cache


def narrow(rows: int, columns: int) -> bool:
    """Whether a product is better computed transposed: its rows would be too short for loops along them."""
    return columns < 128 and columns < rows


def aligned_tile(
    av: Plane,
    ae: Plane,
    bv: Plane,
    be: Plane,
    index: Plane,
    c: Plane,
    rows: tuple[int, int],
    cols: tuple[int, int],
    depth: tuple[int, int],
    rule: tuple[int, int, int, int, int, int, int, bool, bool],
) -> None:
    """Chain blocks of products into ``c`` (rows, columns; float64, updated in place).

    av, ae (m, k) and bv, be (k, n): values (float32 or float64) and int16 exponents; ``index``
    (1 or m, k): the row of b that each element of a meets. ``rule``: products per block, fraction bits, e_zero, output
    precision, least exponent of the output and of the first c, output bias, round to nearest, zeros matter.
    """
    length, fraction, e_zero, precision, least, c_least, bias, nearest, zeros_matter = rule
    j0, j1 = cols
    n = j1 - j0
    largest = np.zeros(WIDTH, np.int16)
    smallest = np.zeros(WIDTH, np.int16)
    power = np.zeros(WIDTH, np.int64)
    scale = np.zeros(WIDTH, np.float64)
    narrow_scale = np.zeros(WIDTH, av.dtype)
    total = np.zeros(WIDTH, np.float64)
    sums = np.zeros(WIDTH, np.int32)
    value = np.zeros(WIDTH, np.float64)
    scale_bits, value_bits = scale.view(np.int64), value.view(np.int64)
    drop = 53 - precision
    keep = ~((np.int64(1) << drop) - 1)
    half = (np.int64(1) << (drop - 1)) - 1
    tiny, huge = 2.0**least, 2.0 ** (bias + 1)
    up, down = 2.0 ** (precision - 1 - least), 2.0 ** (least - precision + 1)
    magic = 6755399441055744.0  # 1.5 · 2^52: adding and taking it away rounds to an integer, ties to even
    # One extra exponent bit of room: the factor for products must itself be finite in their type.
    least_power = np.int64(fraction - 126) if av.itemsize == 4 else np.int64(-900)
    for k0 in range(depth[0], depth[1], length):
        k1 = min(k0 + length, depth[1])
        for i in range(rows[0], rows[1]):
            r = i if index.shape[0] > 1 else 0
            carried = c[i, j0:j1]
            for j in range(n):
                value[j] = carried[j]
            for j in range(n):
                e = ((value_bits[j] >> 52) & 2047) - 1023
                e = max(e, c_least)
                largest[j] = e_zero if value[j] == 0.0 else e
            for k in range(k0, k1):
                e16, b_e = ae[i, k], be[index[r, k], j0:j1]
                for j in range(n):
                    e2 = np.int16(e16 + b_e[j])
                    largest[j] = max(largest[j], e2)
            if zeros_matter:
                for j in range(n):
                    smallest[j] = 0
                for k in range(k0, k1):
                    e16, b_e = ae[i, k], be[index[r, k], j0:j1]
                    for j in range(n):
                        e2 = np.int16(e16 + b_e[j])
                        smallest[j] = min(smallest[j], e2)
                for j in range(n):
                    if smallest[j] < -4096 and largest[j] < e_zero:
                        largest[j] = e_zero
            for j in range(n):
                power[j] = largest[j]
            for j in range(n):
                scale_bits[j] = (fraction - max(power[j], least_power) + 1023) << 52
            for j in range(n):
                narrow_scale[j] = scale[j]
            for j in range(n):
                scale_bits[j] = (fraction - power[j] + 1023) << 52
            for j in range(n):
                total[j] = np.float64(np.int32(value[j] * scale[j]))
            for k in range(k0, k1, 16):
                for j in range(n):
                    sums[j] = 0
                last = min(k + 16, k1)
                kk = k
                while kk + 4 <= last:
                    a0, a1, a2, a3 = av[i, kk], av[i, kk + 1], av[i, kk + 2], av[i, kk + 3]
                    b0, b1 = bv[index[r, kk], j0:j1], bv[index[r, kk + 1], j0:j1]
                    b2, b3 = bv[index[r, kk + 2], j0:j1], bv[index[r, kk + 3], j0:j1]
                    for j in range(n):
                        s = narrow_scale[j]
                        t = np.int32(a0 * b0[j] * s) + np.int32(a1 * b1[j] * s)
                        t += np.int32(a2 * b2[j] * s) + np.int32(a3 * b3[j] * s)
                        sums[j] += np.int32(t)
                    kk += 4
                while kk < last:
                    a0, b0 = av[i, kk], bv[index[r, kk], j0:j1]
                    for j in range(n):
                        sums[j] += np.int32(a0 * b0[j] * narrow_scale[j])
                    kk += 1
                for j in range(n):
                    total[j] += sums[j]
            for j in range(n):
                scale_bits[j] = (power[j] - fraction + 1023) << 52
            for j in range(n):
                value[j] = total[j] * scale[j]
            for j in range(n):
                small = value[j] * up
                scale[j] = (((small + magic) - magic) if nearest else np.float64(np.int32(small))) * down
            if nearest:
                for j in range(n):
                    value_bits[j] = (value_bits[j] + half + ((value_bits[j] >> drop) & 1)) & keep
            else:
                for j in range(n):
                    value_bits[j] = value_bits[j] & keep
            for j in range(n):
                v = value[j]
                v = scale[j] if abs(v) < tiny else v
                v = v * np.inf if abs(v) >= huge else v
                before = carried[j]
                carried[j] = before if abs(before) == np.inf else v + 0.0
        c_least = least


def sequential_tile(a: Plane, b: Plane, c: Plane, rows: tuple[int, int], cols: tuple[int, int], flush: bool) -> None:
    """Add products of ``a`` (m, k) and ``b`` (k, n) to ``c`` (m, n; float32) one after the other, each sum rounded.

    In float32, where products are exact; or in float64, whose sums of a float32 and a bf16 product round innocuously to
    float32 (Figueroa 1995). ``flush``: a subnormal sum becomes zero.
    """
    j0, j1 = cols
    n = j1 - j0
    depth = a.shape[1]
    tiny = np.float32(2.0**-126)
    for k in range(depth):
        b0 = b[k, j0:j1]
        for i in range(rows[0], rows[1]):
            out, a0 = c[i, j0:j1], a[i, k]
            for j in range(n):
                out[j] = np.float32(out[j] + a0 * b0[j])
            if flush:
                for j in range(n):
                    out[j] = out[j] * np.float32(0.0) if abs(out[j]) < tiny else out[j]


def grouped_tile(a: Plane, b: Plane, c: Plane, rows: tuple[int, int], cols: tuple[int, int], flush: bool) -> None:
    """Like `sequential_tile`, but four products (float64) join the sum exactly before one rounding to float32.

    Float64 sums are tried; a column in which one of them was inexact is summed again without loss.
    """
    j0, j1 = cols
    n = j1 - j0
    depth = a.shape[1]
    tiny = np.float32(2.0**-126)
    lost = np.zeros(WIDTH, np.float64)
    sums = np.zeros(WIDTH, np.float64)
    terms, partials = np.zeros(5, np.float64), np.zeros(8, np.float64)
    for k in range(0, depth, 4):
        b0, b1, b2, b3 = b[k, j0:j1], b[k + 1, j0:j1], b[k + 2, j0:j1], b[k + 3, j0:j1]
        for i in range(rows[0], rows[1]):
            out = c[i, j0:j1]
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            for j in range(n):
                p0, p1, p2, p3 = a0 * b0[j], a1 * b1[j], a2 * b2[j], a3 * b3[j]
                s = p0 + p1
                w = s - p0
                error = abs((p0 - (s - w)) + (p1 - w))
                t = p2 + p3
                w = t - p2
                error += abs((p2 - (t - w)) + (p3 - w))
                u = s + t
                w = u - s
                error += abs((s - (u - w)) + (t - w))
                before = np.float64(out[j])
                total = u + before
                w = total - u
                error += abs((u - (total - w)) + (before - w))
                lost[j], sums[j] = error, total
            worst = 0.0
            for j in range(n):
                worst = max(worst, lost[j])
            if worst > 0.0:
                for j in range(n):
                    if lost[j] > 0.0 and abs(sums[j]) < np.inf:
                        terms[0], terms[1], terms[2] = np.float64(out[j]), a0 * b0[j], a1 * b1[j]
                        terms[3], terms[4] = a2 * b2[j], a3 * b3[j]
                        sums[j] = sum_to_odd(terms, partials)
            for j in range(n):
                out[j] = np.float32(sums[j])
            if flush:
                for j in range(n):
                    out[j] = out[j] * np.float32(0.0) if abs(out[j]) < tiny else out[j]


def sum_to_odd(terms: Plane, partials: Plane) -> float:
    """Exact sum of finite ``terms`` rounded to odd in float64, so that rounding it again to float32 rounds the sum once.

    The sum is kept as doubles that do not overlap (Shewchuk 1997, grow-expansion); ``partials`` is scratch.
    """
    used = 0
    for t in range(len(terms)):
        x = terms[t]
        kept = 0
        for p in range(used):
            y = partials[p]
            high = x + y
            w = high - x
            low = (x - (high - w)) + (y - w)
            if low != 0.0:
                partials[kept] = low
                kept += 1
            x = high
        partials[kept] = x
        used = kept + 1
    total, rest = partials[used - 1], 0.0
    for p in range(used - 2, -1, -1):
        y = partials[p]
        high = total + y
        rest = y - (high - total)
        total = high
        if rest != 0.0:
            break
    if rest != 0.0:
        mantissa = abs(total)
        while mantissa != np.floor(mantissa) or mantissa >= 9007199254740992.0:
            mantissa = mantissa * 0.5 if mantissa >= 9007199254740992.0 else mantissa * 2.0
        while mantissa < 4503599627370496.0:
            mantissa *= 2.0
        if mantissa % 2.0 == 0.0:
            total = np.nextafter(total, np.inf if rest > 0.0 else -np.inf)
    return float(total)


@cache
def compiled(name: str) -> Callable[..., None]:
    """One of the tiles above compiled; machine code is kept on disk."""
    from numba.extending import register_jitable

    if name == "fma_tile":
        return _compiled_fma()
    if name == "grouped_tile":
        register_jitable(sum_to_odd)
    return _jit(globals()[name])


def _jit(function: Callable[..., None]) -> Callable[..., None]:
    import numba

    try:
        kernel: Callable[..., None] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # nowhere to write
        kernel = numba.njit(nogil=True)(function)
    return kernel


def _compiled_fma() -> Callable[..., None]:
    from numba.core import types
    from numba.extending import intrinsic

    @intrinsic
    def multiply_add(context: Any, x: Any, y: Any, z: Any) -> Any:
        signature = types.float64(types.float64, types.float64, types.float64)

        def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
            return builder.fma(*arguments)  # LLVM calls the C library's where the machine has no such instruction

        return signature, generate

    fused: Any = multiply_add

    def tile(a: Plane, b: Plane, c: Plane, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        for i in range(rows[0], rows[1]):
            out = c[i, cols[0] : cols[1]]
            for k in range(a.shape[1]):
                a0, row = a[i, k], b[k, cols[0] : cols[1]]
                for j in range(len(out)):
                    out[j] = fused(a0, row[j], out[j])

    return _jit(tile)
