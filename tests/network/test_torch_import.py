"""Reading PyTorch programs: view algebra, canonical form, saved programs; real modules where torch is installed."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network import torch_contract, torch_move, torch_ops, torch_vector
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.network.ops import OPS
from hwsim.network.torch_convert import convert
from hwsim.network.torch_graph import Ref, TorchConst, TorchGraph, TorchNode, TorchTensor, dtype_name, target_name
from hwsim.network.torch_import import from_pt2, from_torch
from hwsim.network.torch_views import Step, View, plan, view_of
from hwsim.network.trace import format_trace, parse_trace

# -- views -------------------------------------------------------------------------------------------------------------


def run(steps: list[Step], x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the planned rows compute."""
    for step in steps:
        if step.op == "split":
            index = [slice(None)] * x.ndim
            index[step.axis] = slice(step.start, step.start + step.shape[step.axis])
            x = x[tuple(index)]
        elif step.op == "reshape":
            x = x.reshape(step.shape)
        else:
            x = x.transpose(step.perm)
        assert x.shape == step.shape
    return x


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_chain_of_views_is_what_numpy_makes(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8]), min_size=1, max_size=4)))
    base = np.arange(math.prod(shape)).reshape(shape)
    x, view = base, view_of("b", shape)
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from("prsu"))
        made: View | None
        if kind == "p":
            perm = data.draw(st.permutations(range(x.ndim)))
            x, made = x.transpose(perm), view.permute(perm)
        elif kind == "r":
            left, dims = x.size, []
            while left > 1 and len(dims) < 5:
                dims.append(data.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0])))
                left //= dims[-1]
            made = view.reshape([*dims, left])
            x = x if made is None else x.reshape([*dims, left])
        elif kind == "s" and x.ndim:
            dim = data.draw(st.integers(0, x.ndim - 1))
            start = data.draw(st.integers(0, x.shape[dim] - 1))
            size = data.draw(st.integers(1, x.shape[dim] - start))
            made = view.part(dim, start, size)
            if made is not None:
                x = x[tuple(slice(start, start + size) if i == dim else slice(None) for i in range(x.ndim))]
        else:
            dim = data.draw(st.integers(0, x.ndim))
            x, made = np.expand_dims(x, dim), view.insert(dim)
        view = made or view
        assert view.shape == x.shape
    assert np.array_equal(run(plan(view), base), x)
    rows = view.sorted_rows() if view.dims else view
    assert rows.atoms == view.atoms and math.prod(rows.shape) == x.size


def test_cancelling_transposes_leave_nothing() -> None:
    view = view_of("x", (5, 197, 768)).permute((1, 0, 2)).permute((1, 0, 2))
    assert view.identity and plan(view) == []


def test_heads_are_one_reshape_and_one_transpose() -> None:
    split = view_of("x", (5, 13, 768)).reshape((5, 13, 12, 64))
    assert split is not None
    assert [s.op for s in plan(split.permute((0, 2, 1, 3)))] == ["reshape", "transpose"]


def test_a_reshape_across_factors_is_refused() -> None:
    assert view_of("x", (4, 6)).permute((1, 0)).reshape((8, 3)) is None
    assert view_of("x", (5, 7)).reshape((7, 5)) is None


# -- canonical form, from hand-written calls ---------------------------------------------------------------------------


class Calls:
    """Writes a small program: each method returns a reference."""

    def __init__(self, *shape: int, dtype: str = "fp32") -> None:
        self.inputs = [("x", TorchTensor(shape, dtype))]
        self.consts: dict[str, TorchConst] = {}
        self.nodes: list[TorchNode] = []
        self.x = Ref("x")

    def param(self, name: str, *shape: int, key: str = "") -> Ref:
        self.consts[name] = TorchConst(TorchTensor(shape), key or name, True)
        return Ref(name)

    def call(
        self, target: str, shape: tuple[int, ...], *args: Any, path: str = "m", dtype: str = "fp32", **kw: Any
    ) -> Ref:
        name = f"n{len(self.nodes)}"
        self.nodes.append(TorchNode(name, target, args, kw, (TorchTensor(shape, dtype),), path))
        return Ref(name)

    def net(self, *outputs: Ref) -> Network:
        net = convert(TorchGraph(tuple(self.inputs), self.consts, tuple(self.nodes), outputs), "t")
        assert parse_trace(format_trace(net)) == parse_trace(format_trace(net))
        return net


