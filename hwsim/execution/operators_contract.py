"""Operators with matrix products run with values: convolution, linear, matmul, attention, recurrent cells, look-ups.

Each function takes a `Step` (the layer, its operands and weights, the arithmetic of its products) and returns the result
before fused activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.errors import HwsimError
from hwsim.execution import cells, functions
from hwsim.execution.products import Arithmetic, convolve, product, transposed
from hwsim.network.graph import Layer
from hwsim.network.opdefs import ConvGeometry
from hwsim.network.ops_contract import integer, ints, pads

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One layer being run: the arithmetic of its products, its operands and its weights."""

    layer: Layer
    shape: tuple[int, ...]
    xs: tuple[Array, ...]
    weights: Mapping[str, Array]
    arithmetic: Arithmetic
    past: Callable[[str, tuple[int, ...]], Array]

    @property
    def x(self) -> Array:
        return self.xs[0]

    def weight(self, name: str) -> Array:
        """The weight called ``name``; raises HwsimError when it was not given."""
        found = self.weights.get(name)
        if found is None:
            raise HwsimError(f"weight {name!r} is missing (given: {', '.join(self.weights) or 'none'})")
        return found if found.dtype.kind != "f" else found.astype(self.arithmetic.dtype, copy=False)

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        return integer(self.layer.attrs, key, default)

    def real(self, key: str, default: float) -> float:
        """A real attribute."""
        value = self.layer.attrs.get(key, default)
        if isinstance(value, tuple):
            raise HwsimError(f"attribute {key} is a list, one number is needed")
        return float(value)

    def flag(self, key: str) -> bool:
        """A flag."""
        return bool(self.layer.attrs.get(key))


Handler = Callable[[Step], Array]


def channels_first(s: Step, x: Array) -> Array:
    """Channels first, whatever the layer's layout."""
    return np.moveaxis(x, -1, 1) if s.flag("nhwc") else x


def as_stated(s: Step, x: Array) -> Array:
    return np.moveaxis(x, 1, -1) if s.flag("nhwc") else x


# -- contractions ---------------------------------------------------------------------------------------------------


def conv_geometry(s: Step, x: Array, out: Array | tuple[int, ...], transposed_: bool) -> ConvGeometry:
    """Geometry of a convolution layer on channels-first ``x``; ``out`` is the channels-first result shape."""
    attrs, rank, groups = s.layer.attrs, x.ndim - 2, s.integer("g", 1)
    shape = tuple(out) if isinstance(out, tuple) else out.shape
    return ConvGeometry(
        ints(attrs, "k", rank, 1), ints(attrs, "s", rank, 1), ints(attrs, "d", rank, 1), pads(attrs, rank),
        x.shape[2:], shape[2:], x.shape[1] // groups, shape[1] // groups, x.shape[0], transposed_,
    )  # fmt: skip


def conv(s: Step) -> Array:
    x = channels_first(s, s.x)
    out = (s.shape[0], s.shape[-1], *s.shape[1:-1]) if s.flag("nhwc") else s.shape
    groups, weight = s.integer("g", 1), s.weight("weight")
    if s.layer.op == "conv_transpose":
        geometry = conv_geometry(s, x, out, True)
        # the trace keeps (features, c / groups, kernel): bring it to (c, features / groups, kernel)
        per = weight.reshape(groups, geometry.out_channels, geometry.in_channels, *geometry.kernel)
        made = transposed(
            x, np.swapaxes(per, 1, 2).reshape(x.shape[1], -1, *geometry.kernel), geometry, groups, s.arithmetic
        )
    else:
        made = convolve(x, weight, conv_geometry(s, x, out, False), groups, s.arithmetic)
    if s.flag("bias"):
        made = made + s.weight("bias").reshape(-1, *[1] * (x.ndim - 2))
    return as_stated(s, made)


def linear(s: Step) -> Array:
    made = product(s.x, s.weight("weight").T, s.arithmetic) if s.x.ndim > 1 else _vector(s)
    return made + s.weight("bias") if s.flag("bias") else made


def _vector(s: Step) -> Array:
    return np.asarray(product(s.x[None], s.weight("weight").T, s.arithmetic)[0])


