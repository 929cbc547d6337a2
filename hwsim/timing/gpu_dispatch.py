"""How long a grid of CTAs keeps a GPU, given how long each takes: waves and tail in closed form.

The hardware hands out CTAs in the order of their index: first one to each SM in turn, then a second to each, until every
*slot* (SM x resident CTAs an SM can hold) is taken; from then on a CTA goes to whichever slot falls free first.
`hwsim.timing.reference.gpu_cta` does just that, event by event, and `tests/timing/test_gpu_dispatch.py` holds the two
equal where a docstring says *exact*.

Two views of a slot:

- *fixed*: a CTA takes its time whoever else is there (`grid_makespan`, `split_makespan`, `graham_bounds`);
- *shared*: the CTAs on one SM share its pipes, so a CTA's time depends on how many are resident (`shared_makespan`).

Everything is integer arithmetic on Python ints or int64 arrays, which broadcast.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

Ints: TypeAlias = Any
"""A Python int or a numpy int64 array."""


class Makespan(NamedTuple):
    """``cycles`` until the last CTA has ended; ``waves`` in which CTAs start; ``tail``: slots that stay empty in the last.

    ``busy``: slot-cycles in use, so ``busy / (slots x cycles)`` is the share of the machine's time that was used.
    """

    cycles: Ints
    waves: Ints
    tail: Ints
    busy: Ints


def grid_makespan(ctas: Ints, slots: Ints, cycles: Ints) -> Makespan:
    """Makespan of ``ctas`` CTAs of ``cycles`` each on ``slots`` slots (SMs x CTAs per SM); ``slots`` at least 1. *Exact*."""
    waves = -(-ctas // slots)
    return Makespan(waves * cycles, waves, waves * slots - ctas, ctas * cycles)


def split_makespan(ctas: Ints, cycles: Ints, more_ctas: Ints, more_cycles: Ints, slots: Ints) -> Makespan:
    """Makespan of ``ctas`` of ``cycles`` each and then ``more_ctas`` of ``more_cycles`` each, in that order. *Exact*.

    Two blocks, as when the last split of K or the last band of the grid is the shorter one. The first block ends with
    ``ahead`` slots one CTA further than the others. Those others take CTAs of the second block until they have caught
    up; from then on both groups start one CTA each per ``more_cycles``, the caught-up group ``lag`` cycles later.
    Both times at least 1 where there are CTAs that take them.
    """
    done, ahead = ctas // slots, ctas % slots
    behind = slots - ahead
    even = done * cycles  # when the slots behind fall free; those ahead follow at even + cycles
    step = np.maximum(more_cycles, 1)
    catch = -(-cycles // step)  # CTAs each slot behind starts before those ahead are free
    short = more_ctas <= catch * behind  # the second block is used up before that
    early = even + -(-more_ctas // behind) * more_cycles
    lag = catch * step - cycles
    rest = np.maximum(more_ctas - catch * behind, 0)
    rounds, left = rest // slots, rest % slots
    base = even + cycles
    # A round gives one CTA to each slot ahead, then one to each behind.
    last_ahead = np.where(left > 0, rounds + 1, rounds) * more_cycles
    last_behind = lag + np.where(left > ahead, rounds + 1, rounds) * more_cycles
    late = base + np.where(ahead > 0, np.maximum(last_ahead, last_behind), last_behind)
    first = even + np.where(ahead > 0, cycles, 0)
    total = np.where(short, np.maximum(first, np.where(more_ctas > 0, early, 0)), late)
    waves = -(-(ctas + more_ctas) // slots)
    busy = ctas * cycles + more_ctas * more_cycles
    return Makespan(_plain(total), waves, waves * slots - ctas - more_ctas, busy)


def shared_makespan(ctas: Ints, sms: Ints, cycles: Ints) -> Makespan:
    """Makespan of ``ctas`` equal CTAs on ``sms`` SMs whose residents share the SM. *Exact*.

    ``cycles[..., r - 1]``: what a CTA takes where ``r`` are resident all along (last axis: r = 1 ... the most an SM
    holds; must not fall with r). The residents of an SM start and end together, so the grid runs in full waves of
    sms x r CTAs and a last one, dealt evenly: its busiest SM holds ⌈rest / sms⌉. ``busy`` counts slots in use.
    """
    times = np.asarray(cycles, np.int64)
    residents = times.shape[-1]
    slots = sms * residents
    full, rest = ctas // slots, ctas % slots
    deepest = -(-rest // sms)  # residents of the busiest SM in the last wave
    shape = np.broadcast_shapes(times.shape[:-1], np.shape(deepest))
    table = np.broadcast_to(times, (*shape, residents))
    index = np.broadcast_to(np.maximum(deepest, 1) - 1, shape)
    last = np.where(rest > 0, np.take_along_axis(table, index[..., None], axis=-1)[..., 0], 0)
    # In the last wave some SMs hold `deepest` CTAs, the others one fewer.
    shallow = np.take_along_axis(table, np.maximum(index - 1, 0)[..., None], axis=-1)[..., 0]
    deep_sms = rest - sms * np.maximum(deepest - 1, 0)
    busy = full * slots * times[..., -1] + np.where(
        rest > 0, deep_sms * deepest * last + (sms - deep_sms) * np.maximum(deepest - 1, 0) * shallow, 0
    )
    waves = full + (rest > 0)
    total = full * times[..., -1] + last
    return Makespan(_plain(total), waves, _plain(waves * slots - ctas), _plain(busy))


def graham_bounds(work: Ints, longest: Ints, slots: Ints) -> tuple[Ints, Ints]:
    """Least and most cycles of any grid with ``work`` slot-cycles in all and ``longest`` for its longest CTA.

    Whatever the order of its CTAs: no slot idles while a CTA waits, so the last one starts at the latest when all slots
    have shared the other work evenly (Graham, *Bounds for certain multiprocessing anomalies*, 1966).
    """
    least = np.maximum(-(-work // slots), longest)
    return _plain(least), _plain((work - longest) // slots + longest)


def _plain(value: Any) -> Ints:
    """A numpy scalar as an int, an array as it is."""
    return int(value) if np.ndim(value) == 0 else value
