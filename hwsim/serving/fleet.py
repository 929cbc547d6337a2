"""Which machines serve which networks: what every batch takes on each, how large batches get, what fits together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.plan.options import RunOptions
from hwsim.plan.precision import check_patterns, parse_precision
from hwsim.serving.arrivals import SECOND_NS
from hwsim.serving.service import Service, Table
from hwsim.serving.setup import Kind
from hwsim.units import parse

MOST_MACHINES = 100_000
_REPEATED = re.compile(r"(\d{1,7})x(?=.)")

Targets = str | PathLike[str] | Accelerator | Iterable[str | PathLike[str] | Accelerator]
Networks = str | PathLike[str] | Network | Mapping[str, float] | Iterable[str | PathLike[str] | Network]


@dataclass(frozen=True, slots=True)
class Model:
    """One network and its share of the requests."""

    net: Network
    share: float


@dataclass(frozen=True, slots=True)
class Group:
    """Equal machines: how many, what each network takes on one, and each one's tables (None where it does not run)."""

    acc: Accelerator
    count: int
    services: tuple[Service, ...]
    tables: tuple[Table | None, ...] = ()

    @property
    def idle_w(self) -> float:
        """Watts of one waiting machine."""
        return max((s.at(1).idle_w for s in self.services if not s.refused), default=0.0)

    @property
    def most_per_s(self) -> float:
        """Samples per second of one machine at its best, by the first network it serves."""
        return max((t.most_per_s for t in self.tables if t is not None), default=0.0)


@dataclass(frozen=True, slots=True)
class Batching:
    """How batches form: the largest, how long the oldest waits for it, and what sizes between simulated ones take.

    ``largest`` None takes, with an objective, the power of two with the highest rate of those of which ``waits`` runs end
    within it.
    """

    largest: int | None = None
    delay_s: float = 0.0
    between: str = "pad"
    waits: float = 2.0


def read_models(networks: Networks | Any, options: RunOptions) -> tuple[Model, ...]:
    """Return the networks and their shares, from one, from text as ``resnet50=70%,bert_base=30%``, a list or a mapping.

    Raises HwsimError for an unknown network or a share that is not positive.
    """
    models = []
    for name, share in _named(networks):
        net = load_network(name)
        check_patterns(net, parse_precision(options.precision))
        if not 1e-9 <= share <= 1e9:
            raise HwsimError(f"the share of {net.name} must be more than nothing, not {share!r}")
        models.append(Model(net, share))
    if not models:
        raise HwsimError("networks: name at least one")
    if len({m.net.name for m in models}) < len(models):
        raise HwsimError("networks: one is named twice; add up its shares")
    total = sum(m.share for m in models)
    return tuple(replace(m, share=m.share / total) for m in models)


def _named(networks: Networks | Any) -> list[tuple[Any, float]]:
    if isinstance(networks, str) and not Path(networks).exists():
        return [_share(part.strip()) for part in networks.split(",")]
    if isinstance(networks, Mapping):
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in networks.values()):
            raise HwsimError("networks: map names to numbers, as {'resnet50': 0.7, 'bert_base': 0.3}")
        return [(name, float(v)) for name, v in networks.items()]
    if isinstance(networks, list | tuple):
        return [(name, 1.0) for name in networks]
    return [(networks, 1.0)]


def _share(text: str) -> tuple[str, float]:
    name, equals, share = text.rpartition("=")
    if not equals or Path(text).exists():
        return text, 1.0
    try:
        return name.strip(), parse(share, "ratio")
    except HwsimError as error:
        raise HwsimError(f"networks: the share of {name[:40]}: {error}") from None


def read_groups(targets: Targets, models: Sequence[Model], options: RunOptions) -> tuple[Group, ...]:
    """Return the machines named, ``4xtpu-v5e,tpu-v4`` being five, and what each network takes on them.

    Raises HwsimError for an unknown machine, and for a network that none of them runs.
    """
    groups = tuple(
        Group(acc, count, tuple(Service(m.net, acc, options) for m in models)) for acc, count in read_machines(targets)
    )
    for i in range(len(models)):
        if all(group.services[i].refused for group in groups):
            raise HwsimError(groups[0].services[i].refused)
    return groups


