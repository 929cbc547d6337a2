"""Fit the constants of matrix products on GPUs, on at most a fifth of the rows: `python studies/gpu_gemm/fit.py`.

Rows: of each set at most LIMIT from fold 0 of whole (N, K) pairs, none of the devices held out (rows.HELD_OUT), of
quantised sets nvfp4's for `scale_cycles`, and fp8's and the T4's int8 for their energies. Where a kernel's name shows its
tile, that tile's own time is a residual too. The residual is the logarithm of the ratio, with a soft l1 loss; bounded
Gauss-Newton steps (scipy least_squares) on logistic coordinates. Writes fit.csv, and the values into
accelerators/constants with --write.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rows as data
from tiles import recorded, recorded_times

from hwsim.machine.constants import Constants, load_constants

Floats = npt.NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[2]
LIMIT = {"tensor": 160, "simt": 60}
SCALE = 0.06  # of the soft l1 loss: errors beyond it count linearly
ENERGY = {  # constants of power.toml, and the architectures they are fitted for ("": shared)
    "simt_energy": ("",),
    "instruction_energy": ("volta", "turing", "ampere-ga100", "ada", "hopper"),
    "tensor_energy": ("volta", "turing", "ampere-ga100", "ada", "hopper", "blackwell"),
}
SHARED = ("product_kernel", "product_stores", "product_l2")
STYLES = ("pipe", "shared", "l2", "latency", "epilogue", "round", "loads", "overlap", "split")
FITTED = (
    *SHARED, *(f"{s}_threads" for s in STYLES), *(f"{s}_bulk" for s in STYLES), "pipe_simt", "scale_cycles",
)  # fmt: skip
OWN = {"product_kernel": ("blackwell",)}  # constants of gpu.toml that an architecture has to itself
SETS = (
    "aic/a100-sxm4-80gb/bf16", "aic/h100-sxm/bf16", "aic/l40s/bf16", "aic/b200/bf16", "aic/b200/nvfp4",
    "vidur/a100-sxm4-80gb/fp16", "vidur/h100-sxm/fp16", "neusight/a100-pcie-40gb/fp32", "neusight/h100-sxm/fp32",
    "neusight/l4/fp32", "neusight/t4/fp32", "neusight/v100-pcie/fp32", "neusight/a100-pcie-40gb/fp32/bmm",
    "neusight/h100-sxm/fp32/bmm", "deepbench/v100-sxm2/fp16", "deepbench/t4/fp16", "deepbench/t4/int8", "aic/l40s/fp8",
    "aic/h100-sxm/fp8",
)  # fmt: skip


def training(rows: pd.DataFrame, leave_out: str = "") -> dict[str, pd.DataFrame]:
    """Return the rows fitted on, by set; ``leave_out`` is a machine none of them may be of."""
    out = {}
    for name in SETS:
        mine = rows[(rows["set"] == name) & (rows["fold"] == 0)]
        if mine["machine"].isin([*data.HELD_OUT, leave_out]).any():
            continue
        if "neusight" in name:
            mine = mine[mine["us"] > 300]  # below, the host's time per operator is what is measured
        if "fp8" in name:
            mine = mine[mine["us"] > 3 * rows[rows["set"] == name]["us"].min()]
        limit = LIMIT["simt" if "fp32" in name or "fp8" in name else "tensor"]
        out[name] = mine.sample(min(limit, len(mine)), random_state=0) if len(mine) > limit else mine
    return out


class Problem:
    """Constants as a vector of logistic coordinates, and the residuals they leave on the rows fitted on."""

    def __init__(self, sets: dict[str, pd.DataFrame], names: tuple[str, ...] = FITTED) -> None:
        self.sets = {k: v for k, v in sets.items() if len(v)}
        self.gpu, self.names = load_constants("gpu"), names
        there = {data.machine(v["machine"].iloc[0]).architecture for v in self.sets.values()}
        self.power = {a: load_constants("power", a) for a in {"", *there}}
        self.own = {a: load_constants("gpu", a) for archs in OWN.values() for a in archs if a in there}
        self.keys = [(n, "gpu") for n in names]
        self.keys += [(n, f"gpu {a}") for n, archs in OWN.items() for a in archs if a in self.own]
        self.keys += [(n, a) for n, archs in ENERGY.items() for a in archs if a in self.power]

    def table(self, key: tuple[str, str]) -> Constants:
        if key[1].startswith("gpu "):
            return self.own[key[1].removeprefix("gpu ")]
        return self.gpu if key[1] == "gpu" else self.power[key[1]]

    def start(self) -> Floats:
        """Coordinates of the values in the files."""
        out = []
        for key in self.keys:
            c = self.table(key).table[key[0]]
            share = (
                np.log(c.value / c.low) / np.log(c.high / c.low) if c.low > 0 else (c.value - c.low) / (c.high - c.low)
            )
            out.append(_logit(float(np.clip(share, 0.03, 0.97))))
        return np.array(out)

    def values(self, x: Floats) -> dict[tuple[str, str], float]:
        """Constants at coordinates ``x``."""
        out = {}
        for key, q in zip(self.keys, x, strict=True):
            c = self.table(key).table[key[0]]
            share = 1 / (1 + np.exp(-q))
            out[key] = float(c.low * (c.high / c.low) ** share if c.low > 0 else c.low + (c.high - c.low) * share)
        return out

    def uses(self, name: str, key: tuple[str, str]) -> bool:
        """Whether a set depends on a constant."""
        view = data.machine(self.sets[name]["machine"].iloc[0])
        simt = "fp32" in name or name == "deepbench/t4/int8"
        bulk = not simt and view.tensor_kind in ("wgmma", "tcgen05")
        constant, architecture = key
        if architecture not in ("gpu", "", view.architecture, f"gpu {view.architecture}"):
            return False
        if constant in ("simt_energy", "pipe_simt"):
            return simt
        if constant == "tensor_energy":
            return not simt
        if constant == "scale_cycles":
            return "nvfp4" in name
        if constant.endswith(("_threads", "_bulk")):
            return constant.endswith("_bulk") == bulk and not (simt and constant == "pipe_threads")
        return True

    def residuals(self, name: str, values: dict[tuple[str, str], float]) -> Floats:
        """Log ratios of one set's rows, recorded tiles included."""
        rows = self.sets[name]
        machine = rows["machine"].iloc[0]
        architecture = data.machine(machine).architecture
        given = {n: v for (n, a), v in values.items() if a == "gpu"}
        given |= {n: v for (n, a), v in values.items() if a == f"gpu {architecture}"}
        energy = {n: v for (n, a), v in values.items() if a in ("", architecture)}
        with data.energies(machine, energy):
            logs = [np.log(data.predict(rows, given) / rows["us"].to_numpy())]
            if "neusight" in name and "h100" not in name:
                known = rows[recorded(rows)["known"].to_numpy()]
                logs.append(np.log(recorded_times(known, given) / known["us"].to_numpy()))
        out = np.clip(np.concatenate(logs), -1.5, 1.5)
        return out * len(out) ** -0.25  # large sets do not drown small ones


