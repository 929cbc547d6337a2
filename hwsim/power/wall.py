"""Power at the wall from that of a module: the supply's losses and the board that carries it, as named terms."""

from __future__ import annotations

from hwsim.errors import HwsimError
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.power.span import Span


def carrier_w(acc: Accelerator) -> Span:
    """Return the power of the developer kit a Jetson module sits on. Raises HwsimError for other machines."""
    if not acc.id.startswith("jetson-"):
        raise HwsimError(
            f"power at the wall is only known of Jetson developer kits: what a server around {acc.id} draws is not"
        )
    bound = load_constants("power").table["carrier_agx" if acc.id.startswith("jetson-agx-") else "carrier_nx"]
    return Span(bound.value, bound.low, bound.high)


def wall_power_w(acc: Accelerator, module_w: Span) -> Span:
    """Return the power at the wall of a Jetson developer kit whose module draws ``module_w``.

    The wall adaptor and the module's regulators take their share of every watt; the carrier its own. The interval has
    every term at the same end. Raises HwsimError for other machines.
    """
    carrier = carrier_w(acc)
    loss = load_constants("power").table["supply"]
    return Span(
        carrier.value + loss.value * module_w.value,
        carrier.low + loss.low * module_w.low,
        carrier.high + loss.high * module_w.high,
    )
