"""How long an answer takes: warm, cold, and against doing nothing but importing numpy.

    python benchmarks/answer_speed.py

Prints CPU seconds (this process's, so that a busy machine does not matter): warm answers as the best of several, the cold
command as a child process with its peak memory, beside the cold start of `python -c "import numpy"` as the baseline.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import hwsim

WARM = [
    ("resnet50", "tpu-v3", {"batch": 8}, 0.020),
    ("resnet50", "tpu-v4", {"precision": "bf16"}, 0.020),
    ("llama3_8b", "tpu-v4", {"precision": "bf16", "phase": "prefill", "context": 2048}, 0.100),
    ("resnet50", "scalesim-32x32-ws", {"precision": "int8"}, None),
]


def best(run: Callable[[], object], times: int = 15) -> float:
    """Least CPU seconds of several runs, after one that is not counted."""
    run()
    out = []
    for _ in range(times):
        begin = time.process_time()
        run()
        out.append(time.process_time() - begin)
    return min(out)


def child(*argv: str) -> tuple[float, float]:
    """CPU seconds and peak MiB of a child process (the least of five runs)."""
    found = []
    for _ in range(5):
        pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *argv])
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{' '.join(argv)} failed")
        found.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
    return min(found)


def main() -> None:
    """Measure and print."""
    for network, target, options, bar in WARM:
        net = hwsim.load_network(network)
        acc = hwsim.load_accelerator(target)
        seconds = best(lambda net=net, acc=acc, options=options: hwsim.simulate(net, acc, **options).latency_s)
        limit = f" (bar {bar * 1e3:.0f} ms)" if bar else ""
        print(f"warm simulate({network}, {target}): {seconds * 1e3:.1f} ms CPU{limit}")
    null = [
        "-c",
        "import os, sys; sys.stdout = open(os.devnull, 'w'); from hwsim.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    command = ["run", "resnet50", "--on", "tpu-v3", "--batch", "8"]
    cpu, mib = child(*null, *command)
    base_cpu, base_mib = child("-c", "import numpy")
    print(f"cold `hwsim {' '.join(command)}`: {cpu:.2f} s CPU, {mib:.0f} MiB (bars 0.7 s, 120 MB)")
    print(f"baseline `python -c 'import numpy'`: {base_cpu:.2f} s CPU, {base_mib:.0f} MiB; ratio {cpu / base_cpu:.1f}")
    cpu, mib = child(*null, "--help")
    print(f"cold `hwsim --help`: {cpu:.2f} s CPU, {mib:.0f} MiB")
    version = subprocess.run([sys.executable, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{version}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
