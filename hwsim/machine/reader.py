"""Read one machine file and the files it is based on into a flat table of values, collecting every problem on the way.

``read_machine`` follows ``based_on`` to the root, checks each file against the schema of its family, and overlays the
values from the root to the leaf: a file states only what differs. ``without`` drops what was inherited.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, near
from hwsim.machine.keys import Family, KeySpec, Section, specs
from hwsim.machine.values import Value, read_leaf

MAX_FILE_BYTES = 256 * 1024
MAX_LINE = 1000  # characters; a key of many dotted parts costs the TOML parser quadratic time
MAX_DEPTH = 8
CHIPS = "chips"  # folder of the library with what devices share: bases, no machines
MAX_PROBLEMS = 100  # a hostile file may have a million
LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
MODE = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}")  # modes are often called by their power, e.g. 15w

_IDENTITY = ("name", "family", "vendor", "architecture", "description", "based_on", "default_mode")
_LISTS = ("notes", "without", "aliases")  # aliases are read by library.py, and never inherited


@dataclass(slots=True)
class Machine:
    """A machine as read: identity texts, notes, values by path, and the values each mode replaces."""

    file: Path
    family: Family
    identity: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    modes: dict[str, dict[str, Value]] = field(default_factory=dict)
    lineage: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Problems:
    """Everything wrong with a file, so that a user corrects it once."""

    file: str
    found: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)  # paths present but unusable: not to be reported as missing too

    def add(self, path: str, message: str, file: str = "") -> None:
        """Record one problem at ``path``, of another file of the chain if ``file`` says so."""
        self.failed.add(path)
        where = f"{path}: " if path else ""
        other = f"({file}) " if file and file != self.file else ""
        self.found.append(_one_line(f"{other}{where}{message}"))

    def raise_any(self) -> None:
        """Raise one HwsimError listing all problems, if there are any."""
        if len(self.found) == 1:
            raise HwsimError(f"{self.file}: {self.found[0]}")
        if self.found:
            rest = len(self.found) - MAX_PROBLEMS
            shown = self.found[:MAX_PROBLEMS] + ([f"and {rest} more"] if rest > 0 else [])
            raise HwsimError(f"{len(self.found)} problems in {self.file}: " + "; ".join(shown))


def read_toml(file: Path) -> dict[str, Any]:
    """Return the parsed TOML of ``file``; raises HwsimError when it is unreadable, too large or malformed."""
    label = file_label(file)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise HwsimError(f"{label}: larger than {MAX_FILE_BYTES // 1024} KiB, so it is no machine file")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise HwsimError(f"{label}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise HwsimError(f"{label}: not UTF-8 text, so it is no machine file") from None
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise HwsimError(f"{label}: line {number} is longer than {MAX_LINE} characters, so it is no machine file")
    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise HwsimError(f"{label}: not valid TOML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise HwsimError(f"{label}: not valid TOML: nested too deeply") from None


def read_machine(file: Path, families: Mapping[str, Family], library: Path) -> tuple[Machine, Problems]:
    """Return the machine described by ``file``, inherited values included, and the problems found so far.

    ``library`` is the folder where ``based_on`` looks after the file's own, and then in its ``chips``. Raises
    HwsimError only where reading cannot go on: malformed TOML, an unknown family, a ``based_on`` that leads nowhere or
    in a circle.
    """
    problems = Problems(file_label(file))
    chain = _chain(file, library)
    family = _family(chain, families)
    machine = Machine(file=file, family=family)
    for link, table in reversed(chain):
        _overlay(machine, link, table, problems)
    return machine, problems


def file_label(file: Path) -> str:
    """Return how messages call a file: its folder and name."""
    return _one_line(f"{file.parent.name}/{file.name}" if file.parent.name else file.name)


def _one_line(text: str) -> str:
    """The text with line breaks and control characters spelled out (a quoted TOML key may hold any)."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _chain(file: Path, library: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The file, the one it is based on, and so on to the root."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    seen: list[Path] = []
    current = file
    while True:
        real = current.resolve()
        if real in seen:
            loop = " -> ".join(p.stem for p in [*seen[seen.index(real) :], real])
            raise HwsimError(f"{file_label(file)}: based_on: goes in a circle ({loop})")
        if len(seen) == MAX_DEPTH:
            raise HwsimError(f"{file_label(file)}: based_on: more than {MAX_DEPTH} files deep")
        seen.append(real)
        table = read_toml(current)
        chain.append((current, table))
        base = table.get("based_on")
        if base is None:
            return chain
        current = _base_file(current, base, library)


def _base_file(file: Path, base: object, library: Path) -> Path:
    if not isinstance(base, str) or not LABEL.fullmatch(base):
        raise HwsimError(f'{file_label(file)}: based_on: must be the name of another accelerator file, e.g. "tpu-v3"')
    folders = (file.parent, library, library / CHIPS)
    for folder in folders:
        candidate = folder / f"{base}.toml"
        if candidate.is_file():
            return candidate
    known = [p.stem for folder in folders for p in folder.glob("*.toml")]
    raise HwsimError(f"{file_label(file)}: based_on: no accelerator file {base!r}{near(base, known)}")


