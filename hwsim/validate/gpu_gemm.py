"""Suite ``gpu-gemm``: matrix products on GPUs, each run as its source ran it (``gpu_gemm_sources.csv``).

A source says how a kernel starts, how many copies of its operands it used in turn (what the L2 still held), whether data
were random, how weights lie in memory, and what host time its figures hold beside the kernel. Rules of
``gpu_gemm_exclusions.csv`` leave rows out; none looks at an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_gemm import Surroundings, best_gemm, found_share, gemm_kind
from hwsim.timing.gpu_kind import GemmKind
from hwsim.timing.gpu_quant import cast_chain
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import find, lines, table

Floats = npt.NDArray[np.float64]

HERE = Path(__file__).resolve().parent
MACHINES = {
    "V100-PCIE-32GB": "v100-pcie", "V100": "v100-sxm2", "T4": "t4", "A100-PCIE-40GB": "a100-pcie-40gb",
    "A100-PCIE-80GB": "a100-pcie-80gb", "A100-SXM4-80GB": "a100-sxm4-80gb", "A100-80GB": "a100-sxm4-80gb",
    "RTX3090(sm_86)": "rtx-3090", "L4": "l4", "L40S": "l40s", "H100-SXM-80GB": "h100-sxm", "H100-80GB": "h100-sxm",
    "B200": "b200",
}  # fmt: skip
OPERANDS = {"w8a16": ("fp16", "int8"), "w4a16": ("fp16", "int4")}
ZERO_TOGGLE = 0.65  # random activations times zero weights: between zero_toggle of power.toml's extremes


@dataclass(frozen=True, slots=True)
class Source:
    """How one source measured a format on a machine."""

    prefix: str
    framework: str
    devices: str
    dtype: str
    launch: str
    overhead_us: float
    copies: float
    own_inputs: bool
    data: str
    layout: str
    pipe: str
    kernels: str
    note: str


@cache
def sources() -> tuple[Source, ...]:
    """Return the table of sources, more specific lines first."""
    return tuple(
        Source(**{**row, "overhead_us": float(row["overhead_us"]), "copies": float(row["copies"]),
                  "own_inputs": row["own_inputs"] == "yes"})  # type: ignore[arg-type]
        for row in lines(HERE / "gpu_gemm_sources.csv")
    )  # fmt: skip


@cache
def rules() -> tuple[dict[str, str], ...]:
    """Return the exclusion rules."""
    return tuple(lines(HERE / "gpu_gemm_exclusions.csv"))


def _source_of(prefix: str, framework: str, target: str, dtype: str) -> Source | None:
    for line in sources():
        fits = line.framework in ("", framework) and line.devices in ("", target)
        if line.prefix == prefix and line.dtype == dtype and fits:
            return line
    return None


def _framework(prefix: str, source: str, kernel: str) -> str:
    tail = source.split(":", 1)[1] if ":" in source else ""
    parts = tail.split("/")
    return {"aic": parts[0], "neusight": parts[1] if len(parts) > 1 else "", "venom": kernel}.get(prefix, "")


def _excluded(row: Mapping[str, str]) -> str:
    for rule in rules():
        if rule["out_of"] == "all" and re.fullmatch(rule["matches"], row.get(rule["field"], "")):
            return rule["rule"]
    return ""


def cases(folder: Path) -> list[Case]:
    """Return the rows; raises FileNotFoundError when the table is not there."""
    path = find(folder, "measured_gemm")
    if path is None:
        raise FileNotFoundError(2, "", "measured_gemm")
    out = []
    for row in table(path):
        target = MACHINES.get(row["device"], "")
        prefix = row["source"].split(":")[0]
        framework = _framework(prefix, row["source"], row["kernel"])
        m, n, k, batch = (int(row[c] or 1) for c in ("M", "N", "K", "batch"))
        excluded = _excluded({**row, "src": prefix})
        if not target:
            continue  # another family of machine
        if not excluded and _source_of(prefix, framework, target, row["dtype"]) is None:
            excluded = "unknown source"
        what = f"{m}x{n}x{k}" + (f" x{batch}" if batch > 1 else "") + (" 2:4" if row["sparsity"] == "2:4" else "")
        out.append(
            Case(
                "gpu-gemm", int(row["row"]), row["device"], target, "gpu", what, row["dtype"],
                float(row["measured_us"]) * 1e-6, group=f"{prefix}/{framework}" if framework else prefix,
                size=_size(m, n, k, row["op"], row["sparsity"]), excluded=excluded,
                question={"prefix": prefix, "framework": framework, "dtype": row["dtype"], "sparsity": row["sparsity"],
                          "m": m, "n": n, "k": k, "batch": batch},
            )
        )  # fmt: skip
    return out


def _size(m: int, n: int, k: int, op: str, sparsity: str) -> str:
    if sparsity == "2:4":
        return "2:4"
    if op == "bmm":
        return "batched"
    if m <= 64:
        return "m <= 64"
    return "all dims >= 1024" if min(m, n, k) >= 1024 else "between"


@cache
def _view(target: str) -> GpuView:
    return gpu_view(load_accelerator(target))


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return the model's time of each case, all of one source and format at once, beside a plain roofline."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, case in enumerate(chosen):
        q = case.question
        groups.setdefault((case.target, q["prefix"], q["framework"], q["dtype"], q["sparsity"]), []).append(i)
    out: list[Outcome | None] = [None] * len(chosen)
    for (target, prefix, framework, dtype, sparsity), rows in groups.items():
        source = _source_of(prefix, framework, target, dtype)
        if source is None:
            for i in rows:
                out[i] = Outcome(chosen[i], refused="how this source measured is not known")
            continue
        shape = {key: np.array([chosen[i].question[key] for i in rows]) for key in ("m", "n", "k", "batch")}
        seconds, roofline = _times(_view(target), source, dtype, sparsity, shape)
        for i, s, r in zip(rows, seconds.tolist(), roofline.tolist(), strict=True):
            out[i] = Outcome(chosen[i], s, r)
    return [o for o in out if o is not None]


def _times(view: GpuView, source: Source, dtype: str, sparsity: str, shape: Mapping[str, Any]) -> tuple[Floats, Floats]:
    activations, weights = OPERANDS.get(dtype, (dtype, ""))
    kind = gemm_kind(
        view, activations, weights, sparsity=sparsity, layout=source.layout, pipe=source.pipe, kernels=source.kernels
    )
    m, n, k, batch = (shape[key] for key in ("m", "n", "k", "batch"))
    a, b, c = m * k * batch * kind.a_bits / 8, n * k * batch * kind.b_bits / 8, m * n * batch * kind.c_bits / 8
    got = best_gemm(
        view, kind, m, n, k, batch, launch=source.launch, toggle=ZERO_TOGGLE if source.data == "zeros" else 1.0,
        around=_left_over(view, kind, source, a, b, c),
    )  # fmt: skip
    seconds = got.time_s + source.overhead_us * 1e-6
    if source.launch == "graph" and dtype in ("fp8", "nvfp4"):
        elements = (m * k).astype(float)
        warm = found_share(view, 2 * elements + elements * kind.a_bits / 8 + (n * k).astype(float))
        for cast in cast_chain(view, dtype, elements, found=warm):
            seconds = seconds + cast.time_s
    macs = m.astype(float) * n * k * batch * (0.5 if kind.sparse else 1.0)
    compute = macs / (kind.rate * view.sms * view.clock_hz)
    moved = (a + b * (0.5 if kind.sparse else 1.0) + c) / view.dram_bytes_per_s
    return seconds, np.maximum(compute, moved)


def _left_over(view: GpuView, kind: GemmKind, source: Source, a: Floats, b: Floats, c: Floats) -> Surroundings:
    """What the L2 holds at the start of a product, by how many copies of its operands a source used in turn."""
    if not math.isfinite(source.copies):
        return Surroundings()
    copies: Any = source.copies
    if copies == 0:
        copies = np.clip(np.ceil(view.l2_bytes / b), 1, 5)
    once = a + b + c
    found_b = found_share(view, once + (copies - 1) * (b + (a if source.own_inputs else 0.0)))
    found_a = found_share(view, once + (copies - 1) * (a + b)) if source.own_inputs else found_share(view, once)
    if source.launch == "none" and source.copies == 1 and source.prefix == "aic":
        found_b = np.zeros_like(found_b)  # run once: weights cold, activations from the layer before
    # Results stay in a cache of one segment until they are overwritten; between segments they are written through.
    kept_c = found_share(view, once) if view.l2_segments == 1 else np.zeros_like(found_b)
    return Surroundings(found_a=found_a, found_b=found_b, kept_c=kept_c)
