"""Score the model of matrix products against every measured row: `python studies/gpu_gemm/validate.py`.

Writes scores.csv (per set: all rows, rows of (N, K) pairs never fitted on, with and without the exclusions; beside a plain
roofline and a linear fit with as many constants), classes.csv (per set and size class), tile_choice.csv, sparse.csv,
ablation.csv (--ablate), leave_one_out.csv (--leave-out, refits; minutes) and predictions.csv.gz (--predictions, not kept).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fit
import numpy as np
import numpy.typing as npt
import pandas as pd
import rows as data
from tiles import chosen, recorded, recorded_times

import hwsim.timing.gpu_cost as gpu_cost
import hwsim.timing.gpu_gemm as gpu_gemm
from hwsim.timing.gpu_loop import tile_loop

Floats = npt.NDArray[np.float64]
HERE = Path(__file__).resolve().parent
QUANTISED = ("fp8", "int8", "nvfp4", "w4a16", "w8a16")
GROUPS = {  # targets of the issue: name, sets, (median, mean)
    "bf16/fp16 A100 and H100": (r"(aic|vidur)/(a100|h100)[^/]*/(bf16|fp16)", (6, 10)),
    "bf16 L40S and B200": (r"aic/(l40s|b200)/bf16", (9, 15)),
    "quantised, above 3 x floor": (r"aic/[^/]*/(fp8|int8|nvfp4|w4a16|w8a16)", (12, None)),
    "fp32 SGEMM": (r"[^/]*/[^/]*/fp32(/bmm)?", (12, None)),
    "V100 and T4 tensor cores": (r"deepbench/[^/]*/fp16", (12, None)),
}


def summary(error: pd.Series) -> dict[str, float]:
    """Return count, bias, median, mean and 90th percentile of |error|, in percent."""
    size = error.abs()
    return {"rows": len(error), "bias": 100 * error.median(), "median": 100 * size.median(), "mean": 100 * size.mean(),
            "p90": 100 * size.quantile(0.9)}  # fmt: skip


def above_floor(rows: pd.DataFrame) -> pd.Series:
    """Whether a row is above three times the smallest of its set (quantised sets; elsewhere always)."""
    floor = rows.groupby("set")["us"].transform("min")
    return ~rows["dtype"].isin(QUANTISED) | (rows["us"] > 3 * floor)


def roofline(rows: pd.DataFrame) -> Floats:
    """Return microseconds of a plain roofline: peak rate at the highest clock, or operands and results once."""
    out = np.zeros(len(rows))
    for name, mine in rows.groupby("set"):
        first = mine.iloc[0]
        view = data.machine(first["machine"])
        source = data.source_of(first["src"], first["framework"], first["machine"], first["dtype"])
        kind = data.kind_of(view, source, first["dtype"], first["sparsity"])
        count = mine["batch"].to_numpy(float)
        m, n, k = (mine[x].to_numpy(float) for x in "MNK")
        density = 0.5 if kind.sparse else 1.0
        compute = m * n * k * count * density / (kind.rate * view.sms * view.clock_hz)
        moved = count / 8 * (m * k * kind.a_bits + n * k * kind.b_bits * density + m * n * kind.c_bits)
        out[(rows["set"] == name).to_numpy()] = np.maximum(compute, moved / view.dram_bytes_per_s) * 1e6
    return out


def linear(rows: pd.DataFrame, training: pd.DataFrame, constants: int) -> Floats:
    """Return microseconds of a non-negative linear model fitted on the same rows as ours, relative errors squared.

    Features per set: a constant, the compute and the traffic term of the roofline, their maximum: as many sets get their
    own as ``constants`` allow, the others share one model.
    """
    from scipy.optimize import nnls

    def features(x: pd.DataFrame) -> Floats:
        m, n, k, b = (x[c].to_numpy(float) for c in ("M", "N", "K", "batch"))
        bound = roofline(x)
        return np.stack([np.ones(len(x)), bound, b * m * n * k / 1e12, b * (m * k + n * k + m * n) / 1e9], axis=1)

    own = list(training["set"].value_counts().index[: constants // 4 - 1])
    group = rows["set"].where(rows["set"].isin(own), "rest")
    seen = training["set"].where(training["set"].isin(own), "rest")
    out = np.zeros(len(rows))
    for name in [*own, "rest"]:
        x = training[seen == name]
        if not len(x):
            continue
        us = x["us"].to_numpy()
        weights, _ = nnls(features(x) / us[:, None], np.ones(len(x)))
        mask = (group == name).to_numpy()
        out[mask] = features(rows[mask]) @ weights
    return np.maximum(out, 1e-3)


def predict_all(rows: pd.DataFrame, constants: dict[str, float] | None = None, **options: Any) -> pd.Series:
    """Return predicted microseconds of rows of any sets."""
    out = pd.Series(np.nan, index=rows.index)
    for _, mine in rows.groupby("set"):
        out[mine.index] = data.predict(mine, constants, **options)
    return out


def score(rows: pd.DataFrame, trained: pd.Index) -> pd.DataFrame:
    """Return the table of scores; ``trained`` are the rows fitted on."""
    unseen = rows["fold"] != 0
    unseen |= ~rows["set"].isin(fit.SETS)
    error = rows["predicted"] / rows["us"] - 1
    plain, line = rows["roofline"] / rows["us"] - 1, rows["linear"] / rows["us"] - 1
    keep = above_floor(rows)
    table = []

    def add(name: str, mask: pd.Series, target: str = "") -> None:
        line_of = {"set": name, **summary(error[mask]), "target": target}
        for label, other in (("roofline", plain), ("linear", line)):
            line_of |= {
                f"{label} median": 100 * other[mask].abs().median(),
                f"{label} mean": 100 * other[mask].abs().mean(),
            }
        table.append(line_of)

    for name, (pattern, (median, mean)) in GROUPS.items():
        target = f"{median}" + (f" / {mean}" if mean else "")
        add(name, rows["set"].str.fullmatch(pattern) & unseen & keep, target)
    for name in sorted(rows["set"].unique()):
        add(name, (rows["set"] == name) & unseen)
        if rows["dtype"][rows["set"] == name].isin(QUANTISED).any():
            add(f"{name} > 3 x floor", (rows["set"] == name) & unseen & keep)
    for name in data.HELD_OUT:
        add(f"held-out device {name}", rows["machine"] == name)
    add("every row", pd.Series(True, index=rows.index))
    add("every row not fitted on", ~rows.index.isin(trained) & pd.Series(True, index=rows.index))
    return pd.DataFrame(table)


def classes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return scores per set and class of size: rows of A, and what a roofline says limits."""
    error = rows["predicted"] / rows["us"] - 1
    size = pd.cut(
        rows["M"],
        [0, 16, 64, 256, 1024, 4096, 1 << 30],
        labels=["1-16", "17-64", "65-256", "257-1024", "1025-4096", "4097-"],
    )
    out = []
    for (name, label), mine in error.groupby([rows["set"], size], observed=True):
        out.append({"set": name, "M": label, **summary(mine)})
    return pd.DataFrame(out)


