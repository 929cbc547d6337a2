"""Every field of the recorded SCALE-Sim 3.0 runs is reproduced."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path

from hwsim.scalesim import Config, TopologyLayer
from hwsim.scalesim.engine import simulate_layer
from hwsim.scalesim.result import LayerReport

DATA = Path(__file__).parents[1] / "data" / "scalesim"


def recorded() -> list[dict[str, str]]:
    with gzip.open(DATA / "scalesim_runs.csv.gz", "rt", newline="") as file:
        return list(csv.DictReader(file))


def inputs(row: dict[str, str]) -> tuple[Config, TopologyLayer]:
    def whole(name: str) -> int:
        return int(float(row[name] or 1024))  # compute-only rows state no memory: their fields do not depend on it

    config = Config(
        array_h=whole("array_h"),
        array_w=whole("array_w"),
        dataflow=row["dataflow"],  # type: ignore[arg-type]
        mode=row["bw_mode"],  # type: ignore[arg-type]
        ifmap_sram_kb=whole("ifmap_sram_kB"),
        filter_sram_kb=whole("filter_sram_kB"),
        ofmap_sram_kb=whole("ofmap_sram_kB"),
        ifmap_bank_bandwidth=whole("ifmap_bw_words"),
        filter_bank_bandwidth=whole("filter_bw_words"),
        bandwidths=(whole("ofmap_bw_words"),),
    )
    sizes = (whole(n) for n in ("ifmap_h", "ifmap_w", "filt_h", "filt_w", "channels", "num_filt"))
    h, w, r, s, c, n = sizes
    kind = "gemm" if row["gemm_input"] == "1" else "conv"
    layer = TopologyLayer(row["layer"], kind, h, w, r, s, c, n, whole("stride_h"), whole("stride_w"))
    return config, layer


def fields(report: LayerReport) -> dict[str, float]:
    found = {
        "macs": report.macs,
        "demand_lines": report.demand_lines,
        "total_cycles_incl_prefetch": report.total_cycles_incl_prefetch,
        "total_cycles": report.total_cycles,
        "stall_cycles": report.stall_cycles,
        "overall_util_pct": report.overall_utilization_pct,
        "mapping_eff_pct": report.mapping_efficiency * 100,
        "compute_util_pct": report.compute_utilization * 100,
    }
    names = ("avg_ifmap_sram_bw", "avg_filter_sram_bw", "avg_ofmap_sram_bw")
    names += ("avg_ifmap_dram_bw", "avg_filter_dram_bw", "avg_ofmap_dram_bw")
    found |= zip(names, report.bandwidth_items(), strict=True)
    for memory in ("sram", "dram"):
        for operand, moved in (("ifmap", "reads"), ("filter", "reads"), ("ofmap", "writes")):
            span = getattr(report, f"{memory}_{operand}")
            found |= {f"{memory}_{operand}_start": span.start, f"{memory}_{operand}_stop": span.stop}
            found[f"{memory}_{operand}_{moved}"] = span.words
    return found


def test_every_recorded_field_is_equal() -> None:
    compared: Counter[str] = Counter()
    wrong = []
    rows = recorded()
    for row in rows:
        config, layer = inputs(row)
        assert (layer.m, layer.n, layer.k) == tuple(int(row[x]) for x in "MNK")
        for name, value in fields(simulate_layer(config, layer)).items():
            if row[name] == "":
                continue  # compute-only rows have no memory fields
            compared[row["kind"]] += 1
            if float(row[name]) != value:
                wrong.append((row["layer"], row["dataflow"], row["bw_mode"], name, row[name], value))
    assert wrong == []
    assert len(rows) == 454
    assert compared["full"] == 118 * 32, compared
    assert compared["compute"] >= 336 * 6, compared
