"""Number formats as bit patterns: decode, encode and convert, exactly, for every format of `hwsim.formats`.

One parametric description (`hwsim.formats.Format`) drives everything. A finite number is sign, integer significand and
exponent, ``(-1)**sign * significand * 2**exponent``; rounding happens once, on integers, so a float64 or an int64 goes
to any format without passing through another (converting float64 to bf16 by way of float32 rounds twice and is wrong
for 1 + 2^-8 + 2^-40). Sources: IEEE 754-2019 §4.3; OCP 8-bit FP specification 1.0; OCP Microscaling Formats 1.0.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError, near
from hwsim.formats import Format, get_format

Bits = npt.NDArray[Any]
ROUNDINGS = ("rne", "rtz", "ru", "rd", "rna")
"""To nearest even, toward zero, up, down, to nearest with ties away from zero."""
OVERFLOWS = ("ieee", "saturate", "wrap")
"""What a finite overflow becomes: what IEEE 754 says (NaN where the format has no infinity, the largest finite where it
has no NaN either), the largest finite number (infinities too; PTX ``.satfinite``), or the low bits (integers only)."""
FINITE, INFINITE, NOT_A_NUMBER = 0, 1, 2


class Parts(NamedTuple):
    """Bit patterns taken apart: finite value = (-1)**sign * significand * 2**exponent.

    Subnormals keep the exponent of the smallest normal number and are not normalised. ``special`` is FINITE, INFINITE
    or NOT_A_NUMBER; significand and exponent mean nothing unless FINITE.
    """

    sign: npt.NDArray[np.int64]
    significand: npt.NDArray[np.int64]
    exponent: npt.NDArray[np.int64]
    special: npt.NDArray[np.int64]


def bits_dtype(fmt: str | Format) -> np.dtype[Any]:
    """Unsigned dtype that holds one element: 4- and 6-bit formats take a byte each, tf32 a 32-bit word."""
    width = _format(fmt).width
    return np.dtype(np.uint8 if width <= 8 else f"u{width // 8}")


def largest_finite(fmt: str | Format) -> int:
    """Code of the largest finite number of a float format, without its sign (tf32: the 19-bit code)."""
    f = _format(fmt)
    top = 1 << (f.exponent_bits + f.precision - 1)
    if f.specials == "ieee":
        return top - (1 << (f.precision - 1)) - 1
    return top - 2 if f.specials == "fn" else top - 1


def split(bits: Bits, fmt: str | Format) -> Parts:
    """Take bit patterns of a float format of up to 64 bits apart; see `Parts`.

    Bits that the format does not use are ignored, as the hardware does: the low 13 bits of a tf32 word, bit 7 of
    ue4m3, the bits above a 4- or 6-bit code.
    """
    f = _float(fmt)
    code = np.asarray(bits).astype(np.uint64)
    if f.width > f.bits:
        code = code >> np.uint64(f.width - f.bits)
    mantissa_bits, code_bits = f.precision - 1, f.exponent_bits + f.precision - 1
    magnitude = (code & np.uint64((1 << code_bits) - 1)).astype(np.int64)
    sign = ((code >> np.uint64(code_bits)) & np.uint64(1)).astype(np.int64) if f.signed else np.zeros_like(magnitude)
    stored = magnitude >> mantissa_bits
    fraction = magnitude & ((1 << mantissa_bits) - 1)
    if f.precision == 1:  # ue8m0: every code is a power of two, there is no zero
        significand, power = np.ones_like(magnitude), stored - f.bias
    else:
        significand = np.where(stored > 0, fraction | (1 << mantissa_bits), fraction)
        power = np.maximum(stored, 1) - f.bias
    special = np.zeros_like(magnitude)
    if f.specials == "fnuz":
        special[(magnitude == 0) & (sign == 1)] = NOT_A_NUMBER
    else:
        beyond = magnitude > largest_finite(f)
        infinity = beyond & (fraction == 0) & (f.specials == "ieee")
        special[beyond], special[infinity] = NOT_A_NUMBER, INFINITE
    return Parts(sign, significand, power - mantissa_bits, special)


def decode(bits: Bits, fmt: str | Format) -> npt.NDArray[Any]:
    """Exact values of bit patterns: float64 for floats (NaNs canonical), int64 for integers."""
    f = _format(fmt)
    if np.asarray(bits).dtype.kind not in "iu":
        raise HwsimError(f"decode: {f.name} bit patterns in integers expected, got {np.asarray(bits).dtype}")
    if f.kind != "float":
        return decode_integer(bits, f)
    if f.width <= 16:
        return np.asarray(_table(f.name)[np.asarray(bits).astype(np.intp) & ((1 << max(f.width, 8)) - 1)])
    return _join(split(bits, f))


def decode_integer(bits: Bits, fmt: str | Format) -> npt.NDArray[np.int64]:
    """Values of integer bit patterns, from their low bits (uint64 beyond 2^63 is refused)."""
    f = _format(fmt)
    code = np.asarray(bits)
    code = code.astype(np.int64) if code.dtype != np.uint64 else code.view(np.int64)
    if f.bits == 64:
        if f.kind == "uint" and bool(np.any(code < 0)):
            raise HwsimError("uint64 values beyond 2^63 - 1 are not handled")
        return code
    low = code & ((1 << f.bits) - 1)
    return np.where(low >> (f.bits - 1) == 1, low - (1 << f.bits), low) if f.kind == "int" else low


def encode(values: npt.ArrayLike, fmt: str | Format, *, rounding: str = "rne", overflow: str | None = None) -> Bits:
    """Bit patterns of ``values`` (anything numpy holds exactly in float64 or int64), rounded once.

    ``rounding`` is one of ROUNDINGS; ``overflow`` one of OVERFLOWS, by default "ieee" for floats and "saturate" for
    integers. NaN becomes the positive quiet NaN, the largest finite number in a format without NaN (as PTX ``cvt``
    does), 0 in an integer format; a negative number in an unsigned float format becomes NaN; ue8m0 has no zero and
    takes 2^-127. Raises HwsimError for unknown names.
    """
    f = _format(fmt)
    _check(rounding, overflow, f)
    given = np.asarray(values)
    if given.dtype.kind not in "iubf" or given.dtype.itemsize > 8:
        raise HwsimError(f"encode: numbers that float64 or int64 holds expected, got {given.dtype}")
    if given.dtype.kind in "iub":
        whole = given.astype(np.int64)
        if given.dtype == np.uint64 and bool(np.any(whole < 0)):
            raise HwsimError("uint64 values beyond 2^63 - 1 are not handled")
        magnitude = np.abs(whole).astype(np.uint64)  # of -2^63 too: its absolute value wraps to the right bits
        sticky = (magnitude & np.uint64(3)) != 0  # two bits less, so that 2^63 has room
        large = magnitude >> np.uint64(62) != 0
        significand = np.where(large, (magnitude >> np.uint64(2)) | sticky.astype(np.uint64), magnitude)
        parts = Parts(
            (whole < 0).astype(np.int64),
            significand.astype(np.int64),
            np.where(large, 2, 0),
            np.zeros_like(whole),
        )
        if f.kind != "float":
            return _wrap_or_clamp(whole, f, overflow)
    else:
        parts = split(np.ascontiguousarray(given, np.float64).view(np.uint64).reshape(given.shape), "fp64")
    return _encode_parts(parts, f, rounding, overflow)


def convert(bits: Bits, source: str, target: str, *, rounding: str = "rne", overflow: str | None = None) -> Bits:
    """Bit patterns of one format as another's, rounded once; options as in `encode`."""
    src, dst = _format(source), _format(target)
    _check(rounding, overflow, dst)
    if src.kind != "float":
        return encode(decode_integer(bits, src), dst, rounding=rounding, overflow=overflow)
    return _encode_parts(split(bits, src), dst, rounding, overflow)


