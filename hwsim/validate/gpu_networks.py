"""Suite ``gpu-networks``: whole networks on GPUs and Jetson boards, each with the stack its source states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim.formats import FORMATS
from hwsim.result import Result
from hwsim.validate.ask import simulated
from hwsim.validate.case import Case, Outcome
from hwsim.validate.gpu_network_rows import RULES, Row, host_seconds, network_rows, neusight_rows, trtutils_rows
from hwsim.validate.measured import find

_SMALL = 4  # batches up to here are called small: launches and latency matter in them


def cases(folder: Path) -> list[Case]:
    """Return the rows of all three tables of networks; raises FileNotFoundError when none is there."""
    if all(find(folder, f"measured_{n}") is None for n in ("networks", "jetson_networks", "gpu_networks")):
        raise FileNotFoundError(2, "", "measured_networks")
    rows = [*network_rows(folder), *trtutils_rows(folder), *neusight_rows(folder)]
    return [_case(i, row) for i, row in enumerate(rows) if row.trace and row.machine and row.batch]


def _case(number: int, row: Row) -> Case:
    shapes = " ".join(f"{k}={v}" for k, v in row.shapes)
    what = " ".join(filter(None, (row.model, shapes, f"b{row.batch}", "2:4" if row.sparsity == "2:4" else "")))
    return Case(
        "gpu-networks", number, row.device, row.machine, "gpu", what, row.precision, row.measured_s, group=row.source,
        size="batch <= 4" if row.batch <= _SMALL else "larger batch", excluded=row.excluded,
        question={
            "trace": row.trace, "source": row.source,
            "options": {
                "batch": row.batch, "shapes": dict(row.shapes), "precision": row.precision, "stack": row.stack,
                "sparsity": None if row.sparsity in ("", "dense") else "2:4",
            },
        },
    )  # fmt: skip


def _network(question: Mapping[str, Any]) -> str:
    return str(question["trace"])


def _seconds(result: Result, case: Case) -> float:
    source = case.question["source"]
    waited = host_seconds(source, case.target.split(":")[0], len(result.plan.kernels))
    return max(result.latency_s, waited) + float(RULES["source"].get(source, {}).get("overhead_us", 0)) * 1e-6


def _roofline(result: Result, case: Case) -> float:
    """Multiply-accumulates at the peak of the precision, or weights at the DRAM peak, whichever takes longer."""
    known = case.precision in FORMATS
    peak = result.accelerator.peak_ops_per_s(case.precision) / 2 if known else 0.0
    compute = result.macs / peak if peak else float("nan")
    return max(compute, result.plan.weight_bytes / result.accelerator.dram.bandwidth_bytes_per_s)


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's answer to each case."""
    return simulated(chosen, _network, _seconds, _roofline)
