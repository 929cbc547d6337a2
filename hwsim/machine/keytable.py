"""The schema as documentation: every key of every section with its unit, range and meaning.

``python -m hwsim.machine.keytable docs/accelerator_files.md`` rewrites the part of that page between its two markers;
a test checks that the page is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.machine.keys import Family, KeySpec, Section, specs
from hwsim.machine.library import FAMILIES
from hwsim.machine.values import bound_text, example_text
from hwsim.units import DIMENSIONS

BEGIN = "<!-- keys: written by python -m hwsim.machine.keytable, do not edit -->"
END = "<!-- end of keys -->"


def key_tables() -> str:
    """Return the Markdown tables of all sections of all families; sections a family shares are printed once."""
    parts: list[str] = []
    printed: set[Section] = set()
    for family in FAMILIES.values():
        own = [s for s in family.sections if s not in printed]
        parts.append(f"### Family `{family.name}`: {family.doc}\n")
        parts += [_section(s, family) for s in own]
        printed |= set(own)
    return "\n".join(parts)


def _section(section: Section, family: Family) -> str:
    heading = f"[{section.name}.<name>]" if section.many else f"[{section.name}]"
    need = "required" if section.required else "optional"
    lines = [f"#### `{heading}` ({need}): {section.doc}\n", "| key | form | range | meaning |", "|---|---|---|---|"]
    lines += [_row(section, spec) for spec in specs(section.cls).values()]
    return "\n".join(lines) + "\n"


def _row(section: Section, spec: KeySpec) -> str:
    name = f"`{spec.toml}`" + (" (required)" if spec.required else "")
    if spec.kind == "rates":
        name = f"`[{section.name}.{spec.toml}]` one key per number format" + (" (required)" if spec.required else "")
    return f"| {name} | {_form(spec)} | {_range(spec)} | {spec.doc} |"


def _form(spec: KeySpec) -> str:
    if spec.kind in ("quantity", "rates"):
        base = DIMENSIONS[spec.dimension].base
        plain = "whole number" if spec.dimension == "count" else "number"
        return f"`{example_text(spec)}` in {base}" if base else plain
    return {"bool": "true or false", "counts": "list of whole numbers", "texts": "list of texts"}.get(spec.kind, "text")


def _range(spec: KeySpec) -> str:
    if spec.choices:
        return ", ".join(f"`{c}`" for c in spec.choices)
    if spec.low is None and spec.high is None:
        return ""
    low = "" if spec.low is None else bound_text(spec.low, spec.dimension)
    high = "" if spec.high is None else bound_text(spec.high, spec.dimension)
    return f"{low} … {high}"


def rewrite(page: str) -> str:
    """Return ``page`` with the text between its markers replaced; raises HwsimError when a marker is missing."""
    if BEGIN not in page or END not in page:
        raise HwsimError("the page lacks the markers of the key tables")
    head, rest = page.split(BEGIN, 1)
    return f"{head}{BEGIN}\n\n{key_tables()}\n{END}{rest.split(END, 1)[1]}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(rewrite(file.read_text(encoding="utf-8")), encoding="utf-8")
