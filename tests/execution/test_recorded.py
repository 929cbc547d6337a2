"""Without LiteRT, is the answer still compared with what LiteRT once said?"""

import json
from pathlib import Path

import pytest

import hwsim.execution.goldens as goldens
import hwsim.execution.verification as verification
from hwsim.execution.run import TfliteSubject
from hwsim.execution.verification import verify

DATA = Path(__file__).parents[1] / "data" / "tflite"
MODEL = DATA / "mlperf_tiny_kws_ref_model.tflite"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which LiteRT cannot be had."""
    monkeypatch.setattr(verification, "litert", lambda *_: None)


def test_every_recorded_model_is_one_of_ours() -> None:
    names = {p.name for p in DATA.glob("*.tflite")}
    table = json.loads(goldens.FILE.read_text(encoding="utf-8"))["models"]
    names |= {p.name.replace(".zeroed.tflite.gz", ".tflite") for p in DATA.glob("*.gz")}
    assert table and {e["file"] for e in table.values()} <= names


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("seed", goldens.SEEDS)
def test_outputs_equal_the_recording(seed: int) -> None:
    found = verify(MODEL, "tpu-v4i", seed=seed)
    assert found.oracle == "recorded outputs of LiteRT"
    assert found.compared > 0 and found.is_bit_exact


@pytest.mark.usefixtures("alone")
def test_a_changed_value_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "recorded", lambda *_: ["0" * 64])
    found = verify(MODEL, "tpu-v4i", seed=0)
    assert found.different == found.compared > 0 and found.first_layer and "ulps" not in found.text()


@pytest.mark.usefixtures("alone")
def test_an_unrecorded_seed_claims_nothing() -> None:
    found = verify(MODEL, "tpu-v4i", seed=12345)
    assert found.compared == 0 and any("ai-edge-litert" in n for n in found.notes)


def test_the_recording_is_what_litert_says_here() -> None:
    pytest.importorskip("ai_edge_litert")
    from hwsim.execution.oracle import litert

    subject = TfliteSubject(MODEL, 0, "tflite-reference")
    answer = litert(MODEL, subject.inputs(), "tflite-reference")
    assert answer is not None
    assert [goldens.digest(v) for v in answer[0]] == goldens.recorded(MODEL, "tflite-reference", 0)
