"""Time of a DLA, the fixed-function engine of a Jetson: cycles of its array, bytes it moves, layer by layer and image by image.

The array multiplies ``channels`` input channels for ``kernels`` output channels at ``positions`` output positions in a clock.
A layer takes the longer of computing and moving its data (a small part of the shorter is exposed) and a fixed set-up; a batch
is the same work as often, so it gains nothing. What fits the engine's SRAM stays there between layers. The array is NVDLA's
(nvdla.org, hardware architecture); docs/dla.md has what is fitted and how far off it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.machine.gpu import gpu_of

Floats = npt.NDArray[np.float64]
IMAGE_CHANNELS = 4  # of a first layer: images have at most so many, and a row of a kernel is taken at once
INDEX_BITS = 2  # of a kept value among four


@dataclass(frozen=True)
class DlaView:
    """One engine of a machine in one mode: clock, array by format, SRAM, the DRAM bandwidth it reaches, constants."""

    name: str
    engines: int
    generation: str
    clock_hz: float
    channels: int
    positions: int
    kernels: Mapping[str, int]
    sparse: bool
    sram_bytes: int
    bytes_per_s: float
    dram_bytes_per_s: float
    efficiency: float
    exposed: float
    layer_s: float
    handover_s: float
    elements_per_clk: float
    shared: float

    def macs_per_s(self, number_format: str) -> float:
        """Peak multiply-accumulates per second of one engine."""
        return self.channels * self.kernels.get(number_format, 0) * self.positions * self.clock_hz


def dla_view(acc: Accelerator) -> DlaView | None:
    """Return an engine of ``acc``, None when it has no DLA; raises HwsimError when it is no GPU."""
    dla = gpu_of(acc).dla
    if not dla.count:
        return None
    c = load_constants("dla", dla.generation)
    dram = acc.dram.bandwidth_bytes_per_s
    return DlaView(
        acc.id, dla.count, dla.generation, dla.clock_hz, dla.channels, dla.positions,
        {name: dla.kernels(name) for name in dla.rates}, dla.sparsity, dla.sram_bytes, c["bandwidth"] * dram, dram,
        c["efficiency"], c["exposed"], c["layer"], c["handover"], c["elements"], c["shared"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DlaWork:
    """Layers, one value each (arrays of equal length): products per image, and bytes of one image that leave the engine.

    ``positions`` are output positions, ``taps`` kernel positions, ``row`` kernel columns; ``inputs`` and ``outputs``
    channels of one of ``groups``; ``kernels`` output channels the array computes at once (by the layer's format);
    ``elements`` of layers without products; ``sparse`` whether 2:4 weights are skipped.
    """

    images: Floats
    positions: Floats
    taps: Floats
    row: Floats
    inputs: Floats
    outputs: Floats
    groups: Floats
    kernels: Floats
    elements: Floats
    read_bytes: Floats
    write_bytes: Floats
    weight_bytes: Floats
    sparse: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> DlaWork:
        """Return the work of layers given one by one."""
        columns = {
            name: np.array([row[name] for row in rows], bool if name == "sparse" else np.float64)
            for name in cls.__slots__
        }
        return cls(**columns)


@dataclass(frozen=True, slots=True)
class DlaTimes:
    """Seconds of each layer over all its images: set-up, and the rest; and what of it is computing or moving data."""

    layer_s: Floats
    body_s: Floats
    compute_s: Floats
    memory_s: Floats
    cycles: Floats


def array_cycles(view: DlaView, work: DlaWork) -> Floats:
    """Return the clocks of the array for one image of each layer, 0 for layers without products.

    Groups narrower than the array share a pass as far as their channels fit; a first layer's few channels are taken
    together with a row of the kernel. 2:4 weights of more channels than the array has halve the clocks.
    """
    steps = np.ceil(work.positions / view.positions)
    image = (work.groups == 1) & (work.inputs <= IMAGE_CHANNELS)
    depth = np.where(image, work.inputs * work.row, work.inputs)
    taps = np.where(image, work.taps / np.maximum(1, work.row), work.taps)
    together = np.where(work.groups > 1, np.clip(view.channels // np.maximum(1, work.inputs), 1, work.groups), 1)
    passes = np.ceil(work.groups / together)
    kernels = np.ceil(together * work.outputs / np.maximum(1, work.kernels))
    cycles = steps * taps * passes * np.ceil(depth / view.channels) * kernels
    skips = work.sparse & (work.inputs > view.channels) & view.sparse
    return np.where(work.kernels > 0, np.where(skips, cycles / 2, cycles), 0.0)


def dla_times(view: DlaView, work: DlaWork, slowdown: float = 1.0) -> DlaTimes:
    """Return the time of every layer; ``slowdown`` stretches its memory traffic where others use the DRAM too."""
    cycles = array_cycles(view, work)
    compute = cycles / (view.efficiency * view.clock_hz) + work.elements / (view.elements_per_clk * view.clock_hz)
    memory = (work.read_bytes + work.write_bytes + work.weight_bytes) / view.bytes_per_s * slowdown
    body = np.maximum(compute, memory) + view.exposed * np.minimum(compute, memory)
    return DlaTimes(
        work.images * view.layer_s,
        work.images * body,
        work.images * compute,
        work.images * memory,
        work.images * cycles,
    )
