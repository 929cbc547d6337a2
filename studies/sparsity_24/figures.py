"""Figures of the 2:4 study from its tables.

python studies/sparsity_24/figures.py    writes map.png and measured.png beside this file (after run.py)
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).resolve().parent
INK, MUTED, GRID = "#1a1a1a", "#666666", "#dddddd"
NAMES = {
    "a100-sxm4-80gb": "A100", "rtx-3090": "RTX 3090", "l4": "L4", "h100-sxm": "H100", "b200": "B200",
    "jetson-agx-orin-64gb": "AGX Orin",
}  # fmt: skip


def rows_of(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gain_map() -> None:
    """Dense over 2:4 time over M (rows of activations) and N = K, a panel a device and format."""
    rows = rows_of("map.csv")
    keys = list(dict.fromkeys((r["device"], r["precision"]) for r in rows))
    columns = [c for c in rows[0] if c.startswith("m") and c[1:].isdigit()]
    figure, axes = plt.subplots(2, 4, figsize=(12.5, 5.6), sharex=True, sharey=True)
    image = None
    for axis, key in zip(axes.flat, keys, strict=True):
        some = [r for r in rows if (r["device"], r["precision"]) == key]
        values = np.array([[float(r[c]) for c in columns] for r in some])
        image = axis.imshow(values, origin="lower", aspect="auto", cmap="RdYlBu_r", vmin=0.5, vmax=2.0)
        lines = axis.contour(values, levels=[1.1, 1.5], colors=[INK], linewidths=[0.8, 1.4])
        axis.clabel(lines, fmt="%.1f", fontsize=7)
        axis.set_title(f"{NAMES[key[0]]}, {key[1]}", fontsize=9, loc="left", color=INK)
        axis.set_xticks(range(0, len(columns), 3), [columns[i][1:] for i in range(0, len(columns), 3)], fontsize=7)
        axis.set_yticks(range(len(some)), [r["nk"] for r in some], fontsize=7)
        axis.tick_params(colors=MUTED)
    for axis in axes[1]:
        axis.set_xlabel("M, rows of activations", fontsize=8, color=MUTED)
    for axis in axes[:, 0]:
        axis.set_ylabel("N = K", fontsize=8, color=MUTED)
    bar = figure.colorbar(image, ax=axes, fraction=0.025, pad=0.015)
    bar.set_label("dense / 2:4 time", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(HERE / "map.png", dpi=120, bbox_inches="tight")


def against_measured() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for m, marker in ((768, "s"), (1024, "o")):
        some = sorted(
            (r for r in rows_of("venom.csv") if (r["M"], r["N"]) == (str(m), "4096")), key=lambda r: int(r["K"])
        )
        k = [int(r["K"]) for r in some]
        for name, colour in (("dense", "#2a6f97"), ("sparse", "#9e2a2b")):
            left.plot(k, [float(r[f"{name}_us"]) for r in some], marker, color=colour, markersize=4)
            line = "-" if m == 1024 else "--"
            label = f"{'2:4' if name == 'sparse' else 'dense'}, M = {m}"
            left.plot(
                k, [float(r[f"{name}_predicted_us"]) for r in some], line, color=colour, linewidth=1.2, label=label
            )
    left.set_xlabel("K", fontsize=9)
    left.set_ylabel("µs", fontsize=9)
    left.set_title("RTX 3090, fp16, N = 4096: VENOM (dots), model (lines)", fontsize=9, loc="left")
    left.legend(fontsize=8, frameon=False)
    colours = {"A100": "#2a6f97", "A30": "#7fb069", "L4": "#e09f3e"}
    for device, colour in colours.items():
        some = [r for r in rows_of("networks.csv") if r["device"] == device]
        gains = [[float(r[c]) for r in some] for c in ("gain", "gain_predicted")]
        right.plot(*gains, "o", color=colour, markersize=4, alpha=0.6, label=device)
    right.plot([0.9, 1.8], [0.9, 1.8], color=MUTED, linewidth=0.8)
    right.set_xlabel("measured, dense over 2:4", fontsize=9)
    right.set_ylabel("predicted", fontsize=9)
    right.set_title("demoBERT int8 BERT-large, batch 1 to 128", fontsize=9, loc="left")
    right.legend(fontsize=8, frameon=False)
    for axis in (left, right):
        axis.grid(color=GRID, linewidth=0.6)
        axis.tick_params(labelsize=8, colors=MUTED)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "measured.png", dpi=120)


if __name__ == "__main__":
    gain_map()
    against_measured()