def ops(net: Network) -> list[str]:
    return ["+".join((la.op, *la.fused)) for la in net.layers]


def conv(c: Calls, x: Ref, name: str = "w") -> Ref:
    return c.call("conv2d", (5, 8, 8, 8), x, c.param(name, 8, 3 if x == c.x else 8, 3, 3), None, [1, 1], [1, 1])


def test_batch_norm_and_activation_join_their_convolution() -> None:
    c = Calls(5, 3, 8, 8)
    y = conv(c, c.x)
    y = c.call("batch_norm", (5, 8, 8, 8), y, c.param("s", 8), c.param("b", 8))
    y = c.call("relu_", (5, 8, 8, 8), y)
    net = c.net(y)
    assert ops(net) == ["conv+bn+relu"]
    assert net.params == 8 * 27 + 16 and net.macs == 5 * 64 * 8 * 27


def test_an_activation_with_two_readers_stays_outside() -> None:
    c = Calls(5, 3, 8, 8)
    a = conv(c, c.x)
    y = c.call("add", (5, 8, 8, 8), c.call("relu", (5, 8, 8, 8), a), a)
    assert ops(c.net(y)) == ["conv", "relu", "add"]


def test_in_place_calls_change_the_tensor_others_read_later() -> None:
    c = Calls(5, 8, 8, 8)
    y = c.call("add", (5, 8, 8, 8), c.x, c.x)
    c.call("relu_", (5, 8, 8, 8), y)
    assert ops(c.net(c.call("neg", (5, 8, 8, 8), y))) == ["add+relu", "neg"]


def test_zero_padding_joins_the_convolution_as_unequal_amounts() -> None:
    c = Calls(5, 3, 7, 7)
    y = c.call("pad", (5, 3, 8, 8), c.x, [0, 1, 0, 1], "constant", None)
    y = c.call("conv2d", (5, 8, 3, 3), y, c.param("w", 8, 3, 3, 3), None, [2, 2])
    net = c.net(y)
    assert ops(net) == ["conv"] and net.layers[0].attrs["p"] == (0, 0, 1, 1)


def test_padding_with_another_value_stays() -> None:
    c = Calls(5, 3, 7, 7)
    y = c.call("pad", (5, 3, 8, 8), c.x, [0, 1, 0, 1], "constant", -1.0)
    assert ops(c.net(c.call("conv2d", (5, 8, 6, 6), y, c.param("w", 8, 3, 3, 3)))) == ["pad", "conv"]


def multihead(c: Calls, **kw: Any) -> Ref:
    """One fused projection, heads cut out of it, merged again."""
    qkv = c.call("linear", (5, 13, 96), c.x, c.param("w", 96, 32), c.param("b", 96))
    qkv = c.call("view", (5, 13, 3, 4, 8), qkv, [5, 13, 3, 4, 8])
    qkv = c.call("permute", (3, 5, 4, 13, 8), qkv, [2, 0, 3, 1, 4])
    q, k, v = (c.call("select", (5, 4, 13, 8), qkv, 0, i) for i in range(3))
    y = c.call("scaled_dot_product_attention", (5, 4, 13, 8), q, k, v, **kw)
    y = c.call("reshape", (5, 13, 32), c.call("transpose", (5, 13, 4, 8), y, 1, 2), [5, 13, 32])
    return c.call("linear", (5, 13, 32), y, c.param("o", 32, 32))


def test_attention_keeps_the_reshape_and_transpose_that_make_heads() -> None:
    c = Calls(5, 13, 32)
    net = c.net(multihead(c, is_causal=True))
    assert ops(net) == ["linear", *["split", "reshape", "transpose"] * 3, "attention", "transpose", "reshape", "linear"]
    att = net.layers[10]
    assert att.attrs == {"causal": True} and att.shape == (5, 4, 13, 8)
    assert [net.by_id[net.by_id[net.by_id[s].src[0]].src[0]].attrs["start"] for s in att.src] == [0, 32, 64]


