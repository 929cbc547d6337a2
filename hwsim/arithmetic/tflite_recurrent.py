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

    def __init__(self, call: Call, gate: int, input_zero: int, state_zero: int, peephole: bool) -> None:
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
        self.peephole: Array | None = None
        if peephole:
            position = PEEPHOLES + (2 if gate == 3 else gate)
            self.peephole = call.x(position).astype(np.int64).reshape(-1)
            cell = 2.0 ** _power(call, call.meta(CELL_STATE))
            self.qc = quantize_multiplier(float(np.float32(cell * call.meta(position).scale / unit)))

    def inputs(self, x: Array) -> Array:
        """The input's share for all steps at once, saturated to int16."""
        acc = exact_matmul(x, self.wx.T) + self.bx
        return np.clip(multiply_d(acc, *self.qx), *INT16)

    def step(self, x_part: Array, h: Array, c: Array, separate: bool = False) -> Array:
        """Before the activation: input share plus recurrent share (plus peephole), saturated at every sum.

        ``separate`` saturates the recurrent share before the sum too, as TFLM does.
        """
        acc = multiply_d(exact_matmul(h, self.wh.T) + self.bh, *self.qh)
        if separate:
            acc = np.clip(acc, *INT16)
        gate = np.clip(acc + x_part, *INT16)
        if self.peephole is not None:
            gate = np.clip(gate + multiply_d(c * self.peephole, *self.qc), *INT16)
        return np.asarray(gate)


def _power(call: Call, meta: Tensor) -> int:
    exponent = float(np.log2(meta.scale))
    if abs(exponent - round(exponent)) >= 1e-3 or not -15 <= round(exponent) <= -9:
        raise call.fail(f"{meta.where}: the cell state's scale must be a power of two between 2**-15 and 2**-9")
    return round(exponent)


def lstm(call: Call) -> Array:
    """UNIDIRECTIONAL_SEQUENCE_LSTM on int8 sequences with an int16 cell, with peepholes, projection and clipping."""
    x = call.x(0)
    if x.dtype != np.int8 or call.meta(CELL_STATE).dtype != np.int16 or x.ndim not in (2, 3):
        raise call.refuse_types("int8 with an int16 cell")
    if any(call.has(NORMS + i) for i in range(4)):
        raise call.fail("an LSTM with layer normalisation inside is not supported")
    if not call.has(WEIGHTS):
        raise call.fail("an LSTM whose input gate is coupled to its forget gate is not supported")
    table = call.semantics.recurrent == "table"
    if table and (call.has(PEEPHOLES + 2) or call.has(PROJECTION)):
        raise call.fail(f"{call.semantics.name} has no LSTM with peepholes or a projection")
    major = bool(call.option("TimeMajor"))
    sequence = x[None] if x.ndim == 2 else x if major else x.transpose(1, 0, 2)  # (time, batch, features)
    steps, batch, _ = sequence.shape
    cells = call.x(WEIGHTS + 3).shape[0]
    projected = call.has(PROJECTION)
    units = call.x(PROJECTION).shape[0] if projected else cells
    shape = call.claim((steps, batch, units), steps * batch * 4 * cells * (sequence.shape[2] + units))
    if call.x(WEIGHTS).shape[1:] != (sequence.shape[2],) or call.x(RECURRENT).shape != (cells, units):
        raise call.fail(f"weights {call.x(WEIGHTS).shape} and {call.x(RECURRENT).shape} do not fit input {x.shape}")
    state, cell_meta = call.meta(OUTPUT_STATE), call.meta(CELL_STATE)
    peephole = call.has(PEEPHOLES + 2)
    zero = call.meta(0).zero
    gates = [_Gate(call, g, zero, state.zero, peephole and g != 2) for g in range(4)]
    flat = sequence.reshape(steps * batch, -1).astype(np.int64)
    parts = [g.inputs(flat).reshape(steps, batch, -1) for g in gates]
    power = _power(call, cell_meta)
    output = _Output(call, projected)
    h = variable(call, OUTPUT_STATE, (batch, units)).astype(np.int64)
    c = variable(call, CELL_STATE, (batch, cells)).astype(np.int64)
    clip = _clip(call.option("CellClip", 0.0), float(cell_meta.scale), 2**15)
    sigmoid, squash, squash_cell = _activations(power, table)
    scale_f, scale_i = _products(power)
    made = np.empty(shape, dtype=np.int8)
    for t in range(steps):
        admit = _look_up(sigmoid, gates[0].step(parts[0][t], h, c, table))
        forget = _look_up(sigmoid, gates[1].step(parts[1][t], h, c, table))
        fresh = _look_up(squash, gates[2].step(parts[2][t], h, c, table))
        if table:  # TFLM multiplies by rule D, whose first rounding differs from one plain shift
            kept = np.clip(multiply_d(forget * c, *scale_f), *INT16)
            added = np.clip(multiply_d(admit * fresh, *scale_i), *INT16)
        else:
            kept, added = rounding_shift(forget * c, 15), rounding_shift(admit * fresh, 30 + power)
        c = np.clip(kept + added, *INT16)
        if clip:
            c = np.clip(c, -clip, clip)
        expose = _look_up(sigmoid, gates[3].step(parts[3][t], h, c, table))
        h = output(expose * _look_up(squash_cell, c))
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


class _Output:
    """From the Q0.30 product of output gate and cell to the output state, through the projection if there is one."""

    def __init__(self, call: Call, projected: bool) -> None:
        state = call.meta(OUTPUT_STATE)
        hidden_tensors = call.model.intermediates.get(call.op.index, ())
        hidden = call.model.tensors[hidden_tensors[4]] if len(hidden_tensors) > 4 else state
        self.hidden_zero, self.zero = hidden.zero, state.zero
        if call.semantics.recurrent == "table":
            hidden = state
            self.hidden_zero, scale = state.zero, 2.0**-30 / float(state.scale)
        else:
            scale = float(np.float32(2.0**-15 / float(hidden.scale) * 2.0**-15))
        self.q = quantize_multiplier(scale)
        self.weights: Array | None = None
        if projected:
            meta = call.meta(PROJECTION)
            self.weights = call.x(PROJECTION).astype(np.int64).T
            self.qp = quantize_multiplier(float(np.float32(meta.scale * hidden.scale) / state.scale))
            bias = call.x(PROJECTION + 1).astype(np.int64) if call.has(PROJECTION + 1) else 0
            self.bias = bias - hidden.zero * self.weights.sum(axis=0)
            self.clip = _clip(call.option("ProjClip", 0.0), float(call.out().scale), 2**7)

    def __call__(self, product: Array) -> Array:
        # The projecting kernel subtracts the zero point where the plain one adds it.
        zero = self.hidden_zero if self.weights is None else -self.hidden_zero
        hidden = np.clip(multiply_d(product, *self.q) + zero, -128, 127)
        if self.weights is None:
            return np.asarray(hidden)
        acc = multiply_d(exact_matmul(hidden, self.weights) + self.bias, *self.qp) + self.zero
        out = np.clip(acc, -128, 127)
        return np.asarray(np.clip(out, -self.clip, self.clip) if self.clip else out)


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
