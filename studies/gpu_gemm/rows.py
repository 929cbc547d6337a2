"""Measured matrix products as the study uses them: one row per device, source, format and shape, with how it was measured.

The data stay in the reference folder (HWSIM_REFERENCE, or --data of the scripts); licences are per source (README.md).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hwsim.machine import load_accelerator
from hwsim.machine.constants import load_constants
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_gemm import Gemms, Surroundings, best_gemm, found_share, gemm_kind
from hwsim.timing.gpu_kind import GemmKind
from hwsim.timing.gpu_quant import cast_chain

HERE = Path(__file__).resolve().parents[2] / "hwsim" / "validate"  # the tables of the suite gpu-gemm
MACHINES = {
    "V100-PCIE-32GB": "v100-pcie", "V100": "v100-sxm2", "T4": "t4", "A100-PCIE-40GB": "a100-pcie-40gb",
    "A100-PCIE-80GB": "a100-pcie-80gb", "A100-SXM4-80GB": "a100-sxm4-80gb", "A100-80GB": "a100-sxm4-80gb",
    "RTX3090(sm_86)": "rtx-3090", "L4": "l4", "L40S": "l40s", "H100-SXM-80GB": "h100-sxm", "H100-80GB": "h100-sxm",
    "B200": "b200",
}  # fmt: skip
OPERANDS = {"w8a16": ("fp16", "int8"), "w4a16": ("fp16", "int4")}
FOLDS = 5  # whole (N, K) pairs belong to one fold; fold 0 may be fitted on
HELD_OUT = ("a100-pcie-80gb", "rtx-3090")  # devices no row of which is fitted on
SCALED = {
    "instruction_energy": ("instruction",),
    "tensor_energy": ("mac ", "padding ", "select "),
    "simt_energy": ("simt ",),
}
ZERO_TOGGLE = 0.65  # random activations times zero weights: between zero_toggle of power.toml's extremes


def reference_dir(data: str | None = None) -> Path:
    """Return the folder of reference data."""
    return Path(data or os.environ.get("HWSIM_REFERENCE", "/work/shared/reference"))


def rules() -> pd.DataFrame:
    """Return the exclusion rules."""
    return pd.read_csv(HERE / "gpu_gemm_exclusions.csv", comment="#")


def load(data: str | None = None, *, exclude: bool = True) -> pd.DataFrame:
    """Return the rows, duplicates joined by their median; with ``exclude`` those the rules allow."""
    raw = pd.read_csv(reference_dir(data) / "measured_gemm.csv.gz")
    raw["src"] = raw["source"].str.extract(r"^([a-z0-9]+):")[0]
    raw["kernel"] = raw["kernel"].fillna("")
    tail = raw["source"].str.split(":").str[1]
    raw["framework"] = ""
    aic, neu, ven = raw["src"] == "aic", raw["src"] == "neusight", raw["src"] == "venom"
    raw.loc[aic, "framework"] = tail[aic].str.split("/").str[0]
    raw.loc[neu, "framework"] = tail[neu].str.split("/").str[1]
    raw.loc[ven, "framework"] = raw["kernel"][ven]
    if exclude:
        for rule in rules().itertuples():
            if rule.out_of == "all":
                raw = raw[~raw[rule.field].str.fullmatch(rule.matches)]
    raw = raw[raw["device"].isin(MACHINES)].copy()
    keys = ["src", "framework", "device", "dtype", "op", "M", "N", "K", "batch", "sparsity"]
    # Library kernels of a shape differ between layouts of DeepBench: the median is the shape's.
    rows = raw.groupby(keys, as_index=False).agg(us=("measured_us", "median"), kernel=("kernel", "first"))
    rows["machine"] = rows["device"].map(MACHINES)
    rows["fold"] = [_fold(n, k) for n, k in zip(rows["N"], rows["K"], strict=True)]
    label = rows["src"] + "/" + rows["machine"] + "/" + rows["dtype"]
    label = label.where(rows["op"] == "gemm", label + "/bmm")
    rows["set"] = label.where(rows["sparsity"] == "dense", label + "/2:4")
    return rows


def _fold(n: int, k: int) -> int:
    return int(hashlib.sha256(f"{n}x{k}".encode()).hexdigest(), 16) % FOLDS


_OVERRIDES: dict[str, GpuView] = {}


def machine(name: str) -> GpuView:
    """Return the view of a machine."""
    return _OVERRIDES.get(name) or _machine(name)


@cache
def _machine(name: str) -> GpuView:
    return gpu_view(load_accelerator(name))


@cache
def _sources() -> pd.DataFrame:
    return pd.read_csv(HERE / "gpu_gemm_sources.csv", comment="#").fillna("")


def source_of(src: str, framework: str, name: str, dtype: str) -> Any:
    """Return how a source measured a format on a machine: the first line that matches."""
    for line in _sources().itertuples():
        if (
            line.prefix == src
            and line.dtype == dtype
            and line.framework in ("", framework)
            and line.devices in ("", name)
        ):
            return line
    raise KeyError((src, framework, name, dtype))


def kind_of(view: GpuView, source: Any, dtype: str, sparsity: str = "dense") -> GemmKind:
    """Return the kind of product a row is."""
    activations, weights = OPERANDS.get(dtype, (dtype, ""))
    return gemm_kind(
        view, activations, weights, sparsity=sparsity, layout=source.layout, pipe=source.pipe, kernels=source.kernels
    )


def found(view: GpuView, kind: GemmKind, source: Any, rows: pd.DataFrame) -> Surroundings:
    """Return what the L2 holds at the start of a product, by how many copies of its operands a source used in turn."""
    a = (rows["M"] * rows["K"] * rows["batch"] * kind.a_bits / 8).to_numpy(float)
    b = (rows["N"] * rows["K"] * rows["batch"] * kind.b_bits / 8).to_numpy(float)
    c = (rows["M"] * rows["N"] * rows["batch"] * kind.c_bits / 8).to_numpy(float)
    copies: Any = float(source.copies)
    if not np.isfinite(copies):
        return Surroundings()
    if copies == 0:
        copies = np.clip(np.ceil(view.l2_bytes / b), 1, 5)
    own = source.own_inputs == "yes"
    once = a + b + c
    found_b = found_share(view, once + (copies - 1) * (b + (a if own else 0.0)))
    found_a = found_share(view, once + (copies - 1) * (a + b)) if own else found_share(view, once)
    if source.launch == "none" and source.copies == "1" and rows["src"].iloc[0] == "aic":
        found_b = np.zeros_like(found_b)  # run once: weights cold, activations from the layer before
    return Surroundings(found_a=found_a, found_b=found_b)


@contextmanager
def energies(name: str, values: Mapping[str, float]) -> Iterator[None]:
    """Let constants of power.toml that scale actions have other values for a machine, for a while (a fit tries them)."""
    real = _machine(name)
    assert real.power is not None
    c = load_constants("power", real.architecture)
    actions = []
    for action in real.power.actions:
        scale = 1.0
        for constant, prefixes in SCALED.items():
            if constant in values and action.name.startswith(prefixes):
                scale *= values[constant] / c[constant]
        actions.append(replace(action, energy_j=action.energy_j.scaled(scale)) if scale != 1.0 else action)
    _OVERRIDES[name] = replace(real, power=replace(real.power, actions=tuple(actions)))
    try:
        yield
    finally:
        del _OVERRIDES[name]


def predict(
    rows: pd.DataFrame, constants: dict[str, float] | None = None, *, throttle: bool = True, parts: bool = False
) -> Any:
    """Return predicted microseconds of ``rows`` of one set, in order; with ``parts`` also the answers by framework.

    ``constants`` replace those of the machine's architecture.
    """
    out = np.zeros(len(rows))
    answers: list[tuple[Any, Gemms]] = []
    for framework in rows["framework"].unique():
        mask = (rows["framework"] == framework).to_numpy()
        mine = rows[mask]
        first = mine.iloc[0]
        view = machine(first["machine"])
        if constants:
            view = replace(view, constants={**view.constants, **constants})
        source = source_of(first["src"], framework, first["machine"], first["dtype"])
        kind = kind_of(view, source, first["dtype"], first["sparsity"])
        got = best_gemm(
            view, kind, mine["M"].to_numpy(), mine["N"].to_numpy(), mine["K"].to_numpy(), mine["batch"].to_numpy(),
            launch=source.launch, throttle=throttle, toggle=ZERO_TOGGLE if source.data == "zeros" else 1.0,
            around=found(view, kind, source, mine),
        )  # fmt: skip
        seconds = got.time_s.copy()
        if source.launch == "graph" and first["dtype"] in ("fp8", "nvfp4"):
            elements = (mine["M"] * mine["K"]).to_numpy(float)
            warm = found_share(
                view, 2 * elements + elements * kind.a_bits / 8 + (mine["N"] * mine["K"]).to_numpy(float)
            )
            for cast in cast_chain(view, first["dtype"], elements, found=warm):
                seconds += cast.time_s
        out[mask] = seconds * 1e6 + float(source.overhead_us)
        answers.append((mask, got))
    return (out, answers) if parts else out
