"""Darknet detectors: YOLOv3 (plain, SPP, tiny), YOLOv4 (plain, tiny); YOLOv7 (base, tiny); YOLOX. Symbols N, H, W.

Heads end with the raw predictions of three scales, as the published graphs do; decoding runs outside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from build_yolo import CLASSES, Blocks, entry

from hwsim.network.builder import Builder


@dataclass
class Dark(Blocks):
    """Darknet's blocks: leaky ReLU (or Mish), residual and cross-stage partial stages."""

    act: str = "leaky_relu"

    def residual(self, x: str, c: int, n: int, hidden: int) -> str:
        for _ in range(n):
            x = self.net.add(x, self.conv(self.conv(x, hidden), c, 3))
        return x

    def partial_stage(self, x: str, c: int, n: int) -> str:
        """CSPDarknet stage: half of the channels pass by (all of them in the first stage)."""
        x = self.conv(x, c, 3, 2)
        half = c if n == 1 else c // 2
        aside, y = self.conv(x, half), self.conv(x, half)
        y = self.conv(self.residual(y, half, n, c // 2), half)
        return self.conv(self.join(y, aside), c)

    def five(self, x: str, c: int) -> str:
        """Alternating 1x1 and 3x3 convolutions of a neck."""
        for index in range(5):
            x = self.conv(x, c if index % 2 == 0 else 2 * c, 1 + 2 * (index % 2))
        return x

    def pyramid(self, x: str) -> str:
        """Spatial pyramid pooling: 13, 9, 5 and the input."""
        return self.join(*(self.net.pool(x, "max", k, 1, k // 2) for k in (13, 9, 5)), x)

    def predict(self, x: str, c: int) -> str:
        return self.net.conv(self.conv(x, c, 3), 3 * (CLASSES + 5), 1, bias=True, name="predict")


def _start(net: Builder, N: int, H: int, W: int, act: str = "leaky_relu") -> tuple[Dark, str]:
    return Dark(net, act), net.input("images", (N, 3, H, W))


def yolov3(net: Builder, N: int, H: int, W: int, *, pyramid: bool) -> tuple[str, ...]:
    b, x = _start(net, N, H, W)
    x = b.conv(x, 32, 3)
    maps = []
    for c, n in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = b.residual(b.conv(x, c, 3, 2), c, n, c // 2)
        maps.append(x)
    if pyramid:
        x = b.conv(b.conv(b.conv(x, 512), 1024, 3), 512)
        x = b.conv(b.conv(b.conv(b.pyramid(x), 512), 1024, 3), 512)
    else:
        x = b.five(x, 512)
    outputs = [b.predict(x, 1024)]
    for level, c in ((3, 256), (2, 128)):
        x = b.five(b.join(b.up(b.conv(x, c)), maps[level]), c)
        outputs.append(b.predict(x, 2 * c))
    return tuple(outputs)


def yolov3_tiny(net: Builder, N: int, H: int, W: int) -> tuple[str, ...]:
    b, x = _start(net, N, H, W)
    route = x
    for c in (16, 32, 64, 128, 256):
        route = b.conv(x, c, 3)
        x = net.pool(route, "max", 2)
    x = b.conv(x, 512, 3)
    x = net.pool(x, "max", 2, 1, (0, 0, 1, 1))
    x = b.conv(b.conv(x, 1024, 3), 256)
    large = b.predict(x, 512)
    small = b.predict(b.join(b.up(b.conv(x, 128)), route), 256)
    return large, small


def yolov4(net: Builder, N: int, H: int, W: int) -> tuple[str, ...]:
    b, x = _start(net, N, H, W, "mish")
    x = b.conv(x, 32, 3)
    maps = []
    for c, n in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = b.partial_stage(x, c, n)
        maps.append(x)
    b.act = "leaky_relu"
    x = b.conv(b.conv(b.conv(x, 512), 1024, 3), 512)
    p5 = b.conv(b.conv(b.conv(b.pyramid(x), 512), 1024, 3), 512)
    p4 = b.five(b.join(b.conv(maps[3], 256), b.up(b.conv(p5, 256))), 256)
    p3 = b.five(b.join(b.conv(maps[2], 128), b.up(b.conv(p4, 128))), 128)
    outputs = [b.predict(p3, 256)]
    x = b.five(b.join(b.conv(p3, 256, 3, 2), p4), 256)
    outputs.append(b.predict(x, 512))
    x = b.five(b.join(b.conv(x, 512, 3, 2), p5), 512)
    return (*outputs, b.predict(x, 1024))


def yolov4_tiny(net: Builder, N: int, H: int, W: int) -> tuple[str, ...]:
    b, x = _start(net, N, H, W)
    x = b.conv(b.conv(x, 32, 3, 2), 64, 3, 2)
    route = x
    for c in (64, 128, 256):
        x = b.conv(x, c, 3)
        y = b.conv(net.split(x, 1, c // 2, c // 2), c // 2, 3)
        route = b.conv(b.join(b.conv(y, c // 2, 3), y), c)
        x = net.pool(b.join(x, route), "max", 2)
    x = b.conv(b.conv(x, 512, 3), 256)
    return b.predict(x, 512), b.predict(b.join(b.up(b.conv(x, 128)), route), 256)


# -- YOLOv7 -----------------------------------------------------------------------------------------------------------


@dataclass
class Seven(Blocks):
    """YOLOv7's aggregation: two 1x1 branches, then a chain of 3x3 convolutions of which some outputs are kept."""

    def gather(self, x: str, c: int, hidden: int, inner: int, n: int, *, every: int) -> str:
        first, second = self.conv(x, hidden), self.conv(x, hidden)
        parts, y = [first, second], second
        for index in range(1, n + 1):
            y = self.conv(y, inner, 3)
            if index % every == 0:
                parts.append(y)
        return self.conv(self.join(*reversed(parts)), c)

    def shrink(self, x: str, c: int, *more: str) -> str:
        """Pooled and strided halves joined."""
        a = self.conv(self.net.pool(x, "max", 2), c)
        return self.join(self.conv(self.conv(x, c), c, 3, 2), a, *more)


def yolov7(net: Builder, N: int, H: int, W: int) -> str:
    b, x = Seven(net), net.input("images", (N, 3, H, W))
    x = b.conv(b.conv(b.conv(x, 32, 3), 64, 3, 2), 64, 3)
    x = b.gather(b.conv(x, 128, 3, 2), 256, 64, 64, 4, every=2)
    c3 = b.gather(b.shrink(x, 128), 512, 128, 128, 4, every=2)
    c4 = b.gather(b.shrink(c3, 256), 1024, 256, 256, 4, every=2)
    x = b.gather(b.shrink(c4, 512), 1024, 256, 256, 4, every=2)
    y = b.conv(b.conv(b.conv(x, 512), 512, 3), 512)
    y = b.join(y, *(net.pool(y, "max", k, 1, k // 2) for k in (5, 9, 13)))
    y = b.conv(b.conv(y, 512), 512, 3)
    p5 = b.conv(b.join(y, b.conv(x, 512)), 512)
    p4 = b.gather(b.join(b.conv(c4, 256), b.up(b.conv(p5, 256))), 256, 256, 128, 4, every=1)
    p3 = b.gather(b.join(b.conv(c3, 128), b.up(b.conv(p4, 128))), 128, 128, 64, 4, every=1)
    o4 = b.gather(b.shrink(p3, 128, p4), 256, 256, 128, 4, every=1)
    o5 = b.gather(b.shrink(o4, 256, p5), 512, 512, 256, 4, every=1)
    return b.detect_anchors([b.conv(p3, 256, 3), b.conv(o4, 512, 3), b.conv(o5, 1024, 3)])


def yolov7_tiny(net: Builder, N: int, H: int, W: int) -> str:
    b, x = Seven(net, "leaky_relu"), net.input("images", (N, 3, H, W))
    x = b.conv(b.conv(x, 32, 3, 2), 64, 3, 2)
    x = b.gather(x, 64, 32, 32, 2, every=1)
    c3 = b.gather(net.pool(x, "max", 2), 128, 64, 64, 2, every=1)
    c4 = b.gather(net.pool(c3, "max", 2), 256, 128, 128, 2, every=1)
    x = b.gather(net.pool(c4, "max", 2), 512, 256, 256, 2, every=1)
    aside, y = b.conv(x, 256), b.conv(x, 256)
    y = b.conv(b.join(*(net.pool(y, "max", k, 1, k // 2) for k in (13, 9, 5)), y), 256)
    p5 = b.conv(b.join(y, aside), 256)
    p4 = b.gather(b.join(b.conv(c4, 128), b.up(b.conv(p5, 128))), 128, 64, 64, 2, every=1)
    p3 = b.gather(b.join(b.conv(c3, 64), b.up(b.conv(p4, 64))), 64, 32, 32, 2, every=1)
    o4 = b.gather(b.join(b.conv(p3, 128, 3, 2), p4), 128, 64, 64, 2, every=1)
    o5 = b.gather(b.join(b.conv(o4, 256, 3, 2), p5), 256, 128, 128, 2, every=1)
    return b.detect_anchors([b.conv(p3, 128, 3), b.conv(o4, 256, 3), b.conv(o5, 512, 3)])


# -- YOLOX ------------------------------------------------------------------------------------------------------------


@dataclass
class Ex(Blocks):
    """YOLOX's blocks; ``light`` (nano) replaces 3x3 convolutions by depthwise and pointwise ones."""

    light: bool = False

    def spatial(self, x: str, c: int, s: int = 1) -> str:
        if not self.light:
            return self.conv(x, c, 3, s)
        return self.conv(self.depthwise(x, 3, s), c)

    def stage(self, x: str, c: int, n: int, *, shortcut: bool) -> str:
        a, aside = self.conv(x, c // 2), self.conv(x, c // 2)
        for _ in range(n):
            y = self.spatial(self.conv(a, c // 2), c // 2)
            a = self.net.add(y, a) if shortcut else y
        return self.conv(self.join(a, aside), c)


def yolox(net: Builder, N: int, H: int, W: int, *, depth: float, width: float, light: bool = False) -> str:
    b, x = Ex(net, light=light), net.input("images", (N, 3, H, W))
    base, n = int(64 * width), max(round(3 * depth), 1)
    x = net.op("space_to_depth", x, out=(N, 12, H // 2, W // 2), block=2, name="focus")
    x = b.conv(x, base, 3)
    x = b.stage(b.spatial(x, 2 * base, 2), 2 * base, n, shortcut=True)
    c3 = b.stage(b.spatial(x, 4 * base, 2), 4 * base, 3 * n, shortcut=True)
    c4 = b.stage(b.spatial(c3, 8 * base, 2), 8 * base, 3 * n, shortcut=True)
    y = b.conv(b.spatial(c4, 16 * base, 2), 8 * base)
    y = b.conv(b.join(y, *(net.pool(y, "max", k, 1, k // 2) for k in (5, 9, 13))), 16 * base)
    c5 = b.stage(y, 16 * base, n, shortcut=False)
    t5 = b.conv(c5, 8 * base)
    t4 = b.conv(b.stage(b.join(b.up(t5), c4), 8 * base, n, shortcut=False), 4 * base)
    o3 = b.stage(b.join(b.up(t4), c3), 4 * base, n, shortcut=False)
    o4 = b.stage(b.join(b.spatial(o3, 4 * base, 2), t4), 8 * base, n, shortcut=False)
    o5 = b.stage(b.join(b.spatial(o4, 8 * base, 2), t5), 16 * base, n, shortcut=False)
    parts = []
    for index, level in enumerate((o3, o4, o5)):
        net.prefix = f"head{index}."
        y = b.conv(level, 4 * base)
        cls, box = b.spatial(b.spatial(y, 4 * base), 4 * base), b.spatial(b.spatial(y, 4 * base), 4 * base)
        score = net.conv(cls, CLASSES, 1, bias=True, fused="sigmoid", name="class")
        place = net.conv(box, 4, 1, bias=True, name="box")
        found = net.conv(box, 1, 1, bias=True, fused="sigmoid", name="object")
        parts.append(b.flat(net.concat(place, found, score)))
    net.prefix = ""
    return net.transpose(net.concat(*parts, axis=2), 0, 2, 1)


V3 = "Redmon and Farhadi 2018 (arXiv:1804.02767), Darknet's yolov3 configuration"
V4 = "Bochkovskiy et al. 2020 (arXiv:2004.10934), Darknet's yolov4 configuration"
V7 = "Wang et al. 2022 (arXiv:2207.02696), deployed form (RepConv and implicit layers merged), 80 classes"
X = "Ge et al. 2021 (arXiv:2107.08430) and the published model description; ends before box decoding"
X_SCALES = {"nano": (0.33, 0.25, True), "tiny": (0.33, 0.375, False), "s": (0.33, 0.5, False), "m": (0.67, 0.75, False)}

NETWORKS = {
    "yolov3": entry(partial(yolov3, pyramid=False), V3, 416),
    "yolov3_spp": entry(partial(yolov3, pyramid=True), V3 + " with spatial pyramid pooling", 608),
    "yolov3_tiny": entry(yolov3_tiny, V3.replace("yolov3 conf", "yolov3-tiny conf"), 416),
    "yolov4": entry(yolov4, V4, 608),
    "yolov4_tiny": entry(yolov4_tiny, V4.replace("yolov4 conf", "yolov4-tiny conf"), 416),
    "yolov7": entry(yolov7, V7),
    "yolov7_tiny": entry(yolov7_tiny, V7),
    **{
        f"yolox_{k}": entry(partial(yolox, depth=d, width=w, light=light), X, 640 if k in "sm" else 416)
        for k, (d, w, light) in X_SCALES.items()
    },
}
