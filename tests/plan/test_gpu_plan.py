"""Plans on GPUs: work is kept by every rewrite and grouping, kernels come after what they read, refusals say what works."""

from __future__ import annotations

import pytest

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator, vary
from hwsim.network.builder import Builder
from hwsim.network.load import load_network
from hwsim.plan.gpu_fusion import group_gpu
from hwsim.plan.gpu_plan import STACKS, GpuTarget, make_gpu_plan
from hwsim.plan.gpu_precision import multiply_gpu
from hwsim.plan.gpu_rewrite import compile_rewrites, expand_fused, merge_siblings
from hwsim.plan.plan import Plan
from hwsim.plan.precision import PRESETS, parse_precision
from hwsim.simulation import simulate
from hwsim.timing.gpu_quant import CHAINS

RATES = {"fp32": 64.0, "fp16": 1024.0, "bf16": 1024.0, "int8": 2048.0}
ZOO = ("resnet50", "bert_base", "swin_t", "gpt2", "densenet121", "googlenet", "shufflenet_v2_x1_0", "yolov5s", "gnmt")


def plan_of(name: str, precision: str | None = "fp16", stack: str = "compiled", fused: bool = True) -> Plan:
    target = GpuTarget("gpu", lambda p, w: multiply_gpu(RATES, p, "gpu", w), lambda f, d: fused)
    return make_gpu_plan(load_network(name).bind(), target, parse_precision(precision), STACKS[stack], None)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("stack", ["compiled", "eager"])
def test_every_product_is_in_one_kernel_and_nothing_runs_before_its_inputs(name: str, stack: str) -> None:
    plan = plan_of(name, stack=stack)
    network = load_network(name).bind()
    assert sum(k.macs for k in plan.kernels) == network.macs
    for number, kernel in enumerate(plan.kernels):
        assert all(p < number for p in kernel.producers)
    made: set[str] = set()
    for kernel in plan.kernels:
        read = {o.tensor for k in plan.kernels for o in k.outputs} & {o.tensor for o in kernel.inputs}
        assert read <= made, kernel.name
        made |= {o.tensor for o in kernel.outputs}


@pytest.mark.parametrize("name", ["bert_base", "swin_t"])
def test_attention_that_no_kernel_fuses_is_three_kernels_with_the_same_work(name: str) -> None:
    fused, apart = plan_of(name), plan_of(name, fused=False)
    count = sum(k.kind == "attention" for k in fused.kernels)
    assert count and not any(k.kind == "attention" for k in apart.kernels)
    assert len(apart.kernels) == len(fused.kernels) + 2 * count
    assert sum(k.macs for k in apart.kernels) == sum(k.macs for k in fused.kernels)
    scores = [k for k in apart.kernels if k.op == "softmax"]
    assert len(scores) == count and all(k.passes == 3 for k in scores)


def test_a_bert_layer_is_seven_kernels() -> None:
    kernels = plan_of("bert_base").kernels
    layer = [k.op for k in kernels[2:9]]
    assert layer == ["linear", "attention", "linear", "layer_norm", "linear", "linear", "layer_norm"]
    assert kernels[2].products[0].n == 3 * 768  # query, key and value together
    assert len(plan_of("bert_base", stack="eager").kernels) > 1.5 * len(kernels)


def test_siblings_keep_their_weights() -> None:
    net = load_network("bert_base").bind()
    merged = merge_siblings(net)
    assert merged.params == net.params and merged.macs == net.macs
    assert sum("|" in la.name for la in merged.layers) == 12


def test_a_residual_joins_the_product_and_a_wider_gate_does_not() -> None:
    net = Builder("gate")
    x = net.input("x", (1, 8, 4, 4))
    gate = net.conv(net.op("reduce_mean", x, axes=(2, 3), keep=True), 8, 1)
    bound = net.build(net.op("mul", x, gate)).bind()
    assert [g.kind for g in group_gpu(bound).groups] == ["reduce", "matmul", "pointwise"]
    other = Builder("residual")
    x = other.input("x", (1, 8, 4, 4))
    bound = other.build(other.op("add", other.conv(x, 8, 1), x)).bind()
    assert len(group_gpu(bound).groups) == 1


