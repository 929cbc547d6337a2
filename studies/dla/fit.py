"""Fit and score the DLA: ``python studies/dla/fit.py`` prints the constants and writes scores.csv; ``--check`` only scores.

Fitted on six rows (dense, ResNet-50, SSD-ResNet-34 and RetinaNet, MAXN and 15 W); everything else is held out: two modes, a
backbone, SSD-MobileNet, all sparse rows, another clock and network (cuDLA), and the DLA of Xavier. The hand-over is fitted on
the two versions of the tutorial's network. ``--arrays`` compares other array shapes of the same peak.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.dla import DlaView, dla_times
from hwsim.validate.dla import engine_of, engine_seconds
from hwsim.validate.measured import SHIPPED, table

HERE = Path(__file__).parent
ROWS = list(table(SHIPPED / "measured_dla.csv"))
NAMES = ("bandwidth", "efficiency", "exposed", "layer")
BOUNDS = {"bandwidth": (0.1, 0.5), "efficiency": (0.6, 1.0), "exposed": (0.0, 1.0), "layer": (1e-6, 20e-6)}


def view_of(row: dict[str, str], constants: dict[str, float]) -> DlaView:
    """The engine of a row with other constants."""
    engine = engine_of(row)
    share = constants.get("bandwidth")
    changes = {name: constants[key] for name, key in (("efficiency",) * 2, ("exposed",) * 2) if key in constants}
    if "layer" in constants:
        changes["layer_s"] = constants["layer"]
    if share is not None:
        changes["bytes_per_s"] = share * engine.dram_bytes_per_s
    return replace(engine, **changes)


def predicted(row: dict[str, str], constants: dict[str, float], array: tuple[int, int] | None = None) -> float:
    """Images per second of a row."""
    view = view_of(row, constants)
    if array is not None and view.generation == "dla-2":
        peaks = {f: view.channels * view.positions * k for f, k in view.kernels.items()}
        channels, positions = array
        kernels = {f: max(1, peak // (channels * positions)) for f, peak in peaks.items()}
        view = replace(view, channels=channels, positions=positions, kernels=kernels)
    return int(row["engines"]) / engine_seconds(row, view)


def errors(rows: list[dict[str, str]], constants: dict[str, float], array: tuple[int, int] | None = None) -> np.ndarray:
    """Predicted over measured time, less one."""
    return np.array([float(r["per_s"]) / predicted(r, constants, array) - 1 for r in rows])


def fitted_rows() -> list[dict[str, str]]:
    """The six rows constants are fitted on."""
    nets = ("resnet50", "ssd_resnet34", "retinanet_resnext50")
    own = [r for r in ROWS if r["set"] == "orin" and r["network"] in nets and not r["dla_mhz"]]
    return [r for r in own if r["target"].endswith((":maxn", ":15w"))]


def fit(array: tuple[int, int] | None = None) -> dict[str, float]:
    """The constants that minimise the mean absolute error of the six rows, within their bounds."""
    from scipy.optimize import minimize

    rows = fitted_rows()
    assert len(rows) == 6
    low, high = (np.array([BOUNDS[n][i] for n in NAMES]) for i in (0, 1))

    def loss(x: np.ndarray) -> float:
        inside = low + (high - low) / (1 + np.exp(-x))
        return float(np.abs(errors(rows, dict(zip(NAMES, inside, strict=True)), array)).mean())

    found = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 500, "xatol": 1e-3, "fatol": 1e-5})
    return dict(zip(NAMES, (low + (high - low) / (1 + np.exp(-found.x))).tolist(), strict=True))


def handover(constants: dict[str, float]) -> float:
    """The hand-over that best explains both versions of the tutorial's network (batches of 32, five and two subgraphs).

    32 images of four convolutions and a linear layer; twenty small GPU kernels stand between the five subgraphs.
    """
    from hwsim.timing.dla import DlaWork

    target = "jetson-agx-orin-64gb:30w"
    view = view_of({"target": target, "dla_mhz": ""}, constants)
    layers = [(256, 9, 3, 3, 64), (64, 9, 3, 64, 128), (16, 9, 3, 128, 256), (4, 9, 3, 256, 512), (1, 1, 1, 512, 10)]
    rows = [
        {
            "images": 32, "positions": p, "taps": t, "row": r, "inputs": c, "outputs": k, "groups": 1,
            "kernels": view.kernels["int8"], "elements": 0, "read_bytes": 0, "write_bytes": 0, "weight_bytes": t * c * k,
            "sparse": False,
        }
        for p, t, r, c, k in layers
    ]  # fmt: skip
    times = dla_times(view, DlaWork.of(rows))
    inside = float((times.layer_s + times.body_s).sum())
    gpu = 20 * gpu_view(load_accelerator(target)).stream_launch_s
    grid = np.linspace(0.02e-3, 1e-3, 981)
    ratios = np.array([(inside + 2 * grid) * 649.723, (inside + gpu + 5 * grid) * 305.926])
    return float(grid[np.abs(np.log(ratios)).sum(axis=0).argmin()])


def score(constants: dict[str, float], array: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Errors by set: fitted, held out (dense rows of Orin that were not), sparse, cudla, xavier."""
    fitted = fitted_rows()
    sets = {"fitted": fitted, "held out": [r for r in ROWS if r["set"] == "orin" and r not in fitted]}
    sets |= {name: [r for r in ROWS if r["set"] == name] for name in ("sparse", "cudla", "xavier")}
    return {name: errors(rows, constants, array) for name, rows in sets.items()}


def main() -> None:
    """Fit (or take what is shipped), print and write the scores."""
    if "--arrays" in sys.argv:
        for array in ((64, 1), (128, 1), (64, 2), (32, 2), (64, 4), (32, 4)):
            found = fit(array)
            text = ", ".join(f"{n} {100 * np.abs(e).mean():.1f} %" for n, e in score(found, array).items())
            print(f"{array[0]} channels x {8192 // array[0] // array[1]} kernels x {array[1]} positions: {text}")
        return
    constants: dict[str, float] = {}
    if "--check" not in sys.argv:
        constants = fit()
        print({k: float(f"{v:.3g}") for k, v in constants.items()}, "handover", f"{handover(constants) * 1e3:.2f} ms")
    for name, found in score(constants).items():
        spread = f"{100 * found.min():+.0f} to {100 * found.max():+.0f} %"
        print(f"{name:9} {len(found):3} rows: mean {100 * np.abs(found).mean():.1f} %, {spread}")
    with (HERE / "scores.csv").open("w", encoding="utf-8", newline="") as handle:
        scores = csv.writer(handle, lineterminator="\n")
        scores.writerow(
            ["set", "network", "target", "dla_mhz", "sparsity", "measured_per_s", "predicted_per_s", "time_error_pct"]
        )
        for row in ROWS:
            rate = predicted(row, constants)
            off = 100 * (float(row["per_s"]) / rate - 1)
            scores.writerow(
                [
                    row["set"],
                    row["network"],
                    row["target"],
                    row["dla_mhz"],
                    row["sparsity"],
                    row["per_s"],
                    f"{rate:.1f}",
                    f"{off:.1f}",
                ]
            )


if __name__ == "__main__":
    main()
