"""Operators without matrix products: element-wise, reductions, normalisation, pooling, data movement, views, host work.

Element-wise entries are a table of lane operations per output element; the others share a few shape rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape
from hwsim.network.graph import Layer
from hwsim.network.opdefs import Attrs, Infer, Op, VectorWork, Weight
from hwsim.network.ops_contract import broadcast, integer, ints, join_layout, pads, split_layout, window_out

# name: (alu, special) lane operations per output element
UNARY: dict[str, tuple[int, int]] = {
    "relu": (1, 0), "relu6": (2, 0), "relu_n1_to_1": (2, 0), "leaky_relu": (2, 0), "prelu": (2, 0), "elu": (2, 1),
    "selu": (3, 1), "sigmoid": (2, 2), "hsigmoid": (3, 0), "silu": (3, 2), "hswish": (4, 0), "tanh": (0, 1),
    "gelu": (5, 1), "gelu_tanh": (7, 1), "quick_gelu": (3, 2), "mish": (3, 3), "softplus": (1, 2), "softsign": (2, 1),
    "exp": (0, 1), "log": (0, 1), "sqrt": (0, 1), "rsqrt": (0, 1), "reciprocal": (0, 1), "erf": (4, 1), "sin": (0, 1),
    "cos": (0, 1), "neg": (1, 0), "abs": (1, 0), "sign": (1, 0), "square": (1, 0), "floor": (1, 0), "ceil": (1, 0),
    "round": (1, 0), "clip": (2, 0), "not": (1, 0), "cast": (1, 0), "quantize": (3, 0), "dequantize": (2, 0),
    "requantize": (4, 0), "scale": (2, 0), "fake_quant": (5, 0), "is_nan": (1, 0),
}  # fmt: skip
BINARY: dict[str, tuple[int, int]] = {
    "add": (1, 0), "sub": (1, 0), "mul": (1, 0), "div": (1, 1), "pow": (1, 2), "maximum": (1, 0), "minimum": (1, 0),
    "squared_difference": (2, 0), "equal": (1, 0), "not_equal": (1, 0), "greater": (1, 0), "greater_equal": (1, 0),
    "less": (1, 0), "less_equal": (1, 0), "and": (1, 0), "or": (1, 0), "xor": (1, 0), "mod": (2, 1),
    "floor_div": (2, 1), "bit_shift": (1, 0), "atan2": (4, 1),
}  # fmt: skip
# name: (alu, special per input element, special per output element, passes over the input)
REDUCE: dict[str, tuple[int, int, int, int]] = {
    "reduce_mean": (1, 0, 1, 1), "reduce_sum": (1, 0, 0, 1), "reduce_max": (1, 0, 0, 1), "reduce_min": (1, 0, 0, 1),
    "reduce_prod": (1, 0, 0, 1), "reduce_l2": (2, 0, 1, 1), "reduce_any": (1, 0, 0, 1), "reduce_all": (1, 0, 0, 1),
    "arg_max": (2, 0, 0, 1), "arg_min": (2, 0, 0, 1), "reduce_var": (4, 0, 1, 2),
    "reduce_logsumexp": (3, 1, 1, 2),
}  # fmt: skip
# name: (alu, special per element, special per row, passes, learned vectors of the normalised width)
NORM: dict[str, tuple[int, int, int, int, int]] = {
    "softmax": (4, 1, 1, 3, 0), "log_softmax": (4, 1, 1, 3, 0), "layer_norm": (7, 0, 1, 3, 2),
    "rms_norm": (4, 0, 1, 2, 1), "group_norm": (7, 0, 1, 3, 2), "instance_norm": (7, 0, 1, 3, 2),
    "batch_norm": (2, 0, 0, 1, 2),
    "l2_norm": (3, 0, 1, 2, 0), "lrn": (8, 2, 0, 1, 0), "cumsum": (1, 0, 0, 1, 0), "rope": (6, 0, 0, 1, 0),
}  # fmt: skip


def _same(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    return ins[0]


def _broadcast_all(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    shape = ins[0]
    for other in ins[1:]:
        shape = broadcast(shape, other)
    const = attrs.get("const")
    return broadcast(shape, const) if isinstance(const, tuple) else shape


def _elementwise(alu: int, special: int) -> Callable[[Layer, Sequence[IntShape], IntShape], VectorWork]:
    def work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
        n = math.prod(out)
        return VectorWork(alu * n, special * n, sum(math.prod(s) for s in ins), n)

    return work


def _const_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    const = layer.attrs.get("const")
    return (Weight("const", const, "weight", bool(layer.attrs.get("learned"))),) if isinstance(const, tuple) else ()


def _constant_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    return (Weight("constant", out, "weight", bool(layer.attrs.get("learned"))),)


def _prelu_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    return (Weight("slope", (integer(layer.attrs, "width", 1),)),)


def _axes(attrs: Attrs, rank: int) -> tuple[int, ...]:
    value = attrs.get("axes")
    if value is None:
        return tuple(range(rank))
    axes = value if isinstance(value, tuple) else (int(value),)
    if any(not -rank <= a < rank for a in axes):
        raise HwsimError(f"axes {'x'.join(map(str, axes))} are out of range for rank {rank}")
    return tuple(sorted({a % rank for a in axes}))


def _reduce_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    shape = ins[0]
    axes = _axes(attrs, len(shape))
    if attrs.get("keep"):
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _reduce(
    alu: int, special: int, final: int, passes: int
) -> Callable[[Layer, Sequence[IntShape], IntShape], VectorWork]:
    def work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
        n, m = math.prod(ins[0]), math.prod(out)
        return VectorWork(alu * n, special * n + final * m, n, m, passes)

    return work


def _norm_weights(vectors: int) -> Callable[[Layer, Sequence[IntShape], IntShape], tuple[Weight, ...]]:
    def weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
        width = integer(layer.attrs, "width", 0)
        count = integer(layer.attrs, "vectors", vectors)
        return tuple(Weight(name, (width,)) for name in ("scale", "shift")[:count]) if width else ()

    return weights


def _norm(
    alu: int, special: int, final: int, passes: int
) -> Callable[[Layer, Sequence[IntShape], IntShape], VectorWork]:
    def work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
        n = math.prod(out)
        rows = n // max(1, out[-1]) if out else 1
        return VectorWork(alu * n, special * n + final * rows, math.prod(ins[0]), n, passes)

    return work


POOL_ATTRS = {"k": "t", "s": "t", "p": "t", "d": "t", "ceil": "b", "nhwc": "b"}


def _pool_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    n, c, spatial = split_layout(ins[0], attrs)
    rank = len(spatial)
    k = ints(attrs, "k", rank, 1)
    s = ints(attrs, "s", rank, 1) if "s" in attrs else k
    d, p = ints(attrs, "d", rank, 1), pads(attrs, rank)
    ceil = bool(attrs.get("ceil"))
    grown = [window_out(spatial[i], k[i], s[i], p[i], p[rank + i], d[i], ceil=ceil) for i in range(rank)]
    return join_layout(n, c, grown, attrs)


def _pool_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    _, _, spatial = split_layout(ins[0], layer.attrs)
    n = math.prod(out)
    return VectorWork(math.prod(ints(layer.attrs, "k", len(spatial), 1)) * n, 0, math.prod(ins[0]), n)


def _adaptive_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    n, c, spatial = split_layout(ins[0], attrs)
    return join_layout(n, c, ints(attrs, "size", len(spatial), 1), attrs)


def _whole_input_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    n = math.prod(ins[0])
    return VectorWork(n, 0, n, math.prod(out))


def _concat_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    rank = len(ins[0])
    axis = integer(attrs, "axis", 1)
    if not -rank <= axis < rank:
        raise HwsimError(f"axis {axis} is out of range for rank {rank}")
    axis %= rank
    for other in ins[1:]:
        if len(other) != rank or any(a != b for i, (a, b) in enumerate(zip(ins[0], other, strict=True)) if i != axis):
            raise HwsimError(f"inputs {list(ins)} differ outside axis {axis}")
    extra = integer(attrs, "constant", 0)
    return tuple(sum(s[axis] for s in ins) + extra if i == axis else d for i, d in enumerate(ins[0]))


def _concat_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    extra, axis = integer(layer.attrs, "constant", 0), integer(layer.attrs, "axis", 1) % len(out)
    # A constant slice (a class token) is stored once and broadcast over the batch.
    return (Weight("constant", (1, *(extra if i == axis else d for i, d in enumerate(out) if i))),) if extra else ()


def _copy_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    n = math.prod(out)
    return VectorWork(0, 0, n, n)


def _stated(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    if out is None:
        raise HwsimError("needs a stated output shape")
    return out


def _smaller(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    shape = _stated(ins, attrs, out)
    if math.prod(shape) > math.prod(ins[0]):
        raise HwsimError(f"cannot take {math.prod(shape)} elements out of {math.prod(ins[0])}")
    return shape


def _reshape_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    shape = _stated(ins, attrs, out)
    if math.prod(shape) != math.prod(ins[0]):
        raise HwsimError(f"cannot reshape {math.prod(ins[0])} elements into {math.prod(shape)}")
    return shape


def _transpose_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    perm = attrs.get("perm")
    if perm is None:
        return _reshape_infer(ins, attrs, out)
    if not isinstance(perm, tuple) or sorted(perm) != list(range(len(ins[0]))):
        raise HwsimError(f"perm {perm} is not a permutation of {len(ins[0])} dimensions")
    return tuple(ins[0][i] for i in perm)


def _pad_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    value, rank = attrs.get("p"), len(ins[0])
    if value is None:
        shape = _stated(ins, attrs, out)
        if len(shape) != rank or any(o < i for o, i in zip(shape, ins[0], strict=True)):
            raise HwsimError("pad cannot shrink a dimension")
        return shape
    if not isinstance(value, tuple) or len(value) != 2 * rank:
        raise HwsimError(f"pad needs {2 * rank} amounts: begin of every dimension, then end")
    return tuple(d + value[i] + value[rank + i] for i, d in enumerate(ins[0]))


def _gather_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    return ()


def _broadcastable(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    shape = _stated(ins, attrs, out)
    if broadcast(ins[0], shape) != shape:
        raise HwsimError("expand can only grow dimensions of size 1")
    return shape


def _sort_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    n = math.prod(ins[0])
    return VectorWork(n * max(1, n.bit_length()), 0, n, math.prod(out))


def _mover(name: str, infer: Infer, attrs: dict[str, str], arity: tuple[int, int], doc: str) -> Op:
    return Op(name, "move", arity, infer, attrs, work=_copy_work, doc=doc)


_EXTRA = {
    "axis": "i",
    "axes": "t",
    "to": "s",
    "alpha": "f",
    "width": "i",
    "const": "t",
    "learned": "b",
    "value": "f",
    "low": "f",
    "high": "f",
    "reverse": "b",
}

ENTRIES: list[Op] = [
    *(Op(n, "elementwise", (1, 3), _broadcast_all, _EXTRA,
         weights=_prelu_weights if n == "prelu" else _const_weights, work=_elementwise(*cost),
         doc="element-wise, one input")
      for n, cost in UNARY.items()),
    *(Op(n, "elementwise", (1, 2), _broadcast_all, _EXTRA, weights=_const_weights, work=_elementwise(*cost),
         doc="element-wise with broadcasting; one input means the other is a constant (const= shape, value= scalar; "
             "reverse: it comes first)")
      for n, cost in BINARY.items()),
    Op("where", "elementwise", (1, 3), _broadcast_all, _EXTRA, weights=_const_weights,
       work=_elementwise(1, 0), doc="select by a mask"),
    Op("add_n", "elementwise", (1, 64), _broadcast_all, _EXTRA, work=_elementwise(1, 0), doc="sum of many inputs"),
    *(Op(n, "reduce", (1, 1), _reduce_infer, {"axes": "t", "keep": "b"}, work=_reduce(*cost),
         doc="reduction over axes=")
      for n, cost in REDUCE.items()),
    *(Op(n, "reduce", (1, 5), _same,
         {"axis": "i", "width": "i", "groups": "i", "vectors": "i", "nhwc": "b", "size": "i", "eps": "f", "heads": "i"},
         weights=_norm_weights(cost[4]), work=_norm(*cost[:4]),
         doc="normalisation; width= learned scale and shift length, vectors= how many of them")
      for n, cost in NORM.items()),
    Op("max_pool", "reduce", (1, 1), _pool_infer, POOL_ATTRS, work=_pool_work,
       doc="maximum over a sliding window"),
    Op("avg_pool", "reduce", (1, 1), _pool_infer, {**POOL_ATTRS, "count_pad": "b"}, work=_pool_work,
       doc="mean over a sliding window"),
    Op("adaptive_avg_pool", "reduce", (1, 1), _adaptive_infer, {"size": "t", "nhwc": "b"}, work=_whole_input_work,
       doc="mean over windows that tile the input; size= output extent"),
    Op("adaptive_max_pool", "reduce", (1, 1), _adaptive_infer, {"size": "t", "nhwc": "b"}, work=_whole_input_work,
       doc="maximum over windows that tile the input"),
    Op("concat", "move", (1, 256), _concat_infer, {"axis": "i", "constant": "i"}, _concat_weights,
       work=_copy_work, doc="join along axis=; constant= rows of a learned constant"),
    _mover("slice", _smaller, {"axis": "i", "start": "i", "step": "i"}, (1, 1), "part of a tensor"),
    _mover("gather", _stated, {"axis": "i"}, (1, 2), "rows picked by indices"),
    _mover("transpose", _transpose_infer, {"perm": "t"}, (1, 1), "permuted dimensions, data moved"),
    _mover("pad", _pad_infer, {"p": "t", "mode": "s"}, (1, 1), "padding with a constant or reflection"),
    _mover("resize", _stated, {"mode": "s", "nhwc": "b"}, (1, 1),
           "spatial interpolation: mode= nearest, bilinear, bicubic"),
    _mover("grid_sample", _stated, {"mode": "s"}, (2, 2), "sampling at given points"),
    _mover("expand", _broadcastable, {}, (1, 1), "repeat along dimensions of size 1"),
    _mover("tile", _stated, {}, (1, 1), "repeat along any dimension"),
    _mover("roll", _same, {"axes": "t", "shift": "t"}, (1, 1), "cyclic shift"),
    _mover("flip", _same, {"axes": "t"}, (1, 1), "reversed dimension"),
    _mover("scatter", _same, {"axis": "i"}, (1, 3), "write rows at indices"),
    _mover("depth_to_space", _reshape_infer, {"block": "i", "nhwc": "b"}, (1, 1), "channels to spatial blocks"),
    _mover("space_to_depth", _reshape_infer, {"block": "i", "nhwc": "b"}, (1, 1), "spatial blocks to channels"),
    _mover("space_to_batch", _stated, {"nhwc": "b"}, (1, 1), "spatial blocks to batch"),
    _mover("batch_to_space", _stated, {"nhwc": "b"}, (1, 1), "batch to spatial blocks"),
    _mover("one_hot", _stated, {}, (1, 1), "indices to indicator vectors"),
    Op("constant", "move", (0, 0), _stated, {"learned": "b"}, weights=_constant_weights, work=_copy_work,
       doc="a constant tensor; learned when it is a parameter"),
    _mover("copy", _same, {}, (1, 1), "an explicit copy"),
    Op("reshape", "view", (1, 1), _reshape_infer,
       doc="the same elements under another shape (flatten, squeeze, unsqueeze)"),
    Op("identity", "view", (1, 1), _same, doc="nothing (dropout at inference)"),
    Op("split", "view", (1, 1), _smaller, {"axis": "i", "start": "i"}, doc="a contiguous part read in place"),
    Op("select", "view", (1, 1), _stated, {"i": "i"}, doc="further output i of a layer with several"),
    Op("all_reduce", "collective", (1, 1), _same, {"ways": "i"}, work=_copy_work,
       doc="the sum of the same tensor on ways= devices, on every one of them"),
    Op("all_gather", "collective", (1, 1), _stated, {"ways": "i", "axis": "i"}, work=_copy_work,
       doc="the parts along axis= that ways= devices hold, on every one of them (a last part may be padding)"),
    Op("top_k", "host", (1, 2), _stated, {"k": "i", "axis": "i"}, work=_sort_work, doc="largest elements"),
    Op("sort", "host", (1, 1), _same, {"axis": "i"}, work=_sort_work, doc="sorting"),
    Op("nms", "host", (1, 4), _stated, {"classes": "i", "boxes": "i"}, work=_sort_work, doc="non-maximum suppression"),
    Op("roi_align", "move", (2, 3), _stated, {"size": "t", "ratio": "i"}, work=_copy_work,
       doc="regions sampled to a fixed size"),
    Op("custom", "host", (0, 64), _stated, {"code": "s"}, work=_copy_work,
       doc="an operator of the file hwsim does not know; code= its name"),
]  # fmt: skip
