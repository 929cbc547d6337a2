"""Values of the PyTorch importer that no activation is behind, and small helpers on shapes and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from hwsim.network.dims import IntShape
from hwsim.network.torch_graph import Ref, TorchNode
from hwsim.network.torch_views import View

if TYPE_CHECKING:
    from hwsim.network.torch_convert import Converter

Value: TypeAlias = "View | Const | tuple[Any, ...] | None"


Handler: TypeAlias = "Callable[[Converter, str, TorchNode], Value]"


@dataclass(slots=True)
class Const:
    """A value known before the first float input: ``shape`` as seen, ``core`` as stored (it broadcasts to ``shape``).

    ``param`` is the parameter it is a view of, element for element; ``learned`` whether any parameter is behind it;
    ``causal`` whether positions were compared to make it.
    """

    shape: IntShape
    core: IntShape
    dtype: str
    param: str | None = None
    learned: bool = False
    causal: bool = False
    node: TorchNode | None = None
    runtime: str | None = None
    reads: dict[str, Value] = field(default_factory=dict)
    forced: View | None = field(default=None)


def per_axis(value: Any, rank: int) -> IntShape:
    """One value per spatial axis, a single one repeated."""
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    return values * rank if len(values) == 1 else values


def as_ints(value: Any) -> IntShape:
    """An integer or a list of them as a tuple."""
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)


def short(values: IntShape) -> IntShape:
    """One value where all are equal."""
    return values[:1] if len(set(values)) == 1 else values


def trim(shape: IntShape) -> IntShape:
    """Without leading dimensions of 1, which broadcasting adds back."""
    at = 0
    while at < len(shape) - 1 and shape[at] == 1:
        at += 1
    return shape[at:]


def broadcast_cores(cores: Sequence[IntShape], out: IntShape) -> IntShape:
    """Stored shape of an element-wise combination: ``cores`` broadcast, at the rank of ``out``."""
    rank = len(out)
    full = [(1,) * (rank - len(c)) + c for c in cores]
    return tuple(max((c[i] for c in full), default=1) for i in range(rank))


def refs(node: TorchNode) -> list[Ref]:
    """Every value a call reads."""
    found: list[Ref] = []

    def walk(value: Any) -> None:
        if isinstance(value, Ref):
            found.append(value)
        elif isinstance(value, list | tuple):
            for v in value:
                walk(v)

    walk(list(node.args))
    walk(list(node.kwargs.values()))
    return found
