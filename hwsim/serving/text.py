"""A serving answer as text: the verdict, times, rates, machines, energy, money, and what was assumed."""

from __future__ import annotations

import math
import textwrap
from typing import Any

from hwsim.report.table import clip, percent, plain, si, significant, table
from hwsim.serving.answer import Serving
from hwsim.serving.base import Answer
from hwsim.serving.statistics import Spread
from hwsim.serving.token_answer import TokenServing
from hwsim.units import format_quantity

WIDTH = 120


def batch_text(serving: Serving) -> str:
    """Return an answer in batches, at most 120 columns wide and without colour."""
    fields = [
        ("Verdict", _verdict(serving)),
        ("Search", _search(serving)),
        ("Latency", _times(serving.latency, serving)),
        ("Of which", f"waiting {_short(serving.wait)};  on the machine {_short(serving.service)}"),
        ("Rate", _rate(serving)),
        ("Dropped", _dropped(serving)),
        ("Machines", _machines(serving)),
        ("Energy", _energy(serving)),
        ("Cost", _cost(serving)),
    ]
    return _page(serving, fields, _models(serving), _groups(serving))


def token_text(serving: TokenServing) -> str:
    """Return an answer in tokens, at most 120 columns wide and without colour."""
    fields = [
        ("Verdict", _token_verdict(serving)),
        ("Search", _search(serving)),
        ("To first", _times(serving.ttft, serving)),
        ("Per token", _times(serving.tpot, serving)),
        ("In all", _times(serving.latency, serving)),
        ("Rate", _token_rate(serving)),
        ("Dropped", _dropped(serving)),
        ("Machines", _token_machines(serving)),
        ("Energy", _energy(serving)),
        ("Cost", _cost(serving)),
    ]
    return _page(serving, fields)


def _page(answer: Answer, fields: list[tuple[str, str]], *tables: str) -> str:
    head = f"{plain(clip(' + '.join(answer.networks), 60))} on {plain(clip(answer.targets, 60))}"
    lines = [textwrap.fill(f"{head}; {plain(answer.load.words())}", WIDTH, subsequent_indent="  ")]
    lines += [_field(label, text) for label, text in fields if text]
    return "\n\n".join(part for part in ("\n".join(lines), *tables, _notes(answer)) if part)


def _field(label: str, text: str) -> str:
    return textwrap.fill(text, WIDTH - 2, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12)


def _verdict(serving: Serving) -> str:
    within_s = serving.question.within_s
    if within_s is None or serving.in_time is None:
        return ""
    reached = serving.latency.percentiles_s[serving.percentile]
    return (
        f"{serving.verdict}  {_percentage(serving.in_time)} within {format_quantity(within_s, 'time')} "
        f"(asked: {serving.percentile:g} %); p{serving.percentile:g} {_time(reached)}"
    )


def _token_verdict(serving: TokenServing) -> str:
    if serving.in_time is None:
        return ""
    question = serving.question
    limits = (
        (question.ttft_s, "to the first token"),
        (question.tpot_s, "a token after it"),
        (question.within_s, "in all"),
    )
    said = [f"{format_quantity(limit, 'time')} {what}" for limit, what in limits if limit is not None]
    return (
        f"{serving.verdict}  {_percentage(serving.in_time)} within {', '.join(said)} (asked: {serving.percentile:g} %)"
    )


def _search(serving: Answer) -> str:
    found = serving.searched
    if not found:
        return ""
    rate = found["what"] == "rate"

    def said(value: float) -> str:
        return f"{_number(value)}/s" if rate else f"{value:.0f}"

    what = (
        "highest rate within the objective" if rate else "fewest machines within the objective (copies of those named)"
    )
    if found["passes"] is None:
        return f"{what}: none; {said(found['fails'])} is shown ({found['runs']} runs)"
    fails = "" if found["fails"] is None else f"; {said(found['fails'])} fails"
    return f"{what}: {said(found['passes'])}{fails} ({found['runs']} runs)"


def _time(seconds: float) -> str:
    return "none" if math.isnan(seconds) else si(seconds, "s")


def _times(times: Spread, serving: Answer) -> str:
    asked = serving.percentile
    shown = [(q, v) for q, v in times.percentiles_s.items() if q in (50.0, 90.0, 99.0, 99.9) or q == asked]
    error = "" if math.isnan(times.error_s) or not times.error_s else f" ± {_time(times.error_s)}"
    return (
        "  ".join(f"p{q:g} {_time(v)}" for q, v in shown)
        + f"   mean {_time(times.mean_s)}{error}   longest {_time(times.most_s)}"
    )


def _short(times: Spread) -> str:
    return f"mean {_time(times.mean_s)}, p99 {_time(times.percentiles_s[99.0])}"


def _rate(serving: Serving) -> str:
    said = [f"{_number(serving.served_per_s)} requests/s answered"]
    if serving.load.mean_samples != 1:
        said.append(f"{_number(serving.made_per_s)} inferences/s")
    if serving.in_time is not None:
        said.append(f"{_number(serving.in_time_per_s)} in time")
    if serving.load.asked_per_s is not None:
        said.append(f"asked {_number(serving.load.asked_per_s)}")
    said.append(f"at most {_number(serving.most_per_s)} back to back")
    return ", ".join(said)


