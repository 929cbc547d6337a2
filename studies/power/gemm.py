"""Large matrix products on cards at their design power: time with the clock the power allows, and with the highest clock.

python studies/power/gemm.py        writes gemm.csv and its table in README.md

Rows: dense products of measured_gemm.csv.gz with M, N, K >= 1024, 512, 512 and at least 2^33 multiply-accumulates, on cards
of one power limit. The power model has no constant of these rows but voltage_top (two fp32 rows of the A100 PCIe cards);
what the GEMM model was fitted on is in docs of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from compare import HERE, markdown, put, write
from rows import reference

from hwsim.errors import HwsimError
from hwsim.machine import load_accelerator
from hwsim.schedule.gpu_view import gpu_view
from hwsim.timing.gpu_gemm import best_gemm, gemm_kind

MACHINES = {
    "A100-PCIE-40GB": "a100-pcie-40gb", "A100-PCIE-80GB": "a100-pcie-80gb", "A100-SXM4-80GB": "a100-sxm4-80gb",
    "H100-SXM-80GB": "h100-sxm", "H100-80GB": "h100-sxm", "L4": "l4", "L40S": "l40s", "T4": "t4", "V100": "v100-sxm2",
    "V100-PCIE-32GB": "v100-pcie", "B200": "b200", "RTX3090(sm_86)": "rtx-3090",
}  # fmt: skip
HEADER = (
    "card", "format", "rows", "design power W", "W at the highest clock", "clock / highest", "error with the limit",
    "error without", "ratio with", "ratio without",
)  # fmt: skip


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the reference data")
    rows = pd.read_csv(reference(parser.parse_args().data) / "measured_gemm.csv.gz")
    large = (rows.M >= 1024) & (rows.N >= 512) & (rows.K >= 512) & (rows.M * rows.N * rows.K >= 2**33)
    rows = rows[(rows.sparsity == "dense") & (rows.op == "gemm") & large & rows.device.isin(MACHINES)]
    lines = []
    for (device, form), some in rows.groupby(["device", "dtype"]):
        view = gpu_view(load_accelerator(MACHINES[device]))
        try:
            kind = gemm_kind(view, form)
        except HwsimError:
            continue
        shape = [some[c].to_numpy() for c in ("M", "N", "K")]
        free = best_gemm(view, kind, *shape, throttle=False)
        held = best_gemm(view, kind, *shape)
        with_, without = (r.time_s * 1e6 / some.measured_us.to_numpy() for r in (held, free))
        lines.append(
            (
                device, form, str(len(some)), f"{view.tdp_w or 0:.0f}", f"{np.median(free.power_w):.0f}",
                f"{np.median(held.clock_hz) / view.clock_hz:.2f}", f"{np.median(abs(with_ - 1)):.1%}",
                f"{np.median(abs(without - 1)):.1%}", f"{np.median(with_):.2f}", f"{np.median(without):.2f}",
            )
        )  # fmt: skip
    write("gemm.csv", HEADER, lines)
    page = (HERE / "README.md").read_text(encoding="utf-8")
    (HERE / "README.md").write_text(put(page, "gemm", markdown(HEADER, lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
