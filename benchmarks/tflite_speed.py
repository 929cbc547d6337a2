"""How fast 8-bit networks execute bit for bit: MobileNet-v2 end to end, and exact integer products.

    python benchmarks/tflite_speed.py

Prints wall and CPU seconds: the first run (weights prepared) and the best of several, in every semantics; and
multiply-accumulates per second of integer GEMMs through floating-point BLAS, each compared with int64 first.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hwsim.arithmetic.tflite_execute import TfliteSession
from hwsim.arithmetic.tflite_gemm import ExactWeights

MODEL = Path(__file__).parents[1] / "tests/data/tflite_golden/tflm_xtensa_mobilenet_v2_quantized.tflite.gz"
SEMANTICS = ("tflite-reference", "tflite-optimized", "xnnpack", "tflm")


def timed(run: Callable[[], object], times: int) -> tuple[float, float]:
    """Least wall and CPU seconds of several runs."""
    wall, cpu = [], []
    for _ in range(times):
        begin, used = time.perf_counter(), time.process_time()
        run()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - used)
    return min(wall), min(cpu)


def network() -> None:
    """MobileNet-v2 1.0 at 224 x 224, batch 1."""
    data = gzip.decompress(MODEL.read_bytes())
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 224, 224)).astype(np.int8)
    for semantics in SEMANTICS:
        found: list[TfliteSession] = []
        load = timed(lambda found=found, s=semantics: found.append(TfliteSession(data, semantics=s)), 1)
        session = found[0]
        first = timed(lambda session=session: session.run(x), 1)
        best = timed(lambda session=session: session.run(x), 7)
        print(
            f"MobileNet-v2 {semantics:17s} read {load[0]:.3f} s, first run {first[0]:.3f} s, "
            f"then {best[0]:.3f} s (CPU {best[1]:.3f} s)"
        )


def products() -> None:
    """Integer GEMMs: random int8, and the worst case of a deep layer."""
    rng = np.random.default_rng(1)
    for m, n, k, extreme in (
        (1024, 1024, 1024, False),
        (3136, 256, 2304, False),
        (1024, 1024, 1024, True),
        (196, 512, 4608, True),
    ):
        w = np.where(rng.random((k, n)) < 0.5, -127, 127) if extreme else rng.integers(-127, 128, (k, n))
        x = rng.integers(-128, 128, (m, k))
        weights = ExactWeights.of(w, 128)
        if not np.array_equal(weights.product(x[:8]).astype(np.int64), x[:8] @ w):
            raise SystemExit("a product is not exact")
        inputs = x.astype(weights.dtype)
        wall, cpu = timed(lambda weights=weights, inputs=inputs: weights.product(inputs), 9)
        rate = m * n * k / wall
        kind = f"{len(weights.blocks)} x {weights.dtype}"
        print(
            f"GEMM {m} x {n} x {k} {'extreme' if extreme else 'random '} {kind:12s} {rate:.2e} MAC/s (CPU {m * n * k / cpu:.2e})"
        )


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    network()
    products()
