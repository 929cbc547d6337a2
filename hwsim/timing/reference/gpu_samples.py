"""Random tiles and SMs on which the closed form of the main loop is compared with the twin, by tests and by a study."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from hwsim.timing.gpu_instructions import instruction
from hwsim.timing.gpu_sm import LoopRate, SmNumbers, loop_shape, main_loop
from hwsim.timing.reference.gpu_program import LANES, Tile
from hwsim.timing.reference.gpu_sm import SmConfig

Pick = Callable[[int, int], int]
"""An integer of the closed range."""

STYLES = {
    "copied": (
        ("ampere-ga100", "mma.16816"), ("ampere-ga100", "mma.16832"), ("ampere-ga100", "mma.sp.16832"),
        ("ampere-ga10x", "mma.16816"), ("ampere-ga10b", "mma.16832"), ("ada", "mma.16832.e4m3"),
    ),
    "staged": (("turing", "hmma.1688"), ("turing", "imma.8816"), ("volta", "hmma.884")),
    "simt": (("maxwell", "hfma2"), ("pascal", "ffma"), ("volta", "ffma"), ("ampere-ga10x", "ffma"), ("volta", "dp4a")),
    "grouped": (("hopper", "wgmma.64nk16"), ("hopper", "wgmma.64nk32"), ("hopper", "wgmma.sp.64nk32")),
    "matrix": (("blackwell", "tcgen05.128nk16"), ("blackwell", "tcgen05.128nk32"), ("blackwell", "tcgen05.sp.128nk32")),
}  # fmt: skip
MOST_WARPS = 16
SHARED_BYTES = 228 * 1024


def random_case(pick: Pick, style: str, largest: int = 4) -> tuple[Tile, SmConfig, int]:
    """Return a legal tile of ``style``, an SM and how many such CTAs it holds; the warps fill its sub-cores evenly.

    ``largest``: instructions along a side of a warp's tile, at most.
    """

    def one_of(*values: int) -> int:
        return values[pick(0, len(values) - 1)]

    while True:
        architecture, name = STYLES[style][pick(0, len(STYLES[style]) - 1)]
        i = instruction(architecture, name)
        residents, stages, pair = one_of(1, 1, 2, 3), one_of(2, 3, 4, 5), 1
        if i.unit == "matrix":
            warp_m, warp_n, k = i.m, one_of(32, 64, 128, 192, 256), i.k * one_of(1, 2, 4)
            m, n, pair = warp_m * (1 if style == "matrix" else one_of(1, 2)), warp_n, one_of(1, 2)
        elif i.simt:
            warp_m, warp_n, k = LANES[0] * one_of(4, 8), LANES[1] * one_of(4, 8), i.k * one_of(2, 4, 8)
            m, n = warp_m * one_of(1, 2), warp_n * one_of(1, 2, 4)
        else:
            warp_m, warp_n = i.m * min(largest, one_of(1, 2, 4)), i.n * min(2 * largest, one_of(2, 4, 8))
            k = i.k * one_of(1, 2, 4)
            m, n = warp_m * one_of(1, 2, 4), warp_n * one_of(1, 2, 4)
        tile = Tile(m, n, k, warp_m, warp_n, i, stages, pair=pair)
        config = SmConfig(
            issue=2 if architecture in ("maxwell", "pascal") else 1,
            link_bytes_per_clk=Fraction(one_of(12, 24, 36, 64)),
            burst_bytes_per_clk=Fraction(one_of(32, 64, 128)),
            link_latency=one_of(200, 500, 800),
        )
        even = i.unit == "matrix" or tile.warps * residents % config.sub_cores == 0
        fits = tile.warps * residents <= MOST_WARPS and residents * stages * sum(tile.step_bytes()) <= SHARED_BYTES
        if even and fits:
            return tile, config, residents


def closed_form(tile: Tile, config: SmConfig, residents: int) -> LoopRate:
    """The closed form's answer to the same question."""
    shape = loop_shape(tile.m, tile.n, tile.k, tile.warp_m, tile.warp_n, tile.instruction, tile.groups, tile.pair)
    numbers = SmNumbers(
        config.sub_cores, config.issue, config.shared_latency, config.wavefront_latency, config.barrier_latency,
        float(config.link_bytes_per_clk), float(config.burst_bytes_per_clk), config.link_latency,
    )  # fmt: skip
    return main_loop(shape, tile.instruction, numbers, tile.stages, residents, tile.overhead)
