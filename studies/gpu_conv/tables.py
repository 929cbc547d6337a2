"""Tables of the suite gpu-conv: PYTHONPATH=. python studies/gpu_conv/tables.py [--data DIR] [--before FILE]

Writes classes.csv (device x algorithm x shape class: errors beside a roofline) and harness.csv (the same rows without one thing
that is known of how a source measured). ``--before`` is a CSV of an earlier version's predictions (machine, dtype, N, C, H,
W, K, R, S, pred in us), for the columns of that name.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.validate import Outcome, gpu_conv, validate

HERE = Path(__file__).resolve().parent
FIELDS = ("device", "precision", "group", "size")
WITHOUT: dict[str, Callable[[Any], Any]] = {
    "as measured": lambda s: s,
    "host time does not grow": lambda s: replace(s, growth_us=0.0, overhead_us=45.0 if s.growth_us else s.overhead_us),
    "clock is the highest": lambda s: replace(s, clock_hz=0.0),
    "power limits at once": lambda s: replace(s, settle_us=0.0),
    "filters are ready": lambda s: replace(s, prepared=True),
    "calls have no pace": lambda s: replace(s, pace_us=0.0),
}


def errors(values: list[float]) -> list[object]:
    """Median, 90th percentile and bias in percent of ratios of prediction to measurement."""
    if not values:
        return ["", "", ""]
    ratio = np.array(values)
    error = 100 * np.abs(ratio - 1)
    return [f"{v:.1f}" for v in (np.median(error), np.quantile(error, 0.9), 100 * (np.median(ratio) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--before")
    args = parser.parse_args()
    earlier = {}
    if args.before:
        with Path(args.before).open(encoding="utf-8", newline="") as file:
            for r in csv.DictReader(file):
                key = (r["machine"], r["dtype"], *(int(r[x]) for x in "NCHWKRS"))
                earlier[key] = float(r["pred"]) * 1e-6
    found = validate("gpu-conv", data=args.data).counted
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for o in found:
        key = tuple(str(getattr(o.case, f)) for f in FIELDS)
        for part in (key, (*key[:3], "all"), (*key[:2], "all", "all")):
            groups.setdefault(part, []).append(o)
    with (HERE / "classes.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        names = [
            f"{who}_{what}" for who in ("", "roofline", "before") for what in ("median_pct", "p90_pct", "bias_pct")
        ]
        out.writerow([*FIELDS, "rows", *(name.lstrip("_") for name in names)])
        for key, mine in sorted(groups.items()):
            old = [v / o.case.measured for o in mine if (v := earlier.get(_key(o))) is not None]
            line = [
                *errors([o.ratio for o in mine]),
                *errors([o.roofline / o.case.measured for o in mine]),
                *errors(old),
            ]
            out.writerow([*key, len(mine), *line])
    with (HERE / "harness.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["without", "device", "precision", "rows", "median_pct", "p90_pct", "bias_pct"])
        cases = [o.case for o in found]
        stated = gpu_conv.source_of
        for name, change in WITHOUT.items():
            gpu_conv.source_of = lambda *a, change=change: change(stated(*a))
            ratios: dict[tuple[str, str], list[float]] = {}
            for o in gpu_conv.predict(cases):
                ratios.setdefault((o.case.device, o.case.precision), []).append(o.ratio)
            for key, values in sorted(ratios.items()):
                out.writerow([name, *key, len(values), *errors(values)])
        gpu_conv.source_of = stated


def _key(o: Outcome) -> tuple[Any, ...]:
    shape = o.case.question["shape"]
    return (o.case.target, o.case.precision, *(shape[x] for x in "nchwkrs"))


if __name__ == "__main__":
    main()
