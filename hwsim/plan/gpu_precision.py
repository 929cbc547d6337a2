"""How a GPU multiplies given operands: on which pipe, in which format, converted where; and what it refuses.

A library has kernels for pairs of formats its chip multiplies. Weights of 4 or 8 bits with 16-bit activations
(``w4a16``, ``w8a16``) are widened in the main loop. Everything else is refused with what would work, or, with
``emulate``, multiplied in a wider format that holds the operands exactly: activations are rounded to their format by the
kernel that makes them and kept in the wider one, weights are stored as they are and widened in the main loop.
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
    # Chips that apply scales of blocks in their Tensor Cores are those that multiply 4-bit floats.
    scales = not precision.block or rates.get("e2m1", 0.0) > 0
    if act == weight and act in _HALF and 0 < rates.get(act, 0.0) < rates.get("fp32", 0.0):
        # cuBLAS keeps to fp32 arithmetic there (its *_fp16_sgemm kernels), and an engine takes fp32 kernels.
        said = f"{machine} multiplies {act} more slowly than fp32: stored as {act}, multiplied as fp32"
        return Multiply("fp32", rates["fp32"], 1, False, True, said)
    if act == weight and rates.get(act, 0.0) > 0 and scales:
        return Multiply(act, rates[act], 1, False, False, block=precision.block)
    narrow = weight in ("int8", "int4", "e4m3", "e5m2", "e2m1") and act in _HALF and rates.get(act, 0.0) > 0
    if narrow:
        note = f"{weight} weights are widened to {act} in the main loop"
        return Multiply(act, rates[act], 1, False, True, note)
    if {act, weight} <= {"e4m3", "e5m2"} and rates.get("e4m3", 0.0) > 0 and scales:
        return Multiply("e4m3", rates["e4m3"], 1, False, False)
    fallback = _wider(act, weight, rates, precision)
    pair = act if act == weight else f"{act} x {weight}"
    if precision.block:
        pair = f"{_named(precision)} (blocks with scales)"
    if emulate and fallback is not None:
        said = f"{machine} does not multiply {pair}: emulated, {_how(act, weight, fallback)}"
        return Multiply(fallback, rates[fallback], 1, False, weight != fallback, said, emulates=pair.split(" (")[0])
    at = f"{where}: " if where else ""
    known = [_PRESET_OF[f] for f in _PRESET_OF if rates.get(f, 0.0) > 0]
    wider = [_PRESET_OF[f] for f in ("fp16", "bf16", "fp32") if rates.get(f, 0.0) > 0]
    eight = "e4m3" in (act, weight) or precision.block
    wider = ["fp8", *wider] if eight and rates.get("e4m3", 0.0) > 0 else wider
    advice = f"; try --precision {wider[0]}" if wider else ""
    advice += ", or --emulate" if fallback is not None else ""
    raise HwsimError(f"{at}{machine} does not multiply {pair}; it has {', '.join(known)}{advice}")


def _named(precision: Precision) -> str:
    """The preset whose formats and blocks these are."""
    same = (p for p in PRESETS.items() if p[1].block == precision.block and p[1].weights == precision.weights)
    return next((name for name, _ in same), precision.weights)


def _how(act: str, weight: str, fallback: str) -> str:
    """What an emulation does with the operands of a product."""
    parts = []
    if act != fallback:
        rounded = "rounded to their format and kept" if FORMATS[act].bits < FORMATS[fallback].bits else "kept"
        parts.append(f"activations {rounded} in {fallback}")
    if weight != fallback:
        parts.append(f"weights stored as they are and widened to {fallback} in the main loop")
    return ", ".join(parts)


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


def _wider(act: str, weight: str, rates: Mapping[str, float], precision: Precision) -> str | None:
    """A format of the chip that holds both operands exactly: the results' own, else the fastest; None where there is none."""
    integers = act in INTEGERS and weight in INTEGERS
    bits = max(FORMATS[act].bits, FORMATS[weight].bits)
    names = {act, weight}
    # Tensor Cores sum products of 16-bit floats in fp32; CUDA cores, whose rates are near one another, would sum in 16 bits.
    halves = tuple(f for f in _HALF if rates.get(f, 0.0) > 2 * rates.get("fp32", 0.0))
    if integers and bits <= 4:
        candidates: tuple[str, ...] = ("int8", *halves, "fp32")
    elif bits <= 8:
        candidates = (*halves, "fp32")  # 8-bit integers and floats, with their scales, are exact in all of them
    elif names <= {"bf16", "tf32", "fp16", "fp32"} or (integers and bits <= 16):
        # Floats of ten significant bits and eight of exponent fit tf32.
        candidates = ("tf32", "fp32") if names <= {"bf16", "fp16", "tf32"} else ("fp32",)
    else:
        return None
    found = [c for c in candidates if rates.get(c, 0.0) > 0]
    return max(found, key=lambda c: (c == precision.output, rates[c], -found.index(c)), default=None)
