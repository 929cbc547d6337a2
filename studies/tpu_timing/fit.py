"""Fit the constants of the TPU family through hwsim's own planner, lowering and engine.

python studies/tpu_timing/fit.py [--reference DIR] [--other] [--ablation]

Prints every fitted value beside the shipped one and writes fit.csv; ``--other`` also fits on the other half of the
rows, ``--ablation`` writes ablation.csv (each term removed, the rest kept and refitted). Bounds are those of
accelerators/constants/systolic.toml; a value at its bound is said to be.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

import reference_rows as rows
import retime
from retime import Floats

from hwsim.errors import HwsimError
from hwsim.plan.plan import Plan

HERE = Path(__file__).resolve().parent
V4 = "tpu-v4"
# Start and first step of the search; the bounds are in the constants' own file.
MATMUL: dict[str, tuple[float, float]] = {
    "kernel_overhead": (1e-6, 0.1e-6),
    "converting_rate_serial": (0.75, 0.08),
    "converting_rate_piped": (0.75, -0.08),
    "epilogue_cycles": (3.0, 0.6),
    "idle_arrays": (0.5, -0.15),
    "prologue_cycles": (10.0, 3.0),
}
VECTOR: dict[str, tuple[float, float]] = {
    "decode_cycles": (5.0, 0.8),
    "megacore_start": (4e-6, 1.5e-6),
    "row_cycles": (1.0, 0.5),
}
Bools = npt.NDArray[np.bool_]


def loss(predicted: Floats, measured: Floats) -> float:
    """Robust mean of |log ratio|: outliers count linearly, and half as much again up to 0.3."""
    error = np.abs(np.log(np.maximum(predicted, 1e-3) / measured))
    return float(np.mean(np.sqrt(error**2 + 4e-4)) + 0.5 * np.mean(np.minimum(error, 0.3)))


def search(
    objective: Callable[[dict[str, float]], float],
    start: Mapping[str, tuple[float, float]],
    base: Mapping[str, float],
    evaluations: int,
) -> dict[str, float]:
    """Nelder-Mead over ``start`` (value, first step) inside the shipped bounds; the other constants stay ``base``."""
    from scipy.optimize import minimize

    table = retime.shipped(V4).table
    names = list(start)
    low, high = (np.array([getattr(table[n], side) for n in names]) for side in ("low", "high"))
    first = np.array([start[n][0] for n in names])
    step = np.array([start[n][1] for n in names])

    def whole(x: Floats) -> dict[str, float]:
        return {**base, **dict(zip(names, (float(v) for v in np.clip(first + x * step, low, high)), strict=True))}

    def bounded(x: Floats) -> float:
        value = first + x * step
        outside = np.maximum(low - value, 0) + np.maximum(value - high, 0)
        return objective(whole(x)) + float(np.sum(outside / np.abs(step)))

    simplex = np.vstack([np.zeros(len(names)), np.eye(len(names))])
    options = {"maxfev": evaluations, "xatol": 5e-3, "fatol": 2e-5, "initial_simplex": simplex}
    return whole(minimize(bounded, np.zeros(len(names)), method="Nelder-Mead", options=options).x)


def halves(count: int) -> tuple[Bools, Bools]:
    """Rows to fit on (even places of the sorted rows) and rows held out."""
    even = np.arange(count) % 2 == 0
    return even, ~even


def summary(predicted: Floats, measured: Floats) -> str:
    error = np.abs(predicted / measured - 1) * 100
    return f"median {np.median(error):5.2f}  mean {error.mean():5.2f}  p95 {np.quantile(error, 0.95):5.1f} %  n {len(error)}"


def fit_copies(directory: Path, even: bool = True) -> tuple[float, float]:
    """Latency of a copy (us) and sustained over peak bandwidth, on half of the HBM copies."""
    from scipy.optimize import minimize

    found = rows.copies(directory)
    size, value = (np.array(x, float) for x in ([r.sizes[0] for r in found], [r.value for r in found]))
    fit, held = halves(len(found))
    fit = fit if even else held
    peak = retime.view_of(V4).dram_read * retime.view_of(V4).clock_hz / 1e6  # bytes per us

    def objective(x: Floats) -> float:
        return float(np.mean(np.abs(np.log(np.maximum(x[0] + size / (x[1] * peak), 1e-3) / value))[fit]))

    best = minimize(objective, [0.5, 0.8], method="Nelder-Mead").x
    print(f"copies        {summary((best[0] + size / (best[1] * peak))[~fit], value[~fit])}  (held out)")
    return float(best[0]), float(best[1])


class Products:
    """The TPU v4 matrix products: plans made once, timed with any constants."""

    def __init__(self, directory: Path) -> None:
        found = rows.matmuls(directory)
        self.mnk = np.array([r.sizes for r in found], float)
        self.measured = np.array([r.value for r in found])
        self.plans = retime.plans(retime.product, [r.sizes for r in found], V4, "fp16")

    def times(self, constants: Mapping[str, float], which: Bools) -> Floats:
        return retime.times_us([self.plans[i] for i in np.flatnonzero(which)], V4, constants)

    def fit(
        self, which: Bools, base: Mapping[str, float], start: Mapping[str, tuple[float, float]], evaluations: int
    ) -> dict[str, float]:
        return search(lambda c: loss(self.times(c, which), self.measured[which]), start, base, evaluations)


def fit_vector(directory: Path, base: Mapping[str, float], even: bool = True) -> dict[str, float]:
    """decode_cycles, megacore_start and row_cycles together on the additions above 2e5 elements and the layer norms."""
    jobs: list[tuple[str, list[Plan], Floats, Bools]] = []
    for name, found, make in (
        ("add", [r for r in rows.adds(directory) if r.elements > 2e5], retime.add),
        ("layer_norm", rows.layer_norms(directory, "main"), retime.layer_norm),
    ):
        fit, held = halves(len(found))
        made = retime.plans(make, [r.sizes for r in found], V4, "fp16")
        jobs.append((name, made, np.array([r.value for r in found]), fit if even else held))

    def times(constants: Mapping[str, float], made: Sequence[Plan], which: Bools) -> Floats:
        return retime.times_us([p for p, use in zip(made, which, strict=True) if use], V4, constants)

    constants = search(
        lambda c: sum(loss(times(c, made, fit), value[fit]) for _, made, value, fit in jobs), VECTOR, base, 150
    )
    for name, made, value, fit in jobs:
        print(f"{name:13s} {summary(times(constants, made, ~fit), value[~fit])}  (held out)")
    return constants


def fit_all(directory: Path, products: Products, evaluations: int, even: bool = True) -> dict[str, float]:
    """All constants on one half of the rows; prints scores on the other."""
    fit, held = halves(len(products.measured))
    if not even:
        fit, held = held, fit
    base = dict(retime.shipped(V4))
    latency_us, base["memory_efficiency"] = fit_copies(directory, even)
    constants = products.fit(fit, base, MATMUL, evaluations)
    for name, which in (("fit on", fit), ("held out", held)):
        print(f"matmul        {summary(products.times(constants, which), products.measured[which])}  ({name})")
    return {**fit_vector(directory, constants, even), "copy_latency": latency_us * 1e-6}


def ablation(products: Products, shipped: Mapping[str, float], evaluations: int) -> list[list[object]]:
    """Each term made neutral: scores on the held-out half with the rest kept, and with the rest refitted."""
    fit, held = halves(len(products.measured))
    neutral = {
        "none": {},
        "kernel_overhead = 0": {"kernel_overhead": 0.0},
        "converting rates = 1": {"converting_rate_serial": 1.0, "converting_rate_piped": 1.0},
        "epilogue_cycles = 0": {"epilogue_cycles": 0.0},
        "idle_arrays = 0": {"idle_arrays": 0.0},
        "idle_arrays = 1": {"idle_arrays": 1.0},
        "prologue_cycles = 0": {"prologue_cycles": 0.0},
        "memory_efficiency = 1": {"memory_efficiency": 1.0},
        "one window wherever it fits": {"window_edge": float(1 << 20)},
        "window_edge 768": {"window_edge": 768.0},
        "window_edge 896": {"window_edge": 896.0},
        "window_edge 1152": {"window_edge": 1152.0},
        "window_edge 1280": {"window_edge": 1280.0},
        "window_edge 1536": {"window_edge": 1536.0},
    }
    table: list[list[object]] = []
    for name, change in neutral.items():
        base = {**shipped, **change}
        start = {n: (shipped[n], step) for n, (_, step) in MATMUL.items() if n not in change}
        kept = products.times(base, held)
        again = products.times(products.fit(fit, base, start, evaluations), held) if change else kept
        cells: list[object] = [name]
        for predicted in (kept, again):
            error = np.abs(predicted / products.measured[held] - 1) * 100
            cells += [round(float(x), 2) for x in (np.median(error), error.mean(), np.quantile(error, 0.95))]
        print(
            f"{name:30s} kept {cells[1]:6} {cells[2]:6} {cells[3]:6}   refitted {cells[4]:6} {cells[5]:6} {cells[6]:6}"
        )
        sys.stdout.flush()
        table.append(cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="fit the constants of the TPU family")
    parser.add_argument("--reference", type=Path, default=rows.DEFAULT)
    parser.add_argument("--evaluations", type=int, default=220, help="of the matmul objective")
    parser.add_argument("--other", action="store_true", help="also fit on the other half")
    parser.add_argument("--ablation", action="store_true", help="only ablation.csv, from the shipped constants")
    options = parser.parse_args()
    directory = rows.present(options.reference)
    products = Products(directory)
    shipped = retime.shipped(V4)
    if options.ablation:
        header = ["term", *(f"{w}_{s}_pct" for w in ("kept", "refitted") for s in ("median", "mean", "p95"))]
        write(HERE / "ablation.csv", header, ablation(products, dict(shipped), 70))
        return
    print("fitted on the even rows:")
    found = fit_all(directory, products, options.evaluations)
    other = None
    if options.other:
        print("fitted on the odd rows:")
        other = fit_all(directory, products, options.evaluations, even=False)
    names = [*MATMUL, "memory_efficiency", "decode_cycles", "megacore_start", "row_cycles", "copy_latency"]
    table: list[list[object]] = []
    print(f"{'constant':24s}{'even half':>12s}{'odd half':>12s}{'shipped':>12s}   range")
    for name in names:
        odd = f"{other[name]:.5g}" if other else ""
        if name not in shipped.table:  # part of kernel_overhead in hwsim; validate.py needs it for copies on their own
            print(f"{name:24s}{found[name]:12.5g}{odd:>12s}")
            table.append([name, f"{found[name]:.5g}", odd, "", "", ""])
            continue
        entry = shipped.table[name]
        at = " (at its bound)" if found[name] in (entry.low, entry.high) else ""
        print(f"{name:24s}{found[name]:12.5g}{odd:>12s}{entry.value:12.5g}   {entry.low:g} to {entry.high:g}{at}")
        table.append([name, f"{found[name]:.5g}", odd, f"{entry.value:.5g}", f"{entry.low:g}", f"{entry.high:g}"])
    write(HERE / "fit.csv", ["constant", "even_half", "odd_half", "shipped", "low", "high"], table)


def write(path: Path, header: Sequence[str], table: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(table)


if __name__ == "__main__":
    try:
        main()
    except HwsimError as error:
        sys.exit(str(error))
