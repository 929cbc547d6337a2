"""How the GPUs of a target share a network: the batch, or every product where one GPU could not hold a language model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsim.link.collective import Fabric, fabric_of
from hwsim.machine import Accelerator
from hwsim.network.cache import keeps_cache
from hwsim.network.graph import Network
from hwsim.plan.memory import Memory
from hwsim.plan.operands import cache_bytes, weight_bytes
from hwsim.plan.options import RunOptions
from hwsim.plan.parallel import Layout, layout_of
from hwsim.plan.precision import Precision
from hwsim.plan.tensor_parallel import tensor_parallel
from hwsim.simulation import bind_network


@dataclass(frozen=True, slots=True)
class Share:
    """One GPU's work: the network as a group of GPUs runs it, what one of them runs, its batch, who is used, what to say."""

    layout: Layout
    bound: Network
    local: Network
    batch: int
    used: int
    fabric: Fabric | None
    notes: tuple[str, ...]

    def advice(self, memory: Memory) -> str:
        """What else would fit a run that needs ``memory`` of each GPU: every product shared by all of them."""
        ways = self.layout.data
        if self.layout.tensor > 1 or ways == 1 or not keeps_cache(self.bound):
            return ""
        # Each GPU then has a part of the weights, and its heads of the keys and values of all sequences.
        spread = replace(memory, weights=memory.weights // ways, activations=memory.activations * ways)
        return "; it would with --parallel tensor" if spread.fits else ""


def share_of(net: Network, acc: Accelerator, options: RunOptions, table: dict[str, Precision] | None) -> Share:
    """Return what one GPU of ``acc`` does of ``net``; raises HwsimError where it cannot be divided as asked."""
    layout = layout_of(options.parallel, acc.programs, acc.id)
    share = -(-options.batch // layout.data)
    bound = bind_network(net, options, share)
    why = ""
    if options.parallel is None and acc.programs > 1 and keeps_cache(bound):
        capacity = acc.dram.capacity_bytes
        if weight_bytes(bound, table) + cache_bytes(bound, table) // share > capacity:
            layout = Layout(1, acc.programs)
            share = options.batch
            bound = bind_network(net, options, share)
            why = f": one holds {capacity / 2**30:.0f} GiB, too few for the weights and one sequence"
    groups = -(-options.batch // share)
    notes = []
    fabric = fabric_of(acc, layout.tensor) if layout.tensor > 1 else None
    if fabric is not None:
        notes.append(
            f"tensor parallel: {layout.tensor} GPUs share every product and all key/value heads over {fabric.port.name}{why}"
        )
        if not fabric.direct:
            notes.append(
                "cards are taken to reach each other over the host's bridge; where they cannot it is far slower"
            )
    if layout.data > 1:
        idle = f", {layout.data - groups} of them idle" if groups < layout.data else ""
        who = "GPUs" if layout.tensor == 1 else f"groups of {layout.tensor} GPUs"
        notes.append(
            f"data parallel: batch {options.batch} over {layout.data} {who}, {share} each{idle}; each holds all weights"
        )
    local = tensor_parallel(bound, layout.tensor)
    return Share(layout, bound, local, share, groups * layout.tensor, fabric, tuple(notes))
