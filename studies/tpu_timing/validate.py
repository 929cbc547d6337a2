"""How true the TPU timing is: hwsim's answers beside measured kernels and beside simpler models.

python studies/tpu_timing/validate.py [--reference DIR]

Everything goes through ``hwsim.simulate`` with the shipped constants. Writes scores.csv (aggregates only: the measured
files state no licence), tpu_v3.csv and the figures beside this file, and prints the tables.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent))

import comparators
import reference_rows as rows
import retime
from retime import Floats

import hwsim
from hwsim.api import conv2d
from hwsim.errors import HwsimError
from hwsim.plan.kernel import Kernel

HERE = Path(__file__).resolve().parent
Bools = npt.NDArray[np.bool_]
CLASSES = ("all dims < 128", "128 <= max < 1024", "max >= 1024 > min", "all dims >= 1024")
V6E_FLOOR_US = 140.0  # host time in every row of that source, as its notes state
BIG_ADD = 200_000


@dataclass(frozen=True)
class Score:
    """Absolute errors of one model on some rows, %."""

    kernels: str
    model: str
    rows: str
    n: int
    median_pct: float
    mean_pct: float
    p95_pct: float
    max_pct: float
    bias_pct: float

    def line(self) -> str:
        return (
            f"{self.kernels:22s} {self.model:34s} {self.rows:20s} {self.n:4d}"
            f" {self.median_pct:7.2f} {self.mean_pct:7.2f} {self.p95_pct:7.1f} {self.max_pct:7.0f} {self.bias_pct:+7.1f}"
        )


def score(kernels: str, model: str, which: str, predicted: Floats, measured: Floats) -> Score:
    signed = (predicted / measured - 1) * 100
    error = np.abs(signed)
    values = (np.median(error), error.mean(), np.quantile(error, 0.95), error.max(), np.median(signed))
    return Score(kernels, model, which, len(error), *(round(float(v), 2) for v in values))


@dataclass(frozen=True)
class Products:
    """TPU v4 matrix products: sizes, measured us, and what each model says, us."""

    mnk: Floats
    measured: Floats
    models: dict[str, Floats]

    @property
    def held(self) -> Bools:
        """The half of the rows no constant was fitted on."""
        return np.asarray(np.arange(len(self.measured)) % 2 == 1, np.bool_)

    @property
    def size_class(self) -> npt.NDArray[np.int64]:
        """Index into CLASSES."""
        largest, smallest = self.mnk.max(axis=1), self.mnk.min(axis=1)
        return np.where(largest < 128, 0, np.where(largest < 1024, 1, np.where(smallest < 1024, 2, 3)))


def products(directory: Path) -> Products:
    found = rows.matmuls(directory)
    mnk = np.array([r.sizes for r in found], float)
    measured = np.array([r.value for r in found])
    view = retime.view_of("tpu-v4")
    peak = comparators.roofline(mnk, view.peak_macs * view.clock_hz, view.dram_read * view.clock_hz)
    models = {
        "hwsim": retime.simulated_us(retime.product, [r.sizes for r in found], "tpu-v4", "fp16"),
        "linear fit, eight constants": comparators.linear(mnk, measured, np.arange(len(measured)) % 2 == 0),
        "roofline": peak,
        "roofline + 1 us": peak + 1,
        "SCALE-Sim TPU, published fit": comparators.scalesim_tpu(mnk),
    }
    return Products(mnk, measured, models)


def product_scores(found: Products) -> list[Score]:
    out = []
    everything = np.ones(len(found.measured), bool)
    for model, predicted in found.models.items():
        for name, half in (("held out", found.held), ("all", everything)):
            out.append(score("matmul fp16", model, name, predicted[half], found.measured[half]))
            for index, label in enumerate(CLASSES):
                use = half & (found.size_class == index)
                out.append(score(f"matmul, {label}", model, name, predicted[use], found.measured[use]))
    return out


def vector_scores(directory: Path) -> list[Score]:
    """Additions, layer norms, copies."""
    out = []
    found = rows.adds(directory)
    value = np.array([r.value for r in found])
    large = np.array([r.elements > BIG_ADD for r in found])
    predicted = retime.simulated_us(retime.add, [r.sizes for r in found], "tpu-v4", "fp16")
    half = held(large)
    out.append(score("add > 2e5 elements", "hwsim", "held out", predicted[half], value[half]))
    out.append(score("add > 2e5 elements", "hwsim", "all", predicted[large], value[large]))
    out.append(score("add, smaller", "hwsim", "all, not fitted", predicted[~large], value[~large]))

    whole = rows.layer_norms(directory, "main")
    value = np.array([r.value for r in whole])
    predicted = retime.simulated_us(retime.layer_norm, [r.sizes for r in whole], "tpu-v4", "fp16")
    half = held(np.ones(len(whole), bool))
    out.append(score("layer norm", "hwsim", "held out", predicted[half], value[half]))
    out.append(score("layer norm", "hwsim", "all", predicted, value))
    copies = rows.copies(directory)
    value = np.array([r.value for r in copies])
    moved = np.array([r.sizes[0] for r in copies], float)
    view = retime.view_of("tpu-v4")
    sustained = view.dram_read * retime.shipped("tpu-v4")["memory_efficiency"]
    stage = np.ceil(moved / sustained) / view.clock_hz * 1e6
    half = held(np.ones(len(copies), bool))
    latency = copy_latency_us()
    for name, extra in ((f"DMA stage + {latency:.2f} us latency", latency), ("DMA stage alone", 0.0)):
        out.append(score("HBM copy", name, "held out", stage[half] + extra, value[half]))
        out.append(score("HBM copy", name, "all", stage + extra, value))
    return out


def part_scores(directory: Path) -> list[Score]:
    """The kernels a layer norm is made of; nothing is fitted on them."""
    out = []
    for event, label, part in (
        ("convert_reduce_fusion", "layer norm: reduction", 0),
        ("divide_convert_fusion", "layer norm: last kernel", 1),
    ):
        found = rows.layer_norms(directory, event)
        parts = layer_norm_parts_us([r.sizes for r in found])[part]
        out.append(score(label, "hwsim", "all, not fitted", parts, np.array([r.value for r in found])))
    return out


def layer_norm_parts_us(shapes: Sequence[retime.Sizes]) -> tuple[Floats, Floats]:
    """Time of each of the two reductions of a layer norm, and of its last kernel, us.

    Leaving one of the equal earlier passes out of the kernel gives the time of that pass.
    """
    three = retime.plans(retime.layer_norm, shapes, "tpu-v4", "fp16")
    two = [replace(p, kernels=tuple(_fewer_passes(k) for k in p.kernels)) for p in three]
    constants = retime.shipped("tpu-v4")
    whole, shorter = (retime.times_us(p, "tpu-v4", constants) for p in (three, two))
    each = whole - shorter
    return each, whole - 2 * each


def _fewer_passes(kernel: Kernel) -> Kernel:
    left = (kernel.passes - 1) / kernel.passes
    alu, special = round(kernel.alu * left), round(kernel.special * left)
    return replace(kernel, passes=kernel.passes - 1, alu=alu, special=special)


def copy_latency_us() -> float:
    """Latency of a copy on its own, as fit.py wrote it down; inside a kernel it is part of kernel_overhead."""
    with (HERE / "fit.csv").open(encoding="utf-8", newline="") as file:
        return next(float(r["even_half"]) * 1e6 for r in csv.DictReader(file) if r["constant"] == "copy_latency")


def held(which: Bools) -> Bools:
    """Every second one of the rows ``which`` selects."""
    out = np.zeros(len(which), bool)
    out[np.flatnonzero(which)[1::2]] = True
    return out


def v6e_scores(directory: Path) -> list[Score]:
    """Host-timed TPU v6e products above 400 us; in sample: native_rate_piped was read off the bf16 rows."""
    out = []
    for precision in ("bf16", "int8"):
        found = rows.v6e_matmuls(directory, precision, 400.0)
        value = np.array([r.value for r in found])
        predicted = retime.simulated_us(retime.product, [r.sizes for r in found], "tpu-v6e", precision)
        for name, floor in (("hwsim + 140 us host floor", V6E_FLOOR_US), ("hwsim", 0.0)):
            out.append(score(f"TPU v6e matmul {precision}", name, "in sample, > 400 us", predicted + floor, value))
    return out


@dataclass(frozen=True)
class Workload:
    """One TPU v3 row: measured and simulated cycles of one core."""

    workload: str
    kind: str
    measured: int
    simulated: int

    @property
    def error_pct(self) -> float:
        return 100 * (self.simulated / self.measured - 1)


def v3_workloads() -> list[Workload]:
    """TPU v3 on one core: GEMM and convolution in bf16, layer norm and softmax in fp32, ResNet-50 at batch 1.

    bert_xlarge is not among the shipped networks, and the source states neither its batch nor its length.
    """
    out = []
    for name, cycles in rows.v3_cycles().items():
        kind, _, sizes = name.partition("_")
        s = tuple(int(x) for x in sizes.split("x")) if kind in ("gemm", "conv", "layernorm", "softmax") else ()
        if kind == "gemm":
            net, precision = retime.product((s[0], s[2], s[1])), "bf16"
        elif kind == "conv":
            n, h, w, c, k, r, stride, pad = s
            net, precision = conv2d(n=n, c=c, h=h, w=w, k=k, r=r, s=r, stride=stride, padding=pad), "bf16"
        elif kind in ("layernorm", "softmax"):
            net, precision = (retime.layer_norm if kind == "layernorm" else retime.softmax)(s), "fp32"
        elif name == "resnet50":
            net, precision = hwsim.load_network("resnet50"), "bf16"
        else:
            continue
        out.append(Workload(name, kind, cycles, hwsim.simulate(net, "tpu-v3-core", precision=precision).cycles))
    return out


def v3_mean_pct(found: Sequence[Workload], kinds: Sequence[str] = ("gemm", "conv")) -> float:
    """Mean |error| of the rows of some kinds, %."""
    return float(np.mean([abs(w.error_pct) for w in found if w.kind in kinds]))


def write(path: Path, header: Sequence[str], table: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(table)


def tables(scores: Sequence[Score], workloads: Sequence[Workload]) -> str:
    """All scores and the TPU v3 rows as Markdown."""
    lines = [
        "# Scores",
        "",
        "Absolute errors in %; bias is the median of the signed error. Written by `validate.py`.",
        "",
        "| kernels | model | rows | n | median | mean | p95 | max | bias |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        numbers = f"{s.median_pct:.1f} | {s.mean_pct:.1f} | {s.p95_pct:.1f} | {s.max_pct:.0f} | {s.bias_pct:+.1f}"
        lines.append(f"| {s.kernels} | {s.model} | {s.rows} | {s.n} | {numbers} |")
    lines += ["", "TPU v3, one core, cycles:", "", "| workload | measured | hwsim | error |", "|---|---|---|---|"]
    lines += [f"| {w.workload} | {w.measured} | {w.simulated} | {w.error_pct:+.1f} % |" for w in workloads]
    lines += ["", f"GEMM and convolution: mean absolute error {v3_mean_pct(workloads):.1f} %."]
    return "\n".join(lines) + "\n"


def run(directory: Path) -> tuple[list[Score], list[Workload]]:
    """Score everything, write the tables and figures, return them."""
    from figures import cdf, scatter

    rows.present(directory)
    matmuls = products(directory)
    scores = [*product_scores(matmuls), *vector_scores(directory), *part_scores(directory), *v6e_scores(directory)]
    workloads = v3_workloads()
    write(HERE / "scores.csv", list(Score.__dataclass_fields__), [astuple(s) for s in scores])
    table = [[w.workload, w.kind, w.measured, w.simulated, round(w.error_pct, 1)] for w in workloads]
    write(HERE / "tpu_v3.csv", ["workload", "kind", "measured_cycles", "hwsim_cycles", "error_pct"], table)
    (HERE / "tables.md").write_text(tables(scores, workloads), encoding="utf-8")
    scatter(matmuls.measured, matmuls.models["hwsim"], matmuls.size_class, CLASSES, HERE / "matmul.png")
    errors = {name: np.abs(p / matmuls.measured - 1)[matmuls.held] * 100 for name, p in matmuls.models.items()}
    cdf(errors, HERE / "errors.png")
    return scores, workloads


def main() -> None:
    parser = argparse.ArgumentParser(description="compare TPU timing with measurements")
    parser.add_argument("--reference", type=Path, default=rows.DEFAULT)
    scores, workloads = run(parser.parse_args().reference)
    heads = ("median", "mean", "p95", "max", "bias %")
    print(f"{'kernels':22s} {'model':34s} {'rows':20s} {'n':>4s} " + " ".join(f"{h:>7s}" for h in heads))
    for one in scores:
        print(one.line())
    print("\nTPU v3, one core: cycles")
    for w in workloads:
        print(f"  {w.workload:32s} {w.measured:9d} {w.simulated:9d} {w.error_pct:+7.1f} %")
    print(f"  GEMM and convolution: mean |error| {v3_mean_pct(workloads):.1f} %")


if __name__ == "__main__":
    try:
        main()
    except HwsimError as error:
        sys.exit(str(error))
