"""What a serving answer says about itself: what was chosen, what it includes, what it leaves out, prices with dates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.units import format_quantity

if TYPE_CHECKING:
    from hwsim.serving.answer import Question, Serving


def notes(serving: Serving) -> tuple[str, ...]:
    """Return the notes of an answer, the ones that change its meaning first."""
    question, load = serving.question, serving.load
    out: list[str] = []
    factor = serving.load_factor
    if factor is not None and factor >= 1:
        out.append(
            f"more is asked than the machines serve ({factor:.2f} times the most they do): the queue grows as long as "
            "requests come, and every figure of latency depends on how long that is"
        )
    out += _fits(serving)
    out += list(dict.fromkeys(s.note for g in question.groups for s in g.services if s.note))
    out += [
        f"{group.acc.target} does not serve {model.net.name}: {service.refused}"
        for group in question.groups
        for model, service in zip(question.models, group.services, strict=True)
        if service.refused
    ]
    out += _batches(question)
    if question.host.before_s or question.host.after_s:
        by = (
            "as many workers as it takes"
            if question.host.workers is None
            else f"{question.host.workers} workers a stage"
        )
        before, after = (format_quantity(t, "time") for t in (question.host.before_s, question.host.after_s))
        out.append(
            f"host work on each request: {before} before and {after} after the machine, by {by}; it costs no energy here"
        )
    if question.warmup:
        out.append(f"the first {100 * question.warmup:.3g} % of the requests meet emptier queues and are not counted")
    if load.variation:
        out.append(
            f"the time of a batch varies by {100 * load.variation:.3g} % (gamma distribution), given, not predicted"
        )
    else:
        out.append(
            "equal batches take equal times: a real machine's own variation is left out (--variation 5% adds it)"
        )
    out.append("batches of a machine run one after the other, without overlap unless its family overlaps runs")
    return (*out, *_money(serving))


def _fits(serving: Serving) -> list[str]:
    out = []
    for group, kind in zip(serving.question.groups, serving.setup.kinds, strict=True):
        if any(kind.swap_ns):
            times = ", ".join(
                f"{model.net.name} {format_quantity(ns / 1e9, 'time', 3)}"
                for model, ns in zip(serving.question.models, kind.swap_ns, strict=True)
                if ns
            )
            need, room = sum(kind.weight_bytes) / 2**30, kind.capacity_bytes / 2**30
            out.append(
                f"{group.acc.target}: the networks take turns in memory ({need:.2f} GiB of weights, room for {room:.2f}); "
                f"loading one takes {times}, over the link to the host"
            )
    return out


def _batches(question: Question) -> list[str]:
    largest = {t.largest for g in question.groups for t in g.tables if t is not None}
    if largest == {1}:
        return []
    how = {
        "pad": "a batch between the simulated sizes (powers of two and the largest) runs as the next larger one",
        "interpolate": "times of batches between the simulated sizes (powers of two and the largest) are interpolated",
        "exact": "every batch size was simulated",
    }[question.batching.between]
    if question.batching.largest is not None:
        return [how]
    if question.objective.within_s is None:
        return [f"{how}; the largest is where twice as many gain less than 2 % of rate"]
    once = "twice" if question.batching.waits == 2.0 else "once"
    return [f"{how}; the largest has the highest rate of those that fit {once} into the objective (both were tried)"]


def _money(serving: Serving) -> list[str]:
    prices, out = serving.question.prices, []
    unpriced = []
    for acc in {g.acc.target: g.acc for g in serving.question.groups}.values():
        rent, purchase = prices.rent_of(acc), prices.purchase_of(acc)
        found = [f"{what} {price}" for what, price in (("rent", rent), ("purchase", purchase)) if price is not None]
        if found:
            out.append(f"price of a chip of {acc.target}: {' and '.join(found)}")
        else:
            unpriced.append(acc.target)
    if unpriced:
        advice = "--price TARGET=2.10USD/h (rent) or =249USD (purchase), or --prices FILE, gives one"
        out.append(f"no price is known of {', '.join(unpriced)}: {advice}")
    cost = serving.cost
    names = [] if cost is None or cost.least is None else ["utilization"]
    names += ["electricity", "cooling", "life_years"] if cost is not None and cost.hardware is not None else []
    names += [n for n in ("cooling", "carbon_g_per_kwh") if n not in names] if prices.carbon_g_per_kwh else []
    for name in names:
        value = prices.assumptions[name]
        out.append(f"{name.replace('_', ' ')} {value.text} ({value.source})")
    if serving.in_time is not None and names:
        out.append("a million is counted of inferences in time: late and dropped ones are paid for by the others")
    out.append("power, energy and prices are those of the accelerators: hosts and network are left out")
    return out
