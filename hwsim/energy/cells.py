"""What a multiply-accumulate of each number format does in a machine's cells: multiplier, adder, and bits handed on."""

from __future__ import annotations

from hwsim.energy.levels import matrix_unit, stationary_operand
from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator
from hwsim.power.actions import load_actions
from hwsim.power.arithmetic import ADDERS, adder_of, multiplier_j
from hwsim.power.span import Span

__all__ = [
    "ADDERS",
    "adder_of",
    "cell_format",
    "float_lanes",
    "hop_bits",
    "multiplier_j",
    "native_formats",
    "peak_cell_power_w",
]


def native_formats(acc: Accelerator) -> tuple[str, ...]:
    """Return the activation formats the matrix unit multiplies natively, in the order of the file; () when unknown."""
    unit = matrix_unit(acc)
    return tuple(dict.fromkeys(rate.partition("x")[0] for rate in unit.rates)) if unit is not None else ()


def cell_format(name: str, native: tuple[str, ...]) -> str:
    """Return the format the cells multiply in: ``name`` where it is native, else their own (fp32 in passes of bf16).

    Of the native formats of the same kind it is the narrowest that is wide enough, else the widest.
    """
    if not native or name in native:
        return name
    integer = FORMATS[name].kind != "float"
    same = [f for f in native if (FORMATS[f].kind != "float") == integer]
    wide = [f for f in same if FORMATS[f].width >= FORMATS[name].width]
    if wide:
        return min(wide, key=lambda f: FORMATS[f].width)
    return max(same or native, key=lambda f: FORMATS[f].width)


def hop_bits(acc: Accelerator, name: str) -> int:
    """Return the bits a cell hands to its neighbours per multiply-accumulate: streamed operand(s) and partial sum."""
    unit = matrix_unit(acc)
    if unit is None:
        return 0
    streamed = 1 if stationary_operand(acc) else 2
    return streamed * FORMATS[name].width + unit.accumulator_bits


def float_lanes(acc: Accelerator) -> bool:
    """Return whether the vector unit computes in floating point (machines without one: yes)."""
    rates = getattr(acc.sections.get("vector_unit"), "rates", {"fp32": 1.0})
    return any(FORMATS[name].kind == "float" for name in rates)


def peak_cell_power_w(acc: Accelerator, node_nm: float) -> Span:
    """Return the power of all cells of one chip computing all the time in the first format of its file; W."""
    for name in native_formats(acc)[:1]:
        each = multiplier_j(name, node_nm).plus(load_actions().at("add", adder_of(name), node_nm))
        return each.scaled(acc.peak_ops_per_s(name) / 2)
    return Span(0.0, 0.0, 0.0)
