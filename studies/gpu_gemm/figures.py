"""Figures of the study, from scored rows: `python studies/gpu_gemm/figures.py` (validate.py --predictions PATH first, or none).

predicted.png: predicted against measured per group; errors.png: distribution of |error| beside a roofline and a linear fit;
shapes.png: time over M of a few products; sparse.png: VENOM's dense and 2:4 products over K.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import fit
import numpy as np
import pandas as pd
import rows as data
import validate

HERE = Path(__file__).resolve().parent


def scored(path: str | None, folder: str | None) -> pd.DataFrame:
    """Return rows with predicted, roofline and linear microseconds."""
    if path:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    rows = data.load(folder)
    training = fit.training(rows)
    rows["predicted"] = validate.predict_all(rows)
    rows["roofline"] = validate.roofline(rows)
    rows["linear"] = validate.linear(rows, pd.concat(training.values()), len(fit.Problem(training).keys))
    return rows


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--predictions")
    options = parser.parse_args()
    rows = scored(options.predictions, options.data)
    keep = validate.above_floor(rows)
    groups = {name: rows["set"].str.fullmatch(pattern) & keep for name, (pattern, _) in validate.GROUPS.items()}
    plt.rcParams.update({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False})

    figure, axes = plt.subplots(2, 3, figsize=(11, 7))
    for axis, (name, mask) in zip(axes.flat, groups.items(), strict=False):
        for label, mine in rows[mask].groupby(rows["machine"] + " " + rows["dtype"]):
            axis.loglog(mine["us"], mine["predicted"], ".", ms=1.6, alpha=0.5, label=label)
        span = np.array([1.5, rows["us"].max()])
        axis.loglog(span, span, "k-", lw=0.6)
        for factor in (0.8, 1.25):
            axis.loglog(span, span * factor, "k:", lw=0.5)
        error = 100 * (rows["predicted"] / rows["us"] - 1)[mask].abs()
        axis.set_title(f"{name}: {mask.sum()} rows, median {error.median():.1f} %", fontsize=8)
        axis.set_xlabel("measured, µs")
        axis.set_ylabel("predicted, µs")
        axis.legend(markerscale=5, fontsize=6, frameon=False)
    axes.flat[-1].axis("off")
    figure.tight_layout()
    figure.savefig(HERE / "predicted.png", dpi=130)

    figure, axes = plt.subplots(1, len(groups), figsize=(13, 2.9), sharey=True)
    for axis, (name, mask) in zip(axes, groups.items(), strict=True):
        mine = rows[mask]
        for column, label in (("predicted", "hwsim"), ("linear", "linear fit"), ("roofline", "roofline")):
            error = np.sort(100 * (mine[column] / mine["us"] - 1).abs())
            axis.plot(error, np.linspace(0, 100, len(error)), label=label)
        axis.set_xscale("log")
        axis.set_xlim(0.5, 200)
        axis.axvline(10, color="0.8", lw=0.6, zorder=0)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("|error|, %")
    axes[0].set_ylabel("rows, %")
    axes[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(HERE / "errors.png", dpi=130)

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6))
    busiest = [
        ("aic/a100-sxm4-80gb/bf16", 3), ("aic/h100-sxm/bf16", 3), ("aic/h100-sxm/fp8", 2),
    ]  # fmt: skip
    panels = []
    for name, count in busiest:
        pairs = rows[rows["set"] == name].groupby(["N", "K"]).size().nlargest(12).index
        panels += [(name, n, k) for n, k in pairs[:: 12 // count][:count]]
    for axis, (name, n, k) in zip(axes.flat, panels, strict=False):
        mine = rows[(rows["set"] == name) & (rows["N"] == n) & (rows["K"] == k)].sort_values("M")
        axis.loglog(mine["M"], mine["us"], "k.", ms=4, label="measured")
        sizes = np.unique(np.geomspace(1, mine["M"].max(), 160).astype(int))
        line = pd.concat([mine.iloc[:1]] * len(sizes), ignore_index=True)
        line["M"] = sizes
        line["framework"] = "trtllm"
        axis.loglog(sizes, data.predict(line), "-", lw=1, label="model")
        axis.loglog(sizes, validate.roofline(line), "0.7", lw=0.8, label="roofline")
        axis.set_title(f"{name}, N {n}, K {k}", fontsize=7)
        axis.set_xlabel("M")
    axes[0, 0].legend(frameon=False, fontsize=6)
    axes[0, 0].set_ylabel("µs")
    axes[1, 0].set_ylabel("µs")
    figure.tight_layout()
    figure.savefig(HERE / "shapes.png", dpi=130)

    figure, axis = plt.subplots(figsize=(5, 3.4))
    for sparsity, color in (("dense", "C0"), ("2:4", "C1")):
        for m, marker in ((768, "o"), (1024, "s")):
            venom = (rows["src"] == "venom") & (rows["M"] == m) & (rows["N"] == 4096) & (rows["sparsity"] == sparsity)
            mine = rows[venom].sort_values("K")
            axis.plot(mine["K"], mine["us"], color + marker, ms=3, label=f"{sparsity}, M {m}: measured")
            axis.plot(mine["K"], mine["predicted"], color + ("-" if m == 768 else "--"), lw=1)
    axis.set_xlabel("K")
    axis.set_ylabel("µs")
    axis.set_title("RTX 3090 fp16, N 4096 (VENOM): cuBLAS and cuSPARSELt; lines: model", fontsize=8)
    axis.legend(frameon=False, fontsize=6)
    figure.tight_layout()
    figure.savefig(HERE / "sparse.png", dpi=130)


if __name__ == "__main__":
    main()
