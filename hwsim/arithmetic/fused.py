"""`fused_dot`: one Tensor Core instruction, bit for bit, on bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic.arguments import (
    binary_operation,
    columns_of,
    operand_bits,
    operand_formats,
    require_sparse,
    scale_bits,
    scale_format,
)
from hwsim.arithmetic.engine import Operand, add_block, add_terms, add_to_nearest, operand, pack
from hwsim.arithmetic.fma64 import fma
from hwsim.arithmetic.formats import bits_dtype, convert, decode_integer
from hwsim.arithmetic.profiles import Rule, find_rule
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
    formats = operand_formats(input)
    scale = scale_format(input, instruction, scale_a, scale_b)
    depth = (columns_of(a) or 0) * (8 if formats[0] == "b1" else 1)
    per_scale = columns_of(scale_a)
    block = depth / per_scale if per_scale else None
    c_name = get_format(c_format or output).name
    rule, shape = find_rule(
        profile, formats, get_format(output).name, instruction, scale, depth=depth, block=block, c_format=c_name
    )
    if saturate and rule.rule != "integer":
        raise HwsimError(f"saturate clamps int32 sums; {formats[0]} to {rule.output} has no such option")
    signed = any(isinstance(x, np.ndarray) and x.dtype.kind == "i" for x in (a, b, c))
    A, B = operand_bits(a, formats[0], "a"), operand_bits(b, formats[1], "b")
    if A.ndim != 2 or A.shape != B.shape or A.shape[1] == 0:
        raise HwsimError(f"fused_dot: a {A.shape} and b {B.shape}, expected two arrays (n, k)")
    if c_name not in rule.c_formats:
        raise HwsimError(
            f"{profile}: {formats[0]} to {rule.output} adds c in {' or '.join(rule.c_formats)}, not {c_name}"
        )
    C = np.zeros(len(A), bits_dtype(c_name)) if c is None else operand_bits(c, c_name, "c")
    if C.shape != A.shape[:1]:
        raise HwsimError(f"fused_dot: c {C.shape} for a {A.shape}, expected ({len(A)},)")
    most = int(shape.rpartition("k")[2]) if shape else max(rule.depths)
    if depth > most or (rule.rule == "fp16-pairs" and depth != most):
        word = "exactly" if rule.rule == "fp16-pairs" else "at most"
        raise HwsimError(f"fused_dot: k is {depth}, expected {word} {most} for {rule.instruction} of {rule.arch}")
    if rule.scales:
        assert scale
        scales = scale_bits(scale_a, len(A), depth, rule, scale), scale_bits(scale_b, len(A), depth, rule, scale)
        return pack(scaled_dot(A, B, C, formats, c_name, rule, scales, scale), rule.output)
    result = dot(A, B, C, formats, c_name, rule, saturate=saturate, operation=binary_operation(instruction, rule))
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
    fmt = operand_formats(input)[0]
    columns = selected(metadata, fmt=fmt, ordered=ordered)
    full = np.asarray(b)
    kept = pattern(fmt)
    if full.ndim != 2 or columns.shape != (len(full), full.shape[1] * kept.keep // kept.group):
        raise HwsimError(f"sparse_dot: metadata {np.shape(metadata)} does not fit b {full.shape} in {fmt}")
    rule, _ = find_rule(
        profile, operand_formats(input), get_format(output).name, instruction, "", depth=columns.shape[1]
    )
    require_sparse(rule, fmt, False)
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
