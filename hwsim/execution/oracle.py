"""Independent answers that executed values are held against.

Products on a machine: a sample of every product's elements is computed again, one at a time, by the definition: Tensor Cores
instruction by instruction through `fused_dot`, which is proven against recorded silicon; systolic arrays in exact rational
arithmetic rounded where the array rounds. Files: the runtimes themselves, when installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.execution.products import Arithmetic

Array = npt.NDArray[Any]


class ProductAudit:
    """Recomputes ``samples`` elements of every product it is shown and keeps what differed, by layer."""

    def __init__(self, seed: int, samples: int) -> None:
        self.samples = samples
        self.rng = np.random.default_rng(seed)
        self.layer = ""
        self.compared: dict[str, int] = {}
        self.different: dict[str, list[int]] = {}

    def of(self, arithmetic: Arithmetic, layer: str) -> Any:
        """The function that an `Arithmetic` calls for the products of ``layer``."""

        def check(x: Array, y: Array, chains: list[tuple[int, int]], made: Array) -> None:
            if self.compared.get(layer, 0) >= 4 * self.samples:  # many small products of one layer: enough seen
                return
            rows = self.rng.integers(0, x.shape[0], self.samples)
            cols = self.rng.integers(0, y.shape[1], self.samples)
            want = recompute(x[rows], y[:, cols].T, chains, arithmetic)
            got = made[rows, cols]
            from hwsim.execution.metrics import differing, ulps_apart

            self.compared[layer] = self.compared.get(layer, 0) + len(got)
            wrong = differing(got, want)
            if wrong.any():
                self.different.setdefault(layer, []).extend(int(u) for u in ulps_apart(got[wrong], want[wrong]))

        return check


def recompute(a: Array, b: Array, chains: list[tuple[int, int]], arithmetic: Arithmetic) -> Array:
    """Sums of products of rows of ``a`` and ``b`` (count, k), bit patterns of the operands' formats, as float32."""
    return _systolic(a, b, chains, arithmetic) if arithmetic.rows else _tensor_core(a, b, arithmetic)


def _tensor_core(a: Array, b: Array, arithmetic: Arithmetic) -> Array:
    from hwsim.arithmetic import fused_dot
    from hwsim.arithmetic.profiles import find_rule

    rule, _ = find_rule(arithmetic.profile, arithmetic.inputs, "fp32")
    step, total = rule.depths[0], np.zeros(len(a), np.uint32)
    for k in range(0, a.shape[1], step):
        x, y = a[:, k : k + step], b[:, k : k + step]
        spare = step - x.shape[1]
        if spare:
            x, y = np.pad(x, ((0, 0), (0, spare))), np.pad(y, ((0, 0), (0, spare)))
        total = fused_dot(x, y, total, profile=arithmetic.profile, input=arithmetic.inputs, output="fp32")
    return np.asarray(total).view(np.float32)


def _systolic(a: Array, b: Array, chains: list[tuple[int, int]], arithmetic: Arithmetic) -> Array:
    from hwsim.arithmetic.formats import decode
    from hwsim.arithmetic.mxu import matrix_unit

    unit = matrix_unit(arithmetic.profile)
    assert unit is not None
    x, y = decode(a, arithmetic.inputs[0]), decode(b, arithmetic.inputs[1])
    out = np.zeros(len(a), np.float32)
    for i in range(len(a)):
        total: np.float32 | None = None
        if not (np.isfinite(x[i]).all() and np.isfinite(y[i]).all()):
            out[i] = np.nan
            continue
        for start, stop in chains:
            if arithmetic.passes == 1:
                for lo in range(start, stop, arithmetic.rows):
                    part = _chain(
                        x[i, lo : min(lo + arithmetic.rows, stop)],
                        y[i, lo : min(lo + arithmetic.rows, stop)],
                        unit.group,
                    )
                    total = part if total is None else np.float32(total + part)
            else:
                total = _passes(x[i, start:stop], y[i, start:stop], unit.group, arithmetic, total)
        out[i] = total if total is not None else 0.0
    return out


def _passes(x: Array, y: Array, group: int, arithmetic: Arithmetic, total: np.float32 | None) -> np.float32:
    parts = {3: 2, 6: 3}[arithmetic.passes]
    xs, ys = _parts(x, parts), _parts(y, parts)
    order = sorted(
        ((i, j) for i in range(parts) for j in range(parts) if i + j < parts), key=lambda p: (-(p[0] + p[1]), -p[0])
    )
    for i, j in order:
        part = _chain(xs[i], ys[j], group)
        total = part if total is None else np.float32(total + part)
    assert total is not None
    return total


def _parts(x: Array, count: int) -> list[Array]:
    from hwsim.execution.products import rounded

    out, rest = [], x.astype(np.float64)
    for _ in range(count):
        out.append(rounded(rest.astype(np.float32), "bf16").astype(np.float64))
        rest = rest - out[-1]
    return out


def _chain(x: Array, y: Array, group: int) -> np.float32:
    """A column: ``group`` exact products at a time join the partial sum before one rounding."""
    total = np.float32(0)
    products = (x * y).tolist()  # of two bf16 numbers: exact in float64
    for k in range(0, len(products), group):
        terms = [float(total), *products[k : k + group]]
        near = math.fsum(terms)  # rounded to float64, once
        total = np.float32(near)
        if near and (abs(near) < 2.0**-125 or int(np.float64(near).view(np.uint64)) & 0x1FFFFFFF == 0x10000000):
            total = nearest(sum(map(Fraction, terms), Fraction(0)))  # a tie or a subnormal would round twice
        if not np.isfinite(total):
            return total
    return total


def nearest(value: Fraction) -> np.float32:
    """The fp32 number nearest to a rational one, ties to even."""
    with np.errstate(over="ignore"):
        guess = np.float32(float(value))
    if not np.isfinite(guess):
        return guess
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    finite = [v for v in around if np.isfinite(v)]
    return min(finite, key=lambda v: (abs(Fraction(float(v)) - value), int(v.view(np.uint32)) & 1))


def litert(path: Path, inputs: Mapping[str, Array], semantics: str) -> tuple[list[Array], dict[int, Array]] | None:
    """Outputs and intermediate tensors of LiteRT under ``semantics``; None where it is not installed or has no such kernels."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        return None
    kinds = {
        "tflite-reference": "BUILTIN_REF",
        "tflite-optimized": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
        "xnnpack": "BUILTIN",
    }
    if semantics not in kinds:
        return None
    try:
        machine = Interpreter(
            model_path=str(path), num_threads=1, experimental_op_resolver_type=getattr(OpResolverType, kinds[semantics]),
            experimental_preserve_all_tensors=semantics != "xnnpack",
        )  # fmt: skip
        machine.allocate_tensors()
    except (RuntimeError, ValueError):
        return None
    for detail in machine.get_input_details():
        machine.set_tensor(detail["index"], inputs[detail["name"]])
    machine.invoke()
    outputs = [machine.get_tensor(d["index"]) for d in machine.get_output_details()]
    inside: dict[int, Array] = {}
    if semantics != "xnnpack":
        for detail in machine.get_tensor_details():
            try:
                inside[detail["index"]] = machine.get_tensor(detail["index"])
            except ValueError:
                continue
    return outputs, inside


def onnxruntime(path: Path, inputs: Mapping[str, Array]) -> list[Array] | None:
    """Outputs of ONNX Runtime's CPU provider on one thread, int8 patterns kept integer; None where it is not installed."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(None, dict(inputs))]
