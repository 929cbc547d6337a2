"""FasterTransformer's kernels: biases, heads and windows in kernels of their own, residuals of 16 bits beside products of 8."""

from __future__ import annotations

import hwsim
from hwsim.plan.kernel import Kernel

A100 = "a100-pcie-40gb"


def kernels_of(net: str, precision: str, **more: object) -> tuple[Kernel, ...]:
    found = hwsim.simulate(net, A100, precision=precision, stack="fastertransformer", **more)
    return found.plan.kernels


def named(kernels: tuple[Kernel, ...], what: str) -> list[Kernel]:
    return [k for k in kernels if k.name.endswith(f" {what}")]


def test_biases_of_queries_keys_and_values_are_a_kernel_that_moves_them_twice() -> None:
    kernels = kernels_of("bert_base", "fp16", shapes={"S": 128}, batch=2)
    added = named(kernels, "bias")
    assert len(added) == 12
    elements = 2 * 128 * 3 * 768
    assert {k.inputs[0].elements for k in added} == {k.outputs[0].elements for k in added} == {elements}
    assert not named(kernels, "heads")  # fused attention merges them
    assert {k.access_bytes for k in kernels if k.kind in ("vector", "move")} == {4}


def test_unfused_attention_merges_heads_in_a_kernel() -> None:
    kernels = kernels_of("vit_base_patch16_384", "fp16")  # 577 tokens: longer than its fused kernels
    assert len(named(kernels, "heads")) == len(named(kernels, "softmax")) == 12
    assert {k.layout for k in named(kernels, "pv")} == {"nn"}


def test_windows_go_back_in_a_kernel_and_their_products_end_with_biases() -> None:
    kernels = kernels_of("swin_t", "fp16")
    assert len(named(kernels, "windows")) == 12
    assert not named(kernels, "bias")
    assert len(named(kernels_of("swin_t", "fp32"), "bias")) == 12


def test_eight_bits_keep_residuals_in_sixteen_and_change_layouts_around_attention() -> None:
    kernels = kernels_of("vit_b_16", "int8")
    sums = [k for k in kernels if k.op == "add" and not k.name.endswith("bias")]
    assert {o.format for k in sums[:-1] for o in k.outputs} == {"fp16"}
    assert {o.format for k in kernels if k.kind == "matmul" and k.products[0].conv is None for o in k.outputs} == {
        "int8"
    }
    assert len(named(kernels, "columns")) == 12


def test_patches_are_convolved_on_cuda_cores() -> None:
    found = hwsim.simulate("vit_b_16", A100, precision="fp16", batch=8, stack="fastertransformer")
    first = found.layers.iloc[0]
    compiled = hwsim.simulate("vit_b_16", A100, precision="fp16", batch=8).layers.iloc[0]
    assert first["op"] == compiled["op"] == "conv"
    assert first["latency_s"] > 3 * compiled["latency_s"]
