"""The answer as one self-contained HTML page: verdict, figures, every kernel, notes and sources; nothing is loaded.

The page needs no network and no script to be read (a little script sorts, filters, zooms and switches the theme); its
policy forbids loading anything. Equal results give equal pages.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import hwsim
from hwsim.errors import HwsimError
from hwsim.report.figures import (
    CAUSE_COLOURS,
    Part,
    Point,
    Roof,
    colours,
    kernel_bar,
    kernel_track,
    legend,
    parts_of,
    per_cent,
    roofline,
    si,
    stacked_bar,
    text,
    time_axis,
    unit_track,
)
from hwsim.report.html_table import kernel_table
from hwsim.report.kinds import kinds
from hwsim.report.page import answer_cards, meter, page, section
from hwsim.report.table import clip, percent, significant, size
from hwsim.report.text import told_band
from hwsim.report.timeline import Slice, kernel_slices, unit_slices
from hwsim.report.why import meaning
from hwsim.schedule.table import UNITS

if TYPE_CHECKING:
    from hwsim.result import Result

_BARS = 20  # bars drawn, each of one or several equal kernels; the table has all


def html_page(result: Result) -> str:
    """Return the page."""
    title = text(f"{clip(result.network.name, 100)} on {result.accelerator.name}")
    sections = [
        f'<div class="two">{_time(result)}{_energy(result)}</div>',
        _kernels(result),
        _roofline(result),
        _timeline(result),
        _traffic(result),
        kernel_table(result),
        _notes(result),
        _assumptions(result),
    ]
    return page(title, _header(result), [_cards(result), *sections], _footer(result))


# -- verdict -----------------------------------------------------------------------------------------------------------


def _header(result: Result) -> str:
    options = result.options
    precision = options.precision
    formats = precision if isinstance(precision, str) else "mixed" if precision else "its own formats"
    said = [f"batch {options.batch}", f"precision: {formats}", f"target {result.accelerator.target}"]
    said += [f"{symbol} = {value}" for symbol, value in options.shapes.items()]
    said += [f"phase: {options.phase}"] if options.phase else []
    said += [f"context {options.context}"] if options.context is not None else []
    said += [f"sparsity {options.sparsity}"] if options.sparsity else []
    if result.totals.programs > 1:
        said.append(f"{result.totals.used} of {result.totals.programs} programs, batch {result.totals.share} each")
    chips = "".join(f"<li>{text(s)}</li>" for s in said)
    links = "".join(f'<a href="#{at}">{name}</a>' for at, name in _SECTIONS)
    return (
        '<header><div><a class="skip" href="#main">Skip to the answer</a><div class="top"><div>'
        f"<h1>{text(clip(result.network.name, 100))} <span>on {text(result.accelerator.name)}</span></h1>"
        f'<ul class="chips" aria-label="the question">{chips}</ul></div>'
        '<button id="theme" class="js" hidden type="button">Light / dark</button></div>'
        f'<p class="verdict">{_verdict(result)}</p><nav aria-label="sections">{links}</nav></div></header>'
    )


_SECTIONS = (
    ("time", "Time"), ("energy", "Energy"), ("kernels", "Where to look"), ("roofline", "Roofline"),
    ("timeline", "Timeline"), ("traffic", "Traffic"), ("table", "All kernels"), ("notes", "Notes"),
    ("assumptions", "Assumptions"),
)  # fmt: skip


def _verdict(result: Result) -> str:
    share = result.time_shares[result.bound_by]
    sol = result.bound_s / result.latency_s
    times = f"{significant(1 / sol)} times its bound" if sol > 0 else "with no bound from arithmetic or memory"
    told = meaning(result.accelerator.family, result.bound_by)
    return text(
        f"One run takes {si(result.latency_s, 's')}, {times}. The largest part of the time, "
        f"{percent(100 * share)} %, is {_doing(result.bound_by)}{': ' if told else ''}{told}."
    )


_DOING = {
    "matrix unit": "the matrix unit at work", "vector unit": "the vector unit at work", "dispatch": "dispatch of kernels",
    "conversion": "conversion of formats", "host link": "waiting for the host link",
    "accumulator": "waiting for accumulators", "input": "waiting for input",
}  # fmt: skip


def _doing(cause: str) -> str:
    return _DOING.get(cause, f"waiting for {cause}")


def _cards(result: Result) -> str:
    r, totals = result, result.totals
    sol = r.bound_s / r.latency_s
    low, high = (x * totals.used + r.idle_j for x in r.energy.interval_j)
    each = f"{si(r.energy_j / r.options.batch, 'J')} per inference · " if r.options.batch > 1 else ""
    tdp = (r.accelerator.power.tdp_w or 0.0) * max(1, r.accelerator.chips)
    watts = (
        meter(r.power_w / tdp) + f"{percent(100 * r.power_w / tdp)} % of {significant(tdp)} W design power"
        if tdp
        else ""
    )
    cause, share = r.bound_by, r.time_shares[r.bound_by]
    useful = f"arrays {percent(100 * r.utilization)} % of their peak in useful work"
    bound = f"bound {si(r.bound_s, 's')}: {percent(100 * sol)} % of speed of light"
    tokens = r.tokens
    rate = (
        (significant(r.throughput_per_s), "inferences/s") if tokens is None else (significant(tokens.per_s), "tokens/s")
    )
    cards = (
        ("Latency", si(r.latency_s, "s"), "", meter(sol) + bound + _band(r)),
        ("Rate", *rate, f"{si(2 * r.macs / r.latency_s, 'op/s')} · {useful}"),
        ("Energy of a run", si(r.energy_j, "J"), "", f"{each}between {si(low, 'J')} and {si(high, 'J')}"),
        ("Average power", f"{significant(r.power_w)} W", "", watts or "no design power is published"),
        ("Memory", *_memory(result)),
        ("Bound by", text(cause), "", f"{meter(share)}{percent(100 * share)} % of the time"),
    )  # fmt: skip
    return answer_cards(cards)


def _band(result: Result) -> str:
    band = result.error_band
    if band is None:
        return "<br>no measured rows of this family to judge it by"
    return f"<br>{text(told_band(result, band))}"


def _memory(result: Result) -> tuple[str, str, str]:
    plan, acc = result.plan, result.accelerator
    operands = (o for k in plan.kernels for o in (*k.inputs, *k.outputs))
    activations = plan.activation_bytes if any(o.level == "dram" for o in operands) else 0
    need = plan.weight_bytes + activations + plan.cache_bytes
    parts = [f"weights {size(plan.weight_bytes)}", f"peak activations {size(plan.activation_bytes)}"]
    parts += [f"key/value cache {size(plan.cache_bytes)}"] if plan.cache_bytes else []
    try:
        dram = acc.dram
    except HwsimError:
        return size(need), "", text(" · ".join(parts))
    capacity = dram.capacity_bytes / acc.memory_share
    return size(need), f"of {size(capacity)}", meter(need / capacity) + text(" · ".join(parts))


# -- sections ----------------------------------------------------------------------------------------------------------


def _time(result: Result) -> str:
    seconds = {n: share * result.latency_s for n, share in result.time_shares.items()}
    parts = parts_of(seconds, result.latency_s, "s", CAUSE_COLOURS)
    label = "time by cause: " + ", ".join(f"{p.name} {percent(100 * p.share)} %" for p in parts)
    body = stacked_bar(parts, label) + legend(parts, "What the machine did or waited for", "cause", "time")
    return section("time", "Where the time goes", "", f"<figure>{body}</figure>")


def _energy(result: Result) -> str:
    used = result.totals.used
    joules = {n: float(v.sum()) * used for n, v in result.energy.per_kernel.items()}
    if result.idle_j > 0:
        joules["static, outside the kernels"] = result.idle_j
    style = {**colours(joules), "static, outside the kernels": "p8"}
    parts = parts_of(joules, result.energy_j, "J", style)
    label = "energy by component: " + ", ".join(f"{p.name} {percent(100 * p.share)} %" for p in parts)
    body = stacked_bar(parts, label) + legend(parts, "Joules of one run, all programs", "component", "energy")
    return section("energy", "Where the energy goes", "", f"<figure>{body}</figure>")


def _kernels(result: Result) -> str:
    most = kinds(result.kernels, _BARS)  # alike to the last cycle, as the blocks of a network are
    scale = max([g[0]["latency_s"] for g in most] + [g[0]["bound_s"] for g in most]) or 1.0
    items = [
        '<li class="h"><span class="h">kernel</span><span class="h">time by cause of one, the mark is its bound</span>'
        '<span class="v h">each</span><span class="v h">share</span><span class="v h s">bound %</span></li>'
    ]
    seen: set[str] = set()
    for group in most:
        row = group[0]
        by_cause = {name: row[_time_key(name)] for name in result.limiters}
        seen |= {n for n, v in by_cause.items() if v > 0}
        order = list(by_cause)
        parts = sorted(parts_of(by_cause, scale, "s", CAUSE_COLOURS), key=lambda p: order.index(p.name))
        many = f" ×{len(group)}" if len(group) > 1 else ""
        took = si(row["latency_s"], "s")
        said = f"{row['name']}{many}: {took}, bound {si(row['bound_s'], 's')}"
        share = sum(r["share_pct"] for r in group)
        items.append(
            f'<li><span class="n" title="{text(row["name"] + many)}">{text(clip(row["name"], 32 - len(many)) + many)}</span>'
            f"{kernel_bar(parts, row['bound_s'] / scale, said)}"
            f'<span class="v">{took}</span><span class="v">{percent(share)} %</span>'
            f'<span class="v s">{percent(row["sol_pct"])} %</span></li>'
        )
    count = sum(len(g) for g in most)
    share = sum(row["share_pct"] for g in most for row in g)
    lead = f"{count} of {len(result.kernels)} kernels, {percent(share)} % of the time; those that cost the same are one bar."
    return section("kernels", "Where to look first", lead, _keys(seen) + f'<ul class="list">{"".join(items)}</ul>')


def _time_key(cause: str) -> str:
    return f"time_{cause.replace(' ', '_')}_s"


def _keys(names: set[str]) -> str:
    body = "".join(f'<li><i class="key {c}"></i>{text(n)}</li>' for n, c in CAUSE_COLOURS.items() if n in names)
    return f'<ul class="keys" aria-label="colours">{body}</ul>'


def _roofline(result: Result) -> str:
    totals = result.totals
    points, left_out = [], 0.0
    for row in result.kernels:
        if not row["macs"] or not row["latency_s"]:
            left_out += row["share_pct"]
            continue
        moved = row["dram_read_bytes"] + row["dram_write_bytes"]
        work = 2.0 * row["macs"]
        intensity = work / moved if moved else math.inf
        points.append(Point(row["name"], intensity, work / row["latency_s"], row["share_pct"] / 100, row["limiter"]))
    if not points:
        return section("roofline", "Roofline", "No kernel multiplies: there is nothing to draw.", "")
    roofs: dict[float, set[str]] = {}
    for kernel in result.plan.kernels:
        if kernel.multiply:
            passes = f" in {kernel.multiply.passes} passes" if kernel.multiply.passes > 1 else ""
            rate = kernel.multiply.rate / kernel.multiply.passes
            roofs.setdefault(rate, set()).add(kernel.multiply.format + passes)
    peak = 2.0 * totals.peak_macs * totals.clock_hz
    compute = [Roof(", ".join(sorted(names)), rate * peak) for rate, names in sorted(roofs.items())]
    read, write = totals.dram_read_bytes_per_s, totals.dram_write_bytes_per_s
    memory = Roof(
        "memory" if totals.dram_shared else "memory, read + write", read if totals.dram_shared else read + write
    )
    ceilings = ", ".join(f"{roof.name} {si(roof.per_s, 'op/s')}" for roof in compute)
    label = f"roofline: {len(points)} kernels under {ceilings}"
    inside = (
        " Those at the right edge move no byte off the chip." if any(p.intensity == math.inf for p in points) else ""
    )
    rest = (
        f"{inside} Kernels that do not multiply take {percent(left_out)} % of the time and are not here."
        if left_out
        else inside
    )
    lead = (
        "Each circle is a kernel of one program, its area the share of the time, its colour what it is limited by."
        + rest
    )
    figure = f"<figure>{roofline(points, compute, memory, label)}</figure>"
    return section("roofline", "Roofline", lead, figure + _keys({p.limiter for p in points}))


def _timeline(result: Result) -> str:
    exact = unit_slices(result)
    slices = kernel_slices(result) if exact is None else exact
    total = result.latency_s * result.totals.clock_hz or 1.0
    start = result.totals.overhead_s * result.totals.clock_hz
    spans = []
    if start:
        tip = f"run overhead: {si(result.totals.overhead_s, 's')}"
        spans.append((0.0, start / total, "p7", "run overhead", tip))
    for row, begin in zip(result.kernels, result.timing.begin.tolist(), strict=True):
        tip = f"{clip(row['name'], 60)}: {si(row['latency_s'], 's')}, {row['limiter']}"
        colour = CAUSE_COLOURS.get(row["limiter"], "p7")
        spans.append(((start + begin) / total, row["cycles"] / total, colour, row["name"], tip))
    tracks = [kernel_track(spans, f"{len(result.kernels)} kernels in order, coloured by what limits them")]
    names = ["kernels"]
    style = colours(UNITS)
    for unit in UNITS:
        mine = [s for s in slices if s.unit == unit]
        busy = sum(s.busy for s in mine)
        if not busy:
            continue
        said = f"{unit}: busy {percent(100 * busy / total)} % of the run"
        tracks.append(unit_track([_drawn(s, start, total) for s in mine], style[unit], said))
        names.append(unit)
    how = (
        f"Every one of {sum(s.issues for s in slices):,} issues is where the event simulation put it."
        if exact is not None
        else "Units are shaded by how busy a kernel kept them; this schedule has too many issues to draw each."
    )
    zoom = (
        '<div class="tools js" hidden><button id="zoomout" type="button" aria-label="zoom out">−</button>'
        '<button id="zoomin" type="button" aria-label="zoom in">+</button>'
        '<span id="zoomed" class="soft" role="status">1×</span></div>'
    )
    body = (
        f'{zoom}<div class="gantt"><div class="names">{"".join(f"<div>{text(n)}</div>" for n in names)}</div>'
        '<div class="scroll" tabindex="0" role="region" aria-label="timeline"><div id="wide">'
        f"{time_axis(result.latency_s)}{''.join(tracks)}</div></div></div>"
    )
    return section("timeline", "Timeline of one program", how, body + _keys({row["limiter"] for row in result.kernels}))


def _drawn(s: Slice, start: float, total: float) -> tuple[float, float, float]:
    length = s.end - s.start
    return (start + s.start) / total, (start + s.end) / total, s.busy / length if length else 0.0


def _traffic(result: Result) -> str:
    energy, used = result.energy, result.totals.used
    joules = energy.by_component
    rows, most = [], 1.0
    for m, name in enumerate(energy.memories):
        read, written = float(energy.read_bytes[:, m].sum()) * used, float(energy.written_bytes[:, m].sum()) * used
        most = max(most, read + written)
        rows.append((name, read, written, joules.get(name, 0.0) * used))
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{size(read)}</td><td>{size(written)}</td><td>{si(cost, "J")}</td>'
        f"<td>{_traffic_bar(name, read / most, written / most, read, written)}</td></tr>"
        for name, read, written, cost in rows
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("memory", "read", "written", "energy"))
    table = (
        '<div class="scroll"><table class="traffic"><caption class="quiet">Bytes of one run, all programs; the bars show '
        '<i class="key p0"></i>read and <i class="key p2"></i>written</caption>'
        f'<thead><tr>{head}<th scope="col" class="l" style="width:42%">read, written</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    lead = f"{size(result.dram_bytes)} cross to and from off-chip memory in a run."
    return section("traffic", "Traffic by memory", lead, table)


def _traffic_bar(name: str, read: float, written: float, read_bytes: float, written_bytes: float) -> str:
    parts = [Part("read", "p0", read, size(read_bytes)), Part("written", "p2", written, size(written_bytes))]
    rects, at = [], 0.0
    for p in parts:
        rects.append(
            f'<rect class="{p.colour}" x="{per_cent(at)}" y="3" width="{per_cent(p.share)}" height="14" '
            f'data-t="{text(f"{p.name} {p.value}")}"/>'
        )
        at += p.share
    return (
        f'<svg class="bar" width="100%" height="20" role="img" aria-label="{text(name)} traffic">{"".join(rects)}</svg>'
    )


def _notes(result: Result) -> str:
    body = "".join(f"<li>{text(note)}</li>" for note in result.notes)
    lead = "Choices made, and what the model leaves out." if body else "None."
    return section("notes", "Notes", lead, f'<ul class="notes">{body}</ul>' if body else "")


def _assumptions(result: Result) -> str:
    assumed = result.accelerator.assumed
    if not assumed:
        return section("assumptions", "Assumptions", "Every number of this machine is published or measured.", "")
    body = "".join(
        f'<tr><th scope="row"><code>{text(v.path)}</code></th><td>{text(v.text)}</td><td>{text(v.source)}</td></tr>'
        for v in assumed
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("number", "value", "reason"))
    table = (
        f'<div class="scroll"><table class="plain"><caption class="quiet">hwsim show {text(result.accelerator.id)} lists every '
        f"number with its source</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return section("assumptions", "Assumptions", f"{len(assumed)} numbers nobody published.", table)


def _footer(result: Result) -> str:
    return (
        f"<footer><p>hwsim {text(hwsim.__version__)} · plan <code>{text(result.plan.digest)}</code> · machine "
        f"<code>{text(result.accelerator.digest)}</code> · equal plans on equal machines give this page again</p></footer>"
    )
