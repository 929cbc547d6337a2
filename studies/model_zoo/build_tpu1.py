"""The six applications of the TPU v1 paper, reconstructed from what the paper says about them.

Jouppi et al., "In-Datacenter Performance Analysis of a Tensor Processing Unit", ISCA 2017: table 1 (layer counts,
weights, operations per weight byte, batch), table 3 (counters) and section 7 (LSTM1's 600x600 matrices). The layer
shapes were never published: those here are simple ones that give the published counts and weights and, where more
than one would, fit the counters. ``source`` of every trace says which is which; ``studies/tpu_v1`` shows what other
choices would give. Weights are int8; the LSTMs' activations are 16-bit where the counters ask for it. A run is one
batch of table 1 (``batch`` in the header). Recurrent applications are one time step, which is what an operational
intensity equal to the batch means: every weight is fetched once per step. Their states stay on the chip between steps;
a trace of one step has no earlier state, so the recurrent matrices (and the forget gate) read the cell's input
instead, a tensor of the same shape and place.
"""

from __future__ import annotations

from functools import partial

from build_common import Entry

from hwsim.network.builder import Builder

PAPER = (
    "Jouppi et al. 2017 (ISCA, arXiv:1704.04760): layer counts, weights, operations per weight byte and batch from "
    "table 1, unused MACs from table 3; shapes are not published. "
)


def mlp(net: Builder, N: int, *, widths: tuple[int, ...]) -> str:
    x = net.input("x", (N, widths[0]))
    for index, width in enumerate(widths[1:], 1):
        x = net.linear(x, width, bias=False, fused="relu", name=f"fc{index}")
    return x


# -- LSTM0 ------------------------------------------------------------------------------------------------------------


def _pair(net: Builder, x: str, h: str, act: str, name: str) -> tuple[str, str]:
    """Two gates of 1024: a product of x and one of h, the second adding the first; returns their halves."""
    n, width = net.shape(x)
    part = net.op("linear", x, out=(n, 2048), k=width, name=f"{name}_x", weight_dtype="int8")
    both = net.op("linear", h, part, out=(n, 2048), k=1024, fused=f"add+{act}", name=f"{name}_h", weight_dtype="int8")
    return net.split(both, 1, 0, 1024), net.split(both, 1, 1024, 1024)


def lstm0(net: Builder, N: int) -> str:
    """Six cells of 1024 with residual connections from the third on: 24 FC and 34 vector layers, no padding."""
    x = net.input("x", (N, 1536))
    for index in range(6):
        net.prefix = f"cell{index}."
        state = net.split(x, 1, 0, 1024, name="state") if net.shape(x)[1] != 1024 else x
        i, f = _pair(net, x, state, "sigmoid", "gates_if")
        g, o = _pair(net, x, state, "tanh", "gates_go")
        keep = net.op("mul", f, state, name="forget_mul")
        cell = net.op("add", keep, net.op("mul", i, g, name="input_mul"), name="cell")
        out = net.op("mul", o, net.op("tanh", cell, name="cell_tanh"), name="hidden")
        x = net.add(out, x, name="residual") if index >= 2 else out
    return x


# -- LSTM1 ------------------------------------------------------------------------------------------------------------


def _matrices(net: Builder, x: str, count: int, act: str, name: str, dtype: str) -> str:
    """act(W1 x1 + W2 x2 ...) with ``count`` matrices 600x600, tiled one by one as section 7 does.

    A convolution with one tap per matrix over the inputs side by side: each matrix has array tiles of its own.
    """
    n, width, _ = net.shape(x)
    inputs = net.op("expand", x, out=(n, width, count), name=f"{name}_inputs", dtype=dtype)
    return net.op("conv", inputs, out=(n, width, 1), k=(count,), fused=act, name=name, dtype=dtype, weight_dtype="int8")


def lstm1(net: Builder, N: int, *, wide: int = 5) -> str:
    """Nine cells of 600 and an output layer: 37 FC layers of 94 matrices 600x600, five cells with a third input.

    The first ``wide`` cells have 16-bit activations.
    """
    x = net.reshape(net.input("x", (N, 600)), (N, 600, 1))
    for index in range(9):
        net.prefix = f"cell{index}."
        dtype, count = "int16" if index < wide else "int8", 3 if index < 5 else 2
        i, f, g, o = (
            _matrices(net, x, count, act, f"gate_{name}", dtype)
            for name, act in (("i", "sigmoid"), ("f", "sigmoid"), ("g", "tanh"), ("o", "sigmoid"))
        )
        cell = net.op("mul", i, g, f, fused="add+tanh", name="cell", dtype=dtype)
        out = net.op("mul", o, cell, name="hidden", dtype="int16" if index < wide - 1 else "int8")
        x = net.op("add", out, x, name="residual", dtype="int8") if index == 8 else out
    net.prefix = ""
    return net.reshape(_matrices(net, x, 2, "tanh", "output", "int8"), (N, 600))


