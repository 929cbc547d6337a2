"""How several devices share a network's work: the batch (data parallel), every product (tensor parallel), or both."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwsim.errors import HwsimError, near

KINDS = ("data", "tensor")
_PART = re.compile(r"(?P<kind>[a-z]{1,16})(?:=(?P<ways>\d{1,6}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Layout:
    """``data`` groups of ``tensor`` devices: groups share the batch, the devices of a group every product."""

    data: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """Devices in all."""
        return self.data * self.tensor

    def __str__(self) -> str:
        return ",".join(f"{k}={n}" for k, n in (("data", self.data), ("tensor", self.tensor)) if n > 1) or "data"


def check_parallel(text: str | None) -> None:
    """Raise HwsimError unless ``text`` says how devices share work (None: left to the simulation)."""
    if text is not None:
        _parts(text)


def layout_of(text: str | None, devices: int, machine: str = "") -> Layout:
    """Return the layout of ``devices`` that ``text`` asks for: ``data``, ``tensor``, ``tensor=4``, ``tensor=4,data=2``.

    What is not said is data parallel. Raises HwsimError when the parts do not make up the devices.
    """
    if text is None:
        return Layout(devices, 1)
    parts = _parts(text)
    named = {kind: ways for kind, ways in parts.items() if ways}
    rest = devices
    for kind, ways in named.items():
        if rest % ways:
            raise HwsimError(f"{machine or 'target'} has {devices} devices: {kind}={ways} does not divide them")
        rest //= ways
    open_kinds = [kind for kind, ways in parts.items() if not ways] or [k for k in ("data",) if k not in named]
    if len(open_kinds) > 1 or (not open_kinds and rest > 1):
        raise HwsimError(f"{machine or 'target'} has {devices} devices: {text} does not say what each of them does")
    for kind in open_kinds:
        named[kind] = rest
    return Layout(named.get("data", 1), named.get("tensor", 1))


def _parts(text: str) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None or match["kind"] not in KINDS or match["ways"] == "0":
            word = part.strip().partition("=")[0][:32]
            raise HwsimError(
                f"parallel {text[:48]!r}: write {', '.join(KINDS)}, or with numbers as tensor=4,data=2{near(word, KINDS)}"
            )
        if match["kind"] in out:
            raise HwsimError(f"parallel {text[:48]!r}: {match['kind']} is said twice")
        out[match["kind"]] = int(match["ways"] or 0)
    return out
