"""Figures of a validation: predicted against measured, and the distribution of errors beside the roofline's."""

from __future__ import annotations

import math
from pathlib import Path

from hwsim.validate.case import Outcome
from hwsim.validate.run import Validation


def write_figures(found: Validation, folder: Path) -> list[Path]:
    """Write ``<suite>.png`` for every suite into ``folder`` (made if it is not there); return the paths."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    suites: dict[str, list[Outcome]] = {}
    for outcome in found.counted:
        if not outcome.refused and math.isfinite(outcome.ratio):
            suites.setdefault(outcome.case.suite, []).append(outcome)
    return [_figure(suite, rows, folder / f"{suite}.png") for suite, rows in suites.items()]


def _figure(suite: str, rows: list[Outcome], path: Path) -> Path:
    import matplotlib.pyplot as plt
    import numpy as np

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    devices = sorted({o.case.target for o in rows})
    colours = plt.get_cmap("tab20")
    ms = 1e3
    for number, device in enumerate(devices):
        mine = [o for o in rows if o.case.target == device]
        left.scatter(
            [o.case.measured * ms for o in mine], [o.predicted * ms for o in mine], s=7, alpha=0.5, linewidths=0,
            color=colours(number % 20), label=f"{device} ({len(mine)})",
        )  # fmt: skip
    low = min(min(o.case.measured, o.predicted) for o in rows) * ms
    high = max(max(o.case.measured, o.predicted) for o in rows) * ms
    left.plot([low, high], [low, high], color="black", linewidth=0.8)
    for factor in (0.7, 1.3):
        left.plot([low, high], [low * factor, high * factor], color="grey", linewidth=0.6, linestyle=":")
    left.set(
        xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", title=f"{suite}: {len(rows)} rows"
    )
    left.legend(fontsize=6, markerscale=2, loc="upper left", ncols=2 if len(devices) > 10 else 1)
    share = np.arange(1, len(rows) + 1) / len(rows) * 100
    errors = np.sort([o.error_pct for o in rows])
    right.plot(errors, share, label=f"hwsim, median {np.median(errors):.1f} %")
    roofs = np.sort([o.roofline_error_pct for o in rows if math.isfinite(o.roofline)])
    if len(roofs):
        at = np.arange(1, len(roofs) + 1) / len(roofs) * 100
        right.plot(roofs, at, linestyle="--", label=f"roofline, median {np.median(roofs):.1f} %")
    right.set(xlim=(0, 100), ylim=(0, 100), xlabel="absolute error, %", ylabel="share of rows, %", title="errors up to")
    right.grid(alpha=0.3)
    right.legend(loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
