"""The energy reading: by hand on small schedules, conserved, linear, and never outside its interval."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.energy import Energy, exceeds, level_map, load_actions, load_sram, power_w, read_energy, static_power
from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.machine import Accelerator, load_accelerator, vary
from hwsim.schedule.table import AXIS, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

BF16, INT8, FP32 = (list(FORMATS).index(name) for name in ("bf16", "int8", "fp32"))
MACHINES = (
    "tpu-v1", "tpu-v3", "tpu-v4", "tpu-v5e", "scalesim-32x32-ws", "scalesim-16x16-os", "eyeriss-like", "a100-sxm4-80gb",
    "v100-pcie", "l4", "jetson-agx-orin-64gb", "jetson-nano", "coral-usb", "raspberry-pi-4",
)  # fmt: skip


def load(nbytes: int, trips: int = 1, **more: Any) -> dict[str, Any]:
    """A row that brings ``nbytes`` of B from DRAM to the chip ``trips`` times."""
    return {
        "stage": 0, "unit": UNIT["dma"], "op": OPERATION["copy"], "axis": (AXIS["n"],), "trips": (trips,), "depth": 1,
        "bytes": (0, nbytes), "refetch": (0, 1), "source": (0, LEVEL["dram"]), "target": (0, LEVEL["shared"]), **more,
    }  # fmt: skip


def multiply(ops: int, issued: int, **more: Any) -> dict[str, Any]:
    """A row of one product without operand traffic."""
    return {"unit": UNIT["matrix"], "op": OPERATION["mac"], "ops": ops, "issued": issued, "format": BF16, **more}


def one_kernel(*rows: dict[str, Any]) -> Schedule:
    builder = ScheduleBuilder()
    for row in rows:
        builder.row(**row)
    builder.end_kernel("k")
    return builder.build()


def read(acc: Accelerator, *rows: dict[str, Any], cycles: float = 0.0, **more: Any) -> Energy:
    return read_energy(one_kernel(*rows), [cycles], acc, clock_hz=1e9, **more)


def test_dram_bytes_by_hand() -> None:
    acc = load_accelerator("tpu-v4")
    result = read(acc, load(1000, trips=7))
    assert result.by_component["hbm"] == pytest.approx(7000 * 8 * 3.9e-12)
    vmem = load_sram().write((16 << 20) / 8, 7).value  # 512 B words are eight banks of 512 bits
    assert result.by_component["vmem"] == pytest.approx(7000 * 8 * vmem)
    assert result.total_j == result.by_component["hbm"] + result.by_component["vmem"]
    at = result.memories.index("hbm")
    assert result.read_bytes[0, at] == 7000 and result.written_bytes[0, at] == 0
    low, high = result.low_j[0], result.high_j[0]
    hbm = result.components.index("hbm")
    assert low[hbm] == pytest.approx(7000 * 8 * 3.9e-12) and high[hbm] == pytest.approx(7000 * 8 * 7.03e-12)


def test_products_by_hand_useful_and_padded() -> None:
    acc = load_accelerator("tpu-v4")
    result = read(acc, multiply(600, 1000))
    each = 0.21e-12 + 0.38e-12
    assert result.by_component["matrix"] == pytest.approx(600 * each)
    assert result.by_component["padding"] == pytest.approx(400 * each)
    assert result.by_component["array"] == pytest.approx(1000 * (16 + 32) * 0.0028e-12)
    assert (result.macs[0], result.issued_macs[0]) == (600, 1000)
    # At the low end padding is gated.
    padding = result.components.index("padding")
    assert result.low_j[0, padding] == pytest.approx(400 * 0.03 * 0.084e-12)


def test_a_four_product_adder_saves_a_quarter_of_the_adder() -> None:
    acc = load_accelerator("tpu-v4")
    plain = read(acc, multiply(100, 100)).by_component["matrix"]
    grouped = read(acc, multiply(100, 100, reduce=(4, 0, FP32))).by_component["matrix"]
    assert plain - grouped == pytest.approx(100 * 0.25 * 0.38e-12)


def test_passes_of_a_format_the_array_lacks_are_products_of_its_own() -> None:
    acc = load_accelerator("tpu-v4")
    three = read(acc, multiply(300, 300, format=FP32)).by_component["matrix"]
    own = read(acc, multiply(300, 300, format=BF16)).by_component["matrix"]
    assert three == own > read(acc, multiply(300, 300, format=INT8)).by_component["matrix"]


def test_a_row_without_a_format_has_the_machines_first() -> None:
    acc = load_accelerator("tpu-v1")
    assert read(acc, multiply(9, 9, format=0)).total_j == read(acc, multiply(9, 9, format=INT8)).total_j


def test_partial_sums_are_read_back_after_the_first_k() -> None:
    acc = load_accelerator("tpu-v1")
    row = multiply(
        1, 1, axis=(AXIS["m"], AXIS["k"]), trips=(3, 5), bytes=(0, 0, 100), refetch=(0, 0, 2),
        source=(0, 0, LEVEL["array"]), target=(0, 0, LEVEL["accumulator"]), format=INT8,
    )  # fmt: skip
    at = load_accelerator("tpu-v1").memory
    result = read(acc, row)
    column = result.memories.index("accumulators")
    assert "accumulators" in at
    assert result.written_bytes[0, column] == 3 * 5 * 100
    assert result.read_bytes[0, column] == 3 * 4 * 100
    # A row that begins past the first k starts nothing; one that keeps its sum until k is done reads nothing.
    assert read(acc, {**row, "first": (0, 1)}).read_bytes[0, column] == 3 * 5 * 100
    assert read(acc, {**row, "first_of_k": 0}).read_bytes[0, column] == 3 * 5 * 100
    assert read(acc, {**row, "refetch": (0, 0, 1)}).read_bytes[0, column] == 0


def test_causal_partial_sums_are_read_back_after_each_rows_first_block() -> None:
    """Block row m of causal scores times values adds blocks k = 0 … m: m reads; the diagonal is a row of its own."""
    acc = load_accelerator("tpu-v1")
    common = {
        "axis": (AXIS["m"], AXIS["k"]), "bytes": (0, 0, 10), "refetch": (0, 0, 2), "format": INT8,
        "source": (0, 0, LEVEL["array"]), "target": (0, 0, LEVEL["accumulator"]),
    }  # fmt: skip
    below = multiply(1, 1, trips=(4, 0), bend=(1, 0, 1, 0), **common)
    diagonal = multiply(1, 1, trips=(4, 1), bend=(1, 0, 0, 1), **common)
    result = read(acc, below, diagonal)
    column = result.memories.index("accumulators")
    assert result.written_bytes[0, column] == (1 + 2 + 3 + 4) * 10
    assert result.read_bytes[0, column] == (0 + 1 + 2 + 3) * 10


def test_stationary_tiles_are_handed_down_half_the_array() -> None:
    acc = load_accelerator("tpu-v1")
    shift = {
        "unit": UNIT["shift"], "op": OPERATION["copy"], "bytes": (0, 65536), "source": (0, LEVEL["fifo"]),
        "target": (0, LEVEL["array"]),
    }  # fmt: skip
    hop = load_actions().at("hop", "", 28).value
    assert read(acc, shift).by_component["array"] == pytest.approx(65536 * 8 * 128.5 * hop)


def test_static_energy_is_idle_power_times_time() -> None:
    result = read(load_accelerator("tpu-v1"), load(0), cycles=2e9)
    assert result.by_component["static"] == pytest.approx(56.0) and result.power_w == pytest.approx(28.0)
    core = read(load_accelerator("tpu-v3"), load(0), cycles=1e9)  # two cores, each a program's
    assert core.total_j == pytest.approx(61.5)
    assert read(load_accelerator("tpu-v3"), load(0), cycles=1e9, cores=2).total_j == pytest.approx(123.0)
    scaled = read(load_accelerator("tpu-v1"), load(0), cycles=1e9, static_scale=0.5, chips=4)
    assert scaled.total_j == pytest.approx(56.0)


def test_unknown_idle_power_is_estimated_and_says_so() -> None:
    unpublished = load_accelerator("tpu-v7")
    assert unpublished.power.idle_w is None
    found = static_power(unpublished)
    assert found.power_w.low < found.power_w.value < found.power_w.high and "assumed" in found.note
    assert any("assumed" in note for note in read(unpublished, load(1), cycles=1).notes)
    guessed = static_power(load_accelerator("tpu-v4i"))  # its file marks the idle power as assumed
    assert guessed.power_w.value == pytest.approx(55) and guessed.power_w.low < 55 < guessed.power_w.high


def test_power_above_the_design_power_is_noted() -> None:
    acc = load_accelerator("tpu-v4")
    hot = read(acc, multiply(10**12, 10**12), cycles=1e6)
    assert exceeds(hot.power_w, acc.power.tdp_w) and any("design power" in note for note in hot.notes)
    cool = read(acc, multiply(10**3, 10**3), cycles=1e6)
    assert not any("design power" in note for note in cool.notes)
    assert power_w(3.0, 0.0) == 0.0 and power_w(3.0, 1.5) == 2.0 and not exceeds(5.0, None)


def test_links_and_hosts() -> None:
    acc = load_accelerator("tpu-v4")
    host = {"unit": UNIT["link"], "op": OPERATION["copy"], "bytes": (500,), "target": (LEVEL["shared"],)}
    arriving = read(acc, {**host, "source": (LEVEL["host"],)})
    assert arriving.by_component["link"] == pytest.approx(500 * 8 * 6e-12)
    assert arriving.by_component["interconnect"] == 0
    between = read(acc, {**host, "source": (LEVEL["shared"],)})
    assert between.by_component["interconnect"] == pytest.approx(500 * 8 * 8e-12)
    assert between.by_component["link"] == 0


def test_levels_are_the_machines_own_memories() -> None:
    one = level_map(load_accelerator("tpu-v1"))
    assert one["dram", "b"].memory == "ddr" and one["shared", "a"].memory == "unified_buffer"
    assert one["fifo", "b"].memory == "weight_fifo" and one["accumulator", "c"].memory == "accumulators"
    four = level_map(load_accelerator("tpu-v4"))
    assert four["shared", "a"].memory == "vmem" and four["accumulator", "c"].component == "array"
    both = level_map(load_accelerator("tpu-v4"), local_used=True)
    assert (both["shared", "a"].memory, both["local", "a"].memory) == ("cmem", "vmem")
    scale = level_map(load_accelerator("scalesim-32x32-ws"))
    assert [scale["shared", o].memory for o in "abc"] == ["ifmap_sram", "filter_sram", "ofmap_sram"]
    assert scale["accumulator", "c"].memory == "ofmap_sram"


def test_vector_work_counts_lane_operations_and_registers() -> None:
    acc = load_accelerator("tpu-v4")
    row = {"unit": UNIT["vector"], "op": OPERATION["alu"], "ops": 100, "issued": 250}
    result = read(acc, row)
    assert result.by_component["vector"] == pytest.approx(250 * 0.845e-12)
    bits = 2 * load_sram().read(1024, 7).value + load_sram().write(1024, 7).value
    assert result.by_component["registers"] == pytest.approx(250 * 32 * bits)
    special = read(acc, {**row, "op": OPERATION["special"], "issued": 0})
    assert special.lane_ops[0] == 400


@pytest.mark.parametrize("cycles", [[1.0, 2.0], [-1.0], [math.nan], 5.0])
def test_wrong_cycles_are_refused(cycles: Any) -> None:
    with pytest.raises(HwsimError, match="1 kernels"):
        read_energy(one_kernel(load(1)), cycles, load_accelerator("tpu-v4"), clock_hz=1e9)


LOADED = {name: load_accelerator(name) for name in (*MACHINES, "jetson-agx-xavier")}


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Any rows the columns allow: the reading must not depend on what a lowering happens to write."""
    builder = ScheduleBuilder()
    count = draw(st.integers(1, 3))
    for _ in range(count):
        for _ in range(draw(st.integers(1, 4))):
            operand = st.lists(st.integers(0, len(LEVEL) - 1), min_size=4, max_size=4)
            ops = draw(st.integers(0, 10**6))
            builder.row(
                unit=draw(st.integers(0, len(UNIT) - 1)), op=draw(st.integers(0, len(OPERATION) - 1)),
                format=draw(st.integers(0, len(FORMATS) - 1)), ops=ops, issued=ops + draw(st.integers(0, 10**6)),
                trips=tuple(draw(st.lists(st.integers(1, 50), min_size=1, max_size=4))),
                axis=tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))),
                first=tuple(draw(st.lists(st.integers(0, 1), min_size=1, max_size=4))),
                bytes=tuple(draw(st.lists(st.integers(0, 10**7), min_size=4, max_size=4))),
                refetch=tuple(draw(st.lists(st.integers(0, 4), min_size=4, max_size=4))),
                source=tuple(draw(operand)), target=tuple(draw(operand)),
                reduce=(draw(st.sampled_from((1, 4, 8))), 0, draw(st.integers(0, len(FORMATS) - 1))),
            )  # fmt: skip
        builder.end_kernel()
    return builder.build()


