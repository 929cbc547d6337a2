"""What kind of product a GPU is asked for: the pipe and instruction that multiply it, and widths of its operands."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import HwsimError, near
from hwsim.schedule.gpu_tiles import Tiles, tiles_for
from hwsim.schedule.gpu_view import GpuView

BITS = {
    "fp32": 32, "tf32": 32, "fp16": 16, "bf16": 16, "int8": 8, "fp8": 8, "e4m3": 8, "e5m2": 8, "int4": 4, "fp4": 4,
    "e2m1": 4, "nvfp4": 4.5, "mxfp4": 4.25, "mxfp8": 8.25, "int32": 32,
}  # fmt: skip

# Names that stand for a format in a library, and the format they multiply.
FORMS = {"fp8": "e4m3", "fp4": "e2m1", "nvfp4": "e2m1", "mxfp4": "e2m1", "mxfp8": "e4m3"}
BLOCK_SCALED = ("nvfp4", "mxfp4", "mxfp8")
BULK = ("wgmma", "tcgen05")  # kernels fed by bulk copies (TMA), with a warp of their own that issues them

# Into how many parts libraries split K: CUTLASS's int8 and block-scaled kernels do not, weight-only ones hardly; sparse
# ones where a search is made (cusparseLtMatmulSearch tries SPLIT_K), not by default.
MOST_SPLITS = 32
WIDENED_SPLITS = 2


@dataclass(frozen=True, slots=True)
class GemmKind:
    """What is multiplied: the pipe, its rate in multiply-accumulates per clock of an SM, and bits per element.

    ``a_bits`` and ``b_bits`` are widths in memory (block scales included); ``compute_bits`` the width in which B is
    multiplied (weights narrower than that are widened by CUDA cores on the way); ``sparse`` says that B (the weights) is
    2:4 compressed; ``form`` names the number format the products are computed in ("": one of ``compute_bits``);
    ``layout`` is how B is stored: "tn" n x k, as a linear layer's weights, "nn" k x n; ``kernels`` which generation
    of a library's; ``scaled`` says that blocks of elements have scales of their own.
    """

    pipe: str
    instruction: str
    rate: float
    a_bits: float
    b_bits: float
    c_bits: float
    compute_bits: float
    sparse: bool = False
    form: str = ""
    layout: str = "tn"
    kernels: str = "current"
    scaled: bool = False
    most_splits: int = MOST_SPLITS

    @property
    def bulk(self) -> bool:
        """Whether the kernel is fed by bulk copies."""
        return self.instruction in BULK

    @property
    def widens(self) -> bool:
        """Whether weights are stored narrower than they are multiplied."""
        return self.b_bits < self.compute_bits

    @property
    def marlin(self) -> bool:
        """Whether weights are 2:4 compressed and narrow: Sparse-Marlin, whose CTAs share out stripes of K at any tile."""
        return self.sparse and self.widens

    @property
    def parts(self) -> int:
        """Into how many parts K may be split: by default sparse kernels of full width do not split it."""
        return 1 if self.sparse and not self.widens and self.kernels == "first" else self.most_splits

    def tiles(self, view: GpuView) -> Tiles:
        """Return the tiles of such kernels that fit a GPU."""
        held = (
            self.compute_bits * 0.5 + 1 if self.sparse else self.compute_bits
        )  # half of B, and two index bits in four
        return tiles_for(
            view,
            self.instruction,
            round(self.a_bits),
            round(held),
            self.layout,
            self.kernels,
            self.sparse and not self.marlin,
        )


def gemm_kind(
    view: GpuView,
    activations: str,
    weights: str = "",
    output: str = "",
    sparsity: str = "dense",
    *,
    layout: str = "tn",
    pipe: str = "",
    kernels: str = "current",
) -> GemmKind:
    """Return how ``view`` multiplies activations by weights of the formats named.

    ``output`` defaults to 16 bits (32 for fp32 and tf32); ``pipe`` "simt" asks for CUDA cores where Tensor Cores could do
    it (int8 by dp4a); ``kernels`` "first" for those of the libraries an architecture started with. Raises HwsimError for a
    format or sparsity the GPU lacks.
    """
    weights = weights or activations
    for name in (activations, weights, output or activations):
        if name not in BITS:
            raise HwsimError(f"{view.name}: no product of format '{name[:32]}'{near(name[:32], BITS)}")
    if pipe not in ("", "tensor", "simt"):
        raise HwsimError(f"pipe '{pipe[:32]}' is neither tensor nor simt")
    names = (activations, FORMS.get(activations, activations))
    tensor = pipe != "simt" and any(name in view.tensor_macs for name in names)
    rates = view.tensor_macs if tensor else view.simt_macs
    computed = next((name for name in names if name in rates), "")
    unscaled = activations in BLOCK_SCALED and "e2m1" not in view.tensor_macs  # they came with 4-bit floats
    if not computed or unscaled or (pipe == "tensor" and not tensor):
        have = ", ".join(sorted({*view.tensor_macs, *view.simt_macs}))
        raise HwsimError(f"{view.name} multiplies no {activations} (it has {have})")
    if sparsity not in ("dense", "2:4"):
        raise HwsimError(f"sparsity '{sparsity[:32]}' is neither dense nor 2:4")
    sparse = sparsity == "2:4"
    if sparse and not (tensor and view.sparse):
        raise HwsimError(f"{view.name} has no 2:4 sparse {activations} instructions")
    bits = BITS[activations]
    scaled = activations in BLOCK_SCALED
    splits = MOST_SPLITS
    if tensor and BITS[weights] < bits:
        splits = WIDENED_SPLITS
    elif tensor and not sparse and (scaled or activations == "int8"):
        splits = 1
    return GemmKind(
        "tensor" if tensor else "simt",
        view.tensor_kind if tensor else "simt",
        rates[computed],
        bits,
        BITS[weights],
        BITS[output] if output else (32 if bits >= 32 else 16),
        max(bits, BITS[weights]),
        sparse,
        FORMS.get(activations, activations),
        layout,
        kernels,
        scaled,
        splits,
    )
