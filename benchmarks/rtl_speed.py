"""Speed of the systolic array models, on one core: register-transfer twin in PE-cycles/s, closed forms in layers/s.

Run: python benchmarks/rtl_speed.py. The best of several repetitions is printed, after one that compiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from hwsim.timing.reference.systolic_rtl import ArrayConfig, run_array
from hwsim.timing.systolic import array_cycles

REPETITIONS = 5


def best_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of the fastest of several runs."""
    run()
    seconds = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def operands(kind: str, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Random operands: all int8 values, or normally distributed bf16 bit patterns."""
    rng = np.random.default_rng(0)
    if kind == "int8":
        return rng.integers(-128, 128, (m, k), np.int8), rng.integers(-128, 128, (k, n), np.int8)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    return (a.view(np.uint32) >> 16).astype(np.uint16), (b.view(np.uint32) >> 16).astype(np.uint16)


def register_transfer() -> None:
    """PE-cycles/s of the compiled twin; with rows_per_clk = 2 an element performs two operations a cycle."""
    print(f"{'array':>9} {'dataflow':>8} {'operands':>8} {'options':<18} {'cycles':>7} {'PE-cycles/s':>11}")
    for size in (32, 128, 256):
        m, n, k = 2 * size, size, 4 * size
        for kind in ("int8", "bf16"):
            a, b = operands(kind, m, n, k)
            cases: list[tuple[str, dict[str, int]]] = [("ws", {}), ("is", {}), ("os", {})]
            cases += [("ws", {"rows_per_stage": 4}), ("ws", {"rows_per_clk": 2})]
            for dataflow, options in cases:
                array = ArrayConfig(size, size, **options)
                cycles = run_array(a, b, dataflow, array, compiled=True).total
                seconds = best_seconds(partial(run_array, a, b, dataflow, array, compiled=True))
                label = " ".join(f"{name}={value}" for name, value in options.items())
                rate = cycles * size * size / seconds
                print(f"{size:>4}x{size:<4} {dataflow:>8} {kind:>8} {label:<18} {cycles:>7} {rate:>11.2e}")


def closed_forms() -> None:
    """Layers/s of `array_cycles`, one at a time and many at once."""
    seconds = best_seconds(lambda: [array_cycles("ws", 3136, 64, 576, 128, 128) for _ in range(10_000)])
    print(f"closed form, one layer per call: {10_000 / seconds:.2e} layers/s")
    shapes = np.random.default_rng(0).integers(1, 5000, (3, 1_000_000))
    seconds = best_seconds(lambda: array_cycles("ws", *shapes, 128, 128))
    print(f"closed form, 10^6 layers per call: {1_000_000 / seconds:.2e} layers/s")


if __name__ == "__main__":
    register_transfer()
    closed_forms()
