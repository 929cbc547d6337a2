"""Floating-point products in Tensor Core order: operands decoded once, then tiles of the result chained through k."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic import gemm_kernels as kernels
from hwsim.arithmetic.engine import Operand, add_terms, add_to_nearest, operand
from hwsim.arithmetic.fused import chain
from hwsim.arithmetic.profiles import Rule
from hwsim.arithmetic.threads import over_tiles
from hwsim.formats import get_format

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class Matrix(NamedTuple):
    """A decoded operand: values (float64), int16 exponents (`ZERO_EXPONENT` for zeros)."""

    value: Floats
    exponent: npt.NDArray[np.int16]

    def take(self, at: Any) -> Matrix:
        return Matrix(self.value[at], self.exponent[at])


def matrix(bits: Array, fmt: str) -> Matrix:
    """Decode bit patterns."""
    found = operand(bits, fmt)
    return Matrix(found.value, _exponents(found))


def scaled(m: Matrix, scales: Array, fmt: str) -> Matrix:
    """The operand with block scales (one per element, repeated by the caller) multiplied in."""
    by = operand(scales, fmt)
    with np.errstate(invalid="ignore"):
        return Matrix(m.value * by.value, np.where(m.value == 0, m.exponent, m.exponent + by.exponent).astype(np.int16))


def aligned_chain(
    a: Matrix, b: Matrix, index: npt.NDArray[np.int64], c: Floats, c_format: str, rule: Rule, engine: str, threads: int
) -> Floats:
    """Chain all of k through ``c`` (m, n): a (m, k), b (rows, n), ``index`` (1 or m, k) the row of b each element meets."""
    special = not (np.isfinite(a.value).all() and np.isfinite(b.value).all() and np.isfinite(c).all())
    if not special:
        return _finite_chain(a, b, index, c, c_format, rule, engine, threads)
    # Infinities and NaNs are sticky and leave no bits: where no finite sum overflowed, only their kinds matter.
    kinds = _special_kinds(a, b, index, c)
    quiet_a, quiet_b = _without_specials(a), _without_specials(b)
    quiet_c = np.where(np.isfinite(c), c, 0.0)
    out = _finite_chain(quiet_a, quiet_b, index, quiet_c, c_format, rule, engine, threads)
    again = (kinds != 0) & np.isinf(out)
    out = np.where(kinds == 0, out, np.where(kinds == 1, np.inf, np.where(kinds == 2, -np.inf, np.nan)))
    for i in np.flatnonzero(again.any(axis=1)):
        at = np.flatnonzero(again[i])
        rows = index[i if len(index) > 1 else 0]
        picked = b.take((rows[:, None], at[None, :]))
        out[i, at] = chain(
            _plain(a.take(i)), Operand(picked.value.T, picked.exponent.T.astype(np.int64)), c[i, at], c_format, rule
        )
    return out


def promoted_chain(
    a: Matrix,
    b: Matrix,
    index: npt.NDArray[np.int64],
    c: Floats,
    c_format: str,
    rule: Rule,
    engine: str,
    threads: int,
    promote: int,
) -> Floats:
    """Chains of ``promote`` products from zero, each added to the running sum to nearest in the output's format."""
    for k in range(0, a.value.shape[1], promote):
        at = (slice(None), slice(k, k + promote))
        part = aligned_chain(a.take(at), b, index[at], np.zeros_like(c), rule.output, rule, engine, threads)
        c = add_to_nearest(part, c, rule.output)
    return c


