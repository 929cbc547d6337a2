"""The main loop of one SM: closed form against the twin that steps every clock, the twin against published figures."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.timing.gpu_instructions import instruction, instructions
from hwsim.timing.gpu_sm import CIRCUITS, SmNumbers, loop_shape, main_loop
from hwsim.timing.reference.gpu_program import (
    Tile,
    cta_programs,
    fragment_loads,
    multiplications,
    multiply_loop,
    shares,
)
from hwsim.timing.reference.gpu_samples import STYLES, closed_form, random_case
from hwsim.timing.reference.gpu_sm import Op, Sm, SmConfig
from hwsim.timing.reference.gpu_steady import period, run_tile

LINK = CIRCUITS.index("link")


def few(examples: int):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def steps_for(tile: Tile) -> int:
    """Enough k-steps for a period to show."""
    return 44 + 2 * tile.stages


@st.composite
def cases(draw, *styles: str):
    style = draw(st.sampled_from(styles or tuple(STYLES)))
    return random_case(lambda low, high: draw(st.integers(low, high)), style, largest=2)


def loop(name: str, warps: int, ilp: int, architecture: str = "ampere-ga100") -> float:
    """Clocks an iteration of the microbenchmark takes."""
    ends = Sm(SmConfig(), [multiply_loop(instruction(architecture, name), warps, ilp, 80)]).run().step_end[0]
    return (ends[79] - ends[39]) / 40


# ---- the closed form against the twin


@few(20)
@given(cases())
def test_the_form_is_never_above_the_twin_and_seldom_far_below(case):
    """*Bounded*: the slowest circuit is a limit no schedule beats; several at once cost up to a quarter more."""
    tile, config, residents = case
    clocks, _ = period(run_tile(tile, config, residents, steps_for(tile)), tile.stages)
    form = closed_form(tile, config, residents).cycles
    assert float(clocks) >= form * (1 - 0.006)  # 0.006: SIMT fragments, and means over what shows no period
    assert float(clocks) <= form * 1.25


@few(14)
@given(cases())
def test_a_loop_that_waits_for_the_link_is_exact(case):
    """*Exact* where the link stands out by a tenth: every style, any number of residents."""
    tile, config, residents = case
    config = replace(config, link_bytes_per_clk=Fraction(1, 2) * config.link_bytes_per_clk)
    form = closed_form(tile, config, residents)
    others = max(c for i, c in enumerate(form.circuits.tolist()) if i != LINK)
    if form.limit == LINK and others <= 0.9 * form.cycles:
        clocks, periodic = period(run_tile(tile, config, residents, steps_for(tile)), tile.stages)
        if periodic:
            assert float(clocks) == pytest.approx(form.cycles, rel=1e-9)


@few(10)
@given(cases("copied"), st.integers(2000, 4000))
def test_a_loop_that_waits_for_round_trips_is_exact(case, latency):
    """*Exact* where a buffer's round trip is four times anything else, a sub-core has one warp, a k-step two slices
    and whole copies."""
    tile, config, _ = case
    config = replace(config, link_latency=latency, link_bytes_per_clk=Fraction(128), burst_bytes_per_clk=Fraction(64))
    form = closed_form(tile, config, 1)
    others = sorted(form.circuits.tolist())[-2]
    few_warps = tile.warps <= config.sub_cores and tile.k <= 2 * tile.instruction.k and not sum(tile.step_bytes()) % 512
    if few_warps and others <= 0.25 * form.cycles:
        clocks, periodic = period(run_tile(tile, config, 1, 2 * steps_for(tile)), tile.stages)
        assert periodic
        assert abs(float(clocks) * (tile.stages - 1) - round(form.cycles * (tile.stages - 1))) <= 1


@few(40)
@given(cases())
def test_the_form_counts_what_the_programs_contain(case):
    tile, _, _ = case
    i = tile.instruction
    shape = loop_shape(tile.m, tile.n, tile.k, tile.warp_m, tile.warp_n, i, tile.groups, tile.pair)
    assert shape.step_bytes == sum(tile.step_bytes())
    if i.unit == "matrix":
        steps = [[op for op in p if op.step == 1] for p in cta_programs(tile, 3)]
        products = [op for p in steps for op in p if op.kind == "matrix"]
        assert shape.products == len(products)
        assert shape.matrix_cycles == sum(op.cycles for op in products)
        assert shape.matrix_wavefronts == sum(op.wavefronts for op in products)
        assert shape.fed_cycles == sum(max(op.cycles, op.wavefronts) for op in products)
        (bulk,) = (op for op in steps[0] if op.kind == "bulk")
        assert (shape.step_bytes, shape.link_bytes) == (bulk.bytes, bulk.drawn)
        return
    loads, parts = fragment_loads(tile, 0), [shares(tile, w, "copy") for w in range(tile.warps)]
    assert (shape.loads, shape.load_wavefronts) == (len(loads), sum(op.wavefronts for op in loads))
    assert shape.last_load == loads[-1].wavefronts
    assert shape.products == len(multiplications(tile, 0, 0))
    assert shape.copies == max(len(p) for p in parts)
    assert shape.copy_wavefronts == sum(op.wavefronts for p in parts for op in p)
    assert shape.link_bytes == sum(op.bytes for p in parts for op in p)


@few(80)
@given(cases())
def test_more_of_a_resource_is_never_slower(case):
    tile, config, residents = case
    now = closed_form(tile, config, residents)
    for better in (
        replace(config, link_bytes_per_clk=2 * config.link_bytes_per_clk),
        replace(config, burst_bytes_per_clk=2 * config.burst_bytes_per_clk),
        replace(config, link_latency=config.link_latency // 2),
        replace(config, issue=2 * config.issue),
        replace(config, shared_latency=config.shared_latency // 2),
    ):
        assert closed_form(tile, better, residents).cycles <= now.cycles
    assert closed_form(tile, config, residents + 1).cycles >= now.cycles
    work = now.circuits[CIRCUITS.index("tensor")]
    assert now.cycles >= work
    assert work == pytest.approx(residents * tile.m * tile.n * tile.k / peak(tile, config), rel=1e-9)


def peak(tile: Tile, config: SmConfig) -> float:
    """Multiply-accumulates per clock of the SM, a sparse A's zeros included."""
    i = tile.instruction
    if i.simt:
        return config.sub_cores * 32 * i.k * (2 if i.input == "fp16" else 1) / i.cycles
    return i.m * i.n * i.k / i.cycles * (1 if i.unit == "matrix" else config.sub_cores)


