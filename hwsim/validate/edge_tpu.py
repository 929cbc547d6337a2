"""Suite ``edge-tpu``: the Coral tables (networks on hosts) and the micro-benchmarks of link, parameter stream and layers.

Which machine a row was measured on is read off its text; the clock of USB sticks is a reading where the row does not state
it (`TARGETS` says which). Rows of sources without a licence take part when a folder of all tables is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.simulation import simulate
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import find, table

SUITE = "edge-tpu"
# Text of the row's device: the target, and why the row does not count ("" where it does).
TARGETS: tuple[tuple[str, str, str], ...] = (
    ("libedgetpu max clock", "coral-usb:max@{pi}/usb3", ""),
    ("libedgetpu std clock", "coral-usb:std@{pi}/usb3", ""),
    ("iMac", "coral-usb:max", "host not described: a Mac, whose driver has one transfer under way"),
    ("MacBook", "coral-usb:max", "host not described: a Mac, whose driver has one transfer under way"),
    ("USB3, host board power mode 10W", "coral-usb:max@jetson-nano-cpu:10w/usb3", ""),
    ("USB3, host board power mode 5W", "coral-usb:max@jetson-nano-cpu:5w/usb3", ""),
    ("USB2, host board power mode 10W", "coral-usb:max@jetson-nano-cpu:10w/usb2", ""),
    ("USB2, host board power mode 5W", "coral-usb:max@jetson-nano-cpu:5w/usb2", ""),
    # The default package of a Raspberry Pi runs at the reduced clock; the times agree with that alone.
    ("Raspberry Pi 3B+", "coral-usb:std@raspberry-pi-3b-plus/usb2", ""),
    ("Raspberry Pi 3B", "coral-usb:std@raspberry-pi-3/usb2", ""),
    ("Raspberry Pi 4B", "coral-usb:std@raspberry-pi-4/usb3", ""),
    ("rpi4coral", "coral-usb:std@raspberry-pi-4/usb3", ""),
    ("Dev Board", "coral-dev-board", ""),
    ("Xeon E5-1650", "coral-usb:max@desktop-xeon/usb3", ""),
    ("host desktop x86", "coral-usb:max@desktop-xeon/usb3", ""),
)
TRACES = {
    "UNet-MobileNetV2": "unet_mobilenet_v2", "DeepLabV3-MobileNetV2": "deeplab_v3_mobilenet_v2", "DenseNet121": "densenet121",
    "Inception v1": "googlenet", "Inception v2": "inception_v2", "Inception v3": "inception_v3", "Inception v4": "inception_v4",
    "Inception-ResNet V2": "inception_resnet_v2", "MobileNet v1": "mobilenet_v1", "MobileNet v2": "mobilenet_v2",
    "MobileNetV2": "mobilenet_v2", "MobileNet v1 0.25": "mobilenet_v1_0.25_128", "ResNet-50 V1": "resnet50_v1_299",
    "ResNet-50 V2": "resnet50_v2_299", "ResNet-152 V2": "resnet152_v2_299", "SqueezeNet": "squeezenet1_0", "VGG16": "vgg16",
    "VGG19": "vgg19", "EfficientNet-EdgeTPU-S": "efficientnet_edgetpu_s", "EfficientNet-EdgeTPU-M": "efficientnet_edgetpu_m",
    "EfficientNet-EdgeTPU-L": "efficientnet_edgetpu_l", "inception_v1_224_quant": "googlenet",
    "ssd_mobilenet_v1_coco_quant_postprocess": "ssd_mobilenet_v1", "SSD-MobileNet-v1": "ssd_mobilenet_v1",
    "ssd_mobilenet_v2_face_quant_postprocess": "ssd_mobilenet_v2_face", "SSD-MobileNet-v2": "ssd_mobilenet_v2_quant",
    "mobilenet_v1_1.0_224_quant": "mobilenet_v1", "mobilenet_v2_1.0_224_quant": "mobilenet_v2",
    "mobilenet_v1_1.0_224": "mobilenet_v1", "mobilenet_v2_1.0_224": "mobilenet_v2", "YOLOv8n": "yolov8n", "YOLOv8s": "yolov8s",
}  # fmt: skip


def cases(folder: Path) -> list[Case]:
    """Return the rows of the Edge TPU in ``folder``; raises FileNotFoundError without the table."""
    path = find(folder, "measured_networks")
    if path is None:
        raise FileNotFoundError(2, "missing", "measured_networks.csv")
    return [
        c for row in table(path) if row["device"] == "Edge TPU" and row["metric"] == "latency_ms" and (c := _case(row))
    ]


def _case(row: dict[str, str]) -> Case | None:
    text, model = row["device_variant"], row["model"]
    found = next((entry for entry in TARGETS if entry[0] in text), None)
    if found is None:
        return None
    _, target, excluded = found
    target = target.format(pi="raspberry-pi-5" if "Raspberry Pi 5" in text else "raspberry-pi-4")
    if "INCLUDES image resize" in row["note"]:
        excluded = "times the resizing of an image too"
    elif "p90" in row["scenario"]:
        excluded = "a percentile; the mean is there too"
    elif model == "coco_ssd_mobilenet_v1":
        excluded = "a smaller detection head than any trace: 4.2 MB of parameters, not 7.1"
    elif "mobilenet_v2_face" in model:
        excluded = "detection head not public: the trace has that of a float model, which Coral's COCO detector has not"
    elif model == "Inception-ResNet V2":
        excluded = "shorter than its parameters take over the link at the raw rate (47 MB at 500 MB/s)"
    question: dict[str, Any] = {"model": model, "shape": row["input_shape"]}
    if model not in TRACES and not model.startswith(("synthetic_", "io_")):
        excluded = excluded or "no trace of the network"
    kind = "table" if row["group"] == "coral" and "ultralytics" not in row["source"] else "other"
    size = "micro" if model.startswith(("synthetic_", "io_")) else kind
    return Case(
        SUITE, int(row["row"]), row["device_variant"], target, "edge-tpu", f"{model} {row['input_shape']}", "uint8",
        float(row["value"]) * 1e-3, group=row["group"], size=size, excluded=excluded, question=question,
    )  # fmt: skip


def predict(found: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's latency of every case, and that of peak arithmetic and link rate alone."""
    return [_predict(case) for case in found]


