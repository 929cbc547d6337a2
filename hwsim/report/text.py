"""The answer as text: what it costs, against which bound, and why."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hwsim.bands import Band
from hwsim.report.table import clip, percent, plain, si, significant, size, table
from hwsim.report.why import meaning
from hwsim.result import Result

if TYPE_CHECKING:
    from hwsim.simulation.pipeline import Pipeline


def summary(result: Result) -> str:
    """Return the block of totals: latency and its bound, rate, energy, memory, where the time goes."""
    r, options = result, result.options
    precision = (
        options.precision if isinstance(options.precision, str) else "mixed" if options.precision else "own formats"
    )
    energy = {name: float(v.sum()) * r.totals.used for name, v in r.energy.per_kernel.items()}
    parts = ", ".join(f"{n} {percent(100 * e / r.energy_j)} %" for n, e in _largest(energy, 5))
    low, high = (x * r.totals.used + r.idle_j for x in r.energy.interval_j)
    tdp = r.accelerator.power.tdp_w
    each = f"{si(r.energy_j / options.batch, 'J')} each" if options.batch > 1 else "per run"
    cap = f" of {significant(tdp * max(1, r.accelerator.chips))} W TDP" if tdp else ""
    bound = r.bound_s
    lines = [
        (
            "Latency",
            f"{si(r.latency_s, 's')}   bound {si(bound, 's')} ({percent(100 * bound / r.latency_s)} % of speed of light)",
        ),
        *_band(r),
        *_rate(r),
        (
            "Energy",
            f"{si(r.energy_j, 'J')} ({each}; {si(low, 'J')} to {si(high, 'J')})   average {significant(r.power_w)} W{cap}",
        ),
        ("", parts),
        ("Traffic", f"{size(r.dram_bytes)} to and from memory per run"),
        *memory_lines(result),
        (_UNITS.get(result.accelerator.family, "Units"), _arrays(result)),
        *_formats(result),
        *_sparse(result),
        *_emulated(result),
        *_widening(result),
        ("Time", ", ".join(f"{n} {percent(100 * s)} %" for n, s in _largest(r.time_shares, 7))),
        ("Bound by", r.bound_by),
        *_meaning(r),
    ]
    name = plain(clip(r.network.name, 100))
    head = f"{name} on {r.accelerator.name} ({r.accelerator.target}), batch {options.batch}, {precision}"
    return "\n".join([head, *(f"  {label:<9}{text}".rstrip() for label, text in lines)])


def _band(result: Result) -> list[tuple[str, str]]:
    """What measured rows of the family say of such an answer."""
    band = result.error_band
    if band is None:
        return []
    return [("", told_band(result, band))]


def _meaning(result: Result) -> list[tuple[str, str]]:
    """What that limiter means on such a machine."""
    told = meaning(result.accelerator.family, result.bound_by)
    return [("", line) for line in textwrap.wrap(told, 108)]


def told_band(result: Result, band: Band) -> str:
    """Return a band in words: what the latency may be, or that only single kernels of the family were measured."""
    if band.kind == "kernel" and len(result.plan.kernels) > 1:
        return f"no network of this family was measured; {band}"
    low, high = (si(result.latency_s * factor, "s") for factor in (band.low, band.high))
    return f"likely {low} to {high} ({band})"


def pipeline(around: Pipeline) -> str:
    """Return the line of what surrounds the network on its host, and what a user sees."""
    parts = [f"{s.name} {si(s.seconds, 's')}" for s in around.before]
    parts.append(f"network {si(around.network_s, 's')}")
    parts += [f"{s.name} {si(s.seconds, 's')}" for s in around.after]
    share = percent(100 * around.network_s / around.latency_s)
    told = (
        f"{' + '.join(parts)} = {si(around.latency_s, 's')}, of which the network {share} %; "
        f"{significant(around.throughput_per_s)}/s one after the other; host {around.host}, frames of {around.image}"
    )
    return textwrap.fill(told, 118, initial_indent="  Pipeline ", subsequent_indent="           ")


def _largest(values: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    return [(n, v) for n, v in sorted(values.items(), key=lambda kv: -kv[1])[:count] if v > 0]


def _rate(result: Result) -> list[tuple[str, str]]:
    """Inferences, or tokens of a language model, per second."""
    tokens = result.tokens
    ops = si(2 * result.macs / result.latency_s, "op/s")
    if tokens is None:
        return [("Rate", f"{significant(result.throughput_per_s)} inferences/s   {ops}")]
    per_s = significant(tokens.per_s)
    if tokens.phase == "decode":
        each = f" ({significant(tokens.each_per_s)} tokens/s for each of {tokens.sequences})" * (tokens.sequences > 1)
        return [("Rate", f"{per_s} tokens/s{each}, {si(result.latency_s, 's')} a token after {tokens.past}   {ops}")]
    prompts = f"{tokens.sequences} prompts" if tokens.sequences > 1 else "a prompt"
    first = f"first token after {si(result.latency_s, 's')}"
    return [("Rate", f"{first}: {prompts} of {tokens.new} tokens, {per_s} tokens/s read   {ops}")]


def memory_lines(result: Result) -> list[tuple[str, str]]:
    """What one program's memory holds, and for language models what else would fit."""
    plan, memory, totals = result.plan, result.memory, result.totals
    parts = [f"weights {size(plan.weight_bytes)}", f"peak activations {size(plan.activation_bytes)}"]
    if plan.cache_bytes:
        parts.append(f"key/value cache {size(plan.cache_bytes)}")
    if memory is None:
        return [("Memory", " + ".join(parts))]
    if memory.tokens and memory.runtime:
        parts += [f"workspace {size(memory.workspace)}"] * bool(memory.workspace) + [f"runtime {size(memory.runtime)}"]
    told = f"{' + '.join(parts)}, of {size(memory.capacity)} for each program"
    if not memory.tokens:
        return [("Memory", told)]
    most, longest = memory.largest_batch * result.groups, memory.longest_context
    return [
        ("Memory", told),
        ("Fits", f"batch {most} at this length, or {longest} tokens of context at batch {totals.batch}"
                 + f" (the model's own end, {memory.own})" * memory.own_limits),
    ]  # fmt: skip