@given(schedules(), st.sampled_from(MACHINES), st.lists(st.floats(0, 1e9), min_size=3, max_size=3))
@settings(max_examples=150)
def test_components_add_up_to_the_last_digit_and_intervals_contain_the_value(
    schedule: Schedule, machine: str, cycles: list[float]
) -> None:
    result = read_energy(schedule, cycles[: schedule.kernels], LOADED[machine], clock_hz=1e9)
    assert sum(result.by_component.values()) == result.total_j
    assert sum(result.kernel_j.tolist()) == result.total_j
    assert sum(v.sum() for v in result.per_kernel.values()) == result.total_j
    assert math.fsum(result.joules.ravel().tolist()) == result.total_j
    assert np.all(result.joules >= 0)
    assert np.all(result.low_j <= result.joules) and np.all(result.joules <= result.high_j)
    low, high = result.interval_j
    assert low <= result.total_j <= high
    assert np.all(result.issued_macs >= result.macs)


@given(schedules(), st.sampled_from(MACHINES), st.integers(2, 9))
@settings(max_examples=50)
def test_energy_is_linear_in_operations_and_bytes(schedule: Schedule, machine: str, factor: int) -> None:
    acc = LOADED[machine]
    cycles = np.full(schedule.kernels, 1000.0)
    columns = dict(schedule.columns)
    for name in ("bytes", "ops", "issued"):
        columns[name] = columns[name] * factor
    more = Schedule(columns, schedule.starts, schedule.producers, schedule.names)
    once = read_energy(schedule, cycles, acc, clock_hz=1e9)
    times = read_energy(more, cycles, acc, clock_hz=1e9)
    chips = read_energy(schedule, cycles, acc, clock_hz=1e9, chips=factor)
    quantum = 1e-14 * times.interval_j[1]  # entries are rounded to a part in 2^50 of the largest total
    for name, value in times.by_component.items():
        expected = once.by_component[name] * (1 if name == "static" else factor)
        assert value == pytest.approx(expected, rel=1e-9, abs=quantum)
    assert chips.total_j == pytest.approx(factor * once.total_j, rel=1e-9, abs=quantum)


