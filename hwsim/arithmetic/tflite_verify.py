"""Compare execution with an oracle: how many values differ, by how much, and where first.

The oracle is LiteRT where ``ai-edge-litert`` is installed, or tensors recorded before. Layers are compared twice: end
to end, and one by one on the oracle's own inputs, so that one wrong bit does not hide the layers behind it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.arithmetic.tflite_execute import TfliteSession
from hwsim.arithmetic.tflite_fixed import Array
from hwsim.arithmetic.tflite_model import Model, Tensor, load_model
from hwsim.arithmetic.tflite_semantics import get_semantics
from hwsim.errors import HwsimError

# An oracle runs one set of inputs and returns tensors by index: at least the outputs, at best every one.
Oracle = Callable[[Sequence[Array]], Mapping[int, Array]]


@dataclass(slots=True)
class TfliteVerification:
    """What a comparison found; ``max_step`` is the largest difference in steps of the type (units in the last place)."""

    oracle: str
    semantics: str
    runs: int = 0
    output_values: int = 0
    output_differences: int = 0
    tensor_values: int = 0
    tensor_differences: int = 0
    bits_different: int = 0
    max_step: int = 0
    first_layer: str = ""
    layers: dict[str, int] = field(default_factory=dict)  # operator -> differing values on the oracle's own inputs

    @property
    def exact(self) -> bool:
        """Whether every compared value has every bit right."""
        return not (self.output_differences or self.tensor_differences or any(self.layers.values()))

    def __str__(self) -> str:
        """One paragraph for people."""
        text = (
            f"{self.semantics} against {self.oracle}: {self.output_differences} of {self.output_values} outputs and "
            f"{self.tensor_differences} of {self.tensor_values} layer values differ over {self.runs} runs"
        )
        if self.exact:
            return text
        return f"{text}; {self.bits_different} bits, at most {self.max_step} steps; first at {self.first_layer}"


def sample_inputs(model: Model, random: int = 2, seed: int = 0) -> Iterator[list[Array]]:
    """Random and structured inputs of a quantised model: extremes, zeros, a ramp, alternating extremes."""
    tensors = [model.tensors[i] for i in dict.fromkeys(model.inputs) if i >= 0]
    for t in tensors:
        size = int(np.prod(t.shape, dtype=np.float64))
        if any(d < 0 for d in t.shape) or size > 1 << 27:
            raise HwsimError(f"{model.source}: input {t.name!r} of shape {t.shape} cannot be filled")
    rng = np.random.default_rng(seed)
    for _ in range(random):
        yield [_random(rng, t) for t in tensors]
    for kind in ("low", "high", "zero", "ramp", "alternating"):
        yield [_pattern(kind, t) for t in tensors]


def _limits(t: Tensor) -> tuple[float, float]:
    return (float(np.iinfo(t.dtype).min), float(np.iinfo(t.dtype).max)) if t.dtype.kind in "iu" else (-1.0, 1.0)


def _random(rng: np.random.Generator, t: Tensor) -> Array:
    if t.dtype.kind in "iu":
        return rng.integers(np.iinfo(t.dtype).min, np.iinfo(t.dtype).max, t.shape, dtype=t.dtype, endpoint=True)
    return rng.standard_normal(t.shape).astype(t.dtype)


def _pattern(kind: str, t: Tensor) -> Array:
    low, high = _limits(t)
    size = int(np.prod(t.shape))
    values: Any = {
        "low": np.full(size, low), "high": np.full(size, high), "zero": np.zeros(size), "ramp": np.linspace(low, high, size),
        "alternating": np.where(np.arange(size) % 2, high, low),
    }[kind]  # fmt: skip
    return np.asarray(values.astype(t.dtype).reshape(t.shape))


def litert_oracle(data: bytes, semantics: str) -> Oracle:
    """LiteRT running the kernels of a semantics; raises HwsimError where it is missing or refuses the model."""
    if semantics == "tflm":
        raise HwsimError("LiteRT does not run TFLM's kernels; give recorded tensors instead")
    try:
        litert = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError:
        raise HwsimError("comparing with LiteRT needs it: pip install ai-edge-litert==2.3.0") from None
    kinds = {
        "tflite-reference": litert.OpResolverType.BUILTIN_REF,
        "tflite-optimized": litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        "xnnpack": litert.OpResolverType.BUILTIN,
    }
    keep = semantics != "xnnpack"  # the delegate keeps no intermediate tensors
    try:
        run = litert.Interpreter(
            model_content=data,
            experimental_op_resolver_type=kinds[semantics],
            num_threads=1,
            experimental_preserve_all_tensors=keep,
        )
        run.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise HwsimError(f"LiteRT refuses the model: {str(error).splitlines()[0][:300]}") from None
    wanted = run.get_tensor_details() if keep else run.get_output_details()

    def oracle(inputs: Sequence[Array]) -> dict[int, Array]:
        run.reset_all_variables()
        for detail, value in zip(run.get_input_details(), inputs, strict=True):
            run.set_tensor(detail["index"], value)
        run.invoke()
        found = {}
        for detail in wanted:
            try:
                found[int(detail["index"])] = run.get_tensor(detail["index"]).copy()
            except ValueError:  # a tensor the interpreter never allocated
                continue
        return found

    return oracle


def verify_tflite(
    model: str | os.PathLike[str] | bytes,
    *,
    semantics: str = "tflite-reference",
    inputs: Sequence[Sequence[Array]] | None = None,
    oracle: Oracle | None = None,
    random: int = 2,
    seed: int = 0,
) -> TfliteVerification:
    """Execute a model and compare every value with an oracle, bit for bit.

    ``inputs`` is a sequence of runs, each a sequence of arrays in the file's order (default: `sample_inputs`); ``oracle``
    returns the expected tensors by index (default: LiteRT). State starts afresh in every run. Raises HwsimError where
    the model cannot be executed or no oracle applies.
    """
    get_semantics(semantics)
    data = model if isinstance(model, bytes) else _read(model)
    session = TfliteSession(
        load_model(model) if not isinstance(model, bytes) else load_model(data), semantics=semantics
    )
    name = "LiteRT" if oracle is None else "the given oracle"
    expected = litert_oracle(data, semantics) if oracle is None else oracle
    found = TfliteVerification(name, semantics)
    for run in sample_inputs(session.model, random, seed) if inputs is None else inputs:
        truth = expected(run)
        session.state.clear()
        made = session.run(run, intermediates=True).tensors
        _whole(found, session, truth, made)
        _layers(found, session, truth, run)
        found.runs += 1
    return found


def _read(path: str | os.PathLike[str]) -> bytes:
    from pathlib import Path

    load_model(path)  # checks that it is a regular file of bounded size
    return Path(path).read_bytes()


def _differences(found: TfliteVerification, made: Array, truth: Array) -> int:
    """Differing values of one tensor; adds their bits and the largest step."""
    a, b = np.ascontiguousarray(made).reshape(-1), np.ascontiguousarray(truth).reshape(-1)
    if a.size != b.size or a.dtype != b.dtype:
        return max(a.size, b.size)
    raw = np.dtype(f"u{a.dtype.itemsize}")
    u, v = a.view(raw), b.view(raw)
    wrong = u != v
    count = int(np.count_nonzero(wrong))
    if count:
        signed = np.dtype(f"i{a.dtype.itemsize}") if a.dtype.kind != "u" else raw
        steps = [abs(int(p) - int(q)) for p, q in zip(a[wrong].view(signed), b[wrong].view(signed), strict=True)]
        found.max_step = max(found.max_step, *steps)
        found.bits_different += sum(int(p).bit_count() for p in (u ^ v)[wrong])
    return count


def _whole(
    found: TfliteVerification, session: TfliteSession, truth: Mapping[int, Array], made: Mapping[int, Array]
) -> None:
    """End to end: outputs, and every tensor the oracle knows, in the order they are made."""
    for index in session.model.outputs:
        if index in truth:
            found.output_values += made[index].size
            found.output_differences += _differences(found, made[index], truth[index])
    for op in session.model.operators:
        for index in op.outputs:
            if index in truth and index in made and index not in session.model.outputs:
                found.tensor_values += made[index].size
                wrong = _differences(found, made[index], truth[index])
                found.tensor_differences += wrong
                if wrong and not found.first_layer:
                    found.first_layer = f"{op.where}, {wrong} of {made[index].size} values"
    if found.output_differences and not found.first_layer:
        found.first_layer = "the outputs (the oracle keeps no tensors before them)"


def _layers(
    found: TfliteVerification, session: TfliteSession, truth: Mapping[int, Array], run: Sequence[Array]
) -> None:
    """Each operator alone, fed with the oracle's own inputs; skipped where the oracle does not know them."""
    known = dict(truth)
    known.update(zip(dict.fromkeys(i for i in session.model.inputs if i >= 0), run, strict=True))
    session.state.clear()
    for op in session.model.operators:
        needed = [i for i in op.inputs if i >= 0 and not session.model.tensors[i].variable]
        if all(i in known or session.model.tensors[i].data is not None for i in needed):
            results = session.operator(op, {i: known[i] for i in needed if i in known})
            for index, value in zip(op.outputs, results, strict=False):
                if index in truth:
                    wrong = _differences(found, value, truth[index])
                    found.layers[op.where] = found.layers.get(op.where, 0) + wrong
