"""`gemm`: a whole matrix product, bit for bit, in the order a machine's instructions take k."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.arithmetic import fused, mxu, tensor_gemm
from hwsim.arithmetic.arguments import (
    binary_operation,
    columns_of,
    operand_bits,
    operand_formats,
    require_sparse,
    scale_format,
)
from hwsim.arithmetic.engine import operand, pack
from hwsim.arithmetic.fma64 import fma
from hwsim.arithmetic.formats import bits_dtype, convert, decode, decode_integer, encode
from hwsim.arithmetic.integer import binary_gemm, integer_gemm
from hwsim.arithmetic.profiles import Rule, find_rule
from hwsim.arithmetic.sparsity import Compressed, compress, decompress, pattern, selected
from hwsim.arithmetic.threads import over_tiles, pick_engine, thread_count
from hwsim.errors import HwsimError
from hwsim.formats import get_format

Bits = npt.NDArray[Any]


def gemm(
    A: npt.ArrayLike | Compressed,
    B: npt.ArrayLike,
    C: npt.ArrayLike | None = None,
    *,
    profile: str,
    input: str | tuple[str, str],
    output: str | None = None,
    sparsity: str | None = None,
    instruction: str | None = None,
    c_format: str | None = None,
    scale_a: npt.ArrayLike | None = None,
    scale_b: npt.ArrayLike | None = None,
    saturate: bool = False,
    promote: int | None = None,
    passes: int = 1,
    flush: bool = False,
    tile_k: int | None = None,
    engine: str = "auto",
    threads: int | None = None,
) -> Bits:
    """``A`` (m, k) · ``B`` (k, n) + ``C`` (m, n, or None for zero) as ``profile`` computes it; bit patterns (m, n).

    Operands are bit patterns as in `fused_dot` ("b1" packed along k), or floating-point arrays, which are first rounded
    to nearest even in the input's format. Tensor Cores: one instruction after the other in increasing k, each carrying
    the running sum; k is filled up with zeros to whole instructions. ``promote`` starts a new chain from zero every so
    many k and adds it to the running sum to nearest (fp8 with promotion to fp32, declared split-K orders).
    ``sparsity="2:4"`` runs ``mma.sp``: A complies with its format's pattern or is a `Compressed`; the products of an
    instruction are those selected, in increasing k (an assumption for floats: no recording is public). Block scales:
    scale_a (m, k / block), scale_b (k / block, n). TPU profiles (``tpu-v3`` …): see `hwsim.arithmetic.mxu`;
    ``passes`` 1, 3 or 6 for fp32 operands, ``flush`` subnormals to zero, ``tile_k`` another array height. ``output`` is
    fp32 or int32 unless given (fp64 for fp64; bf16 on a TPU rounds once at the end). ``engine`` "numba", "numpy" or
    "auto"; neither it nor ``threads`` changes a bit. Raises HwsimError.
    """
    formats = operand_formats(input)
    unit = mxu.matrix_unit(profile)
    count = thread_count(threads)
    if output is None:
        output = "fp64" if formats[0] == "fp64" else "int32" if formats[0].startswith(("int", "uint", "b1")) else "fp32"
    output = get_format(output).name
    signed = any(isinstance(x, np.ndarray) and x.dtype.kind == "i" for x in (A, B, C))
    if unit is not None:
        if any(x is not None for x in (sparsity, instruction, scale_a, scale_b, promote, c_format)) or saturate:
            raise HwsimError(
                f"{profile}: sparsity, instructions, scales, promotion and saturation belong to Tensor Cores"
            )
        if tile_k is not None:
            if tile_k < 1:
                raise HwsimError(f"tile_k is {tile_k}, expected at least 1")
            unit = unit._replace(rows=tile_k)
        a, b, c = _operands(A, B, C, formats, "int32" if output == "int32" else "fp32")
        chosen = pick_engine(engine, a.shape[0] * a.shape[1] * b.shape[1])
        result = _on_matrix_unit(profile, unit, a, b, c, formats, output, passes, flush, chosen, count)
        return result.view(np.int32) if signed and output == "int32" else result
    if passes != 1 or flush or tile_k is not None:
        raise HwsimError(f"{profile}: passes, flush and tile_k belong to TPU profiles")
    scale = scale_format(input, instruction, scale_a, scale_b)
    per_scale = columns_of(scale_a)
    block = (columns_of(A) or 0) / per_scale if per_scale else None
    c_name = get_format(c_format).name if c_format else output
    rule, shape = find_rule(profile, formats, output, instruction, scale, block=block, c_format=c_name)
    if c_name not in rule.c_formats:
        raise HwsimError(f"{profile}: {formats[0]} to {output} adds C in {' or '.join(rule.c_formats)}, not {c_name}")
    if saturate and rule.rule != "integer":
        raise HwsimError(f"saturate clamps int32 sums; {formats[0]} to {output} has no such option")
    if promote is not None and (rule.rule not in ("fused",) or scale):
        raise HwsimError(f"promote does not apply to {rule.instruction} of {rule.arch} with {formats[0]}")
    instruction_k = int(shape.rpartition("k")[2]) if shape else rule.depths[0]
    sparse = sparsity is not None or isinstance(A, Compressed)
    if sparse:
        kept = _sparse_pattern(sparsity, formats[0], rule, scale)
        metadata, values = _compressed(A, formats[0])
        a, b, c = _operands(values, B, C, formats, c_name, kept.group // kept.keep)
        columns = selected(metadata, fmt=formats[0])
        order = np.argsort(columns, axis=1, kind="stable")
        a, columns = np.take_along_axis(a, order, axis=1), np.take_along_axis(columns, order, axis=1)
        if rule.rule == "integer":
            full = np.zeros((a.shape[0], b.shape[0]), a.dtype)
            np.put_along_axis(full, columns, a, axis=1)
            a = full
    else:
        a, b, c = _operands(A, B, C, formats, c_name)
    work = a.shape[0] * a.shape[1] * b.shape[1]
    if rule.rule in ("integer", "binary"):
        whole = decode_integer(c, "int32")
        if rule.rule == "binary":
            result = binary_gemm(a, b, whole, binary_operation(instruction, rule))
        else:
            step = instruction_k * (2 if sparse else 1)
            result = integer_gemm(decode_integer(a, formats[0]), decode_integer(b, formats[1]), whole, saturate, step)
        return result.view(np.int32) if signed else result
    chosen = pick_engine(engine, work)
    if rule.rule == "fma":
        x64, y64, start = (operand(bits, "fp64").value for bits in (a, b, c))
        return pack(_fma_chain(x64, y64, start, chosen, count), output)
    running = operand(c, c_name).value
    spare = -a.shape[1] % instruction_k
    if scale:
        scales = _scales(scale_a, a.shape, rule, scale, 1), _scales(scale_b, b.shape, rule, scale, 0)
        return pack(_scaled(a, b, running, formats, scales, scale, rule, instruction_k, chosen, count), output)
    if sparse:
        columns = np.pad(columns, ((0, 0), (0, spare)), constant_values=b.shape[0])
        b = np.pad(b, ((0, 1), (0, 0)))  # the row of zeros that padding selects
        a = np.pad(a, ((0, 0), (0, spare)))
    else:
        a, b = np.pad(a, ((0, 0), (0, spare))), np.pad(b, ((0, spare), (0, 0)))
        columns = np.arange(a.shape[1])[None]
    if rule.rule == "fp16-pairs":
        order = fused.pair_order(a.shape[1])
        a, b = convert(a, formats[0], "fp16"), convert(b, formats[1], "fp16")
        a, columns = a[:, order], columns[:, order]
        formats, promote = ("fp16", "fp16"), instruction_k
    else:
        rule = replace(rule, block_products=min(rule.block_products, instruction_k))
    x, y = tensor_gemm.matrix(a, formats[0]), tensor_gemm.matrix(b, formats[1])
    if promote is None:
        running = tensor_gemm.aligned_chain(x, y, columns, running, c_name, rule, chosen, count)
    elif promote < 1 or promote % instruction_k:
        raise HwsimError(f"promote is {promote}, expected a multiple of the instruction's K = {instruction_k}")
    else:
        running = tensor_gemm.promoted_chain(x, y, columns, running, c_name, rule, chosen, count, promote)
    return pack(running, output)


def _on_matrix_unit(
    profile: str,
    unit: mxu.MatrixUnit,
    a: Bits,
    b: Bits,
    c: Bits,
    formats: tuple[str, str],
    output: str,
    passes: int,
    flush: bool,
    engine: str,
    threads: int,
) -> Bits:
    wrong = [f for f in formats if f not in unit.inputs]
    if wrong:
        raise HwsimError(f"{profile}: the matrix unit takes {', '.join(unit.inputs)}, not {wrong[0]}")
    integers = formats[0].startswith(("int", "uint"))
    if integers != formats[1].startswith(("int", "uint")) or output not in (
        ("int32",) if integers else ("fp32", "bf16")
    ):
        raise HwsimError(f"{profile}: {formats[0]} × {formats[1]} does not give {output}")
    if integers:
        whole = decode_integer(c, "int32")
        return integer_gemm(decode_integer(a, formats[0]), decode_integer(b, formats[1]), whole, False, 1)
    start = c.view(np.float32) if c.any() else None
    if "fp32" in formats:
        x = decode(a, formats[0]).astype(np.float32)
        y = decode(b, formats[1]).astype(np.float32)
        total = mxu.fp32_product(x, y, start, unit, passes, flush=flush, engine=engine, threads=threads)
    elif passes != 1:
        raise HwsimError(f"passes are for fp32 operands; {formats[0]} takes one")
    else:
        x, y = decode(a, formats[0]), decode(b, formats[1])
        total = mxu.bf16_product(x, y, start, unit, flush=flush, engine=engine, threads=threads)
    bits = np.where(np.isnan(total), np.uint32(0x7FC00000), total.view(np.uint32))
    return bits if output == "fp32" else convert(bits, "fp32", "bf16")


def _scaled(
    a: Bits,
    b: Bits,
    c: npt.NDArray[np.float64],
    formats: tuple[str, str],
    scales: tuple[Bits, Bits],
    scale: str,
    rule: Rule,
    instruction_k: int,
    engine: str,
    threads: int,
) -> npt.NDArray[np.float64]:
    if a.shape[1] % instruction_k:
        raise HwsimError(
            f"block scales: k is {a.shape[1]}, expected a multiple of the instruction's K = {instruction_k}"
        )
    x, y = tensor_gemm.matrix(a, formats[0]), tensor_gemm.matrix(b, formats[1])
    by_a, by_b = scales
    if rule.rule == "fused":
        x = tensor_gemm.scaled(x, np.repeat(by_a, a.shape[1] // by_a.shape[1], axis=1), scale)
        y = tensor_gemm.scaled(y, np.repeat(by_b, b.shape[0] // by_b.shape[0], axis=0), scale)
        columns = np.arange(a.shape[1])[None]
        return tensor_gemm.aligned_chain(x, y, columns, c, rule.output, rule, engine, threads)
    groups = a.shape[1] // 16
    by_a = np.repeat(by_a, groups // by_a.shape[1], axis=1)
    by_b = np.repeat(by_b, groups // by_b.shape[0], axis=0)
    return tensor_gemm.grouped_chain(x, y, by_a, by_b, c, scale, rule)


def _fma_chain(a: Any, b: Any, c: Any, engine: str, threads: int) -> Any:
    out = np.array(c, np.float64, order="C")
    if engine == "numpy":
        for k in range(a.shape[1]):
            out = fma(a[:, k, None], b[k], out)
        return out
    from hwsim.arithmetic.gemm_kernels import WIDTH, compiled

    x, y = np.ascontiguousarray(a), np.ascontiguousarray(b)
    kernel = compiled("fma_tile")

    def work(rows: tuple[int, int], cols: tuple[int, int]) -> None:
        kernel(x, y, out, rows, cols)

    over_tiles(work, (out.shape[0], out.shape[1]), WIDTH, threads)
    return out


def _operands(
    A: Any, B: npt.ArrayLike, C: npt.ArrayLike | None, formats: tuple[str, str], c_format: str, ratio: int = 1
) -> tuple[Bits, Bits, Bits]:
    a, b = _bits(A, formats[0], "A"), _bits(B, formats[1], "B")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] * ratio != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise HwsimError(f"gemm: cannot multiply A {a.shape} with B {b.shape}, expected (m, k) and (k, n)")
    shape = (a.shape[0], b.shape[1])
    c = np.zeros(shape, bits_dtype(c_format)) if C is None else _bits(C, c_format, "C")
    if c.shape != shape:
        raise HwsimError(f"gemm: C is {c.shape}, expected {shape}")
    return a, b, c


def _bits(given: Any, fmt: str, name: str) -> Bits:
    array = np.asarray(given)
    if array.dtype.kind == "f":
        if fmt == "b1" or get_format(fmt).kind != "float":
            raise HwsimError(f"{name}: {fmt} expected, got {array.dtype}; quantise first")
        same = {"fp16": np.float16, "fp32": np.float32, "fp64": np.float64}.get(fmt)
        if array.dtype == same:
            return np.ascontiguousarray(array).view(bits_dtype(fmt))
        return encode(array, fmt)
    return operand_bits(array, fmt, name)


def _sparse_pattern(sparsity: str | None, fmt: str, rule: Rule, scale: str) -> Any:
    if sparsity not in (None, "2:4", "2:4!"):
        raise HwsimError(f"sparsity {sparsity!r}: expected 2:4")
    require_sparse(rule, fmt, bool(scale))
    return pattern(fmt)


def _compressed(A: Any, fmt: str) -> tuple[Bits, Bits]:
    if isinstance(A, Compressed):
        full = decompress(A, fmt=fmt)  # checks the metadata
        del full
        return np.asarray(A.metadata), np.asarray(A.values)
    packed = compress(_bits(A, fmt, "A"), fmt=fmt)
    return packed.metadata, packed.values


def _scales(given: npt.ArrayLike | None, shape: tuple[int, ...], rule: Rule, scale: str, axis: int) -> Bits:
    codes = operand_bits(np.asarray(given), scale, "scale")
    blocks = [block for name, block in rule.scales if name == scale]
    shapes = [(shape[0], shape[1] // g) if axis == 1 else (shape[0] // g, shape[1]) for g in blocks]
    if codes.shape not in shapes or any(shape[axis] % g for g in blocks[:1]):
        raise HwsimError(f"scales {codes.shape}: expected {' or '.join(map(str, shapes))} codes of {scale}")
    return codes
