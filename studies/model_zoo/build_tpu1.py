"""The six applications of the TPU v1 paper, reconstructed from what the paper says about them.

Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017: table 1 (layer counts,
weights, operations per weight byte, batch), table 3 (share of unused MACs) and section 7 (LSTM1's 600x600 matrices).
The layer shapes themselves were never published: every shape here is the simplest we found that gives the published
counts, weights and unused share, and is marked as assumed in the header. Weights are int8; the LSTMs' activations are
16-bit where the counters say so. A run is one batch of table 1 (``batch`` in the header); recurrent applications are
one time step, which is what an operational intensity equal to the batch means: every weight is fetched once per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import build_resnet
from build_common import Entry

from hwsim.network.builder import Builder

PAPER = "Jouppi et al. 2017 (ISCA, arXiv:1704.04760) tables 1 and 3; layer shapes assumed: "


def mlp(net: Builder, N: int, *, widths: tuple[int, ...]) -> str:
    x = net.input("x", (N, widths[0]))
    for index, width in enumerate(widths[1:], 1):
        x = net.linear(x, width, bias=False, fused="relu", name=f"fc{index}")
    return x


GATES = {"f": "sigmoid", "i": "sigmoid", "g": "tanh", "o": "sigmoid"}


def _gate(net: Builder, xs: Sequence[str], width: int, act: str, name: str, dtype: str) -> str:
    """act(sum of x W over ``xs``): products accumulate, the last one applies the activation; weights are int8."""
    y = ""
    for index, x in enumerate(xs):
        words = (["add"] if y else []) + ([act] if index == len(xs) - 1 else [])
        y = net.op(
            "linear", x, *([y] if y else []), out=(net.shape(x)[0], width), k=net.shape(x)[1], fused="+".join(words),
            name=f"{name}{index}" if len(xs) > 1 else name, dtype=dtype, weight_dtype="int8",
        )  # fmt: skip
    return y


def _cell(net: Builder, gates: dict[str, str], c: str, dtype: str, out: str) -> tuple[str, str]:
    """Element-wise part of an LSTM cell; returns the new hidden (in format ``out``) and cell states."""
    keep = net.op("mul", gates["f"], c, name="forget_mul", dtype=dtype)
    new = net.op("mul", gates["i"], gates["g"], name="input_mul", dtype=dtype)
    c = net.op("add", keep, new, name="cell", dtype=dtype)
    return net.op("mul", gates["o"], net.op("tanh", c, name="cell_tanh", dtype=dtype), name="hidden", dtype=out), c


def lstm0(net: Builder, N: int) -> tuple[str, ...]:
    """Six cells of 1024 with residual connections from the third on: 24 FC and 34 vector layers, no padding."""
    x, states = net.input("x", (N, 1536)), []
    for index in range(6):
        net.prefix = f"cell{index}."
        h, c = net.input(f"h{index}", (N, 1024)), net.input(f"c{index}", (N, 1024))
        both = net.concat(x, h, axis=1)
        gates = {g: _gate(net, [both], 1024, act, f"gate_{g}", "int16") for g, act in GATES.items()}
        out, c = _cell(net, gates, c, "int16", "int16")
        states += [out, c]
        x = net.add(out, x, name="residual") if index >= 2 else out
    return (x, *states)


def lstm1(net: Builder, N: int) -> tuple[str, ...]:
    """Nine cells of 600 and an output layer: 37 FC layers of 94 matrices 600x600, five cells with a third input."""
    x, states = net.input("x", (N, 600)), []
    for index in range(9):
        net.prefix = f"cell{index}."
        dtype = "int16" if index < 5 else "int8"
        h, c = net.input(f"h{index}", (N, 600), dtype), net.input(f"c{index}", (N, 600), dtype)
        inputs = [x, h, net.input(f"extra{index}", (N, 600))] if index < 5 else [x, h]
        gates = {g: _gate(net, inputs, 600, act, f"gate_{g}", dtype) for g, act in GATES.items()}
        x, c = _cell(net, gates, c, dtype, "int16" if index < 4 else "int8")
        states += [x, c]
    net.prefix = ""
    return (_gate(net, [x, states[-4]], 600, "tanh", "output", "int8"), *states)


def cnn0(net: Builder, N: int) -> str:
    """A policy network on a 19x19 board (2888 operations per weight byte / batch 8 = 361 positions)."""
    x = net.conv(net.input("x", (N, 48, 19, 19)), 256, 5, p=2, fused="relu", name="conv1")
    for index in range(2, 15):
        x = net.conv(x, 256, 3, p=1, fused="relu", name=f"conv{index}")
    x = net.conv(x, 256, 1, fused="relu", name="conv15")
    return net.conv(x, 1, 1, name="conv16")


def cnn1(net: Builder, N: int) -> str:
    """Inception with batch normalisation (69 convolutions, 13 pools), three 1x1 convolutions, four wide FC layers."""

    def conv(x: str, features: int, k: int = 1, s: int = 1, name: str = "conv") -> str:
        return net.conv(x, features, k, s, "same", fused="relu", name=name)

    x = conv(net.input("x", (N, 3, 224, 224)), 64, 7, 2, "conv1")
    x = net.pool(x, "max", 3, 2, "same")
    x = conv(conv(x, 64, name="conv2_reduce"), 192, 3, name="conv2")
    x = net.pool(x, "max", 3, 2, "same")
    x = build_resnet.inception_modules(net, x, "relu")
    for index in range(3):
        x = conv(x, 1024, name=f"extra{index + 1}")
    x = net.flatten(net.global_pool(x))
    for index, width in enumerate((4096, 8192, 4096, 4096), 1):
        x = net.linear(x, width, bias=False, fused="relu" if index < 4 else "", name=f"fc{index}")
    return x


def _entry(body: object, batch: int, task: str, assumed: str, dtype: str = "int8", **notes: str) -> Entry:
    return Entry(
        body,  # type: ignore[arg-type]
        task=f"TPU v1 paper application: {task}",
        source=PAPER + assumed,
        licence="facts from the paper",
        dtype=dtype,
        notes={"batch": str(batch), **notes},
    )


RECURRENT = {
    "states": "a run is one time step; h* and c*, inputs and outputs here, stay on the accelerator between steps"
}

NETWORKS = {
    "tpu1_mlp0": _entry(
        partial(mlp, widths=(2000, 2048, 2000, 2048, 2000, 2048)), 200, "MLP0",
        "widths alternate between 2000 and 2048, which gives 20 M weights and 2.3 % unused MACs",
    ),
    "tpu1_mlp1": _entry(
        partial(mlp, widths=(512, 1200, 1200, 1200, 1200)), 168, "MLP1",
        "widths 512 and 4 x 1200, which give 4.93 M weights and 11.4 % unused MACs (table 3: 11.3 %)",
    ),
    "tpu1_lstm0": _entry(
        lstm0, 64, "LSTM0",
        "six cells of 1024 as in GNMT, the first with 1536 inputs: 24 gates, 30 element-wise and 4 residual layers, "
        "52.4 M weights, no unused MACs; 16-bit activations (the array is active twice as long as its TOPS need)",
        dtype="int16", **RECURRENT,
    ),
    "tpu1_lstm1": _entry(
        lstm1, 96, "LSTM1",
        "nine cells of 600 and an output layer, 37 FC layers written as their 94 matrices of 600x600 (section 7 names "
        "them): 33.8 M weights, 39 % unused MACs (table 3: 40 %); five cells have a third input and 16-bit activations",
        dtype="int16", **RECURRENT,
    ),
    "tpu1_cnn0": _entry(
        cnn0, 8, "CNN0",
        "19x19 board, 48 input planes, 5x5 then thirteen 3x3 then two 1x1 convolutions of 256 (AlphaGo's family): "
        "8.04 M weights",
    ),
    "tpu1_cnn1": _entry(
        cnn1, 32, "CNN1",
        "Inception with batch normalisation at 224x224 plus three 1x1 convolutions and FC 4096, 8192, 4096, 4096: "
        "72 convolutions, 13 pools, 4 FC, 101 M weights; the paper's 1750 operations per weight byte then count issued "
        "MACs, unused ones included (here 1799, 60 % of them unused; table 3: 51 %)",
    ),
}  # fmt: skip
