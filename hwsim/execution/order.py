"""The order of K as the machine's own schedule walks it: what is computed is what is costed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.errors import HwsimError
from hwsim.network.graph import Network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwsim.machine.accelerator import Accelerator

Order = tuple[tuple[int, int], ...]


def schedule_orders(
    net: Network, acc: Accelerator, precision: str | Mapping[str, str] | None
) -> tuple[dict[str, Order], str]:
    """Return, by layer id, the chains of k of every matrix product that ``acc``'s schedule of ``net`` multiplies.

    ``net`` is bound. The second value is a note, empty unless the network has no schedule there (it does not fit, say):
    then no order is returned and products are walked as one window would.
    """
    from hwsim.schedule.order import k_chains
    from hwsim.simulation import simulate

    try:
        result = simulate(net, acc, precision=precision)
    except HwsimError as error:
        return {}, f"no schedule to follow ({error}): k is walked as in one window"
    found: dict[str, Order] = {}
    known: dict[int, Order] = {}
    for number, kernel in enumerate(result.plan.kernels):
        if kernel.kind != "matmul" or kernel.repeat > 1:
            continue
        pattern = result.schedule.patterns[number]
        if pattern not in known:
            known[pattern] = tuple(k_chains(result.schedule, number))
        if known[pattern]:
            found.setdefault(kernel.layers[0], known[pattern])
    return found, ""
