"""YOLO detectors of the v5, v8, v9, v10 and 11 families, with symbols N, H, W (H and W multiples of 32).

The channel lists are those of the published model descriptions; blocks are written from their papers. All are in their
deployed form: branches that a release merges before inference (RepConv) are one convolution. The head includes the
decoding of boxes that the exported engines contain, but not the selection of the final boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from build_common import Body, Entry

from hwsim.network.builder import Builder

CLASSES, REACH = 80, 16  # COCO classes; bins of the distribution over box distances


@dataclass
class Blocks:
    """Convolutional blocks shared by the families; ``act`` is the activation behind every batch-norm."""

    net: Builder
    act: str = "silu"

    def channels(self, x: str) -> int:
        return self.net.shape(x)[1]

    def conv(
        self, x: str, c: int, k: int = 1, s: int = 1, *, g: int = 1, act: bool = True, p: int | None = None
    ) -> str:
        fused = f"bn+{self.act}" if act else "bn"
        return self.net.conv(x, c, k, s, k // 2 if p is None else p, g=g, fused=fused)

    def depthwise(self, x: str, k: int, s: int = 1, *, act: bool = True) -> str:
        return self.conv(x, self.channels(x), k, s, g=self.channels(x), act=act)

    def halves(self, x: str) -> tuple[str, str]:
        half = self.channels(x) // 2
        return self.net.split(x, 1, 0, half), self.net.split(x, 1, half, half)

    def bottleneck(self, x: str, c: int, *, shortcut: bool, k: tuple[int, int], ratio: float = 1.0) -> str:
        y = self.conv(self.conv(x, int(c * ratio), k[0]), c, k[1])
        return self.net.add(x, y) if shortcut else y

    def c3(self, x: str, c: int, n: int, *, shortcut: bool, k: tuple[int, int] = (1, 3)) -> str:
        """Cross-stage partial block with three 1x1 convolutions (v5; with 3x3 bottlenecks in v9 and 11)."""
        a = self.conv(x, c // 2)
        b = self.conv(x, c // 2)
        for _ in range(n):
            a = self.bottleneck(a, c // 2, shortcut=shortcut, k=k)
        return self.conv(self.net.concat(a, b), c)

    def c2f(self, x: str, c: int, inner: Sequence[Callable[[str, int], str]], *, ratio: float = 0.5) -> str:
        """Cross-stage partial block whose every inner block's output is concatenated (v8)."""
        hidden = int(c * ratio)
        parts = list(self.halves(self.conv(x, 2 * hidden)))
        for block in inner:
            parts.append(block(parts[-1], hidden))
        return self.conv(self.net.concat(*parts), c)

    def plain_c2f(self, x: str, c: int, n: int, *, shortcut: bool) -> str:
        return self.c2f(x, c, [partial(self.bottleneck, shortcut=shortcut, k=(3, 3))] * n)

    def sppf(self, x: str, c: int) -> str:
        """Three chained 5x5 maximum pools, all four stages concatenated."""
        parts = [self.conv(x, self.channels(x) // 2)]
        for _ in range(3):
            parts.append(self.net.pool(parts[-1], "max", 5, 1, 2))
        return self.conv(self.net.concat(*parts), c)

    def up(self, x: str) -> str:
        _, _, h, w = self.net.shape(x)
        return self.net.resize(x, (2 * h, 2 * w))

    def join(self, *xs: str) -> str:
        return self.net.concat(*xs)

    # -- v9 ------------------------------------------------------------------------------------------------------

    def elan(self, x: str, c: int, mid: int, inner: int, n: int) -> str:
        """Generalised efficient layer aggregation (v9): split, two stages, all joined; n=0: plain convolutions."""
        parts = list(self.halves(self.conv(x, mid)))
        for _ in range(2):
            y = self.c3(parts[-1], inner, n, shortcut=True, k=(3, 3)) if n else parts[-1]
            parts.append(self.conv(y, inner, 3))
        return self.conv(self.net.concat(*parts), c)

    def average_down(self, x: str, c: int) -> str:
        return self.conv(self.net.pool(x, "avg", 2, 1), c, 3, 2)

    def spp_elan(self, x: str, c: int, mid: int) -> str:
        parts = [self.conv(x, mid)]
        for _ in range(3):
            parts.append(self.net.pool(parts[-1], "max", 5, 1, 2))
        return self.conv(self.net.concat(*parts), c)

    # -- v10, 11 -------------------------------------------------------------------------------------------------

    def down(self, x: str, c: int) -> str:
        """Spatial-channel decoupled downsampling (v10)."""
        return self.depthwise(self.conv(x, c), 3, 2, act=False)

    def inverted(self, x: str, c: int, *, shortcut: bool, large: bool) -> str:
        """Compact inverted block (v10); ``large`` has a 7x7 depthwise kernel in the middle."""
        y = self.conv(self.depthwise(x, 3), 2 * c)
        y = self.depthwise(self.conv(self.depthwise(y, 7 if large else 3), c), 3)
        return self.net.add(x, y) if shortcut else y

    def attention(self, x: str) -> str:
        """Self-attention over positions with keys half as deep as values and a depthwise positional term (v10)."""
        net = self.net
        n, c, h, w = net.shape(x)
        heads = c // 64
        depth, key = c // heads, c // heads // 2
        qkv = net.reshape(self.conv(x, c + 2 * key * heads, act=False), (n, heads, 2 * key + depth, h * w))
        q, k, v = net.split(qkv, 2, 0, key), net.split(qkv, 2, key, key), net.split(qkv, 2, 2 * key, depth)
        scores = net.op("softmax", net.op("matmul", net.transpose(q, 0, 1, 3, 2), k), axis=3)
        mixed = net.reshape(net.op("matmul", v, scores, bt=True), (n, c, h, w))
        position = self.depthwise(net.reshape(v, (n, c, h, w)), 3, act=False)
        return self.conv(net.add(mixed, position), c, act=False)

    def psa(self, x: str, n: int = 1) -> str:
        """Partial self-attention: half of the channels go through attention and a feed-forward network."""
        net, c = self.net, self.channels(x)
        a, b = self.halves(self.conv(x, c))
        for _ in range(n):
            b = net.add(b, self.attention(b))
            b = net.add(b, self.conv(self.conv(b, c), c // 2, act=False))
        return self.conv(net.concat(a, b), c)

    # -- heads ---------------------------------------------------------------------------------------------------

    def flat(self, x: str) -> str:
        n, c, h, w = self.net.shape(x)
        return self.net.reshape(x, (n, c, h * w))

    def detect(self, levels: Sequence[str], *, light: bool = False, groups: int = 1) -> str:
        """Decoupled anchor-free head (v8 on); ``light`` has depthwise convolutions in its class branch (v10, 11).

        ``groups`` divides the later convolutions of the box branch (v9).
        """
        net, parts = self.net, []
        first = self.channels(levels[0])
        box, cls = max(16, first // 4, 4 * REACH), max(first, min(CLASSES, 100))
        for index, x in enumerate(levels):
            net.prefix = f"head{index}."
            b = self.conv(self.conv(x, box, 3), box, 3, g=groups)
            b = net.conv(b, 4 * REACH, 1, g=groups, bias=True, name="box")
            if light:
                c = self.conv(self.depthwise(self.conv(self.depthwise(x, 3), cls), 3), cls)
            else:
                c = self.conv(self.conv(x, cls, 3), cls, 3)
            c = net.conv(c, CLASSES, 1, bias=True, name="class")
            parts.append(self.flat(net.concat(b, c)))
        net.prefix = "decode."
        every = net.concat(*parts, axis=2)
        boxes, scores = net.split(every, 1, 0, 4 * REACH), net.split(every, 1, 4 * REACH, CLASSES)
        n, _, anchors = net.shape(every)
        bins = net.transpose(net.reshape(boxes, (n, 4, REACH, anchors)), 0, 2, 1, 3)
        distance = net.conv(net.op("softmax", bins, axis=1), 1, 1, name="expectation")
        distance = net.reshape(distance, (n, 4, anchors))
        low = net.op("sub", net.split(distance, 1, 0, 2), name="anchor_minus")
        high = net.op("add", net.split(distance, 1, 2, 2), name="anchor_plus")
        centre = net.op("div", net.add(low, high), name="centre")
        size = net.op("sub", high, low, name="size")
        decoded = net.op("mul", net.concat(centre, size), name="stride")
        return net.concat(decoded, net.op("sigmoid", scores))

    def detect_anchors(self, levels: Sequence[str]) -> str:
        """Anchor-based head (v5): one 1x1 convolution per level, three anchors a cell."""
        net, parts = self.net, []
        for index, x in enumerate(levels):
            net.prefix = f"head{index}."
            n, _, h, w = net.shape(x)
            y = net.conv(x, 3 * (CLASSES + 5), 1, bias=True, name="predict")
            y = net.transpose(net.reshape(y, (n, 3, CLASSES + 5, h, w)), 0, 1, 3, 4, 2)
            y = net.op("sigmoid", y)
            centre = net.op("mul", net.split(y, 4, 0, 2), name="centre")
            centre = net.op("add", centre, name="grid")
            size = net.op("mul", net.op("square", net.split(y, 4, 2, 2)), name="anchor")
            y = net.concat(centre, size, net.split(y, 4, 4, CLASSES + 1), axis=4)
            parts.append(net.reshape(y, (n, 3 * h * w, CLASSES + 5)))
        net.prefix = ""
        return net.concat(*parts, axis=1)


@dataclass(frozen=True)
class Scale:
    """Compound scaling: depth and width multipliers and the cap on unscaled channels."""

    depth: float
    width: float
    cap: int = 1024

    def c(self, channels: int) -> int:
        return math.ceil(min(channels, self.cap) * self.width / 8) * 8

    def n(self, repeats: int) -> int:
        return max(round(repeats * self.depth), 1) if repeats > 1 else repeats


def _start(net: Builder, N: int, H: int, W: int) -> tuple[Blocks, str]:
    return Blocks(net), net.input("images", (N, 3, H, W))


def yolov5(net: Builder, N: int, H: int, W: int, *, m: Scale) -> str:
    b, x = _start(net, N, H, W)
    x = b.conv(b.conv(x, m.c(64), 6, 2, p=2), m.c(128), 3, 2)
    x = b.c3(x, m.c(128), m.n(3), shortcut=True)
    p3 = b.c3(b.conv(x, m.c(256), 3, 2), m.c(256), m.n(6), shortcut=True)
    p4 = b.c3(b.conv(p3, m.c(512), 3, 2), m.c(512), m.n(9), shortcut=True)
    x = b.c3(b.conv(p4, m.c(1024), 3, 2), m.c(1024), m.n(3), shortcut=True)
    t5 = b.conv(b.sppf(x, m.c(1024)), m.c(512))
    x = b.c3(b.join(b.up(t5), p4), m.c(512), m.n(3), shortcut=False)
    t4 = b.conv(x, m.c(256))
    o3 = b.c3(b.join(b.up(t4), p3), m.c(256), m.n(3), shortcut=False)
    o4 = b.c3(b.join(b.conv(o3, m.c(256), 3, 2), t4), m.c(512), m.n(3), shortcut=False)
    o5 = b.c3(b.join(b.conv(o4, m.c(512), 3, 2), t5), m.c(1024), m.n(3), shortcut=False)
    return b.detect_anchors([o3, o4, o5])


def yolov8(net: Builder, N: int, H: int, W: int, *, m: Scale) -> str:
    b, x = _start(net, N, H, W)
    x = b.plain_c2f(b.conv(b.conv(x, m.c(64), 3, 2), m.c(128), 3, 2), m.c(128), m.n(3), shortcut=True)
    p3 = b.plain_c2f(b.conv(x, m.c(256), 3, 2), m.c(256), m.n(6), shortcut=True)
    p4 = b.plain_c2f(b.conv(p3, m.c(512), 3, 2), m.c(512), m.n(6), shortcut=True)
    x = b.plain_c2f(b.conv(p4, m.c(1024), 3, 2), m.c(1024), m.n(3), shortcut=True)
    p5 = b.sppf(x, m.c(1024))
    t4 = b.plain_c2f(b.join(b.up(p5), p4), m.c(512), m.n(3), shortcut=False)
    o3 = b.plain_c2f(b.join(b.up(t4), p3), m.c(256), m.n(3), shortcut=False)
    o4 = b.plain_c2f(b.join(b.conv(o3, m.c(256), 3, 2), t4), m.c(512), m.n(3), shortcut=False)
    o5 = b.plain_c2f(b.join(b.conv(o4, m.c(512), 3, 2), p5), m.c(1024), m.n(3), shortcut=False)
    return b.detect([o3, o4, o5])


def yolov9(net: Builder, N: int, H: int, W: int, *, stem: tuple[int, int], stages: tuple[int, int, int]) -> str:
    """The t and s models: a stage of c channels aggregates over c, with c/2 inside."""
    b, x = _start(net, N, H, W)
    c3, c4, c5 = stages
    x = b.conv(b.conv(x, stem[0], 3, 2), stem[1], 3, 2)
    x = b.elan(x, stem[1], stem[1], stem[1] // 2, 0)

    def stage(y: str, c: int) -> str:
        return b.elan(y, c, c, c // 2, 3)

    p3 = stage(b.average_down(x, c3), c3)
    p4 = stage(b.average_down(p3, c4), c4)
    p5 = b.spp_elan(stage(b.average_down(p4, c5), c5), c5, c5 // 2)
    t4 = stage(b.join(b.up(p5), p4), c4)
    o3 = stage(b.join(b.up(t4), p3), c3)
    o4 = stage(b.join(b.average_down(o3, c4 // 2), t4), c4)
    o5 = stage(b.join(b.average_down(o4, c5 // 2), p5), c5)
    return b.detect([o3, o4, o5], groups=4)


def yolov10(net: Builder, N: int, H: int, W: int, *, m: Scale, p5: str, o4: str, o5: str) -> str:
    """Stage kinds per model: c2f, cib (compact inverted blocks) or cib7 (with the large kernel)."""
    b, x = _start(net, N, H, W)

    def stage(y: str, c: int, n: int, kind: str = "c2f", *, shortcut: bool = False) -> str:
        if kind == "c2f":
            return b.plain_c2f(y, m.c(c), m.n(n), shortcut=shortcut)
        block = partial(b.inverted, shortcut=True, large=kind == "cib7")
        return b.c2f(y, m.c(c), [block] * m.n(n))

    x = stage(b.conv(b.conv(x, m.c(64), 3, 2), m.c(128), 3, 2), 128, 3, shortcut=True)
    s3 = stage(b.conv(x, m.c(256), 3, 2), 256, 6, shortcut=True)
    s4 = stage(b.down(s3, m.c(512)), 512, 6, shortcut=True)
    x = stage(b.down(s4, m.c(1024)), 1024, 3, p5, shortcut=True)
    s5 = b.psa(b.sppf(x, m.c(1024)))
    t4 = stage(b.join(b.up(s5), s4), 512, 3)
    out3 = stage(b.join(b.up(t4), s3), 256, 3)
    out4 = stage(b.join(b.conv(out3, m.c(256), 3, 2), t4), 512, 3, o4)
    out5 = stage(b.join(b.down(out4, m.c(512)), s5), 1024, 3, o5)
    return b.detect([out3, out4, out5], light=True)


def yolo11(net: Builder, N: int, H: int, W: int, *, m: Scale, deep: bool) -> str:
    """``deep`` (m, l, x): every stage has cross-stage partial blocks inside."""
    b, x = _start(net, N, H, W)

    def stage(y: str, c: int, *, nested: bool, ratio: float = 0.5) -> str:
        if nested or deep:
            inner: Callable[[str, int], str] = partial(b.c3, n=2, shortcut=True, k=(3, 3))
        else:
            inner = partial(b.bottleneck, shortcut=True, k=(3, 3), ratio=0.5)
        return b.c2f(y, m.c(c), [inner] * m.n(2), ratio=ratio)

    x = stage(b.conv(b.conv(x, m.c(64), 3, 2), m.c(128), 3, 2), 256, nested=False, ratio=0.25)
    p3 = stage(b.conv(x, m.c(256), 3, 2), 512, nested=False, ratio=0.25)
    p4 = stage(b.conv(p3, m.c(512), 3, 2), 512, nested=True)
    x = stage(b.conv(p4, m.c(1024), 3, 2), 1024, nested=True)
    p5 = b.psa(b.sppf(x, m.c(1024)), m.n(2))
    t4 = stage(b.join(b.up(p5), p4), 512, nested=False)
    o3 = stage(b.join(b.up(t4), p3), 256, nested=False)
    o4 = stage(b.join(b.conv(o3, m.c(256), 3, 2), t4), 512, nested=False)
    o5 = stage(b.join(b.conv(o4, m.c(512), 3, 2), p5), 1024, nested=True)
    return b.detect([o3, o4, o5], light=True)


def entry(body: Body, source: str, pixels: int = 640) -> Entry:
    """An entry of a detector for square COCO images of ``pixels`` (any multiple of 32 through H and W)."""
    return Entry(
        body,
        task="object detection (COCO)",
        source=source,
        licence="facts from the paper and the published model description",
        defaults={"N": 1, "H": pixels, "W": pixels},
        second={"N": 2, "H": 320, "W": 256},
    )


V5 = "Jocher et al. 2020, YOLOv5 release 6.2 model description (doi:10.5281/zenodo.3908559)"
V8 = "Jocher et al. 2023, YOLOv8 model description"
V9 = "Wang et al. 2024 (arXiv:2402.13616), YOLOv9 t and s as deployed: no auxiliary branch, RepConv merged"
V10 = "Wang et al. 2024 (arXiv:2405.14458), one-to-one head, RepVGG depthwise merged; ends before the top-300 selection"
V11 = "Jocher and Qiu 2024, YOLO11 model description"
CIB = {"n": ("c2f", "c2f", "cib7"), "s": ("cib7", "c2f", "cib7"), "m": ("cib", "cib", "cib")}
V10_SCALES = {"n": Scale(0.33, 0.25), "s": Scale(0.33, 0.5), "m": Scale(0.67, 0.75, 768)}
V5_SCALES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}
V8_SCALES = {
    "n": (0.33, 0.25, 1024),
    "s": (0.33, 0.5, 1024),
    "m": (0.67, 0.75, 768),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}
V11_SCALES = {
    "n": (0.5, 0.25, 1024),
    "s": (0.5, 0.5, 1024),
    "m": (0.5, 1.0, 512),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.5, 512),
}

NETWORKS = {
    **{f"yolov5{k}": entry(partial(yolov5, m=Scale(*v)), V5) for k, v in V5_SCALES.items()},
    **{f"yolov8{k}": entry(partial(yolov8, m=Scale(*v)), V8) for k, v in V8_SCALES.items()},
    "yolov9t": entry(partial(yolov9, stem=(16, 32), stages=(64, 96, 128)), V9),
    "yolov9s": entry(partial(yolov9, stem=(32, 64), stages=(128, 192, 256)), V9),
    **{
        f"yolov10{k}": entry(partial(yolov10, m=v, p5=CIB[k][0], o4=CIB[k][1], o5=CIB[k][2]), V10)
        for k, v in V10_SCALES.items()
    },
    **{f"yolo11{k}": entry(partial(yolo11, m=Scale(*v), deep=k in "mlx"), V11) for k, v in V11_SCALES.items()},
}
