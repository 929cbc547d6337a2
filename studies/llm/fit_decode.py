"""Fit the one constant of attention over a cache (``decode_edge``) and score it on what it has not seen.

    python studies/llm/fit_decode.py --data FOLDER

FOLDER holds aiconfigurator's ``systems/data``. Fitted on a fifth of the bf16 rows of A100 and H100 with 64 keys or more
(below, the tables time kernels no language model spends its time in); scored on the rest, on three machines and on the
8-bit cache the fit never saw. Writes ``decode_scores.csv``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from decode_model import predicted_us, view_of
from decode_rows import decode_rows

FITTED = ("a100-sxm4-80gb", "h100-sxm")
LEAST_KEYS = 64
LOW, HIGH, STEP = 1000, 15000, 250
SIZES = (0.0, 1e6, 1e7, 1e8, 1e9, np.inf)


def errors(rows: Any, edge: float | None = None) -> Any:
    """Return signed relative errors of rows of any machines."""
    out = np.empty(len(rows))
    for machine in rows.machine.unique():
        mine = (rows.machine == machine).to_numpy()
        view = view_of(machine, None if edge is None else {"decode_edge": edge})
        out[mine] = predicted_us(view, rows[mine]) / rows.measured_us[mine] - 1
    return out


def main() -> None:
    """Fit, score, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    rows = decode_rows(parser.parse_args().data)
    rows = rows[rows["keys"] >= LEAST_KEYS].reset_index(drop=True)
    seen = rows.machine.isin(FITTED) & (rows.kv == "bfloat16") & (rows.index % 5 == 0)
    training = rows[seen]
    grid = np.arange(LOW, HIGH + 1, STEP)
    loss = [float(np.median(np.abs(errors(training, edge)))) for edge in grid]
    best = float(grid[int(np.argmin(loss))])
    print(f"decode_edge {best:.0f} on {len(training)} rows: median {min(loss):.3f}")
    held = rows[~seen].copy()
    held["error"] = errors(held, best)
    held["bytes"] = 2 * held.batch * held.kv_heads * held["keys"] * held.depth * held.kv.map({"bfloat16": 2, "fp8": 1})
    groups = [(machine, kv, low, high) for machine in sorted(held.machine.unique()) for kv in ("bfloat16", "fp8")
              for low, high in itertools.pairwise(SIZES)]  # fmt: skip
    lines = ["machine,kv,least_bytes,rows,median_error,median_abs_error,p90_abs_error"]
    for machine, kv, low, high in groups:
        found = held[(held.machine == machine) & (held.kv == kv) & (held.bytes > low) & (held.bytes <= high)].error
        if len(found):
            size = np.abs(found)
            lines.append(
                f"{machine},{kv},{low:.0f},{len(found)},{found.median():.3f},{size.median():.3f},{size.quantile(0.9):.3f}"
            )
    Path(__file__).with_name("decode_scores.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