def test_a_concatenation_of_results_is_free_and_one_of_an_input_copies_it() -> None:
    net = Builder("cat")
    x = net.input("x", (1, 8, 4, 4))
    a, b = net.conv(x, 8, 1), net.conv(x, 8, 1)
    free = net.build(net.op("concat", a, b, axis=1)).bind()
    assert [g.kind for g in group_gpu(free).groups] == ["matmul", "matmul"]
    net = Builder("cat")
    x = net.input("x", (1, 8, 4, 4))
    copied = net.build(net.op("concat", net.conv(x, 8, 1), x, axis=1)).bind()
    groups = group_gpu(copied).groups
    assert [g.kind for g in groups] == ["matmul", "move"]
    assert groups[1].copies == ["x"]


def test_eager_runs_what_a_trace_has_folded() -> None:
    net = load_network("resnet50").bind()
    expanded = expand_fused(net)
    assert sum(la.op == "batch_norm" for la in expanded.layers) == 53
    assert sum(la.op == "relu" for la in expanded.layers) == 49
    assert expanded.macs == net.macs
    assert len(compile_rewrites(net).layers) == len(net.layers)


def test_float_inputs_of_8_bit_products_are_cast_once() -> None:
    net = Builder("mlp")
    x = net.input("x", (64, 256))
    h = net.linear(x, 256, bias=False, name="first")
    bound = net.build(net.linear(h, 256, bias=False, name="second")).bind()
    rates = {**RATES, "e4m3": 2048.0}
    target = GpuTarget("gpu", lambda p, w: multiply_gpu(rates, p, "gpu", w), lambda f, d: True)
    compiled = make_gpu_plan(bound, target, parse_precision("fp8"), STACKS["compiled"], None)
    chain = ["quantize"] * len(CHAINS["fp8"])
    assert [k.op for k in compiled.kernels] == [*chain, "linear", "linear"]
    assert compiled.kernels[len(chain)].outputs[0].format == "e4m3"  # written as the next product reads it
    eager = make_gpu_plan(bound, target, parse_precision("fp8"), STACKS["eager"], None)
    assert [k.op for k in eager.kernels] == [*chain, "linear", *chain, "linear"]
    assert [k.name.rpartition(": ")[2] for k in eager.kernels[: len(chain) - 1]] == [c[0] for c in CHAINS["fp8"][:-1]]
    reads = [sum(o.elements > 1 for o in k.inputs) for k in eager.kernels[: len(chain)]]
    assert reads == [int(c[1]) for c in CHAINS["fp8"]]  # the maximum and the cast read the activations
    for number, kernel in enumerate(eager.kernels):
        assert all(p < number for p in kernel.producers)


@pytest.mark.parametrize(
    ("preset", "rates", "words"),
    [
        ("int8", {"fp32": 128.0, "fp16": 256.0}, "does not multiply int8; it has fp32, fp16; try --precision fp16"),
        ("bf16", {"fp32": 64.0, "fp16": 512.0}, "does not multiply bf16"),
        ("fp8", RATES, "does not multiply e4m3"),
    ],
)
def test_refusals_say_what_would_work(preset: str, rates: dict[str, float], words: str) -> None:
    with pytest.raises(HwsimError, match=words):
        multiply_gpu(rates, PRESETS[preset], "chip", "layer 1")
    widened = multiply_gpu(rates, PRESETS[preset], "chip", emulate=True)
    assert not widened.convert_a and widened.convert_b and "emulated" in widened.note and widened.emulates


