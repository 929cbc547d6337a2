"""Family "systolic": matrix units that are systolic arrays, beside a vector unit (TPUs, SCALE-Sim arrays)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwsim.machine.keys import Family, Section, key
from hwsim.machine.sections import COMMON

DATAFLOWS = ("weight-stationary", "output-stationary", "input-stationary")


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixUnit:
    """The systolic array: a grid of multiply-accumulate cells through which one operand streams."""

    count: int = key("arrays in one core", "count", low=1, high=1024)
    rows: int = key("rows of cells (the depth K of a weight-stationary fold)", "count", low=1, high=65536)
    cols: int = key("columns of cells (the width N of a weight-stationary fold)", "count", low=1, high=65536)
    clock_hz: float = key("array clock", "frequency", toml="clock", low=1e3, high=1e10)
    dataflow: str = key("the operand that stays in the cells", kind="text", choices=DATAFLOWS)
    rates: Mapping[str, float] = key(
        "rate of each number format computed natively, relative to one multiply-accumulate per cell and clock; "
        "`AxB` is activations in A with weights in B",
        "ratio", kind="rates", low=0.001, high=64,
    )  # fmt: skip
    rows_per_clk: int = key(
        "rows of the streamed operand that enter an array per clock", "count", default=1, low=1, high=64
    )
    weight_buffers: int = key(
        "sets of stationary operands a cell holds; 2 loads the next tile while the present one computes",
        "count", default=1, low=1, high=16,
    )  # fmt: skip
    weight_load_rows_per_clk: float = key(
        "rows of the stationary operand shifted in per clock", "ratio", default=1.0, low=0.001, high=1024
    )
    accumulator_entries: int = key(
        "partial sums kept per column, all buffers together; 0 means they are not modelled as a limit",
        "count", default=0, low=0, high=1 << 24,
    )  # fmt: skip
    accumulator_bits: int = key("width of a partial sum", "count", default=32, low=8, high=128)
    accumulator_buffers: int = key(
        "sets the accumulators are split into (2 is double buffering)", "count", default=1, low=1, high=16
    )
    overlap_folds: bool = key(
        "whether the next fold fills the array while the present one drains, as TPUs do and SCALE-Sim does not",
        kind="bool",
    )

    @property
    def macs_per_clk(self) -> int:
        """Multiply-accumulates of one array in one clock at rate 1."""
        return self.rows * self.cols * self.rows_per_clk


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUnit:
    """The unit for everything that is no matrix product."""

    lanes: int = key("lanes", "count", low=1, high=65536)
    sublanes: int = key("sublanes of a lane", "count", default=1, low=1, high=1024)
    alus: int = key("operations a lane-sublane position starts per clock", "count", default=1, low=1, high=64)
    clock_hz: float = key("vector clock", "frequency", toml="clock", low=1e3, high=1e10)
    rates: Mapping[str, float] = key(
        "rate of each number format computed natively, relative to one per ALU and clock; absent means fp32 = 1",
        "ratio", kind="rates", factory=lambda: {"fp32": 1.0}, low=0.001, high=64,
    )  # fmt: skip
    latency_cycles: int = key(
        "clocks from an operation's issue to its result", "count", toml="latency", default=1, low=0, high=1024
    )

    @property
    def ops_per_clk(self) -> int:
        """Operations started in one clock at rate 1."""
        return self.lanes * self.sublanes * self.alus


def _throughput(built: Mapping[str, Any]) -> tuple[float, Mapping[str, float]]:
    """All arrays of a core at rate 1, and the array's rates."""
    unit: MatrixUnit = built["matrix_unit"]
    return float(unit.count * unit.macs_per_clk) * unit.clock_hz, unit.rates


def _check(built: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    unit: MatrixUnit = built["matrix_unit"]
    if unit.accumulator_entries % unit.accumulator_buffers:
        yield "matrix_unit.accumulator_entries", "is no multiple of accumulator_buffers"
    if unit.count > 1 and unit.count * unit.rows * unit.cols > 1 << 32:
        yield "matrix_unit", "more than 2^32 cells in one core"


SYSTOLIC = Family(
    "systolic",
    "systolic arrays with a vector unit: TPUs and SCALE-Sim arrays",
    (
        COMMON[0],
        Section("matrix_unit", MatrixUnit, "the systolic arrays of one core", required=True),
        Section("vector_unit", VectorUnit, "the vector unit of one core", required=True),
        *COMMON[1:],
    ),
    throughput=_throughput,
    check=_check,
)
