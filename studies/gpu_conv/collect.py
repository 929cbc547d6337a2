"""Make the table of NeuSight's convolutions from a checkout of sitar-lab/NeuSight (MIT):

    python studies/gpu_conv/collect.py CHECKOUT

Writes hwsim/validate/measured/measured_conv_neusight.csv.gz: device, position (how many shapes that process had run before),
shape (all 3 x 3, stride 1, padding 1, square), measured time, and what cuDNN launched: algorithm, kernel, grid.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[2] / "hwsim" / "validate" / "measured" / "measured_conv_neusight.csv.gz"
DATA = Path("scripts/asplos/data/dataset")
DEVICES = {
    "NVIDIA A100 80GB PCIe": "A100-PCIE-80GB",
    "Tesla V100-PCIE-32GB": "V100-PCIE-32GB",
    "Tesla T4": "T4",
    "Tesla P100-PCIE-16GB": "P100-PCIE-16GB",
    "Tesla P4": "P4",
}
SHAPE = (
    "B",
    "Input_Channel",
    "Output_Channel",
    "Kernel_Szie",
    "Input_Size",
    "Stride",
    "Padding",
)  # as the source spells it
# The first pattern found in a row's launches says which algorithm of cuDNN ran.
ALGORITHMS = (
    ("winograd_nonfused", "winograd_4x4"),
    ("scudnn_winograd", "winograd"),
    ("fft", "fft"),
    ("explicit", "explicit_gemm"),
    ("implicit_convolve", "implicit_gemm_direct"),
    ("3dconv", "implicit_gemm_3d"),
    ("scudnn", "implicit_gemm"),
    ("precomputed", "implicit_gemm_direct"),
)


def main(checkout: Path) -> None:
    with (checkout / DATA / "dims" / "train_cnn.csv").open(encoding="utf-8", newline="") as file:
        order = {tuple(map(int, row)): i for i, row in enumerate(rows_of(file))}
    out: list[dict[str, object]] = []
    for name, device in DEVICES.items():
        with (checkout / DATA / "train" / "collect" / "conv" / "p2.1.0" / f"{name}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                shape = tuple(int(row[c]) for c in SHAPE)
                launches = row["Kernels"]
                algorithm = next(found for text, found in ALGORITHMS if text in launches)
                kernel = re.findall(r"(scudnn_\w+|\w+sgemm_\w+|\w+gcgemm_\w+)", launches)
                out.append(
                    {"device": device, "position": order[shape], "N": shape[0], "C": shape[1], "H": shape[4], "K": shape[2],
                     "measured_us": f"{1e3 * float(row['Latency']):.2f}", "algorithm": algorithm,
                     "kernel": kernel[0] if kernel else "",
                     "grid": "x".join(row[f"Grid {axis}"] for axis in "xyz")}
                )  # fmt: skip
    text = io.StringIO()
    table = csv.DictWriter(text, list(out[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(out)
    with TARGET.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(text.getvalue().encode())
    print(f"{len(out)} rows")


def rows_of(file: io.TextIOBase) -> list[list[str]]:
    """Rows of numbers of a CSV file, its header left out."""
    return [row for row in csv.reader(file, delimiter=";") if row and row[0].isdigit()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
