"""Pictures of the SM twin at work, and of what the closed form says over occupancy and bandwidth.

python studies/gpu_sm/figures.py         writes timeline.png and occupancy.png beside this file
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hwsim.timing.gpu_instructions import instruction
from hwsim.timing.reference.gpu_program import Tile
from hwsim.timing.reference.gpu_samples import closed_form
from hwsim.timing.reference.gpu_sm import SmConfig
from hwsim.timing.reference.gpu_steady import period, run_tile

HERE = Path(__file__).resolve().parent
INK, MUTED, GRID = "#1a1a1a", "#666666", "#dddddd"
COLOUR = {
    "mma": "#2a6f97", "matrix": "#2a6f97", "load": "#e09f3e", "store": "#9e2a2b", "copy": "#7fb069", "bulk": "#7fb069",
    "fetch": "#7fb069", "alu": "#bbbbbb", "math": "#2a6f97",
}  # fmt: skip
WORDS = {
    "mma": "matrix product", "load": "fragment load", "copy": "copy (link, then shared memory)", "matrix": "matrix product",
    "bulk": "copy (link, then shared memory)", "store": "store", "fetch": "global load",
}  # fmt: skip


def lanes(
    axis: Any, tile: Tile, config: SmConfig, residents: int, units: list[tuple[str, str]], shown: int, title: str
) -> None:
    """Draw what each unit does over ``shown`` clocks of the steady state."""
    run = run_tile(tile, config, residents, 16)
    ends = run.step_end[0]
    begin = ends[7]
    for lane, (unit, _) in enumerate(units):
        for name, warp, kind, _, start, end in run.spans:
            if name == unit and end > begin and start < begin + shown and kind != "alu":
                # Operands that products read themselves pass the port as part of the product.
                shade = 0.55 if warp % 2 and kind in ("mma", "load") else 1.0
                width = end - start
                edge = "white" if width > 3 else "none"
                axis.broken_barh(
                    [(start - begin, width)],
                    (lane - 0.36, 0.72),
                    color=COLOUR[kind],
                    alpha=shade,
                    linewidth=0.3,
                    edgecolor=edge,
                )
    for end in ends:
        if begin <= end < begin + shown:
            axis.axvline(end - begin, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    axis.set_yticks(range(len(units)), [label for _, label in units], fontsize=8)
    axis.set_xlim(0, shown)
    axis.set_ylim(len(units) - 0.4, -0.6)
    axis.set_title(title, fontsize=9, loc="left", color=INK)
    axis.tick_params(labelsize=8, colors=MUTED)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def timeline() -> None:
    figure, axes = plt.subplots(3, 1, figsize=(9.5, 7.6))
    tensor = [(f"tensor{c}", f"tensor pipe {c}") for c in range(4)]
    around = [("link", "link"), ("port", "shared memory")]
    config = SmConfig(link_bytes_per_clk=Fraction(3851, 108), link_latency=213)
    mma = instruction("ampere-ga100", "mma.16816")
    one = Tile(128, 128, 32, 64, 64, mma, 4)
    lanes(
        axes[0],
        one,
        config,
        1,
        around + tensor,
        1300,
        "A100, 128x128x32, four warps, one CTA: 600 clocks a k-step for 512 of products",
    )
    lanes(
        axes[1], one, config, 2, around + tensor, 1300, "the same, two CTAs: a k-step of both in 1030 clocks for 1024"
    )
    wgmma = instruction("hopper", "wgmma.64nk16")
    bulk = Tile(128, 256, 64, 64, 256, wgmma, 4, pair=2)
    hopper = SmConfig(link_bytes_per_clk=Fraction(4934, 132), link_latency=265)
    lanes(
        axes[2],
        bulk,
        hopper,
        1,
        [*around, ("matrix", "matrix unit")],
        2600,
        "H100, 128x256x64, two warp groups, B shared by two CTAs",
    )
    axes[2].set_xlabel("clocks (dashed: a CTA's last product of a k-step is issued)", fontsize=8, color=MUTED)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOUR[k]) for k in ("mma", "load", "copy")]
    figure.legend(
        handles, [WORDS[k] for k in ("mma", "load", "copy")], loc="upper right", ncols=3, fontsize=8, frameon=False
    )
    figure.tight_layout(rect=(0, 0, 1, 0.965))
    figure.savefig(HERE / "timeline.png", dpi=130)


def occupancy() -> None:
    """Share of the tensor peak over resident CTAs: twin (dots) and closed form (lines)."""
    figure, axis = plt.subplots(figsize=(6.2, 3.6))
    mma, sparse = instruction("ampere-ga100", "mma.16816"), instruction("ampere-ga100", "mma.sp.16832")
    cases = (
        ("128x128x32, 64x64 warps", Tile(128, 128, 32, 64, 64, mma, 4), "#2a6f97"),
        ("64x64x64, 32x32 warps", Tile(64, 64, 64, 32, 32, mma, 5), "#e09f3e"),
        ("128x128x64, 2:4 sparse", Tile(128, 128, 64, 64, 64, sparse, 3), "#9e2a2b"),
    )
    for label, tile, colour in cases:
        for share, style in ((Fraction(3851, 108), "-"), (Fraction(64), ":")):
            config = SmConfig(link_bytes_per_clk=share, link_latency=213)
            residents = range(1, 5)
            forms = [closed_form(tile, config, r) for r in residents]
            axis.plot(residents, [100 * f.circuits[0] / f.cycles for f in forms], style, color=colour, linewidth=1.6)
            if style == "-":
                twin = [float(period(run_tile(tile, config, r, 40), tile.stages)[0]) for r in residents]
                shares = [100 * f.circuits[0] / t for f, t in zip(forms, twin, strict=True)]
                axis.plot(residents, shares, "o", color=colour, markersize=5, label=label)
    axis.set_xticks(range(1, 5))
    axis.set_ylim(0, 102)
    axis.set_xlabel("resident CTAs", fontsize=9)
    axis.set_ylabel("% of the tensor peak in the main loop", fontsize=9)
    axis.set_title(
        "A100: dots the twin, lines the closed form; dotted with 64 B/clk from the L2", fontsize=9, loc="left"
    )
    axis.grid(color=GRID, linewidth=0.6)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(HERE / "occupancy.png", dpi=130)


if __name__ == "__main__":
    timeline()
    occupancy()
