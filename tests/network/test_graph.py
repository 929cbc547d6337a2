"""Network: structure, binding, liveness, figures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network.builder import Builder
from hwsim.network.graph import Layer, Network, Tensor, topological
from hwsim.network.ops import OPS


def small() -> Builder:
    net = Builder("small", meta={"source": "test"})
    x = net.input("x", (2, 3, 8, 8))
    y = net.conv(x, 4, 3, p=1, fused="bn+relu", bias=True)
    y = net.add(y, net.conv(x, 4, 1))
    net.linear(net.flatten(net.global_pool(y)), 10)
    return net


def test_figures_by_hand() -> None:
    net = small().build()
    assert net.macs == 2 * (64 * 4 * 27 + 64 * 4 * 3 + 40)
    assert net.params == 4 * 27 + 4 + 8 + 12 + 50
    assert net.weight_bytes == 4 * (4 * 27 + 4 + 12 + 50)
    assert net.activation_bytes == 4 * 2 * (3 * 4 * 64 + 4 + 10)
    assert net.output_names == ("6",)
    assert net.consumers["x"] == ["1", "2"]
    assert net.tensor_bytes("x") == 4 * 2 * 3 * 64
    assert net.rename("other", {"task": "t"}).meta == {"source": "test", "task": "t"}
    assert net.rename("other").name == "other"


def test_liveness_by_hand() -> None:
    net = Builder("live")
    x = net.input("x", (100,))
    a = net.op("relu", x)  # x a: x dies
    b = net.op("relu", a)  # a b
    v = net.reshape(b, (10, 10))  # the same bytes as b
    net.op("add", net.reshape(v, (100,)), a)  # a b c
    built = net.build()
    assert built.live_bytes == [800, 800, 800, 800, 1200]
    assert built.peak_activation_bytes == 1200


def brute_force_live(net: Network) -> list[int]:
    """Live bytes at every layer from the intervals of the buffers: born, last touched by itself or a view of it."""

    def buffer(name: str) -> str:
        layer = net.by_id.get(name)
        return buffer(layer.src[0]) if layer is not None and OPS[layer.op].kind == "view" else name

    order = {la.id: i for i, la in enumerate(net.layers)}
    spans: dict[str, list[int]] = {t.name: [0, -1] for t in net.inputs}
    for la in net.layers:
        spans.setdefault(buffer(la.id), [order[la.id], order[la.id]])
    for la in net.layers:
        for src in la.src:
            spans[buffer(src)][1] = max(spans[buffer(src)][1], order[la.id])
    for name in net.output_names:
        spans[buffer(name)][1] = len(net.layers)
    used = {name: end >= 0 for name, (_, end) in spans.items()}
    return [
        sum(net.tensor_bytes(name) for name, (start, end) in spans.items() if start <= at <= end or not used[name])
        for at in range(len(net.layers))
    ]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_liveness_equals_intervals(data: st.DataObject) -> None:
    net = Builder("random")
    tensors = [net.input(f"in{i}", (data.draw(st.integers(1, 9)) * 4,)) for i in range(data.draw(st.integers(1, 3)))]
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["relu", "view", "concat", "split", "twice"]))
        x = data.draw(st.sampled_from(tensors))
        size = net.shape(x)[0] if len(net.shape(x)) == 1 else None
        if kind == "concat":
            y = data.draw(st.sampled_from(tensors))
            if len(net.shape(x)) == len(net.shape(y)) == 1:
                tensors.append(net.concat(x, y, axis=0))
        elif kind == "view":
            tensors.append(net.reshape(x, (1, *net.shape(x)) if size else (-1,)))
        elif kind == "split" and size:
            tensors.append(net.split(x, 0, 0, max(1, size // 2)))
        else:
            tensors.append(net.op("add", x, x) if kind == "twice" else net.op("relu", x))
    if not net._layers:
        return
    ids = [la.id for la in net._layers]
    outputs = data.draw(st.lists(st.sampled_from(ids), max_size=2, unique=True))
    built = net.build(*outputs)
    assert built.live_bytes == brute_force_live(built)
    assert built.peak_activation_bytes == max(built.live_bytes)


def test_binding() -> None:
    net = Network(
        "sym",
        (Tensor("x", ("N", "S", 8)),),
        (Layer("1", "", "linear", ("x",), ("N", "S", 4), {"k": 8}),),
        (),
        {"N": 1, "S": 16},
    ).validate()
    assert not net.is_bound
    assert net.macs == 16 * 32
    bound = net.bind(N=3)
    assert bound.is_bound
    assert bound.layers[0].shape == (3, 16, 4)
    assert bound.meta["bound_N"] == "3"
    assert bound.bind() is bound
    with pytest.raises(HwsimError, match="no symbol Q"):
        net.bind(Q=2)
    with pytest.raises(HwsimError, match="all its shapes are fixed"):
        bound.bind(N=4)
    with pytest.raises(HwsimError, match="out of range"):
        net.bind(N=-1)
    with pytest.raises(HwsimError, match="not between"):
        net.bind(N=0)
    with pytest.raises(HwsimError, match="more than 2"):
        net.bind(N=2**31, S=2**31)


def test_kv_cache() -> None:
    net = Builder("kv", dtype="fp16")
    q, k = net.input("q", (2, 8, 3, 64)), net.input("k", (2, 2, 3, 64))
    net.attention(q, k, k, causal=True, cache=5)
    assert net.build().kv_cache_bytes == 2 * (2 * 2 * (3 + 5) * 64) * 2
    plain = Builder("plain")
    plain.attention(*[plain.input("q", (2, 8, 3, 64))] * 3)
    assert plain.build().kv_cache_bytes == 0


def test_tied_weights_count_once() -> None:
    net = Builder("tied")
    x = net.op("embedding", net.input("ids", (1, 4), "int32"), rows=50, width=8)
    net.linear(x, 50, bias=False, tied=x)
    built = net.build()
    assert built.params == 400
    assert built.macs == 4 * 400


@pytest.mark.parametrize(
    ("layers", "outputs", "says"),
    [
        ((), (), "no layers"),
        ((Layer("1", "a", "relu", ("y",), (4,)),), (), "unknown source 'y'"),
        ((Layer("2", "a", "relu", ("3",), (4,)), Layer("3", "b", "relu", ("x",), (4,))), (), "unknown source '3'"),
        ((Layer("x", "a", "relu", ("x",), (4,)),), (), "used twice"),
        ((Layer("1", "a", "relu", ("x",), (4,)),), ("9",), "output '9'"),
        ((Layer("1", "a", "rellu", ("x",), (4,)),), (), "relu"),
        ((Layer("1", "a", "relu", ("x",), (4,), {"size": 3}),), (), "no attribute 'size'"),
        ((Layer("1", "a", "relu", ("x",), ("M",)),), (), "symbol M"),
    ],
)
def test_invalid_networks(layers: tuple[Layer, ...], outputs: tuple[str, ...], says: str) -> None:
    with pytest.raises(HwsimError) as caught:
        Network("bad", (Tensor("x", (4,)),), layers, outputs).validate()
    assert says in str(caught.value)


def test_duplicate_inputs() -> None:
    with pytest.raises(HwsimError, match="appears twice"):
        Network("bad", (Tensor("x", (4,)),) * 2, (Layer("1", "", "relu", ("x",), (4,)),)).validate()


@settings(deadline=None)
@given(st.permutations(range(8)))
def test_topological_order(order: list[int]) -> None:
    chain = [Layer(str(i), "", "relu", (str(i - 1),) if i else ("x",), (4,)) for i in range(8)]
    assert [la.id for la in topological([chain[i] for i in order], ["x"])] == [str(i) for i in range(8)]


def test_topological_is_stable_and_finds_cycles() -> None:
    free = [Layer(i, "", "relu", ("x",), (4,)) for i in "cab"]
    assert [la.id for la in topological(free, ["x"])] == list("cab")
    loop = [Layer("1", "", "relu", ("2",), (4,)), Layer("2", "", "relu", ("1",), (4,))]
    with pytest.raises(HwsimError, match="cycle"):
        topological(loop, ["x"])


def test_builder_helpers() -> None:
    net = Builder("b")
    x = net.input("x", (2, 6, 8))
    heads = net.heads(x, 4)
    assert net.shape(heads) == (2, 4, 6, 2)
    assert net.shape(net.merge_heads(heads)) == (2, 6, 8)
    assert net.shape(net.reshape(x, (-1, 8))) == (12, 8)
    assert net.shape(net.split(x, -1, 2, 3)) == (2, 6, 3)
    assert net.shape(net.norm(x)) == (2, 6, 8)
    image = net.input("i", (1, 4, 9, 9))
    assert net.shape(net.depthwise(image, 3, 2, "same", multiplier=2)) == (1, 8, 5, 5)
    assert net.shape(net.resize(image, (18, 18))) == (1, 4, 18, 18)
    assert net.shape(net.pool(image, "avg", 3, 2, "same")) == (1, 4, 5, 5)
    with pytest.raises(HwsimError, match="unknown operator"):
        net.op("reluu", x)
