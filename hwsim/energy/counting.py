"""What the rows of a schedule do, counted by action and kernel: the activity the energy of a run is made of.

Bytes are transfers times bytes, read where they come from and written where they go; partial sums that are added to are
read first. Multiply-accumulates are counted useful and padded. On machines that execute instructions, one is counted
per lane for every operation, every matrix instruction's share and every access of 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwsim.energy.meter import ADDER_OF_FORMAT, Meter
from hwsim.schedule.table import AXIS, LEVEL, LOOPS, OPERANDS, OPERATION, UNIT, Schedule

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_INNER = [LEVEL["local"], LEVEL["register"]]


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts of actions [kernel, action], and what results show per kernel: operations useful and issued, lane work."""

    counts: Floats
    macs: Floats
    issued_macs: Floats
    lane_ops: Floats


def count(schedule: Schedule, meter: Meter) -> Counted:
    """Return the counts of every action of ``meter`` in every kernel of ``schedule``."""
    return _Counter(schedule, meter).counted()


class _Counter:
    def __init__(self, schedule: Schedule, meter: Meter) -> None:
        self._schedule, self._meter = schedule, meter
        self._iterations = schedule.iterations()
        transfers = np.take_along_axis(self._iterations, schedule.refetch, axis=1)
        self._moved = (transfers * schedule.bytes).astype(np.float64)
        self._instances = self._iterations[:, LOOPS].astype(np.float64)
        self._counts = np.zeros((schedule.kernels, len(meter.profile.actions)))

    def counted(self) -> Counted:
        meter = self._meter
        self._traffic()
        macs, issued = self._macs()
        lane_ops = self._lane_ops()
        self._put(meter.lane, lane_ops)
        self._put(meter.lane_registers, lane_ops)
        self._put(meter.interconnect, self._interconnect_bytes())
        if meter.instruction >= 0:
            self._put(meter.instruction, (lane_ops + self._matrix_instructions() + self._accesses()) * self._overhead)
        return Counted(self._counts, macs, issued, lane_ops)

    @property
    def _overhead(self) -> float:
        return 1.0 + self._meter.extra_instructions

    def _put(self, action: int, per_kernel: Floats) -> None:
        if action >= 0:
            self._counts[:, action] += per_kernel

    def _add(self, rows_kernel: Ints, action: Ints, values: Floats) -> None:
        """Add values to (kernel, action) pairs; action -1 drops them."""
        width = self._counts.shape[1]
        keep = action >= 0
        at = (rows_kernel * width + action)[keep]
        flat = np.bincount(at.ravel(), weights=values[keep].ravel(), minlength=self._counts.size).astype(np.float64)
        self._counts += flat.reshape(self._counts.shape)

    def _traffic(self) -> None:
        schedule, meter = self._schedule, self._meter
        operand = np.arange(len(OPERANDS))[None, :]
        kernel = np.broadcast_to(schedule.kernel[:, None], self._moved.shape)
        moved = self._moved * self._reads_per_tile() if meter.feeds else self._moved
        self._add(kernel, meter.read_at[schedule.source, operand], moved)
        written = meter.write_at[schedule.target, operand]
        self._add(kernel, written, self._moved)
        # Partial sums that are added to are read first: all but those that start an accumulation.
        c = OPERANDS.index("c")
        adds = (schedule.op == OPERATION["mac"]) & (schedule.target[:, c] == LEVEL["accumulator"])
        again = np.where(adds, self._moved[:, c] - self._starts() * schedule.bytes[:, c], 0.0)
        self._add(schedule.kernel, meter.read_at[schedule.target[:, c], c], again)

    def _reads_per_tile(self) -> Floats:
        """How often a product row's operands leave shared memory: A once per column of warp tiles, B once per row."""
        schedule = self._schedule
        times = np.ones_like(self._moved)
        product = (schedule.op == OPERATION["mac"]) & (schedule.source[:, 0] == LEVEL["local"])
        for operand, across in ((0, 1), (1, 0)):
            warp = np.maximum(schedule.span[:, across], 1)
            ways = np.maximum(schedule.padded[:, across] // warp, 1)
            times[:, operand] = np.where(product, ways, 1)
        return times

    def _starts(self) -> Floats:
        """Transfers of C that begin an accumulation: those with every k loop around them at index 0."""
        schedule = self._schedule
        depth = schedule.refetch[:, OPERANDS.index("c")]
        outside = np.arange(LOOPS)[None, :] < depth[:, None]
        k_loop = schedule.axis == AXIS["k"]
        per_loop = np.where(k_loop, schedule.first == 0, schedule.trips)
        starts = np.where(outside, per_loop, 1).prod(axis=1)
        for row in np.flatnonzero(schedule.bend[:, 0] >= 0):
            loop, outer, step, first_step = (int(v) for v in schedule.bend[row])
            if loop >= depth[row]:
                continue
            first = int(schedule.first[row, outer])
            at = np.arange(first, first + int(schedule.trips[row, outer]))
            trips = schedule.trips[row, loop] + step * at
            if k_loop[row, loop]:
                trips = (trips > 0) & (schedule.first[row, loop] + first_step * at == 0)
            if k_loop[row, outer]:
                trips = trips * (at == 0)
            others = [v for v in range(depth[row]) if v not in (loop, outer)]
            starts[row] = trips.sum() * per_loop[row, others].prod()
        out: Floats = np.where(schedule.first_of_k == 1, starts, 0).astype(np.float64)
        return out

    def _products(self) -> Ints:
        found: Ints = np.flatnonzero(self._schedule.op == OPERATION["mac"])
        return found

    def _macs(self) -> tuple[Floats, Floats]:
        """Count multiplications, additions and hops; return useful and issued operations per kernel."""
        schedule, meter = self._schedule, self._meter
        rows = self._products()
        kernel, form, unit = schedule.kernel[rows], schedule.format[rows], schedule.unit[rows]
        named = schedule.reduce[rows, 2]
        adder = np.where(named > 0, ADDER_OF_FORMAT[named], meter.default_adder[form])
        grouped = (schedule.reduce[rows, 0] >= 4).astype(np.int64)
        useful = self._instances[rows] * schedule.ops[rows]
        spent = self._instances[rows] * np.maximum(schedule.ops[rows], schedule.issued[rows])
        half = self._density(rows)
        for way in (0, 1):
            self._add(kernel, meter.useful[unit, form, adder, grouped, way], useful * half)
            self._add(kernel, meter.padded[unit, form, adder, grouped, way], (spent - useful) * half)
        self._add(kernel, meter.select[unit, form], np.where(half < 1, useful * half, 0.0))
        if meter.hop >= 0:
            self._add(kernel, np.full(len(rows), meter.hop), spent * meter.hop_bits[form])
        return self._sum(kernel, useful), self._sum(kernel, spent)

    def _density(self, rows: Ints) -> Floats:
        """Share of a dense product's multiplications that rows do: half where its operands come with 2:4 metadata."""
        meta = OPERANDS.index("meta")
        compressed = (self._schedule.bytes[rows, meta] > 0) & (self._schedule.source[rows, meta] == LEVEL["local"])
        out: Floats = np.where(compressed, 0.5, 1.0)
        return out

    def _matrix_instructions(self) -> Floats:
        """One lane's instructions for multiply-accumulates, [kernel]."""
        schedule, meter = self._schedule, self._meter
        rows = self._products()
        each = meter.per_instruction[schedule.unit[rows], schedule.format[rows]]
        spent = self._instances[rows] * np.maximum(schedule.ops[rows], schedule.issued[rows])
        return self._sum(
            schedule.kernel[rows], np.where(each > 0, spent * self._density(rows) / np.maximum(each, 1e-9), 0.0)
        )

    def _accesses(self) -> Floats:
        """One lane's loads and stores, [kernel]: bytes copied into or out of an SM over the widest access."""
        schedule, meter = self._schedule, self._meter
        copies = (schedule.op == OPERATION["copy"])[:, None]
        inner = np.isin(schedule.source, _INNER) | np.isin(schedule.target, _INNER)
        moved = np.where(copies & inner, self._moved, 0.0).sum(axis=1)
        return self._sum(schedule.kernel, moved / meter.access_bytes)

    def _lane_ops(self) -> Floats:
        """Operations of single lanes, [kernel]: as issued, and at least what the useful operations need."""
        schedule = self._schedule
        least = schedule.ops * self._meter.ops_ratio[schedule.op]
        lane = np.isin(schedule.op, [OPERATION[name] for name in ("alu", "special", "convert")])
        return self._sum(schedule.kernel, np.where(lane, self._instances * np.maximum(schedule.issued, least), 0.0))

    def _interconnect_bytes(self) -> Floats:
        """Bytes that cross links between chips, [kernel]: what link rows move other than from or to the host."""
        schedule = self._schedule
        host = (schedule.source == LEVEL["host"]) | (schedule.target == LEVEL["host"])
        crossing = (schedule.unit == UNIT["link"])[:, None] & ~host
        return self._sum(schedule.kernel, np.where(crossing, self._moved, 0.0).sum(axis=1))

    def _sum(self, kernel: Ints, values: Floats) -> Floats:
        out: Floats = np.bincount(kernel, weights=values, minlength=self._schedule.kernels).astype(np.float64)
        return out
