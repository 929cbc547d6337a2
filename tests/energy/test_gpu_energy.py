"""Energy of GPUs from schedules: counted by hand, and what a power limit does to a whole network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.energy import read_energy
from hwsim.energy.counting import count
from hwsim.energy.meter import meter
from hwsim.formats import FORMATS
from hwsim.machine import load_accelerator, vary
from hwsim.power.gpu import gpu_power_profile, register_bits_per_mac
from hwsim.schedule.table import AXIS, LEVEL, OPERATION, UNIT, Schedule, ScheduleBuilder

FP16, INT8, FP32 = (list(FORMATS).index(name) for name in ("fp16", "int8", "fp32"))
A100 = load_accelerator("a100-sxm4-80gb")
EXTRA = 1 + gpu_power_profile(A100).extra_instructions


def kernel(*rows: dict[str, Any]) -> Schedule:
    builder = ScheduleBuilder()
    for row in rows:
        builder.row(**row)
    builder.end_kernel("k")
    return builder.build()


def counts(acc: hwsim.Accelerator, *rows: dict[str, Any]) -> dict[str, float]:
    found = meter(acc, True)
    got = count(kernel(*rows), found).counts[0]
    return {a.name: float(n) for a, n in zip(found.profile.actions, got, strict=True) if n}


def tile(**more: Any) -> dict[str, Any]:
    """One k-step of a 128 x 128 x 32 tile of fp16, by warps of 64 x 32, 10 steps."""
    return {
        "unit": UNIT["matrix"], "op": OPERATION["mac"], "format": FP16, "axis": (AXIS["k"],), "trips": (10,),
        "extent": (128, 128, 32), "padded": (128, 128, 32), "span": (64, 32, 8, 1), "ops": 128 * 128 * 32,
        "issued": 128 * 128 * 32, "bytes": (128 * 32 * 2, 128 * 32 * 2), "refetch": (1, 1),
        "source": (LEVEL["local"], LEVEL["local"], 0, LEVEL["local"]),
        "target": (LEVEL["register"], LEVEL["register"], 0, LEVEL["register"]), **more,
    }  # fmt: skip


def test_a_tiles_operands_are_read_once_per_warp() -> None:
    got = counts(A100, tile())
    assert got["mac fp16"] == 10 * 128 * 128 * 32 and "padding fp16" not in got
    # A by four columns of warps, B by two rows.
    assert got["read shared_memory"] == 10 * (4 + 2) * 128 * 32 * 2
    assert got["instruction"] == pytest.approx(EXTRA * 10 * 128 * 128 * 32 / 64)


def test_padding_is_counted_apart() -> None:
    got = counts(A100, tile(ops=100 * 128 * 32))
    assert got["padding fp16"] == 10 * 28 * 128 * 32 and got["mac fp16"] == 10 * 100 * 128 * 32


def test_sparse_operands_halve_products_and_instructions() -> None:
    dense = counts(A100, tile())
    sparse = counts(A100, tile(bytes=(128 * 32 * 2, 128 * 32, 0, 128 * 32 // 8), refetch=(1, 1, 1, 1)))
    assert sparse["mac fp16"] == dense["mac fp16"] / 2
    assert sparse["instruction"] == pytest.approx(dense["instruction"] / 2)
    # As many products of twice the k: the dense operand moves once more for them, so 2:4 saves less than half.
    assert sparse["select fp16"] == sparse["mac fp16"] and "select fp16" not in dense
    cost = {name: gpu_power_profile(A100).energy_j[i, 0] for name, i in gpu_power_profile(A100).index.items()}
    assert 1.05 * cost["mac fp16"] < cost["mac fp16"] + cost["select fp16"] < 1.3 * cost["mac fp16"]
    # A is read as before, B half of it and two bits of each kept element's place.
    assert sparse["read shared_memory"] == 10 * (4 * 128 * 32 * 2 + 2 * 128 * 32 + 128 * 32 // 8)


def test_narrow_formats_need_fewer_instructions_and_cheaper_cells() -> None:
    wide, narrow = counts(A100, tile()), counts(A100, tile(format=INT8))
    assert narrow["instruction"] == pytest.approx(wide["instruction"] / 2) and "mac int8" in narrow
    profile = gpu_power_profile(A100)
    # Half the bits to move, and a multiplier that needs less than half.
    assert profile.energy_j[profile.index["mac int8"], 0] < 0.5 * profile.energy_j[profile.index["mac fp16"], 0]


def test_cuda_cores_do_what_tensor_cores_lack() -> None:
    on_vector = counts(A100, tile(unit=UNIT["vector"], format=FP32))
    assert on_vector["simt fp32"] == 10 * 128 * 128 * 32 and on_vector["instruction"] == pytest.approx(
        EXTRA * on_vector["simt fp32"]
    )
    nano = counts(load_accelerator("jetson-nano"), tile())  # no Tensor Cores: two fp16 products an instruction
    assert nano["simt fp16"] == 10 * 128 * 128 * 32 and nano["instruction"] == pytest.approx(
        EXTRA * nano["simt fp16"] / 2
    )


def test_a_dla_works_on_its_own_cells() -> None:
    orin = load_accelerator("jetson-agx-orin-64gb")
    got = counts(orin, tile(unit=UNIT["dla"], format=INT8, source=(LEVEL["dram"],), target=(LEVEL["local"],)))
    assert got["dla int8"] == 10 * 128 * 128 * 32 and "instruction" not in got


def test_levels_and_accesses() -> None:
    copy = {"unit": UNIT["dma"], "op": OPERATION["copy"]}
    got = counts(
        A100,
        {**copy, "bytes": (1600,), "source": (LEVEL["dram"],), "target": (LEVEL["shared"],)},
        {**copy, "bytes": (3200,), "source": (LEVEL["shared"],), "target": (LEVEL["local"],)},
        {**copy, "bytes": (0, 0, 160), "source": (0, 0, LEVEL["register"]), "target": (0, 0, LEVEL["shared"])},
    )
    assert (got["read dram"], got["write l2"], got["read l2"], got["write shared_memory"]) == (1600, 1760, 3200, 3200)
    assert got["instruction"] == pytest.approx(EXTRA * (3200 + 160) / 16)


def test_joules_follow_voltage_and_clock() -> None:
    schedule = kernel(tile())
    full = read_energy(schedule, [1e6], A100, clock_hz=1.41e9, core_clock_hz=1.41e9)
    slow = read_energy(schedule, [1e6], A100, clock_hz=1.41e9, core_clock_hz=0.7e9)
    curve = gpu_power_profile(A100).curve
    assert curve is not None
    ratio = float(curve.dynamic(0.7e9) / curve.dynamic(1.41e9))
    assert slow.by_component["matrix"] == pytest.approx(ratio * full.by_component["matrix"]) and ratio < 0.75
    assert slow.by_component["static"] < full.by_component["static"]
    zeros = read_energy(schedule, [1e6], A100, clock_hz=1.41e9, toggle=0.7)
    assert zeros.by_component["matrix"] == pytest.approx(0.7 * full.by_component["matrix"])


@pytest.mark.parametrize("watts", [150, 200, 300, 400])
def test_a_networks_power_stays_at_the_limit(watts: int) -> None:
    acc = vary(A100, {"power.tdp": f"{watts} W"})
    result = hwsim.simulate("bert_large", acc, batch=64, precision="fp16")
    assert result.power_w <= watts * 1.011
    limited = [note for note in result.notes if "design power" in note and "random data" in note]
    assert bool(limited) == (result.totals.clock_hz < 1.41e9)
    if limited:
        assert result.power_w >= watts * 0.97


def test_a_lower_limit_is_never_faster() -> None:
    rates = []
    for watts in (120, 160, 220, 300, 400):
        acc = vary(A100, {"power.tdp": f"{watts} W"})
        rates.append(hwsim.simulate("resnet50", acc, batch=128, precision="int8").throughput_per_s)
    assert all(a <= b * 1.005 for a, b in itertools.pairwise(rates)) and rates[0] < 0.9 * rates[-1]


def test_a_jetsons_power_mode_is_no_limit_and_its_energy_has_its_parts() -> None:
    orin = load_accelerator("jetson-agx-orin-64gb")
    result = hwsim.simulate("resnet50", orin, batch=64, precision="int8")
    assert not any("design power" in note and "falls" in note for note in result.notes)
    assert result.totals.clock_hz == 1300.5e6
    for name in ("matrix", "instructions", "shared_memory", "l2", "dram", "static"):
        assert result.energy.by_component[name] > 0
    low = hwsim.simulate("resnet50", "jetson-agx-orin-64gb:15w", batch=64, precision="int8")
    assert low.power_w < 0.5 * result.power_w and low.throughput_per_s < 0.5 * result.throughput_per_s
    # Low modes are the more efficient ones: voltage.
    assert low.energy.dynamic_j < result.energy.dynamic_j


def test_formats_change_the_right_terms() -> None:
    runs = {
        p: hwsim.simulate("resnet50", A100, batch=32, precision=p).energy.by_component for p in ("fp32", "fp16", "int8")
    }
    assert runs["int8"]["matrix"] < runs["fp16"]["matrix"]
    assert runs["int8"]["dram"] < runs["fp16"]["dram"] < runs["fp32"]["dram"]
    assert runs["fp32"]["matrix"] == 0 and runs["fp32"]["vector"] > 5 * runs["fp16"]["vector"]  # IEEE fp32: CUDA cores
    assert runs["fp32"]["instructions"] > 5 * runs["fp16"]["instructions"]


def test_counts_do_not_depend_on_how_kernels_are_grouped() -> None:
    found = meter(A100, True)
    one = count(kernel(tile(), tile(format=INT8)), found).counts.sum(axis=0)
    builder = ScheduleBuilder()
    for row in (tile(), tile(format=INT8)):
        builder.row(**row)
        builder.end_kernel("k")
    assert np.allclose(count(builder.build(), found).counts.sum(axis=0), one)


def test_deeper_and_larger_instructions_move_fewer_bits() -> None:
    volta = register_bits_per_mac("hmma", "fp16", 4)
    turing, ampere = (register_bits_per_mac("mma", "fp16", depth) for depth in (8, 16))
    hopper, blackwell = register_bits_per_mac("wgmma", "fp16", 16), register_bits_per_mac("tcgen05", "fp16", 16)
    assert volta > turing > ampere > hopper > blackwell
    # m16n8k16: 16 x 16 A and 16 x 8 B elements of 16 bits, 16 x 8 sums read and written, for 2048 products.
    assert ampere == (16 * 16 * 16 + 16 * 8 * 16 + 2 * 16 * 8 * 32) / 2048
    assert register_bits_per_mac("mma", "int8", 16) == ampere / 2


@pytest.mark.parametrize(
    ("machine", "precision"), [("a100-sxm4-80gb", "fp16"), ("tpu-v4", None), ("jetson-orin-nano", "int8")]
)
def test_traffic_beside_its_minimum(machine: str, precision: str | None) -> None:
    result = hwsim.simulate("resnet50", machine, batch=8, precision=precision)
    rows = {row["memory"]: row for row in result.traffic}
    off_chip = next(level.name for level in result.accelerator.memory.values() if level.is_dram)
    dram = rows[off_chip]
    assert dram["read_bytes"] + dram["written_bytes"] == pytest.approx(result.dram_bytes, rel=0.01)
    # Results may stay in a cache and never be written: only where there is one can traffic be below the minimum.
    assert dram["ratio"] > (0.5 if machine != "tpu-v4" else 1.0)
    assert all(
        row["network_bytes"] <= row["compulsory_bytes"] * 1.01 for row in rows.values() if row["memory"] != off_chip
    )
    if machine != "tpu-v4":
        assert rows["l2"]["ratio"] > 1 and rows["shared_memory"]["read_bytes"] > rows["l2"]["read_bytes"]


def test_a_recurrences_steps_read_their_own_part_of_what_all_steps_read() -> None:
    """RNN-T, 512 streams: off-chip traffic is a few times its activations, not once per step all of them."""
    result = hwsim.simulate("rnnt", "jetson-agx-orin-64gb", batch=512, shapes={"S": 248, "U": 60}, precision="fp16")
    gates = 512 * 248 * 4096 * 2
    assert result.dram_bytes < 60 * gates