# -- CNNs -------------------------------------------------------------------------------------------------------------


def cnn0(net: Builder, N: int) -> str:
    """A policy network on a 19x19 board (2888 operations per weight byte / batch 8 = 361 positions)."""
    x = net.conv(net.input("x", (N, 48, 19, 19)), 256, 5, p=2, fused="relu", name="conv1")
    for index in range(2, 15):
        x = net.conv(x, 256, 3, p=1, fused="relu", name=f"conv{index}")
    x = net.conv(x, 256, 1, fused="relu", name="conv15")
    return net.conv(x, 1, 1, name="conv16")


def cnn1(net: Builder, N: int, *, width: int = 800) -> tuple[str, ...]:
    """72 convolutions, 13 pools and four fully connected layers on maps of 128 and 256 features."""
    x = net.conv(net.input("x", (N, 3, 299, 299)), 128, 17, 17, fused="relu", name="conv1")
    x = net.conv(x, 128, 3, p=1, fused="relu", name="conv2")
    for index in range(35):
        if index == 17:
            x = net.pool(x, "max", 4, 1)  # 17x17 to 14x14
        x = net.conv(x, 256, 3, p=1, fused="relu", name=f"conv{2 * index + 3}")
        if index % 3 == 1:
            x = net.pool(x, "max", 3, 1, 1)
        x = net.conv(x, 128, 3, p=1, fused="relu", name=f"conv{2 * index + 4}")
    # A fully connected layer on a map: positions keep their own rows of the array, half of them used.
    return tuple(net.conv(x, width, 14, name=f"fc{index}") for index in range(1, 5))


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
    "states": "a run is one time step; states stay on the accelerator between steps, and matrices that multiply them "
    "read the cell's input here, of the same shape"
}

NETWORKS = {
    "tpu1_mlp0": _entry(
        partial(mlp, widths=(2000, 2048, 2000, 2048, 2000, 2048)), 200, "MLP0",
        "Assumed: widths alternate between 2000 and 2048, which gives 20 M weights and 2.3 % unused "
        "MACs (table 3: 2.3 %)",
    ),
    "tpu1_mlp1": _entry(
        partial(mlp, widths=(1160, 1000, 1160, 1000, 1160)), 168, "MLP1",
        "Assumed: widths alternate between 1160 and 1000, which gives 4.64 M weights (table 1: 5 M) and 11.5 % unused "
        "MACs (table 3: 11.3 %). Chosen with the counters in view: the wider ends, which move more bytes over the host "
        "link; other widths miss the measured non-matrix share by 8 to 11 points",
    ),
    "tpu1_lstm0": _entry(
        lstm0, 64, "LSTM0",
        "Assumed: six cells of 1024, the first with 1536 inputs, as 24 products with 2048 columns (two gates each), 30 "
        "element-wise and 4 residual layers: 52.4 M weights, no unused MACs. Read off the counters: 16-bit activations "
        "(the array is active twice as long as the TOPS need)",
        dtype="int16", **RECURRENT,
    ),
    "tpu1_lstm1": _entry(
        lstm1, 96, "LSTM1",
        "Section 7 names 600x600 matrices. Assumed: nine cells, two vector layers each, a residual and an output "
        "layer: 37 FC layers of 94 matrices, tiled one by one, 33.8 M weights, 39 % unused MACs (table 3: 40 %). "
        "Read off the counters: five cells have a third input and 16-bit activations, four have neither",
        dtype="int16", **RECURRENT,
    ),
    "tpu1_cnn0": _entry(
        cnn0, 8, "CNN0",
        "Assumed: 19x19 board, 48 input planes, 5x5 then thirteen 3x3 then two 1x1 convolutions of 256 (AlphaGo's "
        "family): 8.04 M weights, 1 % unused MACs (table 3: none)",
    ),
    "tpu1_cnn1": _entry(
        cnn1, 32, "CNN1",
        "Assumed: 72 convolutions of 128 and 256 features on maps of 17x17 and 14x14, 13 pools, 299x299 input. Solved "
        "from the counters, so no independent evidence: depths (half of the MACs unused) and the four FC layers, whose "
        "tiles follow from the weight-stall counter and whose width of 800 from 100 M weights (here 101.2 M)",
    ),
}  # fmt: skip
