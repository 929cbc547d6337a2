"""Record what SCALE-Sim 3.0 itself writes for small cases; run by hand, not by pytest.

    PY tests/scalesim/record_tool_reports.py tests/data/scalesim/tool_reports.json.gz

PY has ``scalesim`` 3.0.0 and ``numpy<2.3``. Cases the tool cannot run are recorded with the exception it died of.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIG = """[general]
run_name = case
[architecture_presets]
ArrayHeight: {h}
ArrayWidth: {w}
IfmapSramSzkB: {ifmap_kb}
FilterSramSzkB: {filter_kb}
OfmapSramSzkB: {ofmap_kb}
IfmapOffset: {ifmap_offset}
FilterOffset: {filter_offset}
OfmapOffset: 20000000
Bandwidth : {bandwidth}
Dataflow : {dataflow}
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: {ifmap_layout}
IfmapSRAMBankBandwidth: {ifmap_bandwidth}
IfmapSRAMBankNum: {ifmap_banks}
IfmapSRAMBankPort: {ports}
FilterCustomLayout: {filter_layout}
FilterSRAMBankBandwidth: {filter_bandwidth}
FilterSRAMBankNum: {filter_banks}
FilterSRAMBankPort: {ports}
[sparsity]
SparsitySupport : {sparsity}
SparseRep : {representation}
OptimizedMapping : {row_wise}
BlockSize : {block}
RandomNumberGeneratorSeed : {seed}
[run_presets]
InterfaceBandwidth: {mode}
UseRamulatorTrace: False
"""
ARRAYS = ((4, 4), (8, 8), (4, 6), (7, 3), (16, 16), (2, 5), (1, 1), (1, 3), (12, 14))


def case(draw: random.Random, theme: str) -> dict[str, Any]:
    """One random case: configuration, topology and layout text."""
    h, w = draw.choice(ARRAYS)
    values: dict[str, Any] = {
        "h": h,
        "w": w,
        "dataflow": draw.choice(("os", "ws", "is")),
        "mode": "CALC" if theme == "calc" else "USER" if theme in ("user", "layout") else draw.choice(("CALC", "USER")),
        "ifmap_kb": draw.choice((1, 1, 2, 3)),
        "filter_kb": draw.choice((1, 1, 2, 5)),
        "ofmap_kb": draw.choice((1, 1, 2)),
        "bandwidth": draw.choice(("10", "1", "3", "16", "10,20,30")),
        "ifmap_bandwidth": draw.choice((10, 1, 7, 16, 33)),
        "filter_bandwidth": draw.choice((10, 1, 3, 16)),
        "ifmap_offset": 0,
        "filter_offset": 10_000_000,
        **{"ifmap_layout": False, "filter_layout": False, "ifmap_banks": 1, "filter_banks": 1, "ports": 1},
        **{"sparsity": "false", "representation": "ellpack_block", "row_wise": "false", "block": 4, "seed": 40},
    }
    gemm = theme != "layout" and draw.random() < 0.4
    ratio, layout = "", "header,\n"
    if theme == "sparse":
        m = draw.choice((1, 2, 4, 8))
        ratio = f" {draw.randint(1, m)}:{m},"
        values |= {
            "sparsity": "true",
            "representation": draw.choice(("csr", "csc", "ellpack_block")),
            "row_wise": draw.choice(("true", "false")),
            "block": draw.choice((2, 4, 8, 3)),
            "seed": draw.randint(0, 99),
            "filter_offset": draw.choice((10_000_000, 100, 0)),
            "ifmap_offset": draw.choice((0, 0, 7)),
            "dataflow": draw.choice(("ws", "ws", "os", "is")),
        }
    if theme == "layout":
        factors = [draw.randint(1, 3) for _ in range(6)]
        ifmap_tile = factors[0] * factors[1] * factors[4]
        filter_tile = factors[2] * factors[3] * factors[4] * factors[5]
        banks = draw.choice((1, 2))
        orders = [base + i for base, n in ((0, 3), (3, 3), (0, 4), (4, 4)) for i in draw.sample(range(n), n)]
        values |= {
            "ifmap_layout": draw.random() < 0.7,
            "filter_layout": draw.random() < 0.7,
            "ifmap_bandwidth": ((ifmap_tile + banks - 1) // banks + draw.randint(0, 2)) * banks,
            "filter_bandwidth": filter_tile,
            "ifmap_banks": banks,
            "filter_banks": draw.choice([d for d in (1, 2, 3, 4) if filter_tile % d == 0]),
            "ports": draw.choice((1, 2)),
        }
        layout += "C," + ",".join(map(str, factors + orders)) + ",\n"
    layers = []
    for i in range(draw.choice((1, 1, 2, 3))):
        if gemm:
            layers.append(f"G{i},{draw.randint(1, 40)},{draw.randint(1, 40)},{draw.randint(1, 60)},{ratio}\n")
        else:
            rows, columns = draw.randint(1, 12), draw.randint(1, 12)
            window = f"{draw.randint(1, min(rows, 4))},{draw.randint(1, min(columns, 4))}"
            name = draw.choice(("C", "C", "C", "DP")) if theme in ("calc", "user") else "C"
            shape = f"{rows},{columns},{window},{draw.randint(1, 12)},{draw.randint(1, 24)},{draw.randint(1, 3)}"
            layers.append(f"{name}{i},{shape},{ratio}\n")
    config = CONFIG.format(**values)
    return {"gemm": gemm, "config": config, "topology": "header,\n" + "".join(layers), "layout": layout}


def run_tool(found: dict[str, Any], folder: Path) -> dict[str, str]:
    """The report files SCALE-Sim writes for a case."""
    from scalesim.scale_sim import scalesim  # type: ignore[import-not-found]

    for name in ("config", "topology", "layout"):
        (folder / name).write_text(found[name])
    with contextlib.redirect_stdout(io.StringIO()):
        tool = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(folder / "config"),
            topology=str(folder / "topology"),
            layout=str(folder / "layout"),
            input_type_gemm=found["gemm"],
        )
        tool.run_scale(top_path=str(folder / "out"))
    return {path.name: path.read_text() for path in sorted((folder / "out" / "case").iterdir()) if path.is_file()}


def main() -> None:
    draw = random.Random(20240607)
    cases = []
    for theme, count in (("calc", 40), ("user", 40), ("sparse", 60), ("layout", 30)):
        for _ in range(count):
            found = case(draw, theme)
            with tempfile.TemporaryDirectory() as folder:
                try:
                    outcome: dict[str, Any] = {"reports": run_tool(found, Path(folder))}
                except Exception as error:
                    outcome = {"refused": type(error).__name__}
            cases.append({"theme": theme, **found, **outcome})
    body = json.dumps(cases, indent=0).encode()
    with gzip.GzipFile(sys.argv[1], "wb", mtime=0) as file:
        file.write(body)
    print(len(cases), "cases,", sum("refused" in c for c in cases), "refused,", len(body), "bytes")


if __name__ == "__main__":
    main()
