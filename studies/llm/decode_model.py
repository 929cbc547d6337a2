"""The model's times for the measured rows of attention over a cache: the append and the attention, as the tables have them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.plan.gpu_choose import ChoiceOptions, launch_seconds
from hwsim.schedule.gpu_view import GpuView, gpu_view
from hwsim.timing.gpu_decode import DecodeShape, decode_times
from hwsim.timing.gpu_memory import VectorWork, vector_times

BYTES = {"bfloat16": 2.0, "fp8": 1.0}


def view_of(machine: str, constants: dict[str, float] | None = None) -> GpuView:
    """Return a machine with some constants replaced."""
    view = gpu_view(load_accelerator(machine))
    return replace(view, constants={**view.constants, **(constants or {})})


def predicted_us(view: GpuView, rows: Any) -> np.ndarray[Any, Any]:
    """Return microseconds of append and attention for rows of one machine, started by turns in a CUDA graph."""
    launch = launch_seconds(view, ChoiceOptions())
    column = {name: rows[name].to_numpy() for name in ("batch", "heads", "kv_heads", "depth", "keys")}
    kv = rows.kv.map(BYTES).to_numpy()
    zero = np.zeros(len(rows))
    shape = DecodeShape(
        column["batch"] * column["kv_heads"], column["heads"] // column["kv_heads"], column["keys"], column["depth"],
        column["depth"], kv, zero + 2.0, zero + view.tensor_macs["bf16"], zero, zero, zero,
    )  # fmt: skip
    attention = decode_times(view, shape, launch)
    fresh = column["batch"] * column["kv_heads"] * 2 * column["depth"]
    read = 2.0 * (fresh + column["batch"] * column["heads"] * column["depth"])
    work = VectorWork(zero, fresh * kv, read + fresh * kv, -(-fresh // 8), 0.0, 0.0, read / 16)
    return (attention.time_s + vector_times(view, work, launch).time_s) * 1e6
