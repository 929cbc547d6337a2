"""`execute`: the values a network gives on a machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution.choose import EDGE_TPU, REFERENCES, Assignment, machine
from hwsim.execution.network_run import run_network
from hwsim.execution.products import Arithmetic
from hwsim.execution.weights import random_inputs, random_weights
from hwsim.network.graph import Layer, Network

if TYPE_CHECKING:
    from hwsim.machine.accelerator import Accelerator

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array]
Model = "Network | str | os.PathLike[str]"
Pick = Callable[[str, str], Arithmetic]
Watch = Callable[[str, str, Array], None]
MAX_KEPT = 1 << 28  # values of all intermediates together


@dataclass(frozen=True, slots=True)
class Execution:
    """Values of one run: ``outputs`` by name, ``intermediates`` (id or tensor → value, in order of execution) when asked.

    ``arithmetic`` says whose values they are, ``evidence`` how that arithmetic is known, ``notes`` what was assumed.
    """

    outputs: Mapping[str, Array]
    arithmetic: str
    evidence: str
    notes: tuple[str, ...] = ()
    intermediates: Mapping[str, Array] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def execute(
    net: Network | str | os.PathLike[str],
    acc: Accelerator | str,
    inputs: Inputs | Sequence[Array] | Array | None = None,
    *,
    precision: str | Mapping[str, str] | None = None,
    seed: int = 0,
    batch: int = 1,
    shapes: Mapping[str, int] | None = None,
    weights: Mapping[str, Mapping[str, Array]] | None = None,
    semantics: str = "tflite-reference",
    intermediates: bool = False,
) -> Execution:
    """Run ``net`` with the arithmetic of ``acc`` and return its values.

    ``net`` is a trace (zoo name, file or Network: ``weights`` by layer id, else random from ``seed``), an .onnx file (its own
    weights) or a .tflite file (its integers in the named ``semantics``, whatever the machine). ``acc`` is an accelerator, a
    device name with Tensor Cores, or ``exact`` / ``fp32``. Missing ``inputs`` are random from ``seed``; ``batch`` and
    ``shapes`` set the open dimensions. Raises HwsimError naming the layer for whatever cannot be executed.
    """
    subject = open_subject(net, seed=seed, batch=batch, shapes=shapes, weights=weights, semantics=semantics)
    subject.follow(acc, precision)
    return subject.execute(acc, subject.named(inputs), precision, intermediates=intermediates)


class Subject:
    """Something to run; one class per kind of file says how."""

    kind = ""
    name = ""
    notes: tuple[str, ...] = ()

    def inputs(self) -> dict[str, Array]:
        """Random inputs."""
        raise NotImplementedError

    def input_names(self) -> list[str]:
        """Names in order."""
        raise NotImplementedError

    def run(self, inputs: Inputs, pick: Pick, watch: Watch | None) -> dict[str, Array]:
        """Outputs by name."""
        raise NotImplementedError

    def follow(self, acc: Accelerator | str, precision: str | Mapping[str, str] | None) -> None:
        """Walk k as the schedule of this network on ``acc`` does, where there is one."""

    def sources(self) -> dict[str, tuple[str, ...]]:
        """What every watched value was computed from."""
        raise NotImplementedError

    def named(self, given: Inputs | Sequence[Array] | Array | None) -> dict[str, Array]:
        """Inputs by name: as given, in order, or random."""
        if given is None:
            return self.inputs()
        if isinstance(given, Mapping):
            return {k: np.asarray(v) for k, v in given.items()}
        parts = [given] if isinstance(given, np.ndarray) else [np.asarray(p) for p in given]
        names = self.input_names()
        if len(parts) != len(names):
            raise HwsimError(f"{self.name} takes {len(names)} inputs ({', '.join(names)[:200]}), given {len(parts)}")
        return dict(zip(names, parts, strict=True))

    def execute(
        self, acc: Accelerator | str, inputs: Inputs, precision: str | Mapping[str, str] | None, *, intermediates: bool
    ) -> Execution:
        """Run once on a machine."""
        target = machine(acc)
        assignment = Assignment(target, precision)
        kept, labels, watch = keeper() if intermediates else ({}, {}, None)
        outputs = self.run(inputs, assignment.of, watch)
        used = assignment.of("", "") if not assignment.table else None
        told = used.name if used is not None else f"{target.name} {precision}"
        return Execution(outputs, told, target.evidence, (*self.notes, *_assumptions(target.profile)), kept, labels)


def keeper() -> tuple[dict[str, Array], dict[str, str], Watch]:
    """Dictionaries of values and labels, and the watch that fills them; refuses more than 2^28 values."""
    kept: dict[str, Array] = {}
    labels: dict[str, str] = {}
    count = 0

    def watch(name: str, label: str, value: Array) -> None:
        nonlocal count
        count += value.size
        if count > MAX_KEPT:
            raise HwsimError(
                "the intermediates are too large to keep (limit 2^28 values): use a smaller batch or shapes"
            )
        kept[name], labels[name] = value, label

    return kept, labels, watch


def _assumptions(profile: str) -> tuple[str, ...]:
    if not profile:
        return ()
    vector = "element-wise and reduction operators run in fp32 with numpy's functions: not claimed bit-exact"
    if profile.startswith("tpu"):
        return (vector,)
    return (
        vector,
        "k runs in ascending order, taps outside and channels inside: the library's own kernel may split it",
    )


class TraceSubject(Subject):
    """A network of layers, weights given or random."""

    kind = "trace"

    def __init__(self, net: Network, seed: int, weights: Mapping[str, Mapping[str, Array]] | None) -> None:
        self.net, self.seed, self.name = net, seed, net.name
        self.weights = random_weights(net, seed) if weights is None else weights
        self.notes = (f"random weights (seed {seed})",) if weights is None else ()
        self.orders: dict[str, tuple[tuple[int, int], ...]] = {}

    def inputs(self) -> dict[str, Array]:
        return random_inputs(self.net, self.seed)

    def input_names(self) -> list[str]:
        return [t.name for t in self.net.inputs]

    def run(self, inputs: Inputs, pick: Pick, watch: Watch | None) -> dict[str, Array]:
        def ordered(layer: Layer) -> Arithmetic:
            chosen = pick(layer.name, layer.op)
            order = self.orders.get(layer.id, ())
            return replace(chosen, order=order) if order and chosen.rows else chosen

        return run_network(self.net, self.weights, inputs, ordered, watch)

    def follow(self, acc: Accelerator | str, precision: str | Mapping[str, str] | None) -> None:
        target = machine(acc)
        if target.is_systolic and target.acc is not None:
            from hwsim.execution.order import schedule_orders

            self.orders, note = schedule_orders(self.net, target.acc, precision)
            self.notes = (*self.notes, note) if note else self.notes

    def sources(self) -> dict[str, tuple[str, ...]]:
        return {la.id: la.src for la in self.net.layers}


class OnnxSubject(Subject):
    """An ONNX file with its weights."""

    kind = "onnx"

    def __init__(self, path: Path, seed: int, sizes: Mapping[str, int]) -> None:
        from hwsim.execution.onnx_load import load_onnx

        self.model = load_onnx(path)
        self.path, self.seed, self.sizes, self.name = path, seed, dict(sizes), self.model.source
        ops = {node.op for node in self.model.graph.nodes}
        self.integer = any(op in ("QuantizeLinear", "DequantizeLinear") or "QLinear" in op for op in ops)

    def inputs(self) -> dict[str, Array]:
        from hwsim.execution.onnx_run import random_onnx_inputs

        return random_onnx_inputs(self.model, self.seed, self.sizes)

    def input_names(self) -> list[str]:
        return [i.name for i in self.model.graph.inputs]

    def run(self, inputs: Inputs, pick: Pick, watch: Watch | None) -> dict[str, Array]:
        from hwsim.execution.onnx_run import run_onnx

        return run_onnx(self.model, inputs, pick, watch)

    def sources(self) -> dict[str, tuple[str, ...]]:
        return {name: node.inputs for node in self.model.graph.nodes for name in node.outputs}


class TfliteSubject(Subject):
    """A TFLite file: integers in a named semantics, the same on every machine."""

    kind = "tflite"

    def __init__(self, path: Path, seed: int, semantics: str) -> None:
        from hwsim.arithmetic.tflite_execute import TfliteSession

        self.session = TfliteSession(path, semantics=semantics)
        self.path, self.seed, self.semantics, self.name = path, seed, semantics, path.name

    def inputs(self) -> dict[str, Array]:
        model = self.session.model
        out: dict[str, Array] = {}
        for index in dict.fromkeys(i for i in model.inputs if i >= 0):
            tensor = model.tensors[index]
            rng = np.random.default_rng([self.seed & 0xFFFFFFFF, index])
            if tensor.dtype.kind in "iu" and tensor.dtype.itemsize == 1:
                low, high = np.iinfo(tensor.dtype).min, np.iinfo(tensor.dtype).max
                out[tensor.name] = rng.integers(low, high + 1, tensor.shape).astype(tensor.dtype)
            elif tensor.dtype.kind == "f":
                out[tensor.name] = rng.standard_normal(tensor.shape).astype(tensor.dtype)
            else:
                out[tensor.name] = rng.integers(0, 2, tensor.shape).astype(tensor.dtype)
        return out

    def input_names(self) -> list[str]:
        model = self.session.model
        return [model.tensors[i].name for i in dict.fromkeys(model.inputs) if i >= 0]

    def execute(
        self, acc: Accelerator | str, inputs: Inputs, precision: str | Mapping[str, str] | None, *, intermediates: bool
    ) -> Execution:
        if precision is not None:
            raise HwsimError(f"{self.name}: a .tflite file states its own precision")
        notes: tuple[str, ...] = ("integer sums are exact on every machine; rounding follows the named semantics",)
        if not (isinstance(acc, str) and acc in REFERENCES):
            from hwsim.machine import load_accelerator

            try:
                if load_accelerator(acc).family == "edge-tpu":
                    notes += (EDGE_TPU,)
            except HwsimError:
                machine(acc)  # a device known by its Tensor Cores; else its error
        from hwsim.arithmetic.tflite_execute import TfliteSession

        session = TfliteSession(self.session.model, semantics=self.semantics)  # fresh state
        model = session.model
        found = session.run(dict(inputs), intermediates=intermediates)
        outputs = {model.tensors[i].name: v for i, v in zip(model.outputs, found.outputs, strict=True)}
        made = {i: op.code for op in model.operators for i in op.outputs}
        kept = {str(i): v for i, v in sorted(found.tensors.items()) if i in made}
        labels = {str(i): f"{made[i]} {model.tensors[i].name}" for i in made}
        return Execution(outputs, self.semantics, "named semantics, proven against its kernels", notes, kept, labels)


def open_subject(
    net: Network | str | os.PathLike[str],
    *,
    seed: int = 0,
    batch: int = 1,
    shapes: Mapping[str, int] | None = None,
    weights: Mapping[str, Mapping[str, Array]] | None = None,
    semantics: str = "tflite-reference",
) -> Subject:
    """What ``net`` names, ready to run."""
    sizes = dict(shapes or {})
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise HwsimError(f"seed must be a whole number of at least 0, not {seed!r}")
    if not isinstance(net, Network):
        path = Path(net)
        suffix = path.suffix.lower()
        if suffix == ".onnx":
            return OnnxSubject(path, seed, {"N": batch, "batch": batch, "batch_size": batch, **sizes})
        if suffix in (".tflite", ".lite"):
            if batch != 1 or sizes:
                raise HwsimError(f"{path.name}: a .tflite file states its own shapes")
            return TfliteSubject(path, seed, semantics)
        from hwsim.network.load import load_network

        net = load_network(net)
    if not net.is_bound:
        if batch != 1 and "N" not in net.symbols:
            raise HwsimError(f"network {net.name} has a fixed batch")
        net = net.bind(**({"N": batch, **sizes} if "N" in net.symbols else sizes))
    elif batch != 1 or sizes:
        raise HwsimError(f"network {net.name}: all its shapes are fixed")
    return TraceSubject(net, seed, weights)