_UNITS = {"systolic": "Arrays", "gpu": "Cores", "edge-tpu": "Tiles"}


def _arrays(result: Result) -> str:
    cycles = max(1, sum(row["cycles"] for row in result.kernels))
    padded = sum(row["utilization_padded_pct"] * row["cycles"] for row in result.kernels) / cycles
    return f"{percent(100 * result.utilization)} % of peak in useful work, {percent(padded)} % with padding and passes"


_CONVERT = ("quantize", "dequantize", "cast", "convert", "reformat")


def _formats(result: Result) -> list[tuple[str, str]]:
    """In which formats products ran and what had none to run in, where a format was asked for or there are several."""
    groups: dict[str, list[float]] = {}
    for row in result.kernels:
        name = "conversions" if row["op"] in _CONVERT else row["format"] or "no products"
        groups.setdefault(name, []).append(row["latency_s"])
    if len(groups) < 2 or (result.options.precision is None and len(groups.keys() - {"no products"}) < 2):
        return []
    total = sum(map(sum, groups.values())) or 1.0
    order = sorted(groups, key=lambda name: (name == "no products", -sum(groups[name])))
    parts = [f"{name} {len(groups[name])} ({percent(100 * sum(groups[name]) / total)} %)" for name in order]
    return [("Formats", f"{', '.join(parts)}: kernels (share of the time)")]


def _emulated(result: Result) -> list[tuple[str, str]]:
    """Formats the machine does not multiply, and in which it multiplied them instead."""
    pairs = Counter((row["emulates"], row["format"]) for row in result.kernels if row.get("emulates"))
    told = ", ".join(f"{asked} run in {used} ({count} products)" for (asked, used), count in pairs.most_common())
    return [("Emulated", f"{told}: see the notes")] if pairs else []


def _widening(result: Result) -> list[tuple[str, str]]:
    """What it takes to make narrow weights and caches wide again, beside the reading they save."""
    lanes_s = sum(row.get("widening_s", 0.0) for row in result.kernels)
    if not lanes_s:
        return []
    share = percent(100 * lanes_s / result.latency_s)
    return [("Widening", f"{si(lanes_s, 's')} of CUDA cores' time beside the main loops, {share} % of the latency")]