def test_arrays_give_what_scalars_give():
    i = instruction("ampere-ga100", "mma.sp.16832")
    rng = np.random.default_rng(5)
    wm, wn, ks = 16 * rng.integers(1, 5, 50), 8 * rng.integers(1, 9, 50), 32 * rng.integers(1, 5, 50)
    m, n = wm * rng.integers(1, 5, 50), wn * rng.integers(1, 5, 50)
    stages, residents, share = rng.integers(2, 6, 50), rng.integers(1, 4, 50), rng.uniform(8, 64, 50)
    many = main_loop(loop_shape(m, n, ks, wm, wn, i), i, SmNumbers(link_bytes_per_clk=share), stages, residents)
    for j in range(50):
        one_shape = loop_shape(*(int(x[j]) for x in (m, n, ks, wm, wn)), i)
        one = main_loop(one_shape, i, SmNumbers(link_bytes_per_clk=share[j]), int(stages[j]), int(residents[j]))
        assert (one.cycles, one.limit, one.first) == (many.cycles[j], many.limit[j], many.first[j])


# ---- the twin by itself


def test_published_completion_latencies_and_rates_of_an_a100():
    """Sun et al. 2022: 24.7 and 17.7 clocks; 897 with one warp a sub-core, 1004 with two; short sparse ones near 1290."""
    assert loop("mma.16816", 4, 1) == pytest.approx(24.7, rel=0.02)
    assert loop("mma.1688", 4, 1) == pytest.approx(17.7, rel=0.02)
    rate = {(w, i): 2048 * w * i / loop("mma.16816", w, i) for w, i in ((4, 3), (8, 2), (8, 1), (16, 2))}
    assert rate[4, 3] == pytest.approx(897, rel=0.02)
    assert rate[8, 2] == pytest.approx(1004, rel=0.025)
    assert rate[8, 1] < 0.7 * rate[8, 2] and rate[16, 2] == rate[8, 2]
    assert 4096 * 16 / loop("mma.sp.16832", 8, 2) == pytest.approx(1980, rel=0.04)
    assert 2048 * 16 / loop("mma.sp.16816", 8, 2) == pytest.approx(1290, rel=0.06)


