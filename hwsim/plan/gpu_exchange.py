"""Choice of exchanges between GPUs: what an all-reduce or an all-gather of a kernel's tensor takes on the machine's links."""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.link.collective import Fabric, all_gather, all_reduce
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_memory import THREADS

LEAST_BITS = 16  # sums of narrower numbers would overflow: they are exchanged in 16 bits


def exchange_choices(
    kernels: Sequence[Kernel], view: GpuView, fabric: Fabric | None, launch_s: float
) -> list[GpuChoice]:
    """Return the choice of every exchange; raises HwsimError when nothing joins the devices."""
    out = []
    for kernel in kernels:
        if fabric is None:
            raise HwsimError(f"{view.name}: {kernel.name} exchanges with other devices, but there are none")
        made = kernel.outputs[0]
        nbytes = -(-made.elements * max(LEAST_BITS, FORMATS[made.format].width) // 8)
        found = (all_reduce if kernel.op == "all_reduce" else all_gather)(fabric, nbytes)
        read = sum(o.bytes * (1 - o.cached) for o in kernel.inputs)
        written = sum(o.bytes * (1 - o.cached) for o in kernel.outputs)
        # What memory has to move is there while the wire carries: the slower of both sets the pace.
        memory_s = (read + written) / view.stream_bytes_per_s
        times = {"launch": launch_s, "main": max(found.time_s, memory_s)}
        ctas = max(1, min(view.sms, -(-nbytes // (16 * THREADS))))
        out.append(
            GpuChoice(
                found.algorithm, "link", made.format, m=THREADS * ctas, ctas=ctas, k_steps=found.sent_bytes,
                limiter="communication", repeat=kernel.repeat, times=times, dram={"a": read, "c": written},
                l2={"a": float(nbytes)}, k=fabric.ways,
            )
        )  # fmt: skip
    return out
