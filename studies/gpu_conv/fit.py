"""Fit the constants of convolutions on CUDA cores: PYTHONPATH=. python studies/gpu_conv/fit.py

Fitted on one row in twelve of NeuSight's on A100 and V100, where power limits no clock, that the shared table lacks; every row
of that table and all rows of T4, P100 and P4 are held out. The algorithm of a row is the recorded one, so that costs are
fitted, not choices. Prints the constants of accelerators/constants/gpu.toml, and host times of gpu_conv_sources.csv.
"""

from __future__ import annotations

import numpy as np
from rows import Row, kernels_of, load, times, view_of, with_constants
from scipy.optimize import least_squares

FITTED = ("A100-PCIE-80GB", "V100-PCIE-32GB")
SETTLE_US = 2500.0
NAMED = ("winograd", "winograd_4x4", "implicit_gemm")
BOUNDS = {
    "winograd_simt": (0.4, 1.0), "winograd_results": (10.0, 600.0), "winograd_filters": (0.2, 1.0),
    "winograd_planes": (0.2, 1.0), "winograd_filter_planes": (0.1, 1.0), "winograd_pieces": (0.3, 1.0),
    "implicit_simt": (0.4, 1.0),
}  # fmt: skip


def main() -> None:
    every = [r for r in load() if not r.in_reference and r.device in FITTED and r.algorithm in NAMED]
    chosen = {d: [r for r in every if r.device == d][::12] for d in FITTED}
    views = {d: view_of(d) for d in FITTED}
    kernels = {d: kernels_of(chosen[d], views[d]) for d in FITTED}
    names = list(BOUNDS)
    start = [views[FITTED[0]].constants[name] for name in names] + [30.0] * len(FITTED) + [60.0] * len(FITTED)

    def residuals(x: np.ndarray) -> np.ndarray:
        out = []
        for i, d in enumerate(FITTED):
            view = with_constants(views[d], **dict(zip(names, x, strict=False)))
            got = times(kernels[d], view, SETTLE_US)
            out += [
                np.log((got[r.algorithm][j] + host(r, x, i)) / r.us)
                for j, r in enumerate(chosen[d])
            ]  # fmt: skip
        return np.array(out)

    def host(r: Row, x: np.ndarray, i: int) -> float:
        return float(x[len(names) + i] + x[len(names) + len(FITTED) + i] * r.position / 1000)

    low = [BOUNDS[name][0] for name in names] + [0.0] * 2 * len(FITTED)
    high = [BOUNDS[name][1] for name in names] + [100.0] * len(FITTED) + [200.0] * len(FITTED)
    found = least_squares(
        residuals, start, bounds=(low, high), x_scale=np.abs(start), loss="soft_l1", f_scale=0.1, diff_step=0.02,
        max_nfev=12,
    )  # fmt: skip
    for name, value in zip(names, found.x, strict=False):
        print(f"{name:24s} {value:.3g}")
    for i, d in enumerate(FITTED):
        print(
            f"{d:24s} overhead {found.x[len(names) + i]:.0f} us, growth {found.x[len(names) + len(FITTED) + i]:.0f} us"
        )
    error = np.abs(np.expm1(found.fun))
    print(f"{len(error)} rows: median {np.median(error):.1%}, 90 % within {np.quantile(error, 0.9):.1%}")


if __name__ == "__main__":
    main()
