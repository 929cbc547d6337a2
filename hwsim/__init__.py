"""hwsim: cycle-level models of neural-network accelerators that explain their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hwsim.api import conv2d, list_accelerators, list_networks, matmul
    from hwsim.comparison import compare
    from hwsim.comparison.sparsity import sparsity_map
    from hwsim.errors import HwsimError
    from hwsim.execution.numerics_report import numerics
    from hwsim.execution.run import execute
    from hwsim.execution.verification import verify
    from hwsim.machine import load_accelerator
    from hwsim.network.graph import Network
    from hwsim.network.load import load_network
    from hwsim.plan.plan import Plan
    from hwsim.result import Result
    from hwsim.serving import serve
    from hwsim.simulation import simulate
    from hwsim.simulation.capacity import largest_batch, longest_context
    from hwsim.simulation.generation import generate

_HOME = {
    "HwsimError": "hwsim.errors",
    "Network": "hwsim.network.graph",
    "Plan": "hwsim.plan.plan",
    "Result": "hwsim.result",
    "compare": "hwsim.comparison",
    "conv2d": "hwsim.api",
    "execute": "hwsim.execution.run",
    "generate": "hwsim.simulation.generation",
    "largest_batch": "hwsim.simulation.capacity",
    "longest_context": "hwsim.simulation.capacity",
    "list_accelerators": "hwsim.api",
    "list_networks": "hwsim.api",
    "load_accelerator": "hwsim.machine",
    "load_network": "hwsim.network.load",
    "matmul": "hwsim.api",
    "numerics": "hwsim.execution.numerics_report",
    "serve": "hwsim.serving",
    "simulate": "hwsim.simulation",
    "sparsity_map": "hwsim.comparison.sparsity",
    "verify": "hwsim.execution.verification",
}

_PARTS = ("arithmetic", "scalesim")

__all__ = [
    "HwsimError",
    "Network",
    "Plan",
    "Result",
    "compare",
    "conv2d",
    "execute",
    "generate",
    "largest_batch",
    "list_accelerators",
    "list_networks",
    "load_accelerator",
    "load_network",
    "longest_context",
    "matmul",
    "numerics",
    "serve",
    "simulate",
    "sparsity_map",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Load public names on first use, so that importing hwsim costs nothing."""
    from importlib import import_module

    if name in _PARTS:
        return import_module(f"hwsim.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_PARTS, "__version__"])
