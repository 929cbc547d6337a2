"""Copy the served language models of aiconfigurator into the package: python studies/llm/share_served.py [FILE]

FILE is ``aic-core/src/aiconfigurator_core/systems/silicon_sample.csv`` of github.com/ai-dynamo/aiconfigurator (Apache-2.0;
this copy: commit 095f58a51c4c of 2026-08-21), fetched from there when it is not given. Kept are the rows of dense models that
hwsim has traces of, on one pool of GPUs, and the columns the suite reads; every row keeps its ``id``.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import urllib.request
from pathlib import Path

ADDRESS = (
    "https://raw.githubusercontent.com/ai-dynamo/aiconfigurator/095f58a51c4ca8e61b66ec108d86f223f8d559ce/"
    "aic-core/src/aiconfigurator_core/systems/silicon_sample.csv"
)
TARGET = Path(__file__).resolve().parents[2] / "hwsim" / "validate" / "measured" / "measured_llm_served.csv.gz"
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct", "nvidia/Llama-3.1-8B-Instruct-FP8", "meta-llama/Llama-3.1-70B", "Qwen/Qwen3-32B",
    "nvidia/Qwen3-32B-NVFP4",
)  # fmt: skip
COLUMNS = (
    "id", "silicon_data_source", "backend", "backend_version", "model_path", "system", "precision", "mode", "isl", "osl",
    "gemm_quant_mode", "batch_size", "tp_size", "pp_size", "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip


def main(text: str) -> None:
    rows = [row for row in csv.DictReader(io.StringIO(text)) if row["model_path"] in MODELS and row["mode"] == "agg"]
    for row in rows:  # paths of a person's machine say nothing to anybody else
        parts = (part.strip() for part in row["silicon_data_source"].split(";"))
        row["silicon_data_source"] = "; ".join("source_file=" + p.split("/")[-1] if "/" in p else p for p in parts)
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    with TARGET.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(out.getvalue().encode())
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]).read_text(encoding="utf-8"))
    else:
        with urllib.request.urlopen(ADDRESS) as page:
            main(page.read().decode("utf-8"))
