"""Kernel choice on a systolic machine: how each kernel is cut, by the timing estimate of every legal candidate."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.plan import Plan
from hwsim.schedule.systolic_attention import lower_attention
from hwsim.schedule.systolic_fold import lower_folds
from hwsim.schedule.systolic_lower import LaneCosts, lower_windows
from hwsim.schedule.systolic_vector import Sweep, lower_vector
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.systolic_window import Shape, Window, candidates, epilogue_bytes, window_bytes
from hwsim.schedule.table import Schedule, ScheduleBuilder
from hwsim.timing.systolic import array_cycles
from hwsim.timing.systolic_service import SOFTWARE_FORMATS

Constants = Mapping[str, float]


def lower_plan(plan: Plan, view: SystolicView, constants: Constants) -> Schedule:
    """Return the schedule of all kernels of ``plan``, each cut the way that the estimate finds fastest."""
    builder = ScheduleBuilder()
    seen: dict[tuple[object, ...], int] = {}
    for kernel in plan.kernels:
        key = _signature(kernel)
        known = seen.get(key)
        if known is None:
            try:
                _lower(builder, kernel, view, constants)
            except HwsimError as error:
                raise HwsimError(f"kernel {kernel.name}: {error}") from None
        else:
            builder.repeat(known)
        number = builder.end_kernel(kernel.name, kernel.producers)
        seen.setdefault(key, number)
    return builder.build()


def _signature(kernel: Kernel) -> tuple[object, ...]:
    """Everything of a kernel that lowering reads: equal signatures have equal rows."""
    return (
        kernel.kind, kernel.products, kernel.multiply, kernel.alu, kernel.special, kernel.passes, kernel.weight_bytes,
        tuple((o.elements, o.bytes, o.format, o.level) for o in kernel.inputs),
        tuple((o.elements, o.bytes, o.format, o.level) for o in kernel.outputs), kernel.op == "conv", kernel.rows,
        kernel.mask_bytes, kernel.weights and (kernel.weights.elements, kernel.weights.format, kernel.weights.level),
    )  # fmt: skip


def _lower(builder: ScheduleBuilder, kernel: Kernel, view: SystolicView, constants: Constants) -> None:
    if kernel.kind == "attention":
        lower_attention(builder, kernel, view, _arithmetic(kernel, view, constants), int(constants["window_edge"]))
    elif kernel.kind == "matmul" and not _on_vector(kernel, view):
        if view.fifo_tiles:
            lower_folds(builder, kernel, view, _arithmetic(kernel, view, constants))
            return
        costs = lane_costs(kernel, view, constants)
        # Formats decoded on their way are added up window by window as measured; others need not cut K where it fits.
        options = candidates(kernel, view, int(constants["window_edge"]), whole_k=costs.touch == 0)
        # Whole clocks; of equals the one that reads less, then the larger window: nothing is cut for nothing.
        shape, window = min(
            options,
            key=lambda o: (
                round(estimate(kernel, o[0], o[1], view, constants, costs)), loaded_bytes(*o), -o[1].m * o[1].n * o[1].k
            ),
        )  # fmt: skip
        lower_windows(builder, kernel, view, shape, window, costs)
    else:
        lower_vector(builder, kernel, view, *vector_sweeps(kernel, view, constants), int(constants["vector_chunk"]))


def vector_sweeps(kernel: Kernel, view: SystolicView, constants: Constants) -> tuple[Sweep, Sweep]:
    """Return one of the earlier passes of a vector kernel over its inputs, and the last one.

    Every pass decodes what it reads, does its share of the arithmetic and, for each row, reduces over its lanes or
    spreads its statistics over them; the last one also packs what it writes. Passes run on all cores of a program when
    that gains more than starting them costs. The last of several works on rows whose statistics are known, all cores at
    once: in the TPU v4 layer-norm rows that kernel takes half a core's time from the smallest size on, with no step.
    """
    passes = max(1, kernel.passes)
    arithmetic = _arithmetic(kernel, view, constants) + (2 * kernel.macs / view.alus if kernel.products else 0)
    each = arithmetic / passes + sum(decode_operations(o, constants) for o in kernel.inputs)
    if passes > 1:
        each += constants["row_cycles"] * kernel.rows * view.lanes
    packed = each + sum(decode_operations(o, constants) for o in kernel.outputs)
    if passes == 1:
        return Sweep(0.0), _sweep(packed, view, constants)
    return _sweep(each, view, constants), Sweep(packed, view.cores)


def _sweep(ops: float, view: SystolicView, constants: Constants) -> Sweep:
    """All cores when splitting the work gains more than starting the second core costs."""
    saved = ops / view.lane_ops * (1 - 1 / view.cores)
    split = view.cores > 1 and saved > constants["megacore_start"] * view.clock_hz
    return Sweep(ops, view.cores, True) if split else Sweep(ops)


def _on_vector(kernel: Kernel, view: SystolicView) -> bool:
    """Whether a grouped convolution is faster multiplied lane by lane than padded onto the arrays (depthwise)."""
    product = kernel.products[0]
    if product.conv is None or product.batch == 1 or product.n * 4 > view.cols or view.fifo_tiles:
        return False
    together = max(1, min(view.rows // max(1, product.conv.in_channels), view.cols // product.n))
    folds = math.prod(product.conv.kernel) * -(-product.batch // together)
    on_array = folds * product.m / (view.arrays * view.cores)
    return 2 * kernel.macs / (view.alus * view.lane_ops * view.cores) < on_array


def lane_costs(kernel: Kernel, view: SystolicView, constants: Constants) -> LaneCosts:
    """Lane operations of a matrix kernel's surroundings: decoding and packing of software formats, fused layers."""
    software = kernel.inputs[0].format in SOFTWARE_FORMATS
    register_bytes = view.lanes * FORMATS[kernel.inputs[0].format].width / 8
    return LaneCosts(
        copy=register_bytes / (view.dram_read * constants["memory_efficiency"]) if software else 0.0,
        prologue=constants["prologue_cycles"] if software else 0.0,
        touch=constants["epilogue_cycles"] if software else 0.0,
        fused=_arithmetic(kernel, view, constants),
        convert_a=_widening(
            kernel.inputs[0].format, kernel.multiply is not None and kernel.multiply.convert_a, constants
        ),
        convert_b=_widening(
            kernel.weights.format if kernel.weights and kernel.products[0].b_weight else kernel.inputs[-1].format,
            kernel.multiply is not None and kernel.multiply.convert_b,
            constants,
        ),
    )


