"""What the Edge TPU's compiler makes of a network: what is mapped, cached and streamed, in how many segments and programs.

``compile_network`` is the compiler's view of one network, ``compile_together`` of several that share the wide memory of
one chip. Segments (``edgetpu_compiler -n``) are cut in execution order, each as long as its parameters in the file are no
more than an equal share; each has a chip of its own and hands its tensors to the next through the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hwsim.errors import HwsimError
from hwsim.formats import FORMATS
from hwsim.machine.accelerator import Accelerator
from hwsim.machine.constants import load_constants
from hwsim.machine.edge_tpu import Tensor
from hwsim.network.graph import Layer, Network
from hwsim.plan.edge_tpu_graph import Feature, Op, operators
from hwsim.plan.edge_tpu_memory import Cache, Parameters, fill, parameters, staging_bytes
from hwsim.plan.edge_tpu_support import MAPPED, statuses
from hwsim.plan.precision import Precision, precision_of, tensor_format

_MOST_SEGMENTS = 64


@dataclass(frozen=True)
class Segment:
    """Operators (by index) that run as one program on one chip, what they read from and return to the host, the cache.

    ``instructions`` are the bytes of each of its operators' code, the program's own with the first.
    """

    operators: tuple[int, ...]
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    cache: Cache
    instructions: Mapping[int, int]
    staging_tile: int
    tile_bytes: int
    tiles: int

    @property
    def instruction_bytes(self) -> int:
        """Bytes of the whole program, sent in every run."""
        return sum(self.instructions.values())

    @property
    def remaining(self) -> int:
        """Wide memory the log says is left for parameters, bytes."""
        return self.cache.free_tile * self.tiles


@dataclass(frozen=True)
class Compiled:
    """A network as compiled: its operators, the status of each, its parameters, and its segments (none mapped: none)."""

    network: Network
    machine: str
    operators: tuple[Op, ...]
    status: tuple[str, ...]
    parameters: tuple[Parameters | None, ...]
    segments: tuple[Segment, ...]
    notes: tuple[str, ...] = ()

    @property
    def mapped(self) -> tuple[int, ...]:
        """Operators on the Edge TPU."""
        return tuple(i for i, s in enumerate(self.status) if s == MAPPED)

    @property
    def cached_bytes(self) -> int:
        """On-chip memory used for caching, all segments."""
        return sum(s.cache.used for s in self.segments)

    @property
    def streamed_bytes(self) -> int:
        """Parameters that cross the link in every run, all segments."""
        return sum(s.cache.streamed for s in self.segments)

    @property
    def remaining_bytes(self) -> int:
        """On-chip memory left for caching, of the last segment (models compiled together share it)."""
        return self.segments[-1].remaining if self.segments else 0


def compile_network(
    net: Network,
    acc: Accelerator,
    table: dict[str, Precision] | None = None,
    *,
    segments: int = 1,
    used_tile: int = 0,
) -> Compiled:
    """Return what the compiler makes of a bound network on ``acc``, in ``segments`` programs.

    ``used_tile`` bytes of every tile's wide memory are taken by models compiled before. Raises HwsimError for a network
    compiled already, one without any 8-bit operator (with the advice to quantise it), or more segments than operators.
    """
    constants = load_constants("edge-tpu", acc.architecture)
    _refuse_compiled(net, acc)
    ops = operators(net, partial(_dtype, table), lambda name: _input_dtype(net, table, name))
    status = statuses(ops)
    if MAPPED not in status:
        _refuse_float(net, ops, acc)
    stored = tuple(parameters(op, acc, constants) if s == MAPPED else None for op, s in zip(ops, status, strict=True))
    mapped = [i for i, s in enumerate(status) if s == MAPPED]
    if not 1 <= segments <= _MOST_SEGMENTS or (mapped and segments > len(mapped)):
        most = min(_MOST_SEGMENTS, max(1, len(mapped)))
        raise HwsimError(f"{net.name}: {segments} segments of {len(mapped)} mapped operators; 1 to {most} are possible")
    parts = cut([stored[i].file if stored[i] else 0 for i in mapped], segments) if mapped else []  # type: ignore[union-attr]
    made = tuple(
        _segment([mapped[j] for j in part], net, ops, stored, acc, constants, used_tile if n == 0 else 0)
        for n, part in enumerate(parts)
    )
    return Compiled(net, acc.id, tuple(ops), tuple(status), stored, made, _notes(net, ops, made, acc))


def compile_together(
    nets: Sequence[Network], acc: Accelerator, tables: Sequence[dict[str, Precision] | None] | None = None
) -> list[Compiled]:
    """Return the networks compiled to share one chip's wide memory, the first ones first; all report what is left at last.

    Raises HwsimError as `compile_network` does.
    """
    if not nets:
        raise HwsimError("no networks to compile")
    out: list[Compiled] = []
    used = 0
    for i, net in enumerate(nets):
        done = compile_network(net, acc, tables[i] if tables else None, used_tile=used)
        out.append(done)
        if done.segments:
            segment = done.segments[0]
            used = segment.tile_bytes - segment.staging_tile - segment.cache.free_tile
    left = min((c.segments[0].cache.free_tile for c in out if c.segments), default=0)
    return [
        replace(c, segments=tuple(replace(s, cache=replace(s.cache, free_tile=left)) for s in c.segments)) for c in out
    ]


def cut(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Return ``sizes`` (by index, in order) in ``parts`` runs, each as long as its sum is no more than an equal share.

    Every run has at least one element; the last has what is left. So are the pipelines of google-coral/test_data cut.
    """
    share = sum(sizes) / parts
    out: list[list[int]] = [[]]
    total = 0
    for i, size in enumerate(sizes):
        left = parts - len(out)  # runs still to be opened need an element each
        if out[-1] and left and (total + size > share or len(sizes) - i <= left):
            out.append([])
            total = 0
        out[-1].append(i)
        total += size
    return out


