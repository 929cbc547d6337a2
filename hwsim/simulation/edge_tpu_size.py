"""From which size on an Edge TPU beats the processor it hangs on."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import parse_precision
from hwsim.simulation.edge_tpu import host_alone_s, host_of, simulate_edge_tpu

_LAYERS = 8
_MOST_CHANNELS = 1024


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The smallest probe that is faster with the Edge TPU: products, parameters, and both times; None where none is."""

    target: str
    macs: int
    parameters: int
    chip_s: float
    host_s: float


def break_even(target: str | Accelerator, *, side: int = 16) -> BreakEven | None:
    """Return from which size on ``target`` beats its host alone, by bisection over the channels of a probe.

    The probe is eight 3x3 convolutions of as many channels in and out on ``side`` x ``side`` pixels, TensorFlow Lite's
    8-bit kernels on one thread against it. None when even 1024 channels are faster on the host.
    """
    acc = load_accelerator(target)
    host = host_of(acc)
    table = parse_precision("int8")
    options = RunOptions(precision="int8").check()

    def times(fours: int) -> tuple[float, float, Network]:
        net = probe(4 * fours, side)
        return simulate_edge_tpu(net, acc, options, None).latency_s, host_alone_s(net.bind(), host, table), net

    low, high = 0, _MOST_CHANNELS // 4  # channels in fours: the host is faster at low, the chip at high
    chip, alone, net = times(high)
    if chip >= alone:
        return None
    best = (chip, alone, net)
    while high - low > 1:
        middle = (low + high) // 2
        chip, alone, net = times(middle)
        if chip < alone:
            high, best = middle, (chip, alone, net)
        else:
            low = middle
    macs = sum(p.macs for each in best[2].bind().products.values() for p in each)
    return BreakEven(acc.target, macs, best[2].bind().weight_bytes // 4, best[0], best[1])


def probe(channels: int, side: int) -> Network:
    """Return the probe of so many channels."""
    net = Builder(f"probe_{channels}x{side}")
    x = net.input("x", (1, channels, side, side))
    for _ in range(_LAYERS):
        x = net.conv(x, channels, 3, 1, "same", bias=True, fused="relu")
    return net.build(x)