def test_narrow_weights_are_widened_in_the_loop() -> None:
    found = multiply_gpu(RATES, PRESETS["w4a16"], "chip")
    assert (found.format, found.convert_a, found.convert_b) == ("bf16", False, True)


def test_engines_add_up_in_fp16_where_that_is_faster() -> None:
    """GeForce cards run fp16 sums at twice the rate of fp32 sums; engines use them, frameworks do not, A100s gain nothing."""
    engine, framework = (
        simulate("resnet50", "rtx-3090", batch=64, precision="fp16", stack=s) for s in ("compiled", "eager")
    )
    assert any("add fp16 products up in fp16" in note for note in engine.notes)
    assert not any("add fp16 products up in fp16" in note for note in framework.notes)
    slow = vary(load_accelerator("rtx-3090"), {"tensor.half_accumulate.fp16": 256})  # as with fp32 sums
    assert simulate("resnet50", slow, batch=64, precision="fp16").latency_s > 1.2 * engine.latency_s
    assert simulate("resnet50", slow, batch=64, precision="fp16", stack="eager").cycles == framework.cycles
    for other in ("a100-sxm4-80gb", "rtx-3090"):
        found = simulate("resnet50", other, precision="fp16" if other.startswith("a100") else "int8")
        assert not any("add fp16 products" in note for note in found.notes)


def test_half_precision_slower_than_single_is_storage_alone() -> None:
    slow = multiply_gpu({"fp32": 128, "fp16": 2}, PRESETS["fp16"], "p4")
    assert (slow.format, slow.rate, slow.passes) == ("fp32", 128, 1) and "more slowly than fp32" in slow.note
    assert multiply_gpu({"fp32": 64, "fp16": 128}, PRESETS["fp16"], "p100").format == "fp16"
    half, single = (simulate("resnet50", "p4", batch=16, precision=p) for p in ("fp16", "fp32"))
    assert half.latency_s == pytest.approx(single.latency_s, rel=0.1) and half.dram_bytes < single.dram_bytes


def test_a_sum_behind_an_activation_takes_both_out_of_the_convolution() -> None:
    kernels = plan_of("yolov5s").kernels
    apart = [k for k in kernels if k.kind == "vector" and k.op == "silu"]
    assert apart
    for kernel in apart:
        assert len(kernel.inputs) == 2  # the bare convolution and the residual
        assert any(k.kind == "matmul" and k.outputs[0].tensor == kernel.inputs[0].tensor for k in kernels)
    ended = [k for k in kernels if k.op == "conv" and k.special]
    assert len(ended) > len(apart)  # others still end with theirs


def test_an_engine_takes_images_of_32_bits() -> None:
    for stack, casts in (("compiled", 0), ("engine", 1)):
        kernels = plan_of("resnet50", precision="fp16", stack=stack).kernels
        found = [k for k in kernels if k.op == "cast"]
        assert len(found) == casts
        assert all(k.inputs[0].bytes == 2 * k.outputs[0].bytes for k in found)


def test_tensorrt_fuses_attention_from_turing_on() -> None:
    """TensorRT's fused attention begins with compute capability 7.5; FasterTransformer's with 7.0."""

    def softmaxes(machine: str, stack: str) -> int:
        return sum(
            row["op"] == "softmax" for row in simulate("bert_base", machine, precision="fp16", stack=stack).kernels
        )

    assert softmaxes("t4", "compiled") == softmaxes("v100-sxm2", "fastertransformer") == 0
    assert softmaxes("v100-sxm2", "compiled") == 12


def test_a_result_that_others_read_too_is_copied_into_a_concatenation() -> None:
    net = Builder("cat")
    x = net.input("x", (1, 8, 4, 4))
    first = net.conv(x, 8, 1)
    second = net.conv(first, 8, 1)  # reads it as well
    groups = group_gpu(net.build(net.op("concat", first, second, axis=1)).bind()).groups
    assert [g.kind for g in groups] == ["matmul", "matmul", "move"]
    assert groups[2].copies == [first]
