"""Predictions of whole networks on GPUs beside every comparable measured row, and a plain roofline on the same rows.

    PYTHONPATH=. python studies/gpu_networks/run.py [--source S] [--machine M] [--all] [--csv FILE]

A prediction is latency; ``error`` is predicted over measured minus one. The roofline is the larger of multiply-accumulates at
the peak of the precision and weights plus inputs and outputs at the DRAM peak, per network.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

import hwsim
from hwsim.errors import HwsimError
from hwsim.validate.gpu_network_rows import RULES, Row, host_seconds, network_rows, neusight_rows, trtutils_rows
from hwsim.validate.measured import measured_dir


def predict(row: Row) -> dict[str, Any]:
    """One row's prediction, or why there is none."""
    try:
        res = hwsim.simulate(
            row.trace, row.machine, batch=row.batch, shapes=dict(row.shapes), precision=row.precision,
            sparsity=None if row.sparsity in ("", "dense") else "2:4", stack=row.stack,
        )  # fmt: skip
    except HwsimError as error:
        return {"refused": str(error)}
    peak = res.accelerator.peak_ops_per_s(_peak_format(row.precision)) / 2 or float("nan")
    bandwidth = res.accelerator.dram.bandwidth_bytes_per_s
    roof = max(res.macs / peak, res.plan.weight_bytes / bandwidth)
    waited = host_seconds(row.source, row.machine.split(":")[0], len(res.plan.kernels))
    seconds = max(res.latency_s, waited) + RULES["source"].get(row.source, {}).get("overhead_us", 0) * 1e-6
    return {
        "predicted_s": seconds,
        "roofline_s": roof,
        "kernels": len(res.kernels),
        "bound": res.bound_by,
        "result": res,
    }


def _peak_format(precision: str) -> str:
    return {"int8": "int8", "fp16": "fp16", "fp32": "fp32", "tf32": "tf32", "bf16": "bf16"}[precision]


def summary(rows: list[dict[str, Any]], by: str) -> list[tuple[str, int, float, float, float, float]]:
    """(group, rows, median |error|, 90th percentile, share within 30 %, bias) by a column."""
    out = []
    for name in dict.fromkeys(str(r[by]) for r in rows):
        ratios = np.array([r["predicted_s"] / r["measured_s"] for r in rows if str(r[by]) == name])
        error = np.abs(ratios - 1)
        out.append((name, len(error), float(np.median(error)), float(np.quantile(error, 0.9)),
                    float((error <= 0.3).mean()), float(np.median(ratios) - 1)))  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", default="")
    parser.add_argument("--machine", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--all", action="store_true", help="excluded rows too, where they can be run")
    parser.add_argument("--csv", default="")
    parser.add_argument("--rows", action="store_true", help="print every row")
    parser.add_argument("--data", help="a folder with the measured tables (default: those hwsim ships)")
    args = parser.parse_args()
    folder = measured_dir(args.data)
    rows = [
        r for r in [*network_rows(folder), *trtutils_rows(folder), *neusight_rows(folder)] if args.all or not r.excluded
    ]
    rows = [r for r in rows if args.source in r.source and args.machine in r.machine and args.model in r.model]
    scored: list[dict[str, Any]] = []
    refused: dict[str, int] = {}
    for row in rows:
        if not row.trace or not row.batch:
            continue
        got = predict(row)
        if "refused" in got:
            refused[got["refused"][:120]] = refused.get(got["refused"][:120], 0) + 1
            continue
        scored.append({**{k: getattr(row, k) for k in ("source", "machine", "model", "trace", "batch", "precision", "sparsity",
                                                       "measured_s", "scenario", "software", "excluded")},
                       "shapes": " ".join(f"{k}={v}" for k, v in row.shapes), **got})  # fmt: skip
    for r in scored if args.rows else ():
        ratio, roof = r["predicted_s"] / r["measured_s"], r["roofline_s"] / r["measured_s"]
        name = f"{r['source']:22s} {r['machine']:22s} {r['model'][:26]:26s} {r['shapes']:8s} b{r['batch']:<5d}"
        times = f"{r['measured_s'] * 1e3:9.3f} {r['predicted_s'] * 1e3:9.3f} {ratio - 1:+7.1%}"
        print(f"{name} {r['precision']:5s} {r['sparsity']:6s} {times}  roof {roof:.2f} {r['bound']}")
    for by in ("source", "machine", "model", "precision"):
        print(f"\n{by:28s} rows  median   p90  <=30%   bias")
        for name, count, median, p90, within, bias in summary(scored, by):
            print(f"{name[:28]:28s} {count:4d} {median:7.1%} {p90:6.1%} {within:6.1%} {bias:+7.1%}")
    if scored:
        ratios = np.array([r["predicted_s"] / r["measured_s"] for r in scored])
        roof = np.array([r["roofline_s"] / r["measured_s"] for r in scored])
        error = np.abs(ratios - 1)
        ranks = np.corrcoef(
            _rank(np.array([r["predicted_s"] for r in scored])), _rank(np.array([r["measured_s"] for r in scored]))
        )
        print(f"\nall {len(scored)}: median {np.median(error):.1%}, p90 {np.quantile(error, 0.9):.1%}, within 30 % "
              f"{(error <= 0.3).mean():.1%}, bias {np.median(ratios) - 1:+.1%}, rank correlation {ranks[0, 1]:.4f}; "
              f"roofline median {np.nanmedian(np.abs(roof - 1)):.1%}")  # fmt: skip
    for text, count in refused.items():
        print(f"refused {count}: {text}")
    if args.csv:
        names = [n for n in scored[0] if n != "result"]
        with Path(args.csv).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
            table.writeheader()
            table.writerows({**r, "measured_s": f"{r['measured_s']:.6g}", "predicted_s": f"{r['predicted_s']:.6g}",
                             "roofline_s": f"{r['roofline_s']:.6g}"} for r in scored)  # fmt: skip


def _rank(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


if __name__ == "__main__":
    main()
