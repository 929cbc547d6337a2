"""What making tokens takes, as text."""

from __future__ import annotations

from hwsim.report.table import clip, plain, si, significant
from hwsim.report.text import memory_lines, notes
from hwsim.simulation.generation import Generation


def generation_text(found: Generation) -> str:
    """Return what making tokens takes: to the first one, between the others, in all, with energy and memory."""
    last, made = found.last, found.batch * found.tokens
    acc = last.accelerator
    each = f" for each of {found.batch} sequences" if found.batch > 1 else ""
    precision = last.options.precision if isinstance(last.options.precision, str) else "own formats"
    lines = [
        ("First", f"{si(found.ttft_s, 's')} to read {found.prompt} tokens and make the first one{each}"),
        ("Then", f"{si(found.tpot_s, 's')} a token on average, {significant(found.batch / found.tpot_s)} tokens/s")
        if found.tpot_s else ("Then", "nothing: one token was asked for"),
        ("In all", f"{si(found.total_s, 's')} for {found.tokens} tokens{each}, {significant(found.tokens_per_s)} tokens/s"),
        ("Energy", f"{si(found.energy_j, 'J')}, {si(found.energy_j / made, 'J')} a token"),
        *memory_lines(last)[:1],
        ("Steps", found.note),
    ]  # fmt: skip
    head = f"{plain(clip(last.network.name, 100))} on {acc.name} ({acc.target}), batch {found.batch}, {precision}"
    body = "\n".join([head, *(f"  {label:<9}{text}".rstrip() for label, text in lines)])
    return f"{body}\n\n{notes(last)}"
