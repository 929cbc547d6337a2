"""Decoder-only language models: symbols N (sequences), S (new tokens), P (past tokens in the cache; 0 = prefill).

One description table, one body. S defaults to 128 and P to 0: prefill of a short prompt; decoding is S=1 with P past
tokens. Logits are computed for the last token only, as every serving stack does. Positions are an input where they are
looked up in a table. Each row's numbers are those of the published checkpoint's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from build_common import Entry

from hwsim.network.builder import Builder


@dataclass(frozen=True)
class Decoder:
    """The hyper-parameters that separate one decoder from another."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed: int
    vocabulary: int
    style: str = "llama"  # llama: RMSNorm, rotary, gated SiLU; gpt: LayerNorm, position table, biases; gptj: parallel
    positions: int = 0  # rows of the learned position table
    context: str = ""  # tokens it was made for, and where that is stated
    activation: str = "gelu_tanh"
    tied: bool = False
    head_depth: int = 0  # width / heads unless stated
    qkv_bias: bool = False
    qk_norm: bool = False  # every head's queries and keys are normalised before they are rotated
    experts: int = 0
    chosen: int = 2
    window: int = 0
    dtype: str = "bf16"
    source: str = ""
    licence: str = ""

    @property
    def depth(self) -> int:
        return self.head_depth or self.width // self.heads


def decoder(net: Builder, N: int, S: int, P: int, *, m: Decoder) -> str:
    ids = net.input("ids", (N, S), "int32")
    x = net.op("embedding", ids, rows=m.vocabulary, width=m.width, name="embed")
    table = x
    if m.positions:
        where = net.input("positions", (1, S), "int32")
        x = net.add(x, net.op("embedding", where, rows=m.positions, width=m.width, name="position"))
    for index in range(m.layers):
        net.prefix = f"layer{index}."
        x = _parallel(net, x, m, P) if m.style == "gptj" else _block(net, x, m, P)
    net.prefix = ""
    x = _norm(net, x, m, "norm")
    x = net.op("slice", x, out=(N, 1, m.width), axis=1, start=-1, name="last_token")
    return net.linear(x, m.vocabulary, bias=m.style == "gptj", name="lm_head", tied=table if m.tied else None)


def encoder(net: Builder, N: int, S: int, *, m: Decoder, types: int, answers: int) -> str:
    """A BERT with the layer-norm before each sublayer (Megatron) and a span-extraction head over all positions."""
    table = net.op("embedding", net.input("ids", (N, S), "int32"), rows=m.vocabulary, width=m.width, name="embed")
    spots = net.input("positions", (1, S), "int32")
    where = net.op("embedding", spots, rows=m.positions, width=m.width, name="position")
    kind = net.op("embedding", net.input("types", (N, S), "int32"), rows=types, width=m.width, name="type")
    x = net.add(net.add(table, where), kind)
    mask = net.input("mask", (N, 1, 1, S))
    for index in range(m.layers):
        net.prefix = f"layer{index}."
        x = _block(net, x, m, None, mask)
    net.prefix = ""
    return net.linear(_norm(net, x, m, "norm"), answers, name="answers")


def _norm(net: Builder, x: str, m: Decoder, name: str) -> str:
    return net.norm(x, "rms_norm" if m.style == "llama" else "layer_norm", name=name)


def _attend(net: Builder, x: str, m: Decoder, P: int | None, *mask: str) -> str:
    """``P`` past tokens and a causal mask, or None for attention in both directions."""
    bias = m.qkv_bias or m.style == "gpt"
    q = net.heads(net.linear(x, m.heads * m.depth, bias=bias, name="q"), m.heads)
    k = net.heads(net.linear(x, m.kv_heads * m.depth, bias=bias, name="k"), m.kv_heads)
    v = net.heads(net.linear(x, m.kv_heads * m.depth, bias=bias, name="v"), m.kv_heads)
    if m.qk_norm:
        q, k = net.norm(q, "rms_norm", name="norm_q"), net.norm(k, "rms_norm", name="norm_k")
    if m.style != "gpt":
        q, k = net.op("rope", q, name="rope_q"), net.op("rope", k, name="rope_k")
    window = m.window or None
    out = net.op("attention", q, k, v, *mask, causal=P is not None, cache=P, window=window, name="attention")
    return net.linear(net.merge_heads(out), m.width, bias=m.style == "gpt", name="o")


