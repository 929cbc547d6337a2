"""Compare the family ``cpu`` with measurements: errors by device, int8 over fp32, block sparsity, resizing, energy.

    python studies/cpu/compare.py [--data FOLDER]

Writes ``results/*.csv``, ``results/tables.md`` and ``results/cpu.svg`` beside this file. The rules that leave rows out are
those of `hwsim.validate.cpu`, written before any prediction was looked at. ``--data`` names a folder of the full measured
tables; without it the rows that ship with hwsim are used.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import hwsim
from hwsim.machine import load_accelerator
from hwsim.network.load import load_network
from hwsim.plan.stages import host_stages
from hwsim.validate.case import Outcome
from hwsim.validate.cpu import cases, predict
from hwsim.validate.measured import find, measured_dir, table

RESULTS = Path(__file__).resolve().parent / "results"


def _md(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(v) for v in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _score(found: Sequence[Outcome]) -> tuple[str, str, str, str]:
    ratio = np.array([o.ratio for o in found])
    error, roofline = 100 * np.abs(ratio - 1), np.array([o.roofline_error_pct for o in found])
    return (
        f"{np.median(ratio):.2f}",
        f"{np.median(error):.0f}",
        f"{np.percentile(error, 90):.0f}",
        f"{np.median(roofline):.0f}",
    )


def once(found: Sequence[Outcome]) -> list[Outcome]:
    """One outcome a question: repeated submissions of one measurement count once."""
    return list({o.case.key: o for o in found}.values())


def by_device(found: Sequence[Outcome], quantity: str) -> str:
    """Errors by device, library and precision."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for o in found:
        if o.case.quantity == quantity and not o.case.excluded:
            groups.setdefault((o.case.target, o.case.question["options"]["stack"], o.case.precision), []).append(o)
    rows = [(*k, len(v), *_score(v)) for k, v in sorted(groups.items())]
    every = [o for v in groups.values() for o in v]
    for form in ("fp32", "int8"):
        part = [o for o in every if o.case.precision == form]
        if part:
            rows.append(("all", "", form, len(part), *_score(part)))
    rows.append(("**all**", "", "", len(every), *_score(every)))
    return _md(
        ("device", "stack", "precision", "rows", "predicted / measured", "median error %", "90th %", "roofline %"), rows
    )


def speedups(found: Sequence[Outcome]) -> tuple[str, list[tuple[float, float]]]:
    """int8 over fp32 of the same network, device and library."""
    pairs: dict[tuple[str, str, str], dict[str, Outcome]] = {}
    for o in found:
        if o.case.quantity == "latency" and not o.case.excluded and "%" not in o.case.what:
            name = o.case.what.partition(" ")[0]
            pairs.setdefault((o.case.target, o.case.question["options"]["stack"], name), {})[o.case.precision] = o
    rows, both = [], []
    for key, pair in sorted(pairs.items()):
        if len(pair) == 2:
            measured = pair["fp32"].case.measured / pair["int8"].case.measured
            predicted = pair["fp32"].predicted / pair["int8"].predicted
            both.append((measured, predicted))
            rows.append((*key, f"{measured:.2f}", f"{predicted:.2f}"))
    return _md(("device", "stack", "network", "measured", "predicted"), rows), both


def sparse(found: Sequence[Outcome]) -> str:
    """Block sparsity: the published latencies, and the gain at equal accuracy that the paper states."""
    rows = [
        (o.case.what, f"{o.case.measured * 1e3:.0f}", f"{o.predicted * 1e3:.1f}", f"{o.ratio:.2f}")
        for o in found if "%" in o.case.what
    ]  # fmt: skip
    out = _md(("network on Snapdragon 835", "measured ms", "predicted ms", "ratio"), rows)
    # networks of about equal published accuracy: a sparse one and the narrower dense one it replaces
    gains = []
    for wide, narrow, sparsity in (
        ("mobilenet_v1", "mobilenet_v1_0.75_224", "90%x4"), ("mobilenet_v1_0.75_224", "mobilenet_v1_0.5_224", "90%x4"),
        ("mobilenet_v2_x1.5", "mobilenet_v2", "85%x2"), ("mobilenet_v2_x2.0", "mobilenet_v2_x1.5", "85%x2"),
    ):  # fmt: skip
        options = {"precision": "fp32", "stack": "xnnpack:1"}
        thin = hwsim.simulate(wide, "pixel-2", sparsity=sparsity, **options).latency_s
        dense = hwsim.simulate(narrow, "pixel-2", **options).latency_s
        own = hwsim.simulate(wide, "pixel-2", **options).latency_s
        gains.append((f"{wide} {sparsity}", narrow, f"{dense / thin:.2f}", f"{own / thin:.2f}"))
    return out + "\n" + _md(("sparse network", "dense one it replaces", "gain", "gain over itself, dense"), gains)


def curve() -> list[tuple[int, int, float]]:
    """Speed-up of MobileNet v1 on Pixel 2 by share of zeros and block."""
    options = {"precision": "fp32", "stack": "xnnpack:1"}
    dense = hwsim.simulate("mobilenet_v1", "pixel-2", **options).latency_s
    return [
        (
            share,
            block,
            dense / hwsim.simulate("mobilenet_v1", "pixel-2", sparsity=f"{share}%x{block}", **options).latency_s,
        )
        for share in (50, 60, 70, 80, 90, 95)
        for block in (1, 2, 4)
    ]