def _segment(
    chosen: list[int],
    net: Network,
    ops: Sequence[Op],
    stored: Sequence[Parameters | None],
    acc: Accelerator,
    constants: Mapping[str, float],
    used_tile: int,
) -> Segment:
    tensor = acc.section("tensor", Tensor)
    inside = set(chosen)
    made = {t.name for i in chosen for t in ops[i].outputs}
    results = set(net.output_names)
    read_outside = {t.name for i, op in enumerate(ops) if i not in inside for t in op.inputs}
    inputs = {t.name: t for i in chosen for t in ops[i].inputs if t.name not in made}
    outputs = {t.name: t for i in chosen for t in ops[i].outputs if t.name in results or t.name in read_outside}
    if not outputs:
        outputs = {t.name: t for t in ops[chosen[-1]].outputs}
    own = [ops[i] for i in chosen]
    tile = acc.memory["wide"].capacity_bytes // tensor.tiles
    staging = staging_bytes(own, acc, constants)
    cache = fill(
        [stored[i] if i in inside else None for i in range(len(ops))], max(0, tile - staging), tensor.tiles, used_tile
    )
    instructions = {i: instruction_bytes(ops[i], acc, constants) for i in chosen}
    instructions[chosen[0]] += round(constants["program_bytes"])
    return Segment(
        tuple(chosen), tuple(inputs.values()), tuple(outputs.values()), cache, instructions, staging, tile, tensor.tiles
    )


def instruction_bytes(op: Op, acc: Accelerator, constants: Mapping[str, float]) -> int:
    """Return the code of one operator: more where tiles differ in size, and once for every piece it is computed in."""
    tensor = acc.section("tensor", Tensor)
    ragged = (op.out.y > 1 and op.out.y % tensor.tiles_y) or (op.out.x > 1 and op.out.x % tensor.tiles_x)
    each = constants["operator_bytes"] + (constants["ragged_bytes"] if ragged else 0)
    total = each * pieces(op, acc)
    if op.code == "SOFTMAX":
        total += constants["softmax_code"] + constants["softmax_class_code"] * op.out.z
    if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        total += constants["step_bytes"] * max(op.inputs[0].x, op.inputs[0].y)
    return round(total)


def pieces(op: Op, acc: Accelerator) -> int:
    """Return in how many pieces an operator runs so that what it reads and makes fits the narrow memories."""
    tensor = acc.section("tensor", Tensor)
    need = sum(tile_bytes(t, tensor) for t in (*op.inputs, *op.outputs))
    return max(1, -(-need // acc.memory["narrow"].capacity_bytes))


def tile_bytes(feature: Feature, tensor: Tensor) -> int:
    """Return the bytes of a tensor's largest share on one tile: rows and columns over the tiles, channels in fours."""
    y, x = -(-feature.y // tensor.tiles_y), -(-feature.x // tensor.tiles_x)
    width = FORMATS[feature.dtype].width // 8 if feature.dtype in FORMATS else 1
    return y * x * -(-feature.z // tensor.cell_macs) * tensor.cell_macs * max(1, width)


def _dtype(table: dict[str, Precision] | None, layer: Layer) -> str:
    return tensor_format(layer.dtype, precision_of(layer, table) if table else None)


def _input_dtype(net: Network, table: dict[str, Precision] | None, name: str) -> str:
    return tensor_format(net.tensors[name].dtype, (table or {}).get("*"))


def _refuse_compiled(net: Network, acc: Accelerator) -> None:
    for layer in net.layers:
        if layer.op == "custom" and str(layer.attrs.get("code", "")).startswith("edgetpu"):
            raise HwsimError(
                f"network {net.name}: layer {layer.id} ({layer.attrs['code']}) is a program compiled for the Edge TPU, "
                f"which cannot be seen into; give {acc.id} the file it was compiled from"
            )


def _refuse_float(net: Network, ops: Sequence[Op], acc: Accelerator) -> None:
    """Raise HwsimError for a network without integer arithmetic; one that is quantised may still map nothing."""
    floats = sorted(
        {t.dtype for op in ops for t in op.outputs if t.dtype in FORMATS and FORMATS[t.dtype].kind == "float"}
    )
    bytes_ = any(t.dtype in ("int8", "uint8") for op in ops for t in op.outputs)
    if floats and not bytes_:
        raise HwsimError(
            f"network {net.name} is {'/'.join(floats)}: {acc.id} takes int8 or uint8 alone; quantise it (full integer "
            "post-training quantisation in TensorFlow Lite), or model that with --precision int8"
        )


def _notes(net: Network, ops: Sequence[Op], segments: Sequence[Segment], acc: Accelerator) -> tuple[str, ...]:
    tensor = acc.section("tensor", Tensor)
    notes = []
    if not segments:
        notes.append(f"nothing of {net.name} is mapped to the Edge TPU: all of it runs on the host")
    worst = max((tile_bytes(t, tensor) for s in segments for i in s.operators for t in ops[i].outputs), default=0)
    if worst > 8 * acc.memory["narrow"].capacity_bytes:
        notes.append("a tensor is far larger than the narrow memories: the compiler may refuse it for its activations")
    return tuple(notes)
