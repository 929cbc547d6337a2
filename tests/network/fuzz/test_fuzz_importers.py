"""Hostile files: random bytes, cuts and mutations of real models give a network or one line, soon, in little memory."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from hwsim.network import onnx_import, tflite_import
from hwsim.network.graph import Network
from hwsim.network.onnx_file import parse_onnx
from hwsim.network.tflite_file import parse_tflite
from hwsim.network.trace import format_trace, parse_trace

pytest.importorskip("onnx")
pytest.importorskip("tflite")

DATA = Path(__file__).parents[2] / "data"
TFLITE = {
    p.name: p.read_bytes()
    for p in sorted((DATA / "tflite").glob("*.tflite"))
    if p.stat().st_size < 120_000
}  # fmt: skip
ONNX = {p.name: gzip.decompress(p.read_bytes()) for p in sorted((DATA / "onnx").glob("*.gz"))}
LIMIT_S = 5.0
RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def tflite_of(raw: bytes) -> Network:
    return tflite_import.network_of(parse_tflite(raw, "fuzz.tflite"), "fuzz.tflite")


def onnx_of(raw: bytes) -> Network:
    return onnx_import.network_of(parse_onnx(raw, "fuzz.onnx"), "fuzz.onnx")


def survives(read: Callable[[bytes], Network], raw: bytes) -> None:
    start = time.process_time()
    try:
        net = read(raw)
        again = parse_trace(format_trace(net))  # whatever was read can be written and read back
        assert (again.layers, again.inputs, again.symbols) == (net.layers, net.inputs, net.symbols)
    except HwsimError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text) < 600
        assert text.startswith("fuzz.")
    assert time.process_time() - start < LIMIT_S


def mutated(files: dict[str, bytes]) -> st.SearchStrategy[bytes]:
    """A real file with a few bytes or words overwritten, cut, or spliced with itself."""
    edits = st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x01\0\0\0", b"\0\0\0\x80"]),
        ),
    )

    def apply(name: str, changes: list[tuple[float, bytes]], keep: float, word: bool) -> bytes:
        raw = bytearray(files[name])
        for where, patch in changes:
            at = int(where * len(raw))
            at -= at % 4 if word else 0
            raw[at : at + len(patch)] = patch
        return bytes(raw[: max(1, int(keep * len(raw)))])

    cut = st.one_of(st.just(1.0), st.just(1.0), st.floats(0, 1))
    return st.builds(apply, st.sampled_from(sorted(files)), st.lists(edits, max_size=6), cut, st.booleans())


@given(st.binary(max_size=400))
@settings(RELAXED, max_examples=60)
def test_random_bytes(raw: bytes) -> None:
    survives(tflite_of, raw)
    survives(onnx_of, raw)
    survives(tflite_of, raw[:4] + b"TFL3" + raw[4:])


@given(mutated(TFLITE))
@settings(RELAXED, max_examples=150)
def test_mutated_tflite(raw: bytes) -> None:
    survives(tflite_of, raw)


@given(mutated(ONNX))
@settings(RELAXED, max_examples=60)
def test_mutated_onnx(raw: bytes) -> None:
    survives(onnx_of, raw)


@pytest.mark.slow
@given(mutated(TFLITE))
@settings(RELAXED, max_examples=6000)
def test_mutated_tflite_at_length(raw: bytes) -> None:
    survives(tflite_of, raw)


@pytest.mark.slow
@given(mutated(ONNX))
@settings(RELAXED, max_examples=3000)
def test_mutated_onnx_at_length(raw: bytes) -> None:
    survives(onnx_of, raw)


@pytest.mark.slow
def test_every_word_of_a_small_flatbuffer() -> None:
    """Each aligned word of the structure replaced by hostile values in turn."""
    raw = TFLITE["tflm_hello_world_int8.tflite"]
    for at in range(0, len(raw) - 4, 4):
        for patch in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x40\0\0\0"):
            survives(tflite_of, raw[:at] + patch + raw[at + 4 :])


def test_memory_stays_near_the_file() -> None:
    """A vector length overwritten with the largest number allocates nothing of that size."""
    raw = TFLITE["tflm_micro_speech_quantized.tflite"]
    tracemalloc.start()
    for at in range(0, 1200, 4):
        survives(tflite_of, raw[:at] + b"\xff\xff\xff\x7f" + raw[at + 4 :])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20