@given(schedules(), st.sampled_from(("tpu-v1", "tpu-v4", "scalesim-16x16-os", "a100-sxm4-80gb", "jetson-agx-xavier")))
@settings(max_examples=25)
def test_a_finer_node_never_costs_more(schedule: Schedule, machine: str) -> None:
    cycles = np.zeros(schedule.kernels)
    totals = [
        read_energy(schedule, cycles, vary(LOADED[machine], {"power.node": node}), clock_hz=1e9).total_j
        for node in ("5 nm", "7 nm", "16 nm", "28 nm", "45 nm", "65 nm")
    ]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(totals))


@st.composite
def small_products(draw: st.DrawFn) -> Schedule:
    """One row of products with a few iterations, causal loops included."""
    loops = draw(st.integers(2, 4))
    trips = [draw(st.integers(1, 4)) for _ in range(loops)]
    first = [draw(st.integers(0, 1)) for _ in range(loops)]
    bend = (-1, -1, 0, 0)
    shallow = 0
    if draw(st.booleans()):
        outer = draw(st.integers(0, loops - 2))
        bend = (draw(st.integers(outer + 1, loops - 1)), outer, draw(st.integers(0, 2)), draw(st.integers(0, 1)))
        if draw(st.booleans()):
            # An operand of an outer loop is moved for its empty iterations too, which a walk does not see.
            trips[bend[0]], shallow = (0, bend[0] + 1) if bend[2] else (1, 0)
    axes = [AXIS[draw(st.sampled_from(("k", "m", "k", "n", "split")))] for _ in range(loops)]
    return one_kernel(
        multiply(
            7, 9, axis=tuple(axes), trips=tuple(trips), first=tuple(first), bend=bend, bytes=(3, 5, 11, 13),
            refetch=tuple(draw(st.integers(shallow, loops)) for _ in range(4)), source=(1, 1, LEVEL["array"], 1),
            target=(2, 2, LEVEL["accumulator"], 2), format=INT8, first_of_k=draw(st.sampled_from((1, 1, 1, 0))),
        )
    )  # fmt: skip


