"""Find machines by name or path: load one, list all, vary one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator, Identity, build, known_mode, with_values
from hwsim.machine.cpu import CPU
from hwsim.machine.edge_tpu import EDGE_TPU
from hwsim.machine.gpu import GPU
from hwsim.machine.keys import Family, KeySpec, specs
from hwsim.machine.reader import rate_name, read_machine
from hwsim.machine.sections import Host
from hwsim.machine.systolic import SYSTOLIC
from hwsim.machine.target import Target, parse_target
from hwsim.machine.values import Value, read_leaf

_ALIASES = re.compile(r"^aliases = \[(.*)\]$", re.MULTILINE)
_TITLE = re.compile(r'^name = "([^"]*)"$', re.MULTILINE)
_MAKERS = re.compile(r"^(nvidia-)?(geforce-|tesla-|quadro-)?")

FAMILIES: Mapping[str, Family] = {family.name: family for family in (SYSTOLIC, GPU, EDGE_TPU, CPU)}


def load_accelerator(target: str | Path | Accelerator) -> Accelerator:
    """Return the machine a target names: ``NAME[:MODE][@HOST[:MODE][/LINK]][*COUNT]``, or the path of a machine file.

    An existing path wins over the grammar; NAME may itself be a path. Raises HwsimError for an unknown name (with near
    matches), an unknown mode or host, or a file with problems (all of them listed).
    """
    if isinstance(target, Accelerator):
        return target
    if isinstance(target, Path) or _is_file(target):
        return _load(Path(target), Target(str(target)))
    parsed = parse_target(target)
    file = _find(parsed.name)
    found = _load(file, parsed)
    if file.parent == accelerators_dir() and file.stem != _plain(parsed.name):
        found = replace(found, notes=(*found.notes, f"{parsed.name} is taken as {found.id}"))
    return found


def aliases() -> dict[str, str]:
    """Return the other names of shipped machines: ``a100`` is one chosen board of several. A name is some file's own."""
    found: dict[str, str] = {}
    for file in sorted(accelerators_dir().glob("*.toml")):
        line = _ALIASES.search(file.read_text(encoding="utf-8"))
        if line:
            found |= dict.fromkeys(re.findall(r'"([^"]*)"', line.group(1)), file.stem)
    return found


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, a null byte
        return False


def _find(name: str) -> Path:
    """The file of a library name, or the path a name spells."""
    if _is_file(name):
        return Path(name)
    library = accelerators_dir()
    known = [file.stem for file in library.glob("*.toml")]
    if name.lower() in known:
        return library / f"{name.lower()}.toml"
    others = aliases()
    plain = _plain(name)
    plain = others.get(plain, plain)
    if plain in known:
        return library / f"{plain}.toml"
    spelled = _spelled().get(_letters(name))
    if spelled is not None:
        return library / f"{spelled}.toml"
    if name.endswith(".toml") or "/" in name:
        raise HwsimError(f"no accelerator file {name!r}")
    raise HwsimError(f"no accelerator {name!r}{near(name, [*known, *others])} ('hwsim list accelerators' lists all)")


def machine_names() -> list[str]:
    """Return every name a target may begin with: those of files, then their other names."""
    return [*sorted(file.stem for file in accelerators_dir().glob("*.toml")), *sorted(aliases())]


def names_machine(text: str) -> bool:
    """Whether a text is the target of a shipped machine or spells a machine file."""
    try:
        name = parse_target(text).name
    except HwsimError:
        return False
    if name.endswith(".toml") or name.lower() in (names := machine_names()) or _plain(name) in names:
        return True
    return _letters(name) in _spelled()


def _plain(name: str) -> str:
    """A name as the library spells it: ``NVIDIA GeForce RTX 3090`` is ``rtx-3090``."""
    return _MAKERS.sub("", re.sub(r"[\s_]+", "-", name.strip().lower()))


def _letters(name: str) -> str:
    """Letters and digits of a name, its maker left out: ``NVIDIA A100 PCIe 40 GB`` and ``a100-pcie-40gb`` have the same."""
    return re.sub(r"[^a-z0-9]", "", _plain(name).replace("+", "plus"))


def _spelled() -> dict[str, str]:
    """Files of shipped machines by the letters of their titles, other names and own names, which win in this order."""
    titles: dict[str, str] = {}
    stems: dict[str, str] = {}
    for file in sorted(accelerators_dir().glob("*.toml")):
        title = _TITLE.search(file.read_text(encoding="utf-8"))
        titles |= {_letters(title.group(1)): file.stem} if title else {}
        stems[_letters(file.stem)] = file.stem
    return titles | {_letters(other): stem for other, stem in aliases().items()} | stems


