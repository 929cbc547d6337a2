"""Dense prediction: DeepLabv3 on MobileNetV2, U-Nets in two and three dimensions, FCN-ResNet18, PoseNet."""

from __future__ import annotations

from functools import partial

import build_mobilenet
from build_common import Entry

from hwsim.network.builder import Builder

BN = "bn+relu"


def deeplab_v3_mobilenet_v2(net: Builder, N: int, *, pixels: int = 513) -> str:
    """MobileNetV2 at output stride 16, image pooling and one 1x1 branch, bilinear upsampling, arg max over classes."""
    x = net.input("image", (N, 3, pixels, pixels))
    x, _ = build_mobilenet.features_v2(net, x, dilate_after=16, last=0)
    h, w = net.shape(x)[2:]
    branch = net.conv(x, 256, 1, fused=BN, name="aspp")
    pooled = net.conv(net.global_pool(x), 256, 1, fused=BN, name="image_pooling")
    x = net.concat(net.resize(pooled, (h, w), "bilinear"), branch)
    x = net.conv(net.conv(x, 256, 1, fused=BN, name="projection"), 21, 1, bias=True, name="logits")
    return net.op("arg_max", net.resize(x, (pixels, pixels), "bilinear"), axes=(1,))


def unet(net: Builder, N: int) -> str:
    """The original: unpadded 3x3 convolutions, 572x572 in, 388x388 out; skips are cropped."""

    def double(x: str, c: int) -> str:
        for name in ("a", "b"):
            x = net.conv(x, c, 3, bias=True, fused="relu", name=name)
        return x

    x = net.input("image", (N, 1, 572, 572))
    skips = []
    for c in (64, 128, 256, 512):
        x = double(x, c)
        skips.append(x)
        x = net.pool(x, "max", 2)
    x = double(x, 1024)
    for skip in reversed(skips):
        n, c, h, w = net.shape(x)
        x = net.op("conv_transpose", x, out=(n, c // 2, 2 * h, 2 * w), k=(2, 2), s=(2, 2), bias=True, name="up")
        crop = net.op("slice", skip, out=net.shape(x), name="crop")
        x = double(net.concat(crop, x), c // 2)
    return net.conv(x, 2, 1, bias=True, name="classes")


def unet_brain(net: Builder, N: int, H: int, W: int) -> str:
    """Padded U-Net of 32 to 512 features with batch-norm, three channels in, one mask out."""

    def double(x: str, c: int) -> str:
        return net.conv(net.conv(x, c, 3, p=1, fused=BN, name="a"), c, 3, p=1, fused=BN, name="b")

    x = net.input("image", (N, 3, H, W))
    skips = []
    for c in (32, 64, 128, 256):
        x = double(x, c)
        skips.append(x)
        x = net.pool(x, "max", 2)
    x = double(x, 512)
    for skip in reversed(skips):
        n, c, h, w = net.shape(x)
        x = net.op("conv_transpose", x, out=(n, c // 2, 2 * h, 2 * w), k=(2, 2), s=(2, 2), bias=True, name="up")
        x = double(net.concat(x, skip), c // 2)
    return net.conv(x, 1, 1, bias=True, fused="sigmoid", name="mask")


def unet_mobilenet_v2(net: Builder, N: int) -> str:
    """MobileNetV2 encoder at 128x128, four transposed convolutions with skips, three classes."""
    _, taps = build_mobilenet.features_v2(net, net.input("image", (N, 3, 128, 128)), last=0)
    x = taps[32]
    for stride, c in ((16, 512), (8, 256), (4, 128), (2, 64)):
        x = net.concat(_double_size(net, x, c, BN), taps[stride])
    return _double_size(net, x, 3, "", bias=True)


def _double_size(net: Builder, x: str, c: int, fused: str, *, bias: bool = False) -> str:
    n, _, h, w = net.shape(x)
    out = (n, c, 2 * h, 2 * w)
    attrs = {"k": (3, 3), "s": (2, 2), "p": (0, 0, 1, 1)}
    return net.op("conv_transpose", x, out=out, bias=bias, fused=fused, name="up", **attrs)  # type: ignore[arg-type]


def unet_3d(
    net: Builder, N: int, *, size: tuple[int, int, int], channels: int, classes: int, act: str, bias: bool
) -> str:
    """32 to 320 features, instance norm; ``bias``: in the 3x3x3 convolutions (else in the upsampling and the last)."""

    def block(x: str, c: int, stride: int, name: str) -> str:
        x = net.conv(x, c, 3, stride, 1, bias=bias, name=name)
        return net.op("instance_norm", x, width=c, fused=act, name=f"{name}.norm")

    x = net.input("volume", (N, channels, *size))
    x = block(block(x, 32, 1, "in.a"), 32, 1, "in.b")
    skips = [x]
    for c in (64, 128, 256, 320, 320):
        net.prefix = f"down{len(skips)}."
        x = block(block(x, c, 2, "a"), c, 1, "b")
        skips.append(x)
    for level, c in zip(range(4, -1, -1), (320, 256, 128, 64, 32), strict=True):
        net.prefix = f"up{level}."
        n, _, *extent = net.shape(x)
        out = (n, c, *(2 * v for v in extent))
        x = net.op("conv_transpose", x, out=out, k=(2, 2, 2), s=(2, 2, 2), bias=not bias, name="up")
        x = block(block(net.concat(x, skips[level]), c, 1, "a"), c, 1, "b")
    net.prefix = ""
    return net.conv(x, classes, 1, bias=not bias, name="classes")


def fcn_resnet18(net: Builder, N: int, H: int, W: int) -> str:
    """ResNet-18 at stride 32 and a two-convolution head; 21 classes; the score map is not upsampled."""
    x = net.conv(net.input("image", (N, 3, H, W)), 64, 7, 2, 3, fused=BN, name="conv1")
    x = net.pool(x, "max", 3, 2, 1)
    for stage, c in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            net.prefix = f"layer{stage}.{block}."
            step = 2 if stage > 1 and block == 0 else 1
            y = net.conv(net.conv(x, c, 3, step, 1, fused=BN, name="conv1"), c, 3, 1, 1, fused="bn", name="conv2")
            if net.shape(x)[1] != c:
                x = net.conv(x, c, 1, step, fused="bn", name="downsample")
            x = net.add(y, x, fused="relu")
    net.prefix = ""
    x = net.conv(x, 128, 3, p=1, fused=BN, name="head")
    return net.conv(x, 21, 1, bias=True, name="classes")


def posenet(net: Builder, N: int, *, height: int, width: int, depth: float) -> tuple[str, ...]:
    """MobileNetV1 at output stride 16 and four 1x1 heads: heat maps, offsets, displacements forward and back."""
    x = net.input("image", (N, 3, height, width))
    grown = (N, 3, height + height % 2, width + width % 2)
    if grown[2:] != (height, width):
        x = net.op("pad", x, out=grown)
    x = build_mobilenet.features(net, x, depth, dilate_after=16, cap=512)[-1]
    back, forth = (net.conv(x, 32, 1, bias=True, name=name) for name in ("displacement_back", "displacement_forth"))
    heat = net.conv(x, 17, 1, bias=True, name="heatmaps")
    return heat, net.conv(x, 34, 1, bias=True, name="offsets"), net.concat(forth, back)


def movenet(net: Builder, N: int, *, pixels: int, width: float) -> tuple[str, ...]:
    """MobileNetV2, a pyramid down to stride 4 whose channels shrink, and four heads; ends with the heads' maps."""
    blocks: dict[int, str] = {}
    x, _ = build_mobilenet.features_v2(net, net.input("image", (N, 3, pixels, pixels)), width, outputs=blocks)
    net.prefix = "fpn."
    x = net.conv(x, 64, 1, bias=True, name="lateral")
    for block, lateral, c in ((10, 64, 32), (6, 32, 24), (3, 24, 24)):
        side = net.conv(blocks[block], lateral, 1, bias=True, name="lateral")
        x = net.add(side, net.resize(x, net.shape(side)[2:], "bilinear"))
        x = net.conv(net.depthwise(x, 3, 1, 1, bias=True), c, 1, bias=True, fused="relu", name="pointwise")
    outputs = []
    for name, maps in (("center", 1), ("regression", 34), ("heatmap", 17), ("offset", 34)):
        net.prefix = f"{name}."
        y = net.conv(net.depthwise(x, 3, 1, 1, bias=True), 96, 1, bias=True, fused="relu", name="pointwise")
        fused = "sigmoid" if name in ("center", "heatmap") else ""
        outputs.append(net.conv(y, maps, 1, bias=True, fused=fused, name="maps"))
    return tuple(outputs)


FACTS = "facts from the paper and the published model description"
DEEPLAB = (
    "Chen et al. 2017 (arXiv:1706.05587) on MobileNetV2, layer plan of TensorFlow's deeplabv3_mnv2_pascal at output "
    "stride 16, as in the Coral model (Apache-2.0)"
)
POSENET = (
    "Papandreou et al. 2018 (arXiv:1803.08225) on MobileNetV1 0.75, layer plan of the Coral model (Apache-2.0); "
    "the decoder of key points is left out"
)
SQUARE = {"N": 1, "H": 256, "W": 256}

NETWORKS = {
    "deeplab_v3_mobilenet_v2": Entry(
        deeplab_v3_mobilenet_v2, "semantic segmentation (Pascal VOC)", source=DEEPLAB, licence=FACTS
    ),
    "unet": Entry(
        unet, "medical image segmentation",
        source="Ronneberger et al. 2015 (arXiv:1505.04597) figure 1: one channel, two classes", licence=FACTS,
    ),
    "unet_brain": Entry(
        unet_brain, "medical image segmentation",
        source="Buda et al. 2019 (doi:10.1016/j.compbiomed.2019.05.002), the published brain segmentation U-Net",
        licence="MIT (published model description)", defaults=SQUARE, second={"N": 2, "H": 128, "W": 64},
    ),
    "unet_mobilenet_v2": Entry(
        unet_mobilenet_v2, "semantic segmentation (Oxford pets)",
        source="TensorFlow's image segmentation tutorial (pix2pix upsampling on MobileNetV2), the Coral model's plan; "
        "the encoder's last block is taken after its projection",
        licence="Apache-2.0 (published description)",
    ),
    "unet_3d_brats": Entry(
        partial(unet_3d, size=(224, 224, 160), channels=4, classes=4, act="leaky_relu", bias=True),
        "medical volume segmentation (BraTS 2019)",
        source="Isensee et al. 2018 (arXiv:1809.10486), nnU-Net as MLPerf inference v0.7 to v1.1 used it; widths from "
        "its TensorRT implementation (4 classes from 32 features, five halvings), biases as nnU-Net sets them",
        licence="Apache-2.0 (published description)",
    ),
    "unet_3d": Entry(
        partial(unet_3d, size=(128, 128, 128), channels=1, classes=3, act="relu", bias=False),
        "medical volume segmentation (KiTS19)",
        source="Cicek et al. 2016 (arXiv:1606.06650) as defined by MLPerf (training image_segmentation, inference v2.0 "
        "on): one 128x128x128 window; a case takes many",
        licence="Apache-2.0 (published model description)",
    ),
    "fcn_resnet18": Entry(
        fcn_resnet18, "semantic segmentation",
        source="Long et al. 2015 (arXiv:1411.4038) on ResNet-18 with torchvision's FCN head; 21 classes, stride 32",
        licence=FACTS, defaults={"N": 1, "H": 512, "W": 1024}, second={"N": 2, "H": 320, "W": 512},
    ),
    **{
        f"movenet_{name}": Entry(
            partial(movenet, pixels=pixels, width=width), "human pose estimation",
            source="Votel and Li 2021 (MoveNet model card): MobileNetV2 with a feature pyramid to stride 4; channels "
            "of pyramid and heads from the published TFLite file as described by lee-man/movenet-pytorch; no decoding",
            licence="Apache-2.0 (published model)",
        )
        for name, pixels, width in (("lightning", 192, 1.0), ("thunder", 256, 1.75))
    },
    **{
        f"posenet_0.75_{height}_{width}": Entry(
            partial(posenet, height=height, width=width, depth=0.75), "human pose estimation", source=POSENET,
            licence=FACTS,
        )
        for height, width in ((353, 481), (481, 641))
    },
}  # fmt: skip
