"""LSTM, GRU and plain recurrent cells over time, weights in ONNX order (iofc, zrh)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwsim.execution.functions import UNARY
from hwsim.execution.products import Arithmetic, product

Array = npt.NDArray[Any]
SIGMOID, TANH = UNARY["sigmoid"], UNARY["tanh"]


def lstm(
    x: Array, w: Array, r: Array, bias: Array, h: Array, c: Array, arithmetic: Arithmetic, peephole: Array | None = None,
    project: Array | None = None, activations: Sequence[Callable[[Array], Array]] = (),
) -> tuple[Array, Array, Array]:  # fmt: skip
    """One direction: x (time, batch, features), w (4h, features), r (4h, state); (every step's state, last state, last cell).

    Gates i, o, f, c (ONNX LSTM); ``bias`` is the sum of both; ``peephole`` (3h) for i, o, f; ``project`` (state, h).
    """
    f, g, last = activations or (SIGMOID, TANH, TANH)
    fed = product(x.reshape(-1, x.shape[-1]), w.T, arithmetic).reshape(*x.shape[:2], -1) + bias
    steps = np.empty((*x.shape[:2], h.shape[-1]), fed.dtype)
    for t in range(len(x)):
        gates = fed[t] + product(h, r.T, arithmetic)
        i, o, forget, cell = np.split(gates, 4, axis=-1)
        if peephole is not None:
            pi, _, pf = np.split(peephole, 3)
            i, forget = i + pi * c, forget + pf * c
        c = f(forget) * c + f(i) * g(cell)
        if peephole is not None:
            o = o + np.split(peephole, 3)[1] * c
        h = f(o) * last(c)
        if project is not None:
            h = product(h, project.T, arithmetic)
        h = arithmetic.cast(h)
        steps[t] = h
    return steps, h, c


def gru(
    x: Array, w: Array, r: Array, bias: Array, bias_hidden: Array, h: Array, arithmetic: Arithmetic, after: bool = False,
    activations: Sequence[Callable[[Array], Array]] = (),
) -> tuple[Array, Array]:  # fmt: skip
    """One direction, gates z, r, h (ONNX GRU); ``after`` applies the reset gate after the product (linear_before_reset)."""
    f, g = activations or (SIGMOID, TANH)
    n = h.shape[-1]
    fed = product(x.reshape(-1, x.shape[-1]), w.T, arithmetic).reshape(*x.shape[:2], -1) + bias
    steps = np.empty((*x.shape[:2], n), fed.dtype)
    for t in range(len(x)):
        side = product(h, r[: 2 * n].T, arithmetic) + bias_hidden[: 2 * n]
        z, reset = f(fed[t][:, :n] + side[:, :n]), f(fed[t][:, n : 2 * n] + side[:, n:])
        if after:
            new = reset * (product(h, r[2 * n :].T, arithmetic) + bias_hidden[2 * n :])
        else:
            new = product(reset * h, r[2 * n :].T, arithmetic) + bias_hidden[2 * n :]
        made = g(fed[t][:, 2 * n :] + new)
        h = arithmetic.cast((1 - z) * made + z * h)
        steps[t] = h
    return steps, h


def rnn(
    x: Array, w: Array, r: Array, bias: Array, h: Array, arithmetic: Arithmetic,
    activations: Sequence[Callable[[Array], Array]] = (),
) -> tuple[Array, Array]:  # fmt: skip
    """One direction of a plain cell: h = tanh(x w + h r + bias)."""
    (f,) = activations or (TANH,)
    fed = product(x.reshape(-1, x.shape[-1]), w.T, arithmetic).reshape(*x.shape[:2], -1) + bias
    steps = np.empty((*x.shape[:2], h.shape[-1]), fed.dtype)
    for t in range(len(x)):
        h = arithmetic.cast(f(fed[t] + product(h, r.T, arithmetic)))
        steps[t] = h
    return steps, h
