"""The measured rows of the power study: parsed, mapped to a network and a machine, and kept or left out by rule.

Rules (written before any comparison; every one is a property of the row, never of its error):

R1  Rows that repeat another for a second accuracy target (99.9 %) with the same power are one row.
R2  3D-UNet from v2.0 on (KiTS19) is left out: how many windows a case takes is not in the record.
R3  Clocks are those of the row's configuration. 0 or nothing for the memory clock means not set: the value of the same
    network and scenario in v3.0, which is the board's lower setting; 0 for a DLA means off.
R4  Rows of v1.0 state no clocks: those of the same network and scenario in v1.1 are assumed (the same team and board);
    scored apart. Rows of cTuning state none and no limit: the board's highest; scored apart (trust C).
R5  Offline rows of networks with a DLA batch in their configuration run on the GPU and both DLAs.
R6  Servers with several GPUs are left out: their wall power is mostly other things.
R7  Wall rows of one-GPU servers are compared by differences within one system only.
R8  BERT runs at the mean length of its inputs (180 tokens of at most 384), RNN-T at 7.4 s of speech: assumed, for all rows.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

NETWORKS = {
    "ResNet-50 v1.5": ("resnet50", {}),
    "BERT-large": ("bert_large", {"S": 180}),
    "SSD-ResNet34": ("ssd_resnet34", {}),
    "RetinaNet-ResNeXt50": ("retinanet_resnext50", {}),
    "RNN-T": ("rnnt", {"S": 247, "U": 59}),
    "3D-UNet": ("unet_3d_brats", {}),
    "SSD-MobileNet-v1": ("ssd_mobilenet_v1", {}),
    "MobileNetV2": ("mobilenet_v2", {}),
}
BOARDS = {
    "Jetson AGX Xavier": "jetson-agx-xavier",
    "Jetson Xavier NX": "jetson-xavier-nx",
    "Jetson AGX Orin": "jetson-agx-orin-64gb",
}
LEAST_EMC = {"jetson-agx-orin-64gb": 2133.0, "jetson-agx-xavier": 1331.2, "jetson-xavier-nx": 1331.2}


@dataclass(frozen=True)
class Row:
    """One wall-power row: where, what, how, at which clocks (MHz; nan: not stated), and what was measured."""

    board: str
    group: str
    network: str
    shapes: tuple[tuple[str, int], ...]
    scenario: str
    batch: int
    precision: str
    dla: bool
    gpu_mhz: float
    dla_mhz: float
    emc_mhz: float
    cpu_mhz: float
    cpu_cores: int
    rate: float  # inferences per second, measured
    watts: float
    set: str  # stated, assumed (R4), ctuning (R4)

    @property
    def key(self) -> tuple[str, str, str]:
        """Board, network and scenario."""
        return self.board, self.network, self.scenario


def reference(argument: str | None = None) -> Path:
    """Return the folder of reference data: an argument, else HWSIM_REFERENCE, else the shared folder."""
    return Path(argument or os.environ.get("HWSIM_REFERENCE", "/work/shared/reference"))


def table(folder: Path) -> Any:
    import pandas as pd

    return pd.read_csv(folder / "measured_networks.csv.gz", low_memory=False)


def rate_of(rows: Any, scenario: str) -> float:
    """Inferences per second of the sibling rows of a power row."""
    if scenario == "offline":
        return float(rows[(rows.metric == "throughput_ips") & (rows.scenario == "offline")].value.iloc[0])
    times = rows[
        (rows.metric == "latency_ms") & rows.scenario.str.startswith(scenario) & rows.scenario.str.contains("mean")
    ]
    images = 8 if scenario == "multi-stream" else 1
    return images * 1e3 / float(times.value.iloc[0])


def jetson_rows(folder: Path) -> list[Row]:
    """Return the Jetson rows of MLPerf after R1 to R5."""
    data = table(folder)
    power = data[(data.metric == "power_w") & data.device.isin(BOARDS) & data.group.str.startswith("mlperf")]
    out: list[Row] = []
    for _, row in power.iterrows():
        if "99.9" in row.model:  # R1
            continue
        if row.model == "3D-UNet" and row.group not in ("mlperf-v1.0", "mlperf-v1.1"):  # R2
            continue
        siblings = data[
            (data.device == row.device) & (data.device_variant == row.device_variant) & (data.group == row.group)
            & (data.model == row.model)
        ]  # fmt: skip
        network, shapes = NETWORKS[row.model]
        ctuning = "nvidia_original" in row.device_variant
        clocks = {k: _number(rf"(?:xavier|soc)_{k}_freq=(\d+)", row.note) for k in ("gpu", "dla", "emc", "cpu")}
        batch = _number(r"gpu_batch_size=(\d+)", row.note)
        out.append(
            Row(
                board=BOARDS[row.device],
                group=row.group,
                network=network,
                shapes=tuple(shapes.items()),
                scenario=row.scenario,
                batch=int(batch) if not math.isnan(batch) else _default_batch(row.scenario),
                precision="fp16" if network == "rnnt" else "int8",
                dla="dla_batch_size" in row.note or (ctuning and row.scenario == "offline" and network == "resnet50"),
                gpu_mhz=clocks["gpu"] / 1e6,
                dla_mhz=clocks["dla"] / 1e6,
                emc_mhz=clocks["emc"] / 1e6,
                cpu_mhz=clocks["cpu"] / 1e3,
                cpu_cores=int(_number(r"orin_num_cores=(\d+)", row.note, 0)),
                rate=rate_of(siblings, row.scenario),
                watts=float(row.value),
                set="ctuning" if ctuning else "assumed" if row.group == "mlperf-v1.0" else "stated",
            )
        )
    return list(_clocks(out))


def _number(pattern: str, text: str, missing: float = math.nan) -> float:
    found = re.search(pattern, text)
    return float(found.group(1)) if found else missing


def _default_batch(scenario: str) -> int:
    return {"offline": 128, "multi-stream": 8}.get(scenario, 1)


def _clocks(rows: list[Row]) -> Iterator[Row]:
    """R3 and R4."""
    stated = {
        (r.board, r.network, r.scenario): r
        for r in rows
        if r.group in ("mlperf-v1.1", "mlperf-v3.0") and r.set == "stated"
    }
    for row in rows:
        if row.set == "assumed":
            like = stated[row.key]
            row = replace(row, gpu_mhz=like.gpu_mhz, dla_mhz=like.dla_mhz, emc_mhz=like.emc_mhz, cpu_mhz=like.cpu_mhz)
        elif row.set == "stated" and not row.emc_mhz > 0:
            row = replace(row, emc_mhz=LEAST_EMC[row.board])
        yield row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="folder of the reference data")
    for r in jetson_rows(reference(parser.parse_args().data)):
        print(r)
