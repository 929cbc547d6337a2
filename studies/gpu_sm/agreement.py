"""How far the closed form of the main loop is from the twin, on random tiles of every style.

python studies/gpu_sm/agreement.py [N] [SEED]      N tiles a style (150); writes agreement.csv beside this file
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

import numpy as np

from hwsim.timing.gpu_sm import CIRCUITS
from hwsim.timing.reference.gpu_samples import STYLES, closed_form, random_case
from hwsim.timing.reference.gpu_steady import period, run_tile

HERE = Path(__file__).resolve().parent
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def compare(style: str, number: int, seed: int) -> list[tuple[str, float, bool]]:
    """Limiting circuit, twin over closed form, and whether the twin showed a period, of ``number`` random tiles."""
    rng = random.Random(f"{style}{seed}")
    found = []
    for _ in range(number):
        tile, config, residents = random_case(rng.randint, style)
        clocks, periodic = period(run_tile(tile, config, residents, 60 + 2 * tile.stages), tile.stages)
        form = closed_form(tile, config, residents)
        found.append((CIRCUITS[form.limit], float(clocks) / form.cycles, periodic))
    return found


def main() -> None:
    number, seed = (int(x) for x in [*sys.argv[1:], 150, 1][:2]) if len(sys.argv) < 3 else map(int, sys.argv[1:3])
    with (HERE / "agreement.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["style", "limit", "tiles", "periodic", "exact_share", *(f"q{100 * q:g}" for q in QUANTILES)])
        for style in STYLES:
            rows = compare(style, number, seed)
            for limit in ("all", *CIRCUITS):
                some = [(r, p) for name, r, p in rows if limit in ("all", name)]
                if some:
                    ratios = np.array([r for r, _ in some])
                    exact = float(np.mean(np.abs(ratios - 1) < 1e-9))
                    periodic = float(np.mean([p for _, p in some]))
                    quantiles = [f"{q:.4f}" for q in np.quantile(ratios, QUANTILES)]
                    writer.writerow([style, limit, len(some), f"{periodic:.3f}", f"{exact:.3f}", *quantiles])
            file.flush()


if __name__ == "__main__":
    main()
