"""The array engine and the compiled products against the twin on Python integers, far outside the vectors' inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwsim.arithmetic import fused_dot, gemm, prune
from hwsim.arithmetic.formats import bits_dtype
from hwsim.arithmetic.profiles import Rule, find_rule, rules
from hwsim.arithmetic.reference import fused_one, scaled_one
from hwsim.formats import get_format

Array = np.ndarray[Any, Any]
FLOAT = [r for r in rules() if r.rule in ("fused", "fp16-pairs") and not r.scales]
SCALED = [(r, s) for r in rules() for s in r.scales]


def name(rule: Rule) -> str:
    return "-".join([rule.arch, rule.instruction, rule.kind, rule.inputs[0], rule.output, rule.shapes[0]])


def draw(rng: np.random.Generator, fmt: str, shape: tuple[int, ...], how: str) -> Array:
    """Bit patterns: any at all, few exponents, or close to one exponent with zeros strewn in."""
    f = get_format(fmt)
    code = rng.integers(0, 1 << f.bits, shape, dtype=np.uint64)
    if how != "any":
        width = f.exponent_bits + f.precision - 1
        middle = f.bias + rng.integers(-2, 3)
        exponent = np.clip(rng.integers(-4, 5, shape) + middle, 0, (1 << f.exponent_bits) - 2)
        keep = np.uint64(((1 << f.bits) - 1) ^ (((1 << f.exponent_bits) - 1) << (f.precision - 1)))
        code = (code & keep) | (exponent.astype(np.uint64) << np.uint64(f.precision - 1))
        if how == "tiny":  # subnormals, and the smallest normal numbers
            code &= np.uint64((1 << (f.precision + 1)) - 1) | np.uint64(1 << width)
        code = np.where(rng.random(shape) < 0.15, np.uint64(0), code)
    return (code << np.uint64(f.width - f.bits)).astype(bits_dtype(fmt))


@pytest.mark.parametrize("rule", FLOAT, ids=name)
def test_dot_equals_the_twin(rule: Rule) -> None:
    rng = np.random.default_rng(len(name(rule)))
    depth = max(rule.depths)
    for how in ("any", "near", "tiny"):
        for c_format in rule.c_formats:
            pair = (str(rng.choice(rule.inputs)), str(rng.choice(rule.inputs)))
            a, b = draw(rng, pair[0], (12, depth), how), draw(rng, pair[1], (12, depth), how)
            c = draw(rng, c_format, (12,), how)
            c[::3] = 0
            got = fused_dot(
                a, b, c, profile=rule.arch, input=pair, output=rule.output, c_format=c_format,
                instruction=f"{rule.instruction}.{rule.shapes[rule.depths.index(depth)]}"
                + (f".kind::{rule.kind}" if rule.kind else ""),
            )  # fmt: skip
            want = [
                fused_one(x, y, z, pair, c_format, rule)
                for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
            ]
            assert got.tolist() == want, how


@pytest.mark.parametrize(("rule", "scale"), SCALED, ids=lambda v: name(v) if isinstance(v, Rule) else f"{v[0]}-{v[1]}")
def test_scaled_dot_equals_the_twin(rule: Rule, scale: tuple[str, int]) -> None:
    rng = np.random.default_rng(7)
    depth = rule.depths[0]
    for how in ("any", "near"):
        pair = (str(rng.choice(rule.inputs)), str(rng.choice(rule.inputs)))
        a, b = draw(rng, pair[0], (12, depth), how), draw(rng, pair[1], (12, depth), how)
        c = draw(rng, "fp32", (12,), how)
        low, high = (0, 256) if how == "any" else (110, 140)
        s, t = (rng.integers(low, high, (12, depth // scale[1])).astype(np.uint8) for _ in range(2))
        got = fused_dot(
            a, b, c, profile=rule.arch, input=pair, scale_a=s, scale_b=t,
            instruction=f"{rule.instruction}.kind::{rule.kind}.{scale[0]}",
        )  # fmt: skip
        want = [
            scaled_one(a[i].tolist(), b[i].tolist(), int(c[i]), pair, (s[i].tolist(), t[i].tolist(), scale[0]), rule)
            for i in range(12)
        ]
        assert got.tolist() == want, how


def chain(a: Array, b: Array, c: Array, k: int, **how: Any) -> Array:
    """A product by `fused_dot`, instruction after instruction, zeros filled in to whole ones."""
    spare = -a.shape[1] % k
    a, b = np.pad(a, ((0, 0), (0, spare))), np.pad(b, ((0, spare), (0, 0)))
    m, n = a.shape[0], b.shape[1]
    out = c.ravel()
    for at in range(0, a.shape[1], k):
        rows = np.repeat(a[:, at : at + k], n, axis=0)
        cols = np.tile(b[at : at + k].T, (m, 1))
        out = fused_dot(rows, cols, out, **how)
        how.pop("c_format", None)
    return out.reshape(m, n)


CASES = [
    ("v100", "fp16", "fp32", None, {}),
    ("v100", "fp16", "fp32", None, {"c_format": "fp16"}),
    ("v100", "fp16", "fp16", None, {}),
    ("t4", "fp16", "fp16", None, {}),
    ("a100", "fp16", "fp32", None, {}),
    ("a100", "fp16", "fp32", "m16n8k8", {}),
    ("a100", "bf16", "fp32", None, {}),
    ("a100", "tf32", "fp32", None, {}),
    ("a100", "fp64", "fp64", None, {}),
    ("l40s", "e4m3", "fp32", None, {}),
    ("l40s", "e5m2", "fp16", None, {}),
    ("h100", "fp16", "fp16", None, {}),
    ("h100", "tf32", "fp32", "m16n8k4", {}),
    ("h100", "e4m3", "fp32", "wgmma", {}),
    ("h100", "e4m3", "fp16", "mma.sync", {}),
    ("h100", "e5m2", "fp32", "mma.sync", {}),
    ("b200", "bf16", "fp32", None, {}),
    ("b200", "e2m3", "fp16", None, {}),
    ("b200", "e5m2", "fp32", "tcgen05.mma", {}),
]


@pytest.mark.parametrize(("profile", "fmt", "output", "instruction", "extra"), CASES)
@pytest.mark.parametrize("how", ["any", "near", "tiny"])
def test_gemm_equals_the_chain_of_instructions(
    profile: str, fmt: str, output: str, instruction: str | None, extra: dict[str, Any], how: str
) -> None:
    rng = np.random.default_rng(3)
    m, k, n = 5, 83, 7
    a, b = draw(rng, fmt, (m, k), how), draw(rng, fmt, (k, n), how)
    if how == "any":  # fewer NaNs and infinities, so that rows without them exist beside rows with
        spare = draw(rng, fmt, (m, k), "near"), draw(rng, fmt, (k, n), "near")
        a[:3], b[:, :4] = spare[0][:3], spare[1][:, :4]
    c = draw(rng, extra.get("c_format", output), (m, n), "near")
    c[0] = 0
    rule, shape = find_rule(profile, (fmt, fmt), output, instruction)
    step = int(shape.rpartition("k")[2]) if shape else rule.depths[0]
    common: dict[str, Any] = {"profile": profile, "input": fmt, "output": output, "instruction": instruction} | extra
    want = chain(a, b, c, step, **common)
    same_nan = output == "fp64"
    for engine in ("numpy", "numba"):
        got = gemm(a, b, c, engine=engine, **common)
        if same_nan:
            want_values, got_values = want.view(np.float64), got.view(np.float64)
            assert np.array_equal(got_values, want_values, equal_nan=True), engine
        else:
            assert np.array_equal(got, want), engine


def test_overflow_meets_infinity_in_order() -> None:
    """A finite sum that overflows before an infinity of the other sign makes a NaN; after it, nothing."""
    big = np.float32(3.0e38).view(np.uint32) & np.uint32(0xFFFFE000)
    one, minus = np.float32(1).view(np.uint32), np.float32(-np.inf).view(np.uint32)
    for where, nan in ((12, True), (0, False)):
        a = np.full((2, 16), big, np.uint32)
        b = np.full((16, 2), one, np.uint32)
        b[where, 0] = minus
        got = gemm(a, b, profile="a100", input="tf32", engine="numba")
        assert np.array_equal(got, gemm(a, b, profile="a100", input="tf32", engine="numpy"))
        assert got[:, 0].tolist() == [0x7FFFFFFF if nan else 0xFF800000] * 2
        assert got[:, 1].tolist() == [0x7F800000] * 2


def test_threads_and_tiles_change_no_bit() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(140, 40)).astype(np.float16), rng.normal(size=(40, 300)).astype(np.float16)
    first = gemm(a, b, profile="h100", input="fp16", engine="numba", threads=1)
    assert np.array_equal(first, gemm(a, b, profile="h100", input="fp16", engine="numba", threads=3))
    assert np.array_equal(first[:9, :11], gemm(a[:9], b[:, :11], profile="h100", input="fp16", engine="numpy"))


@pytest.mark.parametrize(
    ("profile", "fmt"), [("a100", "bf16"), ("h100", "fp16"), ("tpu-v3", "bf16"), ("tpu-v4", "bf16")]
)
def test_tall_products_equal_wide_ones(profile: str, fmt: str) -> None:
    rng = np.random.default_rng(8)
    a, b = draw(rng, fmt, (90, 75), "near"), draw(rng, fmt, (75, 3), "near")
    how: dict[str, Any] = {"profile": profile, "input": fmt}
    tall = gemm(a, b, engine="numba", **how)
    assert np.array_equal(tall, gemm(a, b, engine="numpy", **how))
    assert np.array_equal(tall, gemm(b.T, a.T, engine="numba", **how).T)


def test_scaled_gemm_is_the_chain() -> None:
    rng = np.random.default_rng(6)
    for fmt, scale, k, block, kind in (
        ("e4m3", "ue8m0", 32, 32, "mxf8f6f4"),
        ("e2m1", "ue4m3", 64, 16, "mxf4nvf4"),
        ("e2m1", "ue8m0", 64, 32, "mxf4"),
    ):
        a, b = draw(rng, fmt, (4, 2 * k), "near"), draw(rng, fmt, (2 * k, 5), "near")
        low, high = (100, 150) if scale == "ue8m0" else (0, 128)
        s = rng.integers(low, high, (4, 2 * k // block)).astype(np.uint8)
        t = rng.integers(low, high, (2 * k // block, 5)).astype(np.uint8)
        how: dict[str, Any] = {"profile": "b200", "input": fmt, "instruction": f"kind::{kind}.{scale}"}
        want = np.zeros(20, np.uint32)
        for at in range(0, 2 * k, k):
            groups = slice(at // block, (at + k) // block)
            want = fused_dot(
                np.repeat(a[:, at : at + k], 5, axis=0), np.tile(b[at : at + k].T, (4, 1)), want,
                scale_a=np.repeat(s[:, groups], 5, axis=0), scale_b=np.tile(t[groups].T, (4, 1)), **how,
            )  # fmt: skip
        for engine in ("numba", "numpy"):
            got = gemm(a, b, scale_a=s, scale_b=t, engine=engine, **how)
            assert np.array_equal(got, want.reshape(4, 5)), (kind, engine)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_instructions_shapes_and_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(250):
        rule = FLOAT[rng.integers(len(FLOAT))]
        how = str(rng.choice(["any", "near", "tiny"]))
        pair = (str(rng.choice(rule.inputs)), str(rng.choice(rule.inputs)))
        c_format, shape = str(rng.choice(rule.c_formats)), rule.shapes[rng.integers(len(rule.shapes))]
        most = int(shape.rpartition("k")[2])
        k = most if rule.rule == "fp16-pairs" else int(rng.integers(1, most + 1))
        common: dict[str, Any] = {
            "profile": rule.arch, "input": pair, "output": rule.output, "c_format": c_format,
            "instruction": f"{rule.instruction}.{shape}" + (f".kind::{rule.kind}" if rule.kind else ""),
        }  # fmt: skip
        a, b, c = draw(rng, pair[0], (20, k), how), draw(rng, pair[1], (20, k), how), draw(rng, c_format, (20,), how)
        rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
        assert fused_dot(a, b, c, **common).tolist() == [fused_one(x, y, z, pair, c_format, rule) for x, y, z in rows]
        m, depth, n = (int(v) for v in rng.integers(1, [9, 100, 330]))
        m, n = (n, m) if rng.random() < 0.4 else (m, n)
        sparse = rng.random() < 0.4 and rule.rule == "fused" and rule.arch not in ("volta", "turing", "xavier")
        depth += -depth % 8
        A, B, C = (
            draw(rng, pair[0], (m, depth), how),
            draw(rng, pair[1], (depth, n), how),
            draw(rng, c_format, (m, n), "near"),
        )
        if how == "any":  # rows and columns without NaNs beside those with
            A = np.where(rng.random((m, 1)) < 0.7, draw(rng, pair[0], (m, depth), "near"), A)
            B = np.where(rng.random((1, n)) < 0.7, draw(rng, pair[1], (depth, n), "near"), B)
        if sparse:
            A = np.where(prune(rng.normal(size=(m, depth)), fmt=pair[0]), A, A.dtype.type(0))
        common["sparsity"] = "2:4" if sparse else None
        plain, compiled = (gemm(A, B, C, engine=engine, **common) for engine in ("numpy", "numba"))
        assert np.array_equal(plain, compiled), (rule, pair, how, A.shape, B.shape)
