"""The slow, obvious Tensor Core: one dot product at a time, on Python integers, a line per sentence of the rules.

It shares the parameter table with the engine and nothing else: its own decoding, alignment, sum and rounding. Every
finite number is an integer times a power of two; specials are the strings "nan", "+inf" and "-inf".
"""

from __future__ import annotations

from fractions import Fraction

from hwsim.arithmetic.profiles import Rule
from hwsim.formats import get_format

Number = tuple[int, int, int] | str  # signed significand, its unit's exponent, exponent of the leading place


def decode_one(code: int, fmt: str) -> Number:
    """A bit pattern as (signed significand, exponent of its last place, exponent of its integer place), or a special."""
    f = get_format(fmt)
    if f.width > f.bits:  # tf32: the low bits of the word are not read
        code >>= f.width - f.bits
    mantissa_bits = f.precision - 1
    stored = (code >> mantissa_bits) & ((1 << f.exponent_bits) - 1)
    fraction = code & ((1 << mantissa_bits) - 1)
    negative = f.signed and (code >> (f.exponent_bits + mantissa_bits)) & 1
    ones = (1 << f.exponent_bits) - 1
    if f.specials == "ieee" and stored == ones:
        return "nan" if fraction else ("-inf" if negative else "+inf")
    if f.specials == "fn" and stored == ones and fraction == (1 << mantissa_bits) - 1:
        return "nan"
    if f.name == "ue8m0":
        significand, place = 1, stored - f.bias
    elif stored == 0:
        significand, place = fraction, 1 - f.bias
    else:
        significand, place = fraction | (1 << mantissa_bits), stored - f.bias
    return (-significand if negative else significand), place - mantissa_bits, place


def truncate(significand: int, last: int, grid: int) -> int:
    """``significand * 2**last`` in units of ``2**grid``, cut toward zero."""
    magnitude = abs(significand)
    magnitude = magnitude << (last - grid) if last >= grid else magnitude >> (grid - last)
    return -magnitude if significand < 0 else magnitude


def round_one(total: int, grid: int, fmt: str, rounding: str) -> int:
    """Bit pattern of ``total * 2**grid``: "rz" or "rz13" toward zero, "rne" to nearest; overflow is infinite."""
    f = get_format(fmt)
    precision = 14 if rounding == "rz13" else f.precision
    sign, magnitude = (1 if total < 0 else 0), abs(total)
    if magnitude == 0:
        return 0
    leading = magnitude.bit_length() - 1 + grid
    unit = max(leading, 1 - f.bias) - (precision - 1)
    if unit <= grid:
        rounded = magnitude << (grid - unit)
    elif rounding == "rne":
        rounded = round(Fraction(magnitude, 1 << (unit - grid)))  # Python rounds halves to even
    else:
        rounded = magnitude >> (unit - grid)
    if rounded == 0:
        return 0
    if rounded.bit_length() + unit > f.bias + 1:
        return ((1 << f.exponent_bits) - 1) << (f.precision - 1) | sign << (f.bits - 1)
    rounded, unit = rounded << (f.precision - precision), unit - (f.precision - precision)
    if rounded.bit_length() > f.precision:
        rounded, unit = rounded >> 1, unit + 1
    stored = unit + f.precision - 1 + f.bias if rounded >> (f.precision - 1) else 0
    return sign << (f.bits - 1) | stored << (f.precision - 1) | rounded & ((1 << (f.precision - 1)) - 1)


def special_of(pairs: list[tuple[Number, Number]], c: Number) -> str | None:
    """What infinities and NaNs make of a block, or None where all is finite."""
    found = {c} if isinstance(c, str) else set()
    for a, b in pairs:
        if isinstance(a, str) or isinstance(b, str):
            zero = (not isinstance(a, str) and a[0] == 0) or (not isinstance(b, str) and b[0] == 0)
            if "nan" in (a, b) or zero:
                found.add("nan")
            else:
                found.add("-inf" if _negative(a) != _negative(b) else "+inf")
    if "nan" in found or len(found) > 1:
        return "nan"
    return found.pop() if found else None


def _negative(x: Number) -> bool:
    return x == "-inf" if isinstance(x, str) else x[0] < 0


def special_bits(special: str, fmt: str) -> int:
    """Canonical NaN or a signed infinity."""
    f = get_format(fmt)
    if special == "nan":
        return (1 << (f.bits - 1)) - 1
    return ((1 << f.exponent_bits) - 1) << (f.precision - 1) | (special == "-inf") << (f.bits - 1)


def block(terms: list[tuple[int, int, int]], c: tuple[int, int, int], rule: Rule) -> int:
    """Terms and c as (significand, last place, exponent), zeros at e_zero: all align to the largest exponent."""
    everything = [*terms, c if c[0] else (0, c[1], rule.e_zero)]
    grid = max(place for _, _, place in everything) - rule.fraction_bits
    total = sum(truncate(s, last, grid) for s, last, _ in everything)
    return round_one(total, grid, rule.output, rule.rounding)


