"""The comparison counts what differs, and where first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite")
from hwsim.arithmetic.tflite_execute import run_tflite
from hwsim.arithmetic.tflite_model import load_model
from hwsim.arithmetic.tflite_verify import litert_oracle, sample_inputs, verify_tflite
from hwsim.errors import HwsimError

PATH = Path(__file__).parents[1] / "data" / "tflite" / "mlperf_tiny_kws_ref_model.tflite"


def recorded(semantics: str, spoil: int | None = None) -> object:
    def oracle(inputs: Sequence[np.ndarray]) -> Mapping[int, np.ndarray]:
        found = dict(run_tflite(PATH, inputs, semantics=semantics, intermediates=True).tensors)
        if spoil is not None:
            changed = found[spoil].copy()
            changed.reshape(-1)[3] ^= 6
            found[spoil] = changed
        return found

    return oracle


def test_equal_semantics_are_exact() -> None:
    found = verify_tflite(PATH, oracle=recorded("tflite-reference"), random=1)  # type: ignore[arg-type]
    assert found.exact and found.runs == 6 and found.output_values == 6 * 12
    assert len(found.layers) == len(load_model(PATH).operators)
    assert "0 of 72 outputs" in str(found)


def test_one_wrong_value_is_found_in_its_layer() -> None:
    model = load_model(PATH)
    spoiled = model.operators[4]
    found = verify_tflite(PATH, oracle=recorded("tflite-reference", spoiled.outputs[0]), random=1)  # type: ignore[arg-type]
    assert not found.exact
    assert found.first_layer.startswith(spoiled.where) and "1 of" in found.first_layer
    assert found.tensor_differences == found.runs
    assert found.layers[spoiled.where] == found.runs and found.layers[model.operators[3].where] == 0
    assert found.bits_different >= 2 and 2 <= found.max_step <= 6


def test_another_semantics_differs_first_in_a_convolution() -> None:
    found = verify_tflite(PATH, oracle=recorded("xnnpack"))  # type: ignore[arg-type]
    assert not found.exact and "CONV_2D" in found.first_layer and found.max_step >= 1


def test_structured_inputs() -> None:
    runs = list(sample_inputs(load_model(PATH), 3))
    assert len(runs) == 8
    flat = [r[0] for r in runs]
    assert flat[3].max() == -128 and flat[4].min() == 127 and not flat[5].any()
    assert np.array_equal(flat[0], next(iter(sample_inputs(load_model(PATH), 1)))[0])


def test_no_oracle_for_tflm() -> None:
    with pytest.raises(HwsimError, match="recorded tensors"):
        litert_oracle(PATH.read_bytes(), "tflm")


def test_against_litert() -> None:
    pytest.importorskip("ai_edge_litert")
    for semantics in ("tflite-reference", "tflite-optimized", "xnnpack"):
        found = verify_tflite(PATH, semantics=semantics)
        assert found.exact, str(found)
        assert (found.tensor_values > 0) == (semantics != "xnnpack")
