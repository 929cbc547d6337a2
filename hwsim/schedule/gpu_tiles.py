"""Tiles a GPU's matrix kernels come in, as data (``accelerators/constants/gpu_tiles.csv``), and how many fit an SM.

A CTA computes an m x n tile of C; each k-step brings ``k_bytes`` of every row of A and column of B into one of
``stages`` buffers of shared memory. What a device offers limits the catalogue: a tile whose buffers or registers do not
fit is dropped, and the CTAs an SM holds at once (the occupancy) follow from registers, shared memory, threads and slots.
"""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError
from hwsim.schedule.gpu_view import GpuView

Ints = npt.NDArray[np.int64]

KINDS = ("simt", "hmma", "mma", "wgmma", "tcgen05")
COLUMNS = (
    "m",
    "n",
    "k_bytes",
    "stages",
    "warps",
    "unit_m",
    "unit_n",
    "slices",
    "split_a",
    "split_b",
    "share_a",
    "share_b",
    "registers",
)
WARP = 32
LAYOUTS = (
    "tn",
    "nn",
    "conv",
    "fused",
    "planes",
    "interleaved",
)  # the last four: of convolutions (hwsim/plan/gpu_convolve.py)
GENERATIONS = ("current", "first")  # of a library's kernels: today's, or those an architecture started with
LIBRARIES = {  # the kernels a library has for an architecture's CUDA cores: by generation and lanes of an SM
    "volta": "volta", "turing": "volta", "pascal": "volta", "maxwell": "volta", "ampere-ga100": "ampere",
    "ampere-ga10x": "wide", "ampere-ga10b": "wide", "ada": "wide", "hopper": "hopper", "blackwell": "hopper",
}  # fmt: skip
MOST_STAGES = 8  # deeper pipelines than this appear in no kernel name
ALLOCATED_REGISTERS = 256  # registers are given to a warp in units of this many


@dataclass(frozen=True, slots=True)
class Tiles:
    """The tiles of one instruction family that fit a device, as arrays [tiles]; ``k`` is elements of K per k-step.

    ``a_step`` and ``b_step`` are the bytes of A and B one k-step loads into shared memory; ``occupancy`` the CTAs an SM
    holds at once; ``name`` how reports call them.
    """

    kind: str
    m: Ints
    n: Ints
    k: Ints
    stages: Ints
    warps: Ints
    unit_m: Ints
    unit_n: Ints
    slices: Ints
    split_a: Ints
    split_b: Ints
    share_a: Ints
    share_b: Ints
    registers: Ints
    a_step: Ints
    b_step: Ints
    shared_bytes: Ints
    occupancy: Ints
    name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.m)


@cache
def _catalogue() -> dict[tuple[str, str, str, str], dict[str, Ints]]:
    path = accelerators_dir() / "constants" / "gpu_tiles.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    found: dict[tuple[str, str, str, str], dict[str, Ints]] = {}
    for kind in KINDS:
        for library, layout, generation in itertools.product({*LIBRARIES.values()}, LAYOUTS, GENERATIONS):
            mine = [row for row in rows if row["kind"] == kind and layout in row["layouts"].split()]
            has = {"", library, *(["later"] if generation == "current" else [])}
            mine = [row for row in mine if has & {*row["libraries"].split(" ")}]
            found[kind, library, layout, generation] = {
                c: np.array([int(row[c]) for row in mine], np.int64) for c in COLUMNS
            }
    return found


def tiles_for(
    view: GpuView,
    kind: str,
    a_bits: int,
    b_bits: int,
    layout: str = "tn",
    kernels: str = "current",
    sparse: bool = False,
) -> Tiles:
    """Return the tiles of instruction family ``kind`` that fit ``view`` with operands of these widths.

    ``a_bits`` and ``b_bits`` are the widths A and B have in shared memory; ``layout`` "tn" has B stored as a linear layer's
    weights, n x k, "nn" as k x n, "conv" is an implicit product, "fused" and "planes" minimal filtering, "interleaved"
    8-bit channels in groups of 32; ``kernels`` "first"
    are those of the libraries an architecture started with; ``sparse`` those with a 2:4 operand. Raises HwsimError for a
    family or layout the catalogue lacks and when no tile fits.
    Occupancy: CUDA's rule (registers by warp, shared memory, threads, CTA slots).
    """
    if kind not in KINDS:
        raise HwsimError(f"no tiles of kind '{kind[:32]}'; there are {', '.join(KINDS)}")
    if layout not in LAYOUTS:
        raise HwsimError(
            f"layout '{layout[:32]}' is neither tn nor nn, nor one of a convolution ({', '.join(LAYOUTS[2:])})"
        )
    if kernels not in GENERATIONS:
        raise HwsimError(f"kernels '{kernels[:32]}' are neither {' nor '.join(GENERATIONS)}")
    return _tiles(view, kind, a_bits, b_bits, layout, kernels, sparse)


@cache
def _tiles(view: GpuView, kind: str, a_bits: int, b_bits: int, layout: str, kernels: str, sparse: bool) -> Tiles:
    t = _catalogue()[kind, LIBRARIES.get(view.architecture, "hopper"), layout, kernels]
    wide = max(a_bits, b_bits)
    k = t["k_bytes"] * 8 // wide
    a_step = -(-t["m"] * k * a_bits // (8 * t["split_a"]))
    b_step = -(-t["n"] * k * b_bits // (8 * t["split_b"]))
    step = a_step + b_step
    room = min(view.max_shared_per_cta, view.shared_bytes - view.shared_reserved)
    fits = np.maximum(1, room // np.maximum(1, step))
    stages = np.where(t["stages"] == 0, MOST_STAGES, t["stages"])
    stages = np.minimum(stages, fits)
    shared = stages * step + view.shared_reserved
    threads = t["warps"] * WARP
    per_warp = -(-t["registers"] * WARP // ALLOCATED_REGISTERS) * ALLOCATED_REGISTERS
    occupancy = np.minimum.reduce(
        [
            view.registers // (per_warp * t["warps"]),
            view.shared_bytes // shared,
            view.max_threads // threads,
            np.full(len(k), view.max_ctas),
        ]
    )
    fit = (stages >= 2) & (occupancy >= 1) & (k >= 1)
    if sparse:  # sparse kernels come in the larger tiles; cuSPARSELt takes its largest unless asked to search
        fit &= np.maximum(t["m"], t["n"]) >= (256 if kernels == "first" else 128)
        fit &= np.minimum(t["m"], t["n"]) >= (128 if kernels == "first" else 64)
    keep = np.flatnonzero(fit)
    if not len(keep):
        raise HwsimError(f"no {kind} tile fits {view.name}")
    names = tuple(
        f"{t['m'][i]}x{t['n'][i]}x{k[i]}_{stages[i]}" + (f"_sliced{t['slices'][i]}" if t["slices"][i] > 1 else "")
        for i in keep
    )
    return Tiles(
        kind, t["m"][keep], t["n"][keep], k[keep], stages[keep], t["warps"][keep], t["unit_m"][keep],
        t["unit_n"][keep], t["slices"][keep], t["split_a"][keep], t["split_b"][keep], t["share_a"][keep],
        t["share_b"][keep], t["registers"][keep], a_step[keep], b_step[keep],
        shared[keep], occupancy[keep], names,
    )  # fmt: skip
