"""The lines of an answer that explain formats and 2:4."""

from __future__ import annotations

import re

import pytest

from hwsim.api import matmul
from hwsim.errors import HwsimError
from hwsim.report.text import summary
from hwsim.simulation import simulate
from hwsim.simulation.pipeline import pipeline_of


def line(text: str, label: str) -> str:
    """A labelled line of a summary with its continuations."""
    found = re.search(rf"^  {label} +(.*(?:\n {{11}}\S.*)*)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def test_formats_are_counted_where_one_was_asked_for() -> None:
    mixed = summary(simulate("resnet50", "t4", precision="int8,fc*=fp16"))
    assert re.fullmatch(
        r"int8 53 \(\d+ %\), fp16 1 \([\d.]+ %\), no products 2 \([\d.]+ %\): .*", line(mixed, "Formats")
    )
    casts = summary(simulate(matmul(64, 256, 256, quantize_activations=True), "t4", precision="int8"))
    assert "conversions 1" in line(casts, "Formats") and "int8 1" in line(casts, "Formats")
    assert not line(summary(simulate("resnet50", "tpu-v3-core")), "Formats")


def test_sparsity_adds_up() -> None:
    sparse = simulate("resnet50", "a100-sxm4-40gb", precision="fp16", sparsity="2:4", batch=16)
    dense = simulate("resnet50", "a100-sxm4-40gb", precision="fp16", batch=16)
    told = line(summary(sparse), "Sparsity")
    assert (
        re.match(r"2:4 in \d+ of 54 products with weights", told)
        and "no sparse kernel: channels are no multiple" in told
    )
    overall = re.search(r"([\d.]+)x in all", told)
    assert overall and float(overall[1]) == pytest.approx(dense.latency_s / sparse.latency_s, rel=0.03)
    assert not line(summary(dense), "Sparsity")


def test_few_rows_say_why_users_see_no_gain() -> None:
    one, few, many = (
        simulate(matmul(m, n, n), "a100-sxm4-80gb", precision="fp16", sparsity="2:4", cache="cold")
        for m, n in ((1, 4096), (1, 16384), (64, 16384))
    )
    # Where the dense kernel is kept the line of the answer says so; a sparse one of few rows comes with its caveat.
    assert "2:4 in 0 of 1 products" in summary(one) and "no faster than dense" in summary(one)
    assert any("fewer than 32 rows" in note for note in few.notes)
    assert not any("fewer than 32 rows" in note for note in (*one.notes, *many.notes))


def test_stages_without_a_host_name_the_nearest_processor() -> None:
    with pytest.raises(HwsimError, match="--host jetson-nano-cpu"):
        pipeline_of(simulate(matmul(8, 8, 8), "jetson-nano", precision="fp16"), pre="decode")
    with pytest.raises(HwsimError, match="--host raspberry-pi-4"):
        pipeline_of(simulate(matmul(8, 8, 8), "t4", precision="fp16"), pre="decode")
