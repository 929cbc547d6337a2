"""serve, as it is called: options in, an answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from hwsim.costs import Prices, load_prices
from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.machine import Accelerator
from hwsim.plan.options import RunOptions
from hwsim.report.progress import Progress
from hwsim.serving import search
from hwsim.serving.answer import Question, Serving
from hwsim.serving.arrivals import Pattern, parse_pattern
from hwsim.serving.fleet import (
    MOST_MACHINES,
    Batching,
    Group,
    Networks,
    Targets,
    read_groups,
    read_machines,
    read_models,
)
from hwsim.serving.host import Host
from hwsim.serving.load import Lengths, Load, make_load
from hwsim.serving.search import Found, Note, Tell
from hwsim.serving.service import BETWEEN
from hwsim.serving.setup import ORDERS, ROUTINGS
from hwsim.serving.token_answer import TokenGroup, TokenQuestion, TokenServing
from hwsim.serving.token_service import BLOCK_TOKENS, TokenService
from hwsim.serving.token_setup import RESERVES
from hwsim.serving.trace import Trace, read_trace
from hwsim.simulation.pipeline import pipeline_of
from hwsim.units import parse

_PERCENTILES = {"single-stream": 90.0, "multi-stream": 99.0, "server": 99.0, "offline": 99.0}  # as MLPerf reports them
_MOST_BATCH = 65_536


def serve(
    network: Networks | Any,
    targets: Targets,
    *,
    scenario: str | None = None,
    rate: str | float | None = None,
    arrivals: str | Pattern = "poisson",
    trace: str | PathLike[str] | Trace | None = None,
    requests: int | None = None,
    duration: str | float | None = None,
    samples: int | None = None,
    clients: int | None = None,
    pause: str | float = 0.0,
    seed: int = 0,
    warmup: str | float | None = None,
    slo: str | float | None = None,
    percentile: float | None = None,
    machines: int | str = 1,
    max_batch: int | None = None,
    max_delay: str | float = 0.0,
    between: str = "pad",
    routing: str = "least-loaded",
    order: str = "oldest",
    queue: int | None = None,
    timeout: str | float | None = None,
    concurrent: int = 1,
    variation: str | float = 0.0,
    before: str | float = 0.0,
    after: str | float = 0.0,
    host_workers: int | None = None,
    pre: str | Sequence[str] = (),
    post: str | Sequence[str] = (),
    image: str = "1280x720",
    swap_bandwidth: str | float | None = None,
    precision: str | Mapping[str, str] | None = None,
    shapes: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    sparsity: str | None = None,
    stack: str | None = None,
    parallel: str | None = None,
    prompt: str | int | Lengths | None = None,
    output: str | int | Lengths | None = None,
    ttft: str | float | None = None,
    tpot: str | float | None = None,
    reserve: str = "paged",
    prefill_batch: int = 1,
    block: int = BLOCK_TOKENS,
    prices: Prices | str | PathLike[str] | None = None,
    progress: bool = False,
) -> Serving | TokenServing:
    """Return what many requests for ``network`` meet on ``targets``: latency percentiles, use, energy, money.

    Networks may be several with shares (``"resnet50=70%,bert_base=30%"``), machines too (``"4xtpu-v5e,tpu-v4"``), and
    all of them ``machines`` times; ``"search"`` finds the fewest that meet the objective. ``scenario`` is MLPerf's
    single-stream, multi-stream, server (the default: requests come by themselves at ``rate``) or offline; ``clients``
    ask again ``pause`` after their answer. Without a rate (or with ``"search"``) the highest that meets the objective is
    searched.
    ``arrivals`` is uniform, poisson, gamma:SPREAD or mmpp:PEAK,SHARE,BURST; ``trace`` a CSV file of recorded requests.
    ``slo`` is to hold for ``percentile`` per cent of the requests. Batches hold at most ``max_batch`` samples and wait
    ``max_delay`` for more; sizes between the simulated ones are padded, interpolated or simulated too (``between``).
    Up to ``concurrent`` batches share a machine.
    ``routing`` chooses a machine for each request; ``queue`` rejects, ``timeout`` drops; ``variation`` spreads the time of
    batches; ``before`` and ``after`` are host work on each request, ``pre`` and ``post`` name stages of it as for `run`, of
    an ``image`` as it arrives.

    With lengths of ``prompt`` and ``output`` (512, or ``"512±50%"``; a recording may have both) a language model serves
    tokens in continuous batches: the first within ``ttft``, the others every ``tpot``; ``reserve`` is paged or full.
    The rest is as for `simulate` and `compare`.
    Times and rates are text with a unit, or seconds and requests per second. Raises HwsimError for a wrong option, an
    unknown name, or a network no machine runs.
    """
    searching, rate = rate == "search", None if rate == "search" else rate
    options = RunOptions(
        1, {} if shapes is None else shapes, phase, context, precision, sparsity, stack, parallel=parallel
    ).check()
    recorded = trace if isinstance(trace, Trace | None) else read_trace(Path(trace))
    load = make_load(
        scenario,
        rate_per_s=_maybe("rate", rate, "rate", 1e-9, 1e12),
        pattern=arrivals if isinstance(arrivals, Pattern) else parse_pattern(arrivals),
        trace=recorded,
        count=_whole("requests", requests),
        duration_s=_maybe("duration", duration, "time", 1e-9, 1e9),
        samples=_whole("samples", samples),
        clients=_whole("clients", clients),
        pause_s=quantity("pause", pause, "time", 0.0, 1e6),
        variation=quantity("variation", variation, "ratio", 0.0, 10.0),
        seed=_seed(seed),
        prompt=_lengths("prompt", prompt),
        output=_lengths("output", output),
    )
    if searching and not load.open:
        raise HwsimError(f"rate: the {load.scenario} scenario sets its own pace; there is none to search")
    wanted = _PERCENTILES[load.scenario] if percentile is None else quantity("percentile", percentile, "ratio", 0, 100)
    if wanted <= 0:
        raise HwsimError(f"percentile must be more than 0 and at most 100, not {percentile!r}")
    if load.clients and (queue is not None or timeout is not None):
        raise HwsimError("queue and timeout: clients that wait for their answer are never turned away")
    opening = 0.05 if load.open and recorded is None else 0.0
    common = Common(
        within_s=_maybe("slo", slo, "time", 1e-9, 1e6),
        percentile=float(wanted),
        routing="shared" if load.scenario == "offline" else _one_of("routing", routing, ROUTINGS),
        queue_capacity=_whole("queue", queue),
        timeout_s=_maybe("timeout", timeout, "time", 0.0, 1e6),
        warmup=quantity("warmup", opening if warmup is None else warmup, "ratio", 0.0, 0.99),
        prices=_prices(prices),
        max_batch=_whole("max_batch", max_batch, _MOST_BATCH),
    )
    of_tokens = load.of_tokens
    for name, value in (("ttft", ttft), ("tpot", tpot)):
        if value is not None and not of_tokens:
            raise HwsimError(
                f"{name}: is of tokens; give the lengths of prompts and outputs (--prompt 512 --output 128)"
            )
    question: search.Asked
    if of_tokens:
        refused = {
            "before": before, "after": after, "variation": variation, "max_delay": max_delay, "phase": phase, "context": context,
            "host_workers": host_workers, "pre": pre, "post": post, "concurrent": concurrent - 1,
        }  # fmt: skip
        given = next((name for name, value in refused.items() if value), None)
        if given is not None:
            raise HwsimError(
                f"{given.replace('_', ' ')}: is for networks in batches, not for tokens of a language model"
            )
        question = _tokens(network, targets, options, load, common, ttft, tpot, reserve, prefill_batch, block)
    else:
        question = _batches(
            network, targets, options, load, common,
            Batching(
                common.max_batch, quantity("max_delay", max_delay, "time", 0.0, 1e6), _one_of("between", between, BETWEEN)
            ),
            _one_of("order", order, ORDERS),
            Host(
                quantity("before", before, "time", 0.0, 1e6),
                quantity("after", after, "time", 0.0, 1e6),
                _whole("host_workers", host_workers),
            ).check(load.clients),
            _maybe("swap_bandwidth", swap_bandwidth, "bandwidth", 1.0, 1e18),
            _whole("concurrent", concurrent, 16) or 1,
            (pre, post, image),
        )  # fmt: skip
    copies = _copies(machines, sum(g.count for g in question.groups))
    with Progress("serving", load.count) as bar:
        tell = _teller(bar) if progress else _quiet
        if copies is None:
            found = search.smallest_fleet(question, load, tell)
        elif searching or (load.open and recorded is None and load.rate_per_s is None):
            found = search.highest_rate(question.times(copies), load, tell)
        else:
            found = search.best_run(question.times(copies), load, tell)
    return _with_search(found, "machines" if copies is None else "rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Options of every question, checked."""

    within_s: float | None
    percentile: float
    routing: str
    queue_capacity: int | None
    timeout_s: float | None
    warmup: float
    prices: Prices
    max_batch: int | None


