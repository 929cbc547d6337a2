"""The SM twin against published microbenchmarks, and what it says of the main loops of library tiles.

python studies/gpu_sm/published.py       writes published_twin.csv, tma_twin.csv, loops.csv and tables.md beside this file
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

from hwsim.machine import load_accelerator
from hwsim.machine.gpu import gpu_of
from hwsim.timing.gpu_instructions import Instruction, instruction
from hwsim.timing.gpu_sm import CIRCUITS
from hwsim.timing.reference.gpu_program import Tile, multiply_loop, wavefronts
from hwsim.timing.reference.gpu_samples import closed_form
from hwsim.timing.reference.gpu_sm import Op, Sm, SmConfig
from hwsim.timing.reference.gpu_steady import period, run_tile

HERE = Path(__file__).resolve().parent
GIB = 1 << 30
H800 = {"sms": 114, "clock_hz": 1755e6, "dram_share": 1826.07 * GIB / 114 / 1755e6}

# Tiles as kernel names of libraries show them: architecture, instruction, m, n, k, warp m, warp n, stages, resident CTAs,
# CTAs that share B.
LOOPS = (
    ("maxwell", "ffma", 128, 64, 8, 32, 32, 2, 2, 1),
    ("pascal", "hfma2", 128, 64, 16, 32, 32, 2, 2, 1),
    ("volta", "ffma", 128, 128, 8, 32, 64, 2, 2, 1),
    ("volta", "hmma.884", 128, 128, 32, 64, 64, 2, 2, 1),
    ("volta", "hmma.884", 256, 128, 32, 64, 64, 2, 1, 1),
    ("turing", "hmma.1688", 128, 128, 32, 64, 64, 2, 1, 1),
    ("turing", "hmma.1688", 256, 128, 32, 64, 64, 2, 1, 1),
    ("turing", "imma.8816", 128, 128, 64, 64, 64, 2, 1, 1),
    ("ampere-ga100", "ffma", 128, 128, 8, 32, 64, 4, 2, 1),
    ("ampere-ga100", "mma.16816", 256, 128, 32, 64, 64, 3, 1, 1),
    ("ampere-ga100", "mma.16816", 128, 128, 32, 64, 64, 4, 2, 1),
    ("ampere-ga100", "mma.16816", 128, 128, 32, 64, 64, 4, 1, 1),
    ("ampere-ga100", "mma.16816", 64, 64, 64, 32, 32, 5, 2, 1),
    ("ampere-ga100", "mma.16832", 256, 128, 64, 64, 64, 3, 1, 1),
    ("ampere-ga100", "mma.sp.16832", 256, 128, 64, 64, 64, 3, 1, 1),
    ("ampere-ga100", "mma.sp.16832", 128, 128, 64, 64, 64, 3, 2, 1),
    ("ampere-ga10x", "mma.16816", 128, 128, 32, 64, 64, 3, 1, 1),
    ("ampere-ga10x", "mma.sp.16832", 128, 128, 64, 64, 64, 3, 1, 1),
    ("ampere-ga10b", "mma.16832", 128, 128, 64, 64, 64, 3, 1, 1),
    ("ada", "mma.16816", 256, 128, 32, 64, 64, 3, 1, 1),
    ("ada", "mma.16832.e4m3", 128, 128, 64, 64, 64, 3, 1, 1),
    ("hopper", "wgmma.64nk16", 128, 256, 64, 64, 256, 4, 1, 2),
    ("hopper", "wgmma.64nk16", 128, 128, 64, 64, 128, 4, 1, 2),
    ("hopper", "wgmma.64nk16", 64, 64, 64, 64, 64, 8, 1, 1),
    ("hopper", "wgmma.64nk32", 128, 256, 128, 64, 256, 4, 1, 2),
    ("hopper", "wgmma.sp.64nk32", 128, 256, 128, 64, 256, 3, 1, 2),
    ("blackwell", "tcgen05.128nk16", 128, 256, 64, 128, 256, 4, 1, 2),
    ("blackwell", "tcgen05.128nk16", 128, 128, 64, 128, 128, 6, 1, 2),
    ("blackwell", "tcgen05.128nk64", 128, 256, 256, 128, 256, 4, 1, 2),
)
# A device of each architecture: its share of the L2, latencies, width of the schedulers.
DEVICES = {
    "maxwell": "jetson-tx1", "pascal": "jetson-tx2", "volta": "v100-sxm2", "turing": "t4", "ampere-ga100": "a100-sxm4-80gb",
    "ampere-ga10x": "a10", "ampere-ga10b": "jetson-agx-orin-64gb", "ada": "l40s", "hopper": "h100-sxm", "blackwell": "b200",
}  # fmt: skip


def sm_of(architecture: str) -> SmConfig:
    """One SM of a device with an even share of its L2, all operands found there."""
    gpu = gpu_of(load_accelerator(DEVICES[architecture]))
    return SmConfig(
        sub_cores=gpu.sm.sub_cores,
        issue=gpu.sm.issue,
        shared_latency=round(gpu.sm.shared_latency_cycles),
        link_bytes_per_clk=Fraction(gpu.l2.bytes_per_clk) / gpu.sm.count,
        burst_bytes_per_clk=Fraction(gpu.sm.l2_bytes_per_clk),
        link_latency=round(gpu.l2.latency_cycles),
    )


def rows_of(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def iteration(programs: Sequence[Sequence[Op]], iterations: int) -> float:
    """Clocks an iteration of a microbenchmark's loop takes in the second half of its run."""
    ends = Sm(SmConfig(), [programs]).run().step_end[0]
    return (ends[iterations - 1] - ends[iterations // 2 - 1]) / (iterations - iterations // 2)


def twin_value(row: dict[str, str]) -> float:
    i = instruction(row["architecture"], row["instruction"])
    if row["board"] == "GeForce":
        i = i.halved
    if i.unit == "matrix":
        return matrix_clocks(i, int(row["warps"].removeprefix("n=")), from_registers=row["ilp"] == "rs")
    if row["ilp"] == "chain of 4":
        # One 16x16x16 product is four sets that add to the same registers.
        ops = [Op("mma", 0, i.cycles, i.own, i.chain, ("c",), ("c",)) for _ in range(4)]
        return float(Sm(SmConfig(), [[ops]]).run().first + 3 * i.chain + i.result)
    warps, ilp = (int(row[c].removesuffix(" (a)")) for c in ("warps", "ilp"))
    clocks = iteration(multiply_loop(i, warps, ilp, 200), 200)
    return clocks if row["unit"] == "clk" else i.m * i.n * i.k * warps * ilp / clocks


def matrix_clocks(i: Instruction, n: int, from_registers: bool) -> float:
    """Clocks between asynchronous instructions of n columns that stream their operands from shared memory."""
    bits = 16
    a = 0 if from_registers else i.m * i.k * bits // 8 // (2 if i.sparse else 1)
    ops = [
        Op("matrix", s, cycles=i.cycles * n // i.n, wavefronts=wavefronts(a + n * i.k * bits // 8)) for s in range(100)
    ]
    return iteration([[*ops, Op("commit"), Op("wait")]], 100)


def tma_gib_per_s(ctas: int, kib: int, latency: int, burst: Fraction) -> float:
    """GiB/s of CTAs that order a bulk copy and wait for it, again and again, on all SMs of an H800."""
    rounds = 60
    share = Fraction(H800["dram_share"]).limit_denominator(1000)
    config = SmConfig(link_bytes_per_clk=share, burst_bytes_per_clk=burst, link_latency=latency)
    programs = []
    for r in range(rounds):
        programs += [Op("bulk", r, bytes=kib * 1024, event=("full", r)), Op("await", r, event=("full", r), count=1)]
    end = Sm(config, [[programs]] * ctas).run().end
    return rounds * ctas * kib * 1024 / end * H800["clock_hz"] * H800["sms"] / GIB


def tma_numbers(rows: Sequence[dict[str, str]]) -> tuple[int, Fraction]:
    """Latency and arrival rate of one copy from the rows of 1 and 8 KiB with one CTA an SM."""
    clocks = {}
    for row in rows:
        if row["ctas_per_sm"] == "1":
            size = int(row["kib"]) * 1024
            clocks[size] = size * H800["sms"] * H800["clock_hz"] / float(row["gib_per_s"]) / GIB
    slope = (clocks[8192] - clocks[1024]) / (8192 - 1024)
    return round(clocks[1024] - 1024 * slope), Fraction(1 / slope).limit_denominator(100)


def loop_rows() -> Iterable[dict[str, object]]:
    for arch, name, m, n, k, wm, wn, stages, residents, pair in LOOPS:
        tile = Tile(m, n, k, wm, wn, instruction(arch, name), stages, pair=pair)
        config = sm_of(arch)
        clocks, periodic = period(run_tile(tile, config, residents, 60), stages)
        form = closed_form(tile, config, residents)
        yield {
            "architecture": arch, "instruction": name, "tile": f"{m}x{n}x{k}", "warp": f"{wm}x{wn}", "stages": stages,
            "residents": residents, "pair": pair, "twin_clk": round(float(clocks), 2), "form_clk": round(form.cycles, 2),
            "difference_pct": round(100 * (form.cycles / float(clocks) - 1), 2), "periodic": periodic,
            "limit": CIRCUITS[form.limit], "of_peak_pct": round(100 * float(form.circuits[0]) / float(clocks), 1),
        }  # fmt: skip


def write(name: str, rows: Sequence[dict[str, object]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    published: list[dict[str, object]] = []
    for row in rows_of("published.csv"):
        value = twin_value(row)
        measured = float(row["value"])
        published.append({**row, "twin": round(value, 1), "error_pct": round(100 * (value / measured - 1), 1)})
    write("published_twin.csv", published)
    rows = rows_of("tma.csv")
    latency, burst = tma_numbers(rows)
    copies: list[dict[str, object]] = []
    for row in rows:
        value = tma_gib_per_s(int(row["ctas_per_sm"]), int(row["kib"]), latency, burst)
        error = 100 * (value / float(row["gib_per_s"]) - 1)
        copies.append({**row, "twin": round(value, 1), "error_pct": round(error, 1)})
    write("tma_twin.csv", copies)
    loops = list(loop_rows())
    write("loops.csv", loops)
    with (HERE / "tables.md").open("w", encoding="utf-8") as file:
        file.write("| architecture | instruction | warps x ilp | published | twin | error % | use |\n")
        file.write("|---|---|---|---|---|---|---|\n")
        for row in published:
            file.write(
                f"| {row['architecture']} | {row['instruction']} | {row['warps']} x {row['ilp']} | {row['value']} "
                f"{row['unit']} | {row['twin']} | {row['error_pct']:+} | {row['use']} |\n"
            )
        errors = [abs(float(str(r["error_pct"]))) for r in published]
        file.write(f"\nAll {len(errors)} rows: median {statistics.median(errors):.1f} %, ")
        file.write(f"largest {max(errors):.1f} %.\n\n")
        errors = [abs(float(str(r["error_pct"]))) for r in copies]
        file.write(f"Bulk copies (latency {latency} clk, {float(burst):.1f} B/clk): {len(errors)} rows, median ")
        file.write(f"{statistics.median(errors):.1f} %, largest {max(errors):.1f} %.\n\n")
        file.write(
            "| architecture | instruction | tile | warp | stages | CTAs | share B | clk | closed form | limit | % of peak |\n"
        )
        file.write("|---|---|---|---|---|---|---|---|---|---|---|\n")
        for row in loops:
            keys = ("architecture", "instruction", "tile", "warp", "stages", "residents", "pair", "twin_clk")
            file.write("| " + " | ".join(str(row[k]) for k in keys))
            file.write(f" | {row['form_clk']} | {row['limit']} | {row['of_peak_pct']} |\n")


if __name__ == "__main__":
    main()
