"""The traces exported from PyTorch: MACs and parameters equal published figures, to the digits published."""

from __future__ import annotations

import csv
import functools
import math
from decimal import Decimal
from pathlib import Path

import pytest
from zoo_figures import figure, rounding

from hwsim.network.graph import Network
from hwsim.network.load import load_network

STUDY = Path(__file__).resolve().parents[2] / "studies" / "model_zoo"
with (STUDY / "published_torch.csv").open(encoding="utf-8") as file:
    PUBLISHED = list(csv.DictReader(file))
NAMES = sorted({row["network"] for row in PUBLISHED})


@functools.lru_cache(maxsize=2)
def trace(name: str) -> Network:
    return load_network(name).bind()


def fvcore_macs(net: Network) -> int:
    """What timm's tables call GMACs: fvcore's count, which adds norms, global pooling and interpolation to products.

    Per output element 2 for a batch-norm at inference, 5 for layer and group norms, 1 per input element of an adaptive
    pooling, 4 for bilinear and 1 for nearest interpolation (fvcore nn/jit_handles.py).
    """
    total = net.macs
    for la in net.layers:
        count = math.prod(int(d) for d in la.shape)
        source = math.prod(int(d) for d in net.tensors[la.src[0]].shape) if la.src else 0
        total += 2 * count * (la.fused.count("bn") + (la.op == "batch_norm"))
        total += 5 * count * (la.op in ("layer_norm", "group_norm"))
        total += source * (la.op == "adaptive_avg_pool")
        total += count * {"bilinear": 4, "nearest": 1}.get(str(la.attrs.get("mode")), 0) * (la.op == "resize")
    return total


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda r: f"{r['network']}-{r['quantity']}")
def test_published_figure(row: dict[str, str]) -> None:
    net = trace(row["network"])
    if row["quantity"] == "fvcore_macs":
        ours = Decimal(fvcore_macs(net))
    else:
        ours = figure(net, row["quantity"], row["operators"])
    ours = (ours + int(row["outside"])) * int(row["factor"])
    assert abs(ours - Decimal(row["value"])) <= rounding(row["value"]), row["source"]


# Networks of plain encoder or decoder layers: width, layers, ids of the vocabulary projection.
PLAIN = {
    "bert_base": (768, 12, 0), "bert_large": (1024, 24, 0), "distilbert": (768, 6, 0), "roberta_base": (768, 12, 0),
    "gpt2": (768, 12, 50257), "gpt2_medium": (1024, 24, 50257), "gpt2_large": (1280, 36, 50257),
    "gpt2_xl": (1600, 48, 50257),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("n", "s"), [(1, 128), (3, 7)])
def test_transformer_macs_follow_from_the_hyper_parameters(name: str, n: int, s: int) -> None:
    """Four square projections, two of four times the width, scores and their sum over keys; then what is outside."""
    width, layers, vocabulary = PLAIN[name]
    ours = load_network(name).bind(N=n, S=s)
    expected = n * layers * (12 * s * width**2 + 2 * s * s * width) + n * s * width * vocabulary
    heads = {"bert_base": n * width**2, "roberta_base": n * width**2, "bert_large": n * s * width * 2}
    assert ours.macs == expected + heads.get(name, 0)
    causal = [bool(la.attrs.get("causal")) for la in ours.layers if la.op == "attention"]
    assert causal == [name.startswith("gpt2")] * layers


WHISPER = {"tiny": (384, 4), "base": (512, 6), "small": (768, 12), "medium": (1024, 24), "large": (1280, 32)}
# Parameters of the published checkpoints (openai/whisper-*), the vocabulary projection tied to the embedding.
WHISPER_PARAMS = {
    "tiny": 37_760_640, "base": 72_593_920, "small": 241_734_912, "medium": 763_857_920, "large": 1_543_304_960,
}  # fmt: skip


@pytest.mark.parametrize("size", WHISPER)
def test_whisper_macs_follow_from_the_hyper_parameters(size: str) -> None:
    width, layers = WHISPER[size]
    n, s, frames = 2, 9, 1500
    encoder, decoder = load_network(f"whisper_{size}_encoder").bind(N=n), load_network(f"whisper_{size}_decoder")
    stem = 3 * 80 * width * 2 * frames + 3 * width**2 * frames
    assert encoder.macs == n * (stem + layers * (12 * frames * width**2 + 2 * frames**2 * width))
    own = 12 * s * width**2 + 2 * s * s * width
    cross = 2 * s * width**2 + 2 * frames * width**2 + 2 * s * frames * width
    assert decoder.bind(N=n, S=s).macs == n * (layers * (own + cross) + s * width * 51865)
    assert encoder.params + decoder.params == WHISPER_PARAMS[size]
    self_attention = [la for la in decoder.layers if la.op == "attention" and la.attrs.get("causal")]
    assert len(self_attention) == layers


def test_every_figure_has_a_source() -> None:
    assert all(row["source"] for row in PUBLISHED)
    assert len(NAMES) > 100
