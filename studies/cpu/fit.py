"""Fit the constants of family ``cpu`` on a fifth of the measured rows; devices named in HELD_OUT are never looked at.

    python studies/cpu/fit.py [--data FOLDER] [--write]

Rows: `hwsim.validate.cpu`. A fit minimises the logarithm of predicted over measured time, every group of rows (device,
library, precision) weighing the same, within the bounds of ``accelerators/constants/cpu.toml``. ``--write`` puts the values
there. Without ``--data`` the rows that ship with hwsim are used, which are all the fit needs.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from hwsim.machine import load_accelerator, load_constants
from hwsim.network.load import load_network
from hwsim.plan.cpu_work import cpu_plan
from hwsim.plan.options import block_sparsity
from hwsim.plan.precision import parse_precision
from hwsim.schedule.cpu_lower import Sparsity, lower_cpu
from hwsim.schedule.cpu_view import cpu_view
from hwsim.schedule.table import ScheduleBuilder
from hwsim.timing.cpu import kernel_times
from hwsim.validate.cpu import cases, network_of
from hwsim.validate.measured import measured_dir

FILE = Path(__file__).resolve().parents[2] / "accelerators" / "constants" / "cpu.toml"
# Never used to choose a constant or a formula of the timing; every other row of the devices below is held out too.
HELD_OUT = (
    "raspberry-pi-4", "pixel-4", "jetson-nano-cpu", "desktop-xeon", "raspberry-pi-3", "nrf5340-dk", "ek-ra6m4", "numaker-m467hj",
    "nucleo-h7a3zi-q", "nucleo-u575zi-q", "stm32f746g-disco",
)  # fmt: skip
CHOSEN = {  # target: (what begins with, precision)
    "raspberry-pi-3b-plus": [("mobilenet_v1 ", "fp32"), ("mobilenet_v3_large", "fp32"), ("mobilenet_v2", "int8")],
    "pixel-3a": [("mobilenet_v2", "fp32"), ("mobilenet_v3_small", "fp32")],
    "pixel-2": [("mobilenet_v1 (xnnpack:4", "fp32"), ("mobilenet_v2 (xnnpack:1", "fp32"), ("mobilenet_v1 90%x1", "fp32")],
    "pixel-3": [
        ("mobilenet_v1_0.25_192", "int8"), ("mobilenet_v1_0.75_128", "int8"), ("mobilenet_v1 ", "int8"),
        ("mobilenet_v1_0.25_128", "fp32"), ("mobilenet_v1_0.5_224", "fp32"), ("inception_v3", "fp32"),
    ],
    "dev-board-cpu": [("mobilenet_v1 ", "int8"), ("mobilenet_v2", "int8"), ("vgg16", "int8"), ("densenet121", "int8")],
    "nucleo-l4r5zi": [("mlperf_tiny_ic (cmsis", "int8"), ("mlperf_tiny_kws (cmsis", "int8"), ("mlperf_tiny_ad (cmsis", "int8")],
}  # fmt: skip


def chosen(case) -> bool:  # type: ignore[no-untyped-def]
    """Whether the fit may look at a row."""
    if case.excluded or case.quantity != "latency" or case.target.split(":")[0] in HELD_OUT:
        return False
    picks = CHOSEN.get(case.target, [])
    return any(case.what.startswith(start) and case.precision == form for start, form in picks)


def lowered(case):  # type: ignore[no-untyped-def]
    """The schedule of a row's network, and the view it was lowered for."""
    options = case.question["options"]
    library, _, threads = options["stack"].partition(":")
    acc = load_accelerator(case.target)
    view = cpu_view(acc, library, int(threads))
    made = network_of(case.question)
    net = load_network(made) if isinstance(made, str) else made
    net = net.bind(N=1) if "N" in net.symbols else net.bind()
    sparse = None
    if "sparsity" in options:
        share, block = block_sparsity(options["sparsity"])
        sparse = Sparsity(1 - share, block)
    builder = ScheduleBuilder()
    for kernel in cpu_plan(net, acc, parse_precision(options["precision"]), view=view).kernels:
        lower_cpu(builder, kernel, view, sparse)
        builder.end_kernel(kernel.name)
    return builder.build(), view


def main() -> None:
    """Fit, print, and write when asked."""
    from scipy.optimize import least_squares

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=None)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    every = [c for c in cases(measured_dir(args.data)) if not c.excluded and c.quantity == "latency"]
    rows, seen = [], set()
    for case in every:
        if chosen(case) and case.key not in seen:  # the same submission is repeated round after round
            seen.add(case.key)
            rows.append(case)
    print(f"{len(rows)} of {len(every)} rows that count are fitted on")
    table = load_constants("cpu", file=FILE).table
    names = [n for n, c in table.items() if c.low < c.high and not c.source.startswith("assumed: kept")]
    ready = [lowered(case) for case in rows]
    groups: dict[tuple[str, str, str], int] = {}
    keys = [(c.target, c.question["options"]["stack"], c.precision) for c in rows]
    for key in keys:
        groups[key] = groups.get(key, 0) + 1
    weight = np.array([groups[key] ** -0.5 for key in keys])
    low = np.array([max(table[n].low, 1e-3 * table[n].high) for n in names])
    high = np.array([table[n].high for n in names])
    measured = np.array([c.measured for c in rows])

    def predicted(x: np.ndarray) -> np.ndarray:
        constants = {n: c.value for n, c in table.items()} | dict(zip(names, np.exp(x).tolist(), strict=True))
        return np.array([sum(t.clocks for t in kernel_times(s, v, constants)) / v.clock_hz for s, v in ready])

    start = np.log(np.clip([table[n].value for n in names], low * 1.001, high * 0.999))
    found = least_squares(
        lambda x: weight * np.log(predicted(x) / measured), start, bounds=(np.log(low), np.log(high)), loss="soft_l1",
        f_scale=0.2, diff_step=0.02, max_nfev=60,
    )  # fmt: skip
    ratio = predicted(found.x) / measured
    for case, r in zip(rows, ratio, strict=True):
        print(f"{case.target:24} {case.what:40} {case.precision:6} {case.measured * 1e3:9.3f} ms  ratio {r:.2f}")
    print(f"median |error| of the fitted rows {100 * np.median(np.abs(ratio - 1)):.1f} %")
    values = dict(zip(names, np.exp(found.x).tolist(), strict=True))
    for name, value in values.items():
        bound = (
            " (at a bound)"
            if min(abs(value / b - 1) for b in (table[name].low or 1e-9, table[name].high)) < 0.01
            else ""
        )
        print(f"{name:24} {value:.4g}{bound}")
    if args.write:
        write(values)


def write(values: dict[str, float]) -> None:
    """Put fitted values into the constants file, source line included."""
    text = FILE.read_text(encoding="utf-8")
    for name, value in values.items():
        shown = f'"{value * 1e6:.3g} us"' if name.startswith("fork_join") else f"{value:.3g}"
        pattern = re.compile(rf'(\[constant\.{name}\]\nvalue = \[)[^,]+, "[^"]*"')
        text, count = pattern.subn(
            rf'\g<1>{shown}, "derived: fitted by studies/cpu/fit.py on a fifth of the rows"', text
        )
        if count != 1:
            raise SystemExit(f"{name}: not found in {FILE.name}")
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