def _family(chain: list[tuple[Path, dict[str, Any]]], families: Mapping[str, Family]) -> Family:
    named = [(file, table["family"]) for file, table in chain if "family" in table]
    label = file_label(chain[0][0])
    if not named:
        raise HwsimError(f"{label}: family: missing; one of {', '.join(families)}")
    names = {str(name) for _, name in named}
    if len(names) > 1:
        raise HwsimError(f"{label}: family: {named[0][1]!r} is based on a file of family {named[-1][1]!r}")
    name = names.pop()
    if name not in families:
        hint = near(name, families) or f"; one of {', '.join(families)}"
        raise HwsimError(f"{label}: family: {name[:48]!r} is not known{hint}")
    return families[name]


def _overlay(machine: Machine, file: Path, table: dict[str, Any], problems: Problems) -> None:
    """Lay one file's identity, values and modes over what was inherited."""
    label = file_label(file)
    machine.lineage.append(file.stem)
    for name in _IDENTITY:
        if name in table:
            text = table[name]
            if isinstance(text, str) and 0 < len(text) <= 400 and text.isprintable():
                machine.identity[name] = text
            else:
                problems.add(name, "must be one line of text", label)
    lists = {name: _texts(name, table, label, problems) for name in _LISTS}
    for path in lists["without"]:
        if path == "notes":
            machine.notes.clear()
            continue
        dropped = [p for p in machine.values if p == path or p.startswith(f"{path}.")]
        if not dropped:
            problems.add("without", f"{path!r} is not inherited, so it cannot be dropped", label)
        for p in dropped:
            del machine.values[p]
    machine.notes += [n for n in lists["notes"] if n not in machine.notes]
    allowed = [*_IDENTITY, *_LISTS, "mode"]
    machine.values.update(_sections(machine.family, table, label, "", allowed, problems))
    modes = table.get("mode", {})
    if not isinstance(modes, dict):
        problems.add("mode", "must be tables [mode.<name>]", label)
        return
    for name, changes in modes.items():
        if not isinstance(changes, dict) or not MODE.fullmatch(name):
            problems.add(f"mode.{name[:64]}", "must be a table [mode.<name>], the name in lower case", label)
            continue
        found = _sections(machine.family, changes, label, f"mode.{name}.", [], problems)
        machine.modes.setdefault(name, {}).update(found)


def _texts(name: str, table: dict[str, Any], label: str, problems: Problems) -> list[str]:
    texts = table.get(name, [])
    if isinstance(texts, list) and all(isinstance(t, str) and t.isprintable() and len(t) <= 400 for t in texts):
        return [str(t) for t in texts]
    problems.add(name, "must be a list of one-line texts", label)
    return []


def _sections(
    family: Family, table: dict[str, Any], label: str, prefix: str, allowed: Iterable[str], problems: Problems
) -> dict[str, Value]:
    """The values of every section in ``table``, keyed by path without the prefix."""
    values: dict[str, Value] = {}
    names = [s.name for s in family.sections]
    for name, body in table.items():
        if name in allowed:
            continue
        section = family.section(name)
        path = f"{prefix}{name[:64]}"
        if section is None:
            problems.add(path, f"no such key{near(name[:64], [*names, *allowed])}", label)
        elif not isinstance(body, dict):
            problems.add(path, f"must be a table [{path}]", label)
        elif not section.many:
            _section(section, body, name, label, prefix, values, problems)
        else:
            for level, inner in body.items():
                if isinstance(inner, dict) and LABEL.fullmatch(level) and "." not in level:
                    _section(section, inner, f"{name}.{level}", label, prefix, values, problems)
                else:
                    problems.add(
                        f"{path}.{level[:64]}", f"must be a table [{path}.<name>], the name in lower case", label
                    )
    return values


def _section(
    section: Section, body: dict[str, Any], at: str, label: str, prefix: str, into: dict[str, Value], problems: Problems
) -> None:
    table = specs(section.cls)
    for name, raw in body.items():
        spec = table.get(name)
        path = f"{at}.{name[:64]}"
        if spec is None:
            problems.add(f"{prefix}{path}", f"no such key{near(name[:64], table)}", label)
        elif spec.kind == "rates":
            _rates(spec, raw, path, label, prefix, into, problems)
        else:
            _leaf(spec, raw, path, label, prefix, into, problems)


def _rates(
    spec: KeySpec, raw: object, at: str, label: str, prefix: str, into: dict[str, Value], problems: Problems
) -> None:
    if not isinstance(raw, dict):
        problems.add(f"{prefix}{at}", f"must be a table [{at}] of number formats", label)
        return
    for name, pair in raw.items():
        path = f"{at}.{name[:64]}"
        try:
            canonical = ".".join((at, rate_name(name)))
        except HwsimError as error:
            problems.add(f"{prefix}{path}", str(error), label)
            continue
        _leaf(spec, pair, canonical, label, prefix, into, problems)


def _leaf(
    spec: KeySpec, raw: object, path: str, label: str, prefix: str, into: dict[str, Value], problems: Problems
) -> None:
    try:
        into[path] = read_leaf(spec, raw, path, label)
    except HwsimError as error:
        problems.add(f"{prefix}{path}", str(error), label)


def rate_name(name: str) -> str:
    """Return the canonical name of a format, or of a pair "AxB" of them; raises HwsimError for an unknown one."""
    from hwsim.formats import FORMATS, get_format

    if name in FORMATS:
        return name
    first, times, second = name.partition("x")
    if times and second and first:
        return f"{get_format(first).name}x{get_format(second).name}"
    return get_format(name[:64]).name
