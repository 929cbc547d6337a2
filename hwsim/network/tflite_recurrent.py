"""TFLite's recurrent operators: operand positions of the kernels, one handler each.

Their "fused activation" is the cell's own non-linearity, so it is not applied to the output once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwsim.errors import HwsimError
from hwsim.network.importing import Value
from hwsim.network.tflite_graph import TfGraph


def _lstm_attrs(g: TfGraph, x: Value, base: int) -> dict[str, Any]:
    """Attributes of the LSTM whose input weights start at operand ``base``.

    From ``base``: 4 input weights, 4 recurrent weights, 3 peepholes, 4 biases, projection and its bias (gates in the
    order input, forget, cell, output).
    """
    weight, recurrent = g.x(base + 1), g.x(base + 5)
    if len(weight.shape) != 2 or len(recurrent.shape) != 2 or weight.shape[1] != x.shape[-1]:
        raise HwsimError(f"{g.op.where}: weights {weight.shape} do not fit input {x.shape}")
    if not g.has(base):
        raise HwsimError(f"{g.op.where}: an LSTM whose input gate is coupled to its forget gate is not supported")
    if "LSTM" in g.op.code and base == 1 and any(g.has(i) for i in range(20, 24)) and g.op.code[0] == "U":
        raise HwsimError(f"{g.op.where}: an LSTM with layer normalisation inside is not supported")
    hidden = weight.shape[0]
    project = g.has(base + 15)
    state = g.x(base + 15).shape[0] if project else hidden
    if recurrent.shape != (hidden, state):
        raise HwsimError(f"{g.op.where}: recurrent weights {recurrent.shape} do not fit {hidden} cells")
    return {
        "h": hidden, "bias": g.has(base + 12), "proj": state if project else None, "peephole": g.has(base + 9),
        "seq_first": bool(g.opt("TimeMajor")),
    }  # fmt: skip


def lstm(g: TfGraph) -> None:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: input, then the operands of one cell; states are kept by the operator."""
    x = g.x(0)
    g.layer("lstm", x, weight=2, **_lstm_attrs(g, x, 1))


def lstm_step(g: TfGraph) -> None:
    """LSTM, the full kernel: one step of a cell on batch x features."""
    x = g.x(0)
    if len(x.shape) != 2 or len(g.op.inputs) < 18:
        raise HwsimError(f"{g.op.where}: only the full kernel on batch x features is supported")
    attrs = _lstm_attrs(g, x, 1)
    one = g.reshaped(x, (x.shape[0], 1, x.shape[1]))
    out = g.tensor(0, output=True)
    made = g.emit.layer(
        "lstm", one, out=(x.shape[0], 1, attrs["proj"] or attrs["h"]), name=out.name, dtype=out.dtype,
        weight_dtype=g.tensor(2).dtype, qparams=g.quant(out, (x,), g.tensor(2)), **attrs,
    )  # fmt: skip
    g.store(0, g.reshaped(made, g.shape(out)))


def lstm_both(g: TfGraph) -> None:
    """BIDIRECTIONAL_SEQUENCE_LSTM with merged outputs: 17 operands forward, 17 backward."""
    x = g.x(0)
    forward, backward = _lstm_attrs(g, x, 1), _lstm_attrs(g, x, 18)
    if forward != backward or not g.opt("MergeOutputs"):
        raise HwsimError(f"{g.op.where}: directions of different size or separate outputs are not supported")
    g.layer("lstm", x, weight=2, bi=True, **forward)


def rnn(g: TfGraph) -> None:
    """UNIDIRECTIONAL_SEQUENCE_RNN: input, weights, recurrent weights, bias, state."""
    g.layer("rnn", g.x(0), weight=1, h=g.x(1).shape[0], bias=g.has(3), seq_first=bool(g.opt("TimeMajor")))


RECURRENT: dict[str, Callable[[TfGraph], object]] = {
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm,
    "LSTM": lstm_step,
    "BIDIRECTIONAL_SEQUENCE_LSTM": lstm_both,
    "UNIDIRECTIONAL_SEQUENCE_RNN": rnn,
}
