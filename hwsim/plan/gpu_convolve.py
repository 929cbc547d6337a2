"""The kernels a GPU library has for a convolution on the CUDA cores: implicit products, minimal filtering in one kernel or four.

Shapes of the grids are those of cuDNN's kernels, read off 24,662 recorded launches of five GPUs (studies/gpu_conv): an
implicit product has 128 positions by 32, 64 or 128 filters a CTA and never splits K; a fused minimal-filtering kernel has 32
filters by 32 squares of 2 x 2 results a CTA; in kernels of its own, minimal filtering multiplies 36 planes whose rows are
squares of 4 x 4 results, images rounded up to 16.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hwsim.network.opdefs import ConvGeometry, Product
from hwsim.plan.gpu_job import Job
from hwsim.schedule.gpu_choice import Transform
from hwsim.schedule.gpu_view import GpuView

FUSED_TILE = 128  # rows and columns of a fused CTA's sixteen products of 32 x 32, seen as one product
FUSED_EACH = 32  # filters of a CTA, and squares of 2 x 2 results
SQUARE_PRODUCTS = 16  # products of a square of 2 x 2 results, with 16 transformed values of a filter
# Squares of a CTA: images x rows x columns. Libraries of an architecture compile some arrangements and take the best.
ARRANGEMENTS = {
    "pascal": ((1, 4, 8), (2, 2, 8), (2, 4, 4), (4, 1, 8), (4, 2, 4), (4, 4, 2)),
    "maxwell": ((1, 4, 8), (2, 2, 8), (2, 4, 4), (4, 1, 8), (4, 2, 4), (4, 4, 2)),
    "volta": ((1, 4, 8),),
    "turing": ((1, 4, 8),),
}
DEFAULT_ARRANGEMENTS = ((1, 4, 8), (4, 4, 2))
PLANES = 36  # of 4 x 4 results: transformed values of a filter
PLANE_IMAGES = 16  # to which the planes of cuDNN round images up
SECTOR = 32  # bytes of the smallest piece memory is written in


def simt_convolutions(product: Product, base: Job, view: GpuView, prepared: bool) -> list[Job]:
    """Return the candidates of a convolution beside its implicit product ``base``.

    ``prepared``: its filters were transformed before the run.
    """
    conv = product.conv
    if conv is None or base.kind is None or not filters_minimally(product):
        return []
    out = [_fused(product, conv, base, view, prepared)]
    if base.kind.a_bits >= 32:  # the coefficients of 4 x 4 squares lose too much in half precision
        out.append(_planes(product, conv, base, view, prepared))
    return out


def implicit_setup(view: GpuView, depth: int, filter_bytes: float, layout: str) -> tuple[Transform, ...]:
    """What a library that is called for one convolution starts before its implicit product.

    A kernel computes the offsets of all ``depth`` inputs of a result; interleaved filters are brought into their order.
    """
    offsets = Transform(0.0, 4.0 * depth, 4.0 * depth)
    if layout != "interleaved":
        return (offsets,)
    # Reordered values are as scattered as those of planes.
    return offsets, _transform(view, filter_bytes, filter_bytes, view.constants["winograd_planes"])


def filters_minimally(product: Product) -> bool:
    """Whether minimal filtering applies: an undilated 3 x 3 convolution of stride 1 in one group."""
    conv = product.conv
    if conv is None or conv.transposed or product.batch > 1 or conv.kernel != (3, 3):
        return False
    return conv.stride == (1, 1) and conv.dilation == (1, 1)


def fused_ctas(conv: ConvGeometry, architecture: str) -> int:
    """CTAs a fused minimal-filtering kernel needs for the positions of 32 filters, in its best arrangement of squares."""
    rows, columns = (-(-size // 2) for size in conv.out_spatial)
    return min(
        -(-conv.images // images) * -(-rows // high) * -(-columns // wide)
        for images, high, wide in ARRANGEMENTS.get(architecture, DEFAULT_ARRANGEMENTS)
    )


def _fused(product: Product, conv: ConvGeometry, base: Job, view: GpuView, prepared: bool) -> Job:
    """F(2 x 2, 3 x 3) of Lavin and Gray (2016) in one kernel, after one that transforms the filters where they are not ready.

    A CTA's 16 products of 32 squares by 32 filters are one of 128 x 128: rows and columns here count four of each.
    """
    assert base.kind is not None
    c = view.constants
    channels, filters = conv.in_channels, conv.out_channels
    element = base.kind.a_bits / 8
    m, n = FUSED_TILE * fused_ctas(conv, view.architecture), FUSED_TILE * -(-filters // FUSED_EACH)
    weights = SQUARE_PRODUCTS * channels * filters * element
    squares = conv.images * math.prod(-(-size // 2) for size in conv.out_spatial)
    results = max(1, product.c_elements)
    kind = replace(
        base.kind, layout="fused", most_splits=1, rate=_fused_rate(base, view),
        # Each channel brings 16 transformed values of every filter, not the four its columns would have.
        b_bits=base.kind.b_bits * SQUARE_PRODUCTS * FUSED_EACH / FUSED_TILE,
        c_bits=math.ceil(32 * base.kind.c_bits * results / (m * n)) / 32,
    )  # fmt: skip
    transforms = (
        () if prepared else (_transform(view, 9 * channels * filters * element, weights, c["winograd_filters"]),)
    )
    lanes = base.lane_cycles * results + c["winograd_results"] / 1000 * squares * filters
    return replace(
        base, algorithm="winograd", m=m, n=n, k=channels, batch=1, kind=kind, b_bytes=weights,
        lane_cycles=lanes / (m * n), transforms=transforms, useful=SQUARE_PRODUCTS * squares * filters / (m * n),
    )  # fmt: skip


def _planes(product: Product, conv: ConvGeometry, base: Job, view: GpuView, prepared: bool) -> Job:
    """F(4 x 4, 3 x 3): input, filters and results are transformed in kernels of their own around 36 batched products.

    All three pass through memory in 36 planes.
    """
    assert base.kind is not None
    c = view.constants
    channels, filters = conv.in_channels, conv.out_channels
    element = base.kind.a_bits / 8
    squares = math.prod(-(-size // 4) for size in conv.out_spatial)
    rows = squares * -(-conv.images // PLANE_IMAGES) * PLANE_IMAGES
    inputs, outputs, weights = (PLANES * v * element for v in (rows * channels, rows * filters, channels * filters))
    room = c["resident_share"] * view.l2_bytes
    # Rows of filters that do not end where a sector does are written in pieces.
    whole = channels * element % SECTOR == 0
    transforms = [
        _transform(view, base.a_bytes, inputs, c["winograd_planes"]),
        _transform(view, outputs, product.c_elements * element, 1.0, after=True),
    ]
    if not prepared:
        access = c["winograd_filter_planes"] * (1.0 if whole else c["winograd_pieces"])
        transforms.insert(0, _transform(view, 9 * channels * filters * element, weights, access))
    return replace(
        base, algorithm="winograd_4x4", m=rows, n=filters, k=channels, batch=PLANES, a_bytes=inputs, b_bytes=weights,
        found_a=min(1.0, room / (inputs + outputs)), kept_c=min(1.0, room / (inputs + outputs)),
        kind=replace(base.kind, layout="planes", most_splits=1, rate=_plain(base, view), c_bits=base.kind.a_bits),
        extra_bytes=0.0, transforms=tuple(transforms), useful=squares * conv.images / rows,
    )  # fmt: skip


def _plain(base: Job, view: GpuView) -> float:
    """The rate of a plain product, without the addresses of an implicit one."""
    assert base.kind is not None
    return base.kind.rate / view.constants["implicit_simt"]


def _fused_rate(base: Job, view: GpuView) -> float:
    """Products a clock; where they come packed in pairs, transforms and loads of single elements do not become fewer."""
    assert base.kind is not None
    packed = base.kind.rate > 1.5 * view.simt_macs["fp32"] * view.constants["implicit_simt"]
    return _plain(base, view) * view.constants["winograd_packed" if packed else "winograd_simt"]


def _transform(view: GpuView, read: float, written: float, access: float, after: bool = False) -> Transform:
    """A kernel that streams; what fits the L2 stays there for the next."""
    room = view.constants["resident_share"] * view.l2_bytes
    return Transform((read + written) * (1 - min(1.0, room / (read + written))), read, written, access, after)
