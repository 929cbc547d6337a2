"""Small networks through hwsim's own planner, lowering and engine; a plan can be timed again with other constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

import hwsim
from hwsim.api import matmul
from hwsim.machine import load_accelerator, load_constants
from hwsim.machine.constants import Constants
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.plan.choose import lower_plan
from hwsim.plan.plan import Plan
from hwsim.schedule.systolic_view import SystolicView, systolic_view
from hwsim.timing.run import run
from hwsim.timing.systolic_service import service_cycles

Floats = npt.NDArray[np.float64]
Sizes = tuple[int, ...]


def product(sizes: Sizes) -> Network:
    """C[M,N] = A[M,K] B[K,N]; sizes = (M, N, K)."""
    m, n, k = sizes
    return matmul(m, n, k)


def add(shape: Sizes) -> Network:
    """Sum of two tensors."""
    net = Builder("add")
    return net.build(net.op("add", net.input("a", shape), net.input("b", shape)))


def layer_norm(shape: Sizes) -> Network:
    """Normalisation over the last axis, without scale and shift (as measured)."""
    net = Builder("layer_norm")
    return net.build(net.op("layer_norm", net.input("a", shape)))


def softmax(shape: Sizes) -> Network:
    """Softmax over the last axis."""
    net = Builder("softmax")
    return net.build(net.op("softmax", net.input("a", shape)))


@cache
def view_of(machine: str) -> SystolicView:
    return systolic_view(load_accelerator(machine))


def shipped(machine: str) -> Constants:
    """The constants as the project ships them, with their bounds."""
    return load_constants("systolic", load_accelerator(machine).architecture)


def plans(make: Callable[[Sizes], Network], shapes: Sequence[Sizes], machine: str, precision: str) -> list[Plan]:
    """The plan ``hwsim run`` makes of each shape."""
    return [hwsim.simulate(make(s), machine, precision=precision).plan for s in shapes]


def times_us(found: Sequence[Plan], machine: str, constants: Mapping[str, float]) -> Floats:
    """Time of every plan with ``constants``, us."""
    view = view_of(machine)
    out = []
    for plan in found:
        schedule = lower_plan(plan, view, constants)
        out.append(run(schedule, service_cycles(schedule, view, constants).tolist()).cycles)
    return np.array(out, float) / view.clock_hz * 1e6


def simulated_us(make: Callable[[Sizes], Network], shapes: Sequence[Sizes], machine: str, precision: str) -> Floats:
    """Latency of every shape as ``hwsim.simulate`` answers it, us."""
    return np.array([hwsim.simulate(make(s), machine, precision=precision).latency_s * 1e6 for s in shapes])
