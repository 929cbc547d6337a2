"""Recommendation, translation and speech: DLRM (Terabyte) and its v2, GNMT, RNN-T, as MLPerf inference defines them."""

from __future__ import annotations

from build_common import Entry

from hwsim.network.builder import Builder

# Rows of the 26 embedding tables: Criteo Terabyte hashed to at most 40 M rows (version 1); version 2 with its look-ups.
ROWS_V1 = (
    39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4, 976, 14,
    39979771, 25641295, 39664984, 585935, 12972, 108, 36,
)  # fmt: skip
ROWS_V2 = (
    40000000, 39060, 17295, 7424, 20265, 3, 7122, 1543, 63, 40000000, 3067956, 405282, 10, 2209, 11938, 155, 4, 976, 14,
    40000000, 40000000, 40000000, 590152, 12973, 108, 36,
)  # fmt: skip
HOT_V2 = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
WIDTH = 128


def _mlp(net: Builder, x: str, widths: tuple[int, ...], name: str, last: str = "relu") -> str:
    for index, width in enumerate(widths):
        fused = last if index == len(widths) - 1 else "relu"
        x = net.linear(x, width, fused=fused, name=f"{name}{index}")
    return x


def dlrm(net: Builder, N: int) -> str:
    """13 dense features, 26 tables of width 128, pairwise dot products, top network."""
    dense = _mlp(net, net.input("dense", (N, 13)), (512, 256, WIDTH), "bottom")
    ids = [net.input(f"ids{i}", (N, 1), "int32") for i in range(26)]
    rows = [
        net.op("embedding", x, rows=r, width=WIDTH, name=f"table{i}")
        for i, (x, r) in enumerate(zip(ids, ROWS_V1, strict=True))
    ]
    every = net.concat(net.reshape(dense, (N, 1, WIDTH)), *rows, axis=1)
    products = net.op("matmul", every, every, bt=True, name="interaction")
    pairs = net.op("gather", products, out=(N, 27 * 26 // 2), axis=1, name="lower_triangle")
    return _mlp(net, net.concat(dense, pairs), (1024, 1024, 512, 256, 1), "top", "sigmoid")


def dlrm_v2(net: Builder, N: int) -> str:
    """Multi-hot look-ups and three low-rank cross layers (rank 512) instead of the dot products."""
    dense = _mlp(net, net.input("dense", (N, 13)), (512, 256, WIDTH), "bottom")
    rows = []
    for i, (r, hot) in enumerate(zip(ROWS_V2, HOT_V2, strict=True)):
        ids = net.input(f"ids{i}", (N, hot), "int32")
        rows.append(net.op("embedding", ids, rows=r, width=WIDTH, bag=True, name=f"table{i}"))
    first = net.concat(dense, *rows)
    x = first
    for index in range(3):
        net.prefix = f"cross{index}."
        y = net.linear(net.linear(x, 512, bias=False, name="v"), 27 * WIDTH, name="w")
        x = net.add(net.op("mul", first, y), x)
    net.prefix = ""
    return _mlp(net, x, (1024, 1024, 512, 256, 1), "top", "sigmoid")


def gnmt(net: Builder, N: int, S: int, T: int) -> str:
    """Four encoder layers (the first bidirectional), four decoder layers, additive attention; T steps, no beam."""
    vocabulary, h = 36548, 1024

    def lstm(x: str, name: str, *, bi: bool = False) -> str:
        return net.op("lstm", x, h=h, bias=True, bi=bi, name=name)

    x = net.op("embedding", net.input("source", (N, S), "int32"), rows=vocabulary, width=h, name="source_embedding")
    x = lstm(lstm(x, "encoder0", bi=True), "encoder1")
    for index in (2, 3):
        x = net.add(lstm(x, f"encoder{index}"), x)
    memory = x
    keys = net.linear(memory, h, bias=False, name="memory_layer")
    y = net.op("embedding", net.input("target", (N, T), "int32"), rows=vocabulary, width=h, name="target_embedding")
    y = lstm(net.concat(y, net.input("context", (N, T, h)), axis=2), "decoder0")
    query = net.linear(y, h, bias=False, name="query_layer")
    both = net.add(net.reshape(query, (N, T, 1, h)), net.reshape(keys, (N, 1, S, h)), fused="tanh", name="energy")
    scores = net.reshape(net.linear(both, 1, bias=False, name="attention_v"), (N, T, S))
    context = net.op("matmul", net.op("softmax", scores, axis=2), memory, name="context")
    for index in (1, 2, 3):
        z = lstm(net.concat(y, context, axis=2), f"decoder{index}")
        y = net.add(z, y) if index > 1 else z
    return net.linear(y, vocabulary, bias=False, name="projection")


def rnnt(net: Builder, N: int, S: int, U: int) -> str:
    """S audio frames (even), U emitted symbols; the joint network runs once per frame pair and once per symbol."""

    def lstm(x: str, h: int, name: str) -> str:
        return net.op("lstm", x, h=h, bias=True, bias2=True, name=name)

    x = net.input("features", (N, S, 240))
    for index in range(2):
        x = lstm(x, 1024, f"pre{index}")
    x = net.reshape(x, (N, S // 2, 2048), "stack_time")
    for index in range(3):
        x = lstm(x, 1024, f"post{index}")
    y = net.op("embedding", net.input("symbols", (N, U), "int32"), rows=28, width=320, name="embedding")
    for index in range(2):
        y = lstm(y, 320, f"prediction{index}")
    steps = S // 2 + U
    frames = net.op("gather", x, out=(N, steps, 1024), axis=1, name="frame_of_step")
    symbols = net.op("gather", y, out=(N, steps, 320), axis=1, name="symbol_of_step")
    z = net.linear(net.concat(frames, symbols, axis=2), 512, fused="relu", name="joint")
    return net.linear(z, 29, name="labels")


MLPERF = "as in MLPerf inference's reference (Apache-2.0)"

NETWORKS = {
    "dlrm": Entry(
        dlrm, "recommendation (Criteo Terabyte)",
        source=f"Naumov et al. 2019 (arXiv:1906.00091) {MLPERF}, v0.7 to v3.0: tables capped at 40 M rows",
        licence="facts from the paper and the published configuration",
    ),
    "dlrm_v2": Entry(
        dlrm_v2, "recommendation (Criteo Terabyte, multi-hot)",
        source=f"Naumov et al. 2019 with DCN v2 (arXiv:2008.13535) {MLPERF}, v3.1 on",
        licence="facts from the paper and the published configuration",
    ),
    "gnmt": Entry(
        gnmt, "translation (WMT16 English to German)",
        source=f"Wu et al. 2016 (arXiv:1609.08144) with 4 + 4 layers of 1024 {MLPERF}, v0.5; vocabulary 36548; "
        "the previous step's context is an input; no beam (the reference's has 10: multiply T)",
        licence="facts from the paper and the published configuration",
        defaults={"N": 1, "S": 30, "T": 30}, second={"N": 2, "S": 24, "T": 20},
    ),
    "rnnt": Entry(
        rnnt, "speech recognition (LibriSpeech)",
        source=f"Graves 2012 (arXiv:1211.3711) {MLPERF}, v0.7 to v3.0; the greedy loop's S/2 + U "
        "joint steps are written as one product, on a machine each is its own",
        licence="facts from the paper and the published configuration",
        defaults={"N": 1, "S": 500, "U": 120}, second={"N": 2, "S": 400, "U": 90},
    ),
}  # fmt: skip
