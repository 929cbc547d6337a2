"""How true hwsim is, in one table.

python studies/validation/run.py [--reference DIR]

Runs the studies of TPU timing and of TPU v1's counters and replays the recorded SCALE-Sim runs; writes summary.csv and
summary.md beside this file. Without the measured files (they state no licence, so they are not in the project) the rows
that need them are left out, and one line says so.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies" / "tpu_timing"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "studies" / "tpu_v1"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "scalesim"))

import counters
import reference_rows
import test_scalesim_recorded_runs as scalesim
import validate

from hwsim.errors import HwsimError
from hwsim.scalesim.engine import simulate_layer

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Line:
    """One row of the table."""

    what: str
    against: str
    rows: int
    result: str
    bar: str


def scalesim_line() -> Line:
    """Fields of the recorded SCALE-Sim 3.0 runs that hwsim reproduces."""
    equal = total = 0
    recorded = scalesim.recorded()
    for row in recorded:
        for name, value in scalesim.fields(simulate_layer(*scalesim.inputs(row))).items():
            if row[name] != "":
                total += 1
                equal += float(row[name]) == value
    share = f"{equal} of {total} fields equal"
    return Line("SCALE-Sim drop-in", "SCALE-Sim 3.0.0, recorded runs", len(recorded), share, "all")


def tpu_v1_line() -> Line:
    """Cycle counters of six applications."""
    apps, on = counters.measured(), counters.machine()
    every = [e for a in apps for e in counters.errors(a, counters.counters(counters.plan_of(a), on))]
    mean = sum(map(abs, every)) / len(every)
    result = f"worst {counters.worst(every):.1f}, mean {mean:.1f} points of the cycles"
    return Line("TPU v1, counters of six applications", "Jouppi et al. 2017", len(every), result, "8 points each")


def tpu_v3_line(workloads: list[validate.Workload]) -> Line:
    kinds = ("gemm", "conv")
    number = sum(w.kind in kinds for w in workloads)
    result = f"mean absolute error {validate.v3_mean_pct(workloads, kinds):.1f} %"
    return Line("TPU v3, GEMM and convolution", "cycles of one core", number, result, "mean 12 %")


def measured_lines(scores: list[validate.Score]) -> list[Line]:
    """The rows that come from files outside the project."""

    def one(kernels: str, model: str = "hwsim", rows: str = "held out") -> validate.Score:
        return next(s for s in scores if (s.kernels, s.rows) == (kernels, rows) and s.model.startswith(model))

    def text(s: validate.Score) -> str:
        return f"median {s.median_pct:.1f}, mean {s.mean_pct:.1f}, p95 {s.p95_pct:.1f} %"

    ours = one("matmul fp16")
    out = [
        Line("TPU v4, matrix products", "held-out kernel times", ours.n, text(ours), "median 5.5, mean 7.5, p95 20 %")
    ]
    for label in validate.CLASSES:
        s = one(f"matmul, {label}")
        out.append(Line(f"- {label}", "", s.n, f"median {s.median_pct:.1f} %", "median 8 %"))
    for model in ("linear fit", "SCALE-Sim TPU", "roofline + 1 us"):
        s = one("matmul fp16", model)
        out.append(Line(f"- beside: {s.model}", "", s.n, text(s), ""))
    for kernels, label, model, bar in (
        ("add > 2e5 elements", "TPU v4, add above 2e5 elements", "hwsim", "median 12 %"),
        ("layer norm", "TPU v4, layer norm", "hwsim", "median 12 %"),
        ("HBM copy", "TPU v4, HBM copies", "DMA stage +", "median 10 %"),
    ):
        s = one(kernels, model)
        out.append(Line(label, "held-out kernel times", s.n, text(s), bar))
    for precision in ("bf16", "int8"):
        s = one(f"TPU v6e matmul {precision}", "hwsim + ", "in sample, > 400 us")
        against = "host times above 400 us, 140 us floor"
        out.append(Line(f"TPU v6e, matrix products {precision}", against, s.n, text(s), "none (weak data)"))
    return out


# Groups of networks whose sources published their own measurements (trust A).
TRUSTED = "trt-demobert|aitemplate|mlperf single-stream|mlperf offline|fastertransformer|torch2trt|trt-quant|dla"
# (what, against, suite, field and values the rows have, bar)
GROUPS = (
    ("GPU GEMM, A100 bf16", "CUDA graphs, three libraries", "gpu-gemm",
     {"target": "a100-sxm4-80gb", "precision": "bf16"}, "6 / 10 %"),
    ("GPU GEMM, H100 bf16", "CUDA graphs, two libraries", "gpu-gemm", {"target": "h100-sxm", "precision": "bf16"}, "6 / 10 %"),
    ("GPU GEMM, L40S bf16", "CUDA graphs", "gpu-gemm", {"target": "l40s", "precision": "bf16"}, "9 / 15 %"),
    ("GPU GEMM, B200 bf16", "CUDA graphs", "gpu-gemm", {"target": "b200", "precision": "bf16"}, "9 / 15 %"),
    ("GPU GEMM, fp8, nvfp4, int8, w4a16, w8a16", "with their cast kernels", "gpu-gemm",
     {"precision": "fp8 nvfp4 int8 w4a16 w8a16"}, "12 %"),
    ("GPU SGEMM, six devices", "cuBLAS, fp32", "gpu-gemm", {"precision": "fp32"}, "12 %"),
    ("GPU GEMM, V100 and T4 Tensor Cores", "cuBLAS, fp16", "gpu-gemm",
     {"target": "v100-sxm2 t4", "precision": "fp16"}, "12 %"),
    ("Convolutions alone, eager PyTorch fp32", "cuDNN, A100, V100, T4, P100, P4", "gpu-conv",
     {"group": "neusight/explicit gemm|neusight/fft|neusight/implicit gemm|neusight/winograd|neusight/winograd 4x4"}, "15 %"),
    ("Convolutions alone, tuned libraries", "DeepBench, V100 and T4", "gpu-conv",
     {"group": "deepbench/fft|deepbench/implicit gemm|deepbench/winograd"}, "15 %"),
    ("Networks on GPUs and Jetson, first-party rows", "all groups that published their own", "gpu-networks",
     {"group": TRUSTED}, "12 %, 90 % within 30 %"),
    ("Networks on GPUs, TensorRT BERT", "demoBERT", "gpu-networks", {"group": "trt-demobert"}, "12 %"),
    ("Networks on GPUs, AITemplate", "CUDA graphs", "gpu-networks", {"group": "aitemplate"}, "12 %"),
    ("Networks on GPUs and Jetson, MLPerf", "single-stream and offline", "gpu-networks",
     {"group": "mlperf single-stream|mlperf offline"}, "12 %"),
    ("Networks on GPUs, FasterTransformer", "C++ runs back to back", "gpu-networks", {"group": "fastertransformer"}, "12 %"),
    ("Networks on Jetson, torch2trt", "back to back", "gpu-networks", {"group": "torch2trt"}, "15 %"),
    ("Networks on Jetson and GeForce, trtutils", "engine only", "gpu-networks", {"group": "trtutils"}, "15 %"),
    ("Networks on GPUs, eager PyTorch", "NeuSight", "gpu-networks", {"group": "neusight"}, "12 %"),
    ("Networks on Jetson DLAs", "NVIDIA's published throughput, dense and 2:4", "dla", {"family": "gpu"}, "–"),
    ("Language models served on one to eight GPUs", "TensorRT-LLM, vLLM, SGLang; time of an answer", "llm",
     {"group": "trtllm|vllm|sglang"}, "none set"),
    ("Edge TPU, Coral tables", "models and hosts", "edge-tpu", {"size": "table"}, "12 %"),
    ("Edge TPU, streaming and layer stacks", "micro-benchmarks", "edge-tpu", {"size": "micro"}, "15 %"),
    ("Processors, fp32", "boards, phones, desktop", "cpu", {"precision": "fp32"}, "20 %"),
    ("Processors and microcontrollers, int8", "boards, phones, desktop, MLPerf Tiny", "cpu", {"precision": "int8"}, "20 %"),
)  # fmt: skip


def suite_lines(directory: Path) -> list[Line]:
    """Rows of the suites of `hwsim validate`, those that a rule leaves out apart."""
    from hwsim.validate import score
    from hwsim.validate import validate as run_suites

    found = run_suites(
        ["gpu-gemm", "gpu-conv", "gpu-networks", "dla", "llm", "edge-tpu", "cpu"],
        data=directory if directory.is_dir() else None,
    )
    out = []
    for what, against, suite, fields, bar in GROUPS:
        rows = [
            o for o in found.counted
            if o.case.suite == suite and o.case.quantity == "latency"
            and all(getattr(o.case, f) in (v.split("|") if "|" in v or f == "group" else v.split()) for f, v in fields.items())
        ]  # fmt: skip
        s = score(rows)
        errors = f"median {s.median_pct:.1f}, mean {s.mean_pct:.1f}, 90 % within {s.p90_pct:.0f} %"
        if suite == "gpu-networks":
            errors += f", {s.within_30_pct:.0f} % of rows within 30 %"
        text = f"{errors}; roofline {s.roofline_median_pct:.0f} %"
        out.append(Line(what, against, s.rows, text, bar))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="regenerate the table of how true hwsim is")
    parser.add_argument("--reference", type=Path, default=reference_rows.DEFAULT)
    directory = parser.parse_args().reference
    table = [scalesim_line(), tpu_v1_line()]
    note = ""
    try:
        scores, workloads = validate.run(directory)
        table += [tpu_v3_line(workloads), *measured_lines(scores)]
    except HwsimError as error:
        note = str(error)
        table.append(tpu_v3_line(validate.v3_workloads()))
    table += suite_lines(directory)
    with (HERE / "summary.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(Line.__dataclass_fields__)
        out.writerows(astuple(line) for line in table)
    head = "| what | against | rows | result | bar |\n|---|---|---|---|---|\n"
    body = "".join(f"| {' | '.join(str(x) for x in astuple(line))} |\n" for line in table)
    (HERE / "summary.md").write_text(head + body, encoding="utf-8")
    print(head + body + (f"\nleft out: {note}" if note else ""))


if __name__ == "__main__":
    try:
        main()
    except HwsimError as error:
        sys.exit(str(error))
