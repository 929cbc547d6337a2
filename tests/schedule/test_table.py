"""The schedule table: counts against enumeration, tile origins, building and copying."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.schedule.table import AXES, AXIS, LOOPS, UNIT, Schedule, ScheduleBuilder


def build(*rows: dict[str, Any]) -> Schedule:
    table = ScheduleBuilder()
    for row in rows:
        table.row(**row)
    table.end_kernel()
    return table.build()


@st.composite
def boxes(draw: Any) -> dict[str, Any]:
    """A row: any loops, perhaps one that grows with an outer one."""
    loops = draw(st.integers(0, LOOPS))
    trips = [draw(st.integers(1, 3)) for _ in range(loops)]
    first = [draw(st.integers(0, 3)) for _ in range(loops)]
    row: dict[str, Any] = {
        "first": first, "trips": trips, "depth": draw(st.integers(0, LOOPS)),
        "axis": [draw(st.integers(1, len(AXES) - 1)) for _ in range(loops)],
        "stride": [draw(st.integers(0, 9)) for _ in range(loops)],
        "refetch": [draw(st.integers(0, LOOPS)) for _ in range(4)],
        "bytes": [draw(st.integers(0, 9)) for _ in range(4)],
    }  # fmt: skip
    if loops > 1 and draw(st.booleans()):
        loop = draw(st.integers(1, loops - 1))
        trips[loop] = draw(st.integers(0, 3))
        row["bend"] = (loop, draw(st.integers(0, loop - 1)), draw(st.integers(0, 2)), draw(st.integers(0, 2)))
    return row


@settings(max_examples=150, deadline=None)
@given(st.lists(boxes(), min_size=1, max_size=3))
def test_counts_are_those_of_the_enumeration(rows: list[dict[str, Any]]) -> None:
    schedule = build(*({**row, "stage": s} for s, row in enumerate(rows)))
    found: dict[int, list[tuple[int, ...]]] = {r: [] for r in range(len(rows))}
    for instance in schedule.expand(0):
        assert instance.kernel == 0 and instance.stage == instance.row
        found[instance.row].append(instance.index)
    for r, row in enumerate(rows):
        indices = found[r]
        assert indices == sorted(set(indices))
        assert schedule.instances()[r] == len(indices)
        # An affine loop that has no iteration anywhere hides how often the loops around it run.
        if not indices:
            continue
        grows = row.get("bend", (-1, -1, 0, 0))
        never_empty = grows[0] < 0 or row["trips"][grows[0]] + grows[2] * row["first"][grows[1]] > 0
        if never_empty:
            for d in range(LOOPS + 1):
                assert schedule.iterations()[r, d] == len({i[:d] for i in indices})
            issues = Counter(i[: row["depth"]] for i in indices)
            assert schedule.issues()[r] == len(issues)
            assert schedule.inner()[r] == max(issues.values())
            transfers = [len({i[:d] for i in indices}) for d in row["refetch"]]
            assert schedule.transfers()[r].tolist() == transfers
            assert schedule.moved_bytes()[r].tolist() == [t * b for t, b in zip(transfers, row["bytes"], strict=True)]


@given(boxes())
def test_a_tile_begins_where_its_strides_say(row: dict[str, Any]) -> None:
    schedule = build(row)
    for instance in islice(schedule.expand(0), 20):
        expected: dict[str, int] = {}
        for axis, stride, index in zip(row["axis"], row["stride"], instance.index, strict=False):
            name = "k" if axis == AXIS["split"] else AXES[axis]
            expected[name] = expected.get(name, 0) + stride * index
        assert schedule.origin(instance) == expected


def test_rows_of_a_stage_are_merged_in_loop_order_without_being_listed() -> None:
    huge = 10**15
    schedule = build(
        {"stage": 0, "trips": [huge, 2], "first": [0, 0]},
        {"stage": 0, "trips": [huge, 1], "first": [0, 2]},
        {"stage": 1},
    )
    first = [(i.row, i.index[:2]) for i in islice(schedule.expand(0), 5)]
    assert first == [(0, (0, 0)), (0, (0, 1)), (1, (0, 2)), (0, (1, 0)), (0, (1, 1))]
    assert schedule.instances().tolist() == [2 * huge, huge, 1]


def test_a_causal_loop_grows_and_its_last_block_moves() -> None:
    below = {"stage": 0, "trips": [4, 0], "bend": (1, 0, 1, 0)}
    diagonal = {"stage": 0, "trips": [4, 1], "bend": (1, 0, 0, 1)}
    schedule = build(below, diagonal)
    assert schedule.instances().tolist() == [6, 4]
    pairs = [(i.row, i.index[:2]) for i in schedule.expand(0)]
    assert [index for _, index in pairs] == [(i, j) for i in range(4) for j in range(i + 1)]
    assert [row for row, (i, j) in pairs] == [int(i == j) for _, (i, j) in pairs]


def test_columns_have_defaults_and_short_values_are_filled() -> None:
    schedule = build(
        {"unit": UNIT["dma"]}, {"stage": 1, "trips": (2, 3), "bytes": (1,), "refetch": 2, "bend": (1, 0, 1)}
    )
    assert schedule.trips.tolist() == [[1] * LOOPS, [2, 3, *[1] * (LOOPS - 2)]]
    assert schedule.bytes.tolist() == [[0] * 4, [1, 0, 0, 0]]
    assert schedule.refetch.tolist() == [[0] * 4, [2] * 4]
    assert schedule.bend.tolist() == [[-1, -1, 0, 0], [1, 0, 1, 0]]
    assert schedule.buffers.tolist() == [2, 2] and schedule.lanes.tolist() == [1, 1]
    assert all(column.dtype == np.int64 for column in schedule.columns.values())


def test_mistakes_in_building_are_refused() -> None:
    with pytest.raises(ValueError, match="tripz"):
        ScheduleBuilder().row(tripz=1)
    with pytest.raises(ValueError, match="bytes"):
        build({"bytes": (1, 2, 3, 4, 5)})


def test_kernels_keep_their_rows_and_repeats_know_their_pattern() -> None:
    table = ScheduleBuilder()
    table.row(unit=UNIT["dma"])
    table.row(stage=1, unit=UNIT["matrix"], dep=[0])
    first = table.end_kernel("a")
    table.repeat(first)
    table.end_kernel("b", [0])
    table.row(unit=UNIT["vector"])
    table.end_kernel("c", [0, 1])
    table.repeat(first)
    table.row(stage=2, unit=UNIT["store"])
    table.end_kernel("d", [2])
    table.row(unit=UNIT["vector"])
    table.repeat(first)
    table.end_kernel("e", [3])
    schedule = table.build()
    assert (schedule.rows, schedule.kernels) == (11, 5)
    assert schedule.starts.tolist() == [0, 2, 4, 5, 8, 11]
    assert schedule.kernel.tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 4, 4, 4]
    units = ["dma", "matrix", "dma", "matrix", "vector", "dma", "matrix", "store", "vector", "dma", "matrix"]
    assert schedule.unit.tolist() == [UNIT[u] for u in units]
    assert schedule.names == ("a", "b", "c", "d", "e")
    assert schedule.producers == ((), (0,), (0, 1), (2,), (3,))
    # Only a kernel that is another's rows and nothing else has that one's pattern.
    assert schedule.patterns == (0, 0, 2, 3, 4)


def test_schedules_can_be_copied_and_sent_to_other_processes() -> None:
    schedule = build({"trips": [3]})
    for other in (copy.copy(schedule), copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert other.trips.tolist() == schedule.trips.tolist()
    with pytest.raises(AttributeError, match="tripz"):
        _ = schedule.tripz
