"""Tiles, cells and copy engines of the Edge TPU: the closed form against the stepped twin, and what must always hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.link import host_link
from hwsim.machine import load_accelerator, load_constants
from hwsim.machine.edge_tpu import Tensor
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.schedule.edge_tpu import work_of
from hwsim.schedule.table import UNIT
from hwsim.simulation.edge_tpu import EdgeTpuResult, chunk_start_s, host_of
from hwsim.timing.edge_tpu import service_clks, tile_clks
from hwsim.timing.reference.edge_tpu_run import operator_clks, run_slowly
from hwsim.timing.reference.edge_tpu_tiles import step_channels, step_tiles

FILES = Path(__file__).parent.parent / "data" / "tflite"
TENSOR = load_accelerator("coral-usb").section("tensor", Tensor)
GRID = {"tiles_y": TENSOR.tiles_y, "tiles_x": TENSOR.tiles_x, "cells": TENSOR.cells, "cell_macs": TENSOR.cell_macs}


def run(net: object, target: str = "coral-usb", **options: object) -> EdgeTpuResult:
    result = hwsim.simulate(net, target, **options)  # type: ignore[arg-type]
    assert isinstance(result, EdgeTpuResult)
    return result


@given(
    st.integers(1, 19), st.integers(1, 19), st.integers(1, 200), st.integers(1, 9), st.integers(1, 40),
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([4, 16, 64]),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_tiles_of_a_convolution(y: int, x: int, z: int, taps: int, ci: int, down: int, across: int, cells: int) -> None:
    stepped = step_tiles(y, x, z, taps, ci, tiles_y=down, tiles_x=across, cells=cells, cell_macs=4)
    assert stepped.clks == tile_clks(y, x, -(-z // cells), taps * -(-ci // 4), down, across)
    assert sum(stepped.made) == y * x * z and sum(stepped.macs) == y * x * z * taps * ci
    deep = step_tiles(y, x, z, taps, 1, tiles_y=down, tiles_x=across, cells=cells, cell_macs=4, depthwise=True)
    assert deep.clks == tile_clks(y, x, -(-z // cells), taps * 4, down, across)
    assert sum(deep.macs) == y * x * z * taps


@given(st.integers(1, 3000), st.integers(1, 70))
@settings(max_examples=100, deadline=None)
def test_tiles_of_a_fully_connected(z: int, k: int) -> None:
    stepped = step_channels(z, k, tiles=16, cells=64, cell_macs=4)
    assert stepped.clks == -(-z // 1024) * -(-k // 4)
    assert sum(stepped.made) == z and sum(stepped.macs) == z * k


sizes = st.integers(1, 23)
channels = st.integers(1, 150)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    net = Builder("drawn")
    y, x = draw(sizes), draw(sizes)
    at = net.input("x", (1, draw(channels), y, x))
    for _ in range(draw(st.integers(1, 4))):
        what = draw(st.sampled_from(["conv", "depthwise", "add", "avg", "pointwise"]))
        if what == "conv":
            at = net.conv(at, draw(channels), 3, draw(st.integers(1, 2)), "same", bias=True, fused="relu")
        elif what == "pointwise":
            at = net.conv(at, draw(channels), 1, bias=True)
        elif what == "depthwise":
            at = net.depthwise(at, 3, draw(st.integers(1, 2)), "same", fused="relu6")
        elif what == "add":
            at = net.add(at, net.conv(at, net.shape(at)[1], 1, bias=True))
        else:
            at = net.pool(at, "avg", 2, 1, 1)
    if draw(st.booleans()):
        at = net.linear(net.flatten(net.global_pool(at)), draw(channels))
    return net.build(at)


def tile_rows(result: EdgeTpuResult) -> dict[int, int]:
    """Kernel: clocks of its work on the tiles, as the schedule's rows have them."""
    service = result_service(result)
    unit = result.schedule.unit
    out = {}
    for k in range(result.schedule.kernels):
        rows = range(int(result.schedule.starts[k]), int(result.schedule.starts[k + 1]))
        work = [int(service[r]) for r in rows if unit[r] in (UNIT["matrix"], UNIT["vector"])]
        if work:
            out[k] = sum(work)
    return out


