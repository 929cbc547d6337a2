"""Tensor parallelism: tiny networks computed by all devices in lockstep give the values of the whole one, and shares add up."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.builder import Builder
from hwsim.network.graph import Layer, Network
from hwsim.network.load import load_network
from hwsim.plan.tensor_parallel import tensor_parallel

Values = dict[str, np.ndarray[Any, Any]]
RANDOM = np.random.default_rng(7)


def decoder(style: str, heads: int, kv: int, feed: int, vocabulary: int, layers: int = 2, fused: str = "") -> Network:
    """A decoder of width 4 x heads: llama, gptj (parallel branches), moe, or gpt (one product for q, k and v, biases)."""
    net, width, n, s = Builder("tiny"), 4 * heads, 2, 3
    x = net.op("embedding", net.input("ids", (n, s), "int32"), rows=vocabulary, width=width, name="embed")
    table = x
    if style == "gpt":
        x = net.add(x, net.op("embedding", net.input("positions", (1, s), "int32"), rows=5, width=width))
    for _ in range(layers):
        normed = net.norm(x, "rms_norm")
        if style == "gpt":
            both = net.linear(normed, 3 * width, name="qkv")
            q, k, v = (net.heads(net.split(both, 2, i * width, width), heads) for i in range(3))
        else:
            q = net.heads(net.linear(normed, width, bias=False), heads)
            k, v = (net.heads(net.linear(normed, 4 * kv, bias=False), kv) for _ in range(2))
            q, k = net.op("rope", q), net.op("rope", k)
        attended = net.op("attention", q, k, v, causal=True, cache=0)
        attended = net.linear(net.merge_heads(attended), width, bias=style == "gpt", name="o")
        if style != "gptj":
            x = net.add(x, attended)
            normed = net.norm(x, "rms_norm")
        if style == "moe":
            scores = net.op("softmax", net.linear(normed, 4, bias=False), axis=2)
            weights = net.op("gather", scores, out=(n, s, 2), axis=2)
            rows = net.op("gather", normed, weights, out=(n, 2 * s, width), axis=1)
            up = net.op("expert_linear", rows, out=(n, 2 * s, feed), k=width, experts=4, fused="silu")
            down = net.op("expert_linear", up, out=(n, 2 * s, width), k=feed, experts=4)
            parts = net.op("mul", net.reshape(down, (n, s, 2, width)), net.reshape(weights, (n, s, 2, 1)))
            down = net.op("reduce_sum", parts, axes=(2,))
        elif style == "llama":
            both = net.op(
                "mul", net.linear(normed, feed, bias=False, fused="silu"), net.linear(normed, feed, bias=False)
            )
            down = net.linear(both, width, bias=False)
        else:
            down = net.linear(net.linear(normed, feed, fused="relu"), width, fused=fused)
        x = net.add(x, net.add(attended, down)) if style == "gptj" else net.add(x, down)
    x = net.op("slice", net.norm(x, "rms_norm"), out=(n, 1, width), axis=1, start=-1)
    return net.build(net.linear(x, vocabulary, bias=False, name="lm_head", tied=table if style == "gpt" else None))


# -- the twin: numpy, one layer after the other, on every device --------------------------------------------------


def apply(layer: Layer, xs: list[np.ndarray[Any, Any]], weight: Any, bias: Any) -> np.ndarray[Any, Any]:
    a = layer.attrs
    if layer.op in ("linear", "expert_linear"):
        if layer.op == "linear":
            y = xs[0] @ weight.T + bias
        else:
            y = np.stack([xs[0][:, i] @ weight[i % 4].T for i in range(xs[0].shape[1])], axis=1)
        return activate(layer.fused, y)
    if layer.op == "embedding":
        ids, rows = xs[0].astype(int), weight.shape[0]
        inside = (ids >= 0) & (ids < rows)
        return np.where(inside[..., None], weight[np.clip(ids, 0, rows - 1)], 0.0)
    if layer.op == "rms_norm":
        return xs[0] / np.sqrt((xs[0] ** 2).mean(-1, keepdims=True) + 1e-6)
    if layer.op == "attention":
        q, k, v = xs
        k, v = (np.repeat(t, q.shape[1] // k.shape[1], axis=1) for t in (k, v))
        scores = q @ k.swapaxes(-1, -2)
        scores = np.where(np.tri(scores.shape[-2], scores.shape[-1], dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True) @ v
    if layer.op == "softmax":
        e = np.exp(xs[0] - xs[0].max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    if layer.op == "rope":
        return xs[0] * np.cos(np.arange(xs[0].shape[-2]))[:, None]
    if layer.op == "gather":  # any choice will do, if it is the same on every device
        return xs[0][..., :2] if a["axis"] == 2 else np.repeat(xs[0], 2, axis=1)
    if layer.op == "slice":
        return xs[0][:, -1:]
    if layer.op == "split":
        return xs[0].take(range(int(a["start"]), int(a["start"]) + layer.shape[int(a["axis"])]), axis=int(a["axis"]))
    if layer.op == "transpose":
        return xs[0].transpose(a["perm"])
    simple = {"add": np.add, "mul": np.multiply}
    if layer.op in simple:
        return activate(layer.fused, simple[layer.op](*xs))
    if layer.op == "reduce_sum":
        return xs[0].sum(axis=tuple(a["axes"]))
    if layer.op in ("relu", "silu"):
        return activate((layer.op,), xs[0])
    assert layer.op == "reshape", layer.op
    return xs[0].reshape(layer.shape)


def activate(names: tuple[str, ...], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    for name in names:
        y = np.maximum(y, 0) if name == "relu" else y / (1 + np.exp(-y))
    return y


def constants(net: Network) -> dict[str, tuple[Any, Any]]:
    """Weight and bias of every layer; one that is tied has those of the look-up."""
    out: dict[str, tuple[Any, Any]] = {}
    for layer in net.layers:
        found = {w.name: RANDOM.normal(size=w.shape) / math.sqrt(w.shape[-1]) for w in net.weights[layer.id]}
        weight = next((found[k] for k in ("weight", "table") if k in found), None)
        out[layer.id] = out[str(layer.attrs["tied"])] if "tied" in layer.attrs else (weight, found.get("bias", 0.0))
    return out


def share_of(
    whole: Layer, local: Layer, depth: int, net: Network, kept: tuple[Any, Any], device: int, ways: int
) -> tuple[Any, Any]:
    """One device's weights, as Megatron deals them: rows of the weight, columns, or both left whole."""
    weight, bias = kept
    if weight is None:
        return kept
    if whole.op == "embedding":
        rows = int(local.attrs["rows"])
        if rows == len(weight):
            return kept
        return padded(weight, rows * ways)[device * rows : (device + 1) * rows], bias
    before, after = int(whole.shape[-1]), int(local.shape[-1])
    if whole.op in ("linear", "expert_linear") and depth != weight.shape[-1]:
        # Rows of a product are columns of the weight; the bias is added once.
        return weight[..., device * depth : (device + 1) * depth], bias if device == 0 else 0.0 * np.asarray(bias)
    if after == before:
        return kept
    pieces = [net.by_id[r] for r in net.consumers[whole.id] if net.by_id[r].op == "split"]
    if pieces:
        each = after // len(pieces)
        begins = [p * before // 3 + device * each for p in range(len(pieces))]
        rows_of = [r for begin in begins for r in range(begin, begin + each)]
        return weight[rows_of], np.asarray(bias)[rows_of]
    at = device * after
    if after * ways >= 2 * before:  # heads fewer than devices: several hold the same
        at = device // (ways // (before // after)) * after
    tall = padded(weight, at + after) if whole.op == "linear" else weight
    part = tall[at : at + after] if whole.op == "linear" else tall[:, at : at + after]
    return part, padded(np.asarray(bias), at + after)[at : at + after] if np.ndim(bias) else bias


def padded(x: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    return np.concatenate([x, np.zeros((max(0, rows - len(x)), *x.shape[1:]))]) if len(x) < rows else x


def run(net: Network, kept: dict[str, tuple[Any, Any]], inputs: Values) -> np.ndarray[Any, Any]:
    have = dict(inputs)
    for layer in net.layers:
        have[layer.id] = apply(layer, [have[s] for s in layer.src], *kept[layer.id])
        assert have[layer.id].shape == layer.shape, layer
    return have[net.output_names[0]]


def run_cut(
    whole: Network, cut: Network, kept: dict[str, tuple[Any, Any]], inputs: Values, ways: int
) -> np.ndarray[Any, Any]:
    have = [dict(inputs) for _ in range(ways)]
    rows = {la.id: int(la.attrs["rows"]) for la in cut.layers if la.op == "embedding"}
    for layer in cut.layers:
        if layer.op == "all_reduce":
            total = sum(h[layer.src[0]] for h in have)
            results = [total] * ways
        elif layer.op == "all_gather":
            axis = int(layer.attrs["axis"])
            joined = np.concatenate([h[layer.src[0]] for h in have], axis=axis)
            results = [joined.take(range(int(layer.shape[axis])), axis=axis)] * ways
        else:
            results = []
            for device, h in enumerate(have):
                original = whole.by_id.get(layer.id)
                xs = [h[s] for s in layer.src]
                weights = (None, 0.0)
                if original is not None:
                    weights = share_of(original, layer, xs[0].shape[-1], whole, kept[layer.id], device, ways)
                    if layer.op == "embedding" and rows[layer.id] != original.attrs["rows"]:
                        xs = [xs[0] - device * rows[layer.id]]
                elif layer.op == "split":  # a part read in place of what all have
                    axis = int(layer.attrs["axis"])
                    size = int(layer.shape[axis])
                    results.append(xs[0].take(range(device * size, (device + 1) * size), axis=axis))
                    continue
                results.append(apply(layer, xs, *weights))
        for h, value in zip(have, results, strict=True):
            h[layer.id] = value
            assert value.shape == layer.shape, layer
    for other in have[1:]:
        np.testing.assert_array_equal(other[cut.output_names[0]], have[0][cut.output_names[0]])
    return have[0][cut.output_names[0]]


CASES = [
    ("llama", 8, 8, 16, 40, 2, ""), ("llama", 8, 2, 16, 24, 4, ""), ("llama", 8, 2, 24, 45, 8, ""), ("gptj", 4, 4, 8, 20, 4, ""),
    ("moe", 4, 2, 8, 12, 4, ""), ("gpt", 6, 6, 12, 50, 3, ""), ("gpt", 4, 4, 8, 19, 4, "relu"), ("gptj", 4, 4, 8, 20, 2, "relu"),
]  # fmt: skip


@pytest.mark.parametrize("style, heads, kv, feed, vocabulary, ways, fused", CASES)
def test_all_devices_together_compute_the_whole(
    style: str, heads: int, kv: int, feed: int, vocabulary: int, ways: int, fused: str
) -> None:
    net = decoder(style, heads, kv, feed, vocabulary, fused=fused)
    inputs = {"ids": RANDOM.integers(0, vocabulary, (2, 3)), "positions": np.arange(3)[None]}
    kept = constants(net)
    cut = tensor_parallel(net, ways)
    np.testing.assert_allclose(run_cut(net, cut, kept, inputs, ways), run(net, kept, inputs), rtol=1e-9, atol=1e-9)


def test_a_wrong_cut_would_show() -> None:
    """The twin is sharp: a device's rows dealt to its neighbour change the values."""
    net = decoder("llama", 4, 4, 8, 12)
    inputs = {"ids": RANDOM.integers(0, 12, (2, 3))}
    kept = constants(net)
    cut = tensor_parallel(net, 2)
    last = [la.id for la in net.layers if la.op == "linear"][-2]
    swapped = {**kept, last: (kept[last][0][:, ::-1], 0.0)}
    assert not np.allclose(run_cut(net, cut, swapped, inputs, 2), run(net, kept, inputs))


@given(
    st.sampled_from(["llama", "gptj", "moe", "gpt"]), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.integers(4, 40)
)
@settings(max_examples=40, deadline=None)
def test_shares_add_up_and_every_block_exchanges_what_it_must(
    style: str, ways: int, layers: int, vocabulary: int
) -> None:
    net = decoder(style, 8, 8 if style == "gpt" else 4, 16, max(vocabulary, 32), layers)
    cut = tensor_parallel(net, ways)
    for whole in net.layers:
        if whole.op in ("linear", "expert_linear", "attention") and whole.id in cut.by_id:
            here, all_of_it = (sum(p.macs for p in n.products[whole.id]) for n in (cut, net))
            rounding = net.products[whole.id][0].m * net.products[whole.id][0].k * ways
            assert all_of_it in (here * ways, here) or 0 <= here * ways - all_of_it <= rounding
    sums = sum(la.op == "all_reduce" for la in cut.layers)
    assert sums == (0 if ways == 1 else 1 + layers * (1 if style == "gptj" else 2))


@pytest.mark.parametrize(
    "name", ["llama3_8b", "llama2_7b", "qwen2_7b", "mixtral_8x7b", "opt_1.3b", "gptj_6b", "gpt3_2.7b"]
)
def test_zoo_models_are_cut_into_equal_parts(name: str) -> None:
    net = load_network(name).bind(N=2, S=1, P=100)
    for ways in (2, 4):
        cut = tensor_parallel(net, ways)
        assert cut.macs * ways == pytest.approx(net.macs, rel=1e-3)
        assert net.params <= cut.params * ways <= net.params * 1.02
        held = sum(la.op == "attention" for la in net.layers)
        assert cut.kv_cache_bytes * ways == net.kv_cache_bytes and held == sum(
            la.op == "attention" for la in cut.layers
        )


def test_key_value_heads_fewer_than_devices_are_held_by_several() -> None:
    net = load_network("llama3_8b").bind(S=1, P=100)
    assert tensor_parallel(net, 16).kv_cache_bytes * 8 == net.kv_cache_bytes


def test_what_does_not_divide_is_refused_with_what_would() -> None:
    for name, ways, words in (
        ("qwen2_7b", 8, "28 query heads do not divide among 8 devices; 2, 4, 7 would"),
        ("llama3_8b", 3, "do not divide among 3 devices; 2 would"),
        ("resnet50", 2, "run it data parallel"),
    ):
        with pytest.raises(HwsimError, match=words):
            tensor_parallel(load_network(name).bind(), ways)
