"""The serving engine against MLPerf's Server scenario: waiting predicted from the Offline rate and the configuration.

    python studies/mlperf_server/run.py

A batch takes as long as the Offline rate says (its size over the rate of one accelerator), and its inputs first cross PCIe
unless they start in device memory. Nothing is fitted. Two readings: batches of an accelerator run *one after the other*, or
its configured streams *share* it equally. Writes scores.csv, prints the tables of README.md.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from hwsim.serving import engine
from hwsim.serving.arrivals import SECOND_NS, Pattern, arrival_times
from hwsim.serving.setup import Kind, Requests, Setup

HERE = Path(__file__).parent
REQUESTS, WARMUP = 60_000, 6_000
INPUT_BYTES = {"resnet50": 3 * 224 * 224, "ssd-resnet34": 3 * 1200 * 1200}  # int8
PCIE3, PCIE4 = 12.35e9, 25e9  # B/s, as accelerators/t4.toml and a100-pcie-40gb.toml have them
MEASURED = ("mean_ms", "p50_ms", "p90_ms", "p99_ms")
READINGS = ("one", "shared")


def rows() -> list[dict[str, str]]:
    """The rows of MLPerf."""
    with (HERE / "rows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def latencies_ms(row: dict[str, str], reading: str, rate_per_s: float, count: int = REQUESTS) -> np.ndarray:
    """Sorted latencies of a run at a rate, the warm-up left out."""
    machines, batch = int(row["accelerators"]), int(row["batch"])
    each_s = machines / float(row["offline_per_s"])
    link = PCIE3 if row["system"].startswith("T4") else PCIE4
    copy_s = 0.0 if row["from_device"] == "True" else INPUT_BYTES[row["network"]] / link
    hold = (0, *(round(n * each_s * SECOND_NS) for n in range(1, batch + 1)))
    span = (0, *(h + round(n * copy_s * SECOND_NS) for n, h in enumerate(hold) if n))
    setup = Setup(
        (Kind((hold,), (span,), (0,), (0,), 1),),
        (0,) * machines,
        (round(float(row["delay_us"]) * 1000),),
        concurrent=int(row["streams"]) if reading == "shared" else 1,
    )
    arrival = arrival_times(Pattern(), rate_per_s, count, seed=0).tolist()
    seen = engine.run(setup, Requests(arrival, [0] * count, [1] * count))
    return np.sort((seen.finish_ns - seen.arrival_ns)[WARMUP:]) / 1e6


def predicted(row: dict[str, str], reading: str) -> list[float]:
    """Mean, p50, p90 and p99 at the measured rate, ms."""
    found = latencies_ms(row, reading, float(row["server_per_s"]))
    return [float(found.mean()), *(float(v) for v in np.percentile(found, [50, 90, 99]))]


def highest(row: dict[str, str], reading: str) -> float:
    """The highest rate, over the Offline rate, of which 99 % of the requests are answered within the bound."""
    low, high, offline, bound = 0.0, 1.0, float(row["offline_per_s"]), float(row["bound_ms"])
    while high - low > 0.002:
        middle = (low + high) / 2
        found = latencies_ms(row, reading, middle * offline)
        if float(np.percentile(found, 99)) <= bound:
            low = middle
        else:
            high = middle
    return low


def scores() -> list[dict[str, object]]:
    """One row for each of MLPerf's: what was measured, what either reading says."""
    out = []
    for row in rows():
        line: dict[str, object] = {
            name: row[name] for name in ("round", "system", "network", "accelerators", "batch", "delay_us", "streams")
        }
        line["load"] = round(float(row["server_per_s"]) / float(row["offline_per_s"]), 4)
        line |= {f"measured_{name}": round(float(row[name]), 3) for name in MEASURED}
        for reading in READINGS:
            line |= {
                f"{reading}_{name}": round(v, 3) for name, v in zip(MEASURED, predicted(row, reading), strict=True)
            }
            line[f"{reading}_highest"] = round(highest(row, reading), 3)
        out.append(line)
    return out


def table(found: list[dict[str, object]]) -> str:
    """Errors by network and streams, as Markdown: the median of signed errors, and the tenth and ninth tenth."""
    lines = [
        "| network | streams | rows | load | mean, one after the other | mean, shared | p99, one after the other | p99, shared |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in INPUT_BYTES:
        for name, several in (("1", False), ("2 to 5", True)):
            some = [line for line in found if line["network"] == network and (int(str(line["streams"])) > 1) is several]
            if not some:
                continue
            loads = [float(str(line["load"])) for line in some]
            cells = [network, name, str(len(some)), f"{min(loads):.2f} to {max(loads):.2f}"]
            cells += [error(some, reading, what) for what in ("mean_ms", "p99_ms") for reading in READINGS]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def error(some: list[dict[str, object]], reading: str, what: str) -> str:
    """The median error of some rows in words, with the range of four fifths of them."""
    ratios = [float(str(line[f"{reading}_{what}"])) / float(str(line[f"measured_{what}"])) - 1 for line in some]
    low, middle, high = (100 * float(v) for v in np.percentile(ratios, [10, 50, 90]))
    return f"{middle:+.0f} % ({low:+.0f} to {high:+.0f})"


def main() -> None:
    """Write scores.csv and print the table."""
    found = scores()
    with (HERE / "scores.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(table(found))


if __name__ == "__main__":
    main()
