"""Single-shot detectors of MLPerf inference and of the Coral site: SSD on MobileNetV1, MobileNetV2 and ResNet-34."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import build_mobilenet
from build_common import Entry

from hwsim.network.builder import Builder

# Channels of the four extra feature maps of TensorFlow's SSD: squeeze 1x1, then 3x3 with stride 2.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))


def _predict(net: Builder, features: Sequence[str], boxes: Sequence[int], classes: int, k: int) -> str:
    """Box and class predictors of kernel ``k`` on every feature map, decoding and non-maximum suppression."""
    places: list[str] = []
    scores: list[str] = []
    for index, (x, count) in enumerate(zip(features, boxes, strict=True)):
        net.prefix = f"predictor{index}."
        for found, width, name in ((places, 4, "boxes"), (scores, classes, "classes")):
            y = net.conv(x, count * width, k, p="same", bias=True, name=name)
            n, c, h, w = net.shape(y)
            found.append(net.reshape(net.transpose(y, 0, 2, 3, 1), (n, h * w * c // width, width)))
    net.prefix = "post."
    score = net.op("sigmoid", net.concat(*scores, axis=1))
    return _select(net, net.concat(*places, axis=1), score)


def _select(net: Builder, place: str, score: str) -> str:
    """Boxes from offsets to anchors, then the best 100 a picture."""
    n, count, _ = net.shape(place)
    scaled = net.op("mul", place, name="anchor_scale")
    centre = net.op("add", net.split(scaled, 2, 0, 2), name="anchor_centre")
    half = net.op("mul", net.op("exp", net.split(scaled, 2, 2, 2)), name="anchor_half")
    box = net.concat(net.op("sub", centre, half), net.add(centre, half), axis=2)
    return net.op("nms", box, score, out=(n, 100, 6), classes=net.shape(score)[2], boxes=count)


def _extras(net: Builder, x: str, depth: float, *, separable: bool) -> list[str]:
    found = []
    for index, (squeeze, channels) in enumerate(EXTRAS, 2):
        net.prefix = f"extra{index}."
        x = net.conv(x, max(16, int(squeeze * depth)), 1, fused=build_mobilenet.BN, name="1x1")
        if separable:
            x = net.depthwise(x, 3, 2, "same", fused=build_mobilenet.BN)
            x = net.conv(x, max(16, int(channels * depth)), 1, fused=build_mobilenet.BN, name="pointwise")
        else:
            x = net.conv(x, max(16, int(channels * depth)), 3, 2, "same", fused=build_mobilenet.BN, name="3x3")
        found.append(x)
    net.prefix = ""
    return found


def ssd_mobilenet_v1(net: Builder, N: int, *, width: float = 1.0) -> str:
    maps = build_mobilenet.features(net, net.input("image", (N, 3, 300, 300)), width, minimum=16)
    features = [maps[11], maps[13], *_extras(net, maps[13], width, separable=False)]
    return _predict(net, features, (3, 6, 6, 6, 6, 6), 91, 1)


def ssd_mobilenet_v2(net: Builder, N: int, *, pixels: int, classes: int, kernel: int, separable: bool) -> str:
    last, taps = build_mobilenet.features_v2(net, net.input("image", (N, 3, pixels, pixels)))
    features = [taps[16], last, *_extras(net, last, 1.0, separable=separable)]
    return _predict(net, features, (3, 6, 6, 6, 6, 6), classes, kernel)


def ssd_resnet34(net: Builder, N: int) -> str:
    """ResNet-34 up to its third stage (whose stride is 1), five extra maps, predictors with stride 3, 1200x1200."""
    x = net.conv(net.input("image", (N, 3, 1200, 1200)), 64, 7, 2, 3, fused="bn+relu", name="conv1")
    x = net.pool(x, "max", 3, 2, 1)
    for stage, (channels, blocks, stride) in enumerate(((64, 3, 1), (128, 4, 2), (256, 6, 1)), 1):
        for block in range(blocks):
            net.prefix = f"layer{stage}.{block}."
            step = stride if block == 0 else 1
            y = net.conv(x, channels, 3, step, 1, fused="bn+relu", name="conv1")
            y = net.conv(y, channels, 3, 1, 1, fused="bn", name="conv2")
            if net.shape(x)[1] != channels:
                x = net.conv(x, channels, 1, step, fused="bn", name="downsample")
            x = net.add(y, x, fused="relu")
    features = [x]
    extras = ((256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 2, 0), (128, 256, 1, 0))
    for index, (squeeze, channels, stride, padding) in enumerate(extras):
        net.prefix = f"extra{index}."
        x = net.conv(x, squeeze, 1, bias=True, fused="relu", name="1x1")
        x = net.conv(x, channels, 3, stride, padding, bias=True, fused="relu", name="3x3")
        features.append(x)
    places: list[str] = []
    scores: list[str] = []
    for index, (x, count) in enumerate(zip(features, (4, 6, 6, 6, 4, 4), strict=True)):
        net.prefix = f"predictor{index}."
        for found, width, name in ((places, 4, "boxes"), (scores, 81, "classes")):
            y = net.conv(x, count * width, 3, 3, 1, bias=True, name=name)
            n, c, h, w = net.shape(y)
            found.append(net.reshape(y, (n, width, c * h * w // width)))
    net.prefix = "post."
    score = net.op("softmax", net.transpose(net.concat(*scores, axis=2), 0, 2, 1), axis=2)
    return _select(net, net.transpose(net.concat(*places, axis=2), 0, 2, 1), score)


# Kind (e: full 3x3 expansion, i: depthwise), repeats, kernel, stride, expansion and channels of EfficientNet-EdgeTPU.
EDGETPU = (
    ("e", 1, 3, 1, 4, 24), ("e", 2, 3, 2, 8, 32), ("e", 4, 3, 2, 8, 48),
    ("i", 5, 5, 2, 8, 96), ("i", 4, 5, 1, 8, 144), ("i", 2, 5, 2, 8, 192),
)  # fmt: skip


def efficientnet_edgetpu(net: Builder, N: int, *, width: float, depth: float, pixels: int) -> str:
    """The first stage expands to 4 x its output width and has no residual connection."""

    def c(channels: int) -> int:
        new = max(8, int(channels * width + 4) // 8 * 8)
        return new + 8 if new < 0.9 * channels * width else new

    x = net.conv(net.input("image", (N, 3, pixels, pixels)), c(32), 3, 2, "same", fused="bn+relu", name="stem")
    for stage, (kind, repeats, k, stride, expansion, channels) in enumerate(EDGETPU):
        for block in range(math.ceil(repeats * depth)):
            net.prefix = f"stage{stage}.{block}."
            step = stride if block == 0 else 1
            inputs = net.shape(x)[1]
            hidden = (c(channels) if stage == 0 else inputs) * expansion
            if kind == "e":
                y = net.conv(x, hidden, k, step, "same", fused="bn+relu", name="expand")
            else:
                y = net.conv(x, hidden, 1, fused="bn+relu", name="expand")
                y = net.depthwise(y, k, step, "same", fused="bn+relu", name="depthwise")
            y = net.conv(y, c(channels), 1, fused="bn", name="project")
            x = net.add(x, y) if step == 1 and inputs == c(channels) and stage else y
    net.prefix = ""
    x = net.global_pool(net.conv(x, c(1280), 1, fused="bn+relu", name="head"))
    return net.linear(net.flatten(x), 1000, name="classifier")


def _ssd(body: object, source: str) -> Entry:
    return Entry(body, task="object detection (COCO), with box decoding and non-maximum suppression",  # type: ignore[arg-type]
                 source=source, licence="facts from the paper and the published model description")  # fmt: skip


V1 = "Liu et al. 2016 (arXiv:1512.02325) on MobileNetV1 as TensorFlow's ssd_mobilenet_v1_coco (MLPerf)"
V2 = "Liu et al. 2016 (arXiv:1512.02325) on MobileNetV2 as TensorFlow's ssd_mobilenet_v2_coco"
EDGE = "Gupta and Akin 2020 (arXiv:2003.02838) and the published EfficientNet-EdgeTPU block list; 1000 classes"

NETWORKS = {
    "ssd_mobilenet_v1": _ssd(ssd_mobilenet_v1, V1),
    "ssd_mobilenet_v1_0.75": _ssd(partial(ssd_mobilenet_v1, width=0.75), V1 + ", depth multiplier 0.75"),
    "ssd_mobilenet_v2": _ssd(partial(ssd_mobilenet_v2, pixels=300, classes=91, kernel=3, separable=True), V2),
    "ssd_mobilenet_v2_quant": _ssd(
        partial(ssd_mobilenet_v2, pixels=300, classes=91, kernel=1, separable=False),
        V2 + " at 8 bits (ssd_mobilenet_v2_coco_quant_postprocess): full 3x3 extra maps, 1x1 predictors, as its compiled "
        "parameters in google-coral/test_data show",
    ),
    "ssd_mobilenet_v2_face": _ssd(
        partial(ssd_mobilenet_v2, pixels=320, classes=2, kernel=3, separable=True),
        V2 + "; one class and background at 320x320 (the Coral model), the rest as for COCO",
    ),
    "ssd_resnet34": _ssd(
        ssd_resnet34,
        "Liu et al. 2016 (arXiv:1512.02325) on ResNet-34 as defined by MLPerf inference (1200x1200, 81 classes)",
    ),
    **{
        f"efficientnet_edgetpu_{size}": Entry(
            partial(efficientnet_edgetpu, width=width, depth=depth, pixels=pixels),
            task="image classification (ImageNet)",
            source=EDGE,
            licence="Apache-2.0 (published block list)",
        )
        for size, width, depth, pixels in (("s", 1.0, 1.0, 224), ("m", 1.0, 1.1, 240), ("l", 1.2, 1.4, 300))
    },
}  # fmt: skip
