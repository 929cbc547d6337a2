"""Waves and tails: the closed forms against the twin that places every CTA, and what must hold of any grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.timing.gpu_dispatch import graham_bounds, grid_makespan, shared_makespan, split_makespan
from hwsim.timing.reference.gpu_cta import run_grid, tile_kinds

QUICK = settings(max_examples=150, deadline=None)
SMS, PLACES, CYCLES = st.integers(1, 7), st.integers(1, 4), st.integers(1, 40)


def fixed(kinds: list[int], times: list[int], sms: int, places: int):
    return run_grid(kinds, [[t] * places for t in times], sms, places)


@QUICK
@given(SMS, PLACES, CYCLES, st.integers(1, 60))
def test_equal_ctas_run_in_waves(sms, places, cycles, ctas):
    form, twin = grid_makespan(ctas, sms * places, cycles), fixed([0] * ctas, [cycles], sms, places)
    assert (form.cycles, form.busy) == (twin.end, twin.busy)
    assert form.waves == len(set(twin.start))
    assert form.tail == sms * places - sum(s == max(twin.start) for s in twin.start)


@QUICK
@given(SMS, PLACES, CYCLES, CYCLES, st.integers(0, 40), st.integers(0, 40))
def test_two_blocks_of_ctas(sms, places, first, second, some, more):
    if some + more:
        form = split_makespan(some, first, more, second, sms * places)
        twin = fixed([0] * some + [1] * more, [first, second], sms, places)
        assert (form.cycles, form.busy) == (twin.end, twin.busy)


@QUICK
@given(SMS, st.lists(CYCLES, min_size=1, max_size=4).map(sorted), st.integers(1, 60))
def test_residents_that_share_their_sm(sms, times, ctas):
    form, twin = shared_makespan(ctas, sms, times), run_grid([0] * ctas, [times], sms, len(times))
    assert (form.cycles, form.busy) == (twin.end, twin.busy)
    assert form.waves == len(set(twin.start))


@QUICK
@given(SMS, PLACES, st.lists(CYCLES, min_size=1, max_size=40))
def test_no_order_of_ctas_escapes_the_bounds(sms, places, times):
    twin = fixed(list(range(len(times))), times, sms, places)
    least, most = graham_bounds(sum(times), max(times), sms * places)
    assert least <= twin.end <= most


@QUICK
@given(SMS, PLACES, st.integers(1, 50), CYCLES, CYCLES)
def test_more_of_anything_is_never_wrong_way(sms, places, ctas, cycles, extra):
    """One more CTA or a longer one never ends the grid earlier, one more SM never later."""
    now = grid_makespan(ctas, sms * places, cycles).cycles
    assert grid_makespan(ctas + 1, sms * places, cycles).cycles >= now
    assert grid_makespan(ctas, sms * places, cycles + extra).cycles > now
    assert grid_makespan(ctas, (sms + 1) * places, cycles).cycles <= now
    assert split_makespan(ctas, cycles, 0, extra, sms * places).cycles == now


def test_a_grid_by_hand():
    """Five SMs, two places each, 23 CTAs: two full waves and three CTAs, which have an SM each for themselves."""
    assert grid_makespan(23, 10, 100) == (300, 3, 7, 2300)
    assert shared_makespan(23, 5, [60, 100]) == (260, 3, 7, 2 * 10 * 100 + 3 * 60)
    # Seven long CTAs and then six short ones on four slots: 10 10 10 10, 10 10 10 4 | 4 (after 14) 4 4 4 4.
    assert split_makespan(7, 10, 6, 4, 4).cycles == 24


def test_the_first_wave_is_dealt_over_the_sms_before_any_gets_a_second_cta():
    twin = run_grid([0] * 7, [[10, 10, 10]], 3, 3)
    assert twin.sm == [0, 1, 2, 0, 1, 2, 0]


def test_edge_ctas_in_raster_order_stay_near_the_block_form():
    """*Bounded*: edges of a real grid are strewn over it; taking them last is exact for half of the grids."""
    rng = np.random.default_rng(7)
    errors = []
    for _ in range(200):
        rows, cols, slots = (int(x) for x in rng.integers(1, [25, 25, 33]))
        full, edge = int(rng.integers(20, 60)), int(rng.integers(1, 20))
        kinds = tile_kinds(rows, cols, False, True)
        edges = sum(k > 0 for k in kinds)
        twin = fixed([min(k, 1) for k in kinds], [full, edge], slots, 1).end
        form = split_makespan(len(kinds) - edges, full, edges, edge, slots).cycles
        assert abs(form - twin) <= full
        errors.append(float(form / twin - 1))
    assert np.quantile(np.abs(errors), 0.5) == 0
    assert np.quantile(np.abs(errors), 0.9) <= 0.06


def test_arrays_give_what_scalars_give():
    rng = np.random.default_rng(3)
    ctas, slots, cycles, more, later = rng.integers(1, 300, (5, 100))
    times = np.sort(rng.integers(1, 99, (100, 4)), axis=-1)
    many = (
        grid_makespan(ctas, slots, cycles),
        split_makespan(ctas, cycles, more, later, slots),
        shared_makespan(ctas, slots, times),
    )
    for i in range(100):
        c, s, t, n, d = (int(x[i]) for x in (ctas, slots, cycles, more, later))
        ones = (grid_makespan(c, s, t), split_makespan(c, t, n, d, s), shared_makespan(c, s, times[i]))
        for one, all_of in zip(ones, many, strict=True):
            assert one == tuple(field[i] for field in all_of)


def test_refusals():
    with pytest.raises(HwsimError, match="0 SMs"):
        run_grid([0], [[1]], 0, 1)
    with pytest.raises(HwsimError, match="2 times"):
        run_grid([0], [[5]], 1, 2)
