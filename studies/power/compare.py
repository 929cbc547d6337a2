"""Modelled power beside measured power: Jetson kits at the wall, single boards, servers by differences.

python studies/power/compare.py     writes jetson.csv, scores.csv, boards.csv, jetson.png, tables of README.md and docs/energy.md

Two predictions for every Jetson row: at the simulated rate (everything is the simulator's) and at the measured rate (the
power model alone: a slower run of the same work draws less).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from fit import fitted_on
from model import Modelled, machine, simulate
from rows import Row, jetson_rows, reference

import hwsim
from hwsim.power import Span
from hwsim.power.wall import wall_power_w

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "energy.md"
Pair = tuple[Row, Modelled]


def wall(pair: Pair, simulated: bool) -> float:
    """Predicted power at the wall."""
    row, found = pair
    watts = found.module_w(found.rate if simulated else row.rate)
    return wall_power_w(machine(row), Span(watts, watts, watts)).value


def error(pair: Pair, simulated: bool) -> float:
    """Predicted over measured minus one."""
    return wall(pair, simulated) / pair[0].watts - 1


def score(label: str, pairs: Sequence[Pair]) -> list[str]:
    """One line of the table of scores."""
    line = [label, str(len(pairs))]
    for simulated in (False, True):
        e = np.array([error(p, simulated) for p in pairs])
        line += [f"{np.median(abs(e)):.1%}", f"{np.quantile(abs(e), 0.9):.1%}", f"{np.median(e):+.1%}"]
    return line


def groups(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Labelled subsets: everything, fitted and held out, board by round, sets."""
    out = [
        ("all", list(pairs)),
        ("fitted on (v1.1, v3.0, stated clocks)", [p for p in pairs if fitted_on(p[0])]),
        ("held out", [p for p in pairs if not fitted_on(p[0])]),
        ("held out, without Orin v2.0", [p for p in pairs if not fitted_on(p[0]) and not _early(p[0])]),
    ]
    for board in dict.fromkeys(p[0].board for p in pairs):
        for group in dict.fromkeys(p[0].group for p in pairs):
            some = [p for p in pairs if p[0].board == board and p[0].group == group and p[0].set != "ctuning"]
            if some:
                out.append((f"{board.removeprefix('jetson-')}, {group.removeprefix('mlperf-')}", some))
    out.append(("cTuning: no clocks stated", [p for p in pairs if p[0].set == "ctuning"]))
    return out


def _early(row: Row) -> bool:
    return row.group == "mlperf-v2.0" and "orin" in row.board


def differences(pairs: Sequence[Pair], simulated: bool) -> np.ndarray:
    """Errors of the ratio of two rows of one board and round: scenarios, networks and clocks, the board's terms shared."""
    out = []
    for i, (row, found) in enumerate(pairs):
        for other in pairs[:i]:
            if (row.board, row.group, row.set) == (other[0].board, other[0].group, other[0].set):
                ratio = wall((row, found), simulated) / wall(other, simulated)
                out.append(abs(ratio / (row.watts / other[0].watts) - 1))
    return np.array(out)


