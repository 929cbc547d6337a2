"""How a GPU multiplies given operands: on which pipe, in which format, converted where; and what it refuses.

A library has kernels for pairs of formats its chip multiplies. Weights of 4 or 8 bits with 16-bit activations
(``w4a16``, ``w8a16``) are widened in the main loop. Everything else is refused with what would work, or, with
``emulate``, run at its storage size in the next wider format, every operand converted on its way into a tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS, get_format
from hwsim.plan.precision import INTEGERS, PRESETS, Multiply, Precision

_HALF = ("fp16", "bf16")
_SIGNLESS = {"uint8": "int8", "uint4": "int4"}
# Names a user asks for, by the format the cells multiply: for the advice of a refusal.
_PRESET_OF = {
    "fp32": "fp32", "tf32": "tf32", "fp16": "fp16", "bf16": "bf16", "int8": "int8", "e4m3": "fp8", "e2m1": "nvfp4",
    "int4": "int4", "fp64": "fp64",
}  # fmt: skip


def multiply_gpu(
    rates: Mapping[str, float],
    precision: Precision,
    machine: str,
    where: str = "",
    emulate: bool = False,
) -> Multiply:
    """Return how ``machine`` multiplies ``precision``'s operands; ``rates``: multiply-accumulates per clock of one SM.

    ``rate`` of the answer is the rate of the format the cells multiply. Raises HwsimError for a pair of formats without
    kernels, saying what would work.
    """
    act = _SIGNLESS.get(name := get_format(precision.activations).name, name)
    weight = _SIGNLESS.get(name := get_format(precision.weights).name, name)
    if act == weight and rates.get(act, 0.0) > 0:
        return Multiply(act, rates[act], 1, False, False)
    narrow = weight in ("int8", "int4", "e4m3", "e5m2", "e2m1") and act in _HALF and rates.get(act, 0.0) > 0
    if narrow:
        note = f"{weight} weights are widened to {act} in the main loop"
        return Multiply(act, rates[act], 1, False, True, note)
    if {act, weight} <= {"e4m3", "e5m2"} and rates.get("e4m3", 0.0) > 0:
        return Multiply("e4m3", rates["e4m3"], 1, False, False)
    fallback = _wider(act, weight, rates)
    at = f"{where}: " if where else ""
    if not emulate or fallback is None:
        known = [_PRESET_OF[f] for f in _PRESET_OF if rates.get(f, 0.0) > 0]
        wider = [_PRESET_OF[f] for f in ("fp16", "bf16", "fp32") if rates.get(f, 0.0) > 0]
        advice = f"; try --precision {wider[0]}" if wider else ""
        pair = act if act == weight else f"{act} x {weight}"
        raise HwsimError(f"{at}{machine} does not multiply {pair}; it has {', '.join(known)}{advice}")
    note = f"{machine} does not multiply {act}: emulated, operands are widened to {fallback}"
    return Multiply(fallback, rates[fallback], 1, act != fallback, weight != fallback, note)


def faster_formats(
    table: Mapping[str, Precision] | None, tensor: Mapping[str, float], simt: Mapping[str, float], machine: str
) -> tuple[dict[str, Precision] | None, str]:
    """Return the assignment a compiler makes of ``table``, and a note where it differs.

    A chip that multiplies 8-bit integers on its CUDA cores only, slower than 16-bit floats on its Tensor Cores, runs layers
    that may be int8 in fp16: an engine builder is allowed both and takes the faster.
    """
    if table is None or tensor.get("int8", 0.0) > 0 or tensor.get("fp16", 0.0) <= simt.get("int8", 0.0):
        return dict(table) if table is not None else None, ""
    eight = {name for name, p in table.items() if {p.activations, p.weights} <= {"int8", "uint8"}}
    if not eight:
        return dict(table), ""
    out = {name: PRESETS["fp16"] if name in eight else p for name, p in table.items()}
    return out, f"{machine} has no int8 Tensor Cores: layers that may be int8 run in fp16, which is faster than dp4a"


def sixteen_bits(
    table: Mapping[str, Precision] | None, rates: Mapping[str, float], machine: str
) -> tuple[dict[str, Precision] | None, str]:
    """Return ``table`` with fp16 for bf16 where weights alone are narrow and the chip multiplies fp16 only, and a note.

    A preset such as ``w4a16`` says 16 bits, not which: before Ampere that is fp16.
    """
    if table is None or rates.get("bf16", 0.0) > 0 or rates.get("fp16", 0.0) <= 0:
        return dict(table) if table is not None else None, ""
    out = {
        name: replace(p, activations="fp16", output="fp16") if p.weight_only and p.activations == "bf16" else p
        for name, p in table.items()
    }
    changed = out != dict(table)
    return out, f"{machine} has no bf16: narrow weights are multiplied with fp16 activations" if changed else ""


def _wider(act: str, weight: str, rates: Mapping[str, float]) -> str | None:
    """The narrowest format of the chip that holds both operands exactly; None where there is none."""
    integers = act in INTEGERS and weight in INTEGERS
    bits = max(FORMATS[act].bits, FORMATS[weight].bits)
    if integers and bits < 8 and rates.get("int8", 0.0) > 0:
        return "int8"
    if bits <= 8:
        candidates: tuple[str, ...] = ("fp16", "bf16", "fp32")  # 8-bit integers and floats are exact in all of them
    elif {act, weight} <= {"bf16", "tf32", "fp16", "fp32"} and bits <= 32:
        candidates = ("fp32",)
    else:
        return None
    return next((c for c in candidates if rates.get(c, 0.0) > 0), None)
