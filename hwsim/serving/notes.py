"""What a serving answer says about itself: what was chosen, what it includes, what it leaves out, prices with dates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.report.table import size
from hwsim.units import format_quantity

if TYPE_CHECKING:
    from hwsim.serving.answer import Question, Serving
    from hwsim.serving.base import Answer
    from hwsim.serving.token_answer import TokenServing


def batch_notes(serving: Serving) -> tuple[str, ...]:
    """Return the notes of an answer in batches, the ones that change its meaning first."""
    question, load = serving.question, serving.load
    out = [*_overloaded(serving), *_fits(serving)]
    out += list(dict.fromkeys(s.note for g in question.groups for s in g.services if s.note))
    out += [
        f"{group.acc.target} does not serve {model.net.name}: {service.refused}"
        for group in question.groups
        for model, service in zip(question.models, group.services, strict=True)
        if service.refused
    ]
    out += _batches(question)
    host = question.host
    if host.before_s or host.after_s:
        by = "as many workers as it takes" if host.workers is None else f"{host.workers} workers a stage"
        before, after = (format_quantity(t, "time", 3) for t in (host.before_s, host.after_s))
        what = f" ({host.said})" if host.said else ""
        out.append(
            f"host work on each request{what}: {before} before and {after} after the machine, by {by}; without its energy"
        )
    out += _warmup(serving)
    if load.variation:
        out.append(
            f"the time of a batch varies by {100 * load.variation:.3g} % (gamma distribution), given, not predicted"
        )
    else:
        out.append(
            "equal batches take equal times: a real machine's own variation is left out (--variation 5% adds it)"
        )
    if question.concurrent > 1:
        out.append(
            f"up to {question.concurrent} batches share a machine equally; that they fill it better together is left out"
        )
    else:
        out.append("batches of a machine run one after the other, without overlap unless its family overlaps runs")
    return (*out, *_money(serving))


def token_notes(serving: TokenServing) -> tuple[str, ...]:
    """Return the notes of an answer in tokens."""
    question = serving.question
    out = _overloaded(serving)
    out += list(dict.fromkeys(g.service.note for g in question.groups if g.service.note))
    for group in question.groups:
        kind = group.known.kind
        tokens = kind.blocks * kind.block_tokens
        chosen = "asked for" if question.max_batch is not None else _why_so_many(question.tpot_s)
        out.append(
            f"{group.acc.target}: weights {size(group.service.weight_bytes)}, room for the keys and values of {tokens} tokens "
            f"({size(tokens * group.service.kv_bytes)}); at most {kind.most} requests together, {chosen}"
        )
    how = {
        "paged": f"memory is given in blocks of {question.block_tokens} tokens as they fill; when none is left the youngest "
        "request goes back to the queue and is read again",
        "full": "a request is admitted when all its tokens fit, known in advance",
    }[question.reserve]
    out.append(f"prompts are read before anyone gets another token, {question.prefill_batch} at a time; {how}")
    out.append(
        "times of prefill and decode are simulated at some lengths and powers of two of requests; lengths between lie on "
        "straight lines, batches between run as the next larger one"
    )
    out.append("sampling, scheduling and the network between user and machine take no time; prompts share no prefix")
    out += _warmup(serving)
    return (*out, *_money(serving))


def _why_so_many(tpot_s: float | None) -> str:
    memory = "the power of two (256 at most) that fills it at their mean length"
    return memory if tpot_s is None else f"{memory} and within the objective between tokens"


def _overloaded(answer: Answer) -> list[str]:
    factor = answer.load_factor
    if factor is None or factor < 1:
        return []
    return [
        f"more is asked than the machines serve ({factor:.2f} times the most they do): the queue grows as long as requests "
        "come, and every figure of latency depends on how long that is"
    ]


def _warmup(answer: Answer) -> list[str]:
    if not answer.warmup:
        return []
    return [f"the first {100 * answer.warmup:.3g} % of the requests meet emptier queues and are not counted"]


def _fits(serving: Serving) -> list[str]:
    out = []
    for group, kind in zip(serving.question.groups, serving.setup.kinds, strict=True):
        if any(kind.swap_ns):
            times = ", ".join(
                f"{model.net.name} {format_quantity(ns / 1e9, 'time', 3)}"
                for model, ns in zip(serving.question.models, kind.swap_ns, strict=True)
                if ns
            )
            if group.services[0].alone:
                out.append(
                    f"{group.acc.target}: the chip keeps the parameters of one network at a time (compiled apart); a change "
                    f"takes {times}, as a cold run does"
                )
                continue
            need, room = size(sum(kind.weight_bytes)), size(kind.capacity_bytes)
            out.append(
                f"{group.acc.target}: the networks take turns in memory ({need} of weights, room for {room}); loading one "
                f"takes {times}, over the link to the host"
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
    if question.within_s is None:
        return [f"{how}; the largest is where twice as many gain less than 2 % of rate"]
    once = "twice" if question.batching.waits == 2.0 else "once"
    return [f"{how}; the largest has the highest rate of those that fit {once} into the objective (both were tried)"]


def _money(answer: Answer) -> list[str]:
    prices, cost, out, unpriced = answer.prices, answer.cost, [], []
    for acc in {acc.target: acc for acc, _, _ in answer.fleet}.values():
        rent, purchase = prices.rent_of(acc), prices.purchase_of(acc)
        found = [f"{what} {price}" for what, price in (("rent", rent), ("purchase", purchase)) if price is not None]
        if found:
            out.append(f"price of a chip of {acc.target}: {' and '.join(found)}")
        else:
            unpriced.append(acc.target)
    if unpriced:
        advice = "--price TARGET=2.10USD/h (rent) or =249USD (purchase), or --prices FILE, gives one"
        out.append(f"no price is known of {', '.join(unpriced)}: {advice}")
    names = [] if cost is None or cost.least is None else ["utilization"]
    names += ["electricity", "cooling", "life_years"] if cost is not None and cost.hardware is not None else []
    names += [n for n in ("cooling", "carbon_g_per_kwh") if n not in names] if prices.carbon_g_per_kwh else []
    for name in names:
        value = prices.assumptions[name]
        out.append(f"{name.replace('_', ' ')} {value.text} ({value.source})")
    if answer.in_time is not None and names:
        what = {"inference": "inferences", "token": "tokens of output of requests"}[answer.unit]
        out.append(f"a million is counted of {what} in time: late and dropped ones are paid for by the others")
    out.append("power, energy and prices are those of the accelerators: hosts and network are left out")
    return out