def board_rows() -> list[list[str]]:
    """Boards measured at their own supply, and what a server's power changes by."""
    out: list[list[str]] = []

    def add(what: str, machine_name: str, network: str, measured: str, watts: Span, note: str) -> None:
        span = f"{watts.low:.3g} to {watts.high:.3g}" if watts.high > watts.low else ""
        out.append([what, machine_name, network, measured, f"{watts.value:.3g}", span, note])

    def board(name: str, network: str, batch: int = 1, **how: object) -> Span:
        result = hwsim.simulate(network, name, batch=batch, **how)  # type: ignore[arg-type]
        seconds = float(result.energy.time_s.sum())
        low, high = result.energy.interval_j
        return Span(result.energy.total_j / seconds, low / seconds, high / seconds)

    edge = "deepedgebench, 5 V supply"
    nano = board("jetson-nano", "mobilenet_v2", precision="fp32")
    add(
        edge,
        "jetson-nano",
        "mobilenet_v2 fp32",
        "7.09",
        nano,
        "TensorRT, TF 7.29, TF-TRT 7.44; its run is 4 times slower",
    )
    for name, watts in (("jetson-nano-cpu", "3.01"), ("dev-board-cpu", "3.85")):
        power = board(name, "mobilenet_v1", precision="int8", stack="ruy:1")
        add(edge, name, "mobilenet_v1 int8, 1 thread", watts, power, "busy power of the file comes from this row")
    with contextlib.suppress(hwsim.HwsimError):  # the family may not be simulated yet
        energy = hwsim.simulate("mobilenet_v2", "coral-dev-board", batch=1, precision="int8").energy
        seconds = float(energy.time_s.sum())
        static = energy.components.index("static")
        low, high = ((t.sum() - t[:, static].sum()) / seconds for t in (energy.low_j, energy.high_j))
        chip = Span(energy.dynamic_j / seconds, low, high)
        add(f"{edge}, busy less idle", "coral-dev-board", "mobilenet_v2 int8", "1.29", chip, "without the host's work")
    die = {
        name: board("tpu-v1", name, size).value
        for name, size in (("tpu1_cnn0", 8), ("tpu1_mlp0", 200), ("tpu1_lstm0", 64))
    }
    for name, watts in die.items():
        add(
            "server of 4 dies, busy less idle",
            "tpu-v1",
            name,
            "94",
            Span(*(4 * (watts - 28),) * 3),
            "the host is busy too",
        )
    base = board("rtx-4090", "resnet50", precision="int8").value
    for network, label, batch, shapes, watts in (
        ("resnet50", "multi-stream", 8, {}, 447.8), ("resnet50", "offline", 256, {}, 603.5),
        ("rnnt", "single-stream", 1, {"S": 247, "U": 59}, 386.4), ("rnnt", "offline", 2048, {"S": 247, "U": 59}, 599.5),
    ):  # fmt: skip
        power = board("rtx-4090", network, batch, precision="int8" if network == "resnet50" else "fp16", shapes=shapes)
        add("workstation, less ResNet-50 single-stream", "rtx-4090", f"{network} {label}", f"{watts - 322.5:.0f}",
            Span(*(1.1 * (power.value - base),) * 3), "cTuning v3.0; supply of 0.9")  # fmt: skip
    base = board("a2", "resnet50", precision="int8").value
    for network, label, batch, shapes, watts in (
        ("resnet50", "multi-stream", 8, {}, 256.5), ("resnet50", "offline", 256, {}, 266.9),
        ("bert_large", "single-stream", 1, {"S": 180}, 271.1), ("bert_large", "offline", 64, {"S": 180}, 284.7),
    ):  # fmt: skip
        power = board("a2", network, batch, precision="int8", shapes=shapes)
        add("server, less ResNet-50 single-stream", "a2", f"{network} {label}", f"{watts - 232.5:.0f}",
            Span(*(1.1 * (power.value - base),) * 3), "Dell XR12 v2.1; the host's share changes too")  # fmt: skip
    return out


