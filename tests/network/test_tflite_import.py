"""TFLite files: real models counted independently through the generated bindings, small files for each rule."""

from __future__ import annotations

import gzip
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.network.graph import Network
from hwsim.network.tflite_file import parse_tflite
from hwsim.network.tflite_import import from_tflite, network_of
from hwsim.network.trace import format_trace, parse_trace

tflite = pytest.importorskip("tflite")
from tflite_build import File, Op, T  # noqa: E402

DATA = Path(__file__).parents[1] / "data" / "tflite"
FILES = sorted(p for p in DATA.iterdir() if ".tflite" in p.name)
# Operators of every file, as listed in the models' own documentation and by the reference table they came with.
OPERATORS = {
    "coral_deeplabv3_mnv2_pascal_quant": "CONV_2D:38 DEPTHWISE_CONV_2D:17 ADD:10 RESIZE_BILINEAR:3 AVERAGE_POOL_2D:1 "
    "QUANTIZE:1 CONCATENATION:1 ARG_MAX:1",
    "coral_keras_lstm_mnist_ptq": "QUANTIZE:2 UNIDIRECTIONAL_SEQUENCE_LSTM:1 RESHAPE:1 FULLY_CONNECTED:1 SOFTMAX:1",
    "coral_mobilenet_v1_0.25_128_quant": "CONV_2D:15 DEPTHWISE_CONV_2D:13 AVERAGE_POOL_2D:1 RESHAPE:1 SOFTMAX:1",
    "coral_mobilenet_v1_0.25_128_quant_edgetpu": "CUSTOM:1",
    "coral_mobilenet_v1_0.5_160_quant": "CONV_2D:15 DEPTHWISE_CONV_2D:13 AVERAGE_POOL_2D:1 RESHAPE:1 SOFTMAX:1",
    "coral_posenet_075_353_481_quant_decoder": "CONV_2D:18 DEPTHWISE_CONV_2D:13 QUANTIZE:4 PAD:1 "
    "CONCATENATION:1 CUSTOM:1",
    "mlperf_tiny_ad01_int8": "FULLY_CONNECTED:10",
    "mlperf_tiny_kws_ref_model": "CONV_2D:5 DEPTHWISE_CONV_2D:4 AVERAGE_POOL_2D:1 RESHAPE:1 "
    "FULLY_CONNECTED:1 SOFTMAX:1",
    "mlperf_tiny_pretrainedResnet_quant": "CONV_2D:9 ADD:3 AVERAGE_POOL_2D:1 RESHAPE:1 FULLY_CONNECTED:1 SOFTMAX:1",
    "mlperf_tiny_str_ww_ref_model": "DEPTHWISE_CONV_2D:4 CONV_2D:4 RESHAPE:1 FULLY_CONNECTED:1 SOFTMAX:1",
    "tflm_hello_world_int8": "FULLY_CONNECTED:3",
    "tflm_keyword_scrambled_8bit": "SVDF:7 FULLY_CONNECTED:5 QUANTIZE:2 SOFTMAX:1",
    "tflm_micro_speech_quantized": "RESHAPE:1 DEPTHWISE_CONV_2D:1 FULLY_CONNECTED:1 SOFTMAX:1",
    "tflm_person_detect": "DEPTHWISE_CONV_2D:14 CONV_2D:14 AVERAGE_POOL_2D:1 RESHAPE:1 SOFTMAX:1",
    "tflm_trained_lstm_int8": "UNIDIRECTIONAL_SEQUENCE_LSTM:1 RESHAPE:1 FULLY_CONNECTED:1 SOFTMAX:1",
    "tflm_xtensa_mobilenet_v2_quantized": "CONV_2D:35 PAD:18 DEPTHWISE_CONV_2D:17 ADD:10 TRANSPOSE:1 MEAN:1 RESHAPE:1 "
    "FULLY_CONNECTED:1",
}
LAYER_OF = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "FULLY_CONNECTED": "linear", "SVDF": "svdf",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "lstm", "ADD": "add", "SOFTMAX": "softmax", "RESIZE_BILINEAR": "resize",
    "AVERAGE_POOL_2D": "avg_pool", "CONCATENATION": "concat", "ARG_MAX": "arg_max", "PAD": "pad", "MEAN": "reduce_mean",
    "TRANSPOSE": "transpose", "CUSTOM": "custom",
}  # fmt: skip


