"""A network as the Edge TPU's compiler sees it: TensorFlow Lite operators in execution order, on tensors of y, x and z.

A TFLite file names its operators; of other networks each layer becomes the operator a converter would write, with what
TensorFlow Lite cannot fuse (``silu`` is LOGISTIC and MUL) as operators of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from hwsim.network.graph import Layer, Network
from hwsim.network.ops import OPS

# What TensorFlow Lite fuses into an operator; everything else is written behind it.
FUSED = frozenset({"bn", "relu", "relu6", "relu_n1_to_1"})
PARTS: dict[str, tuple[str, ...]] = {
    "silu": ("LOGISTIC", "MUL"), "swish": ("LOGISTIC", "MUL"), "sigmoid": ("LOGISTIC",), "tanh": ("TANH",),
    "hsigmoid": ("ADD", "RELU6", "MUL"), "hswish": ("HARD_SWISH",), "gelu": ("GELU",), "leaky_relu": ("LEAKY_RELU",),
    "elu": ("ELU",), "prelu": ("PRELU",), "softmax": ("SOFTMAX",), "mish": ("EXP", "LOG", "TANH", "MUL"),
}  # fmt: skip
_CODES = {
    "linear": "FULLY_CONNECTED", "conv_transpose": "TRANSPOSE_CONV", "matmul": "BATCH_MATMUL", "attention": "BATCH_MATMUL",
    "max_pool": "MAX_POOL_2D", "avg_pool": "AVERAGE_POOL_2D", "reduce_mean": "MEAN", "reduce_sum": "SUM",
    "sigmoid": "LOGISTIC", "hswish": "HARD_SWISH", "concat": "CONCATENATION", "flatten": "RESHAPE", "slice": "STRIDED_SLICE",
    "lstm": "UNIDIRECTIONAL_SEQUENCE_LSTM", "rnn": "UNIDIRECTIONAL_SEQUENCE_RNN", "gru": "GRU", "embedding": "GATHER",
    "requantize": "QUANTIZE", "l2_norm": "L2_NORMALIZATION", "lrn": "LOCAL_RESPONSE_NORMALIZATION", "nms": "CUSTOM",
    "squeeze": "RESHAPE", "unsqueeze": "RESHAPE", "expand": "BROADCAST_TO", "batch_norm": "MUL", "custom": "CUSTOM",
}  # fmt: skip
_LAYOUT_ONLY = frozenset({(0, 2, 3, 1), (0, 3, 1, 2)})  # of a trace whose channels come first: no work on this machine


@dataclass(frozen=True, slots=True)
class Feature:
    """A tensor: its name, format, rows, columns and channels, and whether it has more dimensions than these three."""

    name: str
    dtype: str
    y: int
    x: int
    z: int
    deep: bool = False

    @property
    def elements(self) -> int:
        """Elements of all three dimensions."""
        return self.y * self.x * self.z


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: its TensorFlow Lite name, the layers it stands for, the tensors it reads and makes.

    ``layer`` is the first of ``layers`` and None where the operator left none (a reshape to the same shape).
    ``part`` says which activation of the layer it is, "" for the layer itself. ``folded`` operators work on constants only.
    """

    index: int
    code: str
    layer: Layer | None
    layers: tuple[str, ...]
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    part: str = ""
    folded: bool = False

    @property
    def name(self) -> str:
        """How reports call it."""
        if self.layer is None:
            return self.code
        return f"{self.layer.name or self.layer.op}{f'/{self.part}' if self.part else ''}"

    @property
    def out(self) -> Feature:
        """Its first result."""
        return self.outputs[0]


def operators(net: Network, dtype: Callable[[Layer], str], input_dtype: Callable[[str], str]) -> list[Op]:
    """Return the operators of a bound network; ``dtype`` is the format of a layer's result, ``input_dtype`` of an input's.

    A tensor has the name of the layer that makes it; what a later part of a layer makes is called ``layer/part``.
    """
    graph = _Graph(net, dtype, input_dtype)
    stated = net.meta.get("operators", "").split()
    if not stated:
        for layer in net.layers:
            graph.layer(layer)
        return graph.ops
    groups: dict[int, list[Layer]] = {}
    last = 0
    for layer in net.layers:
        last = _operator_index(layer, last)
        groups.setdefault(last, []).append(layer)
    for index, code in enumerate(stated):
        graph.stated(code, groups.get(index, []))
    return graph.ops


