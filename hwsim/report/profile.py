"""The per-kernel profile in the JSON form of NVIDIA's trtexec (``--exportProfile``), to diff predicted and measured runs.

Form: ``samples/common/sampleReporting.cpp`` of NVIDIA/TensorRT: first ``{"count": N}``, then one object per layer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwsim.result import Result


def profile_json(result: Result) -> str:
    """Return the profile as JSON text, one kernel a line.

    A model has one run: ``timeMs``, ``averageMs`` and ``medianMs`` are equal. ``percentage`` is of the time of all
    kernels, as trtexec counts it, so it leaves out the overhead of a run.
    """
    total = sum(row["latency_s"] for row in result.kernels) or 1.0
    entries: list[dict[str, object]] = [{"count": 1}]
    for row in result.kernels:
        ms = row["latency_s"] * 1e3
        share = 100.0 * row["latency_s"] / total
        entries.append({"name": row["name"], "timeMs": ms, "averageMs": ms, "medianMs": ms, "percentage": share})
    lines = "\n, ".join(json.dumps(entry, allow_nan=False) for entry in entries)
    return f"[\n  {lines}\n]\n"
