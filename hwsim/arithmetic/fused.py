"""`fused_dot`: one Tensor Core instruction, bit for bit, on bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.engine import Operand, add_block, add_terms, add_to_nearest, operand, pack
from hwsim.arithmetic.fma64 import fma
from hwsim.arithmetic.formats import bits_dtype, convert, decode_integer
from hwsim.arithmetic.profiles import Rule, find_rule, input_format
from hwsim.arithmetic.sparsity import pattern, selected
from hwsim.errors import HwsimError
from hwsim.formats import get_format

Bits = npt.NDArray[Any]


def fused_dot(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike | None,
    *,
    profile: str,
    input: str | tuple[str, str],
    output: str = "fp32",
    instruction: str | None = None,
    c_format: str | None = None,
    scale_a: npt.ArrayLike | None = None,
    scale_b: npt.ArrayLike | None = None,
    saturate: bool = False,
) -> Bits:
    """Dot products as one Tensor Core instruction computes them: ``a``, ``b`` (n, k), ``c`` (n,) or None → (n,).

    All are bit patterns in unsigned integers of the format's width: tf32 in 32-bit words (low 13 bits ignored), 4- and
    6-bit formats one code per byte, "b1" eight elements per byte. Integers may come in signed arrays, and then the
    result is int32. ``input`` is a format or the pair of a's and b's; ``c_format`` is ``output`` unless given.
    ``profile`` is an architecture or device, ``instruction`` chooses where it has several (see
    `profiles.find_rule`); k is at most the instruction's K, and fewer products are exactly that: no zeros are added.
    ``scale_a`` and ``scale_b`` (n, k / block) hold the codes of block scales: ue8m0 (MX), or ue4m3 where the pair is
    said as ``input=("nvfp4", "nvfp4")`` or ``instruction`` names ue4m3. ``saturate`` clamps int32 instead of wrapping.
    Raises HwsimError. Source: facts and parameters in `tensor_core.csv`; PTX ISA 9.7.14-16 for integers.
    """
    formats = _pair(input)
    scale = _scale_format(input, instruction, scale_a, scale_b)
    depth = (_columns(a) or 0) * (8 if formats[0] == "b1" else 1)
    per_scale = _columns(scale_a)
    block = depth / per_scale if per_scale else None
    rule, shape = find_rule(profile, formats, _output(output), instruction, scale, depth=depth, block=block)
    if saturate and rule.rule != "integer":
        raise HwsimError(f"saturate clamps int32 sums; {formats[0]} to {rule.output} has no such option")
    signed = any(isinstance(x, np.ndarray) and x.dtype.kind == "i" for x in (a, b, c))
    A, B = _operand_bits(a, formats[0], "a"), _operand_bits(b, formats[1], "b")
    if A.ndim != 2 or A.shape != B.shape or A.shape[1] == 0:
        raise HwsimError(f"fused_dot: a {A.shape} and b {B.shape}, expected two arrays (n, k)")
    c_name = get_format(c_format).name if c_format else rule.output
    if c_name not in rule.c_formats:
        raise HwsimError(
            f"{profile}: {formats[0]} to {rule.output} adds c in {' or '.join(rule.c_formats)}, not {c_name}"
        )
    C = np.zeros(len(A), bits_dtype(c_name)) if c is None else _operand_bits(c, c_name, "c")
    if C.shape != A.shape[:1]:
        raise HwsimError(f"fused_dot: c {C.shape} for a {A.shape}, expected ({len(A)},)")
    most = int(shape.rpartition("k")[2]) if shape else max(rule.depths)
    if depth > most or (rule.rule == "fp16-pairs" and depth != most):
        word = "exactly" if rule.rule == "fp16-pairs" else "at most"
        raise HwsimError(f"fused_dot: k is {depth}, expected {word} {most} for {rule.instruction} of {rule.arch}")
    if rule.scales:
        assert scale
        scales = _scale_bits(scale_a, len(A), depth, rule, scale), _scale_bits(scale_b, len(A), depth, rule, scale)
        return pack(scaled_dot(A, B, C, formats, c_name, rule, scales, scale), rule.output)
    result = dot(A, B, C, formats, c_name, rule, saturate=saturate, operation=_operation(instruction, rule))
    return result.view(np.int32) if signed and result.dtype == np.uint32 and rule.output == "int32" else result


def sparse_dot(
    a: npt.ArrayLike,
    metadata: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike | None,
    *,
    profile: str,
    input: str | tuple[str, str],
    output: str = "fp32",
    instruction: str | None = None,
    c_format: str | None = None,
    saturate: bool = False,
    ordered: bool = False,
) -> Bits:
    """`fused_dot` of ``mma.sp``: ``a`` (n, k / 2) compressed, ``metadata`` nibbles (n, groups), ``b`` (n, k).

    The products are gathered in increasing k and then summed as the dense instruction of the same K / 2 sums them. For
    integers the order does not matter; for floating point that order is an **assumption** (no recording of a sparse
    instruction is public). Layout and invalid metadata as in `hwsim.arithmetic.sparsity.selected`. Raises HwsimError.
    """
    fmt = _pair(input)[0]
    columns = selected(metadata, fmt=fmt, ordered=ordered)
    full = np.asarray(b)
    kept = pattern(fmt)
    if full.ndim != 2 or columns.shape != (len(full), full.shape[1] * kept.keep // kept.group):
        raise HwsimError(f"sparse_dot: metadata {np.shape(metadata)} does not fit b {full.shape} in {fmt}")
    columns = np.sort(columns, axis=-1)
    order = np.argsort(selected(metadata, fmt=fmt), axis=-1, kind="stable")
    given = np.asarray(a)
    if given.shape != columns.shape:
        raise HwsimError(f"sparse_dot: a {given.shape}, expected {columns.shape} for b {full.shape}")
    return fused_dot(
        np.take_along_axis(given, order, axis=-1),
        np.take_along_axis(full, columns, axis=-1),
        c,
        profile=profile,
        input=input,
        output=output,
        instruction=instruction,
        c_format=c_format,
        saturate=saturate,
    )


def dot(
    a: Bits,
    b: Bits,
    c: Bits,
    formats: tuple[str, str],
    c_format: str,
    rule: Rule,
    *,
    saturate: bool = False,
    operation: str = "xor",
) -> Bits:
    """`fused_dot` without checks and scales: (..., k), (..., k) broadcast, and (...) bit patterns to (...)."""
    if rule.rule in ("integer", "binary"):
        return _integer_dot(a, b, c, formats, saturate, operation if rule.rule == "binary" else "")
    running = operand(c, c_format).value
    if rule.rule == "fma":
        x, y = operand(a, formats[0]).value, operand(b, formats[1]).value
        for k in range(x.shape[-1]):
            running = fma(x[..., k], y[..., k], running)
    elif rule.rule == "fp16-pairs":
        running = fp16_pairs(a, b, running, formats, rule)
    else:
        running = chain(operand(a, formats[0]), operand(b, formats[1]), running, c_format, rule)
    return pack(running, rule.output)


def chain(a: Operand, b: Operand, c: Any, c_format: str, rule: Rule) -> Any:
    """Blocks of the rule's length along the last axis, the running sum passing through each."""
    length = rule.block_products
    for k in range(0, a.value.shape[-1], length):
        at = (..., slice(k, k + length))
        c = add_block(Operand(a.value[at], a.exponent[at]), Operand(b.value[at], b.exponent[at]), c, c_format, rule)
        c_format = rule.output
    return c


