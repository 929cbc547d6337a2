"""The fast engine equals the slow twin, as a whole and buffer by buffer at sizes no SRAM of a kilobyte reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scalesim_strategies import configs, layers

from hwsim.errors import HwsimError
from hwsim.scalesim import Config, TopologyLayer, flushing
from hwsim.scalesim.draining import EventDrain, OutputWords
from hwsim.scalesim.engine import Stalls, _compressed, _prefetch_order, _run_events, simulate_layer
from hwsim.scalesim.folds import Folds, Stream, filter_stream, folds_of, ifmap_stream, skew_line, skew_words_before
from hwsim.scalesim.operands import HOLE, check_sparsity
from hwsim.scalesim.reference import (
    DrainingBuffer,
    PrefetchWindow,
    build_demand,
    simulate_slowly,
)
from hwsim.scalesim.window import MissWindow

SLOW = settings(max_examples=60, deadline=None)


def outcome(run, *args):  # type: ignore[no-untyped-def]
    """The result, or the fact that it was refused."""
    try:
        return run(*args)
    except HwsimError:
        return "refused"


# A read stall between two drains: words already written must not move with the lines after it.
STALLED = Config(array_h=3, array_w=6, ifmap_sram_kb=1, filter_sram_kb=1, ofmap_sram_kb=1, mode="USER", bandwidths=(1,))
STALLED = replace(STALLED, ifmap_bank_bandwidth=1, filter_bank_bandwidth=1)


@SLOW
@given(configs(), layers())
@example(STALLED, TopologyLayer("gemm", "gemm", 18, 29, 1, 29, 1, 6))
def test_engine_equals_twin(config: Config, layer: TopologyLayer) -> None:
    assert outcome(simulate_layer, config, layer) == outcome(simulate_slowly, config, layer)


def lowered(config: Config, layer: TopologyLayer) -> tuple[Folds, Stream, Stream]:
    try:
        check_sparsity(config, layer)
    except HwsimError:
        assume(False)
    folds = folds_of(config, layer, *_compressed(config, layer))
    return folds, ifmap_stream(config, layer, folds), filter_stream(config, layer, folds)


@SLOW
@given(configs(), layers())
def test_streams_are_the_demand_matrices(config: Config, layer: TopologyLayer) -> None:
    folds, *streams = lowered(config, layer)
    demand, *_ = build_demand(config, layer)
    for stream, blocks in zip(streams, (demand.ifmap, demand.filter), strict=True):
        for fold, block in enumerate(blocks):
            asked = block[block != HOLE]
            inside = fold % stream.period
            assert stream.words(inside).tolist() == asked.tolist()
            assert stream.size(inside) == stream.counts()[inside] == len(asked)
            lines = np.nonzero(block != HOLE)[0].tolist()
            for index in {0, len(asked) // 2, len(asked) - 1} if lines else ():
                assert stream.line_of(inside, index) == lines[index]
        lines = np.flatnonzero((np.concatenate(blocks) != HOLE).any(axis=1))
        assert stream.first_and_last_line() == (lines[0], lines[-1])
    outputs = OutputWords(folds)
    lines = np.nonzero(np.concatenate(demand.ofmap) != HOLE)[0].tolist()
    assert [outputs.line_of(i) for i in range(outputs.total)] == lines
    counts = np.bincount(lines, minlength=folds.count * folds.lines)
    before = [outputs.before(i) for i in range(folds.count * folds.lines + 1)]
    assert before == [0, *np.cumsum(counts).tolist()]


@given(st.integers(1, 12), st.integers(1, 12))
def test_skewed_positions(lines: int, lanes: int) -> None:
    order = sorted(t + j for t in range(lines) for j in range(lanes))
    assert [skew_line(i, lines, lanes) for i in range(lines * lanes)] == order
    assert [skew_words_before(i, lines, lanes) for i in range(lines + lanes)] == [
        sum(line < i for line in order) for i in range(lines + lanes)
    ]


@settings(max_examples=150, deadline=None)
@given(configs(mode="CALC"), layers(), st.integers(2, 300), st.booleans())
def test_flushing_set(config: Config, layer: TopologyLayer, capacity: int, in_pieces: bool) -> None:
    """Every shortcut (no flush, no hit, runs of blocks, jumps, pieces) against a set that is filled and emptied."""
    folds, *streams = lowered(config, layer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flushing, "PIECE_WORDS", 50 if in_pieces else 1 << 20)
        patch.setattr(flushing, "SCAN_WORDS", 64)
        for stream, fast in zip(streams, (flushing.ifmap_flushes, flushing.filter_flushes), strict=True):
            held: set[int] = set()
            reads, last = 0, None
            for fold in range(stream.period * stream.passes):
                for index, word in enumerate(stream.words(fold % stream.period).tolist()):
                    if word not in held:
                        held.add(word)
                        reads += 1
                        if len(held) == capacity:
                            held.clear()
                            last = (fold, index)
            assert fast(config, layer, folds, stream, capacity) == flushing.Flushes(reads, last)


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_reuse_shortcut_is_taken_and_exact(dataflow: str) -> None:
    """A 3×3 convolution whose every reuse is far: the closed form is used and equals stepping."""
    config = Config(array_h=8, array_w=8, dataflow=dataflow)  # type: ignore[arg-type]
    layer = TopologyLayer("conv", "conv", 14, 14, 3, 3, 32, 24)
    if dataflow == "os":
        layer = replace(layer, ifmap_h=5, ifmap_w=5, filter_h=2, filter_w=2, stride_h=2, stride_w=2)
    folds, stream, _ = lowered(config, layer)
    words = int(stream.counts().sum())
    distance = flushing.reuse_distance(layer, folds, words)
    assert distance > 300
    for capacity in (distance // 3, distance - 1, distance):
        assert flushing.never_hit(stream, capacity) == flushing.stepped(layer, stream, capacity)


@settings(max_examples=150, deadline=None)
@given(configs(sparsity=False), layers(), st.integers(2, 200), st.integers(1, 40))
def test_drain(config: Config, layer: TopologyLayer, words: int, bandwidth: int) -> None:
    """Tiny buffers, so that drains overlap demand and block it."""
    folds, *_ = lowered(config, layer)
    outputs = OutputWords(folds)
    slow, stalls = DrainingBuffer(words, bandwidth), 0
    counts = [outputs.before(i + 1) - outputs.before(i) for i in range(folds.count * folds.lines)]
    for line, count in enumerate(counts):
        late = slow.serve(count, line + stalls)
        end = line + stalls + late
        stalls += late
    fast, shared = EventDrain(words, bandwidth, outputs), Stalls()
    _run_events(shared, fast, ())
    assert shared.total == stalls
    assert fast.finish(end) == slow.finish(end)


@settings(max_examples=100, deadline=None)
@given(configs(mode="USER"), layers(), st.integers(4, 400), st.sampled_from((1, 3, 10)))
def test_window(config: Config, layer: TopologyLayer, words: int, bandwidth: int) -> None:
    """Tiny windows, so that the prefetch stream wraps around many times."""
    _, *streams = lowered(config, layer)
    demand, *fetches = build_demand(config, layer)
    assert all((a == b).all() for a, b in zip(_prefetch_order(config, layer), fetches, strict=True))
    for stream, blocks, fetch in zip(streams, (demand.ifmap, demand.filter), fetches, strict=True):
        slow = PrefetchWindow(words, bandwidth, fetch)
        fast = MissWindow(words, bandwidth, fetch, stream)
        following, stalls = fast.next_miss(), 0
        for line, row in enumerate(np.concatenate(blocks)):
            late = slow.serve(row[row != HOLE].tolist(), line + stalls)
            if following == line:
                found, following = fast.serve(line, line + stalls)
                assert found == late
            else:
                assert late == 1
            stalls += max(0, late - 1)
        assert following is None
        assert fast.span() == slow.span()


def test_two_flushes_in_one_cycle_are_refused() -> None:
    """SCALE-Sim divides by zero there; an array as wide that fills its buffer at most once a cycle runs."""
    config = Config(array_h=2, array_w=1100, dataflow="ws", ifmap_sram_kb=1, filter_sram_kb=1)
    with pytest.raises(HwsimError, match="twice in one cycle"):
        simulate_layer(config, TopologyLayer("wide", "gemm", 2, 2, 1, 2, 1, 1100))
    narrow = TopologyLayer("narrow", "gemm", 2, 2, 1, 2, 1, 300)
    assert simulate_layer(config, narrow) == simulate_slowly(config, narrow)


def test_equal_layers_are_costed_once_and_named_apart() -> None:
    from hwsim.scalesim import Topology, simulate

    layer = TopologyLayer("a", "gemm", 5, 6, 1, 6, 1, 7)
    first, second = simulate(Config(), Topology("t", "gemm", (layer, replace(layer, name="b", line=9))))
    assert (first.name, second.name) == ("a", "b")
    assert replace(first, name="b") == second


@st.composite
def long_folds(draw: st.DrawFn) -> tuple[Config, TopologyLayer]:
    """Many equal folds, some longer than the array is wide: what the drain jumps over."""
    h, w = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    m, n, k = draw(st.integers(1, 150)), draw(st.integers(1, 30)), draw(st.integers(1, 30))
    config = Config(array_h=h, array_w=w, dataflow=draw(st.sampled_from(("os", "ws", "is"))))
    return config, TopologyLayer("gemm", "gemm", m, k, 1, k, 1, n)


def drained(config: Config, layer: TopologyLayer, words: int, bandwidth: int, jump: bool) -> tuple[object, int, int]:
    """DRAM span, stalls and events of the write buffer alone."""
    outputs = OutputWords(lowered(config, layer)[0])
    drain, stalls, events = EventDrain(words, bandwidth, outputs), 0, 0
    while (line := drain.next_event(stalls)) is not None:
        stalls += drain.serve(line, line + stalls)
        events += 1
        if jump:
            drain.skip(line, stalls)
    return drain.finish(10**6), stalls, events


@settings(max_examples=100, deadline=None)
@given(long_folds(), st.integers(2, 300), st.integers(1, 12))
def test_jumps_over_repeated_drains(case: tuple[Config, TopologyLayer], words: int, bandwidth: int) -> None:
    assert drained(*case, words, bandwidth, jump=True)[:2] == drained(*case, words, bandwidth, jump=False)[:2]


def test_jumps_are_taken() -> None:
    """Both kinds: within one long fold, and over many short ones."""
    for m, n, k in ((5000, 4, 4), (40, 40, 400)):
        layer = TopologyLayer("gemm", "gemm", m, k, 1, k, 1, n)
        fast = drained(Config(array_h=4, array_w=4), layer, 200, 4, jump=True)
        slow = drained(Config(array_h=4, array_w=4), layer, 200, 4, jump=False)
        assert fast[:2] == slow[:2]
        assert fast[2] * 4 < slow[2]
