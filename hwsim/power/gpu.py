"""The power profile of a GPU or Jetson: what its actions cost, and what it draws whatever it does.

Every figure comes from the tables of energy per action at the chip's node; the ratios beside them are the constants of
``accelerators/constants/power.toml``. `docs/energy.md` says where each comes from.
"""

from __future__ import annotations

import math
from functools import lru_cache

from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import Constants, load_constants
from hwsim.machine.gpu import WARP, Gpu, gpu_of
from hwsim.power.actions import load_actions, load_sram
from hwsim.power.activity import Action, PowerProfile, StaticPart
from hwsim.power.arithmetic import adder_j, adder_of, multiplier_j, multiply_add_j
from hwsim.power.curve import VoltageCurve
from hwsim.power.span import NOTHING, Span

DEFAULT_NODE_NM = 7.0
L2_SLICE_BYTES = 512 * 1024  # A100: 40 MiB in 80 slices, H100 50 MiB in 96, AD102 96 MiB in 192
ACCESS_BYTES = 16  # what one lane's widest load or store moves
# 16-bit multiply-accumulates one lane's share of a matrix instruction does: m8n8k4 steps, m16n8k16, m64n256k16.
MACS_PER_LANE = {"hmma": 8, "mma": 16 * 8 * 16 // WARP, "wgmma": 64 * 256 * 16 // 128, "tcgen05": 128 * 256 * 16 // 128}


def voltage_curve(acc: Accelerator, constants: Constants | None = None) -> VoltageCurve:
    """Return the core supply of ``acc`` by clock, its reference that of the energy tables at the chip's node."""
    c = constants or load_constants("power", acc.architecture)
    top, kind = c["voltage_top"], "soc_" if gpu_of(acc).soc.unified else ""
    clock = max(c["voltage_clock"], gpu_of(acc).sm.clock_hz)
    return VoltageCurve(
        floor_v=c[f"{kind}voltage_floor"] * top, top_v=top, knee_hz=c[f"{kind}voltage_knee"] * clock, top_hz=clock,
        reference_v=reference_voltage(acc.power.node_nm or DEFAULT_NODE_NM, c),
    )  # fmt: skip


def reference_voltage(node_nm: float, constants: Constants) -> float:
    """Return the supply the energies of a node are stated at: between its 45 and 7 nm values, linear in log node, V."""
    old, new = constants["voltage_reference_45"], constants["voltage_reference_7"]
    share = math.log(min(max(node_nm, 7.0), 45.0) / 7.0) / math.log(45.0 / 7.0)
    return new + (old - new) * share


def macs_per_lane(instruction: str, number_format: str) -> float:
    """Return the multiply-accumulates of one lane's share of a matrix instruction; narrower formats do more."""
    return MACS_PER_LANE[instruction] * 16 / FORMATS[number_format].width


@lru_cache(maxsize=128)
def gpu_power_profile(acc: Accelerator) -> PowerProfile:
    """Return the power profile of a machine of family ``gpu`` in its power mode.

    Actions: ``mac F`` and ``padding F`` (Tensor Cores), ``select F`` (what a 2:4 instruction moves beside), ``simt F`` (CUDA
    cores), ``dla F``, each one multiply-accumulate in format F; ``lane`` (one operation of one lane); ``instruction`` (one,
    in one lane); ``read M`` and ``write M``, one byte of memory M (``dram``, ``l2``, ``shared_memory``); ``link``,
    ``interconnect``, one byte. Raises HwsimError for machines of other families.
    """
    gpu = gpu_of(acc)
    c = load_constants("power", acc.architecture)
    node = acc.power.node_nm or DEFAULT_NODE_NM
    actions, sram = load_actions(), load_sram()
    out: list[Action] = []

    def add(name: str, component: str, energy: Span, core: bool = False, toggles: bool = False) -> None:
        out.append(Action(name, component, energy, core, toggles))

    tensor = [f for f in gpu.tensor.rates if f in FORMATS]
    feed = {f: _feed_j(gpu.tensor.instruction, f, node, c) for f in tensor}
    for name in tensor:
        each = _tensor_j(name, node).scaled(c["tensor_pipe"]).plus(feed[name]).scaled(c["tensor_energy"])
        add(f"mac {name}", "matrix", each, core=True, toggles=True)
    for name in tensor:
        each = _tensor_j(name, node).scaled(c["tensor_pipe"]).plus(feed[name]).scaled(c["tensor_energy"])
        # At the low end the tables' padded product is gated; zeros of a GPU's padding are multiplied.
        add(f"padding {name}", "padding", Span(each.value * c["zero_operands"], 0.03 * each.low, each.high), core=True)
    for name in tensor if gpu.tensor.sparsity else ():
        more = select_bits_per_mac(gpu.tensor.instruction, name)
        each = _bits_j(more, node, c).scaled(c["tensor_energy"])
        add(f"select {name}", "matrix", each, core=True, toggles=True)
    for name in gpu.simt.rates:
        if name in FORMATS:
            lane = multiply_add_j(name, node).scaled(c["simt_energy"])
            add(f"simt {name}", "vector", lane, core=True, toggles=True)
    add("lane", "vector", actions.at("alu", "fp32", node), core=True, toggles=True)
    instruction = actions.at("instruction", "gpu", node).scaled(c["instruction_energy"])
    add("instruction", "instructions", instruction, core=True, toggles=True)
    shared = gpu.sm.l1_bytes
    add("read shared_memory", "shared_memory", sram.read(shared, node).scaled(8), core=True, toggles=True)
    add("write shared_memory", "shared_memory", sram.write(shared, node).scaled(8), core=True, toggles=True)
    way = noc_j_per_byte(acc, node)
    bank = min(gpu.l2.capacity_bytes, L2_SLICE_BYTES)
    add("read l2", "l2", sram.read(bank, node).scaled(8).plus(way), core=True, toggles=True)
    add("write l2", "l2", sram.write(bank, node).scaled(8).plus(way), core=True, toggles=True)
    dram = actions.at("dram", acc.dram.kind, node).scaled(8)
    add("read dram", "dram", dram)
    add("write dram", "dram", dram)
    add("link", "link", actions.at("link", _link_kind(acc.host.link), node).scaled(8))
    add("interconnect", "interconnect", actions.at("link", "nvlink", node).scaled(8))
    for name in gpu.dla.rates:
        if name in FORMATS:
            add(f"dla {name}", "dla", multiply_add_j(name, node).scaled(c["dla_pipe"]), toggles=True)
    curve = voltage_curve(acc, c)
    statics, notes = _statics(acc, gpu, c, node, curve)
    clock = gpu.sm.clock_hz
    return PowerProfile(
        tuple(out), statics, curve, clock, min(clock, c["clock_floor"] * curve.top_hz),
        # A Jetson's power mode caps clocks and cores; its name is a budget that nothing enforces.
        None if gpu.soc.unified else acc.power.tdp_w, c["extra_instructions"], notes,
    )  # fmt: skip


def _tensor_j(name: str, node_nm: float) -> Span:
    """A multiplier and its share of an adder tree: fp32 sums (fp64 and integers their own), rounded once a group."""
    adder = adder_of(name)
    return multiplier_j(name, node_nm).plus(adder_j("fp32" if adder == "fp16" else adder, node_nm, grouped=True))


def register_bits_per_mac(instruction: str, number_format: str, depth: float) -> float:
    """Return the bits a matrix instruction moves between registers and a Tensor Core for one multiply-accumulate.

    A (m x k) and B (k x n) are read and the 32-bit sums (m x n) read and written once an instruction of ``depth`` 16-bit
    elements of k (narrower formats have as many bits of k). Operands of wgmma and tcgen05 come from shared memory, but
    reach the cells the same way; the sums of tcgen05 stay in its own memory.
    """
    m, n = _SHAPES[instruction]
    width = FORMATS[number_format].width
    k = depth * 16 / width
    sums = 0.0 if instruction == "tcgen05" else 2 * 32 / k
    return width / n + width / m + sums


_SHAPES = {"hmma": (8, 8), "mma": (16, 8), "wgmma": (64, 256), "tcgen05": (128, 256)}


def select_bits_per_mac(instruction: str, number_format: str) -> float:
    """Return the bits a 2:4 instruction moves per multiply-accumulate beside a dense one's: twice the k of the dense operand
    for as many products, and two bits that say which half of it a kept element meets."""
    m, n = _SHAPES[instruction]
    return FORMATS[number_format].width / m + 2 / n


def _feed_j(instruction: str, name: str, node_nm: float, c: Constants) -> Span:
    """Energy of moving operands and sums of one multiply-accumulate to the cells and back, scaled as an instruction's."""
    return _bits_j(register_bits_per_mac(instruction, name, c["tensor_depth"]), node_nm, c)


def _bits_j(bits: float, node_nm: float, c: Constants) -> Span:
    """Energy of bits between registers and a Tensor Core."""
    actions = load_actions()
    bits *= actions.at("instruction", "gpu", node_nm).value / actions.at("instruction", "gpu", 7.0).value
    bounds = c.table["tensor_register_bit"]
    return Span(bounds.value * bits, bounds.low * bits, bounds.high * bits)


def noc_j_per_byte(acc: Accelerator, node_nm: float) -> Span:
    """Return the energy of a byte's way across the chip between an SM and the L2: two thirds of the die's side.

    Two thirds of a square's side is the mean distance along both axes of two random points in it. A chip of unknown
    area has 400 mm2.
    """
    side_mm = math.sqrt((acc.chip.die_area_m2 or 400e-6) * 1e6)
    return load_actions().at("wire", "", node_nm).scaled(8 * side_mm * 1e-3 * 2 / 3)


def _statics(
    acc: Accelerator, gpu: Gpu, c: Constants, node_nm: float, curve: VoltageCurve
) -> tuple[tuple[StaticPart, ...], tuple[str, ...]]:
    actions = load_actions()
    notes: list[str] = []
    parts: list[StaticPart] = []
    per_byte = actions.at("dram", acc.dram.kind, node_nm).scaled(8)
    background = StaticPart("dram", per_byte.scaled(c["dram_background"] * acc.dram.bandwidth_bytes_per_s))
    top = (curve.top_v / curve.reference_v) ** 2
    lane = actions.at("instruction", "gpu", node_nm).plus(multiply_add_j("fp32", node_nm))
    lanes = gpu.sm.count * gpu.simt.rates.get("fp32", 128.0)
    waiting = lane.scaled(c["clock_share"] * top * lanes * curve.top_hz)
    parts.append(StaticPart("clocks", waiting, "clocking"))
    if gpu.soc.unified:
        parts.append(background)
        rest, notes = _soc(acc, gpu, c)
        return tuple(parts + rest), tuple(notes)
    idle = acc.power.idle_w
    # A board's idle power contains its DRAM, but GDDR memories are slowed down when a board is idle.
    if idle is None or acc.dram.kind.startswith("gddr"):
        parts.append(background)
    if idle is not None:
        entry = acc.values.get("power.idle")
        guess = entry is None or entry.kind == "assumed"
        parts.append(StaticPart("idle", Span(idle, idle * 0.5, idle * 1.5) if guess else Span(idle, idle, idle)))
        if guess and entry is not None:
            notes.append(f"idle power of {acc.id} is {entry.source}")
    elif acc.power.tdp_w is not None:
        share = c.table["board_idle"]
        parts.append(StaticPart("idle", Span(share.value, share.low, share.high).scaled(acc.power.tdp_w)))
        notes.append(
            f"idle power of {acc.id} is assumed: {share.value:.0%} of its design power and its DRAM's background"
        )
    else:
        parts.append(StaticPart("idle", NOTHING))
        notes.append(f"idle power of {acc.id} is unknown and left out")
    return tuple(parts), tuple(notes)


def _soc(acc: Accelerator, gpu: Gpu, c: Constants) -> tuple[list[StaticPart], list[str]]:
    """What a module draws beside its GPU: the rest of the chip, and CPU cores at the mode's clock.

    The rest is the module's power at rest, where its file has it: that is measured with slowed-down memory, so the
    DRAM's background comes on top.
    """
    rest, core = c.table["soc_power"], c.table["cpu_core_power"]
    measured = acc.power.idle_w
    if measured is not None:
        # Public listings of one module at rest differ by as much.
        parts, notes = [StaticPart("soc", Span(measured, measured * 0.6, measured * 1.6))], []
    else:
        parts = [StaticPart("soc", Span(rest.value, rest.low, rest.high))]
        notes = [f"power of {acc.id} at rest is assumed: {rest.value:.2g} W"]
    clock = gpu.soc.cpu_clock_hz
    if clock is not None:
        top = c["cpu_clock"]
        floor, knee = c["soc_voltage_floor"], c["soc_voltage_knee"] * top
        curve = VoltageCurve(floor, 1.0, knee, max(top, clock), 1.0)
        cores = c["cpu_busy_cores"] + c["cpu_idle_share"] * max(0.0, gpu.soc.cpu_cores - c["cpu_busy_cores"])
        parts.append(
            StaticPart("cpu", Span(core.value, core.low, core.high).scaled(float(curve.clocking(clock)) * cores))
        )
    return parts, notes


def _link_kind(name: str) -> str:
    known = load_actions().keys("link")
    return next((kind for kind in known if name.lower().startswith(kind)), "other")