def expert_linear(s: Step) -> Array:
    weight = s.weight("weight")
    rows = s.x.reshape(-1, s.x.shape[-1])
    out = np.empty((len(rows), weight.shape[1]), s.arithmetic.dtype)
    touched = min(len(weight), max(1, len(rows)))
    for e in range(touched):  # rows are spread evenly, as the cost model assumes: a trace has no router decisions
        out[e::touched] = product(rows[e::touched], weight[e].T, s.arithmetic)
    return out.reshape(s.shape)


def matmul(s: Step) -> Array:
    b = np.swapaxes(s.xs[1], -1, -2) if s.flag("bt") else s.xs[1]
    return product(s.x, b, s.arithmetic)


def attention(s: Step) -> Array:
    q, k, v = s.xs[:3]
    past = s.integer("cache", 0)
    if past:
        k = np.concatenate([s.past("key", (*k.shape[:-2], past, k.shape[-1])).astype(k.dtype), k], axis=-2)
        v = np.concatenate([s.past("value", (*v.shape[:-2], past, v.shape[-1])).astype(v.dtype), v], axis=-2)
    repeat = q.shape[-3] // k.shape[-3]
    if repeat > 1:
        k, v = np.repeat(k, repeat, axis=-3), np.repeat(v, repeat, axis=-3)
    scores = product(q, np.swapaxes(k, -1, -2), s.arithmetic)
    scores = scores * scores.dtype.type(s.real("scale", 1 / math.sqrt(q.shape[-1])))
    new, length = q.shape[-2], k.shape[-2]
    at, seen = np.arange(new)[:, None] + length - new, np.arange(length)[None]
    hidden = (seen > at) if s.flag("causal") else np.zeros((new, length), bool)
    window = s.integer("window", 0)
    if window:
        hidden |= seen <= at - window
    if len(s.xs) > 3 and s.xs[3].dtype == bool:
        hidden = hidden | ~s.xs[3]
    elif len(s.xs) > 3:
        scores = scores + s.xs[3]
    scores = np.where(hidden, scores.dtype.type(-np.inf), scores)
    return product(s.arithmetic.cast(functions.softmax(scores)), v, s.arithmetic)


def recurrent(s: Step) -> Array:
    op, h = s.layer.op, s.integer("h", 1)
    x = s.x if s.flag("seq_first") else np.swapaxes(s.x, 0, 1)
    state = s.integer("proj", 0) or h
    parts, lasts = [], []
    for side in ("", "_reverse") if s.flag("bi") else ("",):
        fed = x[::-1] if side else x
        w, r = s.weight(f"w_input{side}"), s.weight(f"w_hidden{side}")
        none = np.zeros(len(w), fed.dtype)
        bias = s.weight(f"bias{side}") if s.flag("bias") else none
        other = s.weight(f"bias_hidden{side}") if s.flag("bias2") else none
        start = np.zeros((x.shape[1], state), fed.dtype)
        if op == "lstm":
            cell = np.zeros((x.shape[1], h), fed.dtype)
            peephole = s.weight(f"w_peephole{side}") if s.flag("peephole") else None
            project = s.weight(f"w_proj{side}") if s.integer("proj", 0) else None
            steps, last, _ = cells.lstm(fed, w, r, bias + other, start, cell, s.arithmetic, peephole, project)
        elif op == "gru":
            steps, last = cells.gru(fed, w, r, bias, other, start, s.arithmetic, after=True)
        else:
            steps, last = cells.rnn(fed, w, r, bias + other, start, s.arithmetic)
        parts.append(steps[::-1] if side else steps)
        lasts.append(last)
    if s.flag("last"):
        return np.concatenate(lasts, axis=-1)
    made = np.concatenate(parts, axis=-1)
    return made if s.flag("seq_first") else np.swapaxes(made, 0, 1)


def embedding(s: Step) -> Array:
    table, ids = s.weight("table"), s.x
    if ids.dtype.kind not in "iub":
        raise HwsimError(f"indices must be integers, not {ids.dtype}")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= len(table)):
        raise HwsimError(f"index {int(ids.max())} is outside a table of {len(table)} rows")
    rows = table[ids]
    return np.asarray(rows.sum(axis=-2)) if s.flag("bag") else np.asarray(rows)
