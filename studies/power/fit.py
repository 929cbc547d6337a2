"""Fit the four constants of Jetson wall power (power.toml) on the rows of v1.1 and v3.0, at their measured rates.

python studies/power/fit.py           prints the constants, whether one is at its bound, and the error on fitted and held-out rows
python studies/power/fit.py --free    the same with a factor on every component as well, to see what any energies could reach

Fitted: soc_voltage_floor, soc_voltage_knee, carrier_agx, carrier_nx, within the bounds of power.toml, by least squares of
log power (soft L1, so that single rows do not pull). Everything else is as shipped. The rate is the measured one, so that
errors of timing do not enter the constants.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from model import CORE, Modelled, simulate
from rows import Row, jetson_rows, reference

from hwsim.machine import load_constants
from hwsim.power.curve import VoltageCurve

FITTED = ("soc_voltage_floor", "soc_voltage_knee", "carrier_agx", "carrier_nx")
Pair = tuple[Row, Modelled]


def fitted_on(row: Row) -> bool:
    """Rows with stated clocks of the newest round of each board."""
    return row.set == "stated" and row.group in ("mlperf-v1.1", "mlperf-v3.0")


def wall_w(values: dict[str, float], row: Row, found: Modelled) -> float:
    """Power at the wall with other constants than the shipped ones."""
    floor, knee = values["soc_voltage_floor"], values["soc_voltage_knee"]
    c = load_constants("power")
    curve = replace(found.curve, floor_v=floor * found.curve.top_v, knee_hz=knee * found.curve.top_hz)
    core = float(curve.dynamic(found.clock_hz)) / found.scale
    work = sum(joules * (core if name in CORE else 1.0) for name, joules in found.work_j.items())
    static = dict(found.static_w)
    static["clocks"] *= core
    if "cpu" in static:
        ratio = found.cpu_ratio
        old, new = (
            VoltageCurve(f, 1.0, k, max(1.0, ratio), 1.0).clocking(ratio)
            for f, k in ((c["soc_voltage_floor"], c["soc_voltage_knee"]), (floor, knee))
        )
        static["cpu"] *= float(new / old)
    carrier = values["carrier_agx" if row.board.startswith("jetson-agx-") else "carrier_nx"]
    return carrier + c["supply"] * (math.fsum(static.values()) + row.rate * work)


def fit(pairs: list[Pair]) -> dict[str, float]:
    """Return the constants."""
    from scipy.optimize import least_squares

    table = load_constants("power").table
    bounds = [table[name] for name in FITTED]

    def errors(x: np.ndarray) -> list[float]:
        values = dict(zip(FITTED, x, strict=True))
        return [math.log(wall_w(values, row, found) / row.watts) for row, found in pairs]

    start = [(b.low + b.high) / 2 for b in bounds]
    found = least_squares(
        errors, start, bounds=([b.low for b in bounds], [b.high for b in bounds]), loss="soft_l1", f_scale=0.1
    )
    return dict(zip(FITTED, found.x.tolist(), strict=True))


FREE = ("matrix", "instructions", "l2", "dram", "static clocks", "static dram", "static cpu")


def with_factors(found: Modelled, factors: dict[str, float]) -> Modelled:
    """Components of the work, and of static power ("static NAME"), multiplied."""
    work = {name: joules * factors.get(name, 1.0) for name, joules in found.work_j.items()}
    static = {name: watts * factors.get(f"static {name}", 1.0) for name, watts in found.static_w.items()}
    return replace(found, work_j=work, static_w=static)


def fit_free(pairs: list[Pair]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the constants and a factor (0.22 to 4.5) for each of `FREE`."""
    from scipy.optimize import least_squares

    table = load_constants("power").table
    bounds = [table[name] for name in FITTED]

    def split(x: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
        factors = {name: math.exp(v) for name, v in zip(FREE, x[len(FITTED) :], strict=True)}
        return dict(zip(FITTED, x[: len(FITTED)].tolist(), strict=True)), factors

    def errors(x: np.ndarray) -> list[float]:
        values, factors = split(x)
        return [math.log(wall_w(values, row, with_factors(found, factors)) / row.watts) for row, found in pairs]

    low, high = [b.low for b in bounds] + [-1.5] * len(FREE), [b.high for b in bounds] + [1.5] * len(FREE)
    start = [(b.low + b.high) / 2 for b in bounds] + [0.0] * len(FREE)
    return split(least_squares(errors, start, bounds=(low, high), loss="soft_l1", f_scale=0.1).x)


def report(values: dict[str, float], pairs: list[Pair]) -> None:
    """Print errors of fitted and held-out rows, and of ratios of two rows of one board and round."""
    for label, keep in (("fitted", True), ("held out", False)):
        error = [abs(wall_w(values, *p) / p[0].watts - 1) for p in pairs if fitted_on(p[0]) is keep]
        print(f"{label:8s} {len(error)} rows: median {np.median(error):.1%}, 90 % within {np.quantile(error, 0.9):.1%}")
    over = [(row, wall_w(values, row, found) / row.watts) for row, found in pairs]
    same = [
        abs(b / a - 1)
        for i, (row, b) in enumerate(over)
        for other, a in over[:i]
        if (row.board, row.group, row.set) == (other.board, other.group, other.set)
    ]
    print(f"ratios   {len(same)} pairs: median {np.median(same):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the reference data")
    parser.add_argument("--free", action="store_true", help="a factor on every component as well")
    args = parser.parse_args()
    pairs = [(row, simulate(row)) for row in jetson_rows(reference(args.data))]
    if args.free:
        values, factors = fit_free([p for p in pairs if fitted_on(p[0])])
        print(", ".join(f"{name} {value:.3g}" for name, value in {**values, **factors}.items()))
        report(values, [(row, with_factors(found, factors)) for row, found in pairs])
        return
    values = fit([p for p in pairs if fitted_on(p[0])])
    table = load_constants("power").table
    for name, value in values.items():
        bound = table[name]
        at = " (at its bound)" if min(value - bound.low, bound.high - value) < 0.01 * (bound.high - bound.low) else ""
        print(f"{name:20s} {value:.4g} within {bound.low:g} to {bound.high:g}{at}; shipped {bound.value:g}")
    report(values, pairs)


if __name__ == "__main__":
    main()
