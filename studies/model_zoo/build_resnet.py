"""ResNets as TensorFlow has them (v1 with the stride in the first 1x1, v2 pre-activated), and Inception v2.

torchvision's ResNets (v1.5) come from torch.export; the rows measured on Edge TPU, TF-TRT and TensorFlow quantisation
use these instead. v1 and v2 have the biases and padding of tf.keras.applications; Inception v2 is TF-slim's.
"""

from __future__ import annotations

from functools import partial

from build_common import Entry

from hwsim.network.builder import Builder

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BN = "bn+relu"


def resnet_v1(net: Builder, N: int, *, depth: int, pixels: int) -> str:
    """Bottlenecks whose first 1x1 carries the stride; every convolution has a bias and a batch-norm."""
    x = net.conv(net.input("image", (N, 3, pixels, pixels)), 64, 7, 2, 3, bias=True, fused=BN, name="conv1")
    x = net.pool(x, "max", 3, 2, 1)
    for stage, (c, blocks) in enumerate(zip((64, 128, 256, 512), BLOCKS[depth], strict=True), 2):
        for block in range(1, blocks + 1):
            net.prefix = f"conv{stage}_block{block}."
            step = 2 if stage > 2 and block == 1 else 1
            y = net.conv(x, c, 1, step, bias=True, fused=BN, name="1")
            y = net.conv(y, c, 3, 1, 1, bias=True, fused=BN, name="2")
            y = net.conv(y, 4 * c, 1, bias=True, fused="bn", name="3")
            if block == 1:
                x = net.conv(x, 4 * c, 1, step, bias=True, fused="bn", name="0")
            x = net.add(x, y, fused="relu")
    net.prefix = ""
    return net.op("softmax", net.linear(net.flatten(net.global_pool(x)), 1000), axis=1)


def resnet_v2(net: Builder, N: int, *, depth: int, pixels: int) -> str:
    """Pre-activation bottlenecks; the last block of a stage halves the resolution in its 3x3."""

    def activate(x: str, name: str) -> str:
        return net.op("batch_norm", x, width=net.shape(x)[1], fused="relu", name=name)

    x = net.conv(net.input("image", (N, 3, pixels, pixels)), 64, 7, 2, 3, bias=True, name="conv1")
    x = net.pool(x, "max", 3, 2, 1)
    for stage, (c, blocks) in enumerate(zip((64, 128, 256, 512), BLOCKS[depth], strict=True), 2):
        for block in range(1, blocks + 1):
            net.prefix = f"conv{stage}_block{block}."
            step = 2 if stage < 5 and block == blocks else 1
            before = activate(x, "preact")
            if block == 1:
                x = net.conv(before, 4 * c, 1, step, bias=True, name="0")
            elif step == 2:
                x = net.pool(x, "max", 1, 2)
            y = net.conv(before, c, 1, fused=BN, name="1")
            y = net.conv(y, c, 3, step, 1, fused=BN, name="2")
            x = net.add(x, net.conv(y, 4 * c, 1, bias=True, name="3"))
    net.prefix = ""
    x = net.global_pool(activate(x, "post"))
    return net.op("softmax", net.linear(net.flatten(x), 1000), axis=1)


# 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection; without 1x1 and projection the module halves the
# resolution (Ioffe and Szegedy, figure 5).
INCEPTION = {
    "3a": (64, 64, 64, 64, 96, 32), "3b": (64, 64, 96, 64, 96, 64), "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128), "4b": (192, 96, 128, 96, 128, 128), "4c": (160, 128, 160, 128, 160, 96),
    "4d": (96, 128, 192, 160, 192, 96), "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128), "5b": (352, 192, 320, 192, 224, 128),
}  # fmt: skip


def inception_modules(net: Builder, x: str, fused: str) -> str:
    """The ten modules; convolutions have ``fused`` behind them and no bias."""

    def conv(x: str, features: int, k: int = 1, s: int = 1, name: str = "conv") -> str:
        return net.conv(x, features, k, s, "same", fused=fused, name=name)

    for name, (one, reduce3, three, reduce5, five, pool) in INCEPTION.items():
        net.prefix = f"inception{name}."
        stride = 1 if one else 2
        parts = [conv(x, one, name="1x1")] if one else []
        parts.append(conv(conv(x, reduce3, name="3x3_reduce"), three, 3, stride, "3x3"))
        double = conv(conv(x, reduce5, name="double_reduce"), five, 3, name="double_a")
        parts.append(conv(double, five, 3, stride, "double_b"))
        pooled = net.pool(x, "max" if stride == 2 or name == "5b" else "avg", 3, stride, "same")
        parts.append(conv(pooled, pool, name="projection") if pool else pooled)
        x = net.concat(*parts, axis=1)
    net.prefix = ""
    return x


def inception_v2(net: Builder, N: int) -> str:
    """TF-slim's: the first 7x7 is separable with depth multiplier 8; 1001 classes."""
    x = net.depthwise(net.input("image", (N, 3, 224, 224)), 7, 2, "same", multiplier=8, name="conv1.depthwise")
    x = net.pool(net.conv(x, 64, 1, fused=BN, name="conv1.pointwise"), "max", 3, 2, "same")
    x = net.conv(net.conv(x, 64, 1, fused=BN, name="conv2_reduce"), 192, 3, p="same", fused=BN, name="conv2")
    x = inception_modules(net, net.pool(x, "max", 3, 2, "same"), BN)
    return net.op("softmax", net.linear(net.flatten(net.global_pool(x)), 1001), axis=1)


def _entry(body: object, source: str) -> Entry:
    licence = "Apache-2.0 (published definition)"
    return Entry(body, "image classification (ImageNet)", source=source, licence=licence)  # type: ignore[arg-type]


V1 = "He et al. 2015 (arXiv:1512.03385) as in tf.keras.applications: stride in the first 1x1"
V2 = "He et al. 2016 (arXiv:1603.05027) as in tf.keras.applications (stride in each stage's last block)"

NETWORKS = {
    **{f"resnet{d}_v1": _entry(partial(resnet_v1, depth=d, pixels=224), V1) for d in BLOCKS},
    **{f"resnet{d}_v2": _entry(partial(resnet_v2, depth=d, pixels=224), V2) for d in BLOCKS},
    **{
        f"resnet{d}_v2_299": _entry(partial(resnet_v2, depth=d, pixels=299), V2 + ", 299x299 (the Coral model's input)")
        for d in (50, 152)
    },
    "resnet50_v1_299": _entry(partial(resnet_v1, depth=50, pixels=299), V1 + ", 299x299 (the Coral model's input)"),
    "inception_v2": _entry(inception_v2, "Ioffe and Szegedy 2015 (arXiv:1502.03167) as in TF-slim, 1001 classes"),
}