def figure(pairs: Sequence[Pair], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharex=True, sharey=True, layout="constrained")
    boards = {
        "jetson-agx-orin-64gb": ("AGX Orin", "C0"),
        "jetson-agx-xavier": ("AGX Xavier", "C1"),
        "jetson-xavier-nx": ("Xavier NX", "C2"),
    }
    for axis, simulated in zip(axes, (False, True), strict=True):
        ends = np.array([10.0, 62.0])
        axis.fill_between(ends, 0.85 * ends, 1.15 * ends, color="0.9", label="15 %")
        axis.plot(ends, ends, color="0.5", lw=0.8)
        for board, (label, colour) in boards.items():
            for fitted, face in ((True, colour), (False, "none")):
                some = [p for p in pairs if p[0].board == board and fitted_on(p[0]) is fitted]
                axis.scatter(
                    [p[0].watts for p in some], [wall(p, simulated) for p in some], s=22, edgecolor=colour, facecolor=face,
                    label=f"{label}, {'fitted' if fitted else 'held out'}",
                )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured at the wall, W")
        axis.set_title("at the simulated rate" if simulated else "at the measured rate", fontsize=10)
        ticks = [10, 15, 20, 30, 40, 60]
        for which in (axis.xaxis, axis.yaxis):
            which.set_ticks(ticks, labels=[str(t) for t in ticks])
            which.set_ticks([], minor=True)
    axes[0].set_ylabel("modelled, W")
    axes[0].legend(fontsize=7, frameon=False)
    fig.savefig(file, dpi=130)


def write(name: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\n").writerows([header, *lines])


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    body = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines)]
    return "\n".join(body)


def put(text: str, name: str, body: str) -> str:
    """``text`` with what stands between the marks of table ``name`` replaced."""
    return re.sub(
        rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", lambda m: m[1] + body + "\n" + m[2], text, flags=re.DOTALL
    )


SCORES = ("rows", "number", "measured rate: median", "90 %", "bias", "simulated rate: median", "90 %", "bias")
BOARDS = ("measured", "machine", "network", "measured W", "modelled W", "interval", "note")
JETSON = (
    "board", "round", "network", "scenario", "batch", "dla", "gpu_mhz", "emc_mhz", "cpu_mhz", "clocks", "measured_per_s",
    "simulated_per_s", "measured_w", "modelled_w", "modelled_w_at_measured_rate", "static_w", "joules",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the reference data")
    pairs = [(row, simulate(row)) for row in jetson_rows(reference(parser.parse_args().data))]
    write(
        "jetson.csv",
        JETSON,
        [
            (
                row.board, row.group, row.network, row.scenario, str(row.batch), str(int(row.dla)), f"{row.gpu_mhz:g}",
                f"{row.emc_mhz:g}", f"{row.cpu_mhz:g}", row.set, f"{row.rate:.5g}", f"{found.rate:.5g}", f"{row.watts:.4g}",
                f"{wall((row, found), True):.4g}", f"{wall((row, found), False):.4g}", f"{sum(found.static_w.values()):.3g}",
                " ".join(f"{k}={v:.3g}" for k, v in found.work_j.items()),
            )
            for row, found in pairs
        ],
    )  # fmt: skip
    scores = [score(label, some) for label, some in groups(pairs)]
    write("scores.csv", SCORES, scores)
    boards = board_rows()
    write("boards.csv", BOARDS, boards)
    figure(pairs, HERE / "jetson.png")
    said = []
    for simulated, label in ((False, "measured"), (True, "simulated")):
        d = differences(pairs, simulated)
        said.append(f"at the {label} rate median {np.median(d):.1%}, {(d <= 0.1).mean():.0%} within 10 %")
    page = (HERE / "README.md").read_text(encoding="utf-8")
    page = put(page, "scores", markdown(SCORES, scores))
    page = put(page, "differences", f"{len(d)} pairs: {'; '.join(said)}.")
    page = put(page, "boards", markdown(BOARDS, boards))
    (HERE / "README.md").write_text(page, encoding="utf-8")
    lines = []
    for label, short in (("all", "all"), ("held out", "held out")):
        line = next(s for s in scores if s[0] == label)
        lines += [
            (f"{short}, at the simulated rate", *line[5:]),
            (f"{short}, at the measured rate: power alone", *line[2:5]),
        ]
    ratios = [f"{np.median(differences(pairs, s)):.1%}" for s in (True, False)]
    lines.append(("ratios of two rows of one board, simulated rate", ratios[0], "", ""))
    lines.append(("ratios of two rows of one board, measured rate", ratios[1], "", ""))
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(put(text, "wall", markdown(("rows", "median", "90 % within", "bias"), lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
