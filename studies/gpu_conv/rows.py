"""NeuSight's convolutions as kernels of a plan, and what each candidate algorithm is said to take."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.machine import load_accelerator
from hwsim.plan.gpu_choose import ChoiceOptions, candidates
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.validate.gpu_conv import MACHINES, conv_kernel, settled, source_of
from hwsim.validate.measured import SHIPPED

Floats = npt.NDArray[np.float64]


@dataclass
class Row:
    """One measured convolution: shape, algorithm that ran, microseconds."""

    device: str
    position: int
    n: int
    c: int
    h: int
    k: int
    us: float
    algorithm: str
    kernel: str
    in_reference: bool = False


def load() -> list[Row]:
    """Return NeuSight's rows; ``in_reference`` marks those of the shared table."""
    with gzip.open(SHIPPED / "measured_conv.csv.gz", "rt", newline="") as file:
        shared = {tuple(r[c] for c in ("device", "N", "C", "H", "K")) for r in csv.DictReader(file)
                  if r["source"].startswith("neusight")}  # fmt: skip
    with gzip.open(SHIPPED / "measured_conv_neusight.csv.gz", "rt", newline="") as file:
        return [
            Row(r["device"], int(r["position"]), int(r["N"]), int(r["C"]), int(r["H"]), int(r["K"]),
                float(r["measured_us"]), r["algorithm"], r["kernel"],
                tuple(r[c] for c in ("device", "N", "C", "H", "K")) in shared)
            for r in csv.DictReader(file)
        ]  # fmt: skip


def view_of(device: str) -> GpuView:
    """The device as its rows ran."""
    view = gpu_view(load_accelerator(MACHINES[device]))
    source = source_of("neusight", device, "fp32")
    return replace(view, clock_hz=source.clock_hz) if source.clock_hz else view


def kernels_of(rows: list[Row], view: GpuView) -> list[Kernel]:
    """One kernel a row."""
    return [
        conv_kernel(view, "fp32", n=r.n, c=r.c, h=r.h, w=r.h, k=r.k, r=3, s=3, stride=(1, 1), pad=(1, 1)) for r in rows
    ]


def times(kernels: list[Kernel], view: GpuView, settle_us: float) -> dict[str, Floats]:
    """Microseconds of every algorithm, NaN where a kernel has no such candidate."""
    how = ChoiceOptions("stream", cold_code=False, prepared=False)
    out: dict[str, Floats] = {}
    both = [candidates(kernels, view, replace(how, throttle=throttle)) for throttle in (False, True)]
    for i, (free, steady) in enumerate(zip(*both, strict=True)):
        for (_, f), (_, s) in zip(free, steady, strict=True):
            us = 1e6 * settled(f.time_s, s.time_s, settle_us * 1e-6)
            out.setdefault(f.algorithm, np.full(len(kernels), np.nan))[i] = us
    return out


def with_constants(view: GpuView, **constants: Any) -> GpuView:
    """``view`` with other constants."""
    return replace(view, constants={**view.constants, **constants})
