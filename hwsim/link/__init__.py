"""Links between a host and a chip, or between chips: USB, PCIe, NVLink, ICI, Ethernet, one model.

A message is cut into chunks; the sender starts each (a system call, a descriptor), the wire carries one after the other,
and so many may be under way at once. ``hwsim.timing.reference.link_simpy`` plays the same event by event.
"""

from __future__ import annotations

from hwsim.link.model import Link, Message, drain, host_link, transfer_s

__all__ = ["Link", "Message", "drain", "host_link", "transfer_s"]
