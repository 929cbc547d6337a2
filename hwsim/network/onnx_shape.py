"""ONNX nodes that rename, reshape or make constants: shape arithmetic, views, sizes that only values tell."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hwsim.network.importing import Value
from hwsim.network.onnx_contract import transposed
from hwsim.network.onnx_file import Stored
from hwsim.network.onnx_graph import Handler, OnnxGraph, as_stored, constant


def same(g: OnnxGraph) -> None:
    """Identity, Dropout at inference: another name for the same tensor."""
    g.store(0, g.x(0))
    if g.wants(1):
        g.store(1, Value(g.x(0).shape, "bool", fixed=False))


def stored_constant(g: OnnxGraph) -> None:
    """Constant: a tensor or numbers in an attribute; not learned."""
    attrs = g.node.attrs
    value = attrs.get("value")
    if isinstance(value, Stored):
        made = constant(value, g.node.outputs[0] if g.node.outputs else "")
        made.learned = False
        g.store(0, made)
        return
    for key, kind, dtype in (("value_int", "i8", "int64"), ("value_ints", "i8", "int64"), ("value_float", "f4", "fp32"),
                             ("value_floats", "f4", "fp32")):  # fmt: skip
        if key in attrs and isinstance(attrs[key], int | float | tuple):
            data = np.array(attrs[key], kind)
            if data.size > 1 << 16:
                g.store(0, Value(data.shape, dtype))
            else:
                g.store(0, Value(data.shape, dtype, data=data))
            return
    raise g.fail("it holds no tensor hwsim reads")


def shape_of(g: OnnxGraph) -> None:
    """Shape: a constant once sizes are known (``fixed`` is False: it follows the symbols)."""
    shape = list(g.x(0).shape)
    rank = len(shape)
    start, end = g.attr_int("start", 0), g.attr_int("end", rank)
    g.store(0, _known(np.array(shape[slice(start, end)], np.int64)))


def size_of(g: OnnxGraph) -> None:
    """Size."""
    g.store(0, _known(np.array(g.x(0).elements, np.int64)))


def _known(data: np.ndarray) -> Value:
    return Value(data.shape, "int64", data=data, fixed=False)


def filled(g: OnnxGraph) -> None:
    """ConstantOfShape, RandomNormal … too large to fold: a computed constant."""
    shape = g.ints(0)
    if shape is None:
        g.store(0, Value(g.data_dependent(), "fp32", fixed=False))
        return
    value = g.node.attrs.get("value")
    g.store(0, Value(tuple(shape), value.dtype if isinstance(value, Stored) else "fp32", fixed=g.x(0).fixed))


def sequence(g: OnnxGraph) -> None:
    """Range that could not be folded."""
    g.store(0, Value(g.data_dependent(), g.x(0).dtype, fixed=False))


def reshape(g: OnnxGraph) -> None:
    """Reshape: 0 keeps a dimension, -1 once takes the rest."""
    x, want = g.x(0), g.ints(1, "shape")
    known = not g.has(1) or g.x(1).fixed
    if want is None:
        g.store(0, g.reshaped(x, g.data_dependent(), fixed=False))
        return
    dims = list(want)
    if not g.attr_int("allowzero", 0):
        if any(d == 0 and i >= len(x.shape) for i, d in enumerate(dims)):
            raise g.fail(f"shape {dims} keeps a dimension the input {list(x.shape)} does not have")
        dims = [x.shape[i] if d == 0 else d for i, d in enumerate(dims)]
    if dims.count(-1) > 1 or any(d < -1 for d in dims):
        raise g.fail(f"shape {dims} leaves more than one dimension open")
    if -1 in dims:
        rest = -math.prod(dims)
        if rest < 1 or x.elements % rest:
            raise g.fail(f"cannot reshape {x.elements} elements into {dims}")
        dims[dims.index(-1)] = x.elements // rest
    g.store(0, g.reshaped(x, dims, fixed=known))


def flatten(g: OnnxGraph) -> None:
    """Flatten into a matrix."""
    x = g.x(0)
    axis = g.attr_int("axis", 1)
    axis = axis if axis == len(x.shape) else g.axis(axis, len(x.shape))
    g.store(0, g.reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))))


def squeeze(g: OnnxGraph) -> None:
    """Squeeze: drop dimensions of extent 1."""
    x, axes = g.x(0), g.ints(1, "axes")
    if axes is None and g.has(1):
        raise g.fail("its axes must be stored integers")
    drop = {g.axis(a, len(x.shape)) for a in axes} if axes else {i for i, d in enumerate(x.shape) if d == 1}
    if any(x.shape[i] != 1 for i in drop):
        raise g.fail(f"cannot squeeze axes {sorted(drop)} of {list(x.shape)}: extent is not 1")
    g.store(0, g.reshaped(x, [d for i, d in enumerate(x.shape) if i not in drop]))


def unsqueeze(g: OnnxGraph) -> None:
    """Unsqueeze: insert dimensions of extent 1."""
    x, axes = g.x(0), g.ints(1, "axes")
    if axes is None:
        raise g.fail("its axes must be stored integers")
    rank = len(x.shape) + len(axes)
    places = {g.axis(a, rank) for a in axes}
    rest = iter(x.shape)
    if len(places) != len(axes):
        raise g.fail(f"axes {axes} repeat")
    g.store(0, g.reshaped(x, [1 if i in places else next(rest) for i in range(rank)]))


def transpose(g: OnnxGraph) -> None:
    """Transpose; the default reverses."""
    x, perm = g.x(0), g.attr_ints("perm")
    order = list(range(len(x.shape)))[::-1] if perm is None else perm
    if sorted(order) != list(range(len(x.shape))):
        raise g.fail(f"perm {order} is not a permutation of {len(x.shape)} dimensions")
    g.store(0, transposed(g, x, order))


def expand(g: OnnxGraph) -> None:
    """Expand: repeat dimensions of extent 1."""
    x, want = g.x(0), g.ints(1)
    if want is None:
        g.layer("expand", x, out=g.data_dependent(), fixed=False)
        return
    try:
        out = tuple(np.broadcast_shapes(x.shape, tuple(want)))
    except ValueError:
        raise g.fail(f"input {list(x.shape)} does not expand to {want}") from None
    if out == x.shape:
        g.store(0, x)
        return
    rank = len(out)
    g.layer("expand", g.reshaped(x, (*(1,) * (rank - len(x.shape)), *x.shape)), out=out, fixed=g.x(1).fixed)


def triangle(g: OnnxGraph) -> None:
    """Trilu: half a matrix set to zero."""
    g.layer("mul", g.x(0)) if not g.x(0).is_const else g.store(0, as_stored(replace(g.x(0), data=None), g.x(0)))


def data_sized(g: OnnxGraph) -> None:
    """NonZero, Unique, Compress: sizes depend on values, so the file must declare them."""
    active = [v for v in g.given() if not v.is_const]
    found = g.data_dependent()
    dtype = "int64" if g.node.op == "NonZero" else g.x(0).arithmetic_dtype
    if active:
        g.layer("custom", *active, out=found, code=g.node.op, dtype=dtype)
    else:
        g.store(0, Value(found, dtype, fixed=False))


SHAPE: dict[str, Handler] = {
    "Identity": same, "Dropout": same, "Constant": stored_constant, "Shape": shape_of, "Size": size_of,
    "ConstantOfShape": filled, "Range": sequence, "Reshape": reshape, "Flatten": flatten, "Squeeze": squeeze,
    "Unsqueeze": unsqueeze, "Transpose": transpose, "Expand": expand, "Trilu": triangle, "NonZero": data_sized,
    "Unique": data_sized, "Compress": data_sized,
}  # fmt: skip
