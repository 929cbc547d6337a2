"""CPU time of the SCALE-Sim drop-in against SCALE-Sim 3.0 itself, on ResNet-50 on a 32 × 32 weight-stationary array.

    python benchmarks/scalesim_speed.py --python PY [--budget 600] [--dataflow ws] [--mode CALC]

``PY`` is an interpreter with the tool (``pip install scalesim "numpy<2.3"``). The tool runs one layer per process with
traces off, its cheapest way, cheapest layers first, until the CPU budget is spent. The rest of the network is
extrapolated by a non-negative fit of its CPU time on demand lines and SRAM words (the two loops it spends it in); the
share that was measured and the fit's error on it are printed. Reports are compared byte for byte on the way.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from hwsim.scalesim import Config, Topology, TopologyLayer, parse_config, simulate
from hwsim.scalesim.report import report_texts

# name, H, W, R, S, C, N, stride, how often: the layers of SCALE-Sim's own topologies/mlperf/Resnet50.csv (MIT)
RESNET50 = """
Conv1 224 224 7 7 3 64 2 1
CB2a_1 56 56 1 1 64 64 1 1
CB2a_2 56 56 3 3 64 64 1 3
CB2a_3 56 56 1 1 64 256 1 4
IB2b_1 56 56 1 1 256 64 1 2
CB3a_1 56 56 1 1 256 128 2 1
CB3a_2 28 28 3 3 128 128 1 4
CB3a_3 28 28 1 1 128 512 1 4
CB3s 56 56 1 1 256 512 2 1
IB3b_1 28 28 1 1 512 128 1 3
CB4a_1 28 28 1 1 512 256 2 1
CB4a_2 14 14 3 3 256 256 1 6
CB4a_3 14 14 1 1 256 1024 1 6
CB4s 28 28 1 1 512 1024 2 1
IB4b_1 14 14 1 1 1024 256 1 5
CB5a_1 14 14 1 1 1024 512 2 1
CB5a_2 7 7 3 3 512 512 1 3
CB5a_3 7 7 1 1 512 2048 1 3
CB5s 14 14 1 1 1024 2048 2 1
IB5b_1 7 7 1 1 2048 512 1 2
FC6 1 1 1 1 2048 1000 1 1
"""

CONFIG = """[general]
run_name = resnet50
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 10
Dataflow: {dataflow}
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: {mode}
UseRamulatorTrace: False
"""

TOOL = """
import json, os, resource, sys
from scalesim.scale_sim import scalesim
folder = sys.argv[1]
start = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
tool = scalesim(save_disk_space=True, verbose=False, config=folder + "/c.cfg", topology=folder + "/t.csv",
                layout=folder + "/l.csv", input_type_gemm=False)
tool.run_scale(top_path=folder + "/out")
cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - start
run = folder + "/out/" + os.listdir(folder + "/out")[0]
print("RESULT " + json.dumps({"cpu": cpu, "files": {f: open(run + "/" + f).read() for f in os.listdir(run)}}))
"""


def layers() -> list[tuple[TopologyLayer, int]]:
    """Distinct layers and how often each occurs."""
    found = []
    for line in RESNET50.split("\n"):
        if line:
            name, *cells = line.split()
            h, w, r, s, c, n, stride, count = map(int, cells)
            found.append((TopologyLayer(name, "conv", h, w, r, s, c, n, stride, stride), count))
    return found


def topology_text(layer: TopologyLayer) -> str:
    sizes = (layer.ifmap_h, layer.ifmap_w, layer.filter_h, layer.filter_w, layer.channels, layer.n, layer.stride_h)
    return "header,\n" + ",".join([layer.name, *map(str, sizes)]) + ",\n"


def run_tool(python: str, config: str, layer: TopologyLayer) -> tuple[float, dict[str, str]]:
    """CPU seconds of the tool on one layer (its imports not counted) and the reports it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c.cfg").write_text(config)
        Path(folder, "t.csv").write_text(topology_text(layer))
        Path(folder, "l.csv").write_text("header\n")
        done = subprocess.run([python, "-c", TOOL, folder], capture_output=True, text=True, check=True)
    line = next(text for text in done.stdout.splitlines() if text.startswith("RESULT "))
    result = json.loads(line.removeprefix("RESULT "))
    return result["cpu"], result["files"]


def work(config: Config, layer: TopologyLayer) -> tuple[float, float]:
    """What the tool's time is spent on: demand lines, and words looked up or stored in SRAM."""
    report = simulate(config, Topology("one", "conv", (layer,)))[0]
    words = report.sram_ifmap.words + report.sram_filter.words + report.sram_ofmap.words
    return float(report.demand_lines), float(words)


