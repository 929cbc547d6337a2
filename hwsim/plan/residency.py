"""Residency: which activations stay on the chip between the kernel that makes them and those that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def keep_on_chip(
    made: Sequence[Sequence[str]],
    read: Sequence[Sequence[str]],
    size: Mapping[str, int],
    capacity: int,
    outside: set[str],
) -> set[str]:
    """Return the tensors kept in a memory of ``capacity`` bytes: first come, first served, freed after the last read.

    ``made[k]`` and ``read[k]`` name the tensors kernel ``k`` writes and reads; ``outside`` are network inputs and
    outputs, which live off-chip. The sum of kept tensors alive at one time never exceeds the capacity.
    """
    last: dict[str, int] = {}
    for k, names in enumerate(read):
        for name in names:
            last[name] = k
    kept: set[str] = set()
    free = capacity
    ending: dict[int, list[str]] = {}
    for k, names in enumerate(made):
        for name in names:
            if name in outside or name not in last or last[name] <= k:
                continue
            if size[name] <= free:
                free -= size[name]
                kept.add(name)
                ending.setdefault(last[name], []).append(name)
        for name in ending.get(k, ()):
            free += size[name]
    return kept
