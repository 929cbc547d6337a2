"""Suite ``gpu-conv``: single convolutions on GPUs, each run as its source ran it (``gpu_conv_sources.csv``).

A source says how a kernel starts, what host time its figures hold, its clock and data, and to what channels were padded.
Rules of ``gpu_conv_exclusions.csv`` leave rows out; none looks at an error. NeuSight's times of whatever algorithm on whatever
device grow with the number of shapes its process ran before: the position in its list is looked up in
``measured_conv_neusight`` (which ships, and holds two devices more than ``measured_conv``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hwsim.machine import load_accelerator
from hwsim.network.builder import Builder
from hwsim.plan.gpu_choose import ChoiceOptions, choose_kernels
from hwsim.plan.gpu_plan import STACKS, GpuTarget, make_gpu_plan
from hwsim.plan.gpu_precision import multiply_gpu
from hwsim.plan.kernel import Kernel
from hwsim.plan.precision import Multiply, Precision, parse_precision
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import SHIPPED, find, lines, table

HERE = Path(__file__).resolve().parent
MACHINES = {
    "A100-PCIE-80GB": "a100-pcie-80gb", "T4": "t4", "V100-PCIE-32GB": "v100-pcie", "V100": "v100-sxm2",
    "P100-PCIE-16GB": "p100-pcie", "P4": "p4",
}  # fmt: skip
MIDDLE = 2500  # position of a row that is not in the list
# The first pattern found in a kernel's name says which algorithm of cuDNN ran.
ALGORITHMS = (
    ("winograd", "winograd"), ("WINOGRAD", "winograd"), ("gcgemm", "fft"), ("FFT", "fft"), ("explicit", "explicit gemm"),
    ("scudnn", "implicit gemm"), ("implicit", "implicit gemm"), ("IMPLICIT", "implicit gemm"), ("precomp", "implicit gemm"),
    ("sgemm", "winograd 4x4"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """How one source measured a format on a device (``devices`` empty: all)."""

    prefix: str
    devices: str
    dtype: str
    launch: str
    overhead_us: float
    growth_us: float
    pace_us: float
    clock_hz: float
    settle_us: float
    prepared: bool
    pad_channels: int
    pipe: str
    note: str


@cache
def sources() -> tuple[Source, ...]:
    """Return the table of sources."""
    return tuple(
        Source(
            r["prefix"],
            r["devices"],
            r["dtype"],
            r["launch"],
            float(r["overhead_us"]),
            float(r["growth_us"]),
            float(r["pace_us"]),
            float(r["clock_mhz"] or 0) * 1e6,
            float(r["settle_us"]),
            r["prepared"] == "yes",
            int(r["pad_channels"]),
            r["pipe"],
            r["note"],
        )
        for r in lines(HERE / "gpu_conv_sources.csv")
    )


def source_of(prefix: str, device: str, dtype: str) -> Source | None:
    """Return how ``prefix`` measured ``dtype`` on ``device``; None where it is not known."""
    fits = (s for s in sources() if (s.prefix, s.dtype) == (prefix, dtype) and s.devices in ("", device))
    return next(fits, None)


@cache
def _rules() -> tuple[dict[str, str], ...]:
    return tuple(lines(HERE / "gpu_conv_exclusions.csv"))


@cache
def positions() -> Mapping[tuple[str, ...], int]:
    """How many shapes NeuSight's process had run before each of its rows, by device and shape."""
    path = find(SHIPPED, "measured_conv_neusight")
    rows = table(path) if path else ()
    return {tuple(r[c] for c in ("device", "N", "C", "H", "K")): int(r["position"]) for r in rows}


def cases(folder: Path) -> list[Case]:
    """Return the rows; raises FileNotFoundError when the table is not there."""
    path = find(folder, "measured_conv")
    if path is None:
        raise FileNotFoundError(2, "", "measured_conv")
    rows = [dict(row) for row in table(path)]
    known = {row["device"] for row in rows if row["source"].startswith("neusight")}
    more = find(SHIPPED, "measured_conv_neusight")
    for row in table(more) if more else ():
        if row["device"] not in known:
            same = {
                "W": row["H"],
                "R": "3",
                "S": "3",
                "stride": "1",
                "pad": "1",
                "dtype": "fp32",
                "source": "neusight:conv",
            }
            algorithm = row["kernel"] or row["algorithm"]
            rows.append({**row, **same, "kernel": algorithm, "row": str(1_000_000 + int(row["row"]))})
    return [_case(row) for row in rows if row["device"] in MACHINES]


def _case(row: Mapping[str, str]) -> Case:
    prefix = row["source"].split(":")[0]
    n, c, h, w, k, r, s = (int(row[x]) for x in "NCHWKRS")
    stride, pad = (tuple(int(v) for v in (row[x].split("x") * 2)[:2]) for x in ("stride", "pad"))
    algorithm = next((name for text, name in ALGORITHMS if text in row["kernel"]), "implicit gemm")
    excluded = next((x["rule"] for x in _rules() if re.fullmatch(x["matches"], row.get(x["field"], ""))), "")
    if not excluded and source_of(prefix, row["device"], row["dtype"]) is None:
        excluded = "unknown source"
    what = (
        f"{n}x{c}x{h}x{w} k{k} {r}x{s}"
        + (f" s{stride[0]}" if stride != (1, 1) else "")
        + (f" p{pad[0]}" if max(pad) else "")
    )
    return Case(
        "gpu-conv", int(row["row"]), row["device"], MACHINES[row["device"]], "gpu", what, row["dtype"],
        float(row["measured_us"]) * 1e-6, group=f"{prefix}/{algorithm}", size=_size(r, s, stride, c, h, w), excluded=excluded,
        question={
            "prefix": prefix, "shape": {"n": n, "c": c, "h": h, "w": w, "k": k, "r": r, "s": s, "stride": stride, "pad": pad},
            "position": positions().get((row["device"], row["N"], row["C"], row["H"], row["K"]), MIDDLE),
        },
    )  # fmt: skip


