"""Measured attention over a key/value cache: aiconfigurator's generation_attention tables, one row a shape.

The tables (ai-dynamo/aiconfigurator, Apache-2.0) are not part of this project: give their folder with ``--data``. Rules,
written before the fit: bf16 queries; no window; one beam; heads of 64 or 128; of each framework the newest version with a
thousand rows; a shape needs two frameworks, its time is their median. What was timed is a framework's attention layer in a
CUDA graph: the append of one token's keys and values, then the attention over the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SYSTEMS = {
    "a100_sxm": "a100-sxm4-80gb", "h100_sxm": "h100-sxm", "h200_sxm": "h200", "b200_sxm": "b200", "l40s": "l40s",
}  # fmt: skip
LEAST_ROWS = 1000
# Left out, with the reason: times that do not follow the length at all.
LEFT_OUT = {("l40s", "sglang", "0.5.12")}


def decode_rows(folder: Path) -> Any:
    """Return a DataFrame: machine, kv (cache format), batch, heads, kv_heads, depth, keys, measured_us (the median)."""
    import pandas as pd

    frames = []
    for path in sorted(folder.glob("*/attention/*/*/generation_attention_perf.parquet")):
        system, _, framework, version, _ = path.relative_to(folder).parts
        if system not in SYSTEMS or (system, framework, version) in LEFT_OUT:
            continue
        table = pd.read_parquet(path)
        if len(table) < LEAST_ROWS:
            continue
        frames.append(table.assign(system=system, framework=framework, release=_order(version)))
    rows = pd.concat(frames)
    newest = rows.groupby(["system", "framework"]).release.transform("max")
    window = rows.get("window_size", pd.Series(0, rows.index)).fillna(0)
    rows = rows[
        (rows.release == newest) & (window == 0) & (rows.attn_dtype == "bfloat16") & (rows.beam_width == 1)
        & rows.head_dim.isin([64, 128]) & rows.kv_cache_dtype.isin(["bfloat16", "fp8"])
    ]  # fmt: skip
    kv_heads = rows.num_key_value_heads.where(rows.num_key_value_heads > 0, rows.num_heads)
    rows = rows.assign(
        machine=rows.system.map(SYSTEMS), kv=rows.kv_cache_dtype, batch=rows.batch_size, heads=rows.num_heads,
        kv_heads=kv_heads, depth=rows.head_dim, keys=rows.isl + rows.step, us=rows.latency * 1e3,
    )  # fmt: skip
    shape = ["machine", "kv", "batch", "heads", "kv_heads", "depth", "keys"]
    per_framework = rows.groupby([*shape, "framework"]).us.min().reset_index()
    found = per_framework.groupby(shape).us.agg(["median", "count"]).reset_index()
    found = found[found["count"] >= 2].drop(columns="count").rename(columns={"median": "measured_us"})
    return found.astype(dict.fromkeys(shape[2:], int))


def _order(version: str) -> int:
    """A number that sorts as versions do; a release candidate counts as its number."""
    digits = [int(d) for d in "".join(c if c.isdigit() else " " for c in version).split()][:4]
    return sum(d * 1000 ** (3 - i) for i, d in enumerate(digits))
