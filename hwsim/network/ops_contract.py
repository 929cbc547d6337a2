"""Operators with matrix products: convolution, linear, matmul, attention, recurrent cells, and table look-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.network.dims import IntShape
from hwsim.network.graph import Layer
from hwsim.network.opdefs import Attrs, ConvGeometry, Op, Product, VectorWork, Weight


def integer(attrs: Attrs, key: str, default: int | None = None) -> int:
    """Attribute ``key`` as one integer; without a ``default`` it must be there. Raises HwsimError when it is a list."""
    value = attrs[key] if default is None else attrs.get(key, default)
    if isinstance(value, tuple):
        raise HwsimError(f"attribute {key} is a list, one integer is needed")
    return int(value)


def ints(attrs: Attrs, key: str, rank: int, default: int) -> tuple[int, ...]:
    """Return attribute ``key`` as ``rank`` integers, repeating a single one."""
    value = attrs.get(key, default)
    values = value if isinstance(value, tuple) else (int(value),)
    if len(values) == 1:
        values = values * rank
    if len(values) != rank:
        raise HwsimError(f"attribute {key} has {len(values)} values for {rank} spatial dimensions")
    return values


def pads(attrs: Attrs, rank: int) -> tuple[int, ...]:
    """Return padding as begin of every axis then end of every axis; one or ``rank`` values mean symmetric."""
    value = attrs.get("p", 0)
    values = value if isinstance(value, tuple) else (int(value),)
    if len(values) == 1:
        values = values * rank
    if len(values) == rank:
        values = values * 2
    if len(values) != 2 * rank:
        raise HwsimError(f"attribute p has {len(values)} values; give 1, {rank} or {2 * rank}")
    return values


def split_layout(shape: IntShape, attrs: Attrs) -> tuple[int, int, tuple[int, ...]]:
    """Return (images, channels, spatial extents) of a tensor in the layout its layer states."""
    if len(shape) < 3:
        raise HwsimError(
            f"needs a tensor with batch, channels and at least one spatial dimension, not rank {len(shape)}"
        )
    if attrs.get("nhwc"):
        return shape[0], shape[-1], shape[1:-1]
    return shape[0], shape[1], shape[2:]


def join_layout(n: int, c: int, spatial: Sequence[int], attrs: Attrs) -> IntShape:
    """The inverse of `split_layout`."""
    return (n, *spatial, c) if attrs.get("nhwc") else (n, c, *spatial)


def window_out(size: int, k: int, stride: int, before: int, after: int, dilation: int, *, ceil: bool = False) -> int:
    """Output extent of a sliding window; ``ceil`` drops windows that start in the end padding, as frameworks do."""
    if k < 1 or stride < 1 or dilation < 1:
        raise HwsimError(f"kernel {k}, stride {stride} and dilation {dilation} must be at least 1")
    span = size + before + after - dilation * (k - 1) - 1
    if span < 0:
        raise HwsimError(f"kernel {k} (dilation {dilation}) is larger than the padded input {size + before + after}")
    if not ceil:
        return span // stride + 1
    out = -(-span // stride) + 1
    return out - 1 if (out - 1) * stride >= size + before else out


# -- convolution ----------------------------------------------------------------------------------------------------

CONV_ATTRS = {"k": "t", "s": "t", "p": "t", "d": "t", "g": "i", "bias": "b", "nhwc": "b", "op": "t"}


def _conv_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    n, c, spatial = split_layout(ins[0], attrs)
    rank = len(spatial)
    if "k" not in attrs:
        raise HwsimError("convolution needs a kernel, e.g. k=3x3")
    if out is None or len(out) != rank + 2:
        raise HwsimError(f"convolution of a rank-{rank + 2} tensor must state an output of the same rank")
    k, s, d, p = ints(attrs, "k", rank, 1), ints(attrs, "s", rank, 1), ints(attrs, "d", rank, 1), pads(attrs, rank)
    groups, (_, features, _) = integer(attrs, "g", 1), split_layout(out, attrs)
    if groups < 1 or c % groups or features % groups:
        raise HwsimError(f"{groups} groups do not divide {c} input and {features} output channels")
    grown = tuple(window_out(spatial[i], k[i], s[i], p[i], p[rank + i], d[i]) for i in range(rank))
    return join_layout(n, features, grown, attrs)


def _conv_transpose_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    n, c, spatial = split_layout(ins[0], attrs)
    rank = len(spatial)
    if "k" not in attrs:
        raise HwsimError("convolution needs a kernel, e.g. k=3x3")
    if out is None or len(out) != rank + 2:
        raise HwsimError(f"transposed convolution of a rank-{rank + 2} tensor must state an output of the same rank")
    k, s, d, p = ints(attrs, "k", rank, 1), ints(attrs, "s", rank, 1), ints(attrs, "d", rank, 1), pads(attrs, rank)
    extra = ints(attrs, "op", rank, 0)
    groups, (_, features, _) = integer(attrs, "g", 1), split_layout(out, attrs)
    if groups < 1 or c % groups or features % groups:
        raise HwsimError(f"{groups} groups do not divide {c} input and {features} output channels")
    grown = tuple((spatial[i] - 1) * s[i] - p[i] - p[rank + i] + d[i] * (k[i] - 1) + extra[i] + 1 for i in range(rank))
    return join_layout(n, features, grown, attrs)


def _conv_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    _, c, spatial = split_layout(ins[0], layer.attrs)
    _, features, _ = split_layout(out, layer.attrs)
    groups = integer(layer.attrs, "g", 1)
    kernel = ints(layer.attrs, "k", len(spatial), 1)
    weight = Weight("weight", (features, c // groups, *kernel))
    return (weight, Weight("bias", (features,), "bias")) if layer.attrs.get("bias") else (weight,)


def _conv_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    attrs, transposed = layer.attrs, layer.op == "conv_transpose"
    n, c, spatial = split_layout(ins[0], attrs)
    _, features, out_spatial = split_layout(out, attrs)
    rank, groups = len(spatial), integer(attrs, "g", 1)
    kernel = ints(attrs, "k", rank, 1)
    stride = ints(attrs, "s", rank, 1)
    geometry = ConvGeometry(
        kernel, stride, ints(attrs, "d", rank, 1), pads(attrs, rank), tuple(spatial), tuple(out_spatial),
        c // groups, features // groups, n, transposed,
    )  # fmt: skip
    # A transposed convolution multiplies every input pixel with the whole kernel: its MACs follow the input extent.
    pixels = math.prod(spatial) if transposed else math.prod(out_spatial)
    if transposed:
        m, width, depth = n * pixels, features // groups * math.prod(kernel), c // groups
    else:
        m, width, depth = n * pixels, features // groups, c // groups * math.prod(kernel)
    return (
        Product(
            "conv", groups, m, width, depth, math.prod(ins[0]), features * (c // groups) * math.prod(kernel),
            math.prod(out), conv=geometry,
        ),
    )  # fmt: skip


# -- linear and matmul ----------------------------------------------------------------------------------------------


def _linear_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    if not ins[0]:
        raise HwsimError("linear needs at least one dimension")
    if out is None or len(out) != len(ins[0]):
        raise HwsimError(f"linear of a rank-{len(ins[0])} tensor must state an output of the same rank")
    stated = attrs.get("k")
    if stated is not None and int(stated) != ins[0][-1]:  # type: ignore[arg-type]
        raise HwsimError(f"linear states reduction length k={stated}, but its input has {ins[0][-1]} features")
    return (*ins[0][:-1], out[-1])


def _linear_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    weight = Weight("weight", (out[-1], ins[0][-1]))
    return (weight, Weight("bias", (out[-1],), "bias")) if layer.attrs.get("bias") else (weight,)


def _linear_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    m, k, n = math.prod(ins[0][:-1]), ins[0][-1], out[-1]
    return (Product("linear", 1, m, n, k, m * k, k * n, m * n),)


def _expert_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    experts = integer(layer.attrs, "experts", 1)
    return (Weight("weight", (experts, out[-1], ins[0][-1])),)


def _expert_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    # Tokens are spread evenly: with t tokens x top choices, at most that many experts are touched.
    experts, rows = integer(layer.attrs, "experts", 1), math.prod(ins[0][:-1])
    touched = min(experts, rows)
    m, k, n = -(-rows // touched), ins[0][-1], out[-1]
    return (Product("expert", touched, m, n, k, rows * k, touched * k * n, rows * n, rows=rows),)


def _matmul_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    a, b = ins
    if len(a) < 2 or len(b) < 2:
        raise HwsimError("matmul needs two tensors of rank 2 or more (use linear for weights)")
    bk, bn = (b[-1], b[-2]) if attrs.get("bt") else (b[-2], b[-1])
    if a[-1] != bk:
        raise HwsimError(f"matmul reduction lengths differ: {a[-1]} and {bk}")
    return (*broadcast(a[:-2], b[:-2]), a[-2], bn)


def broadcast(a: IntShape, b: IntShape) -> IntShape:
    """Numpy-style broadcast of two shapes; raises HwsimError when they do not fit."""
    if a == b:
        return a
    rank = max(len(a), len(b))
    pa, pb = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    for x, y in zip(pa, pb, strict=True):
        if x != y and 1 not in (x, y):
            raise HwsimError(f"shapes {'x'.join(map(str, a))} and {'x'.join(map(str, b))} do not broadcast")
    return tuple(max(x, y) for x, y in zip(pa, pb, strict=True))


def _matmul_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    a, b = ins[0], ins[1]
    batch = math.prod(out[:-2])
    return (
        Product("matmul", batch, a[-2], out[-1], a[-1], math.prod(a), math.prod(b), math.prod(out), b_weight=False),
    )


# -- attention ------------------------------------------------------------------------------------------------------

ATTENTION_ATTRS = {"causal": "b", "cache": "d", "window": "i", "scale": "f"}


def _attention_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    q, k, v = ins[0], ins[1], ins[2]
    if not len(q) == len(k) == len(v) >= 3:
        raise HwsimError("attention needs query, key and value of equal rank (..., heads, length, depth)")
    if q[-1] != k[-1] or k[-2] != v[-2]:
        raise HwsimError("attention: query/key depths or key/value lengths differ")
    if q[-3] % k[-3] or k[-3] != v[-3]:
        raise HwsimError(f"attention: {q[-3]} query heads are not a multiple of {k[-3]} key/value heads")
    if q[:-3] != k[:-3] or k[:-3] != v[:-3]:
        raise HwsimError("attention: batch dimensions differ")
    return (*q[:-1], v[-1])


def _attended(layer: Layer, k: IntShape) -> int:
    """Positions every query attends to: past and new ones, at most the window."""
    length = k[-2] + integer(layer.attrs, "cache", 0)
    window = integer(layer.attrs, "window", 0)
    return min(length, window) if window else length


def _attention_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    q, k, v = ins[0], ins[1], ins[2]
    length = _attended(layer, k)
    batch, kv = math.prod(q[:-2]), math.prod(k[:-2])
    causal = bool(layer.attrs.get("causal"))
    sq, dq, dv = q[-2], q[-1], v[-1]
    # A window slides over the keys: all queries together read more of them than one does.
    stored = k[-2] + integer(layer.attrs, "cache", 0)
    read = min(stored, length + sq - 1)
    return (
        Product("qk", batch, sq, length, dq, math.prod(q), kv * read * dq, batch * sq * length, False, 1, causal, span=read),
        Product("pv", batch, sq, dv, length, batch * sq * length, kv * read * dv, math.prod(out), False, 1, causal, span=read),
    )  # fmt: skip


def _attention_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    q, k = ins[0], ins[1]
    scores = math.prod(q[:-1]) * _attended(layer, k)
    # scale, running maximum, subtract, exponential, sum, divide: softmax over every score
    return VectorWork(5 * scores, scores, sum(math.prod(s) for s in ins), math.prod(out))


# -- recurrent cells ------------------------------------------------------------------------------------------------

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
RECURRENT_ATTRS = {
    "h": "i",
    "bi": "b",
    "bias": "b",
    "seq_first": "b",
    "last": "b",
    "proj": "i",
    "bias2": "b",
    "peephole": "b",
}


def _recurrent_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    if len(ins[0]) != 3 or "h" not in attrs:
        raise HwsimError("recurrent cells need a rank-3 input (batch, time, features) and h=HIDDEN")
    width = integer(attrs, "proj", integer(attrs, "h")) * (2 if attrs.get("bi") else 1)
    if attrs.get("last"):
        return (ins[0][1] if attrs.get("seq_first") else ins[0][0], width)
    return (*ins[0][:2], width)


def _recurrent_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    gates, h, f = GATES[layer.op], integer(layer.attrs, "h"), ins[0][-1]
    proj = integer(layer.attrs, "proj", 0)
    found = []
    for side in ("", "_reverse") if layer.attrs.get("bi") else ("",):
        found += [Weight(f"w_input{side}", (gates * h, f)), Weight(f"w_hidden{side}", (gates * h, proj or h))]
        if proj:
            found.append(Weight(f"w_proj{side}", (proj, h)))
        if layer.attrs.get("bias"):
            found.append(Weight(f"bias{side}", (gates * h,), "bias"))
        if layer.attrs.get("peephole"):  # diagonal: input, output and forget gate see the cell state
            found.append(Weight(f"w_peephole{side}", (3 * h,)))
        if layer.attrs.get("bias2"):
            found.append(Weight(f"bias_hidden{side}", (gates * h,), "bias"))
    return tuple(found)


def _recurrent_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    gates, h, (a, b, f) = GATES[layer.op], integer(layer.attrs, "h"), ins[0]
    n, steps = (b, a) if layer.attrs.get("seq_first") else (a, b)
    sides = 2 if layer.attrs.get("bi") else 1
    proj = integer(layer.attrs, "proj", 0)
    width, state = gates * h, proj or h
    found = [
        Product("input", sides, n * steps, width, f, sides * n * steps * f, sides * f * width,
                sides * n * steps * width),
        Product("hidden", sides, n, width, state, sides * n * state, sides * state * width, sides * n * width,
                repeat=steps),
    ]  # fmt: skip
    if proj:
        found.append(
            Product("proj", sides, n, proj, h, sides * n * h, sides * h * proj, sides * n * proj, repeat=steps)
        )
    return tuple(found)


def _recurrent_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    sides = 2 if layer.attrs.get("bi") else 1
    cells = ins[0][0] * ins[0][1] * integer(layer.attrs, "h") * sides
    gates = GATES[layer.op]
    # per cell: every gate adds two products and a bias and takes one non-linearity; state update is 4 more operations
    return VectorWork((2 * gates + 4) * cells, (gates + 1) * cells, math.prod(ins[0]), math.prod(out))


# -- SVDF: a dense layer factorised into a feature and a time filter, keeping a short history (Nakkiran 2015) ----------


def _svdf_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    if len(ins[0]) != 2 or not {"filters", "memory"} <= set(attrs):
        raise HwsimError("svdf needs a rank-2 input (batch, features), filters=COUNT and memory=STEPS")
    filters, rank = integer(attrs, "filters"), integer(attrs, "rank", 1)
    if rank < 1 or filters < 1 or filters % rank:
        raise HwsimError(f"rank {rank} does not divide {filters} filters")
    return (ins[0][0], filters // rank)


def _svdf_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    filters, memory = integer(layer.attrs, "filters"), integer(layer.attrs, "memory")
    found = (Weight("w_feature", (filters, ins[0][-1])), Weight("w_time", (filters, memory)))
    return (*found, Weight("bias", (out[-1],), "bias")) if layer.attrs.get("bias") else found


def _svdf_products(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Product, ...]:
    n, f = ins[0]
    filters, memory = integer(layer.attrs, "filters"), integer(layer.attrs, "memory")
    return (
        Product("feature", 1, n, filters, f, n * f, f * filters, n * filters),
        Product("time", filters, n, 1, memory, n * filters * memory, filters * memory, n * filters),
    )


def _svdf_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    # the sum over the rank, after the products
    return VectorWork(ins[0][0] * integer(layer.attrs, "filters"), 0, math.prod(ins[0]), math.prod(out))


# -- look-ups -------------------------------------------------------------------------------------------------------


def _embedding_infer(ins: Sequence[IntShape], attrs: Attrs, out: IntShape | None) -> IntShape:
    if "rows" not in attrs or "width" not in attrs:
        raise HwsimError("embedding needs rows=VOCABULARY width=FEATURES")
    ids = ins[0]
    width = integer(attrs, "width")
    return (*ids[:-1], width) if attrs.get("bag") else (*ids, width)


def _embedding_weights(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> tuple[Weight, ...]:
    return (Weight("table", (integer(layer.attrs, "rows"), integer(layer.attrs, "width")), "table"),)


def _embedding_work(layer: Layer, ins: Sequence[IntShape], out: IntShape) -> VectorWork:
    fetched = math.prod(ins[0]) * integer(layer.attrs, "width")
    return VectorWork(fetched if layer.attrs.get("bag") else 0, 0, fetched, math.prod(out))


ENTRIES: list[Op] = [
    Op("conv", "contract", (1, 1), _conv_infer, CONV_ATTRS, _conv_weights, _conv_products,
       doc="convolution in 1 to 3 dimensions; g= groups (depthwise when equal to channels), d= dilation"),
    Op("conv_transpose", "contract", (1, 1), _conv_transpose_infer, CONV_ATTRS, _conv_weights, _conv_products,
       doc="transposed convolution; op= output padding"),
    Op("linear", "contract", (1, 1), _linear_infer, {"k": "i", "bias": "b"}, _linear_weights, _linear_products,
       doc="last dimension times a constant matrix; k= states the reduction length"),
    Op("expert_linear", "contract", (1, 1), _linear_infer, {"k": "i", "experts": "i"}, _expert_weights,
       _expert_products, doc="mixture of experts: each row goes to one of experts= constant matrices"),
    Op("matmul", "contract", (2, 2), _matmul_infer, {"bt": "b"}, products=_matmul_products,
       doc="batched product of two activations; bt: the second is stored transposed"),
    Op("attention", "contract", (3, 4), _attention_infer, ATTENTION_ATTRS, products=_attention_products,
       work=_attention_work,
       doc="softmax(q k^T) v; inputs (..., heads, length, depth) and an optional mask; cache= past length"),
    *(Op(cell, "contract", (1, 3), _recurrent_infer, RECURRENT_ATTRS, _recurrent_weights, _recurrent_products,
         _recurrent_work, doc=f"{cell} over time; h= hidden, bi both directions, last returns the last step only")
      for cell in GATES),
    Op("svdf", "contract", (1, 1), _svdf_infer, {"filters": "i", "memory": "i", "rank": "i", "bias": "b"},
       _svdf_weights, _svdf_products, _svdf_work,
       doc="one step of a rank-factorised layer over a history of memory= inputs"),
    Op("embedding", "move", (1, 1), _embedding_infer, {"rows": "i", "width": "i", "bag": "b"}, _embedding_weights,
       work=_embedding_work, doc="table look-up; bag sums the rows of the last dimension of ids"),
]  # fmt: skip
