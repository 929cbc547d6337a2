"""Suite ``tpu-v4``: matrix products, additions and layer norms of TPU v4 (a table that states no licence: ``--data``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from hwsim.network.graph import Network
from hwsim.validate.ask import simulated
from hwsim.validate.case import Case, Outcome
from hwsim.validate.measured import find, table

_EVENTS = {"matmul": "fusion", "add": "add", "layer_norm": "main"}
_SMALL_ADD = 200_000


def cases(folder: Path) -> list[Case]:
    """Return the rows, one per shape with the most samples; raises FileNotFoundError when the table is not there."""
    path = find(folder, "measured_tpu_v4_kernels")
    if path is None:
        raise FileNotFoundError(2, "", "measured_tpu_v4_kernels")
    best: dict[tuple[str, str], tuple[float, Case]] = {}
    for row in table(path):
        op = row["op"]
        if _EVENTS.get(op) != row["event"] or not row["median_us"]:
            continue
        sizes = [round(float(row[k])) for k in "MNK"] if op == "matmul" else [int(x) for x in row["dims"].split("x")]
        what = f"{op} {'x'.join(map(str, sizes))}"
        case = Case(
            "tpu-v4", int(row["row"]), "TPU v4", "tpu-v4", "systolic", what, "fp16", float(row["median_us"]) * 1e-6,
            group=op, size=_size(op, sizes),
            question={"op": op, "sizes": tuple(sizes), "options": {"precision": "fp16"}},
        )  # fmt: skip
        samples = float(row["n"])
        if (op, what) not in best or samples >= best[op, what][0]:
            best[op, what] = samples, case
    return [case for _, case in best.values()]


def _size(op: str, sizes: Sequence[int]) -> str:
    if op == "add":
        return "add <= 2e5 elements" if prod(sizes) <= _SMALL_ADD else "add > 2e5 elements"
    if op != "matmul":
        return op
    if max(sizes) < 128:
        return "all dims < 128"
    if max(sizes) < 1024:
        return "128 <= max < 1024"
    return "max >= 1024 > min" if min(sizes) < 1024 else "all dims >= 1024"


def _network(question: Mapping[str, Any]) -> Network:
    from hwsim.api import matmul
    from hwsim.network.builder import Builder

    sizes = question["sizes"]
    if question["op"] == "matmul":
        return matmul(*sizes)
    net = Builder(str(question["op"]))
    a = net.input("a", sizes)
    return net.build(net.op("add", a, net.input("b", sizes)) if question["op"] == "add" else net.op("layer_norm", a))


def predict(chosen: Sequence[Case]) -> list[Outcome]:
    """Return hwsim's answer to each case."""
    return simulated(chosen, _network)