def own_cpu(config: Config, network: Topology, apart: bool = False, repeats: int = 7) -> float:
    """Median CPU seconds of the engine for the whole network in a warm process.

    ``apart`` costs every layer anew; otherwise equal layers are costed once, as ``simulate`` does.
    """
    runs = [Topology("one", "conv", (layer,)) for layer in network.layers] if apart else [network]
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for topology in runs:
            simulate(config, topology)
        times.append(time.process_time() - start)
    return sorted(times)[repeats // 2]


def cold_cpu(config: str, network: Topology) -> float:
    """CPU seconds of the command in a new process: interpreter, imports, reading, costing, writing the reports."""
    code = "import argparse, sys; from hwsim.scalesim import command as c; p = argparse.ArgumentParser()"
    code += "; c.add_arguments(p); sys.exit(c.main(p.parse_args()))"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "c.cfg").write_text(config)
        text = "header,\n" + "".join(topology_text(layer).split("\n")[1] + "\n" for layer in network.layers)
        Path(folder, "t.csv").write_text(text)
        command = [sys.executable, "-c", code, "-c", f"{folder}/c.cfg", "-t", f"{folder}/t.csv", "-p", folder, "-q"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fit(rows: list[tuple[float, float]], cpu: list[float]) -> np.ndarray:
    """Non-negative seconds per line and per word, least squares of relative errors (two unknowns, so by cases)."""
    a, b = np.array(rows) / np.array(cpu)[:, None], np.ones(len(cpu))
    best = np.linalg.lstsq(a, b, rcond=None)[0]
    if (best >= 0).all():
        return best
    single = [np.dot(a[:, i], b) / np.dot(a[:, i], a[:, i]) for i in (0, 1)]
    errors = [float(np.sum((a[:, i] * single[i] - b) ** 2)) for i in (0, 1)]
    keep = int(np.argmin(errors))
    return np.array([single[0] if keep == 0 else 0.0, single[1] if keep == 1 else 0.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", help="interpreter with scalesim and numpy<2.3; without it only hwsim is timed")
    parser.add_argument("--budget", type=float, default=600.0, help="CPU seconds of the tool (default: %(default)s)")
    parser.add_argument("--dataflow", choices=("os", "ws", "is"), default="ws")
    parser.add_argument("--mode", choices=("CALC", "USER"), default="CALC")
    args = parser.parse_args()
    text = CONFIG.format(dataflow=args.dataflow, mode=args.mode)
    config = parse_config(text)
    distinct = layers()
    network = Topology("resnet50", "conv", tuple(replace(la, line=i) for la, n in distinct for i in range(n)))
    own, apart, cold = own_cpu(config, network), own_cpu(config, network, apart=True), cold_cpu(text, network)
    print(f"ResNet-50, {len(network.layers)} layers, 32 x 32 {args.dataflow}, {args.mode}")
    print(f"hwsim: {own * 1e3:.0f} ms CPU warm, {apart * 1e3:.0f} ms with equal layers costed again and again,")
    print(f"  {cold * 1e3:.0f} ms the whole command from a cold start", flush=True)
    if not args.python:
        return

    costs = {layer.name: work(config, layer) for layer, _ in distinct}
    order = sorted(distinct, key=lambda item: costs[item[0].name][0] / 2500 + costs[item[0].name][1] / 150_000)
    measured: dict[str, float] = {}
    equal = 0
    for layer, _ in order:
        guess = costs[layer.name][0] / 4000 + costs[layer.name][1] / 250_000
        if sum(measured.values()) + guess > args.budget and len(measured) >= 3:
            continue
        cpu, files = run_tool(args.python, text, layer)
        measured[layer.name] = cpu
        own_files = report_texts(config, simulate(config, Topology("one", "conv", (layer,))))
        same = all(files[name] == body for name, body in own_files.items())
        equal += same
        state = "reports equal byte for byte" if same else "REPORTS DIFFER"
        print(f"  SCALE-Sim {layer.name:<8} {cpu:8.1f} s CPU   {state}", flush=True)
    rates = fit([costs[name] for name in measured], list(measured.values()))
    predicted = {name: float(np.dot(costs[name], rates)) for name in costs}
    errors = [abs(predicted[name] / cpu - 1) for name, cpu in measured.items()]
    total = math.fsum(count * measured.get(layer.name, predicted[layer.name]) for layer, count in distinct)
    share = math.fsum(count * measured.get(layer.name, 0.0) for layer, count in distinct) / total
    covered = sum(count for layer, count in distinct if layer.name in measured)
    one_by_one = Topology("measured", "conv", tuple(layer for layer, _ in distinct if layer.name in measured))
    on_measured = own_cpu(config, one_by_one)
    spent = math.fsum(measured.values())
    times = spent / on_measured
    print(f"measured: {len(measured)} of {len(distinct)} distinct layers, {equal} with equal reports")
    print(f"  on those: SCALE-Sim {spent:.1f} s, hwsim {on_measured * 1e3:.1f} ms: {times:,.0f} times less CPU")
    print(
        f"whole network: {covered} of {len(network.layers)} layers, {share:.0%} of the time measured, rest by the fit"
    )
    print(f"  fit: {rates[0] * 1e6:.1f} us per line + {rates[1] * 1e6:.2f} us per word")
    print(f"  fit error on the measured layers: mean {np.mean(errors):.0%}, worst {max(errors):.0%}")
    print(
        f"  SCALE-Sim {total:.0f} s CPU; hwsim {total / own:,.0f} times less warm, {total / apart:,.0f} times with every"
    )
    print(f"  layer costed anew, {total / cold:,.0f} times for the cold command")


if __name__ == "__main__":
    main()
