"""The cycle counters of TPU v1's six applications, as hwsim times them and as the vendor measured them.

python studies/tpu_v1/counters.py        writes counters.csv, layer_sync.csv and counters.png beside this file

Measured: ``measured.csv`` (Jouppi et al. 2017). Modelled: the traces ``models/tpu1_*`` on ``accelerators/tpu-v1.toml``,
planned, lowered and timed as ``hwsim run`` does. README.md says what is assumed.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import hwsim
from hwsim.machine import load_accelerator, load_constants
from hwsim.plan.choose import lower_plan
from hwsim.plan.plan import Plan
from hwsim.schedule.systolic_view import SystolicView, systolic_view
from hwsim.schedule.table import UNIT
from hwsim.timing.run import run
from hwsim.timing.systolic_service import service_cycles

HERE = Path(__file__).resolve().parent
COUNTERS = ("array_active", "weight_stall", "weight_shift", "non_matrix")
MACHINE = "tpu-v1"
SCAN = range(500, 5001, 250)


@dataclass(frozen=True)
class Application:
    """One row of ``measured.csv``: what the paper states; counters and times in % of cycles."""

    name: str
    batch: int
    layers: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Machine:
    """TPU v1 as lowering and timing see it; replace a field to ask what it would change."""

    view: SystolicView
    constants: Mapping[str, float]

    def with_sync(self, cycles: float) -> Machine:
        return replace(self, constants={**self.constants, "layer_sync": cycles})


def measured() -> list[Application]:
    with (HERE / "measured.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = {"application", "batch", "layers", "source"}
    return [
        Application(
            r["application"], int(r["batch"]), int(r["layers"]), {k: float(v) for k, v in r.items() if k not in text}
        )
        for r in rows
    ]


def machine() -> Machine:
    acc = load_accelerator(MACHINE)
    return Machine(systolic_view(acc), load_constants("systolic", acc.architecture))


def plan_of(app: Application) -> Plan:
    """The plan ``hwsim run`` makes of an application at the paper's batch."""
    return hwsim.simulate(f"tpu1_{app.name.lower()}", MACHINE, batch=app.batch).plan


def counters(plan: Plan, on: Machine) -> dict[str, float]:
    """Cycles of one batch, and what the array did in them (% of cycles), by the paper's names.

    ``weight_stall``: idle until a weight tile is fetched; ``weight_shift``: idle while it is shifted in;
    ``non_matrix``: every other idle cycle (synchronisation, activation, vector layers, host link); ``useful_macs``: the
    share of multiply-accumulators times cycles with a weight of the network in them.
    """
    schedule = lower_plan(plan, on.view, on.constants)
    service = service_cycles(schedule, on.view, on.constants)
    timing = run(schedule, service.tolist())
    waits: dict[str, int] = {}
    for kernel in range(schedule.kernels):
        for cause, cycles in timing.waits_by_name(kernel).items():
            waits[cause] = waits.get(cause, 0) + cycles
    column = schedule.columns
    matrix = column["unit"] == UNIT["matrix"]
    time = (schedule.issues() * service)[matrix]
    share = 100 / timing.cycles
    active = float(timing.unit_busy[:, UNIT["matrix"]].sum()) * share
    stall, shift = (waits.get(cause, 0) * share for cause in ("weight_fetch", "weight_shift"))
    return {
        "cycles": timing.cycles,
        "array_active": active,
        "weight_stall": stall,
        "weight_shift": shift,
        "non_matrix": 100 - active - stall - shift,
        "useful_macs": float(np.sum(time * column["ops"][matrix] / column["issued"][matrix])) * share,
    }


def errors(app: Application, modelled: Mapping[str, float]) -> list[float]:
    """Modelled minus measured, percentage points, in the order of COUNTERS."""
    return [modelled[c] - app.values[c] for c in COUNTERS]


def worst(found: Sequence[float]) -> float:
    return max(abs(x) for x in found)


