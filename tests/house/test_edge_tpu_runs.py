"""The Edge TPU from the outside: targets, hosts, links, modes, batches, two chips, first runs, refusals, values, figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hwsim
from hwsim.bands import band_of
from hwsim.errors import HwsimError
from hwsim.execution.verification import verify
from hwsim.machine import load_accelerator
from hwsim.network.builder import Builder
from hwsim.simulation.edge_tpu import host_alone_s, host_of, with_host
from hwsim.simulation.edge_tpu_size import break_even
from hwsim.validate import validate

FILES = Path(__file__).parent.parent / "data" / "tflite"
SMALL = FILES / "coral_mobilenet_v1_0.25_128_quant.tflite"
CHIPS = ("coral-usb", "coral-pcie@desktop-xeon", "coral-m2@raspberry-pi-5", "coral-dev-board", "coral-dev-board-mini")


def latency(target: str, net: object = SMALL, **options: object) -> float:
    return hwsim.simulate(net, target, **options).latency_s  # type: ignore[arg-type]


@pytest.mark.parametrize("target", CHIPS)
def test_every_board_answers(target: str) -> None:
    result = hwsim.simulate("mobilenet_v2", target, precision="uint8")
    assert 1.5e-3 < result.latency_s < 12e-3
    low, high = result.energy.interval_j
    assert low < result.energy_j < high and 0.3 < result.power_w < 2.5
    assert sum(r["latency_s"] for r in result.kernels) == pytest.approx(result.latency_s)
    assert sum(result.time_shares.values()) == pytest.approx(1.0)
    assert result.error_band is not None and result.bound_s <= result.latency_s


def test_better_hosts_links_and_clocks_are_never_slower() -> None:
    for net, options in ((SMALL, {}), ("inception_v3", {"precision": "uint8"})):
        usb3 = latency("coral-usb:max@raspberry-pi-4/usb3", net, **options)
        assert usb3 < latency("coral-usb:std@raspberry-pi-4/usb3", net, **options)
        assert usb3 < latency("coral-usb:max@raspberry-pi-4/usb2", net, **options)
        assert usb3 > latency("coral-usb:max@desktop-xeon/usb3", net, **options)


def test_output_is_the_hosts_work() -> None:
    net = Builder("pad", dtype="uint8")
    padded = net.op("pad", net.input("x", (1, 3, 2, 2)), p=(0, 0, 127, 127, 0, 0, 127, 127))
    built = net.build(padded)
    ten, five = (latency(f"coral-usb:max@jetson-nano-cpu:{w}/usb3", built) for w in ("10w", "5w"))
    assert ten == pytest.approx(8.77e-3, rel=0.1) and five == pytest.approx(15.96e-3, rel=0.1)
    for watts, fixed in (("10w", 293e-6), ("5w", 424e-6)):
        tiny = Builder("tiny", dtype="uint8")
        same = tiny.build(tiny.op("pad", tiny.input("x", (1, 3, 2, 2)), p=(0,) * 8))
        assert latency(f"coral-usb:max@jetson-nano-cpu:{watts}/usb3", same) == pytest.approx(fixed, rel=0.05)


def test_two_chips_pipeline_and_keep_twice_the_parameters() -> None:
    one, two = (
        hwsim.simulate("inception_v3", t, precision="uint8")
        for t in ("coral-pcie@desktop-xeon", "coral-dual@desktop-xeon")
    )
    streamed = [r.compiled.streamed_bytes for r in (one, two)]  # type: ignore[attr-defined]
    assert streamed[1] < streamed[0]
    assert two.throughput_per_s > one.throughput_per_s and two.throughput_per_s > 1 / two.latency_s
    text = two.compiler_log
    assert "segment 0 of 2" in text and "segment 1 of 2" in text


def test_batches_and_first_runs() -> None:
    one, four = (
        hwsim.simulate(SMALL, "coral-usb"),
        hwsim.simulate("mobilenet_v2", "coral-usb", precision="uint8", batch=4),
    )
    single = latency("coral-usb", "mobilenet_v2", precision="uint8")
    assert four.latency_s == pytest.approx(4 * single, rel=1e-6)
    cold = hwsim.simulate(SMALL, "coral-usb", cache="cold")
    assert cold.latency_s > one.latency_s and cold.kernels[0]["name"] == "load parameters"
    again = hwsim.simulate(SMALL, "coral-usb", plan=one.plan)
    assert again.latency_s == one.latency_s


def test_what_is_refused() -> None:
    with pytest.raises(HwsimError, match="quantise it"):
        latency("coral-usb", "mobilenet_v2")
    with pytest.raises(HwsimError, match="unknown stack"):
        latency("coral-usb", stack="xla")
    with pytest.raises(HwsimError, match="2:4"):
        latency("coral-usb", sparsity="2:4!")
    with pytest.raises(HwsimError, match="usb2"):
        latency("coral-usb@raspberry-pi-4/usb4")
    with pytest.raises(HwsimError, match="cannot be the host"):
        latency("coral-usb@tpu-v3")


def test_what_stays_on_the_host_costs_what_it_costs_there() -> None:
    file = FILES / "coral_deeplabv3_mnv2_pascal_quant.tflite"
    result = hwsim.simulate(file, "coral-usb@raspberry-pi-4")
    host = sum(r["latency_s"] for r in result.kernels if r["place"] == "host")
    assert 0.5 < host / result.latency_s < 1 and result.bound_by == "host work"
    acc = load_accelerator("coral-usb@raspberry-pi-4")
    assert host < host_alone_s(result.network, host_of(acc), None)
    assert with_host(acc, "desktop-xeon").target == "coral-usb:max@desktop-xeon"


def test_the_size_from_which_the_chip_is_faster() -> None:
    found = break_even("coral-usb@raspberry-pi-4")
    assert found is not None and found.chip_s < found.host_s
    strong = break_even("coral-usb@desktop-xeon")
    assert strong is not None and strong.macs > found.macs and strong.parameters > found.parameters


def test_values_are_labelled() -> None:
    found = verify(FILES / "tflm_micro_speech_quantized.tflite", "coral-usb")
    assert "own rounding is not public" in " ".join(found.notes) and found.arithmetic == "tflite-reference"
    with pytest.raises(HwsimError, match="quantised"):
        verify("mobilenet_v1_0.25_128", "coral-usb")


def test_the_command_line_prints_log_and_latency() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwsim", "run", str(SMALL), "--on", "coral-usb", "--host", "raspberry-pi-4"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "On-chip memory used for caching model parameters: 564.75KiB" in done.stdout
    assert "Latency" in done.stdout and "Number of Edge TPU subgraphs: 1" in done.stdout


def test_the_rows_that_ship_stay_within_their_band() -> None:
    found = validate("edge-tpu")
    score = found.score()
    assert score.rows == 44 and not score.refused
    assert score.median_pct < 12 and score.within_30_pct >= 90
    band = band_of("edge-tpu", 50)
    assert band is not None and band.rows == 175
