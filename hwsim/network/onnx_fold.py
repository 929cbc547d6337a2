"""Shape arithmetic of ONNX graphs, folded away: small constants through numpy, every result bounded in size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hwsim.network.onnx_file import Attribute, Node, Stored

MAX_ELEMENTS = 1 << 16
Array = np.ndarray
Fold = Callable[[Node, list[Array | None], int], "list[Array] | None"]

_KINDS = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8", 12: "u4", 13: "u8"}


def fold(node: Node, operands: Sequence[Array | None], opset: int) -> list[Array] | None:
    """Numbers a node gives on constant ``operands`` (None: left out), or None when it is not folded.

    Results are at most 65,536 elements; whatever numpy refuses is not folded, so the caller's own rules report it.
    """
    rule = RULES.get(node.op)
    if rule is None or node.domain:
        return None
    try:
        with np.errstate(all="ignore"):
            found = rule(node, list(operands), opset)
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError, ZeroDivisionError, MemoryError):
        return None
    if found is None or any(a.size > MAX_ELEMENTS or a.ndim > 16 for a in found):
        return None
    return found


def _ufunc(function: Callable[..., Any]) -> Fold:
    def rule(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
        given = [x for x in xs if x is not None]
        if math.prod(np.broadcast_shapes(*(x.shape for x in given))) > MAX_ELEMENTS:
            return None
        return [np.asarray(function(*given))]

    return rule


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        if not b.all():
            raise ZeroDivisionError
        return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)
    return np.asarray(a / b)


def _mod(a: Array, b: Array) -> Array:
    if not b.all():
        raise ZeroDivisionError
    return np.asarray(np.mod(a, b))


def _many(function: Callable[[Array, Array], Array]) -> Fold:
    def rule(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
        given = [x for x in xs if x is not None]
        if math.prod(np.broadcast_shapes(*(x.shape for x in given))) > MAX_ELEMENTS:
            return None
        out = given[0]
        for x in given[1:]:
            out = np.asarray(function(out, x))
        return [out]

    return rule


def _need(x: Array | None) -> Array:
    if x is None:
        raise KeyError
    return x


def _number(value: Attribute, default: int) -> int:
    return int(value) if isinstance(value, int | float) else default


def _numbers(node: Node, key: str, operand: Array | None) -> list[int] | None:
    """Integers given as an operand or, in old versions, as attribute ``key``."""
    if operand is not None:
        return [int(v) for v in operand.reshape(-1)]
    value = node.attrs.get(key)
    return [int(v) for v in value] if isinstance(value, tuple) else None


def _get(xs: list[Array | None], i: int) -> Array | None:
    return xs[i] if i < len(xs) else None


def _cast(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    kind = _KINDS.get(_number(node.attrs.get("to"), 0))
    x = _need(xs[0])
    if kind is None:
        return None
    if x.dtype.kind == "f" and kind[0] in "iu" and not np.isfinite(x).all():
        return None
    return [x.astype(kind)]


def _gather(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x, ids = _need(xs[0]), _need(xs[1])
    if x.size and ids.size * (x.size // max(1, x.shape[_number(node.attrs.get("axis"), 0)])) > MAX_ELEMENTS:
        return None
    return [np.asarray(np.take(x, ids, axis=_number(node.attrs.get("axis"), 0)))]


def slices(node: Node, shape: Sequence[int], operands: Sequence[Array | None]) -> list[tuple[int, int, int]] | None:
    """(start, length, step) for each dimension of a Slice on ``shape``; None when it is not constant or wrong."""
    given = [_get(list(operands), i) for i in range(1, 5)]
    starts, ends = _numbers(node, "starts", given[0]), _numbers(node, "ends", given[1])
    if starts is None or ends is None or len(starts) != len(ends):
        return None
    axes = _numbers(node, "axes", given[2])
    axes = list(range(len(starts))) if axes is None else axes
    steps = _numbers(node, "steps", given[3]) or [1] * len(starts)
    if not len(axes) == len(steps) == len(starts):
        return None
    out = [(0, int(d), 1) for d in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or not step:
            return None
        cut = range(*slice(start, end, step).indices(int(shape[axis])))
        out[axis] = (cut.start, len(cut), step)
    return out


def _slice(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x = _need(xs[0])
    found = slices(node, x.shape, xs)
    if found is None:
        return None
    for axis, (start, length, step) in enumerate(found):
        x = np.take(x, [start + i * step for i in range(length)], axis=axis)
    return [x]


def _concat(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    given = [_need(x) for x in xs]
    if sum(x.size for x in given) > MAX_ELEMENTS:
        return None
    return [np.concatenate(given, axis=_number(node.attrs.get("axis"), 0))]


def _unsqueeze(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    axes = _numbers(node, "axes", _get(xs, 1))
    return None if axes is None else [np.expand_dims(_need(xs[0]), tuple(axes))]


def _squeeze(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    axes = _numbers(node, "axes", _get(xs, 1))
    return [np.squeeze(_need(xs[0]), tuple(axes) if axes is not None else None)]


def _reshape(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x, shape = _need(xs[0]), _numbers(node, "shape", _get(xs, 1))
    if shape is None:
        return None
    if not _number(node.attrs.get("allowzero"), 0):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return [x.reshape(shape)]


def _transpose(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    perm = node.attrs.get("perm")
    return [np.transpose(_need(xs[0]), perm if isinstance(perm, tuple) else None)]  # type: ignore[arg-type]


def _range(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    start, limit, step = (_need(x).reshape(-1)[0] for x in xs[:3])
    if not step or not 0 <= math.ceil((float(limit) - float(start)) / float(step)) <= MAX_ELEMENTS:
        return None
    return [np.arange(start, limit, step, dtype=_need(xs[0]).dtype)]


def _filled(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    shape = [int(d) for d in _need(xs[0]).reshape(-1)]
    if any(d < 0 for d in shape) or math.prod(shape) > MAX_ELEMENTS:
        return None
    value = node.attrs.get("value")
    one = value.data.reshape(-1)[0] if isinstance(value, Stored) and value.data is not None else np.float32(0)
    return [np.full(shape, one)]


def _expand(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x = _need(xs[0])
    shape = np.broadcast_shapes(x.shape, tuple(int(d) for d in _need(xs[1]).reshape(-1)))
    return [np.broadcast_to(x, shape).copy()] if math.prod(shape) <= MAX_ELEMENTS else None


def _tile(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x, times = _need(xs[0]), [int(t) for t in _need(xs[1]).reshape(-1)]
    if any(t < 0 for t in times) or x.size * math.prod(times) > MAX_ELEMENTS:
        return None
    return [np.tile(x, times)]


def _reduce(function: Callable[..., Array]) -> Fold:
    def rule(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
        axes = _numbers(node, "axes", _get(xs, 1))
        keep = bool(_number(node.attrs.get("keepdims"), 1))
        x = _need(xs[0])
        return [np.asarray(function(x, axis=tuple(axes) if axes else None, keepdims=keep)).astype(x.dtype)]

    return rule


def _split(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    x, axis = _need(xs[0]), _number(node.attrs.get("axis"), 0)
    sizes = _numbers(node, "split", _get(xs, 1))
    count = len(node.outputs)
    if sizes is None:
        part = -(-x.shape[axis] // count)
        sizes = [part] * (count - 1) + [x.shape[axis] - part * (count - 1)]
    if sum(sizes) != x.shape[axis] or len(sizes) != count:
        return None
    return list(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


def _where(node: Node, xs: list[Array | None], opset: int) -> list[Array] | None:
    return _ufunc(lambda c, a, b: np.asarray(np.where(c, a, b)))(node, xs, opset)


_UFUNCS: dict[str, Callable[..., Any]] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Mod": _mod, "Pow": np.power,
        "Neg": np.negative, "Abs": np.abs, "Sqrt": np.sqrt, "Floor": np.floor, "Ceil": np.ceil, "Round": np.rint,
        "Equal": np.equal, "Less": np.less, "Greater": np.greater, "LessOrEqual": np.less_equal,
        "GreaterOrEqual": np.greater_equal, "And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not,
        "Sign": np.sign, "Reciprocal": np.reciprocal, "Exp": np.exp, "Log": np.log, "Cos": np.cos, "Sin": np.sin,
}  # fmt: skip
RULES: Mapping[str, Fold] = {
    **{name: _ufunc(function) for name, function in _UFUNCS.items()},
    "Min": _many(np.minimum), "Max": _many(np.maximum), "Sum": _many(np.add), "Cast": _cast, "Gather": _gather,
    "Slice": _slice, "Concat": _concat, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape,
    "Transpose": _transpose, "Range": _range, "ConstantOfShape": _filled, "Expand": _expand, "Tile": _tile,
    "ReduceProd": _reduce(np.prod), "ReduceSum": _reduce(np.sum), "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min), "Split": _split, "Where": _where,
}  # fmt: skip