def _feed(net: Builder, x: str, m: Decoder) -> str:
    if m.style == "llama":
        gate = net.linear(x, m.feed, bias=False, fused="silu", name="gate")
        up = net.linear(x, m.feed, bias=False, name="up")
        return net.linear(net.op("mul", gate, up, name="gate_mul"), m.width, bias=False, name="down")
    up = net.linear(x, m.feed, fused=m.activation, name="up")
    return net.linear(up, m.width, name="down")


def _experts(net: Builder, x: str, m: Decoder) -> str:
    """Mixture of experts: every token goes to ``chosen`` of ``experts`` feed-forward networks."""
    n, s, width = net.shape(x)
    scores = net.op("softmax", net.linear(x, m.experts, bias=False, name="router"), axis=2, name="router_softmax")
    weights = net.op("gather", scores, out=(n, s, m.chosen), axis=2, name="router_top")
    rows = net.op("gather", x, weights, out=(n, s * m.chosen, width), axis=1, name="dispatch")
    gate = net.op(
        "expert_linear", rows, out=(n, s * m.chosen, m.feed), fused="silu", k=width, name="gate", experts=m.experts
    )
    up = net.op("expert_linear", rows, out=(n, s * m.chosen, m.feed), k=width, name="up", experts=m.experts)
    both = net.op("mul", gate, up, name="gate_mul")
    down = net.op("expert_linear", both, out=(n, s * m.chosen, width), k=m.feed, name="down", experts=m.experts)
    parts = net.reshape(down, (n, s, m.chosen, width))
    parts = net.op("mul", parts, net.reshape(weights, (n, s, m.chosen, 1)), name="weigh")
    return net.op("reduce_sum", parts, axes=(2,), name="combine")


def _block(net: Builder, x: str, m: Decoder, P: int | None, *mask: str) -> str:
    x = net.add(x, _attend(net, _norm(net, x, m, "norm1"), m, P, *mask), name="residual1")
    normed = _norm(net, x, m, "norm2")
    return net.add(x, _experts(net, normed, m) if m.experts else _feed(net, normed, m), name="residual2")


def _parallel(net: Builder, x: str, m: Decoder, P: int) -> str:
    normed = _norm(net, x, m, "norm")
    both = net.add(_attend(net, normed, m, P), _feed(net, normed, m), name="parallel")
    return net.add(x, both, name="residual")


LLAMA2 = "Llama 2 Community Licence covers the weights (not used); facts from the paper and the published configuration"
LLAMA3 = LLAMA2.replace("Llama 2", "Llama 3")


def _llama2(layers: int, width: int, heads: int, kv: int, feed: int) -> Decoder:
    text = "Touvron et al. 2023 (arXiv:2307.09288); sizes of the published configuration"
    return Decoder(
        layers, width, heads, kv, feed, 32000, context="4096 tokens (the paper's table 1)", dtype="fp16", source=text,
        licence=LLAMA2,
    )  # fmt: skip


def _llama3(layers: int, width: int, heads: int, kv: int, feed: int, *, tied: bool = False) -> Decoder:
    text = "Grattafiori et al. 2024 (arXiv:2407.21783) table 3; sizes of the published configuration"
    long = "131072 tokens (the paper's section 3.4.2; the first release of April 2024 was made for 8192)"
    return Decoder(layers, width, heads, kv, feed, 128256, context=long, tied=tied, source=text, licence=LLAMA3)


def _opt(layers: int, width: int, heads: int) -> Decoder:
    text = "Zhang et al. 2022 (arXiv:2205.01068) table 1; vocabulary 50272, 2048 + 2 positions, ReLU, tied head"
    return Decoder(
        layers, width, heads, heads, 4 * width, 50272, "gpt", 2050, "2048 tokens (the position table has two rows more)",
        "relu", tied=True, dtype="fp16", source=text,
        licence="OPT licence covers the weights, not used here; facts from the paper",
    )  # fmt: skip


def _gpt3(layers: int, width: int, heads: int) -> Decoder:
    text = (
        "Brown et al. 2020 (arXiv:2005.14165) table 2.1; vocabulary 50257, 2048 positions, tied head; every layer "
        "attends densely (the paper alternates dense and locally banded sparse layers without stating the band)"
    )
    return Decoder(
        layers, width, heads, heads, 4 * width, 50257, "gpt", 2048, "2048 tokens (the paper's section 2.1)", tied=True,
        dtype="fp16", source=text,
        licence="facts from the paper",
    )  # fmt: skip


