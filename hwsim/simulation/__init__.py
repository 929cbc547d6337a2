"""simulate: plan, lower, read. The one place where a network, a machine and options become a Result.

Each family of machines has its own module here, which is loaded when a machine of that family is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from os import PathLike
from typing import Any

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.cache import with_cache
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.plan.options import SPARSITIES, RunOptions
from hwsim.plan.parallel import layout_of
from hwsim.plan.plan import Plan
from hwsim.result import Result

# family: module of this package, with a function simulate_<module>
_RUNNERS = {"systolic": "systolic", "gpu": "gpu", "cpu": "cpu", "edge-tpu": "edge_tpu"}


def simulate(
    network: str | PathLike[str] | Network | Any,
    target: str | PathLike[str] | Accelerator,
    *,
    batch: int = 1,
    shapes: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    precision: str | Mapping[str, str] | None = None,
    sparsity: str | None = None,
    stack: str | None = None,
    cache: str = "warm",
    parallel: str | None = None,
    emulate: bool = False,
    plan: Plan | None = None,
) -> Result:
    """Return what ``network`` costs on ``target``: latency, energy, traffic, per kernel and in total, with reasons.

    ``batch`` multiplies the symbol N; ``shapes`` sets further symbols (``{"S": 384}``). ``phase`` and ``context`` set
    the lengths of a language model: ``prefill`` reads ``context`` new tokens, ``decode`` makes one token after
    ``context`` earlier ones. ``precision`` is a preset, layer patterns or None for the network's own formats.
    ``parallel`` says how several devices share the work: ``data`` (the batch), ``tensor`` (every product), or both as
    ``tensor=4,data=2``; by default the batch, and every product of a language model that fits no single device.
    ``emulate``: what a GPU does not multiply (a format, 2:4 sparse weights) is run in a wider format that holds it exactly,
    or dense, at its real cost, instead of being refused.
    ``plan`` runs an earlier result's plan again. Raises HwsimError, one line, when anything is wrong or does not fit.
    """
    options = RunOptions(
        batch, {} if shapes is None else shapes, phase, context, precision, sparsity, stack, cache, parallel, emulate
    ).check()
    net = load_network(network)
    acc = load_accelerator(target if isinstance(target, Accelerator) else str(target))
    if acc.family != "cpu" and options.sparsity is not None and options.sparsity not in SPARSITIES:
        raise HwsimError(
            f"{acc.id}: blocks of zeros ({options.sparsity}) are skipped by processors only; try 2:4 or dense"
        )
    if options.emulate and acc.family != "gpu":
        raise HwsimError(
            f"{acc.id}: --emulate is for GPUs; machines of family {acc.family} convert what they do not multiply, and say so"
        )
    if acc.family != "gpu" and layout_of(options.parallel, acc.programs, acc.id).tensor > 1:
        raise HwsimError(f"{acc.id}: tensor parallel is modelled for GPUs only; data parallel works")
    return family_runner(acc)(net, acc, options, plan)


Runner = Callable[[Network, Accelerator, RunOptions, Plan | None], Result]


def family_runner(acc: Accelerator) -> Runner:
    """Return the function that simulates machines of the family of ``acc``.

    Raises HwsimError for a family that cannot be simulated.
    """
    module = _RUNNERS.get(acc.family)
    if module is None:
        raise HwsimError(f"{acc.id}: family {acc.family!r} cannot be simulated; one of {', '.join(_RUNNERS)} can")
    found: Runner = getattr(import_module(f"hwsim.simulation.{module}"), f"simulate_{module}")
    return found


def bind_network(net: Network, options: RunOptions, batch: int) -> Network:
    """Return ``net`` at the batch and lengths the options ask for.

    Raises HwsimError when a file's batch is fixed, or a phase is asked of a network without lengths.
    """
    values: dict[str, int] = dict(options.shapes)
    if "N" in values:
        raise HwsimError("shapes: N is the batch; use the batch option")
    if "N" in net.symbols:
        values["N"] = batch
    elif options.batch != 1:
        fixed = f"{net.inputs[0].shape[0]}" if net.inputs and net.inputs[0].shape else "fixed"
        raise HwsimError(
            f"network {net.name}: its batch is fixed at {fixed} in the file; export it with a dynamic batch"
        )
    if options.phase is not None or options.context is not None:
        net = _lengths(net, options, values)
    return net.bind(**values)


def _lengths(net: Network, options: RunOptions, values: dict[str, int]) -> Network:
    if "S" not in net.symbols:
        raise HwsimError(f"network {net.name} has no sequence length: phase and context do not apply")
    length = options.context if options.context is not None else net.symbols["S"]
    cached = with_cache(net)
    if (options.phase or "prefill") == "prefill":
        values["S"] = length
        if cached is not None:
            values["P"] = 0
        return cached or net
    if cached is None:
        raise HwsimError(f"network {net.name} keeps no key/value cache: it has no decode phase")
    values["S"], values["P"] = 1, length
    return cached


def check_plan(plan: object, conditions: tuple[str, ...], network: str, machine: str) -> None:
    """Raise HwsimError unless ``plan`` was made for this very question."""
    if not isinstance(plan, Plan):
        raise HwsimError(f"plan must be the plan of an earlier result, not {type(plan).__name__}")
    if (plan.network, plan.machine) != (network, machine):
        raise HwsimError(f"plan is for {plan.network} on {plan.machine}, not {network} on {machine}")
    if plan.conditions != conditions:
        raise HwsimError(f"plan is for {', '.join(plan.conditions)}, not {', '.join(conditions)}")
