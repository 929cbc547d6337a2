"""Which arithmetic a target and a precision mean, layer by layer."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from hwsim.errors import HwsimError
from hwsim.execution.products import EXACT, FP32, Arithmetic
from hwsim.formats import get_format
from hwsim.plan.precision import BLOCK_SCALED, PRESETS, Precision, multiply_on, parse_precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwsim.machine.accelerator import Accelerator

_SCALED_OPS = ("", *BLOCK_SCALED, "Gemm")
REFERENCES = {"exact": EXACT, "fp32": FP32}
EDGE_TPU = "the Edge TPU's own rounding is not public: the values are those TensorFlow Lite's kernels specify"


@dataclass(frozen=True, slots=True)
class Machine:
    """A target's arithmetic: ``profile`` names it in `hwsim.arithmetic`, ``evidence`` says how it is known."""

    name: str
    profile: str
    evidence: str
    acc: Accelerator | None = None

    @property
    def is_systolic(self) -> bool:
        """True for machines with a systolic matrix unit."""
        return self.profile.startswith("tpu")


def machine(acc: Accelerator | str) -> Machine:
    """The arithmetic of an accelerator (object, name, target or path) or of a device known by its Tensor Cores alone.

    ``exact`` (float64) and ``fp32`` (numpy's order) name reference arithmetic. Raises HwsimError for machines whose
    arithmetic is not known.
    """
    from hwsim.arithmetic.mxu import UNITS, matrix_unit
    from hwsim.arithmetic.profiles import architecture
    from hwsim.machine import load_accelerator

    if isinstance(acc, str) and acc in REFERENCES:
        return Machine(acc, "", "reference arithmetic")
    found: Accelerator | None = None
    try:
        found = load_accelerator(acc)
    except HwsimError:
        if not isinstance(acc, str):
            raise
        try:
            architecture(acc)
        except HwsimError:
            pass
        else:
            return _tensor_cores(acc, None)
        raise
    if found.family == "systolic":
        try:
            unit = matrix_unit(found.id)
        except HwsimError:
            unit = None
        if unit is None:
            raise HwsimError(
                f"{found.id}: how its matrix unit rounds is not known; arithmetic is known for {', '.join(UNITS)}"
            )
        told = "declared model: exact bf16 products, fp32 sums in systolic order; no recording of TPU bits is public"
        return Machine(found.id, found.id, told, found)
    if found.family == "edge-tpu":
        return Machine(found.id, "", EDGE_TPU, found)
    if found.family == "gpu" and not found.numerics.profile:
        raise HwsimError(
            f"{found.id} has no Tensor Cores, and the order of its CUDA cores' sums is not public; try fp32"
        )
    return _tensor_cores(found.id, found)


def _tensor_cores(name: str, acc: Accelerator | None) -> Machine:
    told = "Tensor Core instructions as recorded on silicon or declared (docs of arithmetic); order of k assumed"
    return Machine(name, (acc.numerics.profile if acc else "") or name, told, acc)


class Assignment:
    """Arithmetic of every layer under a precision; patterns match a layer's name or operator."""

    def __init__(self, target: Machine, precision: str | Mapping[str, str] | None) -> None:
        self.target = target
        if target.acc is not None and target.acc.family == "edge-tpu":
            raise HwsimError(
                f"{target.name} computes with 8-bit integers alone: execute a quantised .tflite file "
                "(full integer post-training quantisation)"
            )
        self.table = parse_precision(precision)
        if not target.profile and self.table is not None:
            raise HwsimError(f"{target.name} arithmetic has one precision: leave precision out or name a machine")
        self._of = cache(self._make)
        for found in (self.table or {}).values():
            self._of(found)  # a precision the machine lacks is refused before anything runs

    def of(self, name: str, op: str) -> Arithmetic:
        """Arithmetic of the layer called ``name``."""
        if not self.target.profile:
            return REFERENCES[self.target.name]
        found = PRESETS["fp32"]
        for pattern, precision in (self.table or {}).items():
            if pattern == "*" or fnmatch.fnmatchcase(name, pattern) or pattern == op:
                found = precision
        if found.block and op not in _SCALED_OPS:  # libraries have block-scaled kernels for linear layers alone
            found = replace(found, weights=found.output, activations=found.output, block=0)
        return self._of(found)

    def _make(self, precision: Precision) -> Arithmetic:
        act, weight = get_format(precision.activations).name, get_format(precision.weights).name
        if any(get_format(f).kind != "float" for f in (act, weight)):
            raise HwsimError(
                f"{precision.weights} weights and {precision.activations} activations need scales: execute a quantised file "
                "(.tflite, QDQ .onnx); float networks run in fp32, bf16, fp16, tf32, fp8 or e5m2"
            )
        return self._systolic(precision) if self.target.is_systolic else self._tensor(precision, act, weight)

    def _systolic(self, precision: Precision) -> Arithmetic:
        acc = self.target.acc
        assert acc is not None
        unit = acc.matrix_unit
        chosen = multiply_on(unit.rates, acc.numerics.fp32_passes, precision, self.target.name)
        if chosen.format != "bf16":
            raise HwsimError(f"{self.target.name} arithmetic with {chosen.format} operands is not executed; try bf16")
        fmt = "fp32" if chosen.passes > 1 else "bf16"
        return Arithmetic(
            f"{self.target.name} {fmt}", profile=self.target.profile, inputs=(fmt, fmt), store=precision.output,
            passes=chosen.passes, rows=unit.rows, cols=unit.cols,
        )  # fmt: skip

    def _tensor(self, precision: Precision, act: str, weight: str) -> Arithmetic:
        from hwsim.arithmetic.profiles import find_rule

        if "fp32" in (act, weight):
            raise HwsimError(
                f"{self.target.name}: fp32 products run outside the Tensor Cores, in an order that is not public; "
                "choose a precision: tf32, fp16, bf16, fp8"
            )
        scale = {16: "ue4m3", 32: "ue8m0"}.get(precision.block, "")
        find_rule(self.target.profile, (act, weight), "fp32", scale=scale, block=precision.block or None)
        scaled = not scale and (get_format(act).width == 8 or get_format(weight).width == 8)
        return Arithmetic(
            f"{self.target.name} {_block_name(precision) or act}",
            profile=self.target.profile,
            inputs=(act, weight),
            store=precision.output,
            scaled=scaled,
            block=precision.block,
            scale=scale,
        )


def _block_name(precision: Precision) -> str:
    """The preset of a block-scaled precision; empty for others."""
    same = (n for n, p in PRESETS.items() if p.block == precision.block and p.weights == precision.weights)
    return next(same, "") if precision.block else ""


def watched(arithmetic: Arithmetic, **changes: Any) -> Arithmetic:
    """The same arithmetic with a tally or an audit."""
    return replace(arithmetic, **changes)
