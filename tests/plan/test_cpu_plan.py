"""Plans for processors: one kernel an operator, activations of their own, what caches still hold, formats."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.network.builder import Builder
from hwsim.network.graph import Network
from hwsim.plan.cpu_plan import group_operators, multiply_with, place_in_caches
from hwsim.plan.cpu_work import cpu_plan
from hwsim.plan.precision import PRESETS, parse_precision

PI = load_accelerator("raspberry-pi-4")


def _net() -> Network:
    b = Builder("t")
    x = b.input("x", (1, 8, 16, 16))
    a = b.op("conv", x, out=(1, 8, 16, 16), k=(3, 3), p=(1, 1))
    n = b.op("batch_norm", a, width=8)
    r = b.op("relu", n)
    c = b.op("conv", r, out=(1, 8, 16, 16), k=(1, 1))
    s = b.op("add", r, c)
    return b.build(b.op("sigmoid", s))


def test_operators_are_kernels_but_for_what_is_folded() -> None:
    groups, _ = group_operators(_net())
    assert [[la.op for la in g.layers] for g in groups] == [
        ["conv", "batch_norm", "relu"],
        ["conv"],
        ["add"],
        ["sigmoid"],
    ]


def test_activations_no_library_fuses_are_operators() -> None:
    net = hwsim.load_network("mobilenet_v3_small").bind(N=1)
    kernels = cpu_plan(net, PI, None).kernels
    swishes = [k for k in kernels if k.op == "hswish"]
    assert len(swishes) == sum(la.fused.count("hswish") for la in net.layers) > 10
    for i, kernel in enumerate(kernels):
        assert all(p < i for p in kernel.producers)
    first = kernels.index(swishes[0])
    assert swishes[0].producers == (first - 1,)
    assert swishes[0].input_bytes == swishes[0].output_bytes == kernels[first - 1].output_bytes


def test_caches_hold_what_was_touched_last() -> None:
    plan = cpu_plan(hwsim.load_network("mobilenet_v1").bind(N=1), PI, None)
    everything = place_in_caches(plan.kernels, 1 << 40, warm=True)
    assert all(o.cached == 1.0 for k in everything for o in k.inputs)
    assert all(k.weights.cached == 1.0 for k in everything if k.weights)
    cold = place_in_caches(plan.kernels, 1 << 40, warm=False)
    assert all(k.weights.cached == 0.0 for k in cold if k.weights)
    nothing = place_in_caches(plan.kernels, 0, warm=True)
    assert not any(o.cached for k in nothing for o in (*k.inputs, *k.outputs) if o.bytes)
    sizes = [0, 1 << 18, 1 << 20, 1 << 22, 1 << 24]
    shares = [
        sum(o.cached * o.bytes for k in place_in_caches(plan.kernels, s, warm=True) for o in k.inputs) for s in sizes
    ]
    assert shares == sorted(shares)


@pytest.mark.parametrize(
    ("precision", "form", "told"),
    [
        ("fp32", "fp32", ""), ("int8", "int8", ""), ("uint8", "uint8", ""), ("int4", "int8", "widened"),
        ("fp16", "fp32", "no fp16"), ("bf16", "fp32", "no bf16"), ("w8a16", "int8", "quantises"), ("int16", "fp32", "one by one"),
    ],
)  # fmt: skip
def test_formats_a_core_lacks_are_said(precision: str, form: str, told: str) -> None:
    made = multiply_with({"fp32": 4.0, "int8": 8.0, "uint8": 8.0}, PRESETS[precision], "m", "layer 1")
    assert made.format == form
    assert told in made.note


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(HwsimError, match="layer 1: m multiplies int8 only, not fp32 x fp32; try --precision int8"):
        multiply_with({"int8": 8.0}, PRESETS["fp32"], "m", "layer 1")


def test_precision_reaches_every_kernel() -> None:
    plan = cpu_plan(hwsim.load_network("mobilenet_v1").bind(N=1), PI, parse_precision("int8"))
    assert {k.multiply.format for k in plan.kernels if k.multiply} == {"int8"}
