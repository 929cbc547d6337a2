"""Exchanges among devices that share a network's work: all-reduce, all-gather, and a message from one to another.

Devices on a switch (NVLink, NVSwitch) reach each other directly: up to a few MiB a kernel reads what all others have and
adds it up (one shot), or a share of it, and hands its share round (two shots), as vLLM, SGLang and TensorRT-LLM do; beyond,
and over a shared host bridge, shares go round a ring (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002). Messages
cross a device's port as `hwsim.link.model` says; a handshake is a store seen by the others. Constants:
``accelerators/constants/link.toml``. ``hwsim.timing.reference.collective_steps`` plays the same, device by device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.link.model import Link, transfer_s
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import Constants, load_constants

HOST_CARDS = 8  # most cards behind one host bridge


@dataclass(frozen=True, slots=True)
class Fabric:
    """What joins ``ways`` devices: the port of each, the time until a store is seen by another, and who reaches whom.

    ``direct``: every pair at the full rate of the port (a switch); otherwise all messages pass one bridge or a ring.
    """

    port: Link
    ways: int
    signal_s: float
    direct: bool
    constants: Constants

    @property
    def handshake_s(self) -> float:
        """Seconds until all devices know that all are there; one bridge passes half of the signals at a time."""
        return self.signal_s * (1 if self.direct else max(1.0, self.ways / 2))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange: how, what each device sends, B, and what it takes, s: handshakes and hops, and bytes on the wire."""

    algorithm: str
    sent_bytes: int
    latency_s: float
    wire_s: float

    @property
    def time_s(self) -> float:
        """Seconds from the first device's start to the last one's end, all starting together."""
        return self.latency_s + self.wire_s


def fabric_of(acc: Accelerator, ways: int) -> Fabric:
    """Return what joins ``ways`` devices of ``acc``: its own links, else the host's; the links' own largest system permitting.

    Raises HwsimError when so many devices are not joined.
    """
    constants = load_constants("link", acc.architecture)
    link = acc.interconnect
    reach = link.largest[0] if link.largest else ways
    rate = link.links * link.link_bytes_per_s
    if link.topology != "none" and rate > 0 and ways <= reach:
        port = Link("NVLink" if acc.family == "gpu" else link.topology, rate, rate, 2 * link.hop_latency_s)
        return Fabric(port, ways, link.hop_latency_s, link.topology == "switch" or ways == 2, constants)
    if link.topology == "switch" and ways > reach:
        raise HwsimError(
            f"{acc.id}: its links join {reach} devices, not {ways}; the network between hosts is not modelled"
        )
    host = acc.host
    if not 0 < host.bandwidth_bytes_per_s < float("inf"):
        raise HwsimError(
            f"{acc.id}: nothing joins {ways} devices: its file states neither links nor a host link's rate"
        )
    if ways > HOST_CARDS:
        raise HwsimError(
            f"{acc.id}: one host joins {HOST_CARDS} cards, not {ways}; the network between hosts is not modelled"
        )
    rate = host.bandwidth_bytes_per_s * constants["host_efficiency"]
    signal = host.round_trip_s / 2 or constants["host_signal"]
    return Fabric(Link(host.link or "host link", rate, rate, 2 * signal), ways, signal, False, constants)


def all_reduce(fabric: Fabric, nbytes: int) -> Exchange:
    """Return the fastest all-reduce of ``nbytes`` on every device of ``fabric``."""
    ways = fabric.ways
    if ways == 1 or nbytes <= 0:
        return Exchange("none", 0, 0.0, 0.0)
    found = [_ring(fabric, nbytes)]
    if nbytes <= fabric.constants["shot_limit"]:
        found += [_one_shot(fabric, nbytes), _two_shots(fabric, nbytes)]
    return min(found, key=lambda e: e.time_s)


def all_gather(fabric: Fabric, nbytes: int) -> Exchange:
    """Return the all-gather of tensors of ``nbytes`` in all, of which every device has an equal part."""
    ways = fabric.ways
    if ways == 1 or nbytes <= 0:
        return Exchange("none", 0, 0.0, 0.0)
    sent = -(-nbytes // ways) * (ways - 1)
    latency = 3 * fabric.handshake_s
    return Exchange("gather", sent, latency, transfer_s(_port(fabric, "shot_efficiency"), sent))


def send(fabric: Fabric, nbytes: int) -> Exchange:
    """Return a message of ``nbytes`` from one device to the next."""
    return Exchange("send", nbytes, 2 * fabric.signal_s, transfer_s(_port(fabric, "shot_efficiency"), nbytes))


def _one_shot(fabric: Fabric, nbytes: int) -> Exchange:
    """All are there; everybody reads all that the others have; all have read."""
    sent = nbytes * (fabric.ways - 1)
    return Exchange("one-shot", sent, 3 * fabric.handshake_s, transfer_s(_port(fabric, "shot_efficiency"), sent))


def _two_shots(fabric: Fabric, nbytes: int) -> Exchange:
    """Everybody reads its share of all others and adds it up, then all read the sums."""
    sent = 2 * -(-nbytes // fabric.ways) * (fabric.ways - 1)
    return Exchange("two-shot", sent, 5 * fabric.handshake_s, transfer_s(_port(fabric, "shot_efficiency"), sent))


def _ring(fabric: Fabric, nbytes: int) -> Exchange:
    """Shares go round twice, once gathering the sum, once handing it out; the first pieces of a long message fill the ring."""
    hops = 2 * (fabric.ways - 1)
    sent = hops * -(-nbytes // fabric.ways)
    port = _port(fabric, "ring_efficiency")
    filling = sent / nbytes * min(fabric.constants["ring_fill"], nbytes)
    return Exchange("ring", sent, (hops + 1) * fabric.signal_s, transfer_s(port, sent) + filling / port.rate(False))


def _port(fabric: Fabric, efficiency: str) -> Link:
    """A device's port at the share of its rate an algorithm reaches; a host link's rate is already an effective one."""
    if not fabric.direct:
        return fabric.port
    share = fabric.constants[efficiency]
    return replace(
        fabric.port, to_chip_bytes_per_s=fabric.port.to_chip_bytes_per_s * share,
        to_host_bytes_per_s=fabric.port.to_host_bytes_per_s * share,
    )  # fmt: skip
