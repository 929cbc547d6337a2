"""Suite ``tpu-v3``: cycles of one core of TPU v3 for products, convolutions, layer norms, softmax and ResNet-50."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim.network.graph import Network
from hwsim.validate.ask import simulated
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import find, table

_TARGET, _CLOCK_HZ = "tpu-v3-core", 940e6
_KINDS = {"gemm": "bf16", "conv": "bf16", "layernorm": "fp32", "softmax": "fp32", "resnet50": "bf16"}
RULES = {"unstated shape": "the source states neither batch nor length of the network"}


def cases(folder: Path) -> list[Case]:
    """Return the rows; raises FileNotFoundError when the table is not there."""
    path = find(folder, "measured_tpu_v3_cycles")
    if path is None:
        raise FileNotFoundError(2, "", "measured_tpu_v3_cycles")
    out = []
    for row in table(path):
        name = row["workload"]
        kind, _, sizes = name.partition("_")
        known = kind in _KINDS
        options = {"precision": _KINDS.get(kind, "bf16")}
        out.append(
            Case(
                "tpu-v3", int(row["row"]), "TPU v3, one core", _TARGET, "systolic", name, str(options["precision"]),
                float(row["tpu_v3_cycles"]) / _CLOCK_HZ, group=kind if known else "network", size=kind,
                excluded="" if known else "unstated shape", question={"kind": kind, "sizes": sizes, "options": options},
            )
        )  # fmt: skip
    return out


def _network(question: Mapping[str, Any]) -> Network | str:
    from hwsim.api import conv2d, matmul
    from hwsim.network.builder import Builder

    kind = str(question["kind"])
    if kind not in ("gemm", "conv", "layernorm", "softmax"):
        return kind
    s = tuple(int(x) for x in str(question["sizes"]).split("x"))
    if kind == "gemm":
        return matmul(m=s[0], k=s[1], n=s[2])
    if kind == "conv":
        n, h, w, c, k, r, stride, pad = s
        return conv2d(n=n, c=c, h=h, w=w, k=k, r=r, s=r, stride=stride, padding=pad)
    net = Builder(kind)
    x = net.input("x", s)
    return net.build(net.op("layer_norm" if kind == "layernorm" else "softmax", x))


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's answer to each case."""
    return simulated(chosen, _network, lambda result, case: result.cycles / result.totals.clock_hz)
