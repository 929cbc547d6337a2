"""Kernels a library runs before a quantised product: scales and casts of the activations, each with its launch.

Per-tensor dynamic quantisation (fp8): the maximum is cleared, found, turned into a scale, and applied: four kernels, two
of which read the activations. Block-scaled formats find a scale per block in the kernel that casts, NVFP4 after one that scales
the tensor as a whole. int8 per token does both in one pass. Weight-only products take no kernel: their product widens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_kind import BITS
from hwsim.timing.gpu_memory import VectorWork, vector_times

Floats = npt.NDArray[np.float64]

# kernel: (reads the activations, writes them in the narrow format)
CHAINS: dict[str, tuple[tuple[str, bool, bool], ...]] = {
    "fp8": (("clear", False, False), ("maximum", True, False), ("scale", False, False), ("cast", True, True)),
    "nvfp4": (("scale", False, False), ("cast", True, True)),
    "int8": (("cast", True, True),),
}
CHAINS |= {"e4m3": CHAINS["fp8"], "e5m2": CHAINS["fp8"], "e2m1": CHAINS["nvfp4"]}
CHAINS |= {"mxfp4": CHAINS["int8"], "mxfp8": CHAINS["int8"]}


@dataclass(frozen=True, slots=True)
class CastKernel:
    """One kernel before a product, for every row: its name, seconds, and bytes that cross to DRAM."""

    name: str
    time_s: Floats
    dram_bytes: Floats


def cast_chain(
    view: GpuView,
    activations: str,
    elements: npt.ArrayLike,
    *,
    stored_bits: float = 16.0,
    found: npt.ArrayLike = 0.0,
    launch: str = "graph",
) -> list[CastKernel]:
    """Return the kernels that turn ``elements`` [rows] stored in ``stored_bits`` into the format of a product.

    ``found`` is the share of them in the L2 beforehand; what the first pass read, the second finds there when it fits.
    Formats that need no cast have no kernels.
    """
    count = np.atleast_1d(np.asarray(elements, np.float64))
    wide = count * stored_bits / 8
    narrow = count * BITS.get(activations, 16) / 8
    start = {"graph": view.graph_launch_s, "stream": view.stream_launch_s, "none": 0.0}[launch]
    fits = np.clip(view.l2_bytes / view.l2_segments / np.maximum(wide + narrow, 1.0), 0.0, 1.0)
    fits = np.where(fits < 1, 0.0, 1.0)
    there = np.broadcast_to(np.asarray(found, np.float64), count.shape)
    out: list[CastKernel] = []
    for name, reads, writes in CHAINS.get(activations, ()):
        read = wide * (1 - there) if reads else np.zeros_like(count)
        write = narrow * (1 - fits) if writes else np.zeros_like(count)
        crossing = (wide if reads else 0.0) + (narrow if writes else 0.0)
        work = VectorWork(
            dram_read=read, dram_write=write, l2_bytes=crossing + np.zeros_like(count),
            threads=np.maximum(1.0, count / 8) if reads else 32.0, vectors=wide / 16 if reads else 0.0,
            alu=5 * count if reads else 0.0, phases=1 if reads else 0,
        )  # fmt: skip
        time = vector_times(view, work, start + view.constants["kernel_s"]).time_s
        out.append(CastKernel(name, time, read + write))
        there = np.maximum(there, fits) if reads else there
    return out