def _sparse(result: Result) -> list[tuple[str, str]]:
    """What 2:4 did: where it was taken, what that saved, what limits those kernels now, why others stayed dense."""
    asked = [row for row in result.kernels if row.get("sparse_eligible") not in ("", None)]
    if not asked:
        return []
    taken = [row for row in asked if row["sparse_chosen"]]
    told = f"2:4 in {len(taken)} of {len(asked)} products with weights"
    if taken:
        sparse_s = sum(row["latency_s"] for row in taken)
        dense_s = sum(row["latency_s"] * row["sparse_gain"] for row in taken)
        all_s = sum(row["latency_s"] for row in result.kernels)
        share = percent(100 * dense_s / (all_s + dense_s - sparse_s))
        told += f", {share} % of the dense time: {significant(dense_s / sparse_s)}x there"
        told += f", {significant((all_s + dense_s - sparse_s) / all_s)}x in all; limited now by "
        told += _counted(_LIMITS.get(row["sparse_limit"], row["sparse_limit"].replace("_", " ")) for row in taken)
    expanded = [row for row in asked if row.get("sparse_emulated")]
    if expanded:
        spent_s = sum(row["latency_s"] for row in expanded)
        gain = sum(row["latency_s"] * row["sparse_gain"] for row in expanded) / spent_s
        told += f"; stored so and multiplied dense (emulated): {len(expanded)}, {significant(gain)}x there"
    refused = [row["sparse_limit"].lstrip("0123456789 ") for row in asked
               if not row["sparse_eligible"] and not row.get("sparse_emulated")]  # fmt: skip
    if refused:
        told += f"; no sparse kernel: {_counted(refused)}"
    slower = sum(1 for row in asked if row["sparse_eligible"] and not row["sparse_chosen"])
    if slower:
        told += f"; no faster than dense: {slower}"
    first, *rest = textwrap.wrap(told, 108)
    return [("Sparsity", first), *(("", part) for part in rest)]


_LIMITS = {"l2": "L2 bandwidth", "dram": "memory bandwidth", "tensor": "tensor cores", "launch": "kernel launch"}


def _counted(names: Iterable[str]) -> str:
    found = Counter(names).most_common(4)
    return ", ".join(f"{name} ({count})" for name, count in found)


def notes(result: Result) -> str:
    """Return the notes: choices made, what is not modelled, and the assumed numbers behind the answer."""
    lines = [_bullet(note) for note in result.notes]
    assumed = result.assumptions
    if assumed:
        lines.append(_bullet(f"{len(assumed)} assumed numbers (hwsim show {result.accelerator.id} lists sources):"))
        lines += [textwrap.fill(text, 118, initial_indent="      ", subsequent_indent="        ") for text in assumed]
    lines.append(_bullet(f"plan {result.plan.digest}, machine {result.accelerator.digest}"))
    return "Notes\n" + "\n".join(lines)


def _bullet(text: str) -> str:
    return textwrap.fill(text, 118, initial_indent="  - ", subsequent_indent="    ")


def network_table(net: Any) -> str:
    """Return a network layer by layer: shapes, kernel, parameters, multiply-accumulates, and totals."""
    rows = []
    total = max(1, net.macs)
    for layer in net.layers:
        macs = sum(p.macs for p in net.products[layer.id])
        params = sum(w.elements for w in net.weights[layer.id])
        kernel = layer.attrs.get("k")
        rows.append(
            (
                layer.id,
                clip(layer.name, 36),
                layer.op + (f"+{'+'.join(layer.fused)}" if layer.fused else ""),
                "x".join(map(str, layer.shape)),
                "x".join(map(str, kernel)) if isinstance(kernel, tuple) else "",
                str(params or ""),
                si(macs, "MAC") if macs else "",
                percent(100 * macs / total) if macs else "",
            )
        )
    head = ("id", "layer", "operator", "output", "kernel", "parameters", "mult-adds", "%")
    lines = [
        f"{plain(clip(net.name, 100))}: {len(net.layers)} layers, symbols {dict(net.symbols) or 'none'}",
        *(plain(f"  {k}: {v}") for k, v in net.meta.items()),
        table(head, rows, left=(0, 1, 2, 3, 4)),
        f"  Total parameters {net.params:,}   mult-adds {si(net.macs, 'MAC')}   weights {size(net.weight_bytes)}   "
        f"activations {size(net.activation_bytes)}   peak {size(net.peak_activation_bytes)}",
    ]
    return "\n".join(lines)


def accelerator_table(acc: Any) -> str:
    """Return every number of a machine with its unit and source."""
    rows = [(v.path, v.text, v.kind, v.source) for v in acc.values.values()]
    lines = [f"{acc.id}: {acc.name}. {acc.description}".rstrip(), *(f"  note: {n}" for n in acc.notes)]
    return "\n".join([*lines, table(("number", "value", "kind", "source"), rows, left=(0, 1, 2, 3))])
