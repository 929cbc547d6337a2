"""Commands in pages and what they print: run again, compared line by line, or written anew.

    python tests/docs/documented.py docs/serving.md docs/compare.md     # writes today's output into the pages

A block between lines of three backquotes that begins with ``$ hwsim`` is a command with its output. A line that is only
an ellipsis stands for lines left out. Words must be the same; a number may differ by a tenth, because the models go on
being corrected; a page that is further off is out of date.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 0.1
_BLOCK = re.compile(r"^```\n\$ (hwsim [^\n]*(?:\\\n[^\n]*)*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![A-Za-z_\d-])\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_LEFT_OUT = "…"


@dataclass(frozen=True)
class Block:
    """One command of a page: where it is, how it is typed, what the page says it prints."""

    page: Path
    start: int
    command: str
    output: str

    @property
    def argv(self) -> list[str]:
        """The arguments after ``hwsim``."""
        return shlex.split(self.command.replace("\\\n", " "))[1:]

    @property
    def name(self) -> str:
        """A name for a test."""
        return f"{self.page.stem}: {' '.join(self.argv)[:60]}"


def blocks(page: Path) -> list[Block]:
    """Return the commands of a page."""
    text = page.read_text(encoding="utf-8")
    return [Block(page, m.start(2), m.group(1), m.group(2)) for m in _BLOCK.finditer(text)]


def pages() -> list[Path]:
    """Return the pages whose commands are run; the stories have their own runner (docs/stories/regenerate.py)."""
    return [ROOT / "docs" / name for name in ("serving.md", "compare.md")]


def run(argv: list[str]) -> str:
    """Return what a command prints, errors too, run in the root of the project."""
    from hwsim.cli import main

    out = io.StringIO()
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main(argv)
    finally:
        os.chdir(here)
    return out.getvalue()


def words(line: str) -> str:
    """Return a line without its numbers and with single spaces."""
    return " ".join(_NUMBER.sub("#", line).split())


def differs(told: str, seen: str) -> str:
    """Return why a line of a page is not the line seen, "" when it is."""
    if words(told) != words(seen):
        return f"words: {seen.strip()!r}"
    for one, other in zip(_NUMBER.findall(told), _NUMBER.findall(seen), strict=True):
        a, b = float(one), float(other)
        if abs(a - b) > CLOSE * max(abs(a), abs(b)) + 1e-12:
            return f"number {one}, now {other}: {seen.strip()!r}"
    return ""


def mismatch(block: Block, seen: str) -> str:
    """Return the first line of a block that the output does not have at its place, "" when all are there."""
    lines, place, skip = seen.rstrip("\n").split("\n"), 0, False
    for told in block.output.rstrip("\n").split("\n"):
        if told.strip() == _LEFT_OUT:
            skip = True
            continue
        places = range(place, len(lines)) if skip else range(place, min(place + 1, len(lines)))
        found = next((i for i in places if not differs(told, lines[i])), None)
        if found is None:
            near = next((differs(told, lines[i]) for i in places if words(told) == words(lines[i])), "")
            now = lines[place] if place < len(lines) else "nothing more"
            return f"{told!r}: {near or ('not in the output' if skip else f'now {now!r}')}"
        place, skip = found + 1, False
    if not skip and place != len(lines):
        return f"the output goes on: {lines[place]!r}"
    return ""


def renewed(block: Block, seen: str) -> str:
    """Return the block's output with the lines of today; those that are gone stay, and are told of."""
    lines, place, out = seen.rstrip("\n").split("\n"), 0, []
    told = block.output.rstrip("\n").split("\n")
    if not any(line.strip() == _LEFT_OUT for line in told):
        return seen.rstrip("\n") + "\n"
    for line in told:
        if line.strip() == _LEFT_OUT:
            out.append(line)
            continue
        found = next((i for i in range(place, len(lines)) if alike(line, lines[i])), None)
        if found is None:
            print(f"{block.page.name}: gone: {line}", file=sys.stderr)
            out.append(line)
        else:
            out.append(lines[found].rstrip())
            place = found + 1
    return "\n".join(out) + "\n"


def alike(one: str, other: str) -> bool:
    """Whether two lines say the same of perhaps other numbers and units."""
    prefix = re.compile(r"(?<=# )(?:[numkMG]|us|ms|s)?(?=[sJWB]\b)|\b(?:PASS|FAIL)\b")
    return prefix.sub("", words(one)) == prefix.sub("", words(other)) or one.split()[:2] == other.split()[:2]


def renew(page: Path) -> None:
    """Write today's output into a page."""
    text, shift = page.read_text(encoding="utf-8"), 0
    for block in blocks(page):
        new = renewed(block, run(block.argv))
        start = block.start + shift
        text = text[:start] + new + text[start + len(block.output) :]
        shift += len(new) - len(block.output)
    page.write_text(text, encoding="utf-8")


def all_blocks() -> Iterator[Block]:
    """Every command of every page."""
    for page in pages():
        yield from blocks(page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        renew(Path(name))
