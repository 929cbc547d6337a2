"""Every operator of the table: shapes, weights, products and vector work against counts made another way."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.builder import Builder, same_padding
from hwsim.network.graph import Layer, Network, Tensor
from hwsim.network.ops import FUSED, OPS, check_layer, format_attrs, parse_attrs, vector_work
from hwsim.network.ops_contract import broadcast, window_out
from hwsim.network.ops_vector import BINARY, NORM, REDUCE, UNARY

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """One operator on small shapes with hand-counted results."""

    op: str
    ins: tuple[Shape, ...]
    out: Shape
    attrs: str = ""
    macs: int = 0
    weights: int = 0
    alu: int | None = None
    special: int | None = None
    read: int | None = None
    write: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)


X = (2, 3, 8, 8)
CASES = [
    Case("conv", (X,), (2, 6, 4, 4), "k=3x3 s=2 p=1 bias", macs=2 * 16 * 6 * 27, weights=6 * 27 + 6),
    Case("conv", ((2, 8, 8, 6),), (2, 8, 8, 6), "k=5x5 p=2 g=6 nhwc", macs=2 * 64 * 6 * 25, weights=6 * 25),
    Case("conv", ((1, 4, 20),), (1, 8, 16), "k=3 d=2", macs=16 * 8 * 12, weights=8 * 12),
    Case("conv", ((1, 2, 4, 4, 4),), (1, 5, 2, 2, 2), "k=3x3x3 s=2 p=1", macs=8 * 5 * 54, weights=5 * 54),
    Case("conv", ((1, 1, 5, 5),), (1, 1, 6, 5), "k=2x2 p=1x0x1x1", macs=30 * 4, weights=4),
    Case("conv_transpose", ((1, 4, 5, 5),), (1, 2, 10, 10), "k=2x2 s=2 bias", macs=25 * 4 * 2 * 4, weights=34),
    Case("conv_transpose", ((1, 4, 5, 5),), (1, 2, 10, 10), "k=3x3 s=2 p=1 op=1", macs=25 * 4 * 2 * 9, weights=72),
    Case("linear", ((2, 7, 16),), (2, 7, 10), "k=16 bias", macs=14 * 160, weights=170),
    Case("expert_linear", ((2, 8, 16),), (2, 8, 10), "k=16 experts=4", macs=16 * 160, weights=4 * 160),
    Case("matmul", ((2, 3, 4, 5), (2, 3, 5, 6)), (2, 3, 4, 6), macs=6 * 4 * 5 * 6),
    Case("matmul", ((2, 1, 4, 5), (1, 3, 6, 5)), (2, 3, 4, 6), "bt", macs=6 * 4 * 5 * 6),
    Case("attention", ((2, 4, 6, 8), (2, 2, 6, 8), (2, 2, 6, 5)), (2, 4, 6, 5), "causal", macs=8 * 6 * 6 * 13,
         alu=5 * 8 * 36, special=8 * 36),
    Case("attention", ((1, 4, 1, 8),) * 3, (1, 4, 1, 8), "causal cache=9", macs=4 * 10 * 16, alu=200, special=40),
    Case("attention", ((1, 4, 1, 8),) * 3, (1, 4, 1, 8), "cache=90 window=16", macs=4 * 16 * 16, alu=320, special=64),
    Case("lstm", ((2, 5, 6),), (2, 5, 8), "h=8 bias", macs=10 * 4 * 8 * (6 + 8), weights=4 * 8 * 14 + 32),
    Case("lstm", ((5, 2, 6),), (2, 16), "h=8 bi last seq_first", macs=10 * 2 * 4 * 8 * 14, weights=2 * 4 * 8 * 14),
    Case("lstm", ((2, 5, 6),), (2, 5, 3), "h=8 proj=3", macs=10 * (32 * (6 + 3) + 24), weights=32 * 9 + 24),
    Case("gru", ((2, 5, 6),), (2, 5, 8), "h=8 bias bias2", macs=10 * 24 * 14, weights=24 * 14 + 48),
    Case("rnn", ((2, 5, 6),), (2, 5, 8), "h=8", macs=10 * 8 * 14, weights=8 * 14),
    Case("svdf", ((2, 6),), (2, 4), "filters=8 memory=5 rank=2 bias", macs=2 * 8 * (6 + 5), weights=8 * 11 + 4, alu=16),
    Case("embedding", ((2, 5),), (2, 5, 8), "rows=100 width=8", weights=800, read=80, write=80, alu=0),
    Case("embedding", ((2, 5),), (2, 8), "rows=100 width=8 bag", weights=800, read=80, write=16, alu=80),
    Case("where", ((2, 3), (2, 3), (3,)), (2, 3), alu=6, read=15, write=6),
    Case("add_n", ((2, 3),) * 4, (2, 3), read=24, write=6),
    Case("max_pool", (X,), (2, 3, 4, 4), "k=2x2", alu=4 * 96, read=384, write=96),
    Case("max_pool", (X,), (2, 3, 4, 4), "k=3x3 s=2 ceil", alu=9 * 96),
    Case("max_pool", (X,), (2, 3, 3, 3), "k=3x3 s=2", alu=9 * 54),
    Case("avg_pool", ((2, 8, 8, 3),), (2, 4, 4, 3), "k=3x3 s=2 p=1 nhwc count_pad", alu=9 * 96),
    Case("adaptive_avg_pool", (X,), (2, 3, 1, 1), "size=1x1", alu=384, read=384, write=6),
    Case("adaptive_max_pool", (X,), (2, 3, 2, 4), "size=2x4", alu=384, read=384, write=48),
    Case("concat", ((2, 3, 4), (2, 5, 4)), (2, 8, 4), "axis=1", read=64, write=64),
    Case("concat", ((2, 3, 4),), (2, 4, 4), "axis=1 constant=1", weights=4, write=32),
    Case("slice", ((2, 8),), (2, 3), "axis=1 start=2", read=6, write=6),
    Case("gather", ((9, 4), (5,)), (5, 4), "axis=0", read=20, write=20),
    Case("transpose", ((2, 3, 4),), (4, 2, 3), "perm=2x0x1", read=24, write=24),
    Case("pad", ((2, 3),), (3, 6), "p=0x1x1x2", write=18),
    Case("pad", ((2, 3),), (2, 5), write=10),
    Case("resize", (X,), (2, 3, 16, 16), "mode=nearest", write=1536),
    Case("grid_sample", (X, (2, 5, 5, 2)), (2, 3, 5, 5), write=150),
    Case("expand", ((2, 1),), (2, 7), write=14),
    Case("tile", ((2, 2),), (4, 6), write=24),
    Case("roll", ((2, 5),), (2, 5), "axes=1 shift=2", write=10),
    Case("flip", ((2, 5),), (2, 5), "axes=1", write=10),
    Case("scatter", ((9, 4), (2,), (2, 4)), (9, 4), "axis=0", write=36),
    Case("depth_to_space", ((1, 12, 2, 2),), (1, 3, 4, 4), "block=2", write=48),
    Case("space_to_depth", ((1, 3, 4, 4),), (1, 12, 2, 2), "block=2", write=48),
    Case("space_to_batch", ((1, 3, 4, 4),), (4, 3, 2, 2), write=48),
    Case("batch_to_space", ((4, 3, 2, 2),), (1, 3, 4, 4), write=48),
    Case("one_hot", ((5,),), (5, 9), write=45),
    Case("constant", (), (3, 4), weights=12, write=12),
    Case("constant", (), (3, 4), "learned", weights=12, write=12),
    Case("copy", ((3, 4),), (3, 4), write=12),
    Case("reshape", ((3, 4),), (2, 6), read=0, write=0),
    Case("identity", ((3, 4),), (3, 4), read=0, write=0),
    Case("split", ((3, 8),), (3, 2), "axis=1 start=4", read=0, write=0),
    Case("all_reduce", ((3, 8),), (3, 8), "ways=4", read=24, write=24),
    Case("all_gather", ((3, 2),), (3, 8), "ways=4 axis=1", read=24, write=24),
    Case("select", ((3, 8),), (3, 2), "i=1", read=0, write=0),
    Case("top_k", ((3, 8),), (3, 2), "k=2", alu=24 * 5, read=24, write=6),
    Case("sort", ((3, 8),), (3, 8), alu=24 * 5),
    Case("nms", ((10, 4), (10,)), (3, 6), "boxes=10", write=18),
    Case("roi_align", (X, (5, 4)), (5, 3, 7, 7), "size=7x7", write=735),
    Case("custom", ((3,),), (4,), "code=Mystery", write=4),
    *(Case(op, ((2, 3, 4),), (2, 3, 4), alu=a * 24, special=s * 24, read=24, write=24, weights=op == "prelu")
      for op, (a, s) in UNARY.items()),
    *(Case(op, ((2, 3, 4), (4,)), (2, 3, 4), alu=a * 24, special=s * 24, read=28, write=24)
      for op, (a, s) in BINARY.items()),
    *(Case(op, ((2, 3, 4),), (2, 4), "axes=1", alu=c[0] * 24, special=c[1] * 24 + c[2] * 8, read=24, write=8)
      for op, c in REDUCE.items()),
    *(Case(op, ((2, 3, 4),), (2, 3, 4), "width=4", weights=4 * c[4], alu=c[0] * 24, special=c[1] * 24 + c[2] * 6)
      for op, c in NORM.items()),
    Case("prelu", ((2, 3, 4),), (2, 3, 4), "width=3", weights=3),
    Case("mul", ((2, 3),), (2, 3), "const=3 learned", weights=3, read=6),
    Case("reduce_mean", ((2, 3, 4),), (2, 1, 1), "axes=1x-1 keep"),
    Case("group_norm", ((2, 8, 4),), (2, 8, 4), "width=8 groups=2 vectors=1", weights=8),
]  # fmt: skip


def layer_of(case: Case) -> Layer:
    srcs = tuple(f"i{k}" for k in range(len(case.ins)))
    return Layer("1", case.op, case.op, srcs, case.out, parse_attrs(case.op, case.attrs, "case"))


def network_of(case: Case) -> Network:
    inputs = tuple(Tensor(f"i{k}", shape) for k, shape in enumerate(case.ins))
    return Network("case", inputs, (layer_of(case),)).validate()


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(OPS)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.attrs.replace(' ', '-')}")
def test_case(case: Case) -> None:
    net = network_of(case)
    assert net.macs == case.macs
    assert sum(w.elements for w in net.weights["1"]) == case.weights
    work = net.vector_work["1"]
    for name in ("alu", "special", "read", "write"):
        if getattr(case, name) is not None:
            assert getattr(work, name) == getattr(case, name), name
    assert parse_attrs(case.op, format_attrs(net.layers[0]), "again") == net.layers[0].attrs
    assert OPS[case.op].doc


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.attrs.replace(' ', '-')}")
def test_wrong_number_of_inputs_is_refused(case: Case) -> None:
    high = OPS[case.op].arity[1]
    shape = case.ins[0] if case.ins else (1,)
    inputs = [shape] * (high + 1)
    layer = Layer("1", "", case.op, tuple("x" * len(inputs)), case.out, parse_attrs(case.op, case.attrs, "case"))
    with pytest.raises(HwsimError, match="inputs, not"):
        check_layer(layer, inputs, case.out, {}, "here")


@pytest.mark.parametrize(
    ("op", "ins", "out", "attrs", "says"),
    [
        ("conv", (X,), (2, 6, 4, 4), "s=2", "needs a kernel"),
        ("conv", (X,), (2, 6, 4, 4), "k=3x3 g=2", "2 groups do not divide 3"),
        ("conv", (X,), (2, 6, 4, 4), "k=3x3 g=0", "groups"),
        ("conv", (X,), (2, 6, 4, 4), "k=9x9", "larger than the padded input"),
        ("conv", (X,), (2, 6, 4, 4), "k=3x3 s=0", "at least 1"),
        ("conv", (X,), (2, 6, 4, 4), "k=3x3x3", "3 values for 2"),
        ("conv", (X,), (2, 6, 4, 4), "k=3x3 p=1x1x1", "p has 3 values"),
        ("conv", (X,), (2, 6, 4), "k=3x3", "same rank"),
        ("conv", ((2, 3),), (2, 3), "k=1", "rank 2"),
        ("conv", (X,), (2, 6, 5, 4), "k=3x3 s=2 p=1", "gives 2x6x4x4"),
        ("linear", ((2, 16),), (2, 4), "k=15", "k=15"),
        ("linear", ((2, 16),), (2, 4, 1), "", "same rank"),
        ("matmul", ((2, 3), (4, 5)), (2, 5), "", "3 and 4"),
        ("matmul", ((3,), (3, 5)), (5,), "", "rank 2 or more"),
        ("matmul", ((2, 2, 3), (3, 3, 5)), (2, 2, 5), "", "broadcast"),
        ("attention", ((1, 4, 6, 8), (1, 3, 6, 8), (1, 3, 6, 8)), (1, 4, 6, 8), "", "multiple of 3"),
        ("attention", ((1, 4, 6, 8), (1, 4, 6, 7), (1, 4, 6, 8)), (1, 4, 6, 8), "", "depths"),
        ("lstm", ((2, 5, 6),), (2, 5, 8), "", "h=HIDDEN"),
        ("lstm", ((2, 6),), (2, 8), "h=8", "rank-3"),
        ("embedding", ((2, 5),), (2, 5, 8), "rows=9", "width=FEATURES"),
        ("concat", ((2, 3), (3, 3)), (2, 6), "axis=1", "differ outside axis 1"),
        ("concat", ((2, 3), (2, 3)), (2, 6), "axis=2", "out of range"),
        ("reshape", ((2, 3),), (7,), "", "cannot reshape 6"),
        ("split", ((2, 3),), (7,), "", "cannot take 7"),
        ("transpose", ((2, 3),), (3, 2), "perm=0x0", "not a permutation"),
        ("pad", ((2, 3),), (2, 2), "", "cannot shrink"),
        ("pad", ((2, 3),), (2, 3), "p=1", "4 amounts"),
        ("expand", ((2, 3),), (2, 6), "", "broadcast"),
        ("add", ((2, 3), (2, 4)), (2, 3), "", "do not broadcast"),
        ("reduce_sum", ((2, 3),), (2,), "axes=2", "out of range"),
        ("relu", ((2, 3),), (3, 2), "", "gives 2x3"),
    ],
)  # fmt: skip
def test_refusals(op: str, ins: tuple[Shape, ...], out: Shape, attrs: str, says: str) -> None:
    layer = Layer("1", "", op, tuple("x" * len(ins)), out, parse_attrs(op, attrs, "case"))
    with pytest.raises(HwsimError) as caught:
        check_layer(layer, ins, out, {}, "here")
    assert says in str(caught.value)
    assert str(caught.value).startswith("here: ")


@pytest.mark.parametrize("name", sorted(FUSED))
def test_fused_activations_add_work_but_no_traffic(name: str) -> None:
    plain = Layer("1", "", "conv", ("x",), (2, 6, 4, 4), {"k": (3, 3), "s": (2, 2), "p": (1, 1)})
    fused = Layer("1", "", "conv", ("x",), plain.shape, plain.attrs, (name,))
    before, after = (vector_work(la, OPS["conv"], [X], (2, 6, 4, 4)) for la in (plain, fused))
    alu, special = FUSED[name]
    assert (after.alu - before.alu, after.special - before.special) == (alu * 192, special * 192)
    assert (after.read, after.write) == (before.read, before.write)


def test_fused_residual_takes_a_further_source() -> None:
    net = Builder("residual")
    x = net.input("x", X)
    y = net.conv(x, 3, 1, fused="add+relu", extra=(x,))
    built = net.build()
    assert built.by_id[y].src == ("x", "x")
    assert built.vector_work[y].alu == 2 * math.prod(X)
    layer = Layer("1", "", "conv", ("x",), X, {"k": (1, 1)}, ("add",))
    with pytest.raises(HwsimError, match="takes 2 inputs, not 1"):
        check_layer(layer, [X], X, {}, "here")


def test_bias_of_quantised_layers_is_wide() -> None:
    net = Builder("int8", dtype="int8")
    net.linear(net.input("x", (1, 16)), 4)
    assert net.build().weight_bytes == 64 + 4 * 4
    mixed = Builder("w4a16", dtype="fp16")
    mixed.op("linear", mixed.input("x", (1, 16)), out=(1, 4), k=16, weight_dtype="int4")
    assert mixed.build().weight_bytes == 32


# -- against brute force ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3),
    st.booleans(),
)  # fmt: skip
def test_window_positions(size: int, k: int, s: int, before: int, after: int, d: int, ceil: bool) -> None:
    """Count the windows that fit, one start after the other.

    Rounding up, a last window may overhang the end, but none starts behind the data (PyTorch's rule).
    """
    reach = d * (k - 1) + 1
    assume(reach <= size + before + after)
    starts = list(range(-before, size + after - reach + 1, s))
    if ceil:
        if starts[-1] + reach < size + after:
            starts.append(starts[-1] + s)
        if starts[-1] >= size:
            starts.pop()
    assert window_out(size, k, s, before, after, d, ceil=ceil) == len(starts)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_convolution_counts(data: st.DataObject) -> None:
    """MACs and elements of random small convolutions, enumerated."""
    rank = data.draw(st.integers(1, 3))
    draw = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups, per_in, per_out, n = draw(1, 3), draw(1, 3), draw(1, 3), draw(1, 2)
    size, k = [draw(3, 6) for _ in range(rank)], [draw(1, 3) for _ in range(rank)]
    s, p = [draw(1, 2) for _ in range(rank)], [draw(0, 2) for _ in range(2 * rank)]
    net = Builder("c")
    x = net.input("x", (n, groups * per_in, *size))
    y = net.conv(x, groups * per_out, tuple(k), tuple(s), tuple(p), g=groups)
    product = net.build().products[y][0]
    places = [range(-p[i], size[i] + p[rank + i] - k[i] + 1, s[i]) for i in range(rank)]
    taps = math.prod(k)
    count = sum(taps for _ in itertools.product(range(n), range(groups * per_out), *places)) * per_in
    assert product.macs == count
    assert product.a_elements == n * groups * per_in * math.prod(size)
    assert product.b_elements == groups * per_out * per_in * taps
    assert product.c_elements == n * groups * per_out * math.prod(len(r) for r in places)
    assert product.conv is not None
    assert product.conv.out_spatial == tuple(len(r) for r in places)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_ceil(size: int, k: int, s: int, d: int) -> None:
    p = same_padding((size,), (k,), (s,), (d,))
    before, after = p if len(p) == 2 else p * 2
    assert 0 <= after - before <= 1
    assert window_out(size, k, s, before, after, d) == -(-size // s)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), max_size=4), st.lists(st.integers(1, 3), max_size=4))
def test_broadcast_is_numpys(a: list[int], b: list[int]) -> None:
    import numpy as np

    try:
        expected = np.broadcast_shapes(tuple(a), tuple(b))
    except ValueError:
        with pytest.raises(HwsimError):
            broadcast(tuple(a), tuple(b))
        return
    assert broadcast(tuple(a), tuple(b)) == expected


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.integers(0, 4))
def test_recurrent_counts(n: int, t: int, f: int, h: int, bi: bool, proj: int) -> None:
    """An LSTM is, per step and direction, eight small matrices (and a projection)."""
    net = Builder("r")
    y = net.op("lstm", net.input("x", (n, t, f)), h=h, bi=bi, proj=proj or None)
    built, state = net.build(), proj or h
    per_step = 4 * h * f + 4 * h * state + (h * proj if proj else 0)
    assert built.macs == n * t * per_step * (1 + bi)
    assert built.params == per_step * (1 + bi)
    assert built.by_id[y].shape == (n, t, state * (1 + bi))


def hostile() -> list[tuple[Case, str]]:
    """Every numeric attribute of every case set to zero, a negative and a huge number."""
    found = []
    for case in CASES:
        words = case.attrs.split()
        for at, word in enumerate(words):
            key, _, value = word.partition("=")
            for bad in ("0", "-1", str(2**31)):
                if value and OPS[case.op].attrs.get(key) in ("i", "t", "d"):
                    changed = "x".join([bad] * len(value.split("x"))) if "x" in value else bad
                    found.append((case, " ".join([*words[:at], f"{key}={changed}", *words[at + 1 :]])))
    return found


@pytest.mark.parametrize(
    ("case", "attrs"), hostile(), ids=lambda v: v.op if isinstance(v, Case) else v.replace(" ", "-")
)
def test_hostile_attributes(case: Case, attrs: str) -> None:
    """Refused with one line, or accepted with figures that are counts."""
    inputs = tuple(Tensor(f"i{k}", shape) for k, shape in enumerate(case.ins))
    try:
        layer = Layer("1", "", case.op, tuple(t.name for t in inputs), case.out, parse_attrs(case.op, attrs, "case"))
        net = Network("case", inputs, (layer,)).validate()
    except HwsimError as error:
        assert "\n" not in str(error)
        return
    work = net.vector_work["1"]
    assert min(net.macs, net.params, net.weight_bytes, net.kv_cache_bytes, net.peak_activation_bytes) >= 0
    assert min(work.alu, work.special, work.read, work.write) >= 0
    assert all(min(p.batch, p.m, p.n, p.k, p.repeat) > 0 for p in net.products["1"])
