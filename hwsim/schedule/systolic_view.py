"""A systolic machine as lowering and timing see it: sizes in array clocks, bytes per clock, and where operands may live."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.errors import HwsimError
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.sections import MemoryLevel

# On-chip memories smaller than this per core hold the windows of one kernel; larger ones also keep tensors between
# kernels (TPU v4's CMEM and v5e's VMEM do, TPU v2/v3's 16 MiB do not).
KEEPS_BETWEEN_KERNELS_BYTES = 32 << 20
# A large on-chip memory is half for the windows of the running kernel, half for tensors kept between kernels; windows of
# the edge that the constants state belong to this much of it.
EDGE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class SystolicView:
    """One program's share of a machine (a core, or a chip whose cores work together), in units of array clocks.

    ``window_bytes`` maps operand kinds (weights, activations, outputs) to the on-chip bytes their windows may take; they
    share ``shared_window_bytes`` when that is positive. ``fifo_tiles`` > 0 marks a machine whose weights arrive tile by
    tile through a queue (TPU v1); ``resident_bytes`` is what stays on the chip between kernels.
    """

    name: str
    architecture: str
    clock_hz: float
    dataflow: str
    cores: int
    arrays: int
    rows: int
    cols: int
    rows_per_clk: int
    rates: Mapping[str, float]
    fp32_passes: int
    overlap: bool
    double_buffer: bool
    weight_rows_per_clk: int
    clks_per_weight_row: int
    accumulator_rows: int
    accumulator_buffers: int
    accumulator_bytes: int
    group: int
    dram_read: float
    dram_write: float
    dram_shared: bool
    dram_latency: int
    dram_bytes: int
    shared_read: float
    shared_write: float
    shared_window_bytes: int
    window_bytes: Mapping[str, int]
    buffers: int
    resident_bytes: int
    window_scale: int
    activations_in_dram: bool
    fifo_tiles: int
    host_bytes: float
    lanes: int
    alus: int
    lane_ops: float  # lane operations a core starts per array clock
    vector_rates: Mapping[str, float]
    instruction_cycles: float
    program_s: float
    kernel_s: float
    pack_taps: str

    @property
    def peak_macs(self) -> int:
        """Multiply-accumulates a clock at rate 1, all cores."""
        return self.cores * self.arrays * self.rows * self.cols * self.rows_per_clk


def systolic_view(acc: Accelerator) -> SystolicView:
    """Return the view of one program on ``acc``; raise HwsimError when it is no systolic machine."""
    if acc.family != "systolic":
        raise HwsimError(f"{acc.id} is of family {acc.family}, not systolic")
    unit, vector, clock = acc.matrix_unit, acc.vector_unit, acc.matrix_unit.clock_hz
    cores = acc.chip.cores if acc.chip.megacore else 1
    share = 1 if acc.chip.megacore else acc.chip.cores  # cores that split the chip's memory among their programs

    def per_program(level: MemoryLevel, value: float) -> float:
        if level.scope == "chip":
            return value / share
        return value * cores * (unit.count if level.scope == "unit" else 1)

    dram = acc.dram
    on_chip = [m for m in acc.memory.values() if not m.is_dram]
    fifo = next((m for m in on_chip if m.kind == "fifo"), None)
    buffers_for = {
        kind: [m for m in on_chip if kind in m.holds and m.kind != "fifo" and m.name != "accumulators"]
        for kind in ("weights", "activations", "outputs")
    }
    unified = [m for m in on_chip if len(m.holds) == 3 and m.kind != "fifo"]
    inner = unified[-1] if unified else None
    windows = {k: int(per_program(v[-1], v[-1].capacity_bytes)) if v else 0 for k, v in buffers_for.items()}
    shared_window = 0
    if inner is not None:
        shared_window = int(per_program(inner, inner.capacity_bytes))
        if shared_window / cores >= KEEPS_BETWEEN_KERNELS_BYTES:
            shared_window //= 2
    activation_home = next((m for m in on_chip if "activations" in m.holds and m.kind != "fifo"), None)
    resident = 0
    if activation_home is not None:
        size = int(per_program(activation_home, activation_home.capacity_bytes))
        if "activations" not in dram.holds:
            resident = size
        elif inner is not None and size / cores >= KEEPS_BETWEEN_KERNELS_BYTES:
            resident = size - (shared_window if activation_home is inner else 0)
    feed = activation_home or inner
    per_clock = 1.0 / clock
    width = float(unit.weight_load_rows_per_clk)
    return SystolicView(
        name=acc.id,
        architecture=acc.architecture,
        clock_hz=clock,
        dataflow={"weight-stationary": "ws", "output-stationary": "os", "input-stationary": "is"}[unit.dataflow],
        cores=cores,
        arrays=unit.count,
        rows=unit.rows,
        cols=unit.cols,
        rows_per_clk=unit.rows_per_clk,
        rates=dict(unit.rates),
        fp32_passes=acc.numerics.fp32_passes,
        overlap=unit.overlap_folds,
        double_buffer=unit.weight_buffers > 1,
        weight_rows_per_clk=max(1, int(width)),
        clks_per_weight_row=max(1, math.ceil(1.0 / width)) if width < 1 else 1,
        accumulator_rows=unit.accumulator_entries // max(1, unit.accumulator_buffers),
        accumulator_buffers=unit.accumulator_buffers,
        accumulator_bytes=unit.accumulator_bits // 8,
        group=4 if unit.rows_per_clk == 1 and acc.numerics.profile.endswith("v4") else 1,
        dram_read=per_program(dram, min(dram.read_bytes_per_s, dram.bandwidth_bytes_per_s)) * per_clock,
        dram_write=per_program(dram, min(dram.write_bytes_per_s, dram.bandwidth_bytes_per_s)) * per_clock,
        dram_shared=math.isfinite(dram.bandwidth_bytes_per_s),
        dram_latency=round(dram.latency_s * clock),
        dram_bytes=int(per_program(dram, dram.capacity_bytes)),
        shared_read=per_program(feed, min(feed.read_bytes_per_s, feed.bandwidth_bytes_per_s)) * per_clock
        if feed
        else math.inf,
        shared_write=per_program(feed, min(feed.write_bytes_per_s, feed.bandwidth_bytes_per_s)) * per_clock
        if feed
        else math.inf,
        shared_window_bytes=shared_window,
        window_bytes=windows,
        buffers=max(2, inner.buffers) if inner is not None else 2,
        resident_bytes=resident,
        window_scale=max(1, math.isqrt(shared_window // cores // EDGE_BYTES)),
        activations_in_dram="activations" in dram.holds,
        fifo_tiles=fifo.buffers if fifo is not None else 0,
        host_bytes=acc.host.bandwidth_bytes_per_s / share * per_clock,
        lanes=vector.lanes * vector.sublanes,
        alus=vector.alus,
        lane_ops=vector.lanes * vector.sublanes * vector.clock_hz / clock,
        vector_rates=dict(vector.rates),
        instruction_cycles=acc.dispatch.instruction_cycles,
        program_s=acc.dispatch.program_s,
        kernel_s=acc.dispatch.kernel_s,
        pack_taps="full" if acc.architecture == "scalesim" else "row",
    )
