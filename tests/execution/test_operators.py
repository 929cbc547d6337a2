"""Every operator a trace can state, against its definition in scalar loops or an independent formula."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.execution.network_run import run_network
from hwsim.execution.operators import OPERATORS
from hwsim.execution.products import EXACT, FP32, Arithmetic
from hwsim.execution.weights import random_inputs, random_weights
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.network.load import load_network

RNG = np.random.default_rng(7)


def _one(
    op: str,
    *arrays: np.ndarray,
    out: tuple[int, ...] | None = None,
    fused: str = "",
    weights: Any = None,
    dtype: str = "fp32",
    **attrs: Any,
) -> np.ndarray:
    """Run one layer in exact arithmetic."""
    net = Builder("one")
    names = [
        net.input(f"i{i}", a.shape, {"b": "bool", "i": "int64"}.get(a.dtype.kind, "fp32")) for i, a in enumerate(arrays)
    ]
    built = net.build(net.op(op, *names, out=out, fused=fused, dtype=dtype, **attrs))
    given = {"1": weights} if weights is not None else random_weights(built)
    made = run_network(built, given, dict(zip(names, arrays, strict=True)), lambda _: EXACT)
    return next(iter(made.values()))


X = RNG.standard_normal((2, 6, 5, 4))
SCALAR = {
    "relu": lambda v: max(v, 0.0), "relu6": lambda v: min(max(v, 0.0), 6.0), "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "silu": lambda v: v / (1 + math.exp(-v)), "tanh": math.tanh, "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
    "gelu_tanh": lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    "hswish": lambda v: v * min(max(v / 6 + 0.5, 0), 1), "hsigmoid": lambda v: min(max(v / 6 + 0.5, 0), 1),
    "elu": lambda v: v if v > 0 else math.exp(v) - 1, "mish": lambda v: v * math.tanh(math.log(1 + math.exp(v))),
    "softplus": lambda v: math.log(1 + math.exp(v)), "softsign": lambda v: v / (1 + abs(v)), "exp": math.exp, "erf": math.erf,
    "sin": math.sin, "cos": math.cos, "neg": lambda v: -v, "abs": abs, "square": lambda v: v * v, "floor": math.floor,
    "ceil": math.ceil, "round": round, "quick_gelu": lambda v: v / (1 + math.exp(-1.702 * v)), "reciprocal": lambda v: 1 / v,
    "sign": lambda v: math.copysign(1, v),
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    "relu_n1_to_1": lambda v: min(max(v, -1), 1),
    "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * (math.exp(v) - 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALAR)
def test_functions_of_one_operand(name: str) -> None:
    made = _one(name, X)
    assert np.allclose(made, np.vectorize(SCALAR[name])(X), rtol=1e-6 if name == "selu" else 1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["log", "sqrt", "rsqrt"])
def test_functions_of_positive_numbers(name: str) -> None:
    f = {"log": math.log, "sqrt": math.sqrt, "rsqrt": lambda v: 1 / math.sqrt(v)}[name]
    assert np.allclose(_one(name, np.abs(X) + 0.1), np.vectorize(f)(np.abs(X) + 0.1), rtol=1e-14)


def test_two_operands_broadcast_and_constants_come_first_when_reversed() -> None:
    y = RNG.standard_normal((6, 1, 1))
    assert np.array_equal(_one("sub", X, y), X - y)
    assert np.array_equal(_one("sub", X, value=2.0, reverse=True), 2.0 - X)
    assert np.array_equal(_one("mul", X, const=(6, 1, 1), weights={"const": y}), X * y)
    assert np.array_equal(_one("squared_difference", X, y), (X - y) ** 2)
    mask = X > 0
    assert np.array_equal(_one("where", mask, X, y), np.where(mask, X, y))
    with pytest.raises(HwsimError, match="constant operand"):
        _one("add", X)


def test_pools_by_definition() -> None:
    made_max = _one("max_pool", X, k=(3, 2), s=(2, 1), p=(1, 0))
    made_avg = _one("avg_pool", X, k=(3, 2), s=(2, 1), p=(1, 0))
    padded = _one("avg_pool", X, k=(3, 2), s=(2, 1), p=(1, 0), count_pad=True)
    for i in range(made_max.shape[2]):
        for j in range(made_max.shape[3]):
            window = X[:, :, max(0, 2 * i - 1) : 2 * i + 2, j : j + 2]
            assert np.array_equal(made_max[:, :, i, j], window.max((2, 3)))
            assert np.allclose(made_avg[:, :, i, j], window.mean((2, 3)), rtol=1e-13)
            assert np.allclose(padded[:, :, i, j], window.sum((2, 3)) / 6, rtol=1e-13)


def test_ceil_mode_and_adaptive_pools() -> None:
    made = _one("avg_pool", X, k=2, s=2, ceil=True)
    assert made.shape == (2, 6, 3, 2)
    assert np.allclose(made[:, :, 2, 0], X[:, :, 4, :2].mean(-1))  # a window half outside averages what is inside
    adaptive = _one("adaptive_avg_pool", X, size=(2, 3))
    assert np.allclose(adaptive[:, :, 1, 1], X[:, :, 2:5, 1:3].mean((2, 3)))


def test_layouts_agree() -> None:
    w = {"weight": RNG.standard_normal((8, 6, 3, 3)), "bias": RNG.standard_normal(8)}
    first = _one("conv", X, out=(2, 8, 5, 4), weights=w, k=(3, 3), p=1, bias=True)
    last = _one("conv", np.moveaxis(X, 1, -1), out=(2, 5, 4, 8), weights=w, k=(3, 3), p=1, bias=True, nhwc=True)
    assert np.allclose(np.moveaxis(last, -1, 1), first, rtol=1e-13)


def test_normalisations_by_definition() -> None:
    scale, shift = RNG.standard_normal(6), RNG.standard_normal(6)
    w = {"scale": scale, "shift": shift}
    made = _one("group_norm", X, groups=2, width=6, weights=w)
    for g in range(2):
        part = X[:, 3 * g : 3 * g + 3]
        want = (part - part.mean((1, 2, 3), keepdims=True)) / np.sqrt(part.var((1, 2, 3), keepdims=True) + 1e-5)
        want = want * scale[3 * g : 3 * g + 3, None, None] + shift[3 * g : 3 * g + 3, None, None]
        assert np.allclose(made[:, 3 * g : 3 * g + 3], want, rtol=1e-12)
    y = RNG.standard_normal((3, 6))
    want = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5) * scale + shift
    assert np.allclose(_one("layer_norm", y, width=6, weights=w), want)
    assert np.allclose(
        _one("rms_norm", y, width=6, weights={"scale": scale}),
        y / np.sqrt((y**2).mean(1, keepdims=True) + 1e-5) * scale,
    )
    assert np.allclose(_one("softmax", y), np.exp(y) / np.exp(y).sum(1, keepdims=True))
    assert np.allclose(_one("log_softmax", y), np.log(np.exp(y) / np.exp(y).sum(1, keepdims=True)))
    assert np.array_equal(_one("cumsum", y, axis=1), np.cumsum(y, 1))
    lrn = _one("lrn", X, size=3)
    c = 2
    assert np.allclose(lrn[:, c], X[:, c] / (1 + 1e-4 / 3 * (X[:, 1:4] ** 2).sum(1)) ** 0.75)


def test_attention_by_definition() -> None:
    q, k, v = RNG.standard_normal((2, 4, 3, 8)), RNG.standard_normal((2, 2, 3, 8)), RNG.standard_normal((2, 2, 3, 5))
    made = _one("attention", q, k, v, causal=True)
    for h in range(4):
        for i in range(3):
            e = [math.exp(float(q[1, h, i] @ k[1, h // 2, j]) / math.sqrt(8)) for j in range(i + 1)]
            want = sum(e[j] / sum(e) * v[1, h // 2, j] for j in range(i + 1))
            assert np.allclose(made[1, h, i], want)
    near = _one("attention", q, k, v, causal=True, window=1)
    assert np.allclose(near, np.repeat(v, 2, axis=1))  # each position sees itself only
    mask = np.ones((1, 1, 3, 3), bool)
    mask[..., 1] = False
    hidden = _one("attention", q, k, v, mask)
    assert np.allclose(hidden[..., :], _one("attention", q, k[:, :, [0, 2]], v[:, :, [0, 2]]))


def test_lstm_by_definition() -> None:
    x = RNG.standard_normal((2, 3, 4))
    w = {
        "w_input": RNG.standard_normal((20, 4)),
        "w_hidden": RNG.standard_normal((20, 5)),
        "bias": RNG.standard_normal(20),
    }
    made = _one("lstm", x, out=(2, 3, 5), h=5, bias=True, weights=w)
    h = c = np.zeros(5)
    for t in range(3):
        i, o, f, g = np.split(w["w_input"] @ x[1, t] + w["w_hidden"] @ h + w["bias"], 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        assert np.allclose(made[1, t], h)


def test_movement() -> None:
    assert np.array_equal(_one("split", X, out=(2, 2, 5, 4), axis=1, start=3), X[:, 3:5])
    assert np.array_equal(_one("slice", X, out=(2, 6, 2, 4), axis=2, start=1, step=2), X[:, :, 1:4:2])
    assert np.array_equal(_one("roll", X, axes=(2, 3), shift=(1, 2)), np.roll(X, (1, 2), (2, 3)))
    block = RNG.standard_normal((1, 8, 2, 3))
    there = _one("depth_to_space", block, out=(1, 2, 4, 6), block=2)
    assert np.array_equal(_one("space_to_depth", there, out=(1, 8, 2, 3), block=2), block)
    assert there[0, 1, 1, 2] == block[0, 2 * 2 + 1, 0, 1]  # row offset 1, column offset 0: channel (1·2 + 0)·2 + 1
    up = _one("resize", X, out=(2, 6, 10, 8), mode="bilinear")
    assert np.allclose(
        up[:, :, 3, 3], 0.5625 * X[:, :, 1, 1] + 0.1875 * (X[:, :, 1, 2] + X[:, :, 2, 1]) + 0.0625 * X[:, :, 2, 2]
    )
    assert np.array_equal(_one("resize", X, out=(2, 6, 10, 8), mode="nearest"), X.repeat(2, 2).repeat(2, 3))
    with pytest.raises(HwsimError, match="does not state"):
        _one("slice", X, out=(2, 2, 5, 4))


def test_residual_and_activations_apply_in_order() -> None:
    y = RNG.standard_normal((2, 8, 5, 4))
    w = {
        "weight": RNG.standard_normal((8, 6, 1, 1)),
        "bn_scale": RNG.standard_normal(8),
        "bn_shift": RNG.standard_normal(8),
    }
    made = _one("conv", X, y, out=(2, 8, 5, 4), fused="bn+add+relu", k=(1, 1), weights=w)
    want = (
        np.einsum("ncij,fc->nfij", X, w["weight"][:, :, 0, 0]) * w["bn_scale"][:, None, None]
        + w["bn_shift"][:, None, None]
    )
    assert np.allclose(made, np.maximum(want + y, 0))


def _random(name: str, **sizes: int) -> tuple[Network, dict[str, np.ndarray]]:
    net = load_network(name).bind(**sizes)
    return net, random_inputs(net)


@pytest.mark.parametrize(("name", "sizes"), [("mobilenet_v2", {}), ("deit_tiny_patch16_224", {})])
def test_whole_traces_run_and_fp32_stays_close_to_exact(name: str, sizes: dict[str, int]) -> None:
    net, x = _random(name, **sizes)
    a = run_network(net, random_weights(net), x, lambda _: FP32)
    b = run_network(net, random_weights(net), x, lambda _: EXACT)
    for key in net.output_names:
        spread = float(b[key].std())
        assert spread > 0.01
        assert float(np.abs(a[key] - b[key]).max()) < 1e-4 * spread


def test_weights_do_not_depend_on_order_but_on_the_seed() -> None:
    net, _ = _random("resnet18")
    one, two = random_weights(net), random_weights(net)
    two["20"]
    assert np.array_equal(one["1"]["weight"], two["1"]["weight"])
    assert not np.array_equal(one["1"]["weight"], random_weights(net, 1)["1"]["weight"])


def test_refusals_name_the_layer() -> None:
    net = Builder("q")
    x = net.input("x", (1, 4), "int8")
    built = net.build(net.op("linear", x, out=(1, 3), name="head", dtype="int8"))
    with pytest.raises(HwsimError, match=r"layer 1 \(head\): an integer layer of a trace has no scales"):
        run_network(built, random_weights(built), random_inputs(built), lambda _: FP32)
    with pytest.raises(HwsimError, match="nms cannot be executed"):
        _one("nms", X, out=(2, 3))
    with pytest.raises(HwsimError, match="outside a table of 5 rows"):
        _one("embedding", np.array([[7]]), out=(1, 1, 3), rows=5, width=3)
    with pytest.raises(HwsimError, match="weight 'weight' is"):
        _one("linear", X, out=(2, 6, 5, 9), weights={"weight": np.zeros((2, 2))})
    with pytest.raises(HwsimError, match="expected"):
        run_network(built, {}, {"x": np.zeros((2, 4), np.int8)}, lambda _: FP32)


def test_every_handler_is_an_operator_of_the_table() -> None:
    from hwsim.network.ops import OPS

    assert set(OPERATORS) <= set(OPS)


def test_machine_results_are_kept_in_the_stored_format() -> None:
    bf16 = Arithmetic("tpu-v3", np.float32, "tpu-v3", ("bf16", "bf16"), "bf16", 1, 128, 128)
    net = Builder("two")
    x = net.input("x", (3, 200))
    built = net.build(net.op("gelu", net.op("linear", x, out=(3, 40), bias=True)))
    seen: list[np.ndarray] = []
    run_network(built, random_weights(built), random_inputs(built), lambda _: bf16, lambda i, n, v: seen.append(v))
    assert len(seen) == 2
    assert all(not np.any(v.view(np.uint32) & 0xFFFF) for v in seen)
