"""Against LiteRT itself, where ai-edge-litert is installed: models over random and structured inputs, all operators."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tflite")
pytest.importorskip("ai_edge_litert", reason="the oracle: pip install ai-edge-litert==2.3.0")
from op_cases import cases
from oracle import inputs, interpreter, litert
from test_goldens import MODELS, model_bytes

from hwsim.arithmetic.tflite_execute import TfliteSession, run_tflite

SEMANTICS = ("tflite-reference", "tflite-optimized", "xnnpack")
LARGE = ["coral_deeplabv3_mnv2_pascal_quant", "tflm_xtensa_mobilenet_v2_quantized", "coral_mobilenet_v1_0.5_160_quant"]


def _compare(name: str, semantics: str, count: int) -> None:
    """Every output, and every tensor an operator makes where the interpreter keeps them, bit for bit."""
    data = model_bytes(name)
    oracle, session = interpreter(data, semantics), TfliteSession(data, semantics=semantics)
    detail, keep, compared = oracle.get_input_details()[0], semantics != "xnnpack", 0
    for x in inputs(tuple(detail["shape"]), detail["dtype"], count):
        oracle.set_tensor(detail["index"], x)
        oracle.invoke()
        made = session.run(x, intermediates=keep)
        pairs = list(zip((d["index"] for d in oracle.get_output_details()), made.outputs, strict=True))
        if keep:
            pairs += [(i, made.tensors[i]) for op in session.model.operators for i in op.outputs]
        for index, y in pairs:
            assert np.array_equal(oracle.get_tensor(index).reshape(-1), y.reshape(-1)), (index, semantics)
            compared += y.size
    assert compared


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", [m for m in MODELS if m not in LARGE])
def test_models(name: str, semantics: str) -> None:
    _compare(name, semantics, 2)


@pytest.mark.slow
@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("name", LARGE)
def test_large_models(name: str, semantics: str) -> None:
    _compare(name, semantics, 2)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_operators(semantics: str) -> None:
    wrong = []
    for case in cases():
        if semantics in case.semantics:
            made = run_tflite(case.model, list(case.inputs), semantics=semantics).outputs[0]
            if not np.array_equal(made, litert(case.model, case.inputs, semantics)[0]):
                wrong.append(case.name)
    assert not wrong


def test_goldens_still_hold() -> None:
    """The installed LiteRT computes what was recorded; a newer one may not, and this says so."""
    from test_goldens import golden, recorded_output

    assert golden("operators")
    changed = [
        (c.name, s)
        for c in cases()
        for s in c.semantics
        if not np.array_equal(litert(c.model, c.inputs, s)[0], recorded_output(c, s))
    ]
    assert not changed
