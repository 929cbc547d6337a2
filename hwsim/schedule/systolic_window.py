"""Lowering a product onto arrays fed from on-chip windows (TPU v2 and later, SCALE-Sim and Eyeriss-like arrays).

Operands come from memory in windows that fit the chip; inside a window the arrays work through folds. Stages: ``dma``
loads a window of B, ``dma`` one of A, ``convert`` changes formats the array does not take, ``matrix`` runs the folds,
``vector`` adds partial sums and does the fused element-wise work, ``store`` writes the result back. One window makes the
stages run one after the other; several make a pipeline, two windows of each operand being alive at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.plan.kernel import Kernel
from hwsim.schedule.folds import FoldPlan, Loop, fold_plan, split_classes
from hwsim.schedule.systolic_view import SystolicView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder


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


@dataclass(frozen=True, slots=True)
class LaneCosts:
    """Vector work of a kernel, in lane operations: of all fused layers together, and what software formats cost.

    ``prologue`` is per element of the first stationary window of a pipelined kernel, ``touch`` per result popped,
    ``copy`` per result moved between windows of a pipelined kernel.
    """

    prologue: float = 0.0
    touch: float = 0.0
    copy: float = 0.0
    fused: float = 0.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A product ready to be cut: its folds in streaming orientation and the bytes of its operands.

    After ``swap`` A is still the streamed operand: m counts its rows. ``a_bytes``/``b_bytes``/``c_bytes`` are of the
    whole product as stored; ``halo_bytes`` is what neighbouring m windows of a convolution read twice.
    """

    plan: FoldPlan
    repeat: int
    a_bytes: int
    b_bytes: int
    c_bytes: int
    halo_bytes: int
    a_level: str
    b_level: str
    c_level: str
    convert_a: int  # elements to convert
    convert_b: int
    element_a: int
    element_b: int


def shape_of(kernel: Kernel, view: SystolicView, swap: bool) -> Shape:
    """Return the product of a matmul kernel in streaming orientation."""
    assert kernel.multiply is not None
    product = kernel.products[0]
    plan = fold_plan(product, view.rows, view.cols, view.pack_taps)
    a, b = _operands(kernel)
    c_bytes = kernel.output_bytes
    c_level = "dram" if any(o.level == "dram" for o in kernel.outputs) else "shared"
    convert_a = product.a_elements if kernel.multiply.convert_a else 0
    convert_b = product.b_elements if kernel.multiply.convert_b else 0
    halo = 0
    conv = product.conv
    if conv is not None and not conv.transposed and len(conv.kernel) >= 2 and not swap:
        row = conv.in_channels * product.batch
        for extent in conv.in_spatial[1:]:
            row *= extent
        halo = max(0, conv.kernel[0] - conv.stride[0]) * row * a[1]
    if swap:
        plan = FoldPlan(plan.groups, plan.n, plan.m, plan.taps, plan.k, plan.per_group, plan.last_groups)
        return Shape(
            plan, product.repeat, b[0], a[0], c_bytes, 0, b[2], a[2], c_level, convert_b, convert_a, b[1], a[1]
        )
    return Shape(plan, product.repeat, a[0], b[0], c_bytes, halo, a[2], b[2], c_level, convert_a, convert_b, a[1], b[1])