def sync_of(apps: Sequence[Application], plans: Mapping[str, Plan], on: Machine) -> dict[str, float]:
    """Cycles per layer each application loses to read-after-write stalls (a part of ``non_matrix``, counted apart)."""
    return {a.name: a.values["raw_stall"] / 100 * counters(plans[a.name], on)["cycles"] / a.layers for a in apps}


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def _table(apps: Sequence[Application], found: Mapping[str, Mapping[str, float]]) -> None:
    rows: list[list[object]] = []
    for app in apps:
        for name in (*COUNTERS, "useful_macs"):
            have, want = found[app.name][name], app.values[name]
            scored = "yes" if name in COUNTERS else "no"
            rows.append([app.name, name, want, round(have, 1), round(have - want, 1), scored])
    _write(HERE / "counters.csv", ["application", "counter", "measured", "modelled", "difference", "scored"], rows)
    print(f"{'% of cycles':12s}" + "".join(f"{c:>24s}" for c in (*COUNTERS, "useful_macs")) + "   vendor's model")
    print(f"{'':12s}" + "  measured modelled diff" * 5 + "   error in cycles, %")
    for app in apps:
        cells = [(app.values[c], found[app.name][c]) for c in (*COUNTERS, "useful_macs")]
        line = "".join(f"{want:10.1f}{have:9.1f}{have - want:+5.1f}" for want, have in cells)
        print(f"{app.name:12s}{line}{app.values['vendor_model_error']:10.1f}")
    every = [e for app in apps for e in errors(app, found[app.name])]
    print(f"worst of {len(every)} differences: {worst(every):.1f} points, mean {sum(map(abs, every)) / len(every):.1f}")


def _layer_sync(apps: Sequence[Application], plans: Mapping[str, Plan], on: Machine) -> None:
    """Print where the constant comes from, write how the counters depend on it."""
    each = sync_of(apps, plans, on)
    print("\nlayer_sync: cycles per layer from the RAW-stall counter")
    print("  " + ", ".join(f"{name} {value:.0f}" for name, value in each.items()))
    print(f"  median {statistics.median(each.values()):.0f}; in use {on.constants['layer_sync']:.0f}")
    for app in apps:
        rest = statistics.median(v for name, v in each.items() if name != app.name)
        error = worst(errors(app, counters(plans[app.name], on.with_sync(rest))))
        print(f"  without {app.name:6s} {rest:.0f}; its own worst difference then {error:.1f} points")
    rows = []
    for sync in SCAN:
        each_worst = [worst(errors(a, counters(plans[a.name], on.with_sync(sync)))) for a in apps]
        rows.append([sync, round(max(each_worst), 1), *(round(x, 1) for x in each_worst)])
    _write(HERE / "layer_sync.csv", ["layer_sync", "worst", *(a.name for a in apps)], rows)
    inside = [r[0] for r in rows if float(r[1]) <= 8]
    best = min(rows, key=lambda r: float(r[1]))
    print(f"  all counters within 8 points from {min(inside)} to {max(inside)}; best {best[0]}: {best[1]} points")


def _figure(apps: Sequence[Application], found: Mapping[str, Mapping[str, float]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"array_active": "#1b6ca8", "weight_stall": "#c8553d", "weight_shift": "#f2b880", "non_matrix": "#9aa5b1"}
    fig, ax = plt.subplots(figsize=(9, 4.2))
    for index, app in enumerate(apps):
        for side, values, name in ((-0.2, app.values, "paper"), (0.2, found[app.name], "hwsim")):
            base = 0.0
            for counter in COUNTERS:
                ax.bar(index + side, values[counter], 0.36, bottom=base, color=colours[counter])
                if values[counter] >= 4:
                    ink = "white" if counter in ("array_active", "weight_stall") else "black"
                    middle = base + values[counter] / 2
                    ax.text(index + side, middle, f"{values[counter]:.0f}", ha="center", va="center", size=8, color=ink)
                base += values[counter]
            ax.text(index + side, -1.5, name, ha="center", va="top", size=8)
    ax.set_xticks(range(len(apps)), [f"{a.name}\nbatch {a.batch}" for a in apps])
    ax.tick_params(axis="x", pad=12, length=0)
    ax.set_ylim(0, 100)
    ax.set_ylabel("% of cycles")
    ax.set_title("TPU v1: what the array did, measured (Jouppi et al. 2017, table 3) and modelled")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colours[c]) for c in COUNTERS]
    ax.legend(handles, [c.replace("_", " ") for c in COUNTERS], ncol=4, loc="upper center", bbox_to_anchor=(0.5, -0.2),
              frameon=False)  # fmt: skip
    for edge in ("top", "right"):
        ax.spines[edge].set_visible(False)
    fig.savefig(HERE / "counters.png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)


def main() -> None:
    apps, on = measured(), machine()
    plans = {a.name: plan_of(a) for a in apps}
    found = {a.name: counters(plans[a.name], on) for a in apps}
    _table(apps, found)
    _layer_sync(apps, plans, on)
    _figure(apps, found)


if __name__ == "__main__":
    main()
