"""Suite ``cpu``: networks on boards, phones, a desktop and microcontrollers, and matrix products on Raspberry Pi 3.

Rows come from ``measured_cpu`` (google/XNNPACK, tensorflow/tensorflow, google-research, mlcommons/tiny_results) and from the
processor rows of ``measured_networks`` and ``measured_gemm``. A row's library and threads are what its source states; where
it states none they are those of TensorFlow Lite at the time (one thread, gemmlowp until 2019, ruy after).

Rows left out, by rules that look at the row alone:

* *another file*: the published file's size differs by over 10 % from the weights of the network of that name;
* *another input*: the source runs the network at an input size the library of networks does not have;
* *library not modelled*: vendors' own engines on microcontrollers (X-CUBE-AI, Plumerai, HALE, TVM's own kernels);
* *unoptimised path*: the source, or a factor of 20 to the same source's products, says no tuned kernel ran;
* *network unknown*: the source does not say what it ran.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim.network.graph import Network
from hwsim.result import Result
from hwsim.validate.ask import simulated
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import find, table

_CORAL = {
    "UNet-MobileNetV2": "unet_mobilenet_v2", "DeepLabV3-MobileNetV2": "deeplab_v3_mobilenet_v2",
    "DenseNet121": "densenet121", "Inception v1": "googlenet", "Inception v4": "inception_v4",
    "Inception-ResNet V2": "inception_resnet_v2", "MobileNet v1": "mobilenet_v1", "MobileNet v2": "mobilenet_v2",
    "ResNet-50 V1": "resnet50_v1_299", "ResNet-50 V2": "resnet50_v2_299", "VGG16": "vgg16",
    "EfficientNet-EdgeTPU-M": "efficientnet_edgetpu_m", "mobilenet_v1_1.0_224": "mobilenet_v1",
}  # fmt: skip
_BOARDS = (
    ("desktop Xeon", "desktop-xeon", "gemmlowp"), ("Coral Dev Board", "dev-board-cpu", "gemmlowp"),
    ("host CPU, board power mode 10W", "jetson-nano-cpu", "ruy"), ("host CPU, board power mode 5W", "jetson-nano-cpu:5w", "ruy"),
    ("Jetson Nano", "jetson-nano-cpu", "ruy"),
)  # fmt: skip
_WEIGHTS_MB = {"densenet121": 31.9, "inception_resnet_v2": 223.3, "resnet101_v2": 178.7}
_SIZES = (
    ("dense layers alone", ("synthetic_dense",)), ("microcontroller networks", ("mlperf_tiny",)),
    ("mobile networks", ("mobilenet", "mnasnet", "squeezenet", "efficientnet", "unet_mobilenet")),
)  # fmt: skip


def cases(folder: Path) -> list[Case]:
    """Return all rows; raises FileNotFoundError when no table is there."""
    found = [*_own(folder), *_networks(folder), *_products(folder)]
    if not found:
        raise FileNotFoundError(2, "", "measured_cpu")
    return found


def _case(
    row: Mapping[str, str], target: str, model: str, precision: str, stack: str, sparsity: str, seconds: float, group: str,
    excluded: str = "", quantity: str = "latency", network: Mapping[str, Any] | None = None,
) -> Case:  # fmt: skip
    size = next((name for name, words in _SIZES if model.startswith(words)), "large networks")
    options = {"precision": precision, "stack": stack} | ({"sparsity": sparsity} if sparsity else {})
    what = f"{model}{f' {sparsity}' if sparsity else ''} ({stack}){'' if quantity == 'latency' else f' {quantity}'}"
    device = row.get("device_variant") or row["device"]
    return Case(
        "cpu", int(row["row"]), device, target, "cpu", what, precision, seconds, quantity, group, size, excluded,
        {"options": options} | (dict(network) if network else {"name": model}),
    )  # fmt: skip


def _own(folder: Path) -> list[Case]:
    path = find(folder, "measured_cpu") or find(Path(__file__).resolve().parent / "measured", "measured_cpu")
    out: list[Case] = []
    for row in table(path) if path is not None else ():
        library, note, excluded = row["library"], row["note"], ""
        if not library:
            library, excluded = "cmsis-nn", "library not modelled"
        elif "input 299" in note:
            excluded = "another input"
        elif note.startswith("file of"):
            megabytes = float(note.split()[2])
            excluded = "another file" if abs(megabytes / _WEIGHTS_MB[row["model"]] - 1) > 0.1 else ""
        scale = {"ms": 1e-3, "uJ": 1e-6}[row["unit"]]
        group = row["source"].split()[0].split("@")[0].split("_v")[0]
        stack = f"{library}:{row['threads']}"
        out.append(
            _case(row, row["target"], row["model"], row["precision"], stack, row["sparsity"], float(row["value"]) * scale,
                  f"{group} {row['note'].split(', ')[-1]}" if "tiny" in group else group, excluded, row["quantity"])
        )  # fmt: skip
    return out


def _networks(folder: Path) -> list[Case]:
    path = find(folder, "measured_networks")
    out: list[Case] = []
    for row in table(path) if path is not None else ():
        if row["device"] != "CPU" or row["metric"] != "latency_ms":
            continue
        board = next((b for b in _BOARDS if row["device_variant"].startswith(b[0])), None)
        name, excluded = row["model"], ""
        model = _CORAL.get(name, name)
        if name.startswith("EfficientNet"):
            excluded = "unoptimised path"
        elif "mn1q" in name:
            model, excluded = "mobilenet_v1", "network unknown"
        if board is None:
            continue
        out.append(
            _case(row, board[1], model, "int8", f"{board[2]}:1", "", float(row["value"]) * 1e-3, row["group"], excluded)
        )
    return out


def _products(folder: Path) -> list[Case]:
    out: list[Case] = []
    path = find(folder, "measured_gemm")
    for row in table(path) if path is not None else ():
        if row["device"] == "Raspberry_Pi_3":
            m, n, k = (int(float(row[x])) for x in "MNK")
            made: dict[str, Any] = {"product": (n, m, k)}  # their M are the rows of the weights
            seconds = float(row["measured_us"]) * 1e-6
            out.append(
                _case(
                    row,
                    "raspberry-pi-3",
                    f"gemm {m}x{n}x{k}",
                    "int8",
                    "gemmlowp:4",
                    "",
                    seconds,
                    "deepbench",
                    network=made,
                )
            )
    path = find(folder, "measured_conv")
    for row in table(path) if path is not None else ():
        if row["device"] == "Raspberry_Pi_3":
            sizes = {x: int(float(row[y])) for x, y in zip("nchwkrs", ("N", "C", "H", "W", "K", "R", "S"), strict=True)}
            made = {"conv": sizes | {"stride": int(row["stride"].split("x")[0])}}
            what = "conv " + "x".join(row[x] for x in ("C", "H", "W", "K", "R"))
            seconds = float(row["measured_us"]) * 1e-6
            out.append(
                _case(
                    row,
                    "raspberry-pi-3",
                    what,
                    "int8",
                    "gemmlowp:4",
                    "",
                    seconds,
                    "deepbench",
                    "unoptimised path",
                    network=made,
                )
            )
    return out


def network_of(question: Mapping[str, Any]) -> Network | str:
    """Return the network a case asks about."""
    from hwsim.api import conv2d, matmul

    if "product" in question:
        return matmul(*question["product"])
    if "conv" in question:
        return conv2d(**question["conv"])
    return str(question["name"])


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's answer to each case: seconds, or joules for energy rows."""

    def value(result: Result, case: Case) -> float:
        return result.energy_j if case.quantity == "energy" else result.latency_s

    def roofline(result: Result, case: Case) -> float:
        return result.bound_s * (result.power_w if case.quantity == "energy" else 1.0)

    return simulated(chosen, network_of, value, roofline)