@pytest.mark.parametrize(
    ("compare", "other", "causal"), [("le", "positions", True), ("ge", "number", False), ("tril", "none", True)]
)
def test_a_mask_of_positions_is_causal_and_leaves_no_rows(compare: str, other: str, causal: bool) -> None:
    c = Calls(5, 13, 32)
    rows = c.call("arange", (13,), 13, dtype="int64")
    cols = c.call("unsqueeze", (13, 1), rows, 1, dtype="int64")
    extra = {"positions": (rows,), "number": (0,), "none": ()}[other]
    mask = c.call(compare, (13, 13), cols, *extra, dtype="bool")
    net = c.net(multihead(c, attn_mask=mask))
    assert bool(net.layers[10].attrs.get("causal")) is causal
    assert not any(la.op in ("constant", "where", "add") for la in net.layers)


@pytest.mark.parametrize(("scale", "attrs"), [(0.125, {"scale": 0.125}), (8**-0.5, {})])
def test_written_out_attention_becomes_one_row(scale: float, attrs: dict[str, float]) -> None:
    c = Calls(5, 4, 13, 8)
    kt = c.call("transpose", (5, 4, 8, 13), c.x, -2, -1)
    s = c.call("mul", (5, 4, 13, 13), c.call("matmul", (5, 4, 13, 13), c.x, kt), scale)
    s = c.call("softmax", (5, 4, 13, 13), s, -1)
    net = c.net(c.call("matmul", (5, 4, 13, 8), s, c.x))
    assert ops(net) == ["attention"] and net.macs == 2 * 5 * 4 * 13 * 13 * 8
    assert net.layers[0].attrs == attrs


def test_heads_repeated_for_groups_are_read_in_place() -> None:
    c = Calls(5, 4, 13, 8)
    k = c.call("unsqueeze", (5, 4, 1, 13, 8), c.x, 2)
    k = c.call("reshape", (5, 8, 13, 8), c.call("expand", (5, 4, 2, 13, 8), k, [5, 4, 2, 13, 8]), [5, 8, 13, 8])
    q = c.call("cat", (5, 8, 13, 8), [c.x, c.x], 1)
    net = c.net(c.call("scaled_dot_product_attention", (5, 8, 13, 8), q, k, k))
    assert ops(net) == ["concat", "attention"] and net.layers[1].src == ("1", "x", "x")


def test_decomposed_activations_are_recognised() -> None:
    shape = (5, 16)

    def gelu(c: Calls) -> Ref:
        cube = c.call("mul", shape, c.call("pow", shape, c.x, 3.0), 0.044715)
        t = c.call("tanh", shape, c.call("mul", shape, c.call("add", shape, c.x, cube), math.sqrt(2 / math.pi)))
        return c.call("mul", shape, c.call("mul", shape, c.x, 0.5), c.call("add", shape, t, 1.0))

    def silu(c: Calls) -> Ref:
        return c.call("mul", shape, c.x, c.call("sigmoid", shape, c.x))

    def quick(c: Calls) -> Ref:
        return c.call("mul", shape, c.x, c.call("sigmoid", shape, c.call("mul", shape, c.x, 1.702)))

    def hswish(c: Calls) -> Ref:
        clip = c.call("hardtanh", shape, c.call("add", shape, c.x, 3.0), 0.0, 6.0)
        return c.call("div", shape, c.call("mul", shape, c.x, clip), 6.0)

    def rms(c: Calls) -> Ref:
        mean = c.call("mean", (5, 1), c.call("pow", shape, c.x, 2), [-1], True)
        root = c.call("rsqrt", (5, 1), c.call("add", (5, 1), mean, 1e-6))
        return c.call("mul", shape, c.param("g", 16), c.call("mul", shape, c.x, root))

    made: dict[str, Callable[[Calls], Ref]] = {
        "gelu_tanh": gelu, "silu": silu, "quick_gelu": quick, "hswish": hswish, "rms_norm": rms,
    }  # fmt: skip
    for name, build in made.items():
        c = Calls(*shape)
        net = c.net(build(c))
        assert ops(net) == [name]
        assert net.params == (16 if name == "rms_norm" else 0)


def test_a_polynomial_with_another_constant_is_left_alone() -> None:
    c = Calls(5, 16)
    y = c.call("mul", (5, 16), c.x, c.call("sigmoid", (5, 16), c.call("mul", (5, 16), c.x, 1.5)))
    assert ops(c.net(y)) == ["mul", "sigmoid", "mul"]


