"""The kernels of a run: operators on the chip, the ways there and back, and what stays on the host, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hwsim.formats import FORMATS, storage_bytes
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.edge_tpu import Tensor
from hwsim.network.graph import Network
from hwsim.plan.cpu_work import cpu_kernel_s, cpu_kernels, host_work_s
from hwsim.plan.edge_tpu_compile import Compiled, Segment, pieces
from hwsim.plan.edge_tpu_graph import Feature, Op
from hwsim.plan.edge_tpu_memory import up
from hwsim.plan.edge_tpu_support import MAPPED, partition
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.plan import Plan
from hwsim.plan.precision import Multiply, Precision

# TensorFlow Lite beside the Edge TPU delegate runs its own kernels, on one thread unless told otherwise.
HOST_KERNELS, HOST_THREADS = "ruy", 1
# Operators whose 8-bit kernels in TensorFlow Lite go value by value.
_SCALAR = frozenset({"RESIZE_BILINEAR", "ARG_MAX", "ARG_MIN"})
_OUTPUT_ALIGN = 8  # bytes; sizes of output layers in compiled files
_PART_OPERATIONS = 12  # instructions of an element-wise activation on the host, one value at a time


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel with what only this family knows of it: ``place`` is ``chip``, ``to chip``, ``from chip`` or ``host``.

    ``operator`` indexes the compiled network's, -1 for transfers. ``code`` and ``streamed`` bytes cross the link for it,
    ``shared`` bytes of weights go from tile to tile, ``host_s`` is the host's own time.
    """

    kernel: Kernel
    place: str
    segment: int = 0
    operator: int = -1
    code: int = 0
    streamed: int = 0
    cached: int = 0
    shared: int = 0
    inputs: int = 0
    outputs: int = 0
    host_s: float = 0.0


def make_steps(
    done: Compiled,
    acc: Accelerator,
    host: Accelerator,
    table: dict[str, Precision] | None,
    constants: Mapping[str, float],
    *,
    upload: bool = False,
) -> list[Step]:
    """Return the steps of one run of a compiled network in order; ``upload`` puts the loading of the cache before it."""
    return _Steps(done, acc, host, table, constants).all(upload)


def steps_plan(done: Compiled, steps: list[Step], conditions: tuple[str, ...]) -> Plan:
    """Return the plan made of ``steps``; its activations are the most that lie on the chip at once."""
    net = done.network
    weights = sum(p.cached for p in done.parameters if p is not None)
    activations = max((s.kernel.input_bytes + s.kernel.output_bytes for s in steps if s.place == "chip"), default=0)
    return Plan(
        net.name, done.machine, tuple(s.kernel for s in steps), weights, activations, 0, done.notes, conditions
    )  # fmt: skip


