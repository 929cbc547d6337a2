"""A result as plain data: what its JSON holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import hwsim

if TYPE_CHECKING:
    from hwsim.result.result import Result


def plain_data(result: Result) -> dict[str, Any]:
    """Return everything a result says as plain data, JSON-ready."""
    options = result.options
    return {
        "hwsim": hwsim.__version__,
        "network": result.network.name,
        "target": result.accelerator.target,
        "options": {
            "batch": options.batch,
            "shapes": dict(options.shapes),
            "phase": options.phase,
            "context": options.context,
            "precision": options.precision if isinstance(options.precision, str | None) else dict(options.precision),
            "sparsity": options.sparsity,
        },
        "latency_s": result.latency_s,
        "cycles": result.cycles,
        "throughput_per_s": result.throughput_per_s,
        "energy_j": result.energy_j,
        "power_w": result.power_w,
        "dram_bytes": result.dram_bytes,
        "macs": result.macs,
        "utilization": result.utilization,
        "bound_by": result.bound_by,
        "bound_s": result.bound_s,
        "error_band": None if result.error_band is None else asdict(result.error_band),
        "time_shares": result.time_shares,
        "energy_components_j": {
            name: float(v.sum()) * result.totals.used for name, v in result.energy.per_kernel.items()
        },
        "weight_bytes": result.plan.weight_bytes,
        "peak_activation_bytes": result.plan.activation_bytes,
        "kv_cache_bytes": result.plan.cache_bytes,
        "memory": _memory(result),
        "tokens": _tokens(result),
        "parallel": {"groups": result.groups, "ways": result.totals.ways},
        "programs": {
            "available": result.totals.programs,
            "used": result.totals.used,
            "batch_each": result.totals.share,
        },
        "plan": result.plan.digest,
        "machine": result.accelerator.digest,
        "notes": list(result.notes),
        "assumptions": list(result.assumptions),
        "kernels": result.kernels,
    }


def _memory(result: Result) -> dict[str, Any] | None:
    memory = result.memory
    if memory is None:
        return None
    more = {"need": memory.need, "largest_batch": memory.largest_batch * result.groups}
    return {**asdict(memory), **more, "longest_context": memory.longest_context}


def _tokens(result: Result) -> dict[str, Any] | None:
    tokens = result.tokens
    if tokens is None:
        return None
    names = ("phase", "new", "past", "per_s", "each_per_s", "ttft_s", "tpot_s")
    return {name: getattr(tokens, name) for name in names}