def _encode_parts(parts: Parts, f: Format, rounding: str, overflow: str | None) -> Bits:
    if f.kind != "float":
        magnitude, _ = _rounded(parts.sign, parts.significand, parts.exponent, np.zeros_like(parts.exponent), rounding)
        far = parts.exponent + _bit_length(parts.significand) > 62  # beyond every integer format
        if overflow == "wrap" and bool(np.any(far & (parts.special == FINITE))):
            raise HwsimError(f"{f.name}: numbers beyond 2^62 cannot wrap")
        magnitude = np.where(far | (parts.special == INFINITE), np.int64((1 << 63) - 1), magnitude)
        whole = np.where(parts.special == NOT_A_NUMBER, 0, np.where(parts.sign == 1, -magnitude, magnitude))
        return _wrap_or_clamp(whole, f, overflow)
    sign = parts.sign
    least = 1 - f.bias if f.precision > 1 else -f.bias
    power = np.where(parts.significand > 0, parts.exponent + _bit_length(parts.significand) - 1, least)
    quantum = np.maximum(power, least) - (f.precision - 1)
    rounded, _ = _rounded(sign, parts.significand, parts.exponent, quantum, rounding)
    code = ((quantum + (f.precision - 1) - least) << (f.precision - 1)) + rounded
    if f.precision == 1:
        code = np.maximum(code - 1, 0)
    saturate = overflow == "saturate" or f.specials == "none"
    top, quiet = largest_finite(f), _quiet_nan(f)
    infinity = top + 1 if f.specials == "ieee" else quiet
    toward_zero = (rounding == "rtz") | ((rounding == "ru") & (sign == 1)) | ((rounding == "rd") & (sign == 0))
    beyond = np.where(np.bool_(saturate) | (toward_zero & (parts.special == FINITE)), top, infinity)
    code = np.where((code > top) | (parts.special == INFINITE), beyond, code)
    if f.specials == "fnuz":
        sign = np.where((code == 0) | (code == quiet), 0, sign)  # the code of -0 is the NaN
    if not f.signed:
        nonzero = (parts.significand > 0) | (parts.special != FINITE)
        code, sign = np.where((sign == 1) & nonzero, quiet, code), np.zeros_like(sign)
    code = code | (sign << (f.exponent_bits + f.precision - 1))
    code = np.where(parts.special == NOT_A_NUMBER, quiet if f.specials != "none" else top, code)
    out = code.astype(np.uint64) << np.uint64(f.width - f.bits)
    return out.astype(bits_dtype(f))


