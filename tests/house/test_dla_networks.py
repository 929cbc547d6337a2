"""Networks on the DLAs of Jetson boards, and what NVIDIA measured of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import hwsim
from hwsim.errors import HwsimError

ORIN = "jetson-agx-orin-64gb"


def run(network: str, target: str = ORIN, **options: object) -> hwsim.Result:
    return hwsim.simulate(network, target, precision="int8", **options)  # type: ignore[arg-type]


def test_a_whole_network_on_a_dla_is_slower_than_the_gpu_and_gains_nothing_from_batches() -> None:
    gpu, one, eight = run("resnet50"), run("resnet50", stack="dla"), run("resnet50", stack="dla", batch=8)
    assert one.latency_s > 1.5 * gpu.latency_s
    assert {row["engine"] for row in one.kernels} == {"DLA"}
    assert "in 1 subgraph" in one.notes[0]
    assert eight.throughput_per_s == pytest.approx(one.throughput_per_s, rel=1e-3)
    assert one.macs == gpu.macs and sum(row["macs"] for row in one.kernels) == pytest.approx(one.macs, rel=1e-3)
    assert "DLA" in one.time_shares and one.bound_s < one.latency_s


def test_shares_and_parts_add_up() -> None:
    result = run("ssd_mobilenet_v1", stack="dla", batch=2)
    assert sum(result.time_shares.values()) == pytest.approx(1.0)
    assert sum(row["latency_s"] for row in result.kernels) == pytest.approx(result.latency_s)
    assert {row["engine"] for row in result.kernels} == {"DLA", "GPU"}
    assert any("nms is no layer of dla-2" in note for note in result.notes)


def test_hand_overs_ruin_a_network_of_many_unsupported_layers_and_auto_avoids_them() -> None:
    gpu, dla, auto = (run("mobilenet_v3_large", stack=s) for s in ("compiled", "dla", "dla-auto"))
    assert dla.latency_s > 5 * gpu.latency_s and dla.bound_by == "dispatch"
    assert auto.latency_s <= gpu.latency_s * 1.01


def test_all_engines_give_more_than_the_gpu_and_less_than_their_sum() -> None:
    gpu, dla, both = (run("resnet50", batch=96, stack=s) for s in ("compiled", "dla", "gpu+dla"))
    total = gpu.throughput_per_s + 2 * dla.throughput_per_s
    assert 1.2 * gpu.throughput_per_s < both.throughput_per_s <= total * 1.01
    assert both.kernels[-1]["engine"] == "DLA" and both.energy_j > 0
    assert both.kernels[-1]["latency_s"] < 0.1 * both.latency_s, "the engines end together"
    nx = run("resnet50", "jetson-orin-nx-8gb", batch=32, stack="gpu+dla")
    assert "1 DLA x" in nx.kernels[-1]["name"]


@pytest.mark.parametrize(("network", "batch", "measured"), [("resnet50", 128, 6438), ("ssd_resnet34", 24, 208)])
def test_mlperf_offline_of_agx_orin(network: str, batch: int, measured: float) -> None:
    """The best round's samples/s of GPU and two DLAs (MLPerf inference v2.0 to v3.0), not used in any fit of the DLA."""
    assert run(network, batch=batch, stack="gpu+dla").throughput_per_s == pytest.approx(measured, rel=0.15)


def test_what_nvidia_measured_of_its_dlas() -> None:
    """40 rows; six were fitted on. Errors as docs/dla.md states them."""
    # By path: other studies have a fit.py too.
    path = Path(__file__).resolve().parents[2] / "studies" / "dla" / "fit.py"
    spec = importlib.util.spec_from_file_location("dla_fit", path)
    assert spec is not None and spec.loader is not None
    fit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fit)
    found = {name: np.abs(e).mean() for name, e in fit.score({}).items()}
    assert found["fitted"] < 0.05 and found["held out"] < 0.075 and found["sparse"] < 0.14 and found["cudla"] < 0.05


def test_a_lower_mode_is_slower_and_sparse_weights_faster() -> None:
    times = [run("ssd_resnet34", f"{ORIN}:{m}", stack="dla").latency_s for m in ("maxn", "50w", "30w", "15w")]
    assert times == sorted(times) and times[0] < times[1]
    dense, sparse = (run("ssd_resnet34", stack="dla", sparsity=s).latency_s for s in (None, "2:4"))
    assert 1.2 < dense / sparse < 2.0


@pytest.mark.parametrize(
    ("network", "target", "options", "words"),
    [
        ("resnet50", "t4", {"stack": "dla"}, "t4 has no DLA"),
        ("resnet50", "jetson-orin-nano", {"stack": "gpu+dla"}, "jetson-orin-nano has no DLA"),
        ("vit_b_16", ORIN, {"stack": "dla-only"}, "stride 16"),
        ("resnet50", f"{ORIN}*2", {"stack": "dla"}, "runs on one board"),
        ("resnet50", ORIN, {"stack": "dlaa"}, "did you mean dla"),
    ],
)
def test_bad_questions_are_refused(network: str, target: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(HwsimError, match=words):
        run(network, target, **options)


def test_a_precision_no_dla_has_says_so() -> None:
    with pytest.raises(HwsimError, match="a DLA multiplies int8 and fp16"):
        hwsim.simulate("resnet50", ORIN, stack="dla")
