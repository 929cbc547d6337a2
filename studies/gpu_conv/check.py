"""Errors by device and recorded algorithm: PYTHONPATH=. python studies/gpu_conv/check.py [--write]

Twice: of the recorded algorithm (is its cost right?), and of the fastest candidate (is the choice right as well?). Rows
of the fit are left out. ``--write`` writes algorithms.csv.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from rows import kernels_of, load, times, view_of

from hwsim.validate.gpu_conv import source_of

HERE = Path(__file__).resolve().parent


def main() -> None:
    out = []
    rows = load()
    for device in dict.fromkeys(r.device for r in rows):
        mine = [r for r in rows if r.device == device]
        if device not in ("P100-PCIE-16GB", "P4"):
            mine = [r for r in mine if r.in_reference]
        view, source = view_of(device), source_of("neusight", device, "fp32")
        assert source is not None
        got = times(kernels_of(mine, view), view, source.settle_us)
        host = np.array([source.overhead_us + source.growth_us * r.position / 1000 for r in mine])
        best = np.fmin.reduce(list(got.values())) + host
        pick = np.array(list(got))[np.nanargmin(np.array(list(got.values())), axis=0)]
        us = np.array([r.us for r in mine])
        for algorithm in sorted({r.algorithm for r in mine}):
            at = np.array([r.algorithm == algorithm for r in mine])
            known = got[algorithm] + host if algorithm in got else np.full(len(mine), np.nan)
            line = [device, algorithm, int(at.sum())]
            for seconds in (known, best):
                ratio = (seconds / us)[at]
                error = np.abs(ratio - 1)
                line += [
                    round(float(100 * v), 1) for v in (np.median(error), np.quantile(error, 0.9), np.median(ratio) - 1)
                ]
            line += [round(100 * float(np.mean(pick[at] == algorithm)))]
            out.append(line)
            print(f"{line[0]:16s} {line[1]:22s} {line[2]:5d} " + " ".join(f"{v:7.1f}" for v in line[3:]))
    if "--write" in sys.argv:
        with (HERE / "algorithms.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["device", "algorithm", "rows", "known_median_pct", "known_p90_pct", "known_bias_pct",
                            "chosen_median_pct", "chosen_p90_pct", "chosen_bias_pct", "same_choice_pct"])  # fmt: skip
            table.writerows(out)


if __name__ == "__main__":
    main()
