"""Predictions of single convolutions beside measured_conv.csv.gz: NeuSight (fp32, cuDNN names) and DeepBench (fp32, fp16, int8).

    PYTHONPATH=. python studies/gpu_networks/conv.py [--rows]

Excluded by rule: Raspberry Pi rows; DeepBench int8 rows whose channels are no multiple of 4 (padding is not stated); FFT
algorithms are kept (a library may choose them, this model has none).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from hwsim.machine import load_accelerator
from hwsim.plan.gpu_choose import ChoiceOptions, choose_kernels
from hwsim.plan.gpu_plan import STACKS, GpuTarget, make_gpu_plan
from hwsim.plan.gpu_precision import multiply_gpu
from hwsim.plan.precision import parse_precision
from hwsim.schedule.gpu_view import gpu_view
from hwsim.validate.gpu_network_rows import read
from hwsim.validate.measured import measured_dir

MACHINES = {"A100-PCIE-80GB": "a100-pcie-80gb", "T4": "t4", "V100-PCIE-32GB": "v100-pcie", "V100": "v100-sxm2"}


def rows() -> list[dict[str, Any]]:
    """Comparable rows as numbers."""
    out = []
    for r in read(measured_dir(), "measured_conv"):
        if r["device"] not in MACHINES:
            continue
        stride = [int(v) for v in r["stride"].split("x")]
        pad = [int(v) for v in r["pad"].split("x")]
        row: dict[str, Any] = {k: int(r[k]) for k in ("N", "C", "H", "W", "K", "R", "S")}
        row |= {"stride": (stride * 2)[:2], "pad": (pad * 2)[:2], "dtype": r["dtype"], "us": float(r["measured_us"]),
                "machine": MACHINES[r["device"]], "source": r["source"].split(":")[0], "kernel": r["kernel"]}  # fmt: skip
        out.append(row)
    return out


def predict(found: list[dict[str, Any]]) -> None:
    """Add ``pred_us``, ``algorithm`` and ``limiter`` to every row."""
    for machine, dtype in sorted({(r["machine"], r["dtype"]) for r in found}):
        mine = [r for r in found if (r["machine"], r["dtype"]) == (machine, dtype)]
        view = gpu_view(load_accelerator(machine))
        rates = {**view.simt_macs, **view.tensor_macs}
        target = GpuTarget(machine, lambda p, w, rates=rates: multiply_gpu(rates, p, "", w), lambda f, d: True)
        kernels = []
        for r in mine:
            from hwsim.network.builder import Builder

            net = Builder("c")
            x = net.input("x", (r["N"], r["C"], r["H"], r["W"]))
            padding = tuple(r["pad"]) * 2
            bound = net.build(
                net.op("conv", x, out=_out(r), k=(r["R"], r["S"]), s=tuple(r["stride"]), p=padding)
            ).bind()
            kernels.append(make_gpu_plan(bound, target, parse_precision(dtype), STACKS["compiled"], None).kernels[0])
        choices = choose_kernels(kernels, view, ChoiceOptions("stream", cold_code=False, throttle=True))
        for r, c in zip(mine, choices, strict=True):
            r["pred_us"], r["algorithm"], r["limiter"] = c.time_s * 1e6, c.algorithm, c.limiter
            r["tile"] = c.tile


def _out(r: dict[str, Any]) -> tuple[int, ...]:
    p = (r["H"] + 2 * r["pad"][0] - r["R"]) // r["stride"][0] + 1
    q = (r["W"] + 2 * r["pad"][1] - r["S"]) // r["stride"][1] + 1
    return (r["N"], r["K"], p, q)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", action="store_true")
    args = parser.parse_args()
    found = rows()
    predict(found)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for r in found:
        groups.setdefault((r["source"], r["machine"], r["dtype"]), []).append(r)
    for key, mine in groups.items():
        ratio = np.array([r["pred_us"] / r["us"] for r in mine])
        error = np.abs(ratio - 1)
        print(
            key,
            len(mine),
            f"median {np.median(error):.1%} p90 {np.quantile(error, 0.9):.1%} bias {np.median(ratio) - 1:+.1%}",
        )
        kinds: dict[str, list[float]] = {}
        for r, v in zip(mine, ratio, strict=True):
            name = r["kernel"] or "?"
            short = (
                "winograd"
                if "winograd" in name.lower()
                else "sgemm"
                if "sgemm" in name
                else "fft"
                if "gcgemm" in name or "FFT" in name
                else "implicit"
            )
            kinds.setdefault(f"{short}->{r['algorithm']}", []).append(v)
        for k, v in sorted(kinds.items()):
            print(
                f"      {k:34s} {len(v):5d} bias {np.median(v) - 1:+.1%} |e| {np.median(np.abs(np.array(v) - 1)):.1%}"
            )
    if args.rows:
        for r in found[:: max(1, len(found) // 200)]:
            print(r)


if __name__ == "__main__":
    main()