def _size(r: int, s: int, stride: tuple[int, ...], c: int, h: int, w: int) -> str:
    """Class of a shape: its filter, and for 3 x 3 of stride 1 how large images are."""
    if c <= 4:
        return "first layers"
    if (r, s) == (1, 1):
        return "1x1"
    if (r, s) != (3, 3) or stride != (1, 1):
        return "larger or strided"
    return "3x3 of <= 8" if min(h, w) <= 8 else "3x3 of <= 32" if min(h, w) <= 32 else "3x3 above 32"


def conv_kernel(
    view: GpuView, dtype: str, *, n: int, c: int, h: int, w: int, k: int, r: int, s: int, stride: tuple[int, ...],
    pad: tuple[int, ...], pipe: str = "",
) -> Kernel:  # fmt: skip
    """Return one convolution as the only kernel of a plan; ``pipe`` "simt" keeps it off the Tensor Cores."""
    rates = {**view.simt_macs, **({} if pipe == "simt" else view.tensor_macs)}

    def multiply(precision: Precision, where: str) -> Multiply:
        return multiply_gpu(rates, precision, view.name, where)

    net = Builder("conv")
    x = net.input("x", (n, c, h, w))
    out = (n, k, (h + 2 * pad[0] - r) // stride[0] + 1, (w + 2 * pad[1] - s) // stride[1] + 1)
    bound = net.build(net.op("conv", x, out=out, k=(r, s), s=stride, p=(*pad, *pad))).bind()
    target = GpuTarget(view.name, multiply, lambda f, d: True)
    return make_gpu_plan(bound, target, parse_precision(dtype), STACKS["compiled"], None).kernels[0]


def _padded(source: Source, dtype: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """The shape that ran: DeepBench rounds channels and filters up, for int8 first height and width to 4 as well."""
    out = dict(shape)
    if dtype == "int8" and any(out[x] % 4 for x in "chw"):
        out |= {x: -(-out[x] // 4) * 4 for x in "chw"}
    return out | {x: -(-out[x] // source.pad_channels) * source.pad_channels for x in "ck"}


@cache
def _view(target: str, clock_hz: float) -> GpuView:
    view = gpu_view(load_accelerator(target))
    return replace(view, clock_hz=clock_hz) if clock_hz else view


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return the model's time of each case, all of one source and device at once, beside a plain roofline."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, case in enumerate(chosen):
        groups.setdefault((case.device, case.question["prefix"], case.precision), []).append(i)
    out: list[Outcome | None] = [None] * len(chosen)
    for (device, prefix, dtype), rows in groups.items():
        source = source_of(prefix, device, dtype)
        if source is None:
            for i in rows:
                out[i] = Outcome(chosen[i], refused="how this source measured is not known")
            continue
        view = _view(MACHINES[device], source.clock_hz)
        kernels = [
            conv_kernel(view, dtype, **_padded(source, dtype, chosen[i].question["shape"]), pipe=source.pipe)
            for i in rows
        ]
        for i, kernel, seconds in zip(rows, kernels, kernel_seconds(kernels, view, source), strict=True):
            host = source.overhead_us + source.growth_us * chosen[i].question["position"] / 1000
            seconds = max(seconds, source.pace_us * 1e-6) + host * 1e-6
            out[i] = Outcome(chosen[i], seconds, roofline_s(view, dtype, chosen[i], kernel))
    return [o for o in out if o is not None]


def kernel_seconds(kernels: Sequence[Kernel], view: GpuView, source: Source) -> list[float]:
    """Seconds of each kernel as ``source`` ran it: at the full clock until the power limiter acts, then as power allows."""
    how = ChoiceOptions(source.launch, cold_code=False, prepared=source.prepared)
    free, steady = (
        [c.time_s for c in choose_kernels(kernels, view, replace(how, throttle=throttle))] for throttle in (False, True)
    )
    return [settled(f, s, source.settle_us * 1e-6) for f, s in zip(free, steady, strict=True)]


def settled(free_s: float, steady_s: float, settle_s: float) -> float:
    """Seconds of a kernel that is fast until the power limiter acts: between both, by how long it runs."""
    return free_s + (steady_s - free_s) * steady_s / (steady_s + settle_s)


def roofline_s(view: GpuView, dtype: str, case: Case, kernel: Kernel) -> float:
    """Seconds by peak arithmetic of the direct count and peak bandwidth alone, of the shape as asked."""
    rates = view.tensor_macs if dtype in view.tensor_macs else view.simt_macs
    moved = sum(o.bytes for o in (*kernel.inputs, *kernel.outputs)) + (kernel.weights.bytes if kernel.weights else 0)
    return max(kernel.macs / (rates[dtype] * view.sms * view.clock_hz), moved / view.dram_bytes_per_s)
