"""Links between pages lead somewhere, and every page is in the index."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def test_every_link_leads_to_a_file() -> None:
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    broken = [(page.name, link) for page in pages for link in links(page) if not (page.parent / link).exists()]
    assert not broken


def test_every_page_is_in_the_index() -> None:
    named = set(links(DOCS / "index.md"))
    assert {page.name for page in DOCS.glob("*.md")} - named <= {"index.md"}