def fp16_pairs(a: Bits, b: Bits, c: Any, formats: tuple[str, str], rule: Rule) -> Any:
    """fp8 ``mma.sync`` where it is run as fp16: converted exactly, pairs of k interleaved, from zero, c added last."""
    order = pair_order(a.shape[-1])
    x = operand(convert(a, formats[0], "fp16")[..., order], "fp16")
    y = operand(convert(b, formats[1], "fp16")[..., order], "fp16")
    return add_to_nearest(chain(x, y, np.zeros_like(c), rule.output, rule), c, rule.output)


def pair_order(depth: int) -> npt.NDArray[np.intp]:
    """The order of k in `fp16_pairs`: within 32, first the even pairs, then the odd ones."""
    k = np.arange(depth)
    return np.lexsort((k, (k // 2) % 2, k // 32))


def scaled_dot(
    a: Bits,
    b: Bits,
    c: Bits,
    formats: tuple[str, str],
    c_format: str,
    rule: Rule,
    scales: tuple[Bits, Bits],
    scale: str,
) -> Any:
    """Block-scaled products; scales (..., k / block) of format ``scale``. Returns values of the output format.

    MX with 8- and 6-bit elements: scales multiply each product before alignment. 4-bit: 16 products are added exactly,
    then multiplied by the significands of their scales and aligned at the scales' exponents.
    """
    x, y = operand(a, formats[0]), operand(b, formats[1])
    by_a, by_b = operand(scales[0], scale), operand(scales[1], scale)
    running = operand(c, c_format).value
    depth = x.value.shape[-1]
    if rule.rule == "fused":
        x = Operand(*(_spread(p, depth) for p in by_a)).times(x)
        y = Operand(*(_spread(p, depth) for p in by_b)).times(y)
        return chain(x, y, running, c_format, rule)
    groups = depth // 16
    exact = (
        (x.value * y.value).reshape(*np.broadcast_shapes(x.value.shape, y.value.shape)[:-1], groups, 16).sum(axis=-1)
    )
    part_a = [_spread(part, groups) for part in by_a]
    part_b = [_spread(part, groups) for part in by_b]
    with np.errstate(invalid="ignore"):
        term = exact * part_a[0] * part_b[0]
        exponent = np.where(zero_group(x, y, groups, part_a[0] * part_b[0]), rule.e_zero, part_a[1] + part_b[1])
        special = ~(np.isfinite(term).all(axis=-1) & np.isfinite(running))
        return np.where(special, term.sum(axis=-1) + running, add_terms(term, exponent, running, c_format, rule))


def _spread(part: Any, size: int) -> Any:
    """Each scale as many times as it has elements (or groups)."""
    return np.repeat(part, size // part.shape[-1], axis=-1)


def zero_group(x: Operand, y: Operand, groups: int, scale: Any) -> Any:
    """Groups of 16 whose products are all zero, or whose scale is."""
    product = x.value * y.value
    return (product.reshape(*product.shape[:-1], groups, 16) == 0).all(axis=-1) | (scale == 0)


def _integer_dot(a: Bits, b: Bits, c: Bits, formats: tuple[str, str], saturate: bool, operation: str) -> Bits:
    if operation:
        joined: npt.NDArray[np.uint8] = np.bitwise_xor(a, b) if operation == "xor" else np.bitwise_and(a, b)
        total = np.unpackbits(joined, axis=-1).sum(axis=-1, dtype=np.int64)
    else:
        total = (decode_integer(a, formats[0]) * decode_integer(b, formats[1])).sum(axis=-1)
    return to_int32(total + decode_integer(c, "int32"), saturate)


def to_int32(total: npt.NDArray[np.int64], saturate: bool) -> npt.NDArray[np.uint32]:
    """Bits of an exact sum in int32: clamped with ``.satfinite``, else modulo 2^32."""
    if saturate:
        total = np.clip(total, -(2**31), 2**31 - 1)
    return (total & 0xFFFFFFFF).astype(np.uint32)


def _pair(given: str | tuple[str, str]) -> tuple[str, str]:
    pair = (given, given) if isinstance(given, str) else tuple(given)
    if len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        raise HwsimError(f"input {given!r}: expected a format or a pair of formats")
    return _element(pair[0]), _element(pair[1])


def _element(name: str) -> str:
    """Element format; nvfp4 and mxfp4 … are names of an element together with its scale."""
    lowered = name.lower()
    if lowered in ("nvfp4", "mxfp4"):
        return "e2m1"
    return input_format(lowered.removeprefix("mxfp8_").removeprefix("mxfp6_"))


def _scale_format(
    given: str | tuple[str, str], instruction: str | None, scale_a: npt.ArrayLike | None, scale_b: npt.ArrayLike | None
) -> str:
    if (scale_a is None) != (scale_b is None):
        raise HwsimError("block scales are given for both operands or for neither")
    if scale_a is None:
        return ""
    names = [given] if isinstance(given, str) else list(given)
    nv = "ue4m3" in (instruction or "").lower() or any(n.lower() == "nvfp4" for n in names)
    return "ue4m3" if nv else "ue8m0"


def _output(name: str) -> str:
    return get_format(name).name


def _operation(instruction: str | None, rule: Rule) -> str:
    offered = rule.rounding.split() if rule.rule == "binary" else [""]
    for asked in ("xor", "and"):
        if rule.rule == "binary" and instruction and asked in instruction.lower().split("."):
            if asked not in offered:
                raise HwsimError(f"{rule.instruction} of {rule.arch}: binary {asked} does not exist, {offered[0]} does")
            return asked
    return offered[0]


def _columns(given: Any) -> int | None:
    """Elements per row of a matrix, None for anything else."""
    shape = np.shape(given)
    return int(shape[1]) if len(shape) == 2 else None


def _operand_bits(given: npt.ArrayLike, fmt: str, name: str) -> Bits:
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
    return np.ascontiguousarray(array).view(want).reshape(array.shape)


def _scale_bits(given: npt.ArrayLike | None, n: int, depth: int, rule: Rule, scale: str) -> Bits:
    codes = _operand_bits(np.asarray(given), scale, "scale")
    codes = codes[:, None] if codes.ndim == 1 else codes
    blocks = [block for name, block in rule.scales if name == scale]
    if codes.ndim == 2 and len(codes) == n and any(codes.shape[1] * block == depth for block in blocks):
        return codes
    shapes = " or ".join(f"({n}, {depth / block:g})" for block in blocks)
    raise HwsimError(f"scales {codes.shape}: expected {shapes} codes of {scale} for {rule.instruction} {rule.kind}")
