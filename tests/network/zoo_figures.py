"""Counts the zoo tests share: published figures count batch-norms and operators in several ways."""

from __future__ import annotations

from decimal import Decimal

from hwsim.network.graph import Network


def batch_norm_channels(net: Network) -> int:
    """Channels of all fused batch-norms: each has a scale and a shift when separate, one bias when folded."""
    return sum(int(la.shape[1]) * la.fused.count("bn") for la in net.layers)


def figure(net: Network, quantity: str, operators: str = "") -> Decimal:
    """Return ``quantity`` of a bound network.

    macs (of ``operators`` joined by +, or all), params, params_folded (batch-norms as biases), macs_per_weight.
    """
    wanted = set(operators.split("+")) if operators else None
    macs = sum(p.macs for i, ps in net.products.items() if wanted is None or net.by_id[i].op in wanted for p in ps)
    if quantity == "macs":
        return Decimal(macs)
    if quantity == "params":
        return Decimal(net.params)
    if quantity == "params_folded":
        return Decimal(net.params - batch_norm_channels(net))
    if quantity == "macs_per_weight":
        return Decimal(macs) / net.params
    raise ValueError(quantity)


def rounding(text: str) -> Decimal:
    """Half a unit in the last digit a figure was published with: 4.2e6 stands for 4.15e6 to 4.25e6."""
    return Decimal(10) ** int(Decimal(text).as_tuple().exponent) / 2
