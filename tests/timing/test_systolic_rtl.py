"""The closed forms of the systolic array against its register-transfer twins: cycles, activity, values, all exact."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.timing.reference.systolic_rtl import ArrayConfig, ArrayRun, run_array
from hwsim.timing.systolic import (
    DATAFLOWS,
    ArrayCycles,
    accumulation_order,
    array_activity,
    array_cycles,
    fold_count,
    output_stationary_cycles,
    stationary_cycles,
    weight_shift_cycles,
)

CYCLE_OPTIONS = (
    "overlap",
    "weight_double_buffer",
    "rows_per_clk",
    "weight_rows_per_clk",
    "clks_per_weight_row",
    "rows_per_stage",
    "accumulator_rows",
)
ACTIVITY_OPTIONS = ("weight_rows_per_clk", "clks_per_weight_row", "accumulator_rows")


def configs(largest: int, smallest: int = 1) -> st.SearchStrategy[ArrayConfig]:
    """Arrays up to largest x largest with every option."""
    size = st.integers(smallest, largest)
    few = st.integers(1, 3)
    rows_in_flight = st.integers(0, 8)
    return st.builds(
        ArrayConfig, size, size, st.booleans(), st.booleans(), few, few, few, st.integers(1, 5), rows_in_flight
    )


def shapes(largest: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(*[st.integers(1, largest)] * 3)


dataflows = st.sampled_from(DATAFLOWS)
seeds = st.integers(0, 2**32 - 1)


def int8_operands(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    m, n, k = shape
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)


def bf16_operands(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bit patterns: any at all, near one another, tiny (subnormal products), powers of two (ties), mostly special."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    kind = seed % 5
    if kind == 0:
        draw = rng.integers(0, 1 << 16, m * k + k * n)
    elif kind == 1:
        draw = (rng.integers(0, 2, m * k + k * n) << 15) | rng.integers(0x3A00, 0x4400, m * k + k * n)
    elif kind == 2:
        draw = (rng.integers(0, 2, m * k + k * n) << 15) | rng.integers(0x1C00, 0x2380, m * k + k * n)
    else:
        draw = rng.choice(
            [0x0000, 0x8000, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 0x0001, 0x8001, 0x7F80, 0x7FC0], m * k + k * n
        )
    bits = draw.astype(np.uint16)
    return bits[: m * k].reshape(m, k), bits[m * k :].reshape(k, n)


def assert_counts(run: ArrayRun, dataflow: str, shape: tuple[int, int, int], array: ArrayConfig) -> None:
    options = {name: getattr(array, name) for name in CYCLE_OPTIONS}
    cycles = array_cycles(dataflow, *shape, array.rows, array.cols, **options)
    assert cycles == ArrayCycles(*(getattr(run, field) for field in cycles._fields))
    options = {name: getattr(array, name) for name in ACTIVITY_OPTIONS}
    activity = array_activity(dataflow, *shape, array.rows, array.cols, **options)
    assert activity._asdict() == {field: getattr(run, field) for field in activity._fields}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- cycles, activity, integer values


@settings(max_examples=120, deadline=None)
@given(shapes(8), configs(5), dataflows, seeds)
def test_plain_twin_equals_closed_forms(shape, array, dataflow, seed):
    a, b = int8_operands(shape, seed)
    run = run_array(a, b, dataflow, array)
    assert np.array_equal(run.output, a.astype(np.int32) @ b.astype(np.int32))
    assert_counts(run, dataflow, shape, array)


@settings(max_examples=100, deadline=None)
@given(shapes(6), configs(4), dataflows, seeds, st.booleans())
def test_compiled_twin_equals_plain_twin(shape, array, dataflow, seed, integers):
    a, b = int8_operands(shape, seed) if integers else bf16_operands(shape, seed)
    plain, compiled = (run_array(a, b, dataflow, array, compiled=flag) for flag in (False, True))
    assert same_bits(plain.output, compiled.output)
    for field in ArrayRun.__dataclass_fields__:
        assert field == "output" or getattr(plain, field) == getattr(compiled, field)


@settings(max_examples=300, deadline=None)
@given(shapes(70), configs(24), dataflows, seeds)
def test_compiled_twin_equals_closed_forms(shape, array, dataflow, seed):
    a, b = int8_operands(shape, seed)
    run = run_array(a, b, dataflow, array, compiled=True)
    assert np.array_equal(run.output, a.astype(np.int32) @ b.astype(np.int32))
    assert_counts(run, dataflow, shape, array)


def tiny_cases(largest: int, counts: tuple[int, ...]):
    for shape in itertools.product(range(1, largest + 1), repeat=3):
        for rows, cols in itertools.product(range(1, largest + 1), repeat=2):
            for overlap, double_buffer in itertools.product((False, True), repeat=2):
                for numbers in itertools.product(counts, repeat=4):
                    for accumulator_rows in (0, *counts):
                        yield shape, ArrayConfig(rows, cols, overlap, double_buffer, *numbers, accumulator_rows)


def check_tiny(largest: int, counts: tuple[int, ...]) -> int:
    checked = 0
    for shape, array in tiny_cases(largest, counts):
        a, b = int8_operands(shape, 1)
        for dataflow in DATAFLOWS:
            run = run_array(a, b, dataflow, array, compiled=True)
            assert np.array_equal(run.output, a.astype(np.int32) @ b.astype(np.int32))
            assert_counts(run, dataflow, shape, array)
            checked += 1
    return checked


def test_every_tiny_case():
    assert check_tiny(3, (1,)) == 27 * 9 * 4 * 2 * 3


@pytest.mark.slow
def test_every_tiny_case_with_every_option():
    assert check_tiny(3, (1, 2)) == 27 * 9 * 4 * 16 * 3 * 3


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(shapes(200), configs(128, smallest=12), dataflows, seeds)
def test_compiled_twin_equals_closed_forms_large(shape, array, dataflow, seed):
    a, b = int8_operands(shape, seed)
    run = run_array(a, b, dataflow, array, compiled=True)
    assert np.array_equal(run.output, a.astype(np.int32) @ b.astype(np.int32))
    assert_counts(run, dataflow, shape, array)


def test_tpu_v1_halves_of_the_accumulators():
    """Jouppi et al. 2017: 256 x 256, weights in two planes, 2048 accumulator rows per half; B rows take B cycles."""
    steps = array_cycles("ws", 5000, 256, 512, 256, 256, accumulator_rows=2048)
    assert fold_count("ws", 5000, 256, 512, 256, 256, accumulator_rows=2048).total == 2 * 3
    assert (steps.stream, steps.first_shift, steps.weight_shift) == (2 * 5000, 256, 0)
    assert steps.total == 256 + 2 * 5000 + 255 + 255


@pytest.mark.parametrize("steps", [1, 31, 32, 33])
def test_short_folds_expose_the_rest_of_the_weight_shift(steps):
    cycles = array_cycles("ws", steps, 32, 32 * 4, 32, 32)
    assert cycles.weight_shift == 3 * max(0, 32 - steps)


# ---- the control is tight: one step earlier and the array computes something else


@pytest.mark.parametrize(("rows", "cols", "steps"), [(4, 3, 2), (3, 5, 3), (5, 2, 1)])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("compiled", [False, True])
def test_starting_before_the_last_weight_row_is_in_gives_wrong_values(rows, cols, steps, overlap, compiled):
    rng = np.random.default_rng(5)
    a, b = rng.integers(1, 128, (steps, 2 * rows), np.int8), rng.integers(1, 128, (2 * rows, cols), np.int8)
    expected = a.astype(np.int32) @ b.astype(np.int32)
    array = ArrayConfig(rows, cols, overlap=overlap)
    assert np.array_equal(run_array(a, b, "ws", array, compiled=compiled).output, expected)
    early = run_array(a, b, "ws", array, compiled=compiled, early=1).output
    assert not np.any(early[0] == expected[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_starting_before_the_output_bus_is_free_collides(compiled):
    a, b = int8_operands((12, 3, 2), 0)
    array = ArrayConfig(4, 3)
    assert run_array(a, b, "os", array, compiled=compiled).output_stall == 2 * (4 - 2)
    with pytest.raises(AssertionError, match="two stages drive one column bus"):
        run_array(a, b, "os", array, compiled=compiled, early=1)


# ---- SCALE-Sim: without overlap and double buffering the count is its number of demand lines

# Outputs of SCALE-Sim v3.0.0 (MIT licence): m, n, k; array h, w; "Total Cycles" of COMPUTE_REPORT.csv, which is the
# index of the last line and therefore one less than the count; SRAM ifmap and filter reads and ofmap writes.
SCALESIM_RUNS = [
    ("ws", 56, 1, 68, 16, 16, 509, 3808, 68, 280),
    ("ws", 39, 56, 36, 7, 3, 6155, 26676, 2016, 13104),
    ("ws", 44, 47, 35, 8, 8, 1979, 9240, 1645, 10340),
    ("ws", 128, 64, 128, 128, 128, 509, 16384, 8192, 8192),
    ("ws", 196, 192, 384, 12, 14, 103935, 1053696, 73728, 1204224),
    ("is", 10, 27, 5, 4, 6, 155, 50, 270, 540),
    ("is", 42, 16, 50, 7, 3, 3471, 2100, 11200, 5376),
    ("is", 128, 64, 128, 256, 256, 829, 16384, 8192, 8192),
    ("os", 44, 54, 47, 4, 6, 5444, 18612, 27918, 3366),
    ("os", 74, 75, 51, 12, 14, 3149, 22644, 26775, 6642),
    ("os", 128, 64, 128, 32, 32, 1519, 32768, 32768, 8704),
]


@pytest.mark.parametrize(
    ("dataflow", "m", "n", "k", "h", "w", "last_cycle", "ifmap", "filter_", "ofmap"), SCALESIM_RUNS
)
def test_scalesim_runs(dataflow, m, n, k, h, w, last_cycle, ifmap, filter_, ofmap):
    assert array_cycles(dataflow, m, n, k, h, w, overlap=False, weight_double_buffer=False).total == last_cycle + 1
    activity = array_activity(dataflow, m, n, k, h, w)
    assert (activity.a_reads, activity.b_reads) == (ifmap, filter_)
    if dataflow == "os":  # where the tool writes h + w words too many per fold (its issue 166)
        assert activity.output_writes + fold_count("os", m, n, k, h, w).total * (h + w) == ofmap
    else:
        assert activity.psum_writes == ofmap


@settings(max_examples=200, deadline=None)
@given(shapes(500), st.integers(1, 64), st.integers(1, 64))
def test_scalesim_lines(shape, h, w):
    m, n, k = shape
    for dataflow, (s_r, s_c, t), shifts in (("os", (m, n, k), 0), ("ws", (k, n, m), 1), ("is", (k, m, n), 1)):
        lines = math.ceil(s_r / h) * math.ceil(s_c / w) * (t + (1 + shifts) * h + w - 2)
        assert array_cycles(dataflow, m, n, k, h, w, overlap=False, weight_double_buffer=False).total == lines


# ---- bf16 values


def nearest_fp32(exact: Fraction) -> np.float32:
    """Round to nearest even by trying the neighbours of a first guess."""
    if abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103:
        return np.float32(math.copysign(math.inf, exact))
    with np.errstate(over="ignore"):
        guess = np.float32(float(exact))
    guess = np.float32(np.clip(guess, -np.finfo(np.float32).max, np.finfo(np.float32).max))
    finite = [v for v in (np.nextafter(guess, np.float32(s)) for s in (-math.inf, math.inf)) if np.isfinite(v)]
    best = min((guess, *finite), key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1))
    return np.float32(math.copysign(float(best), exact))


def rounded_sum(terms: list[float]) -> np.float32:
    if not all(map(math.isfinite, terms)):
        return np.float32(sum(terms))
    exact = sum(map(Fraction, terms), Fraction(0))
    return nearest_fp32(exact) if exact else np.float32(sum(terms))


def as_float(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def oracle(a: np.ndarray, b: np.ndarray, dataflow: str, array: ArrayConfig) -> np.ndarray:
    """The product in the order that `accumulation_order` states, one element at a time."""
    order = accumulation_order(
        dataflow, a.shape[1], array.rows, rows_per_stage=array.rows_per_stage, rows_per_clk=array.rows_per_clk
    )
    left, right = as_float(a), as_float(b)
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i, j in np.ndindex(out.shape):
        accumulator: np.float32 | None = None
        for start, stop in order.chains():
            psum = np.float32(0)
            for k0, k1 in order.groups(start, stop):
                products = [float(left[i, k] * right[k, j]) for k in range(k0, k1)]
                psum = rounded_sum([float(psum), *products] if products else [float(psum), 0.0])
            accumulator = psum if accumulator is None else rounded_sum([float(accumulator), float(psum)])
        assert accumulator is not None
        out[i, j] = np.float32(np.nan) if np.isnan(accumulator) else accumulator
    return out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 24)), configs(6), dataflows, seeds)
def test_bf16_values_follow_the_stated_order(shape, array, dataflow, seed):
    a, b = bf16_operands(shape, seed)
    run = run_array(a, b, dataflow, array, compiled=True)
    assert same_bits(np.ascontiguousarray(run.output), oracle(a, b, dataflow, array))
    assert_counts(run, dataflow, shape, array)


def test_groups_of_four_round_once():
    """1 + 2^-24 + 2^-24 rounds to 1 when added one by one, to 1 + 2^-23 when a group is summed exactly."""
    half_ulp = 0x3F80 - (12 << 7)  # 2^-12, squared below
    a = np.array([[0x3F80, half_ulp, half_ulp, 0]], np.uint16)
    b = np.array([[0x3F80], [half_ulp], [half_ulp], [0]], np.uint16)
    for compiled in (False, True):
        one_by_one = run_array(a, b, "ws", ArrayConfig(4, 1), compiled=compiled).output
        grouped = run_array(a, b, "ws", ArrayConfig(4, 1, rows_per_stage=4), compiled=compiled).output
        assert one_by_one[0, 0] == 1.0
        assert grouped[0, 0] == 1.0 + 2.0**-23


def test_exact_group_sum_is_not_a_double_sum():
    """2^60 + 1 + 2^-24·… − 2^60: doubles lose the small terms, the adder does not."""
    big, one, tiny = 0x3F80 + (60 << 7), 0x3F80, 0x3F80 - (30 << 7)
    a = np.array([[big, one, tiny, big]], np.uint16)
    b = np.array([[one], [one], [one], [one | 0x8000]], np.uint16)
    for compiled in (False, True):
        grouped = run_array(a, b, "ws", ArrayConfig(4, 1, rows_per_stage=4), compiled=compiled).output
        assert grouped[0, 0] == np.float32(1.0 + 2.0**-30)
    a[0, 2] = 0x3F80 - (23 << 7)
    assert run_array(a, b, "ws", ArrayConfig(4, 1, rows_per_stage=4), compiled=True).output[0, 0] == 1.0 + 2.0**-23


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dataflow", ["ws", "is"])
def test_padding_of_a_partial_fold_turns_minus_zero_into_zero(dataflow, compiled):
    a, b = np.array([[0x8080]], np.uint16), np.array([[0x0080]], np.uint16)  # -2^-126 · 2^-126 rounds to -0
    for rows, stage, sign in [(1, 1, True), (2, 1, False), (4, 4, True), (5, 4, False)]:
        array = ArrayConfig(rows, 1, rows_per_stage=stage)
        run = run_array(a, b, dataflow, array, compiled=compiled)
        assert run.output[0, 0] == 0 and np.signbit(run.output[0, 0]) == sign
        assert same_bits(np.ascontiguousarray(run.output), oracle(a, b, dataflow, array))


@pytest.mark.parametrize("compiled", [False, True])
def test_nans_come_out_canonical(compiled):
    a, b = np.array([[0xFF81, 0x3F80]], np.uint16), np.array([[0x3F80], [0x3F80]], np.uint16)
    run = run_array(a, b, "ws", ArrayConfig(2, 1), compiled=compiled)
    assert run.output.view(np.uint32)[0, 0] == 0x7FC00000


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([(0, 0), (12, 12), (40, 40)], 1 + 2.0**-23),  # 1 + 2^-24 + 2^-80: above the tie, which a double cannot see
        ([(0, 0), (11, 12), (12, 12), (40, -40)], 1 + 2.0**-23),  # 1 + 2^-23 + 2^-24 - 2^-80: below the next tie
        ([(0, 0), (12, 12), (40, -40)], 1.0),
        ([(0, 0), (12, 12)], 1.0),
        ([(0, 0), (11, 12), (12, 12)], 1 + 2.0**-22),
    ],
)
def test_a_group_near_a_tie_rounds_correctly(terms, expected, compiled):
    """Terms are pairs of exponents, 2^-|e| each; a negative second one makes the product negative."""
    a = np.array([[0x3F80 - (e << 7) for e, _ in terms]], np.uint16)
    b = np.array([[0x3F80 - (abs(f) << 7) | (f < 0) << 15] for _, f in terms], np.uint16)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        kept = [i for i in order if i < len(terms)]
        for array, dataflow in ((ArrayConfig(4, 1, rows_per_stage=4), "ws"), (ArrayConfig(1, 1, rows_per_clk=4), "os")):
            run = run_array(a[:, kept], b[kept], dataflow, array, compiled=compiled)
            assert run.output[0, 0] == np.float32(expected)


def test_order_of_k_folds_can_be_stated():
    order = accumulation_order("ws", 10, 4, rows_per_stage=2, k_folds=(2, 0, 1))
    assert list(order.chains()) == [(8, 10), (0, 4), (4, 8)]
    assert list(order.groups(8, 10)) == [(8, 10), (10, 10)]
    assert list(accumulation_order("os", 5, 4, rows_per_clk=2).groups(0, 5)) == [(0, 2), (2, 4), (4, 5)]


# ---- the closed forms as a library


def test_arrays_give_what_scalars_give():
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 400, (5, 200))
    flags = rng.integers(0, 2, (2, 200)).astype(bool)
    numbers = rng.integers(1, 4, (4, 200))
    depth = rng.integers(0, 100, 200)
    for dataflow in DATAFLOWS:
        arguments = dict(zip(CYCLE_OPTIONS, (*flags, *numbers, depth), strict=True))
        many = array_cycles(dataflow, *sizes, **arguments)
        reads = array_activity(dataflow, *sizes, **{name: arguments[name] for name in ACTIVITY_OPTIONS})
        for i in range(200):
            options = {name: values[i].item() for name, values in arguments.items()}
            one = array_cycles(dataflow, *sizes[:, i].tolist(), **options)
            assert one == tuple(field[i] for field in many)
            assert one.total == sum(one[1:])
            some = {name: options[name] for name in ACTIVITY_OPTIONS}
            assert array_activity(dataflow, *sizes[:, i].tolist(), **some) == tuple(field[i] for field in reads)


def test_core_functions_compile():
    import numba

    stationary, output_stationary = numba.njit(stationary_cycles), numba.njit(output_stationary_cycles)
    for steps, folds, rows, cols, chunk in [(5000, 30, 32, 16, 2048), (7, 3, 8, 8, 0), (1, 1, 1, 1, 1)]:
        for overlap, double_buffer in itertools.product((False, True), repeat=2):
            arguments = (steps, folds, rows, cols, overlap, double_buffer, 2, 1, 3, 4, chunk)
            assert tuple(stationary(*arguments)) == tuple(stationary_cycles(*arguments))
            arguments = (steps, folds, rows, cols, overlap, 2, 4)
            assert tuple(output_stationary(*arguments)) == tuple(output_stationary_cycles(*arguments))


def test_narrow_and_wide_weight_ports():
    assert weight_shift_cycles(256) == 256
    assert weight_shift_cycles(256, weight_rows_per_clk=3) == 86
    assert weight_shift_cycles(256, clks_per_weight_row=4) == 1024


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: array_cycles("wss", 1, 1, 1, 1, 1), "did you mean ws"),
        (lambda: array_cycles("ws", 0, 1, 1, 1, 1), "m is 0, expected at least 1"),
        (lambda: array_cycles("ws", np.array([1, -2]), 1, 1, 1, 1), "m is -2"),
        (lambda: array_cycles("ws", 1, 1, 1, 1, 1, accumulator_rows=-1), "accumulator_rows is -1, expected at least 0"),
        (lambda: array_activity("os", 1, 1, 1, 1, 1, clks_per_weight_row=0), "clks_per_weight_row is 0"),
        (lambda: accumulation_order("ws", 9, 4, k_folds=(0, 1)), "ordering of the 3 folds"),
        (lambda: run_array(np.ones((2, 3), np.int8), np.ones((2, 3), np.int8), "ws", ArrayConfig(2, 2)), "multiply"),
        (lambda: run_array(np.ones((2, 3)), np.ones((3, 2)), "ws", ArrayConfig(2, 2)), "both int8"),
        (lambda: run_array(np.ones((2, 3), np.int8), np.ones((3, 2), np.int8), "sw", ArrayConfig(2, 2)), "expected ws"),
        (lambda: ArrayConfig(0, 2), "rows is 0, expected at least 1"),
        (lambda: ArrayConfig(2, 2, accumulator_rows=-1), "accumulator_rows is -1, expected at least 0"),
    ],
)
def test_refusals_are_one_clear_line(call, message):
    with pytest.raises(HwsimError) as refusal:
        call()
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_importing_does_not_load_numba():
    code = (
        "import sys, hwsim.timing.systolic, hwsim.timing.reference.systolic_fast\n"
        "assert not {'numba', 'pandas', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