def read_machines(targets: Targets) -> list[tuple[Accelerator, int]]:
    """Return the machines named and how many of each; raises HwsimError for an unknown one."""
    if isinstance(targets, str) and not Path(targets).exists():
        targets = [part.strip() for part in targets.split(",")]
    named = [targets] if isinstance(targets, str | Accelerator | PathLike) else targets
    if not isinstance(named, Iterable):
        raise HwsimError(f"targets must be names or machines, not {targets!r}")
    counts: dict[str, int] = {}
    found: dict[str, Accelerator] = {}
    for target in named:
        count, acc = _machine(target)
        key = acc.target + acc.digest
        found[key], counts[key] = acc, counts.get(key, 0) + count
    if not found:
        raise HwsimError("targets: name machines with commas between, as 4xtpu-v5e,tpu-v4")
    return [(acc, counts[key]) for key, acc in found.items()]


def _machine(target: object) -> tuple[int, Accelerator]:
    if isinstance(target, Accelerator):
        return 1, target
    if not isinstance(target, str | PathLike):
        raise HwsimError(f"targets must be names or machines, not {target!r}")
    text = str(target)
    repeated = None if Path(text).exists() else _REPEATED.match(text)
    count = 1 if repeated is None else int(repeated.group(1))
    if not 1 <= count <= MOST_MACHINES:
        raise HwsimError(f"targets: {text[:40]!r} must be 1 to {MOST_MACHINES} machines")
    return count, load_accelerator(text if repeated is None else text[repeated.end() :])


def with_tables(groups: Sequence[Group], batching: Batching, objective_s: float | None) -> tuple[Group, ...]:
    """Return the groups with what every batch takes, each network's largest batch chosen where none is given.

    Raises HwsimError when a machine refuses the largest batch asked for.
    """
    return tuple(
        replace(g, tables=tuple(None if s.refused else _table(s, batching, objective_s) for s in g.services))
        for g in groups
    )


def _table(service: Service, batching: Batching, objective_s: float | None) -> Table:
    largest = batching.largest
    if largest is None:
        if not service.batches:
            largest = 1
        elif objective_s is None:
            largest = service.knee()
        else:
            largest = service.in_time(objective_s - batching.delay_s, batching.waits) or 1
    elif largest > 1 and not service.batches:
        raise HwsimError(f"network {service.net.name}: its batch is fixed in the file; --max-batch 1 serves it")
    return service.table(largest, batching.between)


def kinds(groups: Sequence[Group], swap_bytes_per_s: float | None) -> tuple[Kind, ...]:
    """Return the groups as the engines see them.

    Raises HwsimError when networks must take turns in memory and what loading takes is not known.
    """
    return tuple(_kind(group, swap_bytes_per_s) for group in groups)


def _kind(group: Group, swap_bytes_per_s: float | None) -> Kind:
    runs = [i for i, t in enumerate(group.tables) if t is not None]
    weights = [0 if t is None else s.at(1).weight_bytes for s, t in zip(group.services, group.tables, strict=True)]
    room = min(group.services[i].room_bytes(t.largest) for i in runs if (t := group.tables[i]) is not None)
    if group.services[0].alone:
        weights, room = [min(1, w) for w in weights], 1
    swaps = [0] * len(group.tables)
    if sum(weights) > room and len(runs) > 1:
        for i in runs:
            if weights[i] > room:
                name = group.services[i].net.name
                raise HwsimError(
                    f"{group.acc.id}: the weights of {name} ({weights[i] / 2**30:.2f} GiB) do not fit beside the "
                    f"activations of the largest batches ({room / 2**30:.2f} GiB left); a smaller --max-batch would help"
                )
            swaps[i] = max(1, round(group.services[i].swap_s(swap_bytes_per_s) * SECOND_NS))
    return Kind(
        tuple(() if t is None else t.hold_ns for t in group.tables),
        tuple(() if t is None else t.span_ns for t in group.tables),
        tuple(swaps),
        tuple(weights),
        room if len(runs) > 1 else 1 << 62,
    )
