"""One kernel a GPU library has for a layer, as the candidates of a plan describe it."""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.schedule.gpu_choice import Transform
from hwsim.timing.gpu_kind import GemmKind
from hwsim.timing.gpu_memory import VectorWork


@dataclass(frozen=True, slots=True)
class Job:
    """One candidate: a product for the GEMM engine (``kind``), or a direct kernel (``work``).

    ``transforms`` run around it; ``useful`` is the share of its products that are not padding (0: the layer's count says).
    """

    algorithm: str
    kind: GemmKind | None
    format: str
    m: int = 1
    n: int = 1
    k: int = 1
    batch: int = 1
    a_bytes: float = 0.0
    b_bytes: float = 0.0
    found_a: float = 0.0
    found_b: float = 0.0
    kept_c: float = 0.0
    extra_bytes: float = 0.0
    extra_found: float = 0.0
    lane_cycles: float = 0.0
    repeat: int = 1
    sparse: bool = False
    refusal: str = ""
    emulated: bool = False
    work: VectorWork | None = None
    transforms: tuple[Transform, ...] = ()
    useful: float = 0.0
