"""One handler per TFLite operator: operands in, layers out. What has no handler is left to the host as ``custom``.

Operand order and defaults follow the TFLite schema and operator reference (tensorflow/lite/schema, kernels).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hwsim.errors import HwsimError
from hwsim.network.builder import same_padding
from hwsim.network.graph import AttrValue
from hwsim.network.importing import Value
from hwsim.network.tflite_graph import TfGraph, is_float
from hwsim.network.tflite_recurrent import RECURRENT

Handler = Callable[[TfGraph], object]
SAME = 0  # Padding of the schema; VALID is 1


def _window(
    g: TfGraph, value: Value, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> AttrValue | None:
    """Padding of a sliding window, None when there is none."""
    if g.opt("Padding") != SAME:
        return None
    if min(stride, default=0) < 1 or min(dilation, default=0) < 1:
        raise HwsimError(f"{g.op.where}: stride {stride} and dilation {dilation} must be at least 1")
    found = same_padding(value.shape[1:-1], kernel, stride, dilation)
    return found if any(found) else None


def _unless_ones(values: tuple[int, ...]) -> AttrValue | None:
    return None if all(v == 1 for v in values) else values


def _rank(g: TfGraph, value: Value, rank: int) -> None:
    if len(value.shape) != rank:
        raise HwsimError(f"{g.op.where}: needs a tensor of rank {rank}, not {len(value.shape)}")


def conv(g: TfGraph) -> None:
    """CONV_2D (weights out x h x w x in), CONV_3D (d x h x w x in x out), DEPTHWISE_CONV_2D (1 x h x w x out)."""
    x, w = g.x(0), g.x(1)
    rank = 5 if g.op.code == "CONV_3D" else 4
    _rank(g, x, rank)
    _rank(g, w, rank)
    if not w.is_const:
        raise HwsimError(f"{g.op.where}: its weights are computed, not stored; hwsim reads stored weights only")
    stride: tuple[int, ...] = (g.opt("StrideH", 1), g.opt("StrideW", 1))
    dilation: tuple[int, ...] = (g.opt("DilationHFactor", 1), g.opt("DilationWFactor", 1))
    channels = x.shape[-1]
    if rank == 5:
        kernel, fan_in = w.shape[:3], w.shape[3]
        stride, dilation = (g.opt("StrideD", 1), *stride), (g.opt("DilationDFactor", 1), *dilation)
    else:
        kernel, fan_in = w.shape[1:3], w.shape[3]
    if g.op.code == "DEPTHWISE_CONV_2D":
        features, groups = w.shape[3], channels
    else:
        features = w.shape[-1] if rank == 5 else w.shape[0]
        if fan_in < 1 or channels % fan_in:
            raise HwsimError(f"{g.op.where}: weights take {fan_in} channels, the input has {channels}")
        groups = channels // fan_in
    if g.tensor(0, output=True).shape[-1:] != (features,):
        raise HwsimError(f"{g.op.where}: weights make {features} channels, the output states another number")
    g.layer(
        "conv", x, weight=1, k=kernel, s=_unless_ones(stride), d=_unless_ones(dilation),
        p=_window(g, x, kernel, stride, dilation), g=groups if groups > 1 else None, bias=g.has(2), nhwc=True,
    )  # fmt: skip


def transpose_conv(g: TfGraph) -> None:
    """TRANSPOSE_CONV: output shape, weights (out x h x w x in), input, optional bias."""
    w, x = g.x(1), g.x(2)
    _rank(g, x, 4)
    _rank(g, w, 4)
    out = g.tensor(0, output=True).shape
    if w.shape[3] != x.shape[3] or len(out) != 4 or out[3] != w.shape[0]:
        raise HwsimError(f"{g.op.where}: weights {w.shape} do not fit input {x.shape} and output {out}")
    kernel, stride = w.shape[1:3], (g.opt("StrideH", 1), g.opt("StrideW", 1))
    spare = [(x.shape[1 + i] - 1) * stride[i] + kernel[i] - out[1 + i] for i in range(2)]
    begin = tuple(max(0, s) // 2 for s in spare)
    end = tuple(max(0, s) - b for s, b in zip(spare, begin, strict=True))
    more = tuple(max(0, -s) for s in spare)
    g.layer(
        "conv_transpose", x, weight=1, k=kernel, s=_unless_ones(stride), p=(*begin, *end) if any(spare) else None,
        op=more if any(more) else None, bias=g.has(3), nhwc=True,
    )  # fmt: skip


def fully_connected(g: TfGraph) -> None:
    """FULLY_CONNECTED: weights out x in; all but the last dimension of the input are rows."""
    x, w = g.x(0), g.x(1)
    _rank(g, w, 2)
    features, depth = w.shape
    out = g.tensor(0, output=True).shape
    if not out or depth < 1 or x.elements % depth:
        raise HwsimError(f"{g.op.where}: weights {w.shape} do not fit input {x.shape} and output {out}")
    rows = (*out[:-1], depth)
    if math.prod(rows) != x.elements:
        rows = (x.elements // depth, depth)
    flat = g.reshaped(x, rows)
    if w.is_const:
        done = g.emit.layer
        if (*rows[:-1], features) == out:
            g.layer("linear", flat, weight=1, k=depth, bias=g.has(2))
            return
        tensor = g.tensor(0, output=True)
        made = done(
            "linear", flat, out=(*rows[:-1], features), name=tensor.name, dtype=tensor.dtype, fused=g.fused,
            weight_dtype=w.dtype, weights_of=g.owned(1), qparams=g.quant(tensor, (x,), g.tensor(1)), k=depth,
            bias=g.has(2),
        )  # fmt: skip
        g.store(0, g.reshaped(made, out))
        return
    rows2 = g.reshaped(x, (x.elements // depth, depth))
    made = g.emit.layer("matmul", rows2, w, bt=True, name=g.op.code, dtype=g.tensor(0, output=True).dtype)
    g.store(0, g.reshaped(made, out))


def batch_matmul(g: TfGraph) -> None:
    """BATCH_MATMUL: a constant second operand of rank 2 makes a linear layer."""
    a, b = g.x(0), g.x(1)
    if g.opt("AdjX"):
        a = _swap_last(g, a)
    if b.is_const and len(b.shape) == 2 and not a.is_const:
        depth = b.shape[1] if g.opt("AdjY") else b.shape[0]
        g.layer("linear", a, weight=1, k=depth)
        return
    g.layer("matmul", a, b, bt=bool(g.opt("AdjY")))


def _swap_last(g: TfGraph, value: Value) -> Value:
    rank = len(value.shape)
    if rank < 2:
        raise HwsimError(f"{g.op.where}: cannot transpose a tensor of rank {rank}")
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return g.step("transpose", value, out=tuple(value.shape[i] for i in perm), perm=perm)


def pool(g: TfGraph) -> None:
    """MAX_POOL_2D and AVERAGE_POOL_2D (which averages the cells inside the input only)."""
    x = g.x(0)
    _rank(g, x, 4)
    kernel, stride = (g.opt("FilterHeight"), g.opt("FilterWidth")), (g.opt("StrideH"), g.opt("StrideW"))
    kind = "max_pool" if g.op.code == "MAX_POOL_2D" else "avg_pool"
    g.layer(kind, x, k=kernel, s=stride, p=_window(g, x, kernel, stride, (1, 1)), nhwc=True)


def svdf(g: TfGraph) -> None:
    """SVDF: input, feature weights (filters x features), time weights (filters x memory), bias, state."""
    x, w, t = g.x(0), g.x(1), g.x(2)
    _rank(g, w, 2)
    _rank(g, t, 2)
    if not x.shape or w.shape != (t.shape[0], x.shape[-1]):
        raise HwsimError(f"{g.op.where}: weights {w.shape} and {t.shape} do not fit input {x.shape}")
    g.layer("svdf", x, weight=1, filters=w.shape[0], memory=t.shape[1], rank=g.opt("Rank", 1), bias=g.has(3))


def concat(g: TfGraph) -> None:
    """CONCATENATION."""
    g.layer("concat", *(g.x(i) for i in range(len(g.op.inputs))), axis=g.opt("Axis"))


def pack(g: TfGraph) -> None:
    """PACK: join along a new axis."""
    out = g.tensor(0, output=True).shape
    axis = g.opt("Axis")
    if not -len(out) <= axis < len(out):
        raise HwsimError(f"{g.op.where}: axis {axis} is out of range for rank {len(out)}")
    one = tuple(1 if i == axis % len(out) else d for i, d in enumerate(out))
    parts = [g.reshaped(g.x(i), one) for i in range(len(g.op.inputs))]
    if len(parts) == 1:
        g.store(0, g.reshaped(parts[0], out))
    else:
        g.layer("concat", *parts, axis=axis)


def unpack(g: TfGraph) -> None:
    """UNPACK: one output for each index along an axis, which vanishes."""
    x = g.x(0)
    axis = _axis(g, g.opt("Axis"), x)
    one = tuple(1 if i == axis else d for i, d in enumerate(x.shape))
    for i in range(len(g.op.outputs)):
        part = x if x.shape == one else g.step("split", x, out=one, axis=axis, start=i)
        g.store(i, g.reshaped(part, g.shape(g.tensor(i, output=True))))


def split(g: TfGraph) -> None:
    """SPLIT (axis first) and SPLIT_V (axis last): contiguous parts."""
    x, axes = (g.x(1), g.ints(0)) if g.op.code == "SPLIT" else (g.x(0), g.ints(2))
    axis = _axis(g, _one(g, axes, "axis"), x)
    start = 0
    for i in range(len(g.op.outputs)):
        shape = g.shape(g.tensor(i, output=True))
        if len(shape) != len(x.shape):
            raise HwsimError(f"{g.op.where}: output {i} of rank {len(shape)} from an input of rank {len(x.shape)}")
        g.layer_out(i, "split", x, axis=axis, start=start)
        start += shape[axis]


def _axis(g: TfGraph, axis: int, value: Value) -> int:
    rank = len(value.shape)
    if not -rank <= axis < rank:
        raise HwsimError(f"{g.op.where}: axis {axis} is out of range for rank {rank}")
    return axis % rank


def _one(g: TfGraph, values: list[int] | None, what: str) -> int:
    if values is None or len(values) != 1:
        raise HwsimError(f"{g.op.where}: its {what} must be one stored integer")
    return values[0]


def strided_slice(g: TfGraph) -> None:
    """SLICE and STRIDED_SLICE: a view when contiguous along one axis, else a copy."""
    x, begin = g.x(0), g.ints(1)
    out = g.shape(g.tensor(0, output=True))
    steps = g.ints(3) if g.op.code == "STRIDED_SLICE" else None
    plain = not (g.opt("EllipsisMask") or g.opt("NewAxisMask")) and all(s == 1 for s in steps or ())
    if begin is None or not plain or len(begin) != len(x.shape):
        g.layer("slice", x)
        return
    shrink = g.opt("ShrinkAxisMask")
    kept = list(out)
    for i in range(len(x.shape)):
        if shrink >> i & 1:
            kept.insert(i, 1)
    cut = [i for i in range(len(x.shape)) if i < len(kept) and kept[i] != x.shape[i]]
    if len(kept) != len(x.shape) or len(cut) > 1:
        g.layer("slice", x)
        return
    if not cut:
        g.store(0, g.reshaped(x, out))
        return
    axis = cut[0]
    start = 0 if g.opt("BeginMask") >> axis & 1 else begin[axis] + (x.shape[axis] if begin[axis] < 0 else 0)
    if tuple(kept) == out:
        g.layer("split", x, axis=axis, start=start)
    else:
        g.store(0, g.reshaped(g.step("split", x, out=tuple(kept), axis=axis, start=start), out))


def gather(g: TfGraph) -> None:
    """GATHER: rows of a stored table are an embedding, anything else moves data."""
    x, ids = g.x(0), g.x(1)
    if x.is_const and len(x.shape) == 2 and not g.opt("Axis") and not ids.is_const:
        g.layer("embedding", ids, weight=0, rows=x.shape[0], width=x.shape[1])
    elif ids.is_const:
        g.layer("gather", x, axis=g.opt("Axis"))
    else:
        g.layer("gather", x, ids, axis=g.opt("Axis"))


def embedding_lookup(g: TfGraph) -> None:
    """EMBEDDING_LOOKUP: ids first, then the table."""
    ids, table = g.x(0), g.x(1)
    _rank(g, table, 2)
    g.layer("embedding", ids, weight=1, rows=table.shape[0], width=table.shape[1])


def pad(g: TfGraph) -> None:
    """PAD, PADV2, MIRROR_PAD: amounts as rank x 2."""
    x, amounts = g.x(0), g.ints(1)
    mode = "reflect" if g.op.code == "MIRROR_PAD" else None
    if amounts is None or len(amounts) != 2 * len(x.shape):
        g.layer("pad", x, mode=mode)
    else:
        g.layer("pad", x, p=(*amounts[0::2], *amounts[1::2]), mode=mode)


def reduction(op: str) -> Handler:
    """A reduction over the axes of the second operand."""

    def handler(g: TfGraph) -> None:
        x, axes = g.x(0), g.ints(1)
        if axes is None:
            raise HwsimError(f"{g.op.where}: its axes must be stored integers")
        if not axes:
            g.layer("identity", x)
            return
        keep = bool(g.opt("KeepDims"))
        g.layer(op, x, axes=tuple(sorted(_axis(g, a, x) for a in axes)), keep=keep)

    return handler


def arg(op: str) -> Handler:
    """ARG_MAX and ARG_MIN: the axis vanishes."""

    def handler(g: TfGraph) -> None:
        g.layer(op, g.x(0), axes=(_axis(g, _one(g, g.ints(1), "axis"), g.x(0)),))

    return handler


def unary(op: str, **attrs: Any) -> Handler:
    """An operator of one activation; further operands of the file are constants it does not need here."""

    def handler(g: TfGraph) -> None:
        g.layer(op, g.x(0), **attrs)

    return handler


def binary(op: str, *, commutes: bool = True) -> Handler:
    """A two-operand element-wise operator."""

    def handler(g: TfGraph) -> None:
        g.elementwise(op, commutes=commutes)

    return handler


def transpose(g: TfGraph) -> None:
    """TRANSPOSE."""
    perm = g.ints(1)
    g.layer("transpose", g.x(0), perm=tuple(perm) if perm is not None else None)


def prelu(g: TfGraph) -> None:
    """PRELU: a learned slope for each channel."""
    g.layer("prelu", g.x(0), weight=1, width=g.x(1).elements)


def quantize(g: TfGraph) -> None:
    """QUANTIZE: from float, or from one integer scale to another."""
    g.layer("quantize" if is_float(g.tensor(0).dtype) else "requantize", g.x(0))


def top_k(g: TfGraph) -> None:
    """TOPK_V2: values, then indices."""
    values = g.ints(1)
    first = g.layer("top_k", g.x(0), k=values[0] if values else None)
    if len(g.op.outputs) > 1:
        tensor = g.tensor(1, output=True)
        g.store(1, g.emit.select(first, 1, g.shape(tensor), tensor.dtype))


def where(g: TfGraph) -> None:
    """SELECT and SELECT_V2."""
    active = [g.x(i) for i in range(3) if not g.x(i).is_const]
    out = g.shape(g.tensor(0, output=True))
    g.layer("where", *active, const=out if out and active[0].shape != out else None)


def add_n(g: TfGraph) -> None:
    """ADD_N."""
    g.layer("add_n", *(g.x(i) for i in range(len(g.op.inputs))))


def cast(g: TfGraph) -> None:
    """CAST."""
    g.layer("cast", g.x(0), to=g.tensor(0, output=True).dtype)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D"), conv),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), pool),
    **{code: binary(op) for code, op in {
        "ADD": "add", "MUL": "mul", "MAXIMUM": "maximum", "MINIMUM": "minimum", "EQUAL": "equal",
        "NOT_EQUAL": "not_equal", "SQUARED_DIFFERENCE": "squared_difference", "LOGICAL_AND": "and",
        "LOGICAL_OR": "or", "BITWISE_XOR": "xor",
    }.items()},
    **{code: binary(op, commutes=False) for code, op in {
        "SUB": "sub", "DIV": "div", "POW": "pow", "LESS": "less", "LESS_EQUAL": "less_equal", "GREATER": "greater",
        "GREATER_EQUAL": "greater_equal", "FLOOR_DIV": "floor_div", "FLOOR_MOD": "mod", "ATAN2": "atan2",
        "RIGHT_SHIFT": "bit_shift",
    }.items()},
    **{code: unary(op) for code, op in {
        "RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "relu_n1_to_1", "RELU_0_TO_1": "clip", "LOGISTIC": "sigmoid",
        "TANH": "tanh", "HARD_SWISH": "hswish", "ELU": "elu", "LEAKY_RELU": "leaky_relu", "EXP": "exp", "LOG": "log",
        "SQRT": "sqrt", "RSQRT": "rsqrt", "SIN": "sin", "COS": "cos", "NEG": "neg", "ABS": "abs", "SIGN": "sign",
        "SQUARE": "square", "FLOOR": "floor", "CEIL": "ceil", "ROUND": "round", "LOGICAL_NOT": "not",
        "DEQUANTIZE": "dequantize", "FAKE_QUANT": "fake_quant", "SOFTMAX": "softmax", "LOG_SOFTMAX": "log_softmax",
        "L2_NORMALIZATION": "l2_norm", "LOCAL_RESPONSE_NORMALIZATION": "lrn", "CUMSUM": "cumsum",
        "RESHAPE": "reshape", "SQUEEZE": "reshape", "EXPAND_DIMS": "reshape", "TILE": "tile", "BROADCAST_TO": "expand",
        "REVERSE_V2": "flip", "ONE_HOT": "one_hot", "GELU": "gelu",
    }.items()},
    **{code: unary(op, nhwc=True) for code, op in {
        "DEPTH_TO_SPACE": "depth_to_space", "SPACE_TO_DEPTH": "space_to_depth", "SPACE_TO_BATCH_ND": "space_to_batch",
        "BATCH_TO_SPACE_ND": "batch_to_space",
    }.items()},
    "RESIZE_BILINEAR": unary("resize", mode="bilinear", nhwc=True),
    "RESIZE_NEAREST_NEIGHBOR": unary("resize", mode="nearest", nhwc=True),
    **{code: reduction(op) for code, op in {
        "MEAN": "reduce_mean", "SUM": "reduce_sum", "REDUCE_MAX": "reduce_max", "REDUCE_MIN": "reduce_min",
        "REDUCE_PROD": "reduce_prod", "REDUCE_ANY": "reduce_any", "REDUCE_ALL": "reduce_all",
    }.items()},
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), pad),
    **dict.fromkeys(("SPLIT", "SPLIT_V"), split),
    **dict.fromkeys(("SLICE", "STRIDED_SLICE"), strided_slice),
    **dict.fromkeys(("SELECT", "SELECT_V2"), where),
    "ARG_MAX": arg("arg_max"), "ARG_MIN": arg("arg_min"), "TRANSPOSE_CONV": transpose_conv,
    "FULLY_CONNECTED": fully_connected, "BATCH_MATMUL": batch_matmul, "SVDF": svdf, "CONCATENATION": concat,
    "PACK": pack, "UNPACK": unpack, "GATHER": gather, "EMBEDDING_LOOKUP": embedding_lookup, "TRANSPOSE": transpose,
    "PRELU": prelu, "QUANTIZE": quantize, "TOPK_V2": top_k, "ADD_N": add_n, "CAST": cast, **RECURRENT,
}  # fmt: skip
