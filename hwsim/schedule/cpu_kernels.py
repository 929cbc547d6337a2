"""Micro-kernels of the CPU libraries as instruction counts: what one step of the innermost loop issues.

A matrix micro-kernel keeps a tile of ``rows`` x ``cols`` sums in registers and walks K in steps of ``depth``. Counts are
those of the loops the libraries publish (google/XNNPACK, google/ruy, google/gemmlowp, ARM-software/CMSIS-NN); they
depend on the instruction set, the number format and the library, never on a device.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.formats import FORMATS
from hwsim.schedule.cpu_view import CpuView

INTEGERS = ("int8", "uint8")


@dataclass(frozen=True, slots=True)
class Counts:
    """Instructions of one step: SIMD multiplications, other SIMD, loads and stores (with their bytes), and scalar ones.

    ``chain`` is how many multiplications of the step depend on each other through one sum.
    """

    multiply: float = 0.0
    vector: float = 0.0
    load: float = 0.0
    load_bytes: float = 0.0
    store: float = 0.0
    store_bytes: float = 0.0
    scalar: float = 0.0
    chain: float = 0.0
    integer: bool = False

    @property
    def instructions(self) -> float:
        """All instructions issued."""
        return self.multiply + self.vector + self.load + self.store + self.scalar

    def plus(self, other: Counts, times: float = 1.0) -> Counts:
        """This and ``times`` of another, one after the other."""
        return Counts(
            self.multiply + times * other.multiply, self.vector + times * other.vector, self.load + times * other.load,
            self.load_bytes + times * other.load_bytes, self.store + times * other.store,
            self.store_bytes + times * other.store_bytes, self.scalar + times * other.scalar,
            self.chain + times * other.chain, self.integer or other.integer,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class MicroKernel:
    """A register tile: name, extents, what a step and the end of a tile issue, and how the library walks its operands.

    ``packs`` says whether operands are copied into panels at run time, which pads them to whole tiles (else there are
    kernels for fewer rows), ``blocked`` whether blocks of both operands are kept in cache (else every row tile streams all
    of B), ``im2col`` whether windows are copied into a matrix first.
    """

    name: str
    rows: int
    cols: int
    depth: int
    packs: bool = False
    blocked: bool = False
    im2col: bool = False


def matrix_kernel(view: CpuView, form: str, sparse: bool = False) -> MicroKernel:
    """Return the micro-kernel ``view``'s library multiplies matrices of ``form`` with."""
    if view.isa in ("dsp", "scalar") or view.library == "tflm-reference":
        if view.library == "tflm-reference" or view.isa == "scalar" or form not in INTEGERS:
            return MicroKernel("scalar", 1, 1, 1)
        return MicroKernel("smlad", 2, 2, 4, im2col=True)
    lanes = view.register_bytes * 8 // FORMATS[form].width
    tuned = view.library == "xnnpack"
    traits = {"packs": not tuned, "blocked": not tuned, "im2col": not tuned}
    if form not in INTEGERS:
        rows = {"neon": 6 if tuned else 8, "neon32": 4, "sse4": 4, "avx2": 5, "avx512": 7}[view.isa]
        vectors = 1 if view.isa == "avx512" else 2
        return MicroKernel("fma", rows, vectors * lanes, lanes if view.isa.startswith("neon") else 1, **traits)
    if view.dot == "vnni":
        return MicroKernel("vnni", 7, 16 * view.register_bytes // 64, 4, **traits)
    if view.dot in ("sdot", "i8mm"):
        return MicroKernel("sdot", 4 if tuned else 8, 16 if tuned else 8, 16, **traits)
    if view.isa.startswith("neon"):
        return MicroKernel("smull", 2 if tuned else 4, 8 if tuned else 4, 16, **traits)
    if view.isa == "sse4":
        return MicroKernel("pmaddwd", 4, 12, 2, **traits)
    return MicroKernel("vpmaddwd", 3, 8 * view.register_bytes // 32, 8, **traits)


def step(kernel: MicroKernel, view: CpuView, form: str, rows: int) -> Counts:
    """Return what one step over ``depth`` elements of K issues for ``rows`` of the tile's rows."""
    size = view.register_bytes
    name = kernel.name
    if name == "scalar":
        # load, load, add the offset of an 8-bit operand, multiply-accumulate, the loop's and addresses' own
        return Counts(1, 0, 2, 2 * FORMATS[form].width / 8, 0, 0, 1.2, 1)
    if name == "smlad":
        # 2 x 2 sums, 4 of K: weights are unpacked to 16 bits here, activations were on their way in
        loads = rows + 4.0
        return Counts(4.0 * rows, 0, loads, 4.0 * loads, 0, 0, 4.0 * rows + 3 + _stalls(view, loads), 2, True)
    if name == "fma":
        vectors = kernel.cols * FORMATS[form].width / 8 / size
        if kernel.depth == 1:  # one broadcast load per row and element
            loads, bytes_ = vectors + rows, vectors * size + rows * FORMATS[form].width / 8
            return Counts(vectors * rows, 0, loads, bytes_, 0, 0, 2, 1)
        per = kernel.depth * vectors
        return Counts(per * rows, 0, per + rows, (per + rows) * size, 0, 0, 3, kernel.depth)
    if name == "smull":
        pairs = rows * kernel.cols
        loads = kernel.cols + rows
        return Counts(2.0 * pairs, pairs, loads, loads * size, 0, 0, 3, 1, True)
    if name == "sdot":
        loads = kernel.cols + rows
        return Counts(rows * kernel.cols, 0, loads, loads * size, 0, 0, 3, 4, True)
    if name == "vnni":
        return Counts(rows, 0, 1 + rows, size + 4.0 * rows, 0, 0, 2, 1, True)
    if name == "vpmaddwd":
        return Counts(4.0 * rows, 4.0 * rows + 4 + rows, 4 + rows, 4.0 * size / 2 + 8.0 * rows, 0, 0, 2, 1, True)
    # pmaddwd: 12 columns are three registers, 4 rows broadcast
    return Counts(3.0 * rows, 3.0 * rows + rows + 4, 4, 32, 0, 0, 2, 1, True)


def _stalls(view: CpuView, loads: float) -> float:
    """Issue slots lost to loads on cores of one instruction a clock: a load that follows no other takes two."""
    return loads if view.issue == 1 else 0.0


def sums(view: CpuView, form: str, rows: int, cols: int, depth: int) -> float:
    """Return how many independent registers of sums a padded tile has: multiplications of different ones overlap."""
    del depth
    kernel = matrix_kernel(view, form)
    if (rows, cols) == (1, 1) or kernel.name in ("scalar", "smlad"):
        return float(rows * cols)
    if kernel.name in ("smull", "vpmaddwd"):
        return float(rows * cols)
    width = 4 if form in INTEGERS else FORMATS[form].width / 8
    return max(1.0, rows * cols * width / view.register_bytes)


def tile_end(kernel: MicroKernel, view: CpuView, form: str, rows: int, cols: int) -> Counts:
    """Return what the end of a tile issues: sums reduced, bias, activation, requantisation and stores."""
    results = rows * cols
    if kernel.name in ("scalar", "smlad"):
        # 32 x 32 -> 64 multiplication, rounding shift, offset, clamp, store
        own = 20.0 if form in INTEGERS else 3.0
        return Counts(results, 0, results, 4.0 * results, results, results, own * results)
    lanes = view.register_bytes / 4
    vectors = results / lanes
    if form not in INTEGERS:
        width = FORMATS[form].width / 8
        return Counts(0, 2 * vectors, cols / lanes, cols * 4.0, vectors, results * width, 10 + 2.0 * rows)
    reduce = 3 * vectors if kernel.name in ("smull", "vpmaddwd") else 0.0
    if view.library == "xnnpack":  # convert, scale, round, add the zero point and narrow in fp32
        each, own = 7.0, 12 + 2.0 * rows
    else:  # zero points of both operands, rounding doubling multiplication, rounding shift, corrections of both
        each, own = 12.0, 14 + 4.0 * rows
    return Counts(
        vectors, reduce + each * vectors, cols / lanes, 4.0 * cols, vectors / 4, results, own, 0, True
    )  # fmt: skip


def window(view: CpuView, form: str, taps: int) -> tuple[Counts, int]:
    """Return what one output pixel of a depthwise convolution issues per register of channels, and these channels."""
    integer, size = form in INTEGERS, view.register_bytes
    if view.library == "tflm-reference" or view.isa == "scalar":
        own = (_stalls(view, 2.0) + 9.0) * taps + 22.0  # addresses are computed anew for every tap
        return Counts(taps, 0, 2.0 * taps + 1, 2.0 * taps, 1, 1, own, 0, integer), 1
    if view.isa == "dsp":
        if not integer:
            return Counts(taps, 0, 2.0 * taps + 1, 8.0 * taps, 1, 4, 2.0 * taps + 4), 1
        # four channels: bytes are loaded by fours, unpacked and paired by two taps
        own = 4.5 * taps + 80 + _stalls(view, 2.0 * taps)
        return Counts(2.0 * taps, 0, 2.0 * taps + 4, 8.0 * taps, 4, 4, own, 0, True), 4
    own = view.library == "xnnpack"
    if not integer:
        lanes = size * 8 // FORMATS[form].width
        if own:
            return Counts(taps, 2, 2.0 * taps + 1, (2.0 * taps + 1) * size, 1, size, 3 + taps / 2), lanes
        return _row_sums(Counts(taps, 2, 2.0 * taps + 1, (2.0 * taps + 1) * size, 1, size, 4), taps, size), lanes
    if not view.isa.startswith("neon") and not own:  # compiled from C, one channel at a time
        return Counts(taps, 0, 3.0 * taps + 1, 6.0 * taps, taps + 1.0, 4.0 * taps, 4.0 * taps + 14, 0, True), 1
    half = size // 2
    # as many channels as half a register has bytes: both operands widened to 16 bits, two long multiply-accumulates
    counts = Counts(
        2.0 * taps, 2.0 * taps + 16, 2.0 * taps + 2, (2.0 * taps + 2) * half, 1, half, 4 + taps / 2, 0, True
    )
    return (counts if own else _row_sums(counts, taps, 2 * size)), half


def _row_sums(counts: Counts, taps: int, nbytes: int) -> Counts:
    """TensorFlow Lite adds one tap after the other to sums in memory: they are loaded and stored for every tap."""
    each = nbytes / 16
    return counts.plus(Counts(0, 0, each, nbytes, each, nbytes, 2), taps)


def sparse_step(view: CpuView, form: str, block: int) -> tuple[Counts, int]:
    """Return what one nonzero block (``block`` output channels, one input channel) issues for a register tile of pixels.

    XNNPACK's kernels work channels-first: pixels fill the registers, weights are broadcast one by one, and an offset
    says which input channel comes next. The tile has 32 pixels where sums of ``block`` channels fit the registers.
    """
    lanes = view.register_bytes * 8 // FORMATS[form].width
    registers = 8 if block == 1 else max(2, 16 // block)
    size = view.register_bytes
    multiply = float(registers * block)
    # pixels, weights, the offset of the next channel; prefetches of the next pixels
    loads = registers + max(1.0, block * FORMATS[form].width / 8 / size) + 1
    return Counts(multiply, 0, loads, registers * size + 8.0, 0, 0, 3 + registers / 4, 1), registers * lanes
