"""Regenerate every hand-built trace in ``models/`` (or, with names as arguments, those only).

python studies/model_zoo/build_all.py [NAME ...]
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_common import MODELS, Entry, make

from hwsim.network.trace import write_trace

SKIP = {"build_all", "build_common"}


def entries() -> Iterator[tuple[str, Entry]]:
    """Yield (name, entry) of every builder module in this folder, in file order; a name is used once."""
    seen: set[str] = set()
    for path in sorted(Path(__file__).resolve().parent.glob("build_*.py")):
        if path.stem in SKIP:
            continue
        for name, entry in importlib.import_module(path.stem).NETWORKS.items():
            if name in seen:
                raise ValueError(f"network {name} is built twice")
            seen.add(name)
            yield name, entry


def main(names: list[str]) -> None:
    MODELS.mkdir(exist_ok=True)
    table = dict(entries())
    for name in names or table:
        net = make(name, table[name])
        write_trace(net, MODELS / f"{name}.layers.csv")
        print(f"{name:28s} {len(net.layers):5d} layers {net.macs / 1e9:12.4f} GMAC {net.params / 1e6:12.3f} M params")


if __name__ == "__main__":
    main(sys.argv[1:])
