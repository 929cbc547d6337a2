"""What every builder of this folder shares: a network is declared by a name, a maker and its provenance.

A builder module ``build_FAMILY.py`` exports ``NETWORKS``: name -> `Entry`. `make` turns an entry into a symbolic
network; ``python build_all.py`` writes them all to ``models/``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.network.symbolic import symbolise

MODELS = Path(__file__).resolve().parents[2] / "models"
Body = Callable[..., "tuple[str, ...] | str | None"]


@dataclass(frozen=True)
class Entry:
    """How to build one network.

    ``body(net, **sizes)`` adds inputs and layers to a `Builder` for concrete sizes and returns its output ids (None:
    every tensor nobody reads). ``defaults`` are the symbols with their default values, ``second`` another of each.
    ``source`` names the paper and the public definition and says what is assumed.
    """

    body: Body
    task: str
    source: str
    licence: str
    defaults: Mapping[str, int] = field(default_factory=lambda: {"N": 1})
    second: Mapping[str, int] = field(default_factory=lambda: {"N": 2})
    dtype: str = "fp32"
    notes: Mapping[str, str] = field(default_factory=dict)


def make(name: str, entry: Entry) -> Network:
    """Build ``entry`` at several sizes and return the symbolic network."""
    meta = {"source": entry.source, "task": entry.task, "licence": entry.licence, **entry.notes}

    def concrete(**sizes: int) -> Network:
        net = Builder(name, dtype=entry.dtype, meta=meta)
        outputs = entry.body(net, **sizes)
        if outputs is None:
            return net.build()
        return net.build(*((outputs,) if isinstance(outputs, str) else outputs))

    return symbolise(concrete, entry.defaults, entry.second)


def make_divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor``, at least one, never more than 10 % below ``value`` (MobileNetV2)."""
    new = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return new + divisor if new < 0.9 * value else new
