"""Parameters and placement of what the real compiler wrote, against this model's: one line a network.

    python studies/edge_tpu/check_compiled.py [--models FOLDER]

``compiled.csv`` has the bytes of the parameter streams in compiled files and the operators left beside them. Networks are
looked for in FOLDER (files of google-coral/test_data, not shipped), in tests/data/tflite, and among the traces of the zoo.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

from hwsim.plan.edge_tpu_compile import Compiled
from hwsim.plan.edge_tpu_support import MAPPED
from hwsim.simulation.edge_tpu_compiler import edge_tpu_compile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def rows() -> list[dict[str, str]]:
    """The rows of compiled.csv."""
    with (HERE / "compiled.csv").open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def compiled(model: str, folders: list[Path]) -> Compiled | None:
    """The network as hwsim compiles it; None where neither a file nor a trace is at hand."""
    for folder in folders:
        file = folder / f"{model}.tflite"
        if file.is_file():
            return edge_tpu_compile(file, "coral-usb")[0]
    if (ROOT / "models" / f"{model}.layers.csv").is_file():
        return edge_tpu_compile(model, "coral-usb", precision="uint8")[0]
    return None


def left_on_host(done: Compiled) -> dict[str, int]:
    """How many operators of each kind are not mapped."""
    found = Counter(op.code for op, s in zip(done.operators, done.status, strict=True) if s != MAPPED)
    return {code.removeprefix("CUSTOM:"): count for code, count in found.items()}


def value(done: Compiled, quantity: str) -> float:
    """The model's value of a row's quantity."""
    if quantity == "log_cached_mib":
        return done.cached_bytes / 2**20
    return float(sum(p.stream for p in done.parameters if p is not None))


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=None)
    args = parser.parse_args()
    folders = [Path(args.models)] if args.models else []
    folders.append(ROOT / "tests" / "data" / "tflite")
    print(f"{'model':52} {'quantity':16} {'compiler':>10} {'model':>10} {'error':>8}  left on the host")
    for row in rows():
        done = compiled(row["model"], folders)
        if done is None:
            print(f"{row['model']:52} not at hand")
            continue
        mine, theirs = value(done, row["quantity"]), float(row["value"])
        told = {k: int(v) for k, v in (part.split("=") for part in row["left_on_host"].split())}
        same = "" if row["model"].startswith("ssd") else "equal" if told == left_on_host(done) else "NOT EQUAL"
        print(
            f"{row['model']:52} {row['quantity']:16} {theirs:10.8g} {mine:10.8g} {100 * (mine / theirs - 1):+7.2f} %  {same}"
        )


if __name__ == "__main__":
    main()
