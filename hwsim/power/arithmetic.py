"""What multiplying and adding numbers of a format costs on a process node."""

from __future__ import annotations

from hwsim.formats import FORMATS
from hwsim.power.actions import load_actions
from hwsim.power.span import Span

ADDERS = ("int32", "fp16", "fp32", "fp64")

# Formats the table has no multiplier for, and the one whose multiplier does the same work.
_LIKE = {
    "e3m2": "e5m2", "e4m3fnuz": "e4m3", "e5m2fnuz": "e5m2", "e2m3": "e4m3", "ue8m0": "e5m2", "ue4m3": "e4m3",
    "int64": "int32", "int2": "int4", "int1": "int4", "bool": "int4", "uint1": "int4", "uint64": "int32",
    "uint32": "int32", "uint16": "int16", "uint8": "int8", "uint4": "int4", "uint2": "int4",
}  # fmt: skip


def multiplier_j(name: str, node_nm: float) -> Span:
    """Return the energy of one multiplication in format ``name``, J."""
    return load_actions().at("multiply", _LIKE.get(name, name), node_nm)


def adder_of(name: str) -> str:
    """Return which of `ADDERS` sums products of format ``name``: int32 for integers, else its own or fp32."""
    if FORMATS[name].kind != "float":
        return "int32"
    return name if name in ADDERS else "fp32"


def adder_j(name: str, node_nm: float, *, grouped: bool = False) -> Span:
    """Return the energy of one addition in adder ``name``, J; less where four or more are added with one rounding."""
    one = load_actions().at("add", name, node_nm)
    if not grouped:
        return one
    saving = load_actions().at("ratio", "group_adder", node_nm)
    return Span(one.value * saving.value, one.low * saving.low, one.high * saving.high)


def multiply_add_j(name: str, node_nm: float, *, grouped: bool = False) -> Span:
    """Return the energy of one multiply-accumulate in format ``name``, multiplier and adder alone, J."""
    return multiplier_j(name, node_nm).plus(adder_j(adder_of(name), node_nm, grouped=grouped))
