"""Fused transformer operators: standard Attention and RotaryEmbedding, and the com.microsoft ones runtimes write."""

from __future__ import annotations

from dataclasses import replace

from hwsim.network.importing import Value
from hwsim.network.onnx_contract import conv_layer, product, swapped, transposed
from hwsim.network.onnx_graph import Handler, OnnxGraph, elementwise
from hwsim.network.onnx_move import part


def heads(g: OnnxGraph, x: Value, count: int) -> Value:
    """(batch, length, features) to (batch, heads, length, depth)."""
    if len(x.shape) != 3 or count < 1 or x.shape[2] % count:
        raise g.fail(f"{count} heads do not divide a tensor {list(x.shape)}")
    n, s, f = x.shape
    return transposed(g, g.reshaped(x, (n, s, count, f // count)), (0, 2, 1, 3))


def merged(g: OnnxGraph, x: Value) -> Value:
    """The inverse of `heads`."""
    n, h, s, d = x.shape
    return g.reshaped(transposed(g, x, (0, 2, 1, 3)), (n, s, h * d))


def joined(g: OnnxGraph, past: Value | None, new: Value) -> Value:
    """Keys or values of earlier steps before the new ones."""
    if past is None or not past.elements:
        return new
    return g.part("concat", past, new, axis=2)


def attention(g: OnnxGraph) -> None:
    """Attention (opset 23): query, key, value of rank 3 or 4, mask, past key, past value."""
    q, k, v, flat = g.x(0), g.x(1), g.x(2), len(g.x(0).shape) == 3
    if flat:
        count = g.attr_int("q_num_heads", 0)
        q = heads(g, q, count)
        k, v = (heads(g, t, g.attr_int("kv_num_heads", count)) for t in (k, v))
    k, v = joined(g, g.opt(4), k), joined(g, g.opt(5), v)
    mask = g.opt(3)
    extra = [mask] if mask is not None and not mask.is_const else []
    made = g.part("attention", q, k, v, *extra, causal=bool(g.attr_int("is_causal", 0)))
    g.store(0, merged(g, made) if flat else made)
    for i, value in ((1, k), (2, v)):
        if g.wants(i):
            g.store(i, value)


def packed_attention(g: OnnxGraph) -> None:
    """com.microsoft Attention: one projection to query, key and value, then attention."""
    x, w, count = g.x(0), g.x(1), g.attr_int("num_heads", 0)
    bias = g.opt(2)
    if len(x.shape) != 3 or not w.is_const or len(w.shape) != 2:
        raise g.fail("needs a rank-3 input and stored weights")
    sizes = g.attr_ints("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    if len(sizes) != 3 or sum(sizes) != w.shape[1]:
        raise g.fail(f"parts {sizes} do not make up {w.shape[1]} features")
    mixed = product(g, x, w, bias=bias if bias is not None and bias.is_const else None)
    at = [0, sizes[0], sizes[0] + sizes[1]]
    q, k, v = (heads(g, part(g, mixed, 2, at[i], sizes[i]), count) for i in range(3))
    mask = g.opt(3)
    extra = [mask] if mask is not None and not mask.is_const else []
    g.store(0, merged(g, g.part("attention", q, k, v, *extra, causal=bool(g.attr_int("unidirectional", 0)))))


def multi_head(g: OnnxGraph) -> None:
    """com.microsoft MultiHeadAttention: separate query, key and value of rank 3, past key and value."""
    count = g.attr_int("num_heads", 0)
    if not (g.has(1) and g.has(2)):
        raise g.fail("packed query, key and value are not supported; export them apart")
    q = heads(g, g.x(0), count)
    k, v = (t if len(t.shape) == 4 else heads(g, t, count) for t in (g.x(1), g.x(2)))
    k, v = joined(g, g.opt(6), k), joined(g, g.opt(7), v)
    extra = [m for m in (g.opt(5),) if m is not None and not m.is_const]
    g.store(0, merged(g, g.part("attention", q, k, v, *extra, causal=bool(g.attr_int("unidirectional", 0)))))
    for i, value in ((1, k), (2, v)):
        if g.wants(i):
            g.store(i, value)


def grouped(g: OnnxGraph) -> None:
    """com.microsoft GroupQueryAttention: causal, fewer key/value heads, past key and value."""
    count, few = g.attr_int("num_heads", 0), g.attr_int("kv_num_heads", 0)
    if few < 1 or count < 1:
        raise g.fail("num_heads and kv_num_heads must be positive")
    if g.has(1) and g.has(2):
        q, k, v = g.x(0), g.x(1), g.x(2)
    else:
        x = g.x(0)
        depth = x.shape[-1] // (count + 2 * few)
        sizes = (count * depth, few * depth, few * depth)
        q, k, v = (part(g, x, 2, sum(sizes[:i]), sizes[i]) for i in range(3))
    q, k, v = heads(g, q, count), heads(g, k, few), heads(g, v, few)
    if g.attr_int("do_rotary", 0):
        q, k = (g.part("rope", t) for t in (q, k))
    k, v = joined(g, g.opt(3), k), joined(g, g.opt(4), v)
    g.store(0, merged(g, g.part("attention", q, k, v, causal=True)))
    for i, value in ((1, k), (2, v)):
        if g.wants(i):
            g.store(i, value)


def rotary(g: OnnxGraph) -> None:
    """RotaryEmbedding: its tables are constants or small."""
    g.layer("rope", g.x(0))


def skip_norm(op: str) -> Handler:
    """(Simplified)SkipLayerNormalization: x + skip (+ bias), then the norm; output 3 is the sum."""

    def handler(g: OnnxGraph) -> None:
        total = elementwise(g, "add", g.x(0), g.x(1))
        bias = g.opt(4 if op == "layer_norm" else 3)
        if bias is not None:
            total = elementwise(g, "add", total, bias)
        scale = g.x(2)
        vectors = 2 if op == "layer_norm" and g.has(3) else 1
        g.layer(op, total, weights_of=scale.origin, width=scale.elements, vectors=vectors)
        if g.wants(3):
            g.store(3, total)

    return handler


def embed_norm(g: OnnxGraph) -> None:
    """EmbedLayerNormalization: word, position and segment tables, summed and normalised."""
    ids, segments = g.x(0), g.opt(1)
    tables = [(g.x(2), ids), (g.x(3), ids)]
    if segments is not None and g.has(4):
        tables.append((g.x(4), segments))
    total: Value | None = None
    for table, index in tables:
        if len(table.shape) != 2:
            raise g.fail("its tables must be matrices")
        found = g.part("embedding", replace(index, source=g.emit.source(index)), weight=table, rows=table.shape[0],
                       width=table.shape[1], dtype=table.arithmetic_dtype)  # fmt: skip
        total = found if total is None else elementwise(g, "add", total, found)
    assert total is not None
    g.layer("layer_norm", total, weights_of=g.x(5).origin, width=g.x(5).elements)
    if g.wants(1):
        g.store(1, Value((ids.shape[0],), "int32", fixed=False))


def biased(op: str) -> Handler:
    """BiasGelu, FastGelu, QuickGelu: an optional bias, then the activation."""

    def handler(g: OnnxGraph) -> None:
        x = elementwise(g, "add", g.x(0), g.x(1)) if g.has(1) else g.x(0)
        g.layer(op, x)

    return handler


FUSED = {"Relu": "relu", "Clip": "clip", "Sigmoid": "sigmoid", "Tanh": "tanh", "LeakyRelu": "leaky_relu",
         "HardSigmoid": "hsigmoid"}  # fmt: skip


def fused_conv(g: OnnxGraph) -> None:
    """FusedConv: convolution, optional sum, activation."""
    made = conv_layer(g, g.x(0), g.x(1), g.opt(2))
    if g.has(3):
        made = elementwise(g, "add", made, g.x(3))
    name = g.attr_str("activation", "")
    g.store(0, made if not name else g.part(FUSED.get(name, "relu"), made))


def fused_matmul(g: OnnxGraph) -> None:
    """FusedMatMul: transpositions and a factor of the product."""
    a, b = g.x(0), g.x(1)
    a = swapped(g, a) if g.attr_int("transA", 0) else a
    b = swapped(g, b) if g.attr_int("transB", 0) else b
    g.store(0, product(g, a, b))


def matmul_nbits(g: OnnxGraph) -> None:
    """MatMulNBits: weights of 2, 4 or 8 bits in blocks, stored packed (N x blocks x bytes)."""
    x, depth, features, bits = g.x(0), g.attr_int("K", 0), g.attr_int("N", 0), g.attr_int("bits", 4)
    if bits not in (2, 4, 8) or depth < 1 or features < 1 or not x.shape or x.shape[-1] != depth:
        raise g.fail(f"K={depth}, N={features}, bits={bits} do not fit input {list(x.shape)}")
    w = Value((depth, features), f"uint{bits}", None, None, True, True, g.x(1).origin, "", x.arithmetic_dtype)
    w.quant = f"ws=per-block:{g.attr_int('block_size', 32)}"
    g.store(0, product(g, x, w))


ATTENTION: dict[str, Handler] = {"Attention": attention, "RotaryEmbedding": rotary}
MICROSOFT: dict[str, Handler] = {
    "Attention": packed_attention, "MultiHeadAttention": multi_head, "GroupQueryAttention": grouped,
    "RotaryEmbedding": rotary, "SkipLayerNormalization": skip_norm("layer_norm"),
    "SkipSimplifiedLayerNormalization": skip_norm("rms_norm"), "EmbedLayerNormalization": embed_norm,
    "BiasGelu": biased("gelu"), "FastGelu": biased("gelu_tanh"), "Gelu": biased("gelu"),
    "QuickGelu": biased("quick_gelu"),
    "FusedConv": fused_conv, "FusedMatMul": fused_matmul, "MatMulNBits": matmul_nbits,
}  # fmt: skip