def test_learned_constants_are_counted_once() -> None:
    c = Calls(5, 13, 32)
    token = c.call("expand", (5, 1, 32), c.param("cls", 1, 1, 32), [5, -1, -1])
    y = c.call("cat", (5, 14, 32), [token, c.x], 1)
    y = c.call("add", (5, 14, 32), y, c.param("pos", 1, 14, 32))
    y = c.call("linear", (5, 14, 40), y, c.param("w", 40, 32, key="shared"))
    y = c.call("linear", (5, 14, 32), y, c.param("v", 32, 40))
    y = c.call("linear", (5, 14, 40), y, c.param("again", 40, 32, key="shared"))
    net = c.net(y)
    assert net.params == 32 + 14 * 32 + 2 * 40 * 32
    assert net.layers[0].attrs["constant"] == 1 and net.layers[-1].attrs["tied"] == net.layers[2].id


def test_tokens_become_look_ups_and_index_arithmetic_vanishes() -> None:
    c = Calls(5, 13, dtype="int64")
    ids = c.call("view", (5, 13), c.x, [-1, 13], dtype="int64")
    words = c.call("embedding", (5, 13, 32), c.param("table", 100, 32), ids)
    places = c.call("add", (13,), c.call("arange", (13,), 13, dtype="int64"), 2, dtype="int64")
    where = c.call("embedding", (13, 32), c.param("place", 20, 32), places)
    net = c.net(c.call("add", (5, 13, 32), words, where))
    assert ops(net) == ["embedding", "constant", "embedding", "add"]
    assert net.params == 120 * 32


def test_unknown_operator_is_one_clear_line() -> None:
    c = Calls(5, 13)
    with pytest.raises(HwsimError, match=r"layer1.fft \(aten.fft_rfft\).*no hwsim equivalent"):
        c.net(c.call("fft_rfft", (5, 7), c.x, path="layer1.fft"))


def test_tables_name_operators_that_exist() -> None:
    for mapping in (
        torch_ops.UNARY, torch_ops.BINARY, torch_ops.REDUCE, torch_ops.SOFTMAX, torch_ops.POOL, torch_ops.ADAPTIVE,
    ):  # fmt: skip
        assert set(mapping.values()) <= set(OPS)
    handlers = [torch_move.HANDLERS, torch_vector.HANDLERS, torch_contract.HANDLERS]
    names = [name for h in handlers for name in h]
    assert len(names) == len(set(names)), "an operator handled in two modules"
    assert not set(names) & (torch_ops.IGNORE | torch_ops.MAKERS)


def test_names_of_types_and_targets() -> None:
    assert dtype_name("torch.bfloat16") == "bf16" and target_name("aten.add_.Tensor") == "add_"
    assert target_name("torch.ops.aten.conv2d.default") == "conv2d"
    assert target_name("<built-in function getitem>") == "getitem"
    with pytest.raises(HwsimError, match="qint8"):
        dtype_name("torch.qint8")


# -- saved programs ----------------------------------------------------------------------------------------------------


def program() -> dict[str, Any]:
    """The JSON of relu(conv(x)).chunk(2) as schema 8 has it."""

    def tensor(*sizes: int) -> dict[str, Any]:
        return {"dtype": 7, "sizes": [{"as_int": s} for s in sizes]}

    def arg(name: str, **value: Any) -> dict[str, Any]:
        return {"name": name, "arg": value, "kind": 1}

    stack = {"nn_module_stack": "L__self__,,M;L__self__c,c,torch.nn.modules.conv.Conv2d"}
    nodes = [
        {"target": "torch.ops.aten.conv2d.default", "metadata": stack, "outputs": [{"as_tensor": {"name": "conv2d"}}],
         "inputs": [arg("input", as_tensor={"name": "x"}), arg("weight", as_tensor={"name": "p_w"}),
                    arg("bias", as_none=True), arg("stride", as_ints=[2, 2])]},
        {"target": "torch.ops.aten.chunk.default", "metadata": {}, "inputs": [
            arg("self", as_tensor={"name": "conv2d"}), arg("chunks", as_int=2), arg("dim", as_int=1)],
         "outputs": [{"as_tensors": [{"name": "a"}, {"name": "b"}]}]},
    ]  # fmt: skip
    graph = {
        "inputs": [], "outputs": [{"as_tensor": {"name": "b"}}], "nodes": nodes,
        "tensor_values": {"x": tensor(1, 3, 9, 9), "p_w": tensor(8, 3, 3, 3), "conv2d": tensor(1, 8, 4, 4),
                          "a": tensor(1, 4, 4, 4), "b": tensor(1, 4, 4, 4)},
    }  # fmt: skip
    specs = [
        {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "c.weight"}},
        {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
    ]
    return {"graph_module": {"graph": graph, "signature": {"input_specs": specs}}, "schema_version": {"major": 8}}


