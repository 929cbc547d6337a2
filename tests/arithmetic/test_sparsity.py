"""2:4: what is kept, how it is stored, what the hardware selects, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from hwsim.arithmetic import compress, decompress, fused_dot, gemm, permute_columns, prune, sparse_dot
from hwsim.arithmetic.formats import decode, encode
from hwsim.arithmetic.sparsity import Compressed, complies, pack_metadata, selected, unpack_metadata
from hwsim.errors import HwsimError

Array = np.ndarray[Any, Any]


def retained(w: Array, fmt: str = "fp16") -> float:
    return float(np.abs(w)[prune(w, fmt=fmt)].sum())


@pytest.mark.parametrize(("fmt", "group", "patterns"), [
    ("fp16", 4, [p for p in itertools.product((0, 1), repeat=4) if sum(p) == 2]),
    ("tf32", 2, [(0, 1), (1, 0)]),
    ("int4", 8, [tuple(np.repeat(p, 2)) for p in itertools.product((0, 1), repeat=4) if sum(p) == 2]),
])  # fmt: skip
def test_magnitude_keeps_the_best_pattern_of_each_group(fmt: str, group: int, patterns: list[tuple[int, ...]]) -> None:
    w = np.random.default_rng(0).normal(size=(40, 6 * group))
    best = (np.abs(w).reshape(40, 6, 1, group) * np.array(patterns)).sum(axis=-1).max(axis=-1)
    mask = prune(w, fmt=fmt)
    assert np.allclose((np.abs(w) * mask).reshape(40, 6, group).sum(axis=-1), best, rtol=1e-13)
    assert mask.sum() * 2 == mask.size and complies(w * mask, fmt=fmt)


def test_ties_keep_the_earliest_and_tiles_hold_both_ways() -> None:
    assert prune(np.ones((1, 8))).tolist() == [[True, True, False, False] * 2]
    w = np.random.default_rng(1).normal(size=(8, 12))
    mask = prune(w, method="tile")
    assert complies(w * mask, fmt="fp16") and complies((w * mask).T, fmt="fp16")
    best = 0.0
    rows = [p for p in itertools.product((0, 1), repeat=4) if sum(p) == 2]
    for four in itertools.product(rows, repeat=4):
        if (np.sum(four, axis=0) == 2).all():
            best = max(best, float((np.abs(w[:4, :4]) * np.array(four)).sum()))
    assert float((np.abs(w) * mask)[:4, :4].sum()) == pytest.approx(best, rel=1e-13)


def test_permutation_keeps_more_and_is_a_permutation() -> None:
    w = np.random.default_rng(2).normal(size=(16, 24)) * np.tile([8.0, 8, 8, 8, 1, 1, 1, 1], 3)
    order = permute_columns(w)
    assert sorted(order.tolist()) == list(range(24))
    assert retained(w[:, order]) > retained(w) * 1.05
    assert np.array_equal(order, permute_columns(w))
    small = np.random.default_rng(3).normal(size=(4, 8))  # against all 35 ways to split eight columns
    best = max(
        retained(small[:, [0, *rest, *(c for c in range(1, 8) if c not in rest)]])
        for rest in itertools.combinations(range(1, 8), 3)
    )
    assert retained(small[:, permute_columns(small)]) == pytest.approx(best, rel=1e-13)


@pytest.mark.parametrize("fmt", ["fp16", "bf16", "tf32", "e4m3", "int8", "int4"])
def test_compress_and_back(fmt: str) -> None:
    rng = np.random.default_rng(4)
    w = rng.integers(-7, 8, size=(9, 32)) * prune(rng.normal(size=(9, 32)), fmt=fmt)
    bits = encode(w, fmt)
    packed = compress(bits, fmt=fmt)
    assert packed.values.shape == (9, 16)
    assert np.array_equal(decompress(packed, fmt=fmt), bits)
    assert np.array_equal(
        np.take_along_axis(bits, selected(packed.metadata, fmt=fmt, ordered=True), axis=1), packed.values
    )


def test_layout_of_metadata() -> None:
    packed = compress(np.array([[0, 5, 0, 7, 1, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0]], np.int8), fmt="int8")
    assert packed.metadata.tolist() == [[0b1101, 0b0100, 0b1100, 0b0100]]
    assert packed.values.tolist() == [[5, 7, 1, 2, 0, 3, 0, 0]]
    words = pack_metadata(np.tile(packed.metadata, 2))
    assert words.tolist() == [[0x4C4D4C4D]]
    assert np.array_equal(unpack_metadata(words), np.tile(packed.metadata, 2))
    tf32 = compress(np.array([[0, 1, 2, 0]], np.uint32), fmt="tf32")
    assert tf32.metadata.tolist() == [[0b1110, 0b0100]]


@pytest.mark.parametrize("nibble", [0b0000, 0b0101, 0b1010, 0b1111, 16, -1])
def test_invalid_metadata_is_refused(nibble: int) -> None:
    with pytest.raises(HwsimError, match="invalid"):
        selected(np.array([[nibble]]), fmt="fp16")


def test_more_refusals() -> None:
    with pytest.raises(HwsimError, match="invalid"):
        selected(np.array([[0b0001]]), fmt="fp16", ordered=True)
    selected(np.array([[0b0001]]), fmt="fp16")
    with pytest.raises(HwsimError, match="invalid"):
        selected(np.array([[0b1001]]), fmt="tf32")
    with pytest.raises(HwsimError, match="prune first"):
        compress(np.ones((2, 4), np.float32), fmt="fp16")
    with pytest.raises(HwsimError, match="multiple of 4"):
        prune(np.ones((2, 6)))
    with pytest.raises(HwsimError, match="magnitude"):
        prune(np.ones((2, 8)), method="random")
    with pytest.raises(HwsimError, match="ampere"):
        gemm(np.zeros((2, 8), np.float16), np.zeros((8, 2), np.float16), profile="t4", input="fp16", sparsity="2:4")


@pytest.mark.parametrize(("fmt", "profile", "k"), [("fp16", "a100", 32), ("bf16", "h100", 32), ("tf32", "a100", 16)])
def test_sparse_product_gathers_then_adds_as_the_dense_instruction(fmt: str, profile: str, k: int) -> None:
    rng = np.random.default_rng(5)
    w = rng.normal(size=(6, 3 * k))
    bits, b = encode(w * prune(w, fmt=fmt), fmt), encode(rng.normal(size=(3 * k, 5)), fmt)
    packed = compress(bits, fmt=fmt)
    want = np.zeros((6, 5), np.uint32)
    columns = selected(packed.metadata, fmt=fmt)
    groups = packed.metadata.shape[1] // 3
    for i, j in np.ndindex(6, 5):
        c = np.zeros(1, np.uint32)
        for s in range(3):
            half = slice(s * k // 2, (s + 1) * k // 2)
            at = columns[i, half]
            dense = fused_dot(packed.values[i : i + 1, half], b[at, j][None], c, profile=profile, input=fmt)
            meta = packed.metadata[i : i + 1, s * groups : (s + 1) * groups]
            part = b[s * k : (s + 1) * k, j][None]
            c = sparse_dot(packed.values[i : i + 1, half], meta, part, c, profile=profile, input=fmt)
            assert c == dense
        want[i, j] = c[0]
    for engine in ("numpy", "numba"):
        got = gemm(bits, b, profile=profile, input=fmt, sparsity="2:4", engine=engine)
        assert np.array_equal(got, want)
    assert np.array_equal(gemm(packed, b, profile=profile, input=fmt), want)


def test_unordered_metadata_and_unselected_infinities() -> None:
    b = encode([[np.inf, 1.0, 2.0, np.nan]], "fp16")
    a = encode([[3.0, 5.0]], "fp16")
    got = sparse_dot(a, np.array([[0b0110]]), b, None, profile="a100", input="fp16")  # 3 meets 2, 5 meets 1
    assert decode(got, "fp32").tolist() == [11.0]
    full = decompress(Compressed(a, np.array([[0b1001]])), fmt="fp16")
    assert decode(gemm(full, b.T, profile="a100", input="fp16", sparsity="2:4"), "fp32").tolist() == [[13.0]]


def test_sparse_integers() -> None:
    rng = np.random.default_rng(6)
    w = rng.integers(-128, 128, (8, 64))
    w = (w * prune(w, fmt="int8")).astype(np.int8)
    b = rng.integers(-128, 128, (64, 8)).astype(np.int8)
    want = w.astype(np.int64) @ b
    assert np.array_equal(gemm(w, b, profile="a100", input="int8", sparsity="2:4"), want)
    assert np.array_equal(gemm(compress(w, fmt="int8"), b, profile="a100", input="int8"), want)


@pytest.mark.parametrize(
    ("profile", "fmt", "instruction", "says"),
    [("v100", "fp16", None, "no sparse"), ("h100", "e4m3", "mma.sync", "no 2:4"), ("t4", "int8", None, "no sparse")],
)
def test_machines_without_sparse_instructions(profile: str, fmt: str, instruction: str | None, says: str) -> None:
    dtype = np.uint16 if fmt == "fp16" else np.uint8
    output = "int32" if fmt == "int8" else "fp32"
    how: dict[str, Any] = {"profile": profile, "input": fmt, "output": output, "instruction": instruction}
    with pytest.raises(HwsimError, match=says):
        sparse_dot(np.zeros((2, 2), dtype), np.full((2, 1), 4), np.zeros((2, 4), dtype), None, **how)
    with pytest.raises(HwsimError, match=says):
        gemm(np.zeros((2, 32), dtype), np.zeros((32, 2), dtype), sparsity="2:4", **how)
