"""Changing any one rule of a semantics is noticed by the recorded operators."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tflite")
from test_goldens import all_cases, golden, model_bytes, recorded_output

from hwsim.arithmetic.tflite_execute import TfliteSession
from hwsim.arithmetic.tflite_semantics import SEMANTICS

# semantics, field, another rule, prefix of the cases that must notice
MUTATIONS = [
    ("tflite-reference", "convolution", "U", "ties_conv"), ("tflite-reference", "convolution", "F", "ties_conv"),
    ("tflite-reference", "dense", "D", "ties_fc"), ("tflite-reference", "dense", "U", "ties_fc"),
    ("tflite-optimized", "convolution", "D", "ties_conv"), ("tflite-optimized", "convolution", "F", "ties_conv"),
    ("tflite-optimized", "dense", "D", "ties_fc"), ("tflite-optimized", "dense", "R64", "ties_fc"),
    ("xnnpack", "convolution", "D", "ties_conv"), ("xnnpack", "convolution", "U", "ties_conv"),
    ("xnnpack", "dense", "R64", "ties_fc"), ("xnnpack", "product", "D", "mul"), ("tflite-reference", "product", "F", "mul"),
    ("xnnpack", "addition", "D", "sub"), ("tflite-reference", "addition", "xnnpack", "add"),
    ("tflite-optimized", "addition", "D", "add"), ("tflite-optimized", "rescale", "D", "quantize"),
    ("xnnpack", "rescale", "D", "quantize"), ("tflite-reference", "mean", "F", "mean"), ("tflite-reference", "mean", "U", "mean"),
    ("tflite-optimized", "mean", "D", "mean"), ("xnnpack", "mean", "D", "mean"),
    ("tflite-reference", "softmax", "table", "softmax"),
    ("tflite-optimized", "softmax", "fixed", "softmax"), ("xnnpack", "resize", "optimized", "resize_bilinear"),
    ("xnnpack", "clamp", "away", "sub"), ("tflite-optimized", "clamp", "even", "sub"),
]  # fmt: skip


@pytest.mark.parametrize(("semantics", "field", "rule", "prefix"), MUTATIONS)
def test_another_rule_changes_bits(semantics: str, field: str, rule: str, prefix: str) -> None:
    changed = replace(SEMANTICS[semantics], **{field: rule})
    differences = 0
    for case in all_cases().values():
        if semantics in case.semantics and case.name.startswith(prefix):
            session = TfliteSession(case.model, semantics=semantics)
            session.semantics = changed
            made = session.run(list(case.inputs)).outputs[0]
            differences += int(np.count_nonzero(made != recorded_output(case, semantics)))
    assert differences > 0


def test_lstm_activation_tables_matter() -> None:
    name = "coral_keras_lstm_mnist_ptq"
    session = TfliteSession(model_bytes(name), semantics="tflm")
    session.semantics = replace(SEMANTICS["tflm"], recurrent="gemmlowp")
    recorded, differences = golden("states")[f"{name}|tflm"], 0
    from oracle import inputs

    for x, y in zip(inputs((1, 28, 28), np.uint8, 8), recorded, strict=True):
        differences += int(np.count_nonzero(session.run(x).outputs[0].reshape(-1) != y.reshape(-1)))
    assert differences > 0
