"""Every single-operator case of the ONNX standard: imported output shapes equal those of the recorded outputs."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.network.onnx_file import parse_onnx
from hwsim.network.onnx_import import network_of

onnx = pytest.importorskip("onnx")

# Why a case of the standard's suite is refused: control flow, sequences, text, empty tensors, outputs that need values.
REASONS = (
    "control flow", "is no tensor of numbers", "declares no shape", "it must be at least 1", "is not supported",
    "cannot be known before",
    "no output depends", "is made by no node", "is not a batched matrix product", "is not between 1 and",
)  # fmt: skip


def cases() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return [c for c in collect_testcases(None) if c.model is not None and c.data_sets]


def with_constants(case: Any) -> Any:
    """The case's model with every input but the first stored as a constant, as in real files."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    arrays = case.data_sets[0][0]
    if len(arrays) != len(model.graph.input) or not all(isinstance(a, np.ndarray) for a in arrays):
        return None
    for info, array in list(zip(model.graph.input, arrays, strict=True))[1:]:
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
    del model.graph.input[1:]
    return model


def test_output_shapes_of_the_standard_cases() -> None:
    imported, refused, wrong = 0, Counter[str](), []
    for case in cases():
        model = with_constants(case)
        if model is None or not model.graph.input:
            continue
        try:
            net = network_of(parse_onnx(model.SerializeToString(), case.name), case.name)
        except HwsimError as error:
            text = str(error)
            assert "\n" not in text
            if "no layers" in text:  # the whole case is constant folding or renaming
                continue
            assert any(r in text for r in REASONS), text
            refused[next(r for r in REASONS if r in text)] += 1
            continue
        imported += 1
        outputs = [tuple(a.dims) if hasattr(a, "dims") else np.shape(a) for a in case.data_sets[0][1]]
        shapes = [net.tensors[n].shape for n in net.output_names]
        if len(outputs) == len(shapes) and outputs != shapes:
            wrong.append((case.name, outputs, shapes))
    assert imported > 1200
    assert sum(refused.values()) <= 138, refused
    # non-maximum suppression keeps at most so many boxes; how many is known only from values
    beyond = [w for w in wrong if "nonmaxsuppression" not in w[0]]
    assert beyond == []
    for _, outputs, shapes in (w for w in wrong if "nonmaxsuppression" in w[0]):
        assert outputs[0][0] <= shapes[0][0] and outputs[0][1] == shapes[0][1] == 3
