"""The third reading: networks run with values, on reference arithmetic or a machine's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.execution.numerics_report import numerics
    from hwsim.execution.run import Execution, execute
    from hwsim.execution.verification import Verification, verify
    from hwsim.execution.weights import random_weights

_HOME = {
    "Execution": "run",
    "Verification": "verification",
    "execute": "run",
    "numerics": "numerics_report",
    "random_weights": "weights",
    "verify": "verification",
}
__all__ = ["Execution", "Verification", "execute", "numerics", "random_weights", "verify"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"hwsim.execution.{_HOME[name]}"), name)
    raise AttributeError(f"module 'hwsim.execution' has no attribute {name!r}")
