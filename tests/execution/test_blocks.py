"""Block-scaled operands: scales by the definition, products by the instruction, and only in linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.arithmetic import fused_dot
from hwsim.arithmetic.formats import decode
from hwsim.errors import HwsimError
from hwsim.execution.blocks import blocks_of, values_of
from hwsim.execution.choose import Assignment, machine
from hwsim.execution.products import product
from hwsim.network.builder import Builder

FORMATS = {"nvfp4": ("e2m1", 16, "ue4m3"), "mxfp4": ("e2m1", 32, "ue8m0"), "mxfp8": ("e4m3", 32, "ue8m0")}
LARGEST = {"e2m1": 6.0, "e4m3": 448.0}
RANDOM = np.random.default_rng(7)


def grid(element: str) -> Any:
    """All finite values of an element format."""
    codes = np.arange(16 if element == "e2m1" else 256, dtype=np.uint8)
    values = np.asarray(decode(codes, element), np.float64)
    return np.unique(values[np.isfinite(values)])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("k", [64, 50])
def test_blocks_are_what_the_recipe_says(name: str, k: int) -> None:
    element, block, scale = FORMATS[name]
    values = (RANDOM.standard_normal((5, k)) * 10.0 ** RANDOM.integers(-3, 2, (5, 1))).astype(np.float32)
    values[2] = 0.0
    found = blocks_of(values, element, block, scale)
    kept = values_of(found, element, block, scale)
    assert kept.shape == values.shape and not kept[2].any()
    whole = float(np.abs(values).max()) / (LARGEST[element] * 448) if scale == "ue4m3" else 1.0
    assert found.factor == pytest.approx(whole)
    steps = grid(element)
    for row in range(5):
        for first in range(0, k, block):
            part = values[row, first : first + block].astype(np.float64)
            peak = np.abs(part).max()
            if not peak:
                continue
            if scale == "ue4m3":
                eight = grid("e4m3")
                by = eight[np.abs(eight - peak / (LARGEST[element] * whole)).argmin()] * whole
            else:
                by = 2.0 ** (math.floor(math.log2(peak)) - math.floor(math.log2(LARGEST[element])))
            if by == 0.0:  # the block is too small beside the tensor's largest value
                assert not kept[row, first : first + block].any()
                continue
            near = np.abs(part[:, None] / by - steps).min(axis=1)  # saturating: the ends are nearest
            off = np.abs(part - kept[row, first : first + block]) / by
            assert np.allclose(off, near, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_a_product_is_one_instruction_after_the_other(name: str) -> None:
    element, block, scale = FORMATS[name]
    depth = 32 if name == "mxfp8" else 64
    a, b = (RANDOM.standard_normal(s).astype(np.float32) for s in ((3, 2 * depth), (2 * depth, 4)))
    arithmetic = Assignment(machine("b200"), name).of("fc", "linear")
    made = product(a, b, arithmetic)
    x, y = blocks_of(a, element, block, scale), blocks_of(b.T, element, block, scale)
    pair = ("nvfp4", "nvfp4") if name == "nvfp4" else (element, element)
    for i in range(3):
        for j in range(4):
            total = None
            for at in range(0, 2 * depth, depth):
                scales = slice(at // block, (at + depth) // block)
                total = fused_dot(
                    x.bits[i : i + 1, at : at + depth], y.bits[j : j + 1, at : at + depth], total, profile="b200",
                    input=pair, scale_a=x.scales[i : i + 1, scales], scale_b=y.scales[j : j + 1, scales],
                )  # fmt: skip
            want = np.asarray(total).view(np.float32)[0] * np.float32(x.factor * y.factor)
            assert made[i, j] == want


def test_only_linear_layers_are_block_scaled() -> None:
    chosen = Assignment(machine("b200"), "nvfp4")
    assert chosen.of("fc", "linear").block == 16 and chosen.of("fc", "linear").scale == "ue4m3"
    for op in ("conv", "attention", "matmul"):
        assert chosen.of("x", op).block == 0 and chosen.of("x", op).inputs == ("bf16", "bf16")
    with pytest.raises(HwsimError, match="e2m1"):
        Assignment(machine("h100-sxm"), "nvfp4")


def test_more_bits_are_nearer() -> None:
    net = Builder("mlp")
    hidden = net.linear(net.input("x", (16, 96)), 128, bias=False, fused="relu", name="first")
    small = net.build(net.linear(hidden, 64, bias=False, name="second"))
    reports = hwsim.numerics(small, "b200", precisions=("mxfp8", "nvfp4", "mxfp4"))
    last = [report.layers[-1].snr_db for report in reports]
    assert last == sorted(last, reverse=True) and last[-1] > 10
