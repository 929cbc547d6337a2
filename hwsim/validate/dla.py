"""Suite ``dla``: the deep-learning accelerators of Jetson boards, as NVIDIA publishes their throughput.

The table ships with hwsim alone (it is of this project's collecting, sources and licences in its rows), so another folder of
tables need not have it. A row is of one engine or of two that share nothing but memory; measured and predicted are the
seconds between two results of one engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator, load_accelerator
from hwsim.network.load import load_network
from hwsim.plan.dla import dla_refusal, merge_pools, order_by_engine, reorder
from hwsim.plan.dla_work import dla_work
from hwsim.plan.gpu_plan import make_gpu_plan
from hwsim.plan.kernel import Kernel
from hwsim.plan.precision import parse_precision
from hwsim.schedule.gpu_view import gpu_view
from hwsim.simulation.gpu import gpu_target
from hwsim.simulation.gpu_dla import STACK
from hwsim.timing.dla import DlaView, dla_times, dla_view
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import SHIPPED, find, table

SUITE = "dla"


def cases(folder: Path) -> list[Case]:
    """Return the rows of the engines in ``folder``, or the shipped ones; raises FileNotFoundError without a table."""
    path = find(folder, "measured_dla") or find(SHIPPED, "measured_dla")
    if path is None:
        raise FileNotFoundError(2, "missing", "measured_dla.csv")
    return [_case(row) for row in table(path)]


def _case(row: dict[str, str]) -> Case:
    clock = f" at {row['dla_mhz']} MHz" if row["dla_mhz"] else ""
    part = " (backbone)" if row["stop"] else ""
    what = f"{row['network']}{part} {row['shapes']} {row['engines']} DLA{clock} {row['sparsity']}"
    precision = "int8,fp16" if row["fp16_layers"] else "int8"
    return Case(
        SUITE, int(row["row"]), row["target"], row["target"], "gpu", " ".join(what.split()), precision,
        int(row["engines"]) / float(row["per_s"]), group=row["set"], size=row["sparsity"] or "dense", question=row,
    )  # fmt: skip


def predict(found: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's time of every case, and that of peak arithmetic and memory bandwidth alone."""
    return [_predict(case) for case in found]


def _predict(case: Case) -> Outcome:
    row = case.question
    try:
        seconds, roofline = engine_seconds(row, engine_of(row)), _roofline(row)
    except HwsimError as error:
        return Outcome(case, refused=str(error))
    return Outcome(case, seconds, roofline)


def engine_of(row: Mapping[str, str]) -> DlaView:
    """Return the engine of a row, at the row's clock where it states one."""
    engine = _dla(load_accelerator(row["target"]))
    return replace(engine, clock_hz=float(row["dla_mhz"]) * 1e6) if row["dla_mhz"] else engine


def _dla(acc: Accelerator) -> DlaView:
    engine = dla_view(acc)
    if engine is None:
        raise HwsimError(f"{acc.target} has no DLA")
    return engine


def engine_seconds(row: Mapping[str, str], engine: DlaView) -> float:
    """Return the seconds of one run of a row's network, or of its part, on ``engine``."""
    kernels, takes = engine_kernels(
        row["network"], row["shapes"], row["fp16_layers"], row["sparsity"], row["target"], row["stop"]
    )
    times = dla_times(engine, dla_work(kernels, takes, 1, engine))
    inside = float((times.layer_s + times.body_s).sum()) * float(row["scale"])
    return inside + int(row["handovers"]) * engine.handover_s


@cache
def engine_kernels(
    network: str, shapes: str, fp16: str, sparsity: str, target: str, stop: str
) -> tuple[list[Kernel], list[bool]]:
    """Return the kernels of a network, up to one called ``stop``, in the order they run, and which the engine takes."""
    acc = load_accelerator(target)
    view, engine = gpu_view(acc), _dla(acc)
    sizes = {k: int(v) for k, v in (part.split("=") for part in shapes.split())}
    net = load_network(network).bind(N=1, **sizes)
    precision = parse_precision({"*": "int8", fp16: "fp16"} if fp16 else "int8")
    made = list(make_gpu_plan(net, gpu_target(view, acc), precision, STACK, sparsity or None).kernels)
    if stop:
        made = made[: next(i for i, k in enumerate(made) if stop in k.name)]
    takes = [not dla_refusal(net, k, engine.generation) for k in made]
    merged, takes = merge_pools(made, takes)
    order = order_by_engine(merged, takes)
    return reorder(merged, order), [takes[i] for i in order]


def _roofline(row: Mapping[str, str]) -> float:
    engine = engine_of(row)
    kernels, takes = engine_kernels(
        row["network"], row["shapes"], row["fp16_layers"], row["sparsity"], row["target"], row["stop"]
    )
    mine = [k for k, own in zip(kernels, takes, strict=True) if own]
    peak = engine.channels * engine.positions * engine.kernels["int8"] * engine.clock_hz
    macs, weights = sum(k.macs for k in mine), sum(k.weight_bytes for k in mine)
    return max(macs / peak, weights / engine.dram_bytes_per_s) * float(row["scale"])
