"""The hand-built traces: regenerated equal, and their MACs and parameters equal to published figures."""

from __future__ import annotations

import csv
import functools
import math
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from zoo_figures import batch_norm_channels, figure, rounding

import hwsim
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.network.load import load_network, zoo
from hwsim.network.trace import format_trace

STUDY = Path(__file__).resolve().parents[2] / "studies" / "model_zoo"
sys.path.insert(0, str(STUDY))

import build_all  # noqa: E402
import build_llm  # noqa: E402
import build_retina  # noqa: E402
import write_readme  # noqa: E402
from build_common import MODELS, make, make_divisible  # noqa: E402

ENTRIES = dict(build_all.entries())
GIANTS = {name for name, m in build_llm.MODELS.items() if m.layers > 40}
with (STUDY / "published_built.csv").open(encoding="utf-8") as file:
    PUBLISHED = list(csv.DictReader(file))


@functools.lru_cache(maxsize=2)
def trace(name: str) -> Network:
    return load_network(name)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in GIANTS else ()) for n in ENTRIES])
def test_committed_trace_is_what_the_builder_makes(name: str) -> None:
    built = format_trace(make(name, ENTRIES[name]))
    committed = (MODELS / f"{name}.layers.csv").read_text(encoding="utf-8")
    assert committed == built, "run python studies/model_zoo/build_all.py"


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda r: f"{r['network']}-{r['quantity']}-{r['value']}")
def test_published_figure(row: dict[str, str]) -> None:
    sizes = {key: int(value) for key, _, value in (word.partition("=") for word in row["sizes"].split())}
    net = trace(row["network"]).bind(**sizes)
    ours = (figure(net, row["quantity"], row["operators"]) + int(row["outside"])) * int(row["factor"])
    assert abs(ours - Decimal(row["value"])) <= rounding(row["value"]), row["source"]


def test_published_figures_name_built_networks() -> None:
    assert {row["network"] for row in PUBLISHED} <= set(ENTRIES)
    assert all(row["source"] for row in PUBLISHED)


def test_retinanet_is_torchvisions_but_for_the_classes() -> None:
    """torchvision's retinanet_resnet50_fpn: 91 classes, frozen batch-norms not counted, 151.54 GMAC at 800x800."""
    net = Builder("retinanet")
    outputs = build_retina.retinanet(net, 1, size=(800, 800), depth=50, classes=91)
    built = net.build(*outputs)
    assert built.params - 2 * batch_norm_channels(built) == 34_014_999
    assert round(built.macs / 1e9, 2) == 151.54


SIZES = ((3, 1, 700), (1, 128, 0), (2, 5, 9))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [(name, sizes) for name in sorted(build_llm.MODELS) for sizes in (SIZES[:1] if name in GIANTS else SIZES)],
)
def test_decoder_counts(name: str, sizes: tuple[int, int, int]) -> None:
    """MACs and cache from the hyper-parameters alone, for decode, prefill and a chunk after a past."""
    n, s, p = sizes
    m, net = build_llm.MODELS[name], trace(name).bind(N=n, S=s, P=p)
    q, kv, tokens = m.heads * m.depth, m.kv_heads * m.depth, n * s
    rows = tokens * (m.chosen if m.experts else 1)
    matrices = 3 if m.style == "llama" else 2
    layer = tokens * (2 * m.width * (q + kv) + m.width * m.experts) + rows * matrices * m.width * m.feed
    scores = n * s * (s + p) * q * 2
    assert net.macs == m.layers * (layer + scores) + n * m.width * m.vocabulary
    assert net.kv_cache_bytes == 2 * m.layers * n * (s + p) * kv * 2
    assert net.params == trace(name).params


def test_tpu_v1_layer_counts() -> None:
    """Table 1: FC, convolution and pooling layers; an LSTM layer may be written as several matrices."""

    def count(name: str) -> dict[str, int]:
        ops = [la.op for la in trace(f"tpu1_{name}").layers]
        return {op: ops.count(op) for op in set(ops)}

    assert count("mlp0") == {"linear": 5}
    assert count("mlp1") == {"linear": 4}
    assert count("cnn0") == {"conv": 16}
    cnn1 = count("cnn1")
    assert cnn1.get("conv", 0) + cnn1.get("linear", 0) == 72 + 4
    assert sum(n for op, n in cnn1.items() if op.endswith("_pool")) == 13


@pytest.mark.parametrize(
    ("name", "unused", "slack"),
    [("mlp0", 0.3 / 12.8, 0.006), ("mlp1", 1.2 / 10.6, 0.006), ("lstm0", 0.0, 0.006), ("lstm1", 4.2 / 10.5, 0.015),
     ("cnn0", 0.0, 0.011)],
)  # fmt: skip
def test_tpu_v1_unused_macs(name: str, unused: float, slack: float) -> None:
    """Table 3: share of MACs without a useful weight while the array is active (rounded counters).

    Kernel positions of a convolution share array tiles only when they are narrower than the array.
    """
    net = trace(f"tpu1_{name}").bind()
    issued = 0
    for product in (p for ps in net.products.values() for p in ps):
        taps = math.prod(product.conv.kernel) if product.conv else 1
        taps = taps if product.k // taps >= 256 else 1
        issued += product.m * taps * -(-product.k // taps // 256) * -(-product.n // 256) * 65536
    assert abs(1 - net.macs / issued - unused) <= slack


@pytest.mark.parametrize(("pixels", "gmacs"), [(320, 3.5753), (640, 14.3013), (1280, 57.2052)])
def test_detectors_take_any_multiple_of_32(pixels: int, gmacs: float) -> None:
    net = load_network("yolov8s").bind(H=pixels, W=pixels)
    net.validate()
    assert net.macs / 1e9 == pytest.approx(gmacs, abs=5e-5)


def test_make_divisible() -> None:
    """MobileNetV2's widths: 32 at 0.35 is 16 (11 would lose more than a tenth), 24 at 0.75 is 24."""
    assert [make_divisible(v) for v in (32 * 0.35, 24 * 0.75, 16 * 1.4, 3)] == [16, 24, 24, 8]


def test_measured_names_lead_to_traces() -> None:
    """Every name of the measured tables has a trace that binds at the stated sizes, or a reason why not."""
    with (Path(hwsim.__file__).parent / "validate" / "measured_names.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert len({(row["table"], row["name"]) for row in rows}) == len(rows) > 400
    known = zoo()
    for row in rows:
        assert row["trace"] or row["note"].startswith("no "), row["name"]
        assert not row["trace"] or row["trace"] in known, row["name"]
    bound = {(row["trace"], row["sizes"]) for row in rows if row["sizes"] and row["trace"] not in GIANTS}
    for name, sizes in sorted(bound):
        words = (word.partition("=") for word in sizes.split())
        trace(name).bind(**{key: int(value) for key, _, value in words}).validate()


def test_readme_lists_the_traces() -> None:
    committed = (MODELS / "README.md").read_text(encoding="utf-8").splitlines()
    wanted = [
        line for line in write_readme.table().splitlines() if line.split(" ")[1:2] and line.split(" ")[1] in ENTRIES
    ]
    assert len(wanted) == len(ENTRIES)
    assert set(wanted) <= set(committed), "run python studies/model_zoo/write_readme.py"
    listed = {line.split(" ")[1] for line in committed if line.startswith("| ")} - {"network"}
    assert listed <= set(zoo())
