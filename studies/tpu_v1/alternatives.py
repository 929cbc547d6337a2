"""What other reconstructions of the applications would give: the shapes are assumed, and some of them matter.

python studies/tpu_v1/alternatives.py        writes alternatives.csv beside this file
"""

from __future__ import annotations

import csv
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model_zoo"))

import build_tpu1 as zoo
import counters as study
from build_common import Entry, make

import hwsim

# application, what differs, body, activations; the first of each application is the trace in models/
ALTERNATIVES = (
    ("MLP1", "1160 and 1000, wide ends (in use)", partial(zoo.mlp, widths=(1160, 1000, 1160, 1000, 1160)), "int8"),
    ("MLP1", "1000 and 1160, narrow ends", partial(zoo.mlp, widths=(1000, 1160, 1000, 1160, 1000)), "int8"),
    ("MLP1", "1000 and 1250", partial(zoo.mlp, widths=(1000, 1250, 1000, 1250, 1000)), "int8"),
    ("MLP1", "512, then 1200", partial(zoo.mlp, widths=(512, 1200, 1200, 1200, 1200)), "int8"),
    ("LSTM0", "16-bit activations (in use)", zoo.lstm0, "int16"),
    ("LSTM0", "8-bit activations", zoo.lstm0, "int8"),
    ("LSTM1", "five cells of nine 16-bit (in use)", zoo.lstm1, "int16"),
    ("LSTM1", "all cells 16-bit", partial(zoo.lstm1, wide=9), "int16"),
    ("LSTM1", "all cells 8-bit", partial(zoo.lstm1, wide=0), "int8"),
    ("CNN1", "FC width 800 (in use)", zoo.cnn1, "int8"),
    ("CNN1", "FC width 512", partial(zoo.cnn1, width=512), "int8"),
    ("CNN1", "FC width 1024", partial(zoo.cnn1, width=1024), "int8"),
)


def main() -> None:
    apps, on = {app.name: app for app in study.measured()}, study.machine()
    rows = []
    for name, what, body, dtype in ALTERNATIVES:
        app = apps[name]
        net = make(f"{name} {what}", Entry(body, task="", source="", licence="", dtype=dtype))
        found = study.counters(hwsim.simulate(net, study.MACHINE, batch=app.batch).plan, on)
        off = [*study.errors(app, found), found["useful_macs"] - app.values["useful_macs"]]
        rows.append([name, what, round(net.params / 1e6, 2), *(round(x, 1) for x in off)])
        print(f"{name:6s} {what:36s}{net.params / 1e6:8.2f} M" + "".join(f"{x:+7.1f}" for x in off))
    with (study.HERE / "alternatives.csv").open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["application", "shapes", "million_weights", *study.COUNTERS, "useful_macs"])
        out.writerows(rows)


if __name__ == "__main__":
    main()
