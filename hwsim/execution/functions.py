"""Element-wise functions and row-wise reductions, one definition for traces and files; computed in the operands' dtype."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Unary = Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    # exp of a non-positive number never overflows
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small), x.dtype)


def erf(x: Array) -> Array:
    """The error function in the operand's dtype."""
    from scipy.special import erf as scipy_erf

    return np.asarray(scipy_erf(x), x.dtype)


def _gelu(x: Array) -> Array:
    return np.asarray(x * (erf(x / np.sqrt(x.dtype.type(2))) + 1) * x.dtype.type(0.5))


def _gelu_tanh(x: Array) -> Array:
    t = x.dtype.type
    return np.asarray(t(0.5) * x * (1 + np.tanh(t(np.sqrt(2 / np.pi)) * (x + t(0.044715) * x * x * x))))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), x.dtype)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x above zero, alpha (exp(x) - 1) below."""
    return np.where(x > 0, x, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)))


def selu(x: Array, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Array:
    """Scaled elu (Klambauer 2017)."""
    return np.asarray(x.dtype.type(gamma) * elu(x, alpha))


def leaky_relu(x: Array, alpha: float = 0.01) -> Array:
    """x above zero, alpha x below."""
    return np.where(x < 0, x.dtype.type(alpha) * x, x)


def hsigmoid(x: Array, alpha: float = 1 / 6, beta: float = 0.5) -> Array:
    """max(0, min(1, alpha x + beta))."""
    t = x.dtype.type
    return np.asarray(np.clip(t(alpha) * x + t(beta), 0, 1), x.dtype)


def _round_half_even(x: Array) -> Array:
    return np.rint(x)


UNARY: Mapping[str, Unary] = {
    "relu": lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "relu_n1_to_1": lambda x: np.clip(x, -1, 1),
    "elu": elu, "selu": selu, "sigmoid": _sigmoid, "hsigmoid": hsigmoid,
    "silu": lambda x: x * _sigmoid(x), "swish": lambda x: x * _sigmoid(x), "hswish": lambda x: x * hsigmoid(x),
    "tanh": np.tanh, "tanh_half": lambda x: np.tanh(x * x.dtype.type(0.5)), "gelu": _gelu, "gelu_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _sigmoid(x.dtype.type(1.702) * x), "mish": lambda x: x * np.tanh(softplus(x)),
    "softplus": softplus, "softsign": lambda x: x / (1 + np.abs(x)), "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x, "erf": erf, "sin": np.sin, "cos": np.cos,
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "square": np.square, "floor": np.floor, "ceil": np.ceil,
    "round": _round_half_even, "not": np.logical_not, "is_nan": np.isnan,
}  # fmt: skip
BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "pow": np.power, "maximum": np.maximum,
    "minimum": np.minimum, "squared_difference": lambda a, b: np.square(a - b), "equal": np.equal,
    "not_equal": np.not_equal, "greater": np.greater, "greater_equal": np.greater_equal, "less": np.less,
    "less_equal": np.less_equal, "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "mod": np.mod,
    "floor_div": np.floor_divide, "atan2": np.arctan2,
}  # fmt: skip


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x - max) over its sum; rows whose maximum is -infinity become NaN, as everywhere."""
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(shifted / np.sum(shifted, axis=axis, keepdims=True))


def log_softmax(x: Array, axis: int = -1) -> Array:
    """x - max - log(sum of exp)."""
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)))


def normalise(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps) over ``axes``."""
    mean = np.mean(x, axis=axes, keepdims=True, dtype=x.dtype)
    centred = x - mean
    variance = np.mean(np.square(centred), axis=axes, keepdims=True, dtype=x.dtype)
    return np.asarray(centred / np.sqrt(variance + x.dtype.type(eps)))


def rms(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    """x / sqrt(mean of squares + eps) over ``axes``."""
    return np.asarray(x / np.sqrt(np.mean(np.square(x), axis=axes, keepdims=True, dtype=x.dtype) + x.dtype.type(eps)))


def lrn(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """Local response normalisation across channels (axis 1): x / (bias + alpha / size · Σ x²) ** beta."""
    before = (size - 1) // 2
    squares = np.square(x)
    total = np.zeros_like(x)
    for offset in range(-before, size - before):
        lo, hi = max(0, -offset), min(x.shape[1], x.shape[1] - offset)
        if lo < hi:
            total[:, lo:hi] += squares[:, lo + offset : hi + offset]
    t = x.dtype.type
    return np.asarray(x / np.power(t(bias) + t(alpha / size) * total, t(beta)))
