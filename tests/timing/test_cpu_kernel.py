"""A core's loops: the closed form against a core that issues one by one, and traffic against a cache of lines."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.machine import load_accelerator
from hwsim.schedule.cpu_kernels import matrix_kernel, step, sums, tile_end, window
from hwsim.schedule.cpu_view import CpuView, cpu_view
from hwsim.timing.cpu import LIMITS, loop_clocks
from hwsim.timing.reference.cpu_kernel import Ports, crossings, issue

VIEW = cpu_view(load_accelerator("raspberry-pi-4"))


def _ports(view: CpuView, integer: bool) -> Ports:
    rate = view.long_multiply_ops if integer else view.multiply_ops
    return Ports(
        Fraction(view.issue), Fraction(view.vector_ops), Fraction(rate), Fraction(view.load_ops), Fraction(view.load_bytes),
        Fraction(view.store_bytes), view.latency,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 8), st.integers(0, 8), st.integers(0, 4), st.integers(0, 8), st.sampled_from([4, 8, 16]),
    st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]), st.sampled_from([1, 2]),
    st.sampled_from([8, 16, 32]),
)  # fmt: skip
def test_a_loop_takes_what_its_busiest_resource_does(
    multiply: int, vector: int, load: int, store: int, scalar: int, size: int, registers: int, latency: int, width: int,
    pipes: int, loads: int, nbytes: int,
) -> None:  # fmt: skip
    if multiply + vector + load + store + scalar == 0:
        return
    registers = min(registers, max(1, multiply))
    view = replace(
        VIEW, issue=width, vector_ops=float(pipes), multiply_ops=1.0, load_ops=float(loads), load_bytes=nbytes,
        store_bytes=nbytes, latency=latency,
    )  # fmt: skip
    # each sum is multiplied into as often as the others, so that a step is a whole number of rounds
    multiply -= multiply % registers
    chain = multiply / registers * latency
    closed, which = loop_clocks(
        view, multiply, vector, load + store, scalar, load * size, store * size, integer=False, chain=chain
    )  # fmt: skip
    counts = {"multiply": multiply, "vector": vector, "load": load, "store": store, "scalar": scalar}
    if sum(counts.values()) == 0:
        return
    steps = 80
    slow = issue(_ports(view, False), counts, size, size, registers, steps)
    # one clock at either end of the measured half
    assert abs(float(slow) - closed) <= 2 / (steps // 2) + 0.02 * closed, LIMITS[which]


@pytest.mark.parametrize(
    ("target", "form", "rows"),
    [
        ("raspberry-pi-4", "fp32", 6), ("raspberry-pi-4", "int8", 2), ("raspberry-pi-3", "fp32", 6),
        ("raspberry-pi-5", "int8", 4), ("desktop-xeon", "fp32", 5), ("x86-server", "int8", 7), ("nucleo-l4r5zi", "int8", 2),
    ],
)  # fmt: skip
def test_the_libraries_loops_on_every_kind_of_core(target: str, form: str, rows: int) -> None:
    view = cpu_view(load_accelerator(target))
    kernel = matrix_kernel(view, form)
    counts = step(kernel, view, form, rows)
    whole = {k: round(v) for k, v in {
        "multiply": counts.multiply, "vector": counts.vector, "load": counts.load, "store": counts.store, "scalar": counts.scalar,
    }.items()}  # fmt: skip
    registers = round(sums(view, form, rows, kernel.cols, kernel.depth))
    chain = whole["multiply"] / registers * view.latency
    each = round(counts.load_bytes / max(1, whole["load"]))
    closed, _ = loop_clocks(
        view, whole["multiply"], whole["vector"], whole["load"], whole["scalar"], whole["load"] * each, 0,
        integer=counts.integer, chain=chain,
    )  # fmt: skip
    slow = float(issue(_ports(view, counts.integer), whole, each, 0, registers, 24))
    assert slow == pytest.approx(closed, rel=0.12)


def test_peaks_of_the_files_are_what_the_loops_reach() -> None:
    for target, form, rows in (
        ("raspberry-pi-4", "fp32", 6),
        ("raspberry-pi-5", "int8", 4),
        ("raspberry-pi-3", "int8", 2),
    ):
        acc = load_accelerator(target)
        view = cpu_view(acc)
        kernel = matrix_kernel(view, form)
        counts = step(kernel, view, form, rows)
        clocks, _ = loop_clocks(
            view,
            counts.multiply,
            counts.vector,
            counts.load,
            counts.scalar,
            counts.load_bytes,
            0,
            integer=counts.integer,
        )
        macs = rows * kernel.cols * kernel.depth / clocks
        assert 0.7 * acc.rates[form] <= macs <= acc.rates[form] * 1.001


def test_more_of_anything_is_never_faster() -> None:
    base = {"multiply": 8.0, "vector": 4.0, "memory": 4.0, "scalar": 3.0, "loaded": 64.0, "stored": 16.0}
    least = loop_clocks(VIEW, **base, integer=False)[0]
    for name in base:
        assert loop_clocks(VIEW, **(base | {name: base[name] * 3}), integer=False)[0] >= least
    for name in ("issue", "vector_ops", "multiply_ops", "load_bytes", "store_bytes"):
        better = replace(VIEW, **{name: 2 * getattr(VIEW, name)})
        assert loop_clocks(better, **base, integer=False)[0] <= least


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(16, 96), st.sampled_from([2048, 4096, 16384]))
def test_traffic_is_that_of_a_cache_within_bounds(m: int, n: int, k: int, cache: int) -> None:
    """Bounded evidence: B crosses once or once per row tile; a real cache lies between the two as it fills."""
    rows, cols, size = 6, 8, 4
    panels, tiles = -(-n // cols), -(-m // rows)
    a, b = crossings(m, n, k, size, rows, cols, cache)
    weights = panels * cols * k * size
    if weights + rows * k * size <= cache // 2:
        assert b <= weights * 1.1 + 64 * panels * k  # once, in whole lines
    if weights >= 2 * cache and cols * k * size * 2 < cache:
        assert b >= 0.9 * tiles * weights * k // k
    assert a >= m * k * size


def test_reference_and_requantisation_cost_more() -> None:
    micro = cpu_view(load_accelerator("nucleo-l4r5zi"))
    plain = cpu_view(load_accelerator("nucleo-l4r5zi"), "tflm-reference")
    assert window(plain, "int8", 9)[0].instructions > window(micro, "int8", 9)[0].instructions / 4
    kernel = matrix_kernel(VIEW, "int8")
    ends = tile_end(kernel, VIEW, "int8", 2, 8).instructions
    assert ends > tile_end(matrix_kernel(VIEW, "fp32"), VIEW, "fp32", 2, 8).instructions / 2
