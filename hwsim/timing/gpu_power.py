"""The clock a GPU sustains in matrix products: their activity by what they multiply and move, at its power limit.

What an action costs and how voltage follows the clock are `hwsim.power`'s; this module counts the actions of a product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwsim.formats import FORMATS
from hwsim.power.activity import Activity
from hwsim.power.gpu import macs_per_lane
from hwsim.power.sustained import RANDOM_DATA, sustained_clock
from hwsim.schedule.gpu_view import GpuView

if TYPE_CHECKING:
    from hwsim.timing.gpu_kind import GemmKind

Floats = npt.NDArray[np.float64]

# One lane's share of a loop of `simt` products: 8 x 8 results per thread, operands by 16 B loads from shared memory.
SIMT_LOADS = 2 * 8 / 4 / 64


class Work(NamedTuple):
    """What products do, [rows]: useful and padded multiply-accumulates, bytes from L2 and DRAM, and their tiles."""

    macs: Floats
    padded: Floats
    l2_bytes: Floats
    dram_bytes: Floats
    tile: Mapping[str, Any]


def gemm_clock(
    view: GpuView,
    kind: GemmKind,
    work: Work,
    time_at: Callable[[Floats], Any],
    *,
    throttle: bool = True,
    toggle: float = RANDOM_DATA,
) -> tuple[Floats, Floats]:
    """Return (clock in Hz, board power in W) of products that take ``time_at`` seconds at an array of clocks, [rows].

    Without ``throttle`` the clock is the highest and power may exceed the limit. ``toggle`` is the switching of the data
    over that of random numbers.
    """
    assert view.power is not None
    found = sustained_clock(
        view.power, Activity.of(actions(view, kind, work), np.ones(len(work.macs))), time_at,
        tdp_w=view.tdp_w if throttle else np.inf, toggle=toggle, clock_hz=view.clock_hz,
    )  # fmt: skip
    return found.clock_hz, found.power_w


def actions(view: GpuView, kind: GemmKind, work: Work) -> dict[str, Floats]:
    """Return the counts of a product by action of the power profile.

    Operands reach the multipliers from shared memory: rows and columns of a warp's tile, or of the CTA's where one
    instruction covers it (wgmma, tcgen05).
    """
    assert view.power is not None
    spent = 0.5 if kind.sparse else 1.0  # a sparse instruction multiplies half of the dense product
    macs, padded = work.macs * spent, work.padded * spent
    t = work.tile
    a, b = kind.a_bits / 8, kind.compute_bits / 8 * spent
    if kind.instruction in ("wgmma", "tcgen05"):
        feed = a / t["n"] + b / t["m"]
    else:
        feed = a / t["unit_n"] + b / t["unit_m"]
    issued = work.macs + work.padded
    form = _form(view, kind)
    if kind.pipe == "tensor":
        counts = {f"mac {form}": macs, f"padding {form}": padded}
        if kind.sparse:
            counts[f"select {form}"] = macs
        instructions = issued * spent / macs_per_lane(kind.instruction, form)
    else:
        packed = max(1.0, 32 / kind.compute_bits)
        counts = {f"simt {form}": issued}
        instructions = issued / packed * (1 + SIMT_LOADS)
    return counts | {
        "instruction": instructions * (1 + view.power.extra_instructions),
        "read shared_memory": issued * feed,
        "write shared_memory": work.l2_bytes,
        "read l2": work.l2_bytes,
        "read dram": work.dram_bytes,
    }


def _form(view: GpuView, kind: GemmKind) -> str:
    """The format whose cells do a product: its own where they have it, else the one nearest in width."""
    rates = view.tensor_macs if kind.pipe == "tensor" else view.simt_macs
    have = [name for name in rates if name in FORMATS]
    if kind.form in have:
        return kind.form
    return min(have, key=lambda name: (abs(FORMATS[name].width - kind.compute_bits), have.index(name)))
