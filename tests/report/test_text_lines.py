"""The lines of an answer that explain formats and 2:4."""

from __future__ import annotations

import re

import pytest

from hwsim.api import matmul
from hwsim.errors import HwsimError
from hwsim.report.html import html_page
from hwsim.report.kernel_text import kernel_table, kind_table
from hwsim.report.kinds import kinds
from hwsim.report.text import summary
from hwsim.report.why import _BY_FAMILY
from hwsim.result import FURTHER_LIMITERS, LIMITERS, UNIT_NAMES
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
        for m, n in ((64, 1024), (1, 16384), (64, 16384))
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


def test_alike_kernels_share_a_line_and_none_is_lost() -> None:
    found = simulate("bert_large", "a100-sxm4-80gb", precision="int8", sparsity="2:4", batch=32)
    groups = kinds(found.kernels)
    assert sorted(row["kernel"] for group in groups for row in group) == list(range(len(found.kernels)))
    assert all(len({row["cycles"] for row in group}) == 1 for group in groups)
    costs = [sum(row["latency_s"] for row in group) for group in groups]
    assert costs == sorted(costs, reverse=True) and kinds(found.kernels, 3) == groups[:3]
    told = kind_table(found, 3).splitlines()
    assert len(told) == 5 and all(" 24x " in line for line in told[2:])
    shown = {float(row) for row in re.findall(r"24x .*?  linear +[\d.]+ +([\d.]+)", "\n".join(told))}
    want = [100 * c / found.latency_s for g, c in zip(groups, costs, strict=True) if g[0]["op"] == "linear"][:2]
    assert sorted(shown) == pytest.approx(sorted(want), abs=0.5)


def test_a_gpu_kernel_says_how_it_runs() -> None:
    found = simulate("bert_large", "a100-sxm4-80gb", precision="int8", sparsity="2:4", batch=8)
    row = next(row for row in found.kernels if row["sparse_chosen"])
    assert f"{row['tile']}" in kernel_table(found) and " 2:4" in kernel_table(found)
    assert "padded %" not in kernel_table(found) and "padded %" in kernel_table(simulate("resnet50", "tpu-v4"))
    page = html_page(found)
    assert "occupancy</button>" in page and f'<td class="x">{row["tile"]}' in page.replace(' class="l x"', ' class="x"')


def test_meanings_are_of_limiters_there_are() -> None:
    names = {*LIMITERS.values(), *FURTHER_LIMITERS.values(), *UNIT_NAMES}
    assert {name for told in _BY_FAMILY.values() for name in told} <= names
    told = line(summary(simulate("resnet50", "t4", precision="fp16")), "Bound by")
    assert len(told.split()) > 6
