"""MobileNetV1: widths 1.0, 0.75, 0.5, 0.25 at 224, 192, 160 and 128 pixels.

Howard et al., "MobileNets", arXiv:1704.04861, table 1. Padding is TensorFlow's SAME (the paper's framework), the
classifier has TF-slim's 1001 classes in the quantised Coral files and 1000 in the paper: here 1001, as the published
checkpoints have. The published MAC counts include neither bias nor batch-norm.
"""

from __future__ import annotations

from functools import partial

from build_common import Entry

from hwsim.network.builder import Builder

# output channels and stride of the 13 depthwise-separable blocks (table 1)
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1))
BN = "bn+relu6"


def features(net: Builder, x: str, width: float = 1.0, *, minimum: int = 8, dilate_after: int = 0) -> list[str]:
    """The convolutional part; returns the outputs of the stem and of every block.

    With ``dilate_after`` the blocks behind that output stride keep their resolution and dilate their kernels instead.
    """

    def depth(channels: int) -> int:
        return max(minimum, int(channels * width))

    x = net.conv(x, depth(32), 3, 2, "same", fused=BN, name="conv0")
    found, reached, rate = [x], 2, 1
    for index, (channels, stride) in enumerate(BLOCKS, 1):
        if dilate_after and stride == 2 and reached >= dilate_after:
            step, dilation = 1, rate
            rate *= 2
        else:
            step, dilation = stride, rate
            reached *= stride
        x = net.depthwise(x, 3, step, "same", d=dilation, fused=BN, name=f"block{index}.depthwise")
        x = net.conv(x, depth(channels), 1, fused=BN, name=f"block{index}.pointwise")
        found.append(x)
    return found


def mobilenet_v1(net: Builder, N: int, *, width: float, pixels: int) -> str:
    x = net.input("x", (N, 3, pixels, pixels))
    x = features(net, x, width)[-1]
    x = net.global_pool(x)
    x = net.linear(net.flatten(x), 1001, name="classifier")
    return net.op("softmax", x, axis=1)


def _name(width: float, pixels: int) -> str:
    return "mobilenet_v1" if (width, pixels) == (1.0, 224) else f"mobilenet_v1_{width}_{pixels}"


NETWORKS = {
    _name(width, pixels): Entry(
        partial(mobilenet_v1, width=width, pixels=pixels),
        task="image classification (ImageNet)",
        source="Howard et al. 2017 (arXiv:1704.04861) table 1; 1001 classes and SAME padding as in TF-slim's checkpoints",
        licence="facts from the paper",
    )
    for width in (1.0, 0.75, 0.5, 0.25)
    for pixels in (224, 192, 160, 128)
}
