"""Fit of the constants that kernels other than plain products need, on a part of the measured networks.

    PYTHONPATH=. python studies/gpu_networks/fit.py [--rounds N] [--only NAME ...]

Rows: one in four (by the position in their table) of the networks, devices and sources in `FIT`; every other device, source
and network is never seen. The fit is a robust least-squares step on logarithms of time (Huber weights at 10 %), damped
towards the present value and held in the bounds of the constants' file, repeated. It prints what to write there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from run import predict

from hwsim.machine.constants import Constants
from hwsim.schedule import gpu_view as views
from hwsim.validate.gpu_network_rows import Row, network_rows, neusight_rows, trtutils_rows
from hwsim.validate.measured import measured_dir

# (source, machine) pairs the fit may see; within them one row in `EVERY`.
FIT = (
    ("trt-demobert", "a100-sxm4-40gb"), ("aitemplate", "a100-sxm4-40gb"), ("mlperf", "a100-pcie-80gb"), ("mlperf", "t4"),
    ("trt-quant", "a100-sxm4-40gb"), ("torch2trt", "jetson-agx-xavier"), ("trtutils", "jetson-agx-orin-64gb"),
    ("trtutils", "titan-rtx"), ("fastertransformer", "a100-pcie-40gb"), ("neusight", "v100-pcie"),
)  # fmt: skip
EVERY = 4
# (constant, architecture or "" for all)
NAMES = (
    ("code_misses", ""), ("kernel_s", ""), ("issue_efficiency", ""), ("vector_instructions", ""), ("reduce_instructions", ""),
    ("direct_instructions", ""), ("resident_share", ""), ("attention_edge", ""), ("attention_alu", ""),
    ("loaded_latency", ""), ("scattered_access", ""), ("library_dispatch", ""), ("eager_dispatch", ""),
)  # fmt: skip
# What takes a term out of the model.
ABSENT = {
    "code_misses": 0.0, "kernel_s": 0.0, "vector_instructions": 0.0, "reduce_instructions": 0.0, "resident_share": 1e-3,
    "attention_edge": 0.0, "attention_alu": 0.0, "loaded_latency": 0.0, "scattered_access": 1.0, "library_dispatch": 0.0,
    "eager_dispatch": 0.0, "engine_dispatch": 0.0, "stream_gddr6": 1.0, "stream_lpddr": 1.0, "stream_efficiency": 1.0,
}  # fmt: skip
KNEE = 0.10
PRIOR = 0.5  # standard deviation of a constant's logarithm around its present value, against 0.1 of a row
NETWORKS_OUT = ("yoloxm", "yolov9s", "Swin", "MobileNet", "SSD-ResNet34")

_changed: dict[tuple[str, str], float] = {}
_load = views.load_constants


def _constants(family: str, architecture: str = "") -> Constants:
    found = _load(family, architecture)
    table = dict(found.table)
    for (name, which), value in _changed.items():
        own = any((name, architecture) == other for other in _changed) and not which
        if name in table and which in ("", architecture) and not own:
            if not which and (name, architecture) in ARCHITECTURES:
                continue
            table[name] = replace(table[name], value=value)
    return Constants(found.family, table)


def _architectures() -> set[tuple[str, str]]:
    """Constants that an architecture has a value of its own for."""
    plain = _load("gpu", "").table
    out = set()
    for arch in (
        "maxwell",
        "pascal",
        "volta",
        "turing",
        "ampere-ga100",
        "ampere-ga10x",
        "ampere-ga10b",
        "ada",
        "hopper",
    ):
        out |= {(n, arch) for n, c in _load("gpu", arch).table.items() if n in plain and c.value != plain[n].value}
    return out


ARCHITECTURES: set[tuple[str, str]] = set()


def all_rows() -> list[Row]:
    """Every row that counts."""
    folder = measured_dir()
    assert folder is not None
    rows = [*network_rows(folder), *trtutils_rows(folder), *neusight_rows(folder)]
    return [r for r in rows if not r.excluded and r.trace and r.batch]


def chosen_rows() -> list[Row]:
    """The rows the fit sees."""
    rows = [r for r in all_rows() if not any(n in r.model for n in NETWORKS_OUT)]
    out = []
    for source, machine in FIT:
        mine = [r for r in rows if source in r.source and r.machine.split(":")[0] == machine]
        out += mine[::EVERY]
    return out


def held_out() -> list[Row]:
    """A third of the rows that the fit does not see, those of other devices and networks among them."""
    seen = {r.text + r.model + str(r.batch) + str(r.shapes) + r.precision for r in chosen_rows()}
    rows = [r for r in all_rows() if r.text + r.model + str(r.batch) + str(r.shapes) + r.precision not in seen]
    return rows[::3]


def told(name: str, found: np.ndarray) -> None:
    """Print a score."""
    error = np.abs(np.expm1(found))
    print(
        f"{name:28s} median {np.median(error):.3f}  mean {error.mean():.3f}  90 % {np.quantile(error, 0.9):.3f}  "
        f"bias {np.median(np.exp(found)):.3f}", flush=True,
    )  # fmt: skip


def logs(rows: list[Row], values: Mapping[tuple[str, str], float]) -> np.ndarray:
    """Logarithm of predicted over measured."""
    _changed.clear()
    _changed.update(values)
    out = []
    for row in rows:
        got = predict(row)
        out.append(math.log(got["predicted_s"] / row.measured_s) if "predicted_s" in got else 0.0)
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--score", nargs="*", metavar="NAME=VALUE", help="score rows not fitted on, with constants replaced"
    )
    parser.add_argument("--ablate", action="store_true", help="score rows not fitted on without each term")
    parser.add_argument("--only", nargs="*", default=())
    args = parser.parse_args()
    views.load_constants = _constants
    ARCHITECTURES.update(_architectures())
    if args.score is not None or args.ablate:
        rows = held_out()
        told(f"{len(rows)} rows, as adopted", logs(rows, {}))
        if args.score:
            told("replaced", logs(rows, {(n, ""): float(v) for n, _, v in (x.partition("=") for x in args.score)}))
        for name, value in ABSENT.items() if args.ablate else ():
            told(f"{name} = {value}", logs(rows, {(name, ""): value}))
        return
    names = [n for n in NAMES if not args.only or n[0] in args.only]
    rows = chosen_rows()
    values = {(n, a): _load("gpu", a).table[n].value for n, a in names}
    bounds = {(n, a): (_load("gpu", a).table[n].low, _load("gpu", a).table[n].high) for n, a in names}
    print(f"{len(rows)} rows, {len(names)} constants", flush=True)
    base = logs(rows, values)
    print(f"start: median {np.median(np.abs(np.expm1(base))):.3f} mean |log| {np.abs(base).mean():.4f}", flush=True)
    for _ in range(args.rounds):
        slopes = []
        for key in names:
            _, high = bounds[key]
            step = 1.2 if values[key] * 1.2 <= high else 1 / 1.2
            slopes.append((logs(rows, {**values, key: values[key] * step}) - base) / math.log(step))
        j = np.array(slopes).T
        delta = np.zeros(len(names))
        for _ in range(30):  # iteratively reweighted
            left = base + j @ delta
            w = 1 / np.maximum(1.0, np.abs(left) / KNEE) / 0.1**2
            h = j.T @ (j * w[:, None]) + np.eye(len(names)) / PRIOR**2
            delta = -np.linalg.solve(h, j.T @ (w * (base)))
        delta = np.clip(delta, -0.5, 0.5)
        values = {
            key: float(np.clip(values[key] * math.exp(d), *bounds[key])) for key, d in zip(names, delta, strict=True)
        }
        base = logs(rows, values)
        print(f"median {np.median(np.abs(np.expm1(base))):.3f} mean |log| {np.abs(base).mean():.4f}")
        for key, d in zip(names, delta, strict=True):
            print(f"  {key[0]:22s} {key[1]:8s} {values[key]:.4g}  (step {d:+.2f})", flush=True)


if __name__ == "__main__":
    main()
