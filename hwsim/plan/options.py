"""The one frozen set of options shared by simulate, execute, verify, serve and sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.errors import HwsimError, near

PHASES = ("prefill", "decode")
SPARSITIES = ("dense", "2:4", "2:4!")
CACHES = ("warm", "cold")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a network: see `simulate` for the meaning of each field."""

    batch: int = 1
    shapes: Mapping[str, int] = field(default_factory=dict)
    phase: str | None = None
    context: int | None = None
    precision: str | Mapping[str, str] | None = None
    sparsity: str | None = None
    stack: str | None = None
    cache: str = "warm"

    def check(self) -> RunOptions:
        """Return self, or raise HwsimError naming the option that is wrong and what would work."""
        _positive("batch", self.batch)
        if not isinstance(self.shapes, Mapping):
            raise HwsimError(f"shapes must map symbols to sizes, as {{'S': 384}}, not {self.shapes!r}")
        for key, value in self.shapes.items():
            if not isinstance(key, str):
                raise HwsimError(f"shapes: {key!r} is no name of a symbol")
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**31:
                raise HwsimError(f"shapes: {key}={value!r} is not a size between 0 and 2^31")
        if self.context is not None:
            _positive("context", self.context)
        _choice("phase", self.phase, PHASES)
        _choice("sparsity", self.sparsity, SPARSITIES)
        _choice("cache", self.cache, CACHES)
        return self


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**24:
        raise HwsimError(f"{name} must be a whole number from 1 to {2**24}, not {value!r}")


def _choice(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise HwsimError(f"unknown {name} {value!r}: one of {', '.join(known)}{near(str(value), known)}")
