"""`verify`: hold executed values against the oracle that applies and against exact arithmetic."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.execution.choose import Assignment, machine, watched
from hwsim.execution.goldens import digest, recorded
from hwsim.execution.metrics import ErrorStatistics, differing, statistics, ulps_apart
from hwsim.execution.oracle import ProductAudit, litert, onnxruntime
from hwsim.execution.products import EXACT, FP32, Arithmetic
from hwsim.execution.run import OnnxSubject, Subject, TfliteSubject, open_subject
from hwsim.network.graph import Network

if TYPE_CHECKING:
    from hwsim.machine.accelerator import Accelerator

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared and what differed.

    ``oracle`` names the independent answer ("" when none applies or is installed; ``notes`` say which would). ``compared``
    values, of which ``different`` have other bits; ``first_layer`` is the first to differ, ``max_ulps`` by how much (integer
    outputs: least significant bits). ``error`` is this arithmetic's against exact arithmetic and ``fp32_error`` plain fp32's,
    per output; both empty for integer files.
    """

    network: str
    arithmetic: str
    evidence: str
    oracle: str
    compared: int
    different: int
    first_layer: str
    max_ulps: int
    error: Mapping[str, ErrorStatistics]
    fp32_error: Mapping[str, ErrorStatistics]
    notes: tuple[str, ...] = ()

    @property
    def is_bit_exact(self) -> bool:
        """True when an oracle applied and nothing differed."""
        return bool(self.oracle) and self.compared > 0 and self.different == 0

    def text(self) -> str:
        """The verdict in a few lines."""
        lines = [f"{self.network} as {self.arithmetic} ({self.evidence})"]
        if self.oracle:
            lines.append(f"  against {self.oracle}: {self.different} of {self.compared} values differ")
            if self.different:
                much = f", by up to {self.max_ulps} ulps" if self.max_ulps else ""
                lines.append(f"  first in {self.first_layer}{much}")
        else:
            lines.append("  no oracle applies")
        for name, found in self.error.items():
            lines.append(f"  {name} against exact arithmetic: {_told(found)}")
            if name in self.fp32_error:
                lines.append(f"  {name} plain fp32:               {_told(self.fp32_error[name])}")
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])


def _told(e: ErrorStatistics) -> str:
    top = "" if e.top1 is None else f", top-1 agrees in {100 * e.top1:.1f} %"
    odd = f", {e.not_finite} not finite" if e.not_finite else ""
    return f"SNR {e.snr_db:.1f} dB, {e.fmt} ulps max {e.max_ulp:.3g} mean {e.mean_ulp:.3g}{top}{odd}"


def verify(
    net: Network | str | os.PathLike[str],
    acc: Accelerator | str,
    inputs: Mapping[str, Array] | Sequence[Array] | Array | None = None,
    *,
    precision: str | Mapping[str, str] | None = None,
    seed: int = 0,
    batch: int = 1,
    shapes: Mapping[str, int] | None = None,
    weights: Mapping[str, Mapping[str, Array]] | None = None,
    semantics: str = "tflite-reference",
    samples: int = 16,
) -> Verification:
    """Execute, compare with the oracle that applies, and say how many bits differ; arguments as for `execute`.

    .tflite: LiteRT under the same semantics, output by output and tensor by tensor. Integer .onnx: ONNX Runtime. Float
    networks on a machine: ``samples`` elements of every product recomputed one at a time by the definition, and every output
    against exact arithmetic beside plain fp32. Raises HwsimError for what cannot be executed.
    """
    subject = open_subject(net, seed=seed, batch=batch, shapes=shapes, weights=weights, semantics=semantics)
    subject.follow(acc, precision)
    given = subject.named(inputs)
    if isinstance(subject, TfliteSubject):
        return _tflite(subject, acc, given, precision, seed if inputs is None else None)
    if isinstance(subject, OnnxSubject) and subject.integer:
        return _integer_onnx(subject, acc, given)
    return _float(subject, acc, given, precision, seed, samples)


