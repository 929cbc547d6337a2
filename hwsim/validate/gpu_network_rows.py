"""The comparable rows of networks on GPUs, by the rules of gpu_network_rules.toml: what to simulate, what was measured."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.validate.measured import find, table

HERE = Path(__file__).parent
NAMES = HERE / "measured_names.csv"
RULES = tomllib.loads((HERE / "gpu_network_rules.toml").read_text(encoding="utf-8"))

# Submission systems of MLPerf and table headings, by pattern: the machine file (and mode) that stands for them.
# FasterTransformer's ViT and Swin tables: A100 with 1215 MHz memory on Xeon Gold 6132 hosts (docs/vit_guide.md), which have
# no SXM4 boards.
MACHINES: tuple[tuple[str, str, str], ...] = (
    ("A100", r"pclk 1410 mclk 1215", "a100-pcie-40gb"),
    ("A100", r"SXM-?80|A100-SXM-80GB", "a100-sxm4-80gb"),
    ("A100", r"SXM4", "a100-sxm4-40gb"),
    ("A100", r"PCIe-80GB", "a100-pcie-80gb"),
    ("A100", r"PCIe", "a100-pcie-40gb"),
    ("A100", r"A100-40GB|NVIDIA A100|^A100", "a100-sxm4-40gb"),
    ("A30", "", "a30"),
    ("A2", "", "a2"),
    ("L4", "", "l4"),
    ("T4", "", "t4"),
    ("V100", r"32GB|", "v100-sxm2"),
    ("H100", r"PCIe", "h100-pcie"),
    ("H100", r"SXM", "h100-sxm"),
    ("TITAN RTX", "", "titan-rtx"),
    ("Jetson AGX Orin", "", "jetson-agx-orin-64gb"),
    ("Jetson AGX Xavier", "", "jetson-agx-xavier"),
    ("Jetson Xavier NX", "", "jetson-xavier-nx"),
    ("Jetson Nano", "", "jetson-nano"),
)  # fmt: skip
VARIABLE = re.compile(r"^(BERT-large|RNN-T|GNMT|gptj|llama2|mixtral|3D-UNet)")
JETSON = "Jetson"
BRATS = ("mlperf-v0.7", "mlperf-v1.0", "mlperf-v1.1")  # 3D-UNet on BraTS: one fixed shape


# Traces of one image size that stand beside another: (trace, size of the row).
OTHER_SIZES = {
    ("vit_b_16", "3x384x384"): "vit_base_patch16_384", ("vit_l_16", "3x384x384"): "vit_large_patch16_384",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One comparison: what to run and what was measured, seconds of one batch. ``excluded`` names the rule, if any."""

    source: str
    device: str
    machine: str
    model: str
    trace: str
    batch: int
    shapes: tuple[tuple[str, int], ...]
    precision: str
    sparsity: str
    stack: str
    measured_s: float
    scenario: str
    software: str
    text: str
    excluded: str = ""
    extra: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> tuple[object, ...]:
        """The configuration, software aside."""
        return (
            self.source,
            self.machine,
            self.model,
            self.trace,
            self.batch,
            self.shapes,
            self.precision,
            self.sparsity,
            self.scenario,
        )


def host_seconds(source: str, machine: str, kernels: int) -> float:
    """Least seconds of a run of ``kernels`` kernels on the host of a source, where its launches are what is waited for."""
    pace = RULES["source"].get(source, {}).get("host_us", {}).get(machine, 0.0)
    return float(pace) * 1e-6 * kernels


