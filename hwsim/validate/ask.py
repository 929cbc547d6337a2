"""Answers to cases that are whole runs: one simulation each, equal questions asked once; the roofline beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.validate.case import Case, Outcome

if TYPE_CHECKING:
    from hwsim.network.graph import Network
    from hwsim.result import Result


def simulated(
    cases: Sequence[Case],
    network: Callable[[Mapping[str, Any]], Network | str],
    value: Callable[[Result, Case], float] = lambda result, case: result.latency_s,
    roofline: Callable[[Result, Case], float] = lambda result, case: result.bound_s,
) -> list[Outcome]:
    """Return the outcome of each case by `hwsim.simulate`.

    ``case.question`` holds ``options`` for simulate and whatever ``network`` makes the network from. A refusal is an
    outcome; ``value`` and ``roofline`` turn a result into what was measured.
    """
    from hwsim.simulation import simulate

    asked: dict[str, Result | str] = {}
    out: list[Outcome] = []
    for case in cases:
        key = f"{case.target}|{sorted((k, str(v)) for k, v in case.question.items())}"
        if key not in asked:
            try:
                options = case.question.get("options", {})
                asked[key] = simulate(network(case.question), case.target, **options)
            except HwsimError as error:
                asked[key] = str(error)
        found = asked[key]
        if isinstance(found, str):
            out.append(Outcome(case, refused=found))
        else:
            out.append(Outcome(case, value(found, case), roofline(found, case)))
    return out
