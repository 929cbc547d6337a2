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
    element takes in memory (tf32 is stored in 32 bits although it carries 19).
    """

    name: str
    bits: int
    kind: str  # "float" | "int" | "uint" | "bool"
    exponent_bits: int = 0
    precision: int = 0
    storage_bits: int = 0

    @property
    def width(self) -> int:
        """Bits one element takes in memory."""
        return self.storage_bits or self.bits


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("fp64", 64, "float", 11, 53),
        Format("fp32", 32, "float", 8, 24),
        Format("tf32", 19, "float", 8, 11, 32),
        Format("fp16", 16, "float", 5, 11),
        Format("bf16", 16, "float", 8, 8),
        Format("e4m3", 8, "float", 4, 4),
        Format("e5m2", 8, "float", 5, 3),
        Format("e3m2", 6, "float", 3, 3),
        Format("e2m3", 6, "float", 2, 4),
        Format("e2m1", 4, "float", 2, 2),
        Format("ue8m0", 8, "float", 8, 1),
        Format("ue4m3", 8, "float", 4, 4),
        Format("int64", 64, "int"),
        Format("int32", 32, "int"),
        Format("int16", 16, "int"),
        Format("int8", 8, "int"),
        Format("int4", 4, "int"),
        Format("int2", 2, "int"),
        Format("uint64", 64, "uint"),
        Format("uint32", 32, "uint"),
        Format("uint16", 16, "uint"),
        Format("uint8", 8, "uint"),
        Format("uint4", 4, "uint"),
        Format("uint2", 2, "uint"),
        Format("bool", 8, "bool"),
    )
}

ALIASES: dict[str, str] = {
    "float64": "fp64", "f64": "fp64", "float32": "fp32", "f32": "fp32", "float": "fp32", "float16": "fp16", "f16": "fp16",
    "half": "fp16", "bfloat16": "bf16", "fp8": "e4m3", "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2", "i64": "int64",
    "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4", "u8": "uint8", "u16": "uint16", "u32": "uint32",
    "u64": "uint64", "b1": "bool", "fp4": "e2m1",
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
