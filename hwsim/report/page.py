"""The frame every page shares: one self-contained HTML file, its policy, its style and its little script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from hwsim.report.figures import per_cent

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, header: str, sections: Iterable[str], footer: str) -> str:
    """Return the page of ready parts; ``title`` is HTML text."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} · hwsim</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n<body>\n"
        f'{header}\n<main id="main">\n' + "\n".join(sections) + f"\n</main>\n{footer}\n"
        f'<div id="tip" hidden></div>\n<script>\n{_asset("page.js")}</script>\n</body>\n</html>\n'
    )


@lru_cache(maxsize=2)
def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def section(at: str, title: str, lead: str, body: str, kind: str = "") -> str:
    """Return one section with its heading; ``lead`` is the sentence under it."""
    shape = f' class="{kind}"' if kind else ""
    said = f'<p class="soft">{lead}</p>' if lead else ""
    return f'<section id="{at}" aria-labelledby="{at}-h"{shape}><h2 id="{at}-h">{title}</h2>{said}{body}</section>'


def answer_cards(cards: Sequence[tuple[str, str, str, str]]) -> str:
    """Return the cards of an answer: name, value, unit, and a line or figure below."""
    body = "".join(
        f'<div class="card"><h2>{name}</h2><p class="big">{value}{f" <small>{unit}</small>" if unit else ""}</p>'
        f'<div class="soft">{more}</div></div>'
        for name, value, unit, more in cards
    )
    return f'<div class="cards" role="group" aria-label="the answer">{body}</div>'


def meter(share: float) -> str:
    """Return a bar filled to ``share`` of 1, marked when it is over."""
    over = ' class="over"' if share > 1 + 1e-9 else ""
    return (
        f'<div class="meter" aria-hidden="true"><i{over} style="width:{per_cent(max(0.0, min(1.0, share)))}"></i></div>'
    )