def _batches(
    network: Networks | Any,
    targets: Targets,
    options: RunOptions,
    load: Load,
    common: Common,
    batching: Batching,
    order: str,
    host: Host,
    swap_bytes_per_s: float | None,
    concurrent: int,
    stages: tuple[str | Sequence[str], str | Sequence[str], str],
) -> Question:
    if load.scenario == "multi-stream" and batching.largest is None:
        batching = replace(batching, largest=load.samples)
    elif load.scenario == "single-stream" and batching.largest is None:
        batching = replace(batching, largest=min(load.clients * load.samples, 64))
    models = read_models(network, options)
    groups = read_groups(targets, models, options)
    _check_prices(common.prices, [g.acc for g in groups])
    if stages[0] or stages[1]:
        host = _with_stages(host, groups, *stages)
    return Question(
        models, groups, common.within_s, common.percentile, batching, common.routing, order, common.queue_capacity,
        common.timeout_s, concurrent, host, common.warmup, swap_bytes_per_s, common.prices,
    )  # fmt: skip


def _with_stages(
    host: Host, groups: tuple[Group, ...], pre: str | Sequence[str], post: str | Sequence[str], image: str
) -> Host:
    """The host's work with the stages simulated for one inference; the same for all, so of one network on one machine."""
    if len(groups) > 1 or len(groups[0].services) > 1:
        raise HwsimError(
            "pre and post: stages are simulated for one network on one kind of machine; give before and after"
        )
    around = pipeline_of(groups[0].services[0].result(1), pre=pre, post=post, image=image)
    before, after = (sum(s.seconds for s in side) for side in (around.before, around.after))
    names = ", ".join(s.name for s in (*around.before, *around.after))
    return replace(
        host, before_s=host.before_s + before, after_s=host.after_s + after, said=f"{names} on {around.host}, simulated"
    )