def _operands(kernel: Kernel) -> tuple[tuple[int, int, str], tuple[int, int, str]]:
    """(bytes, bytes per element, level) of A and B; the rest of a kernel's inputs belong to its epilogue."""
    product = kernel.products[0]
    first = kernel.inputs[0]
    a = (first.bytes, max(1, first.bytes // max(1, first.elements)), first.level)
    if product.b_weight and kernel.weights is not None:
        w = kernel.weights
        return a, (w.bytes, max(1, w.bytes // max(1, w.elements)), "dram")
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
    a = shape.a_bytes / plan.groups * part_m * part_k + (shape.halo_bytes if window.m < plan.m else 0)
    b = shape.b_bytes / plan.groups * part_n * part_k
    return int(a) + 1, int(b) + 1, window.m * window.n * view.accumulator_bytes


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
    element_c = max(1, shape.c_bytes // max(1, plan.groups * plan.m * plan.n))
    return (
        a * copies <= room["activations"]
        and b * copies <= room["weights"]
        and window.m * window.n * element_c * copies <= room["outputs"]
    )


def candidates(kernel: Kernel, view: SystolicView, edge: int) -> list[tuple[Shape, Window]]:
    """Return the cuts worth timing, as the machine's compiler has them.

    With a window ``edge`` (TPUs) small products run in one window on one core, its units in series; products of more
    than a quarter of the edge's cube, or too large for the chip, run in windows of at most that edge over all cores. A
    plain product may be computed transposed when its columns do not fill whole tiles. Without an edge (scratchpad
    arrays): for each width n the tallest window that fits, in both loop orders; K is cut only when nothing fits
    otherwise, and when even the smallest cut is too large it is returned anyway.
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
            cut = Window(min(plan.m, edge), min(plan.n, edge), min(plan.k, edge), "mn", view.cores, swap)
            out.append((shape, cut))
            if cut.m < plan.m and cut.n < plan.n and cut.k == plan.k:
                out.append((shape, Window(cut.m, cut.n, cut.k, "nm", view.cores, swap)))
        return out
    shape = shape_of(kernel, view, False)
    plan = shape.plan
    cuts = _cuts(shape, view) or [(min(plan.m, view.rows), min(plan.n, view.cols), min(plan.k, view.rows))]
    for m, n, k in cuts:
        out.append((shape, Window(m, n, k, "mn", view.cores)))
        if m < plan.m and n < plan.n:
            out.append((shape, Window(m, n, k, "nm", view.cores)))
    return out


def _cuts(shape: Shape, view: SystolicView) -> list[tuple[int, int, int]]:
    plan = shape.plan
    for k in _steps(plan.k, view.rows):
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
        if found:
            # More, smaller windows overlap better than the largest one: offer halvings of the first that fits.
            m, n, k = found[0]
            found += [(s, n, k) for s in _steps(plan.m, view.rows) if view.rows <= s < m]
            return found
    return []


def _steps(total: int, unit: int) -> list[int]:
    """The whole axis, then powers of two times ``unit`` below it, largest first."""
    out = [total]
    size = unit << 10
    while size >= unit:
        if size < total:
            out.append(size)
        size >>= 1
    return out


def nest_of(shape: Shape, window: Window) -> list[Loop]:
    """The window loops, outermost first: repetition and groups, then m and n in order, taps and k innermost."""
    plan = shape.plan
    m = Loop.over("m", plan.m, window.m)
    n = Loop.over("n", plan.n, window.n)
    split_taps = window.k < plan.k and plan.taps > 1
    return [
        Loop.groups(plan, shape.repeat),
        *((m, n) if window.order == "mn" else (n, m)),
        *([Loop("tap", plan.taps)] if split_taps else []),
        Loop.over("k", plan.k, window.k),
    ]


def lower_windows(
    builder: ScheduleBuilder,
    kernel: Kernel,
    view: SystolicView,
    shape: Shape,
    window: Window,
    costs: LaneCosts,
) -> None:
    """Append the rows of a matrix kernel cut as ``window``; ``costs`` say what its vector work is worth."""
    assert kernel.multiply is not None
    plan = shape.plan
    nest = nest_of(shape, window)
    loops = [x for x in nest if x.count > 1]
    fixed = {x.axis: x.edge for x in nest if x.count == 1}
    piped = window.piped
    inside_taps = 1 if any(x.axis == "tap" for x in nest) else plan.taps
    names = [x.axis for x in loops]
    code = {"batch": "batch", "m": "m", "n": "n", "tap": "k", "k": "k"}
    axes = tuple(AXIS[code[x]] for x in names)
    depth = len(loops)
    outer = len([x for x in names if x in ("batch", "m", "n")])

    def level(*wanted: str) -> int:
        """Loops down to the innermost one that changes the operand."""
        return max((i + 1 for i, x in enumerate(names) if x in wanted), default=0)

    k_split = any(x in ("tap", "k") for x in names)
    a_depth = depth if k_split else level("batch", "m")
    b_depth = depth if k_split else level("batch", "n")
    stage = 0
    builder.row(stage=0, unit=UNIT["dispatch"], cause=CAUSE["dispatch"], awaits=2, buffers=0, axis=axes)
    waits_for: list[int] = []
    window_count = 1
    for x in loops:
        window_count *= x.count
    stores = 1
    for x in loops[:outer]:
        stores *= x.count
    share_a = shape.a_bytes / (plan.groups * plan.m * plan.k)
    share_b = shape.b_bytes / (plan.groups * plan.n * plan.k * (plan.taps if inside_taps == 1 and plan.taps > 1 else 1))
    for which, operand_depth, source, cause in (
        ("b", b_depth, shape.b_level, "weight_fetch"),
        ("a", a_depth, shape.a_level, "activation_fetch"),
    ):
        if source != "dram":
            continue
        stage += 1
        waits_for.append(stage)
        column = 1 if which == "b" else 0
        reads = loops[:operand_depth]
        for first, trips, extent in split_classes(reads):
            m, n, k = (extent.get(x, fixed.get(x, y)) for x, y in (("m", plan.m), ("n", plan.n), ("k", plan.k)))
            if which == "a":
                nbytes = m * k * share_a + (shape.halo_bytes if m < plan.m else 0)
            else:
                nbytes = n * k * share_b
            moved = [0, 0, 0, 0]
            moved[column] = max(1, round(nbytes))
            levels = [0, 0, 0, 0]
            levels[column] = LEVEL["dram"]
            targets = [0, 0, 0, 0]
            targets[column] = LEVEL["shared"]
            refetch = [0, 0, 0, 0]
            refetch[column] = operand_depth
            activation = which == "a" if not window.swap else which == "b"
            builder.row(
                stage=stage, unit=UNIT["dma"], axis=axes, depth=operand_depth, first=first, trips=trips, op=OPERATION["copy"],
                extent=(m, n, k), padded=(m, n, k), bytes=moved, refetch=refetch, source=levels, target=targets,
                buffers=view.buffers, dep=(0,), cause=CAUSE["activation_fetch" if activation else "weight_fetch"],
                awaits=1 if activation or not kernel.products[0].b_weight else 0,
            )  # fmt: skip
    if piped and costs.prologue:
        # The first stationary window is decoded and pushed before the first fold; later ones hide behind the products.
        elements = min(plan.n, window.n) * min(plan.k, window.k)
        stage += 1
        builder.row(
            stage=stage, unit=UNIT["convert"], axis=axes, op=OPERATION["convert"], ops=elements,
            issued=round(costs.prologue * elements), dep=tuple(waits_for[-1:]) or (0,), cause=CAUSE["conversion"],
            buffers=0, awaits=1, source=(LEVEL["shared"],), target=(LEVEL["shared"],),
        )  # fmt: skip
        waits_for.append(stage)
    stage += 1
    matrix = stage
    has_store = shape.c_level == "dram" or epilogue_bytes(kernel) > 0
    extra = epilogue_bytes(kernel)
    # Results that need packing hold up the next window until they have left; others alternate between two windows.
    accumulates = piped and costs.touch > 0
    if accumulates:
        deps, lags = (*waits_for[-3:], matrix + 1), (*(0 for _ in waits_for[-3:]), 0)
    else:
        last_stage = matrix + 1 + has_store
        deps, lags = (*(waits_for[-3:] or [0]), last_stage), (*(0 for _ in waits_for[-3:] or [0]), 1 if piped else 0)
    rate = kernel.multiply.rate
    beat = max(1, round(64 * kernel.multiply.passes / rate))
    code_format = FORMAT[kernel.inputs[0].format]
    n_unit, k_unit = view.cols, view.rows
    m_unit = view.rows if view.dataflow == "os" else 0
    if view.dataflow == "is":
        n_unit, m_unit = 0, view.cols
    elif view.dataflow == "os":
        k_unit = 0
    element_a, element_b = shape.element_a, shape.element_b
    for first, trips, extent in split_classes(loops):
        m, n, k = (extent.get(x, fixed.get(x, y)) for x, y in (("m", plan.m), ("n", plan.n), ("k", plan.k)))
        # The last of the packed groups may be alone in its fold.
        k = k * extent.get("batch", fixed.get("batch", plan.per_group)) // plan.per_group
        inner = [
            Loop("tap", inside_taps),
            Loop.over("n", n, n_unit or n),
            Loop.over("m", m, m_unit or m),
            Loop.over("k", k, k_unit or k),
        ]
        shown = [x for x in inner if x.count > 1]
        inner_axes = tuple(AXIS[code[x.axis]] for x in shown)
        rest = {x.axis: x.edge for x in inner if x.count == 1}
        for inner_first, inner_trips, size in split_classes(shown):
            fm, fn, fk = (size.get(x, rest.get(x, y)) for x, y in (("m", m), ("n", n), ("k", k)))
            all_loops = depth + len(shown)
            reads_psum = view.accumulator_bytes * fm * fn
            builder.row(
                stage=matrix, unit=UNIT["matrix"], lanes=view.arrays * window.cores, axis=axes + inner_axes, depth=depth,
                first=first + inner_first, trips=trips + inner_trips, extent=(fm, fn, fk),
                padded=(m_unit or fm, n_unit or fn, k_unit or fk), op=OPERATION["mac"],
                span=(m, n, k, inside_taps), beat=beat, format=code_format,
                ops=fm * fn * fk * kernel.multiply.passes,
                issued=(m_unit or fm) * (n_unit or fn) * (k_unit or fk) * kernel.multiply.passes,
                bytes=(fm * fk * element_a, fn * fk * element_b, reads_psum),
                refetch=(all_loops,) * 3, source=(LEVEL["shared"], LEVEL["shared"], LEVEL["array"]),
                target=(LEVEL["array"], LEVEL["array"], LEVEL["accumulator"]), dep=deps, lag=lags, piped=int(piped), cause=CAUSE["matrix"],
                buffers=view.buffers, awaits=1,
            )  # fmt: skip
    elements_out = max(1, plan.groups * shape.repeat * plan.m * plan.n)
    fused = costs.fused / elements_out
    stage += 1
    if accumulates:
        # After every K window the results are added to those so far; after the last one they are packed as well.
        over = [*loops[:outer], *(Loop(x.axis, x.count, 0, 1) for x in loops[outer:])]
        ends = [x.axis for x in loops[outer:]]
    else:
        over, ends = loops[:outer], []
    for first, trips, extent in split_classes(over):
        m, n = (extent.get(x, fixed.get(x, y)) for x, y in (("m", plan.m), ("n", plan.n)))
        final = all(extent[x] == 1 for x in ends)
        each = costs.touch + costs.copy if accumulates else costs.touch
        per_element = each * (1 + (accumulates and final)) + (fused if final else 0.0)
        builder.row(
            stage=stage, unit=UNIT["vector"], lanes=window.cores, axis=axes, depth=len(over), at_end=1, first=first,
            trips=trips, extent=(m, n, 1), padded=(m, n, 1), op=OPERATION["alu"], ops=m * n if final else 0,
            issued=round(m * n * per_element), dep=(matrix,), cause=CAUSE["vector_unit"], buffers=view.buffers,
            bytes=(0, 0, m * n * view.accumulator_bytes), refetch=(0, 0, len(over)), source=(0, 0, LEVEL["accumulator"]),
            target=(0, 0, LEVEL["shared"]), format=code_format,
        )  # fmt: skip
    if has_store:
        stage += 1
        share_c = (shape.c_bytes if shape.c_level == "dram" else 0) / (plan.groups * shape.repeat * plan.m * plan.n)
        share_extra = extra / (plan.groups * shape.repeat * plan.m * plan.n)
        for first, trips, extent in split_classes(loops[:outer]):
            m, n = (extent.get(x, fixed.get(x, y)) for x, y in (("m", plan.m), ("n", plan.n)))
            out, read = round(m * n * share_c), round(m * n * share_extra)
            builder.row(
                stage=stage, unit=UNIT["store"], axis=axes, depth=outer, at_end=1, first=first, trips=trips,
                extent=(m, n, 1), padded=(m, n, 1), op=OPERATION["copy"], bytes=(read, 0, out), refetch=(outer, 0, outer),
                source=(LEVEL["dram"], 0, LEVEL["shared"]), target=(LEVEL["shared"], 0, LEVEL["dram"]), dep=(stage - 1,),
                cause=CAUSE["store"], buffers=0,
            )  # fmt: skip
