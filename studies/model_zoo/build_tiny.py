"""MLPerf Tiny (keyword spotting, visual wake words, image classification, anomaly detection, streaming wake word), and
the synthetic layer stacks that were timed on the Edge TPU.

int8 as in the published files; a batch-norm is already folded there, so every layer has a bias.
"""

from __future__ import annotations

from functools import partial

import build_mobilenet
from build_common import Entry

from hwsim.network.builder import Builder


def kws(net: Builder, N: int) -> str:
    """DS-CNN: a 10x4 convolution and four depthwise-separable blocks of 64."""
    x = net.conv(net.input("mfcc", (N, 1, 49, 10)), 64, (10, 4), 2, "same", bias=True, fused="relu", name="conv")
    for index in range(4):
        net.prefix = f"block{index}."
        x = net.depthwise(x, 3, 1, "same", bias=True, fused="relu")
        x = net.conv(x, 64, 1, bias=True, fused="relu", name="pointwise")
    net.prefix = ""
    x = net.linear(net.flatten(net.pool(x, "avg", net.shape(x)[2:])), 12)
    return net.op("softmax", x, axis=1)


def vww(net: Builder, N: int) -> str:
    """MobileNetV1 of width 0.25 at 96x96, two classes."""
    x = build_mobilenet.features(net, net.input("image", (N, 3, 96, 96)), 0.25, folded=True)[-1]
    x = net.linear(net.flatten(net.pool(x, "avg", net.shape(x)[2:])), 2)
    return net.op("softmax", x, axis=1)


def resnet8(net: Builder, N: int) -> str:
    """Three residual stages of 16, 32, 64 on CIFAR-10."""
    x = net.conv(net.input("image", (N, 3, 32, 32)), 16, 3, 1, "same", bias=True, fused="relu", name="conv")
    for index, (c, s) in enumerate(((16, 1), (32, 2), (64, 2))):
        net.prefix = f"stage{index}."
        y = net.conv(x, c, 3, s, "same", bias=True, fused="relu", name="conv1")
        y = net.conv(y, c, 3, 1, "same", bias=True, name="conv2")
        if s == 2:
            x = net.conv(x, c, 1, 2, "same", bias=True, name="shortcut")
        x = net.add(x, y, fused="relu")
    net.prefix = ""
    x = net.linear(net.flatten(net.pool(x, "avg", 8)), 10)
    return net.op("softmax", x, axis=1)


def autoencoder(net: Builder, N: int) -> str:
    """Ten fully connected layers around a bottleneck of 8."""
    x = net.input("spectrum", (N, 640))
    for index, width in enumerate((128, 128, 128, 128, 8, 128, 128, 128, 128)):
        x = net.linear(x, width, fused="relu", name=f"fc{index}")
    return net.linear(x, 640, name="fc9")


def wakeword(net: Builder, N: int) -> str:
    """Streaming wake word: four depthwise-separable one-dimensional convolutions."""
    x = net.input("spectrogram", (N, 40, 30, 1))
    for index, (k, c) in enumerate(((3, 128), (5, 128), (10, 128), (15, 32))):
        net.prefix = f"block{index}."
        x = net.conv(x, net.shape(x)[1], (k, 1), g=net.shape(x)[1], bias=True, name="depthwise")
        x = net.conv(x, c, 1, bias=True, fused="relu", name="pointwise")
    net.prefix = ""
    return net.op("softmax", net.linear(net.flatten(x), 3), axis=1)


def synthetic_dense(net: Builder, N: int, *, width: int, layers: int) -> str:
    """As timed: twelve values in, one out, so that next to nothing but parameters crosses the link."""
    x = net.flatten(net.input("x", (N, 3, 2, 2)))
    for index in range(layers):
        x = net.linear(x, width, fused="relu", name=f"fc{index}")
    return net.linear(x, 1, fused="relu", name="last")


def synthetic_conv(net: Builder, N: int, *, layers: int) -> str:
    """As timed: the input is padded on the chip, and the last convolution leaves one value."""
    x = net.op("pad", net.input("x", (N, 3, 2, 2)), p=(0, 0, 63, 63, 0, 0, 63, 63), name="pad")
    for index in range(layers):
        x = net.conv(x, 32, 7, 1, 3, bias=True, fused="relu", name=f"conv{index}")
    return net.conv(x, 1, 1, 128, bias=True, fused="relu", name="last")


TINY = "Banbury et al. 2021 (arXiv:2106.07597), MLPerf Tiny reference model"
SYNTHETIC = (
    "layer stack behind the Edge TPU timings of iwatake2222/EdgeTPU_Analysis (its generators, read, not copied): {}, "
    "between an input of 2x2x3 and an output of one value"
)
DENSE = ((100, (100, 200, 300, 600, 800, 900)), *((w, (100,)) for w in (150, 200, 250, 300, 350, 400)))


def _tiny(body: object, task: str, what: str) -> Entry:
    return Entry(body, task, source=f"{TINY}: {what}", licence="Apache-2.0 (published model)", dtype="int8")  # type: ignore[arg-type]


def _stack(body: object, what: str) -> Entry:
    source = SYNTHETIC.format(what)
    return Entry(body, "synthetic stack of equal layers", source=source, licence="facts from the table", dtype="uint8")  # type: ignore[arg-type]


NETWORKS = {
    "mlperf_tiny_kws": _tiny(kws, "keyword spotting (12 words)", "DS-CNN on 49x10 MFCC"),
    "mlperf_tiny_vww": _tiny(vww, "visual wake words", "MobileNetV1 0.25 at 96x96"),
    "mlperf_tiny_ic": _tiny(resnet8, "image classification (CIFAR-10)", "ResNet-8"),
    "mlperf_tiny_ad": _tiny(autoencoder, "anomaly detection (ToyADMOS)", "fully connected autoencoder"),
    "mlperf_tiny_sww": _tiny(wakeword, "streaming wake word", "1-D depthwise-separable CNN"),
    **{
        f"synthetic_dense_{width}_L{n}": _stack(
            partial(synthetic_dense, width=width, layers=n), f"{n} dense layers {width}x{width}"
        )
        for width, counts in DENSE
        for n in counts
    },
    **{
        f"synthetic_conv_32x7_L{n}": _stack(
            partial(synthetic_conv, layers=n), f"{n} convolutions 7x7 of 32 channels at 128x128"
        )
        for n in (10, 25, 50, 100, 150, 250, 300)
    },
}
