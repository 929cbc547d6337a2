"""How the events of a schedule map to the actions of a machine: one meter per machine, made once.

A meter is the machine's `PowerProfile` (what actions cost) and index tables: which action a byte read at a level code is,
which actions a multiply-accumulate of a format is on each unit. Counting a schedule with it is `hwsim.energy.counting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from hwsim.energy.cells import cell_format, float_lanes, hop_bits, native_formats
from hwsim.energy.levels import DEFAULT_NODE_NM, Store, level_map, link_kind, matrix_unit, memory_store
from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.gpu import gpu_of
from hwsim.power.actions import load_actions
from hwsim.power.activity import Action, PowerProfile
from hwsim.power.arithmetic import ADDERS, adder_j, adder_of, multiplier_j
from hwsim.power.gpu import ACCESS_BYTES, gpu_power_profile, macs_per_lane
from hwsim.power.span import NOTHING, Span
from hwsim.schedule.table import LEVELS, OPERANDS, OPERATION, UNITS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FORMAT_NAMES = tuple(FORMATS)
ADDER_OF_FORMAT = np.array([ADDERS.index(adder_of(name)) for name in FORMAT_NAMES])
_LANE_BITS = 32


@dataclass(frozen=True, eq=False)
class Meter:
    """A machine's power profile and which of its actions an event of a schedule is; -1 for none.

    ``read_at``/``write_at``[level, operand]: a byte. ``useful``/``padded``[unit, format, adder, grouped, 2]: up to two
    actions of a multiply-accumulate. ``hop_bits``[format]: bits handed from cell to cell per multiply-accumulate.
    ``per_instruction``[unit, format]: multiply-accumulates of one lane's share of an instruction (0: no instructions are
    counted). ``select``[unit, format]: what a product with 2:4 metadata costs beside. ``feeds``: whether bytes of a product
    row are those of its tile, read once per warp.
    """

    profile: PowerProfile
    memories: tuple[str, ...]
    memory_read: Ints
    memory_write: Ints
    read_at: Ints
    write_at: Ints
    useful: Ints
    padded: Ints
    default_adder: Ints
    hop_bits: Floats
    per_instruction: Floats
    ops_ratio: Floats
    extra_instructions: float
    access_bytes: float
    feeds: bool
    lane: int
    lane_registers: int
    instruction: int
    hop: int
    interconnect: int
    notes: tuple[tuple[str, str], ...]
    select: Ints = field(default_factory=lambda: np.full((len(UNITS), len(FORMAT_NAMES)), -1))


@lru_cache(maxsize=64)
def meter(acc: Accelerator, local_used: bool) -> Meter:
    """Return the meter of ``acc``; ``local_used`` says whether schedules name an innermost memory (see `level_map`)."""
    if acc.family == "gpu":
        return _gpu_meter(acc)
    return _array_meter(acc, local_used)


def _array_meter(acc: Accelerator, local_used: bool) -> Meter:
    """Machines with a systolic array, or of which only lanes and memories are known."""
    actions = load_actions()
    node = acc.power.node_nm or DEFAULT_NODE_NM
    levels = level_map(acc, local_used=local_used)
    # Every memory of the machine has its column, used or not, so that all results on it have the same columns.
    stores = list(dict.fromkeys([*_memory_stores(acc, levels), *levels.values()]))
    native = native_formats(acc)
    # Code 0 (fp64) of a row says nothing unless the machine has fp64: its first format then.
    unset = native[0] if native and "fp64" not in native else FORMAT_NAMES[0]
    named = (unset, *FORMAT_NAMES[1:])
    cells = [cell_format(name, native) for name in named]
    padding = actions.at("ratio", "padding", node)
    found: list[Action] = []

    def add(name: str, component: str, energy: Span) -> int:
        found.append(Action(name, component, energy))
        return len(found) - 1

    def both(name: str, energy: Span) -> tuple[int, int]:
        less = Span(*(e * p for e, p in zip(energy, padding, strict=True)))
        return add(name, "matrix", energy), add(f"padding {name}", "padding", less)

    multiply = {name: both(f"multiply {name}", multiplier_j(name, node)) for name in dict.fromkeys(cells)}
    adders = [[both(f"add {a}" + " grouped" * g, adder_j(a, node, grouped=bool(g))) for g in (0, 1)] for a in ADDERS]
    hop = add("hop", "array", actions.at("hop", "", node) if matrix_unit(acc) is not None else NOTHING)
    lane = add("lane", "vector", actions.at("alu", "fp32" if float_lanes(acc) else "int32", node))
    registers = levels["register", "a"]
    per_op = registers.read_j.scaled(2).plus(registers.write_j).scaled(_LANE_BITS / 8)
    lane_registers = add("lane registers", "registers", per_op)
    read, write = [-1] * len(stores), [-1] * len(stores)
    for i, store in enumerate(stores):
        if store.component:
            read[i] = add(f"read {store.component} {i}", store.component, store.read_j)
            write[i] = add(f"write {store.component} {i}", store.component, store.write_j)
    interconnect = add("interconnect", "interconnect", actions.at("link", "ici", node).scaled(8))
    order = _component_order(stores)
    table = sorted(range(len(found)), key=lambda i: order.index(found[i].component))
    new = {old: i for i, old in enumerate(table)} | {-1: -1}
    store_of = np.array([[stores.index(levels[level, operand]) for operand in OPERANDS] for level in LEVELS])
    shape = (len(UNITS), len(FORMAT_NAMES), len(ADDERS), 2, 2)
    useful, padded = np.full(shape, -1), np.full(shape, -1)
    for f, cell in enumerate(cells):
        for a in range(len(ADDERS)):
            for g in (0, 1):
                for table_of, which in ((useful, 0), (padded, 1)):
                    table_of[:, f, a, g] = new[multiply[cell][which]], new[adders[a][g][which]]
    at_read, at_write = np.array([new[i] for i in read]), np.array([new[i] for i in write])
    kept = [i for i, store in enumerate(stores) if store.memory]
    return Meter(
        profile=PowerProfile(tuple(found[i] for i in table), tdp_w=acc.power.tdp_w),
        memories=tuple(stores[i].memory for i in kept),
        memory_read=at_read[kept],
        memory_write=at_write[kept],
        read_at=at_read[store_of],
        write_at=at_write[store_of],
        useful=useful,
        padded=padded,
        default_adder=np.array([ADDERS.index(adder_of(name)) for name in named]),
        hop_bits=np.array([hop_bits(acc, name) for name in cells], dtype=np.float64),
        per_instruction=np.zeros((len(UNITS), len(FORMAT_NAMES))),
        ops_ratio=_ops_ratio(node),
        extra_instructions=0.0,
        access_bytes=0.0,
        feeds=False,
        lane=new[lane],
        lane_registers=new[lane_registers],
        instruction=-1,
        hop=new[hop],
        interconnect=new[interconnect],
        notes=_notes(acc),
    )


def _component_order(stores: list[Store]) -> tuple[str, ...]:
    memories = [store.memory for store in stores if store.memory]
    parts = ("matrix", "padding", "array", "vector", "registers", *memories, "link", "interconnect")
    return tuple(dict.fromkeys(parts))  # a memory may be called registers


def _gpu_meter(acc: Accelerator) -> Meter:
    """A GPU: Tensor Cores on unit ``matrix``, CUDA cores on ``vector``, the DLA; levels dram, l2 and shared memory."""
    profile = gpu_power_profile(acc)
    gpu = gpu_of(acc)
    node = acc.power.node_nm or DEFAULT_NODE_NM
    index = profile.index
    memories = ("dram", "l2", "shared_memory")
    place = {"dram": "dram", "shared": "l2", "local": "shared_memory"}
    read_at, write_at = (np.full((len(LEVELS), len(OPERANDS)), -1) for _ in range(2))
    for level, memory in place.items():
        read_at[LEVELS.index(level)], write_at[LEVELS.index(level)] = index[f"read {memory}"], index[f"write {memory}"]
    read_at[LEVELS.index("host")] = write_at[LEVELS.index("host")] = index["link"]
    shape = (len(UNITS), len(FORMAT_NAMES), len(ADDERS), 2, 2)
    useful, padded = np.full(shape, -1), np.full(shape, -1)
    per_instruction = np.zeros((len(UNITS), len(FORMAT_NAMES)))
    select = np.full((len(UNITS), len(FORMAT_NAMES)), -1)
    pipes = {
        "matrix": ("mac", tuple(f for f in gpu.tensor.rates if f in FORMATS)),
        "dla": ("dla", tuple(f for f in gpu.dla.rates if f in FORMATS)),
    }
    simt = tuple(f for f in gpu.simt.rates if f in FORMATS)
    for u, unit in enumerate(UNITS):
        action, native = pipes.get(unit, ("simt", simt))
        if not native:
            action, native = "simt", simt
        for f, name in enumerate(FORMAT_NAMES):
            cell = cell_format(name, native)
            useful[u, f, :, :, 0] = index[f"{action} {cell}"]
            padded[u, f, :, :, 0] = index.get(f"padding {cell}", -1) if action == "mac" else index[f"{action} {cell}"]
            if action == "mac":
                select[u, f] = index.get(f"select {cell}", -1)
                per_instruction[u, f] = macs_per_lane(gpu.tensor.instruction, cell)
            elif action == "simt":
                per_instruction[u, f] = max(1.0, 32 / FORMATS[cell].width)
    return Meter(
        profile=profile,
        memories=memories,
        memory_read=np.array([index[f"read {m}"] for m in memories]),
        memory_write=np.array([index[f"write {m}"] for m in memories]),
        read_at=read_at,
        write_at=write_at,
        useful=useful,
        padded=padded,
        default_adder=ADDER_OF_FORMAT,
        hop_bits=np.zeros(len(FORMAT_NAMES)),
        per_instruction=per_instruction,
        ops_ratio=_ops_ratio(node),
        extra_instructions=profile.extra_instructions,
        access_bytes=float(ACCESS_BYTES),
        feeds=True,
        lane=index["lane"],
        lane_registers=-1,
        instruction=index["instruction"],
        hop=-1,
        interconnect=index["interconnect"],
        notes=_notes(acc),
        select=select,
    )


def _ops_ratio(node_nm: float) -> Floats:
    special = load_actions().at("ratio", "special", node_nm).value
    return np.array([special if name == "special" else 1.0 for name in OPERATION])


def _memory_stores(acc: Accelerator, levels: Mapping[tuple[str, str], Store]) -> list[Store]:
    node = acc.power.node_nm or DEFAULT_NODE_NM
    found = {store.memory: store for store in levels.values() if store.memory}
    return [found.get(level.name) or memory_store(acc, level, node) for level in acc.memory.values()]


def _notes(acc: Accelerator) -> tuple[tuple[str, str], ...]:
    """What is assumed of a machine's memories and links, each with the component it matters to."""
    actions = load_actions()
    used = [(level.name, "dram", level.kind) for level in acc.memory.values() if level.is_dram]
    used += [("link", "link", link_kind(acc.host.link)), ("interconnect", "link", "ici")]
    return tuple(
        (component, f"energy of {key} per bit is {record.source}")
        for component, action, key in used
        for record in actions.records(action, key)
        if record.kind == "assumed"
    )
