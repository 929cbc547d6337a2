"""2:4 sparsity on GPUs: predicted against measured, layer by layer, and where it pays.

python studies/sparsity_24/run.py        writes venom.csv, slopes.csv, networks.csv, layers.csv, map.csv and summary.md here
"""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import hwsim
from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_gemm import best_gemm, gemm_kind
from hwsim.validate.measured import find, measured_dir, table

HERE = Path(__file__).resolve().parent
MAPS = (
    ("a100-sxm4-80gb", "fp16"), ("a100-sxm4-80gb", "int8"), ("rtx-3090", "fp16"), ("l4", "int8"), ("h100-sxm", "fp16"),
    ("h100-sxm", "fp8"), ("b200", "fp16"), ("jetson-agx-orin-64gb", "int8"),
)  # fmt: skip
M_SIZES = tuple(2**p for p in range(0, 16))
NK_SIZES = tuple(2**p for p in range(8, 15))
# What others published of whole networks (facts sheet gpu_timing section 6): least and most of dense over 2:4.
PUBLISHED = (
    ("FasterTransformer BERT-base, A100, fp16 and int8, b 1-32, S 32-384", "bert_base", "a100-sxm4-80gb", ("fp16", "int8"),
     (1, 8, 32), (32, 128, 384), 0.84, 1.23),
)  # fmt: skip
# Single products: case, device, precision, m, n, k, dense over 2:4 as published.
PRODUCTS = (
    ("torchao ViT-L first linear", "a100-sxm4-80gb", "bf16", 13008, 4096, 1024, 1.24),
    ("torchao ViT-L second linear", "a100-sxm4-80gb", "bf16", 13008, 1024, 4096, 1.27),
)
BERT = {"A100": "a100-sxm4-40gb", "A30": "a30", "L4": "l4"}
LAYERS = (
    ("bert_large", "a100-sxm4-80gb", "int8", 1, {"S": 384}), ("bert_large", "a100-sxm4-80gb", "int8", 32, {"S": 384}),
    ("resnet50", "a100-sxm4-80gb", "int8", 1, {}), ("resnet50", "a100-sxm4-80gb", "int8", 128, {}),
    ("resnet50", "jetson-agx-orin-64gb", "int8", 8, {}), ("vit_l_16", "h100-sxm", "bf16", 64, {}),
)  # fmt: skip


def measured(name: str) -> Iterable[dict[str, str]]:
    path = find(measured_dir(), name)
    assert path is not None
    return table(path)