def _tokens(
    network: Networks | Any,
    targets: Targets,
    options: RunOptions,
    load: Load,
    common: Common,
    ttft: str | float | None,
    tpot: str | float | None,
    reserve: str,
    prefill_batch: int,
    block: int,
) -> TokenQuestion:
    models = read_models(network, options)
    if len(models) != 1:
        raise HwsimError("tokens: one language model at a time is served")
    machines = read_machines(targets)
    _check_prices(common.prices, [acc for acc, _ in machines])
    question = TokenQuestion(
        models[0].net,
        tuple(TokenGroup(acc, count, TokenService(models[0].net, acc, options)) for acc, count in machines),
        _maybe("ttft", ttft, "time", 1e-9, 1e6),
        _maybe("tpot", tpot, "time", 1e-9, 1e6),
        common.within_s,
        common.percentile,
        common.max_batch,
        _whole("prefill_batch", prefill_batch, 64) or 1,
        _one_of("reserve", reserve, RESERVES),
        _whole("block", block, 4096) or BLOCK_TOKENS,
        common.routing,
        common.queue_capacity,
        common.timeout_s,
        common.warmup,
        common.prices,
    )
    return question.prepared(*load.tokens())


def _check_prices(prices: Prices, machines: list[Accelerator]) -> None:
    prices.check_names((file.stem for file in accelerators_dir().glob("*.toml")), machines)


