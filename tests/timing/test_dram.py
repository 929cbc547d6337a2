"""DRAM: timing tables, the channel model command by command, and the closed form against it."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.machine.dram_timing import dram_timing, load_dram_timings
from hwsim.timing.dram import dram_efficiency, dram_model
from hwsim.timing.reference.dram_banks import ChannelRun, Request, run_channel
from hwsim.timing.reference.dram_patterns import Pattern, locate, requests

TABLE = load_dram_timings()
HBM = TABLE["hbm2"]


def serve(*where: tuple[int, int, int], writes: bool = False) -> ChannelRun:
    return run_channel(HBM, [Request(group, bank, row, writes) for group, bank, row in where])


def test_every_technology_has_its_burst_and_peak() -> None:
    for kind, timing in TABLE.items():
        assert timing.burst_bytes in (32, 64), kind
        assert timing.ras >= timing.rcd and timing.faw >= timing.rrd_s and timing.rfc < timing.refi, kind
    assert HBM.burst_ns == 2.0 and HBM.peak_bytes_per_s == 16e9 and HBM.banks == 16


def test_a_machines_channels_give_its_bandwidth() -> None:
    for name in ("a100-sxm4-80gb", "l40", "jetson-orin-nano", "tpu-v1", "tpu-v4", "t4"):
        acc = load_accelerator(name)
        timing, channels = dram_timing(acc)
        assert channels * timing.peak_bytes_per_s == pytest.approx(acc.dram.bandwidth_bytes_per_s)
        assert 0.6 < timing.rate_gtps / TABLE[timing.kind].rate_gtps < 1.6


def test_one_read_by_hand() -> None:
    """Activate at 0, column after tRCD, data after tCL and a burst."""
    assert serve((0, 0, 0)).time_ns == pytest.approx(14 + 14 + 2)


def test_hits_follow_at_the_groups_spacing_and_other_groups_at_the_bursts() -> None:
    same = serve((0, 0, 0), (0, 0, 0))
    assert same.time_ns == pytest.approx(30 + 4) and same.activations == 1
    other = serve((0, 0, 0), (1, 0, 0))  # its row is opened tRRD later
    assert other.time_ns == pytest.approx(30 + 4) and other.activations == 2


def test_a_conflict_waits_for_the_row_cycle() -> None:
    both = serve((0, 0, 0), (0, 0, 1))
    # Activated at 0, precharged after tRAS, activated after tRP, column, data.
    assert both.time_ns == pytest.approx(34 + 14 + 14 + 14 + 2) and both.activations == 2


def test_four_activations_in_a_window() -> None:
    five = serve(*[(i % 4, i // 4, 0) for i in range(5)])
    assert five.time_ns == pytest.approx(HBM.faw + 14 + 14 + 2)


def test_turning_the_bus_costs_time() -> None:
    mixed = run_channel(HBM, [Request(0, 0, 0, i % 2 == 1) for i in range(8)])
    # Reads first (columns at 14 to 26), then all writes: a write's column waits for the last read's data to pass.
    assert mixed.turnarounds == 1
    assert mixed.time_ns == pytest.approx(26 + (14 + 2 + 2 - 4) + 3 * 4 + 4 + 2)


def test_refresh_takes_its_share() -> None:
    ddr = TABLE["ddr4"]
    stream = run_channel(ddr, requests(Pattern(), ddr, 1, 12000))
    assert stream.refreshes == int(stream.time_ns // ddr.refi)
    assert 1 - ddr.rfc / ddr.refi - 0.03 < stream.efficiency < 1 - ddr.rfc / ddr.refi + 0.01
    by_bank = run_channel(HBM, requests(Pattern(), HBM, 1, 4000))
    assert by_bank.refreshes > 20 and by_bank.efficiency > 0.97  # hidden behind other banks


@given(st.integers(0, 1 << 34), st.sampled_from(sorted(TABLE)), st.sampled_from((1, 3, 8, 80)))
def test_neighbouring_bursts_lie_in_one_row_and_addresses_are_distinct(address: int, kind: str, channels: int) -> None:
    timing = TABLE[kind]
    address -= address % 256
    places = [locate(address + i * timing.burst_bytes, timing, channels) for i in range(256 // timing.burst_bytes)]
    assert len({channel for channel, _ in places}) == 1
    assert len({(r.row, r.group, r.bank) for _, r in places}) == min(timing.bank_groups, len(places))
    for channel, r in places:
        assert 0 <= channel < channels and 0 <= r.group < timing.bank_groups and 0 <= r.bank < timing.banks_per_group


def draw(rng: random.Random) -> tuple[str, int, Pattern]:
    kind, channels = rng.choice(sorted(TABLE)), rng.choice([1, 2, 4, 8, 16, 32])
    streams, run = (
        rng.choice([1, 2, 4, 8, 16, 32, 64, 128, 256]),
        rng.choice([64, 128, 256, 512, 1024, 4096, 65536, 1 << 20]),
    )
    share = rng.choice([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0])
    if 0 < share < 1:
        streams = max(streams, 4)
    stride = run * rng.choice([1, 17, 64]) if run < 65536 else 0
    turn = min(run, rng.choice([64, 128, 256, 512, 1024, 4096]))
    return kind, channels, Pattern(streams, run, stride, turn, share, rng.choice(["round", "random"]))


def closed_form(kind: str, channels: int, pattern: Pattern) -> float:
    writers = round(pattern.write_share * pattern.streams) / pattern.streams
    found = dram_efficiency(
        TABLE[kind], channels, streams=pattern.streams, run_bytes=pattern.run_bytes, stride_bytes=pattern.stride_bytes,
        turn_bytes=pattern.turn_bytes, write_share=writers,
    )  # fmt: skip
    return float(found.share)


def differences(seed: int, cases: int, bursts: int) -> np.ndarray:
    rng = random.Random(seed)
    out = []
    for i in range(cases):
        kind, channels, pattern = draw(rng)
        twin = run_channel(TABLE[kind], requests(pattern, TABLE[kind], channels, bursts, seed=i))
        out.append(closed_form(kind, channels, pattern) / twin.efficiency - 1)
    return np.array(out)


def test_the_closed_form_is_near_the_channel_model() -> None:
    """Evidence *bounded*: quantiles of |closed form / twin - 1| over random patterns, all technologies."""
    error = np.abs(differences(11, 36, 900))
    assert np.median(error) < 0.10 and np.quantile(error, 0.9) < 0.35


@pytest.mark.slow
def test_the_closed_form_is_near_the_channel_model_over_many_patterns() -> None:
    error = differences(12, 300, 2500)
    assert abs(np.median(error)) < 0.03
    assert np.median(np.abs(error)) < 0.07 and np.quantile(np.abs(error), 0.9) < 0.30 and np.abs(error).max() < 1.0


@given(
    st.sampled_from(sorted(TABLE)), st.integers(1, 96), st.integers(1, 512), st.integers(64, 1 << 20), st.integers(64, 8192),
    st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=200)
def test_efficiency_is_a_share(kind: str, channels: int, streams: int, run: int, turn: int, share: float) -> None:
    found = dram_efficiency(
        TABLE[kind], channels, streams=streams, run_bytes=run, stride_bytes=64 * run, turn_bytes=turn, write_share=share
    )
    assert 0 < float(found.share) <= 1.0
    assert 0 <= float(found.refresh_loss) < 1 and 0 <= float(found.turnaround_loss) < 1
    assert float(found.bursts_per_row) >= 1


def test_arrays_equal_numbers() -> None:
    streams = np.array([1, 8, 64])
    many = dram_efficiency(HBM, 16, streams=streams, turn_bytes=256)
    one = [float(dram_efficiency(HBM, 16, streams=int(s), turn_bytes=256).share) for s in streams]
    assert many.share.tolist() == pytest.approx(one) and one[1] > one[2]


@pytest.mark.parametrize(
    ("machine", "measured"),
    [
        ("a100-sxm4-80gb", 0.849),
        ("a100-sxm4-40gb", 0.888),
        ("h100-pcie", 0.836),
        ("l40", 0.891),
        ("jetson-orin-nano", 0.825),
    ],
)
def test_copies_reach_about_what_boards_measure(machine: str, measured: float) -> None:
    """Scale kernels (one stream read, one written) of te42kyfo and RRZE-HPC gpu-benches, share of peak; within a tenth."""
    assert float(dram_model(load_accelerator(machine)).efficiency(0.5).share) == pytest.approx(measured, rel=0.10)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(HwsimError, match="at least 1"):
        dram_efficiency(HBM, 4, streams=0)
    with pytest.raises(HwsimError, match="between 0 and 1"):
        dram_efficiency(HBM, 4, write_share=1.5)
    with pytest.raises(HwsimError, match="not above 0"):
        HBM.at_rate(0)
    with pytest.raises(HwsimError, match="no timing"):
        dram_model(load_accelerator("scalesim-16x16-os"))
