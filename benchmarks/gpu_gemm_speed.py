"""How many distinct matrix products a second one core costs on GPUs: every tile and split compared, clock solved.

`python benchmarks/gpu_gemm_speed.py`: one table, for arrays of random shapes (no two alike) and for single products.
"""

from __future__ import annotations

import time

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_gemm import SPLITS, best_gemm, gemm_kind

CASES = (
    ("a100-sxm4-80gb", "bf16"), ("h100-sxm", "bf16"), ("h100-sxm", "fp8"), ("b200", "nvfp4"), ("l40s", "bf16"),
    ("t4", "fp32"), ("v100-sxm2", "fp16"),
)  # fmt: skip
ROWS = 2000


def shapes(rows: int, seed: int = 0) -> np.ndarray:
    """Return distinct random m, n, k of 1 to 16384, log-uniform; [rows, 3]."""
    rng = np.random.default_rng(seed)
    out = np.unique(np.exp(rng.uniform(0, np.log(16384), (2 * rows, 3))).astype(np.int64) + 1, axis=0)
    return rng.permutation(out)[:rows]


def main() -> None:
    print(f"{'machine':16} {'format':6} {'candidates':>10} {'GEMM/s/core':>12} {'one alone':>10}")
    for name, number_format in CASES:
        view = gpu_view(load_accelerator(name))
        kind = gemm_kind(view, number_format)
        m, n, k = shapes(ROWS).T
        best_gemm(view, kind, m[:8], n[:8], k[:8])
        began = time.process_time()
        best_gemm(view, kind, m, n, k)
        rate = ROWS / (time.process_time() - began)
        began = time.process_time()
        for i in range(50):
            best_gemm(view, kind, m[i], n[i], k[i])
        alone = (time.process_time() - began) / 50
        candidates = len(kind.tiles(view)) * len(SPLITS)
        print(f"{name:16} {number_format:6} {candidates:10} {rate:12.0f} {alone * 1e3:7.2f} ms")


if __name__ == "__main__":
    main()
