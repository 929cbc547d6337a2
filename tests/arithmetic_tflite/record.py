"""Record what LiteRT computes, for the tests that run without it: ``python record.py FOLDER_OF_MODELS``.

Needs ai-edge-litert 2.3.0 and tflite-micro (LiteRT's schema binding cuts models before a custom operator). The golden
files of the other whole models are older; see the README beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from op_cases import Case, cases, svdf
from oracle import TFLM_MODELS, inputs, interpreter, litert

GOLDEN = Path(__file__).parents[1] / "data" / "tflite_golden"


def operators() -> None:
    """One array a case under the reference kernels; where another semantics differs, the places and values."""
    found: dict[str, Any] = {}
    for case in cases():
        base = litert(case.model, case.inputs, case.semantics[0])[0]
        found[case.name] = base
        for semantics in case.semantics[1:]:
            other = litert(case.model, case.inputs, semantics)[0]
            places = np.flatnonzero(other.reshape(-1) != base.reshape(-1))
            if places.size:
                found[f"{case.name}|{semantics}|places"] = places.astype(np.int32)
                found[f"{case.name}|{semantics}|values"] = other.reshape(-1)[places]
    taken = []
    for case in cases():
        made = _tflm(case)
        if made is not None:
            taken.append(case.name)
            base = found[case.name]
            places = np.flatnonzero(made.reshape(-1) != base.reshape(-1))
            if places.size:
                found[f"{case.name}|tflm|places"] = places.astype(np.int32)
                found[f"{case.name}|tflm|values"] = made.reshape(-1)[places]
    found["tflm"] = np.array(taken)  # the cases TFLM has a kernel for
    np.savez_compressed(GOLDEN / "operators.npz", **found)


def _tflm(case: Case) -> np.ndarray | None:
    from tflite_micro import runtime

    try:
        run = runtime.Interpreter.from_bytes(case.model, arena_size=4_000_000)
        for i, x in enumerate(case.inputs):
            run.set_input(x, i)
        run.invoke()
    except (RuntimeError, ValueError):
        return None
    return run.get_output(0)


def states(folder: Path) -> None:
    """Runs one after the other without a reset: SVDF under LiteRT and TFLM, whole models under TFLM."""
    from tflite_micro import runtime

    found: dict[str, Any] = {}
    case = svdf("int16")
    for semantics in case.semantics:
        run, rows = interpreter(case.model, semantics), []
        for x in case.inputs:
            run.set_tensor(run.get_input_details()[0]["index"], x)
            run.invoke()
            rows.append(run.get_tensor(run.get_output_details()[0]["index"]).copy())
        found[f"svdf_int16|{semantics}"] = np.stack(rows)
    models = {c.name: (c.model, c.inputs) for c in (svdf("int16"), svdf("int8"))}
    for name, count in TFLM_MODELS.items():
        data = (folder / f"{name}.tflite").read_bytes()
        detail = runtime.Interpreter.from_bytes(data, arena_size=60_000_000).get_input_details(0)
        models[name] = (data, tuple(inputs(tuple(detail["shape"]), detail["dtype"], count)))
    for name, (data, steps) in models.items():
        run, rows = runtime.Interpreter.from_bytes(data, arena_size=60_000_000), []
        for x in steps:
            run.set_input(x, 0)
            run.invoke()
            rows.append(run.get_output(0).copy())
        found[f"{name}|tflm"] = np.stack(rows)
    np.savez_compressed(GOLDEN / "states.npz", **found)


def large(folder: Path) -> None:
    """Outputs of the two segmentation and pose models for one seeded input."""
    for name, shape, stop in (
        ("coral_deeplabv3_mnv2_pascal_quant", (1, 513, 513, 3), None),
        ("coral_posenet_075_353_481_quant_decoder", (1, 353, 481, 3), 37),
    ):
        data = (folder / f"{name}.tflite").read_bytes()
        if stop is not None:
            data = _cut(data, stop)
        x = np.random.default_rng(11).integers(0, 256, shape).astype(np.uint8)
        found = {}
        for semantics in ("tflite-reference", "tflite-optimized", "xnnpack"):
            for i, y in enumerate(litert(data, (x,), semantics)):
                found[f"{semantics}|{i}"] = y.astype(np.uint8)
        np.savez_compressed(GOLDEN / f"{name}.npz", **found)


def _cut(data: bytes, stop: int) -> bytes:
    """The model without the operators from ``stop`` on; what operator ``stop`` reads becomes the outputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    graph.outputs = np.array(list(graph.operators[stop].inputs), dtype=np.int32)
    graph.operators, model.signatureDefs, model.metadata = graph.operators[:stop], None, None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


if __name__ == "__main__":
    operators()
    states(Path(sys.argv[1]))
    large(Path(sys.argv[1]))
