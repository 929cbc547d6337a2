"""Time of kernels on a processor, from the rows of their schedule.

A row's instructions take as long as the busiest of the core's resources: SIMD multipliers, SIMD pipes, load and store
ports, the front end, or the chain of dependent multiplications of its tile (`loop_clocks`, whose twin issues them one by
one). A kernel's threads share its tiles, whole ones each. What crosses from shared caches and from memory takes bytes over
bandwidth, of which a core hides a part behind its instructions: that part belongs to in-order or out-of-order cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.schedule.cpu_kernels import sums
from hwsim.schedule.cpu_view import CpuView
from hwsim.schedule.table import CAUSE, CAUSES, FORMAT, OPERATION, UNIT, UNITS, Schedule
from hwsim.timing.run import Timing

Ints = npt.NDArray[np.int64]
Constants = Mapping[str, float]

LIMITS = ("SIMD multipliers", "SIMD pipes", "loads", "stores", "instruction issue", "latency")
_FORMATS = tuple(FORMAT)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """Clocks of one kernel by what the cores do or wait for; ``limit`` is the busiest resource of a core.

    ``work`` are the SIMD multipliers' own clocks in a product (all instructions where nothing is multiplied), ``issue``
    among ``waits`` the clocks its other instructions and dependencies add, ``tail`` those in which threads without a tile
    wait for the others.
    """

    work: float
    waits: Mapping[str, float]
    limit: str
    threads: int

    @property
    def clocks(self) -> float:
        """All of them."""
        return self.work + sum(self.waits.values())


def loop_clocks(
    view: CpuView,
    multiply: float,
    vector: float,
    memory: float,
    scalar: float,
    loaded: float,
    stored: float,
    *,
    integer: bool,
    chain: float = 0.0,
) -> tuple[float, int]:
    """Return the clocks a core needs to issue these instructions, and which of `LIMITS` they wait for.

    ``memory`` counts load and store instructions, ``loaded`` and ``stored`` their bytes; ``chain`` is the clocks of the
    longest chain of dependent multiplications.
    """  # fmt: skip
    rate = view.long_multiply_ops if integer else view.multiply_ops
    bounds = (
        multiply / rate,
        (multiply + vector) / view.vector_ops,
        max(memory * loaded / max(1.0, loaded + stored) / view.load_ops, loaded / view.load_bytes),
        stored / view.store_bytes,
        (multiply + vector + memory + scalar) / view.issue,
        chain,
    )
    limit = max(range(len(bounds)), key=lambda i: bounds[i])
    return bounds[limit], limit


def sustained_issue(view: CpuView, constants: Constants) -> float:
    """Return the share of the instructions a core could issue that it does in the loops of ``view``'s library."""
    if view.microcontroller:
        return constants["issue_micro"]
    tuned = 1.0 if view.library == "xnnpack" else constants["issue_untuned"]
    return tuned * constants["issue_out_of_order" if view.out_of_order else "issue_in_order"]


def kernel_times(schedule: Schedule, view: CpuView, constants: Constants) -> list[KernelTime]:
    """Return the time of every kernel of a schedule lowered for ``view``."""
    column = {name: schedule.columns[name].tolist() for name in (
        "unit", "lanes", "op", "format", "trips", "span", "bytes", "padded", "piped", "cause", "ops", "beat", "at_end",
    )}  # fmt: skip
    starts = schedule.starts.tolist()
    known: dict[int, KernelTime] = {}
    out: list[KernelTime] = []
    for k in range(schedule.kernels):
        first = schedule.patterns[k] if schedule.patterns else k
        if first not in known:
            known[first] = _kernel(range(starts[k], starts[k + 1]), column, view, constants)
        out.append(known[first])
    return out


