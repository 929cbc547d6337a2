"""What fits: the largest batch and the longest context of a network on a machine, whatever its family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import PathLike
from typing import Any

from hwsim.errors import FitError, HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.cache import LENGTH, own_context, with_cache
from hwsim.network.graph import Network
from hwsim.network.load import load_network
from hwsim.result import Result
from hwsim.simulation import simulate

MOST = 1 << 20  # larger answers are no limit


def largest_batch(
    network: str | PathLike[str] | Network | Any, target: str | PathLike[str] | Accelerator, **options: Any
) -> int:
    """Return the largest batch of ``network`` that fits ``target``; 0 where not even one input does.

    ``options`` are those of `simulate`, without ``batch``. Counted up to 2^20, which stands for no limit. Raises
    HwsimError for what is wrong with any batch.
    """
    net, acc = load_network(network), _machine(target)
    return _largest(lambda n: simulate(net, acc, batch=n, **options), lambda r: _of(r, "batch"))


def longest_context(
    network: str | PathLike[str] | Network | Any, target: str | PathLike[str] | Accelerator, *, batch: int = 1,
    **options: Any,
) -> int:  # fmt: skip
    """Return the longest context of a language model that fits ``target`` at ``batch``; 0 where none does.

    ``options`` are those of `simulate`, without ``context``; with ``phase="decode"`` tokens kept are counted, else tokens
    read. Never more than the model was made for, where its trace states that. Raises HwsimError for networks without a
    sequence length.
    """
    net, acc = load_network(network), _machine(target)
    if LENGTH not in net.symbols or with_cache(net) is None:
        raise HwsimError(f"network {net.name} is no language model with a cache: it has no context")
    own = own_context(net) - (options.get("phase") == "decode")  # the token being made is one of them
    run = partial(simulate, net, acc, batch=batch, **options)
    return _largest(lambda n: run(context=n), lambda r: _of(r, "context"), own if own > 0 else MOST)


def _machine(target: str | PathLike[str] | Accelerator) -> Accelerator:
    return load_accelerator(target if isinstance(target, Accelerator) else str(target))


def _of(result: Result, what: str) -> int:
    """What the memory of a run that fits says would fit."""
    memory = result.memory
    if memory is None:
        return MOST
    return memory.largest_batch * result.groups if what == "batch" else memory.longest_context


def _largest(run: Callable[[int], Result], guess: Callable[[Result], int], most: int = MOST) -> int:
    """The largest number up to ``most`` for which ``run`` finds memory: guessed from one run, then closed in on."""
    tried: dict[int, bool] = {}

    def fits(n: int) -> bool:
        if n not in tried:
            try:
                run(n)
                tried[n] = True
            except FitError:
                tried[n] = False
        return tried[n]

    try:
        first = guess(run(1))
    except FitError:
        return 0
    low, high, step = 1, max(2, min(first + 1, most)), 1
    while fits(high) and high < most:  # the guess was too low
        low, high = high, min(most, high + step)
        step *= 2
    if fits(high):
        return most
    low_step = 1
    while high - low > 1:
        # Close under what is known not to fit first: the guess is rarely far off.
        middle = max(low + 1, high - low_step) if low_step < high - low else (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
        low_step *= 2
    return low