class _Steps:
    def __init__(
        self, done: Compiled, acc: Accelerator, host: Accelerator, table: dict[str, Precision] | None,
        constants: Mapping[str, float],
    ) -> None:  # fmt: skip
        self.done, self.acc, self.host, self.table, self.constants = done, acc, host, table, constants
        self.net: Network = done.network
        self.tensor = acc.section("tensor", Tensor)
        self.steps: list[Step] = []
        self.made_by: dict[str, int] = {}  # tensor: the step that makes it
        left = {la for i, op in enumerate(done.operators) if done.status[i] != MAPPED for la in op.layers}
        kernels = cpu_kernels(self.net, host, table, left) if left else ()
        self.cpu = {layer: kernel for kernel in kernels for layer in kernel.layers}
        self.timed: set[int] = set()

    def all(self, upload: bool) -> list[Step]:
        done = self.done
        if upload and done.segments:
            for number, segment in enumerate(done.segments):
                self.upload(number, segment)
        groups = partition(done.operators, [s == MAPPED for s in done.status])
        mapped = {groups[i] for i in done.mapped}
        for group in range(max(groups, default=-1) + 1):
            if group in mapped:
                for number, segment in enumerate(done.segments):
                    self.segment(number, segment)
            else:
                for i in (i for i, g in enumerate(groups) if g == group):
                    self.on_host(i)
        return self.steps

    def add(self, step: Step, made: tuple[str, ...] = ()) -> None:
        for name in made:
            self.made_by[name] = len(self.steps)
        self.steps.append(step)

    def producers(self, features: tuple[Feature, ...]) -> tuple[int, ...]:
        return tuple(sorted({self.made_by[t.name] for t in features if t.name in self.made_by}))

    # -- the chip ------------------------------------------------------------------------------------------------

    def upload(self, number: int, segment: Segment) -> None:
        """The program that loads the cache, before the first run."""
        stored = [(i, p.stream) for i in segment.operators if (p := self.done.parameters[i])]
        nbytes = sum(n - segment.cache.streams.get(i, 0) for i, n in stored)
        kernel = Kernel(f"load parameters{self.of(number)}", "upload", "link", ())
        self.add(Step(kernel, "to chip", number, inputs=nbytes, host_s=self.call_s()))

    def segment(self, number: int, segment: Segment) -> None:
        sent = sum(_feature_bytes(t) for t in segment.inputs)
        chunk = int(self.constants["code_bytes"])
        waiting = segment.instruction_bytes
        code = min(chunk, waiting)
        kernel = Kernel(
            f"to the chip{self.of(number)}", "to_chip", "link", (), inputs=_operands(segment.inputs, "host"),
            outputs=_operands(segment.inputs, "shared"), producers=self.producers(segment.inputs),
        )  # fmt: skip
        copy_s = host_work_s(self.host, read_bytes=sent, written_bytes=sent)
        self.add(
            Step(kernel, "to chip", number, code=code, inputs=sent, host_s=self.call_s() + copy_s),
            tuple(t.name for t in segment.inputs),
        )
        waiting -= code
        ran = 0
        for i in segment.operators:
            ran += segment.instructions[i]
            more = min(chunk, waiting) if ran > segment.instruction_bytes - waiting else 0
            waiting -= more
            self.operator(i, number, segment, more)
        self.results(number, segment)

    def operator(self, i: int, number: int, segment: Segment, code: int) -> None:
        op, stored = self.done.operators[i], self.done.parameters[i]
        net = self.net
        streamed = cached = shared = 0
        if stored is not None and stored.stream:
            cached, streamed = segment.cache.kept.get(i, 0), segment.cache.streams.get(i, 0)
            shared = 0 if stored.split else stored.stream
        part = bool(op.part) or op.layer is None
        products = () if part or op.layer is None else net.products[op.layer.id]
        multiply = Multiply("int8", 1.0, 1, False, False) if products else None
        weights = None
        if stored is not None and stored.stream:
            weights = Operand(f"{op.name}.parameters", stored.stream, stored.stream, "int8", "shared")
        work = [] if part else [net.vector_work[la] for la in op.layers]
        kernel = Kernel(
            name=op.name, op=op.code.lower(), kind="matmul" if products else "vector",
            layers=() if part and op.part else op.layers, products=products, multiply=multiply,
            inputs=_operands(op.inputs, "shared"), weights=weights, outputs=_operands(op.outputs, "shared"),
            alu=sum(w.alu for w in work), special=sum(w.special for w in work), producers=self.producers(op.inputs),
            accumulate="int32",
        )  # fmt: skip
        if op.folded:
            return
        self.add(
            Step(kernel, "chip", number, i, code, streamed, cached, shared * pieces(op, self.acc)),
            tuple(t.name for t in op.outputs),
        )

    def results(self, number: int, segment: Segment) -> None:
        nbytes = sum(_padded_bytes(t, self.tensor) for t in segment.outputs)
        places = sum(t.y * t.x for t in segment.outputs if t.y > 1 and t.x > 1)
        plain = sum(_feature_bytes(t) for t in segment.outputs)
        host_s = host_work_s(
            self.host, read_bytes=nbytes, written_bytes=plain,
            scalar_operations=places * self.constants["place_instructions"],
        )  # fmt: skip
        kernel = Kernel(
            f"from the chip{self.of(number)}", "from_chip", "link", (), inputs=_operands(segment.outputs, "shared"),
            outputs=_operands(segment.outputs, "host"), producers=self.producers(segment.outputs),
        )  # fmt: skip
        self.add(
            Step(kernel, "from chip", number, outputs=nbytes, host_s=host_s), tuple(t.name for t in segment.outputs)
        )

    def of(self, number: int) -> str:
        many = len(self.done.segments)
        return f" {number + 1}/{many}" if many > 1 else ""

    def call_s(self) -> float:
        """What the host does for one run of a program: interpreter, driver, interrupts, and the link's round trip."""
        instructions = self.constants["invoke_instructions"]
        return host_work_s(self.host, scalar_operations=instructions) + self.acc.host.round_trip_s

    # -- the host ------------------------------------------------------------------------------------------------

    def on_host(self, i: int) -> None:
        op = self.done.operators[i]
        if op.folded:
            return
        kernel: Kernel | None = None
        seconds = 0.0
        if not op.part:
            for layer in op.layers:
                found = self.cpu.get(layer)
                if found is None:
                    continue
                kernel = kernel or found
                if id(found) not in self.timed:
                    self.timed.add(id(found))
                    seconds += self.kernel_s(op, found)
        else:
            seconds = self.part_s(op)
        if kernel is None:
            if not seconds:
                return  # a view: nothing is computed
            kernel = Kernel(op.name, op.code.lower(), "vector", ())
        kernel = replace(
            kernel, name=op.name, op=op.code.lower().split(":")[-1], kind="host", layers=() if op.part else op.layers,
            inputs=_operands(op.inputs, "host"), outputs=_operands(op.outputs, "host"),
            producers=self.producers(op.inputs), products=(), multiply=None, weights=kernel.weights,
        )  # fmt: skip
        self.add(Step(kernel, "host", 0, i, host_s=seconds), tuple(t.name for t in op.outputs))

    def kernel_s(self, op: Op, kernel: Kernel) -> float:
        """Seconds of one operator on the host; detection and pose decoders by the scores they read."""
        scores = max((t.elements for t in op.inputs), default=0)
        if "Detection_PostProcess" in op.code or (op.layer is not None and op.layer.op == "nms"):
            return host_work_s(self.host, scalar_operations=scores * self.constants["detection_instructions"], calls=1)
        if "PosenetDecoder" in op.code:
            return host_work_s(self.host, scalar_operations=scores * self.constants["pose_instructions"], calls=1)
        if op.code in _SCALAR:
            values = max(op.out.elements, scores)
            return host_work_s(self.host, scalar_operations=values * self.constants["scalar_instructions"], calls=1)
        return cpu_kernel_s(self.host, kernel, stack=HOST_KERNELS, threads=HOST_THREADS)

    def part_s(self, op: Op) -> float:
        """Seconds of an activation TensorFlow Lite runs as an operator of its own."""
        size = op.out.elements
        read = sum(_feature_bytes(t) for t in op.inputs)
        return host_work_s(
            self.host, read_bytes=read, written_bytes=_feature_bytes(op.out), scalar_operations=_PART_OPERATIONS * size,
            calls=1,
        )  # fmt: skip


def _feature_bytes(t: Feature) -> int:
    return storage_bytes(t.elements, t.dtype) if t.dtype in FORMATS else t.elements


def _padded_bytes(t: Feature, tensor: Tensor) -> int:
    """Bytes of a result on its way to the host: channels in fours at every place, the whole in eights."""
    width = max(1, FORMATS[t.dtype].width // 8) if t.dtype in FORMATS else 1
    deep = up(t.z, tensor.cell_macs) if t.y * t.x > 1 else t.z
    return up(t.y * t.x * deep * width, _OUTPUT_ALIGN)


def _operands(features: tuple[Feature, ...], level: str) -> tuple[Operand, ...]:
    return tuple(Operand(t.name, t.elements, _feature_bytes(t), t.dtype, level) for t in features)
