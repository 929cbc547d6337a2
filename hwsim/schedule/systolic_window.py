"""Windows: the pieces of a product that fit on the chip, and which cuts a machine's compiler would consider.

Machines fed from on-chip windows are TPU v2 and later, SCALE-Sim and Eyeriss-like arrays; `systolic_lower` turns a chosen
cut into rows of the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import FoldPlan, fold_plan
from hwsim.schedule.systolic_view import SystolicView


@dataclass(frozen=True, slots=True)
class Window:
    """How a product is cut: window extents in m, n and k (per tap), the loop order, and the cores that share it.

    ``swap`` streams the columns of B past a stationary A (the compiler computes the transposed product).
    ``order`` is ``mn`` or ``nm``: which of the two window loops is outer (K is always innermost).
    """

    m: int
    n: int
    k: int
    order: str = "mn"
    cores: int = 1
    swap: bool = False
    piped: bool = True
    one_tap: bool = False

    def splits_taps(self, plan: FoldPlan) -> bool:
        """Whether a window holds one kernel tap only: when K is cut, or one window of all taps would be too large."""
        return plan.taps > 1 and (self.one_tap or self.k < plan.k)


@dataclass(frozen=True, slots=True)
class Shape:
    """A product ready to be cut: its folds in streaming orientation and the bytes of its operands.

    After ``swap`` A is still the streamed operand: m counts its rows. ``a_bytes``/``b_bytes``/``c_bytes`` are of the
    whole product as stored. ``halo`` is (rows shared by neighbours, elements of such a row, elements a window's own rows
    are widened by, bytes per element): what neighbouring m windows of a convolution read twice.
    """

    plan: FoldPlan
    repeat: int
    a_bytes: int
    b_bytes: int
    c_bytes: int
    halo: tuple[int, int, int, float]
    a_level: str
    b_level: str
    c_level: str
    convert_a: int  # elements to convert
    convert_b: int
    element_a: int
    element_b: int

    def halo_bytes(self, m: int) -> int:
        """Bytes a window of ``m`` rows reads that its neighbour reads as well; none when it is the whole product."""
        if m >= self.plan.m:
            return 0
        rows, row, wider, each = self.halo
        return int(rows * min(row, m + wider) * each)


def shape_of(kernel: Kernel, view: SystolicView, swap: bool) -> Shape:
    """Return the product of a matmul kernel in streaming orientation."""
    assert kernel.multiply is not None
    product = kernel.products[0]
    plan = fold_plan(product, view.rows, view.cols, view.pack_taps)
    a, b = _operands(kernel)
    c_bytes = sum(o.bytes for o in kernel.outputs if o.level == "dram") or kernel.output_bytes
    c_level = "dram" if any(o.level == "dram" for o in kernel.outputs) else "shared"
    convert_a = product.a_elements if kernel.multiply.convert_a else 0
    convert_b = product.b_elements if kernel.multiply.convert_b else 0
    halo = (0, 0, 0, 0.0)
    conv = product.conv
    if conv is not None and not conv.transposed and len(conv.kernel) >= 2 and not swap:
        # Windows end inside the first spatial axis: a plane of the others, or the part of it a small window spans.
        channels = conv.in_channels * plan.per_group  # of the groups one window works on
        plane = math.prod(conv.in_spatial[1:])
        wider = (conv.kernel[1] - 1) * math.prod(conv.in_spatial[2:]) if len(conv.kernel) > 2 else conv.kernel[1] - 1
        halo = (
            max(0, conv.kernel[0] - conv.stride[0]),
            plane,
            wider,
            channels * a[0] / max(1, kernel.inputs[0].elements),
        )
    if swap:
        plan = FoldPlan(plan.groups, plan.n, plan.m, plan.taps, plan.k, plan.per_group, plan.last_groups)
        return Shape(
            plan, product.repeat, b[0], a[0], c_bytes, halo, b[2], a[2], c_level, convert_b, convert_a, b[1], a[1]
        )
    return Shape(plan, product.repeat, a[0], b[0], c_bytes, halo, a[2], b[2], c_level, convert_a, convert_b, a[1], b[1])


def _operands(kernel: Kernel) -> tuple[tuple[int, int, str], tuple[int, int, str]]:
    """(bytes, bytes per element, level) of A and B; the rest of a kernel's inputs belong to its epilogue."""
    product = kernel.products[0]
    first = kernel.inputs[0]
    a = (first.bytes, max(1, first.bytes // max(1, first.elements)), first.level)
    if product.b_weight and kernel.weights is not None:
        w = kernel.weights
        return a, (w.bytes, max(1, w.bytes // max(1, w.elements)), w.level)
    second = kernel.inputs[1] if len(kernel.inputs) > 1 else first
    return a, (second.bytes, max(1, second.bytes // max(1, second.elements)), second.level)


def epilogue_bytes(kernel: Kernel) -> int:
    """Bytes of inputs only the fused element-wise work reads (a residual), from off-chip memory."""
    used = 1 if kernel.products[0].b_weight else 2
    return sum(o.bytes for o in kernel.inputs[used:] if o.level == "dram")


def window_bytes(shape: Shape, window: Window, view: SystolicView) -> tuple[int, int, int]:
    """On-chip bytes of one window of A, B and C (C in accumulator words)."""
    plan = shape.plan
    part_m, part_n, part_k = window.m / plan.m, window.n / plan.n, window.k / plan.k
    a = shape.a_bytes / plan.groups * part_m * part_k + shape.halo_bytes(window.m) * part_k
    b = shape.b_bytes / plan.groups * part_n * part_k / (plan.taps if window.splits_taps(plan) else 1)
    return math.ceil(a), math.ceil(b), window.m * window.n * view.accumulator_bytes


def fits(shape: Shape, window: Window, view: SystolicView) -> bool:
    """Whether the windows, double-buffered where there is more than one, fit the on-chip memory."""
    plan = shape.plan
    a, b, c = window_bytes(shape, window, view)
    count = -(-plan.m // window.m) * -(-plan.n // window.n) * -(-plan.k // window.k) * plan.groups
    copies = view.buffers if count > 1 else 1
    a_once, b_once = (0 if shape.a_level == "shared" else copies), (0 if shape.b_level == "shared" else copies)
    if view.shared_window_bytes:
        return a * a_once + b * b_once + c * min(2, copies) <= view.shared_window_bytes
    room = view.window_bytes
    # Separate scratchpads are halves of themselves when double-buffered: one half works while the other fills.
    element_c = max(1, shape.c_bytes // max(1, plan.groups * shape.repeat * plan.m * plan.n))
    return (
        a * copies <= room["activations"]
        and b * copies <= room["weights"]
        and window.m * window.n * element_c * copies <= room["outputs"]
    )


def candidates(kernel: Kernel, view: SystolicView, edge: int, whole_k: bool = False) -> list[tuple[Shape, Window]]:
    """Return the cuts worth timing, as the machine's compiler has them.

    With a window ``edge`` (TPUs) small products run in one window on one core, its units in series; products of more
    than a quarter of the edge's cube, or too large for the chip, run in windows of at most that edge (more where the
    on-chip memory is larger) over all cores. A plain product may be computed transposed when its columns do not
    fill whole tiles. Without an edge (scratchpad arrays): for each width n the tallest window that fits, in both
    loop orders; K is cut only when nothing fits otherwise. Raises HwsimError when the on-chip memory does not hold
    one fold.
    """
    out: list[tuple[Shape, Window]] = []
    if edge:
        product = kernel.products[0]
        ragged = product.n <= view.cols or product.n % view.cols != 0
        for swap in (False, True) if product.conv is None and ragged else (False,):
            shape = shape_of(kernel, view, swap)
            plan = shape.plan
            whole = Window(plan.m, plan.n, plan.k, "mn", 1, swap, False)
            one = plan.groups * shape.repeat == 1 and fits(shape, whole, view)
            if one and product.macs <= edge**3 / 4:
                out.append((shape, whole))
                continue
            side = edge * view.window_scale
            cut = Window(min(plan.m, side), min(plan.n, side), min(plan.k, side), "mn", view.cores, swap)
            cut = _shrunk(shape, cut, view)
            out.append((shape, cut))
            uncut = replace(cut, k=plan.k, one_tap=False)
            if whole_k and cut.k < plan.k and fits(shape, uncut, view):
                out.append((shape, uncut))
                cut = uncut
            if cut.m < plan.m and cut.n < plan.n and cut.k == plan.k:
                out.append((shape, Window(cut.m, cut.n, cut.k, "nm", view.cores, swap)))
        return out
    shape = shape_of(kernel, view, False)
    plan = shape.plan
    least = Window(min(plan.m, view.rows), min(plan.n, view.cols), min(plan.k, view.rows))
    cuts = [Window(m, n, k, "mn", view.cores) for m, n, k in _cuts(shape, view)]
    for window in cuts or [replace(_shrunk(shape, least, view), cores=view.cores)]:
        out.append((shape, window))
        if window.m < plan.m and window.n < plan.n:
            out.append((shape, replace(window, order="nm")))
    return out


def _shrunk(shape: Shape, window: Window, view: SystolicView) -> Window:
    """Return ``window`` cut until it fits the on-chip memory: each time the operand that takes most is halved.

    Raises HwsimError when not even one fold of one row fits.
    """
    plan = shape.plan
    while not fits(shape, window, view):
        a, b, c = window_bytes(shape, window, view)
        a, b = (0 if shape.a_level == "shared" else a), (0 if shape.b_level == "shared" else b)
        taps = plan.taps > 1 and not window.splits_taps(plan)
        if b >= max(a, c) and taps:
            window = replace(window, one_tap=True)
        elif b >= max(a, c) and window.n > view.cols:
            window = replace(window, n=_half(window.n, view.cols))
        elif b >= max(a, c) and window.k > view.rows:
            window = replace(window, k=_half(window.k, view.rows))
        elif window.m > 8:
            window = replace(window, m=max(8, window.m // 2))
        elif window.n > view.cols:
            window = replace(window, n=_half(window.n, view.cols))
        elif window.k > view.rows:
            window = replace(window, k=_half(window.k, view.rows))
        elif taps:
            window = replace(window, one_tap=True)
        elif window.m > 1:
            window = replace(window, m=1)
        else:
            raise HwsimError(
                f"{view.name}: its on-chip memory does not hold one fold of {view.rows} x {view.cols} and its operands; "
                "give it more memory or a smaller array"
            )
    return window


def _half(extent: int, fold: int) -> int:
    """About half of ``extent`` in whole folds, at least one and always less."""
    return max(1, -(-(extent // 2) // fold)) * fold if extent > 2 * fold else fold


def _cuts(shape: Shape, view: SystolicView) -> list[tuple[int, int, int]]:
    """Windows that fit: for each width n the tallest m, at the largest K that fits and at a few folds of K.

    A short K lets m and n grow, so that operands are read less often, at the price of more, smaller steps.
    """
    plan = shape.plan
    found: list[tuple[int, int, int]] = []
    deepest = next((cuts for k in _steps(plan.k, view.rows) if (cuts := _tallest(shape, view, k))), [])
    if deepest:
        found += deepest
        # More, smaller windows overlap better than the largest one: offer halvings of the first that fits.
        m, n, k = deepest[0]
        found += [(s, n, k) for s in _steps(plan.m, view.rows) if view.rows <= s < m]
    for k in (16 * view.rows, 4 * view.rows, view.rows):
        if deepest and k < deepest[0][2]:
            found += _tallest(shape, view, k)
    return found


def _tallest(shape: Shape, view: SystolicView, k: int) -> list[tuple[int, int, int]]:
    plan = shape.plan
    found: list[tuple[int, int, int]] = []
    tallest = 0
    for n in _steps(plan.n, view.cols):
        for m in _steps(plan.m, view.rows):
            if m <= tallest:
                break
            if fits(shape, Window(m, n, k), view):
                found.append((m, n, k))
                tallest = m
                break
    return found


def _steps(total: int, unit: int) -> list[int]:
    """The whole axis, then powers of two times ``unit`` below it, largest first."""
    out = [total]
    size = unit << 10
    while size >= unit:
        if size < total:
            out.append(size)
        size >>= 1
    return out