def read(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a measured file; none where the folder lacks it."""
    path = find(folder, name)
    return [] if path is None else list(table(path))


def zoo_names() -> dict[str, tuple[str, str]]:
    """Measured name: trace and sizes."""
    with NAMES.open(encoding="utf-8", newline="") as file:
        return {r["name"]: (r["trace"], r["sizes"]) for r in csv.DictReader(file) if r["table"] == "networks"}


def machine_of(device: str, variant: str) -> str:
    """The machine file of a measured device; empty when there is none."""
    for name, pattern, found in MACHINES:
        if device == name and re.search(pattern, variant or "", re.IGNORECASE):
            return found
    return ""


def network_rows(folder: Path) -> list[Row]:
    """All GPU rows of measured_networks with latency or throughput, each with the rule that excludes it, if any."""
    names = zoo_names()
    found: list[Row] = []
    batches: dict[tuple[str, str, str], str] = {}
    rows = [r for r in read(folder, "measured_networks") if r["metric"] in ("latency_ms", "throughput_ips")]
    for r in rows:
        if r["scenario"] == "offline" and r["batch"]:
            key = (r["device"], r["model"], r["precision"] + ("b" if r["group"] in BRATS else ""))
            batches[key] = max(batches.get(key, ""), f"{r['group']}:{r['batch']}")
    for r in rows:
        machine = machine_of(r["device"], r["device_variant"])
        if not machine:
            continue
        trace, sizes = names.get(r["model"], ("", ""))
        group = r["group"]
        source = group
        if group.startswith("mlperf"):
            source = "mlperf offline" if r["scenario"] == "offline" else "mlperf single-stream"
        elif group.startswith("torch2trt"):
            source = "torch2trt"
        if group in BRATS and trace == "unet_3d":
            trace = "unet_3d_brats"
        batch = r["batch"] or "1"
        if r["scenario"] == "offline" and not r["batch"]:
            key = (r["device"], r["model"], r["precision"] + ("b" if r["group"] in BRATS else ""))
            batch = batches.get(key, ":").split(":")[-1]
        precision = r["precision"]
        value = float(r["value"])
        count = int(re.match(r"\d+", batch).group()) if re.match(r"\d+", batch) else 0  # type: ignore[union-attr]
        measured = value / 1e3 if r["metric"] == "latency_ms" else max(count, 1) / value
        shapes = _shapes(sizes, r["input_shape"], trace)
        trace = OTHER_SIZES.get((trace, r["input_shape"]), trace)
        row = Row(
            source, r["device"], machine, r["model"], trace, count, shapes, precision, r["sparsity"],
            RULES["source"].get(source, {}).get("stack", "compiled"), measured, r["scenario"], r["software"] or group,
            r["source"], "", {"group": group, "variant": r["device_variant"], "note": r["note"], "metric": r["metric"]},
        )  # fmt: skip
        found.append(Row(**{**row.__dict__, "excluded": _excluded(row, r)}))
    return list(_newest(found))


def _shapes(sizes: str, shape: str, trace: str) -> tuple[tuple[str, int], ...]:
    out: dict[str, int] = {}
    for word in (sizes or "").split():
        name, _, value = word.partition("=")
        out[name] = int(value)
    found = re.match(r"seq(\d+)", shape or "")
    if found and "S" in out:
        out["S"] = int(found.group(1))
    out.pop("N", None)
    return tuple(sorted(out.items()))


def _excluded(row: Row, r: dict[str, str]) -> str:
    group, variant, note, scenario = r["group"], r["device_variant"], r["note"], r["scenario"]
    if r["trust"] != "A":
        return "trust"
    if not row.trace:
        return "no trace"
    if "MIG" in variant:
        return "mig"
    if "(99.9% acc target)" in r["model"]:
        return "duplicate accuracy target"
    if scenario.startswith("multi-stream"):
        return "multi-stream"
    if "p90" in scenario:
        return "tail of a distribution"
    if group.startswith("mlperf"):
        if VARIABLE.match(r["model"]) and row.trace != "unet_3d_brats":
            return "variable length"
        if r["model"].startswith("dlrm"):
            return "tables beyond the GPU"
        if r["model"].startswith("RetinaNet"):
            return "post-processing in the engine"
        if "diffusion" in r["model"]:
            return "many networks"
        if "Drive-A100" in variant:
            return "other board"
        if "MaxQ" in variant:
            return "power capped by the submitter"
        if "divided by" in note or re.search(r"x([2-9]|\d\d)(_|\b)", variant):
            return "more than one accelerator"
        if scenario == "offline" and JETSON in row.device:
            return "other engines too"
        if scenario == "offline" and row.batch == 0:
            return "unknown batch"
    if row.precision not in ("int8", "fp16", "fp32", "tf32", "bf16"):
        return "undeclared precision"
    if "EFF" in r["software"] or "EFF" in r["model"]:
        return "padding removed"
    if row.source == "trt-demobert" and row.machine == "a30" and "10.9" in row.software:
        return "mislabelled table"
    if row.machine == "jetson-agx-xavier" and row.trace in ("mobilenet_v2", "mobilenet_v1"):
        return "launch interval derived from it"
    if row.source == "torch2trt" and "latency" in scenario:
        return "host latency"
    if row.source == "fastertransformer" and row.precision == "tf32":
        return "undeclared precision"
    if row.source == "fastertransformer" and "INT8-v1" in r["software"]:
        return "older software"
    return ""


def _order(row: Row) -> tuple[object, ...]:
    """Newest software and most direct binding last."""
    versions = [
        int(v) for v in re.findall(r"\d+", row.software if row.source == "trt-demobert" else row.extra["group"])
    ]
    direct = 0 if "op" in row.software.split() or "op)" in row.software else 1 if "plugin" in row.software else 2
    if "TensorFlow" in row.software:
        direct = -1
    return (versions, direct, "README" in row.extra["variant"])


def _newest(rows: list[Row]) -> Iterator[Row]:
    best: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if not row.excluded:
            key = row.key if row.source != "torch2trt" else (*row.key[:-1], "throughput")
            held = best.get(key)
            if held is None or _order(row) > _order(held):
                best[key] = row
    chosen = {id(r) for r in best.values()}
    for row in rows:
        if row.excluded or id(row) in chosen:
            yield row
        else:
            rule = "other binding" if row.source == "fastertransformer" else "older software"
            yield Row(**{**row.__dict__, "excluded": rule})


# trtutils ran its boards in modes it does not name: one is declared for all rows of a board, by what the boards measured
# against each other, never by how the model fares. YOLOX-m at 1280 pixels, which multiplies most of the time, takes 3.88 times
# as long on Orin Nano as on AGX Orin 64 GB: SMs times clocks are 4.16 at 15 W against MAXN, 2.61 against 50 W and 3.26
# against the newer 50 W, and DRAMs 3.0, so AGX Orin ran at MAXN. The board named 32 GB takes 1.06 times as long, where the
# module of 32 GB (14 SMs at 930 MHz) has 1.6 times fewer clocks: it is the developer kit of 2022, the same GPU with 32 GB.
# Xavier NX takes 5.45 times as long: 6.25 by clocks at 15 W (10 W: 8.6).
TRTUTILS = {
    "OrinAGX-64GB": "jetson-agx-orin-64gb", "OrinAGX-32GB": "jetson-agx-orin-64gb", "OrinNano-8GB": "jetson-orin-nano:15w",
    "XavierNX-8GB": "jetson-xavier-nx:15w", "3080Ti": "rtx-3080-ti", "3090": "rtx-3090", "TitanRTX": "titan-rtx",
    "5080": "rtx-5080",
}  # fmt: skip
DERIVED_PIXELS = 160  # of yolov9s, from which the hosts' launch intervals are taken


def trtutils_rows(folder: Path) -> list[Row]:
    """Engine-only latencies of detection networks on Jetson and GeForce (measured_jetson_networks, trtutils)."""
    with NAMES.open(encoding="utf-8", newline="") as file:
        names = {r["name"]: r["trace"] for r in csv.DictReader(file) if r["table"] == "jetson_networks"}
    out = []
    for r in read(folder, "measured_jetson_networks"):
        machine, trace = TRTUTILS.get(r["device"], ""), names.get(r["network"], "")
        if r["engine"] != "tensorrt" or not machine or not trace:
            continue
        _, _, height, width = (int(v) for v in re.findall(r"\d+", r["input"]))
        out.append(
            Row(
                "trtutils", r["device"], machine, r["network"], trace, int(r["batch"]), (("H", height), ("W", width)), "fp16",
                "dense", RULES["source"]["trtutils"]["stack"], float(r["latency_ms"]) / 1e3, "engine only", "TensorRT",
                r["source"],
                "launch interval derived from it" if trace.startswith("yolov9s") and height == DERIVED_PIXELS else "",
            )
        )  # fmt: skip
    return out


def neusight_rows(folder: Path) -> list[Row]:
    """Inference of language models in eager PyTorch, fp32 (measured_gpu_networks), single GPU."""
    traces = {"gpt2_large": "gpt2_large", "gpt3_27": "gpt3_2.7b", "opt_13": "opt_1.3b"}
    devices = {
        "NVIDIA_A100-PCIE-40GB": "a100-pcie-40gb", "NVIDIA_A100_80GB_PCIe": "a100-pcie-80gb", "NVIDIA_H100_80GB_HBM3": "h100-sxm",
        "NVIDIA_A100-SXM4-40GB": "a100-sxm4-40gb", "NVIDIA_L4": "l4", "Tesla_T4": "t4", "Tesla_V100-PCIE-32GB": "v100-pcie",
        "Tesla_P100-PCIE-16GB": "p100-pcie", "Tesla_P4": "p4",
    }  # fmt: skip
    out = []
    for r in read(folder, "measured_gpu_networks"):
        machine = next((m for d, m in devices.items() if d.lower() == r["device"].replace(" ", "_").lower()), "")
        trace = traces.get(r["model"], "")
        excluded = "" if machine and trace and r["mode"] == "inf" and r["variant"] in ("", "fusion") else "no trace"
        if r["variant"] == "fusion":
            excluded = "undeclared precision"
        out.append(
            Row(
                "neusight", r["device"], machine, r["model"], trace, int(float(r["batch"])), (("S", int(float(r["seq"]))),),
                "fp32", "dense", "eager", float(r["e2e_ms"]) / 1e3, "inference", "torch 2.1", "neusight", excluded,
            )
        )  # fmt: skip
    return out