def _load(file: Path, target: Target) -> Accelerator:
    machine, problems = read_machine(file, FAMILIES, accelerators_dir())
    mode = target.mode or machine.identity.get("default_mode", "")
    values = dict(machine.values)
    if mode:
        if mode not in machine.modes:
            problems.raise_any()
        mode = known_mode(file.stem, mode, machine.modes)
        values |= machine.modes[mode]
    identity = Identity(
        file.stem, machine.identity, tuple(machine.notes), tuple(machine.lineage), mode, tuple(machine.modes)
    )
    if target.host:
        problems.raise_any()
        values = _attach(file.stem, values, target)
    acc = build(machine.family, identity, values, problems)
    return replace(acc, count=target.count, link_name=target.link)


def _attach(name: str, values: dict[str, Value], target: Target) -> dict[str, Value]:
    """The values of machine ``name`` on another host, over another of its links."""
    present = values.get("host.name")
    if present is None or target.host != present.value:
        host = load_accelerator(target.host)  # an unknown host is refused by its name
        if host.family != "cpu":
            raise HwsimError(f"'{target.host}' is of family {host.family}, so it cannot be the host of {name}")
    if target.link:
        links = list(dict.fromkeys(path.split(".")[1] for path in values if path.startswith("link.")))
        if target.link not in links:
            known = f"; one of {', '.join(links)}" if links else "; it has one link"
            raise HwsimError(f"{name} has no link '{target.link}'{near(target.link, links) or known}")
        prefix = f"link.{target.link}."
        chosen = {f"host.{path.removeprefix(prefix)}": v for path, v in values.items() if path.startswith(prefix)}
        values = {path: v for path, v in values.items() if not path.startswith("host.")}
        values |= {path: replace(v, path=path) for path, v in chosen.items()}
    name_spec = specs(Host)["name"]
    return values | {"host.name": read_leaf(name_spec, target.host, "host.name", "target")}


def vary(acc: Accelerator, changes: Mapping[str, object], source: str = "assumed: varied by the user") -> Accelerator:
    """Return ``acc`` with the numbers at some paths replaced, e.g. ``{"matrix_unit.rows": 64}``.

    Values are written as in a file, quantities with their unit (``{"memory.hbm.bandwidth": "1 TB/s"}``). Every
    change is checked like a number in a file. Raises HwsimError for an unknown path or a bad value.
    """
    family = FAMILIES[acc.family]
    found: list[Value] = []
    for path, raw in changes.items():
        spec, canonical = _spec(family, path)
        try:
            found.append(read_leaf(spec, [raw, source], canonical, "changes"))
        except HwsimError as error:
            raise HwsimError(f"{path}: {error}") from None
    return with_values(acc, family, found)


def _spec(family: Family, path: str) -> tuple[KeySpec, str]:
    parts = path.split(".")
    section = family.section(parts[0])
    if section is None:
        raise HwsimError(f"{path}: no such section{near(parts[0], [s.name for s in family.sections])}")
    rest = parts[2:] if section.many else parts[1:]
    table = specs(section.cls)
    spec = table.get(rest[0]) if rest else None
    if spec is None or len(rest) != (2 if spec.kind == "rates" else 1):
        raise HwsimError(f"{path}: no such key{near(rest[0] if rest else '', table)}")
    return spec, ".".join([*parts[:-1], rate_name(rest[1])]) if spec.kind == "rates" else path


def list_accelerators() -> list[dict[str, Any]]:
    """Return one row per machine that ships with hwsim, sorted by name, in base units (B, B/s, op/s, W).

    Peaks, memory, power and price are those of one chip.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(accelerators_dir().glob("*.toml"), key=lambda f: f.stem):
        acc = load_accelerator(file)
        peaks = {f: acc.peak_ops_per_s(f) for f in acc.rates if f in FORMATS and FORMATS[f].width >= 8}
        dram = next((level for level in acc.memory.values() if level.is_dram), None)
        rows.append(
            {
                "accelerator": acc.id,
                "name": acc.name,
                "family": acc.family,
                "vendor": acc.vendor,
                "year": acc.chip.year,
                "chips": acc.chips,
                "cores_per_chip": acc.chip.cores,
                "peak_ops_per_s": max(peaks.values(), default=0.0),
                "peak_format": max(peaks, key=lambda f: peaks[f], default=""),
                "memory_bytes": dram.capacity_bytes if dram else None,
                "memory_bytes_per_s": min(dram.bandwidth_bytes_per_s, dram.read_bytes_per_s) if dram else None,
                "tdp_w": acc.power.tdp_w,
                "usd_per_chip_hour": acc.price.hourly_usd,
                "modes": ", ".join(acc.modes),
            }
        )
    return rows