def _tflite(
    subject: TfliteSubject,
    acc: Accelerator | str,
    inputs: dict[str, Array],
    precision: str | Mapping[str, str] | None,
    seed: int | None,
) -> Verification:
    made = subject.execute(acc, inputs, precision, intermediates=True)
    answer = litert(subject.path, inputs, subject.semantics)
    if answer is None:
        notes = (*made.notes, "install ai-edge-litert to compare with LiteRT itself")
        known = recorded(subject.path, subject.semantics, seed) if seed is not None else None
        if known is not None and len(known) == len(made.outputs):
            # A digest says whether an output is the same, not how many of its values differ.
            wrong = {n: v.size for (n, v), d in zip(made.outputs.items(), known, strict=True) if digest(v) != d}
            compared = sum(v.size for v in made.outputs.values())
            first = f"output {next(iter(wrong))}" if wrong else ""
            told = "recorded outputs of LiteRT"
            return Verification(
                subject.name,
                made.arithmetic,
                made.evidence,
                told,
                compared,
                sum(wrong.values()),
                first,
                0,
                {},
                {},
                notes,
            )
        return Verification(subject.name, made.arithmetic, made.evidence, "", 0, 0, "", 0, {}, {}, notes)
    outputs, inside = answer
    pairs = [(name, made.labels.get(name, name), v, inside.get(int(name))) for name, v in made.intermediates.items()]
    if not inside:
        pairs = [(n, f"output {n}", v, w) for (n, v), w in zip(made.outputs.items(), outputs, strict=True)]
    return _compare(subject.name, made.arithmetic, made.evidence, "LiteRT", pairs, made.notes)


def _integer_onnx(subject: OnnxSubject, acc: Accelerator | str, inputs: dict[str, Array]) -> Verification:
    made = subject.execute("fp32", inputs, None, intermediates=False)
    machine(acc)
    told = "integer sums are exact on every machine; rounding follows ONNX Runtime's"
    answer = onnxruntime(subject.path, inputs)
    if answer is None:
        notes = (told, "install onnxruntime to compare with it")
        return Verification(subject.name, "onnxruntime", "rules of ONNX Runtime", "", 0, 0, "", 0, {}, {}, notes)
    pairs = [(n, f"output {n}", v, w) for (n, v), w in zip(made.outputs.items(), answer, strict=True)]
    return _compare(subject.name, "onnxruntime", "rules of ONNX Runtime", "ONNX Runtime", pairs, (told,))


def _compare(
    name: str,
    arithmetic: str,
    evidence: str,
    oracle: str,
    pairs: Sequence[tuple[str, str, Array, Array | None]],
    notes: tuple[str, ...],
) -> Verification:
    compared = different = worst = 0
    first = ""
    for _, label, got, want in pairs:
        if want is None or want.shape != got.shape:
            continue
        wrong = differing(got, want)
        compared += got.size
        count = int(np.count_nonzero(wrong))
        if count and not first:
            first = label
            worst = int(ulps_apart(got[wrong], want[wrong]).max())
        different += count
    return Verification(name, arithmetic, evidence, oracle, compared, different, first, worst, {}, {}, notes)


def _float(
    subject: Subject,
    acc: Accelerator | str,
    inputs: dict[str, Array],
    precision: str | Mapping[str, str] | None,
    seed: int,
    samples: int,
) -> Verification:
    target = machine(acc)
    assignment = Assignment(target, precision)
    audit = ProductAudit(seed, samples)

    def pick(name: str, op: str) -> Arithmetic:
        chosen = assignment.of(name, op)
        return watched(chosen, audit=audit.of(chosen, name or op)) if chosen.profile else chosen

    made = subject.run(inputs, pick, None)
    exact = subject.run(inputs, lambda _n, _o: EXACT, None)
    plain = subject.run(inputs, lambda _n, _o: FP32, None)
    fmt = assignment.of("", "").store or "fp32"
    floats = [n for n, v in exact.items() if v.dtype.kind == "f" and v.size]
    error = {n: statistics(made[n], exact[n], fmt) for n in floats}
    beside = {n: statistics(plain[n], exact[n], fmt) for n in floats}
    compared = sum(audit.compared.values())
    wrong = [u for found in audit.different.values() for u in found]
    first = next(iter(audit.different), "")
    oracle = ""
    if target.profile:
        oracle = (
            "rational arithmetic in the array's order"
            if target.is_systolic
            else "fused_dot, instruction by instruction"
        )
    sampled = (f"{samples} elements of every product are recomputed; the rest of a product is not",) if oracle else ()
    if any(p.block for p in (assignment.table or {}).values()):
        sampled = (*sampled, "products of block-scaled operands are not among them")
    first_ulps = max(audit.different[first]) if first else 0
    return Verification(
        subject.name, assignment.of("", "").name, target.evidence, oracle, compared, len(wrong), first, first_ulps, error, beside,
        (*subject.notes, *sampled),
    )  # fmt: skip
