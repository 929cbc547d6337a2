"""The pipeline engine against its event-by-event twin, against itself without jumps, and against hand counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_strategies import random_schedule, schedules, seeded

import hwsim
import hwsim.simulation.systolic as simulation_module
import hwsim.timing.run as run_module
from hwsim.errors import HwsimError
from hwsim.schedule.table import CAUSE, CAUSES, ENGINE_CAUSES, UNIT, UNITS, Schedule, ScheduleBuilder
from hwsim.timing import pipeline
from hwsim.timing.compiled import compiled_engine
from hwsim.timing.reference.pipeline_simpy import program, simulate
from hwsim.timing.run import Timing, run

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
FIGURES = ("begin", "end", "busy", "waits", "unit_busy")


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def no_jumps() -> Any:
    return replaced(pipeline, "_shift", lambda *_: -1)


def plain_entry(self: Any, nest: Any, ready: int, now: int) -> tuple[int, Any]:
    """What a kernel finds in absolute time, nothing replaced: no two entries are alike, so nothing is run once."""
    rings = tuple(self.released.get(slots, ())[: nest.buffers[s]] for s, slots in nest.slots)
    floor = tuple((0, ready, now)[a] for a in nest.awaits)
    return 0, run_module._Entry(now, floor, tuple(self.free[u] for u, _ in nest.queues), rings)


def assert_same(one: Timing, other: Timing) -> None:
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def assert_equals_twin(schedule: Schedule, service: list[int], timing: Timing) -> None:
    twin = simulate(schedule, service)
    assert timing.begin.tolist() == twin.begin
    assert timing.end.tolist() == twin.end
    assert timing.unit_busy.tolist() == twin.unit_busy


def assert_tiles(timing: Timing) -> None:
    np.testing.assert_array_equal(timing.busy + timing.waits.sum(axis=1), timing.end - timing.begin)
    np.testing.assert_array_equal(timing.begin[1:], timing.end[:-1])
    assert (timing.waits >= 0).all() and (timing.busy >= 0).all()


@QUICK
@given(schedules())
def test_equals_the_event_by_event_twin(drawn: tuple[Schedule, list[int]]) -> None:
    timing = run(*drawn)
    assert_equals_twin(*drawn, timing)
    assert_tiles(timing)


@QUICK
@given(st.integers(0, 2**32), st.sampled_from(["deep", "flat", "long"]))
def test_jumps_change_nothing(seed: int, shape: str) -> None:
    sizes: dict[str, dict[str, int]] = {
        "deep": {"trips": 14, "loops": 4, "stages": 7, "kernels": 4, "issues": 600},
        "flat": {"trips": 300, "loops": 1, "stages": 8, "kernels": 2, "issues": 300},
        "long": {"trips": 100, "loops": 3, "stages": 5, "kernels": 2, "issues": 1000},
    }
    schedule, service = random_schedule(seeded(seed), **sizes[shape])
    timing = run(schedule, service)
    with no_jumps():
        assert_same(timing, run(schedule, service))
    assert_tiles(timing)


SMALL: list[dict[str, int]] = [
    {"trips": 24, "loops": 1, "stages": 6, "kernels": 2, "issues": 60},
    {"trips": 12, "loops": 2, "stages": 6, "kernels": 3, "issues": 150},
]


def assert_jumps_change_nothing(seeds: range) -> None:
    for seed in seeds:
        schedule, service = random_schedule(seeded(seed), **SMALL[seed % 2])
        timing = run(schedule, service)
        with no_jumps():
            assert_same(timing, run(schedule, service))


def test_jumps_change_nothing_in_many_small_nests() -> None:
    # Leaving out a check of what may be jumped over shows in one nest of some hundreds or thousands.
    assert_jumps_change_nothing(range(700))


@QUICK
@given(st.integers(0, 2**32))
def test_relative_times_and_repeated_kernels_change_nothing(seed: int) -> None:
    schedule, service = random_schedule(seeded(seed), kernels=8, trips=8)
    timing = run(schedule, service)
    with replaced(run_module._Queues, "entry", plain_entry):
        assert_same(timing, run(schedule, service))


def test_compiled_equals_interpreted() -> None:
    engine = compiled_engine()
    for seed in range(60):
        drawn = random_schedule(seeded(seed), trips=30, loops=4, stages=8)
        assert_same(run(*drawn), run(*drawn, engine))


@pytest.mark.slow
def test_long_hunt() -> None:
    for seed in range(1500):
        drawn = random_schedule(seeded(seed), trips=9, loops=4, stages=8, kernels=6)
        timing = run(*drawn)
        assert_equals_twin(*drawn, timing)
        assert_tiles(timing)
    assert_jumps_change_nothing(range(700, 6000))
    for seed in range(300):
        schedule, service = random_schedule(seeded(seed), trips=200, loops=2, stages=8, kernels=3, issues=2000)
        timing = run(schedule, service)
        with no_jumps():
            assert_same(timing, run(schedule, service))


def schedule_of(network: str, machine: str, **options: Any) -> tuple[Schedule, list[int]]:
    """The schedule and service times behind an answer."""
    seen: list[tuple[Schedule, list[int]]] = []

    def spy(schedule: Schedule, service: list[int]) -> Timing:
        seen.append((schedule, list(service)))
        return run(schedule, service)

    with replaced(simulation_module, "run", spy):
        hwsim.simulate(hwsim.load_network(network), hwsim.load_accelerator(machine), **options)
    return seen[0]


def assert_real_schedule_is_exact(*case: Any, **options: Any) -> None:
    schedule, service = schedule_of(*case, **options)
    timing = run(schedule, service)
    assert_equals_twin(schedule, service, timing)
    assert_tiles(timing)
    with no_jumps():
        assert_same(timing, run(schedule, service))
    assert_same(timing, run(schedule, service, compiled_engine()))


def test_a_real_network_equals_the_twin() -> None:
    assert_real_schedule_is_exact("resnet50", "tpu-v1", precision="int8", batch=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "machine", "options"),
    [
        ("resnet50", "tpu-v3", {"batch": 128}),
        ("resnet50", "scalesim-32x32-ws", {"precision": "int8"}),
        ("vgg16", "tpu-v1", {"precision": "int8", "batch": 64}),
        ("llama3_8b", "tpu-v4", {}),
        ("alexnet", "eyeriss-like", {"precision": "int8"}),
    ],
)
def test_real_networks_equal_the_twin(network: str, machine: str, options: dict[str, Any]) -> None:
    assert_real_schedule_is_exact(network, machine, **options)


def kernel(*stages: dict[str, Any]) -> Schedule:
    """A schedule of one kernel, one row per stage."""
    table = ScheduleBuilder()
    for s, stage in enumerate(stages):
        table.row(**{"stage": s, **stage})
    table.end_kernel()
    return table.build()


def load_and_multiply(trips: int, buffers: int) -> Schedule:
    return kernel(
        {"unit": UNIT["dma"], "depth": 1, "trips": [trips], "buffers": buffers, "cause": CAUSE["weight_fetch"]},
        {"unit": UNIT["matrix"], "depth": 1, "trips": [trips], "buffers": 0, "dep": [0], "cause": CAUSE["matrix"]},
    )


@pytest.mark.parametrize("trips", [1, 2, 3, 7, 10**12])
@pytest.mark.parametrize(("load", "multiply"), [(3, 10), (10, 3), (5, 5), (0, 4), (4, 0)])
def test_double_buffering_hides_the_shorter_of_two(trips: int, load: int, multiply: int) -> None:
    timing = run(load_and_multiply(trips, 2), [load, multiply])
    assert timing.cycles == load + (trips - 1) * max(load, multiply) + multiply
    assert timing.waits_by_name(0).get("weight_fetch", 0) == timing.cycles - trips * multiply


@pytest.mark.parametrize("trips", [1, 2, 3, 7, 10**12])
def test_a_single_buffer_hides_nothing(trips: int) -> None:
    assert run(load_and_multiply(trips, 1), [3, 10]).cycles == 13 * trips


@pytest.mark.parametrize("buffers", [2, 3, 4])
def test_a_slow_period_is_found_or_stepped_exactly(buffers: int) -> None:
    # Four stages of 10 cycles share ``buffers`` slots: a circuit of 40 cycles for that many iterations, so the
    # pattern repeats only every ``buffers`` iterations.
    deps = [[-1], [0], [1], [2, 0]]
    shared = {"depth": 1, "trips": [12 * 8 + 1]}
    schedule = kernel(*({**shared, "unit": s, "buffers": 0 if s else buffers, "dep": deps[s]} for s in range(4)))
    timing = run(schedule, [10] * 4)
    assert timing.cycles == 40 * 12 * 8 // buffers + 40
    assert_equals_twin(schedule, [10] * 4, timing)


def test_loops_multiply_without_costing_time() -> None:
    trips = [10**4, 10**4, 10**4, 10**4]
    schedule = kernel(
        {"unit": UNIT["dma"], "depth": 3, "trips": trips, "cause": CAUSE["weight_fetch"]},
        {"unit": UNIT["dma"], "depth": 4, "trips": trips, "cause": CAUSE["activation_fetch"]},
        {"unit": UNIT["matrix"], "depth": 4, "trips": trips, "buffers": 0, "dep": [0, 1, 3], "lag": [0, 0, 1]},
        {"unit": UNIT["store"], "depth": 2, "trips": trips, "at_end": 1, "buffers": 0, "dep": [2]},
    )
    timing = run(schedule, [7, 2, 3, 50])
    assert_tiles(timing)
    assert timing.busy[0] == 3 * 10**16
    assert timing.unit_busy[0, UNIT["dma"]] == 7 * 10**12 + 2 * 10**16


def test_a_prefetch_runs_ahead_of_the_kernel_before() -> None:
    table = ScheduleBuilder()
    for _ in range(2):
        table.row(stage=0, unit=UNIT["dma"], buffers=2, cause=CAUSE["weight_fetch"])
        table.row(stage=1, unit=UNIT["matrix"], buffers=0, dep=[0], awaits=2, cause=CAUSE["matrix"])
        table.end_kernel()
    timing = run(table.build(), [30, 100, 30, 100])
    assert timing.end.tolist() == [130, 230]
    assert [timing.waits_by_name(k) for k in range(2)] == [{"weight_fetch": 30}, {}]


def test_branches_overlap_and_each_cycle_is_owned_once() -> None:
    table = ScheduleBuilder()
    for unit, producers in (("matrix", []), ("vector", [0]), ("matrix", [0])):
        table.row(stage=0, unit=UNIT[unit], buffers=0, awaits=1, cause=CAUSE["matrix"])
        table.end_kernel(producers=producers)
    timing = run(table.build(), [10, 50, 70])
    assert timing.end.tolist() == [10, 60, 80]
    assert timing.busy.tolist() == [10, 50, 20]
    assert timing.unit_busy.sum(axis=0)[UNIT["matrix"]] == 80
    assert_tiles(timing)


def test_a_wait_is_charged_to_the_stage_that_caused_it() -> None:
    # A tile takes 5 cycles to fetch, 3 to shift in and 1 to use: of the 4 idle cycles between two uses the last 3 are
    # the shift's, the one before the fetch's, and so are all of the first 5.
    schedule = kernel(
        {"unit": UNIT["dma"], "depth": 1, "trips": [50], "cause": CAUSE["weight_fetch"]},
        {"unit": UNIT["shift"], "depth": 1, "trips": [50], "dep": [0], "buffers": 1, "cause": CAUSE["weight_shift"]},
        {"unit": UNIT["matrix"], "depth": 1, "trips": [50], "dep": [1], "buffers": 0, "cause": CAUSE["matrix"]},
    )
    timing = run(schedule, [5, 3, 1])
    assert timing.cycles == 5 * 50 + 3 + 1
    assert timing.waits_by_name(0) == {"weight_fetch": 5 + 49 * 1, "weight_shift": 50 * 3}


def test_the_twin_walks_lazily() -> None:
    issues = program(load_and_multiply(10**12, 2))
    first = [next(issues) for _ in range(4)]
    assert [issue.name for issue in first] == [(0, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]
    assert first[1].after == {(0, 0, 0)}


def test_codes_fit_the_engine() -> None:
    assert len(UNITS) == pipeline.UNITS
    assert len(ENGINE_CAUSES) == pipeline.CAUSES
    assert CAUSES[: pipeline.CAUSES] == ENGINE_CAUSES and len(set(CAUSES)) == len(CAUSES)


BASE: dict[str, Any] = {"unit": UNIT["matrix"], "depth": 1, "trips": [8], "buffers": 0}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{**BASE, "stage": 0, "first": [1]}], "do not tile"),
        ([{**BASE, "stage": 0}, {**BASE, "stage": 0, "first": [7], "trips": [1]}], "do not tile"),
        ([{**BASE, "stage": 0, "trips": [2]}, {**BASE, "stage": 0, "first": [2], "trips": [6]}], "only the first"),
        ([{**BASE, "stage": 1}], "stage 0 has no rows"),
        ([{**BASE, "stage": 0, "dep": [0], "lag": [4]}], "4 issues back"),
        ([{**BASE, "stage": 0, "dep": [3]}], "stage 3"),
        ([{**BASE, "stage": 0, "buffers": 9}], "9 buffers"),
        ([{**BASE, "stage": 0, "depth": 7, "trips": [1] * 7}], "7 loops"),
        ([{**BASE, "stage": 0, "trips": [8, 1], "bend": [1, 0, 1, 0]}], "affine"),
        ([{**BASE, "stage": 0, "depth": 2, "trips": [8, 7], "bend": [1, 0, -1, 0]}], "no iteration"),
    ],
)
def test_what_the_engine_cannot_take_is_one_line(rows: list[dict[str, Any]], complaint: str) -> None:
    table = ScheduleBuilder()
    for row in rows:
        table.row(**row)
    table.end_kernel()
    with pytest.raises(HwsimError, match=complaint) as error:
        run(table.build(), [row.get("trips", [1])[0] if complaint == "only the first" else 1 for row in rows])
    assert "\n" not in str(error.value)