def test_published_rates_of_geforce_boards():
    """A board that halves 32-bit accumulation: 255.1 and 509.4 on Turing, int8 1012.6 (Sun et al., table 5)."""
    for name, macs, published in (
        ("hmma.1688", 1024, 255.1),
        ("hmma.1688.f16", 1024, 509.4),
        ("imma.8816", 1024, 1012.6),
    ):
        i = instruction("turing", name).halved
        ends = Sm(SmConfig(), [multiply_loop(i, 8, 4, 60)]).run().step_end[0]
        assert macs * 32 * 30 / (ends[59] - ends[29]) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(("n", "name", "k", "from_registers", "clocks"), [
    (256, "wgmma.64nk16", 16, False, 128), (128, "wgmma.64nk16", 16, False, 64), (64, "wgmma.64nk16", 16, False, 32),
    (32, "wgmma.64nk16", 16, False, 24), (256, "wgmma.sp.64nk32", 32, True, 128),
    (256, "wgmma.sp.64nk32", 32, False, 144),
])  # fmt: skip
def test_asynchronous_products_wait_for_operands_in_shared_memory(n, name, k, from_registers, clocks):
    """n / 2 clocks from 64 columns on; a sparse one reads 16 + 128 wavefronts (Luo et al. 2024: 144, from registers 128)."""
    i = instruction("hopper", name)
    a = 0 if from_registers else 64 * k * 2 // (2 if i.sparse else 1)
    op = {"cycles": i.cycles * n // i.n, "wavefronts": (a + n * k * 2) // 128}
    ends = Sm(SmConfig(), [[[*(Op("matrix", s, **op) for s in range(40)), Op("commit"), Op("wait")]]]).run().step_end[0]
    assert (ends[39] - ends[19]) / 20 == clocks


@few(8)
@given(cases("copied", "staged", "grouped", "matrix"), st.sampled_from(["lrr", "gto"]))
def test_every_clock_of_a_warp_has_one_reason_and_every_unit_its_work(case, policy):
    tile, config, residents = case
    steps = 12
    sm = Sm(replace(config, policy=policy), [cta_programs(tile, steps)] * residents)
    run = sm.run()
    assert all(w.done for w in sm.warps)
    assert all(sum(stalls.values()) <= run.end for stalls in run.stalls)
    issued = sum(stalls["issue"] for stalls in run.stalls)
    ops = [op for w in sm.warps for op in w.ops]
    assert issued <= len(ops) <= issued * config.issue
    for kind, unit in (("mma", "tensor"), ("matrix", "matrix")):
        work = sum(op.cycles for op in ops if op.kind == kind)
        busy = sum(n for u, n in run.busy.items() if u.startswith(unit))
        assert busy >= work and (kind == "matrix" or busy == work)
    written = sum(tile.step_bytes()) * steps * residents
    assert run.busy["port"] >= written / 128
    assert len(run.step_end) == residents and all(len(ends) == steps for ends in run.step_end)


def test_a_tile_by_hand():
    """128 x 128 x 32 by four warps on an A100: 64 products a warp and k-step, 9 clocks apart, and 25 between two openings
    of the barrier: 4 + 3 instructions, 10 clocks of barrier, 8 loads."""
    tile = Tile(128, 128, 32, 64, 64, instruction("ampere-ga100", "mma.16816"), 4)
    form = closed_form(tile, SmConfig(link_bytes_per_clk=Fraction(64)), 1)
    assert form.cycles == 31 * 9 + 9 + 31 * 9 + 25
    assert CIRCUITS[form.limit] == "warp"
    clocks, _ = period(run_tile(tile, SmConfig(link_bytes_per_clk=Fraction(64)), 1, 40), 4)
    assert form.cycles <= clocks <= form.cycles + 8  # what copies write delays a fragment now and then
    two, _ = period(run_tile(tile, SmConfig(link_bytes_per_clk=Fraction(64)), 2, 40), 4)
    assert 1024 <= two <= 1.015 * 1024  # a second CTA fills the gaps


def test_sparse_operands_halve_neither_b_nor_the_loop():
    """2:4 on an A100: twice the k in the same tensor time, but B's fragments do not shrink: under twice the rate."""
    dense = Tile(128, 128, 64, 64, 64, instruction("ampere-ga100", "mma.16816"), 3)
    sparse = replace(dense, instruction=instruction("ampere-ga100", "mma.sp.16832"))
    config = SmConfig(link_bytes_per_clk=Fraction(3851, 108), link_latency=213)
    gain = closed_form(dense, config, 2).cycles / closed_form(sparse, config, 2).cycles
    assert 1.2 < gain < 1.75


@pytest.mark.parametrize("policy", ["lrr", "gto"])
def test_both_warp_policies_do_the_same_work(policy):
    rng = random.Random(4)
    for _ in range(4):
        tile, config, residents = random_case(rng.randint, "copied", largest=2)
        run = run_tile(tile, replace(config, policy=policy), residents, 30)
        form = closed_form(tile, config, residents)
        assert float(period(run, tile.stages)[0]) == pytest.approx(form.cycles, rel=0.12)


# ---- data and refusals


def test_intervals_follow_from_the_rates_of_the_data_sheet():
    """Multiply-adds per clock of an SM by format: what `accelerators/` says, unless something else is named as the limit."""
    rates = {
        ("volta", "fp16"): 512, ("turing", "fp16"): 512, ("turing", "int8"): 1024, ("ampere-ga100", "fp16"): 1024,
        ("ampere-ga100", "tf32"): 512, ("ampere-ga100", "int8"): 2048, ("ampere-ga10b", "fp16"): 1024,
        ("ampere-ga10b", "int8"): 2048, ("ampere-ga10x", "fp16"): 512, ("ampere-ga10x", "int8"): 1024,
        ("ada", "fp16"): 512, ("ada", "int8"): 1024, ("ada", "fp8"): 1024, ("hopper", "fp16"): 2048,
        ("hopper", "tf32"): 1024, ("hopper", "fp8"): 4096, ("hopper", "int8"): 4096, ("blackwell", "fp16"): 4096,
        ("blackwell", "tf32"): 2048, ("blackwell", "fp8"): 8192, ("blackwell", "fp4"): 16384,
    }  # fmt: skip
    below = {"mma.sp.16816", "mma.sp.1688.tf32", "mma.sp.16832.s8"}
    for i in instructions().values():
        if i.simt or (i.architecture == "hopper" and i.unit == "pipe"):
            continue
        macs = i.m * i.n * i.k / i.cycles * (4 if i.unit == "pipe" else 1)
        peak_rate = rates[i.architecture, i.input] * (2 if i.sparse else 1)
        assert macs == peak_rate or (i.name in below and macs < peak_rate), i


@pytest.mark.parametrize(("make", "message"), [
    (lambda: instruction("ampere-ga100", "mma.9"), "has no instruction"),
    (lambda: instruction("ampere", "mma.16816"), "did you mean"),
    (lambda: Tile(100, 64, 32, 64, 64, instruction("ada", "mma.16816")), "not whole instructions"),
    (lambda: Tile(64, 64, 32, 64, 64, instruction("ada", "mma.16816"), 1), "fewer than 2 stages"),
    (lambda: SmConfig(policy="fifo"), "expected lrr or gto"),
    (lambda: SmConfig(sub_cores=0), "at least one sub-core"),
    (lambda: Sm(SmConfig(), [[[Op("await", event=("full", 0), count=1)]]]).run(), "wait for each other"),
    (lambda: Sm(SmConfig(), [[[Op("nop")]]]).run(), "no instruction"),
])  # fmt: skip
def test_refusals_are_one_clear_line(make, message):
    with pytest.raises(HwsimError, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)
