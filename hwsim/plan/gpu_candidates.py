"""The kernels a GPU library has for one kernel of a plan: shapes for the GEMM engine, direct kernels, memory traffic."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hwsim.formats import FORMATS
from hwsim.network.opdefs import Product
from hwsim.plan.gpu_convolve import implicit_setup, simt_convolutions
from hwsim.plan.gpu_job import Job
from hwsim.plan.kernel import Kernel, Operand
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_kind import MOST_SPLITS, GemmKind
from hwsim.timing.gpu_memory import VectorWork

ROW_THREADS = 128  # of a CTA that a framework gives a row
UNCACHED = frozenset({"maxwell", "pascal"})  # their L1 keeps no loads from memory unless asked to
VECTOR_BYTES = 16  # of one access of a thread; what channels are padded to
STEM_CHANNELS = 4  # first layers of few channels have kernels that read four together
PACKED_GROUP = 16  # columns a grouped convolution's tile has at least, groups packed into it
# Kernels that move data to where no row of the source lies: half of a transfer's sectors are used, once.
SCATTERED = frozenset({"transpose", "depth_to_space", "space_to_depth", "gather", "scatter", "grid_sample", "flip"})
INTERLEAVED = (
    "turing"  # cuDNN's 8-bit convolutions keep channels in groups of 32 there, and filters in an order of their own
)
SPARSE_K = {"fp16": 32, "bf16": 32, "int8": 64, "e4m3": 64, "tf32": 16}  # of one sparse instruction of full rate


def product_jobs(kernel: Kernel, view: GpuView, prepared: bool = True) -> list[Job]:
    """Return the candidates for a kernel with one product (a step of a recurrence counts as one).

    ``prepared``: a compiler has transformed constant filters before the network runs.
    """
    assert kernel.multiply is not None
    product = kernel.products[0]
    fmt = kernel.multiply.format
    pipe = kernel.pipe or ("tensor" if fmt in view.tensor_macs else "simt")
    narrow = product.conv is not None and product.batch > 1 and product.n < PACKED_GROUP
    jobs: list[Job] = []
    if not (narrow and product.n == 1):
        jobs.append(_gemm_job(kernel, product, view, pipe, fmt, prepared))
        if pipe == "simt":
            jobs += simt_convolutions(product, jobs[0], view, prepared)
    if narrow:
        jobs.append(_direct_job(kernel, product, view, fmt))
    if kernel.sparsity:
        base = jobs[0]
        refusal = sparse_refusal(kernel, product, base, view)
        if base.kind is not None and kernel.sparsity.endswith("emulated") and _expandable(product, refusal):
            # Half of the weights and an index of each are stored, and widened to all of them.
            kind = replace(base.kind, b_bits=base.kind.b_bits / 2 + 1)
            jobs.append(replace(base, kind=kind, sparse=True, emulated=True, b_bytes=_sparse_bytes(kernel, base)))
        elif refusal or base.kind is None:
            jobs[0] = replace(base, refusal=refusal or "runs on the CUDA cores")
        else:
            kind = replace(base.kind, sparse=True)
            jobs.append(replace(base, kind=kind, sparse=True, b_bytes=_sparse_bytes(kernel, base)))
    return jobs


def _sparse_bytes(kernel: Kernel, job: Job) -> float:
    """Stored bytes of 2:4 weights that bring scales (0: what their width says): half the elements, and an index of each."""
    weights = kernel.weights
    if weights is None or not job.b_bytes or job.kind is None:
        return 0.0
    return weights.bytes - weights.elements * job.kind.b_bits / 16 + weights.elements / 8


def _expandable(product: Product, refusal: str) -> bool:
    """Whether weights without a sparse instruction may still be stored 2:4: groups of four along K, vectors of outputs."""
    depth = product.conv.in_channels if product.conv else product.k
    lacking = refusal.startswith(("runs on", "no sparse", "no kernel"))
    return lacking and product.batch == 1 and depth % 4 == 0 and product.n % 8 == 0


def sparse_refusal(kernel: Kernel, product: Product, job: Job, view: GpuView) -> str:
    """Why a library has no 2:4 sparse kernel for a product; empty when it has one."""
    fmt = job.format
    if job.kind is None or job.kind.pipe != "tensor":
        return "runs on the CUDA cores"
    if not view.sparse or fmt not in SPARSE_K:
        return f"no sparse {fmt} instruction"
    if job.kind.b_bits < job.kind.compute_bits and job.kind.instruction != "mma":
        return "no kernel widens sparse weights for these instructions"  # Sparse-Marlin does, for warp-wide ones
    depth = product.conv.in_channels if product.conv else product.k
    if product.batch > 1:
        return "grouped"
    if depth % SPARSE_K[fmt]:
        return f"{depth} channels are no multiple of {SPARSE_K[fmt]}"
    if product.n % 8:
        return f"{product.n} outputs are no multiple of 8"
    return ""


def _gemm_job(kernel: Kernel, product: Product, view: GpuView, pipe: str, fmt: str, prepared: bool) -> Job:
    multiply = kernel.multiply
    assert multiply is not None
    a = [o for o in kernel.inputs if o.role == "a"]
    b = [o for o in kernel.inputs if o.role == "b"]
    x = [o for o in kernel.inputs if o.role not in ("a", "b")]
    a_format = a[0].format if a else kernel.inputs[0].format
    weights = kernel.weights if product.b_weight else None
    b_format = weights.format if weights else (b[0].format if b else a_format)
    m, n, k, batch = product.m, product.n, product.k, product.batch
    algorithm = "gemm"
    conv = product.conv
    width = FORMATS[fmt].width
    rate = view.simt_macs["fp32"] if kernel.pipe else (view.tensor_macs if pipe == "tensor" else view.simt_macs)[fmt]
    if conv is not None and not conv.transposed:
        taps = math.prod(conv.kernel)
        channels = conv.in_channels
        if batch > 1 and n < PACKED_GROUP:
            together = min(batch, -(-PACKED_GROUP // n))
            batch, n, channels = -(-batch // together), n * together, channels * together
        if pipe == "tensor":
            step = STEM_CHANNELS if channels <= STEM_CHANNELS else max(1, VECTOR_BYTES * 8 // width)
            channels = -(-channels // step) * step
        k = taps * channels
        if taps > 1 or any(s > 1 for s in conv.stride):
            algorithm = "implicit_gemm"
            rate *= view.constants[f"implicit_{pipe}"]
    a_width, b_width = (FORMATS[x].width + (8 / multiply.block if multiply.block else 0) for x in (a_format, b_format))
    layout, splits = kernel.layout, 1 if multiply.block else MOST_SPLITS
    if conv is not None and pipe == "simt":
        layout, splits = "conv", 1  # no library cuts K of a convolution on the CUDA cores
    elif conv is not None and not conv.transposed:
        splits = min(splits, round(view.constants["conv_splits"]))
        if view.architecture == INTERLEAVED and width == 8 and not prepared:
            layout = "interleaved"  # compilers have more kernels than a library's one set
    results = max(1, product.c_elements)
    # Operands of a recurrence are those of all its steps; a job is one step.
    out_bytes = sum(o.bytes for o in kernel.outputs) / kernel.repeat
    kind = GemmKind(
        pipe, view.tensor_kind if pipe == "tensor" else "simt", rate,
        max(width, a_width) if multiply.convert_a else a_width, b_width,
        round(8 * out_bytes / results * 4) / 4 if out_bytes else 16, b_width if multiply.block else max(width, 8),
        form=fmt, layout=layout, scaled=bool(multiply.block), most_splits=splits,
    )  # fmt: skip
    a_bytes = min(sum(o.bytes for o in a), m * k * batch * kind.a_bits / 8) if a else 0.0
    # Narrow weights bring scales and zero points, which their width does not say.
    b_bytes = float(weights.bytes * multiply.convert_b) if weights else float(sum(o.bytes for o in b))
    if not weights and b and product.b_elements < batch * n * k:
        b_bytes = product.b_elements * kind.b_bits / 8
    called = conv is not None and not conv.transposed and not prepared
    before = implicit_setup(view, k, batch * n * k * kind.b_bits / 8, layout) if called else ()
    lanes = view.simt_macs["fp32"] * view.constants["issue_efficiency"]
    cycles = (kernel.alu / lanes + kernel.special / view.special_per_clk) / (results * product.repeat)
    return Job(
        algorithm, kind, fmt, m, n, k, batch, a_bytes, b_bytes, _found(a), weights.cached if weights else _found(b),
        _found(list(kernel.outputs)), sum(o.bytes for o in x) / kernel.repeat, _found(x), cycles, kernel.repeat,
        transforms=before,
    )  # fmt: skip


def _direct_job(kernel: Kernel, product: Product, view: GpuView, fmt: str) -> Job:
    """A convolution of narrow groups on the CUDA cores: each thread makes a vector of results from neighbouring inputs."""
    work = memory_work(kernel, view)
    rate = view.simt_macs.get(fmt, view.simt_macs["fp32"]) / view.simt_macs["fp32"]
    # Lane operations that take as long as the multiply-accumulates, with the loads from the L1 beside them.
    alu = product.macs / rate * view.constants["direct_instructions"] + kernel.alu
    read = sum(o.bytes for o in kernel.inputs)
    conv = product.conv
    assert conv is not None
    overlap = min(3.0, math.prod(conv.kernel) / math.prod(conv.stride))
    crossing = np.asarray(work.l2_bytes, np.float64).item() + read * (overlap - 1) * 0.25
    work = VectorWork(
        work.dram_read, work.dram_write, crossing, work.threads, alu, kernel.special, crossing / VECTOR_BYTES, 0, 1.0
    )
    return Job("direct", None, fmt, product.m, product.n, product.k, product.batch, repeat=kernel.repeat, work=work)


def memory_work(kernel: Kernel, view: GpuView) -> VectorWork:
    """What a kernel without matrix products (or one done on CUDA cores) moves and computes."""
    reads = [*kernel.inputs, *([kernel.weights] if kernel.weights else [])]
    read = sum(o.bytes for o in reads)
    from_dram = sum(o.bytes * (1 - o.cached) for o in reads)
    written = sum(o.bytes for o in kernel.outputs)
    to_dram = sum(o.bytes * (1 - o.cached) for o in kernel.outputs)
    elements = max(sum(o.elements for o in kernel.outputs), max((o.elements for o in kernel.inputs), default=1))
    width = max((FORMATS[o.format].width for o in (*kernel.inputs, *kernel.outputs)), default=32)
    per_thread = max(1, kernel.access_bytes * 8 // width)
    sweeps, far = _sweeps(kernel, view, elements, read)
    access = view.constants["scattered_access"] if kernel.op in SCATTERED else 1.0
    phases = max(0, kernel.passes - 1)
    return VectorWork(
        from_dram + read * (far - 1), to_dram, read * sweeps + written, -(-elements // per_thread), float(kernel.alu),
        float(kernel.special), (read * sweeps + written) / kernel.access_bytes, phases, access, kernel.access_bytes,
    )  # fmt: skip


def _sweeps(kernel: Kernel, view: GpuView, elements: int, read: int) -> tuple[float, float]:
    """How often a kernel reads its input through the L2, and how often from DRAM.

    A row that fits the registers and shared memory of a CTA is read once, whatever the passes over it. A kernel that
    reads its rows again finds them in the L1, or in the L2, where the rows of all resident CTAs fit there.
    """
    if kernel.passes <= 1 or not kernel.rows:
        return 1.0, 1.0
    if not kernel.sweeps:
        kept = 4 * elements / kernel.rows <= view.max_shared_per_cta
        sweeps = 1.0 if kept else kernel.passes - 1.0
        return sweeps, sweeps
    row = read / kernel.rows
    resident = min(kernel.rows / view.sms, view.max_threads // ROW_THREADS) * row  # bytes of an SM's rows
    near = _room(resident, view.shared_bytes if view.architecture not in UNCACHED else 0.0)
    there = _room(resident * view.sms, view.constants["resident_share"] * view.l2_bytes)
    again = (kernel.sweeps - 1) * (1 - near)
    return 1 + again, 1 + again * (1 - there)


def _room(held: float, capacity: float) -> float:
    """Share of bytes read again that are found: all where they fit, none where they are twice as many."""
    return min(1.0, max(0.0, 2 - held / capacity)) if capacity else 0.0


def _found(operands: list[Operand]) -> float:
    total = sum(o.bytes for o in operands)
    return sum(o.bytes * o.cached for o in operands) / total if total else 0.0