def _operator_index(layer: Layer, last: int) -> int:
    """The operator of the file a layer is of, or is a part of."""
    for text in layer.qparams.split():
        key, _, value = text.partition("=")
        if key in ("op", "of") and value.isdigit():
            return int(value)
    return last


class _Graph:
    def __init__(self, net: Network, dtype: Callable[[Layer], str], input_dtype: Callable[[str], str]) -> None:
        self.net = net
        self.first = net.meta.get("layout") != "NHWC"  # channels come first
        self.dtype = dtype
        self.ops: list[Op] = []
        self.tensor = {t.name: _feature(t.name, t.shape, input_dtype(t.name), self.first) for t in net.inputs}

    def layer(self, layer: Layer) -> None:
        """Append the operators of one layer of a network that names none."""
        own = _feature(layer.id, layer.shape, self.dtype(layer), self.first)
        perm = layer.attrs.get("perm")
        if layer.op == "identity" or (layer.op == "transpose" and self.first and perm in _LAYOUT_ONLY):
            self.tensor[layer.id] = replace(self.tensor[layer.src[0]], dtype=own.dtype)
            return
        parts = [("", _code(layer, self.net))]
        if layer.op == "batch_norm":
            parts.append(("shift", "ADD"))
        for act in layer.fused:
            parts += [] if act in FUSED else [(act, code) for code in PARTS.get(act, (act.upper(),))]
        reads = tuple(self.tensor[s] for s in layer.src)
        for i, (part, code) in enumerate(parts):
            label = part if sum(p == part for p, _ in parts) == 1 else f"{part}.{i}"
            made = own if i == len(parts) - 1 else replace(own, name=f"{layer.id}/{i}")
            self.ops.append(Op(len(self.ops), code, layer, (layer.id,), reads, (made,), label))
            reads = (made, reads[0]) if code == "MUL" and part in ("silu", "swish") else (made,)
        self.tensor[layer.id] = own

    def stated(self, code: str, layers: list[Layer]) -> None:
        """Append the operator a file names, with its layers."""
        folded = code.endswith("*")
        code = code.rstrip("*")
        inside = {la.id for la in layers}
        reads = [s for la in layers for s in la.src if s not in inside]
        for la in layers:
            self.tensor[la.id] = _feature(la.id, la.shape, self.dtype(la), self.first)
        read_here = {s for la in layers for s in la.src}
        made = [la.id for la in layers if la.id not in read_here] or [la.id for la in layers[-1:]]
        inputs = tuple(self.tensor[s] for s in dict.fromkeys(reads))
        outputs = tuple(self.tensor[n] for n in made)
        lead = next((la for la in layers if OPS[la.op].kind != "view"), layers[0] if layers else None)
        if lead is None and not folded and self.ops:  # it only renames a tensor
            inputs = outputs = self.ops[-1].outputs
        self.ops.append(Op(len(self.ops), code, lead, tuple(la.id for la in layers), inputs, outputs, "", folded))


def _code(layer: Layer, net: Network) -> str:
    """The TensorFlow Lite operator of a layer."""
    if layer.op == "conv":
        groups = layer.attrs.get("g", 1)
        channels = net.input_shapes(layer)[0][-1 if layer.attrs.get("nhwc") else 1]
        return "DEPTHWISE_CONV_2D" if groups != 1 and groups == channels else "CONV_2D"
    if layer.op == "adaptive_avg_pool":
        spatial = layer.shape[1:-1] if layer.attrs.get("nhwc") else layer.shape[2:]
        return "MEAN" if all(int(d) == 1 for d in spatial) else "AVERAGE_POOL_2D"
    if layer.op == "resize":
        return "RESIZE_BILINEAR" if layer.attrs.get("mode") in ("bilinear", "linear") else "RESIZE_NEAREST_NEIGHBOR"
    return _CODES.get(layer.op, layer.op.upper())


def _feature(name: str, shape: tuple[int | str, ...], dtype: str, channels_first: bool) -> Feature:
    """Rows, columns and channels of a tensor: its three innermost dimensions, channels last."""
    dims = [int(d) for d in shape]
    if channels_first and len(dims) == 4:
        dims = [dims[0], dims[2], dims[3], dims[1]]
    outer, inner = dims[:-3], [1, 1, 1, *dims[-3:]][-3:]
    if len(dims) < 3:
        inner = [1] * (3 - len(dims)) + dims
        outer = []
    if len(dims) == 3:  # a batch of rows
        outer, inner = [], dims
    y, x, z = inner
    return Feature(name, dtype, y, x, z, math.prod(outer) > 1)
