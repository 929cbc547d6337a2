"""DRAM traffic under an L2: the closed form, and the GEMM engine's, against the twin that keeps every tile."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.timing.gpu_l2 import l2_traffic
from hwsim.timing.reference.gpu_l2 import Grid, raster, run_l2

# Slots and L2 bytes of chips from a Jetson to a B200; capacities are also divided, as problems are larger than these.
CHIPS = (
    (8, 4e6),
    (16, 4e6),
    (40, 4e6),
    (80, 6e6),
    (82, 6e6),
    (108, 40e6),
    (216, 40e6),
    (132, 50e6),
    (142, 96e6),
    (148, 126e6),
)


def random_grid(rng: random.Random) -> tuple[Grid, int, float]:
    slots, capacity = rng.choice(CHIPS)
    tile_m, tile_n = rng.choice([64, 128, 256]), rng.choice([64, 128, 256])
    rows, cols = (rng.randint(1, rng.choice([8, 24])) for _ in range(2))
    m, n = rows * tile_m - rng.choice([0, 17]), cols * tile_n - rng.choice([0, 9])
    return Grid(m, n, 64 * rng.choice([4, 12]), tile_m, tile_n, 64), slots, capacity / rng.choice([1, 4, 16])


def form(grid: Grid, slots: int, capacity: float, width: int, along: str):
    return l2_traffic(grid.m, grid.n, grid.k, grid.tile_m, grid.tile_n, slots, capacity, width, along == "n")


def test_the_form_stays_near_the_twin():
    """*Bounded*: two thirds of all grids to the byte, nine tenths within a tenth."""
    rng = random.Random(2)
    errors = []
    for _ in range(90):
        grid, slots, capacity = random_grid(rng)
        width, along = rng.choice([1, 2, 4, 8]), rng.choice("mn")
        twin = run_l2(grid, raster(grid.rows, grid.cols, along, width), slots, capacity)
        of = form(grid, slots, capacity, width, along)
        assert (of.l2_a, of.l2_b, of.dram_c) == (twin.l2["a"], twin.l2["b"], twin.dram["c"])
        errors.append((of.dram_a + of.dram_b) / twin.reads - 1)
    size = np.abs(errors)
    assert np.mean(size < 1e-9) >= 0.6
    assert np.quantile(size, 0.9) <= 0.12 and abs(np.mean(errors)) <= 0.03
    assert size.max() <= 0.6


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 40), st.sampled_from("mn"), st.integers(1, 8))
def test_what_fits_is_read_once(rows, cols, slots, along, width):
    grid = Grid(rows * 64 - 5, cols * 64 - 9, 128, 64, 64, 64)
    compulsory = (grid.m * grid.k * 2, grid.n * grid.k * 2, grid.m * grid.n * 2)
    capacity = 1.01 * sum(compulsory)
    twin = run_l2(grid, raster(rows, cols, along, width), slots, capacity)
    of = form(grid, slots, capacity, width, along)
    assert (twin.dram["a"], twin.dram["b"], twin.dram["c"]) == compulsory == (of.dram_a, of.dram_b, of.dram_c)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from("mn"))
def test_never_less_than_once_nor_more_than_every_request(seed, width, along):
    grid, slots, capacity = random_grid(random.Random(seed))
    of = form(grid, slots, capacity, width, along)
    assert grid.m * grid.k * 2 <= of.dram_a <= of.l2_a * (1 + 1e-9)
    assert grid.n * grid.k * 2 <= of.dram_b <= of.l2_b * (1 + 1e-9)
    more = form(grid, slots, 2 * capacity, width, along)
    assert more.dram_a <= of.dram_a and more.dram_b <= of.dram_b


def test_groups_of_columns_pay_where_a_sweep_of_rows_would_not_fit():
    """8192^3 on an A100: column by column A comes again and again; eight columns at a time it comes an eighth as often."""
    narrow, wide = (l2_traffic(8192, 8192, 8192, 128, 256, 108, 40e6, width) for width in (1, 8))
    assert narrow.dram_a + narrow.dram_b > 2 * (wide.dram_a + wide.dram_b)
    assert narrow.l2_a == wide.l2_a == 32 * 8192 * 8192 * 2


def test_ctas_that_drift_apart_still_find_most_of_what_they_share():
    grid = Grid(16 * 128, 16 * 128, 1024, 128, 128, 64)
    order = raster(16, 16, "m", 4)
    together = run_l2(grid, order, 40, 4e6)
    apart = run_l2(grid, order, 40, 4e6, skew=[0, 1, 2, 3])
    assert together.reads <= apart.reads <= 1.2 * together.reads


def test_two_segments_keep_two_copies_of_what_both_use():
    grid = Grid(16 * 128, 16 * 128, 1024, 128, 128, 64)
    order = raster(16, 16, "m", 4)
    one, two, half = (run_l2(grid, order, 40, c, s) for c, s in ((6e6, 1), (6e6, 2), (3e6, 1)))
    reads = [t.reads for t in (one, two, half)]
    assert reads[0] <= reads[1] <= reads[2]
    assert sum(one.crossing.values()) == 0 < sum(two.crossing.values()) < sum(two.l2.values()) / 2


def test_raster_visits_every_tile_once():
    assert raster(3, 4, "m", 2) == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 2),
        (2, 3),
    ]
    assert raster(2, 3, "n") == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for along, width in (("m", 1), ("n", 3), ("m", 5), ("n", 9)):
        assert sorted(raster(5, 7, along, width)) == [(i, j) for i in range(5) for j in range(7)]


def test_arrays_give_what_scalars_give():
    rng = np.random.default_rng(1)
    m, n, k = rng.integers(1, 9000, (3, 60))
    tm, tn = 64 * rng.integers(1, 5, (2, 60))
    slots, capacity = rng.integers(1, 300, 60), rng.uniform(1e5, 1e8, 60)
    width, flip = rng.integers(1, 9, 60), rng.integers(0, 2, 60)
    many = l2_traffic(m, n, k, tm, tn, slots, capacity, width, flip)
    for i in range(60):
        one = l2_traffic(*(x[i].item() for x in (m, n, k, tm, tn, slots, capacity, width, flip)))
        assert one == tuple(x[i] for x in many)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: raster(2, 2, "k"), "expected m or n"),
    (lambda: raster(2, 2, "m", 0), "at least 1"),
    (lambda: run_l2(Grid(1, 1, 1, 1, 1, 1), [(0, 0)], 0, 1), "0 slots"),
])  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(HwsimError, match=message):
        call()