def _predict(case: Case) -> Outcome:
    try:
        net, shapes = network_of(case.question)
        result = simulate(net, case.target, precision="uint8", shapes=shapes)
    except HwsimError as error:
        return Outcome(case, refused=str(error))
    acc = load_accelerator(case.target)
    bound = net.bind(**shapes) if shapes else net
    moved = max(0, bound.weight_bytes // (4 if "synthetic" not in net.name else 1) - acc.memory["wide"].capacity_bytes)
    crossing = moved + sum(math.prod(int(d) for d in t.shape) for t in bound.bind().inputs)
    roofline = max(result.macs / acc.macs_per_s, crossing / acc.host.to_chip_bytes_per_s)
    return Outcome(case, result.latency_s, roofline)


def network_of(question: Any) -> tuple[Network, dict[str, int] | None]:
    """Return the network of a row, and the sizes it was run at where they differ from the trace's."""
    model, shape = str(question["model"]), str(question["shape"])
    if model.startswith("io_"):
        return _link_network(model, shape), None
    net = load_network(TRACES.get(model, model))
    if model.startswith("YOLO"):
        size = int(shape.split("x")[1])
        return net, {"H": size, "W": size}
    return net, None


def _link_network(model: str, shape: str) -> Network:
    """The networks that time inputs and outputs: a padding, a strided convolution, or one after the other."""
    parts = [tuple(int(v) for v in text.split("x")) for text in shape.split("->")]
    net = Builder(model.replace(">", ""), dtype="uint8")
    if "InOut_stride" in model:  # stated as output -> input
        (y, x, z), outs = parts[1], parts[0][2]
        made = net.conv(net.input("x", (1, z, y, x)), outs, 1, (y, x), bias=True, fused="relu")
        return net.build(made)
    inner = parts[-1]
    up, side = inner[0] // 2 - 1, inner[1] // 2 - 1
    made = net.op("pad", net.input("x", (1, inner[2], 2, 2)), p=(0, 0, up, side, 0, 0, up, side))
    if "padding_stride" in model:
        made = net.conv(made, parts[1][2], 1, (inner[0], inner[1]), bias=True, fused="relu")
    return net.build(made)
