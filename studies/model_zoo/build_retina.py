"""RetinaNet on ResNets and ResNeXt-50 with feature pyramids, and OpenPose."""

from __future__ import annotations

from functools import partial
from typing import Any

from build_common import Entry

from hwsim.network.builder import Builder

BN = "bn+relu"
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _resnet(net: Builder, x: str, depth: int, groups: int, width: int) -> list[str]:
    """Outputs of the last three stages; depths from 50 on have bottlenecks."""
    x = net.pool(net.conv(x, 64, 7, 2, 3, fused=BN, name="conv1"), "max", 3, 2, 1)
    found = []
    for stage, (c, count) in enumerate(zip((64, 128, 256, 512), BLOCKS[depth], strict=True), 1):
        out = c * 4 if depth >= 50 else c
        inner = c * width // 64 * groups
        for block in range(count):
            net.prefix = f"layer{stage}.{block}."
            step = 2 if stage > 1 and block == 0 else 1
            if depth >= 50:
                y = net.conv(x, inner, 1, fused=BN, name="conv1")
                y = net.conv(y, inner, 3, step, 1, g=groups, fused=BN, name="conv2")
                y = net.conv(y, out, 1, fused="bn", name="conv3")
            else:
                y = net.conv(x, c, 3, step, 1, fused=BN, name="conv1")
                y = net.conv(y, c, 3, 1, 1, fused="bn", name="conv2")
            if step == 2 or net.shape(x)[1] != out:
                x = net.conv(x, out, 1, step, fused="bn", name="downsample")
            x = net.add(y, x, fused="relu")
        found.append(x)
    net.prefix = ""
    return found[1:]


def retinanet(
    net: Builder, N: int, *, size: tuple[int, int], depth: int, classes: int, groups: int = 1, width: int = 64
) -> tuple[str, ...]:
    """Pyramid levels 3 to 7 of 256, nine anchors a place; ends with the raw class and box maps."""
    maps = _resnet(net, net.input("image", (N, 3, *size)), depth, groups, width)
    net.prefix = "fpn."
    lateral = [net.conv(x, 256, 1, bias=True, name="lateral") for x in maps]
    top = lateral[2]
    merged = [top]
    for x in (lateral[1], lateral[0]):
        top = net.add(x, net.resize(top, net.shape(x)[2:]))
        merged.insert(0, top)
    levels = [net.conv(x, 256, 3, 1, 1, bias=True, name="output") for x in merged]
    levels.append(net.conv(levels[2], 256, 3, 2, 1, bias=True, name="p6"))
    levels.append(net.conv(net.op("relu", levels[3]), 256, 3, 2, 1, bias=True, name="p7"))
    outputs: list[str] = []
    shared: dict[tuple[str, int], str] = {}
    for level, x in enumerate(levels, 3):
        for head, features in (("class", 9 * classes), ("box", 36)):
            net.prefix = f"{head}{level}."
            y = x
            for index in range(5):
                last = index == 4
                key = (head, index)
                y = net.op(
                    "conv", y, out=(*_batch_like(net, y, features if last else 256),), k=(3, 3), p=(1, 1), bias=True,
                    fused="sigmoid" if last and head == "class" else "" if last else "relu", name=f"conv{index}",
                    tied=shared.get(key),
                )  # fmt: skip
                shared.setdefault(key, y)
            outputs.append(y)
    return tuple(outputs)


def _batch_like(net: Builder, x: str, features: int) -> tuple[int, ...]:
    n, _, h, w = net.shape(x)
    return n, features, h, w


def openpose(net: Builder, N: int, H: int, W: int) -> tuple[str, str]:
    """VGG-19's first ten layers and six stages with two branches: 38 affinity fields and 19 heat maps."""

    def conv(x: str, c: int, k: int, *, relu: bool = True) -> str:
        return net.conv(x, c, k, p=k // 2, bias=True, fused="relu" if relu else "")

    x = net.input("image", (N, 3, H, W))
    for index, widths in enumerate(((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 256, 128))):
        x = net.pool(x, "max", 2) if index else x
        for c in widths:
            x = conv(x, c, 3)
    features = x
    branches: dict[int, str] = {}
    for stage in range(1, 7):
        found = {}
        for maps in (38, 19):
            net.prefix = f"stage{stage}.{maps}."
            y = features if stage == 1 else x
            for _ in range(3 if stage == 1 else 5):
                y = conv(y, 128, 3 if stage == 1 else 7)
            y = conv(y, 512 if stage == 1 else 128, 1)
            found[maps] = conv(y, maps, 1, relu=False)
        branches = found
        net.prefix = ""
        if stage < 6:
            x = net.concat(branches[38], branches[19], features)
    return branches[38], branches[19]


FACTS = "facts from the paper and the published model description"
FOCAL = "Lin et al. 2017 (arXiv:1708.02002) on {}; batch-norm frozen, nine anchors; ends before box decoding and NMS"


def _retina(source: str, task: str, size: tuple[int, int], **options: Any) -> Entry:
    return Entry(partial(retinanet, size=size, **options), task, source=source, licence=FACTS)


NETWORKS = {
    "retinanet_resnext50": _retina(
        FOCAL.format("ResNeXt-50 32x4d as in MLPerf inference v2.1 on (264 OpenImages classes)"),
        "object detection (OpenImages)", (800, 800), depth=50, classes=264, groups=32, width=4,
    ),
    **{
        f"retinanet_resnet{depth}_fpn": _retina(
            FOCAL.format(f"ResNet-{depth} (80 COCO classes, 800x1280)"), "object detection (COCO)", (800, 1280),
            depth=depth, classes=80,
        )
        for depth in BLOCKS
    },
    "openpose": Entry(
        openpose, "human pose estimation (COCO)",
        source="Cao et al. 2017 (arXiv:1611.08050), the published COCO model of six stages; ends with the two maps",
        licence="facts from the paper", defaults={"N": 1, "H": 256, "W": 456}, second={"N": 2, "H": 368, "W": 232},
    ),
}  # fmt: skip