def _kernel(rows: range, column: dict[str, list], view: CpuView, constants: Constants) -> KernelTime:  # type: ignore[type-arg]
    order = "out_of_order" if view.out_of_order else "in_order"
    efficiency = sustained_issue(view, constants)
    waits = dict.fromkeys(("interpreter", "launch", "issue", "tail", "cache", "dram", "flash"), 0.0)
    work = other = 0.0
    threads, best, limit = 1, -1.0, LIMITS[0]
    far = near = 0.0
    multiplies = any(column["op"][r] == OPERATION["mac"] and column["span"][r][0] for r in rows)
    for r in rows:
        unit, lanes = column["unit"][r], column["lanes"][r]
        if unit == UNIT["dispatch"]:
            waits["interpreter"] += column["ops"][r] * constants[f"operator_{_software(view)}"]
            if lanes > 1:
                waits["launch"] += constants[f"fork_join_{_software(view)}"] * view.clock_hz
            continue
        loaded, mixed, stored, _ = column["bytes"][r]
        if unit == UNIT["dma"]:
            if column["cause"][r] == CAUSE["cache"]:
                near = (loaded + mixed + stored) / min(view.outer_bytes * lanes, view.outer_all)
            else:
                total = loaded + mixed + stored * (1 + constants["write_allocate"])
                far = total / (view.memory * constants["memory_efficiency"])
            continue
        multiply, vector, memory, scalar = column["span"][r]
        integer = bool(column["piped"][r])
        chain = 0.0
        if column["beat"][r] and multiply:
            chain = multiply / sums(view, _FORMATS[column["format"][r]], *column["padded"][r]) * view.latency
        clocks, which = loop_clocks(
            view, multiply, vector, memory, scalar, loaded, stored, integer=integer, chain=chain
        )  # fmt: skip
        # Nonzero blocks pick their channels here and there, so caches and branches serve them worse.
        share = clocks / (efficiency * (constants["issue_sparse"] if column["at_end"][r] else 1.0)) / lanes
        units = max(1, column["trips"][r][0])
        waits["tail"] += share * (-(-units // lanes) * lanes / units - 1)
        if column["op"][r] == OPERATION["mac"]:
            work += multiply / (view.long_multiply_ops if integer else view.multiply_ops) / lanes
        other += share
        threads = max(threads, lanes)
        if share > best:
            best, limit = share, LIMITS[which]
    compute = other + waits["tail"]
    if not multiplies:
        work = other
    waits["issue"] = other - work
    inside = max(compute, near) + (1 - constants[f"overlap_{order}"]) * min(compute, near)
    total = max(inside, far) + (1 - constants["overlap_memory"]) * min(inside, far)
    waits["cache"] = inside - compute
    waits["flash" if view.microcontroller else "dram"] = total - inside
    return KernelTime(work, {k: v for k, v in waits.items() if v > 0}, limit, threads)


def _software(view: CpuView) -> str:
    return {"xnnpack": "xnnpack", "ruy": "tflite", "gemmlowp": "tflite"}.get(view.library, "micro")


def cpu_timing(schedule: Schedule, times: list[KernelTime]) -> Timing:
    """Return the timeline of kernels that run one after the other, in whole clocks, waits by cause."""
    count = len(times)
    busy, waits = np.zeros(count, np.int64), np.zeros((count, len(CAUSES)), np.int64)
    for k, time in enumerate(times):
        busy[k] = max(1, round(time.work))
        for name, clocks in time.waits.items():
            waits[k, CAUSE[name]] = round(clocks)
    end = np.cumsum(busy + waits.sum(axis=1))
    unit_busy = np.zeros((count, len(UNITS)), np.int64)
    unit_busy[:, UNIT["cpu"]] = busy
    unit_busy[:, UNIT["dispatch"]] = waits[:, CAUSE["interpreter"]] + waits[:, CAUSE["launch"]]
    unit_busy[:, UNIT["dma"]] = waits[:, CAUSE["dram"]] + waits[:, CAUSE["cache"]] + waits[:, CAUSE["flash"]]
    return Timing(end - busy - waits.sum(axis=1), end, busy, waits, unit_busy)
