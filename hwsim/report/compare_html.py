"""A comparison as one self-contained HTML page: the verdict, the ranking, Pareto plots, where time, energy and money go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hwsim
from hwsim.comparison import Comparison
from hwsim.comparison.frontier import pareto
from hwsim.report.figures import CAUSE_COLOURS, colours, parts_of, si, stacked_bar, text
from hwsim.report.page import answer_cards, page, section
from hwsim.report.scatter import Mark, scatter
from hwsim.report.table import clip, percent, significant, size
from hwsim.units import format_quantity

_SECTIONS = (
    ("ranking", "Ranking"), ("pareto", "Trade-offs"), ("time", "Time"), ("energy", "Energy"), ("cost", "Cost"),
    ("next", "Next to try"), ("refused", "Refused"), ("notes", "Notes"),
)  # fmt: skip

Row = dict[str, Any]


def comparison_page(comparison: Comparison) -> str:
    """Return the page; it loads nothing and reads without script."""
    fitting = [row for row in comparison.rows if row["fits"]]
    title = text(f"{clip(comparison.network.name, 80)} on {len(comparison.rows)} machines")
    sections = [_cards(comparison, fitting)] if fitting else []
    if fitting:
        sections += [_ranking(comparison, fitting), _pareto(comparison, fitting)]
        sections += [_bars(fitting, "time", "Where the time goes", "time_shares", "latency_s", CAUSE_COLOURS)]
        energy = colours(name for row in fitting for name in row["energy_parts_j"])
        sections += [_bars(fitting, "energy", "Where the energy goes", "energy_parts_j", "", energy)]
        sections += [_cost(fitting), _next(fitting)]
    refused = [row for row in comparison.rows if not row["fits"]]
    sections += [_refused(refused), _notes(comparison)]
    footer = (
        f"<footer><p>hwsim {text(hwsim.__version__)} · estimates; validation and limits: hwsim validate</p></footer>"
    )
    drawn = [s for s in sections if s]
    return page(title, _header(comparison, fitting, drawn), drawn, footer)


def _header(comparison: Comparison, fitting: Sequence[Row], drawn: Sequence[str]) -> str:
    demand, options = comparison.demand, comparison.options
    said = [f"{len(comparison.rows)} machines"]
    said += [f"objective {format_quantity(demand.objective_s, 'time')}"] if demand.objective_s is not None else []
    said += [f"rate {format_quantity(demand.rate_per_s, 'rate')}"] if demand.rate_per_s is not None else []
    said += [f"precision {options.precision}"] if isinstance(options.precision, str) else []
    said += [f"sparsity {options.sparsity}"] if options.sparsity else []
    said += [f"{symbol} = {value}" for symbol, value in options.shapes.items()]
    said += [f"phase {options.phase}"] if options.phase else []
    said += [f"context {options.context}"] if options.context is not None else []
    chips = "".join(f"<li>{text(s)}</li>" for s in said)
    there = [(at, name) for at, name in _SECTIONS if any(s.startswith(f'<section id="{at}"') for s in drawn)]
    links = "".join(f'<a href="#{at}">{name}</a>' for at, name in there)
    return (
        '<header><div><a class="skip" href="#main">Skip to the answer</a><div class="top"><div>'
        f"<h1>{text(clip(comparison.network.name, 100))} <span>on which machine?</span></h1>"
        f'<ul class="chips" aria-label="the question">{chips}</ul></div>'
        '<button id="theme" class="js" hidden type="button">Light / dark</button></div>'
        f'<p class="verdict">{_verdict(comparison, fitting)}</p><nav aria-label="sections">{links}</nav></div></header>'
    )


def _verdict(comparison: Comparison, fitting: Sequence[Row]) -> str:
    if not fitting:
        return text("No machine of the list runs this network as asked.")
    best = fitting[0]
    late = comparison.demand.objective_s is not None and best["verdict"] != "PASS"
    if late:
        quickest = min(fitting, key=lambda row: row["latency_s"])
        return text(
            f"No machine meets the objective; the quickest is {quickest['target']} with {si(quickest['latency_s'], 's')}."
        )
    units = f"{best['units']} × {best['target']}" if (best["units"] or 1) > 1 else str(best["target"])
    cost = best["usd_per_million"]
    price = f" for ${significant(cost)} per million inferences ({best['usd_basis']})" if cost is not None else ""
    met = f"{sum(row['verdict'] == 'PASS' for row in fitting)} of {len(comparison.rows)} machines meet the objective; "
    told = met if comparison.demand.objective_s is not None else ""
    return text(f"{told}best is {units} at batch {best['batch']}: {si(best['latency_s'], 's')} a run{price}.")


def _cards(comparison: Comparison, fitting: Sequence[Row]) -> str:
    best = fitting[0]
    cost = best["usd_per_million"]
    wait = f"+ {si(best['fill_s'], 's')} until the batch is full" if best["fill_s"] else f"batch {best['batch']}"
    carried = comparison.demand.rate_per_s
    units = f"{best['units']} machine{'s' if best['units'] != 1 else ''}, {percent(100 * best['busy'])} % busy"
    basis = f"{best['usd_basis']}: {best['rent_price'] if best['usd_basis'] == 'rent' else best['purchase_price']}"
    sol = best["bound_s"] / best["latency_s"]
    cards = (
        ("Best machine", text(best["target"]), "", text(best["name"])),
        ("Latency", si(best["latency_s"], "s"), "", wait),
        ("Rate of one", significant(best["throughput_per_s"]), "inferences/s", units if carried is not None else ""),
        ("Energy of an inference", si(best["energy_per_inference_j"], "J"), "", f"{significant(best['power_w'])} W while busy"),
        (
            "Cost of a million", "no price" if cost is None else f"${significant(cost)}", "",
            text(clip(basis, 110)) if cost is not None else "--price gives one",
        ),
        ("Bound by", text(best["bound_by"]), "", f"{percent(100 * sol)} % of speed of light"),
    )  # fmt: skip
    return answer_cards(cards)


Cell = Callable[[Row], str]


def _ranking(comparison: Comparison, fitting: Sequence[Row]) -> str:
    demand = comparison.demand
    columns: list[tuple[str, bool, Cell]] = [
        ("machine", True, lambda r: text(r["target"])),
        ("#", False, lambda r: str(r["rank"])),
        ("format", True, lambda r: text(r["precision"] + ("*" if r["precision_note"] else ""))),
        ("batch", False, lambda r: str(r["batch"])),
    ]
    if demand.objective_s is not None:
        columns.append(("objective", True, lambda r: text(r["verdict"])))
    columns.append(("latency ms", False, lambda r: significant(r["latency_s"] * 1e3)))
    if demand.rate_per_s is not None:
        columns.append(("wait ms", False, lambda r: significant(r["fill_s"] * 1e3)))
    if demand.objective_s is not None:
        columns.append(("largest batch", False, lambda r: str(r["largest_batch"] or "")))
    columns.append(("inferences/s", False, lambda r: significant(r["throughput_per_s"])))
    if demand.rate_per_s is not None:
        columns.append(("machines", False, lambda r: str(r["units"])))
    columns += [
        ("W", False, lambda r: significant(r["power_w"])),
        ("mJ each", False, lambda r: significant(r["energy_per_inference_j"] * 1e3)),
        ("$ per million", False, lambda r: "" if r["usd_per_million"] is None else significant(r["usd_per_million"])),
        ("basis", True, lambda r: text(r["usd_basis"])),
        ("SOL %", False, lambda r: percent(100 * r["bound_s"] / r["latency_s"])),
        ("memory traffic MiB", False, lambda r: significant(r["dram_bytes"] / 2**20)),
        ("bound by", True, lambda r: text(r["bound_by"])),
    ]
    head = "".join(
        f'<th scope="col"{" class=l" if left else ""}><button type="button">{name}</button></th>'
        for name, left, _ in columns
    )
    body = "\n".join(
        f'<tr><th scope="row">{columns[0][2](row)}</th>'
        + "".join(f"<td{' class=l' if left else ''}>{cell(row)}</td>" for _, left, cell in columns[1:])
        + "</tr>"
        for row in fitting
    )
    tools = (
        '<div class="tools js" hidden><input type="search" id="filter" placeholder="filter, e.g. jetson" '
        'aria-label="filter machines"><span id="count" class="soft" role="status"></span>'
        '<span class="soft">click a heading to sort</span></div>'
    )
    notes = "".join(f"<p class=soft>* {text(n)}</p>" for n in dict.fromkeys(r["precision_note"] for r in fitting) if n)
    table = (
        f'{tools}<div class="big-table" tabindex="0" role="region" aria-label="ranking"><table id="all">'
        f"<caption hidden>Machines, best first</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )
    return section("ranking", "Ranking", f"Ranked by {text(comparison.ranked_by)}.", table + notes, "long")


def _pareto(comparison: Comparison, fitting: Sequence[Row]) -> str:
    def latency(row: Row) -> float:
        return float(row["latency_s"] + row["fill_s"])

    def energy(row: Row) -> float:
        return float(row["energy_per_inference_j"])

    def cost(row: Row) -> float | None:
        return None if row["usd_per_million"] is None else float(row["usd_per_million"])

    objective_s = comparison.demand.objective_s
    limit_ms = None if objective_s is None else objective_s * 1e3
    figures = []
    plots: tuple[tuple[Callable[[Row], float | None], str, str, str], ...] = (
        (cost, "$ per million inferences", "$", "cost"), (energy, "joules of one inference", "J", "energy"),
    )  # fmt: skip
    for other, label, unit, name in plots:
        rows = [row for row in fitting if other(row) is not None]
        if len(rows) < 2:
            continue
        front = pareto(rows, latency, other)
        marks = []
        for row in rows:
            value = other(row)
            assert value is not None
            shown = f"${significant(value)}" if unit == "$" else si(value, unit)
            tip = f"{row['target']}, batch {row['batch']}: {si(latency(row), 's')}, {shown}"
            style = "p0" if row in front else "p7"
            style = "p6" if row["verdict"] == "FAIL" else style
            marks.append(Mark(latency(row) * 1e3, value, clip(row["target"], 26), tip, style, row in front))
        told = f"latency against {name}: {', '.join(str(row['target']) for row in front)} on the Pareto front"
        figures.append(
            f"<figure>{scatter(marks, 'milliseconds', label, told, limit_ms)}"
            f"<figcaption>Nothing is both quicker and lower in {name} than the blue ones.</figcaption></figure>"
        )
    if not figures:
        return ""
    keys = '<ul class="keys" aria-label="colours"><li><i class="key p0"></i>on the Pareto front</li>'
    keys += '<li><i class="key p7"></i>beaten</li>'
    keys += '<li><i class="key p6"></i>misses the objective</li>' if comparison.demand.objective_s is not None else ""
    lead = "Quicker is left, cheaper is low; both scales are logarithmic."
    return section("pareto", "Trade-offs", lead, f'{keys}</ul><div class="two">{"".join(figures)}</div>')


def _bars(rows: Sequence[Row], at: str, title: str, key: str, scale: str, style: dict[str, str]) -> str:
    """One bar a machine, cut by the entries of ``key``; ``scale`` names the column that shares are shares of."""
    items, seen = [], set[str]()
    for row in rows:
        total = sum(row[key].values())
        parts = parts_of(row[key], total, "" if scale else "J", style)
        seen |= {p.name for p in parts}
        value = si(row[scale], "s") if scale else si(total, "J")
        told = f"{row['target']}: " + ", ".join(f"{p.name} {percent(100 * p.share)} %" for p in parts)
        items.append(
            f'<li><span class="n" title="{text(row["target"])}">{text(clip(row["target"], 32))}</span>'
            f'{stacked_bar(parts, told, 20)}<span class="v">{value}</span><span class="v"></span><span class="v s"></span></li>'
        )
    keys = "".join(f'<li><i class="key {c}"></i>{text(n)}</li>' for n, c in style.items() if n in seen)
    lead = "Shares of one run of the batch in the ranking."
    return section(at, title, lead, f'<ul class="keys">{keys}</ul><ul class="list">{"".join(items)}</ul>')


def _cost(rows: Sequence[Row]) -> str:
    style = {"rent": "p0", "hardware": "p3", "electricity and cooling": "p2"}
    told = []
    most = max((r["usd_per_million"] for r in rows if r["usd_per_million"] is not None), default=0.0)
    for row in rows:
        if row["usd_per_million"] is None:
            continue
        parts = (
            {"rent": row["rent_usd_per_million"]}
            if row["usd_basis"] == "rent"
            else {
                "hardware": row["hardware_usd_per_million"],
                "electricity and cooling": row["electricity_usd_per_million"],
            }
        )
        drawn = parts_of(parts, most, "$", style)
        label = f"{row['target']}: ${significant(row['usd_per_million'])} per million inferences"
        told.append(
            f'<li><span class="n">{text(clip(row["target"], 32))}</span>{stacked_bar(drawn, label, 20, shares=False)}'
            f'<span class="v">${significant(row["usd_per_million"])}</span><span class="v"></span><span class="v s"></span></li>'
        )
    if not told:
        return ""
    bases = {row["usd_basis"] for row in rows} - {""}
    seen = [n for n in style if any((n == "rent") == (basis == "rent") for basis in bases)]
    keys = "".join(f'<li><i class="key {style[n]}"></i>{n}</li>' for n in seen)
    lead = "US dollars per million inferences at the rate and objective asked, the cheaper of rent and purchase."
    body = f'<ul class="keys">{keys}</ul><ul class="list">{"".join(told)}</ul>'
    return section("cost", "What a million inferences cost", lead, body)


def _next(rows: Sequence[Row]) -> str:
    items = [
        f"<li><b>{text(row['target'])}</b>: {text('; '.join(step['text'] for step in row['next']))}</li>"
        for row in rows
        if row["next"]
    ]
    if not items:
        return ""
    lead = (
        "Simulated, for the best rows; a narrower format or pruning changes the values (hwsim verify, hwsim numerics)."
    )
    return section("next", "Next to try", lead, f'<ul class="notes">{"".join(items)}</ul>')


def _refused(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    items = "".join(f"<li><b>{text(row['target'])}</b>: {text(row['refused'])}</li>" for row in rows)
    return section("refused", "Refused", f"{len(rows)} machines do not run it.", f'<ul class="notes">{items}</ul>')


def _notes(comparison: Comparison) -> str:
    body = "".join(f"<li>{text(note)}</li>" for note in comparison.notes)
    weights = size(comparison.network.weight_bytes) if "N" in comparison.network.symbols else ""
    said = f"The network has {weights} of weights in its own formats." if weights else ""
    return section("notes", "Notes", said, f'<ul class="notes">{body}</ul>')