def fused_one(a: list[int], b: list[int], c: int, formats: tuple[str, str], c_format: str, rule: Rule) -> int:
    """One output element of a "fused" or "fp16-pairs" instruction: bit patterns in, bit pattern out."""
    if rule.rule == "fp16-pairs":
        return _pairs_one(a, b, c, formats, rule)
    for start in range(0, len(a), rule.block_products):
        at = slice(start, start + rule.block_products)
        pairs = [(decode_one(x, formats[0]), decode_one(y, formats[1])) for x, y in zip(a[at], b[at], strict=True)]
        c = _step(pairs, c, c_format, rule)
        c_format = rule.output
    return c


def _step(pairs: list[tuple[Number, Number]], c: int, c_format: str, rule: Rule) -> int:
    running = decode_one(c, c_format)
    special = special_of(pairs, running)
    if special:
        return special_bits(special, rule.output)
    products = []
    for x, y in pairs:
        assert not isinstance(x, str) and not isinstance(y, str)
        product = x[0] * y[0]
        products.append((product, x[1] + y[1], x[2] + y[2] if product else rule.e_zero))
    assert not isinstance(running, str)
    return block(products, running, rule)


def _pairs_one(a: list[int], b: list[int], c: int, formats: tuple[str, str], rule: Rule) -> int:
    """fp8 as two fp16 instructions: even pairs of k, then odd pairs, from zero; then one ordinary addition of c."""
    order = [k for k in range(len(a)) if k // 2 % 2 == 0] + [k for k in range(len(a)) if k // 2 % 2 == 1]
    x = [_to_fp16(decode_one(a[k], formats[0])) for k in order]
    y = [_to_fp16(decode_one(b[k], formats[1])) for k in order]
    partial = 0
    for start in range(0, len(x), rule.block_products):
        at = slice(start, start + rule.block_products)
        partial = _step(list(zip(x[at], y[at], strict=True)), partial, rule.output, rule)
    left, right = decode_one(partial, rule.output), decode_one(c, rule.output)
    if isinstance(left, str) or isinstance(right, str):
        kinds = {v for v in (left, right) if isinstance(v, str)}
        return special_bits("nan" if "nan" in kinds or len(kinds) > 1 else kinds.pop(), rule.output)
    grid = min(left[1], right[1])
    total = (left[0] << (left[1] - grid)) + (right[0] << (right[1] - grid))
    return round_one(total, grid, rule.output, "rne")


def _to_fp16(x: Number) -> Number:
    """The same number as fp16 has it: what was subnormal in 8 bits is normal there."""
    if isinstance(x, str) or x[0] == 0:
        return x if isinstance(x, str) else (0, -24, -14)
    leading = abs(x[0]).bit_length() - 1 + x[1]
    return x[0], x[1], max(leading, -14)


def scaled_one(
    a: list[int],
    b: list[int],
    c: int,
    formats: tuple[str, str],
    scales: tuple[list[int], list[int], str],
    rule: Rule,
) -> int:
    """One output element with block scales: codes of a's and b's scales and their format."""
    size = len(a) // len(scales[0])
    by = [(decode_one(s, scales[2]), decode_one(t, scales[2])) for s, t in zip(scales[0], scales[1], strict=True)]
    pairs = [(decode_one(x, formats[0]), decode_one(y, formats[1])) for x, y in zip(a, b, strict=True)]
    running = decode_one(c, "fp32")
    special = special_of(pairs, running)
    if special or any("nan" in pair for pair in by):
        return special_bits("nan" if any("nan" in pair for pair in by) else str(special), rule.output)
    terms: list[tuple[int, int, int]] = []
    if rule.rule == "fused":
        for k, (x, y) in enumerate(pairs):
            s, t = by[k // size]
            assert (
                not isinstance(x, str) and not isinstance(y, str) and not isinstance(s, str) and not isinstance(t, str)
            )
            product = x[0] * y[0] * s[0] * t[0]
            place = x[2] + y[2] + s[2] + t[2] if product else rule.e_zero
            terms.append((product, x[1] + y[1] + s[1] + t[1], place))
    else:
        for start in range(0, len(a), 16):
            total, unit = 0, -2  # e2m1 products are multiples of a quarter
            for x, y in pairs[start : start + 16]:
                assert not isinstance(x, str) and not isinstance(y, str)
                total += x[0] * y[0] << (x[1] + y[1] - unit)
            some = any(x[0] and y[0] for x, y in pairs[start : start + 16])  # a sum that cancels is no zero term
            s, t = by[start // size]
            assert not isinstance(s, str) and not isinstance(t, str)
            place = s[2] + t[2] if some and s[0] and t[0] else rule.e_zero
            terms.append((total * s[0] * t[0], unit + s[1] + t[1], place))
    assert not isinstance(running, str)
    return block(terms, running, rule)
