"""Products and convolutions through an arithmetic: against scalar loops written from the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.execution.products import EXACT, FP32, Arithmetic, chains_of, convolve, product, rounded, transposed
from hwsim.network.opdefs import ConvGeometry
from hwsim.schedule.folds import fold_plan
from hwsim.schedule.table import UNIT

TPU3 = Arithmetic("tpu-v3", np.float32, "tpu-v3", ("bf16", "bf16"), "bf16", 1, 128, 128)
TPU4 = Arithmetic("tpu-v4", np.float32, "tpu-v4", ("bf16", "bf16"), "bf16", 1, 128, 128)
A100 = Arithmetic("a100", np.float32, "a100", ("fp16", "fp16"), "fp16")


def _geometry(
    x: np.ndarray, w: np.ndarray, stride: int, pad: int, dilation: int, groups: int, turned: bool = False
) -> ConvGeometry:
    k, size = w.shape[2:], x.shape[2:]
    if turned:
        out = tuple((s - 1) * stride - 2 * pad + dilation * (q - 1) + 1 for s, q in zip(size, k, strict=True))
        features = w.shape[1]
    else:
        out = tuple((s + 2 * pad - dilation * (q - 1) - 1) // stride + 1 for s, q in zip(size, k, strict=True))
        features = w.shape[0] // groups
    rank = len(k)
    return ConvGeometry(
        k,
        (stride,) * rank,
        (dilation,) * rank,
        (pad,) * 2 * rank,
        size,
        out,
        x.shape[1] // groups,
        features,
        x.shape[0],
        turned,
    )


def _by_definition(x: np.ndarray, w: np.ndarray, g: ConvGeometry, groups: int) -> np.ndarray:
    out = np.zeros((x.shape[0], w.shape[0], *g.out_spatial))
    per = w.shape[0] // groups
    for n, f, *at in itertools.product(*map(range, out.shape)):
        for c, *tap in itertools.product(*map(range, w.shape[1:])):
            cell = [at[i] * g.stride[i] - g.padding[i] + tap[i] * g.dilation[i] for i in range(len(at))]
            if all(0 <= v < s for v, s in zip(cell, g.in_spatial, strict=True)):
                out[(n, f, *at)] += x[(n, f // per * w.shape[1] + c, *cell)] * w[(f, c, *tap)]
    return out


CASES = [
    (1, 1, 1, 1, (5, 4)),
    (2, 1, 1, 2, (5, 6)),
    (1, 0, 2, 1, (7, 6)),
    (2, 2, 2, 4, (6, 5)),
    (3, 1, 1, 1, (7,)),
    (1, 1, 1, 1, (3, 4, 3)),
]


@pytest.mark.parametrize(("stride", "pad", "dilation", "groups", "size"), CASES)
@pytest.mark.parametrize("arithmetic", [EXACT, FP32, TPU3, A100], ids=lambda a: a.name)
def test_convolution(
    arithmetic: Arithmetic, stride: int, pad: int, dilation: int, groups: int, size: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(-4, 5, (2, 4, *size)).astype(np.float32)  # small integers: every order and format is exact
    w = rng.integers(-3, 4, (8, 4 // groups, *(2, 3, 2)[: len(size)])).astype(np.float32)
    g = _geometry(x, w, stride, pad, dilation, groups)
    assert np.array_equal(convolve(x, w, g, groups, arithmetic), _by_definition(x, w, g, groups))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("arithmetic", [EXACT, FP32, TPU3, A100], ids=lambda a: a.name)
def test_transposed_convolution_is_the_adjoint(arithmetic: Arithmetic, groups: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-4, 5, (2, 4, 4, 5)).astype(np.float32)
    w = rng.integers(-3, 4, (4, 3, 3, 2)).astype(np.float32)  # (c, features / groups, kernel)
    g = _geometry(x, w, 2, 1, 1, groups, turned=True)
    made = transposed(x, w, g, groups, arithmetic)
    y = rng.integers(-4, 5, made.shape).astype(np.float32)
    back = ConvGeometry(g.kernel, g.stride, g.dilation, g.padding, g.out_spatial, g.in_spatial, 3, 4 // groups, 2)
    # <T x, y> = <x, C y> with C the convolution of the same weights
    assert float((made * y).sum()) == float((x * convolve(y, w, back, groups, EXACT)).sum())


def _bf16(x: np.ndarray) -> np.ndarray:
    return rounded(x.astype(np.float32), "bf16")


@pytest.mark.parametrize(
    ("channels", "groups", "features"), [(5, 1, 3), (150, 1, 2), (6, 6, 6), (6, 3, 6), (140, 2, 4)]
)
def test_systolic_order_of_a_convolution(channels: int, groups: int, features: int) -> None:
    """Chains of the schedule, each from zero, one fp32 rounding a product, chain sums added in fp32 (tpu-v3)."""
    rng = np.random.default_rng(3)
    x, w = (
        rng.standard_normal((1, channels, 4, 4), np.float32),
        rng.standard_normal((features, channels // groups, 3, 3), np.float32),
    )
    g = _geometry(x, w, 1, 1, 1, groups)
    made = convolve(x, w, g, groups, TPU3)
    xb, wb = np.pad(_bf16(x), ((0, 0), (0, 0), (1, 1), (1, 1))), _bf16(w)
    per, deep = features // groups, channels // groups
    for f, i, j in [(0, 0, 0), (features - 1, 1, 2), (features // 2, 3, 3)]:
        first = f // per * deep
        total: np.float32 | None = None
        # a kernel row is one chain where its channels fit the 128 rows of the array, else a tap is ceil(c / 128)
        if 3 * deep <= 128:
            chains = [[(r, s, c) for s in range(3) for c in range(deep)] for r in range(3)]
        else:
            chains = [
                [(r, s, c) for c in range(lo, min(lo + 128, deep))]
                for r in range(3)
                for s in range(3)
                for lo in range(0, deep, 128)
            ]
        for chain in chains:
            part = np.float32(0)
            for r, s, c in chain:
                part = np.float32(part + xb[0, first + c, i + r, j + s] * wb[f, c, r, s])
            total = part if total is None else np.float32(total + part)
        assert made[0, f, i, j] == total


SHAPES = [
    {"c": 200, "h": 7, "w": 7, "k": 130, "r": 3, "s": 3, "padding": 1}, {"c": 16, "h": 9, "w": 9, "k": 32, "r": 3, "s": 3},
    {"c": 300, "h": 6, "w": 6, "k": 8, "r": 1, "s": 1}, {"c": 12, "h": 8, "w": 8, "k": 12, "r": 3, "s": 3, "groups": 12},
    {"c": 24, "h": 8, "w": 8, "k": 48, "r": 3, "s": 3, "groups": 4},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chains_are_those_of_the_schedule(shape: dict[str, int]) -> None:
    net = hwsim.conv2d(n=1, **shape)
    schedule = hwsim.simulate(net, "tpu-v3", precision="bf16").schedule
    steps = [
        int(schedule.extent[i.row][2])
        for kernel in range(schedule.kernels)
        for i in schedule.expand(kernel)
        if int(schedule.unit[i.row]) == UNIT["matrix"]
    ]
    lengths = [stop - start for start, stop in chains_of(fold_plan(net.products["1"][0], 128, 128, "row"), 128)]
    assert len(steps) % len(lengths) == 0  # once for every tile of m and n
    assert steps == lengths * (len(steps) // len(lengths))


def test_grouped_packing_keeps_groups_of_four_aligned() -> None:
    """Six groups of 5 x 3 products lie at rows 0, 15, 30 …: a v4 adder joins the products of two neighbouring groups."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((1, 30, 4, 4), np.float32), rng.standard_normal((6, 5, 3, 3), np.float32)
    g = _geometry(x, w, 1, 0, 1, 6)
    made = convolve(x, w, g, 6, TPU4)
    xb, wb = _bf16(x).astype(np.float64), _bf16(w).astype(np.float64)
    f = 1
    total: np.float32 | None = None
    for r in range(3):
        row = np.zeros(96)
        row[15 * f : 15 * f + 15] = [xb[0, 5 * f + c, r, s] * wb[f, c, r, s] for s in range(3) for c in range(5)]
        part = np.float32(0)
        for four in row.reshape(-1, 4):
            part = np.float32(np.float64(part) + four.sum())  # bf16 products of like size: the float64 sum is exact
        total = part if total is None else np.float32(total + part)
    assert made[0, f, 0, 0] == total


def test_batched_products_broadcast_and_refuse() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 1, 3, 4), np.float32), rng.standard_normal((5, 4, 6), np.float32)
    for arithmetic in (EXACT, FP32, TPU3, A100):
        made = product(a, b, arithmetic)
        assert made.shape == (2, 5, 3, 6)
        assert np.allclose(made, a.astype(float) @ b.astype(float), atol=0.05)
    one = product(a[0, 0][None], b[2][None], TPU3)
    assert np.array_equal(one[0], product(a, b, TPU3)[0, 2])
    with pytest.raises(HwsimError, match="cannot multiply"):
        product(a, rng.standard_normal((3, 3)), FP32)


@pytest.mark.parametrize("profile", ["h100", "ada"])
def test_fp8_operands_are_scaled_by_powers_of_two(profile: str) -> None:
    fp8 = Arithmetic("fp8", np.float32, profile, ("e4m3", "e4m3"), "bf16", scaled=True)
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((4, 32), np.float32), rng.standard_normal((32, 8), np.float32)
    made = product(a, b, fp8)
    assert np.array_equal(product(a * np.float32(2**-40), b, fp8), made * np.float32(2**-40))  # no underflow
    assert np.abs(made - a.astype(float) @ b).max() < 1.0
