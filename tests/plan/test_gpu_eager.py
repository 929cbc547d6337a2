"""Layers that an eager framework runs as several operators: what each reads and writes, and in which order."""

from __future__ import annotations

import pytest

import hwsim
from hwsim.plan.gpu_eager import GELU_READS
from hwsim.plan.kernel import Kernel

HEADS, DEPTH = 20, 64


def kernels_of(batch: int, tokens: int = 128) -> tuple[Kernel, ...]:
    found = hwsim.simulate(
        "gpt2_large", "a100-pcie-40gb", batch=batch, shapes={"S": tokens}, precision="fp32", stack="eager"
    )
    return found.plan.kernels


def attention(kernels: tuple[Kernel, ...]) -> list[Kernel]:
    """The first layer's attention, copies included: every kernel up to the next product with weights."""
    at = next(i for i, k in enumerate(kernels) if k.name.endswith(" qk"))
    first = max(i for i in range(at) if kernels[i].weights is not None) + 1
    last = next(i for i in range(at, len(kernels)) if kernels[i].weights is not None)
    return list(kernels[first:last])


@pytest.mark.parametrize("batch", [1, 4])
def test_attention_is_its_operators(batch: int) -> None:
    names = [k.name.rsplit(" ", 1)[-1] for k in attention(kernels_of(batch)) if k.op != "append"]
    copied = ["queries", "keys", "values"] if batch > 1 else []
    assert names == [*copied, "qk", "scale", "mask", "softmax", "pv", "merge"]


def test_scores_pass_through_memory_between_operators() -> None:
    batch, tokens = 4, 128
    found = {k.name.rsplit(" ", 1)[-1]: k for k in attention(kernels_of(batch, tokens))}
    scores = batch * HEADS * tokens * tokens
    for name in ("scale", "mask", "softmax"):
        assert [o.elements for o in found[name].outputs] == [scores]
        assert found[name].inputs[0].elements == scores
    heads = batch * tokens * HEADS * DEPTH
    for name in ("queries", "keys", "values", "merge"):
        assert [o.elements for o in found[name].outputs] == [heads]


def test_every_operator_comes_after_what_it_reads() -> None:
    kernels = kernels_of(2)
    made: dict[str, int] = {}
    for number, kernel in enumerate(kernels):
        for operand in kernel.inputs:
            if operand.tensor in made:
                assert made[operand.tensor] < number
        assert all(p < number for p in kernel.producers), kernel.name
        made |= {o.tensor: number for o in kernel.outputs}


def test_tangent_gelu_is_eight_kernels_of_one_size() -> None:
    found = [k for k in kernels_of(1) if k.op == "gelu_tanh"]
    first = found[: len(GELU_READS)]
    assert len(found) == 36 * len(GELU_READS)
    assert [len(k.inputs) for k in first] == list(GELU_READS)
    assert len({k.outputs[0].elements for k in first}) == 1
    assert sum(k.special for k in first) == first[0].outputs[0].elements  # one tangent each


def test_a_compiler_keeps_attention_and_gelu_whole() -> None:
    kernels = hwsim.simulate("gpt2_large", "a100-pcie-40gb", shapes={"S": 128}, precision="fp16").plan.kernels
    assert sum(k.kind == "attention" for k in kernels) == 36
    assert not [k for k in kernels if k.op == "gelu_tanh" and k.kind == "vector"]
