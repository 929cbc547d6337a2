"""Bytes moved, beside the least that could be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwsim.machine import Accelerator
from hwsim.plan.plan import Plan

if TYPE_CHECKING:
    from hwsim.energy.reading import Energy


def traffic(plan: Plan, energy: Energy, machine: Accelerator, used: int) -> list[dict[str, Any]]:
    """Return what every memory moved in one run of ``used`` programs, as ``Result.traffic`` says."""
    kernels = plan.kernels
    operands = [o for k in kernels for o in (*k.inputs, *k.outputs, *((k.weights,) if k.weights else ()))]
    off_chip = sum(round(o.bytes * (1 - o.cached)) for o in operands if o.level == "dram")
    everything = sum(o.bytes for o in operands)
    made = {o.tensor for k in kernels for o in k.outputs}
    read = {o.tensor for k in kernels for o in k.inputs}
    ends = {o.tensor: o.bytes for k in kernels for o in k.inputs if o.tensor not in made}
    ends |= {o.tensor: o.bytes for k in kernels for o in k.outputs if o.tensor not in read}
    network = plan.weight_bytes + sum(ends.values())
    rows = []
    for column, memory in enumerate(energy.memories):
        level = machine.memory.get(memory)
        least = off_chip if level is not None and level.is_dram else everything
        moved = [float(table[:, column].sum()) * used for table in (energy.read_bytes, energy.written_bytes)]
        ratio = sum(moved) / (least * used) if least else 0.0
        rows.append(
            {
                "memory": memory, "read_bytes": int(moved[0]), "written_bytes": int(moved[1]),
                "compulsory_bytes": least * used, "ratio": ratio, "network_bytes": network * used,
            }
        )  # fmt: skip
    return rows
