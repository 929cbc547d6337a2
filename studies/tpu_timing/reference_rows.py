"""The measured rows of the study, read from files that are not part of the project (they state no licence).

``--reference DIR`` says where they are; the default is ``../shared/reference`` beside the repository. TPU v3 cycles come
with the project: ``tests/data/tpu_v3`` (MIT).
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from hwsim.errors import HwsimError

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT.parent / "shared" / "reference"
V4_KERNELS, V4_COPIES, NETWORKS = (
    "measured_tpu_v4_kernels.csv.gz",
    "measured_tpu_v4_copies.csv",
    "measured_networks.csv.gz",
)
V3_CYCLES = ROOT / "tests" / "data" / "tpu_v3" / "cycles.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured kernel: its sizes and its time (us; TPU v3: cycles)."""

    sizes: tuple[int, ...]
    value: float
    label: str = ""

    @property
    def elements(self) -> int:
        return prod(self.sizes)


def present(directory: Path) -> Path:
    """Return ``directory``; raise HwsimError, one line, when the measured files are not there."""
    for name in (V4_KERNELS, V4_COPIES, NETWORKS):
        if not (directory / name).is_file():
            raise HwsimError(f"{directory}: no {name}; state the directory of the measured files with --reference DIR")
    return directory


def matmuls(directory: Path) -> list[Row]:
    """TPU v4 ``fusion`` events of C[M,N] = A[M,K] B[K,N], float16: one per shape (most samples), sorted by M, N, K."""
    best: dict[tuple[int, ...], tuple[float, float]] = {}
    for row in _kernels(directory, "matmul", "fusion"):
        shape = tuple(round(float(row[k])) for k in "MNK")
        samples = float(row["n"])
        if shape not in best or samples >= best[shape][0]:
            best[shape] = (samples, float(row["median_us"]))
    return [Row(shape, best[shape][1]) for shape in sorted(best)]


def adds(directory: Path) -> list[Row]:
    """TPU v4 element-wise additions of two float16 tensors, sorted by elements."""
    rows = [Row(_dims(r["dims"]), float(r["median_us"])) for r in _kernels(directory, "add", "add")]
    return sorted(rows, key=lambda r: (r.elements, r.sizes))


def layer_norms(directory: Path, event: str) -> list[Row]:
    """TPU v4 layer norms over the last axis, float16; ``event`` is ``main`` (all of it) or one of its fusions."""
    rows = [Row(_dims(r["dims"]), float(r["median_us"])) for r in _kernels(directory, "layer_norm", event)]
    return sorted(rows, key=lambda r: (r.elements, r.sizes))


def copies(directory: Path) -> list[Row]:
    """TPU v4 copies from HBM onto the chip: sizes = (bytes,), sorted."""
    with (directory / V4_COPIES).open(encoding="utf-8", newline="") as file:
        rows = [
            Row((int(r["raw_bytes_accessed"]),), float(r["dur(us)"]), r["kernel_name"]) for r in csv.DictReader(file)
        ]
    return sorted(rows, key=lambda r: (r.sizes, r.label))


def v6e_matmuls(directory: Path, precision: str, above_us: float) -> list[Row]:
    """Host-timed TPU v6e products (M, N, K) slower than ``above_us``."""
    with gzip.open(directory / NETWORKS, "rt", encoding="utf-8", newline="") as file:
        found = [
            Row(tuple(int(s[1:]) for s in r["input_shape"].split()), float(r["value"]) * 1e3, precision)
            for r in csv.DictReader(file)
            if r["group"] == "gemm" and r["metric"] == "latency_ms" and r["precision"] == precision
        ]
    return sorted((r for r in found if r.value > above_us), key=lambda r: r.sizes)


def v3_cycles() -> dict[str, int]:
    """TPU v3 cycles of one core by workload name."""
    with V3_CYCLES.open(encoding="utf-8", newline="") as file:
        return {r["workload"]: int(r["cycles"]) for r in csv.DictReader(line for line in file if line[0] != "#")}


def _kernels(directory: Path, op: str, event: str) -> Iterator[dict[str, str]]:
    with gzip.open(directory / V4_KERNELS, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["op"] == op and row["event"] == event and row["median_us"]:
                yield row


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in text.split("x"))
