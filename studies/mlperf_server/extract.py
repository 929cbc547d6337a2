"""Read rows of the Server scenario out of clones of MLPerf's result repositories; rows.csv is what it wrote.

    python extract.py CLONES > rows.csv

``CLONES`` holds git directories called mlcommons+inference_results_v0.7/repo and so on. Rows: closed division, NVIDIA's own
harness (LWIS), networks whose inputs have one shape. A row has what was measured (log summaries of performance run 1, Server
and Offline) and what was configured (batch, how long a batch waits, streams, whether inputs start in device memory).
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROUNDS = ("v0.7", "v1.0", "v1.1", "v2.0")
NETWORKS = ("resnet50", "ssd-resnet34")
SUMMARY = re.compile(r"^([^:=]+?)\s*(?:\(ns\))?\s*:\s*(\S+)", re.MULTILINE)
COLUMNS = (
    "round", "system", "accelerators", "network", "server_per_s", "offline_per_s", "mean_ms", "p50_ms", "p90_ms", "p99_ms",
    "p99.9_ms", "least_ms", "bound_ms", "batch", "offline_batch", "delay_us", "streams", "copy_streams", "from_device",
    "power_limit_w", "source",
)  # fmt: skip


class Clone:
    def __init__(self, folder: Path) -> None:
        self.git = ["git", "-C", str(folder)]
        self.commit = self.run("rev-parse", "HEAD").strip()
        self.files = self.run("ls-tree", "-r", "--name-only", "HEAD").splitlines()

    def run(self, *argv: str) -> str:
        return subprocess.run([*self.git, *argv], check=True, capture_output=True, text=True).stdout

    def read(self, path: str) -> str:
        return self.run("show", f"HEAD:{path}") if path in self.files else ""


def summary(text: str) -> dict[str, str]:
    return {name.strip(): value for name, value in SUMMARY.findall(text)}


def configuration(clone: Clone, network: str, scenario: str, system: str) -> dict[str, Any]:
    """The settings of a system: from JSON of the early rounds, from classes that inherit in the later ones."""
    base = f"closed/NVIDIA/configs/{network}/{scenario}"
    maxq = system.endswith("_MaxQ")
    name = re.sub(r"^DGX-(Station-)?A100_", "", system.removesuffix("_MaxQ").removesuffix("_TRT"))
    text = clone.read(f"{base}/config.json")
    if text:
        found = json.loads(text).get(name, {})
        settings = {k: v for k, v in found.items() if not isinstance(v, dict)}
        for other in [*found.get("extends", ()), *found.get("scales", {})]:
            settings = {**configuration(clone, network, scenario, other), **settings}
        if maxq:
            settings |= found.get("config_ver", {}).get("maxq", {})
        return settings
    classes: dict[str, tuple[str, dict[str, Any]]] = {}
    for block in re.split(r"\n(?=class )", clone.read(f"{base}/__init__.py")):
        head = re.match(r"class (\w+)\((\w+)\):", block)
        if head:
            values = {k: eval(v, {}) for k, v in re.findall(r"^    (\w+) = ([\d.]+|True|False)$", block, re.MULTILINE)}
            classes[head.group(1)] = (head.group(2), values)
    wanted = name.replace("-", "_").replace(".", "")
    wanted += "_MaxQ" if maxq else ""
    settings: dict[str, Any] = {}
    while wanted in classes:
        wanted, values = classes[wanted]
        settings = {**values, **settings}
    return settings


def rows(clone: Clone, round_: str) -> list[dict[str, Any]]:
    found = []
    for path in clone.files:
        match = re.fullmatch(
            r"closed/NVIDIA/results/([^/]+)/([^/]+)/Server/performance/run_1/mlperf_log_summary.txt", path
        )
        if not match or match.group(2) not in NETWORKS:
            continue
        system, network = match.groups()
        count = re.search(r"x(\d+)_TRT(_MaxQ)?$", system)
        if count is None:  # Triton, MIG slices and CPUs
            continue
        server, offline = summary(clone.read(path)), summary(clone.read(path.replace("/Server/", "/Offline/")))
        settings = configuration(clone, network, "Server", system)
        batch = configuration(clone, network, "Offline", system).get("gpu_batch_size", "")
        if server.get("Result is") != "VALID" or not offline or not settings:
            print(
                f"left out: {round_} {system} {network} {server.get('Result is')} {bool(offline)} {settings}",
                file=sys.stderr,
            )
            continue
        rate = server.get("Scheduled samples per second") or server.get("Scheduled samples per second ")
        ms = {q: float(server[f"{q} percentile latency"]) / 1e6 for q in ("50.00", "90.00", "99.00", "99.90")}
        target = server.get("target_latency") or server.get("target_latency (ns)")
        found.append(
            {
                "round": round_, "system": system, "accelerators": int(count.group(1)),
                "network": network, "server_per_s": rate, "offline_per_s": offline["Samples per second"],
                "mean_ms": float(server["Mean latency"]) / 1e6, "p50_ms": ms["50.00"], "p90_ms": ms["90.00"],
                "p99_ms": ms["99.00"], "p99.9_ms": ms["99.90"], "least_ms": float(server["Min latency"]) / 1e6,
                "bound_ms": float(target) / 1e6, "batch": settings.get("gpu_batch_size", ""), "offline_batch": batch,
                "delay_us": settings.get("deque_timeout_usec", settings.get("deque_timeout_us", "")),
                "streams": settings.get("gpu_inference_streams", ""), "copy_streams": settings.get("gpu_copy_streams", ""),
                "from_device": bool(settings.get("start_from_device", False)),
                "power_limit_w": settings.get("power_limit", ""),
                "source": f"mlcommons/inference_results_{round_}:{path}@{clone.commit[:12]}",
            }
        )  # fmt: skip
    return found


def main() -> None:
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    for round_ in ROUNDS:
        table.writerows(rows(Clone(Path(sys.argv[1]) / f"mlcommons+inference_results_{round_}" / "repo"), round_))


if __name__ == "__main__":
    main()
