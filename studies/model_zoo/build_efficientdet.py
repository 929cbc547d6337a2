"""EfficientDet-D0: EfficientNet-B0, three BiFPN cells of 64 channels, heads shared by five levels.

Tan, Pang, Le, "EfficientDet", arXiv:1911.09070, section 3 and table 1. Backbone blocks as EfficientNet table 1
(arXiv:1905.11946). The heads' convolutions are shared over the levels, their batch-norms are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from build_common import Entry

from hwsim.network.builder import Builder

BN = "bn+silu"
# kernel, expansion, channels, repeats, stride
STAGES = (
    (3, 1, 16, 1, 1), (3, 6, 24, 2, 2), (5, 6, 40, 2, 2), (3, 6, 80, 3, 2), (5, 6, 112, 3, 1), (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)  # fmt: skip
WIDTH, CELLS, REPEATS, ANCHORS, CLASSES = 64, 3, 3, 9, 90


def _backbone(net: Builder, x: str) -> list[str]:
    """Outputs at strides 8, 16 and 32."""
    x = net.conv(x, 32, 3, 2, "same", fused=BN, name="stem")
    found: dict[int, str] = {}
    for stage, (k, expansion, channels, repeats, stride) in enumerate(STAGES):
        for block in range(repeats):
            net.prefix = f"stage{stage}.{block}."
            step, inputs, y = stride if block == 0 else 1, net.shape(x)[1], x
            if expansion != 1:
                y = net.conv(y, inputs * expansion, 1, fused=BN, name="expand")
            y = net.depthwise(y, k, step, "same", fused=BN, name="depthwise")
            gate = net.conv(net.global_pool(y), inputs // 4, 1, bias=True, fused="silu", name="squeeze")
            gate = net.conv(gate, net.shape(y)[1], 1, bias=True, fused="sigmoid", name="excite")
            y = net.conv(net.op("mul", y, gate, name="scale"), channels, 1, fused="bn", name="project")
            x = net.add(x, y) if step == 1 and inputs == channels else y
        found[net.shape(x)[2]] = x
    net.prefix = ""
    return [found[size] for size in sorted(found, reverse=True)[-3:]]


def _down(net: Builder, x: str) -> str:
    return net.pool(x, "max", 3, 2, "same")


def _lateral(net: Builder, x: str) -> str:
    return x if net.shape(x)[1] == WIDTH else net.conv(x, WIDTH, 1, fused="bn", name="lateral")


def _fuse(net: Builder, xs: Sequence[str]) -> str:
    """Weighted sum of the inputs brought to one size, swish, separable convolution."""
    total = ""
    for x in xs:
        part = net.op("mul", x, const=(1,), learned=True, name="weight")
        total = net.add(total, part) if total else part
    total = net.depthwise(net.op("silu", total), 3, 1, "same")
    return net.conv(total, WIDTH, 1, bias=True, fused="bn", name="pointwise")


def _cell(net: Builder, p: Sequence[str]) -> list[str]:
    """One BiFPN cell over levels 3 to 7: down the pyramid, then up."""
    top = {4: p[4]}
    for level in (3, 2, 1, 0):
        net.prefix = f"{net.prefix.partition('.')[0]}.td{level + 3}."
        up = net.resize(top[level + 1], net.shape(p[level])[2:])
        top[level] = _fuse(net, [_lateral(net, p[level]), up])
    out = [top[0]]
    for level in (1, 2, 3, 4):
        net.prefix = f"{net.prefix.partition('.')[0]}.out{level + 3}."
        middle = [top[level]] if level < 4 else []
        out.append(_fuse(net, [_lateral(net, p[level]), *middle, _down(net, out[-1])]))
    return out


def _head(net: Builder, levels: Sequence[str], name: str, features: int) -> list[str]:
    """Three separable convolutions and a prediction; weights of the first level serve all."""
    shared: dict[tuple[int, str], str] = {}
    found = []

    def conv(x: str, step: int, kind: str, c: int, fused: str) -> str:
        n, inputs, h, w = net.shape(x)
        three = kind == "depthwise"
        y = net.op(
            "conv", x, out=(n, c, h, w), k=(3, 3) if three else (1, 1), p=(1, 1) if three else None,
            g=inputs if three else None, bias=not three, fused=fused, name=f"{kind}{step}",
            tied=shared.get((step, kind)),
        )  # fmt: skip
        shared.setdefault((step, kind), y)
        return y

    for level, x in enumerate(levels, 3):
        net.prefix = f"{name}{level}."
        for step in range(REPEATS):
            x = conv(conv(x, step, "depthwise", WIDTH, ""), step, "pointwise", WIDTH, BN)
        x = conv(x, REPEATS, "depthwise", WIDTH, "")
        found.append(conv(x, REPEATS, "pointwise", features, "sigmoid" if name == "class" else ""))
    return found


def efficientdet_d0(net: Builder, N: int) -> tuple[str, ...]:
    levels = _backbone(net, net.input("image", (N, 3, 512, 512)))
    levels.append(_down(net, net.conv(levels[2], WIDTH, 1, fused="bn", name="p6")))
    levels.append(_down(net, levels[3]))
    for cell in range(CELLS):
        net.prefix = f"cell{cell}."
        levels = _cell(net, levels)
    return (*_head(net, levels, "class", ANCHORS * CLASSES), *_head(net, levels, "box", ANCHORS * 4))


NETWORKS = {
    "efficientdet_d0": Entry(
        efficientdet_d0,
        "object detection (COCO)",
        source="Tan et al. 2019 (arXiv:1911.09070) D0 at 512x512; ends before box decoding and NMS",
        licence="facts from the paper",
    ),
}
