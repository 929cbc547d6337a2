"""Instructions of operators without matrix products on a processor: element-wise, pooling, softmax, data movement.

Float operators do their lane operations (`hwsim.network.ops`) a register at a time, transcendental ones as a polynomial.
8-bit operators widen, compute in 16 or 32 bits and narrow again, or look a table up; counts per element are those of
XNNPACK's and TensorFlow Lite's kernels. What a library leaves to plain C is counted one element at a time.
"""

from __future__ import annotations

from hwsim.formats import FORMATS
from hwsim.plan.kernel import Kernel
from hwsim.schedule.cpu_kernels import INTEGERS, Counts
from hwsim.schedule.cpu_view import CpuView

POLYNOMIAL = 12.0  # SIMD instructions of a transcendental function of one register
_C_CODE = 8.0  # scalar instructions per element of plain C: index, load, convert, store
# SIMD instructions per eight 8-bit elements beyond loads and stores: widen, multiply, round, add, narrow
_NARROW = {
    "add": 14.0, "sub": 14.0, "mul": 14.0, "div": 20.0, "quantize": 6.0, "dequantize": 4.0, "requantize": 8.0,
    "batch_norm": 28.0, "hswish": 16.0, "leaky_relu": 12.0, "prelu": 12.0, "maximum": 2.0, "minimum": 2.0,
}  # fmt: skip
_TABLE = frozenset({"sigmoid", "tanh", "elu", "exp", "log", "silu", "gelu", "rsqrt", "sqrt"})
_POOLS = frozenset({"max_pool", "avg_pool"})
_STRIDED = frozenset({"transpose", "gather", "depth_to_space", "space_to_depth", "scatter", "flip", "roll", "one_hot"})
# Sampling one element: two or four neighbours, weights, addresses shared by the channels of a pixel
_SAMPLED = {"resize": 8.0, "grid_sample": 24.0, "roi_align": 40.0}


def vector_counts(kernel: Kernel, view: CpuView) -> Counts:
    """Return the instructions of a kernel's work outside matrix products (all of it, over all threads)."""
    form = kernel.outputs[0].format if kernel.outputs else "fp32"
    read, written = kernel.input_bytes * kernel.passes + kernel.weight_bytes, kernel.output_bytes
    elements = sum(o.elements for o in kernel.outputs)
    taken = sum(o.elements for o in kernel.inputs)
    one_by_one = view.isa in ("dsp", "scalar") or view.library == "tflm-reference"
    plain = one_by_one or (view.library != "xnnpack" and not view.isa.startswith("neon"))
    width = 4 if one_by_one else view.register_bytes
    loads, stores = read / width, written / width
    moved = Counts(0, 0, loads, read, stores, written, (loads + stores) / 2)
    if kernel.products:  # gates, softmax of attention: what is fused is not stored
        moved = Counts()
    if kernel.kind == "move":
        if kernel.op in _SAMPLED:
            return moved.plus(_elements(elements, _SAMPLED[kernel.op], form, view, one_by_one))
        if kernel.op in _STRIDED:
            return moved.plus(Counts(scalar=3.0), elements / (1 if one_by_one or view.library != "xnnpack" else 4))
        return moved
    if kernel.op in _POOLS:
        return moved.plus(_pool(kernel, view, form, one_by_one))
    if form in INTEGERS or (kernel.inputs and kernel.inputs[0].format in INTEGERS):
        return moved.plus(_narrow(kernel, view, elements, taken, plain))
    work = kernel.alu + kernel.special * POLYNOMIAL
    if one_by_one:
        return moved.plus(Counts(scalar=1.0), work + elements)
    lanes = view.register_bytes * 8 / FORMATS[form].width if form in FORMATS else 1
    return moved.plus(Counts(vector=1.0), work / lanes)


def _pool(kernel: Kernel, view: CpuView, form: str, one_by_one: bool) -> Counts:
    """A window's taps one after the other: loaded and combined, with sums in registers or, outside XNNPACK, in memory."""
    taps = float(kernel.alu)  # over all results
    wide = 2.0 if kernel.op == "avg_pool" and form in INTEGERS else 1.0  # sums of bytes take 16 bits
    results = sum(o.elements for o in kernel.outputs)
    if one_by_one:
        return Counts(load=taps, load_bytes=taps * FORMATS[form].width / 8, scalar=2.0 * taps + 12.0 * results)
    size = view.register_bytes
    lanes = size * 8 / FORMATS[form].width
    end = Counts(vector=results * (12.0 if form in INTEGERS and wide > 1 else 1.0) * 4 / size)
    counts = Counts(vector=wide, load=1, load_bytes=size, scalar=0.5)
    if view.library != "xnnpack":
        counts = counts.plus(Counts(load=wide, load_bytes=wide * size, store=wide, store_bytes=wide * size, scalar=1.5))
    return end.plus(counts, taps / lanes)


def _elements(count: float, each: float, form: str, view: CpuView, one_by_one: bool) -> Counts:
    if one_by_one:
        return Counts(scalar=count * each)
    lanes = view.register_bytes * 8 / FORMATS[form].width
    if form in INTEGERS:
        lanes /= 2
    if view.library != "xnnpack":
        lanes = max(1.0, lanes / 4)  # plain C, vectorised in part
    return Counts(vector=count * each / lanes)


def _narrow(kernel: Kernel, view: CpuView, elements: int, taken: int, one_by_one: bool) -> Counts:
    """8-bit operators."""
    op = kernel.op
    if op in ("softmax", "log_softmax"):
        return Counts(scalar=_C_CODE * 3.0 * elements)
    if op in _TABLE:
        return Counts(load=float(elements), load_bytes=float(elements), scalar=2.0 * elements)
    if op in ("max_pool", "reduce_max", "reduce_min", "adaptive_max_pool", "concat", "relu", "relu6", "clip"):
        each = kernel.alu * (2.0 if one_by_one else 1.0 / view.register_bytes)
        return Counts(scalar=each) if one_by_one else Counts(vector=each)
    if op in ("arg_max", "arg_min", "top_k", "sort", "nms", "custom"):
        return Counts(scalar=3.0 * max(taken, kernel.alu))
    if op in ("avg_pool", "reduce_mean", "reduce_sum", "adaptive_avg_pool"):
        if one_by_one:
            return Counts(scalar=3.0 * max(taken, kernel.alu) + 12.0 * elements)
        return Counts(vector=4.0 * max(taken, kernel.alu) / view.register_bytes + 12.0 * elements / 4)
    each = _NARROW.get(op, 8.0 + 2.0 * kernel.alu / max(1, elements))
    if one_by_one:
        # 64-bit products, saturation and rounding for each operand and the result: CMSIS-NN's are shorter than portable C
        return Counts(scalar=(2.0 if view.library == "cmsis-nn" else 4.0) * each * elements)
    return Counts(vector=each * elements / (view.register_bytes / 2))
