"""What turning narrow weights, or a narrow key/value cache, into the format that is multiplied takes on the CUDA cores."""

from __future__ import annotations

from hwsim.formats import FORMATS
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_view import GpuView


def widening_s(kernel: Kernel, choice: GpuChoice, view: GpuView) -> float:
    """Return the seconds all CUDA cores take for it, which run beside the main loop and may hide there.

    Every tile of rows widens the weights anew; a cache is widened once. ``widen_instructions`` lane operations each.
    """
    if kernel.multiply is None:
        return 0.0
    width = FORMATS[kernel.multiply.format].width if kernel.multiply.format in FORMATS else 16
    elements = 0.0
    if kernel.multiply.convert_b and kernel.weights is not None and FORMATS[kernel.weights.format].width < width:
        elements += kernel.weights.elements * -(-choice.m // max(1, choice.tile[0]))
    elements += sum(o.elements for o in kernel.inputs if o.role == "cache" and FORMATS[o.format].width < width)
    lanes = view.simt_macs["fp32"] * view.sms * view.clock_hz
    return elements * view.constants["widen_instructions"] / lanes
