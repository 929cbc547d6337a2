"""Main loops of the GEMM engine's tiles: its clocks per k-step beside the closed form of the SM, operands found in the L2.

python studies/gpu_sm/engine.py          writes engine.csv beside this file and prints a summary
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_tiles import Tiles
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_cost import Rows, cost
from hwsim.timing.gpu_instructions import Instruction, instruction
from hwsim.timing.gpu_kind import gemm_kind
from hwsim.timing.gpu_sm import CIRCUITS, SmNumbers, loop_shape, main_loop, step_bytes

HERE = Path(__file__).resolve().parent
STEPS = 1000
CASES = (
    ("v100-sxm2", "fp16", "dense", "hmma.884"), ("t4", "fp16", "dense", "hmma.1688"), ("t4", "int8", "dense", "imma.8816"),
    ("a100-sxm4-80gb", "fp16", "dense", "mma.16816"), ("a100-sxm4-80gb", "int8", "dense", "mma.16832"),
    ("a100-sxm4-80gb", "fp16", "2:4", "mma.sp.16832"), ("a10", "fp16", "dense", "mma.16816"),
    ("a10", "fp16", "2:4", "mma.sp.16832"), ("jetson-agx-orin-64gb", "int8", "dense", "mma.16832"),
    ("l40s", "fp16", "dense", "mma.16816"), ("l40s", "fp8", "dense", "mma.16832.e4m3"),
    ("h100-sxm", "fp16", "dense", "wgmma.64nk16"), ("h100-sxm", "fp8", "dense", "wgmma.64nk32"),
    ("h100-sxm", "fp16", "2:4", "wgmma.sp.64nk32"), ("b200", "fp16", "dense", "tcgen05.128nk16"),
    ("b200", "fp8", "dense", "tcgen05.128nk32"), ("p100-pcie", "fp32", "dense", "ffma"), ("v100-sxm2", "fp32", "dense", "ffma"),
    ("a100-sxm4-80gb", "fp32", "dense", "ffma"), ("l40s", "fp32", "dense", "ffma"), ("h100-sxm", "fp32", "dense", "ffma"),
)  # fmt: skip


def without_shares(view: GpuView) -> GpuView:
    """The same GPU whose pipes, memories and latencies are what they are called: the engine's fitted shares left out."""
    ideal = {}
    for name, value in view.constants.items():
        part, _, style = name.partition("_")
        if style in ("threads", "bulk", "simt"):
            value = 1.0 if part in ("pipe", "shared", "l2", "latency") else value
        ideal[name] = 1.0 if name == "sparse_rate" else value
    return replace(view, name=f"{view.name} without shares", constants=ideal)


def engine_clocks(
    view: GpuView, number_format: str, sparsity: str, residents: np.ndarray | None = None
) -> tuple[Tiles, np.ndarray]:
    """The engine's tiles, and its clocks per k-step with so many of each on every SM and nothing to wait for in DRAM.

    ``residents`` [tiles]; None: as many as an SM holds.
    """
    kind = gemm_kind(view, number_format, sparsity=sparsity)
    tiles = kind.tiles(view)
    t = {f: getattr(tiles, f) for f in tiles.__dataclass_fields__ if isinstance(getattr(tiles, f), np.ndarray)}
    n = len(tiles)
    one, zero = np.ones(n), np.zeros(n)
    rows = dict.fromkeys(Rows._fields, zero) | {
        "m": tiles.m * view.sms * (tiles.occupancy if residents is None else residents), "n": tiles.n, "k": tiles.k * STEPS,
        "batch": one.astype(np.int64), "found_a": one, "found_b": one,
    }  # fmt: skip
    parts = cost(view, kind, t, np.ones(n, np.int64), Rows(**rows), "none", view.clock_hz)
    return tiles, parts.compute * view.clock_hz / STEPS


def sm_tile(view: GpuView, i: Instruction, tiles: Tiles, at: int) -> dict[str, int] | None:
    """One tile of the catalogue as the SM's twin counts it; None where it is not made of whole instructions.

    The sparse operand (the engine's B) and the one with 64 rows an instruction are the twin's A.
    """
    names = ("m", "n", "k", "unit_m", "unit_n", "slices", "split_a", "split_b", "share_a", "share_b", "stages")
    t = {f: int(getattr(tiles, f)[at]) for f in names}
    flip = i.sparse or (i.unit == "matrix" and (t["unit_m"] % i.m > 0 or (t["split_a"] > 1 and t["split_b"] == 1)))
    if i.name.startswith("wgmma") and not i.sparse:
        flip = t["unit_m"] != i.m
    if flip:
        for a, b in (("m", "n"), ("unit_m", "unit_n"), ("split_a", "split_b"), ("share_a", "share_b")):
            t[a], t[b] = t[b], t[a]
    height = t["m"] if i.name.startswith("tcgen05") else t["unit_m"]
    whole = (
        (i.simt or (height % i.m == 0 and t["unit_n"] % i.n == 0))
        and t["k"] % (i.k * t["slices"]) == 0
        and t["m"] % t["unit_m"] == 0
        and t["n"] % t["unit_n"] == 0
    )
    return t if whole else None


def sm_clocks(view: GpuView, i: Instruction, tiles: Tiles, at: int, residents: int = 0) -> tuple[float, str] | None:
    """The closed form for one tile of the catalogue; None where it is not made of whole instructions."""
    t = sm_tile(view, i, tiles, at)
    if t is None:
        return None
    shape = loop_shape(t["m"], t["n"], t["k"], t["unit_m"], t["unit_n"], i, t["slices"], t["split_b"])
    a, b = step_bytes(t["m"], t["n"], t["k"], i, t["split_b"])
    shape = shape._replace(link_bytes=a / t["share_a"] + b / t["share_b"])
    numbers = SmNumbers(
        view.sub_cores, 2 if view.architecture in ("maxwell", "pascal") else 1, 23, 2, 10, view.l2_bytes_per_clk / view.sms,
        view.l2_sm_bytes_per_clk, view.dram_latency_s * view.clock_hz,
    )  # fmt: skip
    form = main_loop(shape, i, numbers, t["stages"], residents or int(tiles.occupancy[at]))
    return form.cycles, CIRCUITS[form.limit]


def compare() -> Iterator[dict[str, object]]:
    for device, number_format, sparsity, name in CASES:
        view = gpu_view(load_accelerator(device))
        i = instruction(view.architecture, name)
        tiles, engine = engine_clocks(view, number_format, sparsity)
        _, bare = engine_clocks(without_shares(view), number_format, sparsity)
        for at in range(len(tiles)):
            form = sm_clocks(view, i, tiles, at)
            if form is not None:
                yield {
                    "device": device, "format": number_format, "sparsity": sparsity, "tile": tiles.name[at],
                    "residents": int(tiles.occupancy[at]), "engine_clk": round(float(engine[at]), 1),
                    "sm_clk": round(form[0], 1), "limit": form[1], "engine_over_sm": round(float(engine[at]) / form[0], 3),
                    "bare_over_sm": round(float(bare[at]) / form[0], 9),
                }  # fmt: skip


def main() -> None:
    rows = list(compare())
    with (HERE / "engine.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    groups = defaultdict(list)
    for row in rows:
        key = row["device"], row["format"], row["sparsity"], row["limit"]
        groups[key].append([float(str(row[c])) for c in ("engine_over_sm", "bare_over_sm")])
    for group, ratios in groups.items():
        spread = (f"{q:.3f}" for column in np.transpose(ratios) for q in np.quantile(column, [0, 0.5, 1]))
        print(*group, len(ratios), *spread)


if __name__ == "__main__":
    main()