def result_service(result: EdgeTpuResult) -> np.ndarray:
    acc = result.accelerator
    constants = load_constants("edge-tpu", acc.architecture)
    start = chunk_start_s(acc, host_of(acc), constants)
    return service_clks(result.schedule, acc.section("tensor", Tensor), host_link(acc.host), start, constants)


@given(networks())
@settings(max_examples=40, deadline=None)
def test_rows_of_any_network(net: Network) -> None:
    result = run(net, precision="int8")
    narrow = load_constants("edge-tpu")["narrow_bytes"]
    work = tile_rows(result)
    for k, step in enumerate(result.steps):
        if step.place == "chip":
            assert work[k] == operator_clks(result.compiled.operators[step.operator], TENSOR, narrow)
    # Every product of the network is in the schedule once, and no faster than all multipliers together.
    done = int(result.schedule.columns["ops"][result.schedule.unit == UNIT["matrix"]].sum())
    trips = result.schedule.columns["trips"]
    issues = np.where(trips > 0, trips, 1).prod(axis=1)
    matrix = result.schedule.unit == UNIT["matrix"]
    done = int((result.schedule.columns["ops"] * issues)[matrix].sum())
    mapped = sum(step.kernel.macs for step in result.steps if step.place == "chip")
    assert done == mapped <= result.macs
    assert result.latency_s >= mapped / (TENSOR.macs_per_clk * TENSOR.clock_hz)
    assert sum(result.time_shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "name",
    [
        "coral_mobilenet_v1_0.25_128_quant", "mlperf_tiny_ad01_int8", "mlperf_tiny_kws_ref_model",
        "mlperf_tiny_pretrainedResnet_quant", "mlperf_tiny_str_ww_ref_model", "tflm_micro_speech_quantized",
        "tflm_hello_world_int8", "coral_keras_lstm_mnist_ptq",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "target", ["coral-usb@desktop-xeon", "coral-usb:std@raspberry-pi-4/usb2", "coral-pcie@desktop-xeon"]
)
def test_a_whole_run_is_what_the_twin_plays(name: str, target: str) -> None:
    result = run(FILES / f"{name}.tflite", target)
    acc = result.accelerator
    constants = load_constants("edge-tpu", acc.architecture)
    twin = run_slowly(
        result.compiled.operators, result.steps, result.schedule, acc.section("tensor", Tensor), host_link(acc.host),
        chunk_start_s(acc, host_of(acc), constants), constants,
    )  # fmt: skip
    assert result.timing.begin.tolist() == twin.begin and result.timing.end.tolist() == twin.end


def test_parameters_that_do_not_fit_are_streamed_beside_the_work() -> None:
    result = run("inception_v3", "coral-usb", precision="uint8")
    rows = [r for r in result.kernels if r["streamed_bytes"]]
    assert rows and sum(r["streamed_bytes"] for r in rows) == result.compiled.streamed_bytes
    link = host_link(result.accelerator.host)
    least = result.compiled.streamed_bytes / link.to_chip_bytes_per_s
    alone = sum(r["latency_s"] for r in result.kernels if not r["streamed_bytes"])
    assert least < result.latency_s < least + alone + sum(r["latency_s"] for r in rows)
    assert result.time_shares["parameter streaming"] > 0.5


def test_work_of_what_is_split_over_channels() -> None:
    result = run("mobilenet_v1", precision="uint8")
    last = next(op for op in result.compiled.operators if op.code == "FULLY_CONNECTED")
    work = work_of(last, TENSOR, 8.0)
    assert work.split and work.place_clks == 256
