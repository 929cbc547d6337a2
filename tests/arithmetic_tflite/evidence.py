"""The table of recorded evidence in docs/tflite_arithmetic.md: ``python tests/arithmetic_tflite/evidence.py`` prints it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from test_goldens import all_cases, golden

from hwsim.arithmetic.tflite_model import load_model


def table() -> str:
    """Markdown: per operator the recorded one-operator models, their values, and where LiteRT's own kernels disagree."""
    recorded = golden("operators")
    models: Counter[str] = Counter()
    values: Counter[str] = Counter()
    micro: Counter[str] = Counter()
    differ: Counter[tuple[str, str]] = Counter()
    for case in all_cases().values():
        code = load_model(case.model).operators[0].code
        models[code] += 1
        values[code] += recorded[case.name].size
        micro[code] += case.name in recorded["tflm"]
        for semantics in (*case.semantics[1:], "tflm"):
            differ[code, semantics] += len(recorded.get(f"{case.name}|{semantics}|places", ()))
    rows = [
        "| operator | models | values | optimised ≠ reference | XNNPACK ≠ reference | TFLM models | TFLM ≠ reference |"
    ]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    for code in sorted(models):
        other = [differ[code, s] for s in ("tflite-optimized", "xnnpack", "tflm")]
        rows.append(
            f"| {code} | {models[code]} | {values[code]} | {other[0]} | {other[1]} | {micro[code]} | {other[2]} |"
        )
    rows.append(f"| all | {sum(models.values())} | {sum(values.values())} | | | {sum(micro.values())} | |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