def _lengths(name: str, value: str | int | Lengths | None) -> Lengths | None:
    """Tokens as 512, or with a spread as ``512±50%`` (also ``512+-50%``)."""
    if value is None or isinstance(value, Lengths):
        return value
    mean, _, spread = str(value).replace("+-", "±").partition("±")
    try:
        found = Lengths(parse(mean, "ratio"), parse(spread, "ratio") if spread else 0.0)
    except HwsimError as error:
        raise HwsimError(f"{name}: {error}; write tokens as 512, or 512±50% with a spread") from None
    if not (1 <= found.mean <= 10_000_000 and 0 <= found.spread <= 10):
        raise HwsimError(f"{name} must be 1 to 10000000 tokens, spread by at most 1000 %, not {str(value)[:40]}")
    return found


def _with_search(found: Found, what: str) -> Serving | TokenServing:
    serving = found.best
    assert isinstance(serving, Serving | TokenServing)
    if found.passes is not None or found.fails is not None:
        serving.searched = {"what": what, "passes": found.passes, "fails": found.fails, "runs": found.runs}
    return serving


def _teller(bar: Progress) -> Tell:
    """One bar for all runs of a search: it starts anew with each, and counts them."""
    runs = 0

    def tell(what: str) -> Note:
        nonlocal runs
        runs += 1
        bar.at(0, f"serving {what}" + (f", run {runs}" if runs > 1 else ""))
        return bar.at

    return tell


def _quiet(what: str) -> None:
    """Nobody watches."""


def _prices(prices: Prices | str | PathLike[str] | None) -> Prices:
    if not isinstance(prices, Prices | str | PathLike | None):
        raise HwsimError(f"prices must be a price file or Prices, not {prices!r}")
    return Prices() if prices is None else prices if isinstance(prices, Prices) else load_prices(Path(prices))


def _copies(machines: int | str, each: int) -> int | None:
    """How many copies of the machines; None when that is searched."""
    if machines == "search":
        return None
    text = str(machines)
    if isinstance(machines, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9) or int(text) < 1:
        raise HwsimError(f"machines must be a whole number of at least 1, or search, not {machines!r}")
    if int(text) * each > MOST_MACHINES:
        raise HwsimError(f"machines: {int(text) * each} are more than the {MOST_MACHINES} one run holds")
    return int(text)


def quantity(name: str, value: str | float, of: str, low: float, high: float) -> float:
    """Return a number given as text with a unit, or as a number in base units.

    Raises HwsimError when it is neither or not between ``low`` and ``high``.
    """
    if isinstance(value, str):
        try:
            number = parse(value, of)
        except HwsimError as error:
            raise HwsimError(f"{name}: {error}") from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise HwsimError(f"{name} must be text with a unit or a number, not {value!r}")
    if not low <= number <= high:
        raise HwsimError(f"{name} must be between {low:g} and {high:g} (in base units), not {str(value)[:40]}")
    return number


def _maybe(name: str, value: str | float | None, of: str, low: float, high: float) -> float | None:
    return None if value is None else quantity(name, value, of, low, high)


def _whole(name: str, value: int | None, high: int = 1_000_000_000) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
        raise HwsimError(f"{name} must be a whole number from 1 to {high}, not {value!r}")
    return value


def _seed(seed: int) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise HwsimError(f"seed must be a whole number from 0 to 2^63 - 1, not {seed!r}")
    return seed


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise HwsimError(f"unknown {name} {str(value)[:40]!r}: one of {', '.join(known)}{near(str(value), known)}")
    return value
