"""serve, as it is called: options in, an answer out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from hwsim.costs import Prices, load_prices
from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.plan.options import RunOptions
from hwsim.report.progress import Progress
from hwsim.serving import search
from hwsim.serving.answer import Objective, Question, Serving
from hwsim.serving.arrivals import Pattern, parse_pattern
from hwsim.serving.fleet import MOST_MACHINES, Batching, Networks, Targets, read_groups, read_models
from hwsim.serving.host import Host
from hwsim.serving.load import make_load
from hwsim.serving.search import Found, Tell
from hwsim.serving.service import BETWEEN
from hwsim.serving.setup import ORDERS, ROUTINGS
from hwsim.serving.trace import Trace, read_trace
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
    variation: str | float = 0.0,
    before: str | float = 0.0,
    after: str | float = 0.0,
    host_workers: int | None = None,
    swap_bandwidth: str | float | None = None,
    precision: str | Mapping[str, str] | None = None,
    shapes: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    sparsity: str | None = None,
    prices: Prices | str | PathLike[str] | None = None,
    progress: bool = False,
) -> Serving:
    """Return what many requests for ``network`` meet on ``targets``: latency percentiles, use, energy, money.

    Networks may be several with shares (``"resnet50=70%,bert_base=30%"``), machines too (``"4xtpu-v5e,tpu-v4"``), and
    all of them ``machines`` times; ``"search"`` finds the fewest that meet the objective. ``scenario`` is MLPerf's
    single-stream, multi-stream, server (the default: requests come by themselves at ``rate``) or offline; ``clients``
    ask again ``pause`` after their answer. Without a rate (or with ``"search"``) the highest that meets the objective is
    searched.
    ``arrivals`` is uniform, poisson, gamma:SPREAD or mmpp:PEAK,SHARE,BURST; ``trace`` a CSV file of recorded requests.
    ``slo`` is to hold for ``percentile`` per cent of the requests. Batches hold at most ``max_batch`` samples and wait
    ``max_delay`` for more; sizes between the simulated ones are padded, interpolated or simulated too (``between``).
    ``routing`` chooses a machine for each request; ``queue`` rejects, ``timeout`` drops; ``variation`` spreads the time of
    batches; ``before`` and ``after`` are host work on each request. The rest is as for `simulate` and `compare`.
    Times and rates are text with a unit, or seconds and requests per second. Raises HwsimError for a wrong option, an
    unknown name, or a network no machine runs.
    """
    searching, rate = rate == "search", None if rate == "search" else rate
    options = RunOptions(1, {} if shapes is None else shapes, phase, context, precision, sparsity).check()
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
    )
    wanted = _PERCENTILES[load.scenario] if percentile is None else quantity("percentile", percentile, "ratio", 0, 100)
    if not 0 < wanted <= 100:
        raise HwsimError(f"percentile must be more than 0 and at most 100, not {percentile!r}")
    if searching and not load.open:
        raise HwsimError(f"rate: the {load.scenario} scenario sets its own pace; there is none to search")
    objective = Objective(_maybe("slo", slo, "time", 1e-9, 1e6), float(wanted))
    if load.clients and (queue is not None or timeout is not None):
        raise HwsimError("queue and timeout: clients that wait for their answer are never turned away")
    batching = Batching(
        _whole("max_batch", max_batch, _MOST_BATCH),
        quantity("max_delay", max_delay, "time", 0.0, 1e6),
        _one_of("between", between, BETWEEN),
    )
    if load.scenario == "multi-stream" and batching.largest is None:
        batching = replace(batching, largest=load.samples)
    elif load.scenario == "single-stream" and batching.largest is None:
        batching = replace(batching, largest=min(load.clients * load.samples, 64))
    opening = 0.05 if load.open and recorded is None else 0.0
    models = read_models(network, options)
    groups = read_groups(targets, models, options)
    copies = _copies(machines, sum(g.count for g in groups))
    priced = _prices(prices)
    priced.check_names((file.stem for file in accelerators_dir().glob("*.toml")), [g.acc for g in groups])
    question = Question(
        models,
        groups,
        objective,
        batching,
        _one_of("routing", routing, ROUTINGS) if load.scenario != "offline" else "shared",
        _one_of("order", order, ORDERS),
        _whole("queue", queue),
        _maybe("timeout", timeout, "time", 0.0, 1e6),
        Host(
            quantity("before", before, "time", 0.0, 1e6),
            quantity("after", after, "time", 0.0, 1e6),
            _whole("host_workers", host_workers),
        ).check(load.clients),
        quantity("warmup", opening if warmup is None else warmup, "ratio", 0.0, 0.99),
        _maybe("swap_bandwidth", swap_bandwidth, "bandwidth", 1.0, 1e18),
        priced,
    )
    with Progress("serving") as bar:
        tell = _teller(bar) if progress else _quiet
        if copies is None:
            found = search.smallest_fleet(question, load, tell)
        elif searching or (load.open and recorded is None and load.rate_per_s is None):
            found = search.highest_rate(question.times(copies), load, tell)
        else:
            found = search.best_run(question.times(copies), load, tell)
    return _with_search(found, "machines" if copies is None else "rate")


def _with_search(found: Found, what: str) -> Serving:
    serving = found.best
    if found.passes is not None or found.fails is not None:
        serving.searched = {"what": what, "passes": found.passes, "fails": found.fails, "runs": found.runs}
    return serving


def _teller(bar: Progress) -> Tell:
    return lambda what: bar.step(f"serving {what}, run")


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