def _logit(share: float) -> float:
    return float(np.log(share / (1 - share)))


def fit(
    problem: Problem, rounds: tuple[float, ...] = (0.3, 0.1), steps: int = 8, say: Callable[[str], None] = print
) -> Floats:
    """Return fitted coordinates: least squares with central differences of ``rounds``' width, one after the other."""
    from scipy.optimize import least_squares

    names = list(problem.sets)
    sizes = [len(problem.residuals(n, problem.values(problem.start()))) for n in names]
    offset = np.concatenate([[0], np.cumsum(sizes)])

    def residuals(x: Floats) -> Floats:
        values = problem.values(x)
        return np.concatenate([*(problem.residuals(n, values) for n in names), 0.01 * np.maximum(np.abs(x) - 3, 0)])

    def loss(x: Floats) -> float:
        return float(np.mean([np.mean(np.abs(problem.residuals(n, problem.values(x)))) * s**0.25
                              for n, s in zip(names, sizes, strict=True)]))  # fmt: skip

    def jacobian(x: Floats, width: float) -> Floats:
        out = np.zeros((offset[-1] + len(x), len(x)))
        for j, key in enumerate(problem.keys):
            up, down = x.copy(), x.copy()
            up[j] += width
            down[j] -= width
            high, low = problem.values(up), problem.values(down)
            for i, name in enumerate(names):
                if problem.uses(name, key):
                    change = problem.residuals(name, high) - problem.residuals(name, low)
                    out[offset[i] : offset[i + 1], j] = change / (2 * width)
            out[offset[-1] + j, j] = 0.01 * (abs(x[j]) > 3) * np.sign(x[j])
        return out

    best = problem.start()
    found = loss(best)
    say(
        f"{len(problem.keys)} constants, {sum(len(v) for v in problem.sets.values())} rows; mean |log error| {found:.4f}"
    )
    for width in rounds:
        began = time.process_time()
        got = least_squares(
            residuals, best, jac=lambda x, w=width: jacobian(x, w), loss="soft_l1",
            f_scale=SCALE * float(np.mean([s**-0.25 for s in sizes])), method="trf", max_nfev=steps,
        )  # fmt: skip
        now = loss(got.x)
        if now < found:
            best, found = got.x, now
        say(f"  width {width}: {found:.4f} after {time.process_time() - began:.0f} s")
    return np.asarray(best, np.float64)


def write(problem: Problem, values: dict[tuple[str, str], float]) -> None:
    """Put fitted values into the constants files, keeping bounds, sources and meanings."""
    for family in ("gpu", "power"):
        path = ROOT / "accelerators" / "constants" / f"{family}.toml"
        text = path.read_text()
        for (name, architecture), value in values.items():
            if architecture.startswith("gpu") != (family == "gpu"):
                continue
            own = architecture.removeprefix("gpu").strip()
            head = f"[architecture.{own}.{name}]" if own else f"[constant.{name}]"
            constant = problem.table((name, architecture)).table[name]
            shown = f'"{value * 1e6:.3g} us"' if constant.dimension == "time" else f"{value:.3g}"
            text = re.sub(rf"({re.escape(head)}\nvalue = \[)(\"[^\"]*\"|[^,]*)", lambda m, v=shown: m[1] + v, text)
        path.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--write", action="store_true", help="put the values into accelerators/constants")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    rows = data.load(options.data)
    problem = Problem(training(rows))
    x = fit(problem, steps=options.steps)
    values = problem.values(x)
    lines = []
    for (name, where), value in values.items():
        c = problem.table((name, where)).table[name]
        label = f"{where.removeprefix('gpu').strip()} {name}".strip()
        lines.append({"constant": label, "value": f"{value:.4g}", "low": c.low, "high": c.high, "means": c.means})
    table = pd.DataFrame(lines)
    table.to_csv(Path(__file__).parent / "fit.csv", index=False)
    used = sum(len(v) for v in problem.sets.values())
    print(table.drop(columns="means").to_string(), f"\n{used} of {len(rows)} rows fitted on ({used / len(rows):.1%})")
    if options.write:
        write(problem, values)


if __name__ == "__main__":
    main()
