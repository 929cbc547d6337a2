"""Kernel choice on a GPU: every distinct kernel of a plan costed at once, the fastest algorithm, tile and split kept.

Products of equal formats go to the GEMM engine in one array; attention and memory-bound kernels likewise. A convolution is
an implicit product (its input read as an m x k matrix that is never stored), a Winograd transform around batched products,
or a direct kernel on the CUDA cores where groups are too narrow for a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.formats import FORMATS
from hwsim.link.collective import Fabric
from hwsim.plan.gpu_attend import decode_choices, decodes
from hwsim.plan.gpu_candidates import memory_work, product_jobs
from hwsim.plan.gpu_exchange import exchange_choices
from hwsim.plan.gpu_job import Job
from hwsim.plan.kernel import Kernel
from hwsim.schedule.gpu_choice import GpuChoice, Walk
from hwsim.schedule.gpu_view import GpuView
from hwsim.timing.gpu_attention import BOUNDS as ATTENTION_BOUNDS
from hwsim.timing.gpu_attention import TILES as ATTENTION_TILES
from hwsim.timing.gpu_attention import AttentionShape, attention_times
from hwsim.timing.gpu_gemm import GemmKind, Surroundings, best_gemm
from hwsim.timing.gpu_memory import BOUNDS as VECTOR_BOUNDS
from hwsim.timing.gpu_memory import THREADS, VectorWork, transform_seconds, vector_times
from hwsim.timing.gpu_rows import bounded


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """How kernels are started, and up to which length attention gives a CTA a whole head.

    ``cold_code``: kernels differ from one to the next, so that each finds its instructions and arguments in no cache.
    """

    launch: str = "graph"
    head_length: int = 0
    cold_code: bool = True
    fabric: Fabric | None = None  # what joins the GPUs that share every product
    prepared: bool = True  # constant filters are transformed before the network runs, as compilers do
    throttle: bool = False  # every product at the clock its own power allows (single kernels); else at the view's


def choose_kernels(kernels: Sequence[Kernel], view: GpuView, options: ChoiceOptions) -> list[GpuChoice]:
    """Return the choice for every kernel; kernels alike in all that matters are costed once."""
    keys = [signature(k) for k in kernels]
    distinct = dict(zip(reversed(keys), reversed(kernels), strict=True))
    found: dict[tuple[object, ...], GpuChoice] = {}
    products = [k for k in distinct.values() if k.kind == "matmul"]
    decoding = [k for k in distinct.values() if decodes(k)]
    attention = [k for k in distinct.values() if k.kind == "attention" and not decodes(k)]
    exchanges = [k for k in distinct.values() if k.kind == "collective"]
    others = [k for k in distinct.values() if k.kind not in ("matmul", "attention", "collective")]
    found |= dict(zip(map(signature, products), _products(products, view, options), strict=True))
    found |= dict(zip(map(signature, attention), _attention(attention, view, options), strict=True))
    exchanged = exchange_choices(exchanges, view, options.fabric, launch_seconds(view, options))
    found |= dict(zip(map(signature, exchanges), exchanged, strict=True))
    decoded = decode_choices(decoding, view, launch_seconds(view, options))
    found |= dict(zip(map(signature, decoding), decoded, strict=True))
    found |= dict(zip(map(signature, others), _memory(others, view, options), strict=True))
    return [found[key] for key in keys]


def signature(kernel: Kernel) -> tuple[object, ...]:
    """Everything of a kernel that its cost depends on."""
    return (
        kernel.kind, kernel.op, kernel.products, kernel.multiply, kernel.alu, kernel.special, kernel.passes, kernel.rows,
        kernel.repeat, kernel.sparsity, kernel.layout, kernel.pipe, kernel.access_bytes, kernel.sweeps,
        tuple((o.elements, o.bytes, o.format, o.role, o.cached) for o in kernel.inputs),
        tuple((o.elements, o.bytes, o.format, o.cached) for o in kernel.outputs),
        kernel.weights and (kernel.weights.bytes, kernel.weights.format, kernel.weights.cached),
    )  # fmt: skip


def device_launch(options: ChoiceOptions) -> str:
    """How the product engine counts a start: what the device takes, the same in a graph and on a stream that is ahead."""
    return "none" if options.launch == "none" else "graph"


def launch_seconds(view: GpuView, options: ChoiceOptions) -> float:
    """Seconds from one kernel's start to the next's where both do nothing and the host is ahead."""
    cold = view.constants["code_misses"] * view.dram_latency_s if options.cold_code else 0.0
    return cold + (0.0 if options.launch == "none" else view.graph_launch_s)


def _products(kernels: list[Kernel], view: GpuView, options: ChoiceOptions) -> list[GpuChoice]:
    return [_best(k, found) for k, found in zip(kernels, candidates(kernels, view, options), strict=True)]


def candidates(kernels: Sequence[Kernel], view: GpuView, options: ChoiceOptions) -> list[list[tuple[Job, GpuChoice]]]:
    """Return every candidate of each kernel with a product, with its cost."""
    jobs = [(i, job) for i, kernel in enumerate(kernels) for job in product_jobs(kernel, view, options.prepared)]
    costed: list[list[tuple[Job, GpuChoice]]] = [[] for _ in kernels]
    by_kind: dict[GemmKind, list[tuple[int, Job]]] = {}
    for i, job in jobs:
        if job.kind is None:
            costed[i].append((job, _direct(job, view, options)))
        else:
            by_kind.setdefault(job.kind, []).append((i, job))
    for kind, mine in by_kind.items():
        for (i, job), choice in zip(mine, _gemms(kind, [j for _, j in mine], view, options), strict=True):
            costed[i].append((job, choice))
    return costed


def _best(kernel: Kernel, found: list[tuple[Job, GpuChoice]]) -> GpuChoice:
    """The fastest candidate; where a sparse one is among them, what it gains over the fastest dense one."""
    dense = min((c for j, c in found if not j.sparse), key=lambda c: c.time_s)
    sparse = [c for j, c in found if j.sparse]
    if not kernel.sparsity:
        return dense
    if not sparse:
        reason = next((j.refusal for j, _ in found if j.refusal), "not eligible")
        return replace(dense, sparse={"eligible": False, "chosen": False, "gain": 1.0, "limit": reason})
    best = min(sparse, key=lambda c: c.time_s)
    gain = dense.time_s / best.time_s
    if any(j.emulated for j, _ in found):  # they are stored so, faster or not
        note = {"eligible": False, "chosen": False, "gain": gain, "limit": "emulated", "emulated": True}
        return replace(best, sparse=note)
    chosen = gain > 1.0
    note = {"eligible": True, "chosen": chosen, "gain": gain, "limit": best.limiter}
    return replace(best if chosen else dense, sparse=note)


def _gemms(kind: GemmKind, jobs: list[Job], view: GpuView, options: ChoiceOptions) -> list[GpuChoice]:
    def column(name: str) -> npt.NDArray[Any]:
        return np.array([getattr(j, name) for j in jobs])

    around = Surroundings(**{name: column(name) for name in Surroundings.__slots__})
    got = best_gemm(
        view, kind, column("m"), column("n"), column("k"), column("batch"), launch=device_launch(options),
        throttle=options.throttle, around=around,
    )  # fmt: skip
    tiles, names = got.tiles, got.limiter_names()
    cold = launch_seconds(view, options) - launch_seconds(view, replace(options, cold_code=False))
    out = []
    for i, job in enumerate(jobs):
        t = int(got.tile[i])
        times = {
            "launch": got.launch_s[i] + cold, "latency": got.prologue_s[i], "main": got.main_s[i], "tail": got.tail_s[i],
            "epilogue": got.epilogue_s[i], "reduce": got.reduce_s[i],
        }  # fmt: skip
        times = {name: float(v) for name, v in times.items()}
        times["launch"] += len(job.transforms) * launch_seconds(view, options)
        times["epilogue"] += sum(float(transform_seconds(view, *each[:4])) for each in job.transforms)
        dram = {"a": got.dram_a[i], "b": got.dram_b[i], "c": got.dram_c[i], "x": got.dram_x[i]}
        l2 = {"a": got.l2_a[i], "b": got.l2_b[i], "c": got.l2_c[i], "x": job.extra_bytes}
        tm, tn, tk = int(tiles.m[t]), int(tiles.n[t]), int(tiles.k[t])
        grid = (int(got.grid_m[i]), int(got.grid_n[i]))
        steps, split = int(got.k_steps[i]), int(got.split[i])
        out.append(
            GpuChoice(
                job.algorithm, kind.pipe, job.format, job.m, job.n, job.k, job.batch, (tm, tn, tk), int(tiles.stages[t]),
                (int(tiles.unit_m[t]), int(tiles.unit_n[t]), int(tiles.warps[t]), int(tiles.slices[t])), grid, split,
                int(got.ctas[i]), steps, float(got.waves[i]), int(got.occupancy[i]), bounded(names[i], times),
                job.repeat, times, {k: float(v) for k, v in dram.items()}, {k: float(v) for k, v in l2.items()},
                parts=(int(tiles.split_a[t]), int(tiles.split_b[t]), int(tiles.share_a[t]), int(tiles.share_b[t])),
                rate=kind.rate,
                bits=(kind.a_bits, kind.b_bits, kind.c_bits, kind.compute_bits), transforms=job.transforms, useful=job.useful,
            )
        )  # fmt: skip
    return out


def _direct(job: Job, view: GpuView, options: ChoiceOptions) -> GpuChoice:
    assert job.work is not None
    return _vector_choices([job.work], view, options, "direct", [job.repeat], [job.format])[0]


def _memory(kernels: list[Kernel], view: GpuView, options: ChoiceOptions) -> list[GpuChoice]:
    works = [memory_work(k, view) for k in kernels]
    return _vector_choices(works, view, options, "memory", [k.repeat for k in kernels], [""] * len(works))


def _vector_choices(
    works: Sequence[VectorWork], view: GpuView, options: ChoiceOptions, algorithm: str, repeats: Iterable[int],
    formats: Iterable[str],
) -> list[GpuChoice]:  # fmt: skip
    if not works:
        return []
    columns = {name: np.array([getattr(w, name) for w in works], np.float64) for name in VectorWork.__slots__}
    got = vector_times(view, VectorWork(**columns), launch_seconds(view, options))
    out = []
    for i, (repeat, fmt) in enumerate(zip(repeats, formats, strict=True)):
        times = {"launch": got.launch_s[i], "latency": got.latency_s[i], "main": got.body_s[i]}
        out.append(
            GpuChoice(
                algorithm, "simt", fmt, m=THREADS * int(got.ctas[i]), ctas=int(got.ctas[i]), waves=float(got.waves[i]),
                occupancy=view.max_threads // THREADS, limiter=VECTOR_BOUNDS[got.bound[i]], repeat=repeat,
                times={k: float(v) for k, v in times.items()},
                dram={"a": float(columns["dram_read"][i]), "c": float(columns["dram_write"][i])},
                l2={"a": float(columns["l2_bytes"][i])}, syncs=int(columns["phases"][i]), access=float(columns["access"][i]),
                vector_bytes=int(columns["vector_bytes"][i]),
            )
        )  # fmt: skip
    return out


def _attention(kernels: list[Kernel], view: GpuView, options: ChoiceOptions) -> list[GpuChoice]:
    if not kernels:
        return []
    rows = [_attention_row(kernel, view, options) for kernel in kernels]
    table = np.array(rows, np.float64)
    columns: list[Any] = [table[:, i].astype(np.int64) for i in range(6)]
    columns += [table[:, 6] > 0, *(table[:, i] for i in range(7, 13)), table[:, 13] > 0, table[:, 14] > 0]
    shape = AttentionShape(*columns)
    got = attention_times(view, shape, launch_seconds(view, options))
    out = []
    for i, kernel in enumerate(kernels):
        assert kernel.multiply is not None
        qk, pv = kernel.products
        tq, tk, warps = (int(v) for v in ATTENTION_TILES[got.tile[i]])
        split, sharing = int(got.split[i]), int(shape.sharing[i])
        times = {
            "launch": got.launch_s[i], "latency": got.latency_s[i], "main": got.main_s[i], "tail": got.tail_s[i],
            "reduce": got.reduce_s[i],
        }  # fmt: skip
        together = sharing if sharing > 1 and qk.m * sharing <= tq else 1
        diagonal = bool(shape.causal[i]) and qk.n >= qk.m
        element = float(shape.element_bytes[i])
        walk = Walk(
            qk.batch // together, qk.m * together, qk.n, qk.k, pv.n, qk.n - qk.m if diagonal else -1,
            bool(shape.one_cta[i]), float(got.alu[i]), float(got.special[i]), element, element, float(shape.extra_bytes[i]),
        )  # fmt: skip
        fmt = kernel.multiply.format
        out.append(
            GpuChoice(
                "attention", "tensor" if fmt in view.tensor_macs else "simt", fmt, qk.m, qk.n, qk.k, qk.batch,
                (tq, tk, qk.k), 2, (16, tk, warps, split), (-(-walk.rows // tq), -(-qk.n // tk)), split,
                int(got.ctas[i]), -(-qk.n // tk), float(got.waves[i]), int(got.occupancy[i]),
                ATTENTION_BOUNDS[got.bound[i]], kernel.repeat, {k: float(v) for k, v in times.items()},
                {name: float(v[i]) for name, v in zip(("a", "c", "x"), got.dram, strict=True)},
                {"a": float(got.l2_bytes[i])}, rate=float(shape.rate[i]), walk=walk,
            )
        )  # fmt: skip
    return out


def _attention_row(kernel: Kernel, view: GpuView, options: ChoiceOptions) -> tuple[float, ...]:
    """One row of `AttentionShape`."""
    qk, pv = kernel.products
    assert kernel.multiply is not None
    fmt = kernel.multiply.format
    span = qk.span or qk.n
    sharing = max(1, qk.batch * span * qk.k // max(1, qk.b_elements))
    inputs = [o for o in kernel.inputs if o.role in ("a", "b", "cache")]
    found = sum(o.bytes * o.cached for o in inputs) / max(1, sum(o.bytes for o in inputs))
    kept = sum(o.bytes * o.cached for o in kernel.outputs) / max(1, sum(o.bytes for o in kernel.outputs))
    extra = sum(o.bytes for o in kernel.inputs if o.role in ("mask", "x"))
    rate = view.tensor_macs.get(fmt, 0.0) or view.simt_macs.get(fmt, 1.0)
    more = max(0, kernel.alu - 5 * qk.batch * qk.m * qk.n)
    return (
        qk.batch, qk.m, qk.n, qk.k, pv.n, sharing, qk.causal and qk.m > 1, FORMATS[kernel.inputs[0].format].width / 8,
        rate, found, kept, extra, more, fmt in ("int8", "uint8"), 1 < qk.m <= options.head_length,
    )  # fmt: skip
