"""Answers of LiteRT recorded once, for machines without it: digests of outputs, by model, semantics and seed of the inputs.

``goldens.json`` maps the SHA-256 of a model file to the SHA-256 of every output (shape, type and bytes) for random inputs of
a seed. ``python -m hwsim.execution.goldens MODEL.tflite …`` records more, where LiteRT is installed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FILE = Path(__file__).with_name("goldens.json")
SEMANTICS = ("tflite-reference", "tflite-optimized", "xnnpack")
SEEDS = (0, 1)


def digest(value: Array) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    head = f"{value.dtype.str}{value.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).hexdigest()


def recorded(path: Path, semantics: str, seed: int) -> list[str] | None:
    """Digests LiteRT's outputs had, or None when this model, semantics or seed was not recorded."""
    table = json.loads(FILE.read_text(encoding="utf-8"))["models"]
    entry = table.get(hashlib.sha256(path.read_bytes()).hexdigest(), {})
    found = entry.get(semantics, {}).get(str(seed))
    return None if found is None else [str(v) for v in found]


def record(paths: Sequence[Path]) -> dict[str, Any]:
    """Run LiteRT on ``paths`` and return the table."""
    from importlib.metadata import version

    from hwsim.execution.oracle import litert
    from hwsim.execution.run import TfliteSubject

    models: dict[str, Any] = {}
    for path in paths:
        entry: dict[str, Any] = {"file": path.name}
        for semantics in SEMANTICS:
            for seed in SEEDS:
                answer = litert(path, TfliteSubject(path, seed, semantics).inputs(), semantics)
                if answer is not None:
                    entry.setdefault(semantics, {})[str(seed)] = [digest(v) for v in answer[0]]
        models[hashlib.sha256(path.read_bytes()).hexdigest()] = entry
    return {"oracle": f"ai-edge-litert {version('ai-edge-litert')}, x86, one thread", "models": models}


if __name__ == "__main__":
    FILE.write_text(json.dumps(record([Path(p) for p in sys.argv[1:]]), indent=1) + "\n", encoding="utf-8")