def tile_choice(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how often the model takes the recorded tile, against the modal one; and how far its time is from that tile's."""
    table, total = [], []
    cut = data.rules().query("out_of == 'tile choice'")["matches"].iloc[0]
    named = rows[(rows["src"] == "neusight") & ~rows["kernel"].str.fullmatch(cut)]
    for name, mine in named.groupby("set"):
        said = recorded(mine)
        at_tile = recorded_times(mine)
        took, times = chosen(mine)
        ok = said["known"].to_numpy() & np.isfinite(at_tile)
        same = (took == said[["m", "n", "slices"]].to_numpy()).all(axis=1)[ok]
        near = (times[ok] >= at_tile[ok] / 1.05) & (times[ok] <= at_tile[ok] * 1.05)
        labels = said[["m", "n", "slices"]].astype(str).agg("x".join, axis=1)[ok]
        modal = labels.value_counts(normalize=True).iloc[0] if ok.any() else np.nan
        table.append({"set": name, "rows": int(ok.sum()), "recorded tile taken": same.mean(), "modal tile": modal,
                      "within 5 % of the recorded tile's time": near.mean()})  # fmt: skip
        total.append((ok.sum(), same.sum(), modal * ok.sum(), near.sum()))
    count, same, modal, near = (sum(t[i] for t in total) for i in range(4))
    table.append({"set": "all", "rows": int(count), "recorded tile taken": same / count, "modal tile": modal / count,
                  "within 5 % of the recorded tile's time": near / count})  # fmt: skip
    return pd.DataFrame(table)


def sparse_slopes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return slope and intercept over K of VENOM's dense and 2:4 products, measured and predicted, and their ratio."""
    out = []
    for m in (768, 1024):
        lines = {}
        for label in ("dense", "2:4"):
            mine = rows[(rows["src"] == "venom") & (rows["sparsity"] == label) & (rows["M"] == m) & (rows["N"] == 4096)]
            mine = mine[mine["K"] <= 9216]
            lines[label] = [np.polyfit(mine["K"], mine[c], 1) for c in ("us", "predicted")]
            out.append({"M": m, "what": label, "measured us per K": lines[label][0][0], "model us per K": lines[label][1][0],
                        "measured intercept": lines[label][0][1], "model intercept": lines[label][1][1]})  # fmt: skip
        ratio = [lines["dense"][i][0] / lines["2:4"][i][0] for i in (0, 1)]
        out.append({"M": m, "what": "asymptotic gain", "measured us per K": ratio[0], "model us per K": ratio[1]})
    return pd.DataFrame(out)


@contextmanager
def changed(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a name of a module have another value for a while."""
    old = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, old)


def ablations(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what happens without each term: constants not refitted, so a loss is an upper bound of what a term is worth."""
    sample = pd.concat([g.sample(min(300, len(g)), random_state=1) for _, g in rows.groupby("set")])
    tensor = sample["set"].str.fullmatch(GROUPS["bf16/fp16 A100 and H100"][0])
    ada = sample["set"].str.fullmatch(GROUPS["bf16 L40S and B200"][0])
    simt = sample["set"].str.fullmatch(GROUPS["fp32 SGEMM"][0])
    quant = sample["set"].str.fullmatch(GROUPS["quantised, above 3 x floor"][0]) & above_floor(sample)
    table = []

    def add(name: str, predicted: pd.Series) -> None:
        error = (predicted / sample["us"] - 1).abs() * 100
        line: dict[str, Any] = {"without": name}
        for label, mask in (
            ("A100, H100 16 bit", tensor),
            ("L40S, B200 bf16", ada),
            ("fp32", simt),
            ("quantised", quant),
        ):
            line |= {f"{label} median": error[mask].median(), f"{label} mean": error[mask].mean()}
        table.append(line)

    add("nothing", predict_all(sample))
    styles = ("threads", "bulk")

    def without(name: str, **values: float) -> None:
        add(name, predict_all(sample, values))

    def of(name: str, value: float) -> dict[str, float]:
        return {f"{name}_{style}": value for style in styles}

    with changed(gpu_gemm, "SPLITS", np.array([1])):
        add("split of K", predict_all(sample))
    with changed(gpu_gemm, "_choose", _one_tile):
        add("choice of tiles (128 x 128 or the nearest alone)", predict_all(sample))
    with changed(gpu_cost, "rounds", _smooth_rounds):
        add("wave quantisation", predict_all(sample))
    without("L2 bandwidth", **of("l2", 1e3))
    without("refetching by what the L2 holds (operands once)", product_l2=1e6)
    without("shared-memory bandwidth", **of("shared", 1e3))
    without("latency of loads", **of("latency", 1e-3))
    without("epilogue and later edges", **of("epilogue", 0.0), **of("round", 0.0))
    without("stores after the k-steps", product_stores=1e3)
    without("imperfect overlap of loads and k-steps", **of("overlap", 50.0))
    without("kernel overhead", product_kernel=0.0)
    with changed(gpu_gemm, "tile_loop", _without_own_pace):
        add("a warp's own pace and its instructions", predict_all(sample))
    without("block scales", scale_cycles=1.0)
    add("power limit", predict_all(sample, throttle=False))
    cold = sample.copy()
    with changed(data, "found", lambda *_: gpu_cost.Surroundings(kept_c=0.0)):
        add("what the L2 holds from before", predict_all(cold))
    return pd.DataFrame(table)


def _without_own_pace(view: Any, kind: Any, t: Any, share: float) -> Any:
    loop = tile_loop(view, kind, t, share)
    return loop._replace(issue=0 * loop.issue, warp=0 * loop.warp, fragments=0 * loop.fragments, chain=0 * loop.chain)


def _one_tile(view: Any, kind: Any, tiles: Any, loop: Any, rows: Any, launch: str) -> tuple[Any, Any]:
    distance = np.abs(np.log2(tiles.m / 128)) + np.abs(np.log2(tiles.n / 128)) + (tiles.slices > 1)
    tile = np.full(rows.m.shape[0], int(np.argmin(distance)))
    return _best_split(view, kind, tiles, tile, rows, launch)


def _best_split(view: Any, kind: Any, tiles: Any, tile: Any, rows: Any, launch: str) -> tuple[Any, Any]:
    t = {k: v[:, None] for k, v in gpu_gemm._take(tiles, tile).items()}
    parts = gpu_cost.cost(view, kind, t, gpu_gemm.SPLITS[None, :], rows, launch, view.clock_hz)
    return tile, gpu_gemm.SPLITS[np.argmin(parts.time, axis=1)]


def _smooth_rounds(ctas: Any, sms: int, occupancy: Any) -> tuple[Any, Any, Any]:
    full = ctas / (occupancy * sms)
    few = ctas < sms
    return np.where(few, 0, full), np.where(few, ctas, 0), np.where(few, 1, 0)


def leave_one_out(rows: pd.DataFrame, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Return scores of each device under constants fitted without any of its rows; energies it alone could tell are 1."""
    out = []
    for name in sorted(rows["machine"].unique()):
        problem = fit.Problem(fit.training(rows, name))
        if name not in data.HELD_OUT:
            x = fit.fit(problem, rounds=(0.3,), steps=6, say=say)
        else:
            x = problem.start()
        values = problem.values(x)
        mine = rows[rows["machine"] == name]
        architecture = data.machine(name).architecture
        given = {n: v for (n, a), v in values.items() if a == "gpu"}
        given |= {n: v for (n, a), v in values.items() if a == f"gpu {architecture}"}
        energy = dict.fromkeys(data.SCALED, 1.0) | {n: v for (n, a), v in values.items() if a in ("", architecture)}
        with data.energies(name, energy):
            error = predict_all(mine, given) / mine["us"] - 1
        ok = above_floor(mine)
        out.append({"device": name, **summary(error[ok])})
        say(f"{name}: {out[-1]}")
        for dtype, e in error[ok].groupby(mine["dtype"]):
            out.append({"device": f"{name} {dtype}", **summary(e)})
    table = pd.DataFrame(out)
    devices = table[~table["device"].str.contains(" ")]
    mean = {c: float(np.average(devices[c], weights=devices["rows"])) for c in ("bias", "median", "mean", "p90")}
    return pd.concat(
        [table, pd.DataFrame([{"device": "all (weighted by rows)", "rows": devices["rows"].sum(), **mean}])]
    )


def write_tables() -> None:
    """Put every table of the study on one page, tables.md."""
    titles = {
        "scores": "Scores (rows of (N, K) pairs never fitted on; % of the measured time)", "classes": "By size, all rows",
        "tile_choice": "Choice of tiles", "sparse": "Slopes over K, VENOM", "ablation": "Without each term (not refitted)",
        "leave_one_out": "Each device, constants fitted without it", "fit": "Constants",
    }  # fmt: skip
    page = ["# Tables of the study of matrix products on GPUs", "", "Made by `validate.py`."]
    for name, title in titles.items():
        path = HERE / f"{name}.csv"
        if path.is_file():
            table = pd.read_csv(path).fillna("").astype(str)
            page += ["", f"## {title}", "", "| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
            page += ["| " + " | ".join(line) + " |" for line in table.to_numpy()]
    (HERE / "tables.md").write_text("\n".join(page) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--predictions", help="write every row with its prediction to this file")
    options = parser.parse_args()
    rows = data.load(options.data)
    trained = pd.concat(fit.training(rows).values())
    rows["predicted"] = predict_all(rows)
    rows["roofline"] = roofline(rows)
    constants = len(fit.Problem(fit.training(rows)).keys)
    rows["linear"] = linear(rows, trained, constants)
    table = score(rows, trained.index)
    everything = data.load(options.data, exclude=False)
    everything = everything[~everything["kernel"].str.startswith("spatha")]
    error = predict_all(everything) / everything["us"] - 1
    table = pd.concat([table, pd.DataFrame([{"set": "without exclusions (host-timed rows too)", **summary(error)}])])
    table.round(1).to_csv(HERE / "scores.csv", index=False)
    print(f"{constants} constants fitted on {len(trained)} of {len(rows)} rows ({len(trained) / len(rows):.1%})")
    print(table.round(1).to_string())
    classes(rows).round(1).to_csv(HERE / "classes.csv", index=False)
    choice = tile_choice(rows)
    choice.round(3).to_csv(HERE / "tile_choice.csv", index=False)
    print(choice.round(3).to_string())
    slopes = sparse_slopes(rows)
    slopes.round(4).to_csv(HERE / "sparse.csv", index=False)
    print(slopes.round(4).to_string())
    if options.predictions:
        rows.to_csv(options.predictions, index=False)
    if options.ablate:
        found = ablations(rows)
        found.round(1).to_csv(HERE / "ablation.csv", index=False)
        print(found.round(1).to_string())
    if options.leave_out:
        left = leave_one_out(rows)
        left.round(1).to_csv(HERE / "leave_one_out.csv", index=False)
        print(left.round(1).to_string())
    write_tables()


if __name__ == "__main__":
    main()
