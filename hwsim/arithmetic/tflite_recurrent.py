"""Integer LSTM (8-bit activations, 16-bit cell) and SVDF: state kept in variable tensors between runs."""

from __future__ import annotations

import numpy as np

from hwsim.arithmetic.tflite_call import Call
from hwsim.arithmetic.tflite_fixed import Array, multiply_d, quantize_multiplier, rounding_shift
from hwsim.arithmetic.tflite_gemm import exact_matmul
from hwsim.arithmetic.tflite_gemmlowp import logistic_table, sigmoid_int16, tanh_int16, tanh_table
from hwsim.arithmetic.tflite_model import Tensor

# Operand positions of UNIDIRECTIONAL_SEQUENCE_LSTM: gates in the order input, forget, cell, output.
WEIGHTS, RECURRENT, PEEPHOLES, BIASES, PROJECTION, OUTPUT_STATE, CELL_STATE, NORMS = 1, 5, 9, 12, 16, 18, 19, 20
INT16 = (-(2**15), 2**15 - 1)


def variable(call: Call, position: int, shape: tuple[int, ...]) -> Array:
    """The stored state of a variable operand; at first zero, int8 states at their zero point."""
    meta = call.meta(position)
    found = call.state.get(meta.index)
    if found is None or found.size != int(np.prod(shape)):
        if tuple(meta.shape) != shape and int(np.prod(meta.shape)) != int(np.prod(shape)):
            raise call.fail(f"{meta.where} of shape {meta.shape} cannot hold a state of {shape}")
        found = np.full(shape, meta.zero if meta.dtype == np.int8 else 0, dtype=meta.dtype)
    return found.reshape(shape)


def _look_up(table: Array, x: Array) -> Array:
    return np.asarray(table[x + 2**15].astype(np.int64))


class _Gate:
    """One gate's weights with the constant parts of its two products."""

    def __init__(self, call: Call, gate: int, input_zero: int, state_zero: int) -> None:
        wx, wh = call.meta(WEIGHTS + gate), call.meta(RECURRENT + gate)
        if wx.dtype != np.int8 or wh.dtype != np.int8 or call.x(WEIGHTS + gate).ndim != 2:
            raise call.refuse_types("int8 with an int16 cell")
        self.wx, self.wh = call.x(WEIGHTS + gate).astype(np.int64), call.x(RECURRENT + gate).astype(np.int64)
        unit = np.float32(2.0**-12)  # gates are Q3.12 before their activation
        state = call.meta(OUTPUT_STATE)
        self.qx = quantize_multiplier(float(np.float32(wx.scale * call.meta(0).scale) / unit))
        self.qh = quantize_multiplier(float(np.float32(wh.scale * state.scale) / unit))
        bias = call.x(BIASES + gate).astype(np.int64) if call.has(BIASES + gate) else np.zeros(len(self.wx), np.int64)
        if self.wx.shape[0] != self.wh.shape[0] or bias.shape != (self.wx.shape[0],):
            raise call.fail(f"weights {self.wx.shape}, {self.wh.shape} and bias {bias.shape} do not fit together")
        self.bx = bias - input_zero * self.wx.sum(axis=1)
        self.bh = -state_zero * self.wh.sum(axis=1)

    def inputs(self, x: Array) -> Array:
        """The input's share for all steps at once, saturated to int16."""
        acc = exact_matmul(x, self.wx.T) + self.bx
        return np.clip(multiply_d(acc, *self.qx), *INT16)

    def step(self, x_part: Array, h: Array, separate: bool = False) -> Array:
        """Before the activation: input share plus recurrent share, saturated at the sum.

        ``separate`` saturates the recurrent share before the sum too, as TFLM does.
        """
        acc = multiply_d(exact_matmul(h, self.wh.T) + self.bh, *self.qh)
        if separate:
            acc = np.clip(acc, *INT16)
        gate = np.clip(acc + x_part, *INT16)
        return np.asarray(gate)


def _power(call: Call, meta: Tensor) -> int:
    exponent = float(np.log2(meta.scale))
    if abs(exponent - round(exponent)) >= 1e-3 or not -15 <= round(exponent) <= -9:
        raise call.fail(f"{meta.where}: the cell state's scale must be a power of two between 2**-15 and 2**-9")
    return round(exponent)