def _rounded(
    sign: npt.NDArray[np.int64],
    significand: npt.NDArray[np.int64],
    exponent: npt.NDArray[np.int64],
    quantum: npt.NDArray[np.int64],
    rounding: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """``significand * 2**exponent`` in units of ``2**quantum``, rounded to an integer, and whether that was inexact."""
    shift = quantum - exponent
    right = np.clip(shift, 0, np.minimum(_bit_length(significand) + 1, 63))
    left = np.clip(-shift, 0, 62)
    kept = significand >> right
    rest = significand - (kept << right)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), np.int64(1))
    inexact = rest != 0
    if rounding == "rne":
        up = (rest > half) | ((rest == half) & (kept & 1 == 1))
    elif rounding == "rna":
        up = rest >= half
    elif rounding == "rtz":
        up = np.zeros_like(inexact)
    else:
        up = inexact & (sign == (0 if rounding == "ru" else 1))
    return (kept + (up & inexact)) << left, inexact


def _bit_length(significand: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bits of non-negative integers below 2^63; frexp of a float64 is one too many where the cast rounds up."""
    estimate = np.frexp(significand.astype(np.float64))[1].astype(np.int64)
    too_many = (estimate > 0) & (significand >> np.clip(estimate - 1, 0, 62) == 0)
    return np.asarray(estimate - too_many, np.int64)


def _join(parts: Parts) -> npt.NDArray[np.float64]:
    finite = np.where(parts.special == FINITE, parts.significand, 0)
    values = np.ldexp(finite.astype(np.float64), parts.exponent.astype(np.int32))
    values = np.where(parts.special == INFINITE, np.inf, values)
    values = np.where(parts.sign == 1, -values, values)
    return np.where(parts.special == NOT_A_NUMBER, np.nan, values)


@cache
def _table(name: str) -> npt.NDArray[np.float64]:
    f = get_format(name)
    table = _join(split(np.arange(1 << max(f.width, 8), dtype=np.uint32), f))
    table.setflags(write=False)
    return table


def _quiet_nan(f: Format) -> int:
    """Code of the positive quiet NaN without payload (tf32: 19-bit code)."""
    if f.specials == "fnuz":
        return 1 << (f.exponent_bits + f.precision - 1)
    everything = (1 << (f.exponent_bits + f.precision - 1)) - 1
    return everything if f.specials == "fn" else largest_finite(f) + 1 + (1 << (f.precision - 2))


def _wrap_or_clamp(whole: npt.NDArray[np.int64], f: Format, overflow: str | None) -> Bits:
    if overflow != "wrap":
        low = -(1 << (f.bits - 1)) if f.kind == "int" else 0
        whole = np.clip(whole, low, (1 << (min(f.bits, 63) - (f.kind == "int" and f.bits < 64))) - 1)
    mask = (1 << f.bits) - 1
    return (whole.view(np.uint64) & np.uint64(mask)).astype(bits_dtype(f))


def _format(fmt: str | Format) -> Format:
    return fmt if isinstance(fmt, Format) else get_format(fmt)


def _float(fmt: str | Format) -> Format:
    f = _format(fmt)
    if f.kind != "float":
        raise HwsimError(f"{f.name} is no floating-point format")
    return f


def _check(rounding: str, overflow: str | None, f: Format) -> None:
    if rounding not in ROUNDINGS:
        raise HwsimError(f"rounding {rounding!r}: expected one of {', '.join(ROUNDINGS)}{near(rounding, ROUNDINGS)}")
    allowed = ("ieee", "saturate") if f.kind == "float" else ("saturate", "wrap")
    if overflow is not None and overflow not in allowed:
        raise HwsimError(f"overflow {overflow!r} for {f.name}: expected {' or '.join(allowed)}")
