"""Errors of family edge-tpu as tables and figures: python studies/edge_tpu/report.py --data FOLDER [--figures DIR]

Rows and rules are those of `hwsim.validate.edge_tpu`; rows the fit looked at are told apart. Figures need matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from fit import chosen

from hwsim.validate import Outcome, validate
from hwsim.validate.measured import measured_dir

GROUPS = (
    ("Coral tables: networks on five hosts", lambda o: o.case.size == "table"),
    ("other networks", lambda o: o.case.size == "other" and "YOLO" not in o.case.what),
    ("YOLOv8 through a framework", lambda o: "YOLO" in o.case.what),
    ("dense nets, 100 to 900 layers", lambda o: "dense" in o.case.what),
    ("convolutions, 10 to 300 layers", lambda o: "conv_32x7" in o.case.what),
    ("inputs and outputs of growing size", lambda o: "io_" in o.case.what),
)
BOARDS = ("10w/usb3", "5w/usb3", "10w/usb2", "5w/usb2")


def table(rows: Sequence[Outcome]) -> None:
    """Print one line a group: all rows, and the rows the fit never saw."""
    print(f"{'rows':44} {'all':>4} {'median':>8} {'p90':>8} {'<=30 %':>7} | {'held out':>8} {'median':>8} {'p90':>8}")
    for name, belongs in (*GROUPS, ("all", lambda o: True)):
        own = [o for o in rows if belongs(o)]
        rest = [o for o in own if not chosen(o.case)]
        e, h = errors(own), errors(rest)
        print(
            f"{name:44} {len(own):4} {np.median(e):7.1f}% {np.percentile(e, 90):7.1f}% {100 * np.mean(e <= 30):6.0f}% | "
            f"{len(rest):8} {np.median(h):7.1f}% {np.percentile(h, 90):7.1f}%"
        )


def errors(rows: Iterable[Outcome]) -> np.ndarray:
    """Absolute errors, %."""
    return np.array([o.error_pct for o in rows])


def slopes(rows: Sequence[Outcome]) -> None:
    """Print the fixed cost of a run and what a byte of input and of output adds, measured and predicted."""
    print(f"\n{'board':10} {'':24} {'measured':>10} {'predicted':>10}")
    for board in BOARDS:
        io = [o for o in rows if o.case.target.endswith(board) and "io_" in o.case.what]
        fixed = next(o for o in io if o.case.question["shape"] == "2x2x3->2x2x3")
        print(f"{board:10} {'fixed, us':24} {fixed.case.measured * 1e6:10.0f} {fixed.predicted * 1e6:10.0f}")
        for name, words in (("input, ns a byte", "io_InOut_stride"), ("output, ns a byte", "io_InOut_padding_2x2x3->")):
            own = [o for o in io if o.case.question["model"].startswith(words)]  # the stride rows name the input last
            x = np.array([size(o.case.question["shape"]) for o in own])
            both = [np.polyfit(x, np.array([v(o) for o in own]), 1)[0] * 1e9 for v in (_measured, _predicted)]
            print(f"{board:10} {name:24} {both[0]:10.1f} {both[1]:10.1f}   ({len(own)} sizes)")


def size(shapes: str) -> float:
    """Bytes of the last tensor of ``AxBxC->DxExF``."""
    y, x, z = (int(v) for v in shapes.split("->")[-1].split("x"))
    return float(y * x * z)


def _measured(o: Outcome) -> float:
    return o.case.measured


def _predicted(o: Outcome) -> float:
    return o.predicted


def figures(rows: Sequence[Outcome], folder: Path) -> None:
    """Write scatter.png (predicted against measured) and streaming.png (time over layers)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    fig, axis = plt.subplots(figsize=(6, 5.6))
    for (name, belongs), colour in zip(GROUPS, ("C0", "C1", "C3", "C2", "C4", "C5"), strict=True):
        own = [o for o in rows if belongs(o)]
        axis.loglog(
            [o.case.measured * 1e3 for o in own], [o.predicted * 1e3 for o in own], "o", ms=4, color=colour, alpha=0.75,
            label=f"{name} ({np.median(errors(own)):.0f} %)",
        )  # fmt: skip
    ends = np.array([0.2, 2000])
    axis.plot(ends, ends, "k-", lw=0.8)
    axis.fill_between(ends, ends / 1.3, ends * 1.3, color="k", alpha=0.08, lw=0)
    axis.set(
        xlabel="measured, ms", ylabel="predicted, ms", xlim=ends, ylim=ends, title="Edge TPU: one run (band: 30 %)"
    )
    axis.legend(fontsize=7, title="median error", title_fontsize=7)
    fig.tight_layout()
    fig.savefig(folder / "scatter.png", dpi=130)
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    for axis, words, title in (
        (axes[0], "dense_100_", "fully connected 100 x 100"), (axes[1], "conv_32x7", "7x7 convolutions, 32 channels"),
    ):  # fmt: skip
        for board, colour in zip(BOARDS, ("C0", "C1", "C2", "C3"), strict=True):
            own = [o for o in rows if words in o.case.what and o.case.target.endswith(board)]
            own.sort(key=lambda o: layers(o))
            x = [layers(o) for o in own]
            axis.plot(x, [o.predicted * 1e3 for o in own], "-", color=colour, lw=1.2, label=board)
            axis.plot(x, [o.case.measured * 1e3 for o in own], "o", color=colour, ms=4)
        axis.set(xlabel="layers", title=title, yscale="log", xscale="log")
    axes[0].set_ylabel("ms (points: measured, lines: predicted)")
    axes[0].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(folder / "streaming.png", dpi=130)


def layers(o: Outcome) -> int:
    """Layers of a synthetic network, from its name."""
    return int(o.case.question["model"].rsplit("_L", 1)[1])


def main() -> None:
    """Print the tables; write the figures when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    parser.add_argument("--figures", default=None, type=Path)
    args = parser.parse_args()
    measured_dir(args.data)
    found = validate("edge-tpu", data=args.data)
    rows = [o for o in found.counted if not o.refused]
    table(rows)
    slopes(rows)
    left = [o for o in found.outcomes if o.case.excluded and not o.refused]
    print("\nleft out by rule, predicted all the same:")
    for o in left:
        print(f"  {o.case.target:40} {o.case.what[:44]:44} ratio {o.ratio:.2f}  ({o.case.excluded[:60]})")
    tables = [o for o in (*rows, *left) if o.case.size == "table"]
    e = errors(tables)
    print(
        f"Coral tables with those too: {len(e)} rows, median {np.median(e):.1f} %, {100 * np.mean(e <= 30):.0f} % within 30 %"
    )
    if args.figures:
        figures(rows, args.figures)


if __name__ == "__main__":
    main()
