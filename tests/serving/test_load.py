"""Arrivals, recordings and host work: rates, shapes, seeds, hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.serving.arrivals import Pattern, arrival_times, choices, lengths, parse_pattern, stretches
from hwsim.serving.host import through, through_unsorted
from hwsim.serving.trace import read_trace

PATTERNS = ["poisson", "uniform", "gamma:3", "gamma:0.2", "mmpp:4,20%,50ms", "mmpp:2,50%,1s"]


@pytest.mark.parametrize("text", PATTERNS)
def test_arrivals_have_their_rate_and_do_not_fall(text: str) -> None:
    pattern = parse_pattern(text)
    times = arrival_times(pattern, 2000.0, 400_000, seed=3)
    assert (np.diff(times) >= 0).all() and times[0] >= 0
    assert len(times) / (times[-1] / 1e9) == pytest.approx(2000.0, rel=0.06 if text.startswith("mmpp") else 0.02)
    assert parse_pattern(str(pattern)) == pattern


@pytest.mark.parametrize("text", PATTERNS)
def test_the_same_seed_is_the_same_and_another_is_not(text: str) -> None:
    pattern = parse_pattern(text)
    one, again, other = (arrival_times(pattern, 10.0, 1000, seed) for seed in (5, 5, 6))
    assert (one == again).all()
    assert text == "uniform" or (one != other).any()


@given(st.floats(0.1, 1e6), st.integers(0, 2**40))
def test_another_rate_is_the_same_requests_closer_together(rate: float, seed: int) -> None:
    slow, fast = (arrival_times(Pattern(), r, 50, seed) for r in (rate, 2 * rate))
    assert np.abs(slow - 2 * fast).max() <= 2


def test_gaps_spread_as_asked() -> None:
    for spread in (0.3, 1.0, 4.0):
        gaps = np.diff(arrival_times(Pattern("gamma", spread=spread), 1000.0, 300_000, 1))
        assert np.std(gaps) / np.mean(gaps) == pytest.approx(spread, rel=0.05)
        factors = np.array(stretches(spread, 300_000, 1))
        assert (np.mean(factors), np.std(factors)) == pytest.approx((1.0, spread), rel=0.05)


def test_bursts_are_as_high_and_as_long_as_asked() -> None:
    """Counted in windows much shorter than a burst: the share of busy windows, and the rate in them."""
    times = arrival_times(parse_pattern("mmpp:5,10%,1s"), 1000.0, 1_000_000, 2) / 1e9
    counts = np.bincount((times / 0.1).astype(int))
    high = counts > 250  # 0.1 s in a burst is 500 requests, outside 56
    assert float(np.mean(high)) == pytest.approx(0.1, abs=0.03)
    assert float(np.mean(counts[high])) == pytest.approx(500, rel=0.1)
    starts = int(np.count_nonzero(np.diff(high.astype(int)) == 1))
    assert float(np.count_nonzero(high)) * 0.1 / starts == pytest.approx(1.0, rel=0.35)


def test_shares_and_lengths_are_kept() -> None:
    drawn = choices((0.7, 0.2, 0.1), 100_000, 1)
    assert [drawn.count(m) / 1e5 for m in range(3)] == pytest.approx([0.7, 0.2, 0.1], abs=0.01)
    tokens = np.array(lengths(512, 0.8, 200_000, 1, 4))
    assert tokens.min() >= 1 and (np.mean(tokens), np.std(tokens) / np.mean(tokens)) == pytest.approx(
        (512, 0.8), rel=0.03
    )
    assert lengths(7, 0.0, 3, 1, 4) == [7, 7, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poison", "did you mean poisson"), ("gamma", "gamma:3 has gaps"), ("gamma:0", "between 0.01"),
        ("gamma:x", "not a plain"),
        ("mmpp:4,10%", "mmpp:4,10%,1s comes"), ("mmpp:4,50%,1s", "more than all requests"), ("mmpp:4,10%,1", "no unit"),
        ("poisson:3", "independent"), ("gamma:nan", "not a plain"), ("mmpp:0.5,10%,1s", "between 1"), ("", "one of uniform"),
    ],
)  # fmt: skip
def test_a_pattern_that_is_none_is_explained(text: str, said: str) -> None:
    with pytest.raises(HwsimError, match="arrivals") as error:
        parse_pattern(text)
    assert said in str(error.value)


# -- recordings --------------------------------------------------------------------------------------------------


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "requests.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_a_recording_counts_from_its_first_request(tmp_path: Path) -> None:
    trace = read_trace(
        write(tmp_path, "time_s,samples,model\n1700000000.000000001,2,a\n1700000000.5,1,b\n\n1700000003,8,a\n")
    )
    assert trace.arrival_ns == [0, 499_999_999, 2_999_999_999]
    assert (trace.samples, trace.model) == ([2, 1, 8], ["a", "b", "a"])
    assert trace.rate_per_s == pytest.approx(2 / 3)
    assert trace.faster(2.0) == [0, 250_000_000, 1_500_000_000]


def test_public_forms_of_recordings_are_read(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    azure = read_trace(write(tmp_path, text))
    assert azure.arrival_ns[1] == pytest.approx(4.314579e9, abs=1000) and azure.prompt == [374, 396]
    assert azure.output == [44, 109]
    zulu = read_trace(write(tmp_path, "timestamp\n2026-11-01T10:00:00Z\n2026-11-01T11:00:01+01:00\n"))
    assert zulu.arrival_ns == [0, 10**9]
    assert read_trace(write(tmp_path, "\ufefftime_ms\r\n5\r\n7.5\r\n")).arrival_ns == [0, 2_500_000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"), ("\n\n", "is empty"), ("time_s\n", "no requests"), ("when,size\n1,2\n", "no column of times"),
        ("time_s\n3\n2\n", "line 3: time 2 is before"), ("time_s\nnan\n", "line 2: 'nan' is no time"),
        ("time_s\n1\ninf\n", "line 3: 'inf' is no time"), ("time_s\n1e999\n", "is no time"), ("time_s\n1e99\n", "too large"),
        ("time_s\n0\n1e15\n", "more than 3e+09 s after"), ("time_s\n\"1,2\"\n", "is no time"), ("time_s\n0x10\n", "is no time"),
        ("time_s\n" + "9" * 500 + "\n", "is no time"), ("time_s,samples\n1\n", "1 values under 2"),
        ("time_s,samples\n1,0\n", "from 1 to"), ("time_s,samples\n1,-4\n", "from 1 to"), ("time_s,samples\n1,2.5\n", "from 1 to"),
        ("time_s,samples\n1,99999999999999\n", "from 1 to"), ("time_s,samples\n1,\n", "from 1 to"),
        ("time_s\n2026-13-45\n", "is no time"), (b"\xff\xfe\x00", "no text file"), (b"time_s\n1\x00\n", "requests.csv"),
        ("time_s\n\"1\n", "no CSV file"), ("time_s\n١\n", "is no time"), ("time_s\n1_0\n", "is no time"),
        ("timé_s\n1\n", "no column of times"),
    ],
)  # fmt: skip
def test_a_damaged_recording_is_one_clear_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(HwsimError) as error:
        read_trace(write(tmp_path, text))
    assert said in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


PIECES = ["time_s", ",", "\n", "1", "2.5", "-3", "1e9", "1e30", '"', "samples", "nan", "\r", " ", "2026-11-01"]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.lists(st.sampled_from(PIECES), max_size=30).map(lambda parts: "".join(parts).encode())
)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.csv"
    file.write_bytes(data)
    try:
        trace = read_trace(file)
    except HwsimError as error:
        assert len(str(error)) < 400
        return
    assert trace.arrival_ns[0] == 0 and all(
        a <= b for a, b in zip(trace.arrival_ns, trace.arrival_ns[1:], strict=False)
    )


def test_devices_and_folders_are_no_recordings(tmp_path: Path) -> None:
    for path in ("/dev/zero", tmp_path, tmp_path / "none.csv", "\0"):
        with pytest.raises(HwsimError, match="no trace file"):
            read_trace(path)


# -- host work ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 4))
def test_host_work_is_first_come_first_served_by_so_many(gaps: list[int], stage: int, workers: int) -> None:
    times = np.cumsum(gaps)
    out = through(times, stage, workers)
    free = [0] * workers
    for time, left in zip(times.tolist(), out.tolist(), strict=True):
        k = min(range(workers), key=free.__getitem__)
        free[k] = max(free[k], time) + stage
        assert left == free[k]
    order = np.random.default_rng(0).permutation(len(times))
    assert sorted(through_unsorted(times[order], stage, workers).tolist()) == sorted(out.tolist())
    assert (through(times, stage, None) == times + stage).all()