def grouped_chain(a: Matrix, b: Matrix, scale_a: Array, scale_b: Array, c: Floats, scale: str, rule: Rule) -> Floats:
    """4-bit block scales: scale_a (m, k / 16), scale_b (k / 16, n) codes; four groups of 16 and ``c`` per instruction."""
    by_a, by_b = operand(scale_a, scale), operand(scale_b, scale)
    for k in range(0, a.value.shape[1], 64):
        terms, exponents = [], []
        for g in range(k // 16, k // 16 + 4):
            x, y = a.value[:, g * 16 : g * 16 + 16], b.value[g * 16 : g * 16 + 16]
            with np.errstate(invalid="ignore"):
                factor = by_a.value[:, g, None] * by_b.value[g]
                empty = ((x != 0).astype(np.float32) @ (y != 0).astype(np.float32) == 0) | (factor == 0)
                terms.append((x @ y) * factor)  # halves up to 576: exact in any order
            exponents.append(np.where(empty, rule.e_zero, by_a.exponent[:, g, None] + by_b.exponent[g]))
        term, exponent = np.stack(terms, axis=-1), np.stack(exponents, axis=-1)
        with np.errstate(invalid="ignore"):
            plain = term.sum(axis=-1) + c
            special = ~(np.isfinite(term).all(axis=-1) & np.isfinite(c))
            c = np.where(special, plain, add_terms(term, exponent, c, "fp32", rule))
    return c


def _finite_chain(
    a: Matrix, b: Matrix, index: npt.NDArray[np.int64], c: Floats, c_format: str, rule: Rule, engine: str, threads: int
) -> Floats:
    out = np.array(c, np.float64, order="C")
    if engine == "numpy":
        return _plain_chain(a, b, index, out, c_format, rule)
    if len(index) == 1 and kernels.narrow(*out.shape):  # a dot product is the same from either side
        flipped = Matrix(b.value[index[0]].T, b.exponent[index[0]].T), Matrix(a.value.T, a.exponent.T)
        order = np.arange(a.value.shape[1])[None]
        return _finite_chain(*flipped, order, out.T, c_format, rule, engine, threads).T
    smallest, largest, least = _product_range(a, b)
    kind = np.float32 if smallest >= 2.0**-96 and largest < 2.0**126 else np.float64
    fmt = get_format(rule.output)
    parameters = (
        rule.block_products,
        rule.fraction_bits,
        rule.e_zero,
        14 if rule.rounding == "rz13" else fmt.precision,
        1 - fmt.bias,
        1 - get_format(c_format).bias,
        fmt.bias,
        rule.rounding == "rne",
        bool(least < rule.e_zero),
    )
    av, bv = np.ascontiguousarray(a.value, kind), np.ascontiguousarray(b.value, kind)
    ae, be = np.ascontiguousarray(a.exponent), np.ascontiguousarray(b.exponent)
    rows_of_b = np.ascontiguousarray(index, np.int64)
    tile = _kernel()
    depth = (0, av.shape[1])

    def work(rows: tuple[int, int], cols: tuple[int, int]) -> None:
        tile(av, ae, bv, be, rows_of_b, out, rows, cols, depth, parameters)

    over_tiles(work, (out.shape[0], out.shape[1]), kernels.WIDTH, threads)
    return out


def _plain_chain(a: Matrix, b: Matrix, index: npt.NDArray[np.int64], c: Floats, c_format: str, rule: Rule) -> Floats:
    """The same through the array engine, some rows at a time: no compiler needed."""
    m, k = a.value.shape
    step = max(1, 2**22 // max(1, k * c.shape[1]))
    for i in range(0, m, step):
        x = _plain(a.take((slice(i, i + step), None)))
        if len(index) == 1:
            picked = b.take(index[0])
            y = Operand(picked.value.T[None], picked.exponent.T[None].astype(np.int64))
        else:
            picked = b.take(index[i : i + step])  # (rows, k, n)
            y = Operand(picked.value.swapaxes(1, 2), picked.exponent.swapaxes(1, 2).astype(np.int64))
        c[i : i + step] = chain(x, y, c[i : i + step], c_format, rule)
    return c


def _product_range(a: Matrix, b: Matrix) -> tuple[float, float, int]:
    """Smallest and largest non-zero magnitude that a product can have, and its least exponent."""
    x, y = np.abs(a.value), np.abs(b.value)
    if not (x.any() and y.any()):
        return 1.0, 1.0, 0
    smallest = float(x[x > 0].min()) * float(y[y > 0].min())
    return smallest, float(x.max()) * float(y.max()), _least(a) + _least(b)


def _least(m: Matrix) -> int:
    return int(m.exponent[m.value != 0].min())


def _special_kinds(a: Matrix, b: Matrix, index: npt.NDArray[np.int64], c: Floats) -> npt.NDArray[np.int64]:
    """Per result: 0 finite, 1 infinite, 2 minus infinite, 3 NaN, were every finite sum finite."""
    rows, width = b.value.shape

    def count(of_a: Callable[[Floats], Array], of_b: Callable[[Floats], Array]) -> Array:
        chosen = of_a(a.value).astype(np.float32)
        spread = np.zeros((len(chosen), rows), np.float32)
        at = np.broadcast_to(index, chosen.shape)
        np.put_along_axis(spread, at, chosen, axis=1)
        found: Array = (spread @ of_b(b.value).astype(np.float32)) > 0
        return found

    def positive(v: Floats) -> Array:
        return np.asarray((v > 0) & ~np.isnan(v))

    def negative(v: Floats) -> Array:
        return np.asarray((v < 0) & ~np.isnan(v))

    def zero(v: Floats) -> Array:
        return np.asarray(v == 0)

    def plus(v: Floats) -> Array:
        return np.asarray(np.isposinf(v))

    def minus(v: Floats) -> Array:
        return np.asarray(np.isneginf(v))

    def nothing(v: Floats) -> Array:
        return np.ones(v.shape, bool)

    def infinite(v: Floats) -> Array:
        return np.asarray(np.isinf(v))

    up = count(plus, positive) | count(minus, negative) | count(positive, plus) | count(negative, minus) | plus(c)
    down = count(plus, negative) | count(minus, positive) | count(positive, minus) | count(negative, plus) | minus(c)
    broken = count(np.isnan, nothing) | count(nothing, np.isnan) | count(infinite, zero) | count(zero, infinite)
    broken |= np.isnan(c) | (up & down)
    assert broken.shape == (len(a.value), width)
    return np.where(broken, 3, np.where(up, 1, np.where(down, 2, 0)))


def _without_specials(m: Matrix) -> Matrix:
    finite = np.isfinite(m.value)
    return Matrix(np.where(finite, m.value, 0.0), np.where(finite, m.exponent, kernels.ZERO_EXPONENT).astype(np.int16))


def _plain(m: Matrix) -> Operand:
    return Operand(m.value, m.exponent.astype(np.int64))


def _exponents(found: Operand) -> npt.NDArray[np.int16]:
    return np.where(found.value == 0, kernels.ZERO_EXPONENT, found.exponent).astype(np.int16)


@cache
def _kernel() -> Callable[..., None]:
    return kernels.compiled("aligned_tile")
