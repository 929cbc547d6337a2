"""What a processor's core draws for being busy: clock tree, fetch, decode, reordering; its work is counted besides."""

from __future__ import annotations

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.power.span import Span


def core_power_w(acc: Accelerator) -> Span | None:
    """Return the power of one busy core beyond what the machine draws at rest; None where its file does not allow one.

    The part of (busy - idle) power, busy being the design power where no other is known, that does not follow what is
    counted (multiply-accumulates, bytes), over the cores.
    """
    power = acc.power
    busy = power.busy_w if power.busy_w is not None else power.tdp_w
    if busy is None or power.idle_w is None:
        return None
    share = load_constants("power").table["core_share"]
    return Span(share.value, share.low, share.high).scaled(max(0.0, busy - power.idle_w) / acc.chip.cores)