def resizing(folder: Path) -> str:
    """What a classification with its resize takes more than the bare invoke, beside the stage's cost."""
    path = find(folder, "measured_networks")
    hosts = {
        "Intel Xeon": "desktop-xeon",
        "Coral Dev Board": "dev-board-cpu",
        "Pi 3B+": "raspberry-pi-3b-plus",
        "Pi 3B": "raspberry-pi-3",
        "Pi 4B": "raspberry-pi-4",
    }
    bare: dict[str, float] = {}
    with_resize: dict[str, list[float]] = {}
    for row in table(path) if path is not None else ():
        if row["group"] != "coral" or row["model"] != "mobilenet_v1_1.0_224_quant":
            continue
        host = next((t for word, t in hosts.items() if word in row["device_variant"]), None)
        if host is not None:
            if "resize" in row["note"]:
                with_resize.setdefault(host, []).append(float(row["value"]))
            else:
                bare[host] = float(row["value"])
    net = load_network("mobilenet_v1").bind(N=1)
    rows = []
    for host, values in with_resize.items():
        if host in bare:
            before, _ = host_stages(net, load_accelerator(host), pre="resize,copy")
            span = f"{min(values) - bare[host]:.2f} to {max(values) - bare[host]:.2f}"
            rows.append((host, span, f"{sum(s.seconds for s in before) * 1e3:.2f}"))
    return _md(("host", "measured ms, three photographs", "predicted ms"), rows)


def figure(
    found: Sequence[Outcome], pairs: Sequence[tuple[float, float]], gains: Sequence[tuple[int, int, float]]
) -> None:
    """Predicted over measured time, int8 gain, gain by sparsity."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "hwsim"
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), constrained_layout=True)
    kept = [o for o in found if not o.case.excluded and o.case.quantity == "latency"]
    for number, target in enumerate(sorted({o.case.target.split(":")[0] for o in kept})):
        mine = [o for o in kept if o.case.target.split(":")[0] == target]
        axes[0].loglog([o.case.measured * 1e3 for o in mine], [o.predicted * 1e3 for o in mine], "os^v<>DPX"[number % 9], ms=4,
                       color=plt.get_cmap("tab20")(number % 20), label=target)  # fmt: skip
    span = [0.3, 2e4]
    axes[0].plot(span, span, "k-", lw=0.8)
    for factor in (0.8, 1.25):
        axes[0].plot(span, [factor * s for s in span], "k:", lw=0.6)
    axes[0].set(xlabel="measured, ms", ylabel="predicted, ms", title="Latency, batch 1")
    axes[0].legend(fontsize=5.5, ncol=2)
    axes[1].plot([p[0] for p in pairs], [p[1] for p in pairs], "o", ms=4)
    axes[1].plot([1, 3.5], [1, 3.5], "k-", lw=0.8)
    axes[1].axvspan(1.5, 2.0, alpha=0.15)
    axes[1].set(xlabel="measured", ylabel="predicted", title="Speed-up of int8 over fp32 (band: 1.5 to 2)")
    for block in (1, 2, 4):
        axes[2].plot(
            [g[0] for g in gains if g[1] == block],
            [g[2] for g in gains if g[1] == block],
            "o-",
            ms=3,
            label=f"blocks of {block}",
        )
    axes[2].axhline(1, color="k", lw=0.6)
    axes[2].set(
        xlabel="zeros in 1 x 1 convolutions, %", ylabel="speed-up over dense", title="MobileNet v1, Pixel 2, one thread"
    )
    axes[2].legend(fontsize=7)
    fig.savefig(RESULTS / "cpu.svg", metadata={"Date": None})


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    folder = measured_dir(parser.parse_args().data)
    RESULTS.mkdir(exist_ok=True)
    found = once(predict(cases(folder)))
    with (RESULTS / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(
            (
                "target",
                "what",
                "precision",
                "group",
                "quantity",
                "excluded",
                "measured",
                "predicted",
                "ratio",
                "refused",
            )
        )
        for o in found:
            c = o.case
            numbers = (f"{c.measured:.6g}", f"{o.predicted:.6g}", f"{o.ratio:.3f}")
            out.writerow((c.target, c.what, c.precision, c.group, c.quantity, c.excluded, *numbers, o.refused))
    left = {}
    for o in found:
        if o.case.excluded:
            left[o.case.excluded] = left.get(o.case.excluded, 0) + 1
    gains, (text, pairs) = curve(), speedups(found)
    parts = (
        ("Latency", by_device(found, "latency")), ("Left out, by rule", _md(("rule", "rows"), sorted(left.items()))),
        ("int8 over fp32", text), ("Block sparsity", sparse(found)),
        ("Speed-up by share of zeros", _md(("zeros %", "block", "speed-up"), [(s, b, f"{g:.2f}") for s, b, g in gains])),
        ("Resizing a photograph to 224 x 224", resizing(folder)), ("Energy", by_device(found, "energy")),
    )  # fmt: skip
    (RESULTS / "tables.md").write_text("".join(f"## {head}\n\n{body}\n" for head, body in parts), encoding="utf-8")
    figure(found, pairs, gains)
    print((RESULTS / "tables.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
