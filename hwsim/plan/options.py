"""The one frozen set of options shared by simulate, execute, verify, serve and sweep."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from hwsim.errors import HwsimError, near
from hwsim.plan.parallel import check_parallel

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
    parallel: str | None = None
    emulate: bool = False

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
        if self.sparsity is not None and self.sparsity not in SPARSITIES:
            block_sparsity(self.sparsity)
        _choice("cache", self.cache, CACHES)
        check_parallel(self.parallel)
        if not isinstance(self.emulate, bool):
            raise HwsimError(f"emulate must be True or False, not {self.emulate!r}")
        return self


_BLOCKS = re.compile(r"(\d{1,2}(?:\.\d{1,3})?)%(?:x(\d{1,2}))?", re.ASCII)


def block_sparsity(text: str) -> tuple[float, int]:
    """Return the share of zeros and the block of output channels that ``90%x4`` means; the block is 1 unless given.

    Raises HwsimError when the text is no sparsity.
    """
    found = _BLOCKS.fullmatch(text) if isinstance(text, str) else None
    block = int(found.group(2) or 1) if found else 0
    if found is None or block not in (1, 2, 4, 8, 16):
        known = f"one of {', '.join(SPARSITIES)}, or zeros in blocks of 1, 2, 4, 8 or 16 output channels as 90%x4"
        raise HwsimError(f"unknown sparsity {text!r}: {known}{near(str(text), SPARSITIES)}")
    return float(found.group(1)) / 100, block


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 2**24:
        raise HwsimError(f"{name} must be a whole number from 1 to {2**24}, not {value!r}")


def _choice(name: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise HwsimError(f"unknown {name} {value!r}: one of {', '.join(known)}{near(str(value), known)}")
