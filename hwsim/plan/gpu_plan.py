"""Planning on a GPU: a bound network becomes kernels with formats, casts, roles of operands and what must fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hwsim.errors import HwsimError
from hwsim.formats import storage_bytes
from hwsim.network.graph import Layer, Network
from hwsim.network.opdefs import Product
from hwsim.network.ops import OPS, kv_cache_elements
from hwsim.plan.gpu_cache import appended
from hwsim.plan.gpu_casts import insert_casts
from hwsim.plan.gpu_eager import apart, as_operator, tangent_gelu
from hwsim.plan.gpu_fusion import GpuGroup, Grouping, group_gpu
from hwsim.plan.gpu_library import as_library, then
from hwsim.plan.gpu_rewrite import compile_rewrites, expand_fused
from hwsim.plan.kernel import Kernel, Operand
from hwsim.plan.operands import (
    cache_bytes,
    elements_of,
    group_weights,
    kernel_name,
    lead_layer,
    peak_bytes,
    tensor_formats,
    weight_bytes,
    without_form,
)
from hwsim.plan.plan import Plan
from hwsim.plan.precision import Multiply, Precision, check_patterns, precision_of
from hwsim.plan.recurrent import split_steps


@dataclass(frozen=True, slots=True)
class Stack:
    """A class of software: whether it compiles and ends products with element-wise work, how it starts kernels, its attention.

    ``fused_length``: longest sequence a fused attention kernel takes; up to ``head_length`` a CTA does a whole head.
    ``half_accumulators``: whether it takes kernels that add fp16 products up in fp16. ``wide_inputs``: whether images come
    as fp32, channels first. ``fuses_volta``: whether its fused attention has kernels for Volta. ``host``: the constant that
    says how long its host takes to start a kernel. ``packs``: whether a convolution's result that others read too is
    packed and copied into a concatenation (a DLA writes it where it belongs).
    """

    name: str
    compiles: bool = True
    epilogues: bool = True
    launch: str = "graph"
    fused_length: int = 1 << 30
    head_length: int = 512
    half_accumulators: bool = False
    fuses_volta: bool = True
    packs: bool = True
    wide_inputs: bool = False
    host: str = ""
    why: str = ""


# TensorRT's fused attention has kernels for fixed lengths up to 512 (a CTA per head), and tiled ones beyond
# (NVIDIA/TensorRT plugin/bertQKVToContextPlugin); FasterTransformer v5 has the former only, to 384; AITemplate 0.1 the
# first FlashAttention; PyTorch 2 the second. TensorRT's begin with compute capability 7.5 (its developer guide, fusion of
# multi-head attention), FasterTransformer has them for 7.0. An fp16 engine of TensorRT takes kernels with fp16 accumulators
# (the h1688 and f16f16_f16f16_f16 of its profiles; NVIDIA/TensorRT issues 1237 and 2942, pytorch/TensorRT pull request
# 3110), which GeForce cards run at twice the rate; cuBLAS and PyTorch add up in fp32. Engines take fp32 images, channels first,
# unless told otherwise ("Reformatting CopyNode for Input Tensor 0" in profiles).
STACKS = {
    s.name: s
    for s in (
        Stack(
            "compiled",
            half_accumulators=True,
            fuses_volta=False,
            why="TensorRT class: fused kernels replayed as a CUDA graph",
        ),
        Stack(
            "compiled-stream",
            launch="stream",
            half_accumulators=True,
            fuses_volta=False,
            why="the same, launched one by one",
        ),
        Stack(
            "engine",
            launch="stream",
            half_accumulators=True,
            fuses_volta=False,
            wide_inputs=True,
            host="engine_dispatch",
            why="an engine of TensorRT with default inputs: fp32 images, channels first, launched one by one",
        ),
        Stack(
            "fastertransformer",
            epilogues=False,
            launch="stream",
            fused_length=384,
            host="library_dispatch",
            why="cuBLAS products, hand-fused kernels between them, called from C++ (v5, 2022)",
        ),
        Stack("aitemplate", head_length=1 << 30, why="CUTLASS kernels, first FlashAttention, CUDA graph (2022)"),
        Stack(
            "eager",
            compiles=False,
            launch="stream",
            head_length=0,
            host="eager_dispatch",
            why="PyTorch class: a kernel per operator",
        ),
        Stack("eager-graph", compiles=False, head_length=0, why="the same, replayed as a CUDA graph"),
    )
}
STACK_ALIASES = {
    "tensorrt": "compiled", "trt": "compiled", "xla": "compiled", "tensorrt-stream": "compiled-stream", "pytorch": "eager",
    "torch": "eager", "trtexec": "engine", "ft": "fastertransformer",
}  # fmt: skip


EMULATED = " emulated"  # ending of a kernel's sparsity: weights stay compressed where no instruction multiplies them so


@dataclass(frozen=True)
class GpuTarget:
    """What planning needs to know of a GPU: how it multiplies, and which attention its libraries fuse."""

    machine: str
    multiply: Callable[[Precision, str], Multiply]
    fuses_attention: Callable[[str, int], bool]  # format, depth of a head
    sparse: bool = False
    emulate: bool = False  # what it does not multiply is run in another form
    architecture: str = ""


def make_gpu_plan(
    net: Network, target: GpuTarget, table: dict[str, Precision] | None, stack: Stack, sparsity: str | None
) -> Plan:
    """Return the plan of a bound network on a GPU under ``stack``.

    Raises HwsimError naming the layer when the chip does not multiply its formats.
    """
    check_patterns(net, table)
    fuse = stack.compiles
    net = compile_rewrites(net, stack.epilogues) if fuse else expand_fused(net)
    grouping = group_gpu(net, fuse, stack.epilogues, stack.packs)
    if not grouping.groups:
        raise HwsimError(f"network {net.name} only gives its inputs other shapes: there is nothing to run")
    kernels = _Planner(net, grouping, target, table, sparsity, stack).kernels()
    kernels = insert_casts(kernels, fuse, {t.name for t in net.inputs} | grouping.constants, stack.wide_inputs)
    results = {p for n in net.output_names for p in grouping.parts[n]}
    held = {o.tensor for k in kernels for o in (*k.inputs, *k.outputs) if o.role in ("cache", "table", "keep")}
    sizes = {o.tensor: o.bytes for k in kernels for o in (*k.inputs, *k.outputs) if o.tensor not in held}
    peak = peak_bytes(
        [[o.tensor for o in k.outputs if o.tensor in sizes] for k in kernels],
        [[o.tensor for o in k.inputs if o.tensor in sizes] for k in kernels],
        sizes, set(grouping.constants), [t.name for t in net.inputs if t.name in sizes], results & sizes.keys(),
    )  # fmt: skip
    return Plan(
        net.name, target.machine, tuple(kernels), weight_bytes(net, table), peak, cache_bytes(net, table),
        tuple(dict.fromkeys(n for k in kernels for n in k.notes)),
    )  # fmt: skip


class _Planner:
    """Turns groups of layers into kernels."""

    def __init__(
        self, net: Network, grouping: Grouping, target: GpuTarget, table: dict[str, Precision] | None,
        sparsity: str | None, stack: Stack,
    ) -> None:  # fmt: skip
        self.net, self.grouping, self.target, self.table, self.stack = net, grouping, target, table, stack
        self.sparsity = sparsity if sparsity not in (None, "dense") else ""
        if self.sparsity and target.emulate:
            self.sparsity += EMULATED
        self.formats = tensor_formats(net, table)
        self.count = {name: elements_of(net, name) for name in net.tensors}
        self.results = {p for n in net.output_names for p in grouping.parts[n]}
        self.read_by: dict[str, set[int]] = {}
        for group in grouping.groups:
            for name in group.reads:
                self.read_by.setdefault(name, set()).add(group.index)
        self.maker = {la.id: g.index for g in grouping.groups for la in g.layers}
        self.maker |= {g.tensor: g.index for g in grouping.groups}
        if stack.wide_inputs:
            images = {
                t.name for t in net.inputs if len(t.shape) > 3 and self.formats[t.name] in ("fp16", "bf16", "int8")
            }
            self.formats |= dict.fromkeys(images, "fp32")
        self.slices = self._slices()
        if not stack.epilogues:
            self._keep_residuals()
        self.windows: set[str] = set()  # results of attention in windows, by tensor

    def kernels(self) -> list[Kernel]:
        """All kernels in order."""
        out: list[Kernel] = []
        last_of: list[int] = []
        for group in self.grouping.groups:
            whole = self._kernel(group)
            whole = replace(whole, producers=tuple(sorted({last_of[g] for g in whole.producers})))
            cut = self._cut(whole, len(out))
            if not self.stack.compiles:
                cut = [as_operator(k) for k in cut]
            elif not self.stack.epilogues:
                cut = [as_library(k) for k in self._by_hand(group, cut, len(out))]
            out += cut
            last_of.append(len(out) - 1)
        return out

    def _by_hand(self, group: GpuGroup, kernels: list[Kernel], index: int) -> list[Kernel]:
        """Kernels of a group with those a library adds whose products end with their sums."""
        last = kernels[-1]
        if group.kind == "attention":
            if self._windowed(group):
                self.windows.add(group.tensor)
            if len(kernels) > 1:
                kernels[-1] = replace(last, layout="nn")
                return then(kernels, index, "heads")
            eight = last.multiply is not None and last.multiply.format == "int8"
            return then(kernels, index, "columns") if eight else kernels
        if group.kind != "matmul" or not group.layers[0].attrs.get("bias"):
            return kernels
        readers = {g for name in self._outputs(group) for g in self.read_by.get(name, ())}
        attended = [self.grouping.groups[g] for g in readers if self.grouping.groups[g].kind == "attention"]
        if attended:
            # Only the product in front of a window's fused attention in 16 bits ends with its bias (cuBLASLt).
            fused = last.outputs[0].format in ("fp16", "bf16") and all(self._windowed(g) for g in attended)
            return kernels if fused else then(kernels, index, "bias")
        return then(kernels, index, "windows") if self.windows & set(group.reads) else kernels

    def _keep_residuals(self) -> None:
        """A library of 8 bits keeps sums that a normalisation and a later sum read (the residual of a block) in 16."""
        for group in self.grouping.groups:
            sums = group.layers[-1].op == "add" and len(self.read_by.get(group.tensor, ())) > 1
            if sums and self.formats.get(group.tensor) == "int8":
                self.formats[group.tensor] = "fp16"

    def _windowed(self, group: GpuGroup) -> bool:
        """Whether attention adds a bias of its own to each pair of tokens, as windows of an image have it."""
        lead = lead_layer(group.layers)
        product = self.net.products[lead.id][0]
        return len(lead.src) > 3 and product.m > 1 and self.count[lead.src[3]] >= product.m * product.n

    def _cut(self, kernel: Kernel, index: int) -> list[Kernel]:
        lead = self.net.by_id[kernel.layers[-1]] if kernel.kind == "attention" else None
        if lead is not None and "cache" in lead.attrs and len(kernel.inputs):
            first, whole = appended(self.net, lead, kernel, precision_of(lead, self.table), index)
            return [first, *self._attention(whole, index + 1)]
        return self._attention(kernel, index)

    def _attention(self, kernel: Kernel, index: int) -> list[Kernel]:
        if kernel.kind == "attention":
            assert kernel.multiply is not None
            depth = max(kernel.products[0].k, kernel.products[1].n)
            fits = kernel.products[0].n <= self.stack.fused_length
            fits = fits and (self.stack.fuses_volta or self.target.architecture != "volta")
            if not (fits and self.target.fuses_attention(kernel.multiply.format, depth)):
                kernels = unfused_attention(kernel, index)
                if self.stack.compiles:
                    return kernels
                shape = self.net.by_id[kernel.layers[-1]].shape
                return apart(kernels, index, int(shape[0]) if len(shape) > 3 else 1)
        if kernel.op == "gelu_tanh" and not self.stack.compiles and len(kernel.inputs) == 1:
            return tangent_gelu(kernel, index)
        parts = split_steps(kernel, index, 0, "dram")
        return parts if len(parts) == 1 else [_with_roles(part) for part in parts]

    def _slices(self) -> dict[tuple[str, str], int]:
        """Elements of a stored tensor that a layer reads where it reads a part of it only."""
        out: dict[tuple[str, str], int] = {}
        for layer in self.net.layers:
            for src in layer.src:
                parts = self.grouping.parts[src]
                if len(parts) != 1 or parts[0] == src:
                    continue
                part = self.count[src]
                if part < self.count[parts[0]]:
                    key = (layer.id, parts[0])
                    out[key] = out.get(key, 0) + part
        return out

    def _read_elements(self, group: GpuGroup, name: str) -> int:
        whole = self._elements(name)
        parts = [self.slices[key] for la in group.layers if (key := (la.id, name)) in self.slices]
        return min(whole, sum(parts)) if parts else whole

    def _elements(self, name: str) -> int:
        """Elements stored under ``name``: of a concatenation with copied parts, the copied ones only."""
        index = self.maker.get(name)
        if index is not None and (copies := self.grouping.groups[index].copies) and name not in copies:
            return sum(self._elements(c) for c in copies)
        return self.count[name]

    def _kernel(self, group: GpuGroup) -> Kernel:
        net = self.net
        lead = lead_layer(group.layers)
        precision = precision_of(lead, self.table)
        notes: list[str] = []
        multiply: Multiply | None = None
        products: tuple[Product, ...] = net.products[lead.id] if group.kind in ("matmul", "attention") else ()
        if products:
            multiply = self.target.multiply(precision, f"layer {lead.id} ({lead.name or lead.op})")
            if multiply.note:
                notes.append(multiply.note)
        roles = self._roles(lead, group)
        inputs = [self._operand(name, self._read_elements(group, name), roles.get(name, "x")) for name in group.reads]
        if products:
            inputs.sort(key=lambda o: ("a", "b", "mask", "x").index(o.role))
        work = [net.vector_work[la.id] for la in group.layers]
        for layer in group.layers:
            if layer.op == "embedding":  # reads the looked-up rows, not the ids' worth of table
                rows = net.vector_work[layer.id].read
                held = sum(w.elements for w in OPS[layer.op].weights(layer, net.input_shapes(layer), ()))
                rows, fmt = min(rows, held), precision_of(layer, self.table).weights
                inputs.append(Operand(f"{layer.id}.rows", rows, storage_bytes(rows, fmt), fmt, role="table"))
        if lead.op == "attention":
            past = kv_cache_elements(lead, net.input_shapes(lead)) - sum(self.count[s] for s in lead.src[1:3])
            if past > 0:
                fmt = precision.cache
                inputs.append(Operand(f"{lead.id}.cache", past, storage_bytes(past, fmt), fmt, role="cache"))
        made = self._outputs(group)
        outputs = tuple(self._operand(n, self._elements(n), "") for n in made)
        kind = {"pointwise": "vector", "reduce": "vector"}.get(group.kind, group.kind)
        if any(OPS[la.op].kind == "host" for la in group.layers):
            notes.append(without_form(lead))
            kind = "vector"
        shape = net.tensors[lead.id].shape
        makers = {self.maker[n] for n in group.reads if n in self.maker}
        return Kernel(
            name=kernel_name(group.layers, lead),
            op=lead.op,
            kind=kind,
            layers=tuple(la.id for la in group.layers),
            products=products,
            multiply=multiply,
            inputs=tuple(inputs),
            weights=group_weights(net, group.layers, precision),
            outputs=outputs,
            alu=sum(w.alu for w in work),
            special=sum(w.special for w in work),
            passes=max(w.passes for w in work),
            rows=max(1, self.count[lead.id] // max(1, int(shape[-1]))) if shape else 1,
            repeat=max((p.repeat for p in products), default=1),
            mask_bytes=sum(o.bytes for o in inputs if o.role == "mask"),
            producers=tuple(sorted(makers - {group.index})),
            accumulate=precision.accumulate,
            sparsity=self.sparsity if products and products[0].b_weight and group.kind == "matmul" else "",
            notes=tuple(notes),
        )

    def _operand(self, name: str, elements: int, role: str) -> Operand:
        fmt = self.formats[name]
        return Operand(name, elements, storage_bytes(elements, fmt), fmt, role=role)

    def _roles(self, lead: Layer, group: GpuGroup) -> dict[str, str]:
        """What the product of a kernel does with each tensor it reads; a tensor read twice has its first role."""
        parts = self.grouping.parts
        out: dict[str, str] = {}
        if OPS[lead.op].kind != "contract":
            return out
        order = ("a", "b") if lead.op == "matmul" else ("a", "b", "b", "mask") if lead.op == "attention" else ("a",)
        inside = {la.id: la for la in group.layers}
        for src, role in zip(lead.src, order, strict=False):
            for part in self._through(src, inside):
                for stored in parts[part]:
                    out.setdefault(stored, role)
        return out

    def _through(self, name: str, inside: dict[str, Layer]) -> list[str]:
        """The tensors from outside behind ``name``, where layers of the kernel itself stand before its product."""
        stored = self.grouping.parts[name]
        found: list[str] = []
        for part in stored:
            if part in inside:
                found += [x for s in inside[part].src for x in self._through(s, inside)]
            else:
                found.append(part)
        return found

    def _outputs(self, group: GpuGroup) -> list[str]:
        """Tensors that other kernels or the user read (at least the last one)."""
        if group.copies:
            return [group.tensor]
        inside = [la.id for la in group.layers]
        found = [n for n in inside if n in self.results or any(g != group.index for g in self.read_by.get(n, ()))]
        return found or [group.tensor]


def _with_roles(kernel: Kernel) -> Kernel:
    """A step of a recurrent layer: its state (or the input) is A, the gates are read by the cell's element-wise part."""
    inputs = tuple(replace(o, role=o.role or ("x" if i else "a"), level="dram") for i, o in enumerate(kernel.inputs))
    weights = replace(kernel.weights, level="dram") if kernel.weights else None
    outputs = tuple(replace(o, level="dram") for o in kernel.outputs)
    return replace(kernel, inputs=inputs, outputs=outputs, weights=weights)


