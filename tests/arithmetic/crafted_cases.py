"""Inputs made to show what random vectors hardly ever do: the exponent of a zero term, and the sign of a tiny sum.

Expected bits are worked out by hand from the rule, with e_zero and F written here a second time (MMA-Sim 2.1.1). They
pin the table to its source; no recording on silicon reaches these cases.

The grid on which terms are cut is 2^(e_zero - F) when c is zero and every product is small. Two cases each: a sum that
reaches the next output only with one unit of the grid, and one that would reach it if the grid were finer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hwsim.arithmetic import encode

FP16_OUT = {  # arch: exponent of zero, fraction bits
    "volta": (-19, 23),
    "turing": (-20, 24),
    "ampere": (-20, 24),
    "ada": (-20, 24),
    "hopper": (-21, 25),
    "blackwell": (-21, 25),
    "rtx-blackwell": (-21, 25),
}
FP32_OUT = {arch: (e - 112, f) for arch, (e, f) in FP16_OUT.items() if arch not in ("volta", "turing")}
E2M1 = {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 8: 6, 12: 7}  # twice the value: its code


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """A name, arguments of `fused_dot` and the expected bits."""
    for arch, (e_zero, fraction) in FP16_OUT.items():
        grid = e_zero - fraction
        for name, last, want in (("kept", grid, 1), ("cut", grid - 1, 0)):
            # 2^-25 is half of fp16's smallest number: a tie to even, unless something smaller survives
            factors = [(-12, -13), (-22, last + 22), (None, 0), (None, 0)]
            yield f"{arch}-fp16-{name}", call(arch, "fp16", "fp16", [pair(*f) for f in factors], want)
        yield f"{arch}-fp16-negative", call(arch, "fp16", "fp16", [(-(2.0**-13), 2.0**-13), (0.0, 0.0)], 0)
    for arch, (e_zero, fraction) in FP32_OUT.items():
        grid = e_zero - fraction
        missing = 2 ** (-149 - grid) - 1  # units short of fp32's smallest number by one
        long = (7.0, missing / 7) if missing % 7 == 0 else (1.0, float(missing))
        for fmt in ("bf16", "tf32"):
            first = (long[0] * 2.0**-80, long[1] * 2.0 ** (grid + 80))
            halves = [(2.0**-80, 2.0 ** (grid + 79))] * 2
            yield f"{arch}-{fmt}-kept", call(arch, fmt, "fp32", [first, (2.0**-80, 2.0 ** (grid + 80))], 1)
            yield f"{arch}-{fmt}-cut", call(arch, fmt, "fp32", [first, *halves], 0)
            tiny = [(-(2.0**-80), 2.0 ** (-150 + 80)), (0.0, 0.0)]
            yield f"{arch}-{fmt}-negative", call(arch, fmt, "fp32", tiny, 0)
    for arch in ("blackwell", "rtx-blackwell"):
        yield from scaled(arch)
        yield from grouped(arch)


def pair(a: int | None, b: int) -> tuple[float, float]:
    return (0.0, 0.0) if a is None else (2.0**a, 2.0**b)


def call(arch: str, fmt: str, output: str, factors: list[tuple[float, float]], want: int) -> dict[str, Any]:
    values = np.array([factors + [(0.0, 0.0)] * ((4 if arch == "volta" else 8) - len(factors))])
    a, b = encode(values[..., 0], fmt), encode(values[..., 1], fmt)
    c = np.zeros(1, np.uint16 if output == "fp16" else np.uint32)
    return {"a": a, "b": b, "c": c, "want": c + c.dtype.type(want), "profile": arch, "input": fmt, "output": output}


def scaled(arch: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """mxf8f6f4: e_zero -133, F = 25, grid 2^-158; 511 units are 15·15 + 15·15 + 15·4 + 1, scales make one 2^-152."""
    short = [(15.0, 15.0), (15.0, 15.0), (15.0, 4.0), (1.0, 1.0)]
    for name, rest, want in (("kept", [(1.0, 1.0)], 1), ("cut", [(1.0, 0.5), (1.0, 0.5)], 0)):
        values = np.zeros((1, 32, 2))
        values[0, : 4 + len(rest)] = [(x / 8, y / 8) for x, y in [*short, *rest]]
        scale = np.full((1, 1), 127 - 76, np.uint8)
        yield f"{arch}-mxf8-{name}", {
            "a": encode(values[..., 0], "e4m3"), "b": encode(values[..., 1], "e4m3"), "c": np.zeros(1, np.uint32),
            "want": np.full(1, want, np.uint32), "profile": arch, "input": "e4m3", "output": "fp32",
            "scale_a": scale, "scale_b": scale,
        }  # fmt: skip


def grouped(arch: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Groups of 16 e2m1 products: e_zero -139, F = 35, grid 2^-174. Quarter units: 2047 = 14·144 + 32 - 1."""
    most = [(12, 12)] * 14 + [(8, 4), (1, -1)]
    low = {7: [(6, 1), (1, 1)], 15: [(12, 1), (3, 1)], 1: [(1, 1)]}
    for name, sums, unit, want in (("kept", (7, 1), -174, 1), ("cut", (15, 1), -175, 0)):
        groups = [(most, -160), (most, -171), (low[sums[0]], unit), (low[sums[1]], unit)]
        a, b = np.zeros((1, 64), np.uint8), np.zeros((1, 64), np.uint8)
        scale = np.zeros((1, 4), np.uint8)
        for g, (products, place) in enumerate(groups):
            for k, (x, y) in enumerate(products):
                a[0, 16 * g + k], b[0, 16 * g + k] = E2M1[x], E2M1[abs(y)] | (8 if y < 0 else 0)
            scale[0, g] = 127 + place + 2 + 80
        yield f"{arch}-mxf4-{name}", {
            "a": a, "b": b, "c": np.zeros(1, np.uint32), "want": np.full(1, want, np.uint32), "profile": arch,
            "input": "e2m1", "output": "fp32", "scale_a": scale, "scale_b": np.full((1, 4), 127 - 80, np.uint8),
        }  # fmt: skip
