"""The one kind of error a user sees: a single line saying what, where and what would work."""

from __future__ import annotations

from collections.abc import Iterable


class HwsimError(ValueError):
    """A wrong input, explained in one line; the command line prints it and exits with code 2."""


class FitError(HwsimError):
    """A network that needs more memory than a machine has."""


def one_line(text: str) -> str:
    """Return ``text`` as one plain line: white space collapsed, control characters replaced."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def near(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return ``"; did you mean a, b?"`` for the names closest to ``name``, or an empty string."""
    import difflib

    names = sorted(set(known))
    lowered = {n.lower(): n for n in names}
    hits = [lowered[h] for h in difflib.get_close_matches(name.lower(), list(lowered), n=limit, cutoff=0.55)]
    hits += [n for n in names if name.lower() in n.lower() and n not in hits][: max(0, limit - len(hits))]
    return f"; did you mean {', '.join(hits)}?" if hits else ""
