"""The two figures of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from retime import Floats

COLOURS = ("#1b6ca8", "#2a9d8f", "#c8553d", "#6d597a")


def scatter(
    measured: Floats, predicted: Floats, group: npt.NDArray[np.int64], names: Sequence[str], path: Path
) -> None:
    """Predicted against measured time of every product, by size class, and the ratio of the two below."""
    plt = _pyplot()
    fig, (top, low) = plt.subplots(2, 1, figsize=(7, 7.6), sharex=True, gridspec_kw={"height_ratios": (2.2, 1)})
    ends = np.array([measured.min() * 0.8, measured.max() * 1.25])
    top.fill_between(ends, ends * 0.8, ends * 1.2, color="#e9ecef", lw=0, label="within 20 %")
    top.plot(ends, ends, color="#555", lw=0.8)
    low.axhspan(-20, 20, color="#e9ecef", lw=0)
    low.axhline(0, color="#555", lw=0.8)
    for index, name in enumerate(names):
        use = group == index
        style = {"s": 9, "color": COLOURS[index], "alpha": 0.65, "lw": 0}
        top.scatter(measured[use], predicted[use], label=f"{name} ({use.sum()})", **style)
        low.scatter(measured[use], (predicted[use] / measured[use] - 1) * 100, **style)
    top.set(xscale="log", yscale="log", xlim=ends, ylim=ends, ylabel="hwsim, us")
    low.set(xlabel="measured, us", ylabel="error, %", ylim=(-45, 70))
    top.legend(frameon=False, loc="upper left", markerscale=2)
    top.set_title(f"TPU v4, {len(measured)} float16 matrix products")
    _save(fig, (top, low), path)


def cdf(errors: Mapping[str, Floats], path: Path) -> None:
    """Share of the held-out products within an error, one line per model."""
    plt = _pyplot()
    fig, ax = plt.subplots(figsize=(7, 4.4))
    shades = ("#1b6ca8", "#e09f3e", "#9aa5b1", "#6c757d", "#c8553d")
    for (name, error), colour in zip(errors.items(), shades, strict=True):
        share = np.arange(1, len(error) + 1) / len(error) * 100
        ax.step(np.sort(error), share, color=colour, lw=2.4 if name == "hwsim" else 1.5, where="post", label=name)
    ax.set(xscale="log", xlim=(0.3, 300), ylim=(0, 100), xlabel="|error|, %", ylabel="% of the held-out products")
    ax.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["0.5", "1", "2", "5", "10", "20", "50", "100", "200"])
    ax.minorticks_off()
    ax.grid(color="#e9ecef")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3)
    ax.set_title("TPU v4 matrix products: who is how wrong")
    _save(fig, (ax,), path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(fig: Any, axes: Sequence[Any], path: Path) -> None:
    for ax in axes:
        for edge in ("top", "right"):
            ax.spines[edge].set_visible(False)
    fig.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    import matplotlib.pyplot as plt

    plt.close(fig)
