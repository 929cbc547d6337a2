"""Copy the measured tables that may be shared into the package: python studies/validation/share.py REFERENCE

Rows keep their source column. Groups without a licence that allows it stay out (list below, with reasons); `hwsim
validate --data REFERENCE` uses them where the folder is at hand.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "hwsim" / "validate" / "measured"

# Group of measured_networks: why its rows are not shared.
WITHHELD = {
    "gemm": "yangwhale/gpu-tpu-pedia states no licence",
    "coral-micro": "iwatake2222/EdgeTPU_Analysis states no licence",
    "deepedgebench": "stephanballer/deepedgebench states no licence",
    "torch2trt-3rd": "waggle-sensor/summer2021 states no licence",
    "dle": "NVIDIA/DeepLearningExamples has a licence per folder",
    "dle-trt": "NVIDIA/DeepLearningExamples has a licence per folder",
    "softserve": "softserveinc-rnd/blog states no licence",
    "aallan": "benchmarking-ml-on-the-edge: licence not checked",
    "ultralytics": "AGPL-3.0 repository",
    "netspresso": "licence not checked",
    "odtk": "licence not checked",
    "jetson-ai-lab": "licence not checked",
    "tf_trt_models": "licence not checked",
}
SOURCES = {
    "ultralytics/ultralytics": "AGPL-3.0 repository",
    "freedomtan/edge_tpu_python_scripts": "licence not checked",
}


def shared(name: str, row: dict[str, str]) -> bool:
    """Whether a row may be copied."""
    if name == "measured_networks":
        return row["group"] not in WITHHELD and row["source"].split(":")[0] not in SOURCES
    return True


def main(reference: Path) -> None:
    TARGET.mkdir(exist_ok=True)
    for name in (
        "measured_gemm",
        "measured_conv",
        "measured_networks",
        "measured_jetson_networks",
        "measured_gpu_networks",
    ):
        with gzip.open(reference / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if shared(name, row)]
            fields = list(reader.fieldnames or ())
        text = io.StringIO()
        out = csv.DictWriter(text, fields, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
        with (TARGET / f"{name}.csv.gz").open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.write(text.getvalue().encode())
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
