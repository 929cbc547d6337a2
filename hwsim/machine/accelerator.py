"""The machine as the rest of hwsim sees it: typed sections in base units, and every number with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hwsim.errors import HwsimError, near
from hwsim.formats import get_format
from hwsim.machine.keys import Family, Section, specs
from hwsim.machine.reader import Problems
from hwsim.machine.sections import (
    Chip,
    Dispatch,
    Host,
    Interconnect,
    MemoryLevel,
    Numerics,
    Power,
    Price,
    Published,
    System,
)
from hwsim.machine.systolic import MatrixUnit, VectorUnit
from hwsim.machine.target import Target
from hwsim.machine.values import Scalar, Value

_S = TypeVar("_S")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Accelerator:
    """One machine: what its file says, as typed sections; ``values`` keeps the source of every number.

    ``id`` is the file's stem, ``name`` its title. ``count`` boards of ``system.chips`` chips each are used together.
    A section a file leaves out holds its defaults; a section its family lacks is refused on access.
    """

    id: str
    name: str
    family: str
    vendor: str = ""
    architecture: str = ""
    description: str = ""
    mode: str = ""
    modes: tuple[str, ...] = ()
    link_name: str = ""
    count: int = 1
    notes: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()  # the files it was read from, root first
    chip: Chip
    memory: Mapping[str, MemoryLevel]
    host: Host
    links: Mapping[str, Host]
    interconnect: Interconnect
    dispatch: Dispatch
    power: Power
    price: Price
    numerics: Numerics
    system: System
    published: Published
    sections: Mapping[str, Any]  # the sections of its family alone, by name
    macs_per_s: float = 0.0  # of one core at rate 1
    rates: Mapping[str, float] = field(default_factory=dict)  # of each format, and pair "AxB", multiplied natively
    values: Mapping[str, Value]

    def __repr__(self) -> str:
        return f"<Accelerator {self.target} ({self.family})>"

    def section(self, name: str, cls: type[_S]) -> _S:
        """Return the family's own section ``name`` as ``cls``; raises HwsimError when the machine has none."""
        found = self.sections.get(name)
        if not isinstance(found, cls):
            raise HwsimError(f"{self.id} is of family {self.family} and has no [{name}]")
        return found

    @property
    def matrix_unit(self) -> MatrixUnit:
        """The systolic arrays of one core (family systolic)."""
        return self.section("matrix_unit", MatrixUnit)

    @property
    def vector_unit(self) -> VectorUnit:
        """The vector unit of one core (family systolic)."""
        return self.section("vector_unit", VectorUnit)

    @property
    def chips(self) -> int:
        """Chips that work together, over all boards."""
        return self.system.chips * self.count

    @property
    def programs_per_chip(self) -> int:
        """Programs that run side by side on one chip: one, but for systolic chips whose cores do not share a program."""
        return self.chip.cores if self.family == "systolic" and not self.chip.megacore else 1

    @property
    def programs(self) -> int:
        """Programs that run side by side on all chips."""
        return self.chips * self.programs_per_chip

    @property
    def memory_share(self) -> int:
        """Programs that split one chip's off-chip memory; raises HwsimError when there is none."""
        return self.programs_per_chip if self.dram.scope == "chip" else 1

    @property
    def target(self) -> str:
        """The target text that names this machine again."""
        attached = self.values.get("host.name")
        host = self.host.name if attached is not None and attached.file == "target" else ""
        return str(Target(self.id, self.mode, host, self.link_name, self.count))

    def rate(self, activations: str, weights: str = "") -> float:
        """Return the relative rate of a product of two formats on the fastest unit, 0.0 when it is not native.

        ``weights`` is the format of ``activations`` unless given.
        """
        first = get_format(activations).name
        second = get_format(weights).name if weights else first
        return self.rates.get(first if first == second else f"{first}x{second}", 0.0)

    def peak_ops_per_s(self, number_format: str) -> float:
        """Return the dense peak of one chip, operations (2 per multiply-accumulate) per second; 0.0 when not native."""
        return 2.0 * self.chip.cores * self.macs_per_s * self.rate(number_format)

    @property
    def dram(self) -> MemoryLevel:
        """The outermost memory level that is off-chip; raises HwsimError when there is none."""
        found = next((level for level in self.memory.values() if level.is_dram), None)
        if found is None:
            raise HwsimError(f"{self.id} has no off-chip memory")
        return found

    def describe(self) -> list[dict[str, object]]:
        """Return every number with its unit, source and kind of source, as rows of a table."""
        keys = ("path", "value", "unit", "text", "source", "kind", "file")
        return [{key: getattr(value, key) for key in keys} for value in self.values.values()]

    @property
    def assumed(self) -> tuple[Value, ...]:
        """The numbers nobody published, which every report lists."""
        return tuple(v for v in self.values.values() if v.kind == "assumed")

    @property
    def digest(self) -> str:
        """A hash of every value (not of sources or titles): equal machines give equal answers."""
        import hashlib

        parts = [f"{self.family};{self.count}"]
        parts += [f"{path}={self.values[path].value!r}" for path in sorted(self.values)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a machine is called, apart from its numbers."""

    id: str
    texts: Mapping[str, str]
    notes: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    mode: str = ""
    modes: tuple[str, ...] = ()


def build(family: Family, identity: Identity, values: Mapping[str, Value], problems: Problems) -> Accelerator:
    """Return the accelerator made of ``values``.

    Raises one HwsimError listing the ``problems`` found before and what is missing or contradictory.
    """
    built = {s.name: _build_section(s, values, problems) for s in family.sections}
    problems.raise_any()
    _check(family, built, problems)
    problems.raise_any()
    common = ("chip", "memory", "host", "interconnect", "dispatch", "power", "price", "numerics", "system", "published")
    texts = identity.texts
    macs_per_s, rates = family.throughput(built)
    return Accelerator(
        id=identity.id,
        name=texts.get("name", identity.id),
        family=family.name,
        vendor=texts.get("vendor", ""),
        architecture=texts.get("architecture", ""),
        description=texts.get("description", ""),
        mode=identity.mode,
        modes=identity.modes,
        notes=identity.notes,
        lineage=identity.lineage,
        links=built["link"],
        sections={name: section for name, section in built.items() if name not in (*common, "link")},
        values=dict(values),
        macs_per_s=macs_per_s,
        rates=dict(rates),
        **{name: built[name] for name in common},
    )


def _build_section(section: Section, values: Mapping[str, Value], problems: Problems) -> Any:
    if not section.many:
        given = _of(values, section.name)
        if section.required and not given and not _failed(section.name, problems):
            problems.add(section.name, f"missing table [{section.name}]: {section.doc}")
            return None
        return _record(section, section.name, given, problems)
    levels = list(dict.fromkeys(path.split(".")[1] for path in values if path.startswith(f"{section.name}.")))
    if section.required and not levels and not _failed(section.name, problems):
        problems.add(section.name, f"missing table [{section.name}.<name>]: {section.doc}")
    return {
        name: _record(section, at, _of(values, at), problems, name)
        for name in levels
        for at in (f"{section.name}.{name}",)
    }


def _of(values: Mapping[str, Value], at: str) -> dict[str, Scalar]:
    return {path[len(at) + 1 :]: v.value for path, v in values.items() if path.startswith(f"{at}.")}


def _record(section: Section, at: str, given: Mapping[str, Scalar], problems: Problems, name: str = "") -> Any:
    arguments: dict[str, Any] = {"name": name} if section.cls is MemoryLevel else {}
    missing: list[str] = []
    for toml, spec in specs(section.cls).items():
        if spec.kind == "rates":
            rates = {path[len(toml) + 1 :]: v for path, v in given.items() if path.startswith(f"{toml}.")}
            if rates:
                arguments[spec.attribute] = rates
                continue
        elif toml in given:
            arguments[spec.attribute] = given[toml]
            continue
        if spec.required:
            missing.append(toml)
    told = [] if at in problems.failed else [t for t in missing if not _failed(f"{at}.{t}", problems)]
    if told:
        problems.add(at, f"missing {', '.join(told)}")
    return None if missing else section.cls(**arguments)


def _failed(at: str, problems: Problems) -> bool:
    return any(path == at or path.startswith(f"{at}.") for path in problems.failed)


def _check(family: Family, built: Mapping[str, Any], problems: Problems) -> None:
    """What no single key can get wrong."""
    price: Price = built["price"]
    if (price.hourly_usd is not None or price.purchase_usd is not None) and not price.date:
        problems.add("price.date", "missing: a price must say when it was read")
    power: Power = built["power"]
    if power.idle_w is not None and power.busy_w is not None and power.idle_w > power.busy_w:
        problems.add("power.idle", f"is more than power.busy ({power.idle_w:g} W > {power.busy_w:g} W)")
    system: System = built["system"]
    product = 1
    for extent in system.dims:
        product *= extent
    if system.dims and product != system.chips:
        problems.add("system.dims", f"{'x'.join(map(str, system.dims))} is {product}, not {system.chips} chips")
    if system.hosts > system.chips:
        problems.add("system.hosts", f"more hosts ({system.hosts}) than chips ({system.chips})")
    for path, message in family.check(built):
        problems.add(path, message)


def with_values(acc: Accelerator, family: Family, changes: Iterable[Value]) -> Accelerator:
    """Return ``acc`` with some values replaced; raises HwsimError as ``build`` does."""
    values = {**acc.values, **{v.path: v for v in changes}}
    texts = {"name": acc.name, "vendor": acc.vendor, "architecture": acc.architecture, "description": acc.description}
    identity = Identity(acc.id, texts, acc.notes, acc.lineage, acc.mode, acc.modes)
    return replace(build(family, identity, values, Problems(acc.id)), count=acc.count, link_name=acc.link_name)


def known_mode(identity_id: str, mode: str, modes: Iterable[str]) -> str:
    """Return which of ``modes`` is meant by ``mode``, in whatever case (``MAXN_SUPER`` and ``MODE_15W`` as boards do).

    Raises HwsimError with the near ones otherwise.
    """
    names = list(modes)
    for spelled in (mode, mode.lower(), mode.lower().replace("_", "-").removeprefix("mode-")):
        if spelled in names:
            return spelled
    if not names:
        raise HwsimError(f"{identity_id} has no modes, so ':{mode}' names none")
    raise HwsimError(f"{identity_id} has no mode '{mode}'{near(mode, names) or '; one of ' + ', '.join(names)}")
