"""Whole models and single operators against recorded outputs: every bit, every semantics, without LiteRT."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tflite")
from op_cases import Case, cases, svdf
from oracle import TFLM_MODELS, inputs

from hwsim.arithmetic.tflite_execute import TfliteSession, run_tflite

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "tflite_golden"
KEYS = {"y_ref": "tflite-reference", "y_opt_ruy_x86": "tflite-optimized", "y_xnnpack": "xnnpack"}
MODELS = sorted(p.stem for p in GOLDEN.glob("*.npz") if "y_ref" in np.load(p).files)


@cache
def model_bytes(name: str) -> bytes:
    plain = DATA / "tflite" / f"{name}.tflite"
    return plain.read_bytes() if plain.exists() else gzip.decompress((GOLDEN / f"{name}.tflite.gz").read_bytes())


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as found:
        return {k: found[k] for k in found.files}


def test_the_goldens_are_there() -> None:
    assert len(MODELS) == 11
    assert sum(k.startswith("ref_tensor_") for m in MODELS for k in golden(m)) > 100


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", MODELS)
def test_model_outputs(name: str, key: str) -> None:
    recorded = golden(name)
    session = TfliteSession(model_bytes(name), semantics=KEYS[key])
    shape = session.model.tensors[session.model.inputs[0]].shape
    for x, y in zip(recorded["x"], recorded[key], strict=True):
        made = session.run(x.reshape(shape)).outputs[0]
        assert np.array_equal(made.reshape(-1), y.reshape(-1))


@pytest.mark.parametrize("name", [m for m in MODELS if any(k.startswith("ref_tensor_") for k in golden(m))])
def test_every_intermediate_tensor(name: str) -> None:
    recorded = golden(name)
    session = TfliteSession(model_bytes(name))
    shape = session.model.tensors[session.model.inputs[0]].shape
    made = session.run(recorded["x"][0].reshape(shape), intermediates=True).tensors
    compared = 0
    for key in (k for k in recorded if k.startswith("ref_tensor_")):
        index = int(key.removeprefix("ref_tensor_"))
        if index in made:  # the interpreter adds scratch tensors behind the file's
            assert np.array_equal(made[index].reshape(-1), recorded[key].reshape(-1)), key
            compared += 1
    assert compared >= len(session.model.operators)


@cache
def all_cases() -> dict[str, Case]:
    return {c.name: c for c in cases()}


def recorded_output(case: Case, semantics: str) -> np.ndarray:
    found = golden("operators")
    y = found[case.name].copy()
    if f"{case.name}|{semantics}|places" in found:
        y.reshape(-1)[found[f"{case.name}|{semantics}|places"]] = found[f"{case.name}|{semantics}|values"]
    return y


@pytest.mark.parametrize("semantics", [*KEYS.values(), "tflm"])
def test_single_operators(semantics: str) -> None:
    wrong, values = [], 0
    for case in all_cases().values():
        if semantics in case.semantics or (semantics == "tflm" and case.name in golden("operators")["tflm"]):
            y = recorded_output(case, semantics)
            made = run_tflite(case.model, list(case.inputs), semantics=semantics).outputs[0]
            values += y.size
            if made.shape != y.shape or made.dtype != y.dtype or not np.array_equal(made, y):
                wrong.append(case.name)
    assert not wrong
    assert values > 200_000


@pytest.mark.parametrize("key", [k for k in golden("states") if k.startswith("svdf")])
def test_svdf_state(key: str) -> None:
    name, semantics = key.split("|")
    case = svdf(name.removeprefix("svdf_"))
    session = TfliteSession(case.model, semantics=semantics)
    made = np.stack([session.run(x).outputs[0] for x in case.inputs])
    assert np.array_equal(made, golden("states")[key])


@pytest.mark.parametrize("name", TFLM_MODELS)
def test_tflm_models(name: str) -> None:
    session = TfliteSession(model_bytes(name), semantics="tflm")
    first = session.model.tensors[session.model.inputs[0]]
    recorded = golden("states")[f"{name}|tflm"]
    for x, y in zip(inputs(first.shape, first.dtype, TFLM_MODELS[name]), recorded, strict=True):
        assert np.array_equal(session.run(x).outputs[0].reshape(-1), y.reshape(-1))


@pytest.mark.slow
@pytest.mark.parametrize("semantics", KEYS.values())
def test_segmentation_model(semantics: str) -> None:
    name = "coral_deeplabv3_mnv2_pascal_quant"
    x = np.random.default_rng(11).integers(0, 256, (1, 513, 513, 3)).astype(np.uint8)
    made = run_tflite(model_bytes(name), x, semantics=semantics).outputs[0]
    assert np.array_equal(made, golden(name)[f"{semantics}|0"])


@pytest.mark.slow
@pytest.mark.parametrize("semantics", KEYS.values())
def test_pose_model_up_to_its_custom_decoder(semantics: str) -> None:
    name = "coral_posenet_075_353_481_quant_decoder"
    x = np.random.default_rng(11).integers(0, 256, (1, 353, 481, 3)).astype(np.uint8)
    made = run_tflite(model_bytes(name), x, semantics=semantics, outputs=[98, 100, 96]).outputs
    for i, y in enumerate(made):
        assert np.array_equal(y, golden(name)[f"{semantics}|{i}"])
