"""Which memory of a machine each level code of a schedule stands for, and what a byte read or written there costs.

The codes (`hwsim.schedule.table.LEVELS`) name roles; `level_map` finds the memories that play them:

=========== =========================================================================================================
dram        the outermost off-chip memory
shared      the outermost on-chip memory that may hold the operand; where a schedule never says ``local``, the innermost
            (a systolic machine's windows, which are in its vector memory or scratchpads)
local       the innermost on-chip memory that may hold the operand
fifo        the memory of kind ``fifo``
accumulator the memory called ``accumulators``, else one that holds outputs only, else result registers (``array``)
register    register files of the vector unit (``registers``)
array       the cells' own registers: a stationary operand is handed down half the array on its way in; what streams
            is charged per multiply-accumulate instead (``array``)
host        the link to the host (``link``); the host's own memory is not counted
=========== =========================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.machine.accelerator import Accelerator
from hwsim.machine.sections import MemoryLevel
from hwsim.machine.systolic import MatrixUnit
from hwsim.power.actions import load_actions, load_sram
from hwsim.power.span import NOTHING, Span
from hwsim.schedule.table import OPERANDS

DEFAULT_NODE_NM = 7.0
# The widest word of the SRAM table: a memory with a wider word is so many banks side by side.
_BANK_BITS = 512
_REGISTER_FILE_BYTES = 1024
_HOLDS = {"a": "activations", "b": "weights", "c": "outputs", "meta": "weights"}


@dataclass(frozen=True, slots=True)
class Store:
    """One place bytes come from or go to: its component, and the energy per byte read and written, J.

    ``memory`` is empty for places that are no memory level of the machine's file (registers, array, links).
    """

    component: str
    memory: str
    read_j: Span
    write_j: Span


def level_map(acc: Accelerator, *, local_used: bool = False) -> Mapping[tuple[str, str], Store]:
    """Return the store of every (level code name, operand) of a schedule on ``acc``, as the module's table says.

    ``local_used`` says whether the schedule uses the code ``local``. Operands are ``a`` (activations), ``b`` (weights),
    ``c`` (outputs) and ``meta``. A machine without a memory for a code gets its next inner, then next outer one.
    """
    node = acc.power.node_nm or DEFAULT_NODE_NM
    drams = [level for level in acc.memory.values() if level.is_dram]
    chip = [level for level in acc.memory.values() if not level.is_dram and level.kind not in ("fifo", "registers")]
    fifos = [level for level in acc.memory.values() if level.kind == "fifo"]
    files = [level for level in acc.memory.values() if level.kind == "registers"]
    sums = [level for level in chip if level.name == "accumulators"] or [c for c in chip if c.holds == ("outputs",)]
    tiles = [level for level in chip if level.name != "accumulators"]
    stores = {level.name: memory_store(acc, level, node) for level in acc.memory.values()}
    registers = stores[files[0].name] if files else _register_file(node)
    array = Store("array", "", NOTHING, NOTHING)
    out: dict[tuple[str, str], Store] = {}
    for operand in OPERANDS:
        may = [level for level in tiles if _HOLDS[operand] in level.holds] or tiles
        inner = stores[may[-1].name] if may else registers
        outer = stores[may[0].name] if may and local_used else inner
        dram = stores[drams[0].name] if drams else outer
        out["none", operand] = Store("", "", NOTHING, NOTHING)
        out["dram", operand] = dram
        out["shared", operand] = outer
        out["local", operand] = inner
        out["fifo", operand] = stores[fifos[0].name] if fifos else inner
        out["accumulator", operand] = stores[sums[0].name] if sums else _result_registers(node)
        out["register", operand] = registers
        out["host", operand] = _link(acc)
        out["array", operand] = _stationary(acc, node) if operand == stationary_operand(acc) else array
    return out


def matrix_unit(acc: Accelerator) -> MatrixUnit | None:
    """Return the systolic matrix unit of ``acc``, or None for machines of other families."""
    found = acc.sections.get("matrix_unit")
    return found if isinstance(found, MatrixUnit) else None


def stationary_operand(acc: Accelerator) -> str:
    """Return the operand that is shifted into the array's cells and stays, ``a`` or ``b``; empty when none is."""
    unit = matrix_unit(acc)
    if unit is None:
        return ""
    return {"weight-stationary": "b", "input-stationary": "a"}.get(unit.dataflow, "")


def memory_store(acc: Accelerator, level: MemoryLevel, node_nm: float) -> Store:
    """Return what a byte of a memory level costs.

    On-chip memories are cut into banks: a chip-wide memory is one bank, whose wires span it; one that belongs to a core
    or unit is as many banks as its word has 512 bits, each beside the lanes it feeds; accumulators have a bank for
    every column of the array, a weight queue one for every 64 of them.
    """
    if level.is_dram:
        bit = load_actions().at("dram", level.kind, node_nm)
        return Store(level.name, level.name, bit.scaled(8), bit.scaled(8))
    if level.kind == "registers":
        return _register_file(node_nm, level.name)
    sram = load_sram()
    capacity = level.capacity_bytes / banks(acc, level)
    return Store(
        level.name, level.name, sram.read(capacity, node_nm).scaled(8), sram.write(capacity, node_nm).scaled(8)
    )


def banks(acc: Accelerator, level: MemoryLevel) -> int:
    """Return the number of banks an on-chip memory is taken to have (see `memory_store`)."""
    unit = matrix_unit(acc)
    if unit is not None and level.name == "accumulators":
        return unit.cols
    if unit is not None and level.kind == "fifo":
        return max(1, unit.cols * 8 // _BANK_BITS)
    return 1 if level.scope == "chip" else max(1, level.word_bytes * 8 // _BANK_BITS)


def link_kind(name: str) -> str:
    """Return the key of the energy table for a link technology such as ``pcie3-x16`` or ``usb3``."""
    known = load_actions().keys("link")
    return next((kind for kind in known if name.lower().startswith(kind)), "other")


def _register_file(node_nm: float, memory: str = "") -> Store:
    sram = load_sram()
    return Store(
        memory or "registers", memory, sram.read(_REGISTER_FILE_BYTES, node_nm).scaled(8),
        sram.write(_REGISTER_FILE_BYTES, node_nm).scaled(8),
    )  # fmt: skip


def _result_registers(node_nm: float) -> Store:
    """Where results wait when the machine's file has no accumulators: registers at the foot of the array."""
    store = _register_file(node_nm)
    return Store("array", "", store.read_j, store.write_j)


def _stationary(acc: Accelerator, node_nm: float) -> Store:
    unit = matrix_unit(acc)
    assert unit is not None
    hop = load_actions().at("hop", "", node_nm)
    return Store("array", "", NOTHING, hop.scaled(8 * (unit.rows + 1) / 2))


def _link(acc: Accelerator) -> Store:
    bit = load_actions().at("link", link_kind(acc.host.link), 0)
    return Store("link", "", bit.scaled(8), bit.scaled(8))