def _token_rate(serving: TokenServing) -> str:
    said = [f"{_number(serving.made_per_s)} tokens/s written, {_number(serving.read_per_s)} read"]
    said.append(f"{_number(serving.served_per_s)} requests/s answered")
    if serving.in_time is not None:
        said.append(f"{_number(serving.in_time_per_s)} in time")
    if serving.load.asked_per_s is not None:
        said.append(f"asked {_number(serving.load.asked_per_s)}")
    said.append(f"about {_number(serving.most_per_s)} at most")
    return ", ".join(said)


def _token_machines(serving: TokenServing) -> str:
    routed = f", {serving.question.routing}" if serving.machines > 1 else ""
    reading = percent(100 * serving.phases["prefill"]["share"])
    back = int(serving.outcome.sent_back.sum())
    said = [
        f"{serving.machines}{routed}",
        f"{percent(100 * serving.busy)} % busy, {reading} % of that reading prompts",
        f"{_number(serving.mean_batch)} requests together on average",
        f"key/value memory {percent(100 * serving.kv_peak)} % full at most",
    ]
    return "; ".join([*said, f"{back} times sent back for want of it"] if back else said)


def _dropped(serving: Answer) -> str:
    lost, total = serving.dropped, len(serving.asked_ns)
    said = [f"{count} {what.replace('_', ' ')}" for what, count in lost.items() if count]
    return f"{', '.join(said)} of {total} requests ({_percentage(sum(lost.values()) / total)})" if said else ""


def _machines(serving: Serving) -> str:
    number, queue = len(serving.setup.machines), serving.queue
    loading = sum(u.loading for u in serving.uses) / number
    loads = f" ({percent(100 * loading)} % loading weights)" if loading else ""
    largest = max(t.largest for g in serving.question.groups for t in g.tables if t is not None)
    routed = f", {serving.question.routing}" if number > 1 else ""
    return (
        f"{number}{routed}; {percent(100 * serving.busy)} % busy{loads}; batches of {significant(serving.mean_batch)} "
        f"on average, at most {largest}; {_number(queue.mean)} waiting on average, {queue.most} at most"
    )


def _energy(serving: Answer) -> str:
    made = max(1, serving.made)
    if not serving.energy_j:
        return "unknown: the machine states no power"
    return (
        f"{si(serving.energy_each_j, 'J')} {'an' if serving.unit[0] in 'aeiou' else 'a'} {serving.unit} (work "
        f"{si(serving.busy_j / made, 'J')}, waiting {si(serving.idle_j / made, 'J')})   average {si(serving.power_w, 'W')}"
    )


def _cost(serving: Answer) -> str:
    cost = serving.cost
    if cost is None:
        return "nothing is in time" if serving.in_time is not None else ""
    each = f"a million {serving.unit}s" + (" in time" if serving.in_time is not None else "")
    said = []
    if cost.rent is not None:
        said.append(f"rent ${_money(cost.rent)}")
    if cost.buy is not None and cost.hardware is not None:
        said.append(f"bought ${_money(cost.hardware)} + electricity ${_money(cost.electricity)}")
    if cost.carbon_g is not None:
        said.append(f"carbon {_money(cost.carbon_g / 1e3)} kg CO2e")
    return f"{each}: {'; '.join(said)}" if said else "no price is known"


def _money(value: float) -> str:
    return significant(value) if 1e-3 <= value < 1e6 else f"{value:.3g}"


def _number(value: float) -> str:
    return significant(value, 4) if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4g}"


def _percentage(share: float) -> str:
    """A share close to all or nothing keeps the digits that say how close."""
    text = f"{100 * share:.2f}"
    if text == "100.00" and share < 1:
        text = f"{100 * share:.6g}" if 1 - share > 1e-8 else "99.999999"
    return f"{text} %"


def _models(serving: Serving) -> str:
    rows = serving.by_model
    if len(rows) < 2:
        return ""
    timed = serving.in_time is not None
    header = [
        "network",
        "requests",
        *(["in time %"] if timed else []),
        "mean ms",
        "p50",
        "p99",
        "most",
        "batch",
        "loads",
    ]
    cells = [
        [
            clip(row["network"], 40),
            str(row["requests"]),
            *([_share(row["in_time"])] if timed else []),
            *(_ms(row[name]) for name in ("mean_s", "p50_s", "p99_s", "most_s")),
            significant(row["mean_batch"]),
            str(row["loads"]),
        ]
        for row in rows
    ]
    if not any(row["loads"] for row in rows):
        header, cells = header[:-1], [row[:-1] for row in cells]
    return table(header, cells)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else significant(seconds * 1e3)


def _groups(serving: Serving) -> str:
    rows = serving.by_group
    if len(rows) < 2:
        return ""
    header = ("machines", "of", "format", "max batch", "busy %", "least", "most", "batches", "batch")
    return table(header, [_group(row) for row in rows], left=(1, 2))


def _group(row: dict[str, Any]) -> list[str]:
    return [
        str(row["machines"]),
        clip(row["target"], 40),
        clip(",".join(dict.fromkeys(row["formats"])), 20),
        ",".join("-" if not n else str(n) for n in row["max_batch"]),
        *(percent(100 * row[name]) for name in ("busy", "busy_least", "busy_most")),
        str(row["batches"]),
        significant(row["mean_batch"]),
    ]


def _notes(serving: Answer) -> str:
    items = [textwrap.fill(plain(n), WIDTH - 2, initial_indent="  - ", subsequent_indent="    ") for n in serving.notes]
    return "Notes\n" + "\n".join(items)
