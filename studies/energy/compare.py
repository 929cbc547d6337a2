"""Modelled energy beside what is published: actions against papers and tools, chips against measured power.

python studies/energy/compare.py        writes actions.csv and power.csv here, and the tables of docs/energy.md

Nothing is fitted: the tables of ``accelerators/constants`` come from the sources they name, idle power from the machine
files. ``references.csv`` says which published figure is also an end of one of our intervals.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import hwsim
from hwsim.energy import Span, load_actions, load_sram
from hwsim.energy.cells import adder_of, multiplier_j
from hwsim.result import Result

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "energy.md"
TPU1 = (
    ("tpu1_mlp0", 200),
    ("tpu1_mlp1", 168),
    ("tpu1_lstm0", 64),
    ("tpu1_lstm1", 96),
    ("tpu1_cnn0", 8),
    ("tpu1_cnn1", 32),
)
CLOUD = (("resnet50", 128), ("bert_base", 64), ("vit_b_16", 64))
Row = Sequence[str]


def modelled(action: str, key: str, size_kb: str, node_nm: float) -> Span:
    """What the tables have for one line of ``references.csv``."""
    if action == "mac":
        return multiplier_j(key, node_nm).plus(load_actions().at("add", adder_of(key), node_nm))
    if action.startswith("sram"):
        table = load_sram()
        read = table.read if action == "sram_read" else table.write
        return read(float(size_kb) * 1024, node_nm)
    return load_actions().at(action, key, node_nm)


def action_rows() -> list[Row]:
    rows = []
    with (HERE / "references.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            ours = modelled(line["action"], line["key"], line["size_kB"], float(line["node_nm"])).scaled(1e12)
            published = float(line["published_pJ"])
            size = f" {float(line['size_kB']):.6g} kB" if line["size_kB"] else ""
            name = " ".join([*line["action"].split("_"), line["key"]]).strip() + size
            node = "" if line["action"] == "dram" else line["node_nm"]
            inside = "yes" if ours.low * 0.999 <= published <= ours.high * 1.001 else "no"
            span = f"{ours.low:.3g} to {ours.high:.3g}"
            rows.append(
                (name, node, f"{published:.3g}", f"{ours.value:.3g}", span, inside, line["used"], line["source"])
            )
    return rows


def published_power() -> dict[str, dict[str, float]]:
    out: dict[str, dict[str, float]] = {}
    with (HERE / "measured.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            out.setdefault(line["machine"], {})[line["quantity"]] = float(line["watts"])
    return out


def power_row(machine: str, name: str, batch: int, result: Result, published: dict[str, float]) -> Row:
    energy, seconds = result.energy, float(result.energy.time_s.sum())
    low, high = (joules / seconds * result.totals.used for joules in energy.interval_j)
    static = energy.by_component["static"] / seconds * result.totals.used
    per_op = energy.total_j / (2 * float(energy.macs.sum())) * 1e12
    said = ", ".join(f"{quantity} {watts:g}" for quantity, watts in published.items())
    return (
        machine, name, str(batch), f"{result.utilization:.2f}", f"{static:.1f}", f"{result.power_w:.1f}",
        f"{low:.0f} to {high:.0f}", said, f"{per_op:.3g}",
    )  # fmt: skip


def power_rows() -> list[Row]:
    published = published_power()
    rows = []
    for name, batch in TPU1:
        result = hwsim.simulate(name, "tpu-v1", batch=batch)
        rows.append(power_row("tpu-v1", name, batch, result, published["tpu-v1"]))
    for machine in ("tpu-v3", "tpu-v4", "tpu-v4i"):
        for name, batch in CLOUD:
            result = hwsim.simulate(name, machine, batch=batch, precision="bf16")
            rows.append(power_row(machine, name, batch, result, published[machine]))
        product = hwsim.matmul(8192, 8192, 8192)
        core = "tpu-v3-core" if machine == "tpu-v3" else machine  # a product without a batch runs on one core
        result = hwsim.simulate(product, core, precision="bf16")
        said = {k: v / (2 if core != machine else 1) for k, v in published[machine].items()}
        rows.append(power_row(core, "matmul 8192", 1, result, said))
    return rows


def proportionality() -> str:
    """TPU v1 at a tenth of its load: linear between idle and busy, against 88 % (CNN0) and 94 % (LSTM1) measured."""
    parts = []
    for name, batch, measured in (("tpu1_cnn0", 8, 88), ("tpu1_lstm1", 96, 94)):
        energy = hwsim.simulate(name, "tpu-v1", batch=batch).energy
        parts.append(f"{name} {100 * energy.power_at_load(0.1) / energy.power_w:.0f} % (measured {measured} %)")
    return "; ".join(parts)


def markdown(header: Sequence[str], rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


ACTION_HEADER = ("action", "node", "published pJ", "ours pJ", "interval", "inside", "used for ours", "source")
POWER_HEADER = (
    "machine", "network", "batch", "utilisation", "static W", "modelled W", "interval W", "published W", "pJ/op",
)  # fmt: skip


def put(text: str, name: str, body: str) -> str:
    """``text`` with what stands between the marks of table ``name`` replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    assert re.search(pattern, text, re.DOTALL), f"docs/energy.md has no place for {name}"
    return re.sub(pattern, lambda m: m[1] + body + "\n" + m[2], text, flags=re.DOTALL)


def main() -> None:
    actions, power = action_rows(), power_rows()
    for file, header, rows in (("actions.csv", ACTION_HEADER, actions), ("power.csv", POWER_HEADER, power)):
        with (HERE / file).open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerows([header, *rows])
    page = PAGE.read_text(encoding="utf-8")
    page = put(page, "actions", markdown(ACTION_HEADER, actions))
    page = put(page, "power", markdown(POWER_HEADER, power) + f"\n\nAt a tenth of its load: {proportionality()}.")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
