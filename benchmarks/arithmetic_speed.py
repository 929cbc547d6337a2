"""Speed of bit-exact products: multiply-adds per second, and dot products against the public mmasim package.

Run: python benchmarks/arithmetic_speed.py [--size 1024]. Both wall time and processor time are printed, the best of
several runs after one that compiles; on a busy machine the processor time says what the code needs. The comparison
with mmasim 2.1.1 (pip install mmasim; needs torch) runs where that is installed: one dot product of K = 16 by
either's whole-tile call on the same operands, results compared bit for bit.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hwsim.arithmetic import encode, fused_dot, gemm

REPETITIONS = 3
CASES: list[tuple[str, str, str | None, dict[str, Any]]] = [
    ("v100", "fp16", "fp32", {}),
    ("a100", "fp16", "fp32", {}),
    ("a100", "fp16", "fp16", {}),
    ("a100", "bf16", "fp32", {}),
    ("a100", "tf32", "fp32", {}),
    ("a100", "fp16", "fp32", {"sparsity": "2:4"}),
    ("a100", "int8", "int32", {}),
    ("a100", "fp64", "fp64", {}),
    ("h100", "fp16", "fp32", {}),
    ("h100", "bf16", "fp32", {}),
    ("h100", "e4m3", "fp32", {}),
    ("h100", "e4m3", "fp16", {"instruction": "mma.sync"}),
    ("b200", "e4m3", "fp32", {}),
    ("tpu-v3", "bf16", "fp32", {}),
    ("tpu-v4", "bf16", "fp32", {}),
    ("tpu-v4", "int8", "int32", {}),
    ("tpu-v4", "fp32", "fp32", {"passes": 6}),
]


def best(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of the fastest of several runs."""
    run()
    found = []
    for _ in range(REPETITIONS):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        found.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(w for w, _ in found), min(c for _, c in found)


def products(size: int) -> None:
    """Multiply-adds per second of square products."""
    rng = np.random.default_rng(0)
    print(f"{size}³, {len(os.sched_getaffinity(0))} processors, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'profile':>8} {'input':>6} {'output':>6} {'options':<26} {'wall s':>7} {'GMAC/s':>7} {'cpu s':>7} {'GMAC/cpu-s':>10}"
    )
    for profile, fmt, output, options in CASES:
        if fmt == "int8":
            a, b = (rng.integers(-128, 128, (size, size)).astype(np.int8) for _ in range(2))
        else:
            a, b = (encode(rng.normal(size=(size, size)), fmt) for _ in range(2))
        if "sparsity" in options:
            a.reshape(size, -1, 4)[:, :, 2:] = 0
        wall, cpu = best(partial(gemm, a, b, profile=profile, input=fmt, output=output, **options))
        macs = size**3 / (2 if "sparsity" in options else 1)
        said = " ".join(f"{key}={value}" for key, value in options.items())
        case = f"{profile:>8} {fmt:>6} {output:>6} {said:<26}"
        print(f"{case} {wall:7.3f} {macs / wall / 1e9:7.2f} {cpu:7.3f} {macs / cpu / 1e9:10.2f}")


def against_mmasim() -> None:
    """Dot products of K = 16 (fp16 to fp32, Hopper) per second."""
    try:
        import torch
        from mmasim.nv_ptx.sim import MMA
    except ImportError:
        print("mmasim: not installed, no comparison")
        return
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(16, 16)).astype(np.float16), rng.normal(size=(16, 8)).astype(np.float16)
    peer = MMA("Hopper", "m16n8k16.f32.f16.f16.f32")
    left, right, zero = torch.from_numpy(a), torch.from_numpy(b), torch.zeros(16, 8)
    _, theirs = best(lambda: peer(left, right, zero))
    theirs /= 16 * 8
    n = 100_000
    x, y = (encode(rng.normal(size=(n, 16)), "fp16") for _ in range(2))
    _, dots = best(lambda: fused_dot(x, y, None, profile="h100", input="fp16"))
    same = np.array_equal(gemm(a, b, profile="h100", input="fp16"), peer(left, right, zero).numpy().view(np.uint32))
    print(f"one dot product of K = 16, processor time: mmasim {theirs * 1e6:.2f} µs; same bits: {same}")
    print(f"  fused_dot, {n} at once {dots / n * 1e9:18.1f} ns, {theirs * n / dots:8,.0f} times as fast")
    for depth in (16, 1024):
        p = rng.normal(size=(1024, depth)).astype(np.float16)
        q = rng.normal(size=(depth, 1024)).astype(np.float16)
        _, whole = best(partial(gemm, p, q, profile="h100", input="fp16", engine="numba"))
        each = whole / (1024 * 1024 * depth / 16)
        print(f"  gemm, 1024 x 1024 x {depth:<5} {each * 1e9:18.1f} ns, {theirs / each:8,.0f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    products(parser.parse_args().size)
    against_mmasim()