def unfused_attention(kernel: Kernel, index: int) -> list[Kernel]:
    """Return an attention kernel as three: the product of queries and keys, the softmax, the product with the values.

    The scores travel through memory in the format of the activations. ``index`` is the number of the first kernel.
    """
    qk, pv = kernel.products
    fmt = kernel.inputs[0].format
    last_layer = kernel.layers[-1]

    def operand(tensor: str, elements: int, role: str) -> Operand:
        return Operand(tensor, elements, storage_bytes(elements, fmt), fmt, role=role)

    queries = next(o.tensor for o in kernel.inputs if o.role == "a")
    # A cache holds keys and values of all tokens, the new ones among them.
    keys = [o.tensor for o in kernel.inputs if o.role == "cache"][:1]
    keys = keys or [o.tensor for o in kernel.inputs if o.role == "b"] or [queries]
    mask = tuple(replace(o, role="x") for o in kernel.inputs if o.role in ("mask", "x"))
    scores = operand(f"{last_layer}.scores", qk.c_elements, "")
    weights = operand(f"{last_layer}.weights", qk.c_elements, "")
    first = replace(
        kernel, name=f"{kernel.name} qk", kind="matmul", op="matmul", products=(qk,), outputs=(scores,), alu=0, special=0,
        inputs=(operand(queries, qk.a_elements, "a"), operand(keys[0], qk.b_elements, "b")), mask_bytes=0,
    )  # fmt: skip
    middle = replace(
        kernel, name=f"{kernel.name} softmax", kind="vector", op="softmax", products=(), multiply=None,
        inputs=(replace(scores, role="x"), *mask), outputs=(weights,), producers=(index,), passes=3,
        rows=qk.batch * qk.m, mask_bytes=0,
    )  # fmt: skip
    last = replace(
        kernel, name=f"{kernel.name} pv", kind="matmul", op="matmul", products=(pv,), alu=0, special=0, mask_bytes=0,
        inputs=(replace(weights, role="a"), operand(keys[-1], pv.b_elements, "b")),
        producers=tuple(sorted({*kernel.producers, index + 1})),
    )  # fmt: skip
    return [first, middle, last]
