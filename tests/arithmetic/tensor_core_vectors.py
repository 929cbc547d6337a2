"""Reading the committed vectors, and the one call that answers each of them."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.arithmetic import fused_dot
from hwsim.arithmetic.formats import convert

DATA = Path(__file__).resolve().parents[1] / "data" / "tensor_core"
Array = np.ndarray[Any, Any]


@cache
def load(name: str) -> dict[str, Array]:
    with np.load(DATA / name) as archive:
        return {key: archive[key] for key in archive.files}


@cache
def index(name: str = "index.csv") -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as handle:
        return list(csv.DictReader(handle))


def generated(row: dict[str, str]) -> dict[str, Any]:
    """Arguments of `fused_dot` for a generated instruction, and its expected bits under "want"."""
    fields = load(row["file"])
    get = {key: fields[f"{row['id']}/{key}"] for key in ("a", "b", "c", "d")}
    arch, family, qualifier = row["id"].split("|")
    for side in ("a", "b"):
        if row[side] == "e2m1" and "mxf4" not in qualifier:
            get[side] = get[side] >> 2
    call: dict[str, Any] = {
        **get,
        "profile": arch.removesuffix(" Lovelace"),
        "input": (row["a"], row["b"]),
        "output": row["d"],
        "c_format": row["c"],
        "instruction": f"{family}.{qualifier}",
    }
    if row["scale"]:
        call |= {"scale_a": fields[f"{row['id']}/sa"], "scale_b": fields[f"{row['id']}/sb"]}
    call["want"] = call.pop("d")
    return call


def recorded() -> list[tuple[str, dict[str, Any]]]:
    """Every set recorded on silicon: a name, the arguments of `fused_dot`, "want"."""
    found: list[tuple[str, dict[str, Any]]] = []
    for gpu in ("V100", "A100", "A2", "Ada", "L40S", "H100", "H200", "B200"):
        fields = load(f"hw_{gpu}.npz")
        for key in fields:
            fmt, _, what = key.partition("/")
            if not what.startswith("d_"):
                continue
            output = what[2:]
            c, want = fields[f"{fmt}/c32"], fields[key]
            fp8 = fmt in ("E4M3", "E5M2")
            instruction: str | None = "mma.sync"
            if gpu.startswith("H") and fp8 and output == "fp32":
                instruction, c = "wgmma", np.zeros_like(c)
            if output == "fp16":
                c, want = convert(c, "fp32", "fp16"), convert(want, "fp32", "fp16")
            call = {"a": fields[f"{fmt}/a"], "b": fields[f"{fmt}/b"], "c": c, "want": want, "output": output}
            profile = {"Ada": "rtx-1000-ada"}.get(gpu, gpu)
            found.append(
                (f"{gpu}-{fmt}-{output}", call | {"input": fmt, "profile": profile, "instruction": instruction})
            )
    fields = load("hw_RTX4060_fp8.npz")
    for entry in json.loads((DATA / "hw_RTX4060_fp8.json").read_text()):
        a, b, c, want = (fields[f"{entry['id']}/{key}"] for key in "abcd")
        if entry["layout"] == "tile":
            k = a.shape[-1]
            a = np.broadcast_to(a[:, :, None, :], (*want.shape, k)).reshape(-1, k)
            b = np.broadcast_to(b[:, None, :, :], (*want.shape, k)).reshape(-1, k)
            c, want = c.ravel(), want.ravel()
        call = {"a": a, "b": b, "c": c, "want": want, "output": "fp32", "profile": "rtx-4060"}
        found.append(
            (f"RTX4060-{entry['id']}", call | {"input": (entry["fmt_a"], entry["fmt_b"]), "instruction": None})
        )
    return found


def integers(row: dict[str, str]) -> dict[str, Array]:
    fields = load("int_and_sparse_int.npz")
    return {key.rpartition("/")[2]: fields[key] for key in fields if key.rpartition("/")[0] == row["id"]}


def answer(call: dict[str, Any]) -> Array:
    """`fused_dot` of a call; a longer k is a chain of instructions of K = 32."""
    given = {key: value for key, value in call.items() if key != "want"}
    a, b, c = given.pop("a"), given.pop("b"), given.pop("c")
    step = 32 if a.shape[1] > 64 else a.shape[1]
    for k in range(0, a.shape[1], step):
        c = fused_dot(a[:, k : k + step], b[:, k : k + step], c, **given)
    return c


def differing(got: Array, want: Array, output: str) -> int:
    """Results that differ in any bit; for f64 a NaN is a NaN."""
    same = got == want
    if output in ("f64", "fp64"):
        same |= np.isnan(got.view(np.float64)) & np.isnan(want.view(np.float64))
    return int((~same).sum())