def content(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


def stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".tflite").removesuffix(".zeroed")


def load(path: Path) -> Network:
    return network_of(parse_tflite(content(path), path.name), path.name)


class Counts:
    """MACs and parameters by brute force over the flatbuffer."""

    def __init__(self, raw: bytes) -> None:
        self.model = tflite.Model.GetRootAs(raw, 0)
        self.graph = self.model.Subgraphs(0)
        names = {v: k for k, v in vars(tflite.BuiltinOperator).items() if isinstance(v, int)}
        self.ops: list[str] = []
        self.macs = self.params = 0
        for i in range(self.graph.OperatorsLength()):
            op = self.graph.Operators(i)
            code = self.model.OperatorCodes(op.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            self.ops.append(name)
            getattr(self, name.lower(), lambda op: None)(op)

    def shape(self, op: Any, i: int, output: bool = False) -> list[int]:
        return self.graph.Tensors(op.Outputs(i) if output else op.Inputs(i)).ShapeAsNumpy().tolist()

    def own(self, op: Any, *positions: int) -> None:
        for i in positions:
            if i < op.InputsLength() and op.Inputs(i) >= 0:
                self.params += math.prod(self.shape(op, i))

    def conv_2d(self, op: Any) -> None:
        _, kh, kw, depth = self.shape(op, 1)
        self.macs += math.prod(self.shape(op, 0, True)) * kh * kw * depth
        self.own(op, 1, 2)

    def depthwise_conv_2d(self, op: Any) -> None:
        _, kh, kw, _ = self.shape(op, 1)
        self.macs += math.prod(self.shape(op, 0, True)) * kh * kw
        self.own(op, 1, 2)

    def fully_connected(self, op: Any) -> None:
        self.macs += math.prod(self.shape(op, 0, True)) * self.shape(op, 1)[1]
        self.own(op, 1, 2)

    def svdf(self, op: Any) -> None:
        batch = self.shape(op, 0)[0]
        self.macs += batch * (math.prod(self.shape(op, 1)) + math.prod(self.shape(op, 2)))
        self.own(op, 1, 2, 3)

    def unidirectional_sequence_lstm(self, op: Any) -> None:
        batch, steps, _ = self.shape(op, 0)
        self.macs += batch * steps * sum(math.prod(self.shape(op, i)) for i in range(1, 9))
        self.own(op, *range(1, 9), *range(12, 16))


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_real_model_counts_equal_brute_force(path: Path) -> None:
    raw = content(path)
    net, counts = load(path), Counts(raw)
    assert Counter(counts.ops) == Counter({k: int(v) for k, v in (w.split(":") for w in OPERATORS[stem(path)].split())})
    assert net.macs == counts.macs
    assert net.params == counts.params
    layers = Counter(la.op for la in net.layers)
    expected = Counter(LAYER_OF[o] for o in counts.ops if o in LAYER_OF)
    assert {k: layers[k] for k in expected} == dict(expected)
    # nothing but views may be added to what the file lists
    assert sum(layers.values()) - len(counts.ops) == sum(layers[v] for v in ("select", "reshape")) - counts.ops.count(
        "RESHAPE"
    )


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_real_model_quantisation_is_kept(path: Path) -> None:
    raw = content(path)
    net = load(path)
    graph = tflite.Model.GetRootAs(raw, 0).Subgraphs(0)
    kinds = {9: "int8", 3: "uint8", 7: "int16", 2: "int32", 4: "int64", 0: "fp32"}
    seen = 0
    for layer in net.layers:
        words = dict(w.split("=", 1) for w in layer.qparams.split())
        if "op" not in words:
            continue
        op = graph.Operators(int(words["op"]))
        out = graph.Tensors(op.Outputs(0))
        assert layer.dtype == kinds[out.Type()]
        quant = out.Quantization()
        if quant is not None and quant.ScaleLength() == 1:
            assert np.float32(words["s"]) == np.float32(quant.Scale(0))
            assert int(words["z"]) == quant.ZeroPoint(0)
        if layer.op in ("conv", "linear"):
            weights = graph.Tensors(op.Inputs(1)).Quantization()
            if weights.ScaleLength() > 1:
                assert words["ws"] == f"per-channel:{weights.ScaleLength()}@{weights.QuantizedDimension()}"
            else:
                assert np.float32(words["ws"]) == np.float32(weights.Scale(0))
                assert int(words["wz"]) == weights.ZeroPoint(0)
            seen += 1
    assert seen or net.macs == 0


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_round_trip_through_the_trace(path: Path) -> None:
    net = load(path)
    again = parse_trace(format_trace(net))
    assert (again.layers, again.inputs, again.macs, again.params) == (net.layers, net.inputs, net.macs, net.params)


def test_fixed_batch_refuses_another() -> None:
    net = from_tflite(DATA / "tflm_person_detect.tflite")
    with pytest.raises(HwsimError, match="no symbol N: all its shapes are fixed"):
        net.bind(N=2)


def test_legacy_uint8_weights_and_hybrid_types() -> None:
    net = from_tflite(DATA / "coral_mobilenet_v1_0.25_128_quant.tflite")
    assert {la.dtype for la in net.layers} == {"uint8"}
    assert all(la.weight_dtype is None for la in net.layers)


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def net_of(file: File) -> Network:
    return network_of(parse_tflite(file.bytes(), "t"), "t.tflite")


def one(op: Op, *tensors: T, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> Network:
    return net_of(File(list(tensors), [op], inputs, outputs))


def test_grouped_dilated_convolution() -> None:
    options = ("Conv2DOptions", {"Padding": 0, "StrideW": 1, "StrideH": 1, "DilationWFactor": 2, "DilationHFactor": 2,
                                 "FusedActivationFunction": 3})  # fmt: skip
    net = one(
        Op("CONV_2D", ("x", "w", "b"), ("y",), options),
        T("x", (1, 9, 9, 8)), T("w", data=f32(6, 3, 3, 4)), T("b", data=f32(6)), T("y", (1, 9, 9, 6)),
    )  # fmt: skip
    layer = net.layers[0]
    assert (layer.attrs["g"], layer.attrs["d"], layer.attrs["p"], layer.fused) == (2, (2, 2), (2, 2), ("relu6",))
    assert net.macs == 81 * 6 * 9 * 4
    assert net.params == 6 * 9 * 4 + 6


@pytest.mark.parametrize(("padding", "size"), [(0, 14), (1, 15)])
def test_transposed_convolution(padding: int, size: int) -> None:
    options = ("TransposeConvOptions", {"Padding": padding, "StrideW": 2, "StrideH": 2})
    net = one(
        Op("TRANSPOSE_CONV", ("s", "w", "x"), ("y",), options),
        T("s", data=i32(1, size, size, 5)), T("w", data=f32(5, 3, 3, 4)), T("x", (1, 7, 7, 4)),
        T("y", (1, size, size, 5)),
    )  # fmt: skip
    assert net.macs == 49 * 4 * 5 * 9


def test_depthwise_multiplier() -> None:
    options = ("DepthwiseConv2DOptions", {"Padding": 1, "StrideW": 2, "StrideH": 2, "DepthMultiplier": 3})
    net = one(
        Op("DEPTHWISE_CONV_2D", ("x", "w"), ("y",), options),
        T("x", (1, 8, 8, 4)), T("w", data=f32(1, 3, 3, 12)), T("y", (1, 3, 3, 12)),
    )  # fmt: skip
    assert net.layers[0].attrs["g"] == 4
    assert net.macs == 9 * 12 * 9


def test_fully_connected_flattens_and_keeps_dimensions() -> None:
    x, w = T("x", (2, 3, 4)), T("w", data=f32(5, 4))
    flat = one(Op("FULLY_CONNECTED", ("x", "w", ""), ("y",), ("FullyConnectedOptions", {})), x, w, T("y", (6, 5)))
    assert [la.op for la in flat.layers] == ["reshape", "linear"]
    kept = ("FullyConnectedOptions", {"KeepNumDims": True})
    net = one(Op("FULLY_CONNECTED", ("x", "w", ""), ("y",), kept), x, w, T("y", (2, 3, 5)))
    assert [la.op for la in net.layers] == ["linear"]
    assert flat.macs == net.macs == 6 * 5 * 4


def test_half_precision_weights_are_stored_in_half() -> None:
    w = np.zeros((5, 4), np.float16)
    net = net_of(
        File(
            [T("x", (2, 4)), T("h", data=w), T("w", (5, 4)), T("y", (2, 5))],
            [
                Op("DEQUANTIZE", ("h",), ("w",)),
                Op("FULLY_CONNECTED", ("x", "w", ""), ("y",), ("FullyConnectedOptions", {})),
            ],
        )
    )
    assert [(la.op, la.dtype, la.weight_dtype) for la in net.layers] == [("linear", "fp32", "fp16")]
    assert net.weight_bytes == 5 * 4 * 2


def test_several_outputs_slices_and_joins() -> None:
    tensors = [
        T("x", (1, 4, 6)), T("axis", data=np.array(2, np.int32)), T("a", (1, 4, 3)), T("b", (1, 4, 3)),
        T("begin", data=i32(0, 1, 0)), T("size", data=i32(1, 2, 3)), T("c", (1, 2, 3)),
        T("u", (1, 4)), T("v", (1, 4)), T("w", (1, 4)), T("p", (1, 4, 3)), T("y", (1, 6, 3)),
    ]  # fmt: skip
    net = net_of(
        File(
            tensors,
            [
                Op("SPLIT", ("axis", "x"), ("a", "b"), ("SplitOptions", {"NumSplits": 2})),
                Op("SLICE", ("a", "begin", "size"), ("c",), ("SliceOptions", {})),
                Op("UNPACK", ("b",), ("u", "v", "w"), ("UnpackOptions", {"Axis": 2, "Num": 3})),
                Op("PACK", ("w", "v", "u"), ("p",), ("PackOptions", {"Axis": 2, "ValuesCount": 3})),
                Op("CONCATENATION", ("c", "p"), ("y",), ("ConcatenationOptions", {"Axis": 1})),
            ],
        )
    )
    ops = Counter(la.op for la in net.layers)
    assert (ops["split"], ops["concat"]) == (2 + 1 + 3, 2)
    assert net.tensors[net.output_names[0]].shape == (1, 6, 3)
    starts = [la.attrs["start"] for la in net.layers if la.op == "split"]
    assert starts == [0, 3, 1, 0, 1, 2]


def test_reductions_constants_and_unknown_operators() -> None:
    net = net_of(
        File(
            [T("x", (1, 5, 5, 4)), T("axes", data=i32(1, 2)), T("m", (1, 4)), T("c", data=f32(4)), T("s", (1, 4)),
             T("h", data=f32(1)), T("d", (1, 4)), T("y", (1, 2)), T("z", (1, 2))],
            [
                Op("MEAN", ("x", "axes"), ("m",), ("ReducerOptions", {"KeepDims": False})),
                Op("MUL", ("m", "c"), ("s",), ("MulOptions", {"FusedActivationFunction": 1})),
                Op("SUB", ("h", "s"), ("d",), ("SubOptions", {})),
                Op("RFFT2D", ("d",), ("y",)),
                Op("CUSTOM", ("y",), ("z",), custom="My Op=1"),
            ],
            outputs=("z",),
        )
    )  # fmt: skip
    mean, mul, sub, fft, custom = net.layers
    assert mean.attrs["axes"] == (1, 2)
    assert (mul.attrs["const"], mul.attrs["learned"], mul.fused) == ((4,), True, ("relu",))
    assert (sub.attrs["value"], sub.attrs["reverse"]) == (0.0, True)
    assert (fft.attrs["code"], custom.attrs["code"]) == ("RFFT2D", "My_Op_1")
    assert net.params == 4


def test_embedding_and_shared_weights() -> None:
    table = f32(10, 8)
    net = net_of(
        File(
            [T("x", (1, 3), "int32"), T("t", data=table), T("e", (1, 3, 8)), T("y", (3, 10))],
            [
                Op("GATHER", ("t", "x"), ("e",), ("GatherOptions", {"Axis": 0})),
                Op("FULLY_CONNECTED", ("e", "t", ""), ("y",), ("FullyConnectedOptions", {})),
            ],
        )
    )
    assert [la.op for la in net.layers] == ["embedding", "reshape", "linear"]
    assert net.layers[2].attrs["tied"] == net.layers[0].id
    assert net.params == 80


BAD = {
    "no file": (b"", "not a TFLite model"),
    "wrong magic": (b"\0" * 64, "not a TFLite model"),
    "random tail": (b"\x10\0\0\0TFL3" + bytes(range(200)), "TFLite|damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_not_a_model(name: str) -> None:
    raw, why = BAD[name]
    with pytest.raises(HwsimError, match=why) as caught:
        parse_tflite(raw, "bad.tflite")
    assert "\n" not in str(caught.value)


def test_wrong_graphs_are_one_line() -> None:
    conv = ("Conv2DOptions", {"Padding": 0, "StrideW": 1, "StrideH": 1})
    x, w = T("x", (1, 8, 8, 3)), T("w", data=f32(4, 3, 3, 3))
    cases = [
        (one, Op("CONV_2D", ("x", "w"), ("y",), ("Conv2DOptions", {"Padding": 0})), T("y", (1, 8, 8, 4)), "at least 1"),
        (one, Op("CONV_2D", ("x", "w"), ("y",), conv), T("y", (1, 9, 8, 4)), "but the file states 1x9x8x4"),
        (one, Op("CONV_2D", ("x", "y"), ("w",), conv), T("y", (1, 8, 8, 4)), "neither stored nor made"),
        (one, Op("CONV_2D", ("x",), ("y",), conv), T("y", (1, 8, 8, 4)), "input 1 is missing"),
        (one, Op("WHILE", ("x",), ("y",)), T("y", (1, 8, 8, 4)), "control flow is not supported"),
        (one, Op("RELU", ("x",), ("y",)), T("y", (1, 8, 8, 3), "string"), "holds text"),
        (one, Op("RELU", ("x",), ("y",)), T("y", (1, -8, 8, 3)), "has shape"),
        (one, Op("SOFTMAX", ("x",), ("y",)), T("y", (1, 8, 8, 0)), "but the file states"),
    ]
    for build, op, y, why in cases:
        with pytest.raises(HwsimError, match=why) as caught:
            build(op, x, w, y)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("t")


def test_operators_out_of_order_and_cycles() -> None:
    tensors = [T("x", (1, 4)), T("a", (1, 4)), T("y", (1, 4))]
    with pytest.raises(HwsimError, match="only made by a later operator"):
        net_of(File(tensors, [Op("RELU", ("a",), ("y",)), Op("RELU", ("x",), ("a",))]))
    with pytest.raises(HwsimError, match="only made by a later operator"):
        net_of(File(tensors, [Op("ADD", ("x", "y"), ("a",), ("AddOptions", {})), Op("RELU", ("a",), ("y",))]))


def test_declared_size_must_be_stored() -> None:
    file = File([T("x", (1, 4)), T("w", data=f32(5, 4)), T("y", (1, 5))],
                [Op("FULLY_CONNECTED", ("x", "w", ""), ("y",), ("FullyConnectedOptions", {}))])  # fmt: skip
    raw = bytearray(file.bytes())
    good = np.array([5, 4], "<i4").tobytes()
    at = bytes(raw).find(good)
    raw[at : at + 8] = np.array([2**30, 4], "<i4").tobytes()
    with pytest.raises(HwsimError, match=r"tensor 1 \('w'\) states \(1073741824, 4\) but stores 80 bytes"):
        parse_tflite(bytes(raw), "t.tflite")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(HwsimError, match=r"pip install 'hwsim\[tflite\]'"):
        from_tflite(DATA / "tflm_hello_world_int8.tflite")


def test_missing_file() -> None:
    with pytest.raises(HwsimError, match="no such file"):
        from_tflite(DATA / "nothing.tflite")
    with pytest.raises(HwsimError, match="is a folder"):
        from_tflite(DATA)
    with pytest.raises(HwsimError, match="no such file"):
        from_tflite("/dev/zero")