def _widening(stored: str, wanted: bool, constants: Constants) -> float:
    """Lane operations per element to turn what is stored into what the arrays multiply.

    Integers widen with a shift, 8-bit floats are decoded in software; wider floats are cut on their way in, and fp16
    activations are decoded in the inner loop, which the rate of the arrays accounts for.
    """
    if not wanted:
        return 0.0
    if FORMATS[stored].kind in ("int", "uint"):
        return constants["native_decode_cycles"]
    return constants["decode_cycles"] if stored in SOFTWARE_FORMATS and FORMATS[stored].width <= 8 else 0.0


def decode_operations(operand: Operand, constants: Constants) -> float:
    """Lane operations to decode an operand's values when read, or to pack them when written."""
    if operand.format in SOFTWARE_FORMATS:
        return constants["decode_cycles"] * operand.elements
    return constants["native_decode_cycles"] * operand.elements if FORMATS[operand.format].width < 32 else 0.0


def _arithmetic(kernel: Kernel, view: SystolicView, constants: Constants) -> float:
    """Simple operations fill all ALUs of a lane; transcendental ones take the lane for several cycles."""
    return kernel.alu / view.alus + kernel.special * constants["special_cycles"]


def loaded_bytes(shape: Shape, window: Window) -> float:
    """Bytes of operands a cut reads from memory, windows that are read again counted again."""
    plan = shape.plan
    nm, nn = -(-plan.m // window.m), -(-plan.n // window.n)
    nk = -(-plan.k // window.k)
    a_times = nn if nk > 1 or (window.order == "nm" and nm > 1) else 1
    b_times = nm if nk > 1 or window.splits_taps(plan) or (window.order == "mn" and nn > 1) else 1
    total = 0.0
    if shape.a_level == "dram":
        total += (shape.a_bytes + shape.halo_bytes(window.m) * (nm - 1)) * a_times
    if shape.b_level == "dram":
        total += shape.b_bytes * b_times
    return total * shape.repeat


def estimate(
    kernel: Kernel, shape: Shape, window: Window, view: SystolicView, constants: Constants, costs: LaneCosts
) -> float:
    """Return about how many clocks a cut takes: stages in series for one window, the slowest of them for many.

    The pipeline engine then times the chosen one exactly; this only ranks.
    """
    assert kernel.multiply is not None
    plan = shape.plan
    groups = plan.groups * shape.repeat
    nm, nn = -(-plan.m // window.m), -(-plan.n // window.n)
    nk = -(-plan.k // window.k) * (plan.taps if window.splits_taps(plan) else 1)
    read = view.dram_read * constants["memory_efficiency"]
    write = view.dram_write * constants["memory_efficiency"]
    loads = loaded_bytes(shape, window) / read
    loads += epilogue_bytes(kernel) / read
    out = shape.c_bytes / write if shape.c_level == "dram" else 0.0
    rate = kernel.multiply.rate / kernel.multiply.passes
    # Ragged windows pay their padding: folds are counted per window.
    tiles_n = (plan.n // window.n) * -(-window.n // view.cols) + -(-(plan.n % window.n) // view.cols)
    folds_k = plan.taps * ((plan.k // window.k) * -(-window.k // view.rows) + -(-(plan.k % window.k) // view.rows))
    steps = -(-plan.m // 8) * 8
    beats = max(steps / rate / view.rows_per_clk, nm * view.rows / view.weight_rows_per_clk)
    tiles = tiles_n / view.arrays
    tiles += constants["idle_arrays"] * max(0.0, 1.0 - tiles)
    matrix = groups * tiles * folds_k * beats / window.cores
    if view.dataflow != "ws" or not view.overlap:
        matrix = groups * plan.taps * _array_clocks(shape, window, view) / rate
    touched = plan.groups * shape.repeat * plan.m * plan.n
    popped = (costs.touch + costs.copy) * (1 + nk) if window.piped else costs.touch
    vector = (popped * touched + costs.fused) / (view.lane_ops * window.cores)
    if not window.piped:
        return loads + matrix + folds_k * min(plan.m, plan.n, view.rows) + vector + out
    a, b, _ = window_bytes(shape, window, view)
    first = (a * (shape.a_level == "dram") + b * (shape.b_level == "dram")) / read
    first += costs.prologue * window.n * window.k / view.lane_ops
    widened = costs.convert_a * plan.m * plan.k * nn + costs.convert_b * plan.n * plan.k * plan.taps * nm
    widened *= groups / (view.lane_ops * window.cores)
    return first + max(loads, matrix + (vector if costs.touch else 0.0), vector, out, widened)


def _array_clocks(shape: Shape, window: Window, view: SystolicView) -> float:
    """Clocks of all windows of one group on an array that pays fill and drain in every fold."""
    total = 0.0
    for m, times_m in _parts(shape.plan.m, window.m):
        for n, times_n in _parts(shape.plan.n, window.n):
            for k, times_k in _parts(shape.plan.k, window.k):
                cycles = array_cycles(
                    view.dataflow, m, n, k, view.rows, view.cols, overlap=view.overlap,
                    weight_double_buffer=view.double_buffer, rows_per_clk=view.rows_per_clk,
                    weight_rows_per_clk=view.weight_rows_per_clk, clks_per_weight_row=view.clks_per_weight_row,
                    accumulator_rows=view.accumulator_rows,
                )  # fmt: skip
                total += times_m * times_n * times_k * cycles.total
    return total / (view.arrays * window.cores)


def _parts(whole: int, step: int) -> list[tuple[int, int]]:
    """(extent, how often) of the full and the last piece of an axis."""
    full, rest = divmod(whole, step)
    return [(size, times) for size, times in ((step, full), (rest, 1)) if size and times]
