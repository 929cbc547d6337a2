"""How `fused_dot`, `gemm` and the parameter table are called, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from hwsim.arithmetic import decode, encode, fused_dot, gemm
from hwsim.arithmetic.profiles import architecture, devices, find_rule, rules
from hwsim.errors import HwsimError

H = np.zeros((2, 16), np.uint16)


@pytest.mark.parametrize(
    ("name", "arch"),
    [("a100-sxm4-80gb", "ampere"), ("NVIDIA H100", "hopper"), ("rtx4060", "ada"), ("RTX Blackwell", "rtx-blackwell"),
     ("jetson-orin-nano", "orin"), ("B200", "blackwell"), ("sm_89", "ada"), ("Ada Lovelace", "ada"), ("l40s", "ada")],
)  # fmt: skip
def test_device_names(name: str, arch: str) -> None:
    assert architecture(name) == arch


def test_every_line_of_the_table_is_complete() -> None:
    for rule in rules():
        assert rule.evidence.split(":")[0] in ("recorded", "vectors", "definition", "assumed")
        assert rule.source and rule.depths
        if rule.rule in ("fused", "fp16-pairs", "groups-of-16"):
            assert (
                rule.block_products > 0
                and rule.e_zero
                == -108 - rule.fraction_bits + 112 * (rule.output == "fp16") + (4 if rule.rule == "groups-of-16" else 0)
            ) or rule.fraction_bits == 13
    assert {rule.arch for rule in rules()} == set(devices().values())


def test_where_a_chip_has_two_answers() -> None:
    rng = np.random.default_rng(0)
    a, b = encode(rng.normal(size=(200, 32)), "e4m3"), encode(rng.normal(size=(200, 32)), "e4m3")
    c = encode(rng.normal(size=200), "fp32")
    for profile, native in (("h100", "wgmma"), ("b200", "tcgen05.mma")):
        how: dict[str, Any] = {"profile": profile, "input": "e4m3"}
        default = fused_dot(a, b, c, **how)
        assert np.array_equal(default, fused_dot(a, b, c, instruction=native, **how))
        assert (default != fused_dot(a, b, c, instruction="mma.sync", **how)).sum() > 10
    assert find_rule("t4", ("fp16", "fp16"), "fp32", "m8n8k4")[0].block_products == 4
    assert find_rule("t4", ("fp16", "fp16"), "fp32")[0].block_products == 8
    assert find_rule("b200", ("e2m1", "e2m1"), "fp32", "kind::mxf4nvf4", "ue4m3")[0].rule == "groups-of-16"


def test_c_may_be_missing_and_integers_signed() -> None:
    one = encode(np.ones((1, 8)), "fp16")
    assert decode(fused_dot(one, one, None, profile="a100", input="fp16"), "fp32").tolist() == [8.0]
    s = np.full((1, 16), -128, np.int8)
    c = np.array([2**31 - 5], np.int32)
    how: dict[str, Any] = {"profile": "a100", "input": "s8", "output": "s32"}
    assert fused_dot(s, s, c, **how).tolist() == [2**31 - 5 + 16 * 2**14 - 2**32]
    assert fused_dot(s, s, c, saturate=True, **how).tolist() == [2**31 - 1]
    assert fused_dot(s.view(np.uint8), s.view(np.uint8), c.view(np.uint32), **how).dtype == np.uint32


def test_saturation_after_every_instruction() -> None:
    a = np.full((1, 64), 127, np.int8)
    b = np.concatenate([np.full((32, 1), 127, np.int8), np.full((32, 1), -127, np.int8)])
    c = np.array([[2**31 - 1]], np.int32)
    clamped = gemm(a, b, c, profile="a100", input="int8", saturate=True)
    assert clamped.tolist() == [[2**31 - 1 - 32 * 127 * 127]]
    assert gemm(a, b, c, profile="a100", input="int8").tolist() == [[2**31 - 1]]


def test_integer_products_exact_where_float32_is_not() -> None:
    rng = np.random.default_rng(1)
    a = np.full((3, 5000), 255, np.uint8)
    b = rng.integers(200, 256, (5000, 4)).astype(np.uint8)
    want = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.uint32)
    assert np.array_equal(gemm(a, b, profile="h100", input="uint8"), want)
    x, y = rng.integers(-8, 8, (9, 300)).astype(np.int8), rng.integers(0, 16, (300, 4)).astype(np.uint8)
    assert np.array_equal(gemm(x, y, profile="a100", input=("s4", "u4")), x.astype(np.int64) @ y)
    p, q = rng.integers(0, 256, (3, 40)).astype(np.uint8), rng.integers(0, 256, (40, 2)).astype(np.uint8)
    bits = np.unpackbits(p, axis=1)[:, :, None] ^ np.unpackbits(q, axis=0)
    assert np.array_equal(gemm(p, q, profile="a100", input="b1"), bits.sum(axis=1))
    both = np.unpackbits(p, axis=1)[:, :, None] & np.unpackbits(q, axis=0)
    assert np.array_equal(gemm(p, q, profile="h100", input="b1", instruction="mma.sync.and"), both.sum(axis=1))


def test_promotion_starts_chains_anew() -> None:
    rng = np.random.default_rng(2)
    a, b = encode(rng.normal(size=(4, 256)), "e4m3"), encode(rng.normal(size=(256, 4)), "e4m3")
    how: dict[str, Any] = {"profile": "h100", "input": "e4m3"}
    parts = [decode(gemm(a[:, k : k + 128], b[k : k + 128], **how), "fp32").astype(np.float32) for k in (0, 128)]
    promoted = gemm(a, b, promote=128, **how)
    assert np.array_equal(promoted, (parts[0] + parts[1]).view(np.uint32))
    assert not np.array_equal(promoted, gemm(a, b, **how))
    with pytest.raises(HwsimError, match="multiple"):
        gemm(a, b, promote=100, **how)


@pytest.mark.parametrize(
    ("a", "how", "says"),
    [
        (H, {"profile": "a1000"}, "a100"),
        (H, {"profile": "a100", "input": "e4m3"}, "fp16"),
        (H, {"profile": "v100", "input": "bf16"}, "volta"),
        (H, {"profile": "a100", "input": "bf16", "output": "fp16"}, "bf16 gives fp32"),
        (H, {"profile": "v100"}, "at most 4"),
        (H, {"profile": "a100", "instruction": "m16n8k8"}, "at most 8"),
        (H, {"profile": "a100", "instruction": "wgmma"}, "mma.sync"),
        (H, {"profile": "a100", "instruction": "hmma"}, "family"),
        (H, {"profile": "a100", "instruction": "mma.sync.m16n8k16.f32.bf16.bf16.f32"}, "names formats"),
        (H, {"profile": "a100", "c_format": "fp16"}, "adds c in fp32"),
        (H, {"profile": "a100", "saturate": True}, "saturate"),
        (H.astype(np.float16), {"profile": "a100"}, "bit patterns"),
        (H.astype(np.uint8), {"profile": "a100"}, "uint16"),
        (H[0], {"profile": "a100"}, "two arrays"),
        (H, {"profile": "a100", "scale_a": H}, "both"),
        (H, {"profile": "a100", "scale_a": H, "scale_b": H}, "ue8m0"),
        (np.full((1, 32), 16, np.uint8), {"profile": "a100", "input": "uint4", "output": "int32"}, "codes are 0 to 15"),
        (np.zeros((1, 16), np.uint8), {"profile": "h100", "input": "e4m3", "instruction": "mma.sync"}, "exactly 32"),
        (
            np.zeros((1, 64), np.uint8),
            {
                "profile": "b200",
                "input": "e2m1",
                "scale_a": np.zeros((1, 3), np.uint8),
                "scale_b": np.zeros((1, 3), np.uint8),
            },
            "scales",
        ),
    ],
)
def test_refusals_are_one_clear_line(a: Any, how: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"input": "fp16"} | how
    with pytest.raises(HwsimError, match=says) as caught:
        fused_dot(a, a, None, **given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "how", "says"),
    [
        ((3, 4), {}, "cannot multiply"),
        ((2, 0), {}, "cannot multiply"),
        ((2, 4), {"C": np.zeros((3, 3), np.uint32)}, "C is"),
        ((2, 4), {"engine": "cuda"}, "numba"),
        ((2, 4), {"threads": 0}, "threads"),
        ((2, 4), {"sparsity": "1:8"}, "2:4"),
    ],
)
def test_gemm_refusals(shape: tuple[int, int], how: dict[str, Any], says: str) -> None:
    c = how.pop("C", None)
    b = np.zeros((shape[1] + (shape[0] == 3), 2), np.float16)
    with pytest.raises(HwsimError, match=says):
        gemm(np.zeros(shape, np.float16), b, c, profile="a100", input="fp16", **how)


def test_importing_costs_little() -> None:
    code = (
        "import sys, hwsim.arithmetic; from hwsim.arithmetic import gemm, fused_dot;"
        "print([m for m in ('numba','scipy','pandas','ml_dtypes') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_scales_and_depth_choose_the_kind() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(0, 16, (50, 64)).astype(np.uint8) for _ in range(2))
    s, t = (rng.integers(100, 126, (50, 4)).astype(np.uint8) for _ in range(2))
    how: dict[str, Any] = {"profile": "b200", "input": "e2m1"}
    sixteen = fused_dot(a, b, None, scale_a=s, scale_b=t, **how)
    assert np.array_equal(sixteen, fused_dot(a, b, None, scale_a=s, scale_b=t, instruction="kind::mxf4nvf4", **how))
    nv = fused_dot(a, b, None, scale_a=s, scale_b=t, profile="b200", input="nvfp4")
    named = fused_dot(a, b, None, scale_a=s, scale_b=t, instruction="kind::mxf4nvf4.ue4m3", **how)
    assert np.array_equal(nv, named) and not np.array_equal(nv, sixteen)
    assert np.array_equal(gemm(a, b.T, scale_a=s, scale_b=t.T, profile="b200", input="nvfp4").diagonal(), nv)
    half = fused_dot(a[:, :32], b[:, :32], None, scale_a=s[:, :1], scale_b=t[:, :1], **how)
    mx8 = {"instruction": "kind::mxf8f6f4", **how}
    assert np.array_equal(half, fused_dot(a[:, :32], b[:, :32], None, scale_a=s[:, :1], scale_b=t[:, :1], **mx8))


def test_byte_order_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    a, b = encode(rng.normal(size=(3, 16)), "fp16"), encode(rng.normal(size=(16, 3)), "fp16")
    swapped = a.astype(a.dtype.newbyteorder(">"))
    how: dict[str, Any] = {"profile": "h100", "input": "fp16"}
    assert np.array_equal(gemm(swapped, b, **how), gemm(a, b, **how))


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: fused_dot(H, H, None, profile="a100", input=None), "pair of formats"),  # type: ignore[arg-type]
        (lambda: fused_dot(H, H, None, profile="a100", input="fp16", instruction=5), "text"),  # type: ignore[arg-type]
        (lambda: decode(np.array([1.5]), "fp16"), "integers expected"),
        (lambda: encode(np.array([1j]), "fp16"), "complex"),
        (lambda: encode("x", "fp16"), "float64 or int64"),
    ],
)
def test_wrong_kinds_of_argument(run: Any, says: str) -> None:
    with pytest.raises(HwsimError, match=says):
        run()
