"""DRAM traffic of large products: twin, closed form and the GEMM engine, on the caches of real devices.

python studies/gpu_sm/l2.py [N] [SEED]   N products a device (12); writes l2.csv beside this file and prints a summary
"""

from __future__ import annotations

import csv
import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_cost import Rows, cost
from hwsim.timing.gpu_kind import gemm_kind
from hwsim.timing.gpu_l2 import l2_traffic
from hwsim.timing.reference.gpu_l2 import Grid, raster, run_l2

HERE = Path(__file__).resolve().parent
DEVICES = ("jetson-agx-orin-64gb", "t4", "v100-sxm2", "a10", "a100-sxm4-80gb", "l40s", "h100-sxm")
WIDTHS = (1, 2, 4, 8, 16)
SIZES = (1024, 2048, 3072, 4096, 6144, 8192, 12288)


def engine_bytes(view: GpuView, tiles: object, at: int, m: int, n: int, k: int) -> float:
    """Bytes of A and B the engine takes from DRAM with one tile, nothing in the L2 before."""
    t = {f: getattr(tiles, f)[[at]] for f in tiles.__dataclass_fields__ if isinstance(getattr(tiles, f), np.ndarray)}  # type: ignore[attr-defined]
    zero = np.zeros(1)
    sizes = {"m": m, "n": n, "k": k, "batch": 1}
    rows = dict.fromkeys(Rows._fields, zero) | {f: np.array([x]) for f, x in sizes.items()}
    parts = cost(view, gemm_kind(view, "fp16"), t, np.ones(1, np.int64), Rows(**rows), "none", view.clock_hz)
    return float((parts.dram[0] + parts.dram[1])[0])


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    rows, groups = [], defaultdict(list)
    for device in DEVICES:
        view = gpu_view(load_accelerator(device))
        kind = gemm_kind(view, "fp16")
        tiles = kind.tiles(view)
        large = [x for x in range(len(tiles)) if tiles.m[x] * tiles.n[x] >= 128 * 128]
        for _ in range(number):
            at = rng.choice(large)
            m, n, k = (rng.choice(SIZES) for _ in range(3))
            grid = Grid(m, n, k, int(tiles.m[at]), int(tiles.n[at]), int(tiles.k[at]))
            slots = view.sms * int(tiles.occupancy[at])
            of = {
                (along, width): l2_traffic(m, n, k, grid.tile_m, grid.tile_n, slots, view.l2_bytes, width, along == "n")
                for along in "mn"
                for width in WIDTHS
            }
            best = min(of, key=lambda key: of[key].dram_a + of[key].dram_b)
            form = of[best].dram_a + of[best].dram_b
            order = raster(grid.rows, grid.cols, *best)
            twin = run_l2(grid, order, slots, view.l2_bytes, 1).reads
            split = run_l2(grid, order, slots, view.l2_bytes, view.l2_segments).reads if view.l2_segments > 1 else twin
            engine = engine_bytes(view, tiles, at, m, n, k)
            once = (m + n) * k * 2
            rows.append({
                "device": device, "m": m, "n": n, "k": k, "tile": tiles.name[at], "raster": f"{best[0]}{best[1]}",
                "once_mb": round(once / 1e6, 1), "twin": round(twin / once, 3), "twin_segments": round(split / once, 3),
                "form": round(form / once, 3), "engine": round(engine / once, 3),
            })  # fmt: skip
            groups[device].append((form / twin, engine / split, split / once))
    with (HERE / "l2.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(
        "device, products; form / twin, engine / twin with segments: least, median, most; median bytes over compulsory"
    )
    for device, ratios in groups.items():
        form, engine, times = np.transpose(ratios)
        spread = (f"{np.quantile(column, q):.2f}" for column in (form, engine) for q in (0, 0.5, 1))
        print(device, len(ratios), *spread, f"{np.median(times):.2f}")


if __name__ == "__main__":
    main()