def save(path: Path, value: object) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/models/model.json", value if isinstance(value, str) else json.dumps(value))
    return path


def test_a_saved_program_is_read_without_torch(tmp_path: Path) -> None:
    net = load_network(save(tmp_path / "m.pt2", program()))
    assert ops(net) == ["conv", "split"] and net.name == "m"
    assert net.layers[0].name == "c" and net.layers[1].attrs["start"] == 4
    assert net.macs == 16 * 8 * 27 and net.params == 8 * 27


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"graph_module": {"graph": 1, "signature": 2}}', "[" * 100000])
def test_malformed_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(HwsimError, match=r"m\.pt2"):
        from_pt2(save(tmp_path / "m.pt2", text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.pt2"
    file.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(HwsimError, match="archive"):
        from_pt2(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(HwsimError, match="0 exported programs"):
        from_pt2(file)
    with pytest.raises(HwsimError, match="cannot be read"):
        from_pt2(tmp_path / "absent.pt2")


def test_dynamic_shapes_are_refused(tmp_path: Path) -> None:
    value = program()
    value["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] = {"as_expr": {"expr_str": "s0"}}
    with pytest.raises(HwsimError, match="dynamic"):
        from_pt2(save(tmp_path / "m.pt2", value))


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(p for k, v in items for p in _places(v, (*at, k)))]


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_mutated_program_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    value = program()
    place = data.draw(st.sampled_from([p for p in _places(value) if p]))
    new = data.draw(
        st.sampled_from([None, -1, 0, 3, 2**70, "x", "", [], {}, {"as_int": -3}, [1, 2, 3, 4, 5], True, 1.5])
    )
    target = value
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = new
    path = save(tmp_path_factory.mktemp("p") / "m.pt2", value)
    try:
        from_pt2(path).validate()
    except HwsimError as error:
        assert "\n" not in str(error)


# -- real modules ------------------------------------------------------------------------------------------------------


def test_things_that_are_no_module_are_refused() -> None:
    with pytest.raises(HwsimError, match="cannot load a network from a int"):
        from_torch(3)


def test_a_module_and_its_saved_program_agree(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )  # fmt: skip
    model.train()
    net = from_torch(model, args=((2, 3, 16, 16),), name="m")
    assert model.training, "the caller's module is left as it was"
    assert ops(net) == ["conv+bn+silu", "adaptive_avg_pool", "reshape", "linear"]
    assert net.params == sum(p.numel() for p in model.parameters())
    exported = torch.export.export(model.eval(), (torch.zeros(2, 3, 16, 16),))
    torch.export.save(exported, str(tmp_path / "m.pt2"))
    for again in (from_torch(exported, name="m"), from_pt2(tmp_path / "m.pt2")):
        assert [(la.op, la.shape, dict(la.attrs), la.fused) for la in again.layers] == [
            (la.op, la.shape, dict(la.attrs), la.fused) for la in net.layers
        ]


def test_recurrent_layers() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.LSTM(16, 32, num_layers=2, bidirectional=True, batch_first=True)
    net = from_torch(model, args=((5, 13, 16),))
    assert [la.op for la in net.layers] == ["lstm", "lstm"]
    assert net.params == sum(p.numel() for p in model.parameters())


def test_modules_that_cannot_be_traced_say_so() -> None:
    torch = pytest.importorskip("torch")

    class Branches(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x * 2 if bool(x.sum() > 0) else x

    with pytest.raises(HwsimError, match=r"branches: torch.export cannot trace it"):
        from_torch(Branches(), args=((3, 4),))
    with pytest.raises(HwsimError, match="give example inputs"):
        from_torch(torch.nn.Linear(3, 4))
