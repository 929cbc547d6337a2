"""Arguments of `fused_dot` and `gemm`: names of formats, bit patterns, block scales."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.formats import bits_dtype
from hwsim.arithmetic.profiles import Rule, input_format
from hwsim.errors import HwsimError
from hwsim.formats import get_format

Bits = npt.NDArray[Any]


def operand_formats(given: str | tuple[str, str]) -> tuple[str, str]:
    pair = (given, given) if isinstance(given, str) else tuple(given) if isinstance(given, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        raise HwsimError(f"input {given!r}: expected a format or a pair of formats")
    return _element(pair[0]), _element(pair[1])


def _element(name: str) -> str:
    """Element format; nvfp4 and mxfp4 … are names of an element together with its scale."""
    lowered = name.lower()
    if lowered in ("nvfp4", "mxfp4"):
        return "e2m1"
    return input_format(lowered.removeprefix("mxfp8_").removeprefix("mxfp6_"))


def scale_format(
    given: str | tuple[str, str], instruction: str | None, scale_a: npt.ArrayLike | None, scale_b: npt.ArrayLike | None
) -> str:
    if (scale_a is None) != (scale_b is None):
        raise HwsimError("block scales are given for both operands or for neither")
    if scale_a is None:
        return ""
    names = [given] if isinstance(given, str) else list(given)
    nv = "ue4m3" in (instruction or "").lower() or any(n.lower() == "nvfp4" for n in names)
    return "ue4m3" if nv else "ue8m0"


def binary_operation(instruction: str | None, rule: Rule) -> str:
    offered = rule.rounding.split() if rule.rule == "binary" else [""]
    for asked in ("xor", "and"):
        if rule.rule == "binary" and instruction and asked in instruction.lower().split("."):
            if asked not in offered:
                raise HwsimError(f"{rule.instruction} of {rule.arch}: binary {asked} does not exist, {offered[0]} does")
            return asked
    return offered[0]


def require_sparse(rule: Rule, fmt: str, scaled: bool) -> None:
    """Refuse where no sparse form of an instruction exists, or nothing at all is known of it."""
    if rule.arch in ("volta", "turing", "xavier"):
        raise HwsimError(f"{rule.arch}: the Tensor Cores have no sparse instructions; 2:4 starts with ampere")
    if rule.rule not in ("fused", "integer") or scaled:
        what = "with block scales" if scaled else f"of {fmt}"
        raise HwsimError(f"{rule.arch}: no 2:4 arithmetic is modelled for {rule.instruction} {what}")


def columns_of(given: Any) -> int | None:
    """Elements per row of a matrix, None for anything else."""
    shape = np.shape(given)
    return int(shape[1]) if len(shape) == 2 else None


def operand_bits(given: npt.ArrayLike, fmt: str, name: str) -> Bits:
    """Unsigned bit patterns from an argument, checked against the format's width."""
    array = np.asarray(given)
    if array.dtype.kind not in "iu":
        raise HwsimError(f"{name}: bit patterns in unsigned integers expected, got {array.dtype} (encode values first)")
    want = np.dtype(np.uint8) if fmt == "b1" else bits_dtype(fmt)
    bits = 8 if fmt == "b1" else get_format(fmt).bits
    if bits < 8:
        low, high = (-(1 << (bits - 1)) if array.dtype.kind == "i" else 0), (1 << bits) - 1
        if array.size and (array.min() < low or array.max() > high):
            raise HwsimError(f"{name}: {fmt} codes are 0 to {high}, one per byte, got {array.min()} to {array.max()}")
        return (array.astype(np.int64) & high).astype(np.uint8)
    if array.dtype.itemsize != want.itemsize:
        raise HwsimError(f"{name}: {fmt} bit patterns are {want}, got {array.dtype}")
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    return native.view(want).reshape(array.shape)


def scale_bits(given: npt.ArrayLike | None, n: int, depth: int, rule: Rule, scale: str) -> Bits:
    codes = operand_bits(np.asarray(given), scale, "scale")
    codes = codes[:, None] if codes.ndim == 1 else codes
    blocks = [block for name, block in rule.scales if name == scale]
    if codes.ndim == 2 and len(codes) == n and any(codes.shape[1] * block == depth for block in blocks):
        return codes
    shapes = " or ".join(f"({n}, {depth / block:g})" for block in blocks)
    raise HwsimError(f"scales {codes.shape}: expected {shapes} codes of {scale} for {rule.instruction} {rule.kind}")
