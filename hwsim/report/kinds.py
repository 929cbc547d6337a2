"""Kernels that cost the same, as the repeated blocks of a network do, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SAME = ("op", "format", "bound_s", "tile", "grid", "split_k", "dram_read_bytes", "dram_write_bytes")


def kinds(rows: Sequence[dict[str, Any]], count: int | None = None) -> list[list[dict[str, Any]]]:
    """Return rows of ``Result.kernels`` in groups alike in work, plan and every part of their time, costliest group first.

    ``count`` keeps that many groups.
    """
    times = [name for name in rows[0] if name.startswith("time_")] if rows else []
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in (*_SAME, *times)), []).append(row)
    return sorted(groups.values(), key=lambda group: -sum(row["latency_s"] for row in group))[:count]
