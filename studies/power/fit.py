"""Fit the four constants of Jetson wall power (power.toml) on the rows of v1.1 and v3.0, at their measured rates.

python studies/power/fit.py         prints the constants, whether one is at its bound, and the error on fitted and held-out rows

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the reference data")
    pairs = [(row, simulate(row)) for row in jetson_rows(reference(parser.parse_args().data))]
    values = fit([p for p in pairs if fitted_on(p[0])])
    table = load_constants("power").table
    for name, value in values.items():
        bound = table[name]
        at = " (at its bound)" if min(value - bound.low, bound.high - value) < 0.01 * (bound.high - bound.low) else ""
        print(f"{name:20s} {value:.4g} within {bound.low:g} to {bound.high:g}{at}; shipped {bound.value:g}")
    for label, keep in (("fitted", True), ("held out", False)):
        error = [abs(wall_w(values, *p) / p[0].watts - 1) for p in pairs if fitted_on(p[0]) is keep]
        print(f"{label:8s} {len(error)} rows: median {np.median(error):.1%}, 90 % within {np.quantile(error, 0.9):.1%}")


if __name__ == "__main__":
    main()
