"""Fit the constants of all-reduce and score them on machines they have not seen.

    python studies/llm/fit_collectives.py --data FOLDER

FOLDER holds aiconfigurator's ``systems/data`` (Apache-2.0, not part of this project): all-reduces of vLLM, SGLang and
TensorRT-LLM in a CUDA graph, 2, 4 and 8 GPUs of one server. Rules, written before the fit: of each framework the newest
version with rows for all three; messages to 1 GiB; a size needs two frameworks, its time is their median. What a handshake
takes is a property of the link: the smallest messages (up to 2 KiB) of two devices give it for NVLink 3 (A100), NVLink 4
(H100), NVLink 5 (B200) and PCIe (L40S). Shares of the port are fitted on every second size of A100 and H100; all else is
held out (H200 wholly). Of the tables' L40S servers only the one of SGLang 0.5.12 lets more than two cards reach each other
directly (in the others eight cards get a tenth of the rate of two, through the processors' memory): it alone counts.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.link.collective import Fabric, all_reduce, fabric_of
from hwsim.machine import load_accelerator
from hwsim.machine.constants import Constants
from hwsim.machine.gpu import gpu_of

SYSTEMS = {
    "a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm", "h200_sxm": "h200", "b200_sxm": "b200", "l40s": "l40s",
}  # fmt: skip
DIRECT = ("sglang", "0.5.12")
FITTED = ("a100-sxm4-80gb", "h100-sxm")
LARGEST = 1 << 30
LIMIT = 1 << 23  # longest message of the kernels that read other devices' memory
SHOTS = {"shot_efficiency": np.arange(0.5, 0.91, 0.02)}
RING = {"ring_efficiency": np.arange(0.6, 0.95, 0.02), "ring_fill": np.arange(0, 17e6, 2e6)}


def rows_of(folder: Path) -> Any:
    """Return a DataFrame: machine, ways, nbytes, measured_us."""
    import pandas as pd

    frames = []
    for path in sorted(folder.glob("*/comm/*/*/custom_allreduce_perf.parquet")):
        system, _, framework, version, _ = path.relative_to(folder).parts
        if system not in SYSTEMS or (system == "l40s" and (framework, version) != DIRECT):
            continue
        table = pd.read_parquet(path)
        if "backend" in table:
            table = table[table.backend.isna() | table.backend.str.endswith("graph")]
        if len(table):
            digits = [int(d) for d in "".join(c if c.isdigit() else " " for c in version).split()][:4]
            release = sum(d * 1000 ** (3 - i) for i, d in enumerate(digits))
            frames.append(table.assign(system=system, framework=framework, release=release))
    rows = pd.concat(frames)
    newest = rows.groupby(["system", "framework"]).release.transform("max")
    rows = rows[rows.release == newest]
    rows = rows.assign(machine=rows.system.map(SYSTEMS), ways=rows.num_gpus, nbytes=2 * rows.message_size)  # of 16 bits
    each = rows.groupby(["machine", "ways", "nbytes", "framework"]).latency.min().reset_index()
    found = each.groupby(["machine", "ways", "nbytes"]).latency.agg(["median", "count"]).reset_index()
    enough = (found["count"] >= 2) | (found.machine == "l40s")
    found = found[enough & (found.nbytes <= LARGEST)].reset_index(drop=True)
    return found.assign(measured_us=found["median"] * 1e3).drop(columns=["median", "count"])


def start_us(machine: str) -> float:
    """What one kernel after the other takes to start in a graph."""
    return gpu_of(load_accelerator(machine)).launch.graph_s * 1e6


def predicted_us(rows: Any, fabrics: dict[tuple[str, int], Fabric], constants: dict[str, float]) -> Any:
    """Return microseconds of every row with some constants replaced."""
    out = []
    for row in rows.itertuples():
        fabric = fabrics[row.machine, row.ways]
        changed = {k: replace(fabric.constants.table[k], value=v) for k, v in constants.items()}
        fabric = replace(fabric, constants=Constants("link", {**fabric.constants.table, **changed}))
        out.append(all_reduce(fabric, int(row.nbytes)).time_s * 1e6 + start_us(row.machine))
    return np.array(out)


def fitted(rows: Any, fabrics: dict[tuple[str, int], Fabric], grid: dict[str, Any]) -> dict[str, float]:
    """Return the constants of ``grid`` with the smallest mean error."""
    found: tuple[float, dict[str, float]] = (np.inf, {})
    for values in itertools.product(*grid.values()):
        constants = dict(zip(grid, (float(v) for v in values), strict=True))
        error = np.abs(predicted_us(rows, fabrics, constants) / rows.measured_us - 1)
        found = min(found, (float(error.mean()), constants), key=lambda b: b[0])
    return found[1]


def main() -> None:
    """Fit, score, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    rows = rows_of(parser.parse_args().data)
    machines = list(SYSTEMS.values())
    for machine in machines:
        small = rows[(rows.machine == machine) & (rows.ways == 2) & (rows.nbytes <= 2048)]
        print(f"{machine}: handshake {(small.measured_us.median() - start_us(machine)) / 3:.2f} us")
    fabrics = {(m, w): fabric_of(load_accelerator(m), w) for m in machines for w in (2, 4, 8)}
    large = rows[(rows.machine == "l40s") & (rows.ways == 2) & (rows.nbytes > 64e6)]
    stated = load_accelerator("l40s").host.bandwidth_bytes_per_s
    print(f"l40s: {float((large.nbytes / large.measured_us * 1e6).median()) / stated:.2f} of the host link's rate")
    seen = rows.machine.isin(FITTED) & (rows.index % 2 == 0)
    training = rows[seen]
    best = fitted(training[training.nbytes <= LIMIT], fabrics, SHOTS) | fitted(
        training[training.nbytes > LIMIT], fabrics, RING
    )
    print("fitted on", len(training), "rows:", best)
    rows["error"] = predicted_us(rows, fabrics, best) / rows.measured_us - 1
    lines = ["machine,ways,nbytes,measured_us,error,fitted"]
    lines += [
        f"{r.machine},{r.ways},{r.nbytes},{r.measured_us:.2f},{r.error:.3f},{int(s)}"
        for r, s in zip(rows.itertuples(), seen, strict=True)
    ]
    Path(__file__).with_name("collective_scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    held = rows[~seen]
    for machine in machines:
        mine = held[held.machine == machine]
        print(machine, len(mine), f"{mine.error.abs().median():.3f}")
        for name, low, high in (("to 64 KiB", 0, 1 << 16), ("to 8 MiB", 1 << 16, LIMIT), ("more", LIMIT, LARGEST)):
            error = mine[(mine.nbytes > low) & (mine.nbytes <= high)].error
            print(f"  {name}: median {error.median():+.3f}, of its size {error.abs().median():.3f}")


if __name__ == "__main__":
    main()
