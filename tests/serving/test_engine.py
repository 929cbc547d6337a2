"""The fast engine against its SimPy twin, request by request and batch by batch; and what must hold for both."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_strategies import shops

from hwsim.serving import engine
from hwsim.serving.reference import batches
from hwsim.serving.setup import NEVER, SERVED, Kind, Requests, Setup


@settings(max_examples=300, deadline=None)
@given(shops())
def test_the_engine_and_its_twin_agree_on_every_request(shop: tuple[Setup, Requests]) -> None:
    setup, requests = shop
    assert engine.run(setup, requests).same(batches.run(setup, requests)) == ""


@settings(max_examples=200, deadline=None)
@given(shops())
def test_nothing_is_lost_doubled_or_early(shop: tuple[Setup, Requests]) -> None:
    setup, requests = shop
    seen = engine.run(setup, requests)
    served = seen.status == SERVED
    samples = np.array(requests.samples)
    assert int(seen.batches["samples"].sum()) == int(samples[served].sum())
    assert (seen.start_ns[served] >= seen.arrival_ns[served]).all() and (seen.finish_ns[~served] == NEVER).all()
    if setup.timeout_ns is not None:
        assert (seen.start_ns[served] - seen.arrival_ns[served] <= setup.timeout_ns).all()
    for k, kind in enumerate(setup.machines):
        mine = seen.batches["machine"] == k
        start, held, work = (seen.batches[name][mine] for name in ("start_ns", "held_ns", "work_ns"))
        most = setup.concurrent
        assert (
            start[most:] >= np.array([np.sort((start + held)[: i + most])[i] for i in range(len(start) - most)])
        ).all()
        assert (held >= work).all() and (held <= most * work + len(work)).all()
        assert most > 1 or (held == work).all(), "alone, a batch takes its time"
        for m, size in zip(seen.batches["model"][mine].tolist(), seen.batches["samples"][mine].tolist(), strict=True):
            assert 1 <= size <= setup.kinds[kind].max_batch(m)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.integers(1, 12),
    st.integers(1, 5),
)
def test_one_more_machine_makes_nobody_wait_longer(gaps: list[int], time: int, machines: int) -> None:
    arrival = np.cumsum(gaps).tolist()
    kind = Kind(((0, time),), ((0, time),), (0,), (0,), 1)
    requests = Requests(arrival, [0] * len(arrival), [1] * len(arrival))
    few, more = (engine.run(Setup((kind,), (0,) * n, (0,)), requests) for n in (machines, machines + 1))
    assert (more.finish_ns <= few.finish_ns).all()


def test_a_batch_waits_for_its_delay_and_no_longer() -> None:
    """Three of four come within the delay of the first: they start together when it ends; four start at once."""
    kind = Kind(((0, 50, 50, 50, 50),), ((0, 50, 50, 50, 50),), (0,), (0,), 1)
    setup = Setup((kind,), (0,), (10,))
    few = engine.run(setup, Requests([0, 3, 9], [0] * 3, [1] * 3))
    assert few.start_ns.tolist() == [10, 10, 10] and few.batches["samples"].tolist() == [3]
    full = engine.run(setup, Requests([0, 3, 9, 9, 9], [0] * 5, [1] * 5))
    assert full.start_ns.tolist() == [9, 9, 9, 9, 59] and full.batches["samples"].tolist() == [4, 1]


def test_models_that_do_not_fit_together_take_turns() -> None:
    kind = Kind(((0, 10), (0, 10)), ((0, 10), (0, 10)), (100, 200), (3, 3), 4)
    requests = Requests([0, 0, 1, 2], [0, 1, 0, 1], [1] * 4)
    oldest = engine.run(Setup((kind,), (0,), (0, 0)), requests)
    assert oldest.batches["model"].tolist() == [0, 1, 0, 1]
    assert oldest.batches["loading_ns"].tolist() == [0, 200, 100, 200]
    resident = engine.run(Setup((kind,), (0,), (0, 0), order="resident"), requests)
    assert resident.batches["model"].tolist() == [0, 0, 1, 1]
    assert resident.batches["loading_ns"].tolist() == [0, 0, 200, 0]
