"""Fit the constants of family ``edge-tpu`` on at most a fifth of the measured rows (`CHOSEN`; README.md has the rules).

    python studies/edge_tpu/fit.py --data FOLDER [--write]

Coordinate descent on ``log(predicted / measured)``, errors under 5 % counting as their square, within the bounds of
``accelerators/constants/edge-tpu.toml``. Constants whose source does not say "fitted" are read off compiled files and stay.
``--write`` puts the values into that file. Takes ten minutes.
"""

from __future__ import annotations

import argparse
import math
import re
from dataclasses import replace
from pathlib import Path
from statistics import median

from hwsim.machine import load_accelerator
from hwsim.machine.constants import Constants, load_constants
from hwsim.plan.options import RunOptions
from hwsim.simulation.edge_tpu import simulate_edge_tpu
from hwsim.validate.case import Case
from hwsim.validate.edge_tpu import cases, network_of
from hwsim.validate.measured import measured_dir
from hwsim.validate.run import merged

FILE = Path(__file__).resolve().parents[2] / "accelerators" / "constants" / "edge-tpu.toml"
FITTED = "derived: fitted by studies/edge_tpu/fit.py on a tenth of the rows"
# What the target contains, and how the row's name begins. No row of coral-usb on a Raspberry Pi 3, 5 or on USB 2 of the
# 5 W board is looked at, none of UNet, EfficientNet-M, YOLOv8, ResNet, VGG, Inception v2 to v4.
CHOSEN = (
    ("desktop", "mobilenet_v1_1.0"), ("desktop", "mobilenet_v2_1.0"), ("desktop", "inception_v1"),
    ("desktop", "EfficientNet-EdgeTPU-S"), ("desktop", "SqueezeNet"), ("desktop", "ssd_mobilenet_v1"),
    ("dev-board", "mobilenet_v2_1.0"), ("dev-board", "DeepLab"), ("dev-board", "ssd_mobilenet_v1"),
    ("pi-4", "mobilenet_v1_1.0"), ("3b-plus", "ssd_mobilenet_v1"),
    ("10w/usb3", "io_InOut_padding_2x2x3->256x256"), ("5w/usb3", "io_InOut_padding_2x2x3->256x256"),
    ("10w/usb2", "io_InOut_padding_2x2x3->256x256"), ("10w/usb3", "io_InOut_padding_2x2x3->2x2x3"),
    ("5w/usb3", "io_InOut_padding_2x2x3->2x2x3"), ("10w/usb3", "io_InOut_padding_stride_2x2x3->1x1x3->256x256"),
    ("10w/usb3", "io_InOut_stride_1x1x3->256x256"), ("10w/usb3", "synthetic_dense_100_L100"),
    ("10w/usb3", "synthetic_conv_32x7_L25"),
)  # fmt: skip


def chosen(case: Case) -> bool:
    """Whether the fit may look at a row."""
    return not case.excluded and any(where in case.target and case.what.startswith(what) for where, what in CHOSEN)


class Trial:
    """Predictions of the chosen rows with any constants."""

    def __init__(self, rows: list[Case], table: Constants) -> None:
        self.rows, self.table = rows, table
        self.ready = [(*network_of(case.question), load_accelerator(case.target)) for case in rows]

    def ratios(self, values: dict[str, float]) -> list[float]:
        """Predicted over measured, row by row."""
        own = {n: replace(c, value=values.get(n, c.value)) for n, c in self.table.table.items()}
        constants = Constants("edge-tpu", own)
        out = []
        for case, (net, shapes, acc) in zip(self.rows, self.ready, strict=True):
            options = RunOptions(1, shapes or {}, None, None, "uint8", None, None, "warm").check()
            out.append(simulate_edge_tpu(net, acc, options, None, constants).latency_s / case.measured)
        return out

    def cost(self, values: dict[str, float]) -> float:
        """Mean loss over the rows."""
        errors = [abs(math.log(r)) for r in self.ratios(values)]
        return sum(e if e > 0.05 else e * e / 0.1 + 0.025 for e in errors) / len(errors)


def descend(trial: Trial, values: dict[str, float], rounds: int = 4) -> dict[str, float]:
    """Return the values at which no constant alone can lower the loss by a step of 1.3 (1.15, 1.08, 1.04) either way."""
    table, best, step = trial.table.table, trial.cost(values), 1.3
    for number in range(rounds):
        for name in values:
            for factor in (step, 1 / step):
                while True:
                    moved = min(max(values[name] * factor, table[name].low), table[name].high)
                    cost = trial.cost(values | {name: moved}) if moved != values[name] else best
                    if cost > best - 1e-5:
                        break
                    values, best = values | {name: moved}, cost
        print(f"round {number}: {best:.4f}", {n: float(f"{v:.4g}") for n, v in values.items()}, flush=True)
        step = 1 + (step - 1) / 2
    return values


def main() -> None:
    """Fit, print, and write when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    every = [c for c in merged(cases(measured_dir(args.data))) if not c.excluded]
    rows = [c for c in every if chosen(c)]
    print(f"{len(rows)} of {len(every)} rows that count are fitted on")
    table = load_constants("edge-tpu", file=FILE)
    names = [n for n, c in table.table.items() if "fitted" in c.source or "before the fit" in c.source]
    trial = Trial(rows, table)
    values = descend(trial, {n: table[n] for n in names})
    ratios = trial.ratios(values)
    for case, ratio in zip(rows, ratios, strict=True):
        print(f"{case.target:40} {case.what:56} {case.measured * 1e3:9.3f} ms  ratio {ratio:.2f}")
    print(f"median |error| of the fitted rows {100 * median(abs(r - 1) for r in ratios):.1f} %")
    for name, value in values.items():
        constant = table.table[name]
        print(f"{name:24} {value:.4g}{' (at a bound)' if value in (constant.low, constant.high) else ''}")
    if args.write:
        write(values)


def write(values: dict[str, float]) -> None:
    """Put fitted values into the constants file, source line included."""
    text = FILE.read_text(encoding="utf-8")
    for name, value in values.items():
        pattern = re.compile(rf'(\[constant\.{name}\]\nvalue = \[)[^,]+, "[^"]*"')
        text, count = pattern.subn(rf'\g<1>{float(f"{value:.3g}"):g}, "{FITTED}"', text)
        if count != 1:
            raise SystemExit(f"{name}: not found in {FILE.name}")
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