@given(small_products())
@settings(max_examples=200)
def test_traffic_equals_a_walk_over_every_instance(schedule: Schedule) -> None:
    """The slow twin: step through all instances; an operand moves when an index outside its refetch loop changes."""
    moved = [set[tuple[int, ...]]() for _ in range(4)]
    count = 0
    for instance in schedule.expand(0):
        count += 1
        for operand, seen in enumerate(moved):
            seen.add(instance.index[: schedule.refetch[0, operand]])
    depth = int(schedule.refetch[0, 2])
    k_loops = [v for v in range(depth) if schedule.axis[0, v] == AXIS["k"]]
    again = [i for i in moved[2] if not schedule.first_of_k[0] or any(i[v] for v in k_loops)]
    result = read_energy(schedule, [0.0], LOADED["tpu-v1"], clock_hz=1e9)
    traffic = {m: (result.read_bytes[0, i], result.written_bytes[0, i]) for i, m in enumerate(result.memories)}
    a, b, c, meta = (len(seen) * size for seen, size in zip(moved, (3, 5, 11, 13), strict=True))
    if count:  # an operand outside all loops of a row without instances is moved nonetheless
        assert traffic["ddr"] == (a + b + meta, 0)
        assert traffic["unified_buffer"] == (0, a + b + meta)
        assert traffic["accumulators"] == (len(again) * 11, c)
    assert result.macs[0] == 7 * count and result.issued_macs[0] == 9 * count


def test_power_at_a_part_of_the_load_is_between_waiting_and_work() -> None:
    energy = hwsim.simulate("tpu1_cnn0", "tpu-v1", batch=8).energy
    assert energy.power_at_load(0) == energy.static.power_w.value and energy.power_at_load(1) == energy.power_w
    assert energy.static_share == pytest.approx(28 / energy.power_w, rel=1e-9)
    assert energy.power_at_load(0.5) == pytest.approx((28 + energy.power_w) / 2)
    with pytest.raises(HwsimError, match="no part of the time"):
        energy.power_at_load(1.5)
