"""Which operators the Edge TPU takes, as data, and the status its compiler prints for the others.

The table is ``accelerators/constants/edge_tpu_operators.csv``: one line an operator, its rules and where they are from.
The partition is TensorFlow Lite's: operators of one kind (takes, does not take) are gathered as long as what they read is
there; the first group that the Edge TPU takes is mapped, and later ones are not, since one subgraph is the limit.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import lru_cache

from hwsim.data import accelerators_dir
from hwsim.errors import HwsimError, near
from hwsim.plan.edge_tpu_graph import Op

MAPPED = "Mapped to Edge TPU"
SUBGRAPH = "More than one subgraph is not supported"
DATA_TYPE = "Operation is working on an unsupported data type"
LIMITATION = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
UNSUPPORTED = "Operation not supported"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
STATUSES = (MAPPED, SUBGRAPH, DATA_TYPE, LIMITATION, UNSUPPORTED, RANK)
"""What the compiler prints, word for word (google-coral/edgetpu issues 75, 324, 427, 708)."""

BYTES = ("int8", "uint8")
_STATE = (*BYTES, "int16")  # an LSTM keeps its cell state in 16 bits
_MOST_RATIO = 8  # of the sizes of a resampling, in and out
_MOST_SOFTMAX = 16000
_TILE_BYTES = 192 * 1024  # narrow memory of one tile


def status(op: Op) -> str:
    """Return what the compiler prints for ``op`` on its own: `MAPPED`, or why it is not."""
    if op.folded:
        return DATA_TYPE if op.code == "DEQUANTIZE" else UNSUPPORTED
    tensors = (*op.inputs, *op.outputs)
    if op.code == "QUANTIZE" and not all(t.dtype in BYTES for t in tensors):
        return LIMITATION
    allowed = _STATE if op.code == "UNIDIRECTIONAL_SEQUENCE_LSTM" else BYTES
    if any(t.dtype not in allowed for t in tensors):
        return DATA_TYPE
    rules = operator_rules().get(op.code)
    if rules is None:
        return UNSUPPORTED
    if any(t.deep for t in tensors):
        return RANK
    return MAPPED if all(_RULES[rule](op) for rule in rules) else LIMITATION


def statuses(ops: Sequence[Op]) -> list[str]:
    """Return the status of every operator of a network, the limit of one subgraph included."""
    own = [status(op) for op in ops]
    group = partition(ops, [s == MAPPED for s in own])
    first = min((g for g, s in zip(group, own, strict=True) if s == MAPPED), default=0)
    return [SUBGRAPH if s == MAPPED and g != first else s for g, s in zip(group, own, strict=True)]


def partition(ops: Sequence[Op], takes: Sequence[bool]) -> list[int]:
    """Return the number of the group each operator falls into, groups of one kind each in the order they run.

    A group takes every operator of its kind, in execution order, whose inputs earlier groups or itself make.
    """
    made_by: dict[str, int] = {}
    for i, op in enumerate(ops):
        for tensor in op.outputs:
            made_by.setdefault(tensor.name, i)
    needs = [{made_by[t.name] for t in op.inputs if t.name in made_by} - {i} for i, op in enumerate(ops)]
    group = [-1] * len(ops)
    number = 0
    left = list(range(len(ops)))
    while left:
        ready = [i for i in left if all(group[n] >= 0 for n in needs[i])]
        kind = takes[ready[0]] if ready else takes[left[0]]
        rest: list[int] = []
        for i in left:  # execution order: what a later operator needs is already here
            if takes[i] == kind and all(group[n] >= 0 for n in needs[i]):
                group[i] = number
            else:
                rest.append(i)
        if len(rest) == len(left):  # a cycle of names: run in order
            group[left[0]] = number
            rest = left[1:]
        left = rest
        number += 1
    return group


@lru_cache(maxsize=1)
def operator_rules() -> dict[str, tuple[str, ...]]:
    """Return the rules of every operator the Edge TPU takes; raises HwsimError for a table with unknown rules."""
    file = accelerators_dir() / "constants" / "edge_tpu_operators.csv"
    out: dict[str, tuple[str, ...]] = {}
    with file.open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text):
            rules = tuple(row["rule"].split())
            for rule in rules:
                if rule not in _RULES:
                    raise HwsimError(f"{file.name}: operator {row['operator']}: no rule {rule!r}{near(rule, _RULES)}")
            out[row["operator"]] = rules
    return out


def _no_fused(op: Op) -> bool:
    return op.layer is None or not [a for a in op.layer.fused if a != "bn"]


def _attr(op: Op, key: str) -> tuple[int, ...]:
    value = op.layer.attrs.get(key) if op.layer is not None else None
    if isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else ()


def _same_dilation(op: Op) -> bool:
    return len(set(_attr(op, "d"))) < 2


def _one_group(op: Op) -> bool:
    return _attr(op, "g") in ((), (1,))


def _one_dimensional(op: Op) -> bool:
    return op.out.y * op.out.x == 1


def _not_batch(op: Op) -> bool:
    """Axis 0 is the batch; a padding lists the begin of every axis, then the ends."""
    if op.code == "PAD":
        p = _attr(op, "p")
        return not p or len(p) % 2 == 1 or not (p[0] or p[len(p) // 2])
    axes = _attr(op, "axes") or _attr(op, "axis")
    return op.layer is None or len(op.layer.shape) < 2 or 0 not in axes


def _mean_z4(op: Op) -> bool:
    axes = _attr(op, "axes")
    rank = len(op.layer.shape) if op.layer is not None and op.layer.attrs.get("keep") else len(axes) + 2
    z = op.inputs[0].z if op.inputs else 4
    return not axes or max(axes) < max(3, rank - 1) or z % 4 == 0


def _alpha_1d(op: Op) -> bool:
    width = _attr(op, "width")
    return not width or width[0] in (1, op.out.z)


def _zeros_only(op: Op) -> bool:
    """A stored operand is not visible here as a tensor: one input left of a concatenation means there was one."""
    return len(op.inputs) != 1 or op.inputs[0].elements == op.out.elements


def _tile_memory(op: Op) -> bool:
    """A tensor without rows cannot be cut over the tiles."""
    return all(t.y > 1 or t.elements <= _TILE_BYTES for t in (*op.inputs, *op.outputs))


def _resize_ratio(op: Op) -> bool:
    source = op.inputs[0]
    return max(op.out.y / source.y, op.out.x / source.x) <= _MOST_RATIO


def _softmax_1d(op: Op) -> bool:
    return op.out.y * op.out.x == 1 and op.out.z <= _MOST_SOFTMAX


def _integers(op: Op) -> bool:
    return all(t.dtype in BYTES for t in (*op.inputs, *op.outputs))


def _unit_strides(op: Op) -> bool:
    return all(s == 1 for s in _attr(op, "s"))


_RULES: dict[str, Callable[[Op], bool]] = {
    "no_fused": _no_fused, "same_dilation": _same_dilation, "one_group": _one_group, "one_dimensional": _one_dimensional,
    "not_batch": _not_batch, "mean_z4": _mean_z4, "alpha_1d": _alpha_1d, "zeros_only": _zeros_only,
    "tile_memory": _tile_memory, "resize_ratio": _resize_ratio, "softmax_1d": _softmax_1d, "integers": _integers,
    "unit_strides": _unit_strides,
}  # fmt: skip
