"""MobileNetV1 (widths 1.0, 0.75, 0.5, 0.25 at 224, 192, 160 and 128 pixels), and V2 as a backbone of other networks.

Howard et al., "MobileNets", arXiv:1704.04861, table 1. Padding is TensorFlow's SAME (the paper's framework), the
classifier has TF-slim's 1001 classes in the quantised Coral files and 1000 in the paper: here 1001, as the published
checkpoints have. The published MAC counts include neither bias nor batch-norm.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from build_common import Entry, make_divisible

from hwsim.network.builder import Builder

# output channels and stride of the 13 depthwise-separable blocks (table 1)
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
BN = "bn+relu6"


def features(
    net: Builder,
    x: str,
    width: float = 1.0,
    *,
    minimum: int = 8,
    dilate_after: int = 0,
    cap: int = 1024,
    folded: bool = False,
) -> list[str]:
    """The convolutional part; returns the outputs of the stem and of every block.

    ``cap`` limits the unscaled channels (PoseNet's last blocks); ``folded`` writes batch-norms as biases. With
    ``dilate_after`` the blocks behind that output stride keep their resolution and dilate their kernels instead.
    """

    def depth(channels: int) -> int:
        return max(minimum, int(min(channels, cap) * width))

    style: dict[str, Any] = {"bias": True, "fused": "relu6"} if folded else {"fused": BN}
    x = net.conv(x, depth(32), 3, 2, "same", **style, name="conv0")
    found, reached, rate = [x], 2, 1
    for index, (channels, stride) in enumerate(BLOCKS, 1):
        if dilate_after and stride == 2 and reached >= dilate_after:
            step, dilation = 1, rate
            rate *= 2
        else:
            step, dilation = stride, rate
            reached *= stride
        x = net.depthwise(x, 3, step, "same", d=dilation, **style, name=f"block{index}.depthwise")
        x = net.conv(x, depth(channels), 1, **style, name=f"block{index}.pointwise")
        found.append(x)
    return found


# expansion, output channels, repeats and stride of MobileNetV2's stages (Sandler et al., arXiv:1801.04381, table 2)
STAGES_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def features_v2(
    net: Builder,
    x: str,
    width: float = 1.0,
    *,
    dilate_after: int = 0,
    last: int = 1280,
    outputs: dict[int, str] | None = None,
    depth: Callable[[float], int] = make_divisible,
) -> tuple[str, dict[int, str]]:
    """MobileNetV2's convolutional part with TensorFlow padding.

    Returns the final features and, for every output stride, the last tensor at that stride: the expansion inside the
    block that reduces it further (what SSD and U-Net decoders take), or the final features. ``outputs`` receives the
    output of every block by its number; ``last`` is the width of the closing 1x1 convolution (0: none); ``depth``
    rounds widths.
    """
    x = net.conv(x, depth(32 * width), 3, 2, "same", fused=BN, name="stem")
    reached, rate, index = 2, 1, 0
    taps: dict[int, str] = {}
    for expansion, channels, repeats, stride in STAGES_V2:
        for repeat in range(repeats):
            index += 1
            wanted = stride if repeat == 0 else 1
            step, dilation = wanted, rate
            if wanted == 2 and dilate_after and reached >= dilate_after:
                step, rate = 1, 2 * rate
            net.prefix = f"block{index}."
            y, inputs = x, net.shape(x)[1]
            if expansion != 1:
                y = net.conv(y, inputs * expansion, 1, fused=BN, name="expand")
            if step == 2:
                taps[reached] = y
                reached *= 2
            y = net.depthwise(y, 3, step, "same", d=dilation, fused=BN, name="depthwise")
            y = net.conv(y, depth(channels * width), 1, fused="bn", name="project")
            x = net.add(x, y) if wanted == 1 and net.shape(y)[1] == inputs else y
            if outputs is not None:
                outputs[index] = x
    net.prefix = ""
    if last:
        x = net.conv(x, last, 1, fused=BN, name="last")
    taps[reached] = x
    return x, taps


def mobilenet_v1(net: Builder, N: int, *, width: float, pixels: int) -> str:
    x = net.input("x", (N, 3, pixels, pixels))
    x = features(net, x, width)[-1]
    x = net.global_pool(x)
    x = net.linear(net.flatten(x), 1001, name="classifier")
    return net.op("softmax", x, axis=1)


def mobilenet_v2(net: Builder, N: int, *, width: float) -> str:
    """PaddleClas's rounding: widths are cut to integers, the last convolution only grows."""
    x = net.input("x", (N, 3, 224, 224))
    x, _ = features_v2(net, x, width, last=int(1280 * max(1.0, width)), depth=int)
    return net.linear(net.flatten(net.global_pool(x)), 1000, name="classifier")


def _name(width: float, pixels: int) -> str:
    return "mobilenet_v1" if (width, pixels) == (1.0, 224) else f"mobilenet_v1_{width}_{pixels}"


NETWORKS = {
    _name(width, pixels): Entry(
        partial(mobilenet_v1, width=width, pixels=pixels),
        task="image classification (ImageNet)",
        source="Howard et al. 2017 (arXiv:1704.04861) table 1; 1001 classes, SAME padding as in TF-slim's checkpoints",
        licence="facts from the paper",
    )
    for width in (1.0, 0.75, 0.5, 0.25)
    for pixels in (224, 192, 160, 128)
}
NETWORKS |= {
    f"mobilenet_v2_x{width}": Entry(
        partial(mobilenet_v2, width=width),
        task="image classification (ImageNet)",
        source="Sandler et al. 2018 (arXiv:1801.04381) table 2 with PaddleClas's rounding of widths",
        licence="facts from the paper and the published definition",
    )
    for width in (0.25, 0.5, 0.75, 1.5, 2.0)
}
