"""Run every command of the stories and write its real output back into their pages.

    python docs/stories/regenerate.py            # all pages
    python docs/stories/regenerate.py 03 17      # those that start with these numbers
    python docs/stories/regenerate.py --check    # run everything, write nothing

A page holds blocks of two kinds: ```console, whose first line is ``$ hwsim …``, and ```python followed by ```text. Below
the first line of a console block and inside a text block is what the run printed. The comment before a block says which
lines to keep, as regular expressions with `` ;; `` between; what is skipped becomes one line with an ellipsis:

    <!-- show: Latency ;; ^Notes ;; link is crossed -->

Every expression has to match a line of the fresh output: a statement that disappeared is an error, not a shorter page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

_BLOCK = re.compile(
    r"(?:<!-- show: (?P<show>.+?) -->\n)?"
    r"(?:```console\n\$ (?P<command>[^\n]+)\n(?P<printed>.*?)```|"
    r"```python\n(?P<code>.*?)```\n+```text\n(?P<text>.*?)```)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One command or snippet of a page: what is run, what the page says it printed, which lines are kept."""

    page: str
    source: str
    is_command: bool
    stored: str
    show: tuple[str, ...]
    span: tuple[int, int]


@dataclass(frozen=True)
class Ran:
    """What a block printed, standard error included, and how it ended."""

    code: int
    text: str


def pages() -> list[Path]:
    """Return the pages in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.md"))


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        command = match["command"]
        body = "printed" if command else "text"
        show = tuple(part.strip() for part in (match["show"] or "").split(" ;; ") if part.strip())
        source = command or match["code"]
        found.append(Block(page.name, source, bool(command), match[body], show, match.span(body)))
    return found


@contextlib.contextmanager
def _quiet_place() -> Iterator[None]:
    """A scratch folder, plain 120-column text: what a page shows depends on nothing of the machine it is made on."""
    before, kept = Path.cwd(), {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="120", NO_COLOR="1")
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "tests").symlink_to(ROOT / "tests")  # commands name the shared .tflite files from the root
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)
            for name, value in kept.items():
                os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def run_block(block: Block) -> Ran:
    """Run a command through the command line's own `main`, a snippet through exec; in this process."""
    out = io.StringIO()
    with _quiet_place(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        if block.is_command:
            from hwsim.cli import main

            program, *arguments = shlex.split(block.source)
            if program != "hwsim":
                raise ValueError(f"{block.page}: {block.source!r} does not begin with hwsim")
            code = main(arguments)
        else:
            exec(compile(block.source, block.page, "exec"), {"__name__": "story"})
            code = 0
    return Ran(code, out.getvalue())


def kept(text: str, show: tuple[str, ...]) -> str:
    """Return the lines that match, each with its continuation lines, and an ellipsis for what lies between.

    Notes (``  - …``) and labelled lines (``  Energy   …``) go on in lines that are indented further; they are kept or left out
    whole. Raises ValueError for an expression that matches nothing.
    """
    units: list[list[str]] = []
    for line in text.rstrip("\n").split("\n"):
        first = units[-1][0] if units else ""
        note = first.lstrip().startswith("- ") and line.startswith("    ")
        labelled = re.match(r"  [A-Z]\w+( \w+)? +\S", first) and re.match(r" {11}\S", line)
        if (note or labelled) and not line.lstrip().startswith("- "):
            units[-1].append(line.rstrip())
        else:
            units.append([line.rstrip()])
    if not show:
        return "\n".join(line for unit in units for line in unit) + "\n"
    for pattern in show:
        if not any(re.search(pattern, " ".join(unit)) for unit in units):
            raise ValueError(f"no line matches {pattern!r}")
    out: list[str] = []
    skipped = False
    for unit in units:
        if any(re.search(pattern, " ".join(unit)) for pattern in show):
            if skipped and out:
                out.append("  …")
            out += unit
            skipped = False
        else:
            skipped = skipped or bool(unit[0])
    if skipped:
        out.append("  …")
    return "\n".join(out) + "\n"


def rewrite(page: Path, *, write: bool = True) -> bool:
    """Run a page's blocks and put in what they print; return whether the page changed."""
    text = page.read_text(encoding="utf-8")
    new = text
    for block in reversed(blocks_of(page)):
        ran = run_block(block)
        try:
            shown = kept(ran.text, block.show)
        except ValueError as error:
            raise SystemExit(f"{page.name}: {block.source.strip()}: {error} of\n{ran.text}") from error
        new = new[: block.span[0]] + shown + new[block.span[1] :]
    if write and new != text:
        page.write_text(new, encoding="utf-8")
    return new != text


def main(arguments: list[str]) -> int:
    """Rewrite the pages asked for; return 0."""
    wanted = [a for a in arguments if a != "--check"]
    for page in pages():
        if not wanted or any(page.name.startswith(w) for w in wanted):
            changed = rewrite(page, write="--check" not in arguments)
            print(f"{page.name}: {'changed' if changed else 'as it was'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