MODELS: dict[str, Decoder] = {
    "llama2_7b": _llama2(32, 4096, 32, 32, 11008),
    "llama2_13b": _llama2(40, 5120, 40, 40, 13824),
    "llama2_70b": _llama2(80, 8192, 64, 8, 28672),
    "llama3_8b": _llama3(32, 4096, 32, 8, 14336),
    "llama3_70b": _llama3(80, 8192, 64, 8, 28672),
    "llama3.2_1b": _llama3(16, 2048, 32, 8, 8192, tied=True),
    "llama3.2_3b": _llama3(28, 3072, 24, 8, 8192, tied=True),
    "mistral_7b": Decoder(
        32, 4096, 32, 8, 14336, 32000, context="8192 tokens (the paper's table 1, context_len)",
        source="Jiang et al. 2023 (arXiv:2310.06825) table 1; v0.1 without its sliding window (S + P up to 4096)",
        licence="Apache-2.0 (published configuration)",
    ),
    "mixtral_8x7b": Decoder(
        32, 4096, 32, 8, 14336, 32000, context="32768 tokens (the paper's table 1)", experts=8,
        source="Jiang et al. 2024 (arXiv:2401.04088) table 1; tokens spread evenly over the experts",
        licence="Apache-2.0 (published configuration)",
    ),
    "qwen2_7b": Decoder(
        28, 3584, 28, 4, 18944, 152064, context="131072 tokens (the paper's section 3.2: 32768 trained, more with YARN)",
        qkv_bias=True,
        source="Yang et al. 2024 (arXiv:2407.10671) table 1; vocabulary rows as in the published configuration",
        licence="Apache-2.0 (published configuration)",
    ),
    "qwen3_32b": Decoder(
        64, 5120, 64, 8, 25600, 151936, context="131072 tokens (the paper's table 1: 32768 trained, more with YARN)",
        head_depth=128, qk_norm=True,
        source="Yang et al. 2025 (arXiv:2505.09388) table 1; widths as in the published configuration",
        licence="Apache-2.0 (published configuration)",
    ),
    "gptj_6b": Decoder(
        28, 4096, 16, 16, 16384, 50400, "gptj", context="2048 tokens (n_positions of the configuration)", dtype="fp16",
        source="Wang and Komatsuzaki 2021, GPT-J-6B, published configuration; rotary embedding counted on all features",
        licence="Apache-2.0 (published configuration)",
    ),
    "gpt3_2.7b": _gpt3(32, 2560, 32),
    "gpt3_175b": _gpt3(96, 12288, 96),
    "opt_1.3b": _opt(24, 2048, 32),
    "opt_6.7b": _opt(32, 4096, 32),
    "opt_13b": _opt(40, 5120, 40),
    "opt_30b": _opt(48, 7168, 56),
    "opt_66b": _opt(64, 9216, 72),
    "opt_175b": _opt(96, 12288, 96),
}  # fmt: skip

MEGATRON = "Shoeybi et al. 2019 (arXiv:1909.08053) table 2"
MODELS["megatron_gpt2_8.3b"] = Decoder(
    72, 3072, 32, 32, 12288, 51200, "gpt", 1024, "1024 tokens (rows of the position table)", tied=True, dtype="fp16",
    source=f"{MEGATRON}; vocabulary padded to 51200", licence="facts from the paper",
)  # fmt: skip
BERT = Decoder(24, 1024, 16, 16, 4096, 30592, "gpt", 512, activation="gelu", dtype="fp16")

NETWORKS = {
    "megatron_bert_large": Entry(
        partial(encoder, m=BERT, types=2, answers=2),
        task="question answering (SQuAD)",
        source="Shoeybi et al. 2019 (arXiv:1909.08053), 24 layers, 1024 wide, 16 heads; vocabulary padded to 30592",
        licence="facts from the paper",
        defaults={"N": 1, "S": 384},
        second={"N": 2, "S": 128},
        dtype="fp16",
    ),
}
NETWORKS |= {
    name: Entry(
        partial(decoder, m=m),
        task="text generation (decoder with key/value cache: prefill S tokens, or decode S=1 after P)",
        source=m.source,
        licence=m.licence,
        notes={"context": m.context},
        defaults={"N": 1, "S": 128, "P": 0},
        second={"N": 2, "S": 96, "P": 32},
        dtype=m.dtype,
    )
    for name, m in MODELS.items()
}