def lstm(call: Call) -> Array:
    """UNIDIRECTIONAL_SEQUENCE_LSTM on int8 sequences with an int16 cell."""
    x = call.x(0)
    if x.dtype != np.int8 or call.meta(CELL_STATE).dtype != np.int16 or x.ndim not in (2, 3):
        raise call.refuse_types("int8 with an int16 cell")
    if any(call.has(NORMS + i) for i in range(4)):
        raise call.fail("an LSTM with layer normalisation inside is not supported")
    if not call.has(WEIGHTS):
        raise call.fail("an LSTM whose input gate is coupled to its forget gate is not supported")
    table = call.semantics.recurrent == "table"
    if any(call.has(i) for i in (PEEPHOLES, PEEPHOLES + 1, PEEPHOLES + 2, PROJECTION, PROJECTION + 1)):
        raise call.fail("an integer LSTM with peepholes or a projection is not supported")
    major = bool(call.option("TimeMajor"))
    sequence = x[None] if x.ndim == 2 else x if major else x.transpose(1, 0, 2)  # (time, batch, features)
    steps, batch, _ = sequence.shape
    cells = call.x(WEIGHTS + 3).shape[0]
    shape = call.claim((steps, batch, cells), steps * batch * 4 * cells * (sequence.shape[2] + cells))
    if call.x(WEIGHTS).shape[1:] != (sequence.shape[2],) or call.x(RECURRENT).shape != (cells, cells):
        raise call.fail(f"weights {call.x(WEIGHTS).shape} and {call.x(RECURRENT).shape} do not fit input {x.shape}")
    state, cell_meta = call.meta(OUTPUT_STATE), call.meta(CELL_STATE)
    gates = [_Gate(call, g, call.meta(0).zero, state.zero) for g in range(4)]
    flat = sequence.reshape(steps * batch, -1).astype(np.int64)
    parts = [g.inputs(flat).reshape(steps, batch, -1) for g in gates]
    power = _power(call, cell_meta)
    out_pair, out_zero = _output_scale(call, table)
    h = variable(call, OUTPUT_STATE, (batch, cells)).astype(np.int64)
    c = variable(call, CELL_STATE, (batch, cells)).astype(np.int64)
    clip = _clip(call.option("CellClip", 0.0), float(cell_meta.scale), 2**15)
    sigmoid, squash, squash_cell = _activations(power, table)
    scale_f, scale_i = _products(power)
    made = np.empty(shape, dtype=np.int8)
    for t in range(steps):
        admit = _look_up(sigmoid, gates[0].step(parts[0][t], h, table))
        forget = _look_up(sigmoid, gates[1].step(parts[1][t], h, table))
        fresh = _look_up(squash, gates[2].step(parts[2][t], h, table))
        if table:  # TFLM multiplies by rule D, whose first rounding differs from one plain shift
            kept = np.clip(multiply_d(forget * c, *scale_f), *INT16)
            added = np.clip(multiply_d(admit * fresh, *scale_i), *INT16)
        else:
            kept, added = rounding_shift(forget * c, 15), rounding_shift(admit * fresh, 30 + power)
        c = np.clip(kept + added, *INT16)
        if clip:
            c = np.clip(c, -clip, clip)
        expose = _look_up(sigmoid, gates[3].step(parts[3][t], h, table))
        h = np.clip(multiply_d(expose * _look_up(squash_cell, c), *out_pair) + out_zero, -128, 127)
        made[t] = h
    call.state[state.index], call.state[cell_meta.index] = h.astype(np.int8), c.astype(np.int16)
    return made[0] if x.ndim == 2 else made if major else np.ascontiguousarray(made.transpose(1, 0, 2))


def _activations(power: int, table: bool) -> tuple[Array, Array, Array]:
    """Tables over all int16: gate sigmoid, gate tanh, tanh of the cell with scale ``2**power``."""
    if not table:
        return logistic_table(), tanh_table(3), tanh_table(15 + power)
    x = np.arange(-(2**15), 2**15, dtype=np.int64)
    shift = 12 + power
    cell = tanh_int16(x, 3, -shift) if shift < 0 else tanh_int16(x, 0, shift)
    return sigmoid_int16(x), tanh_int16(x), cell


