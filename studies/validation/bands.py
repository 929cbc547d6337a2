"""Write accelerators/constants/error_bands.csv from all measured rows: python studies/validation/bands.py [--data DIR]

One line a family, kind and quantity; rows that a rule excludes do not count. Every answer of hwsim carries its band.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from hwsim.validate import Outcome, validate

TARGET = Path(__file__).resolve().parents[2] / "accelerators" / "constants" / "error_bands.csv"
KINDS = {  # suite: what kind of answer its rows are about
    "tpu-v3": "kernel", "tpu-v4": "kernel", "gpu-gemm": "kernel", "gpu-conv": "kernel",
    "gpu-networks": "network", "llm": "language model", "dla": "engine",
    "edge-tpu": "network", "cpu": "network",
}  # fmt: skip
HEAD = "# Written by studies/validation/bands.py from hwsim validate: error quantiles of measured rows, do not edit.\n"


def lines(outcomes: list[Outcome]) -> list[list[object]]:
    """The table's rows."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for o in outcomes:
        if not o.refused:
            groups.setdefault((o.case.family, KINDS[o.case.suite], o.case.quantity), []).append(o)
    out: list[list[object]] = []
    for key, rows in sorted(groups.items()):
        error = np.array([o.error_pct for o in rows])
        over = np.array([1 / o.ratio for o in rows])
        low, high = np.percentile(over, [5, 95])
        machines = len({o.case.target.split(":")[0].split("*")[0] for o in rows})
        median, p90 = np.median(error), np.percentile(error, 90)
        out.append([*key, len(rows), machines, f"{median:.1f}", f"{p90:.1f}", f"{low:.3f}", f"{high:.3f}"])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="write the error bands of every family")
    parser.add_argument("--data")
    found = validate(data=parser.parse_args().data)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["family", "kind", "quantity", "rows", "machines", "median_pct", "p90_pct", "low", "high"])
    out.writerows(lines(found.counted))
    TARGET.write_text(HEAD + text.getvalue(), encoding="utf-8")
    print(text.getvalue(), *found.missing, sep="\n")


if __name__ == "__main__":
    main()
