"""ONNX files: real models against brute force on onnx's own shapes, open dimensions, canonical form, refusals."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.network.graph import Network
from hwsim.network.onnx_file import parse_onnx
from hwsim.network.onnx_import import from_onnx, network_of
from hwsim.network.onnx_strip import strip_weights
from hwsim.network.trace import format_trace, parse_trace

onnx = pytest.importorskip("onnx")
from onnx import AttributeProto, TensorProto, helper, numpy_helper  # noqa: E402
from onnx_counts import macs_of, stored_params  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "onnx"
FIXTURES = sorted(DATA.glob("*.gz"))
LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))


def read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def load(path: Path) -> Network:
    return network_of(parse_onnx(read(path), path.name), path.name)


def w(name: str, *shape: int, kind: type = np.float32) -> Any:
    return numpy_helper.from_array(np.zeros(shape, kind), name)


def const(name: str, values: Any, kind: type = np.int64) -> Any:
    return numpy_helper.from_array(np.array(values, kind), name)


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any], inputs: list[Any], stored: list[Any], *, outputs: Any = ("y",), opset: int = 17, **kw: Any
) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, [value(o, None) for o in outputs], stored, **kw)
    ops = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=ops)


def net_of(proto: Any) -> Network:
    return network_of(parse_onnx(proto.SerializeToString(), "m"), "m.onnx")


def ops(net: Network) -> list[str]:
    return [la.op for la in net.layers]


# -- real models ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_public_classifiers_equal_brute_force(path: Path) -> None:
    net = load(path)
    assert net.macs == macs_of(onnx.load(path))
    # the batch-norms of these files fold into their convolutions where they follow one
    if path.stem == "light_resnet50":
        assert (net.macs, net.params) == (4089184256, 25557032)  # torchvision's figures for ResNet-50
        assert "batch_norm" not in ops(net)
    if path.stem == "light_vgg19":
        assert net.params == 143667240  # torchvision's figure for VGG-19


SIZES = {"batch": 3, "batch_size": 3, "seq": 48, "sequence_length": 48, "time": 48, "height": 224, "width": 224}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.name.split(".")[0])
def test_exported_models_equal_brute_force_at_another_size(path: Path) -> None:
    net = load(path)
    bound = net.bind(N=3, **({"S": 48} if "S" in net.symbols else {})).validate()
    assert bound.macs == macs_of(onnx.ModelProto.FromString(read(path)), SIZES)


@pytest.mark.parametrize(
    ("name", "params"),  # BERT: the module's, less four of its five layer-norms, equal and stored once
    [("bert_legacy17", 106368 - 4 * 128), ("lstm", 34560), ("se17", 1478), ("gpt2_dynamo", None), ("se_hw", 1478)],
)
def test_exported_parameters(name: str, params: int | None) -> None:
    path = DATA / f"{name}.onnx.gz"
    stored = stored_params(onnx.ModelProto.FromString(read(path)))
    assert load(path).params == (stored if params is None else params)


@pytest.mark.parametrize(
    ("name", "params", "macs"),  # torchvision's published figures: parameters, GMAC rounded to the megamac
    [("mobilenet_v2_train", 3504872, 301e6), ("convnext_tiny", None, 4456e6), ("efficientnet_b0", None, 386e6)],
)
def test_published_figures(name: str, params: int | None, macs: float) -> None:
    net = load(DATA / f"{name}.onnx.gz")
    assert round(net.macs / 1e6) == macs / 1e6
    if params is not None:  # the others store equal tensors once, or have their batch-norms folded
        assert net.params == params
    assert "batch_norm" not in ops(net)


@pytest.mark.parametrize("path", [*FIXTURES, *LIGHT], ids=lambda p: p.name.split(".")[0])
def test_round_trip_through_the_trace(path: Path) -> None:
    net = load(path)
    again = parse_trace(format_trace(net))
    assert (again.layers, again.inputs, again.symbols) == (net.layers, net.inputs, net.symbols)
    assert (again.macs, again.params) == (net.macs, net.params)


def test_transformers_come_out_whole() -> None:
    for name, norm, gate, layers in (
        ("bert_legacy17", "layer_norm", "gelu", 2),
        ("llama_dynamo", "rms_norm", "silu", 2),
    ):
        net = load(DATA / f"{name}.onnx.gz")
        assert ops(net).count("attention") == layers
        assert ops(net).count(norm) == 2 * layers + 1
        assert sum(gate in la.fused for la in net.layers) == layers
        assert "softmax" not in ops(net)
    heads = [la for la in net.layers if la.op == "attention"]
    keys = [net.tensors[la.src[1]].shape for la in heads]
    assert keys == [("N", 2, "S", 16)] * 2  # grouped keys are not repeated for every query head


def test_image_size_is_fixed_when_extents_round() -> None:
    net = load(DATA / "se_hw.onnx.gz")
    assert (dict(net.symbols), net.meta["fixed"]) == ({"N": 1}, "H=224 W=224")
    parsed = parse_onnx(read(DATA / "se_hw.onnx.gz"), "m")
    larger = network_of(parsed, "m.onnx", {"H": 256, "W": 320})
    assert larger.layers[0].shape == ("N", 16, 128, 160)
    with pytest.raises(HwsimError, match="no open dimension HH"):
        network_of(parsed, "m.onnx", {"HH": 3})


# -- open dimensions ------------------------------------------------------------------------------------------------


def test_sequence_and_past_are_symbols() -> None:
    inputs = [value("x", ["batch", "seq", 8]), value("past", ["batch", "past_len", 8])]
    net = net_of(model([helper.make_node("Concat", ["past", "x"], ["y"], axis=1)], inputs, []))
    assert [t.shape for t in net.inputs] == [("N", "S", 8), ("N", "P", 8)]
    assert net.bind(N=2, S=1, P=7).layers[-1].shape == (2, 8, 8)


def test_sums_of_names_and_unnamed_dimensions() -> None:
    inputs = [
        value("a", ["b", "past_sequence_length", 4]),
        value("m", ["b", "past_sequence_length + sequence_length", 4]),
    ]
    nodes = [helper.make_node("Slice", ["m", "zero", "len", "one"], ["s"]), helper.make_node("Add", ["a", "s"], ["y"])]
    nodes = [
        helper.make_node("Shape", ["a"], ["shape"]),
        helper.make_node("Slice", ["shape", "one", "two", "zero"], ["len"]),
        *nodes,
    ]
    stored = [const("zero", [0]), const("one", [1]), const("two", [2])]
    net = net_of(model(nodes, inputs, stored))
    assert net.bind(N=2, P=5, S=3).inputs[1].shape == (2, 8, 4)
    assert net.layers[-1].shape == ("N", "P", 4)
    unnamed = net_of(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [None, 3, None, None])], []))
    assert unnamed.inputs[0].shape == ("N", 3, "H", "W")
    assert unnamed.bind(N=2, H=5, W=6).layers[0].shape == (2, 3, 5, 6)


def test_shape_arithmetic_leaves_no_layer() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["to"], axis=0),
        helper.make_node("Reshape", ["c", "to"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["y"], transB=1),
    ]
    stored = [
        w("w", 4, 3, 3, 3),
        const("zero", 0),
        const("axis", [0]),
        const("minus", [-1]),
        w("fw", 5, 256),
        w("fb", 5),
    ]
    net = net_of(model(nodes, [value("x", ["batch", 3, 8, 8])], stored))
    assert ops(net) == ["conv", "reshape", "linear"]
    assert net.layers[1].shape == ("N", 256)
    assert (net.bind(N=7).macs, net.params) == (7 * (64 * 4 * 27 + 256 * 5), 4 * 27 + 256 * 5 + 5)


def test_position_table_is_stored_whole() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "one", "two"], ["len"]),
        helper.make_node("Slice", ["table", "zero", "len", "zero"], ["cut"]),
        helper.make_node("Add", ["x", "cut"], ["y"]),
    ]
    stored = [const("zero", [0]), const("one", [1]), const("two", [2]), w("table", 300, 8)]
    net = net_of(model(nodes, [value("x", ["batch", "seq", 8])], stored))
    assert net.params == net.bind(S=5).params == 300 * 8


def test_length_is_fixed_when_it_rounds() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2], pads=[1, 1])
    net = net_of(model([node], [value("x", ["batch", 8, "frames"])], [w("w", 4, 8, 3)]))
    assert (dict(net.symbols), net.meta["fixed"]) == ({"N": 1}, "S=128")
    assert net.layers[0].shape == ("N", 4, 64)


def test_class_token_is_stored_once() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["n"]),
        helper.make_node("Concat", ["n", "tail"], ["to"], axis=0),
        helper.make_node("Expand", ["token", "to"], ["t"]),
        helper.make_node("Concat", ["t", "x"], ["y"], axis=1),
    ]
    stored = [const("zero", [0]), const("one", [1]), const("tail", [1, 1]), w("token", 1, 1, 8)]
    net = net_of(model(nodes, [value("x", ["batch", 16, 8])], stored))
    assert net.params == net.bind(N=5).params == 8
    assert net.bind(N=5).layers[-1].shape == (5, 17, 8)


def test_sizes_tried_are_named_when_none_fits() -> None:
    nodes = [helper.make_node("Reshape", ["x", "to"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]
    proto = model(nodes, [value("x", ["batch", "seq"])], [const("to", [7, 3])])
    with pytest.raises(HwsimError, match=r"cannot reshape 128 elements.*open dimensions taken as N=1 S=128"):
        net_of(proto)
    parsed = parse_onnx(proto.SerializeToString(), "m")
    assert network_of(parsed, "m.onnx", {"N": 3, "S": 7}).layers[0].shape == (7, 3)


def test_fixed_batch_refuses_another() -> None:
    net = net_of(model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [1, 4])], []))
    with pytest.raises(HwsimError, match="no symbol N: all its shapes are fixed"):
        net.bind(N=2)


# -- operators and opsets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, 22))
def test_classifier_in_every_opset(opset: int) -> None:
    axes = {"axes": [1]} if opset < 13 else {}
    squeeze = ["r"] if opset < 13 else ["r", "axes"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["l"], transB=1),
        helper.make_node("Unsqueeze", ["l"] if opset < 13 else ["l", "axes"], ["r"], **axes),
        helper.make_node("Squeeze", squeeze, ["q"], **axes),
        helper.make_node("Softmax", ["q"], ["y"], axis=1),
    ]
    stored = [w("w", 8, 3, 3, 3), *(w(n, 8) for n in "sbmv"), w("fw", 10, 8), w("fb", 10), const("axes", [1])]
    net = net_of(model(nodes, [value("x", ["N", 3, 9, 9])], stored, opset=opset))
    assert ops(net) == ["conv", "max_pool", "adaptive_avg_pool", "reshape", "linear", "softmax"]
    assert net.layers[0].fused == ("bn", "relu")
    assert net.macs == 25 * 8 * 27 + 80
    assert net.params == 8 * 27 + 16 + 80 + 10


@pytest.mark.parametrize(
    ("auto", "stride", "pads"), [("SAME_UPPER", 2, (0, 1)), ("SAME_LOWER", 2, (1, 0)), ("VALID", 1, None)]
)
def test_automatic_padding(auto: str, stride: int, pads: tuple[int, int] | None) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad=auto, strides=[stride])
    net = net_of(model([node], [value("x", [1, 2, 8])], [w("w", 4, 2, 3)]))
    assert net.layers[0].attrs.get("p") == pads
    assert net.layers[0].shape == (1, 4, 4 if stride == 2 else 6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_grouped_convolution_in_all_ranks(rank: int) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], group=4, dilations=[2] * rank)
    stored = [w("w", 8, 2, *[3] * rank), w("b", 8)]
    net = net_of(model([node], [value("x", [2, 8, *[9] * rank])], stored))
    assert net.macs == 2 * 5**rank * 8 * 2 * 3**rank
    assert net.params == 8 * 2 * 3**rank + 8


def test_transposed_convolution() -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    )
    net = net_of(model([node], [value("x", [1, 6, 7, 7])], [w("w", 6, 5, 3, 3)]))
    assert net.layers[0].shape == (1, 5, 14, 14)
    assert net.macs == 49 * 6 * 5 * 9


def test_products_of_every_kind() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["c", "t2"], ["d"]),
        helper.make_node("Einsum", ["x", "x"], ["e"], equation="bik,bjk->bij"),
        helper.make_node("MatMul", ["t", "e"], ["f"]),
        helper.make_node("MatMul", ["left", "f"], ["y"]),
    ]
    stored = [w("w", 8, 6), w("b", 6), w("t2", 6, 3), w("left", 2, 8)]
    net = net_of(model(nodes, [value("x", ["N", 5, 8])], stored, outputs=("y", "d")))
    linear = [la for la in net.layers if la.op == "linear"]
    assert [la.attrs.get("bias") for la in linear] == [True, None]
    assert net.bind(N=3).macs == 3 * (5 * 8 * 6 + 5 * 6 * 3 + 5 * 5 * 8 + 8 * 5 * 5 + 2 * 8 * 5)
    assert net.params == 48 + 6 + 18 + 16


def test_shared_weights_count_once() -> None:
    nodes = [
        helper.make_node("Gather", ["w", "x"], ["e"]),
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["e", "wt"], ["y"]),
    ]
    net = net_of(model(nodes, [value("x", ["N", "seq"], TensorProto.INT64)], [w("w", 20, 4)]))
    assert ops(net) == ["embedding", "linear"]
    assert (net.params, net.layers[1].attrs["tied"]) == (80, "1")


def test_activations_fold_only_when_alone() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["c"])
    stored = [w("w", 3, 3, 1, 1)]
    x = [value("x", [1, 3, 4, 4])]
    alone = net_of(model([conv, helper.make_node("Relu", ["c"], ["y"])], x, stored))
    assert [(la.op, la.fused) for la in alone.layers] == [("conv", ("relu",))]
    both = net_of(model([conv, helper.make_node("Relu", ["c"], ["y"])], x, stored, outputs=("y", "c")))
    assert ops(both) == ["conv", "relu"]
    twice = [conv, helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Sigmoid", ["r"], ["y"])]
    assert [(la.op, la.fused) for la in net_of(model(twice, x, stored)).layers] == [
        ("conv", ("relu",)),
        ("sigmoid", ()),
    ]


def test_pieces_become_one_activation() -> None:
    x = [value("x", [2, 8])]
    half = [const("half", 0.5, np.float32), const("one", 1.0, np.float32), const("root", 2**0.5, np.float32)]
    gelu = [
        helper.make_node("Div", ["x", "root"], ["d"]), helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]), helper.make_node("Mul", ["x", "p"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]  # fmt: skip
    assert ops(net_of(model(gelu, x, half))) == ["gelu"]
    gelu[3:] = [helper.make_node("Mul", ["x", "half"], ["h"]), helper.make_node("Mul", ["h", "p"], ["y"])]
    assert ops(net_of(model(gelu, x, half))) == ["gelu"]
    almost = [*gelu[:2], helper.make_node("Add", ["e", "half"], ["p"]), *gelu[3:]]
    assert "gelu" not in ops(net_of(model(almost, x, half)))
    silu = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
    assert ops(net_of(model(silu, x, []))) == ["silu"]
    hard = [helper.make_node("HardSigmoid", ["x"], ["s"]), helper.make_node("Mul", ["s", "x"], ["y"])]
    assert ops(net_of(model(hard, x, []))) == ["hswish"]
    root = [
        helper.make_node("Pow", ["x", "two"], ["q"]), helper.make_node("ReduceMean", ["q"], ["v"], axes=[-1]),
        helper.make_node("Add", ["v", "eps"], ["e"]), helper.make_node("Sqrt", ["e"], ["r"]),
        helper.make_node("Div", ["one", "r"], ["n"]), helper.make_node("Mul", ["x", "n"], ["s"]),
        helper.make_node("Mul", ["s", "g"], ["y"]),
    ]  # fmt: skip
    stored = [const("two", 2.0, np.float32), const("eps", 1e-6, np.float32), w("g", 8), half[1]]
    net = net_of(model(root, x, stored, opset=13))
    assert (ops(net), net.params) == (["rms_norm"], 8)
    norm = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[-1]), helper.make_node("Sub", ["x", "m"], ["c"]),
        helper.make_node("Pow", ["c", "two"], ["q"]), helper.make_node("ReduceMean", ["q"], ["v"], axes=[-1]),
        helper.make_node("Add", ["v", "eps"], ["e"]), helper.make_node("Sqrt", ["e"], ["r"]),
        helper.make_node("Div", ["c", "r"], ["n"]), helper.make_node("Mul", ["n", "g"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["y"]),
    ]  # fmt: skip
    stored = [const("two", 2.0, np.float32), const("eps", 1e-5, np.float32), w("g", 8), w("b", 8)]
    net = net_of(model(norm, x, stored, opset=13))
    assert (ops(net), net.params) == (["layer_norm"], 16)


def test_attention_keeps_a_stored_bias() -> None:
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]), helper.make_node("MatMul", ["q", "kt"], ["s"]),
        helper.make_node("Add", ["s", "bias"], ["b"]), helper.make_node("Softmax", ["b"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]  # fmt: skip
    inputs = [value(n, [2, 4, 6, 8]) for n in "qkv"]
    net = net_of(model(nodes, inputs, [w("bias", 1, 4, 6, 6)]))
    assert ops(net) == ["constant", "attention"]
    assert (net.params, net.macs) == (4 * 36, 2 * 2 * 4 * 6 * 6 * 8)
    nodes[2:3] = [helper.make_node("Add", ["m", "bias"], ["mb"]), helper.make_node("Add", ["s", "mb"], ["b"])]
    masked = net_of(model(nodes, [*inputs, value("m", [2, 1, 6, 6])], [w("bias", 1, 1, 6, 6)]))
    assert ops(masked) == ["add", "attention"]
    assert masked.params == 36


def test_recurrent_cells() -> None:
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        node = helper.make_node(op, ["x", "w", "r", "b"], ["y"], hidden_size=6, direction="bidirectional")
        stored = [w("w", 2, gates * 6, 5), w("r", 2, gates * 6, 6), w("b", 2, 2 * gates * 6)]
        net = net_of(model([node], [value("x", [7, "batch", 5])], stored))
        assert net.bind(N=3).macs == 2 * 7 * 3 * gates * 6 * (5 + 6)
        assert net.params == 2 * gates * 6 * (5 + 6 + 2)
        assert net.bind(N=3).layers[-1].shape == (7, 2, 3, 6)


def test_microsoft_operators() -> None:
    domain = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("Attention", ["x", "w", "b"], ["a"], num_heads=2, **domain),
        helper.make_node("SkipLayerNormalization", ["a", "x", "g", "s"], ["n"], **domain),
        helper.make_node("FastGelu", ["n"], ["f"], **domain),
        helper.make_node("MatMulNBits", ["f", "q", "scales"], ["y"], K=8, N=16, bits=4, block_size=32, **domain),
    ]
    stored = [w("w", 8, 24), w("b", 24), w("g", 8), w("s", 8), w("q", 16, 1, 16, kind=np.uint8), w("scales", 16)]
    net = net_of(model(nodes, [value("x", ["N", "seq", 8])], stored))
    assert net.bind(N=2, S=4).macs == 2 * 4 * 8 * 24 + 2 * 2 * 2 * 4 * 4 * 4 + 2 * 4 * 8 * 16
    assert (net.layers[-1].weight_dtype, net.params) == ("uint4", 8 * 24 + 24 + 16 + 128)


def test_local_functions_are_expanded() -> None:
    body = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("LeakyRelu", ["c"], ["o"])]
    body[1].attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    function = helper.make_function("own", "Dense", ["a", "b"], ["o"], body, [helper.make_opsetid("", 17)], ["slope"])
    proto = model(
        [helper.make_node("Dense", ["x", "w"], ["y"], domain="own", slope=0.3)], [value("x", [2, 4])], [w("w", 4, 5)]
    )
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    net = net_of(proto)
    assert (net.macs, net.layers[0].fused) == (40, ("leaky_relu",))


# -- quantised ------------------------------------------------------------------------------------------------------


def qdq(name: str, source: str, kind: str = "act") -> list[Any]:
    return [
        helper.make_node("QuantizeLinear", [source, f"{kind}_s", f"{kind}_z"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", f"{kind}_s", f"{kind}_z"], [name]),
    ]


SCALES = [
    numpy_helper.from_array(np.array(0.25, np.float32), "act_s"),
    numpy_helper.from_array(np.array(-3, np.int8), "act_z"),
    numpy_helper.from_array(np.full(4, 0.5, np.float32), "w_s"),
    numpy_helper.from_array(np.zeros(4, np.int8), "w_z"),
]  # fmt: skip


def qdq_conv(out: str, source: str) -> list[Any]:
    return [
        helper.make_node("DequantizeLinear", ["wq", "w_s", "w_z"], [f"{out}_w"], axis=0),
        helper.make_node("Conv", [source, f"{out}_w"], [out], pads=[1, 1, 1, 1]),
    ]


def test_quantise_dequantise_pairs_become_formats() -> None:
    nodes = [
        *qdq("xd", "x"), *qdq_conv("c", "xd"), helper.make_node("Relu", ["c"], ["r"]), *qdq("rd", "r"),
        *qdq_conv("c2", "rd"), *qdq("cd", "c2"), helper.make_node("Add", ["rd", "cd"], ["a"]), *qdq("ad", "a"),
        helper.make_node("GlobalAveragePool", ["ad"], ["p"]), *qdq("y", "p"),
    ]  # fmt: skip
    net = net_of(model(nodes, [value("x", ["N", 4, 8, 8])], [*SCALES, w("wq", 4, 4, 3, 3, kind=np.int8)]))
    kinds = [(la.op, la.dtype, la.weight_dtype) for la in net.layers]
    assert kinds == [
        ("quantize", "int8", None), ("conv", "int8", None), ("conv", "int8", None), ("add", "int8", None),
        ("adaptive_avg_pool", "int8", None), ("dequantize", "fp32", None),
    ]  # fmt: skip
    conv = net.layers[1]
    assert (conv.fused, conv.qparams) == (("relu",), "s=0.25 z=-3 ws=per-channel:4@0")
    assert net.layers[2].attrs["tied"] == conv.id
    assert net.weight_bytes == 4 * 4 * 9


def test_incomplete_pairs_stay_explicit() -> None:
    stored = [*SCALES, w("wq", 4, 4, 3, 3, kind=np.int8), w("wf", 4, 4, 3, 3)]
    x = [value("x", [1, 4, 8, 8])]
    weight_only = net_of(model(qdq_conv("y", "x"), x, stored))
    assert [(la.op, la.dtype, la.weight_dtype) for la in weight_only.layers] == [("conv", "fp32", "int8")]
    float_weights = [*qdq("xd", "x"), helper.make_node("Conv", ["xd", "wf"], ["c"]), *qdq("y", "c")]
    kept = net_of(model(float_weights, x, stored))
    assert ops(kept) == ["quantize", "dequantize", "conv", "quantize", "dequantize"]
    assert kept.layers[2].dtype == "fp32"
    float_out = net_of(model([*qdq("xd", "x"), *qdq_conv("y", "xd")], x, stored))
    assert [(la.op, la.dtype, la.weight_dtype) for la in float_out.layers] == [
        ("quantize", "int8", None), ("conv", "fp32", "int8"),
    ]  # fmt: skip
    softmax = net_of(model([*qdq("xd", "x"), helper.make_node("Softmax", ["xd"], ["y"])], x, stored))
    assert ops(softmax) == ["quantize", "dequantize", "softmax"]


def test_weights_quantised_in_the_graph_and_views_between() -> None:
    other = [numpy_helper.from_array(np.array(0.5, np.float32), "o_s"), const("o_z", 1, np.int8)]
    nodes = [
        helper.make_node("QuantizeLinear", ["wf", "w_s", "w_z"], ["wi"], axis=0),
        helper.make_node("DequantizeLinear", ["wi", "w_s", "w_z"], ["wd"], axis=0),
        *qdq("xd", "x"),
        helper.make_node("Conv", ["xd", "wd", "bias"], ["c"]),
        *qdq("cd", "c"),
        helper.make_node("Flatten", ["cd"], ["f"]),
        *qdq("g", "f", "o"),
        helper.make_node("Softmax", ["g"], ["y"]),
    ]
    net = net_of(model(nodes, [value("x", [2, 4, 8, 8])], [*SCALES, *other, w("wf", 4, 4, 3, 3), w("bias", 4)]))
    assert [(la.op, la.dtype) for la in net.layers] == [
        ("quantize", "int8"), ("conv", "int8"), ("reshape", "int8"), ("requantize", "int8"), ("dequantize", "fp32"),
        ("softmax", "fp32"),
    ]  # fmt: skip
    assert [la.qparams for la in net.layers[2:4]] == ["s=0.25 z=-3", "s=0.5 z=1"]
    assert (net.params, net.weight_bytes) == (4 * 36 + 4, 4 * 36 + 4 * 4)


def test_requantise() -> None:
    other = [numpy_helper.from_array(np.array(0.5, np.float32), "o_s"), const("o_z", 1, np.int8)]
    nodes = [
        *qdq("a", "x"),
        *qdq("b", "a", "o"),
        *qdq("c", "b", "o"),
        helper.make_node("Relu", ["c"], ["r"]),
        *qdq("y", "r"),
    ]
    net = net_of(model(nodes, [value("x", [2, 4])], [*SCALES, *other]))
    assert [(la.op, la.qparams) for la in net.layers[:3]] == [
        ("quantize", "s=0.25 z=-3"), ("requantize", "s=0.5 z=1"), ("relu", "s=0.25 z=-3"),
    ]  # fmt: skip


def test_import_is_quick() -> None:
    import time

    raw = read(next(p for p in LIGHT if p.stem == "light_resnet50"))
    start = time.process_time()
    net_of(onnx.ModelProto.FromString(raw))
    assert time.process_time() - start < 1.0


def test_qlinear_operators() -> None:
    act = ["act_s", "act_z"]
    nodes = [
        helper.make_node("QLinearConv", ["x", *act, "wq", "w_s", "w_z", *act, "bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QLinearAdd", ["c", *act, "x", *act, *act], ["a"], domain="com.microsoft"),
        helper.make_node("Reshape", ["a", "shape"], ["r"]),
        helper.make_node("QLinearMatMul", ["r", *act, "mq", *act, *act], ["y"]),
    ]
    stored = [*SCALES, w("wq", 4, 4, 3, 3, kind=np.int8), w("bias", 4, kind=np.int32), const("shape", [0, -1]),
              w("mq", 256, 10, kind=np.int8)]  # fmt: skip
    proto = model(nodes, [value("x", ["N", 4, 8, 8], TensorProto.INT8)], stored)
    net = net_of(proto)
    assert [(la.op, la.dtype) for la in net.layers] == [(o, "int8") for o in ("conv", "add", "reshape", "linear")]
    assert net.layers[0].qparams == "s=0.25 z=-3 xs=0.25 xz=-3 ws=per-channel:4@0"
    assert (net.macs, net.params) == (64 * 4 * 36 + 2560, 4 * 36 + 4 + 2560)


def test_integer_operators() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "mq", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    net = net_of(model(nodes, [value("x", ["N", 16])], [w("mq", 16, 10, kind=np.int8)]))
    linear = next(la for la in net.layers if la.op == "linear")
    assert (linear.dtype, linear.weight_dtype, net.macs, net.params) == ("int32", "int8", 160, 160)


# -- hostile and unsupported ----------------------------------------------------------------------------------------


def test_external_data_is_not_opened(tmp_path: Path) -> None:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", ["N", 4096])], [])
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4096, 100_000], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="/nonexistent/../../etc/passwd")
    proto.graph.initializer.append(tensor)
    path = tmp_path / "big.onnx"
    path.write_bytes(proto.SerializeToString())
    net = from_onnx(path)
    assert net.macs == net.params == 4096 * 100_000


def test_refusals_are_one_line() -> None:
    x, relu = [value("x", [1, 4])], helper.make_node("Relu", ["x"], ["y"])
    loop = helper.make_node("If", ["x"], ["y"])
    two = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"]), relu]
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    image = [value("x", [1, 3, 4, 4])]
    cases: list[tuple[Any, str]] = [
        (model([relu], [value("x", [1, -4])], []), "dimension 1 is -4"),
        (model([relu], [value("x", [0, 4])], []), "dimension 0 is 0"),
        (model([relu], [value("x", None)], []), "declares no shape"),
        (model([relu], [value("x", [2**40, 2**40])], []), "more than 2\\^48"),
        (model([relu, relu], x, []), "made twice"),
        (model([helper.make_node("Relu", ["z"], ["y"])], x, []), "neither stored nor made"),
        (model(two, x, []), "part of a cycle"),
        (model([loop], x, []), "control flow and sequences are not supported"),
        (model([helper.make_node("Frobnicate", ["x"], ["y"])], x, []), "operator Frobnicate is not supported"),
        (model([helper.make_node("Softmacks", ["x"], ["y"])], x, []), "did you mean Softmax"),
        (model([helper.make_node("NonZero", ["x"], ["y"])], x, []), "cannot be known before the values are"),
        (model([conv], image, [w("w", 4, 5, 3, 3)]), "weights take 5 channels"),
        (model([conv], image, [w("w", 4, 3, 9, 9)]), "larger than the padded input"),
        (model([conv], [*image, value("w", [4, 3, 3, 3])], []), "computed, not stored"),
        (
            model([helper.make_node("Reshape", ["x", "s"], ["y"])], x, [const("s", [3, -1])]),
            "cannot reshape 4 elements",
        ),
        (model([helper.make_node("Constant", [], ["y"], value_int=3)], x, []), "no output depends on an input"),
        (model([relu], x, [], outputs=("y", "q")), "output 'q' is made by no node"),
    ]
    for proto, why in cases:
        with pytest.raises(HwsimError, match=why) as caught:
            net_of(proto)
        assert "\n" not in str(caught.value)


def test_wrong_stored_tensor() -> None:
    tensor = w("w", 4, 5)
    tensor.dims[0] = 2**31
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", [1, 4])], [tensor])
    with pytest.raises(HwsimError, match=r"states \[2147483648, 5\] fp32 but holds 80 bytes"):
        net_of(proto)


def test_recursive_function() -> None:
    body = [helper.make_node("Self", ["a"], ["o"], domain="own")]
    proto = model([helper.make_node("Self", ["x"], ["y"], domain="own")], [value("x", [1])], [])
    proto.functions.append(helper.make_function("own", "Self", ["a"], ["o"], body, [helper.make_opsetid("own", 1)]))
    with pytest.raises(HwsimError, match="call each other more than"):
        net_of(proto)


def test_exploding_functions_are_bounded() -> None:
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="own")], [value("x", [1])], [])
    for level in range(15):
        body = [helper.make_node(f"F{level + 1}", ["a"], [f"o{i}"], domain="own") for i in range(20)]
        proto.functions.append(
            helper.make_function("own", f"F{level}", ["a"], ["o0"], body, [helper.make_opsetid("own", 1)])
        )
    with pytest.raises(HwsimError, match="more than 30000 operators"):
        net_of(proto)


def test_huge_shape_arithmetic_is_not_computed() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["big"], ["c"]), helper.make_node("Add", ["c", "c"], ["d"]),
        helper.make_node("Range", ["zero", "many", "one"], ["r"]), helper.make_node("Relu", ["x"], ["y"]),
    ]  # fmt: skip
    stored = [const("big", [2**20, 2**20]), const("zero", 0), const("many", 2**40), const("one", 1)]
    assert ops(net_of(model(nodes, [value("x", [1])], stored))) == ["relu"]


def test_not_a_model() -> None:
    for raw in (b"", b"\x08", b"hello world", bytes(range(256)), b"\xff" * 1000):
        with pytest.raises(HwsimError) as caught:
            parse_onnx(raw, "bad.onnx")
        assert str(caught.value).startswith("bad.onnx") and "\n" not in str(caught.value)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(HwsimError, match=r"pip install 'hwsim\[onnx\]'"):
        from_onnx(tmp_path / "a.onnx")


def test_weights_stay_on_disk(tmp_path: Path) -> None:
    weights = np.zeros((2048, 4096), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    proto = model(nodes, [value("x", ["N", 2048])], [numpy_helper.from_array(weights, "w"), w("b", 4096)])
    path = tmp_path / "large.onnx"
    path.write_bytes(proto.SerializeToString())
    from_onnx(path)  # what the onnx package itself takes is not counted
    tracemalloc.start()
    net = from_onnx(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (net.params, net.layers[0].attrs["bias"]) == (2048 * 4096 + 4096, True)
    assert peak < weights.nbytes / 16
    stripped = onnx.ModelProto.FromString(strip_weights(path.read_bytes()))
    assert stripped.graph.node == proto.graph.node
    assert [list(t.dims) for t in stripped.graph.initializer] == [[2048, 4096], [4096]]
    proto.graph.initializer[0].dims[0] = 2047
    with pytest.raises(HwsimError, match=r"states \[2047, 4096\] fp32 but holds 33554432 bytes"):
        net_of(proto)


def test_too_many_entries() -> None:
    raw = b"\x3a" + b"\x80\x80\x80\x01" + b"\x0a\x00" * 2**20  # a graph of a million empty nodes
    with pytest.raises(HwsimError, match="more than 500000 entries"):
        parse_onnx(raw, "m")
