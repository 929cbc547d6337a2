"""Lowering a kernel to rows of the schedule of a processor: what its threads issue, load and draw from each memory.

Stages, one after the other: ``dispatch`` (the interpreter calls the operator, threads start), ``dma`` rows for the bytes
that come from memory and for those that cross from the shared caches into a core's own, and ``cpu`` rows for the
instructions: operands copied into panels, the tiles of the product, the ends of tiles. A cpu row is one issue of all its
tiles; ``span`` holds the instructions of that issue (SIMD multiplications, other SIMD, loads and stores, scalar),
``bytes`` what they load (a) and store (c), ``lanes`` the threads that share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hwsim.formats import FORMATS, storage_bytes
from hwsim.network.opdefs import Product
from hwsim.plan.kernel import Kernel
from hwsim.schedule.cpu_kernels import INTEGERS, Counts, MicroKernel, matrix_kernel, sparse_step, step, tile_end, window
from hwsim.schedule.cpu_vector import vector_counts
from hwsim.schedule.cpu_view import CpuView
from hwsim.schedule.table import AXIS, CAUSE, FORMAT, LEVEL, OPERATION, UNIT, ScheduleBuilder

# ruy starts a thread for every 2^15 multiply-accumulates of a product (google/ruy, trmul.cc); pthreadpool always starts all.
_MACS_PER_THREAD = 1 << 15
_SEGMENT = 25.0  # instructions to find and copy one row of a window, apart from its bytes
_WINDOW_REUSE = 0.5  # of the innermost cache: share a panel or the rows of a window may fill and still be found again


@dataclass(frozen=True, slots=True)
class Sparsity:
    """Weights stored as nonzero blocks: ``density`` of them are kept, each of ``block`` output channels."""

    density: float
    block: int


def lower_cpu(builder: ScheduleBuilder, kernel: Kernel, view: CpuView, sparsity: Sparsity | None = None) -> None:
    """Append the rows of one kernel; ``sparsity`` makes its 1 x 1 convolutions and products run on nonzero blocks."""
    lowering = _Lowering(builder, kernel, view)
    lowering.dispatch()
    if kernel.products and kernel.multiply is not None:
        for product in kernel.products:
            lowering.product(product, sparsity)
    lowering.vector()
    lowering.memory()


def threads_of(view: CpuView, macs: int) -> int:
    """Return how many threads the library gives a product of ``macs`` multiply-accumulates."""
    if view.library in ("xnnpack", "cmsis-nn", "tflm-reference"):
        return view.threads
    return max(1, min(view.threads, macs // _MACS_PER_THREAD))


class _Lowering:
    def __init__(self, builder: ScheduleBuilder, kernel: Kernel, view: CpuView) -> None:
        self.builder, self.kernel, self.view = builder, kernel, view
        self.form = (
            kernel.multiply.format if kernel.multiply else (kernel.inputs[0].format if kernel.inputs else "fp32")
        )
        self.size = FORMATS[self.form].width / 8
        self.stage = 0
        self.crossing = [0.0, 0.0, 0.0]  # bytes of a, b, c from the shared caches into the cores' own
        self.refetched = 0.0  # bytes of b read from memory beyond the first time
        self.parallel = 1

    def dispatch(self) -> None:
        """One call of the interpreter."""
        self.builder.row(
            stage=0, unit=UNIT["dispatch"], cause=CAUSE["interpreter"], awaits=2, buffers=0, ops=1,
            lanes=self.view.threads if self.kernel.products or self.view.library == "xnnpack" else 1,
            format=FORMAT[self.form],
        )  # fmt: skip

    def row(
        self, counts: Counts, times: float, *, op: str, lanes: int, units: int = 1, macs: int = 0, issued: int = 0,
        extent: tuple[int, int, int] = (1, 1, 1), padded: tuple[int, int, int] = (1, 1, 1), chained: bool = False,
        scattered: bool = False,
    ) -> None:  # fmt: skip
        """One class of work: ``times`` repetitions of ``counts`` dealt over ``lanes`` threads in ``units`` pieces."""
        self.stage += 1
        total = [counts.multiply, counts.vector, counts.load + counts.store, counts.scalar]
        values: dict[str, Any] = {
            "stage": self.stage, "unit": UNIT["cpu"], "lanes": lanes, "op": OPERATION[op], "format": FORMAT[self.form],
            "axis": (AXIS["m"],), "trips": (max(1, units),), "extent": extent, "padded": padded,
            "ops": macs // max(1, units), "issued": issued // max(1, units),
            "span": tuple(round(v * times) for v in total), "cause": CAUSE["matrix"], "piped": int(counts.integer),
            "bytes": (round(counts.load_bytes * times), 0, round(counts.store_bytes * times)), "buffers": 0,
            "beat": 64 if chained else 0, "at_end": int(scattered), "source": (LEVEL["local"],), "target": (0, 0, LEVEL["local"]),
            "dep": (self.stage - 1,), "refetch": 0,
            "reduce": (1, 0, FORMAT["int32" if self.form in INTEGERS else "fp32"]),
        }  # fmt: skip
        self.builder.row(**values)

    # -- products ------------------------------------------------------------------------------------------------

    def product(self, product: Product, sparsity: Sparsity | None) -> None:
        conv = product.conv
        if conv is not None and not conv.transposed and conv.in_channels == 1 and product.batch > 1:
            self.depthwise(product)
            return
        pointwise = conv is None or (math.prod(conv.kernel) == 1 and math.prod(conv.stride) == 1)
        if sparsity is not None and product.b_weight and pointwise and product.batch == 1 and product.m > 1:
            self.sparse(product, sparsity)
            return
        self.dense(product)

    def dense(self, product: Product) -> None:
        """Tiles of a matrix product; a convolution's windows are gathered through pointers or copied into a matrix."""
        view, form = self.view, self.form
        kern = matrix_kernel(view, form)
        conv = product.conv
        taps = math.prod(conv.kernel) if conv is not None and not conv.transposed else 1
        lanes = self.parallel = threads_of(view, product.macs // max(1, product.repeat))
        times = product.batch * product.repeat
        m, n, k = product.m, product.n, product.k
        gather = taps > 1 and not kern.im2col
        steps = taps * -(-(k // taps) // kern.depth) if gather else -(-k // kern.depth)
        tiles_n = -(-n // kern.cols)
        strided = conv is not None and math.prod(conv.stride) > 1
        if kern.im2col and (taps > 1 or strided):
            self.copy(times * m * k * self.size, 1, rearranged=True, widen=kern.name == "smlad")
            segments = times * m * (conv.kernel[0] if conv is not None else 1)
            self.row(Counts(scalar=_SEGMENT), segments, op="copy", lanes=1)  # a call of memcpy for each kernel row
        elif kern.name == "smlad":
            self.copy(times * m * k * self.size, 1, rearranged=False, widen=True)
        if kern.packs:
            self.copy(times * m * k * self.size, lanes, rearranged=True)
            self.copy(times * n * k * self.size, lanes, rearranged=True)
        pieces = -(-m // kern.rows) * tiles_n * product.batch
        for useful, count in ((kern.rows, m // kern.rows), (m % kern.rows, 1)):
            if not useful or not count:
                continue
            rows = kern.rows if kern.packs else useful
            tiles = count * tiles_n * times
            counts = Counts().plus(step(kern, view, form, rows), steps)
            pointers = taps * (rows + 4.0) if gather else 0.0
            ends = tile_end(kern, view, form, rows, kern.cols)
            ends = ends.plus(Counts(scalar=pointers))
            if kern.packs and form in INTEGERS and view.library == "gemmlowp":
                ends = ends.plus(_copied(4.0 * rows * kern.cols, view), 1.0)  # sums are stored and read again
            self.row(
                counts, tiles, op="mac", lanes=lanes, units=count * tiles_n * product.batch, macs=times * count * useful * n * k,
                issued=round(times * count * tiles_n * rows * kern.cols * steps * kern.depth),
                extent=(useful, min(n, kern.cols), k), padded=(rows, kern.cols, kern.depth), chained=True,
            )  # fmt: skip
            self.row(ends, tiles, op="alu", lanes=lanes, units=pieces, extent=(useful, min(n, kern.cols), 1))
        self.traffic(product, kern, taps, lanes)

    def traffic(self, product: Product, kern: MicroKernel, taps: int, lanes: int) -> None:
        """Bytes that cross into the cores' own caches, and weights read from memory more than once."""
        view, size, conv = self.view, self.size, product.conv
        m, n, k, times = product.m, product.n, product.k, product.batch * product.repeat
        weights, panel = n * k * size, kern.cols * k * size
        if kern.blocked:
            edge = max(kern.rows, int(view.l1_bytes * _WINDOW_REUSE / (2 * k * size)) // kern.rows * kern.rows)
            passes_b, passes_a = -(-m // min(m, edge)), -(-n // min(n, edge))
        else:
            passes_b = 1 if weights <= view.l1_bytes * _WINDOW_REUSE else -(-m // kern.rows)
            passes_a = 1 if kern.rows * k * size + panel <= view.l1_bytes else -(-n // kern.cols)
        a_bytes: float = product.a_elements * size / max(1, product.batch)
        if conv is not None and taps > 1 and not kern.im2col and not conv.transposed:
            line = conv.in_spatial[-1] * conv.in_channels * size
            if line * conv.kernel[0] > view.l1_bytes * _WINDOW_REUSE:
                a_bytes = min(m * k * size, a_bytes * conv.kernel[0])
        elif kern.im2col and taps > 1:
            a_bytes += m * k * size  # the copied windows come back
        self.crossing[0] += times * a_bytes * passes_a
        self.crossing[1] += times * weights * passes_b
        self.crossing[2] += times * m * n * size
        if not view.microcontroller:
            passes = float(passes_b)
            if kern.blocked:
                edge = max(kern.rows, int(view.cache_bytes * _WINDOW_REUSE / (2 * k * size)))
                passes = -(-m // min(m, edge))
            elif lanes > 1:  # threads walk rows side by side and find what another has just read
                passes = -(-passes_b // lanes)
            # A stream repeated over more than a cache holds is found again in proportion: replacement is nearly random.
            lost = max(0.0, 1 - view.cache_bytes / (weights + a_bytes / passes)) if weights else 0.0
            self.refetched += times * weights * (passes - 1) * lost

    def depthwise(self, product: Product) -> None:
        """Output pixels of a depthwise convolution, a register of channels at a time."""
        view, conv = self.view, product.conv
        assert conv is not None
        taps = math.prod(conv.kernel)
        counts, channels = window(view, self.form, taps)
        total = product.batch * conv.out_channels
        groups = -(-total // channels)
        times = float(groups * product.m)
        lanes = self.parallel = threads_of(view, product.macs)
        rows = max(1, math.prod(conv.out_spatial[:-1]) * conv.images)
        self.row(
            counts, times, op="mac", lanes=lanes, units=rows, macs=product.macs,
            issued=groups * channels * product.m * taps, extent=(1, min(channels, total), taps),
            padded=(1, channels, taps),
        )  # fmt: skip
        line = conv.in_spatial[-1] * product.batch * self.size
        again = conv.kernel[0] if line * conv.kernel[0] > view.l1_bytes * _WINDOW_REUSE else 1
        again = max(1, again // max(1, conv.stride[0]))
        self.crossing[0] += product.a_elements * self.size * again
        self.crossing[1] += product.b_elements * self.size
        self.crossing[2] += product.c_elements * self.size

    def sparse(self, product: Product, sparsity: Sparsity) -> None:
        """Nonzero blocks of weights times registers of pixels, channels first."""
        view = self.view
        counts, pixels = sparse_step(view, self.form, sparsity.block)
        tiles = -(-product.m // pixels)
        blocks = -(-product.n // sparsity.block)
        kept = blocks * product.k * sparsity.density
        lanes = self.parallel = threads_of(view, product.macs)
        macs = round(product.macs * sparsity.density)
        self.row(
            counts, tiles * kept, op="mac", lanes=lanes, units=tiles, macs=macs,
            issued=round(tiles * pixels * kept * sparsity.block), extent=(min(pixels, product.m), sparsity.block, 1),
            padded=(pixels, sparsity.block, 1), scattered=True,
        )  # fmt: skip
        registers = pixels * self.size / view.register_bytes
        ends = Counts(0, 2 * registers, 1, 4, registers, pixels * self.size, 6)
        self.row(ends.plus(Counts(scalar=4)), tiles * product.n, op="alu", lanes=lanes, units=tiles)
        # Pixels of all input channels of a tile stay in the core's cache where they fit, else every block reads again.
        tile_bytes = pixels * product.k * self.size
        again = 1.0 if tile_bytes <= view.l1_bytes else max(1.0, blocks * sparsity.density)
        self.crossing[0] += product.a_elements * self.size * again
        stored = kept * (sparsity.block * self.size + 4)
        self.crossing[1] += stored * (1 if stored <= view.l1_bytes * _WINDOW_REUSE else tiles)
        self.crossing[2] += product.c_elements * self.size

    def copy(self, nbytes: float, lanes: int, *, rearranged: bool, widen: bool = False) -> None:
        """Operands copied into another order (a matrix of windows, panels), widened to 16 bits on the way or not."""
        if widen:
            # four bytes: a load, two unpacks, two pairings, two stores
            counts = Counts(0, 0, 1, 4, 2, 8, 4 + (1.0 if rearranged else 0.0), 0, True)
            self.row(counts, nbytes / 4, op="copy", lanes=lanes, units=lanes)
            return
        counts = _copied(self.view.register_bytes, self.view)
        if rearranged:
            counts = counts.plus(Counts(vector=2.0 if self.form in INTEGERS else 1.0))
        self.row(counts, nbytes / self.view.register_bytes, op="copy", lanes=lanes, units=lanes)
        self.crossing[2] += nbytes if nbytes > self.view.l1_bytes else 0

    # -- everything else -------------------------------------------------------------------------------------------

    def vector(self) -> None:
        """Element-wise work, reductions and data movement; what is fused into a product costs nothing more."""
        kernel, view = self.kernel, self.view
        gated = kernel.special or kernel.op in ("lstm", "gru", "rnn", "svdf")
        if kernel.products and kernel.kind != "attention" and not gated:
            return
        counts = vector_counts(kernel, view)
        lanes = view.threads if view.library == "xnnpack" else 1
        self.parallel = max(self.parallel, lanes)
        self.row(
            counts, 1.0, op="alu", lanes=lanes, units=max(lanes, kernel.rows), macs=max(1, kernel.alu + kernel.special)
        )
        if not kernel.products:
            for operand in kernel.inputs:
                self.crossing[0] += operand.bytes * kernel.passes
            self.crossing[1] += kernel.weight_bytes
            for operand in kernel.outputs:
                self.crossing[2] += operand.bytes

    def memory(self) -> None:
        """What no cache holds comes from memory, and everything crosses from the shared caches into a core's own."""
        kernel, view = self.kernel, self.view
        far = [
            sum(o.bytes * (1 - o.cached) for o in kernel.inputs),
            (kernel.weights.bytes * (1 - kernel.weights.cached) if kernel.weights else 0.0) + self.refetched,
            sum(o.bytes * (1 - o.cached) for o in kernel.outputs),
        ]
        if view.microcontroller:
            far = [0.0, self.crossing[1] if kernel.weights else 0.0, 0.0]
        cause = "flash" if view.microcontroller else "dram"
        self.stage += 1
        source, target = (LEVEL["dram"], LEVEL["dram"], 0), (LEVEL["shared"], LEVEL["shared"], LEVEL["dram"])
        self.builder.row(
            stage=self.stage, unit=UNIT["dma"], op=OPERATION["copy"], cause=CAUSE[cause], lanes=view.threads, buffers=0,
            bytes=tuple(round(b) for b in far), source=source, target=target, dep=(0,), format=FORMAT[self.form],
        )  # fmt: skip
        self.stage += 1
        self.builder.row(
            stage=self.stage, unit=UNIT["dma"], op=OPERATION["copy"], cause=CAUSE["cache"], lanes=self.parallel, buffers=0,
            bytes=tuple(round(b) for b in self.crossing), source=(LEVEL["shared"], LEVEL["shared"], 0),
            target=(LEVEL["local"], LEVEL["local"], LEVEL["shared"]), dep=(0,), format=FORMAT[self.form],
        )  # fmt: skip


def _copied(nbytes: float, view: CpuView) -> Counts:
    registers = nbytes / view.register_bytes
    return Counts(load=registers, load_bytes=nbytes, store=registers, store_bytes=nbytes, scalar=registers)


def stored_bytes(elements: int, form: str) -> int:
    """Bytes of ``elements`` values of a format."""
    return storage_bytes(elements, form)
