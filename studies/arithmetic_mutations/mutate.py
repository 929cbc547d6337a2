"""Flip one rule of the Tensor Core arithmetic at a time and count the recorded and published results that notice.

Run: python studies/arithmetic_mutations/mutate.py; writes mutations.csv beside itself and fails if a mutant survives.
Each mutation changes one cell of the parameter table or one line of the engine; the vectors asked are those of the
tests, silicon and generated ones counted apart.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "arithmetic")]

import crafted_cases  # noqa: E402
import tensor_core_vectors as vectors  # noqa: E402

from hwsim.arithmetic import engine, fused, gemm, profiles  # noqa: E402
from hwsim.arithmetic.profiles import Rule  # noqa: E402

Change = Callable[[], Any]


@contextmanager
def table(change: Callable[[Rule], Rule]) -> Iterator[None]:
    """Every line of the parameter table changed."""
    changed = tuple(change(rule) for rule in profiles.rules())
    with mock.patch.object(profiles, "rules", lambda: changed):
        yield


def only(test: Callable[[Rule], bool], **fields: Any) -> Callable[[], Any]:
    """A table in which the lines that pass ``test`` have other fields; a callable computes a field from the line."""

    def change(rule: Rule) -> Rule:
        if not test(rule):
            return rule
        return replace(rule, **{k: v(rule) if callable(v) else v for k, v in fields.items()})

    return lambda: table(change)


def patched(module: Any, name: str, function: Any) -> Change:
    return lambda: mock.patch.object(module, name, function)


def summed(rule: Rule) -> bool:
    return rule.rule in ("fused", "fp16-pairs")


def floor_terms(term: Any, exponent: Any, c: Any, c_format: str, rule: Rule) -> Any:
    with mock.patch.object(engine, "round_sum", round_with_trunc), mock.patch.object(np, "trunc", np.floor):
        return PLAIN_TERMS(term, exponent, c, c_format, rule)


def nearest_terms(term: Any, exponent: Any, c: Any, c_format: str, rule: Rule) -> Any:
    """Alignment to nearest; the output rounding stays as it is."""
    with mock.patch.object(engine, "round_sum", round_with_trunc), mock.patch.object(np, "trunc", np.rint):
        return PLAIN_TERMS(term, exponent, c, c_format, rule)


def round_with_trunc(value: Any, rule: Rule) -> Any:
    with mock.patch.object(np, "trunc", TRUNC):
        return PLAIN_ROUND(value, rule)


def without_c_in_largest(c: Any, fmt: str, e_zero: int) -> Any:
    return np.where(c == 0, e_zero, np.minimum(PLAIN_EXPONENT(c, fmt, e_zero), e_zero))


def normalised_operand(bits: Any, fmt: str) -> engine.Operand:
    found = PLAIN_OPERAND(bits, fmt)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(found.value) & (found.value != 0)
        exponent = np.frexp(np.where(usable, found.value, 1.0))[1].astype(np.int64) - 1
    return engine.Operand(found.value, np.where(usable, exponent, found.exponent))


def flushed_operand(bits: Any, fmt: str) -> engine.Operand:
    found = PLAIN_OPERAND(bits, fmt)
    from hwsim.formats import get_format

    with np.errstate(invalid="ignore"):
        small = np.abs(found.value) < 2.0 ** (1 - get_format(fmt).bias)
    return engine.Operand(np.where(small, 0.0, found.value), found.exponent)


def negative_zero(value: Any, rule: Rule) -> Any:
    rounded = PLAIN_ROUND(value, rule)
    return np.where((rounded == 0) & (value < 0), -0.0, rounded)


def clamped_overflow(value: Any, rule: Rule) -> Any:
    rounded = PLAIN_ROUND(value, rule)
    most = 65504.0 if rule.output == "fp16" else float(np.finfo(np.float32).max)
    return np.clip(rounded, -most, most)


def reversed_chain(a: Any, b: Any, c: Any, c_format: str, rule: Rule) -> Any:
    flip = (Ellipsis, slice(None, None, -1))
    a, b = engine.Operand(*(p[flip] for p in a)), engine.Operand(*(p[flip] for p in b))
    return PLAIN_CHAIN(a, b, c, c_format, rule)


def normalised_products(a: engine.Operand, b: engine.Operand, c: Any, c_format: str, rule: Rule) -> Any:
    with np.errstate(invalid="ignore", over="ignore"):
        product = a.value * b.value
        usable = np.isfinite(product) & (product != 0)
        exponent = np.frexp(np.where(usable, product, 1.0))[1].astype(np.int64) - 1
    whole = engine.Operand(product, np.where(usable, exponent, a.exponent + b.exponent))
    return PLAIN_BLOCK(whole, engine.Operand(np.ones_like(product), np.zeros_like(exponent)), c, c_format, rule)


TRUNC = np.trunc
PLAIN_TERMS, PLAIN_ROUND, PLAIN_EXPONENT = engine.add_terms, engine.round_sum, engine.running_exponent
PLAIN_OPERAND, PLAIN_CHAIN, PLAIN_BLOCK = fused.operand, fused.chain, fused.add_block

MUTATIONS: dict[str, Change] = {
    "one fraction bit fewer": only(summed, fraction_bits=lambda r: r.fraction_bits - 1),
    "one fraction bit more": only(summed, fraction_bits=lambda r: r.fraction_bits + 1),
    "Volta: one fraction bit more": only(lambda r: r.arch == "volta", fraction_bits=24),
    "Ampere: blocks of 4": only(lambda r: r.arch == "ampere" and r.block_products == 8, block_products=4),
    "Ada: blocks of 8": only(lambda r: r.arch == "ada" and r.block_products == 16, block_products=8),
    "Hopper: blocks of 8": only(lambda r: r.arch == "hopper" and r.block_products == 16, block_products=8),
    "fp8 wgmma: blocks of 16": only(lambda r: r.arch == "hopper" and r.block_products == 32, block_products=16),
    "fp8 wgmma: 25 fraction bits": only(lambda r: r.arch == "hopper" and r.fraction_bits == 13, fraction_bits=25),
    "fp8 to 24 significant bits": only(lambda r: r.rounding == "rz13", rounding="rz"),
    "fp32 to nearest": only(lambda r: summed(r) and r.rounding == "rz", rounding="rne"),
    "fp16 toward zero": only(lambda r: summed(r) and r.rounding == "rne", rounding="rz"),
    "exponent of zero one higher": only(summed, e_zero=lambda r: r.e_zero + 1),
    "exponent of zero one lower": only(summed, e_zero=lambda r: r.e_zero - 1),
    "fp4 groups: 34 fraction bits": only(lambda r: r.rule == "groups-of-16", fraction_bits=34),
    "fp4 groups: exponent of zero": only(lambda r: r.rule == "groups-of-16", e_zero=-138),
    "alignment rounds down": patched(engine, "add_terms", floor_terms),
    "alignment to nearest": patched(engine, "add_terms", nearest_terms),
    "c not in the largest exponent": patched(engine, "running_exponent", without_c_in_largest),
    "subnormals normalised": patched(fused, "operand", normalised_operand),
    "subnormals flushed": patched(fused, "operand", flushed_operand),
    "products normalised": patched(fused, "add_block", normalised_products),
    "negative zero kept": patched(engine, "round_sum", negative_zero),
    "overflow clamped": patched(engine, "round_sum", clamped_overflow),
    "blocks in reverse order": patched(fused, "chain", reversed_chain),
    "fp8 mma.sync: k in order": patched(fused, "pair_order", np.arange),
    "fp8 mma.sync as wgmma/tcgen05": only(
        lambda r: r.rule == "fp16-pairs",
        rule="fused",
        block_products=32,
        fraction_bits=lambda r: 13 if r.arch == "hopper" else 25,
        rounding=lambda r: "rz13" if r.arch == "hopper" and r.output == "fp32" else r.rounding,
    ),
    "fp8 mma.sync: c added toward zero": patched(
        fused,
        "add_to_nearest",
        lambda x, y, fmt: PLAIN_ROUND(x + y, replace(profiles.rules()[0], output=fmt, rounding="rz")),
    ),
    "another NaN": lambda: mock.patch.dict(engine.NAN_BITS, {"fp32": 0x7FC00000, "fp16": 0x7E00}),
    "clamp forgotten": patched(fused, "to_int32", lambda total, saturate: PLAIN_INT32(total, False)),
    "int32 clamped unasked": patched(fused, "to_int32", lambda total, saturate: PLAIN_INT32(total, True)),
}
PLAIN_INT32 = fused.to_int32


def noticed() -> tuple[int, int, int]:
    """Results that differ: of silicon, of the published and computed vectors, of the crafted cases."""
    silicon = sum(_differ(call, call["output"]) for _, call in vectors.recorded())
    published = sum(_differ(vectors.generated(row), row["d"]) for row in vectors.index() if row["d"] != "f64")
    for row in vectors.index("int_index.csv"):
        if row["kind"] != "dense int":
            continue
        v, parts = vectors.integers(row), row["id"].split(".")
        for saturate, key in ((False, "d_wrap"), (True, "d_satfinite")):
            how: dict[str, Any] = {"profile": "a100", "input": (parts[-2], parts[-1]), "output": "int32"}
            got = fused.fused_dot(v["a"], v["b"], v["c"], saturate=saturate, **how)
            published += int((got != v[key]).sum())
    return silicon, published, sum(_differ(call, call["output"]) for _, call in crafted_cases.cases())


def _differ(call: dict[str, Any], output: str) -> int:
    return vectors.differing(vectors.answer(call), call["want"], output)


def gemm_order() -> int:
    """Results that differ when two instructions of a product along k change places."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(64, 64)).astype(np.float16), rng.normal(size=(64, 64)).astype(np.float16)
    order = np.concatenate([np.arange(16, 32), np.arange(16), np.arange(32, 64)])
    how: dict[str, Any] = {"profile": "a100", "input": "fp16"}
    return int((gemm(a, b, **how) != gemm(a[:, order], b[order], **how)).sum())


def main() -> None:
    assert noticed() == (0, 0, 0), "the arithmetic is wrong before any mutation"
    rows = []
    for name, change in MUTATIONS.items():
        with change():
            rows.append((name, *noticed()))
        print(
            f"{name:<36} silicon {rows[-1][1]:>6}  other vectors {rows[-1][2]:>6}  crafted {rows[-1][3]:>3}", flush=True
        )
    rows.append(("two instructions along k exchanged (of 4096 results of a product)", 0, gemm_order(), 0))
    with (Path(__file__).parent / "mutations.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["mutation", "silicon_results_differ", "other_results_differ", "crafted_results_differ"])
        writer.writerows(rows)
    alive = [name for name, *counts in rows if sum(counts) == 0]
    if alive:
        raise SystemExit(f"survived: {', '.join(alive)}")
    print(f"{len(rows)} mutations, all noticed")


if __name__ == "__main__":
    main()
