"""Number formats as data: what networks, schedules and arithmetic share.

A float format is (exponent bits, significand bits incl. the hidden one); an integer format is a width and a sign.
Storage size is ``bits / 8`` bytes per element, so 4-bit and 6-bit formats pack.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import HwsimError, near


@dataclass(frozen=True, slots=True)
class Format:
    """One number format: storage width in bits, kind, and for floats the exponent width and precision.

    ``precision`` counts significand bits including the hidden one (bf16: 8, fp32: 24); ``storage`` is the width an
    element takes in memory (tf32 is stored in 32 bits although it carries 19). ``specials`` says what the top codes of
    a float mean: "ieee" infinities and NaNs, "fn" no infinity and one NaN code per sign (all ones), "fnuz" one NaN
    code in place of -0, "none" neither. ``exponent_bias`` is given where it is not the IEEE one.
    """

    name: str
    bits: int
    kind: str  # "float" | "int" | "uint" | "bool"
    exponent_bits: int = 0
    precision: int = 0
    storage_bits: int = 0
    specials: str = "ieee"
    signed: bool = True
    exponent_bias: int | None = None

    @property
    def width(self) -> int:
        """Bits one element takes in memory."""
        return self.storage_bits or self.bits

    @property
    def bias(self) -> int:
        """What is taken off a stored exponent to get the power of two of a normal significand in [1, 2)."""
        return (1 << (self.exponent_bits - 1)) - 1 if self.exponent_bias is None else self.exponent_bias


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("fp64", 64, "float", 11, 53),
        Format("fp32", 32, "float", 8, 24),
        Format("tf32", 19, "float", 8, 11, 32),
        Format("fp16", 16, "float", 5, 11),
        Format("bf16", 16, "float", 8, 8),
        Format("e4m3", 8, "float", 4, 4, specials="fn"),
        Format("e5m2", 8, "float", 5, 3),
        Format("e4m3fnuz", 8, "float", 4, 4, specials="fnuz", exponent_bias=8),
        Format("e5m2fnuz", 8, "float", 5, 3, specials="fnuz", exponent_bias=16),
        Format("e3m2", 6, "float", 3, 3, specials="none"),
        Format("e2m3", 6, "float", 2, 4, specials="none"),
        Format("e2m1", 4, "float", 2, 2, specials="none"),
        Format("ue8m0", 8, "float", 8, 1, specials="fn", signed=False),
        Format("ue4m3", 8, "float", 4, 4, specials="fn", signed=False),
        Format("int64", 64, "int"),
        Format("int32", 32, "int"),
        Format("int16", 16, "int"),
        Format("int8", 8, "int"),
        Format("int4", 4, "int"),
        Format("int2", 2, "int"),
        Format("int1", 1, "int"),
        Format("uint64", 64, "uint"),
        Format("uint32", 32, "uint"),
        Format("uint16", 16, "uint"),
        Format("uint8", 8, "uint"),
        Format("uint4", 4, "uint"),
        Format("uint2", 2, "uint"),
        Format("uint1", 1, "uint"),
        Format("bool", 8, "bool"),
    )
}

ALIASES: dict[str, str] = {
    "float64": "fp64", "f64": "fp64", "float32": "fp32", "f32": "fp32", "float": "fp32", "float16": "fp16", "f16": "fp16",
    "half": "fp16", "bfloat16": "bf16", "fp8": "e4m3", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4", "u8": "uint8", "u16": "uint16", "u32": "uint32",
    "u64": "uint64", "b1": "bool", "fp4": "e2m1",
    "e4m3fn": "e4m3", "float8_e4m3fnuz": "e4m3fnuz", "float8_e5m2fnuz": "e5m2fnuz", "float4_e2m1fn": "e2m1",
    "float6_e3m2fn": "e3m2", "float6_e2m3fn": "e2m3", "float8_e8m0fnu": "ue8m0", "s32": "int32", "s16": "int16",
    "s8": "int8", "s4": "int4", "u4": "uint4", "s2": "int2", "u2": "uint2",
}  # fmt: skip


def get_format(name: str) -> Format:
    """Return the format called ``name`` (or an alias such as ``f32``); raise HwsimError with near matches otherwise."""
    found = FORMATS.get(name) or FORMATS.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise HwsimError(f"unknown number format {name!r}{near(name, [*FORMATS, *ALIASES])}")
    return found


def storage_bytes(elements: int, name: str) -> int:
    """Return the bytes ``elements`` values of format ``name`` take, packed, rounded up to a whole byte."""
    return -(-elements * get_format(name).width // 8)