def _products(power: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Multipliers of TFLM's two products into the cell state."""
    return quantize_multiplier(2.0**-15), quantize_multiplier(2.0 ** (-30 - power))


def _clip(limit: float, scale: float, most: int) -> int:
    return int(min(max(float(np.float32(limit) / np.float32(scale)), -most), most - 1)) if limit > 0 else 0


def _output_scale(call: Call, table: bool) -> tuple[tuple[int, int], int]:
    """Multiplier and zero point from the Q0.30 product of output gate and cell to the output state."""
    state = call.meta(OUTPUT_STATE)
    if table:
        return quantize_multiplier(2.0**-30 / float(state.scale)), state.zero
    hidden_tensors = call.model.intermediates.get(call.op.index, ())
    if len(hidden_tensors) < 5:
        raise call.fail("an integer LSTM needs the scale of its hidden state (its fifth intermediate tensor)")
    hidden = call.model.tensors[hidden_tensors[4]]
    return quantize_multiplier(float(np.float32(2.0**-15 / float(hidden.scale) * 2.0**-15))), hidden.zero


def svdf(call: Call) -> Array:
    """SVDF on int8 inputs: feature filters into a shift register, time filters, rank sums; state int16 or int8."""
    x, feature, time, out = call.x(0), call.x(1), call.x(2), call.out()
    if (
        x.ndim != 2
        or feature.ndim != 2
        or time.ndim != 2
        or feature.shape[1] != x.shape[1]
        or len(time) != len(feature)
    ):
        raise call.fail(f"filters {feature.shape} and {time.shape} do not fit input {x.shape}")
    state_meta = call.meta(4)
    kinds = (x.dtype.name, feature.dtype.name, time.dtype.name, state_meta.dtype.name, out.dtype.name)
    if kinds not in (("int8", "int8", "int16", "int16", "int8"), ("int8", "int8", "int8", "int8", "int8")):
        raise call.refuse_types("int8 with int16 or int8 state and time weights")
    if kinds[3] == "int8" and call.semantics.name != "tflm":
        raise call.fail("an SVDF with int8 state runs under tflm only")
    rank, (filters, memory), batch = int(call.option("Rank")), time.shape, x.shape[0]
    if rank < 1 or filters % rank:
        raise call.fail(f"rank {rank} does not divide {filters} filters")
    units = filters // rank
    shape = call.claim((batch, units), batch * filters * (x.shape[1] + memory))
    one = quantize_multiplier(_ratio(call, call.meta(0), call.meta(1), state_meta))
    two = quantize_multiplier(_ratio(call, state_meta, call.meta(2), out))
    state = variable(call, 4, (batch, filters, memory)).astype(np.int64)
    state = np.concatenate([state[:, :, 1:], np.zeros((batch, filters, 1), dtype=np.int64)], axis=2)
    limits = np.iinfo(state_meta.dtype)
    dots = exact_matmul(x.astype(np.int64) - call.meta(0).zero, feature.T.astype(np.int64))
    shift_in = state_meta.zero if kinds[3] == "int8" else 0
    # The zero point is added after saturation, in the state's own type: the sum may wrap.
    state[:, :, -1] = (np.clip(multiply_d(dots, *one), limits.min, limits.max) + shift_in).astype(state_meta.dtype)
    acc = ((state - shift_in) * time.astype(np.int64)[None]).sum(axis=2).reshape(batch, units, rank).sum(axis=2)
    if call.has(3):
        acc = acc + call.x(3).astype(np.int64)
    call.state[state_meta.index] = state.astype(state_meta.dtype)
    bounds = np.iinfo(out.dtype)
    return np.asarray(
        np.clip(multiply_d(acc, *two) + out.zero, bounds.min, bounds.max).astype(out.dtype).reshape(shape)
    )


def _ratio(call: Call, a: Tensor, b: Tensor, c: Tensor) -> float:
    product = np.float32(a.scale) * np.float32(b.scale)
    return float(product / np.float32(c.scale))