def write(name: str, rows: Sequence[dict[str, object]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def venom() -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Products of VENOM on an RTX 3090 (its sparse A is the engine's B), and lines over K."""
    times: dict[tuple[int, int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in measured("measured_gemm"):
        if row["source"].startswith("venom") and row["kernel"] in ("cublas", "cusparselt"):
            key = (int(row["M"]), int(row["N"]), int(row["K"]))
            times[key][row["sparsity"]].append(float(row["measured_us"]))
    view = gpu_view(load_accelerator("rtx-3090"))
    sizes = np.array(sorted(times))
    answers = {}
    # cuSPARSELt 0.3, asked for no search, takes its largest tile: the engine's kernels of the "first" generation.
    for sparsity, kernels in (("dense", "current"), ("2:4", "first")):
        kind = gemm_kind(view, "fp16", sparsity=sparsity, kernels=kernels)
        answers[sparsity] = best_gemm(view, kind, sizes[:, 1], sizes[:, 0], sizes[:, 2], launch="stream")
    rows: list[dict[str, object]] = []
    for at, size in enumerate(sizes.tolist()):
        row: dict[str, object] = dict(zip("MNK", size, strict=True))
        for sparsity, name in (("dense", "dense"), ("2:4", "sparse")):
            got = answers[sparsity]
            row[f"{name}_us"] = round(statistics.median(times[tuple(size)][sparsity]), 2)
            row[f"{name}_predicted_us"] = round(float(got.time_s[at]) * 1e6, 2)
            row[f"{name}_tile"] = f"{got.tiles.name[got.tile[at]]}/{got.split[at]}"
        row["gain"] = round(float(str(row["dense_us"])) / float(str(row["sparse_us"])), 3)
        row["gain_predicted"] = round(float(str(row["dense_predicted_us"])) / float(str(row["sparse_predicted_us"])), 3)
        rows.append(row)
    lines: list[dict[str, object]] = []
    for m in (768, 1024):
        some = [r for r in rows if (r["M"], r["N"]) == (m, 4096) and int(str(r["K"])) <= 9216]
        fits = {}
        for name in ("dense", "sparse"):
            for suffix in ("_us", "_predicted_us"):
                k, t = (np.array([float(str(r[c])) for r in some]) for c in ("K", name + suffix))
                fits[name + suffix] = np.polyfit(k, t, 1)
        for kind in ("dense", "sparse"):
            real, model = fits[kind + "_us"], fits[kind + "_predicted_us"]
            lines.append({
                "M": m, "N": 4096, "kernel": kind, "products": len(some), "slope_ns_per_k": round(1e3 * real[0], 2),
                "predicted_ns_per_k": round(1e3 * model[0], 2), "error_pct": round(100 * (model[0] / real[0] - 1), 1),
                "offset_us": round(real[1], 1), "predicted_offset_us": round(model[1], 1),
            })  # fmt: skip
        real = fits["dense_us"][0] / fits["sparse_us"][0]
        model = fits["dense_predicted_us"][0] / fits["sparse_predicted_us"][0]
        lines.append({
            "M": m, "N": 4096, "kernel": "asymptote dense/2:4", "products": len(some), "slope_ns_per_k": round(real, 3),
            "predicted_ns_per_k": round(model, 3), "error_pct": round(100 * (model / real - 1), 1), "offset_us": "",
            "predicted_offset_us": "",
        })  # fmt: skip
    return rows, lines


def networks() -> list[dict[str, object]]:
    """demoBERT: Megatron's 2:4 BERT-large beside the dense one of the same release, board, length and batch."""
    pairs: dict[tuple[str, str, str, int], dict[str, float]] = defaultdict(dict)
    for row in measured("measured_networks"):
        bert = "BERT-large" in row["model"] and "demoBERT" in row["software"] and row["precision"] == "int8"
        if bert and row["metric"] == "latency_ms" and row["device"] in BERT and row["batch"]:
            version = row["software"].split("(")[0].split("demoBERT")[0].strip()
            key = (row["device"], version, row["input_shape"], int(row["batch"]))
            pairs[key][row["sparsity"]] = float(row["value"])
    times: dict[tuple[str, str, int, str], float] = {}
    rows: list[dict[str, object]] = []
    for (device, version, length, batch), found in sorted(pairs.items()):
        if len(found) < 2:
            continue
        for sparsity in ("dense", "2:4"):
            key = (device, length, batch, sparsity)
            if key not in times:
                shapes = {"S": int(length.removeprefix("seq"))}
                got = hwsim.simulate(
                    "bert_large", BERT[device], batch=batch, precision="int8", sparsity=sparsity, shapes=shapes
                )
                times[key] = got.latency_s * 1e3
        dense, sparse = times[device, length, batch, "dense"], times[device, length, batch, "2:4"]
        rows.append({
            "device": device, "software": version, "length": length, "batch": batch, "dense_ms": found["dense"],
            "sparse_ms": found["2:4"], "gain": round(found["dense"] / found["2:4"], 3), "dense_predicted_ms": round(dense, 3),
            "sparse_predicted_ms": round(sparse, 3), "gain_predicted": round(dense / sparse, 3),
        })  # fmt: skip
    return rows


def published() -> list[dict[str, object]]:
    """Ranges others published, and the model's over the same settings."""
    rows: list[dict[str, object]] = []
    for name, network, device, precisions, batches, lengths, least, most in PUBLISHED:
        gains = []
        for precision in precisions:
            for batch in batches:
                for length in lengths or (0,):
                    run = {
                        s: hwsim.simulate(
                            network, device, batch=batch, precision=precision, sparsity=s,
                            shapes={"S": length} if length else None,
                        )
                        for s in ("dense", "2:4")
                    }  # fmt: skip
                    gains.append(run["dense"].latency_s / run["2:4"].latency_s)
        rows.append({
            "case": name, "published": f"{least}-{most}", "predicted": f"{min(gains):.2f}-{max(gains):.2f}",
            "settings": len(gains),
        })  # fmt: skip
    for name, device, precision, m, n, k, gain in PRODUCTS:
        found = hwsim.sparsity_map(device, m, n, k, precision, launch="stream")
        rows.append({"case": name, "published": gain, "predicted": f"{found.ratio[0, 0, 0]:.2f}", "settings": 1})
    return rows


def clocks() -> list[dict[str, object]]:
    """One large product at the clock power allows, and at one clock for dense and sparse."""
    rows: list[dict[str, object]] = []
    for device, precision in (("l4", "int8"), ("a30", "int8"), ("a100-sxm4-80gb", "int8"), ("l40s", "fp16")):
        view = gpu_view(load_accelerator(device))
        got = {
            (s, t): best_gemm(view, gemm_kind(view, precision, sparsity=s), 16384, 4096, 4096, throttle=t)
            for s in ("dense", "2:4")
            for t in (True, False)
        }
        row: dict[str, object] = {"device": device, "precision": precision}
        for sparsity in ("dense", "2:4"):
            row[f"{sparsity} MHz"] = round(float(got[sparsity, True].clock_hz[0]) / 1e6)
        for throttled, name in ((True, "gain at the clocks power allows"), (False, "gain at one clock")):
            row[name] = round(float(got["dense", throttled].time_s[0] / got["2:4", throttled].time_s[0]), 2)
        rows.append(row)
    return rows


def layers() -> list[dict[str, object]]:
    """Every product with weights of some networks: eligible, chosen, gain, what limits it."""
    rows: list[dict[str, object]] = []
    for network, device, precision, batch, shapes in LAYERS:
        got = hwsim.simulate(network, device, batch=batch, precision=precision, sparsity="2:4", shapes=shapes or None)
        frame = got.layers
        seen = frame[frame["sparse_eligible"].astype(str) != ""]
        for (eligible, chosen, limit), group in seen.groupby(
            ["sparse_eligible", "sparse_chosen", "sparse_limit"], sort=False
        ):
            rows.append({
                "network": network, "device": device, "precision": precision, "batch": batch, "kernels": len(group),
                "eligible": eligible, "chosen": chosen, "limit": limit,
                "gain": f"{group['sparse_gain'].min():.2f}-{group['sparse_gain'].max():.2f}",
            })  # fmt: skip
    return rows


def maps() -> list[dict[str, object]]:
    """Gain over M where N = K, and the least M from which 2:4 gains a tenth."""
    rows: list[dict[str, object]] = []
    for device, precision in MAPS:
        for nk in NK_SIZES:
            found = hwsim.sparsity_map(device, M_SIZES, [nk], [nk], precision)
            ratio = found.ratio[:, 0, 0]
            rows.append({
                "device": device, "precision": precision, "nk": nk, "break_even_m": int(found.break_even_m(1.0)[0, 0]),
                "ten_percent_m": int(found.break_even_m(1.1)[0, 0]),
                **{f"m{m}": round(float(r), 3) for m, r in zip(M_SIZES, ratio, strict=True)},
            })  # fmt: skip
    return rows


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, cells)) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def main() -> None:
    products, lines = venom()
    write("venom.csv", products)
    write("slopes.csv", lines)
    nets = networks()
    write("networks.csv", nets)
    ranges = published()
    by_layer = layers()
    write("layers.csv", by_layer)
    write("map.csv", maps())
    with (HERE / "summary.md").open("w", encoding="utf-8") as file:
        file.write("VENOM on an RTX 3090, fp16, K up to 9216:\n\n")
        file.write(markdown(list(lines[0]), [list(r.values()) for r in lines]))
        file.write(
            "\ndemoBERT int8 BERT-large, dense over 2:4, medians (least, most) over batch 1 to 128 and both lengths:\n\n"
        )
        groups: dict[tuple[object, object], list[dict[str, object]]] = defaultdict(list)
        for row in nets:
            groups[row["device"], row["software"]].append(row)
        body = []
        for (device, software), some in groups.items():
            cells = []
            for column in ("gain", "gain_predicted"):
                gains = [float(str(r[column])) for r in some]
                cells.append(f"{statistics.median(gains):.2f} ({min(gains):.2f}, {max(gains):.2f})")
            body.append([device, software, len(some), *cells])
        file.write(markdown(["board", "release", "pairs", "measured", "predicted"], body))
        powered = clocks()
        file.write("\nA product of 16384 x 4096 x 4096:\n\n")
        file.write(markdown(list(powered[0]), [list(r.values()) for r in powered]))
        file.write("\nRanges published elsewhere:\n\n")
        file.write(markdown(list(ranges[0]), [list(r.values()) for r in ranges]))
        file.write("\nProducts with weights by what became of them:\n\n")
        file.write(markdown(list(by_layer[0]), [list(r.values()) for r in by_layer]))


if __name__ == "__main__":
    main()
